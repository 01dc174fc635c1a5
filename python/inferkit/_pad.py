"""The arguments of a batcher that say how requests of different lengths are padded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._arguments import dimensions, integer, mapping, sequence
from ._types import TensorSpec

__all__ = ["NativePad", "native_pad", "pad_lengths", "rows_of", "rows_to_warm", "shapes_of"]

NativePad = list[tuple[int, bytes]]
_LONGEST = 2**31 - 1  # the core has the same bound
_WHAT = "a mapping of input names to (axis, value)"


def native_pad(pad: Mapping[str, tuple[int, Any]] | None, inputs: Sequence[TensorSpec]) -> NativePad:
    """Check an argument ``pad``, and say it as the core takes it: for each input its axis and the value's bytes."""
    if pad is None:
        return []
    given = mapping(pad, "pad", _WHAT)
    known = {spec.name: spec for spec in inputs}
    if unknown := [name for name in given if name not in known]:
        told = ", ".join(map(repr, unknown))
        inputs_told = ", ".join(map(repr, known))
        raise ValueError(f"pad names {told}, which is no input of the model; its inputs are {inputs_told}")
    out = dict.fromkeys(known, (0, b""))
    for name, entry in given.items():
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            raise TypeError(f"pad must be {_WHAT}; for {name!r} it has {entry!r}")
        out[name] = _axis(entry[0], known[name]), _element(entry[1], known[name])
    return list(out.values())


def _axis(value: Any, spec: TensorSpec) -> int:
    rank = len(spec.shape)
    axis = integer(value, f"the axis of pad[{spec.name!r}]", -rank, rank - 1) % rank if rank else 0
    if axis == 0:
        raise ValueError(
            f"pad[{spec.name!r}] must name an axis behind the batch axis, which counts as 0; the input's shape is "
            f"{spec.shape}, got {value}"
        )
    return axis


def _element(value: Any, spec: TensorSpec) -> bytes:
    wanted = f"the value of pad[{spec.name!r}] must be one that {spec.dtype} can hold, got {value!r}"
    if isinstance(value, bool | np.bool_):
        if spec.dtype != "bool":
            raise TypeError(
                f"the value of pad[{spec.name!r}] must be a number, as the input is {spec.dtype}: {value!r}"
            )
    # A timedelta64 calls itself an integer.
    elif not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, np.timedelta64):
        raise TypeError(
            f"the value of pad[{spec.name!r}] must be a number, got {type(value).__name__}: give a real one"
        )
    is_bfloat16 = spec.dtype == "bfloat16"  # which numpy does not know: the upper half of a float32
    try:
        with np.errstate(all="ignore"):  # what comes of it is looked at
            element = np.array([value]).astype(np.float32 if is_bfloat16 else spec.dtype)
        held = element[0].item()
        exact = bool(held == value) or (value != value and held != held)
        if math.isinf(held) and not exact:
            raise ValueError(wanted)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(wanted) from None
    if is_bfloat16:
        low, high = element.view(np.uint16)
        element, exact = high.reshape(1), bool(low == 0)
    elif np.issubdtype(element.dtype, np.floating):
        exact = True  # what it is rounded to
    if not exact:
        raise ValueError(wanted)
    return element.tobytes()


def pad_lengths(pad_to: int | Iterable[int] | None, is_padded: bool) -> tuple[list[int], int]:
    """Check an argument ``pad_to``: the lengths, where some are given, and the longest, where one is."""
    if pad_to is None:
        return [], 0
    if not is_padded:
        raise ValueError("pad_to says to which lengths requests are padded: give pad as well")
    if hasattr(type(pad_to), "__index__"):
        return [], integer(pad_to, "pad_to", 1, _LONGEST)
    lengths = [
        integer(length, "a length of pad_to", 1, _LONGEST)
        for length in sequence(pad_to, "pad_to", "an integer or an iterable of integers")
    ]
    if not lengths:
        raise ValueError("pad_to has no lengths: leave it out, or give some")
    return sorted(set(lengths)), max(lengths)


def shapes_of(shapes: Mapping[str, Sequence[int]] | None) -> dict[str, Sequence[int]] | None:
    """Check an argument ``shapes``, but for what it says of an input."""
    return None if shapes is None else mapping(shapes, "shapes", "a mapping of names to shapes, or None")


def rows_of(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]] | None = None) -> list[list[int]]:
    """Give the shape of a row of each input as the core takes it, what is free as -1."""
    given = {} if shapes is None else shapes
    rows = [dimensions(given.get(spec.name, spec.shape[1:]), f"shapes['{spec.name}']", 0) for spec in inputs]
    return [[-1 if size is None else size for size in row] for row in rows]


def rows_to_warm(
    inputs: Sequence[TensorSpec], pad: NativePad, shapes: Mapping[str, Sequence[int]] | None, length: int
) -> dict[str, Sequence[int]]:
    """Give the shapes for a warm-up at one length: those that are given, but for what is padded."""
    out = {} if shapes is None else dict(shapes)
    for spec, (axis, _) in zip(inputs, pad, strict=True):
        if axis:
            row: list[Any] = list(out.get(spec.name, spec.shape[1:]))
            if axis <= len(row):
                row[axis - 1] = length
            if None not in row:  # else the model says what is missing
                out[spec.name] = row
    return out
