"""FlexAttention of ONNX's preview domain, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

Array = np.ndarray[Any, Any]
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
CODES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}


def body(nodes: list[onnx.NodeProto], dtype: int = TensorProto.FLOAT, **constants: Array) -> onnx.GraphProto:
    """A graph from 'in' to 'out'."""
    ports = [helper.make_tensor_value_info(name, dtype, [None] * 4) for name in ("in", "out")]
    held = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    return helper.make_graph(nodes, "body", ports[:1], ports[1:], held)


def proto(dtype: str, shapes: tuple[Any, ...] | None = None, more: Any = (), **attributes: Any) -> onnx.ModelProto:
    """A node between 'q', 'k', 'v' and 'y', with inputs `more` beside them."""
    node = helper.make_node(
        "FlexAttention", ["q", "k", "v"], ["y"], domain="ai.onnx.preview", name="flex", **attributes
    )
    shapes = shapes or ([None] * 4,) * 3
    ports = [helper.make_tensor_value_info(n, CODES[dtype], s) for n, s in zip("qkv", shapes, strict=True)]
    y = helper.make_tensor_value_info("y", CODES[dtype], [None] * 4)
    imports = [helper.make_opsetid("", 26), helper.make_opsetid("ai.onnx.preview", 1)]
    graph = helper.make_graph([node], "g", [*ports, *more], [y])
    return helper.make_model(graph, opset_imports=imports, ir_version=13)


def draw(dtype: str, heads: int, kv_heads: int, rows: int, keys: int, size: int, v_size: int, batch: int = 2) -> Any:
    random = np.random.default_rng(0)
    shapes = ((batch, heads, rows, size), (batch, kv_heads, keys, size), (batch, kv_heads, keys, v_size))
    return {name: random.standard_normal(s).astype(dtype) for name, s in zip("qkv", shapes, strict=True)}


def expected(feeds: dict[str, Array], scale: float | None = None, score: Any = None, prob: Any = None) -> Array:
    q, k, v = (feeds[name].astype(np.float64) for name in "qkv")
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, 1), v.repeat(group, 1)
    scores = q @ k.transpose(0, 1, 3, 2) * (1 / np.sqrt(q.shape[3]) if scale is None else scale)
    scores = scores if score is None else score(scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights if prob is None else prob(weights)) @ v


SIZES = [(4, 4, 5, 5, 16, 16), (4, 2, 3, 7, 8, 12), (6, 1, 1, 40, 16, 16), (2, 2, 33, 65, 64, 32)]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("scale", [None, 0.25])
def test_against_float64(sizes: tuple[int, ...], dtype: str, scale: float | None) -> None:
    feeds = draw(dtype, *sizes)
    model = inferkit.Model.load(proto(dtype, **({} if scale is None else {"scale": scale})))
    got = model.run(feeds)["y"]
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected(feeds, scale), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


CAUSAL = body(
    [
        helper.make_node("Shape", ["in"], ["sizes"], start=2),
        helper.make_node("ConstantOfShape", ["sizes"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("Trilu", ["ones"], ["lower"], upper=0),
        helper.make_node("Cast", ["lower"], ["sees"], to=TensorProto.BOOL),
        helper.make_node("Where", ["sees", "in", "hidden"], ["out"]),
    ],
    hidden=np.array(-np.inf, np.float32),
)
HALVED = body([helper.make_node("Mul", ["in", "half"], ["out"])], half=np.array(0.5, np.float32))


def causal(scores: Array) -> Array:
    return np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_graphs_of_scores_and_of_weights(dtype: str) -> None:
    """They see float32, also where the model is of halves."""
    feeds = draw(dtype, *SIZES[1])
    model = inferkit.Model.load(proto(dtype, score_mod=CAUSAL, prob_mod=HALVED))
    want = expected(feeds, score=causal, prob=lambda weights: weights / 2)
    np.testing.assert_allclose(model.run(feeds)["y"], want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_precision_of_its_own() -> None:
    feeds = draw("float32", *SIZES[0])
    third = np.array(1 / 3)
    cubed = body([helper.make_node("Mul", ["in", "third"], ["out"])], TensorProto.DOUBLE, third=third)
    model = inferkit.Model.load(proto("float32", score_mod=cubed, softmax_precision=TensorProto.DOUBLE))
    got = model.run(feeds)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(feeds, score=lambda scores: scores / 3), rtol=1e-5, atol=1e-6)


def test_a_precision_of_halves_is_computed_in_float32() -> None:
    """And so are the graphs, whose types say half."""
    feeds = draw("float16", *SIZES[0])
    half = TensorProto.FLOAT16
    added = body([helper.make_node("Add", ["in", "c"], ["d"]), helper.make_node("Mul", ["d", "c"], ["out"])], half,
                 c=np.array(0.5, np.float16))  # fmt: skip
    model = inferkit.Model.load(proto("float16", score_mod=added, softmax_precision=half))
    got = model.run(feeds)["y"]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, expected(feeds, score=lambda s: (s + 0.5) * 0.5), rtol=4e-3, atol=4e-3)


def test_a_graph_that_reads_what_is_around_it() -> None:
    feeds = {**draw("float32", *SIZES[0]), "bias": np.linspace(-1, 1, 5, dtype=np.float32)}
    added = body([helper.make_node("Add", ["in", "bias"], ["out"])])
    more = [helper.make_tensor_value_info("bias", TensorProto.FLOAT, [5])]
    got = inferkit.Model.load(proto("float32", more=more, score_mod=added)).run(feeds)["y"]
    np.testing.assert_allclose(got, expected(feeds, score=lambda s: s + feeds["bias"]), rtol=1e-5, atol=1e-6)


def test_rows_of_a_batch_are_what_they_are_alone() -> None:
    feeds = draw("float32", *SIZES[1], batch=4)
    model = inferkit.Model.load(
        proto("float32", ([None, 4, 3, 8], [None, 2, 7, 8], [None, 2, 7, 12]), score_mod=CAUSAL)
    )
    whole = model.run(feeds)["y"]
    with inferkit.Batcher(model, max_batch_size=4) as batcher:
        tickets = [batcher.submit({name: x[i] for name, x in feeds.items()}) for i in range(4)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result()["y"], whole[i])
            np.testing.assert_array_equal(model.run({n: x[i : i + 1] for n, x in feeds.items()})["y"][0], whole[i])


def test_what_does_not_fit() -> None:
    model = inferkit.Model.load(proto("float32"), input_checks=LENIENT)
    feeds = draw("float32", *SIZES[1])
    with pytest.raises(inferkit.ValidationError, match="flex"):
        model.run({**feeds, "q": feeds["q"][:, :3]})  # three heads for two
    with pytest.raises(inferkit.UnsupportedOpError, match="softmax_precision 7"):
        inferkit.Model.load(proto("float32", softmax_precision=TensorProto.INT64))
    two = body([helper.make_node("Identity", ["in"], ["out"])])
    two.output.append(two.output[0])
    with pytest.raises(inferkit.ModelError, match="score_mod has 1 input and 2 outputs"):
        inferkit.Model.load(proto("float32", score_mod=two))
