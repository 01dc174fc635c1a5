"""Sparse initializers and constants: the values are those of scipy-like dense arrays that numpy builds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

X = np.ones((2, 3, 4), np.float32)


def sparse(dense: np.ndarray, *, by_dimension: bool, name: str = "k") -> onnx.SparseTensorProto:
    """As exporters write it: the places in ascending order, as one number each or as one for each dimension."""
    places = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.ravel()[places], name)
    indices = np.stack(np.unravel_index(places, dense.shape), 1) if by_dimension else places
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), ""), list(dense.shape))


def model(tensor: onnx.SparseTensorProto, *, as_node: bool = False) -> bytes:
    dtype = tensor.values.data_type
    nodes = [helper.make_node("Constant", [], ["k"], sparse_value=tensor)] if as_node else []
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "f"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 4])],
        sparse_initializer=[] if as_node else [tensor],
    )
    assert dtype
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("by_dimension", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.float16, bool])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_is_the_dense_tensor(dtype: type, by_dimension: bool, as_node: bool, share: float) -> None:
    rng = np.random.default_rng(7)
    dense = (rng.integers(1, 100, (2, 3, 4)) * (rng.random((2, 3, 4)) < share)).astype(dtype)
    loaded = inferkit.Model.load(model(sparse(dense, by_dimension=by_dimension), as_node=as_node))
    np.testing.assert_array_equal(loaded(X), dense.astype(np.float32))


def broken(values: list[float], indices: np.ndarray, dims: list[int]) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=dims)
    made.values.CopyFrom(helper.make_tensor("k", TensorProto.FLOAT, [len(values)], values))
    made.indices.CopyFrom(numpy_helper.from_array(indices, ""))
    return made


@pytest.mark.parametrize(
    ("values", "indices", "dims", "message"),
    [
        ([1, 2], np.int64([1, 24]), [2, 3, 4], "index 24"),
        ([1, 2], np.int64([-1, 3]), [2, 3, 4], "index -1"),
        ([1, 2], np.int64([3, 3]), [2, 3, 4], "do not go up"),
        ([1, 2], np.int64([3, 2]), [2, 3, 4], "do not go up"),
        ([1, 2], np.int64([[0, 0, 0], [1, 3, 0]]), [2, 3, 4], "index 3 in dimension 1"),
        ([1, 2], np.int64([[0, 0], [1, 1]]), [2, 3, 4], "for 2 values"),
        ([1, 2], np.int64([1]), [2, 3, 4], "for 2 values"),
        ([1, 2], np.int32([1, 2]), [2, 3, 4], "int32"),
        ([1, 2], np.int64([1, 2]), [2, -3, 4], "negative dimension"),
        ([1, 2], np.int64([1, 2]), [1 << 20, 1 << 20], "too many for its 2 values"),
        ([1, 2], np.int64([1, 2]), [1 << 40, 1 << 40], "impossible shape"),
        ([1, 2], np.int64([1, 2]), [1] * 40, "dimensions"),
    ],
)
def test_broken_ones_are_refused(values: list[float], indices: np.ndarray, dims: list[int], message: str) -> None:
    with pytest.raises(inferkit.InferkitError, match=message):
        inferkit.Model.load(model(broken(values, indices, dims)))


def test_it_may_be_a_default_of_an_input() -> None:
    dense = np.zeros((2, 3, 4), np.float32)
    dense[1, 2, 3] = 5
    proto = onnx.ModelProto.FromString(model(sparse(dense, by_dimension=True)))
    proto.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [2, 3, 4]))
    loaded = inferkit.Model.load(proto)
    np.testing.assert_array_equal(loaded(X), dense)
    np.testing.assert_array_equal(loaded.run({"x": X, "k": 2 * X})["y"], 2 * X)
