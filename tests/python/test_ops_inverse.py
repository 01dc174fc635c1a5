"""Inverse, which torch's exporter writes for torch.inverse, against float64 and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import LENIENT, Array, Case

import inferkit


def load(x: Array, shape: list[object] | None = None, **options: object) -> inferkit.Model:
    case = Case("Inverse", x, domain="com.microsoft", free_batch=True)
    data = case.bytes_with_output(str(x.dtype), shape or list(x.shape))
    return inferkit.Model.load(data, input_checks=LENIENT, **options)


def inverse(x: Array, **options: object) -> Array:
    return load(x, **options).run({"x0": x})["y0"]


def well_conditioned(rng: np.random.Generator, *shape: int) -> Array:
    """Random directions, stretched by 1 to 10."""
    left, _, right = np.linalg.svd(rng.standard_normal(shape))
    return left @ (np.linspace(1, 10, shape[-1])[:, None] * right)


@given(n=st.integers(1, 40), matrices=st.integers(1, 4), dtype=st.sampled_from(["float32", "float64", "float16"]))
@settings(max_examples=80, deadline=None)
def test_against_float64(n: int, matrices: int, dtype: str) -> None:
    x = well_conditioned(np.random.default_rng(n), matrices, n, n).astype(dtype)
    found = inverse(x)
    assert found.dtype == x.dtype
    expected = np.linalg.inv(x.astype(np.float64))
    # Computed in double and rounded once.
    np.testing.assert_allclose(
        found.astype(np.float64), expected, rtol=np.finfo(dtype).eps, atol=1e-13 + float(np.finfo(dtype).tiny)
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17])
def test_against_onnxruntime(n: int) -> None:
    x = well_conditioned(np.random.default_rng(n), 3, n, n).astype(np.float32)
    case = Case("Inverse", x, domain="com.microsoft")
    case.bytes = case.bytes_with_output("float32", x.shape)
    np.testing.assert_allclose(inverse(x), case.onnxruntime()[0], rtol=1e-4, atol=1e-5)


def test_a_matrix_that_needs_its_rows_exchanged() -> None:
    x = np.array([[[0, 2], [4, 0]]], np.float32)
    assert inverse(x).tolist() == [[[0, 0.25], [0.5, 0]]]
    tiny = np.array([[[1e-20, 1], [1, 1]]])  # by the pivot 1e-20 nothing of it would be right
    np.testing.assert_allclose(inverse(tiny), [[[-1, 1], [1, 0]]], atol=1e-15)


@pytest.mark.parametrize("x", [[[1, 2], [2, 4]], [[0, 0], [0, 0]], [[np.nan, 1], [1, 1]]])
def test_a_matrix_without_an_inverse_gives_nan(x: list[list[float]]) -> None:
    data = np.array([x, [[2, 0], [0, 2]]], np.float32)
    found = inverse(data)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [[0.5, 0], [0, 0.5]]


def test_a_matrix_without_an_inverse_fails_alone_in_a_batcher() -> None:
    data = np.array([[[1, 2], [2, 4]], [[2, 0], [0, 2]]], np.float32)
    checks = inferkit.OutputChecks(finite=True)
    with inferkit.Batcher(load(data, ["batch", 2, 2]), max_batch_size=2, output_checks=checks) as batcher:
        bad, good = batcher.submit(data[:1]), batcher.submit(data[1:])
        with pytest.raises(inferkit.OutputError, match="NaN"):
            bad.result()
        assert good.result().tolist() == [[[0.5, 0], [0, 0.5]]]


def test_the_same_bits_in_any_batch_and_on_any_threads() -> None:
    x = well_conditioned(np.random.default_rng(5), 24, 33, 33).astype(np.float32)
    together = inverse(x, threads=1)
    assert together.tobytes() == inverse(x, threads=4).tobytes()
    for i in (0, 13, 23):
        assert inverse(x[i : i + 1]).tobytes() == together[i : i + 1].tobytes()


def test_in_a_batcher() -> None:
    x = well_conditioned(np.random.default_rng(6), 8, 3, 3).astype(np.float32)
    model = load(x, ["batch", 3, 3])
    with inferkit.Batcher(model, max_batch_size=8) as batcher:
        tickets = [batcher.submit(x[i : i + 1]) for i in range(8)]
        for i, ticket in enumerate(tickets):
            assert ticket.result().tobytes() == inverse(x[i : i + 1]).tobytes()


def test_the_rows_of_a_matrix_are_no_batch() -> None:
    x = np.float32([[1, 2], [3, 5]])
    case = Case("Inverse", x, domain="com.microsoft")
    model = inferkit.Model.load(case.bytes_with_output("float32", (2, 2)))
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_allclose(batcher(x), [[-5, 2], [3, -1]], rtol=1e-6)
        with pytest.raises(inferkit.InferkitError):  # filled up, it would be a row of a matrix of others
            batcher(x[:1])


def test_empty_and_not_square() -> None:
    assert inverse(np.zeros((0, 3, 3), np.float32)).shape == (0, 3, 3)
    for shape in ([2, 3], [1, 3, 2]):
        with pytest.raises(inferkit.InferkitError, match="square matrices"):
            inverse(np.zeros(shape, np.float32))
