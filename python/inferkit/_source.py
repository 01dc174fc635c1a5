"""The ways in which a model is given: a path, or its content."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, Protocol, Union

import numpy as np

from ._arguments import path_text
from ._errors import ModelError

__all__ = ["ModelSource", "is_like_a_path", "model_source"]


class BinaryFile(Protocol):
    """What is open for reading in binary mode."""

    def read(self) -> bytes: ...


class Message(Protocol):
    """A message of protobuf, as onnx.ModelProto is one."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


_Path = Union[str, "os.PathLike[str]", "os.PathLike[bytes]"]
_Content = Union[bytes, bytearray, memoryview, "np.ndarray[Any, Any]"]
ModelSource = _Path | _Content | BinaryFile | Message

_LONGEST_PATH = 4096
_OF_TEXT = ", whose read() gives text: open it with mode 'rb'"
_TAKEN = "a path, the bytes of a model, a binary file or an onnx.ModelProto"


def model_source(model: Any) -> str | bytes:
    """Tell the path of a model from its content."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, (str, os.PathLike)):
        return path_text(model, "model")
    serialize = getattr(model, "SerializeToString", None)
    if callable(serialize):  # before the rest: protobuf's messages have many methods
        _refuse_other_messages(model)
        return _content(serialize(), model)
    read = getattr(model, "read", None)
    if callable(read):
        return _read(model, read)
    return _content(model, model)


def _refuse_other_messages(model: Any) -> None:
    """Name a message of protobuf that is no model, such as the graph of one."""
    name = getattr(getattr(type(model), "DESCRIPTOR", None), "full_name", None)
    if isinstance(name, str) and name.rpartition(".")[2] != "ModelProto":
        hint = ": onnx.helper.make_model(graph) makes a model of it" if name == "onnx.GraphProto" else ""
        raise TypeError(f"model must be {_TAKEN}, got {name}{hint}")


def _read(file: Any, read: Callable[[], Any]) -> bytes:
    """Read what is left of a file."""
    try:
        content = read()
    except UnicodeDecodeError:
        raise TypeError(f"model must be {_TAKEN}, got {type(file).__name__}{_OF_TEXT}") from None
    except ValueError as error:  # closed, or open for writing alone
        if type(error) not in (ValueError, io.UnsupportedOperation):
            raise
        raise type(error)(f"the model's file cannot be read ({error}): open it with mode 'rb'") from None
    out = _content(content, file)
    if not out and _position(file):
        raise ModelError("the model's file holds nothing behind its present position: call seek(0) first")
    return out


def _position(file: Any) -> int:
    """Tell where a file stands; 0 where it does not say."""
    try:
        at = file.tell()
    except (AttributeError, OSError, ValueError):
        return 0
    return at if isinstance(at, int) else 0


def is_like_a_path(content: bytes) -> bool:
    """Tell whether bytes that are no model may be meant for the name of one.

    Bytes are content, always: were they a path where such a file exists, who sends a model to a service could have it
    open any file there.
    """
    if not 0 < len(content) <= _LONGEST_PATH or min(content) < 0x20 or content.startswith((b"<", b"{", b"[")):
        return False
    if b" " in content:  # a sentence, such as an error that a server answered with, unless it is plainly a path
        return content.startswith((b"/", b"./", b"../", b"~")) or content.endswith(b".onnx")
    return b"/" in content or b"." in content


def _content(given: Any, model: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        view = memoryview(given)
    except TypeError:
        hint = ""
        if isinstance(given, str):
            hint = _OF_TEXT
        raise TypeError(f"model must be {_TAKEN}, got {type(model).__name__}{hint}") from None
    if view.itemsize != 1:
        raise TypeError(
            f"the content of a model is bytes; got items of {view.itemsize} bytes from {type(model).__name__}"
        )
    return view.tobytes()
