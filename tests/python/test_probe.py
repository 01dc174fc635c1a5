"""What loading finds out by trying sizes: outputs that the file does not declare, of inputs whose sizes are free."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit


def load(nodes: Sequence[onnx.NodeProto], shape: Sequence[Any], **constants: np.ndarray) -> inferkit.Model:
    """A model from 'x' to 'y', which declares nothing of 'y' but its name."""
    y = onnx.ValueInfoProto()
    y.name = "y"
    graph = helper.make_graph(
        list(nodes),
        "undeclared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [y],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return inferkit.Model.load(model.SerializeToString())


@pytest.mark.parametrize("length", [400, 1000, 4096, 16_000, 90_000])
@pytest.mark.parametrize("shape", [("n", 1, "length"), ("n", "channels", "length")])
def test_long_windows(length: int, shape: Sequence[Any]) -> None:
    """The first sizes that are tried are too short, and one channel must stand beside a long signal."""
    model = load([helper.make_node("Conv", ["x", "w"], ["y"])], shape, w=np.full((1, 1, length), 0.5, np.float32))
    assert model.outputs[0].dtype == "float32"
    for rows, more in ((1, 0), (3, 7)):
        y = model(np.ones((rows, 1, length + more), np.float32))
        assert y.shape == (rows, 1, more + 1)
        np.testing.assert_allclose(y, length / 2, rtol=1e-6)


def test_large_images_of_free_channels() -> None:
    model = load(
        [helper.make_node("Conv", ["x", "w"], ["c"], strides=[16, 16]), helper.make_node("Sign", ["c"], ["y"])],
        ("n", "channels", "height", "width"),
        w=np.ones((2, 3, 300, 300), np.float32),
    )
    assert model(np.ones((1, 3, 316, 300), np.float32)).tolist() == [[[[1.0], [1.0]]] * 2]


@pytest.mark.parametrize("shape", [("n", "features"), ("n", "time", "features")])
def test_sizes_that_the_weights_have(shape: Sequence[Any]) -> None:
    """No size that is tried by itself is 31."""
    model = load([helper.make_node("MatMul", ["x", "w"], ["y"])], shape, w=np.ones((31, 63), np.float32))
    assert model(np.ones((2,) * (len(shape) - 1) + (31,), np.float32)).shape == (2,) * (len(shape) - 1) + (63,)


def test_a_number_of_rows_that_the_weights_have() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"])]
    model = load(nodes, ("n", 5), w=np.ones((5, 48), np.float32), c=np.ones((14, 48), np.float32))
    assert model(np.ones((14, 5), np.float32)).shape == (14, 48)


def test_a_small_file_takes_no_gigabytes_to_load() -> None:
    """Outer products of signals as long as the sizes that are tried, where only a run could tell the shapes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("NonZero", ["c"], ["found"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["t", "x"], ["outer"]),
        helper.make_node("Concat", ["outer"] * 12, ["wide"], axis=0),
        helper.make_node("Cast", ["found"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["s"], keepdims=0),
        helper.make_node("Add", ["wide", "s"], ["y"]),
    ]
    with pytest.raises(inferkit.UnsupportedOpError, match=r"a trial run on zeros.*at most 1024 MiB"):
        load(nodes, ("n", 1, "length"), w=np.ones((1, 1, 4097), np.float32))


def test_one_size_that_fits_tells_no_size_of_the_answers() -> None:
    """A sample of one proves nothing: answers of other lengths are not held to it."""
    model = load([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[5000], strides=[100])], ("n", 1, "length"))
    for frames in (1, 2, 31):
        assert model(np.zeros((1, 1, 4900 + 100 * frames), np.float32)).shape == (1, 1, frames)


def test_what_fits_nowhere_says_why() -> None:
    """No length makes rows of 2 and of 3 agree."""
    with pytest.raises(inferkit.ModelError, match="Add"):
        load([helper.make_node("Add", ["x", "w"], ["y"])], ("n", "length", 2), w=np.ones((1, 1234, 3), np.float32))


def declared(
    nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], y: int, shape: Any = None, **constants: np.ndarray
) -> inferkit.Model:
    """A model to 'y', of which the file declares the element type, and no shape. Of an input: its type and shape."""
    graph = helper.make_graph(
        list(nodes),
        "typed",
        [helper.make_tensor_value_info(name, *port) for name, port in inputs.items()],
        [helper.make_tensor_value_info("y", y, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return inferkit.Model.load(model.SerializeToString())


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ONE = np.float32(1)


def blocks() -> inferkit.Model:
    """Rows of 1001 elements, a number that nobody guesses, become blocks of 7 x 143."""
    nodes = [helper.make_node("Reshape", ["x", "target"], ["b"]), helper.make_node("Add", ["b", "b"], ["y"])]
    return declared(nodes, {"x": (FLOAT, ["n", "length"])}, FLOAT, target=np.array([0, 7, 143]))


ROWS = np.random.default_rng(0).standard_normal((8, 1001)).astype(np.float32)


def test_sizes_that_nobody_guesses_and_an_answer_without_a_shape() -> None:
    model = blocks()
    assert model.outputs == (inferkit.TensorSpec("y", "float32", (), any_shape=True),)
    assert "any_shape=True" in repr(model.outputs[0])
    assert "(y: float32[...])" in repr(model)
    want = (2 * ROWS).reshape(8, 7, 143)
    np.testing.assert_array_equal(model(ROWS), want)
    np.testing.assert_array_equal(model(ROWS[0]), want[0])
    out = np.empty_like(want)
    assert model.run({"x": ROWS}, out={"y": out})["y"] is out
    np.testing.assert_array_equal(out, want)
    with pytest.raises(inferkit.ValidationError, match="cannot run on inputs of shape"):
        model(ROWS[:, :1000])
    again = pickle.loads(pickle.dumps(model))
    assert again.outputs == model.outputs


def test_a_batcher_takes_answers_without_a_declared_shape() -> None:
    model = blocks()
    checks = inferkit.OutputChecks(shape=True, finite=True)
    with inferkit.Batcher(model, max_batch_size=8, output_checks=checks) as batcher:
        for ticket, row in zip([batcher.submit(row) for row in ROWS], ROWS, strict=True):
            np.testing.assert_array_equal(ticket.result(), (2 * row).reshape(7, 143))
        batcher.swap(blocks(), shapes={"x": (1001,)})
        np.testing.assert_array_equal(batcher(ROWS[0]), (2 * ROWS[0]).reshape(7, 143))


def undeclared(nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], **constants: np.ndarray) -> inferkit.Model:
    """A model to 'y', of which the file declares nothing, neither an element type nor a shape."""
    graph = helper.make_graph(
        list(nodes),
        "nameless",
        [helper.make_tensor_value_info(name, *port) for name, port in inputs.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return inferkit.Model.load(model.SerializeToString())


def test_a_type_that_a_run_on_ones_tells() -> None:
    """No range has a step of 0."""
    ports = {name: (TensorProto.INT32, []) for name in ("start", "limit", "step")}
    model = undeclared([helper.make_node("Range", list(ports), ["y"])], ports)
    assert model.outputs == (inferkit.TensorSpec("y", "int32", (), any_shape=True),)
    given = {"start": np.array(2, np.int32), "limit": np.array(9, np.int32), "step": np.array(3, np.int32)}
    np.testing.assert_array_equal(model.run(given)["y"], [2, 5, 8])


def test_a_type_that_follows_from_the_inputs() -> None:
    """Neither 0 nor 1 pieces fit, so that no trial shows an answer."""
    nodes = [
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    model = undeclared(nodes, {"x": (TensorProto.INT32, [30]), "rows": (INT64, [1])}, rest=np.array([2]))
    assert model.outputs == (inferkit.TensorSpec("y", "int32", (), any_shape=True),)
    x = np.arange(30, dtype=np.int32)
    np.testing.assert_array_equal(model.run({"x": x, "rows": np.array([15])})["y"], x.reshape(15, 2))


def test_maps_of_categories_without_a_zero() -> None:
    """As a classifier of neighbours is exported: 0 is no category, a Scan hides the shapes, and maps have no type."""
    value, ml = helper.make_tensor_value_info, "ai.onnx.ml"
    body = helper.make_graph(
        [helper.make_node("Identity", ["row"], ["same"])],
        "body",
        [value("row", FLOAT, None)],
        [value("same", FLOAT, None)],
    )
    nodes = [
        helper.make_node("OneHotEncoder", ["x"], ["hot"], domain=ml, cats_int64s=[5, 7], zeros=0),
        helper.make_node("Reshape", ["hot", "shape"], ["rows"]),
        helper.make_node("Scan", ["rows"], ["p"], body=body, num_scan_inputs=1),
        helper.make_node("ZipMap", ["p"], ["z"], domain=ml, classlabels_strings=["a", "b"]),
    ]
    maps = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    graph = helper.make_graph(
        nodes,
        "maps",
        [value("x", INT64, ["n", 1])],
        [helper.make_value_info("z", helper.make_sequence_type_proto(maps))],
        [numpy_helper.from_array(np.array([-1, 2]), "shape")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ml, 1)]
    model = inferkit.Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    assert model.outputs == (inferkit.TensorSpec("z", "float32", (), any_shape=True),)
    x = np.array([[7], [5], [5]])
    want = np.array([[0, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(model(x), want)
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_array_equal(batcher(x), want)
    with pytest.raises(inferkit.InferenceError, match="6 is not one of the categories"):
        model(np.array([[6]]))


def test_types_that_only_operators_tell() -> None:
    """No piece has a length of 0 or 1, and the file names no type."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["pieces"]),
        helper.make_node("Shape", ["pieces"], ["length"]),
        helper.make_node("IsNaN", ["pieces"], ["nan"]),
        helper.make_node("TopK", ["pieces", "two"], ["values", "places"]),
        helper.make_node("Where", ["nan", "pieces", "pieces"], ["chosen"]),
    ]
    types = {"length": "int64", "nan": "bool", "values": "float64", "places": "int64", "chosen": "float64"}
    branch = helper.make_graph([helper.make_node("Neg", ["pieces"], ["n"])], "b", [], [onnx.ValueInfoProto(name="n")])
    nodes.append(helper.make_node("If", ["yes"], ["branch"], then_branch=branch, else_branch=branch))
    graph = helper.make_graph(
        nodes,
        "types",
        [
            helper.make_tensor_value_info("x", TensorProto.DOUBLE, [30]),
            helper.make_tensor_value_info("shape", INT64, [2]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [onnx.ValueInfoProto(name=name) for name in [*types, "branch"]],
        [numpy_helper.from_array(np.array([2]), "two")],
    )
    bytes_ = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    model = inferkit.Model.load(bytes_)
    assert {spec.name: spec.dtype for spec in model.outputs} == types | {"branch": "float64"}
    given = {"x": np.arange(30.0), "shape": np.array([15, 2]), "yes": np.array(True)}
    answers = model.run(given)
    assert {name: str(answer.dtype) for name, answer in answers.items()} == types | {"branch": "float64"}
    np.testing.assert_array_equal(answers["branch"], -given["x"].reshape(15, 2))


def test_a_value_that_a_trial_on_zeros_does_not_have() -> None:
    """No number of pieces is 0, and a run on ones fails as well."""
    nodes = [
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    ports = {"x": (FLOAT, [30]), "rows": (INT64, [1])}
    model = declared(nodes, ports, FLOAT, rest=np.array([2]))
    assert model.outputs[0].any_shape
    x = np.arange(30, dtype=np.float32)
    np.testing.assert_array_equal(model.run({"x": x, "rows": np.array([15])})["y"], x.reshape(15, 2))
    with pytest.raises(inferkit.InferkitError, match="Reshape"):
        model.run({"x": x, "rows": np.array([14])})


def test_a_shape_that_is_seen_is_told() -> None:
    model = declared([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["n", 4])}, FLOAT)
    assert model.outputs == (inferkit.TensorSpec("y", "float32", (None, 4)),)


@pytest.mark.parametrize("shape", [["n", "size"], None])
def test_sizes_that_are_not_supported_beside_others_that_are(shape: Any) -> None:
    """Some of those that are tried have fewer zero points than columns, and more than one, which is not there."""
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "none", "zeros"], ["y"])]
    byte = TensorProto.UINT8
    inputs = {"x": (byte, ["n", "k"]), "w": (byte, ["k", "size"]), "zeros": (byte, ["points"])}
    model = declared(nodes, inputs, TensorProto.INT32, shape, none=np.array(0, np.uint8))
    rng = np.random.default_rng(0)
    x, w, zeros = (rng.integers(0, 256, dims).astype(np.uint8) for dims in ((4, 7), (7, 5), (5,)))
    want = x.astype(np.int32) @ (w.astype(np.int32) - zeros)
    np.testing.assert_array_equal(model.run({"x": x, "w": w, "zeros": zeros})["y"], want)
    with pytest.raises(inferkit.UnsupportedOpError, match="zero point of shape"):
        model.run({"x": x, "w": w, "zeros": zeros[:3]})


def any_rank(nodes: Sequence[onnx.NodeProto], y: int = FLOAT, **constants: np.ndarray) -> inferkit.Model:
    """A model of 'x', of which the file declares no shape, not even the number of dimensions."""
    return declared(nodes, {"x": (FLOAT, None)}, y, **constants)


def test_an_input_without_a_shape_takes_any() -> None:
    model = any_rank([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "one"], ["y"])], one=ONE)
    assert model.inputs == (inferkit.TensorSpec("x", "float32", (), any_shape=True),)
    assert model.outputs == (inferkit.TensorSpec("y", "float32", (), any_shape=True),)
    rng = np.random.default_rng(1)
    for shape in [(3, 4), (7,), (2, 3, 4, 5), (), (1, 1, 2, 1, 3, 2), (3, 4)]:
        x = rng.standard_normal(shape).astype(np.float32)
        found = model(x)
        assert found.shape == shape
        np.testing.assert_array_equal(found, np.maximum(x, 0) + 1)
        np.testing.assert_array_equal(model.run({"x": x})["y"], found)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again(np.float32([-1, 1])), [1, 2])
    with pytest.raises(inferkit.ValidationError, match="dtype float64"):
        model(np.zeros((2, 2)))
    with pytest.raises(inferkit.ValidationError, match="NaN"):
        model(np.full((2, 2), np.nan, np.float32))


def test_an_input_without_a_shape_that_must_have_one_rank() -> None:
    """An image, of whose number of channels only the weights tell."""
    weights = np.random.default_rng(2).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model = any_rank([helper.make_node("Conv", ["x", "w"], ["y"])], w=weights)
    assert model(np.ones((2, 3, 8, 8), np.float32)).shape == (2, 4, 6, 6)
    for shape in [(3, 8, 8), (2, 5, 8, 8), (8,), ()]:
        with pytest.raises(inferkit.ValidationError, match="cannot run on inputs of shape"):
            model(np.ones(shape, np.float32))


def test_inputs_of_different_ranks_without_a_shape() -> None:
    ports: dict[str, Any] = {"x": (FLOAT, None), "k": (FLOAT, None), "z": (FLOAT, ["n", 2])}
    nodes = [helper.make_node("Mul", ["x", "k"], ["p"]), helper.make_node("Add", ["p", "z"], ["y"])]
    model = declared(nodes, ports, FLOAT)
    x, z = np.arange(6, dtype=np.float32).reshape(3, 2), np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(model(x, np.float32(3), z), 3 * x + 1)
    np.testing.assert_array_equal(model(np.stack([x, x]), np.float32([2, 4]), z), np.stack([x, x]) * [2, 4] + 1)


def test_what_no_rank_supports_is_still_refused_at_load() -> None:
    with pytest.raises(inferkit.UnsupportedOpError, match="NoSuchOperator"):
        any_rank([helper.make_node("NoSuchOperator", ["x"], ["y"])])
    with pytest.raises(inferkit.InferkitError, match="BitShift"):
        any_rank([helper.make_node("BitShift", ["x", "x"], ["y"], direction="LEFT")])


def test_what_needs_the_shape_of_an_input_without_one_says_so() -> None:
    model = any_rank([helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(ValueError, match="'x' has no shape in the model file, so a Batcher cannot tell"):
        inferkit.Batcher(model)
    with pytest.raises(ValueError, match=r"no shape for input 'x'; give explain\(shapes="):
        model.explain()
    assert model.explain(shapes={"x": (2, 3)}).inputs[0].shape == (2, 3)
    with pytest.raises(ValueError, match="no shape for input 'x'"):
        model.warm_up()


def test_a_declared_type_that_the_graph_does_not_give_is_refused() -> None:
    """As skl2onnx writes a OneVsOneClassifier of text: it declares labels and gives their indices."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        "indices",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    told = "declares output 'label' as a tensor of string, and the graph gives a tensor of int64"
    with pytest.raises(inferkit.ModelError, match=told):
        inferkit.Model.load(model.SerializeToString())
