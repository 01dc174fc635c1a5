"""What the programs of benchmarks/gpu write: a line of JSON for each result, at once, so that a cut run keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path


class Results:
    def __init__(self, path: Path | None) -> None:
        self.path = path

    def put(self, **fields: object) -> None:
        shown = "  ".join(f"{name} {value}" for name, value in fields.items())
        print(shown, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(fields) + "\n")


def measure(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Medians of calls one after another, in microseconds: `seconds` of them, but 5 at least."""
    warm = time.perf_counter() + seconds
    for _ in range(5):
        call()
        if time.perf_counter() > warm:
            break
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 20000):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    times.sort()
    return {
        "p50": round(times[len(times) // 2], 1),
        "p99": round(times[min(len(times) - 1, len(times) * 99 // 100)], 1),
    }
