"""Who holds the event loop.

A heartbeat on the loop is due at short intervals. A thread looks whether it is late, and while it is, takes samples of
the loop thread's stack: the line that most samples show is the one that holds the loop.
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType

from .._arguments import seconds
from .._background import pause, started, surviving
from .._frames import Site, blamed, sites
from .._initialised import says_if_not_initialised
from .._text import printable

__all__ = ["LoopWatch", "Stall", "recent_stalls", "watch_loop"]

_log = logging.getLogger("inferkit.diagnostics")
_HUNG = 1.0  # seconds after which a hold that has not ended is reported all the same
_KEPT = 1000  # holds of one watch, and different stacks of one hold: a watch may stay on for months
# Those inside their block; copied before it is looked through, as threads change it.
_active: dict[LoopWatch, None] = {}


@dataclass(frozen=True, kw_only=True)
class Stall:
    """One time that something blocked the event loop.

    Parameters
    ----------
    duration : float
        For how many seconds, at least: from the time when the loop should have turned until it did.
    file, line, function : str, int, str
        The innermost code on the loop's thread that does not belong to the standard library. Empty, 0 and empty if no
        callback ran: then the machine, or a thread that kept the GIL, stopped the loop.
    source : str
        The text of this line, if it can be read.
    stack : tuple of str
        ``file:line in function`` for each frame, the callback first.
    """

    duration: float
    file: str
    line: int
    function: str
    source: str
    stack: tuple[str, ...]

    def __str__(self) -> str:
        held = f"event loop held for {self.duration * 1e3:.0f} ms"
        if not self.file:
            return f"{held} by no callback: the machine was busy, or another thread kept the GIL"
        where = f"{held} by {self.file}:{self.line} in {self.function}" + (f": {self.source}" if self.source else "")
        return printable(where)


@says_if_not_initialised
class LoopWatch:
    """What :func:`watch_loop` returns: a context manager that collects in ``stalls`` what blocked the loop.

    Parameters
    ----------
    threshold : float
        As for :func:`watch_loop`.
    on_stall : callable, optional
        As for :func:`watch_loop`.
    """

    __slots__ = (
        "_depth",
        "_done",
        "_due",
        "_handle",
        "_hung",
        "_interval",
        "_lock",
        "_log",
        "_longest",
        "_loop",
        "_on_stall",
        "_samples",
        "_stalls",
        "_thread",
        "_watcher",
        "threshold",
    )

    def __init__(self, threshold: float = 0.05, on_stall: Callable[[Stall], object] | None = None) -> None:
        threshold = seconds(threshold, "threshold")
        if not threshold >= 0.001:
            raise ValueError(f"threshold must be at least 0.001 s, got {threshold}")
        if on_stall is not None and not callable(on_stall):
            raise TypeError(f"on_stall must be callable, or None, got {type(on_stall).__name__}")
        self.threshold = threshold
        self._on_stall = on_stall
        self._interval = threshold / 5
        self._stalls: deque[tuple[float, Stall]] = deque(maxlen=_KEPT)  # with the time of the end
        self._longest = 0.0
        self._lock = threading.Lock()  # who ends a hold: the watching thread, or the loop's that leaves the block
        self._samples: Counter[tuple[Site, ...]] = Counter()
        self._watcher: threading.Thread | None = None
        self._log: logging.Logger | None = _log

    @property
    def stalls(self) -> tuple[Stall, ...]:
        """What has blocked the loop so far, in order; the last thousand times."""
        return tuple(stall for _, stall in tuple(self._stalls))  # the loop may add one meanwhile

    @property
    def longest(self) -> float:
        """The longest time that the loop was blocked, in seconds; 0 if it never was."""
        return self._longest

    def _recent(self, seconds: float) -> list[Stall]:
        """Find the holds that have ended in the last `seconds`, and the one that goes on."""
        now = time.monotonic()
        found = [stall for end, stall in tuple(self._stalls) if end >= now - seconds]
        with self._lock:
            late = now - self._due
            if late >= self.threshold:
                found.append(self._stall(late))
        return found

    def __enter__(self) -> LoopWatch:
        """Begin to watch the running loop. A watch is good for one block."""
        if self._watcher is not None:
            raise RuntimeError("this watch was used already; make another with watch_loop()")
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("watch_loop() watches the loop that runs it: enter it inside a coroutine") from None
        self._thread = threading.get_ident()
        self._depth = 0  # of the loop's own frames; known at the first beat
        self._done = threading.Event()
        self._due = time.monotonic() + self._interval
        self._hung = False
        self._handle: asyncio.Handle = self._loop.call_soon(self._beat)
        try:
            self._watcher = started(self._watch, "inferkit-watch-loop", "watch_loop()")
        except BaseException:
            self._handle.cancel()
            raise
        _active[self] = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch; ``stalls`` and ``longest`` stay."""
        watcher = self._watcher
        if watcher is None:
            raise RuntimeError("this watch was not entered: use it in a `with` block")
        _active.pop(self, None)
        self._handle.cancel()
        self._end_hold(time.monotonic())  # a hold that reaches to the end of the block
        self._done.set()
        watcher.join()

    def _beat(self) -> None:
        """On the loop: tell that it turns."""
        if not self._depth:
            frame: FrameType | None = sys._getframe().f_back
            while frame is not None:
                self._depth += 1
                frame = frame.f_back
        try:
            self._end_hold(time.monotonic())
        finally:  # on_stall may raise
            self._handle = self._loop.call_later(self._interval, self._beat)

    def _watch(self) -> None:
        """On the watching thread: sample while the beat is late."""
        while not pause(self._done, self._interval / 2, "diagnostics"):
            with surviving("diagnostics", "not watched"):
                self._sample()

    def _sample(self) -> None:
        if time.monotonic() - self._due < self._interval:
            return
        with self._lock:
            due, frame = self._due, sys._current_frames().get(self._thread)
            late = time.monotonic() - due
            if late < self._interval:
                return  # it has just turned
            stack = self._callback_of(frame)
            if stack in self._samples or len(self._samples) < _KEPT:
                self._samples[stack] += 1
            report = late > max(_HUNG, 2 * self.threshold) and not self._hung
            if report:
                self._hung = True
                stall = self._stall(late)
        if report and self._log is not None:
            self._log.warning("%s, and still is", stall, extra=_extra(stall))

    def _callback_of(self, frame: FrameType | None) -> tuple[Site, ...]:
        """Take the stack inside the loop's callback, that first."""
        return sites(frame)[self._depth :]

    def _end_hold(self, now: float) -> None:
        """On the loop's thread."""
        with self._lock:
            late = now - self._due
            self._due = now + self._interval
            # A hold of `threshold` may have begun up to an interval before the beat was due.
            stall = self._stall(late) if late >= self.threshold - self._interval else None
            self._samples.clear()
            self._hung = False
        if stall is None:
            return
        self._stalls.append((now, stall))
        self._longest = max(self._longest, stall.duration)
        if self._log is not None:
            self._log.warning("%s", stall, extra=_extra(stall))
        if self._on_stall is not None:
            self._on_stall(stall)

    def _stall(self, late: float) -> Stall:
        inside = Counter({stack: n for stack, n in self._samples.items() if stack})
        if not inside:
            return Stall(duration=late, file="", line=0, function="", source="", stack=())
        counts = Counter[Site]()
        for stack, n in inside.items():
            counts[blamed(stack)] += n
        site = counts.most_common(1)[0][0]
        stack = next(stack for stack, _ in inside.most_common() if blamed(stack) == site)
        file, line, function = site
        return Stall(
            duration=late,
            file=file,
            line=line,
            function=function,
            source=linecache.getline(file, line).strip(),
            stack=tuple(f"{f}:{n} in {name}" for f, n, name in stack),
        )


def recent_stalls(seconds: float) -> list[Stall]:
    """Find the holds of every loop of the process that is being watched, in the last `seconds`."""
    return [stall for watch in tuple(_active) for stall in watch._recent(seconds)]


def _forked() -> None:
    _active.clear()  # the child has neither the loop nor the thread


os.register_at_fork(after_in_child=_forked)


def _extra(stall: Stall) -> dict[str, object]:
    """Fields of the log record, for formatters that write JSON."""
    return {"stall_seconds": stall.duration, "stall_file": printable(stall.file), "stall_line": stall.line}


def watch_loop(threshold: float = 0.05, *, on_stall: Callable[[Stall], object] | None = None) -> LoopWatch:
    """Find out what blocks the running event loop.

    During the ``with`` block, each time that the loop is blocked is a warning of the logger ``inferkit.diagnostics``,
    with the file and the line, and an entry of ``stalls``. If it was long, :mod:`inferkit.health` shows it too. If the
    loop is still blocked after a second, the warning comes at once. This works with asyncio's loop and with uvloop. It
    costs the loop a timer every fifth of the threshold, so it can stay on.

    Parameters
    ----------
    threshold : float
        In seconds. Whatever blocks the loop for so long is reported, and nothing below four fifths of it.
    on_stall : callable, optional
        It is called with each :class:`Stall`, on the thread of the loop, when the loop turns again.

    Returns
    -------
    LoopWatch
        A context manager; enter it in a coroutine.

    Raises
    ------
    ValueError
        If the threshold is below a millisecond.
    RuntimeError
        If no loop runs where the block is entered.

    Examples
    --------
    >>> import asyncio, time
    >>> from inferkit.diagnostics import watch_loop
    >>> async def main():
    ...     with watch_loop(threshold=0.05) as watch:
    ...         time.sleep(0.2)  # should be: await asyncio.sleep(0.2)
    ...     return watch.stalls
    >>> [stall] = asyncio.run(main())
    >>> stall.function, stall.duration > 0.1
    ('main', True)
    """
    return LoopWatch(threshold, on_stall)
