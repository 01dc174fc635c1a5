"""CDist, by which scikit-learn's neighbours and Gaussian processes are exported, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Array, Case

import inferkit


def distances(a: Array, b: Array, metric: str) -> Array:
    d = a.astype(np.longdouble)[:, None] - b.astype(np.longdouble)[None]
    squared = (d * d).sum(-1)
    return np.sqrt(squared) if metric == "euclidean" else squared


def cdist(a: Array, b: Array, metric: str | None, **options: object) -> Array:
    attributes = {} if metric is None else {"metric": metric}
    case = Case("CDist", a, b, domain="com.microsoft", **attributes)
    out = [len(a), len(b)]
    return inferkit.Model.load(case.bytes_with_output(str(a.dtype), out), **options).run(dict(case.inputs))["y0"]


@given(
    rows=st.integers(1, 9),
    others=st.integers(1, 9),
    features=st.integers(1, 40),
    metric=st.sampled_from(["euclidean", "sqeuclidean"]),
    dtype=st.sampled_from(["float32", "float64"]),
    far=st.sampled_from([0.0, 1e4]),
)
@settings(max_examples=100, deadline=None)
def test_distances(rows: int, others: int, features: int, metric: str, dtype: str, far: float) -> None:
    rng = np.random.default_rng(rows + 10 * others)
    a = (rng.standard_normal((rows, features)) + far).astype(dtype)
    b = (rng.standard_normal((others, features)) + far).astype(dtype)
    found, expected = cdist(a, b, metric), distances(a, b, metric)
    assert found.dtype == a.dtype
    # Differences of close numbers are exact, however far from zero they lie: a product of matrices would lose them.
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=4 * np.finfo(dtype).eps, atol=0)


def test_the_metric_is_squared_by_default() -> None:
    a, b = np.zeros((1, 2), np.float32), np.array([[3, 4]], np.float32)
    assert cdist(a, b, None).tolist() == [[25]]
    assert cdist(a, b, "euclidean").tolist() == [[5]]


def test_against_onnxruntime() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((5, 17)), rng.standard_normal((8, 17))
    case = Case("CDist", a, b, domain="com.microsoft", metric="euclidean")
    case.bytes = case.bytes_with_output("float64", [5, 8])
    np.testing.assert_allclose(cdist(a, b, "euclidean"), case.onnxruntime()[0], rtol=1e-12)


def test_the_same_bits_in_any_batch_and_on_any_threads() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((64, 100)).astype(np.float32), rng.standard_normal((90, 100)).astype(np.float32)
    together = cdist(a, b, "euclidean", threads=1)
    assert together.tobytes() == cdist(a, b, "euclidean", threads=4).tobytes()
    for i in (0, 17, 63):
        assert cdist(a[i : i + 1], b, "euclidean").tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("metric", ["cityblock", ""])
def test_another_metric_is_named(metric: str) -> None:
    a = np.zeros((2, 3), np.float32)
    with pytest.raises(inferkit.UnsupportedOpError, match="there are euclidean and sqeuclidean"):
        cdist(a, a, metric)


def test_columns_that_differ() -> None:
    with pytest.raises(inferkit.ModelError, match="as many columns"):
        cdist(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), "euclidean")
