"""One engine's answer held against another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["difference"]

# Of an output's scale, by the element's size: two engines add in different orders.
_TOLERANCE = {1: 0.25, 2: 2e-2, 4: 1e-3, 8: 1e-6, 16: 1e-6}
_TIES = 0.01  # of integers that may differ: a tie that rounds the other way is no wrong answer, many are


def difference(ours: Any, theirs: Any, keys: Sequence[Any] | None = None, *, tolerance: float | None = None) -> str:
    """Say where, and by how much, two outputs differ by more than rounding; empty where they do not.

    Parameters
    ----------
    ours : array
    theirs : array, or what ONNX Runtime gives for maps: a dict for each row, or one
        Of numbers by class; ours has a column for each class.
    keys : sequence of int or str, optional
        The classes in the order of our columns; by default that of the dicts.
    tolerance : float, optional
        As a share of the output's largest value; by default what rounding explains in its type.
    """
    a = np.asarray(ours)
    if isinstance(theirs, (dict, list, tuple)):
        try:
            theirs = _columns(theirs, keys, a)
        except ValueError as problem:
            return str(problem)
    b = np.asarray(theirs)
    if str(a.dtype) == "bfloat16" and b.dtype == np.uint16:
        b = b.view(a.dtype)  # numpy has no such type, so its bits come as integers
    if _is_text(a) and _is_text(b):
        a, b = _text(a), _text(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"is {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
    if a.dtype.kind in "biuUO":
        wrong = np.asarray(a != b)
        return _told(a, b, wrong, "") if wrong.any() and wrong.mean() > _TIES else ""
    return _numbers(a, b, _TOLERANCE[a.dtype.itemsize] if tolerance is None else tolerance)


def _numbers(a: np.ndarray, b: np.ndarray, tolerance: float) -> str:
    wide: Any = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    finite = np.isfinite(x) & np.isfinite(y)
    wrong = ~same & ~finite
    if wrong.any():
        return _told(a, b, wrong, "")
    error = np.zeros(x.shape)
    error[finite] = np.abs(x[finite] - y[finite])
    scale = max(float(np.abs(y)[finite].max(initial=0.0)), 1e-6)
    wrong = error > tolerance * scale
    if not wrong.any():
        return ""
    return _told(a, b, wrong, f", off by {error.max() / scale:.2g} of its scale", int(error.argmax()))


def _told(a: np.ndarray, b: np.ndarray, wrong: np.ndarray, much: str, worst: int | None = None) -> str:
    flat = int(wrong.argmax()) if worst is None else worst
    at = [int(i) for i in np.unravel_index(flat, wrong.shape)]
    which = "the first" if worst is None else "the worst"
    mine, other = str(a.reshape(-1)[flat]), str(b.reshape(-1)[flat])  # as short as their type allows
    return f"differs in {int(wrong.sum())} of {wrong.size} elements, {which} at {at}: {mine}, not {other}{much}"


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "UTSO"


def _text(array: np.ndarray) -> np.ndarray:
    def one(value: Any) -> str:
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)

    return np.array([one(value) for value in array.reshape(-1)], dtype=object).reshape(array.shape)


def _columns(theirs: Any, keys: Sequence[Any] | None, like: np.ndarray) -> np.ndarray:
    """Turn maps into an array as ours is: a row for each, a column for each key.

    Raises
    ------
    ValueError
        The maps do not have the same keys, or not ours.
    """
    rows = [theirs] if isinstance(theirs, Mapping) else list(theirs)
    if not all(isinstance(row, Mapping) for row in rows):
        return np.asarray(theirs)  # a sequence of arrays
    if not rows:
        return np.empty((0, *like.shape[1:]), like.dtype)
    wanted = list(rows[0]) if keys is None else list(keys)
    for number, row in enumerate(rows):
        if set(row) != set(wanted):
            raise ValueError(f"has the keys {wanted}, not {list(row)} as in row {number} of theirs")
    columns = np.array([[row[key] for key in wanted] for row in rows])
    if isinstance(theirs, Mapping):  # one map: its values are numbers, or a column each
        columns = columns[0].T
        columns = columns.reshape(like.shape) if columns.size == like.size else columns
    # Python's own numbers are what a map holds: they are of the type that the array would have had.
    exact = columns.astype(like.dtype) if columns.dtype != like.dtype else columns
    return exact if np.array_equal(exact, columns, equal_nan=columns.dtype.kind in "fc") else columns
