"""What the trace costs, for asv: a share of the time without it."""

from __future__ import annotations

from bench_tracing import CASES, measure


def track_share(name: str) -> float:
    return (measure(name)[2] - 1) * 100


track_share.params = list(CASES)  # type: ignore[attr-defined]
track_share.param_names = ["case"]  # type: ignore[attr-defined]
track_share.unit = "%"  # type: ignore[attr-defined]
