"""A request that ends with ValidationError is counted as invalid, once, whatever finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit

X = np.ones((2, 4), np.float32)

INVALID: dict[str, tuple[Any, ...]] = {
    "a set": ({1.0, 2, 3, 4},),
    "objects": (X.astype(object),),
    "big-endian": (X.astype(">f4"),),
    "another dtype": (X.astype(float),),
    "nine dimensions": (np.ones((1,) * 9, np.float32),),
    "three dimensions": (X[None],),
    "two inputs": (X, X),
    "no input": (),
    "an unknown name": ({"q": X},),
    "a name too many": ({"x": X, "q": X},),
    "no name": ({},),
    "another shape": (np.ones((2, 5), np.float32),),
    "empty": (np.ones((0, 4), np.float32),),
    "too many rows": (np.ones((1000, 4), np.float32),),
    "masked": (np.ma.masked_array(X),),
    "not finite": (X * np.nan,),
    "not finite, in a copy": ((X * np.inf)[::-1],),
    "bytes": (b"1234",),
    "nothing": (None,),
}


def relu(shape: tuple[Any, ...] = ("N", 4)) -> inferkit.Model:
    def port(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [port("x")], [port("y")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


async def submit_on_loop(batcher: inferkit.Batcher, *inputs: Any) -> Any:
    return await batcher.submit(*inputs)


CALLS: list[Callable[..., Any]] = [
    lambda batcher, *inputs: batcher(*inputs),
    lambda batcher, *inputs: batcher.submit(*inputs).result(),
    lambda batcher, *inputs: asyncio.run(submit_on_loop(batcher, *inputs)),
]


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (X.astype(object), "object"),
        (X.astype(">f4"), ">f4"),
        (X.astype("M8[s]"), r"datetime64\[s\]"),
        (X.astype(np.longdouble), "float128"),
        (X.astype(float), "float64"),
    ],
)
def test_a_dtype_that_does_not_fit_names_the_one_that_does(given: np.ndarray, dtype: str) -> None:
    said = rf"^input 'x' has dtype {dtype}; expected float32: convert it with \.astype\('float32'\)$"
    model = relu()
    with inferkit.Batcher(model) as batcher:
        for run in (model, batcher, lambda x: model.run({"x": x})):
            with pytest.raises(inferkit.ValidationError, match=said) as caught:
                run(given)
            assert caught.value.reason == "dtype"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", INVALID)
def test_it_counts_once(what: str, call: Callable[..., Any]) -> None:
    with inferkit.Batcher(relu()) as batcher:
        with pytest.raises(inferkit.ValidationError):
            call(batcher, *INVALID[what])
        stats = batcher.stats()
        assert (stats.invalid, stats.failed, stats.rejected, stats.completed) == (1, 0, 0, 0)
        assert stats.windows[10].invalid == 1
        assert stats.windows[10].invalid_rate == 1.0
        assert batcher(X).shape == X.shape
        assert batcher.stats().invalid == 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", ["a set", "another shape"])
def test_a_closed_batcher_says_that_first(what: str, call: Callable[..., Any]) -> None:
    batcher = inferkit.Batcher(relu())
    batcher.close()
    with pytest.raises(inferkit.ClosedError):
        call(batcher, *INVALID[what])
    stats = batcher.stats()
    assert (stats.invalid, stats.rejected) == (0, 1)


@pytest.mark.parametrize("caller_runs", [True, False])
def test_sizes_that_only_the_model_finds_wrong(caller_runs: bool) -> None:
    """Each fits its own input; together they do not, which shows where the plan is made."""

    def port(name: str, columns: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", columns])

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])], "g", [port("x", "A"), port("z", "B")], [port("y", "C")]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = inferkit.Model.load(made.SerializeToString())
    with inferkit.Batcher(model, caller_runs=caller_runs) as batcher:
        for call in (batcher, lambda *inputs: batcher.submit(*inputs).result()):
            with pytest.raises(inferkit.ValidationError, match="cannot run on inputs of shape"):
                call(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
        stats = batcher.stats()
        assert (stats.invalid, stats.failed, stats.inference_error_rate) == (2, 0, 0.0)


def test_errors_of_other_kinds_are_not_invalid() -> None:
    def fail(_: object) -> None:
        raise ValueError("no")

    spec = ("float32", (None, 4))
    model = inferkit.Model.from_callable(fail, inputs=[("x", *spec)], outputs=[("y", *spec)])
    with inferkit.Batcher(model) as batcher:
        with pytest.raises(inferkit.InferenceError):
            batcher(X)
        with pytest.raises(TypeError):
            batcher(X, timeout="soon")  # type: ignore[arg-type]
        stats = batcher.stats()
        assert (stats.invalid, stats.failed) == (0, 1)
