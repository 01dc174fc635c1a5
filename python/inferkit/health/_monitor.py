"""What state the process is in, and why."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING

from .. import _batcher, _limits
from .._arguments import flag, number
from .._build import built
from .._core import BufferPool, device_failure, resident_bytes
from .._frames import Site, blamed, sites
from .._log import log
from .._text import counted, printable
from ._memory import memory

if TYPE_CHECKING:
    from .._batcher import Batcher
    from .._model import Model
    from .._stats import BatcherStats

__all__ = ["Limits", "Monitor", "Report", "State", "hanging"]

_WINDOW = 60  # seconds: of the error rate, of p99 and of holds of the event loop


class State(str, Enum):
    """What a process, or a batcher, can be; the later outweighs the earlier."""

    READY = "ready"
    DEGRADED = "degraded"
    WARMING = "warming"
    LOADING = "loading"
    DRAINING = "draining"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


_ORDER = {state: weight for weight, state in enumerate(State)}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a healthy batcher; None for no limit.

    Parameters
    ----------
    max_queue_depth : int or None
        How many requests wait; by default 100.
    max_oldest_wait : float or None
        How many seconds the oldest of them has waited; by default 5.
    max_error_rate : float or None
        Failed requests of the last 60 s, as a share of those that ran; by default 1%. Judged from `min_requests`
        requests on, as are the next three.
    max_unserved_rate : float or None
        Rejected and expired requests of the last 60 s, as a share of all good requests (completed, failed, rejected and
        expired ones); by default 5%.
    max_invalid_rate : float or None
        Invalid requests of the last 60 s, as a share of all; by default 10%.
    max_p99_ms : float or None
        p99 from submission to answer, of the last 60 s, in milliseconds.
    max_memory_bytes : int or None
        The physical memory of the process.
    max_idle_buffers : int or None
        How many buffers of the process's pool are in use while nothing waits and nothing runs. Answers that nobody has
        taken yet count.
    max_loop_hold : float or None
        For how many seconds something blocked an event loop, in the last 60 s. It needs ``diagnostics.watch_loop()``.
    hung_after : float or None
        For how many seconds a batch may run; by default 30. If one runs longer, the batcher has failed. Where it is a
        callable that hangs, the reason says at which line, and the logger ``inferkit.health`` gets its stack, from a
        thread that looks for that by the limits of :func:`configure`, whether or not anybody asks.
    min_requests : int
        How many requests it takes to judge a rate or a percentile.
    require_warm_up : bool
        Whether a batcher is ready only after its model has run: by ``batcher.warm_up()``, ``model.warm_up()`` or a
        request.
    degraded_is_ready : bool
        Whether a process that exceeds a limit still counts as ready. If overloaded processes are taken away, the others
        get their load; so by default they stay ready, in state ``degraded`` and with the reasons.
    failed_is_dead : bool
        Whether a failed process counts as not alive, so that an orchestrator restarts it.
    debug_is_fine : bool
        Whether a debug build of inferkit, which is many times slower, may serve without being ``degraded``.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.health.Limits(max_p99_ms=20.0).max_queue_depth
    100
    """

    max_queue_depth: int | None = _limits.QUEUE_DEPTH
    max_oldest_wait: float | None = _limits.OLDEST_WAIT
    max_error_rate: float | None = _limits.ERROR_RATE
    max_unserved_rate: float | None = _limits.UNSERVED_RATE
    max_invalid_rate: float | None = _limits.INVALID_RATE
    max_p99_ms: float | None = None
    max_memory_bytes: int | None = None
    max_idle_buffers: int | None = None
    max_loop_hold: float | None = 0.5
    hung_after: float | None = _limits.HUNG_AFTER
    min_requests: int = 10
    require_warm_up: bool = True
    degraded_is_ready: bool = True
    failed_is_dead: bool = False
    debug_is_fine: bool = False

    def __post_init__(self) -> None:
        for limit in fields(self):
            name, value = limit.name, getattr(self, limit.name)
            if isinstance(limit.default, bool):
                object.__setattr__(self, name, flag(value, name))
            elif value is not None or name == "min_requests":
                what = "a number" if name == "min_requests" else "a number, or None for no limit"
                checked = number(value, name, what)
                if checked < 0:
                    raise ValueError(f"{name} must not be negative, got {value}")
                # Others (Decimal, numpy's) know fewer ways to be written out.
                object.__setattr__(self, name, value if type(value) is int else checked)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The state of a process and its batchers. It is true if the process is ready.

    Parameters
    ----------
    state : State
        The worst state of its batchers, and of what `reasons` says about the process itself.
    ready : bool
        Whether the process should get requests.
    alive : bool
        Whether the process should go on.
    reasons : tuple of str
        Why the state is not ``ready``.
    batchers : dict of str to State
        The state of each batcher, by name.
    """

    state: State
    ready: bool
    alive: bool
    reasons: tuple[str, ...]
    batchers: dict[str, State] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.ready


class Monitor:
    """Judges every open batcher of the process by limits. Safe to use from any thread, and from signal handlers.

    Parameters
    ----------
    limits : Limits, optional
        By default ``Limits()``.

    Examples
    --------
    >>> import inferkit
    >>> monitor = inferkit.health.Monitor(inferkit.health.Limits(max_queue_depth=10))
    >>> with monitor.loading("scorer.onnx"):
    ...     report = monitor.report()
    >>> report.state.value, report.ready, report.reasons
    ('loading', False, ('scorer.onnx is being loaded',))
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits
        # No lock guards these: a signal's handler that calls drain(), and a child of fork(), would wait for ever for
        # one that this thread, or a thread that is no longer there, holds. Each is changed in one step of the
        # interpreter.
        self._loading: list[str] = []
        self._draining: str | None = None
        self._last: State | None = None
        self._hung: frozenset[tuple[int, int]] = frozenset()  # calls whose stacks have been logged

    @property
    def limits(self) -> Limits:
        """What it judges by; may be set."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if not isinstance(limits, Limits):
            raise TypeError(f"limits must be health.Limits, got {type(limits).__name__}")
        self._limits = limits

    @contextmanager
    def loading(self, what: str = "a model") -> Iterator[None]:
        """Not ready, in state ``loading``, for the length of a ``with`` block.

        Parameters
        ----------
        what : str
            What is being loaded, for the reasons.
        """
        what = printable(what, 1000)
        self._loading.append(what)
        try:
            yield
        finally:
            self._loading.remove(what)

    def drain(self, reason: str = "the process is shutting down") -> None:
        """Say that no more requests should come: not ready, in state ``draining``, from now on.

        Call it when the signal to end arrives, some seconds before the batchers are closed, so that whoever sends
        requests has time to notice.

        Parameters
        ----------
        reason : str
            For the reasons.
        """
        self._draining = printable(reason, 1000)

    def report(self) -> Report:
        """Look at everything now.

        Returns
        -------
        Report
        """
        memory.look()
        loading, draining = list(self._loading), self._draining
        found = [(State.LOADING, f"{what} is being loaded") for what in loading]
        if draining is not None:
            found.append((State.DRAINING, draining))
        batchers: dict[str, State] = {}
        idle, drained, forked = True, [], []
        hung: dict[tuple[int, int], tuple[str, float, tuple[Site, ...]]] = {}
        for batcher in _batcher._open_batchers():
            if batcher._state == "forked":
                forked.append(batcher.name)
                continue
            stats = batcher.stats()
            idle &= stats.queue_depth == 0 and stats.in_flight == 0
            if stats.state == "open":
                judged = judge(batcher, stats, self.limits)
                if _hangs(stats, self.limits) and (call := _hung_call(batcher.model)):
                    hung[call[0]] = (batcher.name, stats.longest_run, call[1])
                found += [(state, f"{batcher.name}: {reason}") for state, reason in judged]
                batchers[batcher.name] = worst(judged)
            else:
                drained.append(batcher.name)
                batchers[batcher.name] = State.DRAINING
        if not batchers and forked:
            found.append(
                (
                    State.FAILED,
                    f"{', '.join(forked)}: made before the process was forked; make batchers in each process",
                )
            )
        elif not batchers and not loading:
            none = (State.DRAINING, "every batcher is closed") if _batcher._closed_any else None
            found.append(none or (State.LOADING, "there is no batcher yet"))
        elif drained and len(drained) == len(batchers):
            found.append((State.DRAINING, f"{', '.join(drained)}: draining"))
        found += self._judge_process(idle)
        state = worst(found)
        self._note(state, found)
        self._note_hung(hung)
        return Report(
            state=state,
            ready=state is State.READY or (state is State.DEGRADED and self.limits.degraded_is_ready),
            alive=not (state is State.FAILED and self.limits.failed_is_dead),
            reasons=tuple(printable(reason, 1000) for _, reason in sorted(found, key=lambda one: -_ORDER[one[0]])),
            batchers=batchers,
        )

    def ready(self) -> Report:
        """Whether the process should get requests: a report, which is true where it should.

        Returns
        -------
        Report
        """
        return self.report()

    def live(self) -> bool:
        """Whether the process should be left running: always, unless ``failed_is_dead`` says otherwise.

        Returns
        -------
        bool
        """
        return not self.limits.failed_is_dead or self.report().alive

    def _judge_process(self, idle: bool) -> list[tuple[State, str]]:
        limits, found = self.limits, []
        if built()["debug"] and not limits.debug_is_fine:
            found.append((State.DEGRADED, "a debug build of inferkit runs here, ten to a hundred times slower"))
        loops = sys.modules.get("inferkit.diagnostics._loop")  # nobody watches where nobody has imported it
        if limits.max_loop_hold is not None and loops is not None:
            stalls = [stall for stall in loops.recent_stalls(_WINDOW) if stall.duration > limits.max_loop_hold]
            if stalls:
                longest = max(stalls, key=lambda stall: stall.duration)
                times = f"{len(stalls)} times in the last minute: " if len(stalls) > 1 else ""
                found.append((State.DEGRADED, f"{times}{longest}"))
        if limits.max_memory_bytes is not None and (rss := resident_bytes()) > limits.max_memory_bytes:
            found.append((State.DEGRADED, f"memory is {rss} bytes, over the limit of {limits.max_memory_bytes}"))
        if limits.max_idle_buffers is not None and idle:
            pool = BufferPool.default()
            if (out := pool.stats().outstanding) > limits.max_idle_buffers:
                counts: Counter[str] = Counter()
                for row in pool.leaks():
                    counts[row.tag or "unknown"] += row.count
                users = ", ".join(f"{count} of '{tag}'" for tag, count in counts.most_common())
                reason = f"{counted(out, 'buffer')} in use while nothing runs, over the limit of"
                found.append((State.DEGRADED, f"{reason} {limits.max_idle_buffers}: {users}"))
        return found

    def _note(self, state: State, found: list[tuple[State, str]]) -> None:
        before, self._last = self._last, state
        if before is not state:
            fields = {"state": state.value, "reasons": [reason for _, reason in found]}
            log("health", "state", fields, "INFO" if state is State.READY else "WARNING")

    def _note_hung(self, hung: dict[tuple[int, int], tuple[str, float, tuple[Site, ...]]]) -> None:
        """Log where a callable hangs: once for each call."""
        before, self._hung = self._hung, frozenset(hung)
        for call, (name, seconds, stack) in hung.items():
            if call not in before:
                shown = " < ".join(_shown(site) for site in reversed(stack))  # the innermost first: lines are cut
                log("health", "hung", {"batcher": name, "seconds": round(seconds, 3), "stack": shown}, "ERROR")


def _hangs(stats: BatcherStats, limits: Limits) -> bool:
    return limits.hung_after is not None and stats.longest_run > limits.hung_after


def hanging(limits: Limits) -> list[Batcher]:
    """Find the open batchers whose callable has run for too long; the log gets nothing of it."""
    after = limits.hung_after
    if after is None:
        return []
    return [
        batcher
        for batcher in _batcher._open_batchers()
        if not batcher.model._is_native and batcher._longest_run > after
    ]


def _hung_call(model: Model) -> tuple[tuple[int, int], tuple[Site, ...]] | None:
    """Find the oldest call of a model's callable, and its thread's stack; None where no Python runs."""
    call = model._longest_call()
    if call is None or (frame := sys._current_frames().get(call[0])) is None:
        return None
    return call, sites(frame)


def _shown(site: Site) -> str:
    return f"{site[0]}:{site[1]} in {site[2]}"


def worst(found: list[tuple[State, str]]) -> State:
    return max((state for state, _ in found), key=_ORDER.__getitem__, default=State.READY)


def judge(batcher: Batcher, stats: BatcherStats, limits: Limits) -> list[tuple[State, str]]:
    """Say what is wrong with an open batcher."""
    found: list[tuple[State, str]] = []

    def check(value: float, limit: float | None, text: str, state: State = State.DEGRADED) -> None:
        if limit is not None and value > limit:
            found.append((state, text))

    if limits.require_warm_up and not _is_warm(batcher, stats):
        found.append((State.WARMING, "not warmed up; call batcher.warm_up()"))
    if failure := device_failure(batcher.model):
        found.append((State.FAILED, f"the device of its model has failed: {failure}"))
    if _hangs(stats, limits):
        where = ""
        if call := _hung_call(batcher.model):
            where = f" at {_shown(blamed(call[1]))}"
        found.append((State.FAILED, f"a batch has run for {stats.longest_run:.1f} s: its worker hangs{where}"))
    check(
        stats.queue_depth,
        limits.max_queue_depth,
        f"{counted(stats.queue_depth, 'request')} in the queue, over the limit of {limits.max_queue_depth}",
    )
    check(
        stats.oldest_wait,
        limits.max_oldest_wait,
        f"a request has waited for {stats.oldest_wait:.1f} s, over the limit of {limits.max_oldest_wait} s",
    )
    window = stats.windows[_WINDOW]
    if window.completed + window.failed >= limits.min_requests:
        check(
            window.inference_error_rate,
            limits.max_error_rate,
            f"{window.inference_error_rate:.1%} of the last minute's runs failed, over the limit of "
            f"{limits.max_error_rate or 0:.1%}",
        )
        check(
            window.p99_latency_ms,
            limits.max_p99_ms,
            f"p99 of the last minute is {window.p99_latency_ms:.3g} ms, over the limit of {limits.max_p99_ms} ms",
        )
    unserved = window.rejected + window.expired
    if window.completed + window.failed + unserved >= limits.min_requests:
        check(
            window.unserved_rate,
            limits.max_unserved_rate,
            f"{window.unserved_rate:.1%} of the last minute's requests got no answer ({window.rejected} rejected, "
            f"{window.expired} expired), over the limit of {limits.max_unserved_rate or 0:.1%}",
        )
    came = window.completed + window.failed + window.cancelled + unserved + window.invalid
    if came >= limits.min_requests:
        check(
            window.invalid_rate,
            limits.max_invalid_rate,
            f"{window.invalid_rate:.1%} of the last minute's requests were invalid, over the limit of "
            f"{limits.max_invalid_rate or 0:.1%}",
        )
    return found


def _is_warm(batcher: Batcher, stats: BatcherStats) -> bool:
    return batcher._warm or stats.batches > 0 or (batcher.model._is_native and batcher.model.memory().plans > 0)
