"""A model that takes as long as the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arguments import integer, seconds
from .._initialised import says_if_not_initialised
from .._model import Model, _ports, _spec, _SpecLike
from .._types import InputChecks, TensorSpec, numpy_dtype
from ._clock import ManualClock

__all__ = ["FakeModel"]

Duration = float | Mapping[int, float] | Callable[[int], float]


def _curve(duration: Duration) -> Callable[[int], float]:
    """Make a function of the rows of a batch."""
    if callable(duration):
        return duration
    if not isinstance(duration, Mapping):
        fixed = seconds(duration, "duration")
        return lambda _: fixed
    if not duration:
        raise ValueError("duration must give the seconds of one batch size at least")
    sizes = sorted(integer(size, "a batch size of duration", 1) for size in duration)
    taken = [seconds(duration[size], f"duration[{size!r}]") for size in sizes]
    largest, longest = sizes[-1], taken[-1]

    def between(rows: int) -> float:
        return longest * rows / largest if rows > largest else float(np.interp(rows, sizes, taken))

    return between


class _Script:
    """What runs: a callable of its own, so that the model does not refer to itself."""

    def __init__(
        self,
        duration: Duration,
        clock: ManualClock | None,
        outputs: Sequence[TensorSpec],
        answer: Callable[..., Any] | None,
    ) -> None:
        self.curve = _curve(duration)
        self.sleep = time.sleep if clock is None else clock.sleep
        self.outputs = outputs
        self.answer = answer
        self.lock = threading.Lock()
        self.batches: list[int] = []

    def __call__(self, *inputs: np.ndarray) -> Any:
        rows = len(inputs[0])
        with self.lock:
            self.batches.append(rows)
        if taken := self.curve(rows):
            self.sleep(taken)
        if self.answer is not None:
            return self.answer(*inputs)
        return [
            np.ones([rows, *(1 if size is None else size for size in spec.shape[1:])], numpy_dtype(spec.dtype))
            for spec in self.outputs
        ]


@says_if_not_initialised
class FakeModel(Model):
    """A model that computes next to nothing, in as much time as it is told to take: for tests of what is around one.

    Parameters
    ----------
    duration : float, mapping of int to float, or callable
        Seconds that a run takes: always, or by rows in the batch (between those that are given it is a straight line,
        above the largest in proportion), or what ``duration(rows)`` returns.
    clock : ManualClock, optional
        Whose seconds they are. By default real ones, slept through without the GIL, as exactly as the system sleeps.
    inputs, outputs : iterable of TensorSpec or (name, dtype, shape)
        As in :meth:`Model.from_callable`; by default ``x`` and ``y``, float32 of shape ``(None, 2)``.
    answer : callable, optional
        Takes the input arrays and returns the outputs, or raises: after the time is over. By default the outputs are
        ones; the default ``y`` is twice ``x``.

    Examples
    --------
    >>> import inferkit, inferkit.testing, numpy as np
    >>> model = inferkit.testing.FakeModel({1: 0.001, 64: 0.002})
    >>> with inferkit.Batcher(model) as batcher:
    ...     batcher(np.ones((3, 2), np.float32)).shape
    (3, 2)
    >>> model.batches
    [3]
    """

    __slots__ = ("_script",)
    _script: _Script

    def __init__(
        self,
        duration: Duration = 0.0,
        *,
        clock: ManualClock | None = None,
        inputs: Iterable[_SpecLike] | None = None,
        outputs: Iterable[_SpecLike] | None = None,
        answer: Callable[..., Any] | None = None,
        input_checks: InputChecks | Mapping[str, InputChecks] | None = None,
    ) -> None:
        if clock is not None and not isinstance(clock, ManualClock):
            raise TypeError(f"clock must be a ManualClock, got {type(clock).__name__}")
        if answer is None and inputs is None and outputs is None:
            answer = np.float32(2).__mul__
        specs = [_spec(spec) for spec in ([("y", "float32", (None, 2))] if outputs is None else outputs)]
        script = _Script(duration, clock, specs, answer)
        super().__init__(
            callable=script,
            inputs=_ports([("x", "float32", (None, 2))] if inputs is None else inputs, "inputs"),
            outputs=_ports(specs, "outputs"),
            checks=input_checks,
        )
        self._script = script

    @property
    def batches(self) -> list[int]:
        """The rows of each batch that has begun to run, in that order."""
        with self._script.lock:
            return list(self._script.batches)
