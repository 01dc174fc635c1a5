"""Step 3: what is wrong is refused at the door, for the right reason, and harms nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..._errors import InferkitError, ValidationError
from ..._types import TensorSpec, numpy_dtype
from .._patient import Finder, Patient
from .._report import Check
from .._samples import Feeds, with_rows

__all__ = ["examine"]

_check = Finder(3)
_WHY = {
    "empty": "an empty input has no answer; code that meets one crashes or returns garbage",
    "oversized": "one oversized request holds the batch, and the memory, of everybody else",
    "NaN": "NaN spreads to every output that it touches, and looks like a bug of the model",
    "infinity": "an infinity becomes NaN in the next subtraction",
    "wrong dtype": "a silent conversion hides a caller's mistake, and costs a copy",
    "wrong shape": "a transposed or truncated input gives an answer to another question",
}


def examine(patient: Patient) -> Iterator[Check]:
    """Send what is wrong in every way and see it refused."""
    sample = patient.samples[0]
    specs = patient.model.inputs
    floats = [spec for spec in specs if numpy_dtype(spec.dtype).kind == "f"]
    meant = {spec.name: what for spec, (what, _) in zip(specs, patient.model._senses, strict=True)}
    strict = [spec for spec in floats if meant[spec.name] not in ("nan", "all")]
    bounded = [spec for spec in floats if meant[spec.name] not in ("+inf", "inf", "all")]
    batched = {spec.name for spec in with_rows(specs)}
    cases = {
        "empty": ({name: array[:0] if name in batched else array for name, array in sample.items()}, {"empty"}),
        "oversized": (_oversized(patient), {"too_large", "shape"}),
        "NaN": (_poisoned(sample, strict, np.nan), {"non_finite"}),
        "infinity": (_poisoned(sample, bounded, np.inf), {"non_finite"}),
        "wrong dtype": (_with(sample, specs[0], _other_dtype(sample[specs[0].name])), {"dtype"}),
        "wrong shape": (_with(sample, specs[0], sample[specs[0].name][None, None]), {"shape"}),
    }
    for name, (feeds, reasons) in cases.items():
        if feeds is None:
            meaning = "NaN means a missing value to the model" if name == "NaN" else "the model asks for infinity"
            why = meaning if floats else "the model has no float input"
            yield _check(name, "skip", why, _WHY[name])
        else:
            yield _refused(patient, name, feeds, reasons)
    yield from _lengths(patient)
    name, why = "still answers afterwards", "a bad request must fail alone"
    if not patient.works:
        yield _check(name, "skip", "good requests fail anyway: see step 2", why)
        return
    problem = _problem(patient)
    yield _check(
        name,
        "fail" if problem else "pass",
        problem or "a good request right after them was answered",
        why,
        "report this as a bug of inferkit" if problem else "",
    )


def _with(sample: Feeds, spec: TensorSpec, array: np.ndarray) -> Feeds:
    return {**sample, spec.name: array}


def _poisoned(sample: Feeds, floats: list[TensorSpec], value: float) -> Feeds | None:
    if not floats:
        return None
    array = sample[floats[0].name].copy()
    array.reshape(-1)[-1] = value
    return _with(sample, floats[0], array)


def _oversized(patient: Patient) -> Feeds:
    """More rows than a batch has room for."""
    rows = patient.batcher.max_batch_size + 1
    feeds = {}
    batched = {spec.name for spec in with_rows(patient.model.inputs)}
    for name, array in patient.samples[0].items():
        if name not in batched:  # one value for all rows
            feeds[name] = array
            continue
        repeats = -(-rows // len(array))
        feeds[name] = np.concatenate([array] * repeats)[:rows]
    return feeds


def _other_dtype(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32 if array.dtype == np.float64 else np.float64)


def _refused(patient: Patient, name: str, feeds: Feeds, reasons: set[str]) -> Check:
    ticket = patient.batcher.submit(feeds, timeout=patient.timeout)
    error = ticket.exception(patient.timeout + 1)
    if error is not None and ticket.timing.batch_id is None:  # it never ran
        if not isinstance(error, ValidationError):
            return _check(
                name, "fail", f"not refused by validation: {type(error).__name__}", _WHY[name], f"it said: {error}"
            )
        if error.reason in reasons:
            return _check(name, "pass", f"refused: {error.reason}", _WHY[name])
        return _check(
            name, "warn", f"refused, but for '{error.reason}'", _WHY[name], f"expected {' or '.join(sorted(reasons))}"
        )
    remedy = "report this as a bug of inferkit"
    if reasons == {"non_finite"}:
        remedy = "leave InputChecks(finite=True), the default, on for this model or batcher"
    return _check(name, "fail", "accepted", _WHY[name], remedy)


def _lengths(patient: Patient) -> Iterator[Check]:
    """Free dimensions besides the batch want an upper bound."""
    rows = patient.batcher.max_batch_size + 1
    batched = {spec.name for spec in with_rows(patient.model.inputs)}
    for spec in patient.model.inputs:
        for axis, size in enumerate(spec.shape):
            if axis == 0 or size is not None:
                continue
            # One element, seen many times. Too many rows as well, which is found after the lengths have been looked at
            # and before anything is copied: so nothing of this size is ever made.
            feeds = {
                name: np.broadcast_to(array.reshape(-1)[0], (rows, *array.shape[1:])) if name in batched else array
                for name, array in patient.samples[0].items()
            }
            shape = list(feeds[spec.name].shape)
            shape[axis] = 1 << 20
            feeds[spec.name] = np.broadcast_to(patient.samples[0][spec.name].reshape(-1)[0], shape)
            ticket = patient.batcher.submit(feeds, timeout=patient.timeout)
            bounded = not ticket.cancel() and "max_length" in str(ticket.exception(patient.timeout + 1))
            figure = f"dimension {axis} of '{spec.name}' is free"
            yield _check(
                "length bound",
                "pass" if bounded else "warn",
                f"{figure}, and bounded" if bounded else f"{figure} and has no bound",
                "one request of a million tokens takes the memory and the time of everybody else",
                "" if bounded else "give the model or the batcher InputChecks(max_length=...)",
            )
            return


def _problem(patient: Patient) -> str:
    """Say what came of a good request; empty where an answer did."""
    try:
        error = patient.ask(0).exception(patient.timeout + 1)
    except (InferkitError, TimeoutError) as problem:
        error = problem
    return "" if error is None else f"{type(error).__name__}: {error}"
