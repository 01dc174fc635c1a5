"""The buffer pool from Python: lending, views, the cap, figures, threads."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit


def size_class(nbytes: int) -> int:
    """Bytes set aside for a buffer: the next of 64 * {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...}."""
    lines = max(1, -(-nbytes // 64))
    step = 1
    while lines > 8 * step:
        step *= 2
    return 64 * step * -(-lines // step)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_buffer_is_writable_bytes() -> None:
    pool = inferkit.BufferPool()
    buffer = pool.acquire(100)
    assert (buffer.nbytes, len(buffer), buffer.capacity, buffer.released) == (100, 100, 128, False)
    view = memoryview(buffer)
    assert (view.format, view.nbytes, view.readonly, view.c_contiguous) == ("B", 100, False, True)
    array = np.frombuffer(buffer, np.float32)
    array[:] = np.arange(25)
    assert np.array_equal(np.asarray(buffer).view(np.float32), np.arange(25, dtype=np.float32))
    assert array.ctypes.data % 64 == 0
    assert "100 bytes" in repr(buffer)


def test_release_is_refused_while_views_live() -> None:
    pool = inferkit.BufferPool()
    buffer = pool.acquire(64)
    array, view = np.frombuffer(buffer, np.uint8), memoryview(buffer)
    with pytest.raises(BufferError, match="2 live views"):
        buffer.release()
    array[:] = 7
    assert view[63] == 7
    del array
    with pytest.raises(BufferError, match="1 live views"):
        buffer.release()
    view.release()
    buffer.release()
    buffer.release()
    assert buffer.released
    assert buffer.capacity == 0
    assert pool.stats().outstanding == 0
    with pytest.raises(BufferError, match="released"):
        memoryview(buffer)


def test_a_view_keeps_the_memory() -> None:
    pool = inferkit.BufferPool()
    array = np.frombuffer(pool.acquire(1000), np.uint8)
    array[:] = 3
    assert pool.stats().outstanding == 1
    del pool
    gc.collect()
    assert int(array.sum()) == 3000


def test_dropping_the_last_reference_releases() -> None:
    pool = inferkit.BufferPool()
    array = np.frombuffer(pool.acquire(1000), np.uint8)
    del array
    assert pool.stats().outstanding == 0
    assert pool.stats().cached_bytes == 1024


def test_with_block() -> None:
    pool = inferkit.BufferPool()
    with pool.acquire(10) as buffer:
        assert pool.stats().outstanding == 1
    assert buffer.released
    kept = []
    with pytest.raises(BufferError), pool.acquire(10) as buffer:
        kept.append(memoryview(buffer))
    # An error on its way out is not hidden by the views that its frames hold.
    with pytest.raises(KeyError), pool.acquire(10) as buffer:  # noqa: PT012
        kept.append(memoryview(buffer))
        raise KeyError
    assert pool.stats().outstanding == 2
    del buffer
    kept.clear()
    assert pool.stats().outstanding == 0


def test_buffers_cannot_be_made_without_a_pool() -> None:
    with pytest.raises(TypeError, match=r"cannot create 'Buffer' instances: BufferPool\.acquire\(nbytes\) makes one"):
        inferkit.Buffer()
    with pytest.raises(TypeError, match=r"cannot create 'Buffer' instances"):
        inferkit.Buffer(nbytes=4)
    with pytest.raises(TypeError):
        inferkit.Buffer.__new__(inferkit.Buffer)
    with pytest.raises(TypeError):
        object.__new__(inferkit.Buffer)


def test_cap() -> None:
    pool = inferkit.BufferPool(max_bytes=4096)
    buffers = [pool.acquire(1024) for _ in range(4)]
    with pytest.raises(
        inferkit.PoolExhaustedError, match=r"cap of 4096 bytes 4096 are in use.*raise max_bytes"
    ) as info:
        pool.acquire(1)
    assert isinstance(info.value, MemoryError)
    assert pool.stats().max_bytes == 4096
    del buffers[0]
    pool.acquire(1000)
    buffers.clear()
    with pool.acquire(4096):
        assert pool.stats().peak_bytes == 4096


def test_arguments() -> None:
    for bad in (
        {"max_bytes": 0},
        {"max_bytes": -1},
        {"max_bytes": 63},
        {"thread_cache_bytes": -1},
        {"shared_cache_bytes": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            inferkit.BufferPool(**bad)
    pool = inferkit.BufferPool()
    with pytest.raises(ValueError, match="nbytes must be at least 0, got -1"):
        pool.acquire(-1)
    with pytest.raises(TypeError):
        pool.acquire(1.5)  # type: ignore[arg-type]
    with pytest.raises(inferkit.PoolExhaustedError):
        pool.acquire(2**62)
    assert pool.acquire(0).nbytes == 0
    assert pool.stats().max_bytes is None


def test_stats_are_a_frozen_snapshot() -> None:
    pool = inferkit.BufferPool()
    before = pool.stats()
    buffer = pool.acquire(1)
    assert (before.outstanding, before.misses) == (0, 0)
    after = pool.stats()
    assert (after.outstanding, after.misses, after.hits, after.in_use_bytes) == (1, 1, 0, 64)
    with pytest.raises(AttributeError):
        after.hits = 3  # type: ignore[misc]
    assert repr(after) == (
        "PoolStats(in_use_bytes=64, cached_bytes=0, peak_bytes=64, max_bytes=None, hits=0, misses=1, outstanding=1)"
    )
    buffer.release()


def test_leaks() -> None:
    pool = inferkit.BufferPool()
    kept = [pool.acquire(100), pool.acquire(120), pool.acquire(5000)]
    assert [(row.tag, row.capacity, row.count, row.bytes) for row in pool.leaks()] == [
        ("python", 5120, 1, 5000),
        ("python", 128, 2, 220),
    ]
    kept.clear()
    assert pool.leaks() == []


def test_trim_gives_memory_back_to_the_system() -> None:
    pool = inferkit.BufferPool()
    buffer = pool.acquire(64 << 20)
    np.frombuffer(buffer, np.uint8)[:] = 1
    full = resident_bytes()
    buffer.release()
    assert pool.trim() == 64 << 20
    assert full - resident_bytes() > 60 << 20
    assert pool.stats().cached_bytes == 0


def test_default_is_one() -> None:
    assert inferkit.BufferPool.default() is inferkit.BufferPool.default()


def test_warm_threads_ask_for_nothing() -> None:
    pool = inferkit.BufferPool()
    barrier = threading.Barrier(4)
    misses = []

    def work() -> None:
        for turn in range(200):
            with pool.acquire(5000) as a, pool.acquire(100) as b:
                memoryview(a)[0:1] = memoryview(b)[0:1]
                if turn == 100:  # all have buffers at once, as many as there will ever be
                    barrier.wait()
                    misses.append(pool.stats().misses)
                    barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = pool.stats()
    assert stats.misses == max(misses) <= 8
    assert stats.hits + stats.misses == 4 * 200 * 2
    assert (stats.outstanding, stats.in_use_bytes) == (0, 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 200_000), st.booleans()), max_size=60))
def test_figures_follow_what_is_out(steps: list[tuple[int, bool]]) -> None:
    pool = inferkit.BufferPool()
    out = []
    peak = 0
    for nbytes, give_back in steps:
        out.append(pool.acquire(nbytes))
        assert out[-1].capacity == size_class(nbytes)
        if give_back:
            out.pop(nbytes % len(out)).release()
        stats = pool.stats()
        peak = max(peak, stats.in_use_bytes)
        assert stats.in_use_bytes == sum(size_class(b.nbytes) for b in out)
        assert stats.outstanding == len(out) == sum(row.count for row in pool.leaks())
        assert stats.peak_bytes >= stats.in_use_bytes + stats.cached_bytes >= peak
    assert pool.stats().hits + pool.stats().misses == len(steps)
