"""OpenTelemetry spans of requests, read back from the SDK's in-memory exporter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import tracing

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")

X = np.ones(2, np.float32)


def model(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, [("x", "float32", (None, 2))], [("y", "float32", (None, 2))])


class Spans:
    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def batches(self) -> dict[int, Any]:
        """By id; a batch has one span."""
        assert tracing.flush()
        found = [s for s in self.exporter.get_finished_spans() if s.name == "inferkit.batch"]
        assert len({s.attributes["inferkit.batch_id"] for s in found}) == len(found)
        return {s.attributes["inferkit.batch_id"]: s for s in found}

    def requests(self) -> dict[Any, Any]:
        assert tracing.flush()
        return {
            s.attributes.get("inferkit.request_id"): s
            for s in self.exporter.get_finished_spans()
            if s.name == "inferkit.request"
        }


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    tracing.instrument(spans.provider)
    yield spans
    tracing.uninstrument()


def test_a_span_per_request_with_its_stages(spans: Spans) -> None:
    with inferkit.Batcher(model(), name="b") as batcher:
        ticket = batcher.submit(X, request_id="a")
        assert ticket.result().tolist() == [2, 2]
        batcher(X, request_id="call")
        found = spans.requests()
    span = found["a"]
    assert set(found) == {"a", "call"}
    assert span.attributes["inferkit.outcome"] == "completed"
    assert span.attributes["inferkit.batcher"] == "b"
    assert span.attributes["inferkit.batch_size"] == 1
    assert [e.name for e in span.events][:2] == ["dequeued", "started"]
    assert span.start_time <= span.end_time
    timing = ticket.timing
    assert (span.end_time - span.start_time) * 1e-9 == pytest.approx(timing.finished - timing.enqueued, abs=0.005)


def test_context_crosses_threads(spans: Spans) -> None:
    """The parent is the submitter's span, whoever waits for the answer, and wherever it runs."""
    with inferkit.Batcher(model()) as batcher, ThreadPoolExecutor(4) as pool:

        def client(i: int) -> tuple[int, inferkit.Ticket]:
            with spans.tracer.start_as_current_span(f"client-{i}") as span:
                return span.get_span_context().span_id, batcher.submit(X, request_id=f"r{i}")

        parents = {}
        for i, (parent, ticket) in enumerate(pool.map(client, range(20))):
            parents[f"r{i}"] = parent
            ticket.result()  # here, where no span is current
        found = spans.requests()
    assert {name: span.parent.span_id for name, span in found.items()} == parents


def test_context_crosses_tasks(spans: Spans) -> None:
    parents = {}

    async def client(batcher: inferkit.Batcher, i: int) -> None:
        with spans.tracer.start_as_current_span(f"task-{i}") as span:
            parents[f"t{i}"] = span.get_span_context().span_id
            await asyncio.sleep(0)
            await batcher.submit(X, request_id=f"t{i}")

    async def main() -> None:
        async with inferkit.Batcher(model()) as batcher:
            await asyncio.gather(*(client(batcher, i) for i in range(20)))

    asyncio.run(main())
    assert {name: span.parent.span_id for name, span in spans.requests().items()} == parents


def test_a_batch_has_a_span_that_its_requests_link_to(spans: Spans) -> None:
    """Requests of many traces meet in one batch: its span is in none of them, and linked to all."""
    release, inside = threading.Event(), threading.Event()

    def slow(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(30)
        return x

    with inferkit.Batcher(model(slow), name="b", caller_runs=False, max_batch_size=8) as batcher:
        tickets = [batcher.submit(X, request_id="first")]
        assert inside.wait(30)
        for i in range(5):  # these wait together
            with spans.tracer.start_as_current_span(f"client-{i}"):
                tickets.append(batcher.submit(X, request_id=f"r{i}"))
        release.set()
        for ticket in tickets:
            ticket.result()
        requests, batches = spans.requests(), spans.batches()
    timing = tickets[1].timing
    assert {t.timing.batch_id for t in tickets[1:]} == {timing.batch_id}
    assert set(batches) == {tickets[0].timing.batch_id, timing.batch_id}
    batch, own = batches[timing.batch_id], [requests[f"r{i}"] for i in range(5)]
    assert batch.attributes["inferkit.batcher"] == "b"
    assert batch.attributes["inferkit.batch_size"] == 5
    assert batch.parent is None
    assert {link.context.span_id for link in batch.links} == {span.context.span_id for span in own}
    for span in own:
        assert [link.context.span_id for link in span.links] == [batch.context.span_id]
        assert span.context.trace_id != batch.context.trace_id
        assert span.end_time == pytest.approx(batch.end_time, abs=1e6)
        assert span.start_time <= batch.start_time + 1e6
    assert (batch.end_time - batch.start_time) * 1e-9 == pytest.approx(timing.finished - timing.started, abs=1e-3)


def test_batches_of_batchers_that_follow_one_another_at_one_address(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one name and count their batches from the same number; that they share an address is made certain."""
    monkeypatch.setattr("inferkit.tracing._otel.id", lambda _: 1, raising=False)
    monkeypatch.setattr("inferkit.tracing._otel._POLL_SECONDS", 0.2)  # one sweep finds all
    for _ in range(3):
        with inferkit.Batcher(model(), name="again", caller_runs=False) as batcher:
            batcher.submit(X).result()
    assert tracing.flush()
    found = [s for s in spans.exporter.get_finished_spans() if s.name == "inferkit.batch"]
    assert [len(batch.links) for batch in found] == [1, 1, 1]


def test_a_failed_batch_says_so_once(spans: Spans) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no")

    async def main() -> None:
        async with inferkit.Batcher(model(broken)) as batcher:
            await asyncio.gather(*(batcher.submit(X) for _ in range(4)), return_exceptions=True)

    asyncio.run(main())
    batches = list(spans.batches().values())
    assert sum(len(batch.links) for batch in batches) == 4
    for batch in batches:
        assert batch.status.status_code.name == "ERROR"
        assert [event.name for event in batch.events] == ["exception"]


def test_what_waits_for_its_span_is_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket keeps the memory of its answer."""
    monkeypatch.setattr("inferkit.tracing._otel._MOST", 5)
    release = threading.Event()

    def slow(x: np.ndarray) -> np.ndarray:
        release.wait(30)
        return x

    with inferkit.Batcher(model(slow), caller_runs=False) as batcher:
        tickets = [batcher.submit(X, request_id=f"r{i}") for i in range(20)]
        release.set()
        for ticket in tickets:
            ticket.result()
        found = spans.requests()
    assert len(found) == 20
    assert sum("inferkit.outcome" in span.attributes for span in found.values()) == 5


def test_failures_say_so(spans: Spans) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no")

    with inferkit.Batcher(model(broken)) as batcher:
        batcher.submit(X, request_id="f").exception()
        with pytest.raises(inferkit.InferenceError):
            batcher(X, request_id="g")
        with pytest.raises(inferkit.ValidationError):
            batcher.submit(np.ones(3, np.float32), request_id="v").result()
        found = spans.requests()
    for name in ("f", "g", "v"):
        assert found[name].status.status_code.name == "ERROR"
        assert found[name].attributes["inferkit.outcome"] == "failed"
        assert any(e.name == "exception" for e in found[name].events)


def test_a_cancelled_request_is_no_error(spans: Spans) -> None:
    release, inside = threading.Event(), threading.Event()

    def slow(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(30)
        return x

    with inferkit.Batcher(model(slow), caller_runs=False) as batcher:
        first = batcher.submit(X, request_id="first")
        inside.wait(30)
        waiting = batcher.submit(X, request_id="gone")
        assert waiting.cancel()
        release.set()
        first.result()
        found = spans.requests()
    assert found["gone"].attributes["inferkit.outcome"] == "cancelled"
    assert found["gone"].status.status_code.name == "UNSET"


def test_uninstrument_gives_everything_back() -> None:
    spans = Spans()
    before = (inferkit.Batcher.submit, inferkit.Batcher.__call__)
    with inferkit.Batcher(model()) as batcher:
        for _ in range(2):
            tracing.instrument(spans.provider)
            with pytest.raises(RuntimeError, match="uninstrument"):
                tracing.instrument(spans.provider)
            batcher(X)
            tracing.uninstrument()
            tracing.uninstrument()
        assert (inferkit.Batcher.submit, inferkit.Batcher.__call__) == before
        assert batcher(X, request_id="after").tolist() == [2, 2]
        assert tracing.flush()
    assert len(spans.exporter.get_finished_spans()) == 2  # of calls, which have no batch


def test_the_missing_extra_is_named(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import inferkit\n"
        "try:\n    inferkit.tracing.instrument()\nexcept ImportError as error:\n    print(error)\n"
    )
    assert "pip install opentelemetry-api" in done.stdout, done.stderr


def test_what_no_exporter_can_encode(spans: Spans) -> None:
    nasty = "a\nb\x1b[2J\u202e\udcff"

    def fails(x: np.ndarray) -> np.ndarray:
        raise RuntimeError(nasty)

    with inferkit.Batcher(model(fails), name=nasty) as batcher:
        batcher.submit(X, request_id="a\nb\x1b[2J\u202e" + "c" * 1000).exception(30)
        with pytest.raises(inferkit.InferenceError):
            batcher(X, request_id="call\n")
        for span in spans.requests().values():
            name = span.attributes["inferkit.request_id"]
            assert name.isprintable()
            assert len(name) < 300
            assert span.attributes["inferkit.batcher"].isprintable()
            assert span.status.description.isprintable()
            (event,) = [e for e in span.events if e.name == "exception"]
            assert event.attributes["exception.message"].isprintable()
            assert all(line.isprintable() for line in event.attributes["exception.stacktrace"].splitlines())


def test_the_thread_outlives_a_processor_that_raises() -> None:
    class Raises(sdk.SpanProcessor):
        def on_end(self, span: Any) -> None:
            if span.attributes.get("inferkit.request_id") == "bad":
                raise RuntimeError("processor")

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if span.attributes.get("inferkit.request_id") == "worse":
                raise RuntimeError("processor")

    spans = Spans()
    spans.provider.add_span_processor(Raises())
    tracing.instrument(spans.provider)
    try:
        with inferkit.Batcher(model()) as batcher:
            for name in ("bad", "worse", "good"):
                assert batcher.submit(X, request_id=name).result(30).tolist() == [2, 2]
                assert batcher(X, request_id=name).tolist() == [2, 2]  # a span is no reason to lose an answer
                assert tracing.flush()
            assert "good" in spans.requests()
    finally:
        tracing.uninstrument()
