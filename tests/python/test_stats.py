"""batcher.stats(): its windows, and what it says of hung runs, memory and the pool."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import gc
import json
import math
import os
import pickle
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit

X = np.ones(2, np.float32)
PORT = [("x", "float32", (None, 2))]


def model(fn: Callable[..., Any] = lambda x: x) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, PORT, PORT)


def test_the_figures_that_dashboards_ask_for() -> None:
    with inferkit.Batcher(model(), max_batch_size=4) as batcher:
        for rows in (1, 2, 3, 4, 4):
            batcher(np.ones((rows, 2), np.float32))
        stats = batcher.stats()
    assert stats.p99_latency_ms == stats.total_ms.p99 > 0
    assert stats.requests_per_second > 0
    assert stats.batch_fill_rate == 14 / 20
    assert (stats.queue_depth, stats.in_flight, stats.inference_error_rate, stats.longest_run) == (0, 0, 0.0, 0.0)
    assert stats.batch_sizes == {1: 1, 2: 1, 4: 3}
    page = os.sysconf("SC_PAGESIZE")
    with open("/proc/self/statm") as statm:
        assert stats.memory_rss_bytes == pytest.approx(int(statm.read().split()[1]) * page, rel=0.2)
    assert stats.pool.hits + stats.pool.misses >= 0
    assert stats.state == "open"
    for latency in (stats.queue_ms, stats.compute_ms, stats.total_ms):
        assert latency.p50 <= latency.p90 <= latency.p95 <= latency.p99 <= latency.p999 <= latency.max
        assert latency.count == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.queue_depth = 1  # type: ignore[misc]


def test_windows_forget_and_the_whole_life_does_not() -> None:
    clock = inferkit._core.ManualClock()
    with inferkit.Batcher(model(), _clock=clock) as batcher:
        for _ in range(10):
            batcher(X)
        clock.advance(0.5)
        windows = batcher.stats().windows
        assert set(windows) == {1, 10, 60}
        for window in windows.values():
            assert (window.completed, window.covered, window.requests_per_second) == (10, 0.5, 20.0)
            assert window.total_ms.count == 10
        clock.advance(5)
        assert [w.completed for w in batcher.stats().windows.values()] == [0, 10, 10]
        clock.advance(30)
        assert [w.completed for w in batcher.stats().windows.values()] == [0, 0, 10]
        clock.advance(60)
        stats = batcher.stats()
        assert [w.completed for w in stats.windows.values()] == [0, 0, 0]
        assert (stats.completed, stats.total_ms.count, stats.requests_per_second) == (10, 10, 0.0)
        assert stats.windows[60].p99_latency_ms == 0


def allocated() -> int:
    """Bytes that malloc has given out, in all of its arenas and as mappings of their own."""

    class Mallinfo2(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        ]

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("mallinfo2() needs glibc 2.33")
    libc.mallinfo2.restype = Mallinfo2
    gc.collect()
    found = libc.mallinfo2()
    return int(found.uordblks + found.hblkhd)


@pytest.mark.unsanitized("what is freed is kept to be watched, and an hour takes ten minutes")
def test_memory_stands_still_while_time_goes_on(digits_path: Path) -> None:
    """An hour and more of seconds, each with requests of its own number, sizes and durations, from several threads."""
    clock = inferkit._core.ManualClock()
    loaded = inferkit.Model.load(digits_path, max_plans=4)

    def client(seed: int) -> None:
        draw, waiting = random.Random(seed), []
        for _ in range(draw.randrange(1, 8)):
            x = np.ones((draw.randrange(1, 48), 64), np.float32)
            if draw.random() < 0.3:
                batcher(x, request_id=f"request-{seed}")
            else:
                waiting.append(batcher.submit(x))
            clock.advance(math.exp(draw.uniform(math.log(1e-6), math.log(0.01))))
        for ticket in waiting:
            ticket.result(30)

    with inferkit.Batcher(loaded, _clock=clock, workers=2) as batcher, ThreadPoolExecutor(4) as pool:
        for second in range(4000):
            list(pool.map(client, range(4 * second, 4 * second + 4)))
            clock.advance(0.9)
            if second % 10 == 0:
                batcher.stats()
            if second == 1000:
                warm = allocated()
        grown = allocated() - warm
        stats = batcher.stats()
    assert stats.completed > 30_000
    assert grown < 512 * 1024, f"{grown} bytes in an hour"


def test_a_hung_run_and_a_stuck_request() -> None:
    clock = inferkit._core.ManualClock()
    release, inside = threading.Event(), threading.Event()

    def hangs(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(60)
        return x

    with inferkit.Batcher(model(hangs), _clock=clock) as batcher:
        tickets = [batcher.submit(X)]
        assert inside.wait(60)
        clock.advance(1)
        tickets.append(batcher.submit(X))
        clock.advance(4)
        stats = batcher.stats()
        release.set()
        for ticket in tickets:
            ticket.result()
    assert (stats.longest_run, stats.oldest_wait) == (pytest.approx(5), pytest.approx(4))
    assert (stats.in_flight, stats.queue_depth) == (1, 1)


def test_states() -> None:
    batcher = inferkit.Batcher(model())
    assert batcher.stats().state == "open"
    batcher.drain()
    assert batcher.stats().state == "draining"
    batcher.close()
    assert batcher.stats().state == "closed"


def test_as_json() -> None:
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        stats = batcher.stats()
    figures = json.loads(json.dumps(stats.as_dict()))
    assert set(figures) == {f.name for f in dataclasses.fields(stats)} | {"p99_latency_ms"}
    assert figures["completed"] == figures["windows"]["10"]["completed"] == 1
    assert figures["pool"]["outstanding"] == stats.pool.outstanding


def test_they_can_be_copied_and_sent_between_processes() -> None:
    with inferkit.Batcher(model()) as batcher:
        ticket = batcher.submit(np.ones(2, np.float32))
        ticket.result(30)
        unfinished, stats = batcher.submit(np.ones(2, np.float32)), batcher.stats()
        pool = inferkit.BufferPool(max_bytes=4096).stats()
        for figures in (stats, stats.pool, pool, ticket.timing, unfinished.timing):
            for made in (pickle.loads(pickle.dumps(figures)), copy.copy(figures), copy.deepcopy(figures)):
                assert type(made) is type(figures)
                assert repr(made) == repr(figures)
        assert repr(dataclasses.asdict(stats)["pool"]) == repr(stats.pool)


def test_windows_count_what_was_refused_too() -> None:
    """Each in its own second, also where nothing but refusals happened there."""
    clock = inferkit._core.ManualClock()
    release, inside = threading.Event(), threading.Event()

    def waits(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(60)
        if (x == 13).any():
            raise RuntimeError("thirteen")
        return x

    with inferkit.Batcher(model(waits), _clock=clock, max_queue_size=2, max_batch_size=1, caller_runs=False) as batcher:
        first = batcher.submit(X)
        assert inside.wait(60)
        late = batcher.submit(X, timeout=0.5)
        gone = batcher.submit(np.full(2, 13, np.float32))
        clock.advance(10)
        for _ in range(7):
            with pytest.raises(inferkit.ValidationError):
                batcher.submit(np.ones(3, np.float32)).result()
        clock.advance(10)
        with pytest.raises(inferkit.DeadlineError):
            batcher.submit(X, timeout=-1.0).result()
        assert isinstance(late.exception(60), inferkit.DeadlineError)
        bad = batcher.submit(np.full(2, 13, np.float32))
        for _ in range(3):
            with pytest.raises(inferkit.QueueFullError):
                batcher.submit(X).result()
        assert gone.cancel()
        release.set()
        first.result(60)
        assert isinstance(bad.exception(60), inferkit.InferenceError)
        batcher.drain()
        stats = batcher.stats()
        minute, recent = stats.windows[60], stats.windows[1]
        series = batcher._series()
        clock.advance(120)
        assert batcher.stats().windows[60].rejected == 0
    kinds = ("completed", "failed", "cancelled", "expired", "rejected", "invalid")
    assert [getattr(minute, kind) for kind in kinds] == [1, 1, 1, 2, 3, 7]
    assert [getattr(recent, kind) for kind in kinds] == [1, 1, 1, 2, 3, 0]
    assert [getattr(stats, kind) for kind in kinds] == [1, 1, 1, 2, 3, 7]
    assert minute.unserved_rate == 5 / 7
    assert minute.invalid_rate == 7 / 15
    assert [sum(series[kind]) for kind in kinds] == [1, 1, 1, 2, 3, 7]
    assert series["invalid"][10] == 7
    assert series["rejected"][20] == 3
    assert len(series["completed"]) == 21
    assert series["queue_depth"][:20] == [2] * 20


def test_rates_of_nothing_are_zero() -> None:
    with inferkit.Batcher(model()) as batcher:
        window = batcher.stats().windows[60]
        assert (window.unserved_rate, window.invalid_rate) == (0.0, 0.0)
        assert batcher._series()["completed"] == [0]


def test_printed_they_fit_a_screen() -> None:
    with inferkit.Batcher(model(), max_batch_size=4) as batcher:
        empty = str(batcher.stats())
        for _ in range(3):
            batcher(X)
        batcher.submit(np.ones(3, np.float32))
        shown = str(batcher.stats())
    for text in (empty, shown):
        assert len(text.splitlines()) <= 20
        assert max(map(len, text.splitlines())) <= 80, text
    assert "3 completed" in shown
    assert "1 invalid" in shown
    assert "caller 3" in shown
    assert "BatcherStats(" not in shown
