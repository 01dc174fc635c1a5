"""Ticket.add_done_callback: once, after the end, by a loop, and never where batches run."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _callbacks
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Calls:
    """What callbacks were given, and by which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[inferkit.Ticket, str]] = []
        self.changed = threading.Condition()

    def __call__(self, ticket: inferkit.Ticket) -> None:
        assert ticket.done()
        with self.changed:
            self.seen.append((ticket, threading.current_thread().name))
            self.changed.notify_all()

    def wait(self, count: int) -> list[tuple[inferkit.Ticket, str]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= count, 30), self.seen
        time.sleep(0.02)  # for one too many
        assert len(self.seen) == count
        return self.seen


def test_of_a_thread_s_ticket_however_it_ends() -> None:
    clock, calls = ManualClock(), Calls()
    with clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1, max_queue_size=3) as batcher:
        tickets = [batcher.submit(row(0))]
        clock.wait_for_sleepers()
        tickets += [batcher.submit(row(1)), batcher.submit(row(2), timeout=0.5), batcher.submit(row(3))]
        tickets += [batcher.submit(row(4)), batcher.submit(row(float("nan")))]  # the queue is full; it is invalid
        for ticket in tickets:
            ticket.add_done_callback(calls)
        assert {t for t, _ in calls.wait(2)} == set(tickets[4:])
        tickets[1].cancel()
        clock.advance(0.5)
        assert {t for t, _ in calls.wait(4)} == {*tickets[4:], *tickets[1:3]}
        clock.advance(0.5)
        calls.wait(5)
        clock.wait_for_sleepers()
        clock.advance(1.0)
        seen = calls.wait(6)
        assert {t for t, _ in seen} == set(tickets)
        assert {name for _, name in seen} == {"inferkit-callbacks"}
        tickets[0].add_done_callback(calls)  # long after the end
        calls.wait(7)


def test_a_deadline_is_kept_though_nobody_waits() -> None:
    opened, calls = threading.Event(), Calls()
    with inferkit.Batcher(FakeModel(answer=lambda x: (opened.wait(30), x)[1]), caller_runs=False) as batcher:
        batcher.submit(row(0))
        while not batcher.stats().in_flight:
            time.sleep(0.001)
        late = batcher.submit(row(1), timeout=0.05)
        late.add_done_callback(calls)
        assert calls.wait(1)[0][0] is late
        assert isinstance(late.exception(), inferkit.DeadlineError)
        opened.set()


def test_of_a_loop_s_ticket() -> None:
    calls, variable = Calls(), contextvars.ContextVar("variable", default="outside")

    async def main() -> None:
        here = threading.current_thread().name
        clock = ManualClock()
        async with clock.batcher(FakeModel(1.0, clock=clock)) as batcher:
            ticket = batcher.submit(row(1))
            ticket.add_done_callback(calls)
            with ThreadPoolExecutor(1) as pool:  # from another thread it is still this loop's
                await asyncio.get_running_loop().run_in_executor(pool, ticket.add_done_callback, calls)
            clock.wait_for_sleepers()
            clock.advance(1.0)
            assert (await ticket).tolist() == [2, 2]
            while len(calls.seen) < 2:
                await asyncio.sleep(0.001)
            assert [name for _, name in calls.seen] == [here, here]
            got: list[str] = []
            variable.set("inside")
            ticket.add_done_callback(lambda _: got.append(variable.get()))
            ticket.add_done_callback(lambda _: got.append(variable.get()), context=contextvars.Context())
            assert got == []  # not within the call
            await asyncio.sleep(0)
            assert got == ["inside", "outside"]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def fails(ticket: inferkit.Ticket) -> None:
        ticket.result()  # the log keeps the traceback, and that the ticket
        raise RuntimeError("the callback's own")

    async def main() -> None:
        async with inferkit.Batcher(FakeModel()) as batcher:
            tickets = [batcher.submit(row(i)) for i in range(4)]
            for ticket in tickets:
                ticket.add_done_callback(fails)
                ticket.add_done_callback(calls)
            assert [(await t)[0] for t in tickets] == [0, 2, 4, 6]
            await asyncio.sleep(0.01)

    asyncio.run(main())
    calls.wait(4)
    assert sum("the callback's own" in str(r.exc_info) for r in caplog.records) == 4
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(row(1))
        ticket.add_done_callback(fails)
        ticket.add_done_callback(calls)
        calls.wait(5)


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_a_callback_that_asks_to_stop_is_logged_and_those_behind_it_are_called(
    stop: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """On inferkit's own thread, which serves every batcher of the process."""
    calls = Calls()

    def stops(ticket: inferkit.Ticket) -> None:
        ticket.result()  # the log keeps the traceback, and that the ticket
        raise stop("the callback's own")

    with inferkit.Batcher(FakeModel(), caller_runs=False) as batcher, inferkit.Batcher(FakeModel()) as other:
        for i in range(3):
            ticket = (batcher, other)[i % 2].submit(row(i))
            ticket.add_done_callback(stops)
            ticket.add_done_callback(calls)
            seen = calls.wait(i + 1)
            assert seen[-1] == (ticket, "inferkit-callbacks")
        ticket.add_done_callback(stops)  # long after the end
        ticket.add_done_callback(calls)
        calls.wait(4)
    told = [record for record in caplog.records if "the callback's own" in str(record.exc_info)]
    assert len(told) == 4
    assert {record.name for record in told} == {"asyncio"}


def test_a_loop_that_is_short_of_memory_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    failed = []

    def short(*_: object) -> None:
        failed.append(threading.current_thread().name)
        monkeypatch.undo()
        raise MemoryError

    loop = _callbacks.running_loop()
    thread = _callbacks._thread
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(row(1))
        ticket.result()
        monkeypatch.setattr(loop, "_run_once", short)
        ticket.add_done_callback(calls)  # wakes it, and it turns once more
        calls.wait(1)
        ticket.add_done_callback(calls)
        calls.wait(2)
    assert failed == ["inferkit-callbacks"]
    assert _callbacks._thread is thread


def test_a_callback_cannot_stop_the_loop_that_calls_it() -> None:
    calls = Calls()
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(row(1))
        ticket.add_done_callback(lambda _: asyncio.get_running_loop().stop())
        ticket.add_done_callback(calls)
        calls.wait(1)
        ticket.add_done_callback(calls)
        calls.wait(2)


def test_another_thread_calls_where_the_one_before_has_ended(fresh_python: Callable[..., Any]) -> None:
    code = """
import asyncio, threading, numpy as np, inferkit
from inferkit.testing import FakeModel
threading.excepthook = lambda args: print(args.thread.name, "ended")
threads = []
def breaks(ticket):
    threads.append(threading.current_thread())
    asyncio.get_running_loop()._selector.select = None
with inferkit.Batcher(FakeModel()) as batcher:
    batcher.submit(np.ones(2, np.float32)).add_done_callback(breaks)
    while not threads:
        threading.Event().wait(0.001)
    threads[0].join(30)
    told = threading.Event()
    batcher.submit(np.ones(2, np.float32)).add_done_callback(lambda t: told.set())
    print(told.wait(30))
"""
    done = fresh_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "inferkit-callbacks ended\nTrue\n", "")


def test_a_callback_may_submit_and_wait() -> None:
    answers: list[Any] = []
    over = threading.Event()
    with inferkit.Batcher(FakeModel(), caller_runs=False) as batcher:

        def again(ticket: inferkit.Ticket) -> None:
            answers.append(ticket.result().tolist())
            if len(answers) < 4:
                batcher.submit(ticket.result()).add_done_callback(again)
            else:
                over.set()

        batcher.submit(row(1)).add_done_callback(again)
        assert over.wait(30)
    assert answers == [[2, 2], [4, 4], [8, 8], [16, 16]]


def test_closing_calls_back() -> None:
    clock, calls = ManualClock(), Calls()
    batcher = clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1)
    tickets = [batcher.submit(row(i)) for i in range(3)]
    for ticket in tickets:
        ticket.add_done_callback(calls)
    clock.wait_for_sleepers()
    batcher.close(drain=False, timeout=0)
    calls.wait(3)
    clock.advance(1.0)
    batcher.close()


def test_nobody_but_the_callback_keeps_the_ticket() -> None:
    """It is called; and after that nothing holds it."""
    calls = Calls()

    class Kept:
        def __call__(self, ticket: inferkit.Ticket) -> None:
            calls(ticket)

    kept = Kept()
    alive = weakref.ref(kept)
    with inferkit.Batcher(FakeModel(0.01), caller_runs=False) as batcher:
        batcher.submit(row(1)).add_done_callback(kept)
        del kept
        calls.wait(1)
    calls.seen.clear()
    for _ in range(100):
        gc.collect()
        if alive() is None:
            return
        time.sleep(0.01)
    raise AssertionError(gc.get_referrers(alive()))


@pytest.mark.parametrize("wrong", [(), (1,), (print, print)])
def test_wrong_arguments(wrong: tuple[Any, ...]) -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        ticket = batcher.submit(row(1))
        with pytest.raises(TypeError):
            ticket.add_done_callback(*wrong)
        with pytest.raises(TypeError, match="Context"):
            ticket.add_done_callback(print, context=5)
        with pytest.raises(TypeError):
            ticket.add_done_callback(print, contxt=None)


def test_a_closed_loop_calls_nobody_and_says_so() -> None:
    clock = ManualClock()
    model = FakeModel(1.0, clock=clock)
    batcher = clock.batcher(model)

    async def main() -> inferkit.Ticket:
        return batcher.submit(row(1))

    ticket = asyncio.run(main())
    gc.collect()
    with pytest.raises(RuntimeError, match="closed"):
        ticket.add_done_callback(print)
    clock.wait_for_sleepers()
    clock.advance(1.0)
    assert ticket.result(30).tolist() == [2, 2]
    batcher.close()


def test_many_threads_add_while_requests_end() -> None:
    calls, count = Calls(), 400
    with inferkit.Batcher(FakeModel(), caller_runs=False, workers=2) as batcher, ThreadPoolExecutor(4) as pool:

        def one(i: int) -> None:
            batcher.submit(row(i)).add_done_callback(calls)

        list(pool.map(one, range(count)))
        seen = calls.wait(count)
    assert len({id(t) for t, _ in seen}) == count


def test_a_forked_child_has_callbacks_of_its_own(fresh_python: Callable[..., Any]) -> None:
    code = """
import os, threading, numpy as np, inferkit
from inferkit.testing import FakeModel
def once():
    told = threading.Event()
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher.submit(np.ones(2, np.float32)).add_done_callback(lambda t: told.set())
        assert told.wait(30)
once()
pid = os.fork()
if pid == 0:
    once()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
once()
print("done")
"""
    done = fresh_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_process_leaves_with_callbacks_outstanding(fresh_python: Callable[..., Any]) -> None:
    code = """
import threading, numpy as np, inferkit
from inferkit.testing import FakeModel
batcher = inferkit.Batcher(FakeModel(0.2), caller_runs=False, max_batch_size=1)
for i in range(4):
    batcher.submit(np.ones(2, np.float32)).add_done_callback(lambda t: None)
print("done")
"""
    done = fresh_python(code, env={"PYTHONDEVMODE": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
