"""The ways to give a model: paths, content, files, messages; and what is none, which the error names."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

import inferkit


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def content(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString()


def works(source: Any) -> bool:
    return inferkit.Model.load(source)(np.float32([[1, -2, 3]])).tolist() == [[1, 0, 3]]


def test_content(content: bytes, proto: onnx.ModelProto) -> None:
    for source in (
        content, bytearray(content), memoryview(content), np.frombuffer(content, np.uint8), io.BytesIO(content), proto,
        memoryview(b"".join(bytes([b, 0]) for b in content))[::2],
    ):  # fmt: skip
        assert works(source)


def test_a_binary_file_is_read_from_where_it_stands(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "two.bin"
    path.write_bytes(b"head" + content)
    with path.open("rb") as file:
        file.seek(4)
        assert works(file)


@pytest.mark.parametrize("name", [b"m.onnx", b"\xff\xfe name", "modèle 日本.onnx".encode(), b"no_suffix"])
def test_paths_of_every_kind(content: bytes, tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    Path(os.fsdecode(path)).write_bytes(content)

    class OfBytes:
        def __fspath__(self) -> bytes:
            return path

    for source in (os.fsdecode(path), Path(os.fsdecode(path)), OfBytes()):
        model = inferkit.Model.load(source)
        assert os.fsencode(model.path) == path
    with pytest.raises(inferkit.ModelError, match="give it as str"):  # or a service's clients could open its files
        inferkit.Model.load(path)


@pytest.mark.parametrize(
    ("source", "like_a_path"),
    [
        (b"model.onnx", True),
        (b"models/digits", True),
        (b"my model.onnx", True),
        (b"/my models/digits", True),
        (b"digits", False),
        (b'{"error": "see https://example.org/login"}', False),
        (b'<?xml version="1.0"?><net/>', False),
        (b"<!doctype html><a href=/login>", False),
        (b"Entry not found.", False),
        (b"not found: see https://example.org", False),
    ],
)
def test_only_what_looks_like_a_path_is_taken_for_one(source: bytes, like_a_path: bool) -> None:
    with pytest.raises(inferkit.ModelError) as caught:
        inferkit.Model.load(source)
    assert ("give it as str" in str(caught.value)) == like_a_path


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "got int"),
        (None, "got NoneType"),
        (io.StringIO("text"), "mode 'rb'"),
        (np.zeros(4, np.float32), "items of 4 bytes"),
        ([b"a"], "got list"),
    ],
)
def test_what_is_neither(source: Any, words: str) -> None:
    with pytest.raises(TypeError, match="model") as caught:
        inferkit.Model.load(source)
    assert words in str(caught.value)


def test_other_messages_are_named(proto: onnx.ModelProto) -> None:
    with pytest.raises(TypeError, match=r"got onnx\.GraphProto: onnx\.helper\.make_model\(graph\) makes"):
        inferkit.Model.load(proto.graph)
    with pytest.raises(TypeError, match=r"got onnx\.NodeProto$"):
        inferkit.Model.load(proto.graph.node[0])

    class Message:
        def SerializeToString(self) -> bytes:  # noqa: N802
            return proto.SerializeToString()

    assert works(Message())


def test_files_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content + b"\xff\xff")
    with path.open() as text, pytest.raises(TypeError, match="mode 'rb'"):
        inferkit.Model.load(text)
    path.write_bytes(content)
    with path.open("rb") as file:
        assert works(file)
        with pytest.raises(inferkit.ModelError, match=r"nothing behind its present position: call seek\(0\) first"):
            inferkit.Model.load(file)
        file.seek(0)
        assert works(file)
    with pytest.raises(ValueError, match=r"cannot be read \(read of closed file\): open it with mode 'rb'"):
        inferkit.Model.load(file)
    with path.open("ab") as file, pytest.raises(io.UnsupportedOperation, match="open it with mode 'rb'"):
        inferkit.Model.load(file)
    with pytest.raises(inferkit.ModelError, match="the ONNX file is empty"):
        inferkit.Model.load(io.BytesIO())


@pytest.mark.parametrize("name", ["missing.onnx", "", "a\udcff\n\u202e.onnx"])
@pytest.mark.parametrize("opens", [inferkit.Model.load, inferkit.Weights.open], ids=["model", "weights"])
def test_a_missing_file_is_named_as_python_names_it(opens: Any, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught, open(name):
        pass
    with pytest.raises(FileNotFoundError) as ours:
        opens(name)
    assert (ours.value.errno, ours.value.strerror, ours.value.filename) == (2, "No such file or directory", name)
    assert str(ours.value) == str(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes from 3.11 on")
@pytest.mark.parametrize("content", [b"", b"<html>", b"\x08\x08"])
def test_what_is_wrong_with_a_file_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for source in (path, str(path)):
        with pytest.raises(inferkit.ModelError) as caught:
            inferkit.Model.load(source)
        assert caught.value.__notes__ == [f"This happened while the model was loaded from {str(path)!r}."]
    with pytest.raises(inferkit.ModelError) as caught:
        inferkit.Model.load(content)
    assert not hasattr(caught.value, "__notes__")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return file.getvalue()


FOREIGN = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "HTML": b"\n <!DOCTYPE html><html>404</html>",
    "an HTML page": b"<!-- made by a proxy -->\n<!-- twice --><HTML><body>Sign in</body></HTML>",
    "a download that failed or needs a login": b"<head><title>Sign in</title></head>",
    "plain text": b"Not Found",
    "gzip": gzip.compress(b"model"),
    "ZIP": zipped(),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00",
    "safetensors": (16).to_bytes(8, "little") + b'{"w": {"a": 12}}' + bytes(12),
    "ONNX Runtime's own format": b"\x24\x00\x00\x00ORTM" + bytes(100),
    "TensorFlow Lite": b"\x1c\x00\x00\x00TFL3" + bytes(100),
    "JSON": b'{"irVersion": 8}',
    "XML": b"<?xml version='1.0'?><net/>",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "GGUF": b"GGUF\x03\x00\x00\x00",
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "numpy": b"\x93NUMPY\x01\x00" + bytes(50),
    "tar": b"model.onnx" + bytes(247) + b"ustar\x00" + bytes(249),
    "download failed": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(FOREIGN[name])
    for source in (path, FOREIGN[name]):
        with pytest.raises(inferkit.ModelError, match="not an ONNX model") as caught:
            inferkit.Model.load(source)
        assert name in str(caught.value)
        assert ": " in str(caught.value)  # and what to do


STAND_INS = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 123456\n",
    "HTML page": b"<!-- proxy -->\n<!DOCTYPE html><html><body>Sign in to download this file.</body></html>" + b" " * 40,
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("columns", [4, 40_000], ids=["fits", "too long"])
def test_what_stands_in_for_external_data_is_named(name: str, columns: int, tmp_path: Path) -> None:
    """Weights that would fit into the pointer are not read from its text."""
    weights = numpy_helper.from_array(np.ones((4, columns), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert inferkit.Model.load(path)(np.ones((1, 4), np.float32)).shape == (1, columns)
    (tmp_path / "weights.bin").write_bytes(STAND_INS[name])
    with pytest.raises(inferkit.ModelError, match=r"'weights\.bin', which holds no weights but is") as caught:
        inferkit.Model.load(path)
    assert name in str(caught.value)
    assert "initializer 'w'" in str(caught.value)


def test_what_is_cut_short_is_said_to_be(content: bytes) -> None:
    with pytest.raises(inferkit.ModelError, match="truncated"):
        inferkit.Model.load(content[: len(content) // 2])
