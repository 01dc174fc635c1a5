"""The ways in which a model is given: a path, or its content."""

from __future__ import annotations

import errno
import os
from typing import Any, Protocol, Union

import numpy as np

from ._arguments import path_text

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
_TAKEN = "a path, the bytes of a model, a binary file or an onnx.ModelProto"


def model_source(model: Any) -> str | bytes:
    """Tell the path of a model from its content."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, (str, os.PathLike)):
        path = path_text(model, "model")
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return path
    serialize = getattr(model, "SerializeToString", None)
    if callable(serialize):  # before the rest: protobuf's messages have many methods
        return _content(serialize(), model)
    read = getattr(model, "read", None)
    if callable(read):
        return _content(read(), model)
    return _content(model, model)


def is_like_a_path(content: bytes) -> bool:
    """Tell whether bytes that are no model may be meant for the name of one.

    Bytes are content, always: were they a path where such a file exists, who sends a model to a service could have it
    open any file there.
    """
    return 0 < len(content) <= _LONGEST_PATH and min(content) >= 0x20 and (b"/" in content or b"." in content)


def _content(given: Any, model: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        view = memoryview(given)
    except TypeError:
        hint = ""
        if isinstance(given, str):
            hint = ", whose read() gives text: open it with mode 'rb'"
        raise TypeError(f"model must be {_TAKEN}, got {type(model).__name__}{hint}") from None
    if view.itemsize != 1:
        raise TypeError(
            f"the content of a model is bytes; got items of {view.itemsize} bytes from {type(model).__name__}"
        )
    return view.tobytes()
