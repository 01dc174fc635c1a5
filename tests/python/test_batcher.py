"""The batcher from threads: answers, validation, admission, cancellation, deadlines, ends, signals, fork."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit

pytestmark = pytest.mark.usefixtures("no_buffer_left")


def double(
    fn: Callable[..., Any] = lambda x: x * 2, shape: tuple[int | None, ...] = (None, 2), **options: Any
) -> inferkit.Model:
    return inferkit.Model.from_callable(
        fn, inputs=[("x", "float32", shape)], outputs=[("y", "float32", shape)], **options
    )


def row(value: float, width: int = 2) -> np.ndarray:
    return np.full(width, value, np.float32)


class Gate:
    """A model that waits inside until it is opened; knows the batches that it was given."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.batches: list[np.ndarray] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.batches.append(x.copy())
        self.entered.set()
        assert self.opened.wait(30)
        return x * 2


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


@pytest.fixture(scope="module")
def model(digits_path: Path) -> inferkit.Model:
    return inferkit.Model.load(digits_path)


# Answers


def test_answers_like_the_model(model: inferkit.Model, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = digits[0][:100]
    alone = [model(image) for image in images]
    with inferkit.Batcher(model, max_batch_size=16) as batcher:
        np.testing.assert_array_equal(batcher(images[0]), alone[0])
        assert batcher(images[0]).shape == (10,)
        assert batcher(images[:3]).shape == (3, 10)
        tickets = [batcher.submit(image) for image in images]
        for ticket, want in zip(tickets, alone, strict=True):
            np.testing.assert_array_equal(ticket.result(10), want)
        with ThreadPoolExecutor(8) as pool:
            for got, want in zip(pool.map(batcher, images), alone, strict=True):
                np.testing.assert_array_equal(got, want)
        stats = batcher.stats()
    assert stats.completed == 203
    assert stats.failed == stats.cancelled == stats.expired == stats.rejected == stats.invalid == 0
    assert stats.total_ms.p50 <= stats.p99_latency_ms <= stats.total_ms.max


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    max_batch_size=st.integers(5, 16),
    workers=st.integers(1, 3),
    data=st.data(),
)
def test_batched_equals_alone_to_the_bit(
    model: inferkit.Model, sizes: list[int], max_batch_size: int, workers: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # 0 stands for a single row without the batch axis.
    requests = [rng.standard_normal((n, 64) if n else 64).astype(np.float32) for n in sizes]
    alone = [model(x) for x in requests]
    order = data.draw(st.permutations(range(len(requests))))
    with inferkit.Batcher(model, max_batch_size=max_batch_size, workers=workers) as batcher:
        tickets = {i: batcher.submit(requests[i], priority=i % 3) for i in order}
        for i in data.draw(st.permutations(range(len(requests)))):
            got = tickets[i].result(30)
            assert got.shape == alone[i].shape
            assert got.tobytes() == alone[i].tobytes()


def test_several_inputs_and_outputs_by_position_and_by_name() -> None:
    model = inferkit.Model.from_callable(
        lambda a, b: (a + b[:, :1], b),
        inputs=[("a", "float32", (None, 2)), ("b", "float32", (None, 3))],
        outputs=[("sum", "float32", (None, 2)), ("same", "float32", (None, 3))],
    )
    a, b = row(1), row(2, 3)
    with inferkit.Batcher(model) as batcher:
        for answer in (batcher(a, b), batcher.submit(a, b).result()):
            assert isinstance(answer, tuple)
            assert [part.tolist() for part in answer] == [[3, 3], [2, 2, 2]]
        for named in (batcher({"b": b, "a": a}), batcher.submit({"a": a, "b": b}).result()):
            assert {name: part.tolist() for name, part in named.items()} == {"sum": [3, 3], "same": [2, 2, 2]}
        for bad, reason in (
            (lambda: batcher(a), "name"),
            (lambda: batcher({"a": a}), "name"),
            (lambda: batcher({"a": a, "b": b, "c": b}), "name"),
            (lambda: batcher(a, b[None]), "shape"),
            (lambda: batcher(np.stack([a, a]), b[None]), "shape"),
        ):
            with pytest.raises(inferkit.ValidationError) as caught:
                bad()
            assert caught.value.reason == reason


def test_strided_unaligned_and_foreign_inputs(model: inferkit.Model) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 12)).astype(np.float32)
    shifted = np.frombuffer(b"\0" + x.T.copy().tobytes(), np.uint8)[1:].view(np.float32).reshape(12, 64)
    want = model(np.ascontiguousarray(x.T))
    with inferkit.Batcher(model) as batcher:
        for given_ in (x.T, shifted, memoryview(np.ascontiguousarray(x.T)), np.asfortranarray(x.T)):
            np.testing.assert_array_equal(batcher(given_), want)
            np.testing.assert_array_equal(batcher.submit(given_).result(), want)
        np.testing.assert_array_equal(batcher(x.T[::-1]), want[::-1])


def test_the_answer_is_the_callers_own() -> None:
    with inferkit.Batcher(double()) as batcher:
        x = row(1)
        ticket = batcher.submit(x)
        x[:] = 5  # too late to matter
        answer = ticket.result()
        assert answer.tolist() == [2, 2]
        assert answer.flags.writeable
        assert answer.flags.owndata
        assert ticket.result() is answer


def test_shapes_that_differ_run_apart(gate: Gate) -> None:
    with inferkit.Batcher(double(gate, (None, None))) as batcher:
        first = batcher.submit(row(0))
        gate.entered.wait()
        tickets = [batcher.submit(row(i, width)) for i, width in enumerate((2, 3, 2, 3, 2))]
        gate.opened.set()
        for i, ticket in enumerate(tickets):
            assert (ticket.result() == 2 * i).all()
        assert first.result().tolist() == [0, 0]
    assert [b.shape for b in gate.batches] == [(1, 2), (3, 2), (2, 3)]


# Validation


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.zeros(3, np.float32), "shape"),
        (np.zeros((1, 1, 2), np.float32), "shape"),
        (np.zeros(2), "dtype"),
        (np.zeros(2, np.int32), "dtype"),
        ({0.0, 1.0}, "dtype"),
        ([0.0, "0"], "dtype"),
        (np.zeros((0, 2), np.float32), "empty"),
        (np.array([1, np.nan], np.float32), "non_finite"),
        (np.array([[0, 1], [-np.inf, 1]], np.float32), "non_finite"),
        (np.zeros((5, 2), np.float32), "too_large"),
    ],
)
def test_bad_input_has_a_reason(x: Any, reason: str) -> None:
    with inferkit.Batcher(double(), max_batch_size=4) as batcher:
        for call in (batcher, lambda x: batcher.submit(x).result()):
            with pytest.raises(inferkit.ValidationError) as caught:
                call(x)
            assert caught.value.reason == reason
            if reason != "too_large":
                assert "'x'" in str(caught.value)
        assert batcher.stats().invalid == 2
        assert batcher(row(1)).tolist() == [2, 2]


def test_length_bounds_and_checks_that_are_off() -> None:
    checks = inferkit.InputChecks(finite=False, min_length=2, max_length=3)
    with inferkit.Batcher(
        double(shape=(None, None)), input_checks=checks, output_checks=inferkit.OutputChecks(finite=False)
    ) as b:
        assert np.isnan(b(row(np.nan))).all()
        for width, reason in ((1, "shape"), (4, "too_large")):
            with pytest.raises(inferkit.ValidationError) as caught:
                b(row(1, width))
            assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("checks", "answer", "reason"),
    [
        (None, np.nan, "non_finite"),
        (inferkit.OutputChecks(not_all_zero=True), 0, "all_zero"),
        (inferkit.OutputChecks(normalized=True), 0.25, "not_normalized"),
        ({"y": inferkit.OutputChecks(normalized=True)}, 0.25, "not_normalized"),
    ],
)
def test_a_bad_output_is_its_requests_alone(checks: Any, answer: float, reason: str) -> None:
    gate = Gate()

    def model(x: np.ndarray) -> np.ndarray:
        gate(x)
        return np.where(x == 1, np.float32(0.5), np.float32(answer))

    with inferkit.Batcher(double(model), output_checks=checks) as batcher:
        first = batcher.submit(row(1))
        gate.entered.wait()
        bad, good = batcher.submit(row(2)), batcher.submit(row(1))
        gate.opened.set()
        assert first.result().tolist() == good.result().tolist() == [0.5, 0.5]
        for failing in (bad.result, lambda: batcher(row(2))):
            with pytest.raises(inferkit.OutputError) as caught:
                failing()
            assert caught.value.reason == reason
        assert isinstance(bad.exception(), inferkit.OutputError)
        assert good.exception() is None
    assert [len(batch) for batch in gate.batches] == [1, 2, 1, 1]  # the bad one of two once more, and one by itself


def test_a_bad_request_fails_alone_with_its_cause() -> None:
    gate = Gate()

    def model(x: np.ndarray) -> np.ndarray:
        gate(x)
        if (x == 13).any():
            raise KeyError("thirteen")
        return x * 2

    with inferkit.Batcher(double(model)) as batcher:
        first = batcher.submit(row(0))
        gate.entered.wait()
        tickets = [batcher.submit(row(i)) for i in (12, 13, 14)]
        gate.opened.set()
        assert first.result().tolist() == [0, 0]
        assert tickets[0].result().tolist() == [24, 24]
        assert tickets[2].result().tolist() == [28, 28]
        with pytest.raises(inferkit.InferenceError, match="thirteen") as caught:
            tickets[1].result()
        assert isinstance(caught.value.__cause__, KeyError)
        with pytest.raises(inferkit.InferenceError):
            batcher(row(13))
        assert batcher.stats().failed == 2
        assert 0.3 < batcher.stats().inference_error_rate < 0.5


def test_an_output_without_the_batch_axis_is_an_error() -> None:
    model = inferkit.Model.from_callable(
        lambda x: x.sum(axis=0), inputs=[("x", "float32", (None, 2))], outputs=[("total", "float32", (None,))]
    )
    with inferkit.Batcher(model) as batcher, pytest.raises(inferkit.OutputError, match="total") as caught:
        batcher(np.ones((3, 2), np.float32))
    assert caught.value.reason == "shape"


# Admission


def test_a_full_queue_rejects(gate: Gate) -> None:
    with inferkit.Batcher(double(gate), max_queue_size=2) as batcher:
        tickets = [batcher.submit(row(0))]
        gate.entered.wait()
        tickets += [batcher.submit(row(i)) for i in (1, 2)]
        with pytest.raises(inferkit.QueueFullError):
            batcher.submit(row(3)).result()
        assert tickets[1].cancel()
        tickets[1] = batcher.submit(row(1))
        assert batcher.stats().queue_depth == 2
        assert batcher.stats().in_flight == 1
        assert batcher.stats().oldest_wait > 0
        gate.opened.set()
        assert [t.result().tolist() for t in tickets] == [[0, 0], [2, 2], [4, 4]]
        assert batcher.stats().rejected == 1


def test_a_full_queue_holds_the_submitter_back(gate: Gate) -> None:
    with inferkit.Batcher(double(gate), max_queue_size=1, on_full="wait", full_timeout=0.05) as batcher:
        tickets = [batcher.submit(row(0))]
        gate.entered.wait()
        tickets.append(batcher.submit(row(1)))
        start = time.monotonic()
        with pytest.raises(inferkit.QueueFullError):
            batcher.submit(row(2)).result()
        assert time.monotonic() - start >= 0.05
        gate.opened.set()
    with inferkit.Batcher(double(), max_queue_size=1, on_full="wait") as batcher, ThreadPoolExecutor(8) as pool:
        tickets = list(pool.map(batcher.submit, [row(i) for i in range(200)]))
        assert [t.result()[0] for t in tickets] == [2 * i for i in range(200)]


def test_priority_and_request_ids(gate: Gate) -> None:
    with inferkit.Batcher(double(gate), max_batch_size=1) as batcher:
        batcher.submit(row(0))
        gate.entered.wait()
        low, high = batcher.submit(row(1)), batcher.submit(row(2), priority=5, request_id="vip")
        gate.opened.set()
        low.result()
        assert high.request_id == "vip"
        assert isinstance(low.request_id, int)
        assert batcher.submit(row(1), request_id=77).request_id == 77
        for bad in ({"priority": 101}, {"request_id": ""}, {"timeout": float("nan")}):
            with pytest.raises(ValueError):
                batcher.submit(row(1), **bad)
        with pytest.raises(TypeError):
            batcher.submit(row(1), tiemout=1)
        with pytest.raises(TypeError):
            batcher(row(1), tiemout=1)
    assert [b[0, 0] for b in gate.batches[:3]] == [0, 2, 1]


def test_timing_and_repr() -> None:
    before = time.monotonic()
    with inferkit.Batcher(double()) as batcher:
        ticket = batcher.submit(np.ones((3, 2), np.float32), request_id="r")
        ticket.result()
        t = ticket.timing
        assert before <= t.enqueued <= t.dequeued <= t.started <= t.finished <= t.delivered <= time.monotonic()
        assert t.batch_size == 3
        assert "'r'" in repr(ticket)
        assert "batch_size=3" in repr(t)
        with pytest.raises(AttributeError):
            t.enqueued = 0.0
        assert "open" in repr(batcher)


# Cancellation and deadlines


def test_cancel(gate: Gate) -> None:
    with inferkit.Batcher(double(gate)) as batcher:
        running = batcher.submit(row(0))
        gate.entered.wait()
        waiting = batcher.submit(row(1))
        assert not waiting.done()
        assert waiting.cancel()
        assert not waiting.cancel()
        assert waiting.done()
        assert waiting.cancelled()
        assert running.cancel()
        for ticket in (waiting, running):
            with pytest.raises(inferkit.RequestCancelledError):
                ticket.result()
        gate.opened.set()
    assert len(gate.batches) == 1
    assert batcher.stats().cancelled == 2


def test_a_timeout_is_kept_where_the_caller_would_run_a_slow_callable(gate: Gate) -> None:
    with inferkit.Batcher(double(gate)) as batcher:
        start = time.monotonic()
        with pytest.raises(inferkit.DeadlineError):
            batcher(row(0), timeout=0.05)  # idle, but nobody knows how long it takes: a worker runs it
        assert time.monotonic() - start < 5
        assert gate.entered.is_set()
        gate.opened.set()
        while batcher.stats().in_flight:
            time.sleep(0.001)
        assert batcher(row(1)).tolist() == [2, 2]
        assert batcher.stats().dispatched["caller"] == 1


def test_what_cannot_be_in_time_is_refused_at_once_with_the_predicted_time() -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.03)
        return x

    with inferkit.Batcher(double(slow), max_batch_size=1, caller_runs=False) as batcher:
        for _ in range(6):
            batcher(row(0))
        ahead = [batcher.submit(row(0), priority=1) for _ in range(10)]  # 0.3 s
        with pytest.raises(inferkit.DeadlineError, match=r"has .* ms left, and the requests before it .* take about"):
            batcher.submit(row(1), timeout=0.1).result()
        assert batcher.stats().expired == 1
        for ticket in ahead:
            ticket.result(10)
        assert batcher.submit(row(1), timeout=30.0).result().tolist() == [1, 1]


def test_requests_that_were_cancelled_or_expired_keep_no_input(gate: Gate) -> None:
    def held() -> int:
        return sum(leak.count for leak in inferkit.BufferPool.default().leaks() if leak.tag == "request")

    with inferkit.Batcher(double(gate), max_batch_size=1) as batcher:
        running = batcher.submit(row(0))
        gate.entered.wait()
        tickets = [batcher.submit(row(0)) for _ in range(5)] + [batcher.submit(row(0), timeout=0.01) for _ in range(5)]
        for ticket in tickets[:5]:
            assert ticket.cancel()
        for ticket in tickets[5:]:
            with pytest.raises(inferkit.DeadlineError):
                ticket.result()
        assert held() == 1  # what runs
        gate.opened.set()
        running.result()


def test_deadlines_are_kept_while_the_worker_is_busy(gate: Gate) -> None:
    with inferkit.Batcher(double(gate)) as batcher:
        first = batcher.submit(row(0))
        gate.entered.wait()
        ticket = batcher.submit(row(1), timeout=0.02)
        start = time.monotonic()
        with pytest.raises(inferkit.DeadlineError):
            ticket.result()
        with pytest.raises(TimeoutError):
            batcher(row(2), timeout=0.02)
        assert time.monotonic() - start < 5
        assert batcher.stats().queue_depth == 0
        for timeout in (0, -1):
            with pytest.raises(inferkit.DeadlineError):
                batcher.submit(row(3), timeout=timeout).result()
        with pytest.raises(TimeoutError):
            first.result(0.01)
        assert not first.done()
        gate.opened.set()
        assert first.result(timeout=10).tolist() == [0, 0]
        assert batcher.stats().expired == 4


def test_max_delay_gathers() -> None:
    with inferkit.Batcher(double(), max_batch_size=4, max_delay=60) as batcher:
        tickets = [batcher.submit(row(i)) for i in range(4)]
        assert [t.result()[0] for t in tickets] == [0, 2, 4, 6]
        assert batcher.stats().dispatched["full"] == 1
    with inferkit.Batcher(double(), max_delay=0.01) as batcher:
        assert batcher(row(1)).tolist() == [2, 2]
        assert batcher.stats().dispatched["delay"] == 1


# The end


def test_close_drains_or_refuses(gate: Gate) -> None:
    batcher = inferkit.Batcher(double(gate), max_batch_size=1)
    running = batcher.submit(row(0))
    gate.entered.wait()
    waiting = batcher.submit(row(1))
    closer = threading.Thread(target=batcher.close, kwargs={"drain": False})
    closer.start()
    with pytest.raises(inferkit.ClosedError):
        waiting.result(10)
    gate.opened.set()
    closer.join()
    assert running.result().tolist() == [0, 0]
    for call in (batcher, lambda x: batcher.submit(x).result()):
        with pytest.raises(inferkit.ClosedError):
            call(row(1))
    batcher.close()
    assert batcher.closed
    with inferkit.Batcher(double(), max_delay=60) as drained:
        last = drained.submit(row(3))
    assert last.result().tolist() == [6, 6]


def test_drain_has_a_timeout(gate: Gate) -> None:
    batcher = inferkit.Batcher(double(gate))
    ticket = batcher.submit(row(1))
    gate.entered.wait()
    assert not batcher.drain(0.01)
    gate.opened.set()
    assert batcher.drain()
    assert ticket.done()
    batcher.close()


def test_an_error_in_the_block_does_not_wait_for_the_queue(gate: Gate) -> None:
    batcher = inferkit.Batcher(double(gate), max_batch_size=1)
    running = batcher.submit(row(0))
    gate.entered.wait()
    waiting = batcher.submit(row(1))
    threading.Timer(0.05, gate.opened.set).start()
    with pytest.raises(ZeroDivisionError), batcher:
        raise ZeroDivisionError
    assert isinstance(waiting.exception(), inferkit.ClosedError)
    assert running.exception() is None


@pytest.mark.filterwarnings("ignore:unclosed batcher:ResourceWarning")
def test_tickets_keep_a_dropped_batcher_alive() -> None:
    ticket = inferkit.Batcher(double()).submit(row(2))
    gc.collect()
    assert ticket.result().tolist() == [4, 4]
    del ticket
    abandoned = inferkit.Batcher(double(), max_delay=60)
    abandoned.submit(row(1))
    with pytest.warns(ResourceWarning, match="1 or more of its requests have no answer"):
        del abandoned  # must neither hang nor leak


def test_a_model_that_calls_its_own_batcher_gets_an_error() -> None:
    box: list[inferkit.Batcher] = []
    model = double(lambda x: box[0](x[0])[None] * 2)
    with inferkit.Batcher(model) as batcher:
        box.append(batcher)
        for call in (lambda: batcher(row(1)), lambda: batcher.submit(row(1)).result(10)):
            with pytest.raises(inferkit.InferenceError, match="must not wait"):
                call()
        box.clear()


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["ok", "bad", "nan", "cancel", "expire", "drop"]), st.integers(1, 3)), max_size=40
    ),
    seed=st.integers(0, 99),
)
def test_any_mixture_ends_once(plan: list[tuple[str, int]], seed: int) -> None:
    def model(x: np.ndarray) -> np.ndarray:
        if (x == -1).any():
            raise ValueError("bad")
        return x * 2

    invalid = 0
    with inferkit.Batcher(double(model), max_batch_size=4, max_queue_size=None, workers=1 + seed % 2) as batcher:
        kept = []
        for kind, rows in plan:
            x = np.full((rows, 2), -1 if kind == "bad" else np.nan if kind == "nan" else 3, np.float32)
            if kind == "nan":
                with pytest.raises(inferkit.ValidationError):
                    batcher.submit(x).result()
                invalid += 1
                continue
            ticket = batcher.submit(x, timeout=1e-5 if kind == "expire" else None)
            if kind == "cancel":
                ticket.cancel()
            if kind != "drop":
                kept.append((kind, ticket))
        for kind, ticket in kept:
            error = ticket.exception(30)
            if error is None:
                assert (ticket.result() == 6).all()
            allowed = {
                "bad": inferkit.InferenceError,
                "cancel": inferkit.RequestCancelledError,
                "expire": inferkit.DeadlineError,
            }
            assert (error is None and kind != "bad") or isinstance(error, allowed[kind])
    stats = batcher.stats()
    assert stats.completed + stats.failed + stats.cancelled + stats.expired == len(plan) - invalid
    assert stats.invalid == invalid
    assert stats.queue_depth == stats.in_flight == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 0},
        {"workers": 0},
        {"max_delay": -1.0},
        {"max_queue_size": 0},
        {"max_concurrent": 0},
        {"on_full": "explode"},
        {"full_timeout": -1.0},
        {"output_checks": {"z": inferkit.OutputChecks()}},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        inferkit.Batcher(double(), **options)


def test_not_a_model() -> None:
    with pytest.raises(TypeError, match="Model"):
        inferkit.Batcher(lambda x: x)  # type: ignore[arg-type]


# Processes


def test_ctrl_c_while_waiting(gate: Gate) -> None:
    with inferkit.Batcher(double(gate)) as batcher:
        ticket = batcher.submit(row(0))
        gate.entered.wait()
        for wait in (ticket.result, lambda: batcher(row(1)), batcher.drain):
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                wait()
            timer.join()
        assert batcher.stats().cancelled == 1  # the call's: nobody would have come for its answer
        gate.opened.set()
        assert ticket.result().tolist() == [0, 0]


def test_fork(fresh_python: Callable[..., Any], digits_path: Path) -> None:
    code = """
import os, sys, numpy as np, inferkit
model = inferkit.Model.load(sys.argv[1])
batcher = inferkit.Batcher(model, max_delay=60)
x = np.zeros(64, np.float32)
ticket = batcher.submit(x)
pid = os.fork()
if pid == 0:
    for call in (lambda: batcher(x), lambda: batcher.submit(x).result(), ticket.result):
        try:
            call()
        except inferkit.ClosedError:
            continue
        os._exit(1)
    batcher.close()
    with inferkit.Batcher(model) as own:
        same = (own(x) == model(x)).all()
    sys.exit(0 if same else 2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
batcher.close()
assert (ticket.result() == model(x)).all()
print("parent done")
"""
    done = fresh_python(code, str(digits_path))
    assert done.returncode == 0, done.stderr
    assert "parent done" in done.stdout


def test_the_interpreter_leaves_with_work_in_flight(fresh_python: Callable[..., Any]) -> None:
    code = """
import time, numpy as np, inferkit
slow = inferkit.Model.from_callable(lambda x: (time.sleep(0.2), x)[1],
    inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
batcher = inferkit.Batcher(slow, max_batch_size=1)
tickets = [batcher.submit(np.zeros(2, np.float32)) for _ in range(50)]
"""
    start = time.monotonic()
    done = fresh_python(code)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 8


def dropped(fresh_python: Callable[..., Any], lines: str) -> str:
    """What a process says on its standard error that makes a batcher `b` of a model that waits for `release`."""
    done = fresh_python(
        "import gc, threading, warnings, numpy as np, inferkit\n"
        "warnings.simplefilter('always')\n"
        "release, inside = threading.Event(), threading.Event()\n"
        "def run(x):\n    inside.set(); release.wait(30); return x\n"
        "port = [('x', 'float32', (None, 2))]\n"
        "x = np.ones(2, np.float32)\n"
        "b = inferkit.Batcher(inferkit.Model.from_callable(run, port, port), name='lost', caller_runs=False)\n"
        + lines
        + "release.set()\n"
    )
    assert done.returncode == 0, done.stderr
    return str(done.stderr)


@pytest.mark.parametrize(
    "lines",
    [
        "b.submit(x); inside.wait(30)\n",
        "b.submit(x); inside.wait(30); [b.submit(x) for _ in range(3)]\n",
        "t = b.submit(x); inside.wait(30)\n",
        "b.submit(x); inside.wait(30); b.drain(0.01)\n",
        "b.cycle = [b]; b.submit(x); inside.wait(30)\n",
    ],
    ids=["running", "waiting", "ticket kept", "draining", "in a cycle"],
)
def test_an_unclosed_batcher_with_requests_warns(fresh_python: Callable[..., Any], lines: str) -> None:
    lines = lines.replace(
        "b.cycle = [b]", "b = type('Sub', (inferkit.Batcher,), {})(b.model, name='lost')\nb.cycle = [b]"
    )
    told = dropped(fresh_python, lines + "del b; gc.collect()\nprint('on')\n")
    assert told.count("ResourceWarning: unclosed batcher lost") == 1
    assert "`with` block" in told


@pytest.mark.parametrize(
    "lines",
    [
        "del b; gc.collect()\n",
        "release.set(); b.submit(x).result(); del b; gc.collect()\n",
        "release.set(); [t.result() for t in [b.submit(x) for _ in range(100)]]; del b; gc.collect()\n",
        "b.submit(x); inside.wait(30); b.close(timeout=0); del b; gc.collect()\n",
        "release.set(); b.submit(x); b.close(); del b; gc.collect()\n",
        "inferkit.Batcher.__new__(inferkit.Batcher); gc.collect()\n",
        "try:\n    inferkit.Batcher(b.model, workers=0)\nexcept ValueError:\n    gc.collect()\n",
    ],
    ids=["idle", "answered", "all answered", "closed", "drained", "without __init__", "failed __init__"],
)
def test_nothing_lost_and_no_warning(fresh_python: Callable[..., Any], lines: str) -> None:
    assert dropped(fresh_python, lines) == ""
