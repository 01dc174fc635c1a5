"""Well-formed files whose graphs mean harm: refused, or at least loaded in bounded time and memory; never a crash."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

INT_MIN, INT_MAX, HUGE = -(2**63), 2**63 - 1, 2**62
X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3
node = helper.make_node


def value(name: str, shape: Sequence[int | str] = ("N", 4), dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def load(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    x: Sequence[int | str] = ("N", 4),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    **options: int,
) -> inferkit.Model:
    graph = helper.make_graph(
        list(nodes), "g", [value("x", x)], list(outputs) or [value("y", ("a", "b"))], list(constants)
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString(), **options)


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# ---- arity: passes and lowerings index into inputs and outputs -----------------------------------------------------

SPELLED_OUT_NORM = [
    node("ReduceMean", ["x"], ["m"], axes=[-1]),
    node("Sub", ["x", "m"], ["d"]),
    node("Sqrt", [], ["r"]),
    node("Div", ["d", "r"], ["y"]),
]


@pytest.mark.parametrize(
    "nodes",
    [
        SPELLED_OUT_NORM,
        [node("ReduceMean", [], ["m"], axes=[-1]), *SPELLED_OUT_NORM[1:]],
        [node("Erf", ["x"], ["", "y"])],
        [node("Sigmoid", ["x"], ["", "y"])],
        [node("Div", ["x", "root"], ["a"]), node("Erf", ["a"], ["", "y"])],
        [node("Erf", ["x"], ["e"]), node("Add", ["e", "root"], ["", "y"])],
        [node("Identity", [], ["y"])],
        [node("Relu", ["x", "x"], ["y"])],
    ],
)
def test_nodes_with_the_wrong_number_of_inputs_or_outputs(nodes: list[onnx.NodeProto]) -> None:
    root = numpy_helper.from_array(np.sqrt(np.float32(2)), "root")
    with pytest.raises(inferkit.ModelError, match=r"has \d (inputs|outputs)"):
        load(nodes, [root])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (node("Relu", ["x", "x"], ["y"]), r"^a node \(Relu\) that computes 'y': has 2 inputs; Relu takes 1$"),
        (node("Relu", ["x", "x"], ["y"], name="r"), r"^node 'r' \(Relu\): has 2 inputs; Relu takes 1$"),
        (node("Clip", ["x", "", "", "x"], ["y"]), r"that computes 'y': has 4 inputs; Clip takes 1 to 3$"),
        (node("Relu", ["x"], ["", "y"]), r"^a node \(Relu\) that computes 'y': has 2 outputs; Relu has 1$"),
        (node("Concat", [], ["y"], axis=0), r"that computes 'y': has 0 inputs; Concat takes at least 1$"),
        (node("Relu", ["q"], ["y"]), r"^a node \(Relu\) that computes 'y' reads 'q', which nothing defines$"),
    ],
)
def test_a_node_that_is_wrong_can_be_found(wrong: onnx.NodeProto, said: str) -> None:
    with pytest.raises(inferkit.ModelError, match=said):
        load([wrong])


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@pytest.mark.parametrize("outputs", [["y", "z"], ["", "z"]])
def test_outputs_that_no_operator_has(op: str, outputs: list[str]) -> None:
    w = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    ports = [value(name) for name in outputs if name]
    with pytest.raises(inferkit.ModelError):
        load([node(op, ["x", "w"], outputs)], [w], outputs=ports)


@pytest.mark.parametrize("op", ["Relu", "Erf", "Identity", "Cast", "Softmax", "Transpose", "Reshape", "Concat"])
def test_required_inputs_that_are_left_out(op: str) -> None:
    attributes = {"Cast": {"to": 1}, "Concat": {"axis": 0}}.get(op, {})
    with pytest.raises(inferkit.InferkitError, match=r"missing|has 1 input\b"):
        load([node(op, [""], ["y"], **attributes)])(X)


@pytest.mark.parametrize(
    "training", [np.zeros(1, np.int8), np.full(1, 2, np.uint8), np.zeros(2, bool), np.zeros(0, bool), np.zeros(1)]
)
def test_dropout_whose_training_mode_is_not_one_bool(training: np.ndarray) -> None:
    constants = [numpy_helper.from_array(np.float32(0.5), "r"), numpy_helper.from_array(training, "t")]
    with pytest.raises(inferkit.ModelError, match=r"Dropout.*(input 2 of type|training_mode)"):
        load([node("Dropout", ["x", "r", "t"], ["y"])], constants, x=(2, 4))


# ---- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2**40, 2**40), (HUGE,), (2**33, 2**33)])
@pytest.mark.parametrize("op", ["Relu", "Identity"])
def test_inputs_of_impossible_size(shape: tuple[int, ...], op: str) -> None:
    with pytest.raises(inferkit.ModelError, match="too large"):
        load([node(op, ["x"], ["y"])], x=shape, outputs=[value("y", shape)])


def test_a_grid_of_impossible_size() -> None:
    graph = helper.make_graph(
        [node("GridSample", ["x", "grid"], ["y"])],
        "g",
        [value("x", (2, 2**31, 6, 2)), value("grid", (2, 2**31, 6, 2))],
        [value("y", ("a", "b", "c", "d"))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(inferkit.ModelError, match=r"GridSample.*too large"):
        inferkit.Model.load(made.SerializeToString())


@pytest.mark.parametrize("target", [(HUGE, 4), (2**33, 2**33), (INT_MAX,), (-1, 4), (INT_MIN, 4)])
@pytest.mark.parametrize("op", ["Expand", "ConstantOfShape", "Tile"])
def test_values_of_impossible_size(target: tuple[int, ...], op: str) -> None:
    start = time.monotonic()
    nodes = [node(op, ["s"], ["z"]), node("Add", ["x", "z"], ["y"])]
    if op != "ConstantOfShape":
        nodes = [node(op, ["x", "s"], ["y"])]
    with pytest.raises(inferkit.InferkitError):
        load(nodes, [ints("s", *target)], x=(1, 1))(X[:1, :1])
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("attribute", ["pads", "strides", "dilations", "kernel_shape", "group"])
@pytest.mark.parametrize("number", [HUGE, -HUGE, 2**31, 0, -1, HUGE + 1])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
def test_windows_of_impossible_size(op: str, attribute: str, number: int) -> None:
    w = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    attributes: dict[str, object] = {} if "Conv" in op else {"kernel_shape": [3, 3]}
    attributes[attribute] = number if attribute == "group" else [number] * (4 if attribute == "pads" else 2)
    inputs = ["x", "w"] if "Conv" in op else ["x"]
    start = time.monotonic()
    try:
        model = load([node(op, inputs, ["y"], **attributes)], [w], x=("N", 1, 8, 8), outputs=[value("y", "abcd")])
        assert np.isfinite(model(np.ones((2, 1, 8, 8), np.float32))).all()
    except (inferkit.InferkitError, MemoryError):
        pass
    assert time.monotonic() - start < 5


# ---- many ----------------------------------------------------------------------------------------------------------


def test_a_kernel_of_impossible_size_has_no_tables() -> None:
    graph = helper.make_graph(
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])],
        "g",
        [value("x", (2, 2, "h", 14)), value("w", (3, 2, 4, 2**25))],
        [value("y", ("a", "b", "c", "d"))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = rss()
    with pytest.raises(inferkit.ModelError, match="one run may take at most"):
        inferkit.Model.load(made.SerializeToString())
    assert rss() - before < 100 << 20  # a table of its taps takes a gigabyte


def test_folding_does_not_fill_the_memory() -> None:
    """A hundred constants of 60 MB each, from a file of a few kilobytes."""
    count = 100
    nodes = [node("Expand", ["one", "s"], [f"e{i}"]) for i in range(count)]
    nodes.append(node("Sum", ["x", *(f"e{i}" for i in range(count))], ["y"]))
    before = rss()
    constants = [numpy_helper.from_array(np.float32(1), "one"), ints("s", 4000, 3900)]
    load(nodes, constants, x=(1, 1), max_run_bytes=1 << 40)
    assert rss() - before < 500 << 20


@pytest.mark.parametrize("kind", ["neg", "identity", "transpose", "fan", "fan_identity", "constant", "backwards"])
def test_many_nodes_take_seconds(kind: str) -> None:
    """Quadratic steps took minutes here; the stack must not grow with the graph either."""
    count = 40_000
    one = numpy_helper.from_array(np.float32(1), "one")
    if kind.startswith("fan"):
        op = "Identity" if kind == "fan_identity" else "Relu"
        nodes = [node(op, ["x"], [f"v{i}"]) for i in range(count)]
        nodes.append(node("Sum", [f"v{i}" for i in range(count)], ["y"]))
    else:
        op = {"identity": "Identity", "transpose": "Transpose"}.get(kind, "Neg")
        names = ["one" if kind == "constant" else "x", *(f"v{i}" for i in range(count))]
        nodes = [node(op, [a], [b]) for a, b in itertools.pairwise(names)]
        nodes.append(node("Add", ["x", names[-1]], ["y"]))
    if kind == "backwards":
        nodes.reverse()
    start = time.monotonic()
    model = load(nodes, [one], x=(4, 4), outputs=[value("y", (4, 4))])
    model(np.zeros((4, 4), np.float32))
    assert time.monotonic() - start < 20


def test_a_long_way_from_the_texts_to_their_tokens() -> None:
    """What recognises a pattern in the graph goes back through it, as far as who wrote the file made it."""
    names = ["x", *(f"h{i}" for i in range(100_000))]
    nodes = [node("StringNormalizer", [a], [b]) for a, b in itertools.pairwise(names)]
    nodes.append(node("Tokenizer", [names[-1]], ["t"], domain="com.microsoft", mark=0, mincharnum=1, pad_value="#",
                      separators=[" "]))  # fmt: skip
    nodes.append(node("TfIdfVectorizer", ["t"], ["y"], mode="TF", min_gram_length=1, max_gram_length=1,
                      max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_strings=["a", "b"]))  # fmt: skip
    graph = helper.make_graph(nodes, "g", [value("x", ("N",), TensorProto.STRING)], [value("y", ("N", 2))])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = inferkit.Model.load(made.SerializeToString())
    assert model(np.array(["a b a", "c b"], object)).tolist() == [[2, 1], [0, 1]]
