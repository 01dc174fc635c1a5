"""Arrays and objects that say of themselves what is not so: what they are is read from numpy's own record of them."""

from __future__ import annotations

import mmap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit
from inferkit import _core

X = np.full((2, 4), 7, np.float32)


class Writable(np.ndarray):
    flags = property(lambda self: types.SimpleNamespace(writeable=True))  # type: ignore[assignment]


class Odd(np.ndarray):
    """Nothing that can be asked of it tells the truth, or anything."""

    shape = property(lambda self: (99, 99))  # type: ignore[assignment]
    strides = dtype = flags = data = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __array_interface__ = property(lambda self: 1 / 0)  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("__class__ was asked")


def model(*nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("x",)) -> inferkit.Model:
    def port(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])

    graph = helper.make_graph(nodes, "g", [port(name) for name in inputs], [port("y")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


def relu() -> inferkit.Model:
    return model(helper.make_node("Relu", ["x"], ["y"]))


def test_read_only_memory_is_not_written(tmp_path: Path) -> None:
    content = bytes(32)
    (tmp_path / "map").write_bytes(bytes(4096))
    with open(tmp_path / "map", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ)  # a write to it would end the process
    for memory in (content, mapped):
        target = np.frombuffer(memory, np.float32, 8).reshape(2, 4).view(Writable)
        with pytest.raises(inferkit.ValidationError, match="read-only"):
            relu().run({"x": X}, out={"y": target})
    assert not any(content)


@pytest.mark.parametrize("flags", [5, types.SimpleNamespace(writeable="yes"), types.SimpleNamespace(writeable=False)])
def test_flags_of_a_subclass_are_not_asked(flags: object) -> None:
    said = type("Said", (np.ndarray,), {"flags": property(lambda self: flags)})
    target = np.zeros((2, 4), np.float32)
    relu().run({"x": X}, out={"y": target.view(said)})
    assert (target == 7).all()


def test_an_array_is_what_numpy_made_it() -> None:
    one = relu()
    target = np.zeros((2, 4), np.float32)
    assert (one(X.view(Odd)) == 7).all()
    one.run({"x": X.view(Odd)}, out={"y": target.view(Odd)})
    assert (target == 7).all()
    with inferkit.Batcher(one) as batcher:
        assert (batcher(X.view(Odd)) == 7).all()
        assert (batcher.submit(X.view(Odd)).result() == 7).all()


def test_a_masked_array_that_denies_it() -> None:
    class Denies(np.ma.MaskedArray):
        __class__ = np.ndarray  # type: ignore[assignment]

    with pytest.raises(inferkit.ValidationError, match="masked"):
        relu()(Denies(X))


def test_records_with_the_name_of_a_small_type() -> None:
    named = type("bfloat16", (np.void,), {})
    with pytest.raises(inferkit.ValidationError, match=r"has dtype \|V2; expected float32: convert it"):
        relu()(np.zeros((2, 4), np.dtype((named, 2))))


def test_a_refused_target_is_called_what_it_is() -> None:
    for target in (np.zeros((2, 4), ">f4"), np.ma.zeros((2, 4), np.float32), np.zeros((1,) * 9, np.float32)):
        with pytest.raises(inferkit.ValidationError, match=r"^out\['y'\]"):
            relu().run({"x": X}, out={"y": target})


def test_an_object_that_calls_itself_a_clock() -> None:
    class Liar:
        __class__ = _core.ManualClock  # type: ignore[assignment]

    with pytest.raises(TypeError, match="clock must be"):
        inferkit.Batcher(relu(), _clock=Liar())  # type: ignore[arg-type]


class Runs:
    """Its memory is that of `array`; whoever asks for it runs `act` first."""

    def __init__(self, array: np.ndarray, act: Callable[[], object]) -> None:
        self.array = array
        self.act = act

    def __dlpack__(self, **options: Any) -> Any:
        self.act()
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


ASKS: list[Callable[..., Any]] = [
    lambda model, batcher, a, b: model(a, b),
    lambda model, batcher, a, b: model.run({"x": a, "z": b}),
    lambda model, batcher, a, b: batcher(a, b),
    lambda model, batcher, a, b: batcher.submit({"x": a, "z": b}).result(),
]


@pytest.mark.parametrize("ask", ASKS)
def test_python_of_a_later_input_runs_before_the_first_is_looked_at(ask: Callable[..., Any]) -> None:
    """The array's memory has gone back to the system by then: reading it would be the end."""
    add = model(helper.make_node("Add", ["x", "z"], ["y"]), inputs=("x", "z"))
    rows = 1 << 18
    with inferkit.Batcher(add, max_batch_size=rows) as batcher:
        first = np.ones((rows, 4), np.float32)
        later = Runs(X, lambda: first.resize((2, 4), refcheck=False))
        answer = ask(add, batcher, first, later)
        answer = answer["y"] if isinstance(answer, dict) else answer
        assert (answer == 8).all()


@pytest.mark.parametrize("call", ["__call__", "submit"])
def test_python_of_an_option_runs_before_an_input_is_looked_at(call: str) -> None:
    class Priority:
        def __index__(self) -> int:
            first.resize((2, 4), refcheck=False)
            return 0

    with inferkit.Batcher(relu(), max_batch_size=1 << 18) as batcher:
        first = np.ones((1 << 18, 4), np.float32)
        answer = getattr(batcher, call)(first, priority=Priority())
        answer = answer.result() if isinstance(answer, inferkit.Ticket) else answer
        assert answer.shape == (2, 4)
