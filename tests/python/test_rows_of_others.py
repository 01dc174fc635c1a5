"""No answer of a batcher holds, or follows from, the rows of another request: operators that take them together.

Each model has its rows along an axis that its operator combines, moves or counts. Whether a batcher keeps requests
apart is decided when the model is loaded; every answer is that of the request alone, to the bit.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

F, I64, I32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
ML, MICROSOFT = "ai.onnx.ml", "com.microsoft"
RNG = np.random.default_rng(7)
TYPES = {F: np.float32, I64: np.int64, I32: np.int32}


class Case(NamedTuple):
    nodes: list[onnx.NodeProto]
    inputs: dict[str, tuple[int, list[Any]]]
    constants: dict[str, Any]
    opset: int = 17
    outputs: dict[str, tuple[int, int]] = {"y": (F, 2)}  # noqa: RUF012 - with their ranks
    sizes: tuple[int, ...] = (1, 2, 1)  # of the requests


def node(kind: str, ins: str, outs: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    """Inputs and outputs are parted by blanks; a dot is one that is left out."""
    names = [[n if n != "." else "" for n in of.split()] for of in (ins, outs)]
    return helper.make_node(kind, *names, domain=domain, **attributes)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def reals(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def loaded(case: Case) -> inferkit.Model:
    graph = helper.make_graph(
        case.nodes, "g",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in case.inputs.items()],
        [helper.make_tensor_value_info(name, kind, ["n", *[None] * (rank - 1)])
         for name, (kind, rank) in case.outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in case.constants.items()],
    )  # fmt: skip
    domains = [helper.make_opsetid(name, at) for name, at in (("", case.opset), (ML, 3), (MICROSOFT, 1))]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    return inferkit.Model.load(model.SerializeToString())


def requests(case: Case) -> list[tuple[Any, ...]]:
    """Random numbers; indices of the first place there is."""
    out = []
    for rows in case.sizes:
        shapes = [(kind, [rows if d == "n" else d for d in dims]) for kind, dims in case.inputs.values()]
        out.append(tuple(reals(*dims) if kind == F else np.zeros(dims, TYPES[kind]) for kind, dims in shapes))
    return out


def each(value: Any) -> list[Any]:
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def check(model: inferkit.Model, asked: list[tuple[Any, ...]]) -> None:
    alone = [each(model(*x)) for x in asked]
    whole = each(model(*(np.concatenate(parts) for parts in zip(*asked, strict=True))))
    stacked = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    assert any(a.tobytes() != b.tobytes() for a, b in zip(whole, stacked, strict=True)), "it shows nothing"

    async def serve() -> Any:
        with inferkit.Batcher(model, max_batch_size=64, max_delay=0.05, caller_runs=False) as batcher:
            return await asyncio.gather(*(batcher.submit(*x) for x in asked)), batcher.stats()

    answers, stats = asyncio.run(serve())
    for got, own in zip(answers, alone, strict=True):
        assert [y.tobytes() for y in each(got)] == [y.tobytes() for y in own]
    assert stats.batches == len(asked)


ROWS = {"x": (F, ["n", 4])}
PAIRS = {"x": (F, ["n", 2])}
SQUARES = {"x": (F, ["n", 2, 2])}
LINE = {"x": (F, ["n"])}
AHEAD, AWAY = node("Unsqueeze", "x zero", "u"), node("Squeeze", "v zero", "y")
TABLE = np.outer(np.arange(64), [1.0, 0.1])
TURNS = {"cos": np.cos(TABLE).astype(np.float32), "sin": np.sin(TABLE).astype(np.float32)}
FLAT = [node("Transpose", "x", "t", perm=[1, 0]), node("Reshape", "t line", "u")]  # [2 n]: all firsts, then all seconds
COUNT = [node("Shape", "x", "s", end=1), node("Squeeze", "s", "count"), node("Range", "nil count unit", "places")]
COUNTED = {"nil": np.array(0), "unit": np.array(1)}
IMAGE, BACK = node("Reshape", "x image", "u"), node("Reshape", "v back", "y")
AS_IMAGE = {"image": ints(1, 1, -1, 4), "back": ints(-1, 4)}
AS_CHANNELS = {"image": ints(1, -1, 4), "back": ints(-1, 4)}
FROM, UP_TO = {"from": ints(0), "to": ints(2**40), "axis": ints(0)}, "from to axis step"

ONE_LINE, THREE = {"y": (F, 1)}, {"y": (F, 3)}
COMBINED = {
    "RotaryEmbedding from one position on": Case(
        [AHEAD, node("RotaryEmbedding", "u first cos sin", "v", MICROSOFT, num_heads=1), AWAY], ROWS,
        {"zero": ints(0), "first": ints(0), **TURNS}),
    "Normalizer of a line": Case([node("Normalizer", "x", "y", ML, norm="L1")], LINE, {}, outputs=ONE_LINE),
    "Normalizer, the columns": Case(
        [AHEAD, node("Normalizer", "u", "v", ML, norm="MAX"), AWAY], LINE, {"zero": ints(0)}, outputs=ONE_LINE),
    "ArrayFeatureExtractor": Case(
        [node("ArrayFeatureExtractor", "x i", "v", ML), AWAY], {**LINE, "i": (I64, ["n"])}, {"zero": ints(0)},
        outputs=ONE_LINE),
    "Resize by a little": Case(
        [node("Resize", "x . scales", "y", mode="cubic")], ROWS, {"scales": np.array([1.05, 1], np.float32)}),
    "Resize by less, which adds a row to fifty": Case(
        [node("Resize", "x . scales", "y", mode="nearest")], ROWS, {"scales": np.array([1.02, 1], np.float32)},
        sizes=(24, 26)),
    "Resize of a region": Case(
        [node("Resize", "x roi scales", "y", mode="nearest", coordinate_transformation_mode="tf_crop_and_resize")],
        ROWS, {"roi": np.array([1, 0, 0, 1], np.float32), "scales": np.array([1, 1], np.float32)}),
    "DepthToSpace, the channels": Case(
        [AHEAD, node("DepthToSpace", "u", "v", blocksize=2), node("Reshape", "v back", "y")], SQUARES,
        {"zero": ints(0), "back": ints(-1, 2, 2)}, outputs=THREE, sizes=(4, 4, 4)),
    "SpaceToDepth, the channels": Case(
        [AHEAD, node("SpaceToDepth", "u", "v", blocksize=2), node("Reshape", "v back", "y")], SQUARES,
        {"zero": ints(0), "back": ints(-1, 2, 2)}, outputs=THREE, sizes=(4, 4, 4)),
    "every other of two lines": Case(
        [*FLAT, node("Slice", f"u {UP_TO}", "y")], PAIRS, {"line": ints(-1), **FROM, "step": ints(2)},
        outputs=ONE_LINE),
    "every fourth of threes": Case(
        [node("Reshape", "x line", "u"), node("Slice", f"u {UP_TO}", "y")], {"x": (F, ["n", 3])},
        {"line": ints(-1), **FROM, "step": ints(4)}, outputs=ONE_LINE),
    "every 101st of hundreds": Case(
        [node("Reshape", "x line", "u"), node("Slice", f"u {UP_TO}", "y")], {"x": (F, ["n", 100])},
        {"line": ints(-1), **FROM, "step": ints(101)}, outputs=ONE_LINE),
    "the halves of a line": Case(
        [node("Reshape", "x line", "u"), node("Split", "u", "a b", axis=0, num_outputs=2), node("Mul", "a b", "y")],
        PAIRS, {"line": ints(-1)}, 18, outputs=ONE_LINE),
    "MaxPool of every other": Case(
        [*FLAT, node("Unsqueeze", "u front", "v"), node("MaxPool", "v", "w", kernel_shape=[1], strides=[2]),
         node("Squeeze", "w front", "y")], PAIRS, {"line": ints(-1), "front": ints(0, 1)}, outputs=ONE_LINE),
    "Conv of every other": Case(
        [*FLAT, node("Unsqueeze", "u front", "v"), node("Conv", "v k", "w", strides=[2]),
         node("Squeeze", "w front", "y")], PAIRS, {"line": ints(-1), "front": ints(0, 1), "k": reals(1, 1, 1)},
        outputs=ONE_LINE),
    "ConvTranspose that shifts": Case(
        [IMAGE, node("ConvTranspose", "u k", "v", pads=[1, 0, 0, 0], output_padding=[1, 0], dilations=[2, 1]), BACK],
        ROWS, {**AS_IMAGE, "k": np.ones((1, 1, 1, 1), np.float32)}),
    "ConvTranspose by a window of rows": Case(
        [node("Transpose", "x", "u", perm=[1, 2, 3, 0]), node("ConvTranspose", "image u", "v", pads=[0, 1, 0, 1]),
         node("Transpose", "v", "y", perm=[3, 0, 1, 2])], {"x": (F, ["n", 1, 1, 1])}, {"image": reals(1, 1, 1, 3)},
        outputs={"y": (F, 4)}, sizes=(2, 3)),
    "ScatterElements of the first three": Case(
        [node("Transpose", "x", "u"), node("ScatterElements", "u i told", "v"), node("Transpose", "v", "y")],
        {"x": (F, ["n", 3])}, {"i": np.array([[1, 0, 2], [0, 2, 1]]), "told": reals(2, 3)}, sizes=(3, 4)),
    "GroupNormalization, the channels": Case(
        [IMAGE, node("GroupNormalization", "u g b", "v", num_groups=1), BACK], ROWS,
        {**AS_CHANNELS, "g": reals(1), "b": reals(1)}, 18),
    "SoftmaxCrossEntropyLoss, the classes": Case(
        [AHEAD, node("SoftmaxCrossEntropyLoss", "u labels", "loss v", reduction="none"), AWAY], ROWS,
        {"zero": ints(0), "labels": np.zeros((1, 4), np.int64)}),
}  # fmt: skip


@pytest.mark.parametrize("what", COMBINED)
def test_what_an_operator_combines_is_not_shared(what: str) -> None:
    check(loaded(COMBINED[what]), requests(COMBINED[what]))


COUNTS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], int]] = {
    "its place": ([], {}, 1),
    "what a table holds at its place": (
        [node("Gather", "table places", "told")], {"table": reals(64, 3)}, 2),
    "how many there are": (
        [node("Expand", "count s", "told")], {}, 1),
    "whether it is the first": (
        [node("Equal", "places nil", "first"), node("Cast", "first", "told", to=I64)], {}, 1),
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTS)
def test_an_output_that_follows_from_the_number_of_rows_is_not_shared(what: str) -> None:
    nodes, constants, rank = COUNTS[what]
    nodes = nodes or [node("Identity", "places", "told")]
    outputs = {"y": (F, 2), "told": (F if "table" in constants else I64, rank)}
    case = Case([node("Relu", "x", "y"), *COUNT, *nodes], ROWS, {**COUNTED, **constants}, outputs=outputs)
    check(loaded(case), requests(case))


def test_an_output_that_is_the_same_for_every_row_is_shared() -> None:
    nodes = [node("Relu", "x", "y"), node("Shape", "x", "s"), node("Expand", "row s", "told")]
    model = loaded(Case(nodes, ROWS, {"row": reals(1, 4)}, outputs={"y": (F, 2), "told": (F, 2)}))
    assert not model._mixing_node


def test_lengths_of_which_a_sequence_has_two_are_not_shared() -> None:
    """The ends of all sequences come first in a mask of ONNX Runtime's Attention, then where they begin."""
    nodes = [node("Reshape", "m line", "mask"), node("Attention", "x w b mask", "y", MICROSOFT, num_heads=2)]
    constants = {"w": reals(8, 24), "b": reals(24), "line": ints(-1)}
    model = loaded(Case(nodes, {"x": (F, ["n", 3, 8]), "m": (I32, ["n", 2])}, constants, outputs=THREE))
    check(model, [(reals(1, 3, 8), np.array([[end, 0]], np.int32)) for end in (3, 2, 3)])


def test_rows_that_do_not_fill_a_block_alone_do_not_in_company() -> None:
    nodes = [
        node("Reshape", "x image", "u"), node("SpaceToDepth", "u", "v", blocksize=2),
        node("Transpose", "v", "t", perm=[0, 2, 3, 1]), node("Reshape", "t back", "y"),
    ]  # fmt: skip
    case = Case(nodes, ROWS, AS_IMAGE, sizes=(1, 1))
    model, asked = loaded(case), requests(case)
    for x in asked:
        with pytest.raises(inferkit.InferkitError):
            model(*x)

    async def serve() -> Any:
        with inferkit.Batcher(model, max_batch_size=64, max_delay=0.05, caller_runs=False) as batcher:
            return await asyncio.gather(*(batcher.submit(*x) for x in asked), return_exceptions=True)

    assert all(isinstance(answer, inferkit.InferkitError) for answer in asyncio.run(serve()))
