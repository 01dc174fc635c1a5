"""Weights are packed once per model, however its plans come to them; what a plan computes is never taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(11)
WEIGHTS = RNG.integers(-4, 5, (64, 32)).astype(np.float32)


def value(name: str, dtype: int, *dims: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], constants: dict[str, Any], **options: Any
) -> inferkit.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [value("y", FLOAT, None, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(model.SerializeToString(), **options)


def rows(n: int, width: int = 64) -> Any:
    return RNG.integers(-4, 5, (n, width)).astype(np.float32)


def test_a_view_of_a_weight_is_packed_once_for_all_shapes() -> None:
    """The number of rows decides the shape that the weight is given, which is always the same one."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["width"]),
        helper.make_node("Concat", ["width", "minus"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["w", "wanted"], ["w2"]),
        helper.make_node("MatMul", ["x", "w2"], ["y"]),
    ]
    constants = {"w": WEIGHTS.reshape(-1), "one": np.array([1]), "minus": np.array([-1])}
    model = model_of(nodes, [value("x", FLOAT, None, None)], constants)
    for width in (64, 32, 128):  # the same weight, as another matrix
        packed = set()
        for n in range(1, 9):
            x = rows(n, width)
            np.testing.assert_array_equal(model(x), x @ WEIGHTS.reshape(width, -1))
            packed.add(model.memory().packed_bytes)
        assert len(packed) == 1, "each shape packed the weight anew"


def test_a_weight_that_the_shapes_decide_is_its_plans_own() -> None:
    """Of one size and address, perhaps, and of other values: each plan must multiply by what it folded."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Cast", ["n"], ["factor"], to=FLOAT),
        helper.make_node("Mul", ["w", "factor"], ["scaled"]),
        helper.make_node("MatMul", ["x", "scaled"], ["y"]),
    ]
    model = model_of(nodes, [value("x", FLOAT, None, 64)], {"w": WEIGHTS, "zero": np.array(0)}, max_plans=1)
    before = model.memory().packed_bytes
    for n in (1, 2, 3, 2, 1, 7, 3):
        x = rows(n)
        np.testing.assert_array_equal(model(x), x @ (WEIGHTS * np.float32(n)))
    assert model.memory().packed_bytes == before


@pytest.mark.parametrize("within", ["captured", "own"])
def test_a_loop_packs_its_weight_once(within: str) -> None:
    square = RNG.integers(-1, 2, (16, 16)).astype(np.float32)
    constant = numpy_helper.from_array(square, "w")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [value("i", INT64), value("go", BOOL), value("state", FLOAT, None, 16)],
        [value("go_on", BOOL), value("next", FLOAT, None, 16)],
        [constant] if within == "own" else [],
    )
    model = model_of(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        [value("x", FLOAT, None, 16), value("n", INT64)],
        {} if within == "own" else {"w": square},
    )
    packed = set()
    for n, trips in ((1, 2), (2, 2), (3, 1), (4, 3), (5, 2)):
        x = rows(n, 16)
        want = x @ np.linalg.matrix_power(square.astype(np.float64), trips)
        np.testing.assert_array_equal(model.run({"x": x, "n": np.array(trips)})["y"], want.astype(np.float32))
        packed.add(model.memory().packed_bytes)
    assert packed == {square.nbytes}


def test_what_is_packed_is_counted() -> None:
    """Whatever the operator: the filters of ConvTranspose are turned, the table of BatchNormalization is made."""
    filters = RNG.integers(-2, 3, (4, 8, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"])],
        "g",
        [value("x", FLOAT, None, 4, 8, 8)],
        [value("y", FLOAT, None, 8, 10, 10)],
        [numpy_helper.from_array(filters, "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(data)
    model(np.ones((1, 4, 8, 8), np.float32))
    assert model.memory().packed_bytes == filters.nbytes
