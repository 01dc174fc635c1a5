"""The onnx package's light models: whole networks whose weights are one constant each, given random ones here.

As they come, every weight of a tensor is the same number, so an engine that confuses channels passes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .cases import DATA

LIGHT = sorted((DATA / "light").glob("*.onnx"))


def weight(rng: np.random.Generator, shape: tuple[int, ...], reader: onnx.NodeProto, position: int) -> np.ndarray:
    """Values under which activations neither vanish nor explode."""
    if reader.op_type == "BatchNormalization" and position in (1, 4):  # scale, variance
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        return rng.standard_normal(shape, np.float32) / 10
    fan_in = shape[1] * int(np.prod(shape[2:]))
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))


def reseeded(path: Path, seed: int = 0) -> onnx.ModelProto:
    """The model with random weights, and without the softmax at its end, which would hide differences."""
    rng = np.random.default_rng(seed)
    model = onnx.load(path)
    graph = model.graph
    initial = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    readers = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    filled = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    kept = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    inputs = [i for i in graph.input if i.name not in initial]
    if kept[-1].op_type == "Softmax":
        graph.output[0].name = kept.pop().input[0]
    read = {name for node in kept for name in node.input}
    for field, new in (("node", kept), ("input", inputs), ("initializer", [])):
        graph.ClearField(field)
        getattr(graph, field).extend(new)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in initial.items() if name in read)
    for node in filled:
        shape = tuple(int(d) for d in initial[node.input[0]])
        value = weight(rng, shape, *readers[node.output[0]])
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    return model
