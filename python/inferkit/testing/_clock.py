"""A clock that tests move."""

from __future__ import annotations

import threading
import weakref
from typing import Any, SupportsFloat, SupportsIndex

from .. import _core
from .._arguments import integer, number, seconds
from .._batcher import Batcher
from .._initialised import says_if_not_initialised
from .._model import Model
from .._text import counted

__all__ = ["ManualClock"]

_PATIENCE = 30.0  # seconds of real time after which a test that waits for something has gone wrong


@says_if_not_initialised
class ManualClock(_core.ManualClock):
    """A clock that stands still until it is told to move; what a batcher does by time, it does by this one then.

    Deadlines, ``max_delay``, ``full_timeout``, the rates of clients, and the times in ``ticket.timing`` and ``stats()``
    go by it. What waits for an answer (``ticket.result(timeout)``, ``close(timeout=)``) goes by the real clock. Safe to
    use from any thread.

    Parameters
    ----------
    start : float
        What it shows at first, in seconds: above 0. It never shows more than 8e9, which is some 250 years.

    Examples
    --------
    A request whose time passes while another one runs:

    >>> import inferkit.testing, numpy as np
    >>> clock = inferkit.testing.ManualClock()
    >>> model = inferkit.testing.FakeModel(duration=1.0, clock=clock)
    >>> with clock.batcher(model) as batcher:
    ...     running = batcher.submit(np.zeros(2, np.float32))
    ...     clock.wait_for_sleepers()
    ...     waiting = batcher.submit(np.zeros(2, np.float32), timeout=0.5)
    ...     clock.advance(0.5)
    ...     waiting.done(), running.done()
    ...     clock.advance(0.5)
    (True, False)
    """

    __slots__ = ("_batchers", "_changed", "_sleepers")

    def __init__(self, start: float = 1.0) -> None:
        if number(start, "start", "a number of seconds") <= 0:
            raise ValueError(f"start must be a positive number of seconds, got {float(start):g}")
        super().__init__(start)
        self._batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._sleepers: list[int] = []  # until when, in nanoseconds: seconds since 1970 have no digits for them

    def batcher(self, model: Model, **options: Any) -> Batcher:
        """Make a batcher that goes by this clock.

        Its runs are its workers' (``caller_runs=False, inline_limit=0``), so that the thread that moves the clock never
        waits for the clock; `options` are those of :class:`Batcher`, and may say otherwise.
        """
        changed, batchers = self._changed, self._batchers
        made = Batcher(model, **{"caller_runs": False, "inline_limit": 0.0, **options, "_clock": self})
        with changed:
            batchers.add(made)
        return made

    def advance(self, by: SupportsFloat | SupportsIndex) -> None:
        """Move on by so many seconds; requests whose time passes with that have ended when this returns.

        What a turn of an event loop submits reaches its batcher when the turn is over, and ends then if its time has
        passed meanwhile.
        """
        with self._changed:
            super().advance(by)
            self._changed.notify_all()
            batchers = list(self._batchers)
        for batcher in batchers:
            batcher._poke()

    def sleep(self, duration: float) -> None:
        """Wait until others have moved the clock on by so many seconds; what :class:`FakeModel` does in a run.

        Raises
        ------
        RuntimeError
            Nobody has, for 30 seconds.
        """
        with self._changed:
            until = self._nanos_after(seconds(duration, "duration"))
            self._sleepers.append(until)
            self._changed.notify_all()
            try:
                if not self._changed.wait_for(lambda: self._nanos_after(0) >= until, _PATIENCE):
                    raise RuntimeError(f"nobody has moved the ManualClock on to {until * 1e-9:g} s; advance() does")
            finally:
                self._sleepers.remove(until)

    def wait_for_sleepers(self, count: int = 1) -> None:
        """Wait, in real time, until so many threads sleep on this clock: until so many fake models run.

        Raises
        ------
        RuntimeError
            That many never came, for 30 seconds.
        """
        count = integer(count, "count", 0)

        def asleep() -> int:
            return sum(self._nanos_after(0) < until for until in self._sleepers)

        with self._changed:
            if not self._changed.wait_for(lambda: asleep() >= count, _PATIENCE):
                raise RuntimeError(f"asleep on the ManualClock: {counted(asleep(), 'thread')}, and not {count}")

    def __repr__(self) -> str:
        return f"<inferkit.testing.ManualClock at {self.now():g} s>"
