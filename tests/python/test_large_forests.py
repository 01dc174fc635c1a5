"""Forests of millions of nodes, as gradient boosting makes them: nothing limits a list but the file that holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

import inferkit

Array = np.ndarray[Any, Any]
TREES = 700_001


def varints(numbers: Array) -> bytes:
    """Each as a protobuf varint, one after the other."""
    rest = numbers.astype(np.uint64)
    columns, used = [], []
    for _ in range(10):
        columns.append((rest & 0x7F).astype(np.uint8))
        used.append(np.ones(len(rest), bool) if not used else rest > 0)
        rest = rest >> np.uint64(7)
    digits, present = np.stack(columns, 1), np.stack(used, 1)
    digits[:, :-1] |= np.where(present[:, 1:], 0x80, 0).astype(np.uint8)
    return digits[present].tobytes()


def varint(number: int) -> bytes:
    return varints(np.array([number]))


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def attribute(name: str, kind: int, content: bytes) -> bytes:
    return field(5, field(1, name.encode()) + b"\xa0\x01" + varint(kind) + content)


def ints(name: str, values: Array) -> bytes:
    return attribute(name, 7, field(8, varints(values)))


def floats(name: str, values: Array) -> bytes:
    return attribute(name, 6, field(7, values.astype(np.float32).tobytes()))


def dimension(text: str | int) -> bytes:
    return field(1, field(2, text.encode()) if isinstance(text, str) else b"\x08" + varint(text))


def port(name: str, *shape: str | int) -> bytes:
    tensor = b"\x08\x01" + field(2, b"".join(dimension(d) for d in shape))
    return field(1, name.encode()) + field(2, field(1, tensor))


def forest(trees: int) -> bytes:
    """Stumps: tree t asks whether feature t % 4 is at most 0, and gives 1 or 2."""
    t = np.arange(trees)
    one = np.array([0, 1, 2])
    node = (
        field(1, b"x") + field(2, b"y") + field(4, b"TreeEnsembleRegressor") + field(7, b"ai.onnx.ml")
        + attribute("n_targets", 2, b"\x18\x01")
        + ints("nodes_treeids", np.repeat(t, 3)) + ints("nodes_nodeids", np.tile(one, trees))
        + ints("nodes_featureids", np.repeat(t % 4, 3)) + floats("nodes_values", np.zeros(3 * trees))
        + ints("nodes_truenodeids", np.tile([1, 0, 0], trees)) + ints("nodes_falsenodeids", np.tile([2, 0, 0], trees))
        + attribute("nodes_modes", 8, (b"\x4a\x0aBRANCH_LEQ" + b"\x4a\x04LEAF" * 2) * trees)
        + ints("target_treeids", np.repeat(t, 2)) + ints("target_nodeids", np.tile([1, 2], trees))
        + ints("target_ids", np.zeros(2 * trees)) + floats("target_weights", np.tile([1, 2], trees))
    )  # fmt: skip
    graph = field(1, node) + field(2, b"g") + field(11, port("x", "n", 4)) + field(12, port("y", "n", 1))
    opsets = b"".join(field(8, field(1, d) + b"\x10" + varint(v)) for d, v in ((b"", 17), (b"ai.onnx.ml", 3)))
    return b"\x08\x08" + field(7, graph) + opsets


def test_a_forest_of_millions_of_nodes() -> None:
    model = inferkit.Model.load(forest(TREES))
    x = np.array([[-1, -1, -1, -1], [1, 1, 1, 1], [1, -1, -1, -1]], np.float32)
    first = len(range(0, TREES, 4))
    want = np.array([[TREES], [2 * TREES], [TREES + first]], np.float32)
    np.testing.assert_allclose(model(x), want, rtol=1e-5)
