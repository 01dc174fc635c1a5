"""The order of requests: priorities that age, deadlines within a priority, and that nobody starves."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")

Submissions = list[tuple[float, int, float | None]]


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Gate:
    """A model that holds its first run until it is opened; knows the rows in the order in which they ran."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.order: list[int] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.order += [int(value) for value in x[:, 0]]
        self.entered.set()
        assert self.opened.wait(60)
        return x


def order_of(submissions: Submissions, **options: Any) -> list[int]:
    """Submit while the batcher is busy, each after a pause: the order in which the requests run."""
    gate, clock = Gate(), ManualClock()
    with clock.batcher(FakeModel(answer=gate), **options) as batcher:
        batcher.submit(row(-1))
        gate.entered.wait()
        tickets = []
        for number, (pause, priority, timeout) in enumerate(submissions):
            clock.advance(pause)
            tickets.append(batcher.submit(row(number), priority=priority, timeout=timeout))
        gate.opened.set()
        for ticket in tickets:
            ticket.result(60)
    return gate.order[1:]


def turn(came: float, priority: int, timeout: float | None, ageing: float) -> float:
    """The rule, in seconds, as the guide states it."""
    patience = min(ageing, 10.0)
    left = patience if timeout is None else min(timeout, patience)
    return came + left - priority * ageing


PAUSES = st.integers(0, 3)
PRIORITIES = st.one_of(st.integers(-1, 1), st.integers(-100, 100))
TIMEOUTS = st.one_of(st.none(), st.integers(60, 70))  # none of them passes meanwhile


@settings(max_examples=60, deadline=None)
@given(
    submissions=st.lists(st.tuples(PAUSES, PRIORITIES, TIMEOUTS), max_size=15),
    ageing=st.sampled_from([0, 1, 2, 10, 65, 1000, None]),
    size=st.integers(1, 4),
)
def test_the_earliest_turn_goes_first(submissions: Submissions, ageing: int | None, size: int) -> None:
    counted = 1e6 if ageing is None else ageing
    came = np.cumsum([pause for pause, _, _ in submissions])
    turns = [turn(at, *how, counted) for at, (_, *how) in zip(came, submissions, strict=True)]
    want = sorted(range(len(turns)), key=turns.__getitem__)  # stable: of equal ones, the first in
    assert order_of(submissions, ageing=ageing, max_batch_size=size) == want


@settings(max_examples=60, deadline=None)
@given(timeouts=st.lists(st.one_of(st.none(), st.sampled_from([1.0, 2.0, 5.0, 9.0, 11.0, 60.0])), max_size=12))
def test_the_earliest_deadline_goes_first_within_a_priority(timeouts: list[float | None]) -> None:
    want = sorted(range(len(timeouts)), key=lambda i: min(timeouts[i] or math.inf, 10.0))
    assert order_of([(0, 0, timeout) for timeout in timeouts], max_batch_size=3) == want


def test_a_request_without_a_timeout_counts_as_one_that_has_ten_seconds() -> None:
    assert order_of([(0, 0, None), (4, 0, 5.9), (0, 0, 6.1)]) == [1, 0, 2]
    assert order_of([(0, 0, None), (1, 0, 0.9), (0, 0, 1.2)], ageing=2.0) == [1, 0, 2]


def test_a_level_of_priority_is_worth_so_many_seconds() -> None:
    assert order_of([(0, 0, None), (9.9, 1, None), (0.2, 1, None)]) == [1, 0, 2]
    assert order_of([(0, -1, None), (9.9, 1, None), (10.2, 1, None)]) == [1, 0, 2]
    assert order_of([(0, 0, None), (0.9, 1, None), (0.2, 1, None)], ageing=1.0) == [1, 0, 2]


def test_strict_priorities_and_none() -> None:
    submissions: Submissions = [(0, 0, None), (1e6, 1, None), (1, 0, 5.0)]
    assert order_of(submissions, ageing=None) == [1, 0, 2]
    assert order_of(submissions, ageing=float("inf")) == [1, 0, 2]
    assert order_of([(0, 0, None), (0, 100, 1.0), (0, -100, 0.5)], ageing=0) == [0, 1, 2]


def wait_under_endless_priority_1(ageing: float | None, timeout: float | None, most: float) -> float:
    """Seconds until a request of priority 0 is answered while more of priority 1 come than can be."""
    clock = ManualClock()
    with clock.batcher(FakeModel(duration=0.1, clock=clock), max_batch_size=1, ageing=ageing) as batcher:
        others = [batcher.submit(row(1), priority=1) for _ in range(5)]
        low = batcher.submit(row(0))
        start = clock.now()
        while not low.done() and clock.now() - start < most:
            clock.wait_for_sleepers()
            others += [batcher.submit(row(1), priority=1, timeout=timeout) for _ in range(2 if len(others) < 20 else 1)]
            clock.advance(0.1)
            while batcher.stats().in_flight == 0 and not low.done():  # the worker takes the next
                pass
        took = clock.now() - start
        assert low.timing.started is not None or took >= most
        batcher.close(drain=False, timeout=0)
        clock.advance(0.1)
    return took


def test_priority_0_has_a_longest_wait_under_endless_priority_1() -> None:
    queue = 20 * 0.1
    for ageing in (2.0, 10.0):
        assert ageing - 0.2 <= wait_under_endless_priority_1(ageing, None, 60.0) <= ageing + queue
        assert wait_under_endless_priority_1(ageing, 1.0, 60.0) <= 2 * ageing + queue
    assert wait_under_endless_priority_1(None, None, 25.0) >= 25.0


def test_an_event_loop_keeps_the_order() -> None:
    gate = Gate()
    gate.opened.set()

    async def main() -> None:
        async with inferkit.Batcher(FakeModel(answer=gate), max_batch_size=2) as batcher:
            how: list[dict[str, Any]] = [{}, {"timeout": 9.0}, {"timeout": 5.0}, {"priority": 1}, {"priority": -1}]
            await asyncio.gather(*(batcher.submit(row(i), **options) for i, options in enumerate(how)))

    asyncio.run(main())
    assert gate.order == [3, 2, 1, 0, 4]


@pytest.mark.parametrize("on_full", ["reject", "wait"])
def test_those_that_wait_for_room_keep_the_order(on_full: Any) -> None:
    gate = Gate()
    with inferkit.Batcher(
        FakeModel(answer=gate), max_batch_size=1, max_queue_size=1, on_full=on_full, caller_runs=False, inline_limit=0
    ) as batcher:

        async def main() -> list[Any]:
            tickets = [batcher.submit(row(0))]
            await asyncio.sleep(0)  # staged requests go to the queue
            await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait)
            how: list[dict[str, Any]] = [{}, {}, {"priority": 1}, {"timeout": 9.0}, {"priority": 2}]
            tickets += [batcher.submit(row(1 + i), **options) for i, options in enumerate(how)]
            await asyncio.sleep(0)
            gate.opened.set()
            return await asyncio.gather(*tickets, return_exceptions=True)

        answers = asyncio.run(main())
    if on_full == "reject":  # whoever is in first has the place
        assert [type(answer) for answer in answers[2:]] == [inferkit.QueueFullError] * 4
        assert gate.order == [0, 1]
    else:
        assert gate.order == [0, 1, 5, 3, 4, 2]
