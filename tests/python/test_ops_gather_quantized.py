"""GatherBlockQuantized of com.microsoft, against numpy and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

Array = np.ndarray[Any, Any]


def pack(values: Array, bits: int) -> Array:
    """Put several values into each byte, along the last axis, from the low bits up."""
    each = 8 // bits
    padded = np.zeros((*values.shape[:-1], -(-values.shape[-1] // each) * each), np.uint8)
    padded[..., : values.shape[-1]] = values
    parts = padded.reshape(*values.shape[:-1], -1, each)
    return np.bitwise_or.reduce(parts << (bits * np.arange(each, dtype=np.uint8)), -1).astype(np.uint8)


class Table:
    """A model of one node, and the table that it stands for."""

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: str,
        *,
        block: int = 16,
        zero: bool = True,
        scale: str = "float32",
        gather_axis: int = 0,
        quantize_axis: int = -1,
        change: Any = None,
    ) -> None:
        random = np.random.default_rng(3)
        bits = {"uint8": 8, "uint4": 4, "int4": 4, "bits 4": 4, "bits 2": 2}[kind]
        low, high = (-8, 8) if kind == "int4" else (0, 1 << bits)
        q = quantize_axis % len(shape)
        blocks = tuple(-(-n // block) if i == q else n for i, n in enumerate(shape))
        values, zeros = random.integers(low, high, shape), random.integers(low, high, blocks)
        scales = random.uniform(0.01, 0.1, blocks).astype(scale)
        if not zero:
            zeros = np.full(blocks, 0 if kind in ("int4", "uint4") else 1 << (bits - 1))

        def spread(x: Array) -> Array:
            return x.repeat(block, q).take(np.arange(shape[q]), q)

        self.dequantized = (values - spread(zeros)) * spread(scales).astype(np.float64)
        self.gather_axis = gather_axis

        def tensor(name: str, x: Array) -> onnx.TensorProto:
            if kind in ("uint4", "int4"):
                nibbles = pack((x & 15).astype(np.uint8).reshape(1, -1), 4)
                return helper.make_tensor(
                    name, getattr(TensorProto, kind.upper()), x.shape, nibbles.tobytes(), raw=True
                )
            return numpy_helper.from_array(pack(x, bits) if bits < 8 else x.astype(np.uint8), name)

        constants = [tensor("data", values), numpy_helper.from_array(scales, "scales")]
        if zero:
            constants.append(tensor("zeros", zeros))
        node = helper.make_node(
            "GatherBlockQuantized",
            ["data", "i", "scales", *(["zeros"] if zero else [])],
            ["y"],
            domain="com.microsoft",
            gather_axis=gather_axis,
            quantize_axis=quantize_axis,
            block_size=block,
            **({} if kind in ("uint4", "int4") else {"bits": bits}),
        )
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("i", TensorProto.INT64, [None, None])],
            [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(scale)), None)],
            constants,
        )
        if change:
            change(graph)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        self.bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()

    def expected(self, indices: Array) -> Array:
        return self.dequantized.take(indices, self.gather_axis)


INDICES = np.array([[0, 4, 2], [2, -1, 4]])


@pytest.mark.parametrize("kind", ["uint8", "bits 4", "bits 2", "uint4", "int4"])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("columns", [16, 48, 64, 40])
@pytest.mark.parametrize("scale", ["float32", "float16"])
def test_rows(kind: str, zero: bool, columns: int, scale: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    table = Table((5, columns), kind, zero=zero, scale=scale)
    got = inferkit.Model.load(table.bytes)(INDICES)
    assert got.dtype == scale
    tolerance = 1e-6 if scale == "float32" else 2e-3
    np.testing.assert_allclose(got, table.expected(INDICES), rtol=tolerance, atol=tolerance)
    session = onnxruntime.InferenceSession(table.bytes, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(got, session.run(None, {"i": INDICES})[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("gather_axis", "quantize_axis"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (-1, -3)])
def test_axes(gather_axis: int, quantize_axis: int) -> None:
    table = Table((32, 48, 16), "int4", gather_axis=gather_axis, quantize_axis=quantize_axis)
    got = inferkit.Model.load(table.bytes)(INDICES)
    np.testing.assert_allclose(got, table.expected(INDICES), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["uint4", "int4"])
@pytest.mark.parametrize("zero", [True, False])
def test_along_the_axis_of_the_blocks(axis: int, kind: str, zero: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    table = Table((40, 40), kind, zero=zero, gather_axis=axis, quantize_axis=axis)
    indices = np.array([[0, 15, 16, 39], [-1, -40, -9, 32]])
    got = inferkit.Model.load(table.bytes)(indices)
    np.testing.assert_allclose(got, table.expected(indices), rtol=1e-6)
    session = onnxruntime.InferenceSession(table.bytes, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(got, session.run(None, {"i": indices})[0], rtol=1e-6)


@pytest.mark.parametrize(("shape", "axis", "index"), [((5, 16), 0, 5), ((5, 16), 1, 16), ((5, 16), 1, -17)])
def test_an_index_out_of_range(shape: tuple[int, ...], axis: int, index: int) -> None:
    model = inferkit.Model.load(Table(shape, "bits 4", gather_axis=axis).bytes)
    with pytest.raises(inferkit.InferenceError, match=f"index {index}"):
        model(np.array([[index]]))


def with_attribute(name: str, value: int) -> Any:
    def change(graph: onnx.GraphProto) -> None:
        attributes = graph.node[0].attribute
        next(a for a in attributes if a.name == name).i = value

    return change


def as_input(graph: onnx.GraphProto) -> None:
    data = graph.initializer[0]
    graph.input.append(helper.make_tensor_value_info("data", data.data_type, data.dims))
    del graph.initializer[0]


def without_a_scale(graph: onnx.GraphProto) -> None:
    graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((5, 2), np.float32), "scales"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (with_attribute("bits", 3), "3 bits"),
        (with_attribute("block_size", 24), "block_size 24"),
        (with_attribute("block_size", 8), "block_size 8"),
        (with_attribute("gather_axis", 2), "gather_axis 2"),
        (with_attribute("quantize_axis", 0), "not the last"),
        (as_input, "only known during a run"),
        (without_a_scale, "scales of shape"),
    ],
)
def test_what_is_refused(change: Any, match: str) -> None:
    with pytest.raises(inferkit.UnsupportedOpError, match=match):
        inferkit.Model.load(Table((5, 48), "bits 4", change=change).bytes)
