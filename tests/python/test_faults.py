"""Whatever is thrown, at whatever call: a submission happened or it did not, and everybody else gets an answer."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
from faulty_loop import FAULTS, FaultyLoop, Interrupt, SoftError, is_ours

import inferkit

pytestmark = pytest.mark.usefixtures("no_buffer_left")

ENDS = (inferkit.InferkitError, asyncio.CancelledError, SoftError, Interrupt, MemoryError)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def double(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(fn, inputs=[("x", *spec)], outputs=[("y", *spec)])


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Scenario:
    """Clients that submit, await, run out of time and are cancelled, on a loop in which something goes wrong."""

    def __init__(self, loop: FaultyLoop, batcher: inferkit.Batcher) -> None:
        self.loop, self.batcher = loop, batcher
        self.answered = 0
        self.spoilt = 0
        self.submitted: list[inferkit.Ticket] = []

    def submit(self, value: float, **options: Any) -> inferkit.Ticket:
        with self.loop.submitting():
            ticket = self.batcher.submit(row(value), **options)
        self.submitted.append(ticket)
        return ticket

    async def client(self, value: float, **options: Any) -> None:
        try:
            ticket = self.submit(value, **options)
        except (SoftError, Interrupt, MemoryError, inferkit.InferkitError):
            self.spoilt += 1
            return
        try:
            assert (await ticket).tolist() == [2 * value, 2 * value]
            self.answered += 1
        except inferkit.InferkitError:
            self.spoilt += 1

    async def expires(self) -> None:
        """Nobody waits for it: only the loop's timer can end it."""
        try:
            ticket = self.submit(7, timeout=0.004)
        except (SoftError, Interrupt, MemoryError, inferkit.InferkitError):
            return
        for _ in range(2000):
            if ticket.timing.finished is not None:  # unlike done(), it ends nothing itself
                return
            await asyncio.sleep(0.002)
        raise AssertionError("the deadline did not fire")

    async def cancelled(self) -> None:
        task = asyncio.ensure_future(self.client(9, timeout=50))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def main(self) -> None:
        await asyncio.gather(self.client(1, timeout=30), self.client(2), self.client(3, timeout=20))
        await asyncio.gather(self.cancelled(), self.client(4), self.client(5, timeout=10))
        await self.client(6)


def run(
    strike: Callable[[inferkit.Batcher], object], at: int | None, when: Literal["before", "after"], inline_limit: float
) -> tuple[FaultyLoop, Scenario, inferkit.Batcher]:
    batcher = inferkit.Batcher(double(), max_batch_size=4, max_queue_size=8, inline_limit=inline_limit)
    loop = FaultyLoop(at, lambda: strike(batcher), when)
    scenario = Scenario(loop, batcher)
    try:
        loop.finish(scenario.main())
    finally:
        loop.close()
    return loop, scenario, batcher


def everybody_has_ended(scenario: Scenario, batcher: inferkit.Batcher) -> None:
    assert batcher.drain(timeout=30)
    stats = batcher.stats()
    assert stats.queue_depth == stats.in_flight == 0
    for ticket in scenario.submitted:
        assert ticket.done()
    batcher.close()
    assert batcher.stats().state == "closed"


def at_every_call(
    strike: Callable[[inferkit.Batcher], object], when: Literal["before", "after"], inline_limit: float
) -> Iterator[tuple[FaultyLoop, Scenario, inferkit.Batcher]]:
    for at in itertools.count():
        done = run(strike, at, when, inline_limit)
        yield done
        if not done[0].struck:
            return


WHEN = pytest.mark.parametrize("when", ["before", "after"])
# How a batch runs: on the loop's thread, or on a worker that wakes the loop.
WAYS = pytest.mark.parametrize("inline_limit", [pytest.param(10.0, id="inline"), pytest.param(0.0, id="worker")])


@WAYS
def test_without_a_fault_all_is_well(inline_limit: float) -> None:
    loop, scenario, batcher = run(lambda _: None, None, "before", inline_limit)
    assert scenario.answered == 6
    assert scenario.spoilt == 0
    assert {"get_debug", "add_reader", "call_soon", "call_later"} <= set(loop.calls)
    everybody_has_ended(scenario, batcher)


@WAYS
@WHEN
@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_at_every_call(
    fault: type[BaseException], when: Literal["before", "after"], inline_limit: float
) -> None:
    def strike(_: inferkit.Batcher) -> None:
        raise fault

    for loop, scenario, batcher in at_every_call(strike, when, inline_limit):
        # It spoils one submission at most; a Ctrl-C that reaches a task through its own submit() is that one, too.
        assert scenario.answered + scenario.spoilt == 6, (loop.at, loop.calls)
        assert scenario.spoilt <= 1, (loop.at, loop.calls)
        everybody_has_ended(scenario, batcher)


@WAYS
@WHEN
@pytest.mark.parametrize("drain", [True, False])
def test_closing_at_every_call(drain: bool, when: Literal["before", "after"], inline_limit: float) -> None:
    for loop, scenario, batcher in at_every_call(lambda batcher: batcher.close(drain=drain), when, inline_limit):
        # The client that is to be cancelled may be refused, too.
        assert scenario.answered + scenario.spoilt in (6, 7), (loop.at, loop.calls)
        everybody_has_ended(scenario, batcher)


@WAYS
@WHEN
def test_submitting_and_cancelling_at_every_call(when: Literal["before", "after"], inline_limit: float) -> None:
    kept: list[inferkit.Ticket] = []

    def strike(batcher: inferkit.Batcher) -> None:
        kept.append(batcher.submit(row(8), timeout=15))
        batcher.submit(row(9)).cancel()

    for loop, scenario, batcher in at_every_call(strike, when, inline_limit):
        assert scenario.answered == 6, (loop.at, loop.calls)
        everybody_has_ended(scenario, batcher)
        assert [ticket.result().tolist() for ticket in kept] == [[16, 16]] * len(kept)
        kept.clear()


@WHEN
@pytest.mark.parametrize("fault", FAULTS)
def test_deadlines_fire_after_a_fault(fault: type[BaseException], when: Literal["before", "after"]) -> None:
    """Of requests that nobody awaits, behind a model that hangs: only the loop's timer can end them."""

    def strike() -> None:
        raise fault

    for at in itertools.count():
        opened = threading.Event()
        loop = FaultyLoop(at, strike, when)
        batcher = inferkit.Batcher(double(lambda x, opened=opened: (opened.wait(60), x * 2)[1]), inline_limit=0)
        scenario = Scenario(loop, batcher)

        async def main(scenario: Scenario = scenario, opened: threading.Event = opened) -> None:
            first = asyncio.ensure_future(scenario.client(1))
            await asyncio.sleep(0.002)
            await asyncio.gather(*[scenario.expires() for _ in range(3)])
            await scenario.expires()
            opened.set()
            await first

        loop.finish(main())
        loop.close()
        everybody_has_ended(scenario, batcher)
        if not loop.struck:
            return


def test_a_tick_that_the_loop_has_lost() -> None:
    """A Ctrl-C between two callbacks takes the one that is about to be called: later requests must not wait for it."""

    class LossyLoop(FaultyLoop):
        lost = 0

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            handle = super().call_soon(callback, *args, context=context)
            if is_ours(callback) and not self.lost:
                self.lost += 1
                handle.cancel()
            return handle

    loop = LossyLoop()
    batcher = inferkit.Batcher(double())
    scenario = Scenario(loop, batcher)

    async def main() -> None:
        first = asyncio.ensure_future(scenario.client(1))
        await asyncio.sleep(0.2)
        await asyncio.wait_for(asyncio.gather(first, scenario.client(2)), 30)

    loop.finish(main())
    loop.close()
    assert loop.lost == 1
    assert scenario.answered == 2
    everybody_has_ended(scenario, batcher)


def test_closing_in_a_signal_handler_below_submit() -> None:
    batcher = inferkit.Batcher(double())
    closed: list[bool] = []

    def handler(*_: object) -> None:
        batcher.close()
        closed.append(True)

    before = signal.signal(signal.SIGUSR1, handler)
    loop = FaultyLoop(1, lambda: os.kill(os.getpid(), signal.SIGUSR1), "before")
    try:

        async def main() -> None:
            with loop.submitting(), pytest.raises(inferkit.ClosedError):
                batcher.submit(row(1), timeout=1.0).result()

        loop.finish(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
        loop.close()
    assert closed


@pytest.mark.parametrize("drain", [True, False])
def test_closing_in_a_signal_handler_while_the_caller_runs_its_request(drain: bool) -> None:
    """The run cannot be waited for on its own thread: it ends, and its caller has the answer."""
    told: list[bool] = []

    def interrupted(x: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        return x * 2

    batcher = inferkit.Batcher(double(interrupted))

    def handler(*_: object) -> None:
        told.append(batcher.drain(timeout=30))
        told.append(batcher.close(drain=drain))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert batcher(row(1)).tolist() == [2, 2]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told == [False, False]
    with pytest.raises(inferkit.ClosedError):
        batcher(row(1))
    assert batcher.close()
    assert batcher.stats().state == "closed"


def test_a_queue_is_not_full_for_ever_after_faults() -> None:
    """Four soft time limits strike below submit(), and the queue has four places."""
    batcher = inferkit.Batcher(double(), max_queue_size=4)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def hooked(*args: Any, **kwargs: Any) -> Any:
            loop.call_later = real  # type: ignore[method-assign]
            raise SoftError

        for i in range(4):
            loop.call_later = hooked  # type: ignore[method-assign]
            with pytest.raises(SoftError):
                batcher.submit(row(i), timeout=5.0 - i)
        loop.call_later = real  # type: ignore[method-assign]
        assert (await batcher.submit(row(5))).tolist() == [10, 10]
        assert batcher.stats().queue_depth == 0
        start = time.monotonic()
        late = batcher.submit(row(6), timeout=0.01)
        assert (await late).tolist() == [12, 12]
        assert time.monotonic() - start < 30

    asyncio.run(main())
    assert batcher.drain(timeout=30)
    assert batcher.stats().cancelled == 4
    batcher.close()
