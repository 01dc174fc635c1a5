"""More comes in than can be answered: how much of its capacity a batcher still answers in time.

python benchmarks/overload.py --seconds 8
python benchmarks/overload.py --model minilm --loads 1.2 2 5 10 --warm-up --by-hand

Open loop: arrivals are Poisson and do not wait for answers, each with a deadline. The capacity is what 64 clients get
in closed loop, measured before and after each load. Every answer is compared with the model's own. Printed for each
load, as shares of the capacity: answers in time, requests refused at once, requests that expired after they had been
admitted; of those that were admitted, how many were in time; the same of what was computed; and the CPU time of this
thread for each refusal. Of --rounds rounds, which follow one another load by load, the medians: machines do not run at
one speed.

Each load meets a batcher that knows nothing yet, and lets in what it cannot judge; with --warm-up, one that has been
warmed up, as a service's is.

With several deadlines, each request draws one, and the last columns say what share of those with each was answered in
time. --fifo has them go in the order in which they came, whatever their deadlines.

With --by-hand, the same loads, round by round in turns, for what is written by hand today: an asyncio.Queue in front of
ONNX Runtime on one thread, and asyncio.wait_for with the deadline around each request. Its capacity is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import inferkit
import peers
from batchers import AsyncioQueueBatcher
from common import mlp, progress, require_release
from served import minilm, minilm_bytes, texts

CLIENTS = 64
KINDS = 8  # different requests
LENGTH = 16  # of MiniLM's texts, in tokens
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Served:
    """A model, what is asked of it and its answers."""

    model: inferkit.Model
    onnx: Callable[[], bytes]
    requests: list[Feeds]
    rows: int  # of each request
    output: str
    deadline: float  # of the requests, in seconds

    @classmethod
    def of_mlp(cls, sizes: tuple[int, ...], rows: int, deadline: float) -> Served:
        data = mlp(sizes)
        rng = np.random.default_rng(0)
        requests = [{"x": rng.random((rows, sizes[0]), np.float32)} for _ in range(KINDS)]
        return cls(inferkit.Model.load(data, threads=1), lambda: data, requests, rows, "y", deadline)

    @classmethod
    def of_minilm(cls) -> Served:
        model = minilm(threads=1)
        return cls(model, minilm_bytes, texts([LENGTH] * KINDS), 1, next(iter(model.outputs)).name, 0.15)


MODELS: dict[str, Callable[[], Served]] = {
    # 32 rows each: some 2 ms, and some 1 ms, on one thread.
    "mlp": lambda: Served.of_mlp((256, 1024, 1024, 1024, 64), 32, 0.15),
    "mlp-512": lambda: Served.of_mlp((512, 1024, 1024, 256), 32, 0.02),
    "minilm": Served.of_minilm,
}


@dataclass
class Load:
    """One point."""

    offered: float
    in_time: float
    refused: float
    expired: float
    of_admitted: float
    of_computed: float
    p99_ms: float
    refusal_us: float
    by_deadline: tuple[float, ...]

    def row(self) -> tuple[float, ...]:
        shares = (self.offered, self.in_time, self.refused, self.expired, self.of_admitted, self.of_computed)
        return (*shares, self.p99_ms, self.refusal_us, *self.by_deadline)


class ByHand(AsyncioQueueBatcher):
    """What is written by hand: a queue, a task that runs what is there on a thread, and a timeout for each request."""

    def __init__(self, session: Any, output: str, executor: concurrent.futures.Executor) -> None:
        super().__init__(session, executor)
        self.output = output
        self.computed = 0

    def _run(self, requests: list[Feeds]) -> list[np.ndarray]:  # type: ignore[override]
        feeds = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
        answer = self.session.run([self.output], feeds)[0]
        self.computed += len(requests)
        return np.split(answer, len(requests))


class Overload:
    def __init__(self, served: Served, deadlines: list[float], workers: int, fifo: bool, warm_up: bool) -> None:
        self.served, self.deadlines = served, deadlines or [served.deadline]
        self.workers, self.fifo, self.warm_up = workers, fifo, warm_up
        self.expected = [served.model.run(request)[served.output] for request in served.requests]
        self.wrong = 0

    @contextlib.asynccontextmanager
    async def target(self, warm_up: bool) -> AsyncIterator[tuple[Callable[..., Any], Callable[[], float]]]:
        """Yield what a request is given to, and how many have been computed."""
        served = self.served
        async with inferkit.Batcher(
            served.model,
            max_batch_size=16 * served.rows,
            max_queue_size=None,
            workers=self.workers,
            ageing=0.0 if self.fifo else 10.0,
        ) as batcher:
            if warm_up:
                sample = {name: x.shape[1:] for name, x in served.requests[0].items()}
                batcher.warm_up([served.rows * 2**k for k in range(5)], shapes=sample)
            yield batcher.submit, lambda: batcher.stats().rows / served.rows

    def check(self, i: int, answer: Any) -> None:
        got = answer[self.served.output] if isinstance(answer, dict) else answer
        self.wrong += not np.array_equal(got, self.expected[i])

    async def capacity(self, seconds: float) -> float:
        """Requests a second of clients that wait for their answers."""
        done = 0
        async with self.target(warm_up=False) as (submit, _):
            until = time.perf_counter() + seconds

            async def client(seed: int) -> None:
                nonlocal done
                while time.perf_counter() < until:
                    self.check(seed % KINDS, await submit(self.served.requests[seed % KINDS]))
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
        refusing = 0.0  # seconds of this thread
        tasks: set[asyncio.Task[None]] = set()
        async with self.target(self.warm_up) as (submit, computed):

            async def wait(ticket: Awaitable[Any], i: int, start: float, deadline: float) -> None:
                try:
                    self.check(i, await ticket)
                    took.append(time.perf_counter() - start)
                    in_time[deadline] += 1
                except (inferkit.DeadlineError, asyncio.TimeoutError):
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
                    i = offered % KINDS
                    offered += 1
                    deadline = float(rng.choice(self.deadlines))
                    drawn[deadline] += 1
                    begun = time.thread_time()
                    ticket = submit(self.served.requests[i], timeout=deadline)
                    if isinstance(ticket, inferkit.Ticket) and ticket.timing.finished is not None:  # at the door
                        refusing += time.thread_time() - begun
                        ends["refused"] += 1
                    else:
                        task = asyncio.create_task(wait(ticket, i, time.perf_counter(), deadline))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    due += float(rng.exponential(1 / rate))
            await asyncio.gather(*tasks)
            runs = computed()
        return Load(
            offered / seconds,
            in_time.total() / seconds,
            ends["refused"] / seconds,
            ends["expired"] / seconds,
            in_time.total() / max(1, offered - ends["refused"]),
            in_time.total() / max(1, runs),
            float(np.percentile(took, 99)) * 1e3 if took else float("nan"),
            refusing / ends["refused"] * 1e6 if ends["refused"] else float("nan"),
            tuple(in_time[deadline] / max(1, drawn[deadline]) for deadline in self.deadlines),
        )

    async def share(self, load: float, seconds: float) -> Load:
        """`load` times the capacity, and what became of it in shares of that."""
        before = await self.capacity(seconds / 4)
        point = await self.load(load * before, seconds)
        capacity = (before + await self.capacity(seconds / 4)) / 2
        for name in ("offered", "in_time", "refused", "expired"):
            setattr(point, name, getattr(point, name) / capacity)
        return point


class OverloadByHand(Overload):
    """The same loads for what is written by hand."""

    def __init__(self, served: Served, deadlines: list[float]) -> None:
        super().__init__(served, deadlines, 1, False, False)
        self.session = peers.ort_session(served.onnx())

    @contextlib.asynccontextmanager
    async def target(self, warm_up: bool) -> AsyncIterator[tuple[Callable[..., Any], Callable[[], float]]]:
        del warm_up
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            batcher = ByHand(self.session, self.served.output, executor)

            def submit(request: Feeds, timeout: float | None = None) -> Awaitable[Any]:
                return asyncio.wait_for(batcher(request), timeout)  # type: ignore[arg-type]

            yield submit, lambda: batcher.computed
            await batcher.close()

    def check(self, i: int, answer: Any) -> None:
        self.wrong += not np.allclose(answer, self.expected[i], rtol=1e-3, atol=1e-3)


def table(loads: list[float], points: dict[float, list[Load]], deadlines: list[float]) -> str:
    columns = ["offered", "answered in time", "refused at once", "expired later"]
    columns += ["in time, of the admitted", "in time, of what was computed", "p99 ms", "CPU of a refusal, us"]
    columns += [f"in time, of {deadline * 1e3:.0f} ms" for deadline in deadlines] if len(deadlines) > 1 else []
    lines = [columns, ["---"] * len(columns)]
    for load in loads:
        middle = np.median([point.row() for point in points[load]], axis=0)[: len(columns)]
        digits = [2, 2, 2, 2, 4, 2, 1, 1]
        lines.append(
            ["" if np.isnan(x) else f"{x:.{digits[i] if i < 8 else 2}f}" for i, x in enumerate(map(float, middle))]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each point")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deadline", type=float, nargs="+", default=[], help="of the requests, in seconds")
    parser.add_argument("--fifo", action="store_true", help="first in, first out")
    parser.add_argument("--warm-up", action="store_true", help="the batcher, before each load")
    parser.add_argument("--by-hand", action="store_true", help="compare with an asyncio.Queue before ONNX Runtime")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.8, 1.2, 2.0, 5.0], help="of the capacity")
    arguments = parser.parse_args()
    require_release()
    served = MODELS[arguments.model]()
    ours = Overload(served, arguments.deadline, arguments.workers, arguments.fifo, arguments.warm_up)
    benches = {"inferkit": ours}
    if arguments.by_hand:
        benches["by hand"] = OverloadByHand(served, arguments.deadline)
    points: dict[str, dict[float, list[Load]]] = {name: {load: [] for load in arguments.loads} for name in benches}
    for number in range(arguments.rounds):
        for load in arguments.loads:
            for name, bench in benches.items():
                progress(f"round {number + 1} of {arguments.rounds}, {load} of the capacity: {name}")
                points[name][load].append(asyncio.run(bench.share(load, arguments.seconds)))
    progress("")
    names = " or ".join(f"{deadline * 1e3:.0f} ms" for deadline in ours.deadlines)
    print(f"{arguments.model}: {names} for each request")
    for name, bench in benches.items():
        print(f"\n{name}\n\n{table(arguments.loads, points[name], ours.deadlines)}")
        if bench.wrong:
            print(f"{bench.wrong} WRONG ANSWERS")
    return any(bench.wrong for bench in benches.values())


if __name__ == "__main__":
    raise SystemExit(main())
