"""NonMaxSuppression, Unique, NonZero and Compress on values that only the run knows, against ONNX Runtime and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Case

import inferkit

F32 = np.float32
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 1), st.sampled_from([0, 1, 3, 100]), st.sampled_from([0.0, 0.3, 1.0]), st.booleans())
def test_non_max_suppression(seed: int, center: int, most: int, iou: float, threshold: bool) -> None:
    rng = np.random.default_rng(seed)
    batch, classes, n = (int(k) for k in rng.integers(1, 4, 3) * (1, 1, 6))
    boxes = rng.random((batch, n, 4)).astype(F32)
    scores = rng.integers(0, 5, (batch, classes, n)).astype(F32) / 4  # with ties
    inputs = [boxes, scores, np.array([most]), np.array([iou], F32)]
    if threshold:
        inputs.append(np.array([0.25], F32))
    case = Case("NonMaxSuppression", *inputs, center_point_box=center)
    np.testing.assert_array_equal(case.run()[0], case.onnxruntime()[0])


def test_non_max_suppression_says_what_it_expects() -> None:
    case = Case("NonMaxSuppression", np.zeros((1, 3, 4), F32), np.zeros((1, 2, 4), F32))
    with pytest.raises(inferkit.InferenceError, match=r"\(batch, n, 4\) and \(batch, classes, n\)"):
        inferkit.Model.load(case.bytes_with_output("int64", [0, 3])).run(case.inputs)


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    st.sampled_from(["f4", "f8", "i8", "i4", "u1"]),
    st.sampled_from([None, 0, 1, -1]),
    st.integers(0, 1),
    st.integers(0, 8),
)
def test_unique(seed: int, dtype: str, axis: int | None, ordered: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (n, 3) if axis in (None, 0) else (3, n)
    x = rng.integers(0, 3, shape).astype(dtype)
    attributes = {} if axis is None else {"axis": axis}
    case = Case("Unique", x, outputs=4, sorted=ordered, **attributes)
    found = case.run()
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.ravel()
    if not ordered:
        order = np.argsort(first)
        values = values.take(order, 0 if axis is None else axis)
        inverse = np.argsort(order)[inverse]
        first, counts = first[order], counts[order]
    for got, want in zip(found, (values, first, inverse, counts), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("constant", [(), (0,)])
def test_non_zero_of_strings(constant: tuple[int, ...]) -> None:
    """A string is zero where it is empty, as numpy has it."""
    x = np.array([["", "a", " "], ["0", "", "é"]], object)
    found = Case("NonZero", x, constant=constant).run()[0]
    np.testing.assert_array_equal(found, np.array(np.nonzero(x)))
    assert found.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(["f4", "f8", "i8", "?", "f2"]), st.integers(0, 3))
def test_non_zero(seed: int, dtype: str, rank: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, rng.integers(0, 4, rank)).astype(dtype)
    found = Case("NonZero", x).run()[0]
    want = np.array(np.nonzero(np.atleast_1d(x)), np.int64)
    np.testing.assert_array_equal(found, want if rank else want[:0])


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([None, 0, 1]))
def test_compress(seed: int, axis: int | None) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, 4)).astype(F32)
    length = 12 if axis is None else x.shape[axis]
    condition = rng.integers(0, 2, int(rng.integers(0, length + 1))).astype(bool)
    found = Case("Compress", x, condition, **({} if axis is None else {"axis": axis})).run()[0]
    np.testing.assert_array_equal(found, np.compress(condition, x, axis))
