"""What each knob of a batcher does: the curves of docs/guides/tuning.md.

python benchmarks/tuning.py --plot tuning.svg

Four sections. `rows`: the time of a run by its number of rows, one thread, as times of one row: whether batching pays
at all. `max_batch_size`: what 64 asyncio clients get, each awaiting its answer before it asks again. `workers x
threads`: the same clients. `max_delay`: latency and batches where requests come at random times (Poisson), at a part
of the capacity.

Settings take turns, round after round, and each figure is the median of the rounds, so ratios say more than times.
Every answer is compared with the model's own.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

import inferkit
from common import LARGE, SMALL, cnn, interleave, mlp, progress, require_release

SERVED = (256, 1024, 1024, 1024, 64)  # weights of 9 MB: a run of one row reads them all
CLIENTS = 64
LOAD = 0.25  # of what 64 clients get: where a batcher is idle often enough for a delay to matter
ROWS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (1, 2, 4, 8, 16, 32, 64)
DELAYS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01)
WORKERS = ((1, 1), (1, 2), (2, 1), (2, 2))  # and threads of a run
MAX_BATCH = 16  # with which those are compared: several batches are then under way
Figures = dict[str, float]
Setting = dict[str, Any]  # of a batcher


def rows(rounds: int) -> dict[str, dict[int, float]]:
    """Model -> rows -> time of a run, as times of a run of one row."""
    found = {}
    models = {
        "MLP 4-16-3": (mlp(SMALL), (4,)),
        "MLP 64-256-256-10": (mlp(LARGE), (64,)),
        "MLP " + "-".join(map(str, SERVED)): (mlp(SERVED), (SERVED[0],)),
        "CNN 28x28": (cnn(), (1, 28, 28)),
    }
    for name, (data, shape) in models.items():
        progress(f"rows: {name}")
        model = inferkit.Model.load(data, threads=1)
        x = np.random.default_rng(0).standard_normal((ROWS[-1], *shape)).astype(np.float32)
        timings = interleave({str(n): functools.partial(model, x[:n]) for n in ROWS}, rounds=3 * rounds)
        found[name] = {n: timings[str(n)].median / timings["1"].median for n in ROWS}
    return found


class Served:
    """The model of the other two sections, and its requests of one row."""

    def __init__(self, threads: int = 1) -> None:
        self.model = inferkit.Model.load(mlp(SERVED), threads=threads)
        self.xs = np.random.default_rng(0).standard_normal((64, SERVED[0])).astype(np.float32)
        self.expected = self.model(self.xs)
        self.model.warm_up(range(1, SIZES[-1] + 1))

    def check(self, i: int, answer: np.ndarray) -> None:
        if not np.array_equal(answer, self.expected[i]):
            raise SystemExit(f"a wrong answer to request {i}")

    async def clients(self, batcher: inferkit.Batcher, seconds: float) -> Figures:
        """Closed loop."""
        took: list[float] = []
        until = time.perf_counter() + seconds

        async def client(i: int) -> None:
            while (start := time.perf_counter()) < until:
                self.check(i, await batcher.submit(self.xs[i]))
                took.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(client(i) for i in range(CLIENTS)))
        return self.figures(batcher, took, time.perf_counter() - start)

    async def arrivals(self, batcher: inferkit.Batcher, rate: float, seconds: float) -> Figures:
        """Open loop: who comes does not wait for others."""
        rng = np.random.default_rng(1)
        took: list[float] = []

        async def request(i: int) -> None:
            start = time.perf_counter()
            self.check(i, await batcher.submit(self.xs[i]))
            took.append(time.perf_counter() - start)

        tasks, start = set(), time.perf_counter()
        due, end = start, start + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while due <= time.perf_counter() and due < end:
                task = asyncio.create_task(request(len(took) % 64))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += float(rng.exponential(1 / rate))
        await asyncio.gather(*tasks)
        return self.figures(batcher, took, time.perf_counter() - start)

    @staticmethod
    def figures(batcher: inferkit.Batcher, took: list[float], elapsed: float) -> Figures:
        p50, p99 = np.percentile(took, [50, 99])
        return {
            "requests_per_second": len(took) / elapsed,
            "p50_ms": float(p50) * 1e3,
            "p99_ms": float(p99) * 1e3,
            "rows_per_batch": batcher.stats().mean_batch_size,
        }


Case = tuple[inferkit.Model, Setting, Callable[[inferkit.Batcher], Awaitable[Figures]]]


def in_turn(name: str, cases: dict[str, Case], rounds: int) -> dict[str, Figures]:
    """Median figures of each case."""
    found: dict[str, list[Figures]] = {case: [] for case in cases}

    async def one(model: inferkit.Model, setting: Setting, measure: Callable[..., Awaitable[Figures]]) -> Figures:
        async with inferkit.Batcher(model, **setting) as batcher:
            return await measure(batcher)

    for number in range(rounds + 1):
        for case, parts in cases.items():
            progress(f"{name}: {case}, round {number} of {rounds}")
            figures = asyncio.run(one(*parts))
            if number:  # the first round warms caches up
                found[case].append(figures)
    return {
        case: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for case, several in found.items()
    }


def plot(path: str, results: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "inferkit", "svg.fonttype": "none"}
    )  # the same file for the same figures
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for name, times in results["rows"].items():
        left.plot(list(map(int, times)), [value / int(n) for n, value in times.items()], marker="o", label=name)
    left.set(xscale="log", xlabel="rows of a run", ylabel="time per row, 1 for one row", title="Does batching pay?")
    left.set_xticks(ROWS, [str(n) for n in ROWS])
    left.legend(fontsize=8)
    sizes = results["max_batch_size"]
    middle.plot(list(map(int, sizes)), [f["requests_per_second"] for f in sizes.values()], marker="o", color="tab:blue")
    middle.set(xscale="log", xlabel="max_batch_size", title=f"{CLIENTS} clients that await each answer")
    middle.set_xticks(SIZES, [str(n) for n in SIZES])
    middle.set_ylabel("requests per second", color="tab:blue")
    other = middle.twinx()
    other.plot(list(map(int, sizes)), [f["p99_ms"] for f in sizes.values()], marker="s", color="tab:red")
    other.set_ylabel("p99 in ms", color="tab:red")
    delays = results["max_delay"]
    milliseconds = [float(delay) * 1e3 for delay in delays]
    right.plot(milliseconds, [f["p50_ms"] for f in delays.values()], marker="o", label="p50 in ms")
    right.plot(milliseconds, [f["p99_ms"] for f in delays.values()], marker="s", label="p99 in ms")
    right.plot(milliseconds, [f["rows_per_batch"] for f in delays.values()], marker="^", label="rows per batch")
    right.set(xlabel="max_delay in ms", title=f"Random arrivals, {LOAD:.0%} of the capacity")
    right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    other.set_ylim(bottom=0)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def table(name: str, cases: dict[str, Figures]) -> str:
    columns = list(next(iter(cases.values())))
    lines = [[name, *columns], ["---"] * (len(columns) + 1)]
    lines += [[case, *(f"{figures[c]:,.4g}" for c in columns)] for case, figures in cases.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each setting in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", metavar="FILE", help="draw the curves there")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    require_release()
    results: dict[str, Any] = {"rows": rows(arguments.rounds)}
    served, seconds, rounds = Served(), arguments.seconds, arguments.rounds
    clients = functools.partial(served.clients, seconds=seconds)
    sizes: dict[str, Case] = {str(n): (served.model, {"max_batch_size": n}, clients) for n in SIZES}
    results["max_batch_size"] = in_turn("max_batch_size", sizes, rounds)
    by_threads = {threads: Served(threads) for _, threads in WORKERS}
    pairs: dict[str, Case] = {
        f"{workers} x {threads}": (
            by_threads[threads].model,
            {"max_batch_size": MAX_BATCH, "workers": workers},
            functools.partial(by_threads[threads].clients, seconds=seconds),
        )
        for workers, threads in WORKERS
    }
    results["workers x threads"] = in_turn("workers x threads", pairs, rounds)
    capacity = max(figures["requests_per_second"] for figures in results["max_batch_size"].values())
    arrivals = functools.partial(served.arrivals, rate=LOAD * capacity, seconds=seconds)
    delays: dict[str, Case] = {
        f"{d:g}": (served.model, {"max_batch_size": SIZES[-1], "max_delay": d}, arrivals) for d in DELAYS
    }
    results["max_delay"] = in_turn("max_delay", delays, rounds)
    progress("")

    counts = "".join(f" {n} |" for n in ROWS)
    print(f"| time of a run, as times of one row |{counts}\n| --- |{' ---: |' * len(ROWS)}")
    for name, times in results["rows"].items():
        print(f"| {name} |" + "".join(f" {value:.2f} |" for value in times.values()))
    for section in ("max_batch_size", "workers x threads", "max_delay"):
        print("\n" + table(section, results[section]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if arguments.plot:
        plot(arguments.plot, results)


if __name__ == "__main__":
    main()
