"""The ONNX reader against the onnx package: what that wrote must come back, tensor by tensor and spec by spec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FOLDER = Path(__file__).resolve().parents[1] / "data" / "graph"
FIXTURES = sorted(FOLDER.glob("*.onnx"))
DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}


def info(name: str, shape: list[int | str | None] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path: Path, graph: onnx.GraphProto, **kwargs: object) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **kwargs)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    return got.shape == want.shape and np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes()


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_initializers_are_what_the_onnx_package_reads(path: Path) -> None:
    proto = onnx.load(path)
    want = {t.name: t for t in proto.graph.initializer if t.data_type != TensorProto.STRING}
    got = inferkit.Weights.open(path)
    assert sorted(got) == sorted(want)
    for name, tensor in want.items():
        array = numpy_helper.to_array(tensor, base_dir=str(FOLDER))
        assert same_bits(got[name], array), name
        if tensor.data_type in DTYPES:
            assert got[name].dtype == DTYPES[tensor.data_type], name


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(st.integers(0, 4), max_size=5),
    raw=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    name=st.text(min_size=1, max_size=12).filter(lambda s: "\x00" not in s),
)
def test_tensors_of_any_type_shape_and_encoding(
    tmp_path_factory: pytest.TempPathFactory, dtype: int, shape: list[int], raw: bool, seed: int, name: str
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.dtype(DTYPES[dtype])
    count = int(np.prod(shape))
    if kind.kind == "f":
        array = rng.standard_normal(count).astype(kind)
    elif kind.kind == "b":
        array = rng.integers(0, 2, count).astype(bool)
    else:
        limits = np.iinfo(kind)
        array = rng.integers(limits.min, limits.max, count, dtype=kind, endpoint=True)
    array = array.reshape(shape)
    if raw:
        tensor = numpy_helper.from_array(array, name)
    else:
        tensor = helper.make_tensor(name, dtype, shape, array.flatten().tolist())
    graph = helper.make_graph(
        [helper.make_node("Relu", ["the input"], ["the output"])],
        "g",
        [info("the input", [2])],
        [info("the output", [2])],
        [tensor],
    )
    path = save(tmp_path_factory.mktemp("tensor") / "m.onnx", graph)
    got = inferkit.Weights.open(path)[name]
    assert got.dtype == kind
    assert same_bits(got, array)


@pytest.mark.parametrize("path", [FOLDER / f"{n}.onnx" for n in ("mlp", "legacy", "function", "external")], ids=str)
def test_specs(path: Path) -> None:
    proto = onnx.load(path)
    model = inferkit.Model.load(path)
    constants = {t.name for t in proto.graph.initializer}

    def specs(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, tuple[int | None, ...]]]:
        out = []
        for v in values:
            dims = v.type.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
            out.append((v.name, DTYPES[v.type.tensor_type.elem_type], shape))
        return out

    want = specs([v for v in proto.graph.input if v.name not in constants])
    assert [(s.name, s.dtype, s.shape) for s in model.inputs] == want
    assert [s.name for s in model.outputs] == [v.name for v in proto.graph.output]


def test_functions_are_inlined() -> None:
    x = np.linspace(-3, 3, 7, dtype=np.float32)

    def scaled(v: np.ndarray, slope: float) -> np.ndarray:
        return np.where(v < 0, v * np.float32(slope), v) * np.float32(2)

    y, same = inferkit.Model.load(FOLDER / "function.onnx")(x)
    np.testing.assert_allclose(y, scaled(scaled(x, 0.125), 0.5), rtol=1e-6)
    np.testing.assert_array_equal(same, x)


def test_nodes_in_reverse_order_and_constants_among_the_inputs() -> None:
    path = FOLDER / "legacy.onnx"
    weights = inferkit.Weights.open(path)
    x = np.array([[0.5, -2]], np.float32)
    want = np.maximum(x @ weights["w"] + weights["b"], 0)
    np.testing.assert_allclose(inferkit.Model.load(path)(x), want, rtol=1e-6)


def test_content_is_the_same_as_the_file() -> None:
    path = FOLDER / "mlp.onnx"
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    np.testing.assert_array_equal(inferkit.Model.load(path.read_bytes())(x), inferkit.Model.load(path)(x))


def test_free_dimensions_and_unknown_rank(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "g",
        [info("a", ["batch", None, 3]), info("b", None)],
        [info("y", None)],
    )
    try:
        model = inferkit.Model.load(save(tmp_path / "m.onnx", graph))
    except inferkit.UnsupportedOpError as error:
        assert "'b'" in str(error)  # noqa: PT017 - a clear refusal of an unknown rank is as good
        return
    assert model.inputs[0].shape == (None, None, 3)


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 8), (17, 99)])
def test_newer_sets_and_formats_are_taken_for_those_we_know(opset: int, ir_version: int) -> None:
    """As docs/versioning.md says."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [info("x", ["n", 2])], [info("y", ["n", 2])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    loaded = inferkit.Model.load(model.SerializeToString())
    assert loaded(np.array([[-1, 2]], np.float32)).tolist() == [[0, 2]]
