"""submit() raises for what is wrong with the call; whatever becomes of the request, its ticket says."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import tracing
from inferkit.testing import FakeModel, ManualClock

WIDE = np.ones(3, np.float32)  # where 2 are wanted


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def held() -> tuple[threading.Event, threading.Event, FakeModel]:
    """A model that runs until it is let go."""
    entered, opened = threading.Event(), threading.Event()

    def answer(x: np.ndarray) -> np.ndarray:
        entered.set()
        opened.wait(30)
        return x * 2

    return entered, opened, FakeModel(answer=answer)


def test_gather_has_an_entry_for_each_row() -> None:
    rows = [row(1), row(float("nan")), row(2), WIDE, {1.0, 2.0}, row(3)]

    async def main() -> list[Any]:
        async with inferkit.Batcher(FakeModel()) as batcher:
            return await asyncio.gather(*[batcher.submit(r) for r in rows], return_exceptions=True)

    answers = asyncio.run(main())
    assert [answers[i].tolist() for i in (0, 2, 5)] == [[2, 2], [4, 4], [6, 6]]
    assert [answers[i].reason for i in (1, 3, 4)] == ["non_finite", "shape", "dtype"]
    assert all(type(answers[i]) is inferkit.ValidationError for i in (1, 3, 4))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [((row(np.nan),), "non_finite"), ((), "name"), (({"q": row(1)},), "name"), ((row(1), row(1)), "name")],
)
def test_what_is_wrong_with_the_inputs_is_the_tickets(inputs: tuple[Any, ...], reason: str) -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(*inputs, request_id="bad")
        assert ticket.done()
        assert not ticket.cancelled()
        assert not ticket.cancel()
        assert repr(ticket) == "<inferkit.Ticket 'bad': failed>"
        error = ticket.exception()
        assert isinstance(error, inferkit.ValidationError)
        assert (error.reason, error.retry_after) == (reason, None)
        for _ in range(2):
            with pytest.raises(inferkit.ValidationError):
                ticket.result(0)
        timing = ticket.timing
        assert timing.enqueued == timing.finished
        assert timing.total_time == 0
        assert (timing.started, timing.batch_id, timing.queue_time) == (None, None, None)
        assert batcher.stats().invalid == 1


def test_programming_errors_are_raised() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        for wrong in (
            {"timeout": "1"}, {"priority": 1.5}, {"request_id": b"a"}, {"tiemout": 1}, {"timeout": float("nan")},
            {"priority": 101}, {"request_id": ""},
        ):  # fmt: skip
            for x in (row(1), WIDE):
                with pytest.raises((TypeError, ValueError)) as caught:
                    batcher.submit(x, **wrong)
                assert not isinstance(caught.value, inferkit.InferkitError), wrong
        assert batcher.stats().invalid == 0


def test_what_stops_the_program_is_raised() -> None:
    class Interrupts:
        def __dlpack__(self, **_: object) -> object:
            raise KeyboardInterrupt

        def __dlpack_device__(self) -> tuple[int, int]:
            raise KeyboardInterrupt

    with inferkit.Batcher(FakeModel()) as batcher, pytest.raises(KeyboardInterrupt):
        batcher.submit(Interrupts())


def test_a_full_queue_a_closed_batcher_and_a_late_request() -> None:
    entered, opened, model = held()
    batcher = inferkit.Batcher(model, max_queue_size=1, caller_runs=False)
    running = batcher.submit(row(1))
    assert entered.wait(30)
    waiting = batcher.submit(row(2))
    full = batcher.submit(row(3))
    late = batcher.submit(row(4), timeout=-1.0)
    assert full.done()
    assert repr(full).endswith("rejected>")
    assert isinstance(full.exception(), inferkit.QueueFullError)
    assert repr(late).endswith("expired>")
    assert isinstance(late.exception(), inferkit.DeadlineError)
    opened.set()
    assert [t.result(30).tolist() for t in (running, waiting)] == [[2, 2], [4, 4]]
    batcher.close()
    closed = batcher.submit(row(5))
    assert repr(closed).endswith("closed>")
    assert isinstance(closed.exception(), inferkit.ClosedError)
    with pytest.raises(inferkit.ClosedError):
        batcher(row(5))
    stats = batcher.stats()
    assert (stats.completed, stats.rejected, stats.expired, stats.queue_depth) == (2, 3, 1, 0)


def test_the_trace_calls_a_refused_request_as_its_ticket_does() -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(1.0, clock=clock), max_queue_size=1) as batcher:
        batcher.submit(row(1))
        clock.wait_for_sleepers()
        tickets = [batcher.submit(row(2)), batcher.submit(row(3)), batcher.submit(row(4), request_id="mine")]
        outcomes = {r.request_id: r.outcome for r in tracing.snapshot(batcher).requests}
        assert [outcomes.get(t.request_id) for t in tickets[1:]] == ["rejected", "rejected"]
        assert len({t.request_id for t in tickets}) == 3
        clock.advance(1.0)
        clock.wait_for_sleepers()
        clock.advance(1.0)
        assert tickets[0].result(30).tolist() == [4, 4]


def test_retry_hints() -> None:
    """By a clock that stands still, every figure is known: a run takes 1 s, a batch has one row."""
    clock = ManualClock()
    with clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1, max_queue_size=3) as batcher:
        unknown = [batcher.submit(row(0))]
        clock.wait_for_sleepers()
        unknown += [batcher.submit(row(0)) for _ in range(3)]
        assert batcher.submit(row(0)).exception().retry_after is None  # nothing has run yet
        for ticket in unknown:
            clock.wait_for_sleepers()
            clock.advance(1.0)
            ticket.result(30)
        for _ in range(4):  # enough to go by
            ticket = batcher.submit(row(0))
            clock.wait_for_sleepers()
            clock.advance(1.0)
            ticket.result(30)
        ahead = [batcher.submit(row(0))]
        clock.wait_for_sleepers()
        clock.advance(0.25)
        ahead += [batcher.submit(row(0), priority=1) for _ in range(3)]  # before those that come later
        full = batcher.submit(row(0)).exception()
        assert isinstance(full, inferkit.QueueFullError)
        assert full.retry_after == pytest.approx(0.75, abs=0.05)  # until the run is over, and the next one taken
        ahead.pop().cancel()
        late = batcher.submit(row(0), timeout=2.0).exception()
        assert isinstance(late, inferkit.DeadlineError)
        # 0.75 s for the one that runs, 2 s for those that wait, 1 s of its own (and a margin), 2 s of time
        assert late.retry_after == pytest.approx(1.75, rel=0.4)
        with pytest.raises(inferkit.DeadlineError) as caught:
            batcher(row(0), timeout=2.0)
        assert caught.value.retry_after == pytest.approx(late.retry_after)
        assert pickle.loads(pickle.dumps(late)).retry_after == late.retry_after
        never = batcher.submit(row(0), timeout=0.5).exception()
        assert isinstance(never, inferkit.DeadlineError)
        assert never.retry_after is None  # the run alone takes longer
        for ticket in ahead:
            clock.wait_for_sleepers()
            clock.advance(1.0)
            ticket.result(30)


def test_a_task_is_what_runs_a_ticket() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            assert asyncio.iscoroutine(batcher.submit(row(1)))
            task = asyncio.create_task(batcher.submit(row(1)))
            assert (await task).tolist() == [2, 2]
            done, pending = await asyncio.wait([asyncio.create_task(batcher.submit(row(i))) for i in range(3)])
            assert (len(done), pending) == (3, set())
            got = sorted(
                [float((await t)[0]) for t in asyncio.as_completed([batcher.submit(row(i)) for i in range(3)])]
            )
            assert got == [0, 2, 4]
            ticket = batcher.submit(row(3))
            first, second = await asyncio.gather(asyncio.create_task(ticket), asyncio.create_task(ticket))
            assert first is second  # a ticket's answer is one object
            assert (await asyncio.wait_for(batcher.submit(row(3)), 30)).tolist() == [6, 6]
            with pytest.raises(inferkit.ValidationError):
                await asyncio.create_task(batcher.submit(WIDE))
            assert inspect.isawaitable(ticket)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="of Python 3.11")
def test_a_task_group() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(batcher.submit(row(i))) for i in range(3)]
            assert [t.result().tolist() for t in tasks] == [[0, 0], [2, 2], [4, 4]]
            with pytest.raises(ExceptionGroup):  # noqa: F821 - of Python 3.11
                async with asyncio.TaskGroup() as group:
                    group.create_task(batcher.submit(WIDE))

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="older ones wrap whatever they are given")
def test_asyncio_wait_says_that_it_wants_tasks() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            with pytest.raises(TypeError, match="use tasks explicitly"):
                await asyncio.wait([batcher.submit(row(1))])

    asyncio.run(main())


def test_a_cancelled_task_cancels_the_ticket_that_it_runs() -> None:
    _, opened, model = held()

    async def main() -> None:
        async with inferkit.Batcher(model, inline_limit=0, max_batch_size=1) as batcher:
            running = batcher.submit(row(1))
            waits, never = batcher.submit(row(2)), batcher.submit(row(3))
            task = asyncio.create_task(waits)
            await asyncio.sleep(0.01)
            task.cancel()
            unstarted = asyncio.create_task(never)
            unstarted.cancel()  # before its first step
            answers = await asyncio.gather(task, unstarted, return_exceptions=True)
            assert [type(a) for a in answers] == [asyncio.CancelledError] * 2
            assert waits.cancelled()
            assert never.cancelled()
            closed = batcher.submit(row(4))
            closed.close()
            assert closed.cancelled()
            opened.set()
            assert (await running).tolist() == [2, 2]
            assert batcher.stats().cancelled == 3

    asyncio.run(main())


def test_throw_takes_what_a_coroutine_does() -> None:
    _, opened, model = held()
    with inferkit.Batcher(model, caller_runs=False, max_batch_size=1) as batcher:
        batcher.submit(row(1))
        for thrown in ((KeyError("a"),), (KeyError,), (KeyError, "a"), (KeyError, KeyError("a"), None)):
            ticket = batcher.submit(row(1))
            with pytest.raises(KeyError):
                ticket.throw(*thrown)
            assert ticket.cancelled()
        with pytest.raises(TypeError, match="exception"):
            batcher.submit(row(1)).throw(5)
        opened.set()


def test_a_ticket_that_was_submitted_elsewhere_expires_on_the_loop_that_awaits_it() -> None:
    entered, opened, model = held()
    with inferkit.Batcher(model, caller_runs=False, max_batch_size=1) as batcher:
        running = batcher.submit(row(1))
        assert entered.wait(30)
        late = batcher.submit(row(2), timeout=0.05)

        async def main() -> None:
            with pytest.raises(inferkit.DeadlineError):
                await late

        asyncio.run(asyncio.wait_for(main(), 30))
        opened.set()
        running.result(30)


def test_a_burst_of_one_turn_is_told_when_to_come_back() -> None:
    """While its first requests are not handed on yet, and nothing runs."""

    async def main() -> list[object]:
        with inferkit.Batcher(FakeModel(0.01), max_batch_size=1, max_queue_size=2) as batcher:
            for _ in range(10):
                await batcher.submit(row(0))
            tickets = [batcher.submit(row(0)) for _ in range(4)]
            return await asyncio.gather(*tickets, return_exceptions=True)

    answers = asyncio.run(main())
    refused = [answer for answer in answers if isinstance(answer, inferkit.QueueFullError)]
    assert len(refused) == 2
    assert all(error.retry_after is not None and error.retry_after > 0.005 for error in refused)


def test_who_waited_for_room_in_vain_is_told_when_to_come_back() -> None:
    """A run takes 1 s, and the wait for room 0.5 s."""
    clock = ManualClock()
    options: dict[str, Any] = {"max_batch_size": 1, "max_queue_size": 1, "on_full": "wait", "full_timeout": 0.5}
    with clock.batcher(FakeModel(1.0, clock=clock), **options) as batcher:
        for _ in range(4):  # enough to go by
            ticket = batcher.submit(row(0))
            clock.wait_for_sleepers()
            clock.advance(1.0)
            ticket.result(30)
        running = batcher.submit(row(0))
        clock.wait_for_sleepers()
        waiting = batcher.submit(row(0))
        with ThreadPoolExecutor(1) as pool:
            in_vain = pool.submit(batcher.submit, row(0))  # waits in it
            end = time.monotonic() + 30
            while batcher.stats().queue_depth < 2 and time.monotonic() < end:
                time.sleep(0.001)
            clock.advance(0.6)
            error = in_vain.result(30).exception(30)
        assert isinstance(error, inferkit.QueueFullError)
        assert error.retry_after == pytest.approx(0.4, abs=0.05)
        clock.advance(0.4)
        running.result(30)
        clock.wait_for_sleepers()
        clock.advance(1.0)
        waiting.result(30)


def test_what_came_in_the_same_turn_counts_with_its_rows() -> None:
    """A row takes 1 ms, each request has 32, and no more than three of them can be answered within 100 ms."""
    clock = ManualClock()
    rows = np.ones((32, 2), np.float32)

    async def main(batcher: inferkit.Batcher) -> tuple[int, list[inferkit.Ticket]]:
        tickets = [batcher.submit(rows, timeout=0.1) for _ in range(10)]  # none is handed on before the turn ends
        refused = sum(ticket.timing.finished is not None for ticket in tickets)
        await asyncio.sleep(0)
        for _ in range(10 - refused):
            await asyncio.to_thread(clock.wait_for_sleepers)
            await asyncio.to_thread(clock.advance, 0.032)
        await asyncio.gather(*tickets, return_exceptions=True)
        return refused, tickets

    model = FakeModel(lambda rows: 0.001 * rows, clock=clock)
    with clock.batcher(model, max_batch_size=32, inline_limit=0) as batcher:
        for _ in range(4):  # enough to go by
            ticket = batcher.submit(rows)
            clock.wait_for_sleepers()
            clock.advance(0.032)
            ticket.result(30)
        refused, tickets = asyncio.run(asyncio.wait_for(main(batcher), 60))
        assert refused >= 7
        answered = [ticket for ticket in tickets if ticket.exception() is None]
        assert 2 <= len(answered) == 10 - refused  # none is let in for nothing
