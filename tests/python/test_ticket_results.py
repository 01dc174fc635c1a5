"""Asking a ticket for its answer: half-way failures, re-entrance, many threads. The same answer, or the same error."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import inferkit

try:
    from _testcapi import remove_mem_hooks, set_nomemory
except ImportError:
    set_nomemory = None

OUTPUTS = 25


@pytest.fixture(autouse=True)
def the_collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.enable()


def fan(outputs: int = OUTPUTS, fn: Callable[..., Any] | None = None) -> inferkit.Model:
    """One input, many outputs: many arrays are made for one answer."""
    return inferkit.Model.from_callable(
        fn or (lambda x: [x + i for i in range(outputs)]),
        inputs=[("x", "float32", (None, 2))],
        outputs=[(f"y{i}", "float32", (None, 2)) for i in range(outputs)],
    )


def native_fan(outputs: int) -> inferkit.Model:
    """The answers of :func:`fan` from a graph: no worker runs Python for it."""
    nodes = [f"y{i} = Add(x, c{i})" for i in range(outputs)]
    constants = ", ".join(f"float[1] c{i} = {{{i}}}" for i in range(outputs))
    results = ", ".join(f"float[n, 2] y{i}" for i in range(outputs))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 2] x) => ({results}) <{constants}> {{ {" ".join(nodes)} }}"""
    return inferkit.Model.load(onnx.parser.parse_model(text).SerializeToString())


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def finished(batcher: inferkit.Batcher, x: Any) -> inferkit.Ticket:
    ticket = batcher.submit(x)
    assert ticket.exception(timeout=60) is None
    return ticket


class Reentering:
    """In a reference cycle: the collector runs its finalizer wherever it happens to run."""

    act: Callable[[], object] | None = None

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        if Reentering.act:
            Reentering.act()


@pytest.mark.parametrize("named", [False, True])
def test_a_finalizer_asks_the_ticket_that_is_being_asked(named: bool) -> None:
    with inferkit.Batcher(fan(), caller_runs=False) as batcher:
        for _ in range(50):
            ticket = finished(batcher, {"x": row(1)} if named else row(1))
            inner: list[Any] = []
            Reentering.act = lambda ticket=ticket, inner=inner: inner.append(ticket.result())
            gc.disable()
            _ = [Reentering() for _ in range(3)]
            del _
            gc.set_threshold(1, 1, 1)
            gc.enable()
            outer = ticket.result()
            gc.disable()
            Reentering.act = None
            assert all(answer is outer for answer in inner)
            assert ticket.result() is outer
            values = list(outer.values()) if named else list(outer)
            assert [value[0] for value in values] == [1 + i for i in range(OUTPUTS)]


def test_many_threads_ask_for_an_answer_that_must_import_its_type(
    fresh_python: Callable[..., Any], tmp_path: Path
) -> None:
    """To make the first array of a type that numpy lacks imports a package, which lets go of the GIL."""
    pytest.importorskip("ml_dtypes")
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.BFLOAT16)],
        "cast",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.BFLOAT16, ["n", 4])],
    )
    path = tmp_path / "cast.onnx"
    path.write_bytes(onnx.helper.make_model(graph, ir_version=9).SerializeToString())
    ran = fresh_python(
        f"""
import sys, threading
import numpy as np
import inferkit
model = inferkit.Model.load({str(path)!r})
sys.setswitchinterval(1e-6)
with inferkit.Batcher(model, caller_runs=False) as batcher:
    ticket = batcher.submit(np.ones(4, np.float32))
    while ticket.timing.finished is None:
        pass
    assert "ml_dtypes" not in sys.modules
    barrier, answers = threading.Barrier(8), []
    def ask():
        barrier.wait()
        answers.append(ticket.result())
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
assert len(answers) == 8 and all(answer is answers[0] for answer in answers), answers
print(answers[0].astype(np.float32).tolist())
"""
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[1.0, 1.0, 1.0, 1.0]"


def test_memory_that_runs_out_half_way_and_comes_back(fresh_python: Callable[..., Any]) -> None:
    if inferkit.build_info()["sanitizers"]:
        pytest.skip("a sanitizer needs more address space than the limit leaves")
    ran = fresh_python(
        """
import resource
import numpy as np
import inferkit
wide = (None, 20_000_000)
model = inferkit.Model.from_callable(
    lambda x: np.full((len(x), wide[1]), x[0, 0], np.float32),
    inputs=[("x", "float32", (None, 1))], outputs=[("y", "float32", wide)])
with inferkit.Batcher(model, caller_runs=False) as batcher:
    ticket = batcher.submit(np.ones(1, np.float32))
    assert ticket.exception(60) is None
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, hard))
    for _ in range(3):
        try:
            ticket.result()
            raise SystemExit("there was memory after all")
        except MemoryError:
            print("MemoryError")
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    answer = ticket.result()
    assert answer is ticket.result()
    print(answer.shape, float(answer.sum()))
    del ticket, answer
assert not inferkit.BufferPool.default().leaks()
"""
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n")[:4] == ["MemoryError"] * 3 + ["(20000000,) 20000000.0"]


needs_nomemory = pytest.mark.skipif(
    set_nomemory is None or bool(inferkit.build_info()["sanitizers"]),
    reason="needs a Python whose _testcapi lets its allocations fail",
)


@needs_nomemory
@pytest.mark.parametrize("named", [False, True])
def test_every_allocation_of_result_fails_once(named: bool) -> None:
    with inferkit.Batcher(fan(3), caller_runs=False) as batcher:
        tickets = iter([finished(batcher, {"x": row(i)} if named else row(i)) for i in range(400)])
        asked: list[inferkit.Ticket] = []

        finished(batcher, row(0)).result()  # what is imported once has been
        gc.disable()
        for n in range(400):
            asked.append(next(tickets))
            set_nomemory(n, n + 1)
            failed = False
            try:
                asked[-1].result()
            except MemoryError:
                failed = True
            finally:
                remove_mem_hooks()
            answer = asked[-1].result()
            assert answer is asked[-1].result()
            values = list(answer.values()) if named else list(answer)
            assert [float(value[0]) for value in values] == [n, n + 1, n + 2]
            if not failed:
                return
    raise AssertionError("it never came to an end")


@needs_nomemory
@pytest.mark.parametrize("call", ["call", "submit", "submit with a timeout"])
def test_every_allocation_of_a_submission_fails_once(call: str) -> None:
    x = row(3)
    # The hooks swap Python's allocators under threads that do not hold the GIL, which may end the process: where a
    # worker runs the model, it is one that runs no Python.
    model = fan(2) if call == "call" else native_fan(2)
    with inferkit.Batcher(model, max_queue_size=2, caller_runs=call == "call") as batcher:

        def step() -> Any:
            if call == "call":
                return batcher(x)
            return batcher.submit(x, timeout=30.0 if call.endswith("timeout") else None)

        ready = step()
        if call != "call":
            ready.result()
        gc.disable()
        for n in range(10_000):
            set_nomemory(n, n + 1)
            answer: Any = None
            try:
                answer = step()
            except MemoryError:
                pass
            except inferkit.InferenceError as error:
                # The model's function found no memory, in the caller's own thread.
                assert isinstance(error.__cause__, MemoryError)  # noqa: PT017
            finally:
                remove_mem_hooks()
            if answer is None:
                continue
            values = answer if call == "call" else answer.result()
            assert [float(value[0]) for value in values] == [3, 4]
            break
        assert n > 0
        assert batcher.drain(timeout=60)
        assert batcher.stats().queue_depth == 0


def test_a_failed_ticket_gives_an_equal_error_every_time() -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        raise KeyError("thirteen")

    with inferkit.Batcher(fan(1, fails), caller_runs=False) as batcher:
        ticket = batcher.submit(row(1))
        errors: list[BaseException] = []
        for _ in range(20):
            with pytest.raises(inferkit.InferenceError) as caught:
                ticket.result()
            errors.append(caught.value)
        errors.append(ticket.exception())  # type: ignore[arg-type]
        assert len({(type(error), str(error)) for error in errors}) == 1
        causes = [error.__cause__ for error in errors]
        assert all(cause is causes[0] for cause in causes)
        assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors[:-1]}) == 1
        assert len(traceback.extract_tb(causes[0].__traceback__)) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_asks_the_program_to_stop_does_not_grow_each_time(stop: type[BaseException]) -> None:
    def stops(x: np.ndarray) -> np.ndarray:
        raise stop

    with inferkit.Batcher(fan(1, stops), caller_runs=False) as batcher:
        ticket = batcher.submit(row(1))
        lengths = []
        for _ in range(20):
            with pytest.raises(stop) as caught:
                ticket.result()
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert len(set(lengths)) == 1


def test_the_errors_of_a_batch_are_those_of_each_request() -> None:
    opened = threading.Event()

    def fails(x: np.ndarray) -> np.ndarray:
        opened.wait(60)
        raise ValueError(len(x))

    with inferkit.Batcher(fan(1, fails), caller_runs=False, isolate_failures=False) as batcher:
        first = batcher.submit(row(0))
        together = [batcher.submit(row(i)) for i in range(4)]
        opened.set()
        causes = []
        for ticket in [first, *together]:
            with pytest.raises(inferkit.InferenceError) as caught:
                ticket.result(60)
            again = ticket.exception()
            assert again is not None
            assert again.__cause__ is caught.value.__cause__
            causes.append(caught.value.__cause__)
        assert {type(cause) for cause in causes} == {ValueError}
        assert len({id(cause) for cause in causes}) < len(causes)  # one batch, one error


def test_threads_and_tasks_ask_at_once() -> None:
    sys.setswitchinterval(1e-5)
    try:
        with inferkit.Batcher(fan(), caller_runs=False) as batcher:

            async def ask(ticket: inferkit.Ticket) -> Any:
                return await ticket

            async def once() -> None:
                ticket = batcher.submit(row(1))
                answers: list[Any] = []
                threads = [threading.Thread(target=lambda: answers.append(ticket.result())) for _ in range(4)]
                for thread in threads:
                    thread.start()
                awaited = await asyncio.gather(*[ask(ticket) for _ in range(4)])
                for thread in threads:
                    await asyncio.to_thread(thread.join)
                answers += awaited
                assert len(answers) == 8
                assert all(answer is answers[0] for answer in answers)

            async def main() -> None:
                for _ in range(20):
                    await once()

            asyncio.run(main())
    finally:
        sys.setswitchinterval(0.005)


def test_the_batch_memory_goes_with_the_answer() -> None:
    def lent() -> int:
        return sum(leak.count for leak in inferkit.BufferPool.default().leaks() if leak.tag == "batch output")

    gc.collect()
    before = lent()
    with inferkit.Batcher(fan(2), caller_runs=False) as batcher:
        ticket = finished(batcher, row(1))
        batcher.drain()  # the worker has let go of its batch, too
        assert lent() == before + 2
        ticket.result()
        assert lent() == before
        ticket.result()
