"""Arguments, checked once, where they come in: what was expected, and what came, as the core says it of its own."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["LONGEST", "dimensions", "flag", "integer", "mapping", "number", "path_text", "seconds", "sequence"]

# Seconds, some 30 years: what is longer never ends. The waits of the standard library raise an OverflowError at some
# ten times as much, and that in a thread of ours.
LONGEST = 1e9
_BOOLS = (bool, np.bool_)


def _wrong_type(value: object, name: str, what: str) -> TypeError:
    return TypeError(f"{name} must be {what}, got {type(value).__name__}")


def number(value: Any, name: str, what: str = "a number") -> float:
    """Take what Python takes for a real number, but for bools; not NaN.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from inferkit._arguments import number
    >>> number(Fraction(1, 2), "share")
    0.5
    """
    kind = type(value)
    if isinstance(value, _BOOLS) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise _wrong_type(value, name, what)
    try:
        got = float(value)
    except TypeError:
        raise _wrong_type(value, name, what) from None
    except OverflowError:
        raise ValueError(f"{name} must be {what}, got one that no float can hold") from None
    if math.isnan(got):
        raise ValueError(f"{name} must be {what}, got NaN")
    return got


def seconds(value: Any, name: str, *, positive: bool = False) -> float:
    """Take a duration; at most `LONGEST`, which stands for those that never end.

    Examples
    --------
    >>> from inferkit._arguments import seconds
    >>> seconds(2, "interval"), seconds(float("inf"), "interval")
    (2.0, 1000000000.0)
    """
    got = number(value, name, "a number of seconds")
    if got < 0 or (positive and got == 0):
        what = "a positive number of seconds" if positive else "a number of seconds that is not negative"
        raise ValueError(f"{name} must be {what}, got {got:g}")
    return min(got, LONGEST)


def integer(value: Any, name: str, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """Take an integer of Python's, numpy's or anybody's, but no bool."""
    if isinstance(value, _BOOLS) or not hasattr(type(value), "__index__"):
        raise _wrong_type(value, name, "an integer")
    try:
        got = operator.index(value)
    except TypeError:
        raise _wrong_type(value, name, "an integer") from None
    if least <= got <= most:
        return got
    shown = got if -(2**63) <= got < 2**63 else "one that 64 bits cannot hold"
    if most == 2**63 - 1 and got < least:
        raise ValueError(f"{name} must be at least {least}, got {shown}")
    raise ValueError(f"{name} must be between {least} and {most}, got {shown}")


def flag(value: Any, name: str) -> bool:
    """Take True or False, Python's or numpy's."""
    if not isinstance(value, _BOOLS):
        raise _wrong_type(value, name, "True or False")
    return bool(value)


def mapping(value: Any, name: str, what: str) -> dict[Any, Any]:
    """Take what has keys, as a dict."""
    if type(value) is not dict and not isinstance(value, Mapping) and not hasattr(type(value), "keys"):
        raise _wrong_type(value, name, what)
    return dict(value)


def sequence(value: Any, name: str, what: str) -> list[Any]:
    """Take what can be gone through, but for text, as a list."""
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Iterable):
        raise _wrong_type(value, name, what)
    try:
        return list(value)
    except TypeError:  # an array without dimensions says so only now
        raise _wrong_type(value, name, what) from None


def dimensions(value: Any, name: str, least: int = -(2**63)) -> list[int | None]:
    """Take a shape; None stands for what the caller has left out."""
    sizes = sequence(value, name, "a shape: a sequence of integers")
    return [None if size is None else integer(size, f"each size of {name}", least) for size in sizes]


def path_text(value: Any, name: str) -> str:
    """Take a path: a str, or what stands for one."""
    if not isinstance(value, (str, os.PathLike)):
        raise _wrong_type(value, name, "a path (str or os.PathLike)")
    text = os.fsdecode(value)
    if "\0" in text:
        raise ValueError(f"{name} must be a path, and may not hold a NUL character: {text!r}")
    return text
