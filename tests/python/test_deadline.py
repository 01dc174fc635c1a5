"""Deadlines that requests inherit from the context."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")

ROW = np.zeros(2, np.float32)
PASSED = "deadline had passed when it was submitted"


@contextmanager
def held(clock: ManualClock) -> Iterator[inferkit.Batcher]:
    """A batcher whose first run goes on until the end: what is submitted within waits, and ends by its time alone."""
    opened = threading.Event()

    def answer(x: np.ndarray) -> np.ndarray:
        assert opened.wait(60)
        return x

    with clock.batcher(FakeModel(answer=answer), max_batch_size=1) as batcher:
        first = batcher.submit(ROW)
        try:
            yield batcher
        finally:
            opened.set()
            first.result(60)


def expires_after(clock: ManualClock, ticket: inferkit.Ticket, seconds: float) -> bool:
    """Whether a ticket that waits ends that much later, and not before; moves the clock."""
    clock.advance(seconds - 0.25)
    early = ticket.done()
    clock.advance(0.25)
    return not early and ticket.done() and isinstance(ticket.exception(), inferkit.DeadlineError)


def test_what_is_submitted_within_inherits_it() -> None:
    clock = ManualClock()
    with held(clock) as batcher:
        before = batcher.submit(ROW)
        with inferkit.deadline(2, clock=clock):
            clock.advance(0.5)
            within = batcher.submit(ROW)
        after = batcher.submit(ROW)
        assert expires_after(clock, within, 1.5)  # from the beginning of the block, not from the submission
        assert not before.done()
        assert not after.done()


@pytest.mark.parametrize(("timeout", "ends"), [(1.0, 1.0), (3.0, 2.0), (None, 2.0)])
def test_of_a_timeout_and_the_block_the_earlier_counts(timeout: float | None, ends: float) -> None:
    clock = ManualClock()
    with held(clock) as batcher:
        with inferkit.deadline(2, clock=clock):
            ticket = batcher.submit(ROW, timeout=timeout)
        assert expires_after(clock, ticket, ends)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3, 5, 8, math.inf])), min_size=1, max_size=6))
def test_of_nested_blocks_the_earliest_counts(blocks: list[tuple[int, float]]) -> None:
    clock = ManualClock()
    with held(clock) as batcher, ExitStack() as stack:
        ends = [math.inf]
        for pause, seconds in blocks:
            clock.advance(pause)
            ends.append(min(ends[-1], clock.now() + seconds))
            block = stack.enter_context(inferkit.deadline(seconds, clock=clock))
            assert block.remaining() == pytest.approx(max(0.0, ends[-1] - clock.now()))
        ticket = batcher.submit(ROW)
        for _ in range(10):
            assert ticket.done() == (ends[-1] <= clock.now())
            clock.advance(1)


def test_a_block_that_is_left_gives_way_to_the_one_around_it() -> None:
    clock = ManualClock()
    with held(clock) as batcher:
        with inferkit.deadline(3, clock=clock):
            with pytest.raises(KeyError), inferkit.deadline(1, clock=clock):
                raise KeyError
            ticket = batcher.submit(ROW)
        assert expires_after(clock, ticket, 3)


def test_one_that_has_passed_refuses_at_once() -> None:
    clock = ManualClock()
    with held(clock) as batcher:
        for seconds in (0, -5, -math.inf, -(10**30)):
            with inferkit.deadline(seconds, clock=clock) as block:
                assert block.remaining() == 0
                assert PASSED in str(batcher.submit(ROW, timeout=100).exception())
                with pytest.raises(inferkit.DeadlineError, match=PASSED):
                    batcher(ROW)
        with inferkit.deadline(1, clock=clock):
            clock.advance(1)
            assert PASSED in str(batcher.submit(ROW).exception())
        assert batcher.stats().expired == 9


def test_without_an_end_it_changes_nothing() -> None:
    with inferkit.Batcher(FakeModel()) as batcher, inferkit.deadline(math.inf) as none:
        assert none.remaining() == math.inf
        assert (batcher(ROW) == ROW).all()
        with inferkit.deadline(1e300) as never:
            assert never.remaining() == math.inf
            assert (batcher.submit(ROW, timeout=1e300).result(60) == ROW).all()


def test_of_the_real_clock() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        with inferkit.deadline(1000) as block:
            assert 900 < block.remaining() <= 1000
            assert (batcher(ROW) == ROW).all()
            assert (batcher.submit(ROW).result(60) == ROW).all()
        with inferkit.deadline(0), pytest.raises(inferkit.DeadlineError, match=PASSED):
            batcher(ROW)
        assert (batcher(ROW) == ROW).all()


def test_by_another_clock_it_is_as_far_away() -> None:
    clock, other = ManualClock(), ManualClock(start=5000)
    with held(clock) as batcher:
        with inferkit.deadline(100, clock=other):
            other.advance(98)
            ticket = batcher.submit(ROW)
            with inferkit.deadline(50):  # further away, though a smaller number by its own clock may come first
                assert not batcher.submit(ROW).done()
        assert expires_after(clock, ticket, 2)
    with inferkit.Batcher(FakeModel()) as real, inferkit.deadline(100, clock=other):
        assert (real(ROW) == ROW).all()
        other.advance(100)
        with pytest.raises(inferkit.DeadlineError, match=PASSED):
            real(ROW)


def test_tasks_have_that_of_the_place_where_they_were_made() -> None:
    clock = ManualClock()

    async def submitted(batcher: inferkit.Batcher) -> inferkit.Ticket:
        await asyncio.sleep(0)
        return batcher.submit(ROW)

    async def main(batcher: inferkit.Batcher) -> list[inferkit.Ticket]:
        with inferkit.deadline(2, clock=clock):
            within = asyncio.create_task(submitted(batcher))
            thread = asyncio.create_task(asyncio.to_thread(batcher.submit, ROW))
            with inferkit.deadline(1, clock=clock):
                shorter = asyncio.create_task(submitted(batcher))
        outside = asyncio.create_task(submitted(batcher))
        return list(await asyncio.gather(shorter, within, thread, outside))

    with held(clock) as batcher:
        tickets = asyncio.run(main(batcher))
        for seconds in (1, 2, 10):
            clock.advance(seconds - clock.now() + 1)
            assert [t.done() for t in tickets] == [seconds >= 1, seconds >= 2, seconds >= 2, False]


def test_threads_have_it_where_they_run_in_a_copy_of_the_context() -> None:
    clock = ManualClock()
    got: dict[str, Any] = {}
    with held(clock) as batcher:

        def submit(name: str) -> None:
            got[name] = batcher.submit(ROW)

        with inferkit.deadline(1, clock=clock):
            context = contextvars.copy_context()
            threads = [
                threading.Thread(target=contextvars.Context().run, args=(submit, "empty")),
                threading.Thread(target=context.run, args=(submit, "copied")),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert expires_after(clock, got["copied"], 1)
        assert not got["empty"].done()


def test_map_and_amap_inherit_it() -> None:
    clock = ManualClock()
    rows = [ROW] * 3

    async def main(batcher: inferkit.Batcher) -> list[Any]:
        with inferkit.deadline(0, clock=clock):
            return [answer async for answer in batcher.amap(rows, return_exceptions=True)]

    with clock.batcher(FakeModel()) as batcher:
        with inferkit.deadline(0, clock=clock):
            answers = list(batcher.map(rows, return_exceptions=True))
        answers += asyncio.run(main(batcher))
        assert [type(answer) for answer in answers] == [inferkit.DeadlineError] * 6
        lazy = batcher.map(rows)
        with inferkit.deadline(0, clock=clock), pytest.raises(inferkit.DeadlineError):
            next(lazy)  # submits now


@pytest.mark.parametrize(
    ("seconds", "clock", "error", "says"),
    [
        ("1", None, TypeError, "seconds must be a number of seconds, got str"),
        (None, None, TypeError, "seconds must be a number of seconds, got NoneType"),
        (True, None, TypeError, "seconds must be a number of seconds, got bool"),
        (math.nan, None, ValueError, "seconds must be a number of seconds, got NaN"),
        (1, 3, TypeError, "clock must be a ManualClock, or None for the real one, got int"),
    ],
)
def test_wrong_arguments(seconds: Any, clock: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        inferkit.deadline(seconds, clock=clock)


def test_one_block_at_a_time() -> None:
    block = inferkit.deadline(1)
    assert block.remaining() == math.inf
    with block, pytest.raises(RuntimeError, match="make one for each block"), block:
        pass
    with block:  # and again, from now on
        assert block.remaining() > 0


@pytest.mark.parametrize("seconds", [1.0, math.inf])
def test_a_deadline_is_of_one_block(seconds: float) -> None:
    deadline = inferkit.deadline(seconds)
    with deadline:
        with pytest.raises(RuntimeError, match="in use"):
            deadline.__enter__()
        assert deadline.remaining() > 0
    with deadline:  # later
        assert deadline.remaining() > 0


def test_a_callable_that_hangs_keeps_nobody_past_a_deadline() -> None:
    """However short its runs were until then: no thread that waits for an answer runs it, and no event loop."""
    going_on = threading.Event()
    fine, bad = np.zeros(2, np.float32), np.full(2, 7, np.float32)

    def hangs(x: np.ndarray) -> np.ndarray:
        if x[0, 0] == 7:
            going_on.wait(30)
        return x

    async def main() -> None:
        for _ in range(100):
            await batcher.submit(fine, timeout=10)
        late = batcher.submit(bad, timeout=0.1)
        turns = 0
        while not late.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert turns > 2
        with pytest.raises(inferkit.DeadlineError):
            await late

    model = inferkit.Model.from_callable(
        hangs, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))]
    )
    with inferkit.Batcher(model, workers=2) as batcher:
        for _ in range(100):
            batcher(fine)
        with pytest.raises(inferkit.DeadlineError):
            batcher(bad, timeout=0.1)
        assert not going_on.is_set()  # and so it still hangs
        asyncio.run(main())
        going_on.set()
