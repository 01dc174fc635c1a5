"""Classify real handwritten digits through a Batcher, from threads and from asyncio at once.

    pip install . && python examples/quickstart.py

Prints what came out and how fast, and fails unless every answer is, to the bit, the one that the model gives alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from pathlib import Path

import numpy as np

import inferkit

HERE = Path(__file__).resolve().parent


class Traffic:
    """The requests to make, and what became of them. Every client has a share of its own, so that none waits."""

    def __init__(self, batcher: inferkit.Batcher, images: np.ndarray, alone: np.ndarray, seconds: float) -> None:
        self.batcher, self.images = batcher, images
        self.expected = [row.tobytes() for row in alone]
        self.answers = np.zeros_like(alone)
        self.end = time.perf_counter() + seconds
        self.latencies: dict[str, list[list[float]]] = {"threads": [], "asyncio": []}
        self.differing = 0
        self.stop = threading.Event()

    def share(self, kind: str) -> list[float]:
        latencies: list[float] = []
        self.latencies[kind].append(latencies)
        return latencies

    def wanted(self, at: float) -> bool:
        return at < self.end and not self.stop.is_set()

    def take(self, index: int, answer: np.ndarray) -> None:
        self.answers[index] = answer
        if answer.tobytes() != self.expected[index]:
            self.differing += 1

    def blocking_client(self, index: int) -> None:
        latencies = self.share("threads")
        start = time.perf_counter()
        while self.wanted(start):
            self.take(index, self.batcher(self.images[index]))
            end = time.perf_counter()
            latencies.append(end - start)
            index, start = (index + 1) % len(self.images), end

    async def asyncio_client(self, index: int) -> None:
        latencies = self.share("asyncio")
        start = time.perf_counter()
        while self.wanted(start):
            self.take(index, await self.batcher.submit(self.images[index]))
            end = time.perf_counter()
            latencies.append(end - start)
            index, start = (index + 1) % len(self.images), end

    async def progress(self, seconds: float) -> None:
        """A line that moves, for a person who waits."""
        while sys.stderr.isatty() and self.wanted(time.perf_counter()):
            left = max(0.0, self.end - time.perf_counter())
            done = sum(len(share) for shares in self.latencies.values() for share in shares)
            print(f"\r  {done:,} requests, {left:.1f} of {seconds:g} s left ", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)
        if sys.stderr.isatty():
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)

    async def run(self, threads: int, tasks: int, seconds: float) -> None:
        spread = max(1, len(self.images) // (threads + tasks))
        workers = [threading.Thread(target=self.blocking_client, args=(i * spread,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        try:
            clients = [self.asyncio_client((threads + i) * spread % len(self.images)) for i in range(tasks)]
            await asyncio.gather(self.progress(seconds), *clients)
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to send requests (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="clients that block (default 2)")
    parser.add_argument("--tasks", type=int, default=64, help="clients that await (default 64)")
    arguments = parser.parse_args()

    model = inferkit.Model.load(HERE / "digits.onnx")
    with np.load(HERE / "digits_test.npz") as held_out:
        images, labels = held_out["images"].astype(np.float32), held_out["labels"]
    build = inferkit.build_info()
    print(f"inferkit {inferkit.__version__} ({build['isa']}) on {build['cpus']} CPUs; {model}")
    print(f"{len(images)} images that took no part in the training, from {arguments.threads} threads and ", end="")
    print(f"{arguments.tasks} asyncio tasks at once, for {arguments.seconds:g} s")

    alone = np.stack([model(image) for image in images])
    with inferkit.Batcher(model, max_batch_size=64) as batcher:
        traffic = Traffic(batcher, images, alone, arguments.seconds)
        start = time.perf_counter()
        asyncio.run(traffic.run(arguments.threads, arguments.tasks, arguments.seconds))
        elapsed = time.perf_counter() - start
        stats = batcher.stats()

    answered = traffic.answers.any(axis=1)
    correct = traffic.answers[answered].argmax(axis=1) == labels[answered]
    total = 0
    for kind, shares in traffic.latencies.items():
        seen = np.concatenate([np.asarray(share) for share in shares]) if shares else np.empty(0)
        total += len(seen)
        if len(seen):
            p50, p99 = np.percentile(seen, [50, 99]) * 1e6
            print(f"  {kind:<8} {len(seen) / elapsed:>9,.0f} requests/s   p50 {p50:>7,.0f} us   p99 {p99:>7,.0f} us")
    print(f"  together {total / elapsed:>9,.0f} requests/s   mean batch {stats.mean_batch_size:.1f} rows")
    print(f"  accuracy {correct.mean():.4f} on {answered.sum()} images")
    if traffic.differing or not total:
        print(f"FAILED: {traffic.differing} of {total} answers differ from the unbatched ones", file=sys.stderr)
        return 1
    print(f"  all {total:,} answers equal the unbatched ones, bit for bit")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
