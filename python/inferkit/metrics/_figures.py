"""The figures of one process, as plain data that a file can hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import _batcher, cuda
from .._arguments import LONGEST, number, sequence
from .._batcher import Batcher, _open_batchers
from .._core import BufferPool, cuda_devices_in_use, resident_bytes
from .._stats import stats_from
from .._text import NAME_LIMIT, printable
from ._ended import STAGES, configured, counts_of, ended

__all__ = ["BUCKETS", "Figures", "bucket_bounds", "process_figures", "process_key"]

Figures = dict[str, Any]
# Seconds. A small model answers in microseconds, a stuck one in seconds: the range is wide, in steps of 2 to 2.5.
BUCKETS = (
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6,
    1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


def bucket_bounds(buckets: Sequence[float]) -> tuple[float, ...]:
    """Take an argument `buckets`: upper bounds, to which Prometheus adds that of +Inf."""
    what = "numbers of seconds"
    bounds = tuple(number(bound, "each of buckets") for bound in sequence(buckets, "buckets", f"a sequence of {what}"))
    if not bounds or list(bounds) != sorted(set(bounds)) or bounds[0] <= 0 or bounds[-1] > LONGEST:
        raise ValueError(f"buckets must be {what}, positive and ascending, the last at most {LONGEST:g}, got {bounds}")
    return bounds


def process_key(pid: int | None = None) -> str | None:
    """Name a process so that no later one of the same id is taken for it; None where it is gone."""
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().decode("latin-1")  # its program's name may be any bytes
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{pid}_{fields[19]}"  # its state, and when it started


def _open_figures(batcher: Batcher, buckets: Sequence[float]) -> Figures:
    raw = batcher._stats(list(buckets))
    name = printable(batcher.name, NAME_LIMIT)
    counts = counts_of(name, raw)
    waiting = {client: figures["waiting"] for client, figures in configured(raw).items()}
    raw["clients"], raw["tags"] = {}, []  # there may be thousands
    for field in STAGES.values():
        for latencies in (raw, *raw["windows"]):
            del latencies[field]["at_most"], latencies[field]["sum"]
    return {
        "name": name,
        "max_batch_size": batcher.max_batch_size,
        **batcher._limits,
        "stats": stats_from(raw).as_dict(),
        "histograms": counts["histograms"],
        "clients": counts["clients"],
        "clients_waiting": waiting,
        "tags": counts["tags"],
    }


def _cuda_figures() -> dict[str, Figures]:
    """Take those of the CUDA devices that this process has used, by number: nobody else's driver is opened."""
    found = {}
    for device in cuda_devices_in_use():
        memory = cuda.memory(device)
        pools = {
            name: {
                state: getattr(pool, f"{state}_bytes")
                for state in ("in_use", "cached", "peak")
            }
            for name, pool in (("memory", memory.device), ("pinned", memory.pinned))
        }  # fmt: skip
        pools["memory"]["limit"] = memory.device.max_bytes or 0
        pools["memory"]["weights"] = memory.weight_bytes
        found[str(device)] = {**pools, "activity": asdict(cuda.activity(device))}
    return found


def process_figures(buckets: Sequence[float] = BUCKETS) -> Figures:
    """Take the figures of every open batcher, the pool and the process, and what batchers that ended had counted."""
    with _batcher._ending:  # each batcher is open or has ended, never both
        batchers = [_open_figures(batcher, buckets) for batcher in _open_batchers() if batcher._state != "forked"]
        counts = ended(tuple(buckets))
    pool = BufferPool.default().stats()
    return {
        "pid": os.getpid(),
        "buckets": list(buckets),
        "batchers": batchers,
        "ended": counts,
        "memory_rss_bytes": resident_bytes(),
        "pool": {
            name: getattr(pool, name)
            for name in ("in_use_bytes", "cached_bytes", "peak_bytes", "hits", "misses", "outstanding")
        },
        "cuda": _cuda_figures(),
    }
