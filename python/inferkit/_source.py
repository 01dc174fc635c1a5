"""The ways in which a model is given: a path, or its content."""

from __future__ import annotations

import os
from typing import Any, Protocol, Union

import numpy as np

from ._arguments import path_text

__all__ = ["ModelSource", "model_source"]


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
        return os.fsdecode(model) if _is_path(model) else model
    if isinstance(model, (str, os.PathLike)):
        return path_text(model, "model")
    serialize = getattr(model, "SerializeToString", None)
    if callable(serialize):  # before the rest: protobuf's messages have many methods
        return _content(serialize(), model)
    read = getattr(model, "read", None)
    if callable(read):
        return _content(read(), model)
    return _content(model, model)


def _is_path(given: bytes) -> bool:
    """Whether bytes name a file. Content has a NUL or a control character early on, and names none."""
    if not 0 < len(given) <= _LONGEST_PATH or b"\0" in given:
        return False
    try:
        return os.path.lexists(given)
    except (OSError, ValueError):  # a part of it is too long
        return False


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
