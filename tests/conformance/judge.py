"""Runs a case on inferkit and says how it went.

passed    every output has the expected dtype, shape and values; where they are drawn at random, dtype and shape
refused   UnsupportedOpError at Model.load
late      UnsupportedOpError, but only at the run
differs   another answer, knowingly (scope.DIFFERS says why)
wrong     another answer, or another of inferkit's errors for a model that is right
crashed   an exception that is none of inferkit's; a fault of the process ends the process
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import inferkit

from .cases import Case
from .scope import DIFFERS, draws, out_of_scope, told

OUTCOMES = ("passed", "refused", "late", "differs", "wrong", "crashed")
ANY_INPUT = inferkit.InputChecks(finite=False, non_empty=False)
# How far an answer may lie from the expected one: what the case says, or some steps of the format at the value itself
# (which matters where the format has few bits: engines round between operators at different places, and some references
# compute the whole function in float32), and one step at the largest value, where a sum may have cancelled.
STEPS = 4
STEP = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Verdict:
    case: str
    operator: str
    scope: str | None
    outcome: str
    detail: str = ""


def list_difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    """The same of sequences, which are lists, and of optionals with nothing in them."""
    if not isinstance(want, list) or not isinstance(got, list):
        return "" if got is want is None else f"{got} instead of {want}"
    if len(got) != len(want):
        return f"a sequence of {len(got)} instead of {len(want)}"
    found = (difference(g, w, rtol, atol) for g, w in zip(got, want, strict=True))
    return next((f"[{i}]: {what}" for i, what in enumerate(found) if what), "")


def other_port(got: np.ndarray, want: np.ndarray) -> str:
    if got.dtype == want.dtype and got.shape == want.shape:
        return ""
    return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"


def difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    """Empty where they agree."""
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        return list_difference(got, want, rtol, atol)
    want = want.astype(object) if want.dtype.kind == "U" else want
    if what := other_port(got, want):
        return what
    if want.dtype.kind in "biu":
        return "" if np.array_equal(got, want) else f"{np.sum(got != want)} of {want.size} elements differ"
    if want.dtype == object:  # strings
        return "" if got.tolist() == want.tolist() else f"{got.tolist()} instead of {want.tolist()}"
    if want.dtype.kind == "c":
        return "" if np.allclose(got, want, rtol, atol, equal_nan=True) else "complex values differ"
    g, w = got.astype(np.float64), want.astype(np.float64)
    if step := STEP.get(str(want.dtype)):
        finite = np.abs(w[np.isfinite(w)])
        rtol, atol = max(rtol, STEPS * step), max(atol, step * finite.max(initial=0))
    if np.allclose(g, w, rtol, atol, equal_nan=True):
        return ""
    close = np.isclose(g, w, rtol, atol, equal_nan=True)
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    return f"{np.sum(~close)} of {w.size} elements differ, first at {list(at)}: {g[at]} instead of {w[at]}"


def run(case: Case) -> tuple[str, str]:
    try:
        model = inferkit.Model.load(case.model.SerializeToString(), input_checks=ANY_INPUT)
    except inferkit.UnsupportedOpError as error:
        return "refused", str(error)
    names = [i.name for i in case.model.graph.input]
    outputs = [o.name for o in case.model.graph.output]
    for inputs, expected in case.data_sets:
        given = dict(zip(names, inputs, strict=False))
        try:
            got = model.run(given)
        except inferkit.UnsupportedOpError as error:
            return "late", str(error)
        drawn = draws(case.model, given)
        for name, want in zip(outputs, expected, strict=True):
            if drawn:
                what = other_port(got[name], want)
            elif (mask := told(case.model, given, want)) is ...:
                what = difference(got[name], want, case.rtol, case.atol)
            else:
                what = other_port(got[name], want) or difference(got[name][mask], want[mask], case.rtol, case.atol)
            if what:
                return "differs" if case.name in DIFFERS else "wrong", f"{name}: {what}"
    return "passed", ""


def judge(case: Case) -> Verdict:
    try:
        outcome, detail = run(case)
    except inferkit.InferkitError as error:
        outcome, detail = "wrong", f"{type(error).__name__}: {error}"
    except Exception as error:  # whatever comes here is the defect that is looked for
        outcome, detail = "crashed", f"{type(error).__name__}: {error}"
    return Verdict(case.name, case.operator, out_of_scope(case.model), outcome, detail)
