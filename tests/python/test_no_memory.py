"""Where Python has no memory for a moment: what ends is still delivered, and a submission happened or it did not."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest

import inferkit

try:
    from _testcapi import remove_mem_hooks, set_nomemory
except ImportError:
    set_nomemory = None

pytestmark = [
    pytest.mark.usefixtures("no_buffer_left"),
    pytest.mark.skipif(
        set_nomemory is None or bool(inferkit.build_info()["sanitizers"]),
        reason="needs a Python whose _testcapi lets its allocations fail",
    ),
    # asyncio's debug mode walks the stack, with generators that cannot say that they failed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# Short of memory, Python itself sometimes loses its error on the way.
NO_MEMORY = (MemoryError, SystemError, inferkit.InferenceError)


def double() -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(lambda x: x * 2, inputs=[("x", *spec)], outputs=[("y", *spec)])


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class ShortLoop(asyncio.SelectorEventLoop):
    """Allocation number ``at`` of Python fails in the next delivery of what has ended."""

    at: int | None = None

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        def short() -> None:
            at, self.at = self.at, None
            if at is None:
                return callback()
            set_nomemory(at, at + 1)
            try:
                return callback()
            finally:
                remove_mem_hooks()

        ours = type(callback).__module__ == "inferkit._core"
        return super().add_reader(fd, short if ours else callback, *args)


@pytest.mark.parametrize("debug", [False, True])
def test_every_allocation_of_a_delivery_fails_once(debug: bool) -> None:
    async def one(batcher: inferkit.Batcher, value: float) -> list[float] | None:
        try:
            return (await batcher.submit(row(value))).tolist()
        except NO_MEMORY:
            return None

    async def main(loop: ShortLoop, at: int) -> None:
        async with inferkit.Batcher(double(), inline_limit=0) as batcher:
            assert await one(batcher, 1) == [2, 2]
            loop.at = at
            tasks = [asyncio.ensure_future(one(batcher, i)) for i in range(3)]
            for _ in range(10_000):  # asyncio's own waiting is short of memory, too, and may lose a callback
                if all(task.done() for task in tasks):
                    break
                await asyncio.sleep(0.001)
            assert all(task.result() in (None, [2 * i, 2 * i]) for i, task in enumerate(tasks))

    for at in range(200 if debug else 60):
        loop = ShortLoop()
        loop.set_debug(debug)
        loop.set_exception_handler(lambda *_: None)
        try:
            loop.run_until_complete(main(loop, at))
        finally:
            loop.close()


def test_every_allocation_of_a_loops_first_submission_fails_once() -> None:
    async def main(at: int) -> bool:
        async with inferkit.Batcher(double(), max_queue_size=2) as batcher:
            ticket = None
            set_nomemory(at, at + 1)
            try:
                ticket = batcher.submit(row(1), timeout=30)
            except (MemoryError, SystemError):
                pass
            finally:
                remove_mem_hooks()
            for waiting in (ticket, batcher.submit(row(1), timeout=20)):
                assert waiting is None or (await waiting).tolist() == [2, 2]
            assert batcher.stats().queue_depth == 0
            return ticket is not None

    for at in itertools.count():
        if asyncio.run(main(at)):
            assert at > 10
            return
