"""Event loops that come and go, in many threads, while Python code runs wherever it can."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel, ManualClock


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(0.005)


def double(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(fn, inputs=[("x", *spec)], outputs=[("y", *spec)])


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class SlowLoop(asyncio.SelectorEventLoop):
    """Lets other threads run in each of the calls that the batcher makes."""

    def is_closed(self) -> bool:
        time.sleep(0)
        return super().is_closed()

    def get_debug(self) -> bool:
        time.sleep(0)
        return super().get_debug()

    def add_reader(self, *args: Any) -> Any:
        time.sleep(0)
        return super().add_reader(*args)


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, SlowLoop])
def test_loops_in_many_threads(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    failures: list[BaseException] = []
    until = time.monotonic() + 3
    turns = [0] * 6
    with inferkit.Batcher(double(), max_queue_size=None) as batcher:

        def work(k: int) -> None:
            try:
                while time.monotonic() < until:
                    loop = make()

                    async def main() -> None:
                        assert (await batcher.submit(row(k), timeout=30)).tolist() == [2 * k, 2 * k]

                    loop.run_until_complete(main())
                    loop.close()
                    turns[k] += 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert all(turns)


def test_closed_loops_leave_no_descriptor_at_once() -> None:
    with inferkit.Batcher(double()) as batcher:

        async def main() -> None:
            await batcher.submit(row(1))

        asyncio.run(main())
        gc.disable()
        before = open_descriptors()
        kept = []
        for _ in range(10):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
            kept.append(loop)
        assert open_descriptors() <= before + 1  # the last one goes with the next, or with its object
        gc.enable()


def test_a_loop_that_is_dropped_without_being_closed_is_collected() -> None:
    """With a task that awaits: the request would keep it, if nobody saw that the loop is gone."""
    opened = threading.Event()
    with inferkit.Batcher(double(lambda x: (opened.wait(60), x * 2)[1]), inline_limit=0) as batcher:
        seen: list[weakref.ref[Any]] = []

        def scene() -> None:
            loop = asyncio.new_event_loop()

            async def wait() -> None:
                await batcher.submit(row(1))

            async def main() -> None:
                task = asyncio.ensure_future(wait())
                seen.append(weakref.ref(task))
                await asyncio.sleep(0.01)

            loop.run_until_complete(main())
            loop.set_exception_handler(lambda *_: None)
            seen.append(weakref.ref(loop))

        def collect() -> None:
            scene()
            gc.collect()
            gc.collect()

        with pytest.warns(ResourceWarning):
            collect()
        assert [ref() for ref in seen] == [None, None]
        opened.set()


def test_finalizers_that_submit_while_a_loop_is_registered() -> None:
    """The collector runs in the middle of a loop's first submission, and a finalizer submits, too."""
    tickets: list[inferkit.Ticket] = []

    class Submitting:
        def __init__(self, batcher: inferkit.Batcher) -> None:
            self.me, self.batcher = self, batcher

        def __del__(self) -> None:
            tickets.append(self.batcher.submit(row(5), timeout=30))

    threshold = gc.get_threshold()
    with inferkit.Batcher(double()) as batcher:

        async def main() -> None:
            gc.disable()
            for _ in range(3):
                Submitting(batcher)
            gc.set_threshold(1, 1, 1)
            gc.enable()
            try:
                mine = batcher.submit(row(1), timeout=30)
            finally:
                gc.set_threshold(*threshold)
            assert (await mine).tolist() == [2, 2]

        for _ in range(20):
            asyncio.run(main())
        gc.collect()
        assert batcher.drain(timeout=60)
        assert len(tickets) == 60
        assert all(ticket.result().tolist() == [10, 10] for ticket in tickets)


def test_deadlines_cost_one_timer_each_at_most() -> None:
    """Ever earlier deadlines leave timers of the loop behind, and each must not set another one."""
    calls = 0

    class CountingLoop(asyncio.SelectorEventLoop):
        def call_later(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return super().call_later(*args, **kwargs)

    opened = threading.Event()
    with inferkit.Batcher(double(lambda x: (opened.wait(60), x * 2)[1]), inline_limit=0) as batcher:

        async def main() -> None:
            first = batcher.submit(row(0))
            await asyncio.sleep(0.01)
            tickets = [batcher.submit(row(i), timeout=0.3 - 0.01 * i) for i in range(20)]
            for ticket in tickets:
                with pytest.raises(inferkit.DeadlineError):
                    await ticket
            opened.set()
            await first

        loop = CountingLoop()
        loop.run_until_complete(main())
        loop.close()
    assert calls <= 2 + 2 * 20


def test_an_iterator_of_await_is_safe_in_the_wrong_hands() -> None:
    with inferkit.Batcher(double(), max_delay=60) as batcher:

        async def main() -> None:
            ticket = batcher.submit(row(1))
            waiter = ticket.__await__()
            assert next(waiter) is waiter
            with pytest.raises(RuntimeError):
                next(waiter)
            with pytest.raises(RuntimeError, match="not ended"):
                waiter()
            with pytest.raises(RuntimeError, match="not ended"):
                waiter.result()
            with pytest.raises(RuntimeError):
                waiter.add_done_callback()
            called: list[object] = []
            waiter.add_done_callback(called.append, context=None)
            with pytest.raises(RuntimeError):
                waiter.add_done_callback(print)
            assert ticket.cancel()
            await asyncio.sleep(0.05)
            assert called == [waiter]
            waiter()
            assert called == [waiter]
            with pytest.raises(asyncio.CancelledError):
                next(waiter)

        asyncio.run(main())


def test_a_ticket_that_one_loop_awaits_is_refused_to_another() -> None:
    with inferkit.Batcher(double(), max_delay=60) as batcher:
        ticket = batcher.submit(row(1))
        awaiting, errors = threading.Event(), []

        async def first() -> None:
            task = asyncio.ensure_future(ticket)
            await asyncio.sleep(0.01)
            awaiting.set()
            assert (await task).tolist() == [2, 2]

        async def second() -> None:
            try:
                await ticket
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=lambda: asyncio.run(first()))
        thread.start()
        awaiting.wait(60)
        asyncio.run(second())
        assert errors == ["the ticket belongs to another event loop: it was submitted there, or awaited"]
        batcher.drain()
        thread.join()


def test_a_loop_that_is_run_within_itself() -> None:
    """As nest_asyncio makes loops for notebooks: a callback of the loop's may run the loop, and so its own handle."""

    class Nested(asyncio.SelectorEventLoop):
        _nest_patched = True  # its mark

        def run_within(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
            outer = asyncio.current_task(self)
            inner = self.create_task(coroutine)
            asyncio.tasks._leave_task(self, outer)  # type: ignore[attr-defined]
            while not inner.done():
                self._run_once()  # type: ignore[attr-defined]
            asyncio.tasks._enter_task(self, outer)  # type: ignore[attr-defined]
            return inner.result()

    with inferkit.Batcher(double(), caller_runs=False) as batcher:
        loop = Nested()

        async def ask() -> float:
            return float((await batcher.submit(row(1), timeout=60))[0])

        async def main() -> list[float]:
            first = await ask()
            return [first, loop.run_within(ask()), await ask()]

        try:
            assert loop.run_until_complete(asyncio.wait_for(main(), 120)) == [2, 2, 2]
        finally:
            loop.close()


@pytest.mark.parametrize("left", ["interrupted", "stopped", "closed", "dropped"])
@pytest.mark.parametrize("then", ["submit", "call", "stats"])
def test_a_loop_that_is_left_in_the_middle_of_a_tick_keeps_no_places(left: str, then: str) -> None:
    """What it had gathered would fill the queue for ever."""
    kept: list[inferkit.Ticket] = []

    async def fill(batcher: inferkit.Batcher) -> None:
        kept.extend(batcher.submit(row(i)) for i in range(4))
        if left == "stopped":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
        raise KeyboardInterrupt

    with inferkit.Batcher(double(), max_queue_size=4, caller_runs=False) as batcher:
        loop = asyncio.new_event_loop()
        task = loop.create_task(fill(batcher))
        if left == "stopped":
            loop.run_forever()
            task.cancel()
        else:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(task)
        if left in ("closed", "dropped"):
            loop.close()
        if left == "dropped":
            del loop, task
            gc.collect()
        until = time.monotonic() + 30
        while True:
            assert time.monotonic() < until
            try:
                if then == "stats":
                    if batcher.stats().queue_depth == 0:
                        break
                else:
                    ask = batcher if then == "call" else lambda x: batcher.submit(x).result(30)
                    np.testing.assert_array_equal(ask(row(7)), row(14))
                    break
            except inferkit.QueueFullError:
                time.sleep(0.02)
        for i, ticket in enumerate(kept):
            np.testing.assert_array_equal(ticket.result(30), row(2 * i))
        if left in ("interrupted", "stopped"):
            loop.close()


@pytest.mark.parametrize("left", ["closed", "dropped"])
def test_what_a_loop_had_gathered_goes_to_the_workers_as_it_is_closed(left: str) -> None:
    """Nobody has to ask for anything; and the first who does, on a new loop, finds room."""
    rows: list[int] = []
    ran = threading.Event()

    def fn(x: np.ndarray) -> np.ndarray:
        rows.append(len(x))
        ran.set()
        return x * 2

    async def leave(batcher: inferkit.Batcher) -> None:
        for i in range(4):
            batcher.submit(row(i))
        raise KeyboardInterrupt

    async def ask(batcher: inferkit.Batcher) -> Any:
        return await batcher.submit(row(7))

    with inferkit.Batcher(double(fn), max_queue_size=4, caller_runs=False, inline_limit=0.0) as batcher:
        loop = asyncio.new_event_loop()
        task = loop.create_task(leave(batcher))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert not rows
        loop.close()
        if left == "dropped":
            del loop, task
            gc.collect()
        assert ran.wait(30)
        assert rows == [4]
        np.testing.assert_array_equal(asyncio.run(ask(batcher)), row(14))


def test_the_oldest_wait_counts_what_the_depth_counts() -> None:
    clock = ManualClock()

    async def main(batcher: inferkit.Batcher) -> list[Any]:
        def figures() -> tuple[int, float]:
            stats = batcher.stats()
            return stats.queue_depth, round(stats.oldest_wait, 6)

        seen = [figures()]
        first = batcher.submit(row(1))
        clock.advance(0.02)
        second = batcher.submit(row(2))
        clock.advance(0.01)
        seen.append(figures())
        first.cancel()
        seen.append(figures())
        second.cancel()
        seen.append(figures())
        return seen

    with clock.batcher(FakeModel()) as batcher:
        assert asyncio.run(main(batcher)) == [(0, 0.0), (2, 0.03), (1, 0.01), (0, 0.0)]


def test_a_child_ends_what_its_parent_s_loop_had_gathered(fresh_python: Callable[..., Any]) -> None:
    """Without the locks of the parent's batcher, which another thread may have held as it forked."""
    ran = fresh_python(
        """
import asyncio, os, signal, threading
import numpy as np
import inferkit

port = [("x", "float32", (None, 2))]
batcher = inferkit.Batcher(inferkit.Model.from_callable(lambda x: x, port, port), inline_limit=0.0)
over = threading.Event()

def look():
    while not over.is_set():
        batcher.stats()

async def fork():
    tickets = [batcher.submit(np.zeros(2, np.float32)) for _ in range(4)]
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        errors = {type(ticket.exception(5)) for ticket in tickets}
        os._exit(0 if errors == {inferkit.ClosedError} else 1)
    _, status = os.waitpid(pid, 0)
    await asyncio.gather(*tickets)
    return status

async def main():
    return {await fork() for _ in range(20)}

threads = [threading.Thread(target=look) for _ in range(3)]
for thread in threads:
    thread.start()
print(asyncio.run(main()))
over.set()
for thread in threads:
    thread.join()
batcher.close()
"""
    )
    assert ran.stdout == "{0}\n", (ran.stdout, ran.stderr)
