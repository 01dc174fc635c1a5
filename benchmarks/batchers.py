"""Batchers that people write or install today, each in front of ONNX Runtime: what inferkit's is compared with."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

MAX_BATCH = 64


class AsyncioQueueBatcher:
    """The usual one: an asyncio.Queue, a task that takes what is there, np.stack, one session.run, futures.

    With `executor` the run happens on a worker thread, so that the loop goes on meanwhile.
    """

    def __init__(self, session: Any, executor: concurrent.futures.Executor | None) -> None:
        self.session = session
        self.executor = executor
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    def _run(self, rows: list[np.ndarray]) -> np.ndarray:
        answer: np.ndarray = self.session.run(None, {"x": np.stack(rows)})[0]
        return answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.queue.get()]
            while len(batch) < MAX_BATCH and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            rows = [x for x, _ in batch]
            if self.executor:
                answers = await loop.run_in_executor(self.executor, self._run, rows)
            else:
                answers = self._run(rows)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.task is None:
            self.task = asyncio.create_task(self._work())
        future = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((x, future))
        return await future

    async def close(self) -> None:
        if self.task:
            self.task.cancel()


class ThreadQueueBatcher:
    """The same for threads: queue.Queue, a worker thread, concurrent futures."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.queue: queue.Queue[tuple[np.ndarray, concurrent.futures.Future[tuple[np.ndarray, float]]] | None]
        self.queue = queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while True:
            item = self.queue.get()
            if item is None:
                return
            batch = [item]
            while len(batch) < MAX_BATCH:
                try:
                    more = self.queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    return
                batch.append(more)
            answers = self.session.run(None, {"x": np.stack([x for x, _ in batch])})[0]
            finished = time.monotonic()
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result((answer, finished))

    def submit(self, x: np.ndarray) -> concurrent.futures.Future[tuple[np.ndarray, float]]:
        future: concurrent.futures.Future[tuple[np.ndarray, float]] = concurrent.futures.Future()
        self.queue.put((x, future))
        return future

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join()


def batched_package(session: Any) -> Callable[[np.ndarray], Awaitable[np.ndarray]]:
    import batched

    def run(rows: list[np.ndarray]) -> list[np.ndarray]:
        return list(session.run(None, {"x": np.stack(rows)})[0])

    processor: Callable[[np.ndarray], Awaitable[np.ndarray]]
    processor = batched.aio.AsyncBatchProcessor(run, batch_size=MAX_BATCH, timeout_ms=1.0)
    return processor


def async_batcher_package(session: Any) -> Any:
    from async_batcher.batcher import AsyncBatcher

    class Runner(AsyncBatcher):  # type: ignore[type-arg,misc]
        def process_batch(self, batch: list[np.ndarray]) -> list[np.ndarray]:
            return list(session.run(None, {"x": np.stack(batch)})[0])

    return Runner(max_batch_size=MAX_BATCH, max_queue_time=0.001)
