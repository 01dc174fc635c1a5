"""Zeros behind the end of a sum change no bit of it, where the length of the sum is the caller's and not the layer's.

What a model with a mask makes of a padded text is then what it makes of the text: a product of attention's weights and
values has zeros there, and a sum over the positions as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import inferkit

FLOAT = TensorProto.FLOAT
LENGTHS = (1, 7, 31, 32, 33, 64, 100, 127, 128, 200, 255, 256, 300, 500, 777)


def load(nodes: list[onnx.NodeProto], inputs: dict[str, int], kind: int = FLOAT) -> inferkit.Model:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, kind, [None] * rank) for name, rank in inputs.items()],
        [helper.make_tensor_value_info("y", kind, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return inferkit.Model.load(model.SerializeToString())


def product(op: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(op, ["a", "b"], ["y"], **attributes)]


def longer(array: np.ndarray, axis: int, length: int) -> np.ndarray:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, length - array.shape[axis])
    return np.pad(array, widths)


@pytest.mark.parametrize("kind", [FLOAT, TensorProto.DOUBLE])
@pytest.mark.parametrize("columns", [1, 8, 32, 33, 70])
@pytest.mark.parametrize(
    ("nodes", "ranks", "axis"),
    [
        (product("MatMul"), (2, 2), 0),
        (product("MatMul"), (3, 3), 1),
        (product("Gemm"), (2, 2), 0),
        (product("Einsum", equation="bqk,bkd->bqd"), (3, 3), 1),
    ],
    ids=["MatMul", "batched MatMul", "Gemm", "Einsum"],
)
def test_zeros_at_the_end_of_a_product_s_depth_change_nothing(
    nodes: list[onnx.NodeProto], ranks: tuple[int, int], axis: int, columns: int, kind: int
) -> None:
    model = load(nodes, {"a": ranks[0], "b": ranks[1]}, kind)
    rng = np.random.default_rng(columns)
    dtype = np.float32 if kind == FLOAT else np.float64
    lead = (2,) * (ranks[0] - 2)
    for length in LENGTHS:
        for rows in (1, 5, 30):
            a = rng.standard_normal((*lead, rows, length)).astype(dtype)
            b = rng.standard_normal((*lead, length, columns)).astype(dtype)
            want = np.asarray(model(a, b))
            np.testing.assert_allclose(want, a.astype(np.float64) @ b, atol=1e-4)
            for padded in sorted({length + 1, 2 * length, 512, 1024}):
                if not length < padded <= 1024:
                    continue
                more = longer(b, axis, padded)
                more[..., length:, :] = rng.standard_normal(more[..., length:, :].shape)  # what it is does not matter
                got = np.asarray(model(longer(a, a.ndim - 1, padded), more))
                assert got.tobytes() == want.tobytes(), (length, padded, rows)


@given(length=st.integers(1, 1024), padding=st.integers(0, 1023), width=st.integers(1, 80))
@settings(max_examples=80, deadline=None)
def test_a_masked_attention_is_that_of_what_is_not_masked(length: int, padding: int, width: int) -> None:
    """Scores, a mask that adds the lowest number, Softmax, values; and the sum over the positions that count."""
    padded = min(1024, length + padding)
    nodes = [
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "values"], ["y"]),
    ]
    model = load(nodes, {"scores": 2, "mask": 2, "values": 2})
    rng = np.random.default_rng(length)
    scores = rng.standard_normal((3, length)).astype(np.float32) * 3
    values = rng.standard_normal((length, width)).astype(np.float32)
    want = np.asarray(model(scores, np.zeros((1, length), np.float32), values))
    mask = np.zeros((1, padded), np.float32)
    mask[:, length:] = np.finfo(np.float32).min
    got = np.asarray(model(longer(scores, 1, padded), mask, longer(values, 0, padded)))
    exact = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    np.testing.assert_allclose(want, exact / exact.sum(1, keepdims=True) @ values, atol=1e-5)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (3, 70)])
def test_zeros_at_the_end_of_what_is_reduced_change_nothing(shape: tuple[int, int]) -> None:
    axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("ReduceSum", ["a", "axes"], ["y"], keepdims=0),
    ]
    model, einsum = (
        load(nodes, {"a": 3}),
        load([helper.make_node("Einsum", ["a"], ["y"], equation="ijk->ik")], {"a": 3}),
    )
    rng = np.random.default_rng(shape[1])
    for length in LENGTHS:
        a = rng.standard_normal((shape[0], length, shape[1])).astype(np.float32)
        for sums in (model, einsum):
            want = np.asarray(sums(a))
            np.testing.assert_allclose(want, a.sum(1, dtype=np.float64), atol=1e-4)
            for padded in (length + 1, 2 * length, 1024):
                if length < padded <= 1024:
                    assert np.asarray(sums(longer(a, 1, padded))).tobytes() == want.tobytes(), (length, padded)
