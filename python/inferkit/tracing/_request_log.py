"""Log lines of requests, written by a thread that reads the trace, so that no request waits for a log."""

from __future__ import annotations

import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._arguments import seconds
from .._background import pause, started, surviving
from .._batcher import Batcher, _open_batchers
from .._initialised import says_if_not_initialised
from .._log import log
from .._text import NAME_LIMIT, printable
from ._records import RequestTrace, read

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RequestLog", "log_requests"]


@says_if_not_initialised
class RequestLog:
    """Writes a log line for each request that ends; made by :func:`log_requests`. A ``with`` block stops it."""

    __slots__ = ("_interval", "_last", "_only", "_slow_ms", "_stopped", "_thread")

    def __init__(self, slow: float | None, interval: float, batcher: Batcher | None = None) -> None:
        self._only = batcher
        self._slow_ms = None if slow is None else seconds(slow, "slow") * 1e3
        self._interval = seconds(interval, "interval", positive=True)
        self._last: weakref.WeakKeyDictionary[Batcher, int] = weakref.WeakKeyDictionary()
        for one in self._batchers():
            self._last[one] = read(one)[2]
        self._stopped = threading.Event()
        self._thread = started(self._run, "inferkit-request-log", "log_requests()")

    @property
    def thread(self) -> int | None:
        """The identifier of the thread that writes, as in log records."""
        return self._thread.ident

    def stop(self) -> None:
        """Write the lines that are due, then no more. A second call does nothing."""
        thread = self._thread
        self._stopped.set()
        thread.join()

    def __enter__(self) -> Self:
        """Return the log, which the end of the block stops."""
        _ = self._thread  # one whose __init__ raised says so here already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it: see :meth:`stop`."""
        self.stop()

    def _run(self) -> None:
        stopped = False
        while not stopped:
            stopped = pause(self._stopped, self._interval, "request")
            with surviving("request", "not logged"):
                self._write()

    def _batchers(self) -> list[Batcher]:
        return list(_open_batchers()) if self._only is None else [self._only]

    def _write(self) -> None:
        for batcher in self._batchers():
            requests, _, self._last[batcher] = read(batcher, self._last.get(batcher, 0))
            for request in requests:
                with surviving("request", "not logged"):  # a filter of the application may raise
                    self._line(request)

    def _line(self, r: RequestTrace) -> None:
        slow = self._slow_ms is not None and r.total_ms > self._slow_ms
        bad = r.outcome not in ("completed", "cancelled")
        event = "slow" if slow and not bad else r.outcome
        fields: dict[str, Any] = {
            "request_id": r.request_id,
            "batcher": r.batcher,
            "outcome": r.outcome,
            "batch_id": r.batch_id,
            "batch_size": r.batch_size,
            "queue_ms": None if r.queue_ms is None else round(r.queue_ms, 3),
            "compute_ms": None if r.compute_ms is None else round(r.compute_ms, 3),
            "total_ms": round(r.total_ms, 3),
        }
        if r.tags:
            fields["tags"] = {name: printable(value, NAME_LIMIT) for name, value in r.tags.items()}
        log("request", event, fields, "WARNING" if bad or slow else "DEBUG")


def log_requests(*, slow: float | None = None, interval: float = 0.5) -> RequestLog:
    """Log every request that ends from now on, to the logger ``inferkit.request``.

    A thread reads the trace from time to time, so requests do not wait for the log. If more than ``trace_size``
    requests end between two reads, the older ones get no line. Failed, expired, rejected and slow requests are
    warnings; the others have the level DEBUG. Each field is an attribute of the log record: ``request_id``,
    ``batcher``, ``outcome``, ``batch_id``, ``batch_size``, ``queue_ms``, ``compute_ms``, ``total_ms``, and
    ``tags``, a dict, where the request has some.

    Parameters
    ----------
    slow : float, optional
        A request is slow if it takes more than so many seconds from submission to end.
    interval : float
        Seconds between two reads of the trace.

    Returns
    -------
    RequestLog
        Stop it with ``stop()``, or use it in a ``with`` block.

    Examples
    --------
    >>> import inferkit, logging, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model) as batcher, inferkit.tracing.log_requests(slow=0.1):
    ...     _ = batcher(np.ones(2, np.float32), request_id="a1")
    """
    return RequestLog(slow, interval)
