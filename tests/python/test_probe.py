"""What loading finds out by trying sizes: outputs that the file does not declare, of inputs whose sizes are free."""

from __future__ import annotations

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


def test_one_size_that_fits_tells_no_size_of_the_answers() -> None:
    """A sample of one proves nothing: answers of other lengths are not held to it."""
    model = load([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[5000], strides=[100])], ("n", 1, "length"))
    for frames in (1, 2, 31):
        assert model(np.zeros((1, 1, 4900 + 100 * frames), np.float32)).shape == (1, 1, frames)


def test_what_fits_nowhere_says_why() -> None:
    """No length makes rows of 2 and of 3 agree."""
    with pytest.raises(inferkit.ModelError, match="Add"):
        load([helper.make_node("Add", ["x", "w"], ["y"])], ("n", "length", 2), w=np.ones((1, 1234, 3), np.float32))
