"""The garbage collector shows every tuple, list and dict there is to whoever asks, in whatever state it is."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit

X = np.ones((2, 4), np.float32)
SPEC = ("float32", (None, 4))
PORTS = {"inputs": [("x", *SPEC)], "outputs": [("y", *SPEC), ("z", *SPEC)]}


def staged() -> inferkit.Model:
    """The shape of what NonZero gives is known in the middle of a run, without the GIL."""
    nodes = [helper.make_node("NonZero", ["x"], ["y"]), helper.make_node("Identity", ["x"], ["z"])]
    outputs = [("y", TensorProto.INT64, [2, "K"]), ("z", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(*port) for port in outputs],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


@pytest.fixture
def kept() -> Iterator[list[Any]]:
    """What is kept here goes before the next test."""
    objects: list[Any] = []
    yield objects
    objects.clear()
    gc.collect()


def test_a_callable_may_keep_every_object(kept: list[Any]) -> None:
    def fn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept.append(gc.get_objects())
        return x + 1, x + 2

    model = inferkit.Model.from_callable(fn, **PORTS)  # type: ignore[arg-type]
    calls: list[Callable[[], Any]] = [lambda: model(X), lambda: model.run({"x": X}).values()]
    with inferkit.Batcher(model) as batcher:
        calls += [lambda: batcher(X), lambda: batcher.submit(X).result(), lambda: batcher({"x": X}).values()]
        for call in calls:
            assert [array[0, 0] for array in call()] == [2, 3]
            kept.clear()


def test_an_output_that_is_read_by_python_may_keep_every_object(kept: list[Any]) -> None:
    class Output:
        def __dlpack__(self, **options: Any) -> Any:
            kept.append(gc.get_objects())
            return X.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return X.__dlpack_device__()

    model = inferkit.Model.from_callable(lambda x: (Output(), Output()), **PORTS)  # type: ignore[arg-type]
    assert len(model(X)) == 2


def test_another_thread_may_look_at_every_object_during_a_run() -> None:
    """Both ways: what it holds must not stop the run, and what it reads must be whole."""
    model = staged()
    rows = np.ones((20_000, 4), np.float32)
    stop = threading.Event()
    rounds = 0

    def look() -> None:
        nonlocal rounds
        while not stop.is_set():
            # Lists the tuples' items, which ends the process where one of them is null.
            held = [list(o) for o in gc.get_objects() if type(o) is tuple and len(o) == 2]
            assert held
            rounds += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        until = time.monotonic() + 30
        while rounds < 20 and time.monotonic() < until:
            found, same = model(rows)
            assert found.shape == (2, rows.size)
            assert same.shape == rows.shape
    finally:
        stop.set()
        thread.join()


# In a process of its own: each of the many rounds looks at all that the process holds.
LOOKED_AT = """
import gc, sys
sys.path.insert(0, sys.argv[1])
import inferkit, test_visible_objects

def look(phase, _):
    if phase == "start":
        for held in gc.get_objects():
            if type(held) in (list, tuple):
                list(held)

X = test_visible_objects.X
model = inferkit.Model.from_callable(lambda x: (x, x), **test_visible_objects.PORTS)
thresholds = gc.get_threshold()
inferkit.tracing.trace_steps(capacity=1024)
steps = test_visible_objects.staged()
with inferkit.Batcher(model, trace_size=64) as batcher:
    for _ in range(3):
        batcher(X)
        steps(X)
    gc.callbacks.append(look)
    gc.set_threshold(1)
    asked = [bool(ask()) for ask in (lambda: batcher._trace(0), inferkit._core.traced_steps, batcher.stats)]
    asked.append(len(batcher(X)) == 2)
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(look)
print(asked)
"""


def test_a_callback_of_the_collector_may_look_at_what_is_being_made(fresh_python: Callable[..., Any]) -> None:
    """It runs in the middle of whatever allocates: of the lists that tell of requests and steps, for instance."""
    done = fresh_python(LOOKED_AT, str(Path(__file__).parent))
    assert done.stdout.split() == ["[True,", "True,", "True,", "True]"], done.stderr
