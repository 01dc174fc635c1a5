"""Settings that cost more than they bring, by the figures of a batcher and its model: a part of step 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..._stats import BatcherStats
from ..._text import counted
from ..._types import MemoryUse
from .._patient import Finder
from .._report import Check

__all__ = ["cores", "plans", "window"]

_check = Finder(5)
_ENOUGH = 20  # batches, or plans, that say something
_MOST_WINDOWS = 0.5  # of the batches
_MOST_MISSES = 0.1  # of the runs


def window(stats: BatcherStats) -> Iterator[Check]:
    """Find a delay in which hardly anybody comes."""
    waited, delay = stats.dispatched.get("delay", 0), 1e3 * stats.policy.max_delay
    ran = stats.completed + stats.failed
    if stats.batches < _ENOUGH or not waited or not ran:
        return
    share = waited / stats.batches
    others = max(0.0, stats.dispatched_rows["delay"] / waited / (stats.rows / ran) - 1)
    saved = others * stats.compute_ms.p50  # at most, as if the others had taken nothing
    if share > _MOST_WINDOWS and saved < delay:
        yield _check(
            "the window pays",
            "warn",
            f"{share:.0%} of batches waited out max_delay, {delay:.3g} ms, for {others:.1f} requests more, which saves "
            f"{saved:.2g} ms of computing at most",
            "every request waits for others who do not come; batches form by themselves while others run",
            "leave max_delay out, or make it as short as a run",
        )


def cores(limits: Mapping[str, int], threads: int, cpus: int) -> Iterator[Check]:
    """Find more threads than can run at once."""
    workers = min(limits["workers"], limits["max_concurrent"])
    if workers > 1 and workers * threads > cpus:
        fewer = f"have at most {counted(max(1, cpus // threads), 'worker')}"
        each = max(1, cpus // workers)
        yield _check(
            "threads fit the CPUs",
            "warn",
            f"{counted(workers, 'batch', 'batches')} at once on {counted(threads, 'thread')} each, and "
            f"{counted(cpus, 'CPU')}",
            "threads that share a CPU interrupt each other, and all runs take longer",
            f"load the model with threads={each}, or {fewer}" if each < threads else fewer,
        )


def plans(memory: MemoryUse) -> Iterator[Check]:
    """Find shapes that are compiled again and again."""
    runs = memory.plan_hits + memory.plan_misses
    if memory.plan_evictions >= _ENOUGH and memory.plan_misses > _MOST_MISSES * runs:
        yield _check(
            "plans are kept",
            "warn",
            f"{memory.plan_misses} of {runs} runs had to compile a plan for their shapes, and {memory.plan_evictions} "
            "plans were dropped to make room",
            "compiling takes many times as long as a run",
            "have fewer shapes, as with Batcher(pad=...), or keep more plans: Model.load(max_plans=...)",
        )
