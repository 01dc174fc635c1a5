"""Equal requests: computed once while they are under way, and answered from what is kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")
FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def twice(**options: Any) -> FakeModel:
    return FakeModel(answer=lambda x: x * np.float32(2), **options)


def load(nodes: list[onnx.NodeProto], kind: int, outputs: list[str], constants: dict[str, Any]) -> inferkit.Model:
    def port(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ("N", 2))

    kept = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [port("x")], [port(name) for name in outputs], kept)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


def test_equal_requests_run_once_and_each_has_an_array_of_its_own() -> None:
    clock = ManualClock()
    model = twice(duration=1.0, clock=clock)
    with clock.batcher(model, coalesce=True) as batcher:
        first = batcher.submit(row(1))
        clock.wait_for_sleepers()
        others = [batcher.submit({"x": row(1)}), batcher.submit(row(1)[None]), batcher.submit(row(1), request_id="me")]
        clock.advance(1.0)
        answers = [first.result(30), others[0].result(30)["y"], others[1].result(30)[0], others[2].result(30)]
        for answer in answers:
            assert answer.tolist() == [2, 2]
            answer[:] = 7  # writable, and nobody else's
        stats = batcher.stats()
        requests = inferkit.tracing.snapshot(batcher).requests
        families = {family.name: family for family in inferkit.metrics.Collector().collect()}
    assert model.batches == [1]
    assert (stats.completed, stats.coalesced, stats.batches) == (4, 3, 1)
    assert "equal     3 coalesced" in str(stats)
    (sample,) = (s for s in families["inferkit_coalesced_requests"].samples if s.labels["batcher"] == batcher.name)
    assert sample.value == 3
    assert len({request.batch_id for request in requests}) == 1
    for request in requests:
        assert request.enqueued <= request.dequeued <= request.started <= request.finished


def test_tasks_of_one_tick_run_once() -> None:
    model = twice()

    async def main() -> inferkit.BatcherStats:
        async with inferkit.Batcher(model, coalesce=True) as batcher:
            rows = [row(n % 3) for n in range(60)]
            answers = await asyncio.gather(*map(batcher.submit, rows))
            for given, answer in zip(rows, answers, strict=True):
                assert answer.tolist() == (2 * given).tolist()
            return batcher.stats()

    stats = asyncio.run(main())
    assert sum(model.batches) == 3
    assert (stats.completed, stats.coalesced) == (60, 57)


def test_map_hardly_runs_equal_rows_again() -> None:
    clock = ManualClock()
    model = twice()
    with clock.batcher(model, coalesce=True, result_cache=1 << 20, cache_callables=True) as batcher:
        answers = list(batcher.map(row(n % 5) for n in range(1000)))
        assert [answer.tolist() for answer in answers] == [[2 * (n % 5)] * 2 for n in range(1000)]
        stats = batcher.stats()
    # Each of 1000 is in one of the three; one that comes as a run ends may be computed once more, see decision 048.
    assert sum(model.batches) + stats.coalesced + stats.cache_hits == 1000
    assert 5 <= sum(model.batches) < 50


def test_a_cancelled_task_leaves_the_others_their_answer() -> None:
    clock = ManualClock()
    model = twice(duration=1.0, clock=clock)

    async def main() -> None:
        async with clock.batcher(model, coalesce=True) as batcher:
            tasks = [asyncio.ensure_future(batcher.submit(row(1))) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, clock.wait_for_sleepers)
            tasks[0].cancel()
            late = asyncio.ensure_future(batcher.submit(row(1)))  # joins nobody whose caller has gone
            await asyncio.sleep(0)
            clock.advance(1.0)
            assert [(await task).tolist() for task in tasks[1:]] == [[2, 2]] * 2
            await asyncio.get_running_loop().run_in_executor(None, clock.wait_for_sleepers)
            clock.advance(1.0)
            assert (await late).tolist() == [2, 2]
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]

    asyncio.run(main())
    assert model.batches == [1, 1]


def test_a_thread_does_not_wait_for_the_tick_of_a_blocked_loop() -> None:
    async def main() -> None:
        async with inferkit.Batcher(twice(), coalesce=True) as batcher:
            ticket = batcher.submit(row(1))  # goes to the queue at the end of this tick
            with ThreadPoolExecutor(2) as pool:
                others = [pool.submit(batcher, row(1)), pool.submit(lambda: batcher.submit(row(1)).result())]
                assert [other.result(30).tolist() for other in others] == [[2, 2]] * 2
            assert (await ticket).tolist() == [2, 2]

    asyncio.run(main())


def test_an_error_is_each_ones_own() -> None:
    clock = ManualClock()

    def fails(x: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    model = FakeModel(answer=fails, duration=1.0, clock=clock)
    with clock.batcher(model, coalesce=True, result_cache=1000, cache_callables=True) as batcher:
        tickets = [batcher.submit(row(1)) for _ in range(3)]
        clock.wait_for_sleepers()
        clock.advance(1.0)
        errors = [ticket.exception(30) for ticket in tickets]
        assert all(isinstance(error, inferkit.InferenceError) and "no" in str(error) for error in errors)
        assert len({id(error) for error in errors}) == 3
        assert batcher.stats().cache_entries == 0
    assert model.batches == [1]


def test_answers_are_kept() -> None:
    model = load(
        [helper.make_node("Mul", ["x", "two"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        FLOAT, ["y", "z"], {"two": np.float32(2)},
    )  # fmt: skip
    with inferkit.Batcher(model, result_cache=100_000) as batcher:
        first = batcher(row(1))
        first[0][:] = 7
        for answer in (batcher(row(1)), batcher.submit({"x": row(1)}).result().values()):
            assert [part.tolist() for part in answer] == [[2, 2], [-1, -1]]
        stats = batcher.stats()
        families = {family.name: family for family in inferkit.metrics.Collector().collect()}
        lookups = {
            sample.labels["result"]: sample.value
            for sample in families["inferkit_cache_lookups"].samples
            if sample.labels["batcher"] == batcher.name
        }
        assert sum(sample.value for sample in families["inferkit_cache_bytes"].samples) >= stats.cache_bytes > 0
    assert (stats.completed, stats.batches) == (3, 1)
    assert (stats.cache_hits, stats.cache_misses, stats.cache_entries) == (2, 1, 1)
    assert stats.total_ms.count == 1
    assert lookups == {"hits": 2, "misses": 1}
    assert "2 from the cache, 1 answer kept" in str(stats)


def test_an_await_finds_what_is_kept() -> None:
    async def main() -> list[list[float]]:
        async with inferkit.Batcher(twice(), result_cache=10_000, cache_callables=True) as batcher:
            answers = [(await batcher.submit(row(1), timeout=30.0)).tolist() for _ in range(3)]
            assert batcher.stats().cache_hits == 2
            ticket = batcher.submit(row(1))
            assert ticket.done()
            assert not ticket.cancel()
            done: list[Any] = []
            ticket.add_done_callback(done.append)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert done == [ticket]
            return answers

    assert asyncio.run(main()) == [[2, 2]] * 3


def test_strings_are_kept_with_their_bytes() -> None:
    model = load(
        [helper.make_node("StringConcat", ["x", "tail"], ["y"])], STRING, ["y"], {"tail": np.array("!", object)}
    )
    words = [["", "a"], ["été", "漢字"], ["x" * 300, "\U0001f600"], ["a", ""]]
    with inferkit.Batcher(model, result_cache=1 << 20, max_delay=0.05, max_batch_size=4) as batcher:
        for _ in range(2):
            tickets = [batcher.submit(np.array(pair, object)) for pair in words]
            for pair, ticket in zip(words, tickets, strict=True):
                assert ticket.result().tolist() == [word + "!" for word in pair]
        assert batcher.stats().cache_hits == 4


def test_what_is_drawn_at_random_is_kept_as_it_is_drawn() -> None:
    model = load([helper.make_node("RandomNormalLike", ["x"], ["y"], mean=0.0, scale=1.0)], FLOAT, ["y"], {})
    with inferkit.Batcher(model, result_cache=1 << 20) as batcher:
        alone = model(row(1)[None])[0]
        for _ in range(2):
            assert batcher(row(1)).tobytes() == alone.tobytes()
        assert batcher.stats().cache_hits == 1


def test_padded_answers_are_kept_cut_back() -> None:
    from test_padding import ATTENTION, CONSTANTS, OUTPUTS, PAD, check, model_of, text

    model = model_of(ATTENTION, OUTPUTS, CONSTANTS, max_plans=64)
    with inferkit.Batcher(model, max_batch_size=4, max_delay=0.05, pad=PAD, result_cache=1 << 24, coalesce=True) as of:
        texts = [text(length) for length in (33, 35, 38, 35)]
        for _ in range(3):
            tickets = [of.submit(feeds) for feeds in texts]
            for feeds, ticket in zip(texts, tickets, strict=True):
                check(model, feeds, ticket.result())
        stats = of.stats()
    assert (stats.batches, stats.coalesced, stats.cache_hits) == (1, 1, 8)
    assert stats.padding > 0


def test_a_swap_leaves_nothing_of_the_model_before() -> None:
    def times(factor: float) -> inferkit.Model:
        return load([helper.make_node("Mul", ["x", "by"], ["y"])], FLOAT, ["y"], {"by": np.float32(factor)})

    with inferkit.Batcher(times(2), result_cache=10_000) as batcher:
        for factor in (2, 3, 4):
            for _ in range(2):
                assert batcher(row(1)).tolist() == [factor, factor]
            batcher.swap(times(factor + 1))
            assert batcher.stats().cache_entries == 0
        assert batcher.stats().cache_hits == 3
    with inferkit.Batcher(FakeModel(), result_cache=10_000, cache_callables=True) as batcher:
        batcher.swap(twice())
        assert [batcher(row(1)).tolist() for _ in range(2)] == [[2, 2]] * 2
        assert batcher.stats().cache_hits == 1


def test_a_callable_that_is_swapped_in_runs_each_time() -> None:
    compiled = load([helper.make_node("Neg", ["x"], ["y"])], FLOAT, ["y"], {})
    calls: list[int] = []

    def counts(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return x + len(calls)

    called = inferkit.Model.from_callable(counts, inputs=compiled.inputs, outputs=compiled.outputs)
    with inferkit.Batcher(compiled, result_cache=10_000) as batcher:
        batcher.swap(called, batch_sizes=())
        assert [batcher(row(0)).tolist() for _ in range(2)] == [[1, 1], [2, 2]]
        assert batcher.stats().cache_misses == 0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"result_cache": 1000}, ValueError, "cache_callables=True"),
        ({"result_cache": 0}, ValueError, "result_cache"),
        ({"result_cache": -1}, ValueError, "result_cache"),
        ({"result_cache": "1"}, TypeError, "result_cache"),
        ({"coalesce": 1}, TypeError, "coalesce"),
        ({"cache_callables": "yes"}, TypeError, "cache_callables"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        inferkit.Batcher(FakeModel(), **options)


@pytest.mark.parametrize("close", [lambda b: b.close(drain=False), lambda b: b.close()])
def test_a_closed_batcher_keeps_nothing(close: Callable[[inferkit.Batcher], object]) -> None:
    batcher = inferkit.Batcher(twice(), result_cache=10_000, cache_callables=True)
    assert batcher(row(1)).tolist() == [2, 2]
    assert batcher.stats().cache_entries == 1
    close(batcher)
    assert (batcher.stats().cache_entries, batcher.stats().cache_bytes) == (0, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_of_fork_has_none_of_it() -> None:
    clock = ManualClock()
    model = twice(duration=1.0, clock=clock)
    with clock.batcher(model, coalesce=True, result_cache=10_000, cache_callables=True) as batcher:
        tickets = [batcher.submit(row(1)) for _ in range(3)]
        clock.wait_for_sleepers()
        if (child := os.fork()) == 0:
            ends = [type(ticket.exception(30)) for ticket in tickets]
            late = type(batcher.submit(row(1)).exception(30))
            stats = batcher.stats()
            del batcher
            fine = {*ends, late} == {inferkit.ClosedError} and (stats.state, stats.cache_entries) == ("forked", 0)
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        clock.advance(1.0)
        assert [ticket.result(30).tolist() for ticket in tickets] == [[2, 2]] * 3
