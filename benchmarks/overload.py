"""More comes in than can be answered: how much of its capacity a batcher still answers in time.

python benchmarks/overload.py --seconds 8

Open loop: arrivals are Poisson and do not wait for answers, each with a deadline. The capacity is what 64 clients get
in closed loop, measured before and after each load. Every answer is compared with the model's own. Printed for each
load, as shares of the capacity: answers in time, requests refused at once, requests that expired after they had been
admitted; and the share of what was computed that was in time. Of --rounds rounds, which follow one another load by
load, the medians: machines do not run at one speed.

Each load meets a batcher that knows nothing yet, and lets in what it cannot judge; with --warm-up, one that has been
warmed up, as a service's is.

With several deadlines, each request draws one, and the last columns say what share of those with each was answered in
time. --fifo has them go in the order in which they came, whatever their deadlines.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import astuple, dataclass

import numpy as np

import inferkit
from common import mlp, progress, require_release

SIZES = (256, 1024, 1024, 1024, 64)
CLIENTS = 64
ROWS = 32  # of each request: some 2 ms on one thread


@dataclass
class Load:
    """One point."""

    offered: float
    in_time: float
    refused: float
    expired: float
    of_computed: float
    p99_ms: float
    by_deadline: tuple[float, ...]


class Overload:
    def __init__(self, deadlines: list[float], workers: int, fifo: bool, warm_up: bool) -> None:
        self.model = inferkit.Model.load(mlp(SIZES), threads=1)
        self.deadlines, self.workers, self.fifo, self.warm_up = deadlines, workers, fifo, warm_up
        rng = np.random.default_rng(0)
        self.inputs = [rng.random((ROWS, SIZES[0]), np.float32) for _ in range(8)]
        self.expected = [self.model(x) for x in self.inputs]
        self.wrong = 0

    def batcher(self) -> inferkit.Batcher:
        return inferkit.Batcher(
            self.model,
            max_batch_size=16 * ROWS,
            max_queue_size=None,
            workers=self.workers,
            ageing=0.0 if self.fifo else 10.0,
        )

    def check(self, i: int, answer: np.ndarray) -> None:
        self.wrong += not np.array_equal(answer, self.expected[i])

    async def capacity(self, seconds: float) -> float:
        """Requests a second of clients that wait for their answers."""
        done = 0
        with self.batcher() as batcher:
            until = time.perf_counter() + seconds

            async def client(seed: int) -> None:
                nonlocal done
                while time.perf_counter() < until:
                    self.check(seed % 8, await batcher.submit(self.inputs[seed % 8]))
                    done += 1

            start = time.perf_counter()
            await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
            return done / (time.perf_counter() - start)

    async def load(self, rate: float, seconds: float, seed: int = 1) -> Load:
        """Arrivals at `rate` a second."""
        rng = np.random.default_rng(seed)
        ends: Counter[str] = Counter()
        in_time: Counter[float] = Counter()
        drawn: Counter[float] = Counter()
        took: list[float] = []
        tasks: set[asyncio.Task[None]] = set()
        with self.batcher() as batcher:
            if self.warm_up:
                batcher.warm_up([ROWS * 2**k for k in range(5)])

            async def wait(ticket: inferkit.Ticket, i: int, start: float, deadline: float) -> None:
                try:
                    self.check(i, await ticket)
                    took.append(time.perf_counter() - start)
                    in_time[deadline] += 1
                except inferkit.DeadlineError:
                    ends["expired"] += 1

            start = due = time.perf_counter()
            offered = 0
            while due < start + seconds:
                now = time.perf_counter()
                if due > now:
                    await asyncio.sleep(due - now)
                else:
                    await asyncio.sleep(0)  # late: the loop still has its turn
                while due <= time.perf_counter():
                    i = offered % 8
                    offered += 1
                    deadline = float(rng.choice(self.deadlines))
                    drawn[deadline] += 1
                    ticket = batcher.submit(self.inputs[i], timeout=deadline)
                    if ticket.timing.finished is not None:  # refused at the door
                        ends["refused"] += 1
                    else:
                        task = asyncio.create_task(wait(ticket, i, time.perf_counter(), deadline))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    due += float(rng.exponential(1 / rate))
            await asyncio.gather(*tasks)
            computed = batcher.stats().rows / ROWS
        p99 = float(np.percentile(took, 99)) if took else float("nan")
        return Load(
            offered / seconds,
            in_time.total() / seconds,
            ends["refused"] / seconds,
            ends["expired"] / seconds,
            in_time.total() / max(1, computed),
            p99 * 1e3,
            tuple(in_time[deadline] / max(1, drawn[deadline]) for deadline in self.deadlines),
        )

    async def share(self, load: float, seconds: float) -> Load:
        """`load` times the capacity, and what became of it in shares of that."""
        before = await self.capacity(seconds / 4)
        point = await self.load(load * before, seconds)
        capacity = (before + await self.capacity(seconds / 4)) / 2
        return Load(
            *(rate / capacity for rate in (point.offered, point.in_time, point.refused, point.expired)),
            point.of_computed,
            point.p99_ms,
            point.by_deadline,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each point")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deadline", type=float, nargs="+", default=[0.15], help="of the requests, in seconds")
    parser.add_argument("--fifo", action="store_true", help="first in, first out")
    parser.add_argument("--warm-up", action="store_true", help="the batcher, before each load")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.8, 1.2, 2.0, 5.0], help="of the capacity")
    arguments = parser.parse_args()
    require_release()
    bench = Overload(arguments.deadline, arguments.workers, arguments.fifo, arguments.warm_up)
    points: dict[float, list[Load]] = {load: [] for load in arguments.loads}
    for number in range(arguments.rounds):
        for load in arguments.loads:
            progress(f"round {number + 1} of {arguments.rounds}, {load} of the capacity")
            points[load].append(asyncio.run(bench.share(load, arguments.seconds)))
    progress("")
    names = [f"{deadline * 1e3:.0f} ms" for deadline in arguments.deadline]
    print(f"{' or '.join(names)} for each request\n")
    columns = [
        "offered",
        "answered in time",
        "refused at once",
        "expired later",
        "in time, of what was computed",
        "p99 ms",
    ]
    columns += [f"in time, of {name}" for name in names] if len(names) > 1 else []
    print(f"| {' | '.join(columns)} |")
    print("| --- " * len(columns) + "|")
    for load in arguments.loads:
        rows = [(*astuple(point)[:-1], *point.by_deadline) for point in points[load]]
        *shares, p99 = np.median([row[:6] for row in rows], axis=0)
        more = np.median([row[6:] for row in rows], axis=0) if len(names) > 1 else []
        print("| " + " | ".join([*(f"{x:.2f}" for x in shares), f"{p99:.1f}", *(f"{x:.2f}" for x in more)]) + " |")
    if bench.wrong:
        print(f"{bench.wrong} WRONG ANSWERS")
    return bench.wrong > 0


if __name__ == "__main__":
    raise SystemExit(main())
