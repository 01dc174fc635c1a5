"""Arrays in the memory of the tests' CUDA device, as another library has them: for programs that run over its driver.

Their values are late: they arrive when the stream that they are put into has been waited for, and until then each is
NaN.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

cuda = ctypes.CDLL("libcuda.so.1")
python = ctypes.pythonapi
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
python.PyCapsule_GetPointer.restype = ctypes.c_void_p
python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


def call(name: str, *arguments: Any) -> None:
    error = getattr(cuda, name)(*arguments)
    assert error == 0, f"{name}: {error}"


def start() -> None:
    """Make the device's context that of this thread, and let its allocations break nobody's capture."""
    context, mode = ctypes.c_void_p(), ctypes.c_int(1)
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxPushCurrent_v2", context)
    call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))


def stream() -> int:
    out = ctypes.c_void_p()
    call("cuStreamCreate", ctypes.byref(out), 1)
    assert out.value
    return out.value


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}


class There:
    """A copy of `values`, put there in a stream of its own."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values)
        self.shape, self.dtype = values.shape, values.dtype
        self.stream = stream()
        self.asked: list[int | None] = []
        at = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(max(values.nbytes, 1)))
        self.at = at.value
        if values.nbytes:
            call(
                "cuMemcpyHtoDAsync_v2",
                at,
                ctypes.c_void_p(self.values.ctypes.data),
                ctypes.c_size_t(values.nbytes),
                ctypes.c_void_p(self.stream),
            )


class ByInterface(There):
    def __init__(self, values: np.ndarray, **changes: Any) -> None:
        super().__init__(values)
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.at, True),
            "strides": None,
            "stream": self.stream,
            "version": 3,
            **changes,
        }


class ByDlpack(There):
    """With capsules of version 1 for those who take them, unless `old`; `changes` are made to the tensor."""

    def __init__(
        self, values: np.ndarray, *, old: bool = False, name: str = "", major: int = 1, **changes: Any
    ) -> None:
        super().__init__(values)
        self.old, self.name, self.major, self.changes = old, name, major, changes
        self.kept: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, stream: int | None = None, **more: Any) -> object:
        if self.old and more:
            raise TypeError("there are no other arguments")
        self.asked.append(stream)
        if stream not in (None, -1):
            event = ctypes.c_void_p()
            call("cuEventCreate", ctypes.byref(event), 2)
            call("cuEventRecordWithFlags", event, ctypes.c_void_p(self.stream), 0)
            call("cuStreamWaitEvent", ctypes.c_void_p(stream), event, 0)
        rank = len(self.shape)
        tensor = Tensor(
            self.at,
            (2, 0),
            rank,
            CODES[self.dtype.kind],
            self.dtype.itemsize * 8,
            1,
            (ctypes.c_int64 * max(rank, 1))(*self.shape),
            None,
            0,
        )
        for field, value in self.changes.items():
            setattr(tensor, field, value)
        made: Any = Managed(tensor) if self.old else Versioned(major=self.major, minor=0, flags=1, tensor=tensor)
        name = self.name.encode() or (b"dltensor" if self.old else b"dltensor_versioned")
        self.kept += [made, name]
        return python.PyCapsule_New(ctypes.addressof(made), name, None)


def tensor_of(capsule: object, name: bytes) -> Tensor:
    """What a capsule has, which stays unconsumed."""
    at = python.PyCapsule_GetPointer(capsule, name)
    kind = Versioned if name == b"dltensor_versioned" else Managed
    found: Tensor = ctypes.cast(at, ctypes.POINTER(kind)).contents.tensor  # type: ignore[attr-defined]
    return found


def wait(stream: int) -> None:
    """Until what is in the stream has been done."""
    call("cuStreamSynchronize", ctypes.c_void_p(stream))


def read(at: int, shape: tuple[int, ...]) -> np.ndarray:
    """The floats that lie there: memory of that device is memory of the host."""
    return np.ctypeslib.as_array((ctypes.c_float * math.prod(shape)).from_address(at)).reshape(shape).copy()
