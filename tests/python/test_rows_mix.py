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
