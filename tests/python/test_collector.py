"""Reference cycles through batchers, tickets, tasks and errors are collected, and no thread stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _watchdog


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def wrap(fn: Callable[..., Any]) -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(fn, inputs=[("x", *spec)], outputs=[("y", *spec)])


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def collected(ref: weakref.ref[Any]) -> bool:
    """After a collection, or after the few that workers which still hold something may take."""
    for _ in range(200):
        gc.collect()
        if ref() is None:
            return True
        time.sleep(0.01)
    return False


class Service:
    """Its model calls it, its batcher runs the model: the cycle that every server has."""

    def __init__(self, keep: Callable[[Service], object], **options: Any) -> None:
        self.batcher = inferkit.Batcher(wrap(self.predict), **options)
        self.kept = keep(self)

    def predict(self, x: np.ndarray) -> np.ndarray:
        if (x == 13).any():
            raise ValueError("thirteen")
        return x * 2


def a_finished_ticket(service: Service) -> object:
    ticket = service.batcher.submit(row(1))
    ticket.result()
    return ticket


def a_ticket_nobody_asked(service: Service) -> object:
    ticket = service.batcher.submit(row(1))
    service.batcher.drain()
    return ticket


def an_answer_by_name_that_refers_back(service: Service) -> object:
    ticket = service.batcher.submit({"x": row(1)})
    ticket.result()["service"] = service
    return ticket


def a_failed_ticket(service: Service) -> object:
    ticket = service.batcher.submit(row(13))
    assert ticket.exception() is not None
    return ticket


def a_failed_ticket_nobody_asked(service: Service) -> object:
    ticket = service.batcher.submit(row(13))
    service.batcher.drain()
    return ticket


def an_error_with_its_traceback(service: Service) -> object:
    ticket = service.batcher.submit(row(13))
    try:
        ticket.result()
    except inferkit.InferenceError as error:
        return (error, ticket)
    return None


def a_ticket_in_the_queue(service: Service) -> object:
    return service.batcher.submit(row(1))


def an_iterator_of_await(service: Service) -> object:
    return service.batcher.submit(row(1)).__await__()


@pytest.mark.filterwarnings("ignore:unclosed batcher:ResourceWarning")
@pytest.mark.parametrize(
    ("keep", "options"),
    [
        (lambda service: None, {}),
        (a_finished_ticket, {}),
        (a_ticket_nobody_asked, {}),
        (an_answer_by_name_that_refers_back, {}),
        (a_failed_ticket, {}),
        (a_failed_ticket_nobody_asked, {}),
        (an_error_with_its_traceback, {}),
        (a_ticket_in_the_queue, {"max_delay": 60}),
        (an_iterator_of_await, {"max_delay": 60}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_service_goes_with_all_it_keeps(keep: Callable[[Service], object], options: dict[str, Any]) -> None:
    _watchdog.start()  # one for the process, which stays
    gc.collect()
    before = threads()
    refs = [weakref.ref(Service(keep, caller_runs=False, **options)) for _ in range(5)]
    assert all(collected(ref) for ref in refs)
    for _ in range(200):
        if threads() <= before:
            break
        time.sleep(0.01)
    assert threads() <= before


def test_the_errors_of_one_batch_go_too() -> None:
    """Several tickets share one exception until they are asked."""

    def keep(service: Service) -> object:
        tickets = [service.batcher.submit(row(13)) for _ in range(4)]
        for ticket in tickets:
            assert ticket.exception() is not None
        return tickets

    refs = [weakref.ref(Service(keep, caller_runs=False, isolate_failures=False, max_delay=0.01)) for _ in range(5)]
    assert all(collected(ref) for ref in refs)


def nobody_asks(tickets: list[inferkit.Ticket]) -> None:
    pass


def one_is_asked(tickets: list[inferkit.Ticket]) -> None:
    tickets[1].result(60)


def one_raises_the_cause(tickets: list[inferkit.Ticket]) -> None:
    error = tickets[0].exception(60)
    assert error is not None
    assert error.__cause__ is not None
    raise error.__cause__


@pytest.mark.usefixtures("no_buffer_left")
@pytest.mark.parametrize("options", [{"isolate_failures": False, "max_delay": 60}, {"coalesce": True}], ids=str)
@pytest.mark.parametrize(
    ("ask", "raised"),
    [
        (nobody_asks, ValueError),
        (one_is_asked, SystemExit),  # which is its own cause
        (one_is_asked, KeyboardInterrupt),
        (one_raises_the_cause, ValueError),
    ],
)
def test_a_shared_error_keeps_nobody_alive(
    ask: Callable[[list[inferkit.Ticket]], None], raised: type[BaseException], options: dict[str, Any]
) -> None:
    """However few of the tickets were asked, and whatever the frames hold that it was raised through."""
    all_are_there = threading.Event()

    class Caller:
        def __init__(self) -> None:
            self.tickets: list[inferkit.Ticket] = []

        def predict(self, x: np.ndarray) -> np.ndarray:
            all_are_there.wait(60)
            raise raised

        def call(self, batcher: inferkit.Batcher) -> None:
            self.tickets += [batcher.submit(row(1)) for _ in range(4)]
            all_are_there.set()
            assert batcher.drain(60)
            with contextlib.suppress(inferkit.InferenceError):
                ask(self.tickets)

    def service() -> weakref.ref[Any]:
        caller = Caller()
        with inferkit.Batcher(wrap(caller.predict), max_batch_size=4, caller_runs=False, **options) as batcher:
            with contextlib.suppress(raised):
                caller.call(batcher)
            assert {ticket.timing.batch_id for ticket in caller.tickets} == {1}
        return weakref.ref(caller)

    assert collected(service())


def test_a_shared_error_stays_with_those_who_are_left() -> None:
    with inferkit.Batcher(
        wrap(lambda x: {}["nothing"]), caller_runs=False, isolate_failures=False, max_delay=0.05
    ) as batcher:
        kept = batcher.submit(row(1))
        knot: list[Any] = [batcher.submit(row(1))]
        knot.append(knot)
        assert knot[0].exception(60) is not None
        kept.exception(60)
        del knot
        gc.collect()
        error = kept.exception()
        assert isinstance(error, inferkit.InferenceError)
        assert isinstance(error.__cause__, KeyError)
        assert error.__cause__.args == ("nothing",)
        assert error.__cause__.__traceback__ is not None


def test_tasks_that_awaited_are_freed() -> None:
    seen: list[weakref.ref[Any]] = []

    async def main() -> None:
        batcher = inferkit.Batcher(wrap(lambda x: x), max_delay=60)

        async def wait() -> None:
            ticket = batcher.submit(row(1))
            task = asyncio.current_task()
            seen.append(weakref.ref(task))
            task.ticket = ticket  # type: ignore[union-attr]
            await ticket

        tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
        await asyncio.sleep(0.01)
        batcher._begin_close(False)
        await asyncio.wait(tasks)
        for task in tasks:
            assert isinstance(task.exception(), inferkit.ClosedError)

    asyncio.run(main())
    assert all(collected(ref) for ref in seen)


def test_tickets_that_are_still_awaited_are_not_collected() -> None:
    async def main() -> None:
        batcher = inferkit.Batcher(wrap(lambda x: x * 2), max_delay=0.2)
        answers: list[list[float]] = []

        async def wait(i: int) -> None:
            answers.append((await batcher.submit(row(i))).tolist())

        tasks = [asyncio.ensure_future(wait(i)) for i in range(5)]
        for _ in range(20):
            await asyncio.sleep(0.01)
            gc.collect()
        await asyncio.gather(*tasks)
        assert sorted(answers) == [[2 * i, 2 * i] for i in range(5)]
        await batcher.aclose()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:unclosed batcher:ResourceWarning")
def test_a_ticket_alone_keeps_its_batcher_working() -> None:
    ticket = inferkit.Batcher(wrap(lambda x: x * 2), max_delay=0.1).submit(row(3))
    for _ in range(5):
        gc.collect()
    assert ticket.result(60).tolist() == [6, 6]
