"""Broken and malicious model files: a clear error, never a crash, a hang or an allocation beyond what is there."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inferkit

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "data" / "graph"
REFUSED = (inferkit.ModelError, inferkit.UnsupportedOpError)
FLOAT = TensorProto.FLOAT


def info(name: str, shape: list[int | None], dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(nodes: list[onnx.NodeProto], **graph_fields: object) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [info("x", [None, 2])], [info("y", [None, 2])], **graph_fields)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def external(location: str, offset: str = "0", length: str = "8") -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=value)
    return model_of([helper.make_node("Add", ["x", "w"], ["y"])], initializer=[tensor])


def feeds(model: inferkit.Model) -> dict[str, np.ndarray] | None:
    """Zeros for every input, or None where they would be large."""
    out = {}
    for spec in model.inputs:
        shape = [2 if d is None else d for d in spec.shape]
        if np.prod(np.array(shape, float)) > 1e5:
            return None
        out[spec.name] = np.zeros(shape, spec.dtype)
    return out


def load_and_run(data: bytes) -> None:
    """Everything that a file may lead to: a refusal, an answer, or an error of inferkit's."""
    try:
        model = inferkit.Model.load(data)
        arrays = feeds(model)
        if arrays is not None:
            model.run(arrays)
    except (inferkit.InferkitError, ValueError):
        pass


def fixtures() -> list[Path]:
    return [*sorted(FOLDER.glob("*.onnx")), ROOT / "examples" / "digits.onnx"]


@pytest.mark.parametrize("path", fixtures(), ids=lambda p: p.stem)
def test_truncated(path: Path) -> None:
    data = path.read_bytes()
    step = max(1, len(data) // 400)
    for size in range(0, len(data), step):
        load_and_run(data[:size])
    with pytest.raises(REFUSED):
        inferkit.Model.load(data[: len(data) // 2])


@pytest.mark.parametrize("path", fixtures(), ids=lambda p: p.stem)
def test_mutated(path: Path) -> None:
    rng = random.Random(path.stem)
    original = path.read_bytes()
    # The graph's structure is in the small fixtures; of a large file, weights are nearly all there is to hit.
    for _ in range(1500 if len(original) < 10_000 else 100):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    data[at] = rng.randrange(256)
                case 2:
                    data[at] = 0xFF
                case _:
                    del data[at]
        load_and_run(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x00" * 100, "malformed"),
        (b"this is not a model", "plain text"),
        (b"\xff" * 1000, "malformed"),
    ],
)
def test_not_a_model(data: bytes, message: str) -> None:
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(data)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Relu", ["x"], ["y"]), ("Abs", ["x"], ["y"])], "'y' is defined twice"),
        ([("Relu", ["nothing"], ["y"])], "reads 'nothing', which nothing defines"),
        ([("Add", ["x", "b"], ["a"]), ("Add", ["x", "a"], ["b"]), ("Relu", ["b"], ["y"])], "cycle"),
        ([("Relu", ["x"], ["z"])], "output 'y' is computed by no node"),
    ],
)
def test_broken_graphs(nodes: list[tuple[str, list[str], list[str]]], message: str) -> None:
    model = model_of([helper.make_node(*n) for n in nodes])
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(model.SerializeToString())


def test_nested_subgraphs() -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "b", [], [info("r", [None])])
    for _ in range(30):
        node = helper.make_node("If", ["x"], ["r"], then_branch=branch)
        branch = helper.make_graph([node], "b", [], [info("r", [None])])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch)
    with pytest.raises(inferkit.ModelError, match="nest deeper"):
        inferkit.Model.load(model_of([node]).SerializeToString())


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "sub/../../secret.bin",
        "link.bin",
        "out/secret.bin",
        "models/secret.bin",
        "absent.bin",
        "sub",
        "",
    ],
)
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "secret.bin").write_bytes(bytes(64))
    (folder / "models").symlink_to("../models")
    path = folder / "m.onnx"
    path.write_bytes(external(location).SerializeToString())
    for load in (inferkit.Model.load, inferkit.Weights.open):
        with pytest.raises(inferkit.ModelError, match="'w'"):
            load(path)


def test_external_data_by_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = tmp_path / "m.onnx"
    path.write_bytes(external(str(tmp_path / "w.bin")).SerializeToString())
    with pytest.raises(inferkit.ModelError, match="absolute"):
        inferkit.Model.load(path)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        ("64", "8"),
        ("57", "8"),
        (str(2**64 - 4), "8"),
        (str(2**70), "8"),
        ("-8", "8"),
        ("0", "4"),
        ("0", "64"),
        ("0", "x"),
    ],
)
def test_external_data_past_the_end(tmp_path: Path, offset: str, length: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = tmp_path / "m.onnx"
    path.write_bytes(external("w.bin", offset, length).SerializeToString())
    with pytest.raises(inferkit.ModelError, match="'w'"):
        inferkit.Model.load(path)


def test_external_data_of_content_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(inferkit.ModelError, match="without a folder"):
        inferkit.Model.load(external("w.bin").SerializeToString())


HUGE: list[Callable[[], onnx.ModelProto]] = [
    lambda: model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        initializer=[TensorProto(name="w", data_type=FLOAT, dims=[1 << 40])],
    ),
    lambda: model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        initializer=[TensorProto(name="w", data_type=FLOAT, dims=[1 << 32, 1 << 32, 1 << 32])],
    ),
    lambda: model_of(
        [
            helper.make_node("ConstantOfShape", ["s"], ["big"]),
            helper.make_node("Add", ["x", "big"], ["y"]),
        ],
        initializer=[numpy_helper.from_array(np.array([1 << 38, 2], np.int64), "s")],
    ),
    lambda: model_of(
        [helper.make_node("Expand", ["w", "s"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])],
        initializer=[
            numpy_helper.from_array(np.array([1 << 37, 2], np.int64), "s"),
            numpy_helper.from_array(np.ones(1, np.float32), "w"),
        ],
    ),
]


@pytest.mark.unsanitized("it needs more addresses than a limit leaves")
@pytest.mark.parametrize("make", HUGE)
def test_huge_claims_in_small_files(tmp_path: Path, fresh_python: Callable[..., object], make: object) -> None:
    """In a process that may have 4 GiB of addresses: an allocation of what the file claims would fail there."""
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())  # type: ignore[operator]
    code = f"""
import resource, numpy as np, inferkit
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    inferkit.Model.load({str(path)!r}).run({{"x": np.zeros((1, 2), np.float32)}})
except (inferkit.InferkitError, MemoryError) as error:
    print(type(error).__name__)
"""
    result = fresh_python(code)
    assert result.returncode == 0, result.stderr  # type: ignore[attr-defined]
    assert result.stdout.strip() in {"ModelError", "UnsupportedOpError", "PoolExhaustedError"}  # type: ignore[attr-defined]


def test_large_garbage_is_refused_quickly() -> None:
    for data in (os.urandom(32 << 20), bytes(32 << 20), b"\x0a\x00" * (16 << 20)):
        start = time.perf_counter()
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(data)
        assert time.perf_counter() - start < 10


def test_names_that_are_not_text() -> None:
    data = model_of([helper.make_node("Relu", ["x"], ["y"], name="NAME")]).SerializeToString()
    with pytest.raises(inferkit.ModelError, match="UTF-8"):
        inferkit.Model.load(data.replace(b"NAME", b"\xff\xfe\xfd\xfc"))


def test_a_directory_a_pipe_and_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises((inferkit.ModelError, OSError)):
            inferkit.Model.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        inferkit.Model.load(tmp_path / "none.onnx")
