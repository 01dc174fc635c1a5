"""The bits of a row's answer do not depend on how many rows there are, wherever in the tensors the rows lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT = TensorProto.FLOAT
ROWS = 40
AXIS = {"axis": np.array([0], np.int64)}


def node(kind: str, *inputs: str, to: str = "v", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [to], **attributes)


def weights(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def transposed(nodes: list[onnx.NodeProto], k: int, constants: dict[str, Any]) -> inferkit.Model:
    """x [rows, k] as t [k, rows], then v [m, rows], then y [rows, m]."""
    every = [node("Transpose", "x", to="t", perm=[1, 0]), *nodes, node("Transpose", "v", to="y", perm=[1, 0])]
    graph = helper.make_graph(
        every, "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", k])], [helper.make_tensor_value_info("y", FLOAT, ["n", None])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return inferkit.Model.load(model.SerializeToString())


def cases(k: int) -> dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]]:
    reductions = ("Mean", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod", "Max", "Min")
    out: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
        f"Reduce{name}": ([node(f"Reduce{name}", "t", axes=[0])], {}) for name in reductions
    }
    out["ReduceSum"] = [node("ReduceSum", "t", "axis")], AXIS
    for name in ("Softmax", "LogSoftmax", "LpNormalization", "Hardmax"):
        out[name] = [node(name, "t", axis=0)], {}
    out["MeanVarianceNormalization"] = [node("MeanVarianceNormalization", "t", axes=[0])], {}
    out["CumSum"] = [node("CumSum", "t", "axis")], {"axis": np.array(0, np.int64)}
    out["MatMul"] = [node("MatMul", "w", "t")], {"w": weights(5, k)}
    out["MatMul of three dimensions"] = (
        [node("Unsqueeze", "t", "axis", to="u"), node("MatMul", "w", "u", to="q"), node("Squeeze", "q", "axis")],
        {"w": weights(1, 5, k), **AXIS},
    )
    out["Gemm"] = [node("Gemm", "w", "t")], {"w": weights(5, k)}
    out["Gemm, transposed"] = [node("Gemm", "w", "x", transB=1)], {"w": weights(5, k)}
    out["Einsum"] = [node("Einsum", "w", "t", equation="mk,kn->mn")], {"w": weights(5, k)}
    out["Conv"] = (
        [node("Unsqueeze", "t", "axis", to="u"), node("Conv", "u", "w", to="q"), node("Squeeze", "q", "axis")],
        {"w": weights(5, k, 1), **AXIS},
    )
    out["a spelled-out normalization"] = (
        [
            node("ReduceMean", "t", axes=[0], to="mean"), node("Sub", "t", "mean", to="d"),
            node("Mul", "d", "d", to="s"), node("ReduceMean", "s", axes=[0], to="variance"),
            node("Sqrt", "variance", to="deviation"), node("Div", "d", "deviation"),
        ],
        {},
    )  # fmt: skip
    out["axes that do not touch"] = (
        [node("Reshape", "t", "to", to="r"), node("ReduceSum", "r", "axes", keepdims=0)],
        {"to": np.array([2, k // 2, -1], np.int64), "axes": np.array([0], np.int64)},
    )
    return out


@pytest.mark.parametrize("k", [6, 40, 300, 2000])
@pytest.mark.parametrize("what", cases(6))
def test_columns_are_what_they_are_alone(what: str, k: int) -> None:
    nodes, constants = cases(k)[what]
    model = transposed(nodes, k, constants)
    x = (0.5 + np.random.default_rng(k).random((ROWS, k))).astype(np.float32)
    alone = [np.asarray(model(x[i : i + 1])).tobytes() for i in range(ROWS)]
    for rows in (2, 3, 5, 8, 9, 16, 17, 33, ROWS):
        together = np.asarray(model(x[:rows]))
        assert [together[i : i + 1].tobytes() for i in range(rows)] == alone[:rows], f"{rows} rows"


@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    inside=st.integers(0, 3),
    drop=st.sets(st.integers(0, 3), min_size=1),
    name=st.sampled_from(["ReduceMean", "ReduceL2", "ReduceLogSumExp", "ReduceProd"]),
)
@settings(max_examples=60, deadline=None)
def test_a_reduction_looks_at_what_it_reduces(shape: list[int], inside: int, drop: set[int], name: str) -> None:
    """The rows are one of the axes that stay; others are reduced."""
    inside %= len(shape)
    axes = sorted({axis % len(shape) for axis in drop} - {inside})
    if not axes:
        return
    graph = helper.make_graph(
        [node(name, "x", axes=axes, keepdims=1, to="y")], "g",
        [helper.make_tensor_value_info("x", FLOAT, [None] * len(shape))],
        [helper.make_tensor_value_info("y", FLOAT, [None] * len(shape))],
    )  # fmt: skip
    model = inferkit.Model.load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    )
    x = (0.5 + np.random.default_rng(sum(shape)).random(shape)).astype(np.float32)
    together = np.asarray(model(x))
    for i in range(shape[inside]):
        part = np.take(x, [i], axis=inside)
        assert np.asarray(model(part)).tobytes() == np.take(together, [i], axis=inside).tobytes()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_of_any_axis_is_that_of_its_lines(axis: int) -> None:
    graph = helper.make_graph(
        [node("Softmax", "x", axis=axis, to="y")], "g",
        [helper.make_tensor_value_info("x", FLOAT, [None] * 3)],
        [helper.make_tensor_value_info("y", FLOAT, [None] * 3)],
    )  # fmt: skip
    model = inferkit.Model.load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    )
    x = np.random.default_rng(axis).standard_normal((70, 9, 65)).astype(np.float32) * 5
    together = np.moveaxis(np.asarray(model(x)), axis, -1).reshape(-1, x.shape[axis])
    lines = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    shape = [1, 1, 1]
    shape[axis] = -1
    for line, got in zip(lines[::37], together[::37], strict=True):
        assert np.asarray(model(line.reshape(shape))).tobytes() == got.tobytes()


def test_a_right_side_that_follows_from_the_shapes_is_summed_by_its_depth_alone() -> None:
    """As many columns as the batch has rows: they are known when a plan is made, and are no part of the layer."""
    rng = np.random.default_rng(0)
    depth = 40
    column = rng.standard_normal((depth, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], end=1),
        helper.make_node("Concat", ["depth", "rows"], ["shape"], axis=0),
        helper.make_node("Expand", ["column", "shape"], ["b"]),
        helper.make_node("MatMul", ["x", "b"], ["p"]),
        helper.make_node("ReduceMax", ["p", "last"], ["y"], keepdims=0),
    ]
    constants = {"depth": np.array([depth]), "column": column, "last": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model = inferkit.Model.load(proto.SerializeToString())
    x = rng.standard_normal((64, depth)).astype(np.float32)
    whole = model(x)
    assert [model(x[i : i + 1]).tobytes() for i in range(64)] == [whole[i : i + 1].tobytes() for i in range(64)]
