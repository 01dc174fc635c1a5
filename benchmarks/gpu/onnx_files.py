"""Writes ONNX files with numpy alone: a machine with a GPU may lack the package `onnx`.

Messages by the numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; tests/python/test_gpu_rehearsal.py
reads what comes out with that package, and runs it with ONNX Runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np

OPSET, IR_VERSION = 20, 9
TYPES = {"float32": 1, "int64": 7, "bool": 9}
Attribute = "int | float | str | tuple[int, ...]"
Port = tuple[str, tuple["int | str", ...]]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def attribute(name: str, value: object) -> bytes:
    out = part(1, name)
    if isinstance(value, int):
        return out + number(3, value) + number(20, 2)
    if isinstance(value, float):
        return out + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    if isinstance(value, str):
        return out + part(4, value) + number(20, 3)
    return out + b"".join(number(8, int(i)) for i in value) + number(20, 7)


def node(op: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: object) -> bytes:
    out = b"".join(part(1, name) for name in inputs) + b"".join(part(2, name) for name in outputs)
    out += part(3, f"node_{next(iter(outputs))}") + part(4, op)
    return out + b"".join(part(5, attribute(name, value)) for name, value in attributes.items())


def tensor(name: str, array: np.ndarray) -> bytes:
    out = b"".join(number(1, dim) for dim in array.shape) + number(2, TYPES[array.dtype.name]) + part(8, name)
    return out + part(9, np.ascontiguousarray(array).tobytes())


def port(name: str, dtype: str, dims: Iterable[int | str]) -> bytes:
    shape = b"".join(part(1, number(1, d) if isinstance(d, int) else part(2, d)) for d in dims)
    return part(1, name) + part(2, part(1, number(1, TYPES[dtype]) + part(2, shape)))


def model(
    nodes: Iterable[bytes], inputs: Mapping[str, Port], outputs: Mapping[str, Port], constants: Mapping[str, np.ndarray]
) -> bytes:
    """The bytes of a file. Ports are (dtype, dims); a dim is a number or a name."""
    graph = b"".join(part(1, one) for one in nodes) + part(2, "graph")
    graph += b"".join(part(5, tensor(name, array)) for name, array in constants.items())
    graph += b"".join(part(11, port(name, *of)) for name, of in inputs.items())
    graph += b"".join(part(12, port(name, *of)) for name, of in outputs.items())
    return number(1, IR_VERSION) + part(2, "inferkit") + part(7, graph) + part(8, part(1, "") + number(2, OPSET))
