"""A model whose file fixes its first dimension: as many rows as it says, by every way in, or a clear refusal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.parser
import pytest

import inferkit

onnxruntime = pytest.importorskip("onnxruntime")

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} {text}")


def load(text: str) -> inferkit.Model:
    return inferkit.Model.load(parsed(text))


# Rows of these look at each other, so that one by itself has another answer than among its neighbours.
MIXING = {
    "softmax": "g (float[{n}, 4] x) => (float[{n}, 4] y) {{ y = Softmax <axis = 0> (x) }}",
    "cumsum": "g (float[{n}, 4] x) => (float[{n}, 4] y) <int64 zero = {{0}}> {{ y = CumSum(x, zero) }}",
    "sub max": "g (float[{n}, 4] x) => (float[{n}, 4] y) "
    "{{ m = ReduceMax <axes = [0], keepdims = 1> (x) y = Sub(x, m) }}",
    "rows apart": "g (float[{n}, 4] x) => (float[{n}, 4] y) {{ y = Softmax <axis = 1> (x) }}",
    "compress": "g (float[{n}, 4] x) => (float[m, 4] y) <float half = {{0.5}}> "
    "{{ b = Greater(x, half) c = Cast <to = 6> (b) r = ReduceMax <axes = [1], keepdims = 0> (c) "
    "k = Cast <to = 9> (r) y = Compress <axis = 0> (x, k) }}",
}

WAYS: dict[str, Callable[[inferkit.Model, np.ndarray], Any]] = {
    "call": lambda model, x: model(x),
    "run": lambda model, x: model.run({"x": x})["y"],
    "out": lambda model, x: model.run({"x": x}, out={"y": np.empty(x.shape, x.dtype)})["y"],
    "list": lambda model, x: model(x.tolist()),
    "not contiguous": lambda model, x: model(np.stack([x, x], axis=-1)[..., 0]),
    "profile": lambda model, x: model.profile(x, runs=1).outputs,
    "compare_precision": lambda model, x: model.compare_precision(x),
}


def given(rows: int | None) -> np.ndarray:
    count = 1 if rows is None else rows
    x = np.random.default_rng(count).standard_normal((count, 4), np.float32) + 1
    return x[0] if rows is None else x


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fixed", ["1", "2", "8", "n"])
def test_an_answer_is_onnx_runtimes_or_there_is_none(name: str, way: str, fixed: str) -> None:
    """What it refuses is refused here, but for a row without its batch axis where the model runs on one row."""
    text = MIXING[name].format(n=fixed)
    model, session = load(text), onnxruntime.InferenceSession(parsed(text).SerializeToString())
    for rows in (None, 1, 2, 7, 8, 9):
        x = given(rows)
        try:
            expected = session.run(None, {"x": x[None] if rows is None and fixed in ("1", "n") else x})[0]
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
            expected = None
        if rows is None and expected is not None and len(expected) == 1:
            expected = expected[0]
        if expected is None:
            with pytest.raises(inferkit.ValidationError, match="input 'x' has shape") as caught:
                WAYS[way](model, x)
            assert caught.value.reason == "shape"
            continue
        if name == "compress" and (way == "out" or (rows is None and expected.ndim == 2)):
            continue  # as many rows as the values say
        answer = WAYS[way](model, x)
        if isinstance(answer, np.ndarray):
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_what_a_refusal_says() -> None:
    model = load(MIXING["softmax"].format(n="8"))
    row = np.arange(4, dtype=np.float32)
    said = (
        "input 'x' has shape (4,); expected (8, 4): the model fixes its first dimension at 8, so it cannot be left out "
        "for a single row"
    )
    with pytest.raises(inferkit.ValidationError, match=re.escape(said) + "$"):
        model(row)
    with pytest.raises(inferkit.ValidationError, match=re.escape("(1, 4); expected (8, 4)") + "$"):
        model(row[None])
    with pytest.raises(inferkit.ValidationError, match=re.escape("(1, 8, 4); expected (8, 4)") + "$"):
        model(np.ones((1, 8, 4), np.float32))
    free = load("g (float[8, t] x) => (float[8, t] y) { y = Softmax <axis = 0> (x) }")
    with pytest.raises(inferkit.ValidationError, match=re.escape("expected (8, None) (None is any length): the model")):
        free(row)


def test_a_clip_is_no_row_of_scalars() -> None:
    clip = load("g (float[16] x) => (float[16] y) { y = Softmax <axis = 0> (x) }")
    for number in (3.0, np.float32(3), np.array(3, np.float32)):
        with pytest.raises(inferkit.ValidationError, match=r"shape \(\); expected \(16,\): the model fixes"):
            clip(number)
    one = load("g (float[1] x) => (float[1] y) { y = Neg(x) }")
    assert one(3.0) == -3.0
    assert one(3.0).shape == ()


def test_a_first_dimension_of_nothing_is_no_row_either() -> None:
    """A file may say that there are no rows."""
    model = load("g (float[0, 4] x) => (float[0, 4] y) { y = Neg(x) }")
    with pytest.raises(inferkit.ValidationError, match="fixes its first dimension at 0"):
        model(np.ones(4, np.float32))


def test_a_callable_gets_the_rows_that_it_declares() -> None:
    seen: list[tuple[int, ...]] = []

    def fn(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return x - x.max(axis=0)

    model = inferkit.Model.from_callable(fn, [("x", "float32", (2, 3))], [("y", "float32", (2, 3))])
    for run in (model, lambda x: model.run({"x": x})):
        with pytest.raises(inferkit.ValidationError, match="fixes its first dimension at 2"):
            run(np.ones(3, np.float32))
    assert not seen
    assert model(np.ones((2, 3), np.float32)).shape == (2, 3)
    single = inferkit.Model.from_callable(fn, [("x", "float32", (1, 3))], [("y", "float32", (1, 3))])
    assert single(np.ones(3, np.float32)).shape == (3,)


# ---- Several inputs -------------------------------------------------------------------------------------------------


def test_a_table_comes_whole() -> None:
    """One for all rows, which is no row of another one."""
    model = load("g (float[n, 4] x, float[4, 4] table) => (float[n, 4] y) { y = MatMul(x, table) }")
    x, table = np.ones((3, 4), np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    assert [spec.shared for spec in model.inputs] == [False, True]
    with inferkit.Batcher(model) as batcher:
        for run in (model, batcher):
            np.testing.assert_array_equal(run(x, table), x @ table)
            np.testing.assert_array_equal(run(x[0], table), x[0] @ table)
            for one in (x, x[0], x[:1]):
                with pytest.raises(inferkit.ValidationError, match=r"'table' has shape \(4,\); expected \(4, 4\)"):
                    run(one, table[0])


def test_a_model_and_a_batcher_take_the_same_of_an_input_for_all_rows() -> None:
    model = load("g (float[n, 5] x, float[1, 5] place) => (float[n, 5] y) { y = Add(x, place) }")
    x, place = np.ones((3, 5), np.float32), np.arange(5, dtype=np.float32)
    assert model.inputs[1].shared
    with inferkit.Batcher(model) as batcher:
        for rows in (x, x[:1], x[0]):
            for shared in (place, place[None]):
                for run in (model, batcher, lambda x, place: model.run({"x": x, "place": place})["y"]):
                    answer = run(rows, shared)
                    np.testing.assert_array_equal(answer, rows + place)
                    assert answer.shape == rows.shape
        for run in (model, batcher):
            with pytest.raises(inferkit.ValidationError, match="'place'"):
                run(x, place[0])
            with pytest.raises(inferkit.ValidationError, match="'place'"):
                run(x, place[None, None])


def test_an_input_of_another_fixed_size_is_no_row_either() -> None:
    """Where no first dimension is free, no input is for all rows."""
    model = load("g (float[1, 4] x, float[2, 4] z) => (float[2, 4] y) { y = Add(x, z) }")
    x, z = np.ones((1, 4), np.float32), np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(model(x, z), x + z)
    with pytest.raises(inferkit.ValidationError, match=r"'z' has shape \(4,\); expected \(2, 4\): the model fixes"):
        model(x[0], z[0])
    said = r"'z' of shape \(2, 4\) has a batch axis, but input 'x' does not: pass all inputs with a batch axis$"
    with pytest.raises(inferkit.ValidationError, match=said):
        model(x[0], z)
    other = load("g (float[2, 4] z, float[1, 4] x) => (float[2, 4] y) { y = Add(x, z) }")
    said = r"'x' of shape \(4,\) has no batch axis, but input 'z' does: pass all inputs with a batch axis$"
    with pytest.raises(inferkit.ValidationError, match=said):
        other(z, x[0])


def test_rows_that_another_input_fixes() -> None:
    """Of which the rows are as many as the other has, so one alone is wrong for both."""
    model = load("g (float[n, 3] x, float[2, 3] z) => (float[n, 3] y) { y = Add(x, z) }")
    row = np.ones(3, np.float32)
    with pytest.raises(inferkit.ValidationError, match="'z' has shape"):
        model(row, row)


def test_a_model_with_sequences_has_all_batch_axes() -> None:
    model = load(
        "g (float[n, 2] x, seq(float[n, 2]) s) => (float[m, 2] y) "
        "{ j = ConcatFromSequence <axis = 0> (s) y = Concat <axis = 0> (x, j) }"
    )
    x = np.ones((1, 2), np.float32)
    assert model(x, [x, x]).shape == (3, 2)
    said = (
        "input 'x' of shape (2,) has no batch axis; a model with sequences or optionals needs it on every array: pass"
    )
    with pytest.raises(inferkit.ValidationError, match=re.escape(said)):
        model(x[0], [x, x])


# ---- Through a batcher ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MIXING if name != "compress"])  # whose rows nobody could tell
@pytest.mark.parametrize("options", [{}, {"caller_runs": False}, {"max_delay": 0.01}], ids=str)
def test_a_batcher_fills_up_or_refuses(name: str, options: dict[str, Any]) -> None:
    model = load(MIXING[name].format(n="8"))
    whole = given(8)
    with inferkit.Batcher(model, **options) as batcher:

        async def on_a_loop() -> np.ndarray:
            answer: np.ndarray = await batcher.submit(whole[0])
            return answer

        asks: list[Callable[[], Any]] = [
            lambda: batcher(whole[0]),
            lambda: batcher.submit(whole[0]).result(),
            lambda: batcher({"x": whole[0]})["y"],
            lambda: batcher.submit_many([whole[0]])[0].result(),
            lambda: asyncio.run(on_a_loop()),
        ]
        for ask in asks:
            if name == "rows apart":
                np.testing.assert_array_equal(ask(), model(whole)[0])
            else:
                with pytest.raises(inferkit.ValidationError, match="depends on the others") as caught:
                    ask()
                assert caught.value.reason == "shape"
        np.testing.assert_array_equal(batcher(whole), model(whole))
        with pytest.raises(
            inferkit.ValidationError, match=re.escape("(1, 8, 4); expected (None, 4), or (4,) for a single row")
        ):
            batcher(whole[None])


@pytest.mark.parametrize("name", MIXING)
def test_what_needs_no_inputs_runs_all_rows(name: str) -> None:
    model = load(MIXING[name].format(n="8"))
    model.warm_up()
    model.warm_up([1, 4])
    plan = model.explain()
    assert plan.inputs[0].shape == (8, 4)
    for shape in ((4,), (1, 4)):
        with pytest.raises(inferkit.ValidationError, match=re.escape("expected (8, 4)")):
            model.explain({"x": shape})
