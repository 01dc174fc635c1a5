"""What the trace costs: the same batcher with its recording on and off, in turn, in one process.

Run it for a table; suite/tracing.py has asv track the shares. It fails where the trace takes more than 3% of the
throughput.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import inferkit
from common import LARGE, SMALL, check, mlp, require_release


def _calls(batcher: inferkit.Batcher, x: np.ndarray, count: int) -> None:
    for _ in range(count):
        batcher(x)


def _clients(batcher: inferkit.Batcher, x: np.ndarray, count: int) -> None:
    async def client() -> None:
        for _ in range(count // 64):
            await batcher.submit(x)

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(64)))

    asyncio.run(clients())


CASES: dict[str, tuple[tuple[int, ...], Callable[[inferkit.Batcher, np.ndarray, int], None]]] = {
    "one thread, MLP 4-16-3": (SMALL, _calls),
    "one thread, MLP 64-256-256-10": (LARGE, _calls),
    "64 asyncio clients, MLP 64-256-256-10": (LARGE, _clients),
}


def measure(name: str, rounds: int = 40, count: int = 6400) -> tuple[float, float, float]:
    """Microseconds per request without and with the trace, and the median of the rounds' ratios."""
    require_release()
    sizes, run = CASES[name]
    model = inferkit.Model.load(mlp(sizes), threads=1)
    x = np.random.default_rng(0).standard_normal(sizes[0]).astype(np.float32)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with inferkit.Batcher(model, max_batch_size=64) as batcher:
        check("the batcher", batcher(x), model(x), 0)
        for number in range(rounds + 3):
            for on in (False, True) if number % 2 else (True, False):  # whoever comes second gains nothing by it
                inferkit.tracing.enable(on, batcher)
                start = time.perf_counter()
                run(batcher, x, count)
                if number >= 3:
                    seconds[on].append((time.perf_counter() - start) / count)
        recorded = len(inferkit.tracing.snapshot(batcher).requests)
    if recorded == 0:
        sys.exit("the trace is empty: nothing was measured")
    ratios = [on / off for off, on in zip(seconds[False], seconds[True], strict=True)]
    return statistics.median(seconds[False]) * 1e6, statistics.median(seconds[True]) * 1e6, statistics.median(ratios)


if __name__ == "__main__":
    worst = 0.0
    for name in CASES:
        off, on, ratio = measure(name)
        worst = max(worst, ratio)
        print(f"{name:40} {off:7.3f} us without, {on:7.3f} us with the trace: {(ratio - 1) * 100:+.1f}%")
    sys.exit(f"more than 3%: {(worst - 1) * 100:.1f}%" if worst > 1.03 else 0)
