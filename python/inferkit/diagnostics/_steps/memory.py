"""Step 7: memory that stays where it is once everything is warm."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..._core import BufferPool
from .._patient import WINDOW, Finder, Patient
from .._report import Check
from .._samples import fixed_rows, stacked

__all__ = ["Slope", "examine", "rss_bytes", "slope"]

_check = Finder(7)
_POINTS = 40  # readings, fewer where the model is slow
_KIB = 1024


def rss_bytes() -> int:
    """Tell how much memory of this process is resident."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Slope:
    """A straight line's slope, with the ends of its 95% confidence interval."""

    value: float
    low: float
    high: float


# Student's t for 95%, two-sided, by degrees of freedom; below and between, the next smaller is the safe one.
_STUDENT = ((1, 12.7), (2, 4.30), (3, 3.18), (5, 2.57), (8, 2.31), (12, 2.18), (20, 2.09), (30, 2.04), (60, 2.00))


def slope(x: np.ndarray, y: np.ndarray) -> Slope:
    """Fit a line by least squares.

    Successive readings of a process's memory are not independent, so the residuals' correlation with their successors
    takes off from the number of readings that count.
    """
    n = len(x)
    dx = x - x.mean()
    spread = float(dx @ dx)
    value = float(dx @ (y - y.mean())) / spread
    rest = y - y.mean() - value * dx
    power = float(rest @ rest)
    if power == 0:
        return Slope(value, value, value)
    correlation = min(max(float(rest[1:] @ rest[:-1]) / power, 0.0), 0.95)
    effective = max(n * (1 - correlation) / (1 + correlation), 3.0)
    freedom = effective - 2
    t = next((t for degrees, t in reversed(_STUDENT) if degrees <= freedom), _STUDENT[0][1])
    margin = t * float(np.sqrt(power / freedom / spread * n / effective))
    return Slope(value, value - margin, value + margin)


def examine(patient: Patient) -> Iterator[Check]:
    """Send the same requests in many rounds, and read the figures between them, when nothing runs."""
    patient.say("memory: warming up")
    pool = BufferPool.default()
    # Rounds of the same size from start to end; as many requests as fit the time.
    _warm_up(patient)
    patient.burst(16)
    start = time.perf_counter()
    patient.burst(16)
    each = max((time.perf_counter() - start) / 16, 1e-6)
    points = int(min(max(4 * patient.seconds / each, 12), _POINTS))
    size = int(min(max(patient.seconds / each / points, 1), 1000))
    for _ in range(points // 4):
        patient.burst(size)
    gc.collect()
    before = _by_tag(pool)
    misses = pool.stats().misses
    readings = []
    for point in range(points):
        patient.say(f"memory: round {point + 1} of {points}")
        patient.burst(size)
        if point % 8 == 0:
            gc.collect()  # what only the collector frees is no leak
        readings.append(rss_bytes())
    gc.collect()
    yield _stable(np.array(readings, np.float64), size, patient)
    fresh = pool.stats().misses - misses
    often = fresh > 0.001 * points * size + 2  # caches of threads still fill, more and more rarely
    yield _check(
        "no allocation at batch boundaries",
        "warn" if often else "pass",
        f"the pool asked the system for memory {fresh} times in {points * size} requests after warm-up",
        "an allocation in the middle of a batch is a latency peak, and fragments memory",
        "requests of ever new shapes? pad them to a few lengths" if often else "",
    )
    yield _returned(pool, before)


def _warm_up(patient: Patient) -> None:
    """Let the model compile every batch size that may come, so that none is met for the first time later."""
    if not patient.model._is_native or fixed_rows(patient.model.inputs) is not None:
        return
    for rows in range(1, min(WINDOW, patient.batcher.max_batch_size, len(patient.samples)) + 1):
        patient.model.run(stacked(patient.model.inputs, patient.samples[:rows]))


def _stable(readings: np.ndarray, size: int, patient: Patient) -> Check:
    requests = np.arange(1, len(readings) + 1, dtype=np.float64) * size
    fit = slope(requests, readings)
    total = requests[-1] - requests[0]
    low, high = fit.low * total, fit.high * total
    quarter = len(readings) // 4
    # What settles rises early; a leak rises from the third quarter to the fourth by a quarter of the whole.
    late = float(np.median(readings[-quarter:]) - np.median(readings[-2 * quarter : -quarter]))
    limit = patient.limits.growth_bytes
    leaking = low > limit and late > low / 8
    suspicious = not leaking and low > limit / 2
    figure = (
        f"RSS {readings[-1] / _KIB / _KIB:.1f} MiB; slope {fit.value:+.0f} bytes a request "
        f"(95% between {fit.low:+.0f} and {fit.high:+.0f}); over {int(total)} requests "
        f"{low / _KIB:+.0f} to {high / _KIB:+.0f} KiB"
    )
    return _check(
        "RSS stable after warm-up",
        "fail" if leaking else "warn" if suspicious else "pass",
        figure,
        "memory that grows with every request ends with the kernel killing the process, at its busiest hour",
        "compare tracemalloc snapshots; look for lists, caches and tickets that keep answers"
        if leaking or suspicious
        else "",
    )


def _by_tag(pool: BufferPool) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in pool.leaks():
        if row.tag != "arena":  # a model keeps those of its idle sessions; Model.trim() gives them back
            counts[row.tag] = counts.get(row.tag, 0) + row.count
    return counts


def _returned(pool: BufferPool, before: dict[str, int]) -> Check:
    end = time.monotonic() + 1  # other callers' requests may be on their way
    while (grown := _more(before, _by_tag(pool))) and time.monotonic() < end:
        time.sleep(0.01)
    whose = ", ".join(f"{n} of '{tag}'" for tag, n in grown.items())
    return _check(
        "every buffer back in the pool",
        "fail" if grown else "pass",
        f"more are out than after warm-up: {whose}" if grown else f"{sum(before.values())} out, as after warm-up",
        "a buffer that does not come back is memory that the next batch must ask the system for",
        "find who keeps them: use what the pool lends in a `with` block, or call release()" if grown else "",
    )


def _more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {tag: n - before.get(tag, 0) for tag, n in after.items() if n > before.get(tag, 0)}
