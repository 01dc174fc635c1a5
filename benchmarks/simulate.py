"""What each policy makes of a load: a simulation that runs the shipped scheduler.

python benchmarks/simulate.py --plot policies.svg --replay

Time is simulated, so that every load can be had, and 64 workers on any machine. What decides when a batch goes, and
which requests are in it, is not: `inferkit._core.SimulatedWorkers` is the scheduler of a batcher with its queue, its
policy and all that it learns, without the threads. Runs take what runs of a model have been measured to take here, with
noise: 5%, and one of two hundred takes three times as long. Beside it: Triton's rule (preferred sizes, and a longest
delay in the queue), a window of a fixed length, and one request after the other.

`--trace FILE` adds a load that was recorded: the seconds at which requests came, one a line. `--replay` runs one load
for real, on threads, to check the simulation.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import inferkit
from inferkit import _core

MOST = 64
SIZES = (1, 2, 4, 8, 16, 32, 64)
NS = 1_000_000_000
Cost = Callable[[int], float]  # rows -> seconds


class Policy(Protocol):
    """What decides; times are nanoseconds."""

    def come(self, now: int, requests: list[int], deadline: int = -1) -> bool: ...
    def take(self, now: int) -> tuple[int, list[int], int, str] | None: ...
    def until(self) -> int | None: ...
    def over(self, now: int, number: int) -> None: ...
    def dropped(self) -> list[int]: ...


def shipped(
    workers: int, *, most: int = MOST, delay: float = 0.0, auto: bool = False, target: float = 0.0
) -> _core.SimulatedWorkers:
    """Make the shipped scheduler, as ``policy="auto"`` or as ``policy=Fixed(most, delay)`` would."""
    return _core.SimulatedWorkers(
        max_batch_size=most,
        max_delay=round(delay * NS),
        workers=workers,
        auto_size=auto,
        auto_delay=auto,
        target_p99=round(target * NS),
    )


class Triton:
    """The rule of Triton's dynamic batcher, by its documentation.

    As soon as requests for a preferred size wait, a free worker takes the largest such size. Otherwise they are
    delayed, until the oldest has waited for the longest delay; then all of them go, up to the most rows.
    """

    def __init__(self, workers: int, preferred: Sequence[int], delay: float, most: int = MOST) -> None:
        self.free = workers
        self.preferred = sorted(preferred)
        self.delay = round(delay * NS)
        self.most = most
        self.queue: deque[tuple[int, int]] = deque()
        self.numbers = itertools.count(1)
        self.later: int | None = None

    def come(self, now: int, requests: list[int], deadline: int = -1) -> bool:
        self.queue.extend((now, request) for request in requests)
        return True

    def take(self, now: int) -> tuple[int, list[int], int, str] | None:
        self.later = None
        if not self.free or not self.queue:
            return None
        count = max((size for size in (*self.preferred, self.most) if size <= len(self.queue)), default=0)
        if not count:
            due = self.queue[0][0] + self.delay
            if now < due:
                self.later = due
                return None
            count = min(len(self.queue), self.most)
        self.free -= 1
        return next(self.numbers), [self.queue.popleft()[1] for _ in range(count)], count, "preferred"

    def until(self) -> int | None:
        return self.later

    def over(self, now: int, number: int) -> None:
        self.free += 1

    def dropped(self) -> list[int]:
        return []


@dataclass
class Outcome:
    """Seconds from submission to answer, of each request that was answered, in order of the answers."""

    offered: int = 0
    refused: int = 0
    dropped: int = 0
    latencies: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    most_running: int = 0
    seconds: float = 0.0

    def p99(self) -> float:
        """Of the second half: what is learnt has been learnt."""
        half = self.latencies[len(self.latencies) // 2 :]
        return float(np.percentile(half, 99)) if half else math.nan

    def in_time(self, deadline: float) -> float:
        """Answers within `deadline`, in a second."""
        return sum(took <= deadline for took in self.latencies) / self.seconds

    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def noisy(cost: Cost, seed: int) -> Cost:
    rng = random.Random(seed)
    return lambda rows: cost(rows) * rng.lognormvariate(0.0, 0.05) * (3 if rng.random() < 0.005 else 1)


def simulate(
    policy: Policy,
    arrivals: Iterable[float],
    cost: Cost,
    *,
    deadline: float | None = None,
    come_back: Callable[[float], float] | None = None,
    seconds: float = math.inf,
) -> Outcome:
    """Let requests come when `arrivals` says so, in seconds, ascending; runs take ``cost(rows)``.

    With `come_back`, whoever is answered comes again, at the time that it returns for that of the answer; until
    `seconds` have passed.
    """
    out = Outcome()
    came: dict[int, int] = {}
    numbers = itertools.count()
    coming = [round(at * NS) for at in arrivals]
    heapq.heapify(coming)
    running: list[tuple[int, int, list[int]]] = []
    now, end = 0, round(seconds * NS) if math.isfinite(seconds) else None
    while coming or running or came:
        moments = [
            *(coming[:1]),
            *([running[0][0]] if running else []),
            *([] if (until := policy.until()) is None else [until]),
        ]
        if not moments or (end is not None and min(moments) > end):
            break
        now = max(now, min(moments))
        at_once = []
        while coming and coming[0] <= now:
            heapq.heappop(coming)
            at_once.append(next(numbers))
        for request in at_once if deadline is not None else []:
            out.offered += 1
            if policy.come(now, [request], now + round(deadline * NS)):
                came[request] = now
            else:
                out.refused += 1
        if deadline is None and at_once:
            out.offered += len(at_once)
            policy.come(now, at_once)
            came.update(dict.fromkeys(at_once, now))
        while running and running[0][0] <= now:
            _, number, requests = heapq.heappop(running)
            policy.over(now, number)
            for request in requests:
                out.latencies.append((now - came.pop(request)) / NS)
                if come_back is not None:
                    heapq.heappush(coming, round(come_back(now / NS) * NS))
        while batch := policy.take(now):
            number, requests, rows, _ = batch
            out.batches.append(rows)
            heapq.heappush(running, (now + max(1, round(cost(rows) * NS)), number, requests))
            out.most_running = max(out.most_running, len(running))
        for request in policy.dropped():
            del came[request]
            out.dropped += 1
    out.seconds = now / NS
    return out


def poisson(rate: float, count: int, seed: int = 0) -> Iterator[float]:
    rng, at = random.Random(seed), 0.001
    for _ in range(count):
        at += rng.expovariate(rate)
        yield at


def varying(rate: float, count: int, factor: Callable[[float], float], most: float, seed: int = 0) -> Iterator[float]:
    """Arrivals at random, `factor(seconds)` times `rate` of them, which is `most` at most (thinning)."""
    rng, at = random.Random(seed), 0.001
    for _ in range(count):
        while True:
            at += rng.expovariate(most * rate)
            if rng.random() * most < factor(at):
                break
        yield at


def bursty(rate: float, count: int, seed: int = 0) -> Iterator[float]:
    """Three times the rate for a tenth of each second, 7/9 of it in between."""
    return varying(rate, count, lambda at: 3.0 if at % 1 < 0.1 else 7 / 9, 3.0, seed)


def diurnal(rate: float, count: int, seed: int = 0) -> Iterator[float]:
    """A day: from nothing to twice the rate and back, once in the whole load."""
    day = count / rate
    return varying(rate, count, lambda at: 1 - math.cos(2 * math.pi * at / day), 2.0, seed)


def recorded(path: str | Path) -> list[float]:
    """Read the seconds at which requests came, one a line, in any order."""
    found = sorted(float(line) for line in Path(path).read_text().splitlines() if line.strip())
    if len(found) < 2 or not all(map(math.isfinite, found)):
        raise SystemExit(f"{path} must have two or more lines, each with the seconds at which a request came")
    return [at - found[0] + 0.001 for at in found]


def scaled(trace: list[float], rate: float) -> Iterator[float]:
    """Give a recorded load at another speed, so that `rate` come in a second."""
    factor = (len(trace) - 1) / (trace[-1] - trace[0]) / rate
    return (0.001 + (at - trace[0]) * factor for at in trace)


def clients(count: int, apart: float) -> tuple[list[float], Callable[[float], float]]:
    """Threads that come back for more when they have their answers: one after the other, as they get the GIL."""
    last = 0.0

    def back(now: float) -> float:
        nonlocal last
        last = max(last, now) + apart
        return last

    return [back(0.001) for _ in range(count)], back


def between(table: dict[int, float]) -> Cost:
    """A straight line between the sizes that were measured; in proportion above."""
    sizes = sorted(table)

    def cost(rows: int) -> float:
        if rows >= sizes[-1]:
            return table[sizes[-1]] * rows / sizes[-1]
        return float(np.interp(rows, sizes, [table[size] for size in sizes]))

    return cost


def measured(rounds: int = 30) -> dict[str, dict[int, float]]:
    """Seconds of a run, by model and rows, on this machine: the sizes take turns, and the median counts."""
    from common import cnn, mlp, require_release

    require_release()
    models = {
        "MLP 256-1024-1024-1024-64": (mlp((256, 1024, 1024, 1024, 64)), (256,)),
        "CNN 28x28": (cnn(), (1, 28, 28)),
    }
    found: dict[str, dict[int, float]] = {}
    for name, (data, shape) in models.items():
        model = inferkit.Model.load(data, threads=1)
        x = np.random.default_rng(0).standard_normal((MOST, *shape)).astype(np.float32)
        model.warm_up(SIZES)
        took: dict[int, list[float]] = {rows: [] for rows in SIZES}
        for _ in range(rounds):
            for rows in SIZES:
                start = time.perf_counter()
                model(x[:rows])
                took[rows].append(time.perf_counter() - start)
        found[name] = {rows: statistics.median(seconds) for rows, seconds in took.items()}
    return found


def policies(cost: Cost) -> dict[str, Callable[[int], Policy]]:
    """Each of them, for so many workers. Windows are as long as a run of one row takes: a usual choice."""
    window = max(0.001, cost(1))
    return {
        "auto": lambda workers: shipped(workers, auto=True),
        "Fixed(64)": lambda workers: shipped(workers),
        "window": lambda workers: shipped(workers, delay=window),
        "Triton": lambda workers: Triton(workers, (8, 16, 32), window),
        "one by one": lambda workers: shipped(workers, most=1),
    }


def capacity(cost: Cost, workers: int = 1) -> float:
    return workers * max(rows / cost(rows) for rows in range(1, MOST + 1))


Curves = dict[str, list[tuple[float, float]]]
Panel = dict[str, Any]


def latency_panel(
    title: str, cost: Cost, load: Callable[[float, int], Iterable[float]], workers: int, count: int
) -> Panel:
    """Draw p99 against the load, where nobody has a deadline."""
    curves: Curves = {}
    top = capacity(cost, workers)
    for name, make in policies(cost).items():
        for part in (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
            outcome = simulate(make(workers), load(part * top, count), noisy(cost, 1))
            curves.setdefault(name, []).append((part, outcome.p99() * 1e3))
    return {"title": title, "x": "load, of the capacity", "y": "p99 in ms", "log": True, "curves": curves}


def goodput_panel(title: str, cost: Cost, workers: int, deadline: float, count: int) -> Panel:
    """Draw the answers in time against the load, where each request has a deadline."""
    curves: Curves = {}
    top = capacity(cost, workers)
    for name, make in policies(cost).items():
        for part in (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0):
            outcome = simulate(make(workers), poisson(part * top, count), noisy(cost, 1), deadline=deadline)
            curves.setdefault(name, []).append((part, outcome.in_time(deadline) / top))
    return {"title": title, "x": "load, of the capacity", "y": "answered in time, of the capacity", "curves": curves}


def clients_panel(title: str, cost: Cost, seconds: float) -> Panel:
    """Draw the answers in a second against the number of clients that wait for each."""
    curves: Curves = {}
    for name, make in policies(cost).items():
        for count in (1, 2, 4, 8, 16, 32, 64):
            first, back = clients(count, 30e-6)
            outcome = simulate(make(1), first, noisy(cost, 1), come_back=back, seconds=seconds)
            curves.setdefault(name, []).append((count, outcome.rate()))
    return {"title": title, "x": "clients that wait for each answer", "y": "answers in a second", "curves": curves}


def panels(costs: dict[str, dict[int, float]], count: int, trace: list[float] | None) -> list[Panel]:
    (dense_name, dense_table), (flat_name, flat_table) = list(costs.items())[:2]
    dense, flat = between(dense_table), between(flat_table)
    deadline = 20 * dense(1)
    found = [
        latency_panel(f"{dense_name}: Poisson, 1 worker", dense, poisson, 1, count),
        latency_panel(f"{dense_name}: bursty, 4 workers", dense, bursty, 4, count),
        latency_panel(f"{dense_name}: a day, 64 workers", dense, diurnal, 64, count),
        latency_panel(f"{flat_name}: Poisson, 1 worker", flat, poisson, 1, count),
        goodput_panel(f"{dense_name}: {deadline * 1e3:.0f} ms each", dense, 1, deadline, count),
        clients_panel(f"{dense_name}: threads, 1 worker", dense, min(20.0, count * dense(1) / 4)),
    ]
    if trace is not None:
        found.append(latency_panel("recorded, 1 worker", dense, lambda rate, _: scaled(trace, rate), 1, count))
    return found


def replay(cost: Cost, part: float, seconds: float) -> dict[str, dict[str, float]]:
    """Run one load for real, on a worker's thread and a model that sleeps for as long as a run takes; and simulated."""
    from inferkit.testing import FakeModel, drive
    from inferkit.testing import poisson as seeded

    slower = {rows: max(0.002, 4 * cost(rows)) for rows in SIZES}  # so long that a sleep is about as exact
    slow = between(slower)
    rate = part * capacity(slow)
    load = seeded(rate, seconds, seed=3)
    with inferkit.Batcher(FakeModel(slower), max_queue_size=None) as batcher:
        report = drive(batcher.submit, [np.ones(2, np.float32)], load)
        rows = batcher.stats().mean_batch_size
    outcome = simulate(shipped(1, auto=True), (at + 0.001 for at in load), slow)
    p50, p99 = np.percentile(outcome.latencies, [50, 99])
    return {
        "for real": {"p50_ms": report.latency_ms.p50, "p99_ms": report.latency_ms.p99, "rows_per_batch": rows},
        "simulated": {
            "p50_ms": float(p50) * 1e3,
            "p99_ms": float(p99) * 1e3,
            "rows_per_batch": statistics.mean(outcome.batches),
        },
    }


def plot(path: str, found: list[Panel]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "inferkit", "svg.fonttype": "none"})  # same figures, same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        -(-len(found) // 3), 3, figsize=(15, 4.2 * -(-len(found) // 3)), layout="constrained"
    )
    for panel, place in itertools.zip_longest(found, axes.flat):
        if panel is None:
            place.set_visible(False)
            continue
        for name, points in panel["curves"].items():
            wide = 2.5 if name == "auto" else 1.2
            place.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=wide, label=name)
        place.set(xlabel=panel["x"], ylabel=panel["y"], title=panel["title"])
        if panel.get("log"):
            place.set_yscale("log")
        else:
            place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def table(panel: Panel) -> str:
    names = list(panel["curves"])
    xs = [x for x, _ in panel["curves"][names[0]]]
    lines = [[f"{panel['title']}: {panel['y']}", *(f"{x:g}" for x in xs)], ["---"] * (len(xs) + 1)]
    lines += [[name, *(f"{y:,.3g}" for _, y in panel["curves"][name])] for name in names]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="in each load")
    parser.add_argument("--costs", metavar="FILE", help="JSON of model, rows and seconds, instead of measuring")
    parser.add_argument("--trace", metavar="FILE", help="a recorded load: seconds, one a line")
    parser.add_argument("--replay", action="store_true", help="also run one load for real")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves there")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if arguments.costs:
        raw = json.loads(Path(arguments.costs).read_text(encoding="utf-8"))
        costs = {name: {int(rows): seconds for rows, seconds in one.items()} for name, one in raw.items()}
    else:
        costs = measured()
    results: dict[str, Any] = {"costs": costs}
    if arguments.replay:
        results["replay"] = replay(between(next(iter(costs.values()))), 0.5, 10.0)
        for name, figures in results["replay"].items():
            print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    trace = recorded(arguments.trace) if arguments.trace else None
    results["panels"] = panels(costs, arguments.requests, trace)
    for panel in results["panels"]:
        print("\n" + table(panel))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if arguments.plot:
        plot(arguments.plot, results["panels"])


if __name__ == "__main__":
    main()
