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
    assert [way.name for way in conv.considered] == ["depthwise", "packed", "windows", "rows", "plain"]
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
    with pytest.raises(ValueError, match="dimension of input 'x' must be at least 0, got -2"):
        model.explain({"x": (-2, 3, 8, 8)})
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
    assert dataclasses.replace(found, steps=unmeasured, measured_seconds=None, runs=0) == plan
    assert "measured" in str(found)
    one = model.profile(x[0])  # without the batch axis, as the model takes it
    assert one.inputs[0].shape == (1, 3, 8, 8)


def test_what_waits_for_values_is_not_told() -> None:
    graph = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("NonZero", ["a"], ["y"])],
        "staged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, "found"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    loaded = inferkit.Model.load(model.SerializeToString())
    found = loaded.explain({"x": (4,)})
    assert not found.complete
    assert [step.operator for step in found.steps][:1] == ["Abs"]
    assert found.outputs == ()
    assert "depends on values" in str(found)
    assert loaded.profile(np.ones(4, np.float32), runs=2).runs == 2


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
    kind = {"sequence": False, "optional": False}
    assert facts["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 64], **kind}]
    assert all(step["measured_seconds"] > 0 for step in facts["steps"])


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
    "arguments", [["--shape", "image=8,65"], ["--shape", "other=8,64"], ["--profile", "--runs", "0"]]
)
def test_command_says_what_is_wrong(capsys: Capture, digits_path: Path, arguments: list[str]) -> None:
    assert main(["explain", str(digits_path), *arguments]) == 3
    assert str(digits_path) in capsys.readouterr().err


def test_command_takes_shapes_as_shown(capsys: Capture, digits_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(digits_path), "--shape", "image:8,64"])
    assert stopped.value.code == 3
    assert "name=1,3,224,224" in capsys.readouterr().err
