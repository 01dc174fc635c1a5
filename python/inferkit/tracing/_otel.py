"""OpenTelemetry: one span a request, in the context of whoever submitted it."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from functools import wraps
from typing import TYPE_CHECKING, Any

from .. import _core
from .._batcher import Batcher
from .._errors import RequestCancelledError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["flush", "instrument", "uninstrument"]

_POLL_SECONDS = 0.02
_lock = threading.Lock()  # guards _active
_active: _Instrumentation | None = None


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make an OpenTelemetry span of every request, from its submission to its end.

    The span's parent is the span that is current where ``submit`` is called, in a thread or in an asyncio task,
    wherever the request runs and whoever waits for it. Its events are the stages (dequeued, started, delivered), its
    attributes ``inferkit.batcher``, ``inferkit.request_id``, ``inferkit.outcome``, ``inferkit.batch_id`` and
    ``inferkit.batch_size``. Spans of tickets are ended by a thread of their own, within some 20 ms of the request's end
    and with its exact time. Costs each request some 20 us where its span is recorded; sampled-out ones a few.

    Parameters
    ----------
    tracer_provider : opentelemetry.trace.TracerProvider, optional
        By default the global one.

    Raises
    ------
    ImportError
        OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise ImportError("OpenTelemetry is not installed: pip install 'inferkit[otel]'") from error
    global _active
    from .._build import build_info

    tracer = trace.get_tracer("inferkit", build_info()["version"], tracer_provider)
    with _lock:
        if _active is not None:
            raise RuntimeError("instrument() was called before; call uninstrument() first")
        _active = _Instrumentation(tracer)
    atexit.register(uninstrument)  # before the provider, which was there first, shuts down


def uninstrument() -> None:
    """Make no more spans; those of requests that have not ended end now. Does nothing without :func:`instrument`."""
    global _active
    with _lock:
        active, _active = _active, None
    if active is not None:
        atexit.unregister(uninstrument)
        active.stop()


def flush(timeout: float = 5.0) -> bool:
    """Wait until the spans of all requests that have ended are ended.

    Parameters
    ----------
    timeout : float
        Seconds to wait at most.

    Returns
    -------
    bool
        Whether they are.
    """
    active = _active
    return active is None or active.flush(timeout)


class _Instrumentation:
    """Wraps the two ways to submit, and owns the thread that ends the spans of tickets."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # Appended by submitters, taken by the thread: a deque's two ends need no lock.
        self._new: deque[tuple[_core.Ticket, Span]] = deque()
        self._pending: list[tuple[_core.Ticket, Span]] = []  # the thread's
        self._work = threading.Event()
        self._swept = threading.Condition()
        self._begun = self._done = 0  # sweeps; guarded by _swept
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="inferkit-otel", daemon=True)
        self._wrap()
        self._thread.start()

    def _wrap(self) -> None:
        submit, call, instrumentation = _core.Batcher.submit, _core.Batcher.__call__, self

        @wraps(submit)
        def traced_submit(batcher: Batcher, *inputs: Any, **options: Any) -> _core.Ticket:
            span = instrumentation.start(batcher, options)
            try:
                ticket = submit(batcher, *inputs, **options)
            except BaseException as error:
                instrumentation.fail(span, error)
                raise
            if span.is_recording():
                span.set_attribute("inferkit.request_id", ticket.request_id)
                instrumentation._new.append((ticket, span))
                instrumentation._work.set()
            else:
                span.end()
            return ticket

        @wraps(call)
        def traced_call(batcher: Batcher, *inputs: Any, **options: Any) -> Any:
            span = instrumentation.start(batcher, options)
            try:
                answer = call(batcher, *inputs, **options)
            except BaseException as error:
                instrumentation.fail(span, error)
                raise
            span.set_attribute("inferkit.outcome", "completed")
            span.end()
            return answer

        wrapped: Any = Batcher
        wrapped.submit, wrapped.__call__ = traced_submit, traced_call

    def start(self, batcher: Batcher, options: dict[str, Any]) -> Span:
        attributes: dict[str, Any] = {"inferkit.batcher": batcher.name}
        if options.get("request_id") is not None:
            attributes["inferkit.request_id"] = options["request_id"]
        return self._tracer.start_span("inferkit.request", attributes=attributes)

    def fail(self, span: Span, error: BaseException) -> None:
        """End the span of a request that never was, or whose caller got an error."""
        _set_error(span, error)
        span.set_attribute("inferkit.outcome", "cancelled" if isinstance(error, RequestCancelledError) else "failed")
        span.end()

    def stop(self) -> None:
        del Batcher.submit
        del Batcher.__call__
        _core.install_batcher_call(Batcher)  # the direct slot, which the wrapper had replaced
        self._stopped = True
        self._work.set()
        self._thread.join()

    def flush(self, timeout: float) -> bool:
        with self._swept:
            target = self._begun + 1  # one that has begun may have passed what is new
            self._work.set()
            return self._swept.wait_for(lambda: self._done >= target or self._stopped, timeout)

    def _run(self) -> None:
        while not self._stopped:
            if self._pending:
                time.sleep(_POLL_SECONDS)
            else:
                self._work.wait()
            self._work.clear()
            with self._swept:
                self._begun += 1
            self._sweep()
            with self._swept:
                self._done = self._begun
                self._swept.notify_all()
        self._sweep()
        for _, span in self._pending:
            span.end()
        with self._swept:
            self._swept.notify_all()

    def _sweep(self) -> None:
        while self._new:
            self._pending.append(self._new.popleft())
        self._pending = [(ticket, span) for ticket, span in self._pending if not self._end(ticket, span)]

    def _end(self, ticket: _core.Ticket, span: Span) -> bool:
        if not ticket.done():
            return False
        timing = ticket.timing
        offset = time.time_ns() - time.monotonic_ns()

        def wall(seconds: float) -> int:
            return int(seconds * 1e9) + offset

        for name in ("dequeued", "started", "delivered"):
            at = getattr(timing, name)
            if at is not None:
                span.add_event(name, timestamp=wall(at))
        error = ticket.exception(0)
        outcome = "completed" if error is None else "cancelled" if ticket.cancelled() else "failed"
        span.set_attribute("inferkit.outcome", outcome)
        if timing.batch_id is not None and timing.batch_size is not None:
            span.set_attributes({"inferkit.batch_id": timing.batch_id, "inferkit.batch_size": timing.batch_size})
        if error is not None and outcome == "failed":
            _set_error(span, error)
        span.end(None if timing.finished is None else wall(timing.finished))
        return True


def _set_error(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
