"""The batcher under asyncio, and uvloop where it is there: ticks, wake-ups, cancellation, deadlines, loops that end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit

try:
    import uvloop
except ImportError:
    uvloop = None

pytestmark = pytest.mark.usefixtures("no_buffer_left")

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def run_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run_debug(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main, debug=True)


LOOPS = [
    pytest.param(asyncio.run, id="asyncio"),
    pytest.param(run_debug, id="debug"),
    pytest.param(run_uvloop, id="uvloop", marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")),
]
# How a batch may run: on the loop's thread, or on a worker that wakes the loop.
WAYS = [pytest.param(10.0, id="inline"), pytest.param(0.0, id="worker")]


def double(fn: Callable[..., Any] = lambda x: x * 2, shape: tuple[int | None, ...] = (None, 2)) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, inputs=[("x", "float32", shape)], outputs=[("y", "float32", shape)])


def row(value: float, width: int = 2) -> np.ndarray:
    return np.full(width, value, np.float32)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def model(digits_path: Path) -> inferkit.Model:
    return inferkit.Model.load(digits_path)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("inline_limit", WAYS)
def test_one_tick_one_batch(run: Runner, inline_limit: float) -> None:
    sizes: list[int] = []
    spy = double(lambda x: (sizes.append(len(x)), x * 2)[1])

    async def main() -> None:
        async with inferkit.Batcher(spy, inline_limit=inline_limit) as batcher:

            async def client(i: int) -> None:
                for _ in range(3):
                    assert (await batcher.submit(row(i))).tolist() == [2 * i, 2 * i]

            await asyncio.gather(*[client(i) for i in range(20)])

    run(main())
    assert sizes == [20, 20, 20]


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("inline_limit", WAYS)
def test_awaited_equals_alone_to_the_bit(
    run: Runner, inline_limit: float, model: inferkit.Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images = digits[0][:64]
    alone = [model(image).tobytes() for image in images]

    async def main() -> None:
        async with inferkit.Batcher(model, max_batch_size=16, inline_limit=inline_limit) as batcher:

            async def client(i: int) -> None:
                for k in range(50):
                    answer = await batcher.submit(images[(i + k) % 64], timeout=30)
                    assert answer.tobytes() == alone[(i + k) % 64]

            await asyncio.gather(*[client(i) for i in range(40)])
            assert batcher.stats().completed == 2000

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_an_await_after_the_end_and_from_two_tasks(run: Runner) -> None:
    async def main() -> None:
        async with inferkit.Batcher(double()) as batcher:
            ticket = batcher.submit(row(1))
            first = await ticket
            assert await ticket is first
            assert ticket.result() is first
            shared = batcher.submit(row(2))

            async def wait() -> np.ndarray:
                return await shared

            answers = await asyncio.gather(wait(), wait(), wait(), shared)
            assert all(a is answers[0] for a in answers)

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_several_outputs_and_dicts(run: Runner) -> None:
    model = inferkit.Model.from_callable(
        lambda x: (x, -x),
        inputs=[("x", "float32", (None, 2))],
        outputs=[("a", "float32", (None, 2)), ("b", "float32", (None, 2))],
    )

    async def main() -> None:
        async with inferkit.Batcher(model) as batcher:
            pair = await batcher.submit(row(1))
            assert isinstance(pair, tuple)
            assert [part.tolist() for part in pair] == [[1, 1], [-1, -1]]
            named = await batcher.submit({"x": row(1)})
            assert named["b"].tolist() == [-1, -1]

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("inline_limit", WAYS)
def test_errors_reach_the_one_who_awaits(run: Runner, inline_limit: float) -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        if (x == 13).any():
            raise KeyError("thirteen")
        return x

    async def main() -> None:
        async with inferkit.Batcher(double(fails), inline_limit=inline_limit) as batcher:
            answers = await asyncio.gather(
                *[asyncio.ensure_future(batcher.submit(row(i))) for i in (12, 13, 14)], return_exceptions=True
            )
            assert answers[0].tolist() == [12, 12]
            assert isinstance(answers[1], inferkit.InferenceError)
            assert isinstance(answers[1].__cause__, KeyError)
            assert answers[2].tolist() == [14, 14]
            with pytest.raises(inferkit.ValidationError):
                batcher.submit(row(float("nan"))).result()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_a_cancelled_task_cancels_its_request(run: Runner) -> None:
    async def main() -> None:
        async with inferkit.Batcher(double(), max_delay=60) as batcher:
            ticket = batcher.submit(row(1))

            async def wait() -> None:
                await ticket

            task = asyncio.create_task(wait())
            await asyncio.sleep(0.01)
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert ticket.cancelled()
            assert batcher.stats().queue_depth == 0
            with pytest.raises(inferkit.RequestCancelledError):
                ticket.result()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(batcher.submit(row(1)), 0.01)
            assert batcher.stats().cancelled == 2
            other = batcher.submit(row(1))
            task = asyncio.create_task(asyncio.wait_for(other, 30))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert other.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_deadlines_are_kept_behind_a_busy_worker(run: Runner) -> None:
    opened = threading.Event()

    async def main() -> None:
        async with inferkit.Batcher(double(lambda x: (opened.wait(30), x)[1]), inline_limit=0) as batcher:
            first = batcher.submit(row(0))
            await asyncio.sleep(0.02)
            start = time.monotonic()
            late = [batcher.submit(row(i), timeout=0.02 + 0.01 * i) for i in range(3)]
            for ticket in late:
                with pytest.raises(inferkit.DeadlineError):
                    await ticket
            assert time.monotonic() - start < 5
            unwatched = batcher.submit(row(9), timeout=0.01)
            await asyncio.sleep(0.05)
            assert unwatched.done()
            assert batcher.stats().expired == 4
            opened.set()
            assert (await first).tolist() == [0, 0]

    run(main())


class Hasty(asyncio.SelectorEventLoop):
    """Calls before its time, as uvloop may: it rounds, and counts from a time that it has kept for a while."""

    def call_later(self, delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        return super().call_later(0.6 * delay, *args, **options)


def test_deadlines_are_kept_on_a_loop_that_calls_too_early() -> None:
    """No other call comes for a deadline than the one that came before it."""
    opened = threading.Event()

    async def main() -> None:
        async with inferkit.Batcher(double(lambda x: (opened.wait(60), x)[1]), inline_limit=0) as batcher:
            first = batcher.submit(row(0))
            late = [batcher.submit(row(i), timeout=0.05 + 0.04 * i) for i in range(4)]
            try:
                for ticket in late:
                    with pytest.raises(inferkit.DeadlineError):
                        await ticket
                assert not opened.is_set()
                assert not first.done()
            finally:
                opened.set()
            assert (await first).tolist() == [0, 0]

    loop = Hasty()
    watchdog = threading.Timer(20, opened.set)  # by when the test has failed
    watchdog.start()
    try:
        loop.run_until_complete(main())
    finally:
        watchdog.cancel()
        loop.close()


@pytest.mark.parametrize("run", LOOPS)
def test_a_full_queue_rejects_or_holds_back_without_blocking_the_loop(run: Runner) -> None:
    opened = threading.Event()

    async def main() -> None:
        gated = double(lambda x: (opened.wait(30), x)[1])
        async with inferkit.Batcher(gated, max_queue_size=2, inline_limit=0) as batcher:
            tickets = [batcher.submit(row(0)), batcher.submit(row(1))]
            with pytest.raises(inferkit.QueueFullError):
                batcher.submit(row(2)).result()
            opened.set()
            await asyncio.gather(*[asyncio.ensure_future(t) for t in tickets])
        opened.clear()
        async with inferkit.Batcher(
            gated, max_batch_size=1, max_queue_size=2, inline_limit=0, on_full="wait", full_timeout=0.5
        ) as batcher:
            tickets = [batcher.submit(row(i)) for i in range(6)]
            await asyncio.sleep(0.05)
            opened.set()
            assert [(await t)[0] for t in tickets] == [0, 1, 2, 3, 4, 5]
            opened.clear()
            running = batcher.submit(row(0))
            await asyncio.sleep(0.05)
            tickets = [batcher.submit(row(i)) for i in range(3)]
            with pytest.raises(inferkit.QueueFullError):
                await tickets[2]
            opened.set()
            await running

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_what_waits_for_room_is_bounded(run: Runner) -> None:
    opened = threading.Event()

    async def main() -> None:
        gated = double(lambda x: (opened.wait(30), x)[1])
        async with inferkit.Batcher(
            gated, max_batch_size=1, max_queue_size=2, max_waiting=3, inline_limit=0, on_full="wait"
        ) as batcher:
            running = batcher.submit(row(0))
            while not batcher.stats().in_flight:
                await asyncio.sleep(0.001)
            tickets = [batcher.submit(row(i)) for i in range(5)]  # 2 in the queue, 3 that wait
            for i in range(995):
                with pytest.raises(inferkit.QueueFullError, match="max_waiting"):
                    batcher.submit(row(i)).result()
            assert batcher.stats().queue_depth == 5
            assert batcher.stats().rejected == 995
            opened.set()
            assert [(await t)[0] for t in tickets] == [0, 1, 2, 3, 4]
            await running
            assert (await batcher.submit(row(7)))[0] == 7  # and there is room again

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_the_loop_is_free_while_a_worker_runs(run: Runner) -> None:
    async def main() -> None:
        async with inferkit.Batcher(double(lambda x: (time.sleep(0.2), x)[1]), inline_limit=0) as batcher:
            ticket = batcher.submit(row(1))
            turns = 0
            while not ticket.done():
                await asyncio.sleep(0.005)
                turns += 1
            assert turns > 5
            assert (await ticket).tolist() == [1, 1]

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_tasks_keep_their_context(run: Runner) -> None:
    name: contextvars.ContextVar[int] = contextvars.ContextVar("name")

    async def main() -> None:
        async with inferkit.Batcher(double()) as batcher:

            async def client(i: int) -> None:
                name.set(i)
                for _ in range(3):
                    await batcher.submit(row(i))
                    assert name.get() == i
                    assert asyncio.current_task() in tasks

            tasks = [asyncio.create_task(client(i)) for i in range(8)]
            await asyncio.gather(*tasks)
            with pytest.raises(LookupError):
                name.get()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_threads_and_several_loops_at_once(
    run: Runner, model: inferkit.Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images = digits[0][:32]
    alone = [model(image).tobytes() for image in images]
    failures: list[BaseException] = []

    with inferkit.Batcher(model, max_batch_size=8, workers=2) as batcher:

        async def client(i: int) -> None:
            for k in range(100):
                assert (await batcher.submit(images[(i + k) % 32])).tobytes() == alone[(i + k) % 32]

        async def clients() -> None:
            await asyncio.gather(*[client(i) for i in range(8)])

        def looped() -> None:
            try:
                run(clients())
            except BaseException as error:
                failures.append(error)

        def threaded() -> None:
            try:
                for k in range(200):
                    assert batcher(images[k % 32]).tobytes() == alone[k % 32]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=target) for target in (looped, looped, threaded, threaded)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert batcher.stats().completed == 2 * 800 + 2 * 200


@pytest.mark.parametrize("run", LOOPS)
def test_a_ticket_of_a_thread_can_be_awaited_once_by_one_loop(run: Runner) -> None:
    with inferkit.Batcher(double(), max_delay=60) as batcher:
        ticket = batcher.submit(row(3))

        async def main() -> None:
            task = asyncio.ensure_future(ticket)
            await asyncio.sleep(0.01)
            await asyncio.to_thread(batcher.drain)
            assert (await task).tolist() == [6, 6]

        run(main())
        assert ticket.result().tolist() == [6, 6]


def test_an_await_outside_of_asyncio_is_an_error() -> None:
    with inferkit.Batcher(double(), max_delay=60) as batcher:
        ticket = batcher.submit(row(1))
        with pytest.raises(RuntimeError, match="asyncio"):
            next(ticket.__await__())


@pytest.mark.parametrize("run", LOOPS)
def test_closing_inside_the_loop(run: Runner) -> None:
    async def main() -> None:
        batcher = inferkit.Batcher(double(), max_delay=60, blocking_on_loop="allow")
        staged = batcher.submit(row(1))
        batcher.close()  # on the loop's thread, before the tick is over
        assert (await staged).tolist() == [2, 2]
        with pytest.raises(inferkit.ClosedError):
            batcher.submit(row(1)).result()
        refused = inferkit.Batcher(double(), max_delay=60)
        ticket = refused.submit(row(1))
        await asyncio.sleep(0.01)
        await refused.aclose(drain=False)
        with pytest.raises(inferkit.ClosedError):
            await ticket
        async with inferkit.Batcher(double(), blocking_on_loop="allow") as blocking:
            assert blocking.submit(row(4)).result().tolist() == [8, 8]  # a result asked for at once goes out at once

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_loops_come_and_go_without_leaving_descriptors(run: Runner) -> None:
    with inferkit.Batcher(double()) as batcher:

        async def main() -> None:
            assert (await batcher.submit(row(1))).tolist() == [2, 2]

        run(main())
        gc.collect()
        before = open_descriptors()
        for _ in range(20):
            run(main())
        gc.collect()
        assert open_descriptors() <= before + 1  # the last loop's goes with the next loop, or with the loop object


@pytest.mark.parametrize("run", LOOPS)
def test_a_loop_that_ends_with_requests_on_their_way(run: Runner) -> None:
    batcher = inferkit.Batcher(double(), max_delay=60)

    async def main() -> None:
        for i in range(5):
            batcher.submit(row(i))  # dropped: nobody will ever ask
        asyncio.get_running_loop().kept = asyncio.ensure_future(batcher.submit(row(9)))  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    run(main())
    batcher.close()
    assert batcher.stats().completed + batcher.stats().cancelled == 6
    gc.collect()


def test_keyboard_interrupt_in_a_resumed_task_lets_the_others_go_on() -> None:
    seen: list[int] = []
    loop = asyncio.new_event_loop()
    with inferkit.Batcher(double()) as batcher:

        async def client(i: int) -> None:
            await batcher.submit(row(i))
            if i == 1:
                raise KeyboardInterrupt
            seen.append(i)

        async def main() -> list[asyncio.Task[None]]:
            return [asyncio.ensure_future(client(i)) for i in range(4)]

        tasks = loop.run_until_complete(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.sleep(0.01))
        assert sorted(seen) == [0, 2, 3]
        for task in tasks:
            task.exception()
        loop.close()


@settings(max_examples=20, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["ok", "bad", "cancel", "expire", "drop"]), st.integers(0, 3)), max_size=30
    ),
    inline_limit=st.sampled_from([10.0, 0.0]),
)
def test_any_mixture_ends_once(plan: list[tuple[str, int]], inline_limit: float) -> None:
    def model(x: np.ndarray) -> np.ndarray:
        if (x == -1).any():
            raise ValueError("bad")
        return x * 2

    async def client(batcher: inferkit.Batcher, kind: str, pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        try:
            ticket = batcher.submit(row(-1 if kind == "bad" else 3), timeout=1e-4 if kind == "expire" else None)
            if kind == "drop":
                return
            if kind == "cancel":
                asyncio.get_running_loop().call_soon(ticket.cancel)
            assert (await ticket).tolist() == [6, 6]
            assert kind != "bad"
        except inferkit.InferenceError:
            assert kind == "bad"
        except inferkit.DeadlineError:
            assert kind == "expire"
        except asyncio.CancelledError:
            assert kind == "cancel"

    async def main() -> None:
        async with inferkit.Batcher(double(model), max_batch_size=4, inline_limit=inline_limit) as batcher:
            await asyncio.gather(*[client(batcher, *step) for step in plan])
        stats = batcher.stats()
        assert stats.completed + stats.failed + stats.cancelled + stats.expired == len(plan)
        assert stats.queue_depth == stats.in_flight == 0

    asyncio.run(main())
