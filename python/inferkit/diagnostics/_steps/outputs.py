"""Step 6: answers that make sense, and the same ones alone and in company."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np

from ..._text import printable
from ..._types import TensorSpec, same_bits
from .._patient import Finder, Patient
from .._report import Check
from .._samples import Feeds, fixed_rows, stacked

__all__ = ["examine", "is_probability"]

_check = Finder(6)
_PROBABILITY = re.compile(r"prob|softmax|likelihood", re.IGNORECASE)
_LOGARITHM = re.compile(r"log", re.IGNORECASE)
_OFTEN_ZERO = ("Relu", "ThresholdedRelu", "Clip", "Shrink", "Floor", "Round", "Sign")
_TOLERANCE = {2: 1e-2, 4: 1e-3, 8: 1e-3}  # by the element's size


def is_probability(name: str, made_by: str = "") -> bool:
    """Whether an output claims to hold probabilities, by the operator that makes it or by its name."""
    return made_by == "Softmax" or (bool(_PROBABILITY.search(name)) and not _LOGARITHM.search(name))


def examine(patient: Patient) -> Iterator[Check]:
    """Run the model itself, without a batcher's output checks, on every sample."""
    patient.say("the model on samples")
    answers: list[Feeds] = []
    end = time.monotonic() + patient.seconds
    for feeds in patient.samples:
        answers.append(patient.model.run(feeds))
        if time.monotonic() > end and len(answers) >= 2:
            break
    for spec in patient.model.outputs:
        rows = [answer[spec.name] for answer in answers]
        yield _finite(spec, rows)
        yield _zero(spec, rows, patient.made_by.get(spec.name, ""))
        yield _shape(spec, rows)
        yield _normalized(spec, rows, patient.made_by.get(spec.name, ""))
    yield from _alone_and_batched(patient, answers)


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype in ("float16", "bfloat16", "float32", "float64")


def _finite(spec: TensorSpec, rows: list[np.ndarray]) -> Check:
    name, why = f"'{spec.name}' is finite", "NaN and infinity pass through everything that comes after, unseen"
    if not _is_float(spec):
        return _check(name, "skip", f"{spec.dtype} is always finite", why)
    bad = sum(not np.isfinite(np.asarray(row, np.float64)).all() for row in rows)
    remedy = "look for a division by zero, log(0) or an overflow; OutputChecks(finite=True) refuses such answers"
    return _check(
        name,
        "fail" if bad else "pass",
        f"{bad} of {len(rows)} answers hold NaN or infinity",
        why,
        remedy if bad else "",
    )


def _zero(spec: TensorSpec, rows: list[np.ndarray], made_by: str) -> Check:
    name, why = (
        f"'{spec.name}' is not all zero",
        "an answer of zeros is what an unfilled buffer or a lost weight looks like",
    )
    if not _is_float(spec):
        return _check(name, "skip", f"{spec.dtype}: zero may be a label", why)
    zero = sum(not np.any(row) for row in rows)
    all_zero = zero == len(rows)
    return _check(
        name,
        "fail" if all_zero else "warn" if zero and made_by not in _OFTEN_ZERO else "pass",
        f"{zero} of {len(rows)} answers are all zero"
        + (f", as {made_by} may leave them" if made_by in _OFTEN_ZERO else ""),
        why,
        "check that the weights were exported and the input is scaled as in training; "
        "OutputChecks(not_all_zero=True) refuses such answers"
        if zero and (all_zero or made_by not in _OFTEN_ZERO)
        else "",
    )


def _shape(spec: TensorSpec, rows: list[np.ndarray]) -> Check:
    def fits(row: np.ndarray) -> bool:
        return (
            row.dtype == (object if spec.dtype == "string" else spec.dtype)
            and (spec.any_shape or row.ndim == len(spec.shape))
            and all(want in (None, got) for want, got in zip(spec.shape, row.shape, strict=False))
        )

    wrong = next((row for row in rows if not fits(row)), None)
    declared = f"{spec.dtype} {'of any shape' if spec.any_shape else list(spec.shape)}".replace("None", "*")
    figure = f"{declared}, as declared"
    if wrong is not None:
        figure = f"{wrong.dtype} {list(wrong.shape)} where {declared} was declared"
    return _check(
        f"'{spec.name}' has its shape",
        "pass" if wrong is None else "fail",
        figure,
        "what reads the answer relies on its declared shape and type",
        "" if wrong is None else "correct the declared outputs, or what the callable returns",
    )


def _normalized(spec: TensorSpec, rows: list[np.ndarray], made_by: str) -> Check:
    name, why = (
        f"'{spec.name}' rows sum to 1",
        "scores that are read as probabilities and are none mislead every threshold",
    )
    if not _is_float(spec) or any(row.ndim < 1 or row.shape[-1] < 2 for row in rows):
        return _check(name, "skip", "no rows of floats", why)
    values = np.concatenate([np.asarray(row, np.float64).reshape(-1, row.shape[-1]) for row in rows])
    tolerance = _TOLERANCE.get(rows[0].dtype.itemsize, 1e-3)
    error = np.abs(values.sum(axis=1) - 1)
    error = np.where(np.isfinite(error), error, np.inf)
    good = (error <= tolerance) & (values >= -tolerance).all(axis=1)
    if not is_probability(spec.name, made_by) and not good.all():
        return _check(name, "skip", "its name and operator do not claim probabilities", why)
    bad = int((~good).sum())
    return _check(
        name,
        "fail" if bad else "pass",
        f"{bad} of {len(values)} rows are not normalised; largest deviation {error.max():.2g}",
        why,
        "apply softmax over the last axis in the model; OutputChecks(normalized=True) refuses such answers"
        if bad
        else "",
    )


def _alone_and_batched(patient: Patient, alone: list[Feeds]) -> Iterator[Check]:
    name = "the same alone and batched"
    why = "an answer that depends on who else asks at the same time cannot be reproduced"
    if fixed_rows(patient.model.inputs) is not None:
        yield _check(name, "skip", "the model fixes the number of rows", why)
        return
    if node := patient.batcher.model._mixing_node:
        yield _check(name, "skip", f"each request runs by itself, as {printable(node)} combines rows: see step 5", why)
    else:
        yield _in_batches(patient, alone, name, why)
    if patient.answers:
        yield _under_load(patient, alone, why)


_REPORT = "a native model must never do this: report it. A callable must treat every row by itself"


def _in_batches(patient: Patient, alone: list[Feeds], name: str, why: str) -> Check:
    patient.say("the same samples in batches")
    different: list[int] = []
    sizes = sorted({2, 3, 8, len(alone)} & set(range(2, min(len(alone), patient.batcher.max_batch_size) + 1)))
    for size in sizes:
        together = patient.model.run(stacked(patient.model.inputs, patient.samples[:size]))
        for i in range(size):
            # An output without dimensions has no rows to compare.
            own = {n: np.asarray(alone[i][n]) for n in together if np.ndim(together[n]) and np.ndim(alone[i][n])}
            if any(not same_bits(together[n][i : i + 1], own[n][:1]) for n in own):
                different.append(size)
                break
    return _check(
        name,
        "fail" if different else "pass",
        f"different bits in batches of {', '.join(map(str, different))}"
        if different
        else f"the same bits in batches of {', '.join(map(str, sizes)) or 'one'}",
        why,
        _REPORT if different else "",
    )


def _under_load(patient: Patient, alone: list[Feeds], why: str) -> Check:
    load = patient.traffic(len(alone) * 2)
    answered = [(i, t.result(0)) for i, t in load.tickets if i < len(alone) and t.exception(0) is None]
    wrong = sum(_differs(answer, alone[i]) for i, answer in answered)
    return _check(
        "the same through the batcher",
        "fail" if wrong else "pass" if answered else "skip",
        f"{wrong} of {len(answered)} answers under load differ from the model's own",
        why,
        _REPORT if wrong else "",
    )


def _differs(answer: object, alone: Feeds) -> bool:
    """Compare an answer by name with the model's, to the bit."""
    assert isinstance(answer, dict)  # requests were sent as dicts
    return any(not same_bits(np.asarray(answer[n]), np.asarray(alone[n])) for n in alone)
