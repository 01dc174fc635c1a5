"""`Batcher(pad=...)`: requests of different lengths share a batch, and get to the bit what they get alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WORDS, WIDTH = 50, 24
PAD = {"ids": (1, 0), "mask": (1, 0)}
Feeds = dict[str, np.ndarray]


def model_of(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, list[Any]],
    constants: dict[str, Any],
    mask: int = INT64,
    **options: Any,
) -> inferkit.Model:
    rng = np.random.default_rng(0)
    made = {
        "table": rng.standard_normal((WORDS, WIDTH)).astype(np.float32),
        "weights": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32),
        **constants,
    }
    graph = helper.make_graph(
        nodes, "g",
        [
            helper.make_tensor_value_info(name, kind, ["batch", "length"])
            for name, kind in (("ids", INT64), ("mask", mask))
        ],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in made.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return inferkit.Model.load(model.SerializeToString(), **options)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


ATTENTION = [
    node("Gather", "table ids", "x"),
    node("Transpose", "x", "xt", perm=[0, 2, 1]),
    node("MatMul", "x xt", "scores"),
    node("Cast", "mask", "m", to=FLOAT),
    node("Unsqueeze", "m one", "row"),
    node("Sub", "1 row", "gone"),
    node("Mul", "gone lowest", "penalty"),
    node("Add", "scores penalty", "masked"),
    node("Softmax", "masked", "attention", axis=-1),
    node("MatMul", "attention x", "mixed"),
    node("MatMul", "mixed weights", "projected"),
    node("Tanh", "projected", "tokens"),
    node("Unsqueeze", "m two", "column"),
    node("Mul", "tokens column", "kept"),
    node("ReduceSum", "kept one", "pooled", keepdims=0),
]
CONSTANTS = {
    "one": np.array([1]), "two": np.array([2]), "1": np.float32(1), "lowest": np.float32(np.finfo(np.float32).min),
}  # fmt: skip
OUTPUTS: dict[str, list[Any]] = {
    "tokens": ["batch", "length", WIDTH], "pooled": ["batch", WIDTH], "attention": ["batch", "length", "length"],
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> inferkit.Model:
    """One layer of attention with a mask: what each word became, their masked sum, and the weights."""
    return model_of(ATTENTION, OUTPUTS, CONSTANTS, max_plans=512)


def text(length: int, rows: int | None = None, seed: int = 0) -> Feeds:
    shape = (length,) if rows is None else (rows, length)
    ids = np.random.default_rng(seed * 1000 + length).integers(0, WORDS, shape)
    return {"ids": ids, "mask": np.ones(shape, np.int64)}


def check(model: inferkit.Model, feeds: Feeds, answer: Feeds) -> None:
    for name, want in model.run(feeds).items():
        assert answer[name].shape == want.shape, name
        assert answer[name].tobytes() == want.tobytes(), name


@pytest.mark.parametrize("mask", [TensorProto.BOOL, TensorProto.INT32, TensorProto.UINT8])
def test_a_mask_may_be_of_any_type_but_floats(mask: int) -> None:
    model = model_of(ATTENTION, OUTPUTS, CONSTANTS, mask=mask)
    dtype = helper.tensor_dtype_to_np_dtype(mask)
    with inferkit.Batcher(model, max_batch_size=2, max_delay=60.0, pad=PAD) as batcher:
        texts = [{**text(length), "mask": np.ones(length, dtype)} for length in (6, 8)]
        tickets = [batcher.submit(feeds) for feeds in texts]
        for feeds, ticket in zip(texts, tickets, strict=True):
            check(model, feeds, ticket.result())
        batcher.drain()
        assert batcher.stats().batches == 1


def test_a_mask_of_floats_is_taken_for_data() -> None:
    model = model_of(ATTENTION, OUTPUTS, CONSTANTS, mask=FLOAT)
    with pytest.raises(ValueError, match=r"cannot be padded: output '.*' of a request of length"):
        inferkit.Batcher(model, pad=PAD)


def test_requests_of_different_lengths_share_a_batch(model: inferkit.Model) -> None:
    with inferkit.Batcher(model, max_batch_size=8, max_delay=60.0, pad=PAD) as batcher:
        texts = [text(length) for length in (33, 34, 35, 36, 37, 38, 39, 40)]
        tickets = [batcher.submit(feeds) for feeds in texts]
        for feeds, ticket in zip(texts, tickets, strict=True):
            check(model, feeds, ticket.result())
        batcher.drain()
        stats = batcher.stats()
        (batch,) = inferkit.tracing.snapshot(batcher).batches
        families = {family.name: family for family in inferkit.metrics.Collector().collect()}
    assert batch.padding == 0.08
    counted = {tuple(sample.labels.values()): sample.value for sample in families["inferkit_padded_elements"].samples}
    assert counted[batcher.name, "padding"] == 2 * 28
    assert counted[batcher.name, "own"] == 2 * (8 * 40 - 28)
    assert "padding   8.8% of what was computed" in str(stats)
    assert stats.batches == 1
    assert stats.elements == 2 * 8 * 40
    assert stats.padding == 2 * sum(range(8))
    assert stats.padding_rate == pytest.approx(28 / 320)
    assert stats.padding_refused == ""


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=24),
    rows=st.sampled_from([None, 1, 3]),
    pad_to=st.sampled_from([None, 64, (16, 50), (90,)]),
)
@settings(max_examples=40, deadline=None)
def test_every_answer_is_the_request_s_own(
    model: inferkit.Model, lengths: list[int], rows: int | None, pad_to: Any
) -> None:
    with inferkit.Batcher(model, max_batch_size=8, pad=PAD, pad_to=pad_to) as batcher:
        texts = [text(length, rows, seed) for seed, length in enumerate(lengths)]
        tickets = [batcher.submit(feeds) for feeds in texts]
        for feeds, ticket in zip(texts, tickets, strict=True):
            check(model, feeds, ticket.result())
        assert batcher.stats().padding_refused == ""


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), most=st.integers(80, 300), is_padded=st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_no_batch_has_more_elements_than_it_may(lengths: list[int], most: int, is_padded: bool) -> None:
    seen: list[tuple[int, ...]] = []

    def same(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return x

    model = inferkit.Model.from_callable(
        same, inputs=[("x", "float32", (None, None))], outputs=[("y", "float32", (None, None))]
    )
    pad = {"x": (1, 0)} if is_padded else None
    with inferkit.Batcher(model, max_batch_elements=most, pad=pad, pad_to=64 if is_padded else None) as batcher:
        seen.clear()
        rows = [np.full(length, seed, np.float32) for seed, length in enumerate(lengths)]
        tickets = [batcher.submit(row) for row in rows]
        for row, ticket in zip(rows, tickets, strict=True):
            assert np.array_equal(ticket.result(), row)
        assert all(np.prod(shape) <= most for shape in seen)
        with pytest.raises(inferkit.ValidationError, match=f"max_batch_elements={most}") as error:
            batcher.submit(np.ones(most + 1, np.float32)).result()
        assert error.value.reason == "too_large"


def test_a_warm_up_stays_within_the_elements_of_a_batch() -> None:
    seen: list[tuple[int, ...]] = []

    def same(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return x

    model = inferkit.Model.from_callable(
        same, inputs=[("x", "float32", (None, None))], outputs=[("y", "float32", (None, None))]
    )
    with inferkit.Batcher(model, max_batch_elements=70) as batcher:
        batcher.warm_up(shapes={"x": (10,)})
        assert seen == [(1, 10), (2, 10), (4, 10), (7, 10)]


@pytest.mark.parametrize("most", [0, -1, 2.5, "8", True])
def test_wrong_bounds_of_elements(model: inferkit.Model, most: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_batch_elements"):
        inferkit.Batcher(model, max_batch_elements=most)


def test_masks_of_the_caller_s_own_are_kept(model: inferkit.Model) -> None:
    feeds = text(13, 2)
    feeds["mask"][:, 4:9] = 0
    with inferkit.Batcher(model, pad=PAD, caller_runs=False) as batcher:
        check(model, feeds, batcher(feeds))


def test_from_tasks_and_from_threads(model: inferkit.Model) -> None:
    async def one(batcher: inferkit.Batcher, seed: int) -> None:
        feeds = text(1 + seed % 60, None, seed)
        check(model, feeds, await batcher.submit(feeds))

    async def main() -> None:
        async with inferkit.Batcher(model, pad=PAD, workers=2) as batcher:
            await asyncio.gather(*(one(batcher, seed) for seed in range(200)))
            assert batcher.stats().mean_batch_size > 1

    asyncio.run(main())
    with inferkit.Batcher(model, pad=PAD, workers=2) as batcher:

        def several(first: int) -> None:
            for seed in range(first, first + 25):
                feeds = text(1 + seed % 60, None, seed)
                check(model, feeds, batcher(feeds))

        threads = [threading.Thread(target=several, args=(25 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert batcher.stats().completed == 100


def test_cancelled_and_expired_ones_leave_the_others_alone() -> None:
    gate, inside = threading.Event(), threading.Event()
    gate.set()

    def double(x: np.ndarray) -> np.ndarray:
        inside.set()
        gate.wait()
        return x * 2

    slow = inferkit.Model.from_callable(
        double, inputs=[("x", "float32", (None, None))], outputs=[("y", "float32", (None, None))]
    )

    def row(length: int) -> np.ndarray:
        return np.arange(length, dtype=np.float32)

    clock = inferkit.testing.ManualClock()
    with inferkit.Batcher(slow, pad={"x": (1, 0)}, max_batch_size=4, _clock=clock) as batcher:
        gate.clear()
        inside.clear()
        running = batcher.submit(row(17))
        inside.wait()
        first, cancelled = batcher.submit(row(33)), batcher.submit(row(35))
        late, second = batcher.submit(row(36), timeout=1.0), batcher.submit(row(39))
        assert cancelled.cancel()
        clock.advance(2.0)
        batcher._poke()
        with pytest.raises(inferkit.DeadlineError):
            late.result()
        gate.set()
        for length, ticket in ((17, running), (33, first), (39, second)):
            assert np.array_equal(ticket.result(), 2 * row(length))
        batcher.drain()
        stats = batcher.stats()
    assert (stats.batches, stats.cancelled, stats.expired, stats.completed) == (2, 1, 1, 3)
    assert (stats.elements, stats.padding) == (20 + 2 * 40, 3 + 7 + 1)


def test_an_output_that_pools_without_a_mask_is_refused() -> None:
    nodes = [node("Gather", "table ids", "x"), node("ReduceMean", "x", "mean", axes=[1], keepdims=0)]
    model = model_of(nodes, {"mean": ["batch", WIDTH]}, {})
    with pytest.raises(ValueError, match=r"output 'mean' of a request of length 1 is not the same once .* padded to 8"):
        inferkit.Batcher(model, pad=PAD)
    inferkit.Batcher(model).close()


def test_a_mask_that_is_not_padded_is_missed() -> None:
    model = model_of(ATTENTION, OUTPUTS, CONSTANTS)
    with pytest.raises(ValueError, match="name the mask in pad as well, with the value that does so, or leave pad out"):
        inferkit.Batcher(model, pad={"ids": (1, 0), "mask": (1, 1)})


def test_an_output_of_another_length_is_refused() -> None:
    nodes = [node("Gather", "table ids", "x"), node("Concat", "x x", "twice", axis=1)]
    model = model_of(nodes, {"twice": ["batch", "more", WIDTH]}, {})
    told = r"output 'twice' has the shape \(1, 2, 24\) for a request of length 1 and \(\d, 16, 24\) for one padded to 8"
    with pytest.raises(ValueError, match=told):
        inferkit.Batcher(model, pad=PAD)


def test_what_differs_at_some_lengths_only_runs_as_it_came_from_then_on() -> None:
    """Found while serving: the trial with made-up requests went well, as they hold the words 0 and 1 alone."""
    nodes = [
        node("Gather", "table ids", "x"),
        node("ReduceMean", "x", "mean", axes=[1], keepdims=0),
    ]
    table = np.zeros((WORDS, WIDTH), np.float32)
    table[2:] = np.random.default_rng(1).standard_normal((WORDS - 2, WIDTH))
    model = model_of(nodes, {"mean": ["batch", WIDTH]}, {"table": table})
    with inferkit.Batcher(model, max_batch_size=4, max_delay=60.0, pad=PAD) as batcher:
        texts = [text(length) for length in (33, 35, 36, 40)]
        tickets = [batcher.submit(feeds) for feeds in texts]
        for feeds, ticket in zip(texts, tickets, strict=True):
            check(model, feeds, ticket.result())
        stats = batcher.stats()
        assert "of a request of length 33 is not the same" in stats.padding_refused
        assert (stats.completed, stats.failed, stats.padding) == (4, 0, 0)


def test_a_model_with_few_positions_serves_those_that_it_has() -> None:
    nodes = [
        node("Gather", "table ids", "x"),
        node("Shape", "ids", "shape"),
        node("Gather", "shape at", "length"),
        node("Range", "0 length 1i", "range"),
        node("Gather", "places range", "p"),
        node("Add", "x p", "tokens"),
    ]
    constants = {
        "at": np.array(1), "0": np.array(0), "1i": np.array(1),
        "places": np.random.default_rng(2).standard_normal((45, WIDTH)).astype(np.float32),
    }  # fmt: skip
    model = model_of(nodes, {"tokens": ["batch", "length", WIDTH]}, constants)
    with inferkit.Batcher(model, pad=PAD) as batcher:  # 41 to 45 would be padded to 48
        for length in (43, 45, 3, 41, 39):
            check(model, text(length), batcher.submit(text(length)).result())
        told = batcher.stats().padding_refused
        assert told.startswith("no request is padded to the length 48: the model failed at it twice, and ran those")
        batches = batcher.stats().batches
        check(model, text(35), batcher.submit(text(35)).result())
        assert batcher.stats().batches == batches + 1
        assert batcher.stats().padding_refused == told


def test_one_run_that_fails_does_not_end_padding() -> None:
    fails = False

    def same(x: np.ndarray) -> np.ndarray:
        nonlocal fails
        if fails:
            fails = False
            raise RuntimeError("once")
        return x

    with inferkit.Batcher(callable_of(same), pad={"x": (1, 0)}, max_batch_size=8, caller_runs=False) as batcher:
        fails = True
        for length in (5, 6, 7, 5, 6):
            x = np.arange(length, dtype=np.float32)
            assert np.array_equal(batcher.submit(x).result(), x)
        stats = batcher.stats()
        assert stats.padding_refused == ""
        assert stats.padding == 2 + 1 + 3 + 2
        assert stats.failed == 0


def test_warm_up_compiles_and_proves_every_length() -> None:
    model = model_of(ATTENTION, OUTPUTS, CONSTANTS, max_plans=512)
    with inferkit.Batcher(model, max_batch_size=2, pad=PAD, pad_to=20) as batcher:
        batcher.warm_up()
        misses = model.memory().plan_misses
        for length in (8, 10, 12, 14, 16, 20):
            batcher(text(length))
        assert model.memory().plan_misses == misses
    with inferkit.Batcher(model, max_batch_size=2, pad=PAD) as batcher:
        with pytest.raises(ValueError, match="give pad_to to the Batcher, or warm_up"):
            batcher.warm_up()
        batcher.warm_up(shapes={"ids": (30,), "mask": (30,)})
        for longest in (2**31, 2**63 - 1):
            with pytest.raises(ValueError, match="at most 2147483647 places"):
                batcher.warm_up(shapes={"ids": (longest,), "mask": (longest,)})


def test_a_length_that_makes_too_many_elements_is_refused() -> None:
    model = callable_of(lambda x: x, (None, None, None))
    with inferkit.Batcher(model, pad={"x": (1, 0)}, pad_to=[2**31 - 1]) as batcher:
        with pytest.raises(ValueError, match="more than any memory holds"):
            batcher.warm_up((1,), shapes={"x": (2**31 - 1, 2**30)})
        with pytest.raises(inferkit.ValidationError, match="more than any memory holds") as error:
            batcher.submit(np.zeros((1, 2**24), np.float32)).result()
        assert error.value.reason == "too_large"


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"batch_sizes": 5}, TypeError, "batch_sizes must be an iterable"),
        ({"shapes": 5}, TypeError, "shapes must be a mapping"),
        ({"shapes": {"ids": 5}}, TypeError, r"shapes\['ids'\] must be"),
        ({"shapes": {"ids": (4, 4)}}, ValueError, "input '(ids|mask)'"),
        ({"shapes": {"idz": (4,)}}, ValueError, "idz|input 'ids'"),
    ],
)
@pytest.mark.parametrize("options", [{"pad": PAD, "pad_to": 9}, {"max_batch_elements": 100}])
def test_wrong_arguments_of_a_warm_up(
    model: inferkit.Model, options: Any, arguments: Any, error: type[Exception], told: str
) -> None:
    with inferkit.Batcher(model, **options) as batcher, pytest.raises(error, match=told):
        batcher.warm_up(**arguments)


def test_warm_up_and_swap_refuse_what_a_short_trial_does_not_show() -> None:
    """The sum over the places is cut differently beyond 1024 of them."""
    nodes = [
        node("Gather", "table ids", "x"),
        node("Transpose", "x", "xt", perm=[0, 2, 1]),
        node("Cast", "mask", "m", to=FLOAT),
        node("Unsqueeze", "m two", "column"),
        node("MatMul", "xt column", "sum"),
    ]
    bad = model_of(nodes, {"sum": ["batch", WIDTH, 1]}, {"two": np.array([2])})
    with inferkit.Batcher(bad, max_batch_size=1, pad=PAD, pad_to=(8, 1000, 1100)) as batcher:
        with pytest.raises(ValueError, match=r"output 'sum' of a request of length \d+ .* padded to 1100"):
            batcher.warm_up()
        with pytest.raises(ValueError, match="padded to 1100"):
            batcher.swap(bad)
        assert batcher.model is bad


def test_a_swapped_model_is_proven_anew(model: inferkit.Model) -> None:
    other = model_of(ATTENTION, OUTPUTS, {**CONSTANTS, "table": np.ones((WORDS, WIDTH), np.float32)}, max_plans=512)
    with inferkit.Batcher(model, pad=PAD, pad_to=40) as batcher:
        check(model, text(33), batcher.submit(text(33)).result())
        batcher.swap(other, batch_sizes=(1,))
        check(other, text(33), batcher.submit(text(33)).result())


def test_a_callable_is_tried_too() -> None:
    calls: list[tuple[int, ...]] = []

    def double(x: np.ndarray) -> np.ndarray:
        calls.append(x.shape)
        return x * 2

    model = inferkit.Model.from_callable(
        double, inputs=[("x", "float32", (None, 3, None))], outputs=[("y", "float32", (None, 3, None))]
    )
    with inferkit.Batcher(model, pad={"x": (-1, 7.5)}) as batcher:
        assert calls
        x = np.arange(15, dtype=np.float32).reshape(3, 5)
        assert np.array_equal(batcher.submit(x).result(), 2 * x)


def callable_of(fn: Any, inputs: tuple[int | None, ...] = (None, None), outputs: Any = None) -> inferkit.Model:
    return inferkit.Model.from_callable(
        fn, inputs=[("x", "float32", inputs)], outputs=[("y", "float32", outputs or inputs)]
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_who_asks_to_stop_is_heard_by_a_trial(stop: type[BaseException], at: int) -> None:
    calls = 0

    def stops(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == at:
            raise stop
        return x

    model, quiet = callable_of(stops), callable_of(lambda x: x)
    with pytest.raises(stop):
        inferkit.Batcher(model, pad={"x": (1, 0)})
    assert calls == at
    with inferkit.Batcher(quiet, pad={"x": (1, 0)}, pad_to=20) as batcher:
        calls = 0
        with pytest.raises(stop):
            batcher.swap(model)
        assert calls == at
        assert batcher.model is quiet
        calls = 1000
        batcher.swap(model)
        calls = 0
        with pytest.raises(stop):
            batcher.warm_up()
        assert calls == at


def test_an_error_of_the_model_is_none_of_the_trial_s() -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        if x.shape[1] == 8:
            raise RuntimeError("eight")
        return x

    inferkit.Batcher(callable_of(fails), pad={"x": (1, 0)}).close()


def test_a_length_that_the_model_has_not_is_left_out_of_a_trial() -> None:
    """Half as long and back again: nothing for a request of length 1, and one place too few for each odd one."""

    def halved(x: np.ndarray) -> np.ndarray:
        if x.shape[1] < 2:
            raise ValueError("too short")
        return np.repeat(x[:, : x.shape[1] // 2 * 2 : 2], 2, axis=1)

    with pytest.raises(ValueError, match=r"output 'y' has the shape \(1, 6\) for a request of length 7"):
        inferkit.Batcher(callable_of(halved), pad={"x": (1, 0)})


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize(("reduce", "pad"), [(np.max, 0), (np.min, 0), (np.argmax, 0), (np.argmin, 0), (np.sum, 1)])
def test_a_reduction_without_a_mask_is_found_by_the_trial(reduce: Any, pad: float, rows: int) -> None:
    model = callable_of(lambda x: reduce(x, axis=1).astype(np.float32), (None, None), (None,))
    with pytest.raises(ValueError, match=r"output 'y' of a request of length .* is not the same"):
        inferkit.Batcher(model, pad={"x": (1, pad)}, max_batch_size=rows)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def convolved(x: np.ndarray, bias: float) -> np.ndarray:
    wide = np.pad(x, ((0, 0), (1, 1)))
    return wide[:, :-2] / 2 - wide[:, 1:-1] / 4 + wide[:, 2:] + np.float32(bias)


def total(x: np.ndarray) -> np.ndarray:
    return np.cumsum(x, axis=1)[:, -1]  # in one order, however many there are


SEES_PADDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "greatest": lambda x: x.max(1),
    "least": lambda x: x.min(1),
    "least above 2": lambda x: relu(x - 2).min(1),
    "least below -2": lambda x: relu(-x - 2).min(1),
    "least above 100": lambda x: relu(x - 100).min(1),
    "least below -100": lambda x: relu(-x - 100).min(1),
    "least far from 0": lambda x: relu(np.abs(x) - 5).min(1),
    "where that is": lambda x: relu(x - 2).argmin(1),
    "all above 2": lambda x: (x > 2).all(1),
    "how many in a hundred are": lambda x: (x > 2).mean(1),
    "product": lambda x: np.prod(relu(np.minimum(x, 10) - 2), axis=1),
    "zeros": lambda x: (x == 0).sum(1),
    "length": lambda x: np.full(len(x), x.shape[1]),
    "last": lambda x: x[:, -1],
    "median": lambda x: np.median(x, axis=1),
    "deviation": lambda x: x.std(1),
    "deviation above 1": lambda x: relu(x.var(1) - 1),
    "bias": lambda x: total(convolved(x, 1)),
    "bias below a threshold": lambda x: total(relu(convolved(x, -5))),
    "bias above a threshold": lambda x: total(relu(-convolved(x, 5))),
    "sum of powers": lambda x: np.log(total(np.exp(np.clip(x, -20, 20)))),
    "sorted": lambda x: np.sort(x, axis=1),
    "reversed": lambda x: x[:, ::-1],
    "normalized": lambda x: (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-5),
    "softmax": lambda x: np.exp(x - x.max(1, keepdims=True)) / total(np.exp(x - x.max(1, keepdims=True)))[:, None],
}
SEES_NONE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "double": lambda x: x * 2,
    "powers, which overflow": np.exp,
    "threshold": lambda x: relu(x - 2),
    "sums so far": lambda x: np.cumsum(x, axis=1),
    "greatest so far": lambda x: np.maximum.accumulate(x, axis=1),
    "convolution": lambda x: convolved(x, 0),
    "sum": total,
    "greatest above 0": lambda x: relu(x).max(1),
    "how many above 2": lambda x: (x > 2).sum(1),
    "any above 2": lambda x: (x > 2).any(1),
    "mean of what is there": lambda x: total(x) / (x != 0).sum(1),
}


def along_the_padding(fn: Callable[[np.ndarray], np.ndarray], dtype: str = "float32") -> inferkit.Model:
    def run(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(fn(x)).astype(np.float32)

    shape = (None,) * run(np.ones((1, 3), np.float32)).ndim
    return inferkit.Model.from_callable(run, inputs=[("x", dtype, (None, None))], outputs=[("y", "float32", shape)])


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("pad_to", [None, [64], [65], [128], [1000], [8, 1000]], ids=str)
@pytest.mark.parametrize("what", SEES_PADDING)
def test_a_new_batcher_finds_what_padding_changes(what: str, pad_to: Any, rows: int) -> None:
    """At whatever lengths, and where only values of one sign, or large ones, show it."""
    model = along_the_padding(SEES_PADDING[what])
    with pytest.raises(ValueError, match=r"output 'y' of a request of length .* is not the same"):
        inferkit.Batcher(model, pad={"x": (1, 0)}, pad_to=pad_to, max_batch_size=rows)


@pytest.mark.parametrize("pad_to", [None, [64], [65], [1000]], ids=str)
@pytest.mark.parametrize("what", SEES_NONE)
def test_a_new_batcher_pads_what_padding_does_not_change(what: str, pad_to: Any) -> None:
    model = along_the_padding(SEES_NONE[what])
    with inferkit.Batcher(model, pad={"x": (1, 0)}, pad_to=pad_to) as batcher:
        x = np.arange(1, 6, dtype=np.float32)
        assert np.array_equal(batcher.submit(x).result(), model(x[None])[0])
        assert batcher.stats().padding_refused == ""


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_words_alone_are_tried_above_1_too(dtype: str) -> None:
    told = r"output 'y' of a request of length .* is not the same"
    for least in (1, 7):  # of what all words but the first are
        model = along_the_padding(
            lambda x, least=least: relu(x[:, 1:].astype(np.float32) - least).min(1, initial=500), dtype
        )
        with pytest.raises(ValueError, match=told):
            inferkit.Batcher(model, pad={"x": (1, 0)}, pad_to=[128])


def test_a_mask_is_made_of_zeros_and_ones_and_words_beside_it_are_few() -> None:
    seen: dict[str, set[int]] = {"ids": set(), "mask": set()}

    def looks(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen["ids"].update(ids.ravel().tolist())
        seen["mask"].update(mask.ravel().tolist())
        return ids * mask

    inputs = [(name, "int64", (None, None)) for name in seen]
    model = inferkit.Model.from_callable(looks, inputs=inputs, outputs=[("y", "int64", (None, None))])
    inferkit.Batcher(model, pad=PAD).close()
    assert seen == {"ids": {0, 1}, "mask": {0, 1}}


def test_what_a_trial_runs() -> None:
    seen: list[np.ndarray] = []

    def same(x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return x

    with inferkit.Batcher(callable_of(same), pad={"x": (1, 0)}, pad_to=(16, 48), max_batch_size=3) as batcher:
        assert {x.shape[1] for x in seen if len(x) == 1} >= {1, 8, 15, 17, 24, 47}
        assert max(len(x) for x in seen) == 3
        alone = [x for x in seen if x.shape[1] not in (16, 48)]
        assert any((x < 0).all() for x in alone)
        assert any((x > 0).all() for x in alone)
        assert any((x > 0).any() and (x < 0).any() for x in alone)
        first = [x for x in seen if x.shape == (1, 1)]
        assert len({x.tobytes() for x in first}) == 2  # of 16 and of 48: other numbers
        seen.clear()
        batcher.warm_up()
        assert max(len(x) for x in seen) == 3


@pytest.mark.parametrize(
    ("options", "longest", "most"),
    [
        ({"pad_to": (16, 8192)}, 16, 64 * 16),
        ({"pad_to": 8192}, 40, 64 * 40),
        ({"pad_to": 8192, "max_batch_size": 1}, 40, 40),
        ({"pad_to": 64, "max_batch_elements": 70}, 40, 70),
        ({"pad_to": (16, 60), "max_batch_elements": 50}, 16, 50),
    ],
)
def test_a_new_batcher_tries_short_lengths_and_small_batches(options: Any, longest: int, most: int) -> None:
    seen: list[tuple[int, ...]] = []

    def same(x: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return x

    with inferkit.Batcher(callable_of(same), pad={"x": (1, 0)}, **options):
        assert max(shape[1] for shape in seen) == longest
        assert max(int(np.prod(shape)) for shape in seen) <= most
    seen.clear()
    with inferkit.Batcher(callable_of(same), pad={"x": (1, 0)}, pad_to=[8192, 9000]):
        assert {shape[1] for shape in seen} == {1, 8191, 8192}
        assert max(shape[0] for shape in seen) == 2
    seen.clear()
    with inferkit.Batcher(callable_of(same), pad={"x": (1, 0)}, pad_to=[2**25]):  # more than is made up for a trial
        assert seen == []


def test_a_swap_without_a_warm_up_needs_no_lengths() -> None:
    calls = 0

    def same(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return x

    model = callable_of(same)
    with inferkit.Batcher(callable_of(lambda x: x), pad={"x": (1, 0)}) as batcher:
        batcher.swap(model, batch_sizes=())
        assert batcher.model is model
        assert calls == 0
        with pytest.raises(ValueError, match="give pad_to to the Batcher"):
            batcher.swap(model)


def test_checks_see_the_caller_s_values_alone(model: inferkit.Model) -> None:
    floats = inferkit.Model.from_callable(
        lambda x: x, inputs=[("x", "float32", (None, None))], outputs=[("y", "float32", (None, None))]
    )
    checks = inferkit.InputChecks(max_length=9)
    with inferkit.Batcher(floats, pad={"x": (1, float("inf"))}, input_checks=checks) as batcher:
        x = np.ones(9, np.float32)  # padded to 10, with what may be neither in an input nor in an output
        assert np.array_equal(batcher.submit(x).result(), x)
        with pytest.raises(inferkit.ValidationError, match="9"):
            batcher.submit(np.ones(10, np.float32)).result()
    with inferkit.Batcher(model, pad=PAD) as batcher, pytest.raises(inferkit.ValidationError, match="the same length"):
        batcher({"ids": np.zeros(4, np.int64), "mask": np.ones(5, np.int64)})


@pytest.mark.parametrize(
    ("pad", "error", "told"),
    [
        ({"idz": (1, 0)}, ValueError, "no input of the model; its inputs are 'ids'"),
        ({"ids": 1}, TypeError, r"pad must be a mapping of input names to \(axis, value\)"),
        (["ids"], TypeError, "a mapping"),
        ({"ids": (0, 0)}, ValueError, "behind the batch axis"),
        ({"ids": (2, 0)}, ValueError, "between -2 and 1"),
        ({"ids": (1.5, 0)}, TypeError, "must be an integer"),
        ({"ids": (1, 0.5)}, ValueError, "one that int64 can hold, got 0.5"),
        ({"ids": (1, 2**70)}, ValueError, "one that int64 can hold"),
        ({"ids": (1, "a")}, TypeError, "must be a number, got str"),
        ({"ids": (1, float("nan"))}, ValueError, "one that int64 can hold"),
        ({}, ValueError, "give pad as well|names no input"),
    ],
)
def test_wrong_arguments(model: inferkit.Model, pad: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        inferkit.Batcher(model, pad=pad, pad_to=[8])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1e300),
        ("uint8", 256),
        ("uint8", -1),
        ("bool", 2),
        ("bfloat16", 0.1),
        ("float16", 1e6),
        ("int8", 1.5),
        ("bfloat16", 1e300),
        ("bfloat16", -1e39),
        ("float32", np.longdouble("1e400")),
        ("float16", np.float64(-65520)),
        ("float64", 10**400),
        ("int64", np.float64(2.0**63)),
        ("uint64", np.int8(-1)),
    ],
)
def test_values_that_a_type_cannot_hold(dtype: str, value: float) -> None:
    model = inferkit.Model.from_callable(
        lambda x: x, inputs=[("x", dtype, (None, None))], outputs=[("y", dtype, (None, None))]
    )
    with pytest.raises(ValueError, match=f"must be one that {dtype} can hold"):
        inferkit.Batcher(model, pad={"x": (1, value)})


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1j),
        ("float32", np.complex64(1)),
        ("float32", np.str_("1")),
        ("float32", np.bytes_(b"1")),
        ("float64", np.datetime64(1, "s")),
        ("int64", np.timedelta64(1, "s")),
        ("float32", True),
        ("int64", np.True_),
        ("float32", np.zeros(1, np.float32)),
        ("float32", None),
    ],
)
def test_what_is_no_number_to_pad_with(dtype: str, value: Any) -> None:
    model = inferkit.Model.from_callable(
        lambda x: x, inputs=[("x", dtype, (None, None))], outputs=[("y", dtype, (None, None))]
    )
    with pytest.raises(TypeError, match=r"the value of pad\['x'\] must be a number"):
        inferkit.Batcher(model, pad={"x": (1, value)})


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bfloat16", 1.5),
        ("bfloat16", float("-inf")),
        ("bfloat16", float("nan")),
        ("float32", np.float16(0.1)),
        ("float16", 65504),
        ("float32", float("inf")),
        ("bool", True),
        ("bool", np.False_),
        ("uint64", 2**64 - 1),
        ("int16", np.int64(-5)),
    ],
)
def test_numbers_to_pad_with(dtype: str, value: Any) -> None:
    model = inferkit.Model.from_callable(
        lambda x: x, inputs=[("x", dtype, (None, None))], outputs=[("y", dtype, (None, None))]
    )
    inferkit.Batcher(model, pad={"x": (1, value)}).close()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int16", "uint32", "int64", "bool"])
def test_every_type_is_filled_up(dtype: str) -> None:
    seen: list[np.ndarray] = []

    def same(x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return x

    model = inferkit.Model.from_callable(
        same, inputs=[("x", dtype, (None, 2, None))], outputs=[("y", dtype, (None, 2, None))]
    )
    with inferkit.Batcher(model, pad={"x": (2, 1)}, caller_runs=False) as batcher:
        seen.clear()
        x = np.zeros((3, 2, 5), dtype)
        assert np.array_equal(batcher(x), x)
    want = np.ones((3, 2, 8), dtype)
    want[:, :, :5] = 0
    assert np.array_equal(seen[0], want)


@pytest.mark.parametrize("pad_to", [0, [0], [], [4, "8"], 1.5, "8", 2**31, [8, 2**60], [2**63 - 1], 2**63 - 1, 2**64])
def test_wrong_lengths(model: inferkit.Model, pad_to: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="pad_to"):
        inferkit.Batcher(model, pad=PAD, pad_to=pad_to)
    with pytest.raises(ValueError, match="give pad as well"):
        inferkit.Batcher(model, pad_to=[8])


def test_a_fixed_axis_and_fixed_rows_cannot_be_padded() -> None:
    def like(shape: tuple[int | None, ...]) -> inferkit.Model:
        return inferkit.Model.from_callable(
            lambda x: x, inputs=[("x", "float32", shape)], outputs=[("y", "float32", shape)]
        )

    with pytest.raises(ValueError, match="axis 1 of input 'x' is fixed at 5"):
        inferkit.Batcher(like((None, 5)), pad={"x": (1, 0)})
    with pytest.raises(ValueError, match="fixed at 4: requests to such a model cannot be padded"):
        inferkit.Batcher(like((4, None)), pad={"x": (1, 0)})
