"""A limit on the cores of all batchers: who runs when they are taken, and that nothing hangs or is lost."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel, ManualClock

PATIENCE = 60
X = np.ones((1, 2), np.float32)


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    yield
    inferkit.set_max_concurrent(None)


class Held:
    """A model whose runs wait for a gate, and say that they have begun."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.model = FakeModel(answer=self.answer)

    def answer(self, x: np.ndarray) -> np.ndarray:
        self.begun.release()
        assert self.gate.acquire(timeout=PATIENCE)
        return 2 * x

    def wait(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)

    def let_go(self) -> None:
        self.gate.release(1000)


def test_the_limit_is_what_was_set() -> None:
    assert inferkit.max_concurrent() is None
    inferkit.set_max_concurrent(3)
    assert inferkit.max_concurrent() == 3
    for wrong in (0, -1, 2**31):
        with pytest.raises(ValueError, match="cores"):
            inferkit.set_max_concurrent(wrong)
    for kind in (1.5, "2", True):
        with pytest.raises(TypeError, match="cores"):
            inferkit.set_max_concurrent(kind)  # type: ignore[arg-type]
    assert inferkit.max_concurrent() == 3
    inferkit.set_max_concurrent(None)
    assert inferkit.max_concurrent() is None


@pytest.mark.parametrize("weight", [0, -1.0, 1e-4, 1001, float("inf"), float("nan")])
def test_a_weight_has_bounds(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        inferkit.Batcher(FakeModel(), weight=weight)


def test_a_weight_is_a_number() -> None:
    with pytest.raises(TypeError, match="weight"):
        inferkit.Batcher(FakeModel(), weight="2")  # type: ignore[arg-type]


def shares(weights: Mapping[str, float], seconds: Mapping[str, float], rounds: int) -> dict[str, float]:
    """Run time by batcher, of one core; each always has requests waiting. The clock moves in runs alone."""
    clock = ManualClock()
    order: list[str] = []
    enough, started = threading.Event(), threading.Event()

    def model(name: str) -> FakeModel:
        def answer(x: np.ndarray) -> np.ndarray:
            assert started.wait(PATIENCE)  # the first one, until all have come
            clock.advance(seconds[name])
            order.append(name)  # one runs at a time
            if len(order) >= rounds:
                enough.set()
            return x

        return FakeModel(answer=answer)

    inferkit.set_max_concurrent(1)
    made = {
        name: inferkit.Batcher(
            model(name), weight=weight, max_batch_size=1, max_queue_size=None, _clock=clock, name=name
        )
        for name, weight in weights.items()
    }
    tickets = [batcher.submit(X) for batcher in made.values() for _ in range(rounds)]
    while sum(batcher.stats().in_flight + bool(batcher.stats().core_waits) for batcher in made.values()) < len(made):
        pass  # one runs, and all others wait for its core
    started.set()
    assert enough.wait(PATIENCE)
    for batcher in made.values():
        batcher.close(drain=False)
    assert all(ticket.done() for ticket in tickets)
    return {name: seconds[name] * order[:rounds].count(name) for name in weights}


def test_core_time_goes_by_the_weights() -> None:
    had = shares({"one": 1.0, "two": 2.0, "five": 5.0}, {"one": 1e-3, "two": 1e-3, "five": 1e-3}, 400)
    assert had == pytest.approx({"one": 0.05, "two": 0.1, "five": 0.25}, rel=0.1)


def test_a_heavy_model_has_no_more_than_a_light_one() -> None:
    had = shares({"heavy": 1.0, "light": 1.0}, {"heavy": 16e-3, "light": 1e-3}, 800)
    assert had["heavy"] == pytest.approx(had["light"], rel=0.1)


def test_a_batch_waits_for_a_core_and_says_so() -> None:
    inferkit.set_max_concurrent(1)
    held = Held()
    with inferkit.Batcher(held.model, workers=4) as first, inferkit.Batcher(FakeModel(), name="second") as second:
        running = first.submit(X)
        held.wait()
        waiting = second.submit(X)
        called: list[Any] = []
        caller = threading.Thread(target=lambda: called.append(second(X)))  # finds no core, and goes to the queue
        caller.start()
        while second.stats().queue_depth < 2 or not second.stats().core_waits:
            pass
        first.submit(X)
        assert first.stats().in_flight == 1  # nor has the first one a second core
        assert not waiting.done()
        held.let_go()
        assert waiting.result(PATIENCE).tolist() == [[2, 2]]
        caller.join(PATIENCE)
        assert called[0].tolist() == [[2, 2]]
        assert running.result(PATIENCE).tolist() == [[2, 2]]
        first.drain(PATIENCE)
        second.drain(PATIENCE)
        stats = second.stats()
        assert stats.core_waits >= 1
        assert stats.core_wait_seconds > 0
        assert 0 < stats.core_share < 1
        assert stats.core_seconds > 0
        assert "the cores that all batchers share were taken" in stats.policy.why
        assert "cores     " in str(stats)
        assert "cores" not in first.stats().policy.why or first.stats().core_waits > 0


def test_a_deadline_that_a_wait_for_cores_would_miss_is_refused_at_once() -> None:
    inferkit.set_max_concurrent(1)
    held, clock = Held(), ManualClock()
    with inferkit.Batcher(held.model, _clock=clock) as first, inferkit.Batcher(FakeModel(), _clock=clock) as second:

        def wait_for_the_core(**options: Any) -> Any:
            waits = second.stats().core_waits
            ticket = second.submit(X, **options)
            while second.stats().core_waits == waits and not ticket.done():
                pass
            return ticket

        for _ in range(12):  # each waits for 50 ms
            running = first.submit(X)
            held.wait()
            waiting = wait_for_the_core()
            clock.advance(0.05)
            held.gate.release()
            assert running.result(PATIENCE).tolist() == waiting.result(PATIENCE).tolist() == [[2, 2]]
        running = first.submit(X)
        held.wait()
        refused = second.submit(X, timeout=0.02)
        assert refused.done()
        error = refused.exception(0)
        assert isinstance(error, inferkit.DeadlineError)
        assert "waits for cores that other models use included" in str(error)
        assert error.retry_after == pytest.approx(0.03, rel=0.5)
        admitted = wait_for_the_core(timeout=0.2)
        assert not admitted.done()
        held.let_go()
        assert admitted.result(PATIENCE).tolist() == [[2, 2]]
        running.result(PATIENCE)
        clock.advance(1.0)  # the other one has been idle since, so there is nothing to wait for
        assert second.submit(X, timeout=0.02).result(PATIENCE).tolist() == [[2, 2]]


def test_workers_that_wait_for_each_other_have_nobody_refused() -> None:
    """With one core, and twice the requests that it can answer, three workers answer as many as one."""

    def answered(workers: int) -> int:
        clock = ManualClock()
        model = FakeModel(duration=0.01, clock=clock)
        tickets = []
        with clock.batcher(model, max_batch_size=1, workers=workers, max_queue_size=None) as batcher:
            for n in range(200):
                tickets += [batcher.submit(X, timeout=None if n < 5 else 0.15) for _ in range(1 if n < 5 else 2)]
                clock.wait_for_sleepers()
                clock.advance(0.01)
                if n >= 5:
                    clock.wait_for_sleepers()  # the next one runs
                else:
                    tickets[-1].result(PATIENCE)
            before = sum(ticket.done() and ticket.exception() is None for ticket in tickets)
            clock.advance(10.0)
        errors = [error for ticket in tickets if (error := ticket.exception(PATIENCE))]
        assert {type(error) for error in errors} == {inferkit.DeadlineError}
        assert any("the requests before it and its own run take about" in str(error) for error in errors)
        assert not any("other models" in str(error) for error in errors)
        return before

    inferkit.set_max_concurrent(1)
    alone = answered(1)
    assert alone > 190
    assert answered(3) >= alone


def test_without_a_limit_nothing_is_counted() -> None:
    with inferkit.Batcher(FakeModel(), weight=2.5) as batcher:
        batcher.submit(X).result(PATIENCE)
        batcher(X)
        stats = batcher.stats()
    assert (stats.weight, stats.core_seconds, stats.core_share, stats.core_waits) == (2.5, 0.0, 0.0, 0)


def test_a_run_counts_as_many_cores_as_its_model_has_threads(digits_path: Any) -> None:
    """Of two cores, a model with two threads takes both, and one with more than there are takes them, too."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("a model has no more threads than the process has CPUs")
    inferkit.set_max_concurrent(2)
    held = Held()
    wide = inferkit.Model.load(digits_path, threads=2)
    with inferkit.Batcher(held.model) as narrow, inferkit.Batcher(wide) as batcher:
        running = narrow.submit(X)
        held.wait()
        waiting = batcher.submit(np.zeros(64, np.float32))
        while not batcher.stats().core_waits:
            pass
        assert not waiting.done()
        held.let_go()
        waiting.result(PATIENCE)
        running.result(PATIENCE)


def test_the_thread_of_a_loop_does_not_wait_for_a_core() -> None:
    inferkit.set_max_concurrent(1)
    held = Held()

    async def main() -> None:
        with inferkit.Batcher(held.model) as first, inferkit.Batcher(FakeModel()) as second:
            for _ in range(3):
                assert (await second.submit(X)).tolist() == [[2, 2]]  # known to be short: the loop runs it
            running = first.submit(X)
            await asyncio.to_thread(held.wait)
            waiting = second.submit(X)
            for _ in range(20):
                await asyncio.sleep(0)  # the loop goes on
            assert not waiting.done()
            held.let_go()
            assert (await waiting).tolist() == [[2, 2]]
            await running

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("how", ["call", "submit", "map", "loop"])
def test_a_callable_may_ask_another_batcher(how: str) -> None:
    """All cores are taken by what waits for it."""
    inferkit.set_max_concurrent(1)
    with inferkit.Batcher(FakeModel()) as inner:

        async def on_a_loop(x: np.ndarray) -> np.ndarray:
            return np.asarray(await inner.submit(x))

        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "call": lambda x: inner(x),
            "submit": lambda x: inner.submit(x).result(PATIENCE),
            "map": lambda x: next(inner.map([x])),
            "loop": lambda x: asyncio.run(on_a_loop(x)),
        }
        with inferkit.Batcher(FakeModel(answer=ways[how])) as outer:
            for _ in range(3):
                assert outer.submit(X).result(PATIENCE).tolist() == [[2, 2]]
                assert outer(X).tolist() == [[2, 2]]


def test_what_waits_for_a_core_can_still_be_ended() -> None:
    inferkit.set_max_concurrent(1)
    held = Held()
    with inferkit.Batcher(held.model) as first:
        running = first.submit(X)
        held.wait()
        second = inferkit.Batcher(FakeModel())
        cancelled, late, left = second.submit(X), second.submit(X, timeout=0.01), second.submit(X)
        assert cancelled.cancel()
        assert isinstance(late.exception(PATIENCE), inferkit.DeadlineError)
        assert not second.drain(0.01)
        assert second.close(drain=False, timeout=PATIENCE)
        assert isinstance(left.exception(PATIENCE), inferkit.ClosedError)
        held.let_go()
        running.result(PATIENCE)


def test_a_run_that_fails_gives_its_core_back() -> None:
    inferkit.set_max_concurrent(1)

    def fail(x: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    with inferkit.Batcher(FakeModel(answer=fail)) as failing, inferkit.Batcher(FakeModel()) as other:
        for _ in range(5):
            assert isinstance(failing.submit(X).exception(PATIENCE), inferkit.InferenceError)
            with pytest.raises(inferkit.InferenceError):
                failing(X)
            assert other.submit(X).result(PATIENCE).tolist() == [[2, 2]]


def test_a_larger_limit_lets_others_in_at_once() -> None:
    inferkit.set_max_concurrent(1)
    held = Held()
    with inferkit.Batcher(held.model) as first, inferkit.Batcher(FakeModel()) as second:
        for limit in (2, None):
            running = first.submit(X)
            held.wait()
            waiting = second.submit(X)
            inferkit.set_max_concurrent(limit)
            assert waiting.result(PATIENCE).tolist() == [[2, 2]]
            assert not running.done()
            held.gate.release()
            running.result(PATIENCE)
            inferkit.set_max_concurrent(1)


def test_a_child_of_a_fork_has_the_limit_and_all_of_its_cores() -> None:
    inferkit.set_max_concurrent(1)
    held = Held()
    with inferkit.Batcher(held.model) as first, inferkit.Batcher(FakeModel()) as waits:
        running = first.submit(X)
        held.wait()
        waiting = waits.submit(X)
        child = os.fork()
        if child == 0:
            good = False
            try:
                with inferkit.Batcher(FakeModel()) as own:
                    good = inferkit.max_concurrent() == 1 and own.submit(X).result(PATIENCE).tolist() == [[2, 2]]
            finally:
                os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        held.let_go()
        running.result(PATIENCE)
        assert waiting.result(PATIENCE).tolist() == [[2, 2]]


def test_the_process_ends_while_batches_wait_for_a_core(fresh_python: Any) -> None:
    done = fresh_python("""
import threading
import numpy as np, inferkit
from inferkit.testing import FakeModel
inferkit.set_max_concurrent(1)
begun, never = threading.Event(), threading.Event()
def answer(x):
    begun.set()
    never.wait(0.2)
    return x
first, second = inferkit.Batcher(FakeModel(answer=answer)), inferkit.Batcher(FakeModel())
x = np.ones((1, 2), np.float32)
tickets = [first.submit(x)]
begun.wait()
tickets += [second.submit(x) for _ in range(3)]
print("ends")
""")
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_threads_on_several_batchers_get_all_their_answers() -> None:
    inferkit.set_max_concurrent(2)
    running, most, lock = 0, 0, threading.Lock()

    def answer(x: np.ndarray) -> np.ndarray:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        y = 2 * x
        with lock:
            running -= 1
        return y

    batchers = [inferkit.Batcher(FakeModel(answer=answer), workers=2, max_batch_size=4) for _ in range(3)]
    wrong: list[Any] = []

    def ask(number: int) -> None:
        batcher = batchers[number % 3]
        for i in range(100):
            x = np.full((1, 2), i, np.float32)
            y = batcher(x) if i % 2 else batcher.submit(x).result(PATIENCE)
            if not np.array_equal(y, 2 * x):
                wrong.append((number, i, y))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for batcher in batchers:
        batcher.close()
    assert wrong == []
    assert most <= 2
