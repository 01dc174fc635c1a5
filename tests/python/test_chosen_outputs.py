"""Model.load(outputs=...), and what a file says of itself."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, dtype: int, *dims: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


@pytest.fixture
def several() -> onnx.ModelProto:
    """A cheap output, one that fails for some inputs, and one that no engine can compute."""
    nodes = [
        helper.make_node("Relu", ["x"], ["cheap"]),
        helper.make_node("Gather", ["table", "i"], ["risky"]),
        helper.make_node("Neg", ["cheap"], ["negative"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", FLOAT, "n", 2), value("i", INT64, "n")],
        [value("cheap", FLOAT, "n", 2), value("risky", FLOAT, "n"), value("negative", FLOAT, "n", 2)],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name, model.producer_version, model.model_version = "pytorch", "2.13", 7
    for key, text in {"names": "{0: 'cat'}", "imgsz": "[640, 640]"}.items():
        model.metadata_props.add(key=key, value=text)
    return model


FEED = {"x": np.array([[1, -2]], np.float32), "i": np.array([9])}


def test_what_is_not_wanted_is_not_computed(several: onnx.ModelProto) -> None:
    model = inferkit.Model.load(several, outputs=["cheap"])
    assert [spec.name for spec in model.outputs] == ["cheap"]
    assert [spec.name for spec in model.inputs] == ["x", "i"]
    assert {name: y.tolist() for name, y in model.run(FEED).items()} == {"cheap": [[1, 0]]}
    assert [step.operator for step in model.explain().steps] == ["Relu"]
    with pytest.raises(inferkit.InferenceError, match="out of range"):
        inferkit.Model.load(several, outputs=["risky"]).run(FEED)


def test_they_come_in_the_order_in_which_they_are_wanted(several: onnx.ModelProto) -> None:
    model = inferkit.Model.load(several, outputs=(name for name in ("negative", "cheap")))
    first, second = model(FEED["x"], FEED["i"])
    assert (first.tolist(), second.tolist()) == ([[-1, 0]], [[1, 0]])
    with inferkit.Batcher(model) as batcher:
        assert [y.tolist() for y in batcher(FEED["x"], FEED["i"])] == [[[-1, 0]], [[1, 0]]]


def test_what_is_not_wanted_need_not_be_supported(several: onnx.ModelProto) -> None:
    several.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(inferkit.UnsupportedOpError):
        inferkit.Model.load(several)
    assert inferkit.Model.load(several, outputs=["negative"]).run(FEED)["negative"].tolist() == [[-1, 0]]


@pytest.mark.parametrize(
    ("outputs", "error", "words"),
    [
        (["cheap", "dear"], ValueError, "no output 'dear'; it has 'cheap', 'risky', 'negative'"),
        (["cheap", "cheap"], ValueError, "twice"),
        ([], ValueError, "at least"),
        ("cheap", TypeError, "iterable"),
        ([1], TypeError, "names"),
        (3, TypeError, "iterable"),
    ],
)
def test_wrong_outputs(several: onnx.ModelProto, outputs: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match="output") as caught:
        inferkit.Model.load(several, outputs=outputs)
    assert words in str(caught.value)


def test_metadata(several: onnx.ModelProto, tmp_path: Any) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(several, path)
    for source in (several, path):
        metadata = inferkit.Model.load(source).metadata
        assert dict(metadata) == {"names": "{0: 'cat'}", "imgsz": "[640, 640]"}
        assert (metadata.producer, metadata.version, metadata.ir_version) == ("pytorch 2.13", 7, 8)
        assert dict(metadata.opsets) == {"": 17}
        assert metadata["imgsz"] == "[640, 640]"
        assert metadata.get("task") is None
        assert "pytorch 2.13" in repr(metadata)
        with pytest.raises(TypeError):
            metadata["imgsz"] = "x"  # type: ignore[index]
        for again in (pickle.loads(pickle.dumps(metadata)), copy.deepcopy(metadata)):
            assert (repr(again), dict(again), dict(again.opsets)) == (repr(metadata), dict(metadata), {"": 17})


def test_a_callable_has_none() -> None:
    model = inferkit.Model.from_callable(
        np.tanh, inputs=[("x", "float32", (None,))], outputs=[("y", "float32", (None,))]
    )
    assert (dict(model.metadata), model.metadata.producer, dict(model.metadata.opsets)) == ({}, "", {})
