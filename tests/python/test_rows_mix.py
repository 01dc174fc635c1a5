"""Where an operator takes all rows of a run together, a batcher keeps requests apart: the same bits as alone."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(5)
WEIGHTS = RNG.integers(-20, 20, (6, 3)).astype(np.int8)


def value(name: str, dtype: int, *dims: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def dynamic_product() -> list[onnx.NodeProto]:
    """As ONNX Runtime's dynamic quantisation writes a MatMul."""
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["y"]),
    ]


def fused_product() -> list[onnx.NodeProto]:
    return [helper.make_node("DynamicQuantizeMatMul", ["x", "w", "w_scale"], ["y"], domain="com.microsoft")]


def within_a_branch() -> list[onnx.NodeProto]:
    branches = [
        helper.make_graph(dynamic_product(), "then", [], [value("y", FLOAT, None, 3)]),
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w_float"], ["z"])], "else", [], [value("z", FLOAT, None, 3)]
        ),
    ]
    return [helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])]


MAKERS = [dynamic_product, fused_product, within_a_branch]


def load(nodes: list[onnx.NodeProto]) -> inferkit.Model:
    constants = {
        "w": WEIGHTS, "w_scale": np.float32(0.125), "w_float": WEIGHTS.astype(np.float32), "yes": np.array(True),
    }  # fmt: skip
    used = {"w"} | {name for node in nodes for name in node.input}
    used |= {"w_float"} if "yes" in used else set()
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, None, 6)], [value("y", FLOAT, None, 3)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return inferkit.Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def requests(sizes: list[int]) -> list[Any]:
    """Each of another magnitude, so that a range of them together is none of theirs."""
    return [(10.0 ** (i % 5) * RNG.standard_normal((n, 6))).astype(np.float32) for i, n in enumerate(sizes)]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_together_they_are_not_what_they_are_alone(make: Any) -> None:
    """What the operator says, and what model(x) does."""
    model, (a, b) = load(make()), requests([2, 2])
    assert model(np.concatenate([a, b]))[:2].tobytes() != model(a).tobytes()


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=12), delay=st.sampled_from([0.0, 0.01]))
@settings(max_examples=10, deadline=None)
def test_in_a_batcher_each_is_what_it_is_alone(make: Any, sizes: list[int], delay: float) -> None:
    model, xs = load(make()), requests(sizes)

    async def serve() -> list[Any]:
        with inferkit.Batcher(model, max_batch_size=8, max_delay=delay) as batcher:
            answers = list(await asyncio.gather(*(batcher.submit(x) for x in xs)))
            stats = batcher.stats()
        assert stats.batches == len(xs)
        return answers

    for x, y in zip(xs, asyncio.run(serve()), strict=True):
        assert y.tobytes() == model(x).tobytes()


# Every form that takes its range as it runs, and every shape of what it takes it from

DYNAMIC_SHAPES = [(6,), (1,), (5, 6), (2, 3, 6)]


def ranged(form: str, shape: tuple[int, ...], seed: int) -> inferkit.Model:
    """A model of x [rows, *shape] whose answer depends on the range of all that is multiplied together."""
    rng = np.random.default_rng(seed)
    inner, columns, hidden = shape[-1], 3, 4

    def codes(*dims: int, kind: str = "int8") -> Any:
        return rng.integers(0 if kind == "uint8" else -20, 20, dims).astype(kind)

    def scales(*dims: int) -> Any:
        return rng.uniform(0.01, 0.2, dims).astype(np.float32)

    constants: dict[str, Any] = {}
    ms = {"domain": "com.microsoft"}
    quantize = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    if form == "DynamicQuantizeMatMul":
        constants = {"w": codes(inner, columns), "ws": scales(columns), "wz": codes(columns), "b": scales(columns)}
        nodes = [helper.make_node(form, ["x", "w", "ws", "wz", "b"], ["y"], **ms)]
    elif form == "MatMulIntegerToFloat":
        constants = {"w": codes(inner, columns, kind="uint8"), "ws": scales(columns)}
        nodes = [quantize, helper.make_node(form, ["q", "w", "scale", "ws", "zero"], ["y"], **ms)]
    elif form == "MatMulInteger":
        constants = {"w": codes(inner, columns), "ws": scales(columns)}
        nodes = [
            quantize,
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["real"], to=FLOAT),
            helper.make_node("Mul", ["scale", "ws"], ["both"]),
            helper.make_node("Mul", ["real", "both"], ["y"]),
        ]
    elif form == "DequantizeLinear":
        nodes = [quantize, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])]
    elif form == "ConvInteger":
        constants = {"image": np.array([0, 1, -1, inner], np.int64), "k": codes(2, 1, 1, 1)}
        nodes = [
            helper.make_node("Reshape", ["x", "image"], ["i"]),
            helper.make_node("DynamicQuantizeLinear", ["i"], ["q", "scale", "zero"]),
            helper.make_node("ConvInteger", ["q", "k", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["real"], to=FLOAT),
            helper.make_node("Mul", ["real", "scale"], ["y"]),
        ]
    else:
        assert form == "DynamicQuantizeLSTM"
        constants = {
            "steps": np.array([0, -1, inner], np.int64), "w": codes(1, inner, 4 * hidden), "ws": scales(1) / 10,
            "wz": np.zeros(1, np.int8), "r": codes(1, hidden, 4 * hidden), "rs": scales(1) / 10,
            "rz": np.zeros(1, np.int8),
        }  # fmt: skip
        nodes = [
            helper.make_node("Reshape", ["x", "steps"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
            helper.make_node(
                form, ["t", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"], ["u"], hidden_size=hidden, **ms
            ),
            helper.make_node("Transpose", ["u"], ["y"], perm=[2, 0, 1, 3]),
        ]
    rank = {"ConvInteger": 4, "DynamicQuantizeLSTM": 4}.get(form, 1 + len(shape))
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, "n", *shape)], [value("y", FLOAT, "n", *[None] * (rank - 1))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return inferkit.Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


FORMS = [
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "DequantizeLinear", "ConvInteger",
    "DynamicQuantizeLSTM",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@given(
    shape=st.sampled_from(DYNAMIC_SHAPES),
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=8),
    powers=st.lists(st.integers(-20, 20), min_size=8, max_size=8),
    seed=st.integers(0, 2**31),
    workers=st.sampled_from([1, 2]),
)
@settings(max_examples=15, deadline=None)
def test_a_range_is_taken_of_each_request(
    form: str, shape: tuple[int, ...], sizes: list[int], powers: list[int], seed: int, workers: int
) -> None:
    model, rng = ranged(form, shape, seed), np.random.default_rng(seed)
    # Of any magnitude and side: all of one sign, all zeros, a single value that is far larger.
    xs = [(2.0**p * rng.standard_normal((n, *shape))).astype(np.float32) for n, p in zip(sizes, powers, strict=False)]
    xs[seed % len(xs)][...] = 0
    xs[-1] = np.abs(xs[-1])

    async def serve() -> list[Any]:
        with inferkit.Batcher(model, max_batch_size=16, max_delay=0.005, workers=workers) as batcher:
            return list(await asyncio.gather(*(batcher.submit(x) for x in xs)))

    for x, y in zip(xs, asyncio.run(serve()), strict=True):
        alone = np.asarray(model(x))
        assert y.shape == alone.shape
        assert y.tobytes() == alone.tobytes()


@pytest.mark.parametrize("form", [f for f in FORMS if f != "DynamicQuantizeLSTM"])
def test_one_range_for_all_would_show(form: str) -> None:
    """What the property above is worth: run as one, requests have other bits."""
    model, rng = ranged(form, (5, 6), 1), np.random.default_rng(1)
    a, b = (s * rng.standard_normal((2, 5, 6)).astype(np.float32) for s in (1, 50))
    assert np.asarray(model(np.concatenate([a, b])))[:2].tobytes() != np.asarray(model(a)).tobytes()


# Along an axis that grows with the rows


def graph_of(
    nodes: list[onnx.NodeProto], rank: int, out_rank: int = 2, constants: dict[str, Any] | None = None, opset: int = 17
) -> inferkit.Model:
    """A model of x [rows, 6, 4, ...], of which every output has as many rows."""
    x = value("x", FLOAT, "n", *(6, 4, 3)[: rank - 1])
    graph = helper.make_graph(
        nodes, "g", [x], [value("y", FLOAT, "n", *[None] * (out_rank - 1))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return inferkit.Model.load(model.SerializeToString())


def node(kind: str, *inputs: str, to: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [to], **attributes)


def weights(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


AXIS = {"axis": np.array([0], np.int64)}
SIGNAL = [node("Transpose", "x", to="t", perm=[1, 0]), node("Unsqueeze", "t", "axis", to="u")]  # [6, 1, rows]
BACK = [node("Squeeze", "v", "one", to="w"), node("Transpose", "w", perm=[1, 0])]
ONE = {"axis": np.array([1], np.int64), "one": np.array([1], np.int64)}
WHOLE: dict[str, tuple[list[onnx.NodeProto], int, dict[str, Any], int]] = {
    "Softmax": ([node("Softmax", "x", axis=0)], 2, {}, 17),
    "LogSoftmax": ([node("LogSoftmax", "x", axis=-2)], 2, {}, 17),
    "Softmax before opset 13": ([node("Softmax", "x", axis=0)], 2, {}, 11),
    "CumSum": ([node("CumSum", "x", "axis")], 2, {"axis": np.array(0, np.int64)}, 17),
    "the mean": ([node("ReduceMean", "x", to="m", axes=[0]), node("Sub", "x", "m")], 2, {}, 17),
    "the greatest of all": ([node("ReduceMax", "x", to="m", keepdims=0), node("Div", "x", "m")], 2, {}, 17),
    "the first row": ([node("Gather", "x", "axis", to="m", axis=0), node("Sub", "x", "m")], 2, AXIS, 17),
    "a slice of one row": (
        [node("Slice", "x", "axis", "end", "axis", to="m"), node("Sub", "x", "m")],
        2, {**AXIS, "end": np.array([1], np.int64)}, 17,
    ),
    "backwards": (
        [node("Slice", "x", "start", "end", "axis", "step")],
        2, {**AXIS, "start": np.array([-1], np.int64), "end": np.array([-(2**40)], np.int64),
            "step": np.array([-1], np.int64)}, 17,
    ),
    "the difference to the row before": (
        [node("Pad", "x", "pads", to="p"), node("Slice", "p", "axis", "end", "axis", to="s"), node("Sub", "x", "s")],
        2, {**AXIS, "pads": np.array([1, 0, 0, 0], np.int64), "end": np.array([-1], np.int64)}, 17,
    ),
    "the rows by each other": (
        [node("Transpose", "x", to="t"), node("MatMul", "t", "x", to="g"), node("MatMul", "x", "g")], 2, {}, 17,
    ),
    "Einsum": ([node("Einsum", "x", "x", to="g", equation="ni,nj->ij"), node("MatMul", "x", "g")], 2, {}, 17),
    "attention between the rows": (
        [node("Transpose", "x", to="t"), node("MatMul", "x", "t", to="s"), node("Softmax", "s", to="p"),
         node("MatMul", "p", "x")], 2, {}, 17,
    ),
    "Conv": ([*SIGNAL, node("Conv", "u", "k", to="v", pads=[1, 1]), *BACK], 2, {**ONE, "k": weights(1, 1, 3)}, 17),
    "AveragePool": (
        [*SIGNAL, node("AveragePool", "u", to="v", kernel_shape=[3], pads=[1, 1]), *BACK], 2, ONE, 17,
    ),
    "LSTM": (
        [node("LSTM", "x", "w", "r", to="s", hidden_size=5), node("Squeeze", "s", "one", to="y")],
        3, {"w": weights(1, 20, 4), "r": weights(1, 20, 5), "one": np.array([1], np.int64)}, 17,
    ),
    "GRU": (
        [node("GRU", "x", "w", "r", to="s", hidden_size=5), node("Squeeze", "s", "one", to="y")],
        3, {"w": weights(1, 15, 4), "r": weights(1, 15, 5), "one": np.array([1], np.int64)}, 17,
    ),
    "LpNormalization": ([node("LpNormalization", "x", axis=0)], 2, {}, 17),
    "TopK": (
        [node("Transpose", "x", to="t"), helper.make_node("TopK", ["t", "k"], ["top", ""], axis=1),
         node("ReduceSum", "top", to="m", keepdims=0), node("Mul", "x", "m")], 2, {"k": np.array([1], np.int64)}, 17,
    ),
    "backwards by indices": (
        [node("Shape", "x", to="s"), node("Gather", "s", "zero", to="n"), node("Sub", "n", "first", to="last"),
         node("Range", "last", "minus", "minus", to="i"), node("Gather", "x", "i", axis=0)], 2,
        {"zero": np.array(0, np.int64), "first": np.array(1, np.int64), "minus": np.array(-1, np.int64)}, 17,
    ),
    "sorted": (
        [node("Shape", "x", to="s"), node("Slice", "s", "axis", "end", to="k"),
         helper.make_node("TopK", ["x", "k"], ["y", ""], axis=0)], 2, {**AXIS, "end": np.array([1], np.int64)}, 17,
    ),
    "a lower triangle": ([node("Trilu", "x", upper=0)], 2, {}, 17),
    "a position": (
        [node("Shape", "x", to="s"), node("Gather", "s", "zero", to="n"), node("Range", "zero", "n", "one", to="r"),
         helper.make_node("Cast", ["r"], ["f"], to=FLOAT),
         node("Unsqueeze", "f", "behind", to="p"), node("Add", "x", "p")], 2,
        {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "behind": np.array([1], np.int64)}, 17,
    ),
    "the number of rows": (
        [node("Shape", "x", to="s"), node("Gather", "s", "zero", to="n"),
         helper.make_node("Cast", ["n"], ["f"], to=FLOAT), node("Div", "x", "f")], 2,
        {"zero": np.array(0, np.int64)}, 17,
    ),
    "torn rows": (
        [node("Reshape", "x", "tear", to="t"), node("Softmax", "t", axis=0, to="u"), node("Reshape", "u", "back")], 2,
        {"tear": np.array([2, -1], np.int64), "back": np.array([-1, 6], np.int64)}, 17,
    ),
    "columns read as rows": ([node("Transpose", "x", to="t"), node("Reshape", "t", "back")], 2,
                             {"back": np.array([-1, 6], np.int64)}, 17),
    "Einsum over rows of another": ([node("Einsum", "x", "x", "x", equation="ni,mi,mj->nj")], 2, {}, 17),
    "larger, along the rows": (
        [node("Reshape", "x", "image", to="i"),
         helper.make_node("Resize", ["i", "", "scales"], ["j"], mode="linear"), node("Reshape", "j", "back", to="b"),
         node("Slice", "b", "axis", "end", "axis", "two")], 2,
        {"image": np.array([1, 1, -1, 6], np.int64), "scales": np.array([1, 1, 2, 1], np.float32),
         "back": np.array([-1, 6], np.int64), **AXIS, "end": np.array([2**40], np.int64),
         "two": np.array([2], np.int64)}, 17,
    ),
    "a share of the sum": (
        [node("ReduceSum", "x", "axis", to="m", keepdims=1), node("Div", "x", "m")], 2, AXIS, 17,
    ),
}  # fmt: skip


def rows_of(rank: int, sizes: list[int]) -> list[Any]:
    return [(1 + i + RNG.random((n, *(6, 4, 3)[: rank - 1]))).astype(np.float32) for i, n in enumerate(sizes)]


def in_a_batcher(model: inferkit.Model, xs: list[Any]) -> tuple[list[Any], inferkit.BatcherStats]:
    async def serve() -> Any:
        with inferkit.Batcher(model, max_batch_size=16, max_delay=0.05) as batcher:
            answers = list(await asyncio.gather(*(batcher.submit(x) for x in xs)))
            return answers, batcher.stats()

    return asyncio.run(serve())


@pytest.mark.parametrize("what", WHOLE)
def test_rows_that_are_combined_along_their_axis_are_kept_apart(what: str) -> None:
    nodes, rank, constants, opset = WHOLE[what]
    model = graph_of(nodes, rank, 2 if what not in ("LSTM", "GRU") else 3, constants, opset)
    a, b = rows_of(rank, [2, 3])
    whole = np.asarray(model(np.concatenate([a, b])))
    assert not all(np.array_equal(part, model(x)) for part, x in ((whole[:2], a), (whole[2:], b))), "it shows nothing"
    xs = rows_of(rank, [1, 2, 1, 3])
    answers, stats = in_a_batcher(model, xs)
    for x, y in zip(xs, answers, strict=True):
        assert y.tobytes() == np.asarray(model(x)).tobytes()
    assert stats.batches == len(xs)


APART: dict[str, tuple[list[onnx.NodeProto], int, dict[str, Any]]] = {
    "Softmax of a row": ([node("Softmax", "x", axis=1)], 2, {}),
    "Softmax of a row, rows first": (
        [node("Transpose", "x", to="t"), node("Softmax", "t", axis=0, to="s"), node("Transpose", "s")], 2, {},
    ),
    "rows and steps as one": (
        [node("Reshape", "x", "flat", to="f"), node("MatMul", "f", "w", to="g"), node("Softmax", "g", to="h"),
         node("Reshape", "h", "back")], 3,
        {"flat": np.array([-1, 4], np.int64), "w": weights(4, 4), "back": np.array([-1, 24], np.int64)},
    ),
    "the mean of a row": ([node("ReduceMean", "x", axes=[1], keepdims=1, to="m"), node("Sub", "x", "m")], 2, {}),
    "the last step": ([node("Gather", "x", "last", axis=1)], 3, {"last": np.array(-1, np.int64)}),
    "the first step of what is flat": (
        [node("Reshape", "x", "flat", to="f"), node("Slice", "f", "zero", "end", "zero", "step")], 3,
        {"flat": np.array([-1, 4], np.int64), "zero": np.array([0], np.int64), "end": np.array([2**40], np.int64),
         "step": np.array([6], np.int64)},
    ),
    "a pointwise convolution over the rows": (
        [*SIGNAL, node("Conv", "u", "k", to="v"), *BACK], 2, {**ONE, "k": weights(1, 1, 1)},
    ),
    "positions within a row of what is flat": (
        [node("Reshape", "x", "flat", to="f"), node("Shape", "x", to="s"), node("Slice", "s", "zero", "one", to="n"),
         node("Concat", "n", "one", "one", axis=0, to="times"), node("Tile", "places", "times", to="p"),
         node("Reshape", "p", "column", to="c"), node("Add", "f", "c", to="g"), node("Reshape", "g", "back")], 3,
        {"flat": np.array([-1, 4], np.int64), "zero": np.array([0], np.int64), "one": np.array([1], np.int64),
         "places": np.arange(6, dtype=np.float32).reshape(1, 6, 1), "column": np.array([-1, 1], np.int64),
         "back": np.array([-1, 24], np.int64)},
    ),
    "steps and rows as one, steps first": (
        [node("Transpose", "x", to="t", perm=[1, 0, 2]), node("Reshape", "t", "flat", to="f"),
         node("MatMul", "f", "w", to="g"), node("Reshape", "g", "steps", to="h"),
         node("Transpose", "h", to="z", perm=[1, 0, 2]), node("Reshape", "z", "back")], 3,
        {"flat": np.array([-1, 4], np.int64), "w": weights(4, 4), "steps": np.array([6, -1, 4], np.int64),
         "back": np.array([0, 24], np.int64)},
    ),
    "by indices that count the rows": (
        [node("Shape", "x", to="s"), node("Gather", "s", "nil", to="n"), node("Range", "nil", "n", "unit", to="i"),
         node("Gather", "x", "i", axis=0, to="g"), node("Unsqueeze", "i", "one", to="j"),
         node("GatherND", "g", "j", to="h"), node("Reshape", "h", "back")], 3,
        {"nil": np.array(0, np.int64), "unit": np.array(1, np.int64), "one": np.array([1], np.int64),
         "back": np.array([0, 24], np.int64)},
    ),
    "steps behind the rows": (
        [node("Transpose", "x", to="t", perm=[1, 0, 2]), node("LSTM", "t", "w", "r", to="s", hidden_size=5),
         node("Squeeze", "s", "one", to="q"), node("Transpose", "q", to="z", perm=[1, 0, 2]),
         node("Reshape", "z", "back")], 3,
        {"w": weights(1, 20, 4), "r": weights(1, 20, 5), "one": np.array([1], np.int64),
         "back": np.array([0, 30], np.int64)},
    ),
    "by the number of rows": (
        [node("Shape", "x", to="s"), node("Expand", "row", "s", to="e"), node("Add", "x", "e")], 2,
        {"row": weights(1, 6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", APART)
def test_rows_that_are_independent_share_a_batch(what: str) -> None:
    nodes, rank, constants = APART[what]
    model = graph_of(nodes, rank, 2, constants)
    xs = rows_of(rank, [1, 2, 1, 3])
    answers, stats = in_a_batcher(model, xs)
    for x, y in zip(xs, answers, strict=True):
        assert y.tobytes() == np.asarray(model(x)).tobytes()
    assert stats.batches == 1


def test_diagnose_names_the_node() -> None:
    model = graph_of([node("Softmax", "x", axis=0)], 2)
    with inferkit.Batcher(model) as batcher:
        checks = {check.name: check for check in inferkit.diagnose(batcher, seconds=0.05).checks}
    found = checks["requests share batches"]
    assert found.status == "warn"
    assert "Softmax" in found.figure
    assert "batch dimension" in found.remedy


def test_a_model_of_independent_rows_cannot_be_swapped_for_one_that_combines_them() -> None:
    plain, mixed = graph_of([node("Softmax", "x", axis=1)], 2), graph_of([node("Softmax", "x", axis=0)], 2)
    with inferkit.Batcher(plain) as batcher, pytest.raises(ValueError, match="combines the rows of a run"):
        batcher.swap(mixed)


def indexed(name: str, **attributes: Any) -> tuple[inferkit.Model, list[tuple[Any, ...]]]:
    """A model that is told at each run which rows to pick, and requests that pick their own first one."""
    inputs = [value("x", FLOAT, "n", 6), value("i", TensorProto.INT64, "n", *([] if name == "Gather" else [1]))]
    if name == "GatherElements":
        inputs[1] = value("i", TensorProto.INT64, "n", 6)
    nodes = [helper.make_node(name, ["x", "i"], ["y"], **attributes)]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", FLOAT, "n", 6)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    shape = {"Gather": (2,), "GatherND": (2, 1), "GatherElements": (2, 6)}[name]
    feeds = [(x, np.zeros(shape, np.int64)) for x in rows_of(2, [2, 2, 2])]
    return inferkit.Model.load(proto.SerializeToString()), feeds


@pytest.mark.parametrize("name", ["Gather", "GatherND", "GatherElements"])
def test_an_index_picks_a_row_of_its_own_request(name: str) -> None:
    model, feeds = indexed(name)

    async def serve() -> list[Any]:
        with inferkit.Batcher(model, max_batch_size=16, max_delay=0.05) as batcher:
            return list(await asyncio.gather(*(batcher.submit(*feed) for feed in feeds)))

    for feed, answer in zip(feeds, asyncio.run(serve()), strict=True):
        assert answer.tobytes() == np.asarray(model(*feed)).tobytes()


def test_a_node_whose_axes_only_a_run_tells_is_taken_to_combine_rows() -> None:
    """It once ended the search, and hid all that came behind it, too."""
    start = helper.make_tensor_value_info("start", TensorProto.INT64, [1])
    nodes = [node("Slice", "x", "start", "end", "one", to="z"), node("Softmax", "x", axis=0)]
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, "n", 6), start], [value("y", FLOAT, "n", 6), value("z", FLOAT, "n", None)],
        [numpy_helper.from_array(np.array([v], np.int64), k) for k, v in (("end", 6), ("one", 1))],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    assert "Slice" in inferkit.Model.load(proto.SerializeToString())._mixing_node


def test_branches_that_the_number_of_rows_chooses_are_not_taken_for_each_other() -> None:
    """As many nodes in both, and far more values in the one."""
    constants = [numpy_helper.from_array(np.float32(i), f"c{i}") for i in range(2000)]
    one = helper.make_graph([node("Relu", "x", to="a")], "one", [], [value("a", FLOAT, "n", 6)])
    other = helper.make_graph([node("Sum", "x", *(c.name for c in constants), to="b")], "other", [],
                              [value("b", FLOAT, "n", 6)], constants)  # fmt: skip
    nodes = [
        node("Shape", "x", to="s"), node("Gather", "s", "zero", to="n"), node("Less", "n", "three", to="few"),
        helper.make_node("If", ["few"], ["z"], then_branch=other, else_branch=one), node("Relu", "z"),
    ]  # fmt: skip
    model = graph_of(nodes, 2, 2, {"zero": np.array(0, np.int64), "three": np.array(3, np.int64)})
    assert "If" in model._mixing_node
    assert np.asarray(model(rows_of(2, [4])[0])).shape == (4, 6)


# Answers that count from the first row of the run, or whose first dimension is not the rows

INT, TEXT = TensorProto.INT64, TensorProto.STRING
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
IMAGES = RNG.standard_normal((4, 1, 4, 6)).astype(np.float32)
THREE = {"c": RNG.standard_normal((3, 4)).astype(np.float32)}
ROWS = RNG.standard_normal((4, 4)).astype(np.float32)
TEXTS = np.array(["a b c", "a", "d e", ""], object)
CORNERS = np.array([[[0, 0, 1, 1]], [[0, 0, 2, 2]], [[1, 1, 3, 3]], [[0, 1, 2, 2]]], np.float32)
PLACES = np.array([[[[0, 2, 4], [12, 14, 16]]]] * 4)
Ports = list[onnx.ValueInfoProto]
COUNTED: dict[str, tuple[list[onnx.NodeProto], Ports, Ports, dict[str, Any], list[Any]]] = {
    "places of a MaxPool": (
        [helper.make_node("MaxPool", ["x"], ["y", "i"], **POOL)],
        [value("x", FLOAT, "n", 1, 4, 6)], [value("y", FLOAT, "n", 1, 2, 3), value("i", INT, "n", 1, 2, 3)], {},
        [IMAGES],
    ),
    "places that come with the request": (
        [node("MaxUnpool", "x", "i", **POOL)],
        [value("x", FLOAT, "n", 1, 2, 3), value("i", INT, "n", 1, 2, 3)], [value("y", FLOAT, "n", 1, 4, 6)], {},
        [np.ascontiguousarray(IMAGES[:, :, ::2, ::2]), PLACES],
    ),
    "pieces of texts": (
        [helper.make_node("StringSplit", ["x"], ["y", "i"])],
        [value("x", TEXT, "n")], [value("y", TEXT, "n", None), value("i", INT, "n")], {}, [TEXTS],
    ),
    "the best boxes": (
        [node("NonMaxSuppression", "x", "s", "most")],
        [value("x", FLOAT, "n", 1, 4), value("s", FLOAT, "n", 1, 1)], [value("y", INT, None, 3)],
        {"most": np.array([1], np.int64)}, [CORNERS, np.ones((4, 1, 1), np.float32)],
    ),
    "what is not zero": (
        [node("NonZero", "x")], [value("x", FLOAT, "n", 1)], [value("y", INT, 2, None)], {}, [ROWS[:, :1]],
    ),
    "an answer on its side": (
        [node("Transpose", "x")], [value("x", FLOAT, "n", 4)], [value("y", FLOAT, 4, "n")], {}, [ROWS],
    ),
    "the same of an unknown shape": (
        [node("Einsum", "x", equation="ij->ji")], [value("x", FLOAT, "n", 4)],
        [helper.make_tensor_value_info("y", FLOAT, None)], {}, [ROWS],
    ),
    "each row by each": (
        [node("Gemm", "x", "w", transB=1)], [value("x", FLOAT, "n", 4), value("w", FLOAT, "n", 4)],
        [value("y", FLOAT, "n", None)], {}, [ROWS, ROWS[::-1]],
    ),
    "a shape": ([node("Shape", "x")], [value("x", FLOAT, "n", 4)], [value("y", INT, 2)], {}, [ROWS]),
    "a constant of three rows": (
        [node("Add", "x", "c")], [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 4)], THREE, [ROWS],
    ),
    "a choice from three rows": (
        [node("Greater", "x", "c", to="m"), node("Where", "m", "x", "c")],
        [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 4)], THREE, [ROWS],
    ),
    "an element of three rows": (
        [helper.make_node("GatherElements", ["c", "i"], ["y"], axis=1)],
        [value("i", INT, "n", 1)], [value("y", FLOAT, "n", 1)], THREE, [np.array([[1], [2], [0], [3]])],
    ),
    "what is written to the first row": (
        [helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=1)],
        [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 4)],
        {"i": np.array([[1, 3]]), "u": np.array([[5, 6]], np.float32)}, [ROWS],
    ),
    "what is added to one of three rows": (
        [helper.make_node("ScatterElements", ["c", "i", "u"], ["z"], axis=1, reduction="add"),
         node("Slice", "z", "zero", "rows", "zero")],
        [value("i", INT, "n", 1), value("u", FLOAT, "n", 1)], [value("y", FLOAT, "n", 4)],
        {**THREE, "zero": np.array([0]), "rows": np.array([1])}, [np.array([[1], [2], [0], [3]]), ROWS[:, :1].copy()],
    ),
    "three times": (
        [node("Expand", "x", "three")], [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 4)],
        {"three": np.array([3, 1], np.int64)}, [ROWS],
    ),
}  # fmt: skip


def loaded(nodes: list[onnx.NodeProto], inputs: Ports, outputs: Ports, constants: dict[str, Any]) -> inferkit.Model:
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return inferkit.Model.load(model.SerializeToString())


@pytest.mark.parametrize("rows", [2, 3, 4])
@pytest.mark.parametrize("what", COUNTED)
def test_answers_do_not_count_from_the_rows_of_others(what: str, rows: int) -> None:
    """As many as the answer has by chance, too: each request has its own answer, or the error that it has alone."""
    nodes, inputs, outputs, constants, given = COUNTED[what]
    model = loaded(nodes, inputs, outputs, constants)

    def outcome(ticket: inferkit.Ticket) -> Any:
        try:
            found = ticket.result(timeout=60)
        except inferkit.OutputError as error:
            return str(error)
        return [y.tolist() for y in ([found] if isinstance(found, np.ndarray) else found)]

    asked = [[x[i : i + 1] for x in given] for i in range(rows)]
    with inferkit.Batcher(model, caller_runs=False, max_delay=0.05) as batcher:
        alone = [outcome(batcher.submit(*xs)) for xs in asked]
        together = [outcome(t) for t in [batcher.submit(*xs) for xs in asked]]
        assert batcher.stats().batches == 2 * rows
    assert together == alone
    for xs, answer in zip(asked, alone, strict=True):
        if not isinstance(answer, str):
            found = model.run({port.name: x for port, x in zip(inputs, xs, strict=True)})
            assert answer == [y.tolist() for y in found.values()]


def test_places_that_stay_within_the_model_share_a_batch() -> None:
    nodes = [helper.make_node("MaxPool", ["x"], ["p", "i"], **POOL), node("MaxUnpool", "p", "i", **POOL)]
    model = loaded(nodes, [value("x", FLOAT, "n", 1, 4, 6)], [value("y", FLOAT, "n", 1, 4, 6)], {})
    answers, stats = in_a_batcher(model, [IMAGES[i : i + 1] for i in range(4)])
    for i, y in enumerate(answers):
        np.testing.assert_array_equal(y, model(IMAGES[i : i + 1]))
    assert stats.batches == 1


def test_the_node_is_named_that_several_rows_do_not_fit() -> None:
    """And not one behind it, which would send the reader of diagnose() to the wrong place."""
    nodes = [node("Relu", "x", to="r"), node("Add", "r", "c", to="a"), node("Exp", "a"), node("Softmax", "y", to="z")]
    model = loaded(nodes, [value("x", FLOAT, "n", 4)], [value("z", FLOAT, None, 4)], THREE)
    assert "(Add)" in model._mixing_node


# What a row is computed with hangs on how many there are

COUNT = [node("Shape", "x", to="s"), node("Gather", "s", "nil", to="n"), node("Unsqueeze", "n", "zero", to="n1")]
REAL = [*COUNT, helper.make_node("Cast", ["n"], ["f"], to=FLOAT)]
SPREAD = [*REAL, node("Expand", "f", "six", to="six_f")]
MAPS = [*REAL, node("Reshape", "x", "image", to="i")]
BITS = [*COUNT, helper.make_node("Cast", ["x"], ["b"], to=TensorProto.INT64)]
HELD: dict[str, Any] = {
    "nil": np.array(0, np.int64), "unit": np.array(1, np.int64), "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64), "two": np.array([2], np.int64), "six": np.array([6], np.int64),
    "far": np.array([100], np.int64), "pads": np.array([0, 1, 0, 1], np.int64), "twice": np.array(2, np.int64),
    "image": np.array([-1, 1, 2, 3], np.int64), "kernel": np.array([1, 1, 2, 2], np.int64),
    "flat": np.array([0, -1], np.int64), "square": np.array([-1, 2, 3], np.int64), "row": np.array([-1, 6], np.int64),
    "steps": np.array([-1, 3, 2], np.int64), "five": np.array([5], np.int64), "none": np.zeros(6, np.float32),
    "w": weights(1, 5, 2), "r": weights(1, 5, 5), "lw": weights(1, 20, 2), "lr": weights(1, 20, 5),
}  # fmt: skip


def body(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], rank: int = 2) -> onnx.GraphProto:
    kinds = {"c": (TensorProto.BOOL, ()), "k": (INT, ())}

    def port(name: str) -> onnx.ValueInfoProto:
        kind, dims = kinds.get(name.rstrip("'"), (FLOAT, (None,) * rank))
        return value(name, kind, *dims)

    return helper.make_graph(nodes, "body", [port(i) for i in inputs], [port(o) for o in outputs])


def loop(trips: str, *inner: onnx.NodeProto) -> onnx.NodeProto:
    """Of v, from x on to y."""
    goes_on = node("Identity", "c", to="c'")
    return node("Loop", trips, "", "x", body=body([goes_on, *inner], ["k", "c", "v"], ["c'", "v'"]))


def choice(of: str, first: list[onnx.NodeProto], second: list[onnx.NodeProto]) -> onnx.NodeProto:
    return node("If", of, then_branch=body(first, [], ["v"]), else_branch=body(second, [], ["v"]))


BY_NUMBER: dict[str, list[onnx.NodeProto]] = {
    "a bound": [*REAL, node("Clip", "x", "", "f")],
    "a column": [*COUNT, node("Sub", "n1", "one", to="m"), node("Mod", "m", "six", to="i"),
                 node("Gather", "x", "i", axis=1)],
    "a column of each row": [*COUNT, node("Sub", "n1", "one", to="m"), node("Mod", "m", "six", to="i"),
                             node("Concat", "n1", "one", axis=0, to="to"), node("Expand", "i", "to", to="j"),
                             node("GatherElements", "x", "j", axis=1)],
    "a column for each place": [*COUNT, node("Range", "nil", "n", "unit", to="i"), node("Mod", "i", "six", to="j"),
                                node("Unsqueeze", "i", "one", to="i1"), node("Unsqueeze", "j", "one", to="j1"),
                                node("Concat", "i1", "j1", axis=1, to="ij"), node("GatherND", "x", "ij", to="g"),
                                node("Unsqueeze", "g", "one")],
    "columns from there on": [*COUNT, node("Min", "n1", "two", to="e"), node("Add", "e", "two", to="g"),
                              node("Slice", "x", "e", "g", "one")],
    "what pads": [*REAL, node("Pad", "x", "pads", "f")],
    "where it pads": [*COUNT, node("Min", "n1", "two", to="e"), node("Sub", "two", "e", to="g"),
                      node("Concat", "zero", "e", "zero", "g", axis=0, to="p"), node("Pad", "x", "p")],
    "where it splits": [*COUNT, node("Min", "n1", "two", to="e"), node("Sub", "six", "e", to="g"),
                        node("Concat", "e", "g", axis=0, to="p"),
                        helper.make_node("Split", ["x", "p"], ["a", ""], axis=1),
                        node("ReduceSum", "a", "one", keepdims=1)],
    "a scale": [*REAL, node("QuantizeLinear", "x", "f", to="q"), node("DequantizeLinear", "q", "f")],
    "a shift": [*COUNT, helper.make_node("Cast", ["x"], ["b"], to=TensorProto.UINT64),
                helper.make_node("Cast", ["n"], ["by"], to=TensorProto.UINT64),
                node("BitShift", "b", "by", direction="LEFT", to="z"),
                helper.make_node("Cast", ["z"], ["y"], to=FLOAT)],
    "bits": [*BITS, node("BitwiseXor", "b", "n", to="z"), helper.make_node("Cast", ["z"], ["y"], to=FLOAT)],
    "a diagonal": [*COUNT, node("Reshape", "x", "square", to="t"), node("Trilu", "t", "n", to="u"),
                   node("Reshape", "u", "row")],
    "a variance": [*SPREAD, node("BatchNormalization", "x", "six_f", "six_f", "six_f", "six_f")],
    "weights": [*MAPS, node("Expand", "f", "kernel", to="k"), node("Conv", "i", "k", to="u"),
                node("Reshape", "u", "flat")],
    "a state": [*REAL, node("Reshape", "x", "steps", to="t"), node("Transpose", "t", to="u", perm=[1, 0, 2]),
                node("Concat", "one", "n1", "five", axis=0, to="to"), node("Expand", "f", "to", to="h"),
                helper.make_node("LSTM", ["u", "lw", "lr", "", "", "h"], ["", "v"], hidden_size=5),
                node("Squeeze", "v", "zero")],
    "lengths": [*COUNT, node("Min", "n1", "two", to="m"), helper.make_node("Cast", ["m"], ["l"], to=TensorProto.INT32),
                node("Expand", "l", "n1", to="all"), node("Reshape", "x", "steps", to="t"),
                node("Transpose", "t", to="u", perm=[1, 0, 2]),
                helper.make_node("RNN", ["u", "w", "r", "", "all"], ["", "v"], hidden_size=5),
                node("Squeeze", "v", "zero")],
    "how often": [*COUNT, loop("n", node("Add", "v", "v", to="v'"))],
    "a branch": [*COUNT, node("Greater", "n", "unit", to="c"), choice("c", [node("Neg", "x", to="v")],
                                                                      [node("Abs", "x", to="v")])],
    "a branch for many": [*COUNT, node("Greater", "n", "six", to="c6"), node("Squeeze", "c6", "zero", to="c"),
                          choice("c", [node("Neg", "x", to="v")], [node("Abs", "x", to="v")])],
    "the mean, round after round": [
        loop("twice", node("ReduceMean", "v", axes=[0], to="m"), node("Sub", "v", "m", to="v'")),
    ],
    "the sum of a scan's columns": [
        node("Transpose", "x", to="t"),
        helper.make_node("Scan", ["t"], ["u"], num_scan_inputs=1, body=body(
            [node("ReduceMax", "v", axes=[0], to="m"), node("Sub", "v", "m", to="v'")], ["v"], ["v'"], 1)),
        node("Transpose", "u"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", BY_NUMBER)
def test_rows_that_are_counted_are_kept_apart(what: str) -> None:
    read = {name for n in BY_NUMBER[what] for name in n.input}
    model = graph_of(BY_NUMBER[what], 2, 2, {k: v for k, v in HELD.items() if k in read}, 18 if "bits" in what else 17)
    xs = [x * 3 for x in rows_of(2, [1, 2, 1, 9])]
    alone = [np.asarray(model(x)) for x in xs]
    whole = np.asarray(model(np.concatenate(xs)))
    assert whole.tobytes() != np.concatenate(alone).tobytes(), "it shows nothing"
    answers, stats = in_a_batcher(model, xs)
    for y, own in zip(answers, alone, strict=True):
        assert y.tobytes() == own.tobytes()
    assert stats.batches == len(xs)


def flagged(*inner: list[onnx.NodeProto]) -> tuple[inferkit.Model, list[tuple[Any, ...]]]:
    """Which branch of the two is taken is an input."""
    nodes = [choice("c", *inner)]
    model = loaded(nodes, [value("x", FLOAT, "n", 6), value("c", TensorProto.BOOL)], [value("y", FLOAT, "n", 6)],
                   {"w6": weights(6, 6)})  # fmt: skip
    return model, [(x, np.array(True)) for x in rows_of(2, [1, 2, 1, 3])]


def test_both_branches_of_what_a_run_chooses_are_looked_at() -> None:
    fine, mean = [node("MatMul", "x", "w6", to="v")], [node("Softmax", "x", axis=0, to="v")]
    assert flagged(fine, fine)[0]._mixing_node == ""
    assert "Softmax" in flagged(fine, mean)[0]._mixing_node
    assert "Softmax" in flagged(mean, fine)[0]._mixing_node


def test_loops_that_leave_rows_alone_share_a_batch() -> None:
    model = graph_of([loop("twice", node("MatMul", "v", "w6", to="v'"))], 2, 2,
                     {"twice": np.array(2, np.int64), "w6": weights(6, 6)})  # fmt: skip
    xs = rows_of(2, [1, 2, 1, 3])
    answers, stats = in_a_batcher(model, xs)
    for x, y in zip(xs, answers, strict=True):
        assert y.tobytes() == np.asarray(model(x)).tobytes()
    assert stats.batches == 1


def test_scans_over_steps_share_a_batch() -> None:
    """Over the steps of each row, and over rows of a constant that each row of the run is compared with."""
    step = [node("Add", "h", "v", to="h'"), node("Identity", "h'", to="v'")]
    over_steps = [
        node("Transpose", "x", to="t"), node("ReduceMax", "x", axes=[1], keepdims=0, to="h0"),
        helper.make_node("Scan", ["h0", "t"], ["", "u"], num_scan_inputs=1,
                         body=body(step, ["h", "v"], ["h'", "v'"], 1)),
        node("Transpose", "u"),
    ]  # fmt: skip
    distance = [node("Sub", "x", "v", to="d"), node("ReduceSumSquare", "d", axes=[1], keepdims=0, to="v'")]
    to_constants = [
        helper.make_node("Scan", ["near"], ["u"], num_scan_inputs=1, body=body(distance, ["v"], ["v'"], 1)),
        node("Transpose", "u", to="z"), node("MatMul", "z", "w56"),
    ]  # fmt: skip
    for nodes, constants in ((over_steps, {}), (to_constants, {"near": weights(5, 6), "w56": weights(5, 6)})):
        model = graph_of(nodes, 2, 2, constants)
        xs = rows_of(2, [1, 2, 1, 3])
        answers, stats = in_a_batcher(model, xs)
        for x, y in zip(xs, answers, strict=True):
            assert y.tobytes() == np.asarray(model(x)).tobytes()
        assert stats.batches == 1


def test_sizes_that_nobody_guesses_are_those_of_weights_or_sums() -> None:
    wide = [node("Add", "x", "c", to="z"), node("Softmax", "z", axis=0)]
    ports = [value("x", FLOAT, "n", "length")], [value("y", FLOAT, "n", None)]
    assert "Softmax" in loaded(wide, *ports, {"c": weights(11)})._mixing_node
    # A cache of so many steps, what is appended to it, and a mask over both.
    decoder = [node("Concat", "past_0", "x", axis=1, to="a"), node("Add", "a", "mask", to="b"),
               node("Add", "b", "past_1_and_more", to="z"), node("Softmax", "z", axis=-1)]  # fmt: skip
    names = {"x": "step", "past_0": "past", "mask": "all", "past_1_and_more": "all"}
    ports = [value(k, FLOAT, "n", v) for k, v in names.items()], [value("y", FLOAT, "n", None)]
    assert loaded(decoder, *ports, {})._mixing_node == ""
    decoder[-1] = node("Softmax", "z", axis=0)
    assert "Softmax" in loaded(decoder, *ports, {})._mixing_node
    odd = [node("Reshape", "x", "c", to="z"), node("Softmax", "z", axis=0)]
    ports = [value("x", FLOAT, "n", "length")], [value("y", FLOAT, "n", None)]
    assert loaded(odd, *ports, {"c": np.array([-1, 1013], np.int64)})._mixing_node != ""
