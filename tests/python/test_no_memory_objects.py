"""Where Python has no memory for what a call is to return: MemoryError, whatever the call, and the next one works."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _core

try:
    from _testcapi import remove_mem_hooks, set_nomemory
except ImportError:
    set_nomemory = None

pytestmark = [
    pytest.mark.skipif(
        set_nomemory is None or bool(inferkit.build_info()["sanitizers"]),
        reason="needs a Python whose _testcapi lets its allocations fail",
    ),
    # Of a batcher that was half made: a __del__ can be short of memory, too.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

onnx = pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture(autouse=True)
def _no_other_thread_allocates() -> None:
    """The allocations of all threads fail, and tqdm leaves one behind that wakes up every ten seconds."""
    bars = sys.modules.get("tqdm")
    monitor = bars.tqdm.monitor if bars else None
    if monitor is not None:
        monitor.exit()


X = np.ones((1, 2), np.float32)
Calls = dict[str, Callable[[], Any]]


def model_file(folder: pathlib.Path) -> str:
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, f32, [None, 2]) for name in "xy"]
    addend = helper.make_tensor("c", f32, [2], [1.0, 2.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "add", ports[:1], ports[1:], [addend])
    path = folder / "add.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)  # Python itself says of a Path that it is no path where it has no memory


def callable_model() -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(lambda x: x * 2, inputs=[("x", *spec)], outputs=[("y", *spec)])


def properties(what: str, thing: Any) -> Calls:
    names = [name for name in dir(thing) if not name.startswith("__")]
    return {f"{what}.{name}": functools.partial(getattr, thing, name) for name in names}


def constructors(folder: pathlib.Path) -> Calls:
    path, model = model_file(folder), callable_model()
    weights = str(folder / "w.safetensors")
    safetensors.save_file({"a": np.ones(4, np.float32)}, weights)
    content, opened = pathlib.Path(path).read_bytes(), inferkit.Weights.open(weights)
    derived = type("Derived", (inferkit.BufferPool,), {})
    both = type("Both", (inferkit.BufferPool, inferkit.Model), {})
    return {
        "BufferPool": inferkit.BufferPool,
        "BufferPool.__new__": lambda: inferkit.BufferPool.__new__(inferkit.BufferPool),
        "derived": derived,
        "derived twice": lambda: both.__new__(both),
        "derived just now": lambda: type("New", (inferkit.BufferPool,), {})(),
        "derived twice just now": lambda: (lambda new: new.__new__(new))(type("New", both.__bases__, {})),
        "default": inferkit.BufferPool.default,
        "Model.load": lambda: inferkit.Model.load(path),
        "Model.load of bytes": lambda: inferkit.Model.load(content),
        "from_callable": callable_model,
        "Batcher": lambda: inferkit.Batcher(model).close(),
        "InputChecks": lambda: _core.InputChecks(finite=False),
        "OutputChecks": inferkit.OutputChecks,
        "ManualClock": _core.ManualClock,
        "Weights.open": lambda: inferkit.Weights.open(weights),
        "weights[]": lambda: opened["a"],
        **properties("weights", opened),
    }


def calls(folder: pathlib.Path) -> Calls:
    model = inferkit.Model.load(model_file(folder))
    batcher, pool = inferkit.Batcher(model), inferkit.BufferPool()
    ticket, kept = batcher.submit(X), pool.acquire(100_000)  # no number that Python has ready
    ticket.result()
    of_kept = functools.partial(len, kept)
    return {
        "model()": lambda: model(X),
        "model.explain": model.explain,
        "model.profile": lambda: model.profile(X),
        "model.memory": model.memory,
        "batcher()": lambda: batcher(X),
        "batcher.submit": lambda: batcher.submit(X).result(),
        "batcher.stats": batcher.stats,
        "batcher._series": batcher._series,
        "batcher._trace": lambda: batcher._trace(0),
        "pool.acquire": lambda: pool.acquire(10),
        "pool.stats": pool.stats,
        "pool.leaks": lambda: (pool.leaks(), of_kept()),
        "build_info": inferkit.build_info,
        "error_table": _core.error_table,
        **properties("timing", ticket.timing),
        **properties("pool stats", pool.stats()),
        **properties("leaks", pool.leaks()[0]),
        **properties("buffer", kept),
        "resident_bytes": _core.resident_bytes,
        "stats as text": lambda: str(batcher.stats()),
        **properties("model", model),
        **properties("batcher", batcher),
        **{
            f"repr {type(o).__name__}": functools.partial(repr, o)
            for o in (ticket, ticket.timing, model, batcher, pool)
        },
    }


def wrong_calls(folder: pathlib.Path) -> Calls:
    model, pool = callable_model(), inferkit.BufferPool()
    batcher = inferkit.Batcher(model)
    raw: Any = _core.OutputChecks
    acquire: Any = pool.acquire
    return {
        "positional": lambda: raw(1, 2, 3),
        "unknown name": lambda: raw(nope="x" * 50),
        "unknown name, not ASCII": lambda: acquire(**{"é" * 40: 1}),
        "unknown name, no UTF-8": lambda: acquire(**{"é\ud800": 1}),
        "type": lambda: acquire("a", "b"),
        "type of a stub's": lambda: _core.explain_model(3, 4),  # type: ignore[arg-type]
        "no such file": lambda: inferkit.Weights.open(str(folder / "none")),
        "shape": lambda: model(np.ones(3)),
        "shape for a batcher": lambda: batcher(np.ones((1, 3), np.float32)),
        "no constructor": lambda: inferkit.Weights(),
        "not initialised": inferkit.BufferPool.__new__(inferkit.BufferPool).stats,
    }


def outcome(call: Callable[[], Any]) -> type:
    """Of what type the error is that it raises; NoneType where it raises none."""
    try:
        call()
    except SystemError as error:
        # Python itself, for a call of a function in Python whose frame has no place.
        return MemoryError if str(error) == "error return without exception set" else SystemError
    except BaseException as error:
        return type(error)
    return type(None)


@pytest.mark.parametrize("table", [constructors, calls, wrong_calls])
def test_every_allocation_of_every_call_fails_once(
    table: Callable[[pathlib.Path], Calls], tmp_path: pathlib.Path
) -> None:
    other: dict[str, set[str]] = {}
    failures = 0
    for name, call in table(tmp_path).items():
        usual = outcome(call)
        at = worked = 0
        while worked < 30:  # in a row: not every allocation is done in every call
            assert at < 4000, f"{name} does not end"
            set_nomemory(at, at + 1)
            try:
                got = outcome(call)
            finally:
                remove_mem_hooks()
            if got == usual:
                worked += 1
            elif issubclass(got, MemoryError):
                failures, worked = failures + 1, 0
            else:
                worked = 0
                other.setdefault(name, set()).add(got.__name__)
            at += 1
        assert outcome(call) == usual
    assert not other
    assert failures > 100
