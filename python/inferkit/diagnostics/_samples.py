"""Plausible requests for a model: made from its specs, or taken from arrays that the caller has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Not at its first use, as numpy does: a Ctrl-C during this import may be lost.
from numpy.random import Generator, default_rng

from .._errors import InferkitError, ValidationError
from .._model import Model
from .._types import TensorSpec, numpy_dtype

__all__ = ["Feeds", "fixed_rows", "made_up", "made_up_for", "split", "stacked", "with_rows"]

Feeds = dict[str, np.ndarray]

# What a free dimension other than the batch is tried with, for all inputs alike: lengths first, then image sides.
_LENGTHS = (16, 8, 1, 4, 32, 64, 128, 224, 2, 3, 10, 28, 256, 512)
# Integers are drawn below these: tokens and categories, then flags, then nothing but zero.
_INTEGERS = (10, 2, 1)


def with_rows(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Those whose first dimension is the batch; the others are one value for all rows."""
    return [spec for spec in specs if spec.shape and not spec.shared]


def fixed_rows(specs: Sequence[TensorSpec]) -> int | None:
    """Rows of every request, where the model fixes them."""
    return next((spec.shape[0] for spec in with_rows(specs) if spec.shape[0] is not None), None)


def stacked(specs: Sequence[TensorSpec], samples: Sequence[Feeds]) -> Feeds:
    """Make one request of several; what has no rows is taken from the first."""
    rows = with_rows(specs)
    return {
        s.name: np.concatenate([feeds[s.name] for feeds in samples]) if s in rows else samples[0][s.name] for s in specs
    }


def _array(spec: TensorSpec, rows: int, length: int, integers: int, rng: Generator) -> np.ndarray:
    shape = [d if d is not None else length if axis else rows for axis, d in enumerate(spec.shape)]
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype == "string":  # that are numbers to who reads them as such
        return np.asarray(rng.integers(0, integers, shape)).astype(str).astype(dtype)
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape), dtype)
    if dtype.kind == "b" or "mask" in spec.name.lower():
        return np.ones(shape, dtype)
    return np.asarray(rng.integers(0, integers, shape), dtype)


def _attempts(specs: Sequence[TensorSpec]) -> Iterator[tuple[int, int]]:
    free = any(d is None for spec in specs for d in spec.shape[1:])
    whole = any(numpy_dtype(spec.dtype).kind not in "fb" for spec in specs)
    return itertools.product(_LENGTHS if free else (1,), _INTEGERS if whole else (1,))


def made_up(model: Model, count: int, attempt: Callable[[Feeds], object], seed: int = 0) -> list[Feeds]:
    """Make `count` different requests that the model takes, or fewer where it takes only some of those made.

    Floats are normal, integers small. Free dimensions besides the batch are guessed: sizes are tried until `attempt`,
    which runs one request, does not raise. An input without rows has the same value in all of them, so that they can
    share a batch.

    Raises
    ------
    ValueError
        If no guess runs; the message holds the model's last word.
    """
    return made_up_for(model.inputs, count, attempt, seed)


def made_up_for(
    specs: Sequence[TensorSpec], count: int, attempt: Callable[[Feeds], object], seed: int = 0
) -> list[Feeds]:
    """Do the same for inputs of these specs, some of whose free dimensions may be given sizes."""
    for spec in specs:
        if spec.sequence or spec.optional:
            raise ValueError(
                f"input '{spec.name}' is a sequence or an optional, for which no values are made up: call the "
                "model, or its profile(), with your own"
            )
        if spec.any_shape:
            raise ValueError(
                f"the model file declares no shape for input '{spec.name}', so no values are made up: call the model, "
                "or its profile(), with your own"
            )
        try:
            numpy_dtype(spec.dtype)
        except TypeError:
            raise ValueError(
                f"input '{spec.name}' is {spec.dtype}, which numpy lacks: install the package ml_dtypes"
            ) from None
    problem: Exception | None = None
    best: list[Feeds] = []
    attempts = list(_attempts(specs))
    rows = fixed_rows(specs) or 1
    shared = [spec.name for spec in specs if spec not in with_rows(specs)]
    for length, integers in attempts:
        rng = default_rng(seed)
        feeds = [{s.name: _array(s, rows, length, integers, rng) for s in specs} for _ in range(count)]
        for each in feeds:
            each.update({name: feeds[0][name] for name in shared})
        good: list[Feeds] = []
        for each in feeds:
            try:
                attempt(each)
            except InferkitError as error:
                if len(attempts) == 1:
                    return feeds  # nothing was guessed, so the fault is the model's, and for the diagnosis to tell
                problem = error
                if not good:
                    break
                continue
            good.append(each)
            if integers == 1:  # one that runs speaks for the rest, which integers of several values do not
                return feeds
        if len(good) == len(feeds):
            return feeds
        if len(good) > len(best):
            best = good
    if best:
        return best
    raise ValueError(
        "the model takes none of the inputs that were made up: give real ones with --input DATA.npz (in Python, with "
        f"diagnose(batcher, inputs)); its last error was: {problem}"
    )


def split(model: Model, arrays: Mapping[str, Any], count: int, attempt: Callable[[Feeds], object]) -> list[Feeds]:
    """Cut given arrays into at most `count` requests.

    Raises
    ------
    ValueError
        If arrays are missing, unknown, or of different numbers of rows.
    """
    names = [spec.name for spec in model.inputs]
    if set(arrays) != set(names):
        raise ValueError(f"the input has the arrays {sorted(arrays)}; the model takes {names}")
    batches: Feeds = {}
    for spec in model.inputs:
        array = np.asarray(arrays[spec.name])
        batches[spec.name] = array[None] if array.ndim + 1 == len(spec.shape) else array
    batched = [spec.name for spec in with_rows(model.inputs)]
    lengths = {len(batches[name]) if batches[name].ndim else 0 for name in batched}
    rows = fixed_rows(model.inputs) or 1
    if len(lengths) != 1:
        raise ValueError(f"the input's arrays have different numbers of rows: {sorted(lengths)}")
    pieces = min(count, lengths.pop() // rows)
    if pieces < 1:
        raise ValueError(f"the input has fewer rows than a request needs: {rows}")
    feeds = [
        {n: array[i * rows : (i + 1) * rows] if n in batched else array for n, array in batches.items()}
        for i in range(pieces)
    ]
    try:
        attempt(feeds[0])
    except ValidationError as error:
        raise ValueError(f"the model refuses the input: {error}") from None
    except InferkitError:
        pass  # the model's failure is for the diagnosis to tell
    return feeds
