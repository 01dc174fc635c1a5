"""Softmax and LogSoftmax in float64: near the exact values, and bits that depend on the row alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import inferkit

EPS = np.finfo(np.float64).eps


def load(op: str, axis: int, rank: int, opset: int = 13, threads: int = 1) -> inferkit.Model:
    ports = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, list("abcd"[:rank])) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], axis=axis)], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    checks = inferkit.InputChecks(finite=False)
    return inferkit.Model.load(model.SerializeToString(), threads=threads, input_checks=checks)


def exact(op: str, x: np.ndarray, axis: int) -> np.ndarray:
    """In long double."""
    v = x.astype(np.longdouble) - x.max(axis, keepdims=True)
    total = np.exp(v).sum(axis, keepdims=True)
    return np.exp(v) / total if op == "Softmax" else v - np.log(total)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("n", [1, 3, 8, 33, 700])
def test_near_the_exact_values(op: str, axis: int, n: int) -> None:
    shape = [5, 6, 9]
    shape[axis] = n
    x = np.random.default_rng(n).uniform(-30, 30, shape)
    found, want = load(op, axis, 3)(x), exact(op, x, axis)
    assert found.dtype == np.float64
    # x - max is rounded, which an exponential makes a relative error.
    size = np.abs(want) + 1 if op == "LogSoftmax" else want * 60
    assert (np.abs(found - want) <= 8 * EPS * (size + EPS)).all()


def test_several_axes_as_one_row_before_opset_13() -> None:
    x = np.random.default_rng(1).standard_normal((4, 5, 6))
    found = load("Softmax", 1, 3, opset=11)(x)
    np.testing.assert_allclose(found.reshape(4, 30).sum(1), 1, rtol=1e-14)
    assert found.tobytes() == load("Softmax", 1, 2)(x.reshape(4, 30)).tobytes()


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_bits_of_the_row_alone(op: str) -> None:
    x = np.random.default_rng(2).uniform(-20, 20, (300, 301))
    rows, columns = load(op, 1, 2), load(op, 0, 2)
    whole = rows(x)
    for i in (0, 7, 299):
        assert rows(x[i : i + 1]).tobytes() == whole[i : i + 1].tobytes()
    assert np.ascontiguousarray(columns(np.ascontiguousarray(x.T)).T).tobytes() == whole.tobytes()
    for axis, model in ((1, x), (0, np.ascontiguousarray(x.T))):
        assert load(op, axis, 2, threads=2)(model).tobytes() == load(op, axis, 2)(model).tobytes()


def test_infinities_and_nan() -> None:
    inf, nan = np.inf, np.nan
    softmax = load("Softmax", 1, 2)
    found = softmax(np.array([[0, -inf, 0], [-inf, -inf, -inf], [1, nan, 2], [800, -800, 0]]))
    np.testing.assert_array_equal(found[0], [0.5, 0, 0.5])
    assert np.isnan(found[1:3]).all()
    np.testing.assert_array_equal(found[3], [1, 0, np.exp(-800)])
    logs = load("LogSoftmax", 1, 2)(np.array([[800.0, -800.0]]))
    np.testing.assert_array_equal(logs, [[0, -1600]])
