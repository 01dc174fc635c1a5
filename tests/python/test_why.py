"""Every refusal and every drop has a reason: in stats(), in the metrics and in the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import inferkit
import inferkit.metrics
import inferkit.tracing
from inferkit.testing import FakeModel, ManualClock

X = np.ones(2, np.float32)


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    clock = ManualClock()
    yield clock
    clock.advance(100.0)


def unanswered(batcher: inferkit.Batcher) -> dict[str, int]:
    stats = batcher.stats()
    both = {**stats.refused, **stats.dropped}
    assert len(both) == len(stats.refused) + len(stats.dropped) == 14
    assert sum(both.values()) == stats.rejected + stats.expired
    return {reason: count for reason, count in both.items() if count}


def traced(batcher: inferkit.Batcher) -> dict[str, int]:
    """A request comes into the trace just after those who wait have heard of its end."""
    ended = sum(unanswered(batcher).values())
    for _ in range(2000):
        reasons = [request.reason for request in inferkit.tracing.snapshot(batcher).requests if request.reason]
        if len(reasons) >= ended:
            break
        time.sleep(0.005)
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def test_a_full_queue_and_a_deadline_that_passes(clock: ManualClock) -> None:
    model = FakeModel(1.0, clock=clock)
    with clock.batcher(model, max_queue_size=1, max_batch_size=1) as batcher:
        running = batcher.submit(X)
        clock.wait_for_sleepers()
        waiting = batcher.submit(X, timeout=0.5)
        for _ in range(2):
            assert isinstance(batcher.submit(X).exception(), inferkit.QueueFullError)
        clock.advance(0.5)
        assert isinstance(waiting.exception(), inferkit.DeadlineError)
        assert isinstance(batcher.submit(X, timeout=-1.0).exception(), inferkit.DeadlineError)
        assert unanswered(batcher) == {"queue_full": 2, "expired_waiting": 1, "passed": 1}
        assert traced(batcher) == {"queue_full": 2, "expired_waiting": 1, "passed": 1}
        clock.advance(0.5)
        running.result()
    assert unanswered(batcher) == {"queue_full": 2, "expired_waiting": 1, "passed": 1}


def test_a_run_that_is_over_too_late(clock: ManualClock) -> None:
    with clock.batcher(FakeModel(1.0, clock=clock)) as batcher:
        late = batcher.submit(X, timeout=0.5)
        clock.wait_for_sleepers()
        clock.advance(1.0)
        assert isinstance(late.exception(), inferkit.DeadlineError)
        assert unanswered(batcher) == traced(batcher) == {"ran_late": 1}


def test_what_is_known_to_come_too_late_is_refused(clock: ManualClock) -> None:
    with clock.batcher(FakeModel(1.0, clock=clock)) as batcher:
        for _ in range(5):
            ticket = batcher.submit(X)
            clock.wait_for_sleepers()
            clock.advance(1.0)
            ticket.result()
        running = batcher.submit(X)
        clock.wait_for_sleepers()
        assert isinstance(batcher.submit(X, timeout=0.5).exception(), inferkit.DeadlineError)
        assert unanswered(batcher) == traced(batcher) == {"too_late": 1}
        clock.advance(1.0)
        running.result()


def test_clients_and_rates(clock: ManualClock) -> None:
    clients = {"a": inferkit.Client(rate=1.0)}
    with clock.batcher(FakeModel(), clients=clients) as batcher:
        batcher.submit(X, client="a").result()
        assert isinstance(batcher.submit(X, client="a").exception(), inferkit.QueueFullError)
        assert unanswered(batcher) == traced(batcher) == {"client_rate": 1}


def test_a_client_with_more_than_its_share(clock: ManualClock) -> None:
    model = FakeModel(1.0, clock=clock)
    with clock.batcher(model, max_queue_size=4, max_batch_size=1) as batcher:
        running = batcher.submit(X, client="a")
        clock.wait_for_sleepers()
        tickets = [batcher.submit(X, client="a") for _ in range(3)]
        assert unanswered(batcher) == {"client_share": 1}
        for ticket in tickets:
            ticket.cancel()
        clock.advance(1.0)
        running.result()


def test_waiting_for_room(clock: ManualClock) -> None:
    model = FakeModel(1.0, clock=clock)
    options: dict[str, Any] = {
        "on_full": "wait",
        "full_timeout": 0.5,
        "max_waiting": 1,
        "max_queue_size": 1,
        "max_batch_size": 1,
    }
    with clock.batcher(model, **options) as batcher:
        running = batcher.submit(X)
        clock.wait_for_sleepers()

        async def serve() -> None:
            queued, waits, refused = (batcher.submit(X) for _ in range(3))
            with pytest.raises(inferkit.QueueFullError):
                await refused
            assert waits.cancel()
            assert queued.cancel()

        asyncio.run(serve())
        clock.advance(1.0)
        running.result()
        assert unanswered(batcher) == {"waiting_full": 1}


def test_who_waits_when_it_is_closed(clock: ManualClock) -> None:
    batcher = clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1)
    running = batcher.submit(X)
    clock.wait_for_sleepers()
    waiting = batcher.submit(X)
    batcher.close(drain=False, timeout=0.0)
    assert isinstance(waiting.exception(), inferkit.ClosedError)
    assert isinstance(running.exception(), inferkit.ClosedError)
    assert isinstance(batcher.submit(X).exception(), inferkit.ClosedError)
    assert unanswered(batcher) == {"closed": 3}
    clock.advance(1.0)
    assert batcher.close()


def test_the_metrics_have_them(clock: ManualClock) -> None:
    pytest.importorskip("prometheus_client")
    with clock.batcher(FakeModel(), name="why") as batcher:
        batcher.submit(X).result()
        batcher.submit(X, timeout=-1.0).exception()
        text = inferkit.metrics.exposition()[0].decode()
        rows = batcher.stats().dispatched_rows
    assert 'inferkit_unanswered_total{batcher="why",reason="passed",stage="refused"} 1.0' in text
    assert 'inferkit_unanswered_total{batcher="why",reason="left_out",stage="dropped"} 0.0' in text
    assert 'inferkit_batch_rows_by_reason_total{batcher="why",reason="ready"} 1.0' in text
    assert rows["ready"] == sum(rows.values()) == 1


def test_printed_they_are_named(clock: ManualClock) -> None:
    with clock.batcher(FakeModel(), max_batch_size=8) as batcher:
        assert "why not" not in str(batcher.stats())
        batcher.submit(X, timeout=-1.0).exception()
        shown = str(batcher.stats())
    assert "why not   1 passed" in shown
    assert "policy    auto: up to 8 rows, no delay" in shown
