"""What the trace ring holds, as Python objects."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import _core
from .._arguments import flag, integer
from .._batcher import Batcher, _open_batchers

__all__ = ["BatchTrace", "Outcome", "RequestTrace", "Snapshot", "StepTrace", "read", "snapshot", "steps", "trace_steps"]

Outcome = Literal["completed", "failed", "cancelled", "expired", "rejected", "closed"]


@dataclass(frozen=True, kw_only=True)
class RequestTrace:
    """One request that has ended. Times are seconds of ``time.monotonic()``, or None for what did not happen.

    Parameters
    ----------
    batcher : str
        The batcher's name.
    request_id : str or int
        The id that the caller gave (48 bytes of it are kept), or a number that the batcher gave.
    outcome : str
        ``completed``, ``failed``, ``cancelled``, ``expired``, ``rejected`` (the queue was full) or ``closed``.
    reason : str
        Why it got no answer, as in :attr:`BatcherStats.refused` and :attr:`BatcherStats.dropped`; ``caller`` where its
        caller ran it; empty for others, whose batch has a reason.
    priority : int
        What the caller gave; 0 by default.
    rows : int
        How many rows the request had.
    batch_id, batch_size : int or None
        The number of its batch, and how many rows that had; None if the request did not run.
    enqueued, dequeued, started, finished, delivered : float or None
        When the request was submitted, when it was put into a batch, when the batch began to run, when the request
        ended, and when its caller took the answer or the error.
    thread : int
        The kernel's id of the thread that ended the request.
    tags : mapping of str to str
        What the caller gave; ``{"overflow": "true"}`` where the batcher knew as many others as it tells apart.
    """

    batcher: str
    request_id: str | int
    outcome: Outcome
    reason: str
    priority: int
    rows: int
    batch_id: int | None
    batch_size: int | None
    enqueued: float
    dequeued: float | None
    started: float | None
    finished: float
    delivered: float | None
    thread: int
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def queue_ms(self) -> float | None:
        """Milliseconds from submission to the start of the run."""
        return None if self.started is None else (self.started - self.enqueued) * 1e3

    @property
    def compute_ms(self) -> float | None:
        """Milliseconds of the run."""
        return None if self.started is None else (self.finished - self.started) * 1e3

    @property
    def total_ms(self) -> float:
        """Milliseconds from submission to the end."""
        return (self.finished - self.enqueued) * 1e3


@dataclass(frozen=True, kw_only=True)
class BatchTrace:
    """One batch that has run. Times are seconds of ``time.monotonic()``.

    Parameters
    ----------
    batcher : str
        The batcher's name.
    batch_id : int
        The number of the batch.
    reason : str
        Why it started to run, as in :attr:`BatcherStats.dispatched`.
    failed : bool
        Whether the run as a whole failed.
    requests, rows : int
        How many requests and rows it had.
    padding : float
        Which share of the inputs that are padded was padding, in whole hundredths.
    enqueued, dequeued, started, finished : float
        When its first request was submitted, when the batch was assembled, when it began to run, when it ended.
    thread : int
        The kernel's id of the thread that ran it.
    """

    batcher: str
    batch_id: int
    reason: str
    failed: bool
    requests: int
    rows: int
    padding: float
    enqueued: float
    dequeued: float
    started: float
    finished: float
    thread: int


@dataclass(frozen=True, kw_only=True)
class StepTrace:
    """One step of a run of any model, by a batcher or a direct call. Times are seconds of ``time.monotonic()``.

    Parameters
    ----------
    name : str
        Its operator and the end of its node's name, 48 bytes in all: ``Gemm fc1``. Fused nodes are one step.
    started, finished : float
    thread : int
        The kernel's id of the thread that the run was on.
    """

    name: str
    started: float
    finished: float
    thread: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The last requests and batches, oldest first.

    Parameters
    ----------
    requests : tuple of RequestTrace
    batches : tuple of BatchTrace
    dropped : int
        How many records were lost because two threads wrote to the same place of the ring at once.
    """

    requests: tuple[RequestTrace, ...]
    batches: tuple[BatchTrace, ...]
    dropped: int


Row = tuple[Any, ...]  # as _core.Batcher._trace() gives it
_KIND, _ENQUEUED, _FINISHED = 1, 5, 8


def _request(batcher: str, row: Row) -> RequestTrace:
    _, _, number, label, batch_id, *times, thread, rows, batch_rows, priority, tags, outcome, reason = row
    enqueued, dequeued, started, finished, delivered = (at * 1e-9 if at else None for at in times)
    return RequestTrace(
        batcher=batcher,
        request_id=label or number,
        outcome=outcome,
        reason=reason,
        priority=priority,
        rows=rows,
        batch_id=batch_id or None,
        batch_size=batch_rows or None,
        enqueued=enqueued or 0.0,
        dequeued=dequeued,
        started=started,
        finished=finished or 0.0,
        delivered=delivered,
        thread=thread,
        tags=dict(tags),
    )


def _batch(batcher: str, row: Row) -> BatchTrace:
    _, kind, _, _, batch_id, *times, thread, rows, batch_rows, padding, _, outcome, reason = row
    enqueued, dequeued, started, finished, _ = times
    return BatchTrace(
        batcher=batcher,
        batch_id=batch_id,
        reason=reason,
        failed=outcome == "failed",
        requests=rows if kind == "batch" else 1,
        rows=batch_rows,
        padding=padding / 100 if kind == "batch" else 0.0,
        enqueued=enqueued * 1e-9,
        dequeued=dequeued * 1e-9,
        started=started * 1e-9,
        finished=finished * 1e-9,
        thread=thread,
    )


def read(batcher: Batcher, after: int = 0) -> tuple[list[RequestTrace], list[BatchTrace], int]:
    """Take the records after number `after`, and the number of the last one."""
    rows: list[Row] = batcher._trace(after)
    requests = [_request(batcher.name, row) for row in rows if row[_KIND] == "request"]
    # A caller's run is one request and one batch, and has one record.
    batches = [_batch(batcher.name, row) for row in rows if row[_KIND] == "batch" or row[-1] == "caller"]
    return requests, batches, rows[-1][0] if rows else after


def slowest(batcher: Batcher, count: int) -> list[RequestTrace]:
    """Take the requests that took longest, without making objects of all the others."""
    rows: list[Row] = [row for row in batcher._trace(0) if row[_KIND] == "request"]
    rows = heapq.nlargest(count, rows, key=lambda row: row[_FINISHED] - row[_ENQUEUED])
    return [_request(batcher.name, row) for row in rows]


def chosen(batcher: Batcher | Iterable[Batcher] | None) -> list[Batcher]:
    """Resolve an argument: one, several, or every open batcher of the process."""
    if isinstance(batcher, Batcher):
        return [batcher]
    if batcher is None:
        return _open_batchers()
    found = list(batcher) if isinstance(batcher, Iterable) else [batcher]
    for one in found:
        if not isinstance(one, Batcher):
            raise TypeError(f"batcher must be a Batcher, an iterable of them, or None, got {type(one).__name__}")
    return found


def snapshot(batcher: Batcher | Iterable[Batcher] | None = None) -> Snapshot:
    """Take what the ring buffers hold: the last ``trace_size`` requests and batches of each batcher.

    A worker records a request just after it has woken the caller, so the very last request may appear a moment later.

    Parameters
    ----------
    batcher : Batcher or iterable of Batcher, optional
        Which batchers; by default all that are open in the process.

    Returns
    -------
    Snapshot

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model) as batcher:
    ...     _ = batcher(np.ones(2, np.float32), request_id="a1")
    ...     last = inferkit.tracing.snapshot(batcher).requests[-1]
    >>> last.request_id, last.outcome, last.batch_size, last.finished >= last.started >= last.enqueued
    ('a1', 'completed', 1, True)
    """
    requests: list[RequestTrace] = []
    batches: list[BatchTrace] = []
    dropped = 0
    for one in chosen(batcher):
        some, more, _ = read(one)
        requests += some
        batches += more
        dropped += one._trace_dropped
    requests.sort(key=lambda r: r.finished)
    batches.sort(key=lambda b: b.finished)
    return Snapshot(requests=tuple(requests), batches=tuple(batches), dropped=dropped)


def trace_steps(on: bool = True, *, capacity: int = 65536) -> None:
    """Start, or stop, to record every step of every run.

    It is off at first, because it costs each step about 100 ns. The last ``capacity`` steps are kept, at 128 bytes
    each.

    Parameters
    ----------
    on : bool
    capacity : int
        The size of the ring buffer, which is made at the first call: rounded up to a power of two, at most 2**24.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.tracing.trace_steps()
    >>> # ... some runs, then inferkit.tracing.export_perfetto("trace.json")
    >>> inferkit.tracing.trace_steps(False)
    >>> all(step.started <= step.finished for step in inferkit.tracing.steps())
    True
    """
    _core.trace_steps(flag(on, "on"), integer(capacity, "capacity", 1))


def steps() -> tuple[StepTrace, ...]:
    """Return the last steps that :func:`trace_steps` recorded, oldest first."""
    return tuple(
        StepTrace(name=name, started=started, finished=finished, thread=thread)
        for name, started, finished, thread in _core.traced_steps()
    )
