"""What /statusz shows, as JSON."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from typing import Any

from .. import _batcher
from .._build import built
from .._core import BufferPool, resident_bytes
from .._stats import stats_from
from .._text import NAME_LIMIT, printable
from ..tracing._records import slowest
from ._memory import memory
from ._monitor import Monitor

__all__ = ["status"]

# Seconds: eight to a decade, from a microsecond to ten seconds.
_BUCKETS = tuple(10 ** (-6 + k / 8) for k in range(57))
_SLOW = 12  # requests in the table
_STARTED = time.time()


def status(monitor: Monitor) -> dict[str, Any]:
    """Take all of it now."""
    build, pool, report = built(), BufferPool.default().stats(), monitor.report()
    memory.look()
    open_batchers = _batcher._open_batchers()
    return {
        "time": time.time(),
        "state": report.state.value,
        "ready": report.ready,
        "reasons": report.reasons,
        "process": {
            "pid": os.getpid(),
            "host": printable(socket.gethostname(), NAME_LIMIT),
            "program": printable(os.path.basename(next(iter(sys.argv), "")) or "python", NAME_LIMIT),
            "python": sys.version.split()[0],
            "uptime": time.time() - _STARTED,
            "inferkit": build["version"],
            "isa": build["isa"],
            "debug": build["debug"],
            "cpus": build["cpus"],
            "memory_rss_bytes": resident_bytes(),
            "pool_in_use_bytes": pool.in_use_bytes,
            "pool_cached_bytes": pool.cached_bytes,
            "pool_outstanding": pool.outstanding,
        },
        "memory": memory.as_dict(),
        "batchers": [
            {**_figures(batcher), "health": report.batchers.get(batcher.name, report.state).value}
            for batcher in open_batchers
            if batcher._state != "forked"
        ],
        "slow": _slow_requests(),
    }


def _figures(batcher: _batcher.Batcher) -> dict[str, Any]:
    raw = batcher._stats(list(_BUCKETS))
    latency = next(w for w in raw["windows"] if w["seconds"] == 60)["total_ms"]
    at_most = [*latency["at_most"], latency["count"]]
    for stage in ("queue_ms", "compute_ms", "total_ms"):
        for figures in (raw, *raw["windows"]):
            figures[stage] = {k: v for k, v in figures[stage].items() if k not in ("at_most", "sum")}
    return {
        "name": batcher.name,
        "model": printable(os.path.basename(batcher.model.path or ""), NAME_LIMIT)
        or ("ONNX" if batcher.model._is_native else "callable"),
        "max_batch_size": batcher.max_batch_size,
        **batcher._limits,
        "stats": stats_from(raw).as_dict(),
        "series": batcher._series(),  # a page that has just been opened shows the last minutes
        "latency": {
            "seconds": _BUCKETS,  # upper bounds; one count more, for what is above
            "counts": [at_most[0], *(b - a for a, b in itertools.pairwise(at_most))],
        },
    }


def _slow_requests() -> list[dict[str, Any]]:
    found = [request for batcher in _batcher._open_batchers() for request in slowest(batcher, _SLOW)]
    requests = sorted(found, key=lambda r: -r.total_ms)[:_SLOW]
    now = time.monotonic()
    return [
        {
            "request_id": printable(r.request_id, NAME_LIMIT),
            "batcher": r.batcher,
            "outcome": r.outcome,
            "batch_size": r.batch_size,
            "queue_ms": r.queue_ms,
            "compute_ms": r.compute_ms,
            "total_ms": r.total_ms,
            "ago": now - r.finished,
        }
        for r in requests
    ]
