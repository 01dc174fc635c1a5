"""Model.explain() and Model.profile(): what a plan is made of, and how long its steps take."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit
from inferkit._cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network() -> bytes:
    """Conv and BatchNormalization and Relu, a Reshape, and a MatMul and an Add that read the result."""
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.random(shape, dtype=np.float32) / 8, name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("Reshape", ["r", "to"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "p"], ["d"], name="dense"),
        helper.make_node("Add", ["d", "q"], ["y"], name="bias"),
    ]
    channels = [weights(name, 12) for name in "sbmv"]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [
            weights("w", 12, 3, 3, 3),
            *channels,
            weights("p", 12 * 64, 5),
            weights("q", 5),
            numpy_helper.from_array(np.array([0, 12 * 64]), "to"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_precision_is_a_reason(network: bytes) -> None:
    conv, _, dense = inferkit.Model.load(network, threads=1, precision="bf16").explain({"x": (7, 3, 8, 8)}).steps
    assert (conv.why, dense.why) == ("precision", "precision")
    assert conv.reason().startswith("the model asks for bf16: ")
    assert dense.reason() == "the model asks for bf16, default cannot: it does not compute in bf16"
    assert [(way.name, way.cost_seconds, str(way)) for way in dense.considered if way.name == "bf16"] == [
        ("bf16", 0.0, "bf16")
    ]


def test_a_product_of_bytes_stands_for_what_it_replaces() -> None:
    bytes_of = np.random.default_rng(0).integers(-128, 128, (40, 30)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"], name="left"),
        helper.make_node("DequantizeLinear", ["w", "s"], ["b"], name="right"),
        helper.make_node("MatMul", ["a", "b"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["n", 40])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 30])],
        [
            numpy_helper.from_array(np.float32(0.02), "s"),
            numpy_helper.from_array(np.uint8(3), "z"),
            numpy_helper.from_array(bytes_of, "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    [step] = inferkit.Model.load(model).explain({"x": (5, 40)}).steps
    assert step.operator == "inferkit.DequantizedMatMul"
    assert [part.name for part in step.stands_for] == ["left", "right", "product"]


def test_a_convolution_of_bytes_stands_for_what_it_replaces() -> None:
    filters = np.random.default_rng(0).integers(-128, 128, (8, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("Relu", ["f"], ["r"], name="before"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["x"], name="codes"),
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"], name="left"),
        helper.make_node("DequantizeLinear", ["w", "s"], ["b"], name="right"),
        helper.make_node("Conv", ["a", "b", "bias"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 8, 6, 6])],
        [
            numpy_helper.from_array(np.float32(0.02), "s"),
            numpy_helper.from_array(np.uint8(3), "z"),
            numpy_helper.from_array(filters, "w"),
            numpy_helper.from_array(np.ones(8, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    steps = inferkit.Model.load(model).explain({"f": (2, 3, 8, 8)}).steps
    [conv] = [step for step in steps if step.operator == "ConvInteger"]
    assert [part.name for part in conv.stands_for] == ["left", "right", "product"]


def test_explain(network: bytes) -> None:
    model = inferkit.Model.load(network, threads=1)
    found = model.explain({"x": (7, 3, 8, 8)})
    conv, flat, dense = found.steps
    assert [step.operator for step in found.steps] == ["inferkit.Conv", "Reshape", "inferkit.Linear"]
    parts = [(part.operator, part.name) for part in conv.stands_for]
    assert parts == [("Conv", "conv"), ("BatchNormalization", "norm"), ("Relu", "relu")]
    assert [part.name for part in dense.stands_for] == ["dense", "bias"]
    assert [part.name for part in flat.stands_for] == ["flat"]

    assert conv.why == "cheapest"
    assert [way.name for way in conv.considered] == [
        "depthwise",
        "channels",
        "blocks",
        "packed",
        "windows",
        "rows",
        "plain",
    ]
    costs = {way.name: way.cost_seconds for way in conv.considered if way.cost_seconds is not None}
    assert conv.lowering == min(costs, key=lambda name: costs[name])
    assert all((way.cost_seconds is None) != (way.why_not is None) for way in conv.considered)
    assert (conv.device, conv.precision, conv.layout) == ("cpu", "float32", "plain")
    assert (dense.lowering, dense.why, dense.considered) == ("default", "only", ())

    assert found.inputs == (inferkit.TensorSpec("x", "float32", (7, 3, 8, 8)),)
    assert found.outputs == (inferkit.TensorSpec("y", "float32", (7, 5)),)
    assert conv.outputs[0].shape == (7, 12, 8, 8)
    image, filters, hidden = 7 * 3 * 64 * 4, 12 * 27 * 4, 7 * 12 * 64 * 4
    assert conv.read_bytes == image + filters + 12 * 4  # and the bias that the normalisation has become
    assert conv.written_bytes == hidden
    assert conv.kernel_calls == 1
    assert (flat.kernel_calls, flat.read_bytes, flat.written_bytes) == (0, 0, 0)
    assert dense.read_bytes == hidden + 12 * 64 * 5 * 4 + 5 * 4
    assert found.weight_bytes == filters + 12 * 4 + 12 * 64 * 5 * 4 + 5 * 4
    assert found.arena_bytes >= hidden
    assert sum(step.estimated_seconds for step in found.steps) == pytest.approx(found.estimated_seconds, rel=0.01)
    assert found.complete
    assert (found.measured_seconds, found.runs, conv.measured_seconds) == (None, 0, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        conv.lowering = "rows"  # type: ignore[misc]


def test_as_text(network: bytes) -> None:
    found = inferkit.Model.load(network).explain()
    text = str(found)
    for word in ("inferkit.Conv", "conv", "float32[1, 12, 8, 8]", "no copy", "3 steps", "arena"):
        assert word in text
    assert "step 0 stands for Conv 'conv', BatchNormalization 'norm', Relu 'relu'" in text
    assert "depthwise cannot: not one channel a group" in text
    assert found.steps[2].reason() == ""


def test_text_does_not_move_the_cursor(network: bytes) -> None:
    """Names come from the file: in the table, and in the lines below it."""
    found = inferkit.Model.load(network.replace(b"conv", b"c\x1b[J")).explain()
    assert found.steps[0].stands_for[0].name == "c\x1b[J"
    assert "stands for Conv 'c\\x1b[J'" in str(found)
    assert "\x1b" not in str(found)


def test_one_row_is_the_default(network: bytes) -> None:
    model = inferkit.Model.load(network)
    assert model.explain() == model.explain({"x": (1, 3, 8, 8)})
    assert model.explain().outputs[0].shape == (1, 5)


def test_it_explains_the_plan_that_runs(network: bytes) -> None:
    model = inferkit.Model.load(network, threads=1)
    model(np.zeros((7, 3, 8, 8), np.float32))
    assert model.memory().arena_bytes >= model.explain({"x": (7, 3, 8, 8)}).arena_bytes
    assert model.memory().plans == 1, "a plan that is explained is not kept"


def test_what_is_wrong(network: bytes) -> None:
    model = inferkit.Model.load(network)
    with pytest.raises(ValueError, match="no input 'z'; its inputs are 'x'"):
        model.explain({"z": (1,)})
    with pytest.raises(inferkit.ValidationError, match="'x'") as wrong:
        model.explain({"x": (2, 3, 8, 9)})
    assert wrong.value.reason == "shape"
    with pytest.raises(inferkit.ValidationError):
        model.explain({"x": (2, 3)})
    with pytest.raises(ValueError, match=r"each size of shapes\['x'\] must be at least 0, got -2"):
        model.explain({"x": (-2, 3, 8, 8)})
    with pytest.raises(ValueError, match=r"each size of shapes\['x'\] must be between 0 and 9223372036854775807"):
        model.explain({"x": (1 << 70, 3, 8, 8)})
    with pytest.raises(ValueError, match="runs"):
        model.profile(np.zeros((1, 3, 8, 8), np.float32), runs=0)
    with pytest.raises(inferkit.ValidationError):
        model.profile(np.zeros((1, 3, 8, 9), np.float32))
    double = inferkit.Model.from_callable(
        lambda x: x, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))]
    )
    with pytest.raises(ValueError, match="a wrapped callable has no plan"):
        double.explain()
    with pytest.raises(ValueError, match="a wrapped callable has no plan"):
        double.profile(np.zeros((1, 2), np.float32))


def two_free_dimensions() -> inferkit.Model:
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return inferkit.Model.load(model.SerializeToString())


def test_free_dimensions_must_be_given() -> None:
    model = two_free_dimensions()
    with pytest.raises(ValueError, match="give explain"):
        model.explain()
    assert model.explain({"x": (2, 9)}).steps[0].lowering == "rows"


def test_profile(network: bytes) -> None:
    model = inferkit.Model.load(network, threads=1)
    x = np.random.default_rng(1).random((7, 3, 8, 8), dtype=np.float32)
    found = model.profile(x, runs=5)
    plan = model.explain({"x": x.shape})
    assert found.runs == 5
    assert [step.measured_seconds is not None and step.measured_seconds > 0 for step in found.steps] == [
        True,
        False,  # nothing runs for the Reshape
        True,
    ]
    assert found.measured_seconds == pytest.approx(sum(step.measured_seconds or 0 for step in found.steps))
    unmeasured = tuple(dataclasses.replace(step, measured_seconds=None) for step in found.steps)
    bare = dataclasses.replace(found, steps=unmeasured, measured_seconds=None, runs=0)
    assert dataclasses.replace(bare, scaling=(), synchronization_seconds=0.0) == plan
    assert "us on one thread (the sum of the steps' medians of 5 runs)" in str(found)
    assert "on up to 3 threads (the sum" in str(dataclasses.replace(found, threads=3))
    one = model.profile(x[0])  # without the batch axis, as the model takes it
    assert one.inputs[0].shape == (1, 3, 8, 8)


def staged(nodes: list[onnx.NodeProto], *extra_inputs: onnx.ValueInfoProto, **constants: np.ndarray) -> inferkit.Model:
    """A model from 'x', rows of 16 floats, to 'y'."""
    graph = helper.make_graph(
        nodes,
        "staged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16]), *extra_inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return inferkit.Model.load(model.SerializeToString(), threads=1)


def names(parts: tuple[inferkit.FileNode, ...]) -> list[str]:
    return [part.operator for part in parts]


def test_what_waits_for_values_is_named_and_profiled() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["found"], name="where"),
        helper.make_node("Cast", ["found"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Exp", ["f"], ["y"], name="last"),
    ]
    model = staged(nodes)
    plan = model.explain({"x": (4, 16)})
    assert not plan.complete
    assert [step.operator for step in plan.steps][:1] == ["Abs"]
    assert names(plan.waiting) == ["NonZero", "Cast", "Exp"]
    assert plan.waiting[0].name == "where"
    assert plan.outputs == ()
    assert "planned during each run: NonZero 'where', Cast, Exp 'last'" in str(plan)
    assert "on one thread; none of this counts what depends on values" in str(plan)

    x = np.zeros((4, 16), np.float32)
    x[1, 2] = x[3, 3] = 1
    found = model.profile(x, runs=2)
    assert (found.runs, found.complete, found.waiting) == (2, True, ())
    assert "none of this counts" not in str(found)
    assert "on one thread, without 1 step on values, which nobody estimates, measured" in str(found)
    operators = [step.operator for step in found.steps if step.operator != "copy"]
    assert operators == ["Abs", "NonZero", "Cast", "Exp"]
    where = next(step for step in found.steps if step.operator == "NonZero")
    assert (where.lowering, where.within, where.times_run) == ("on values", None, 1)
    assert where.outputs == (inferkit.TensorSpec("found", "int64", (2, 2)),)
    assert where.measured_seconds is not None
    assert where.measured_seconds > 0
    assert found.outputs == (inferkit.TensorSpec("y", "float32", (2, 2)),)
    assert found.measured_seconds == pytest.approx(sum(step.measured_seconds or 0 for step in found.steps))
    np.testing.assert_allclose(model(x), np.exp([[1, 3], [2, 3]]), rtol=1e-6)  # its own plans are as they were


def test_nodes_without_names_stay_apart() -> None:
    """Plans between nodes that run on values may do the same in other places."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"]),
        helper.make_node("Transpose", ["found"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("NonZero", ["f"], ["found_2"]),
        helper.make_node("Transpose", ["found_2"], ["turned_2"]),
        helper.make_node("Cast", ["turned_2"], ["y"], to=TensorProto.FLOAT),
    ]
    x = np.zeros((4, 16), np.float32)
    x[1, 2] = x[0, 5] = x[3, 3] = 1
    found = staged(nodes).profile(x, runs=2)
    steps = [step for step in found.steps if step.operator != "copy"]
    assert [step.operator for step in steps] == ["NonZero", "Transpose", "Cast"] * 2
    assert [step.outputs[0].shape for step in steps] == [(2, 3), (3, 2), (3, 2), (2, 5), (5, 2), (5, 2)]
    assert {step.times_run for step in steps} == {1}


def test_bodies_of_loops_are_profiled_where_they_stand() -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["m"], name="turn"),
            helper.make_node("Tanh", ["m"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["count", "", "x"], ["l"], name="decode", body=body),
        helper.make_node("Exp", ["l"], ["y"]),
    ]
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    model = staged(nodes, count, w=np.eye(16, dtype=np.float32))
    assert names(model.explain({"x": (2, 16)}).waiting) == ["Loop", "Exp"]
    x = np.full((2, 16), 0.5, np.float32)
    found = model.profile(x, np.array(7), runs=3)
    at = {step.operator: number for number, step in enumerate(found.steps)}
    loop, turn = found.steps[at["Loop"]], found.steps[at["inferkit.Linear"]]
    assert (loop.name, loop.lowering, loop.within, loop.times_run) == ("decode", "on values", None, 1)
    assert (turn.within, turn.times_run) == (at["Loop"], 7)
    assert at["Loop"] < at["inferkit.Linear"] < at["Exp"]
    assert found.steps[at["Exp"]].within is None
    assert found.weight_bytes == 16 * 16 * 4
    text = str(found)
    assert "  inferkit.Linear" in text
    assert "times" in text
    # Other inputs, another number of turns: nothing is left of the runs before.
    again = model.profile(x, np.array(3), runs=1)
    assert next(step for step in again.steps if step.operator == "inferkit.Linear").times_run == 3


def test_a_profile_takes_no_more_for_more_runs() -> None:
    """The body of a loop that appends has another plan for each turn, more than are kept."""
    body = helper.make_graph(
        [
            helper.make_node("Concat", ["state", "x"], ["more"], axis=0),
            helper.make_node("Mul", ["more", "half"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)]
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    model = staged(nodes, count, half=np.array(0.5, np.float32))
    x = np.ones((1, 16), np.float32)
    once, often = (model.profile(x, np.array(150), runs=runs) for runs in (1, 3))
    assert once.arena_bytes == often.arena_bytes > 0
    assert once.weight_bytes == often.weight_bytes == 4
    turns = next(step for step in often.steps if step.operator == "Mul")
    assert turns.times_run == 150


def test_sequences_are_explained_and_profiled() -> None:
    sequence = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph(
        [
            helper.make_node("ConcatFromSequence", ["parts"], ["all"], axis=0),
            helper.make_node("Relu", ["all"], ["y"]),
        ],
        "sequences",
        [sequence],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = inferkit.Model.load(proto.SerializeToString())
    plan = model.explain()
    assert names(plan.waiting) == ["ConcatFromSequence", "Relu"]
    assert plan.inputs == model.inputs
    with pytest.raises(ValueError, match="'parts' is a sequence or an optional, which has no shape"):
        model.explain({"parts": (1,)})
    found = model.profile([np.ones((1, 3), np.float32), np.ones((4, 3), np.float32)], runs=1)
    assert found.outputs == (inferkit.TensorSpec("y", "float32", (5, 3)),)
    assert "Relu" in [step.operator for step in found.steps]


# The command.


def test_command(capsys: Capture, digits_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    assert main(["explain", str(digits_path), "--shape", "image=8,64"]) == 0
    text = capsys.readouterr().out
    for word in ("inferkit.Linear", "Softmax", "float32[8, 10]", "estimated", "stands for Gemm"):
        assert word in text
    assert main(["explain", str(digits_path), "--profile", "--runs", "3", "--json", "--threads", "1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == 3
    kind = {"sequence": False, "optional": False, "any_shape": False, "shared": False}
    assert facts["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 64], **kind}]
    assert all(step["measured_seconds"] > 0 for step in facts["steps"])


def test_command_with_runs_is_a_profile(capsys: Capture, digits_path: Path) -> None:
    assert main(["explain", str(digits_path), "--runs", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == 2
    assert facts["measured_seconds"] > 0


def test_layouts_and_precisions_stand_in_the_table_where_there_are_several(
    network: bytes, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    w = {name: np.full(shape, 0.1, np.float32) for name, shape in (("w", (32, 32, 3, 3)), ("v", (32, 32, 3, 3)))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Conv", ["r", "v"], ["y"], pads=[1, 1, 1, 1]),
        ],
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in w.items()],
    )
    path = tmp_path / "blocks.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    steps = inferkit.Model.load(path).explain().steps
    assert "blocks" in [step.layout for step in steps]

    def column(name: str, *arguments: str) -> list[str] | None:
        assert main(["explain", str(path), *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        top = next(i for i, line in enumerate(lines) if "lowering" in line)
        at = lines[top].find(name)
        return [line[at:].split()[0] for line in lines[top + 2 : top + 2 + len(steps)]] if at >= 0 else None

    assert column("layout") == [step.layout for step in steps]
    assert column("precision") is None
    assert "bf16" in (column("precision", "--precision", "bf16") or [])
    assert "layout" not in str(inferkit.Model.load(network).explain())


def test_command_loads_the_model_as_it_will_run(capsys: Capture, digits_path: Path) -> None:
    assert main(["explain", str(digits_path), "--precision", "bf16", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert {step["precision"] for step in steps if step["operator"] == "inferkit.Linear"} == {"bf16"}
    for arguments in (["--precision", "bf8"], ["--device", "tpu"], ["--fallback", "cuda"]):
        assert main(["explain", str(digits_path), *arguments]) == 3
        assert arguments[1] in capsys.readouterr().err


def test_command_guesses_what_is_free(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length"])],
    )
    path = tmp_path / "free.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    assert main(["explain", str(path), "--profile"]) == 0
    assert "Relu" in capsys.readouterr().out
    assert main(["explain", str(path), "--shape", "x=3,5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["shape"] == [3, 5]


@pytest.mark.parametrize(
    "arguments",
    [["--shape", "image=8,65"], ["--shape", "other=8,64"], ["--profile", "--runs", "0"], ["--runs", "0"]],
)
def test_command_says_what_is_wrong(capsys: Capture, digits_path: Path, arguments: list[str]) -> None:
    assert main(["explain", str(digits_path), *arguments]) == 3
    assert str(digits_path) in capsys.readouterr().err


def test_command_takes_one_shape_for_an_input(capsys: Capture, digits_path: Path) -> None:
    assert main(["explain", str(digits_path), "--shape", "image=2,64", "--shape", "image=3,64"]) == 3
    assert "--shape is given more than once for the input 'image'" in capsys.readouterr().err


def test_command_takes_shapes_as_shown(capsys: Capture, digits_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(digits_path), "--shape", "image:8,64"])
    assert stopped.value.code == 3
    assert "name=1,3,224,224" in capsys.readouterr().err


def test_command_takes_real_inputs(
    capsys: Capture, tmp_path: Path, digits_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    np.savez(tmp_path / "three.npz", image=np.ones((3, 64), np.float32))
    np.savez(tmp_path / "other.npz", picture=np.ones((3, 64), np.float32))
    np.save(tmp_path / "one.npy", np.ones(64, np.float32))
    for name, rows in (("three.npz", 3), ("one.npy", 1)):
        assert main(["explain", str(digits_path), "--input", str(tmp_path / name), "--profile", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["inputs"][0]["shape"], facts["runs"]) == ([rows, 64], 20)
    assert main(["explain", str(digits_path), "--input", str(tmp_path / "other.npz")]) == 3
    assert "has the arrays ['picture']; the model takes ['image']" in capsys.readouterr().err
    assert main(["explain", str(digits_path), "--input", str(tmp_path / "one.npy"), "--shape", "image=1,64"]) == 3
    assert "do not go together" in capsys.readouterr().err


@pytest.mark.unsanitized("bench refuses it")
def test_command_makes_up_no_sequences(capsys: Capture, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["parts"], ["y"])],
        "sequences",
        [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    path = tmp_path / "sequences.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    assert main(["explain", str(path), "--plain"]) == 0
    assert "SequenceLength" in capsys.readouterr().out
    for command in (["explain", str(path), "--profile"], ["bench", str(path)], ["doctor", str(path)]):
        assert main(command) == 3
        assert "is a sequence or an optional" in capsys.readouterr().err


def test_scaling() -> None:
    """What several threads would share is counted on any machine: a convolution is, a few elements are not."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),  # 32 * 32 * 64 * 64 * 9 products
        helper.make_node("GlobalMaxPool", ["h"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 1, 1])],
        [numpy_helper.from_array(rng.standard_normal((64, 64, 3, 3)).astype(np.float32), "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    x = np.ones((1, 64, 32, 32), np.float32)
    found = inferkit.Model.load(data, threads=1).profile(x, runs=1)
    conv = found.steps[0]
    assert [part.threads for part in found.scaling] == [4, 16, 64]
    for part in found.scaling:
        # A way that turns planes into blocks first has a synchronisation for that.
        assert part.synchronizations == (2 if conv.lowering == "blocks" else 1)
        assert 0 < part.serial_fraction < 1
        assert 0 < part.speedup <= part.threads
    assert "times as fast on 64 (" in str(found)
    assert inferkit.Model.load(data).explain().scaling == ()
    assert "times as fast" not in str(inferkit.Model.load(data).explain())


def test_scaling_ends_where_memory_does() -> None:
    """Scratch for many threads may be more than a run may take; one thread's run is measured all the same."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "scratch",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 64, 64])],
        [numpy_helper.from_array(rng.standard_normal((64, 64, 3, 3)).astype(np.float32), "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    x = np.ones((1, 64, 64, 64), np.float32)
    room = inferkit.Model.load(data, threads=1).explain().arena_bytes + x.nbytes + (1 << 16)
    found = inferkit.Model.load(data, threads=1, max_run_bytes=room).profile(x, runs=1)
    assert found.steps[0].measured_seconds is not None
    assert len(found.scaling) < 3


def test_a_small_model_has_no_synchronizations(network: bytes) -> None:
    found = inferkit.Model.load(network).profile(np.zeros((1, 3, 8, 8), np.float32), runs=1)
    for part in found.scaling:
        assert (part.synchronizations, part.serial_fraction) == (0, 1)
        assert part.speedup == pytest.approx(1)
