"""Models with external data in the folders that caches, package managers and volumes build of links."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

W = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
X = np.ones((2, 64), np.float32)


def save(folder: Path) -> Path:
    """A MatMul by W, in model.onnx, with W in model.onnx_data beside it."""
    folder.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(W, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save_model(model, str(folder / "model.onnx"), **data)
    return folder / "model.onnx"


def hub(root: Path) -> Path:
    """As huggingface_hub lays out a snapshot: links into a folder of blobs."""
    made = save(root / "made")
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, blob in (("model.onnx", "c6" * 32), ("model.onnx_data", "b8" * 32)):
        os.replace(made.parent / name, blobs / blob)
        (snapshot / name).symlink_to(os.path.relpath(blobs / blob, snapshot))
    return snapshot / "model.onnx"


def volume(root: Path) -> Path:
    """As Kubernetes mounts one: names that are links into ..data, itself a link that is swapped as a whole."""
    save(root / "..2026_11_26")
    (root / "..data").symlink_to("..2026_11_26")
    for name in ("model.onnx", "model.onnx_data"):
        (root / name).symlink_to(f"..data/{name}")
    return root / "model.onnx"


def package(root: Path) -> Path:
    """As uv and conda install from their caches: by hard links."""
    made = save(root / "cache")
    (root / "site").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        os.link(made.parent / name, root / "site" / name)
    return root / "site" / "model.onnx"


def release(root: Path) -> Path:
    save(root / "releases" / "v1")
    (root / "current").symlink_to("releases/v1")
    return root / "current" / "model.onnx"


def alias(root: Path) -> Path:
    """The model alone is linked; its data is beside the real file."""
    (root / "alias.onnx").symlink_to(save(root / "real"))
    return root / "alias.onnx"


@pytest.mark.parametrize("layout", [hub, volume, package, release, alias])
def test_data_is_found_through_links(tmp_path: Path, layout: object) -> None:
    path = layout(tmp_path)  # type: ignore[operator]
    for model in (inferkit.Model.load(path), pickle.loads(pickle.dumps(inferkit.Model.load(path)))):
        np.testing.assert_array_equal(model(X), np.repeat(W.sum(axis=0, keepdims=True), 2, axis=0))
    assert inferkit.Weights.open(path)["w"].shape == (64, 64)


def test_data_out_of_both_folders_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    os.replace(tmp_path / "model" / "model.onnx_data", tmp_path / "elsewhere")
    (tmp_path / "model" / "model.onnx_data").symlink_to("../elsewhere")
    with pytest.raises(inferkit.ModelError, match=r"symbolic link 'model.onnx_data' to '.*/elsewhere'"):
        inferkit.Model.load(path)
