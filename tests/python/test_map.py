"""Batcher.map and amap: order, bounds, errors in their place, and nothing left when the caller leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel

pytestmark = pytest.mark.usefixtures("no_buffer_left")

BAD = float("nan")


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def rows(count: int) -> Iterator[np.ndarray]:
    return (row(i) for i in range(count))


async def arows(count: int, pause: float | None = None) -> AsyncIterator[np.ndarray]:
    for i in range(count):
        if pause is not None:
            await asyncio.sleep(pause)
        yield row(i)


def first(answers: Any) -> list[float]:
    return [float(a[0]) for a in answers]


def collect(batcher: inferkit.Batcher, kind: str, *iterables: Any, **options: Any) -> list[Any]:
    """The same of each kind."""
    got: list[Any] = []
    collect_into(got, batcher, kind, *iterables, **options)
    return got


def collect_into(got: list[Any], batcher: inferkit.Batcher, kind: str, *iterables: Any, **options: Any) -> None:
    """Answers as they come."""

    async def main() -> None:
        async for a in batcher.amap(*iterables, **options):
            got.append(a)

    if kind == "amap":
        asyncio.run(main())
    else:
        for a in batcher.map(*iterables, **options):
            got.append(a)  # noqa: PERF402 - as above


KINDS = ["map", "amap"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [1, 2, 7, None])
def test_answers_come_in_order(kind: str, most: int | None) -> None:
    with inferkit.Batcher(FakeModel(), max_batch_size=4, workers=2) as batcher:
        assert first(collect(batcher, kind, rows(50), max_outstanding=most)) == [2.0 * i for i in range(50)]
        assert collect(batcher, kind, rows(0), max_outstanding=most) == []
        stats = batcher.stats()
        assert (stats.completed, stats.queue_depth) == (50, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_zipped_or_come_as_dicts(kind: str) -> None:
    ports = [("a", "float32", (None, 2)), ("b", "float32", (None, 2))]
    model = FakeModel(inputs=ports, outputs=[("y", "float32", (None, 2))], answer=lambda a, b: a - b)
    with inferkit.Batcher(model) as batcher:
        assert first(collect(batcher, kind, rows(3), [row(1)] * 9)) == [-1, 0, 1]
        named = [{"a": row(i), "b": row(1)} for i in range(2)]
        assert [float(a["y"][0]) for a in collect(batcher, kind, named)] == [-1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_no_further_ahead_than_it_may(kind: str) -> None:
    read, taken, most_ahead = 0, 0, 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read, most_ahead
        for i in range(60):
            read += 1
            most_ahead = max(most_ahead, read - taken)
            yield row(i)

    with inferkit.Batcher(FakeModel(), max_batch_size=2) as batcher:
        if kind == "map":
            answers = batcher.map(source(), max_outstanding=5)
            assert read == 0  # not before somebody asks
            for _ in answers:
                taken += 1
        else:

            async def main() -> None:
                nonlocal taken
                async for _ in batcher.amap(source(), max_outstanding=5):
                    taken += 1

            asyncio.run(main())
    assert taken == 60
    assert most_ahead <= 6  # one is read when one is taken, before the caller has counted it


def test_by_default_batches_are_full_and_the_queue_is_not() -> None:
    model = FakeModel(0.002)
    with inferkit.Batcher(model, max_batch_size=8, caller_runs=False) as batcher:
        assert len(list(batcher.map(rows(400)))) == 400
        assert batcher.stats().mean_batch_size > 6
    with inferkit.Batcher(model, max_batch_size=8, max_queue_size=3) as batcher:
        assert len(list(batcher.map(rows(40)))) == 40
        assert batcher.stats().rejected == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_that_others_have_filled_makes_it_wait(kind: str) -> None:
    with inferkit.Batcher(FakeModel(0.001), max_batch_size=2, max_queue_size=2, inline_limit=0) as batcher:
        got = collect(batcher, kind, rows(40), max_outstanding=16)
        assert first(got) == [2.0 * i for i in range(40)]
        assert batcher.stats().rejected > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_row_is_raised_in_its_place(kind: str) -> None:
    got: list[Any] = []
    source = [row(BAD if i == 5 else i) for i in range(20)]
    with inferkit.Batcher(FakeModel(), max_batch_size=4) as batcher:
        with pytest.raises(inferkit.ValidationError):
            collect_into(got, batcher, kind, source)
        batcher.drain()
        assert first(got) == [0, 2, 4, 6, 8]
        stats = batcher.stats()
        assert 6 <= stats.completed + stats.cancelled + stats.invalid <= 5 + 8  # what was read: two batches ahead
        assert stats.invalid == 1


@pytest.mark.parametrize("kind", KINDS)
def test_or_given_in_its_place(kind: str) -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        if (x == 7).any():
            raise KeyError("seven")
        return x * 2

    source = [row(BAD if i == 5 else i) for i in range(10)]
    with inferkit.Batcher(FakeModel(answer=answer), max_batch_size=4) as batcher:
        got = collect(batcher, kind, source, return_exceptions=True)
        assert isinstance(got[5], inferkit.ValidationError)
        assert isinstance(got[7], inferkit.InferenceError)
        assert first([*got[:5], got[6], *got[8:]]) == [0, 2, 4, 6, 8, 12, 16, 18]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_iterable_raises_comes_behind_the_answers_before(kind: str) -> None:
    got: list[Any] = []

    def source() -> Iterator[np.ndarray]:
        yield from rows(3)
        raise LookupError("the source's own")

    async def asource() -> AsyncIterator[np.ndarray]:
        for r in rows(3):
            yield r
        raise LookupError("the source's own")

    with inferkit.Batcher(FakeModel()) as batcher:
        with pytest.raises(LookupError, match="the source's own"):
            collect_into(got, batcher, kind, source(), return_exceptions=True)
        assert first(got) == [0, 2, 4]
        if kind == "amap":
            with pytest.raises(LookupError):
                collect_into(got, batcher, kind, asource())
            assert first(got) == [0, 2, 4] * 2


def test_leaving_early_cancels_what_is_under_way() -> None:
    with inferkit.Batcher(FakeModel(0.005), max_batch_size=1) as batcher:
        answers = batcher.map(rows(1000), max_outstanding=10)
        assert float(next(answers)[0]) == 0
        answers.close()
        assert batcher.drain(30)
        stats = batcher.stats()
        assert stats.completed <= 3
        assert stats.completed + stats.cancelled == 10
    with inferkit.Batcher(FakeModel(0.005), max_batch_size=1) as batcher:
        for answer in batcher.map(rows(1000), max_outstanding=10):
            assert float(answer[0]) == 0
            break
        gc.collect()
        assert batcher.stats().cancelled > 5

    async def main() -> None:
        async with inferkit.Batcher(FakeModel(0.005), max_batch_size=1) as batcher:
            async with contextlib.aclosing(batcher.amap(rows(1000), max_outstanding=10)) as answers:
                async for answer in answers:
                    assert float(answer[0]) == 0
                    break
            assert batcher.stats().cancelled > 5

            async def take_all() -> None:
                async for _ in batcher.amap(arows(1000), max_outstanding=10):
                    pass

            task = asyncio.create_task(take_all())
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert batcher.drain(30)
            assert batcher.stats().queue_depth == 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_the_timeout_is_each_request_s(kind: str) -> None:
    with inferkit.Batcher(FakeModel(0.004), max_batch_size=1, inline_limit=0) as batcher:
        assert len(collect(batcher, kind, rows(30), timeout=5.0, max_outstanding=4)) == 30
        with pytest.raises(inferkit.DeadlineError):
            collect(batcher, kind, rows(30), timeout=-1.0)
        late = collect(batcher, kind, rows(5), timeout=1e-7, priority=3, return_exceptions=True)
        assert {type(e) for e in late} == {inferkit.DeadlineError}


def test_an_answer_is_not_kept_waiting_for_a_slow_source() -> None:
    given: list[float] = []

    def slow() -> Iterator[np.ndarray]:
        for i in range(4):
            yield row(i)
            time.sleep(0.05)
            given.append(-1.0)

    with inferkit.Batcher(FakeModel()) as batcher:
        for answer in batcher.map(slow(), max_outstanding=64):
            given.append(float(answer[0]))
    assert given.index(2.0) < len(given) - 3, given  # before the source was read to its end

    async def main() -> None:
        blocked = asyncio.Event()

        async def stalls() -> AsyncIterator[np.ndarray]:
            yield row(1)
            await blocked.wait()

        async with inferkit.Batcher(FakeModel()) as batcher:
            async for answer in batcher.amap(stalls(), max_outstanding=64):
                assert answer.tolist() == [2, 2]
                blocked.set()  # only now: the answer came while the source stood still

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_needs_no_waiting_leaves_the_loop_its_turns() -> None:
    async def main() -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        async with inferkit.Batcher(FakeModel()) as batcher:
            beating = asyncio.create_task(beat())
            refused = (row(BAD) for _ in range(500))
            async for error in batcher.amap(refused, max_outstanding=10, return_exceptions=True):
                assert isinstance(error, inferkit.ValidationError)
            beating.cancel()
        assert beats > 20

    asyncio.run(main())


def test_rows_of_one_turn_go_out_together() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel(), max_batch_size=16, inline_limit=0) as batcher:
            assert len([a async for a in batcher.amap(rows(16), max_outstanding=16)]) == 16
            assert batcher.stats().batches == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_refused_before_anything_is_read(kind: str) -> None:
    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("read")
        yield

    with inferkit.Batcher(FakeModel()) as batcher:
        method = getattr(batcher, kind)
        for wrong in ({"max_outstanding": 0}, {"max_outstanding": 1.5}, {"progress": 1}, {"return_exceptions": "no"}):
            with pytest.raises((TypeError, ValueError)):
                method(unread(), **wrong)
        with pytest.raises(TypeError, match="an iterable is needed"):
            method()
        with pytest.raises(TypeError, match=r"one of dicts; argument 1 is of type int, which has no items$"):
            method(5)
        for one in (np.int64(3), np.array(3), 3.0):
            with pytest.raises(
                TypeError, match=r"argument 2 is of type \w+, which has no items: give itertools.repeat\(value\)"
            ):
                method([row(1)], one)
        with pytest.raises(TypeError, match="one of dicts; got a dict"):
            method({"x": [row(1)]})


@pytest.mark.parametrize("kind", ["map", "amap"])
def test_a_frame_gives_no_rows(kind: str) -> None:
    class DataFrame:
        """As that of pandas, and of polars."""

        columns = ("a", "b")

        def __iter__(self) -> Iterator[str]:
            return iter(self.columns)

        def to_numpy(self) -> np.ndarray:
            return np.ones((3, 2), np.float32)

    frame = DataFrame()
    with inferkit.Batcher(FakeModel()) as batcher:
        with pytest.raises(TypeError, match=rf"{kind}\(\) goes through rows, and a DataFrame gives its columns"):
            getattr(batcher, kind)(frame)
        assert len(list(batcher.map(frame.to_numpy()))) == 3


def test_map_is_not_amap() -> None:
    with inferkit.Batcher(FakeModel()) as batcher, pytest.raises(TypeError, match="amap"):
        batcher.map(arows(3))


def test_a_bar_where_tqdm_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    with inferkit.Batcher(FakeModel(), name="barred") as batcher:
        assert len(list(batcher.map([row(i) for i in range(20)], progress=True))) == 20
        shown = capsys.readouterr().err
        assert "barred" in shown
        assert "20/20" in shown
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.warns(RuntimeWarning, match="tqdm"):
            assert len(list(batcher.map(rows(20), progress=True))) == 20


def test_threads_share_a_batcher() -> None:
    sums: list[float] = []
    with inferkit.Batcher(FakeModel(), max_batch_size=8, max_queue_size=8, workers=2) as batcher:
        threads = [
            threading.Thread(target=lambda: sums.append(sum(first(batcher.map(rows(200), max_outstanding=20)))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sums == [sum(2.0 * i for i in range(200))] * 4
