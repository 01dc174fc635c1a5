"""OpenTelemetry: a span for each request, in the context of whoever submitted it, and one for each batch."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import _core
from .._arguments import seconds
from .._background import pause, started, surviving
from .._batcher import Batcher
from .._build import built
from .._errors import RequestCancelledError
from .._text import NAME_LIMIT, printable

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["flush", "instrument", "uninstrument"]

_POLL_SECONDS = 0.02
_MOST = 4096  # tickets that are kept for their spans; each keeps the memory of an answer
_lock = threading.Lock()  # guards _active
_active: _Instrumentation | None = None


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that the child does not have may hold the old one


os.register_at_fork(after_in_child=_forked)


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make an OpenTelemetry span of every request, from its submission to its end.

    The parent of the span is the span that is current where ``submit`` is called, in a thread or in an asyncio task.
    Its events are the stages of the request (dequeued, started, delivered). Its attributes are ``inferkit.batcher``,
    ``inferkit.request_id``, ``inferkit.outcome``, ``inferkit.batch_id`` and ``inferkit.batch_size``, and
    ``inferkit.tags.<name>`` for each tag, however many different ones there are. A thread ends the spans of tickets,
    within about 40 ms after the request's end and with its exact time. If more than 4096 spans wait for this thread, a
    new span ends when its request is submitted, without an outcome. A span that is recorded costs its request about
    50 us; one that is sampled out costs a few.

    A batch serves requests of many traces, so it has a span ``inferkit.batch`` in a trace of its own, from its start to
    its end. It links to the span of each of its requests, and they link to it. The span of a blocking call
    (``batcher(x)``) has neither a batch nor stages.

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
        raise ImportError("OpenTelemetry is not installed: pip install opentelemetry-api") from error
    if tracer_provider is not None and not hasattr(tracer_provider, "get_tracer"):
        raise TypeError(f"tracer_provider must be a TracerProvider, or None, got {type(tracer_provider).__name__}")
    global _active
    tracer = trace.get_tracer("inferkit", built()["version"], tracer_provider)
    with _lock:
        if _active is not None:
            raise RuntimeError("instrument() was called before; call uninstrument() first")
        _active = _Instrumentation(tracer, trace.INVALID_SPAN)
    atexit.register(uninstrument)  # before the provider, which was there first, shuts down


def uninstrument() -> None:
    """Make no more spans. Spans of requests that have not ended end now. Without :func:`instrument` it does nothing."""
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
        For how many seconds to wait at most.

    Returns
    -------
    bool
        Whether they are.
    """
    timeout, active = seconds(timeout, "timeout"), _active
    return active is None or active.flush(timeout)


@dataclass(frozen=True)
class _Request:
    """A request that has a span."""

    ticket: _core.Ticket
    span: Span
    batcher: tuple[int, str]  # its number, as names are used again; and its name


class _Ended:
    """What is to be told of a request that has ended. Its ticket, and with that its answer's memory, is let go."""

    def __init__(self, request: _Request) -> None:
        ticket = request.ticket
        self.span, self.timing, self.error = request.span, ticket.timing, ticket.exception(0)
        self.outcome = "completed" if self.error is None else "cancelled" if ticket.cancelled() else "failed"


@dataclass
class _Batch:
    """A batch that has ended, and those of its requests that are known to be in it."""

    requests: list[_Ended] = field(default_factory=list)
    joined: int = 0  # the sweep in which the last of them was found


class _Instrumentation:
    """Wraps the two ways to submit, and owns the thread that ends the spans of tickets."""

    def __init__(self, tracer: Tracer, no_span: Span) -> None:
        self._tracer = tracer
        self._no_span = no_span  # kept: at the interpreter's end there is nothing to import from
        # Appended by submitters, taken by the thread: a deque's two ends need no lock.
        self._new: deque[_Request] = deque()
        self._pending: list[_Request] = []  # the thread's, as are the next two
        self._batches: dict[tuple[int, str, int], _Batch] = {}  # by batcher and id
        # Each batcher has one of its own: an address is another's as soon as it is free.
        self._numbers: WeakKeyDictionary[Batcher, int] = WeakKeyDictionary()
        self._count = itertools.count()
        self._sweeps = 0
        self._work = threading.Event()
        self._swept = threading.Condition()
        self._begun = self._done = self._wanted = 0  # sweeps; guarded by _swept
        self._stopped = False
        self._thread = started(self._run, "inferkit-otel", "instrument()")
        self._wrap()

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
            with surviving("otel", "span lost"):  # the request is on its way, and its caller gets the ticket
                instrumentation.follow(batcher, ticket, span)
            return ticket

        @wraps(call)
        def traced_call(batcher: Batcher, *inputs: Any, **options: Any) -> Any:
            span = instrumentation.start(batcher, options)
            try:
                answer = call(batcher, *inputs, **options)
            except BaseException as error:
                instrumentation.fail(span, error)
                raise
            with surviving("otel", "span lost"):
                span.set_attribute("inferkit.outcome", "completed")
                span.end()
            return answer

        wrapped: Any = Batcher
        wrapped.submit, wrapped.__call__ = traced_submit, traced_call

    def start(self, batcher: Batcher, options: dict[str, Any]) -> Span:
        attributes: dict[str, Any] = {"inferkit.batcher": batcher.name}
        if options.get("request_id") is not None:
            attributes["inferkit.request_id"] = _attribute(options["request_id"])
        with surviving("otel", "span lost"):  # a sampler or a processor may raise; the request is none of its business
            attributes |= _tag_attributes(options.get("tags"))
            return self._tracer.start_span("inferkit.request", attributes=attributes)
        return self._no_span

    def follow(self, batcher: Batcher, ticket: _core.Ticket, span: Span) -> None:
        """Have the span of a request that was submitted ended when that is."""
        if span.is_recording():
            span.set_attribute("inferkit.request_id", _attribute(ticket.request_id))
        if span.is_recording() and len(self._new) + len(self._pending) < _MOST:
            number = self._numbers.setdefault(batcher, next(self._count))
            self._new.append(_Request(ticket, span, (number, batcher.name)))
            self._work.set()
        else:
            span.end()

    def fail(self, span: Span, error: BaseException) -> None:
        """End the span of a request that never was, or whose caller got an error."""
        outcome = "cancelled" if isinstance(error, RequestCancelledError) else "failed"
        with surviving("otel", "span lost"):
            _set_error(span, error)
            span.set_attribute("inferkit.outcome", outcome)
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
            # One that has begun may have passed what is new; a batch ends with the sweep after its last request's.
            target = self._wanted = self._begun + 2
            self._work.set()
            return self._swept.wait_for(lambda: self._done >= target or self._stopped, timeout)

    def _run(self) -> None:
        while not self._stopped:
            if self._pending or self._batches or self._begun < self._wanted:
                time.sleep(_POLL_SECONDS)
            else:
                pause(self._work, None, "otel")
            self._work.clear()
            with self._swept:
                self._begun += 1
            with surviving("otel", "span lost"):
                self._sweep()
            with self._swept:
                self._done = self._begun
                self._swept.notify_all()
        with surviving("otel", "span lost"):
            self._sweep()
            self._end_batches(self._sweeps + 1)
        for request in self._pending:
            with surviving("otel", "span lost"):
                request.span.end()
        with self._swept:
            self._swept.notify_all()

    def _sweep(self) -> None:
        while self._new:
            self._pending.append(self._new.popleft())
        self._sweeps += 1
        pending, self._pending = self._pending, []
        for request in pending:
            with surviving("otel", "span lost"):  # and with it the request is let go
                if not self._sort(request):
                    self._pending.append(request)
        # The requests of a batch end together, but this sweep may have looked at some of them before that.
        self._end_batches(self._sweeps)

    def _sort(self, request: _Request) -> bool:
        """End the span of a request that ended without a batch; put it to its batch where it has one."""
        if not request.ticket.done():
            return False
        ended = _Ended(request)
        batch_id = ended.timing.batch_id
        if batch_id is None:
            _end(ended)
        else:
            batch = self._batches.setdefault((*request.batcher, batch_id), _Batch())
            batch.requests.append(ended)
            batch.joined = self._sweeps
        return True

    def _end_batches(self, before: int) -> None:
        """End the spans of the batches, and of their requests, that nothing has joined since sweep `before` began."""
        over = [key for key, batch in self._batches.items() if batch.joined < before]
        for key in over:
            requests = self._batches.pop(key).requests
            with surviving("otel", "span lost"):
                self._end_batch(key[1], key[2], requests)

    def _end_batch(self, batcher: str, batch_id: int, requests: list[_Ended]) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        # Where a batch failed, its requests ran again one by one: it takes from the first start to the last end.
        timings = [request.timing for request in requests]
        started = [t.started for t in timings if t.started is not None]
        finished = [t.finished for t in timings if t.finished is not None]
        attributes: dict[str, Any] = {"inferkit.batcher": batcher, "inferkit.batch_id": batch_id}
        span = self._tracer.start_span(
            "inferkit.batch",
            Context(),  # it belongs to the trace of none of its requests
            attributes=attributes | {"inferkit.batch_size": timings[0].batch_size or len(requests)},
            links=[Link(request.span.get_span_context()) for request in requests],
            start_time=_wall(min(started)) if started else None,
        )
        for request in requests:
            with surviving("otel", "span lost"):
                request.span.add_link(span.get_span_context())
                _end(request)
        error = next((request.error for request in requests if request.error is not None), None)
        if error is not None:
            _set_error(span, error)
        span.end(_wall(max(finished)) if finished else None)


def _wall(seconds: float) -> int:
    """Nanoseconds of the wall clock at a time of the monotonic one."""
    return int(seconds * 1e9) + time.time_ns() - time.monotonic_ns()


def _end(request: _Ended) -> None:
    span, timing = request.span, request.timing
    for name in ("dequeued", "started", "delivered"):
        at = getattr(timing, name)
        if at is not None:
            span.add_event(name, timestamp=_wall(at))
    span.set_attribute("inferkit.outcome", request.outcome)
    if timing.batch_id is not None and timing.batch_size is not None:
        span.set_attributes({"inferkit.batch_id": timing.batch_id, "inferkit.batch_size": timing.batch_size})
    if request.error is not None and request.outcome == "failed":
        _set_error(span, request.error)
    span.end(None if timing.finished is None else _wall(timing.finished))


def _set_error(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    # A message may hold what no exporter can encode, and then the whole export fails.
    message = printable(error, 1000)
    lines = "".join(traceback.format_exception(error)).splitlines()
    stack = "\n".join(printable(line, 1000) for line in lines)
    span.record_exception(error, attributes={"exception.message": message, "exception.stacktrace": stack})
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {message}"))


def _attribute(request_id: Any) -> Any:
    return request_id if isinstance(request_id, int) else printable(request_id, NAME_LIMIT)


def _tag_attributes(tags: Any) -> dict[str, str]:
    """Take what submit() will take; what it will refuse is no attribute."""
    found = dict(tags) if isinstance(tags, Mapping) else {}
    return {
        f"inferkit.tags.{printable(name, NAME_LIMIT)}": printable(value, NAME_LIMIT)
        for name, value in itertools.islice(found.items(), 8)
        if isinstance(name, str) and isinstance(value, str)
    }
