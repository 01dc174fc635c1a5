"""Weights: safetensors files, written by the format's own package, as read-only views onto a shared mapping."""

from __future__ import annotations

import gc
import json
import os
import struct
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

import inferkit

DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]


def raw_file(path: Path, header: object, data: bytes) -> Path:
    """Write a file by hand: what the safetensors package would not write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {name: (rng.standard_normal((3, 5)) * 50).astype(name) for name in DTYPES}
    tensors["scalar"] = np.array(2.5, np.float32)
    tensors["empty"] = np.zeros((0, 4), np.float32)
    out = tmp_path / "w.safetensors"
    save_file(tensors, out, metadata={"format": "np", "ключ": "значение"})
    return out


def test_every_dtype_as_the_package_wrote_it(path: Path) -> None:
    weights = inferkit.Weights.open(path)
    expected = safetensors.numpy.load_file(path)
    assert set(weights) == set(expected)
    for name, array in expected.items():
        assert weights[name].dtype == array.dtype
        assert weights[name].shape == array.shape
        assert np.array_equal(weights[name], array)
        assert weights.dtype(name) == str(array.dtype)
    assert weights.metadata == {"format": "np", "ключ": "значение"}
    assert weights.nbytes == sum(a.nbytes for a in expected.values())
    assert weights.file_bytes == path.stat().st_size
    assert weights.path == str(path)
    assert repr(weights) == f"<inferkit.Weights: 14 tensors, {weights.nbytes} bytes, from {str(path)!r}>"


def test_views_are_read_only_and_not_copies(path: Path) -> None:
    weights = inferkit.Weights.open(path)
    view = weights["uint8"]
    assert view.base is weights
    assert not view.flags.owndata
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    # What is written to the file is seen: the pages are the file's.
    content = bytearray(path.read_bytes())
    at = content.index(view.tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([view[0, 0] ^ 0xFF]))
    assert view[0, 0] == content[at] ^ 0xFF


def test_the_mapping_is_shared_by_the_system(path: Path) -> None:
    weights = inferkit.Weights.open(path)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    assert len(lines) == 1
    assert lines[0].split()[1] == "r--s"
    del weights


def test_views_outlive_the_weights(path: Path) -> None:
    weights = inferkit.Weights.open(path)
    view = weights["int64"][1:]
    expected = view.copy()
    del weights
    gc.collect()
    assert np.array_equal(view, expected)
    del view
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_it_is_a_mapping(path: Path) -> None:
    weights = inferkit.Weights.open(str(path))
    assert isinstance(weights, Mapping)
    assert len(weights) == 14
    assert list(weights) == list(weights.keys()) == [name for name, _ in weights.items()]
    assert weights.keys() >= {"float32", "scalar"}
    assert "float32" in weights
    assert "x" not in weights
    assert 1 not in weights
    assert np.array_equal(dict(weights)["int8"], weights["int8"])
    assert len(list(weights.values())) == 14
    assert weights.get("x") is None
    assert weights.get("x", 3) == 3
    assert np.array_equal(weights.get("int8"), weights["int8"])


def test_unknown_names_come_with_close_ones(path: Path) -> None:
    weights = inferkit.Weights.open(path)
    with pytest.raises(KeyError, match=r"no tensor 'flot32'; close names are .*float32"):
        weights["flot32"]
    with pytest.raises(
        KeyError, match=r"no tensor '§'; it has 14 tensors: '\w+', '\w+', '\w+', '\w+', '\w+', \.\.\.\""
    ):
        weights["§"]
    with pytest.raises(KeyError):
        weights.dtype("flot32")


def test_tensors_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    header = {"z": entry("U8", [1], 0, 1), "a": entry("U8", [2], 2, 4), "m": entry("U8", [1], 1, 2)}
    weights = inferkit.Weights.open(raw_file(tmp_path / "w", header, b"1234"))
    assert list(weights) == ["z", "m", "a"]
    assert weights["a"].tobytes() == b"34"


def test_unaligned_tensors_are_legal_arrays(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 1e30], np.float32)
    header = {"pad": entry("U8", [1], 0, 1), "w": entry("F32", [3], 1, 13)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = inferkit.Weights.open(raw_file(tmp_path / "w", text, b"\0" + values.tobytes()))
    view = weights["w"]
    assert view.ctypes.data % 4 == 1
    assert not view.flags.aligned
    assert view.base is weights
    assert np.array_equal(view, values)
    assert np.array_equal(view * 2, values * 2)
    assert weights["pad"].flags.aligned


def test_bfloat16(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], np.uint16)  # 1, -2, infinity
    weights = inferkit.Weights.open(raw_file(tmp_path / "w", {"w": entry("BF16", [3], 0, 6)}, bits.tobytes()))
    assert weights.dtype("w") == "bfloat16"
    assert np.array_equal(weights["w"].view(np.uint16), bits)
    assert str(weights["w"].dtype) in ("bfloat16", "uint16")
    if str(weights["w"].dtype) == "bfloat16":
        assert weights["w"].astype(np.float32).tolist() == [1.0, -2.0, float("inf")]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        inferkit.Weights.open(tmp_path / "nothing")
    with pytest.raises(inferkit.ModelError, match="a directory"):
        inferkit.Weights.open(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(inferkit.ModelError, match="a pipe"):
        inferkit.Weights.open(tmp_path / "fifo")
    with pytest.raises(TypeError):
        inferkit.Weights.open(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry("F32", [2], 0, 4)}, 4, "'w' takes 4 bytes, expected 8"),
        ({"w": entry("F32", [1], 0, 4)}, 3, "cut short"),
        ({"w": entry("F32", [1], 0, 4)}, 5, "too long"),
        ({"w": entry("F32", [1], 4, 8)}, 8, "hole"),
        ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, 6, "overlaps"),
        ({"w": entry("F6_E2M3", [4], 0, 4)}, 4, "'w' has dtype 'F6_E2M3'"),
        ({"w": entry("F32", [1] * 9, 0, 4)}, 4, "more than 8 dimensions"),
        ({"w": entry("U8", [2**32, 2**32], 0, 0)}, 0, "more elements than memory has"),
        (b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{}}', 1, "'w' has no 'dtype'"),
        (b"[]", 0, "begin with '{'"),
        (b'{"w":' + b"[" * 100_000, 0, "an object"),
        (b'{"w":{"x":' + b"[" * 100_000, 0, "nested deeper"),
        (b'{"\xff":{}}', 0, "UTF-8"),
    ],
)
def test_malformed_files(tmp_path: Path, header: object, data: int, message: str) -> None:
    path = raw_file(tmp_path / "bad", header, bytes(data))
    with pytest.raises(inferkit.ModelError, match=message) as info:
        inferkit.Weights.open(path)
    assert str(path) in str(info.value)


def test_header_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    for claim in (100_000_001, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", claim) + b"{}")
        with pytest.raises(inferkit.ModelError, match=f"claims {claim} bytes"):
            inferkit.Weights.open(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = save({"a": np.arange(3, dtype=np.float32), "b": np.ones(2, np.int8)})
    path = tmp_path / "cut"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(inferkit.ModelError):
            inferkit.Weights.open(path)


MUTATED = save({"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 1), np.int8)}, metadata={"k": "v"})


@settings(deadline=None, max_examples=400)
@given(
    st.lists(
        st.tuples(st.integers(0, len(MUTATED) - 1), st.sampled_from(b'{}[]":,0123456789 aFI\\u\xc3\xff\0')), max_size=4
    )
)
def test_what_is_accepted_the_reference_accepts_too(changes: list[tuple[int, int]]) -> None:
    content = bytearray(MUTATED)
    for at, value in changes:
        content[at] = value
    path = Path(tempfile.gettempdir()) / f"inferkit_mutated_{os.getpid()}"
    path.write_bytes(content)
    try:
        weights = inferkit.Weights.open(path)
    except inferkit.ModelError:
        return
    finally:
        path.unlink()
    reference = dict(safetensors.deserialize(bytes(content)))
    assert set(weights) == set(reference)
    for name, tensor in reference.items():
        assert list(weights[name].shape) == tensor["shape"]
        assert weights[name].tobytes() == bytes(tensor["data"])


def test_many_threads_open_and_read(path: Path) -> None:
    expected = safetensors.numpy.load_file(path)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            weights = inferkit.Weights.open(path)
            wrong.extend(name for name in weights if not np.array_equal(weights[name], expected[name]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
