"""The checklist from its first step to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import _core
from .._arguments import mapping
from .._arguments import seconds as duration
from .._batcher import Batcher
from .._errors import InferkitError, OutputError, QueueFullError
from ._patient import Finder, Limits, Patient, Step, silent
from ._report import STEPS, Check, Report
from ._samples import Feeds, made_up, split
from ._steps import ALL

__all__ = ["diagnose", "examine"]

_SAMPLES = 32
_WITHOUT_ANSWERS = (1, 5)  # steps that have something to say of a batcher that does not answer


def diagnose(
    batcher: Batcher,
    inputs: Mapping[str, Any] | None = None,
    *,
    seconds: float = 2.0,
    timeout: float = 5.0,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Go through the debug checklist with a batcher.

    It looks at the figures of the batcher first. Then it sends requests, good ones and bad ones, from threads and from
    an event loop of its own. They count in the figures of the batcher, and other callers wait a little longer
    meanwhile. If the batcher does not answer, the report says so, and the function does not wait for it.

    Parameters
    ----------
    batcher : Batcher
        An open one. It stays open.
    inputs : mapping of str to array, optional
        Real inputs by name, with any number of rows. By default, plausible inputs are made from the model's specs:
        normal floats, small integers, and guessed sizes for free dimensions.
    seconds : float
        About how long each of the steps that send much traffic may take.
    timeout : float
        Seconds after which a request counts as lost.
    progress : callable, optional
        It is called with a line of text whenever something begins that takes a while.

    Returns
    -------
    Report
        Its ``status`` is ``"pass"``, ``"warn"`` or ``"fail"``; ``print(report)`` shows it.

    Raises
    ------
    ValueError
        The inputs do not fit, or none could be made up; nothing was examined.
    ClosedError
        The batcher is closed.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * np.nan, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model, output_checks=inferkit.OutputChecks(finite=False)) as batcher:
    ...     report = inferkit.diagnose(batcher, seconds=0.1)
    >>> report.status, "'y' is finite" in [check.name for check in report.failures]
    ('fail', True)
    """
    if not isinstance(batcher, Batcher):
        raise TypeError(f"batcher must be a Batcher, got {type(batcher).__name__}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, or None, got {type(progress).__name__}")
    return examine(
        batcher,
        None if inputs is None else mapping(inputs, "inputs", "a mapping of names to arrays, or None"),
        seconds=duration(seconds, "seconds", positive=True),
        timeout=duration(timeout, "timeout", positive=True),
        say=progress,
    )


def examine(
    batcher: Batcher,
    inputs: Mapping[str, Any] | None = None,
    *,
    seconds: float,
    timeout: float = 5.0,
    limits: Limits | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Do what :func:`diagnose` does, with limits of the caller's."""
    start = time.perf_counter()
    if batcher.closed:
        _core.refuse_closed("the batcher is closed; diagnose() needs one that takes requests")
    patient = Patient(
        batcher=batcher,
        samples=[],
        first_stats=batcher.stats(),
        seconds=seconds,
        timeout=timeout,
        limits=limits or Limits(),
        say=say or silent,
    )
    patient.samples = _samples(patient, inputs)
    patient.made_by = _makers(batcher.model.path)
    checks = [check for number, step in ALL.items() for check in _run(number, step, patient)]
    return Report(subject=repr(batcher.model), checks=tuple(checks), seconds=time.perf_counter() - start)


def _samples(patient: Patient, inputs: Mapping[str, Any] | None) -> list[Feeds]:
    """Find requests that the model takes, and whether the batcher answers them."""
    model = patient.model

    def attempt(feeds: Feeds) -> None:
        """Raise where the model cannot run it. A callable may hang, so it is asked through the queue alone."""
        if not patient.answers:
            return
        try:
            if model._is_native:
                model.run(feeds)
            else:
                patient.batcher.submit(feeds, timeout=patient.timeout).result(patient.timeout + 1)
        except (TimeoutError, QueueFullError):
            patient.answers = False
        except OutputError:
            pass  # it ran; what it answered is for step 6

    patient.say("inputs that the model takes")
    samples = made_up(model, _SAMPLES, attempt) if inputs is None else split(model, inputs, _SAMPLES, attempt)
    if patient.answers:
        try:
            error = None
            for _ in range(2):  # the second is warm
                start = time.perf_counter()
                error = patient.batcher.submit(samples[0], timeout=patient.timeout).exception(patient.timeout + 1)
                patient.once = time.perf_counter() - start
            patient.answers = not isinstance(error, (TimeoutError, QueueFullError))
            patient.works = error is None
        except TimeoutError:
            patient.answers = False
        # A slow model is not a lost request: as many may wait before one of ours as we ever send at once.
        patient.timeout = max(patient.timeout, 40 * patient.once)
    return samples


def _makers(path: str) -> dict[str, str]:
    """Tell which operator makes each output; nothing where there is no file to ask."""
    try:
        return {name: maker for name, _, _, maker in _core.inspect_onnx(path)["outputs"]} if path else {}
    except (InferkitError, OSError):  # moved, or rewritten, since it was loaded
        return {}


def _run(number: int, step: Step, patient: Patient) -> Iterator[Check]:
    find = Finder(number)
    why = "a check that cannot be made says nothing good"
    if not patient.answers and number not in _WITHOUT_ANSWERS:
        yield find(STEPS[number].lower(), "skip", "the batcher does not answer: see step 5", why)
        return
    patient.say(f"step {number}: {STEPS[number].lower()}")
    try:
        yield from step(patient)
    except Exception as error:
        figure = f"broke off with {type(error).__name__}: {error}"
        yield find("the step's checks", "fail", figure, why, "see to the error; the checks before it are shown above")
