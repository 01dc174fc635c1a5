"""Batcher.submit_many: many requests in one call."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel, ManualClock

PATIENCE = 60


def rows(n: int) -> np.ndarray:
    return np.arange(2 * n, dtype=np.float32).reshape(n, 2)


class Held:
    """A model whose runs wait for a gate; what it has run."""

    def __init__(self) -> None:
        self.begun, self.gate, self.ran = threading.Semaphore(0), threading.Event(), list[int]()
        self.model = FakeModel(answer=self.answer)

    def answer(self, x: np.ndarray) -> np.ndarray:
        self.ran.append(len(x))
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        return 2 * x


def test_each_row_is_a_request_with_a_ticket() -> None:
    x = rows(5)
    with inferkit.Batcher(FakeModel()) as batcher:
        tickets = batcher.submit_many(x)
        assert [type(ticket) for ticket in tickets] == [inferkit.Ticket] * 5
        assert [ticket.result(PATIENCE).tolist() for ticket in tickets] == (2 * x).tolist()
        assert len({ticket.request_id for ticket in tickets}) == 5
        assert batcher.stats().completed == 5
        assert batcher.submit_many([]) == []
        assert batcher.submit_many(x[:0]) == []


def test_rows_may_have_the_batch_axis_and_come_from_a_generator() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        tickets = batcher.submit_many(rows(n) for n in (1, 3, 2))
        assert [ticket.result(PATIENCE).shape for ticket in tickets] == [(1, 2), (3, 2), (2, 2)]


def test_several_inputs_and_dicts() -> None:
    model = inferkit.Model.from_callable(
        lambda a, b: {"sum": a + b},
        inputs=[("a", "float32", (None, 2)), ("b", "float32", (None, 2))],
        outputs=[("sum", "float32", (None, 2))],
    )
    x, y = rows(4), 10 * rows(4)
    with inferkit.Batcher(model) as batcher:
        assert [t.result(PATIENCE).tolist() for t in batcher.submit_many(x, list(y))] == (x + y).tolist()
        named = batcher.submit_many([{"a": a, "b": b} for a, b in zip(x, y, strict=True)])
        assert [t.result(PATIENCE)["sum"].tolist() for t in named] == (x + y).tolist()
        with pytest.raises(ValueError, match="of one length, got 4 and 3"):
            batcher.submit_many(x, y[:3])
        with pytest.raises(TypeError, match="one of dicts; got a dict"):
            batcher.submit_many({"a": x, "b": y})
        with pytest.raises(TypeError, match="an iterable is needed"):
            batcher.submit_many()
        with pytest.raises(TypeError, match="iter"):
            batcher.submit_many(3)  # type: ignore[arg-type]
        assert [type(t.exception(PATIENCE)) for t in batcher.submit_many(x)] == [inferkit.ValidationError] * 4


def test_what_is_wrong_with_a_row_is_its_ticket_s() -> None:
    given: list[Any] = [*rows(2), np.ones(3, np.float32), "no", np.float32([np.nan, 1]), *rows(1)]
    with inferkit.Batcher(FakeModel()) as batcher:
        tickets = batcher.submit_many(given)
        errors = [ticket.exception(PATIENCE) for ticket in tickets]
        assert [type(error) for error in errors] == [
            *[type(None)] * 2,
            *[inferkit.ValidationError] * 3,
            type(None),
        ]
        assert batcher.stats().invalid == 3


def test_they_run_in_full_batches() -> None:
    """The first one does not go alone while the others come."""
    held = Held()
    held.gate.set()
    with inferkit.Batcher(held.model, policy=inferkit.Fixed(max_batch_size=8)) as batcher:
        for ticket in batcher.submit_many(rows(24)):
            ticket.result(PATIENCE)
    assert held.ran == [8, 8, 8]


def test_a_queue_that_fills_up_refuses_the_rest_at_once() -> None:
    held = Held()
    with inferkit.Batcher(held.model, max_batch_size=2, workers=1, max_queue_size=4) as batcher:
        running = batcher.submit(rows(1)[0])
        assert held.begun.acquire(timeout=PATIENCE)
        tickets = batcher.submit_many(rows(7))
        refused = [isinstance(t.exception(PATIENCE), inferkit.QueueFullError) for t in tickets if t.done()]
        assert refused == [True] * 3
        assert not any(ticket.done() for ticket in tickets[:4])
        held.gate.set()
        assert [t.result(PATIENCE).tolist() for t in tickets[:4]] == (2 * rows(4)).tolist()
        running.result(PATIENCE)


def test_where_it_is_to_wait_for_room_it_does() -> None:
    """Those before it go on meanwhile: nobody else would make room."""
    model = FakeModel()
    with inferkit.Batcher(model, max_queue_size=3, on_full="wait", policy=inferkit.Fixed(max_batch_size=64)) as batcher:
        tickets = batcher.submit_many(rows(50))
        assert [t.result(PATIENCE).tolist() for t in tickets] == (2 * rows(50)).tolist()


def test_options_are_of_each_request() -> None:
    clock, held = ManualClock(), Held()
    with inferkit.Batcher(held.model, max_batch_size=1, workers=1, _clock=clock) as batcher:
        running = batcher.submit(rows(1)[0])
        assert held.begun.acquire(timeout=PATIENCE)
        late = batcher.submit_many(rows(3), timeout=0.5, client="a", tags={"way": "many"})
        high = batcher.submit_many(rows(2), priority=5)
        clock.advance(1.0)
        assert [type(t.exception(PATIENCE)) for t in late] == [inferkit.DeadlineError] * 3
        held.gate.set()
        for ticket in [running, *high]:
            ticket.result(PATIENCE)
        stats = batcher.stats()
        assert stats.clients["a"].submitted == 3
        assert stats.tags[0].tags == {"way": "many"}
        for wrong in ({"request_id": "a"}, {"colour": 1}):
            with pytest.raises(TypeError, match="unexpected keyword"):
                batcher.submit_many(rows(1), **wrong)
        with pytest.raises(TypeError, match="priority"):
            batcher.submit_many(rows(1), priority="high")  # type: ignore[arg-type]
        with inferkit.deadline(0.25):
            (inherited,) = batcher.submit_many(rows(1))
        inherited.result(PATIENCE)


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    class Breaks:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise SystemExit(3)

    held = Held()
    with inferkit.Batcher(held.model, max_batch_size=2, workers=1) as batcher:
        running = batcher.submit(rows(1)[0])
        assert held.begun.acquire(timeout=PATIENCE)
        with pytest.raises(SystemExit):
            batcher.submit_many([*rows(3), Breaks(), *rows(2)])
        stats = batcher.stats()
        assert (stats.cancelled, stats.queue_depth, stats.in_flight) == (3, 0, 1)
        with pytest.raises(ZeroDivisionError):
            batcher.submit_many(rows(2)[1 // i] for i in (1, 0))
        assert batcher.stats().cancelled == 3  # nothing had been submitted
        held.gate.set()
        running.result(PATIENCE)
    assert held.ran == [1]


def test_equal_rows_are_computed_once_and_do_not_cut_the_batch_short() -> None:
    held = Held()
    held.gate.set()
    with inferkit.Batcher(held.model, coalesce=True, policy=inferkit.Fixed(max_batch_size=8)) as batcher:
        x = rows(8)[[0, 0, 1, 1, 2, 2, 3, 3]]
        assert [t.result(PATIENCE).tolist() for t in batcher.submit_many(x)] == (2 * x).tolist()
        assert batcher.stats().coalesced == 4
    assert held.ran == [4]


def test_what_is_gathered_is_sent_by_whoever_needs_it() -> None:
    """Python code that runs between the rows may wait for one of them, or close the batcher."""
    tickets: list[Any] = []

    class Waits:
        def __init__(self, batcher: inferkit.Batcher, what: Any) -> None:
            self.batcher, self.what = batcher, what

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            tickets.append(self.what(self.batcher))
            return np.ones(2, np.float32)

    with inferkit.Batcher(FakeModel(), policy=inferkit.Fixed(max_batch_size=64)) as batcher:
        made = batcher.submit_many([*rows(3), Waits(batcher, lambda b: b.drain(PATIENCE)), *rows(2)])
        ends = [ticket.exception(PATIENCE) for ticket in made]
        assert ends[:3] == [None] * 3
        assert [type(e) for e in ends[3:]] == [inferkit.ClosedError] * 3
    assert tickets == [True]
    batcher = inferkit.Batcher(FakeModel(), policy=inferkit.Fixed(max_batch_size=64))
    made = batcher.submit_many([*rows(3), Waits(batcher, lambda b: b.close(timeout=PATIENCE)), *rows(2)])
    ends = [ticket.exception(PATIENCE) for ticket in made]
    assert ends[:3] == [None] * 3
    assert [type(e) for e in ends[3:]] == [inferkit.ClosedError] * 3


def test_ctrl_c_ends_it_and_its_requests() -> None:
    held = Held()
    batcher = inferkit.Batcher(held.model, max_batch_size=1, workers=1, max_queue_size=2, on_full="wait")
    running = batcher.submit(rows(1)[0])
    assert held.begun.acquire(timeout=PATIENCE)
    me = threading.main_thread().ident
    assert me is not None

    def interrupt() -> None:
        while batcher.stats().queue_depth < 3:
            time.sleep(0.001)
        signal.pthread_kill(me, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.submit_many(rows(10))
    thread.join(PATIENCE)
    assert batcher.stats().queue_depth == 0
    held.gate.set()
    running.result(PATIENCE)
    assert batcher.close(timeout=PATIENCE)
    assert held.ran == [1]


def test_on_a_loop_they_are_awaited_like_others() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel(), max_queue_size=4, on_full="wait") as batcher:
            tickets = batcher.submit_many(rows(20))  # does not block the loop
            answers = await asyncio.gather(*tickets)
            assert [a.tolist() for a in answers] == (2 * rows(20)).tolist()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_from_many_threads() -> None:
    wrong: list[Any] = []
    with inferkit.Batcher(FakeModel(), max_batch_size=16, workers=2, max_queue_size=None) as batcher:

        def ask(number: int) -> None:
            for i in range(20):
                x = rows(7) + 100 * number + i
                got = [t.result(PATIENCE).tolist() for t in batcher.submit_many(x)]
                if got != (2 * x).tolist():
                    wrong.append((number, i))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not wrong
        assert batcher.stats().completed == 8 * 20 * 7
