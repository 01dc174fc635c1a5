"""Batcher.swap: another model in the place of the present one, and no request the worse for it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def times(factor: float, **options: Any) -> FakeModel:
    return FakeModel(answer=lambda x: x * np.float32(factor), **options)


def native(factor: float) -> inferkit.Model:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("N", 2)) for n in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.float32(factor).reshape(1), "w")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


def test_what_runs_goes_on_and_what_waits_runs_on_the_other() -> None:
    clock = ManualClock()
    first, second = times(2, duration=1.0, clock=clock), times(3)
    with clock.batcher(first, max_batch_size=1) as batcher:
        running, waiting = batcher.submit(row(1)), batcher.submit(row(1))
        clock.wait_for_sleepers()
        assert batcher.swap(second, batch_sizes=()) is first
        assert batcher.model is second
        clock.advance(1.0)
        assert running.result(30).tolist() == [2, 2]
        assert waiting.result(30).tolist() == [3, 3]
        assert (first.batches, second.batches) == ([1], [1])


def test_the_other_is_warm_before_it_serves() -> None:
    first, second = times(2), times(3)
    with inferkit.Batcher(first, max_batch_size=8) as batcher:
        batcher.swap(second)
        assert second.batches == [1, 2, 4, 8]
        assert batcher(row(1)).tolist() == [3, 3]
        batcher.swap(third := times(4), batch_sizes=[5])
        assert third.batches == [5]

        def fails(x: np.ndarray) -> np.ndarray:
            raise RuntimeError("cold")

        with pytest.raises(inferkit.InferenceError):
            batcher.swap(FakeModel(answer=fails))
        assert batcher.model is third
        assert batcher(row(1)).tolist() == [4, 4]


def test_models_of_other_signatures_are_refused() -> None:
    y = [("y", "float32", (None, 2))]
    cases = {
        r"input 'x' is float32 of shape \(None, 2\), and of the other float32 of shape \(None, 3\)": FakeModel(
            inputs=[("x", "float32", (None, 3))], outputs=y
        ),
        r"input 'x' is float32 .* other float64": FakeModel(inputs=[("x", "float64", (None, 2))], outputs=y),
        r"inputs of the present one are \['x'\], and of the other \['z'\]": FakeModel(
            inputs=[("z", "float32", (None, 2))], outputs=y
        ),
        r"outputs .* \['y'\], .* \['y', 'z'\]": FakeModel(outputs=[*y, ("z", "float32", (None, 2))]),
    }
    with inferkit.Batcher(times(2)) as batcher:
        for message, other in cases.items():
            with pytest.raises(ValueError, match=message):
                batcher.swap(other)
            assert other.batches == []
        with pytest.raises(TypeError, match="an inferkit"):
            batcher.swap(5)  # type: ignore[arg-type]
        assert batcher(row(1)).tolist() == [2, 2]
    with pytest.raises(inferkit.ClosedError):
        batcher.swap(times(3))


def test_a_model_that_quantises_as_it_runs_is_no_substitute() -> None:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("N", 2)) for n in ("x", "y")]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    mixes = inferkit.Model.load(made.SerializeToString())
    with inferkit.Batcher(native(2)) as batcher, pytest.raises(ValueError, match="combines the rows of a run"):
        batcher.swap(mixes)
    with inferkit.Batcher(mixes) as batcher, pytest.raises(ValueError, match="combines the rows of a run"):
        batcher.swap(native(2))


@pytest.mark.parametrize("kinds", [(native, native), (times, native), (native, times)])
def test_no_request_is_lost_while_models_are_swapped(kinds: tuple[Any, Any]) -> None:
    """Each answer is of one model or of the other, whole; and after the swap, of the other."""
    stop = threading.Event()
    wrong: list[Any] = []
    answered = [0] * 3
    models = [kinds[0](2), kinds[1](3)]
    with inferkit.Batcher(models[0], max_batch_size=8, workers=2, max_queue_size=None) as batcher:

        def check(x: np.ndarray, answer: np.ndarray) -> None:
            if not any((answer == f * x).all() for f in (2, 3)):
                wrong.append((x, answer))

        def calls() -> None:
            i = 0
            while not stop.is_set():
                x = np.full((1 + i % 3, 2), i % 100, np.float32)
                check(x, batcher(x))
                answered[0] += 1
                i += 1

        def tickets() -> None:
            while not stop.is_set():
                sent = [(row(i), batcher.submit(row(i))) for i in range(16)]
                for x, ticket in sent:
                    check(x, ticket.result(30))
                    answered[1] += 1

        async def tasks() -> None:
            while not stop.is_set():
                answers = await asyncio.gather(*[batcher.submit(row(i)) for i in range(16)])
                for i, answer in enumerate(answers):
                    check(row(i), answer)
                    answered[2] += 1

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(calls), pool.submit(tickets), pool.submit(lambda: asyncio.run(tasks()))]
            try:
                for n in range(1, 40):
                    batcher.swap(models[n % 2], batch_sizes=(1,))
                    assert batcher.submit(row(1)).result(30).tolist() == [2.0 + n % 2] * 2
                until = time.monotonic() + 30
                while min(answered) == 0 and time.monotonic() < until:  # a busy machine lets some begin late
                    time.sleep(0.01)
            finally:
                stop.set()
            for client in clients:
                client.result(30)
        batcher.drain()
        stats = batcher.stats()
        assert (stats.failed, stats.cancelled, stats.expired, stats.rejected) == (0, 0, 0, 0)
        assert stats.completed == sum(answered) + 39
    assert wrong == []
    assert min(answered) > 0


def test_the_one_before_is_let_go_of() -> None:
    class Weights:
        def __call__(self, x: np.ndarray) -> np.ndarray:
            return x

    weights = Weights()
    alive = weakref.ref(weights)
    with inferkit.Batcher(FakeModel(answer=weights)) as batcher:
        batcher(row(1))
        del weights
        batcher.swap(times(2), batch_sizes=())
        gc.collect()
        assert alive() is None
        assert batcher(row(1)).tolist() == [2, 2]


def test_a_model_from_a_file(digits_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = digits[0][:5]
    with inferkit.Batcher(inferkit.Model.load(digits_path)) as batcher:
        before = batcher(images)
        batcher.swap(inferkit.Model.load(digits_path, threads=1))
        assert (batcher(images) == before).all()


def test_what_runs_of_the_one_before_took_refuses_nobody() -> None:
    clock = ManualClock()

    def model(seconds: float) -> FakeModel:
        return FakeModel(duration=seconds, clock=clock)

    slow = model(1.0)
    with clock.batcher(slow, max_batch_size=1, workers=4) as batcher:

        def answered(seconds: float, count: int) -> list[inferkit.Ticket]:
            tickets = [batcher.submit(row(1)) for _ in range(count)]
            clock.wait_for_sleepers(count)
            clock.advance(seconds)
            for ticket in tickets:
                ticket.result(30)
            return tickets

        for _ in range(3):
            answered(1.0, 4)
        assert "cannot be answered by its deadline" in str(batcher.submit(row(1), timeout=0.05).exception(0))
        # Four runs of the slow one end when the fast one is there already: none of them counts for that.
        running = [batcher.submit(row(1)) for _ in range(4)]
        clock.wait_for_sleepers(4)
        batcher.swap(model(0.01), batch_sizes=())
        clock.advance(1.0)
        for ticket in running:
            ticket.result(30)
        soon = batcher.submit(row(1), timeout=0.05)
        assert not soon.done()
        clock.wait_for_sleepers()
        clock.advance(0.01)
        assert soon.result(30).tolist() == [2, 2]
        # And as fast as that one was, nobody takes the next one to be.
        for _ in range(3):
            answered(0.01, 4)
        batcher.swap(model(1.0), batch_sizes=())
        for _ in range(3):
            answered(1.0, 4)
        assert "cannot be answered by its deadline" in str(batcher.submit(row(1), timeout=0.05).exception(0))


def test_after_its_warm_up_it_is_known_what_runs_of_the_other_take() -> None:
    """A caller runs a request with a deadline itself where it is known that there is time for that."""
    for warm in (False, True):
        with inferkit.Batcher(native(2), max_batch_size=16) as batcher:
            batcher.warm_up()
            batcher.swap(native(3), batch_sizes=None if warm else ())
            assert batcher.stats().batches == 0
            assert batcher(row(1)[None], timeout=60.0).tolist() == [[3, 3]]
            assert batcher.stats().dispatched["caller"] == warm


def test_two_swaps_at_once_leave_what_runs() -> None:
    """What `model` says and what runs are set one after the other."""

    class Slow(inferkit.Batcher):
        between = threading.Event()

        def _swap(self, model: Any) -> None:
            super()._swap(model)
            if model is first:
                self.between.set()
                time.sleep(0.2)  # the other one has its chance

    first, second = times(2), times(3)
    with Slow(times(1), max_batch_size=1) as batcher:
        one = threading.Thread(target=batcher.swap, args=(first,), kwargs={"batch_sizes": ()})
        one.start()
        assert Slow.between.wait(30)
        batcher.swap(second, batch_sizes=())
        one.join()
        assert batcher.model is second
        assert batcher(row(1)).tolist() == [3, 3]


def test_a_batcher_that_is_closed_meanwhile_takes_no_other() -> None:
    def close(x: np.ndarray) -> np.ndarray:
        batcher.close(drain=False)
        return x

    batcher = inferkit.Batcher(times(1), max_batch_size=1)
    before = batcher.model
    with pytest.raises(inferkit.ClosedError, match="while the model was warmed up"):
        batcher.swap(FakeModel(answer=close))
    assert batcher.model is before
