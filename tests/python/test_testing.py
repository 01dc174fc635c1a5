"""What inferkit gives users for tests of their own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel, LoadReport, ManualClock, adrive, bursts, drive, poisson

X = np.ones(2, np.float32)


def test_the_clock_moves_when_it_is_told_to() -> None:
    clock = ManualClock(5.0)
    assert clock.now() == 5.0
    clock.advance(0.25)
    assert clock.now() == 5.25
    assert repr(clock) == "<inferkit.testing.ManualClock at 5.25 s>"
    for wrong in (0, -1, float("nan"), "1", None):
        with pytest.raises((TypeError, ValueError)):
            ManualClock(wrong)
    with pytest.raises(ValueError):
        clock.advance(-1)


def test_sleepers() -> None:
    clock = ManualClock()
    woken: list[float] = []

    def sleeper(seconds: float) -> None:
        clock.sleep(seconds)
        woken.append(seconds)

    threads = [threading.Thread(target=sleeper, args=(s,)) for s in (1.0, 2.0, 3.0)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(3)
    for i, thread in enumerate(threads):
        clock.advance(1.0)
        thread.join(30)
        assert woken == [1.0, 2.0, 3.0][: i + 1]
        clock.wait_for_sleepers(2 - i)


def test_a_clock_that_nobody_moves_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferkit.testing._clock._PATIENCE", 0.01)
    with pytest.raises(RuntimeError, match="advance"):
        ManualClock().sleep(1.0)
    with pytest.raises(RuntimeError, match="asleep on the ManualClock: 0 threads, and not"):
        ManualClock().wait_for_sleepers()


@pytest.mark.parametrize("start", [1.0, 1e5, 1.8e9, 7.9e9])
def test_a_sleeper_wakes_at_its_time_whatever_the_clock_shows(start: float) -> None:
    """Seconds since 1970 have digits for a quarter of a microsecond, not for nanoseconds."""
    clock = ManualClock(start)
    assert clock.now() == start
    with clock.batcher(FakeModel(duration=0.02, clock=clock)) as batcher:
        ticket = batcher.submit(np.zeros(2, np.float32))
        clock.wait_for_sleepers()
        for _ in range(20):
            assert not ticket.done()
            clock.advance(0.001)
        ticket.result(timeout=20)


def test_a_clock_shows_no_more_than_sums_of_times_can_be() -> None:
    clock = ManualClock(8e9)
    for too_much in (1e-3, 1.0, 1e300, float("inf")):
        with pytest.raises(ValueError, match="by must be a number of seconds between 0 and"):
            clock.advance(too_much)
        with pytest.raises(ValueError, match="start must be a number of seconds between 0 and 8e"):
            ManualClock(8e9 + too_much)
    assert clock.now() == 8e9
    with clock.batcher(FakeModel()) as batcher:
        for timeout in (1.0, 9e8, 1e10, None):
            assert batcher.submit(X, timeout=timeout).result(30).tolist() == [2, 2]


def test_a_clock_is_for_many_threads() -> None:
    """Batchers come and go while it is moved."""
    clock = ManualClock()
    errors: list[BaseException] = []
    over = threading.Event()

    def make() -> None:
        try:
            while not over.is_set():
                clock.batcher(FakeModel()).close()
        except BaseException as error:  # for the main thread
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            clock.advance(0.001)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not errors


def test_the_wait_for_room_goes_by_the_clock() -> None:
    clock = ManualClock()
    model = FakeModel(10.0, clock=clock)
    options: Any = {"max_batch_size": 1, "max_queue_size": 1, "on_full": "wait", "full_timeout": 0.5}
    with clock.batcher(model, **options) as batcher:
        running = batcher.submit(X)
        clock.wait_for_sleepers()
        queued = batcher.submit(X)
        ends: list[BaseException | None] = []
        threads = [
            threading.Thread(target=lambda t=timeout: ends.append(batcher.submit(X, timeout=t).exception(30)))
            for timeout in (None, 0.25, 5.0)
        ]
        for count, thread in enumerate(threads, 2):
            thread.start()
            end = time.monotonic() + 30
            while batcher.stats().queue_depth < count and time.monotonic() < end:
                time.sleep(0.001)
            assert batcher.stats().queue_depth == count
        clock.advance(0.3)
        threads[1].join(30)
        clock.advance(0.2)
        assert batcher.stats().rejected == 2  # already
        for thread in threads:
            thread.join(30)
        kinds = [type(error) for error in ends]
        assert kinds == [inferkit.DeadlineError, inferkit.QueueFullError, inferkit.QueueFullError]
        clock.advance(10.0)
        clock.wait_for_sleepers()
        clock.advance(10.0)
        assert [t.result(30).tolist() for t in (running, queued)] == [[2, 2]] * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_requests_end_together(count: int) -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(10.0, clock=clock), max_batch_size=1, coalesce=True) as batcher:
        running = batcher.submit(np.zeros(2, np.float32))
        clock.wait_for_sleepers()
        equal = [batcher.submit(X, timeout=0.5) for _ in range(count)]
        patient = batcher.submit(X, timeout=50.0)
        clock.advance(0.5)
        assert [ticket.done() for ticket in equal] == [True] * count
        assert not patient.done()
        clock.advance(9.5)
        clock.wait_for_sleepers()
        clock.advance(10.0)
        assert patient.result(30).tolist() == [2, 2]
        running.result(30)


def test_a_turn_of_a_loop_that_takes_too_long() -> None:
    """What it submitted and then let pass ends when the loop hands it over."""
    clock = ManualClock()

    async def main() -> None:
        async with clock.batcher(FakeModel(10.0, clock=clock), max_batch_size=1) as batcher:
            running = batcher.submit(X)
            await asyncio.sleep(0)
            await asyncio.to_thread(clock.wait_for_sleepers)
            late = batcher.submit(X, timeout=0.5)
            clock.advance(1.0)
            with pytest.raises(inferkit.DeadlineError):
                await asyncio.wait_for(late, 30)
            clock.advance(9.0)
            await running

    asyncio.run(main())


def test_deadlines_go_by_the_clock() -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1) as batcher:
        running = batcher.submit(X, timeout=0.9)
        clock.wait_for_sleepers()
        waiting, patient = batcher.submit(X, timeout=0.5), batcher.submit(X, timeout=100)
        time.sleep(0.02)  # real time is nothing to it
        clock.advance(0.4)
        assert not waiting.done()
        clock.advance(0.2)
        assert waiting.timing.finished is not None  # already: nobody had to ask
        assert waiting.timing.total_time == pytest.approx(0.6)
        clock.advance(0.4)
        assert isinstance(running.exception(30), inferkit.DeadlineError)  # it ran for too long
        clock.wait_for_sleepers()
        clock.advance(1.0)
        assert patient.result(30).tolist() == [2, 2]
        assert patient.timing.compute_time == pytest.approx(1.0)
        assert patient.timing.queue_time == pytest.approx(1.0)


def test_max_delay_goes_by_the_clock() -> None:
    clock = ManualClock()
    model = FakeModel()
    with clock.batcher(model, max_delay=10.0, max_batch_size=4) as batcher:
        tickets = [batcher.submit(X) for _ in range(3)]
        time.sleep(0.02)
        assert model.batches == []
        clock.advance(10.0)
        assert [t.result(30).tolist() for t in tickets] == [[2, 2]] * 3
        assert model.batches == [3]


def test_on_a_loop() -> None:
    """Where a timer of the loop's, which goes by the real clock, must not end anything."""
    clock = ManualClock()

    async def main() -> None:
        async with clock.batcher(FakeModel(1.0, clock=clock), max_batch_size=1) as batcher:
            running, waiting = batcher.submit(X, priority=1), batcher.submit(X, timeout=0.5)
            await asyncio.sleep(0.01)
            clock.wait_for_sleepers()
            await asyncio.sleep(0.02)
            assert not waiting.done()
            clock.advance(0.5)
            with pytest.raises(inferkit.DeadlineError):
                await waiting
            clock.advance(0.5)
            assert (await running).tolist() == [2, 2]

    asyncio.run(main())


def test_the_time_of_a_fake_run() -> None:
    def check(duration: Any, rows: int, takes: float) -> None:
        clock = ManualClock()
        with clock.batcher(FakeModel(duration, clock=clock), max_batch_size=64) as batcher:
            ticket = batcher.submit(np.ones((rows, 2), np.float32))
            if takes:  # the clock moves while the run sleeps, and at no other time
                clock.wait_for_sleepers()
                clock.advance(takes - 0.001)
                assert not ticket.done()
                clock.advance(0.001)
            ticket.result(30)
            assert ticket.timing.compute_time == pytest.approx(takes, abs=1e-8)

    check(0.0, 1, 0.0)
    check(0.010, 3, 0.010)
    check(lambda rows: 0.002 * rows, 10, 0.020)
    curve = {1: 0.010, 9: 0.050, 32: 0.050}
    check(curve, 5, 0.030)
    script = FakeModel(curve)._script.curve
    assert [script(n) for n in (1, 5, 9, 20, 64)] == pytest.approx([0.010, 0.030, 0.050, 0.050, 0.100])


def test_on_the_real_clock_it_takes_real_time() -> None:
    with inferkit.Batcher(FakeModel(0.02)) as batcher:
        start = time.monotonic()
        batcher(X)
        assert time.monotonic() - start >= 0.02


def test_fake_ports_and_answers() -> None:
    model = FakeModel(
        inputs=[("ids", "int64", (None, None)), ("mask", "bool", (None, None))],
        outputs=[("logits", "float16", (None, 3)), ("pooled", "float32", (None, None))],
    )
    ids = np.zeros((4, 7), np.int64)
    logits, pooled = model(ids, ids == 0)
    assert (logits.dtype, logits.shape, pooled.shape) == (np.float16, (4, 3), (4, 1))
    failing = FakeModel(answer=lambda x: 1 / 0)
    with pytest.raises(inferkit.InferenceError):
        failing(X)
    assert failing.batches == [1]
    for wrong in (
        {"clock": 5},
        {"duration": -1.0},
        {"duration": {}},
        {"duration": {0: 1.0}},
        {"duration": {"a": 1.0, 2: 1.0}},
        {"duration": "fast"},
    ):
        with pytest.raises((TypeError, ValueError)):
            FakeModel(**wrong)


def test_arrivals_are_seeded_and_of_their_rate() -> None:
    times = poisson(500.0, 20.0, seed=3)
    assert times == sorted(times)
    assert times == poisson(500.0, 20.0, seed=3)
    assert times != poisson(500.0, 20.0, seed=4)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of the exponential distribution
    assert bursts(3, 1.0, 2.5) == [0.0] * 3 + [1.0] * 3 + [2.0] * 3
    spread = bursts(100, 1.0, 2.0, spread=0.5, seed=1)
    assert spread == sorted(spread)
    assert all(t % 1.0 < 0.5 for t in spread)
    assert len(spread) == 200
    for wrong in (lambda: poisson(0, 1), lambda: poisson(1, -1), lambda: bursts(0, 1, 1), lambda: bursts(1, 0, 1)):
        with pytest.raises(ValueError):
            wrong()


def send_by(kind: str, submit: Any, *arguments: Any, **options: Any) -> LoadReport:
    if kind == "drive":
        return drive(submit, *arguments, **options)

    async def main() -> LoadReport:
        return await adrive(submit, *arguments, **options)

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["drive", "adrive"])
def test_a_load_says_what_became_of_it(kind: str) -> None:
    def send(batcher: inferkit.Batcher, *arguments: Any, **options: Any) -> LoadReport:
        return send_by(kind, batcher.submit, *arguments, **options)

    with inferkit.Batcher(FakeModel(0.001), max_queue_size=None, inline_limit=0) as batcher:
        report = send(batcher, [X, np.full(2, np.nan, np.float32)], poisson(400.0, 0.3, seed=1))
        assert report.offered == len(poisson(400.0, 0.3, seed=1))
        assert report.errors == {"ValidationError": report.offered // 2}
        assert report.completed == report.offered - report.offered // 2
        assert report.latency_ms.count == report.completed
        assert report.latency_ms.p50 >= 1.0
        assert report.goodput == pytest.approx(report.completed / report.seconds)
    with inferkit.Batcher(FakeModel(0.05), max_batch_size=1, max_queue_size=2, caller_runs=False) as batcher:
        report = send(batcher, lambda n: (X,), bursts(8, 1.0, 0.5), timeout=20.0)
        assert report.offered == 8
        assert report.errors["QueueFullError"] >= 4
        assert report.completed + sum(report.errors.values()) == 8
    with pytest.raises(ValueError):
        drive(lambda x: None, [], [0.0])

    class Rows:  # no Sequence by name, as those of datasets are
        def __len__(self) -> int:
            return 2

        def __getitem__(self, n: int) -> np.ndarray:
            return X * n

    with inferkit.Batcher(FakeModel()) as batcher:
        assert send_by(kind, batcher.submit, Rows(), [0.0, 0.0, 0.0]).completed == 3
        with pytest.raises(TypeError, match=r"submit must give a Ticket, as batcher.submit does; .*ndarray"):
            send_by(kind, batcher, [X], [0.0])
        with pytest.raises(TypeError, match="requests must be a sequence or a function, got int"):
            send_by(kind, batcher.submit, 5, [0.0])
        for wrong in ("a", None, float("nan"), -1.0):
            with pytest.raises((TypeError, ValueError), match="an arrival must be a number of seconds"):
                send_by(kind, batcher.submit, [X], [wrong])
