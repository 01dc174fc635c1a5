"""Tickets awaited by tasks of trio, and of anyio on both of its backends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel

anyio = pytest.importorskip("anyio")
trio = pytest.importorskip("trio")

PATIENCE = 60
X = np.ones(2, np.float32)


class Held:
    """A model whose runs wait for a gate."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.model = FakeModel(answer=self.answer)

    def answer(self, x: np.ndarray) -> np.ndarray:
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        return 2 * x


def run(main: Any) -> Any:
    async def within() -> Any:
        with trio.fail_after(PATIENCE):
            return await main()

    return trio.run(within)


def test_a_task_awaits_a_ticket() -> None:
    async def main() -> Any:
        async with inferkit.Batcher(FakeModel()) as batcher:
            ticket = batcher.submit(X)
            first = await ticket
            again = await ticket  # has ended
            assert first is again
            return first.tolist()

    assert run(main) == [2, 2]


def test_many_tasks_share_batches() -> None:
    async def main() -> None:
        answers: dict[int, Any] = {}

        async def ask(batcher: inferkit.Batcher, i: int) -> None:
            answers[i] = await batcher.submit(np.full(2, i, np.float32))

        async with inferkit.Batcher(FakeModel(), max_batch_size=16) as batcher, trio.open_nursery() as nursery:
            for i in range(200):
                nursery.start_soon(ask, batcher, i)
        assert {i: y.tolist() for i, y in answers.items()} == {i: [2.0 * i] * 2 for i in range(200)}

    run(main)


def test_several_tasks_may_await_one_ticket() -> None:
    async def main() -> None:
        held = Held()
        got: list[Any] = []

        async def ask(ticket: inferkit.Ticket) -> None:
            got.append((await ticket).tolist())

        async with inferkit.Batcher(held.model) as batcher:
            ticket = batcher.submit(X)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask, ticket)
                await trio.testing.wait_all_tasks_blocked()
                held.gate.set()
        assert got == [[2, 2]] * 3

    import trio.testing

    run(main)


def test_a_scope_that_is_cancelled_cancels_the_request() -> None:
    async def main() -> None:
        held = Held()
        batcher = inferkit.Batcher(held.model, workers=1, max_batch_size=1)
        running = batcher.submit(X)
        await trio.to_thread.run_sync(held.begun.acquire)
        waiting = batcher.submit(X)
        with trio.move_on_after(0.01) as scope:
            await waiting
        assert scope.cancelled_caught
        assert waiting.cancelled()
        assert batcher.stats().queue_depth == 0
        held.gate.set()
        assert (await running).tolist() == [2, 2]
        assert await batcher.aclose()

    run(main)


def test_errors_arrive_where_the_ticket_is_awaited() -> None:
    async def main() -> None:
        held = Held()
        async with inferkit.Batcher(held.model, workers=1, max_batch_size=1, max_queue_size=1) as batcher:
            with pytest.raises(inferkit.ValidationError):
                await batcher.submit(np.ones(3, np.float32))
            running = batcher.submit(X)
            await trio.to_thread.run_sync(held.begun.acquire)
            late = batcher.submit(X, timeout=0.01)
            with pytest.raises(inferkit.QueueFullError):
                await batcher.submit(X)
            with pytest.raises(inferkit.DeadlineError):
                await late
            other = batcher.submit(X)
            other.cancel()
            with pytest.raises(inferkit.RequestCancelledError):
                await other
            held.gate.set()
            await running
        with pytest.raises(inferkit.ClosedError):
            await batcher.submit(X)

    run(main)


def test_who_waits_for_room_does_not_hold_the_loop_up() -> None:
    async def main() -> None:
        held = Held()
        async with inferkit.Batcher(
            held.model, workers=1, max_batch_size=1, max_queue_size=1, on_full="wait"
        ) as batcher:
            tickets = [batcher.submit(X) for _ in range(5)]
            tickets += batcher.submit_many([X] * 5)
            held.gate.set()
            for ticket in tickets:
                assert (await ticket).tolist() == [2, 2]

    run(main)


def test_a_deadline_of_the_context_counts() -> None:
    async def main() -> None:
        held = Held()
        async with inferkit.Batcher(held.model, workers=1, max_batch_size=1) as batcher:
            running = batcher.submit(X)
            await trio.to_thread.run_sync(held.begun.acquire)
            with inferkit.deadline(0.01), pytest.raises(inferkit.DeadlineError):
                await batcher.submit(X)
            held.gate.set()
            await running

    run(main)


async def some_rows(n: int) -> AsyncIterator[np.ndarray]:
    for i in range(n):
        await trio.lowlevel.checkpoint()
        yield np.full(2, i, np.float32)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_amap(kind: str) -> None:
    async def main() -> None:
        rows = some_rows(50) if kind == "async" else (np.full(2, i, np.float32) for i in range(50))
        async with inferkit.Batcher(FakeModel(), max_queue_size=8) as batcher:
            got = [y.tolist() async for y in batcher.amap(rows)]
        assert got == [[2.0 * i] * 2 for i in range(50)]

    run(main)


def test_amap_gives_answers_while_the_next_row_is_awaited() -> None:
    async def main() -> None:
        more, left = trio.Event(), trio.Event()

        async def slow() -> AsyncIterator[np.ndarray]:
            try:
                yield X
                await more.wait()
                yield 2 * X
                await trio.sleep_forever()
            finally:
                left.set()

        async with inferkit.Batcher(FakeModel()) as batcher, contextlib.aclosing(batcher.amap(slow())) as answers:
            assert (await anext(answers)).tolist() == [2, 2]
            more.set()
            assert (await anext(answers)).tolist() == [4, 4]
            with trio.move_on_after(0.01) as scope:
                await anext(answers)
            assert scope.cancelled_caught
        assert left.is_set()

    run(main)


def test_amap_raises_what_an_iterable_raises() -> None:
    async def breaks() -> AsyncIterator[np.ndarray]:
        yield X
        await trio.lowlevel.checkpoint()
        raise KeyError("row")

    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            answers = batcher.amap(breaks())
            assert (await anext(answers)).tolist() == [2, 2]
            with pytest.raises(KeyError, match="row"):
                await anext(answers)

    run(main)


def test_amap_passes_on_what_stops_the_program() -> None:
    async def stops() -> AsyncIterator[np.ndarray]:
        yield X
        await trio.lowlevel.checkpoint()
        raise SystemExit(3)

    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            async for _ in batcher.amap(stops()):
                pass

    with pytest.raises(SystemExit):
        run(main)


def test_a_run_that_ends_early_leaves_nothing_behind() -> None:
    """The request ends when trio is gone, and nobody is told."""
    held = Held()
    batcher = inferkit.Batcher(held.model, workers=1, max_batch_size=1)
    tickets: list[inferkit.Ticket] = []

    async def main() -> None:
        async def ask() -> None:
            tickets.append(batcher.submit(X))
            await tickets[0]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.to_thread.run_sync(held.begun.acquire)
            nursery.cancel_scope.cancel()

    run(main)
    assert tickets[0].cancelled()
    held.gate.set()
    assert batcher.close(timeout=PATIENCE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(backend: str) -> None:
    async def main() -> None:
        answers: dict[int, Any] = {}

        async def ask(batcher: inferkit.Batcher, i: int) -> None:
            answers[i] = await batcher.submit(np.full(2, i, np.float32))

        async with inferkit.Batcher(FakeModel(), max_batch_size=16) as batcher:
            async with anyio.create_task_group() as group:
                for i in range(50):
                    group.start_soon(ask, batcher, i)
            assert {i: y.tolist() for i, y in answers.items()} == {i: [2.0 * i] * 2 for i in range(50)}
            assert [y.tolist() async for y in batcher.amap([X, X])] == [[2, 2]] * 2
        held = Held()
        batcher = inferkit.Batcher(held.model)
        ticket = batcher.submit(X)
        with anyio.move_on_after(0.01) as scope:
            await ticket
        assert scope.cancelled_caught
        assert ticket.cancelled()
        held.gate.set()
        assert await batcher.aclose()

    anyio.run(main, backend=backend)


def test_trio_as_the_guest_of_asyncio() -> None:
    """Both loops run on the thread; the task that awaits is trio's."""

    async def guest(batcher: inferkit.Batcher) -> Any:
        return (await batcher.submit(X)).tolist()

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()
        with inferkit.Batcher(FakeModel()) as batcher:
            trio.lowlevel.start_guest_run(
                guest,
                batcher,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=lambda outcome: over.set_result(outcome.unwrap()),
            )
            answer = await asyncio.wait_for(over, PATIENCE)
            assert (await batcher.submit(X)).tolist() == [2, 2]  # and asyncio's own
            return answer

    assert asyncio.run(host()) == [2, 2]


def test_without_a_loop_an_await_says_what_to_do() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(X)
        deadline = time.monotonic() + PATIENCE
        while not ticket.done() and time.monotonic() < deadline:
            pass
        held = Held()
        with inferkit.Batcher(held.model) as other:
            waits = other.submit(X).__await__()
            with pytest.raises(RuntimeError, match="asyncio and trio"):
                next(waits)
            held.gate.set()


def test_nothing_is_left_of_a_run() -> None:
    import gc
    import weakref

    from inferkit import _trio

    loops: list[Any] = []

    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            await batcher.submit(X, timeout=PATIENCE)
        loops.append(weakref.ref(_trio.running_loop()))

    for _ in range(3):
        run(main)
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
    assert _trio.running_loop() is None


def test_what_a_callback_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        called = trio.Event()

        def breaks(_: object) -> None:
            called.set()
            raise ValueError("mine")

        async with inferkit.Batcher(FakeModel()) as batcher:
            ticket = batcher.submit(X)
            ticket.add_done_callback(breaks)
            assert (await ticket).tolist() == [2, 2]
            await called.wait()

    run(main)
    assert "a callback of a ticket failed" in caplog.text


def test_a_worker_thread_of_trio_is_a_thread() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            answer = await trio.to_thread.run_sync(lambda: batcher.submit(X).result(PATIENCE))
            assert answer.tolist() == [2, 2]

    run(main)
