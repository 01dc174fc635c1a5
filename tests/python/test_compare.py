"""The one comparator: of `inferkit bench`, of the benchmarks, and of tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferkit._cli._compare import difference

F = np.float32
NAN, INF = float("nan"), float("inf")
MAPS = [{0: 0.25, 1: 0.75}, {0: 1.0, 1: 0.0}]


def rows(*values: Any, dtype: Any = F) -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("ours", "theirs", "keys"),
    [
        (rows(1, 2), rows(1, 2), None),
        (rows(1, NAN, INF, -INF), rows(1, NAN, INF, -INF), None),
        (rows(1000, 0.1), rows(1000.5, 0.5), None),  # rounding of the largest
        (rows([0.25, 0.75], [1, 0]), MAPS, None),
        (rows([0.75, 0.25], [0, 1]), MAPS, [1, 0]),
        (rows([0.1, 0.9]), [{"a": float(F(0.1)), "b": float(F(0.9))}], ["a", "b"]),
        (rows([0.25, 0.75]), MAPS[0], None),
        (rows([1, 3], [2, 4]), {"a": [1.0, 2.0], "b": [3.0, 4.0]}, None),  # a map of sequences
        (rows(0.25, 0.75), MAPS[0], None),
        (np.empty((0, 3), F), [], [0, 1, 2]),
        (rows([1, 2], dtype=np.int64), [{"a": 1, "b": 2}], None),
        (rows(True, False, dtype=bool), rows(True, False, dtype=bool), None),
        (np.array(["a", "b"]), np.array(["a", "b"], object), None),
        (np.array(["a", "é"], object), np.array([b"a", "é".encode()], object), None),
        (rows(*range(200), dtype=np.int64), rows(*range(199), 7, dtype=np.int64), None),  # a tie
        (rows(1 + 2j, dtype=np.complex64), rows(1 + 2j, dtype=np.complex64), None),
        (F(3), F(3), None),
        (np.empty((0,), F), np.empty((0,), F), None),
    ],
)
def test_the_same(ours: Any, theirs: Any, keys: Any) -> None:
    assert difference(ours, theirs, keys) == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "keys", "said"),
    [
        (rows(1, 2), rows(1, 2.1), None, "1 of 2 elements, the worst at [1]: 2.0, not 2.1"),
        (rows([1, 1], [1, 5]), rows([1, 1], [1, 1]), None, "the worst at [1, 1]: 5.0, not 1.0, off by 4 of its scale"),
        (rows(1, NAN), rows(1, 2), None, "at [1]: nan, not 2.0"),
        (rows(1, INF), rows(1, -INF), None, "at [1]: inf, not -inf"),
        (rows(1, NAN), rows(1, INF), None, "at [1]: nan, not inf"),
        (rows(1, 2), rows([1, 2]), None, "is float32[2], not float32[1, 2]"),
        (rows(1, 2), rows(1, 2, dtype=np.float64), None, "is float32[2], not float64[2]"),
        (rows(1, 2, dtype=np.int64), rows(1, 3, dtype=np.int64), None, "at [1]: 2, not 3"),
        (rows(True, dtype=bool), rows(False, dtype=bool), None, "True, not False"),
        (np.array(["a"]), np.array(["b"], object), None, "at [0]: a, not b"),
        (rows([0.25, 0.75], [0, 1]), MAPS, None, "2 of 4 elements"),
        (rows([0.25, 0.75], [1, 0]), MAPS, [1, 0], "4 of 4 elements"),
        (rows([0.25, 0.75], [1, 0]), MAPS, [1, 2], "the keys [1, 2], not [0, 1] as in row 0"),
        (rows([0.25, 0.75]), [MAPS[0], {0: 1.0}], None, "in row 1"),
        (rows([0.25, 0.75]), MAPS, None, "is float32[1, 2], not float32[2, 2]"),
        (rows([1, 2], dtype=np.int64), [{"a": 1.5, "b": 2}], None, "is int64[1, 2], not float64[1, 2]"),
        (rows([1, 2]), [{"a": [1.0], "b": [1.0, 2.0]}], None, "inhomogeneous"),
    ],
)
def test_what_differs_is_named(ours: Any, theirs: Any, keys: Any, said: str) -> None:
    assert said in difference(ours, theirs, keys)


def test_small_types() -> None:
    types = pytest.importorskip("ml_dtypes")
    ours = np.array([1, 2, NAN], types.bfloat16)
    assert difference(ours, ours.copy()) == ""
    assert difference(ours, ours.view(np.uint16)) == ""  # as ONNX Runtime gives it
    assert "at [1]: 2, not 3, off by 0.33" in difference(ours, np.array([1, 3, NAN], types.bfloat16))
    assert difference(np.array([1, 2], np.float16), np.array([1, 2.002], np.float16)) == ""
    assert difference(np.array([1, -2], types.int4), np.array([1, -2], types.int4)) == ""


def test_a_tolerance_of_the_caller_s() -> None:
    assert difference(rows(1.0), rows(1.01)) != ""
    assert difference(rows(1.0), rows(1.01), tolerance=0.02) == ""
    assert difference(rows(1.0), rows(1.0 + 2**-23), tolerance=0) != ""
