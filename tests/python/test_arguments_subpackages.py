"""The same for the subpackages: what comes in wrong is refused there, and ends no thread later."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_arguments import BAD_SECONDS, NOT_FLAGS, NOT_INTEGERS, NOT_SECONDS, Broken, Index, X, double, refused

import inferkit
from inferkit import diagnostics, health, metrics, tracing


class Said(str):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


def diagnosed(**options: Any) -> object:
    with inferkit.Batcher(double()) as batcher:
        return inferkit.diagnose(batcher, **options)


# What takes seconds in the subpackages: a call with the value, and the argument's name.
WAITS: list[tuple[str, Callable[[Any, Path], Any]]] = [
    ("interval", lambda value, folder: metrics.share(folder, interval=value)),
    ("interval", lambda value, _: tracing.log_requests(interval=value)),
    ("slow", lambda value, _: tracing.log_requests(slow=value)),
    ("threshold", lambda value, _: diagnostics.watch_loop(threshold=value)),
    ("timeout", lambda value, _: tracing.flush(value)),
    ("seconds", lambda value, _: diagnosed(seconds=value)),
    ("timeout", lambda value, _: diagnosed(timeout=value)),
]


@pytest.mark.parametrize(("name", "call"), WAITS)
def test_seconds_of_the_subpackages(name: str, call: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    for value in [*NOT_SECONDS, np.timedelta64(1, "s"), np.array([0.5, 0.5])]:
        refused(TypeError, f"{name} must be a number of seconds", lambda value=value: call(value, tmp_path))
    for value in [*BAD_SECONDS, -1, -float("inf")]:
        refused(ValueError, f"{name} must be a", lambda value=value: call(value, tmp_path))
    with pytest.raises(RuntimeError, match="the object's own"):
        call(Broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [float("inf"), 1e300, 1e10, 10**20, Decimal("0.5"), Fraction(1, 2), np.array(0.5), np.float32(0.5), Index()],
    ids=repr,
)
def test_threads_wait_for_whatever_seconds_were_taken(value: Any, tmp_path: Path) -> None:
    async def watched() -> bool | None:
        with diagnostics.watch_loop(threshold=value) as watch:
            await asyncio.sleep(0.02)
            return watch._watcher and watch._watcher.is_alive()

    with (
        metrics.share(tmp_path, interval=value) as sharing,
        tracing.log_requests(interval=value, slow=value) as lines,
    ):
        assert asyncio.run(watched())
        assert sharing._thread.is_alive()
        assert lines._thread.is_alive()
    assert tracing.flush(value)


def test_health() -> None:
    for value in (5, None, {}, "strict"):
        refused(TypeError, "limits must be health.Limits", lambda value=value: health.configure(value))
        if value is not None:
            refused(TypeError, "limits must be health.Limits", lambda value=value: health.asgi_app(value))
            refused(TypeError, "limits must be health.Limits", lambda value=value: health.Monitor(value))
    with pytest.raises(TypeError, match=r"limits must be health\.Limits"):
        health.Monitor().limits = 5  # type: ignore[assignment]
    assert health.report().alive
    for value in (5, b"/tmp"):
        refused(
            TypeError, "metrics_directory must be a path", lambda value=value: health.asgi_app(metrics_directory=value)
        )
    for limit in health.Limits.__dataclass_fields__.values():
        flagged = isinstance(limit.default, bool)
        for value in NOT_FLAGS if flagged else ["x", b"1", [1], 1j, True, X]:
            kind = "True or False" if flagged else "a number"
            refused(TypeError, f"{limit.name} must be {kind}", lambda n=limit.name, v=value: health.Limits(**{n: v}))
        for value in [] if flagged else [float("nan"), -1, 10**400]:
            refused(ValueError, limit.name, lambda n=limit.name, v=value: health.Limits(**{n: v}))
    refused(TypeError, "min_requests", lambda: health.Limits(min_requests=None))  # type: ignore[arg-type]
    limits: Any = health.Limits(max_p99_ms=Fraction(1, 2), max_error_rate=Decimal(0), max_queue_depth=np.int64(3))  # type: ignore[arg-type]
    assert (limits.max_p99_ms, limits.max_error_rate, limits.max_queue_depth) == (0.5, 0.0, 3)
    assert f"{limits.max_p99_ms:.1%}{limits.max_error_rate:.1%}" == "50.0%0.0%"
    monitor = health.Monitor()
    for what in (5, None, X, Path("a"), Said("x")):
        with monitor.loading(what):  # type: ignore[arg-type]
            assert any("is being loaded" in reason for reason in monitor.report().reasons)
        monitor.drain(what)  # type: ignore[arg-type]
        assert all(isinstance(reason, str) for reason in monitor.report().reasons)


def test_metrics(tmp_path: Path) -> None:
    takers: list[Callable[[Any], Any]] = [lambda buckets: metrics.share(tmp_path, buckets=buckets)]
    if importlib.util.find_spec("prometheus_client"):
        takers += [lambda buckets: metrics.Collector(buckets=buckets)]
        for value in (5, None, b"text/plain"):
            refused(TypeError, "accept must be a str", lambda value=value: metrics.exposition(accept=value))
        refused(TypeError, "registry must be", lambda: metrics.register(5))  # type: ignore[arg-type]
        refused(TypeError, r"directory must be a path \(str or os", lambda: metrics.Collector(directory=5))  # type: ignore[arg-type]
    for take in takers:
        for value in (5, None, "ab", b"ab", np.array(1.0)):
            refused(TypeError, "buckets must be a sequence", lambda take=take, value=value: take(value))
        for value in (["a"], [None], [True], [1j]):
            refused(TypeError, "each of buckets must be a number", lambda take=take, value=value: take(value))
        for value in ([], [3, 2], [1, 1], [0.0, 1], [-1], [float("nan")], [1, float("inf")], [1, 1e300], [10**400]):
            refused(ValueError, "buckets must be", lambda take=take, value=value: take(value))
    assert list(tmp_path.iterdir()) == []
    with metrics.share(tmp_path, buckets=np.array([0.1, 1])) as sharing:  # type: ignore[arg-type]
        assert sharing._buckets == (0.1, 1.0)
    for value in (5, b"/tmp"):
        refused(TypeError, "directory must be a path", lambda value=value: metrics.share(value))
    refused(ValueError, "NUL", lambda: metrics.share("a\0b"))


def test_tracing_and_diagnostics(tmp_path: Path) -> None:
    batcher = inferkit.Batcher(double())
    for value in (5, "b", batcher.model, [batcher, 5], object()):
        for call in (
            tracing.snapshot,
            lambda value: tracing.enable(batcher=value),
            lambda value: tracing.export_perfetto(tmp_path / "t.json", value),
        ):
            refused(TypeError, "batcher must be a Batcher", lambda call=call, value=value: call(value))
    for value in (5, None, b"t.json"):
        refused(TypeError, "path must be a path", lambda value=value: tracing.export_perfetto(value))
    for value in NOT_FLAGS:
        refused(TypeError, "on must be True or False", lambda value=value: tracing.enable(value))
        refused(TypeError, "on must be True or False", lambda value=value: tracing.trace_steps(value))
    for value in NOT_INTEGERS:
        refused(TypeError, "capacity must be", lambda value=value: tracing.trace_steps(False, capacity=value))
    for value in (0, -1, 2**64):
        refused(ValueError, "capacity must be", lambda value=value: tracing.trace_steps(False, capacity=value))
    for value in (5, None, batcher.model, [batcher]):
        refused(TypeError, "batcher must be a Batcher", lambda value=value: inferkit.diagnose(value))
    refused(TypeError, "inputs must be a mapping", lambda: inferkit.diagnose(batcher, X))  # type: ignore[arg-type]
    refused(TypeError, "progress must be callable", lambda: inferkit.diagnose(batcher, progress=5))  # type: ignore[arg-type]
    refused(TypeError, "on_stall must be callable", lambda: diagnostics.watch_loop(on_stall=5))  # type: ignore[arg-type]
    if importlib.util.find_spec("opentelemetry"):
        refused(TypeError, "tracer_provider must be", lambda: tracing.instrument(5))  # type: ignore[arg-type]
    batcher.close()
