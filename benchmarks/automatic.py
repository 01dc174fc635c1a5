"""Does `policy="auto"` find what the best numbers would be? Beside fixed ones, on five kinds of models.

python benchmarks/automatic.py --seconds 1 --rounds 5

Two loads for each model. `clients`: 64 asyncio clients, 16 for lines of text, each of which awaits its answer before
it asks again; what counts is requests a second. `arrivals`: requests at random times (Poisson) at a half of what those
clients get, but no more than 4,000 a second, as the loop that sends them is to be idle between two; what counts is p99.
Settings take turns, round after round, and each figure is the median of the rounds; `auto` is compared with the fixed
setting that is best in the same rounds. A batcher lives for one round, and what it has seen of the model in the first
third of that is not counted. Every answer is compared with the model's own.

The models: an MLP 4-16-3, the digits of examples/, MiniLM on texts of 16 tokens, PP-OCR's recognition on lines of
48 x 96, and a gradient-boosted forest of 100 trees.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import inferkit
from common import SMALL, mlp, progress, require_release
from served import minilm, texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from zoo.models import MODELS

KINDS = 8
LOAD, MOST = 0.5, 4000.0  # arrivals: a part of what the clients get, and what one event loop can send besides
SETTINGS: dict[str, inferkit.Fixed | str] = {
    "auto": "auto",
    **{f"{rows} rows": inferkit.Fixed(max_batch_size=rows) for rows in (1, 4, 16, 64)},
    **{
        f"{rows} rows, {delay:g} ms": inferkit.Fixed(max_batch_size=rows, max_delay=delay / 1e3)
        for rows, delay in ((16, 0.5), (64, 0.5), (64, 2))
    },
}
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Served:
    model: inferkit.Model
    requests: list[Feeds]  # of one row each
    clients: int

    @classmethod
    def of(cls, model: inferkit.Model, inputs: np.ndarray, clients: int = 64) -> Served:
        name = model.inputs[0].name
        return cls(model, [{name: inputs[i : i + 1]} for i in range(KINDS)], clients)


def forest() -> Served:
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingRegressor

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 20)).astype(np.float32)
    fitted = GradientBoostingRegressor(n_estimators=100, max_depth=5, random_state=0).fit(x, x[:, 0] * x[:, 1])
    return Served.of(inferkit.Model.load(to_onnx(fitted, x[:1]).SerializeToString(), threads=1), x)


def digits() -> Served:
    examples = Path(__file__).resolve().parents[1] / "examples"
    with np.load(examples / "digits_test.npz") as held_out:
        images = held_out["images"].reshape(-1, 64).astype(np.float32)
    return Served.of(inferkit.Model.load(examples / "digits.onnx", threads=1), images)


def reader() -> Served:
    found = next(model for model in MODELS if "rec_infer" in model.name)
    model = inferkit.Model.load(found.bytes(), threads=1)
    return Served.of(model, next(iter(found.sizes[0](np.random.default_rng(0), KINDS).values())), clients=16)


def small() -> Served:
    x = np.random.default_rng(0).standard_normal((KINDS, SMALL[0])).astype(np.float32)
    return Served.of(inferkit.Model.load(mlp(SMALL), threads=1), x)


CASES: dict[str, Callable[[], Served]] = {
    "MLP 4-16-3": small,
    "digits": digits,
    "MiniLM, 16 tokens": lambda: Served(minilm(threads=1), texts([16] * KINDS), 64),
    "PP-OCR rec": reader,
    "forest": forest,
}


class Bench:
    def __init__(self, served: Served, workers: int) -> None:
        self.served, self.workers = served, workers
        self.expected = [served.model.run(request) for request in served.requests]
        shapes = {name: x.shape[1:] for name, x in served.requests[0].items()}
        served.model.warm_up(range(1, 65), shapes=shapes)

    def batcher(self, setting: inferkit.Fixed | str) -> inferkit.Batcher:
        return inferkit.Batcher(self.served.model, policy=setting, workers=self.workers, max_queue_size=None)

    def check(self, i: int, answer: Feeds) -> None:
        if any(answer[name].tobytes() != want.tobytes() for name, want in self.expected[i].items()):
            raise SystemExit(f"a wrong answer to request {i}")

    async def clients(self, setting: inferkit.Fixed | str, seconds: float) -> float:
        """Requests a second."""
        counted = 0
        begin = time.perf_counter()
        since, until = begin + seconds / 3, begin + seconds

        async def client(i: int) -> None:
            nonlocal counted
            while (now := time.perf_counter()) < until:
                self.check(i, await batcher.submit(self.served.requests[i]))
                counted += now >= since

        async with self.batcher(setting) as batcher:
            await asyncio.gather(*(client(i % KINDS) for i in range(self.served.clients)))
        return counted / (time.perf_counter() - since)

    async def arrivals(self, setting: inferkit.Fixed | str, rate: float, seconds: float, seed: int) -> float:
        """p99 in milliseconds."""
        rng = np.random.default_rng(seed)
        took: list[float] = []
        numbers = itertools.count()
        start = due = time.perf_counter()
        since, end = start + seconds / 3, start + seconds

        async def request(i: int, came: float) -> None:
            self.check(i, await batcher.submit(self.served.requests[i]))
            if came >= since:
                took.append(time.perf_counter() - came)

        tasks: set[asyncio.Task[None]] = set()
        async with self.batcher(setting) as batcher:
            while due < end:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                while due <= time.perf_counter() and due < end:
                    task = asyncio.create_task(request(next(numbers) % KINDS, due))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    due += float(rng.exponential(1 / rate))
            await asyncio.gather(*tasks)
        return float(np.percentile(took, 99)) * 1e3


def row(name: str, of: str, found: dict[str, list[float]], more_is_better: bool) -> str:
    middle = {setting: statistics.median(figures) for setting, figures in found.items()}
    fixed = {setting: figure for setting, figure in middle.items() if setting != "auto"}
    best = (max if more_is_better else min)(fixed, key=fixed.__getitem__)
    # Of the same rounds, so that all have had the same machine.
    ratio = statistics.median(a / b for a, b in zip(found["auto"], found[best], strict=True))
    figures = " | ".join(f"{middle[setting]:,.4g}" for setting in SETTINGS)
    return f"| {name} | {of} | {figures} | {best} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each setting in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    require_release()
    print(f"| model | what | {' | '.join(SETTINGS)} | best of the fixed | auto to that |")
    print("| --- " * (len(SETTINGS) + 4) + "|")
    for name in arguments.models:
        progress(f"{name}: loading")
        bench = Bench(CASES[name](), arguments.workers)
        rates: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        waits: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for number in range(arguments.rounds):
            for setting, policy in SETTINGS.items():
                progress(f"{name}, round {number + 1} of {arguments.rounds}: clients, {setting}")
                rates[setting].append(asyncio.run(bench.clients(policy, arguments.seconds)))
        rate = min(MOST, LOAD * max(statistics.median(found) for found in rates.values()))
        for number in range(arguments.rounds):
            for setting, policy in SETTINGS.items():
                progress(f"{name}, round {number + 1} of {arguments.rounds}: arrivals, {setting}")
                waits[setting].append(asyncio.run(bench.arrivals(policy, rate, arguments.seconds, seed=number)))
        progress("")
        print(row(name, "requests/s", rates, more_is_better=True), flush=True)
        print(row(name, "p99 in ms", waits, more_is_better=False), flush=True)


if __name__ == "__main__":
    main()
