"""Graphs that contradict themselves: refused at load, or at the run where only its sizes tell, by the node's name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT = TensorProto.FLOAT
node = helper.make_node


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, None if shape is None else list(shape))


def constant(name: str, array: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(array, dtype), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", list(inputs), [value(n, None) for n in outputs], list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def refused(proto: onnx.ModelProto, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(inferkit.ModelError, match=message) as caught:
        inferkit.Model.load(proto.SerializeToString())
    assert not isinstance(caught.value, inferkit.UnsupportedOpError)
    assert time.monotonic() - start < 10


# ---- ranks and shapes ----------------------------------------------------------------------------------------------

W = np.ones((4, 4), np.float32)
IMAGE = np.ones((1, 1, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("op", "shape", "others", "attributes"),
    [
        ("MatMul", (2, 3), [W], {}),
        ("MatMul", (), [W], {}),
        ("Gemm", (2, 2, 4), [W], {}),
        ("Gemm", (2, 4), [W, np.ones((3, 4), np.float32)], {}),
        ("Conv", (2, 4), [IMAGE], {}),
        ("Conv", (2, 2, 8, 8), [IMAGE], {}),
        ("Conv", (2, 1, 8), [IMAGE], {}),
        ("ConvTranspose", (2, 3, 8, 8), [IMAGE], {}),
        ("MaxPool", (2, 3), [], {"kernel_shape": [2, 2]}),
        ("AveragePool", (1, 1, 8, 8), [], {"kernel_shape": [2, 2, 2]}),
        ("BatchNormalization", (2, 3, 4), [np.ones(2, np.float32)] * 4, {}),
        ("LayerNormalization", (2, 4), [np.ones(3, np.float32)], {}),
        ("Concat", (2, 4), [np.ones((2, 4, 1), np.float32)], {"axis": 0}),
        ("Concat", (2, 4), [W], {"axis": 5}),
        ("Transpose", (2, 4), [], {"perm": [0, 1, 2]}),
        ("Transpose", (2, 4), [], {"perm": [0, 0]}),
        ("Transpose", (2, 4), [], {"perm": [0, -7]}),
        ("Softmax", (2, 4), [], {"axis": 9}),
        ("Add", (2, 4), [np.ones((3, 4), np.float32)], {}),
        ("Where", (2, 4), [W, W], {}),
        ("Reshape", (2, 4), [np.array([3, 3])], {}),
        ("Reshape", (2, 4), [np.array([-1, -1])], {}),
        ("Reshape", (2, 4), [np.array([-2, 4])], {}),
        ("Expand", (2, 4), [np.array([3, 4])], {}),
        ("Squeeze", (2, 4), [np.array([0])], {}),
        ("Unsqueeze", (2, 4), [np.array([9])], {}),
        ("Unsqueeze", (2, 4), [np.array([0, 0])], {}),
        ("Split", (2, 4), [np.array([1, 9])], {}),
        ("Split", (2, 4), [np.array([-1, 3])], {}),
        ("Slice", (2, 4), [np.array([0, 0]), np.array([1])], {}),
        ("Slice", (2, 4), [np.array([0]), np.array([1]), np.array([7])], {}),
        ("Slice", (2, 4), [np.array([0]), np.array([1]), np.array([0]), np.array([0])], {}),
        ("Pad", (2, 4), [np.array([1, 1, 1])], {}),
        ("Pad", (2, 4), [np.array([-9, 0, 0, 0])], {}),
        ("Gather", (2, 4), [np.array([0])], {"axis": 3}),
        ("GatherND", (2, 4), [np.array([[0, 0, 0]])], {}),
        ("Tile", (2, 4), [np.array([1])], {}),
        ("Tile", (2, 4), [np.array([1, -3])], {}),
        ("TopK", (2, 4), [np.array([9])], {}),
        ("ReduceSum", (2, 4), [np.array([5])], {}),
        ("Einsum", (2, 4), [W], {"equation": "ij,jk,kl->il"}),
        ("Einsum", (2, 4), [W], {"equation": "ijk,jk->i"}),
        ("LSTM", (2, 4), [np.ones((1, 8, 4), np.float32), np.ones((1, 8, 2), np.float32)], {"hidden_size": 2}),
        ("LSTM", (5, 2, 4), [np.ones((1, 7, 4), np.float32), np.ones((1, 8, 2), np.float32)], {"hidden_size": 2}),
        ("Resize", (1, 1, 4, 4), [np.ones(0, np.float32), np.array([1.0, 2], np.float32)], {}),
    ],
)
def test_ranks_and_shapes_that_do_not_fit(
    op: str, shape: tuple[int, ...], others: list[np.ndarray], attributes: dict[str, object]
) -> None:
    constants = [numpy_helper.from_array(array, f"c{i}") for i, array in enumerate(others)]
    names = ["x", *(c.name for c in constants)]
    outputs = ["y", "y2"] if op in ("Split", "TopK") else ["y"]
    made = node(op, names, outputs, name="culprit", **attributes)
    refused(model([made], [value("x", shape)], constants), "culprit")


def test_constants_on_which_an_operation_is_impossible() -> None:
    """Found by the fuzzer: folding met the index, and blamed a run that there was not."""
    pick = node("Gather", ["t", "i"], ["z"], name="culprit")
    constants = [constant("t", [1, 2, 3]), constant("i", [-4], np.int64)]
    refused(model([pick, node("Add", ["x", "z"], ["y"])], [value("x", (2,))], constants), "culprit.*-4")


@pytest.mark.parametrize(
    ("op", "given"),
    [
        ("InstanceNormalization", ["x", "", "c"]),
        ("LayerNormalization", ["x", ""]),
        ("BatchNormalization", ["x", "c", "c", "", "c"]),
        ("Add", ["x", ""]),
        ("MatMul", ["", "x"]),
        ("Gemm", ["x", ""]),
        ("Where", ["", "x", "x"]),
        ("PRelu", ["x", ""]),
        ("Pow", ["x", ""]),
        ("Equal", ["x", ""]),
        ("Conv", ["x", ""]),
        ("Gather", ["x", ""]),
        ("GridSample", ["x", ""]),
        ("ScatterND", ["x", "", "x"]),
        ("LSTM", ["x", "", "c"]),
    ],
)
def test_inputs_that_an_operator_needs_are_left_out(op: str, given: list[str]) -> None:
    """Found by the fuzzer: a normalization without its scale read from nowhere."""
    refused(
        model(
            [node(op, given, ["y"], name="culprit", **({"hidden_size": 2} if op == "LSTM" else {}))],
            [value("x", (2, 3, 3))],
            [constant("c", np.ones(3))],
        ),
        "culprit.*",
    )


def test_shapes_that_only_a_run_tells() -> None:
    made = model(
        [node("Add", ["x", "c"], ["y"], name="culprit")], [value("x", ("N", "M"))], [constant("c", np.ones((2, 3)))]
    )
    loaded = inferkit.Model.load(made.SerializeToString())
    with pytest.raises(inferkit.ValidationError, match="culprit"):
        loaded(np.ones((5, 3), np.float32))
    assert loaded(np.ones((2, 3), np.float32)).shape == (2, 3)


# ---- dimensions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [[-1], [-(2**62), 2], [2**62, 4], [2**33, 2**33], [2**63 - 1, 2**63 - 1], [0, -1]])
@pytest.mark.parametrize("payload", ["raw", "floats", "nothing"])
def test_constants_of_impossible_dimensions(dims: list[int], payload: str) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=dims)
    if payload == "raw":
        tensor.raw_data = bytes(16)
    elif payload == "floats":
        tensor.float_data.extend([1.0] * 4)
    refused(model([node("Add", ["x", "w"], ["y"])], [value("x", (2, 2))], [tensor]), "'w'")


@pytest.mark.parametrize(("dims", "size"), [([4], 12), ([4], 17), ([2, 2], 0), ([], 8)])
def test_constants_whose_data_do_not_fill_their_shape(dims: list[int], size: int) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=bytes(size))
    refused(model([node("Add", ["x", "w"], ["y"])], [value("x", (2, 2))], [tensor]), "'w'")


@pytest.mark.parametrize("dim", [-2, -(2**62)])
def test_inputs_of_negative_dimensions(dim: int) -> None:
    refused(model([node("Relu", ["x"], ["y"])], [value("x", (dim, 2))]), "negative size")


@pytest.mark.parametrize("op", ["LRN", "Relu", "Softmax", "Transpose", "GlobalMaxPool", "CumSum", "Einsum", "MatMul"])
def test_empty_values_of_huge_dimensions(op: str) -> None:
    """Found by the fuzzer: four billion channels of no elements, one after the other."""
    shape = (4, 2**32, 0, 5)
    attributes: dict[str, object] = {"LRN": {"size": 3}, "Einsum": {"equation": "abcd->dabc"}}.get(op, {})
    inputs = {"CumSum": ["x", "c"], "MatMul": ["x", "m"]}.get(op, ["x"])
    constants = [constant("c", 1, np.int64), constant("m", np.ones((5, 5)))]
    start = time.monotonic()
    try:
        loaded = inferkit.Model.load(
            model([node(op, inputs, ["y"], **attributes)], [value("x", shape)], constants).SerializeToString(),
            input_checks=inferkit.InputChecks(non_empty=False),
        )
        assert loaded(np.zeros(shape, np.float32)).size == 0
    except inferkit.InferkitError:
        pass
    assert time.monotonic() - start < 5


def test_more_dimensions_than_a_shape_holds() -> None:
    many = [1] * 40
    with pytest.raises(inferkit.ModelError, match=r"40|dimensions"):
        inferkit.Model.load(model([node("Relu", ["x"], ["y"])], [value("x", many)]).SerializeToString())
    tensor = TensorProto(name="w", data_type=FLOAT, dims=many, raw_data=bytes(4))
    with pytest.raises(inferkit.ModelError, match=r"40|dimensions"):
        inferkit.Model.load(model([node("Add", ["x", "w"], ["y"])], [value("x", (1,))], [tensor]).SerializeToString())


# ---- names ---------------------------------------------------------------------------------------------------------


def test_names_that_come_twice() -> None:
    x = value("x", (2, 2))
    relu = node("Relu", ["x"], ["y"], name="culprit")
    refused(model([relu], [x, x]), "'x'")
    refused(model([relu, node("Abs", ["x"], ["y"])], [x]), "'y'")
    refused(model([node("Relu", ["x"], ["x"], name="culprit")], [x], outputs=["x"]), "'x'")
    refused(model([node("Add", ["x", "w"], ["y"])], [x], [constant("w", 1), constant("w", 2)]), "'w'")
    refused(model([node("Split", ["x"], ["y", "y"], axis=0, name="culprit")], [x]), "'y'")
    refused(model([node("Relu", ["x"], ["w"], name="culprit")], [x], [constant("w", 1)], outputs=["w"]), "'w'")


def test_outputs_that_are_listed_again() -> None:
    """Each has a name of its own, also where another value has the name that it would be given."""
    relu, less = node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y_2"])
    made = model([relu, less], [value("x", (2,))], outputs=["y", "y_2", "y", "x", "y", "x"])
    loaded = inferkit.Model.load(made.SerializeToString())
    assert [spec.name for spec in loaded.outputs] == ["y", "y_2", "y_3", "x", "y_4", "x_2"]
    x = np.array([-1, 1], np.float32)
    expected = [np.maximum(x, 0), -x, np.maximum(x, 0), x, np.maximum(x, 0), x]
    for answers in (loaded(x), loaded.run({"x": x}).values()):
        for array, right in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(array, right)
    again = np.empty(2, np.float32)
    assert loaded.run({"x": x}, out={"y_3": again})["y_3"] is again
    np.testing.assert_array_equal(again, [0, 1])
    np.testing.assert_array_equal(inferkit.Model.load(made.SerializeToString(), outputs=["y_4"])(x), np.maximum(x, 0))


def test_an_output_that_is_listed_again_in_a_batcher() -> None:
    graph = helper.make_graph([node("Neg", ["x"], ["y"])], "g", [value("x", (None, 2))], [value("y", (None, 2))] * 2)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.ones((1, 2), np.float32)
    with inferkit.Batcher(inferkit.Model.load(made.SerializeToString())) as batcher:
        answers = batcher({"x": x})
        assert list(answers) == ["y", "y_2"]
        for array in answers.values():
            np.testing.assert_array_equal(array, -x)


def test_names_that_nothing_defines() -> None:
    x = value("x", (2, 2))
    refused(model([node("Add", ["x", "absent"], ["y"], name="culprit")], [x]), "culprit.*'absent'")
    refused(model([node("Relu", ["x"], ["z"])], [x]), "'y'")
    branch = helper.make_graph([node("Add", ["x", "absent"], ["r"], name="culprit")], "b", [], [value("r", None)])
    chosen = node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    refused(model([chosen], [x], [constant("c", True, bool)]), "'absent'")


# ---- cycles and nesting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 1000])
def test_cycles(length: int) -> None:
    ring = [node("Add", ["x", f"v{i}"], [f"v{(i + 1) % length}"], name=f"ring{i}") for i in range(length)]
    refused(model([*ring, node("Relu", ["v0"], ["y"])], [value("x", (2,))]), "ring")


def test_a_cycle_in_a_branch() -> None:
    ring = [node("Add", ["x", "a"], ["b"], name="ring"), node("Abs", ["b"], ["a"])]
    branch = helper.make_graph(ring, "b", [], [value("b", None)])
    chosen = node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    refused(model([chosen], [value("x", (2,))], [constant("c", True, bool)]), "ring|cycle")


def function(name: str, calls: str) -> onnx.FunctionProto:
    body = [node(calls, ["a"], ["b"], domain="own" if calls.startswith("F") else "")]
    return helper.make_function(
        "own", name, ["a"], ["b"], body, [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    )


def test_functions_that_call_themselves() -> None:
    for functions in ([function("F0", "F0")], [function("F0", "F1"), function("F1", "F0")]):
        call = node("F0", ["x"], ["y"], domain="own", name="culprit")
        refused(model([call], [value("x", (2,))], functions=functions), "F0|culprit")


def test_functions_that_hand_a_value_through_to_itself() -> None:
    """Found by the fuzzer: nothing computes the value, and no node's edges tell."""
    through = helper.make_function("own", "F", ["a"], ["a"], [], [helper.make_opsetid("", 17)])
    call = node("F", ["z"], ["z"], domain="own", name="culprit")
    refused(model([call, node("Add", ["x", "z"], ["y"])], [value("x", (2,))], functions=[through]), "cycle.*culprit")


def test_functions_that_grow_beyond_bounds() -> None:
    """Each calls the next one ten times: ten functions, and 10**10 nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(10):
        inner = f"F{level + 1}" if level < 9 else "Relu"
        domain = "own" if level < 9 else ""
        names = ["a", *(f"v{i}" for i in range(9)), "b"]
        body = [node(inner, [names[i]], [names[i + 1]], domain=domain) for i in range(10)]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], body, opsets))
    made = model([node("F0", ["x"], ["y"], domain="own", name="culprit")], [value("x", (2,))], functions=functions)
    start = time.monotonic()
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(made.SerializeToString())
    assert time.monotonic() - start < 20


def test_messages_that_nest_without_end() -> None:
    """Attributes of graphs of nodes of attributes, as raw bytes: no library would write it."""
    content = b""
    for _ in range(3000):
        graph = b"\x0a" + varint(len(content)) + content  # GraphProto.node
        attribute = b"\x32" + varint(len(graph)) + graph  # AttributeProto.g
        content = b"\x2a" + varint(len(attribute)) + attribute  # NodeProto.attribute
    graph = b"\x0a" + varint(len(content)) + content
    start = time.monotonic()
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(b"\x08\x08\x3a" + varint(len(graph)) + graph)
    assert time.monotonic() - start < 10


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# ---- numbers that no integer is ------------------------------------------------------------------------------------

NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e20, 1e-45]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("what", ["Shrink", "OneHot", "Gemm", "MelWeightMatrix", "Resize by roi", "Resize by scale"])
def test_numbers_that_no_integer_is(what: str, number: float) -> None:
    """Found by the fuzzer, in Shrink: what does not fit saturates, or is refused, but is never left to chance."""
    op = what.split()[0]
    ints = value("x", (2, 2), TensorProto.INT64)
    image = value("x", (1, 1, 4, 4))
    one = constant("one", [1, 1, 1, 1])
    cases: dict[str, tuple[onnx.NodeProto, onnx.ValueInfoProto, list[onnx.TensorProto]]] = {
        "Shrink": (node(op, ["x"], ["y"], bias=number, lambd=0.0), ints, []),
        "OneHot": (node(op, ["x", "d", "v"], ["y"]), ints, [constant("d", number), constant("v", [0, 1])]),
        "Gemm": (node(op, ["x", "x", "x"], ["y"], alpha=number, beta=number), ints, []),
        "MelWeightMatrix": (
            node(op, ["n", "n", "n", "low", "high"], ["y"]),
            ints,
            [constant("n", 4, np.int64), constant("low", 0), constant("high", number)],
        ),
        "Resize by roi": (
            node(op, ["x", "roi", "one"], ["y"], coordinate_transformation_mode="tf_crop_and_resize", mode="linear"),
            image,
            [constant("roi", [0, 0, 0, 0, 1, 1, number, number]), one],
        ),
        "Resize by scale": (
            node(op, ["x", "", "s"], ["y"], antialias=1, mode="linear"),
            image,
            [constant("s", [1, 1, number, 1])],
        ),
    }
    given, port, constants = cases[what]
    proto = model([given], [port], constants)
    proto.opset_import[0].version = 18
    try:
        loaded = inferkit.Model.load(proto.SerializeToString(), input_checks=inferkit.InputChecks(non_empty=False))
        spec = loaded.inputs[0]
        loaded(np.full([d or 0 for d in spec.shape], 2, spec.dtype))
    except inferkit.InferkitError:
        pass


def test_shrunk_integers_saturate() -> None:
    proto = model([node("Shrink", ["x"], ["y"], bias=-300.0, lambd=0.5)], [value("x", (3,), TensorProto.INT8)])
    found = inferkit.Model.load(proto.SerializeToString())(np.array([-100, 0, 100], np.int8))
    assert found.tolist() == [-128, 0, 127]


# ---- sizes that are numbers by themselves, but not added up or multiplied ------------------------------------------

MANY = 2**40
SIZES: list[tuple[str, list[tuple[int, ...]], dict[str, object]]] = [
    ("Conv", [(1, 1, 5), (0, 1, MANY)], {"dilations": [2**31]}),
    ("Conv", [(1, 0, 5), (0, 3, 1)], {"group": 2**62}),
    ("ConvTranspose", [(0, 1, MANY), (1, 1, 1)], {"strides": [2**31]}),
    ("ConvTranspose", [(1, 0, 5), (0, 3, 1), (3,)], {"group": 2**62}),
    ("MaxPool", [(1, 0, 5)], {"kernel_shape": [2**62], "dilations": [2**31]}),
    ("DeformConv", [(1, 0, 4, 4), (1, 0, 4, 4), (1, 2, 1, 1)], {"offset_group": 2**62}),
    ("DepthToSpace", [(1, 0, MANY, 2)], {"blocksize": 2**20}),
    ("SpaceToDepth", [(1, MANY, 0, 0)], {"blocksize": 2**20}),
    ("Concat", [(2**62, 0), (2**62, 0), (2**62, 0)], {"axis": 0}),
    ("Attention", [(1, 1, 4, 8)] * 3, {"left_window_size": 2**63 - 1, "right_window_size": 2**63 - 1}),
    ("Attention", [(1, 1, 0, 0), *[(1, 1, 2**62, 0)] * 2, (), *[(1, 1, 2**62, 0)] * 2], {}),
]


@pytest.mark.parametrize(("op", "shapes", "attributes"), SIZES)
def test_sizes_that_overflow(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, object]) -> None:
    """None is wrong by itself where there are no elements. For builds with sanitizers, which fail on the overflow."""
    ports = [value(f"x{i}", shape) for i, shape in enumerate(shapes) if shape]
    names = [f"x{i}" if shape else "" for i, shape in enumerate(shapes)]
    proto = model([node(op, names, ["y"], **attributes)], ports)
    proto.opset_import[0].version = 25
    proto.ir_version = 10
    try:
        loaded = inferkit.Model.load(proto.SerializeToString(), input_checks=inferkit.InputChecks(non_empty=False))
        loaded({spec.name: np.zeros(spec.shape, np.float32) for spec in loaded.inputs})
    except inferkit.InferkitError:
        pass


OUT, TAPS = 2**15 - 1, 2**17
SIDE = OUT + TAPS - 1
# Results of a size that is let through, of very many products each.
ESTIMATED: list[tuple[str, list[tuple[int, ...]], dict[str, object]]] = [
    ("Conv", [(1, 1, SIDE, SIDE), (1, 1, TAPS, TAPS)], {}),
    ("Conv", [(1, 4, SIDE, SIDE // 2), (1, 4, TAPS, TAPS // 2)], {}),
    ("AveragePool", [(1, 1, SIDE, SIDE)], {"kernel_shape": [TAPS, TAPS]}),
    ("AveragePool", [(1, 1, 1, SIDE, SIDE)], {"kernel_shape": [1, TAPS, TAPS]}),
    ("MaxPool", [(1, 1, SIDE, SIDE)], {"kernel_shape": [TAPS, TAPS]}),
    ("LpPool", [(1, 1, SIDE, SIDE)], {"kernel_shape": [TAPS, TAPS]}),
]


@pytest.mark.parametrize(("op", "shapes", "attributes"), ESTIMATED)
def test_estimates_that_overflow(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, object]) -> None:
    """Refused for its size, once somebody has estimated how long it takes. For builds with sanitizers, likewise."""
    proto = model(
        [node(op, [f"x{i}" for i in range(len(shapes))], ["y"], **attributes)],
        [value(f"x{i}", shape) for i, shape in enumerate(shapes)],
    )
    proto.opset_import[0].version = 19
    proto.ir_version = 10
    with contextlib.suppress(inferkit.InferkitError):
        inferkit.Model.load(proto.SerializeToString())


def test_skips_that_overflow() -> None:
    """Found by the fuzzer."""
    attributes = {"mode": "TF", "ngram_counts": [0, 1], "ngram_indexes": [0, 1], "pool_int64s": [1, 2, 3]}
    gaps = {"min_gram_length": 2, "max_gram_length": 2, "max_skip_count": 2**31 - 1}
    port = value("x", (2**32,), TensorProto.INT32)
    refused(model([node("TfIdfVectorizer", ["x"], ["y"], **attributes, **gaps)], [port]), "max_run_bytes")


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("dims", [(2**40, 2**40), (2**40, 2**24, 3), (2**33, 2**31, 2**33)])
def test_items_that_no_memory_holds(dims: tuple[int, ...], optional: bool) -> None:
    """Found by the fuzzer: counted modulo 2^64, they were tried out on a few bytes."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, dims))
    if optional:
        kind = helper.make_optional_type_proto(kind)
    ports = [helper.make_value_info(name, kind) for name in ("x", "y")]
    graph = helper.make_graph([node("Identity", ["x"], ["y"])], "g", ports[:1], ports[1:])
    refused(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), "too large")


def test_blocks_of_more_than_there_is() -> None:
    scales = [constant("s", np.ones((1, 2)))]
    port = [value("x", (4, 2), TensorProto.INT8)]
    proto = model([node("DequantizeLinear", ["x", "s"], ["y"], axis=0, block_size=2**63 - 1)], port, scales)
    proto.opset_import[0].version = 21
    proto.ir_version = 10
    assert inferkit.Model.load(proto.SerializeToString())(np.ones((4, 2), np.int8)).sum() == 8


def test_a_dft_longer_than_any_table() -> None:
    inputs = ["four", "long", "rate", "low", "high"]
    constants = [constant(name, n, np.int64) for name, n in (("four", 4), ("long", 2**63 - 1), ("rate", 16000))]
    constants += [constant("low", 0), constant("high", 8000)]
    refused(model([node("MelWeightMatrix", inputs, ["y"])], [value("x", (1,))], constants), "DFT")


def test_gaps_longer_than_any_row() -> None:
    """Two billion of them, for each row."""
    attributes = {"mode": "TF", "ngram_counts": [0, 1], "ngram_indexes": [0, 1], "pool_int64s": [1, 2, 3]}
    gaps = {"min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 2**31}
    port = value("x", (1000, 5), TensorProto.INT64)
    start = time.monotonic()
    loaded = inferkit.Model.load(
        model([node("TfIdfVectorizer", ["x"], ["y"], **attributes, **gaps)], [port]).SerializeToString()
    )
    found = loaded(np.tile(np.array([2, 0, 0, 0, 3], np.int64), (1000, 1)))
    assert found[0].tolist() == [0, 1]
    assert time.monotonic() - start < 5


def test_a_dilation_of_one_tap() -> None:
    """Found by the fuzzer: it means nothing, and was counted up to, for each filter."""
    weights = [constant("w", np.ones((6, 1, 4, 1)))]
    attributes = {"group": 2, "dilations": [2, 2**26], "pads": [16, 3, 0, 2], "strides": [4, 1]}
    start = time.monotonic()
    loaded = inferkit.Model.load(
        model(
            [node("Conv", ["x", "w"], ["y"], **attributes)], [value("x", (64, 2, 19, 2))], weights
        ).SerializeToString()
    )
    assert loaded(np.ones((64, 2, 19, 2), np.float32)).max() == 4
    assert time.monotonic() - start < 5
