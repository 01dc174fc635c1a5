"""Convolutional models for benchmarks/gpu: lists of operators, which become an ONNX file, or calls of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx_files import model, node


@dataclass
class Op:
    name: str
    inputs: list[str]
    output: str
    attributes: dict[str, object] = field(default_factory=dict)


class Images:
    """[batch, 3, size, size] to [batch, classes]. Batch normalization is in the filters, as exporters leave it."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.ops: list[Op] = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def put(self, op: str, *inputs: str, **attributes: object) -> str:
        self.ops.append(Op(op, list(inputs), f"v{len(self.ops)}", attributes))
        return self.ops[-1].output

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        spread = np.float32(np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 64))
        self.weights[name] = self.rng.standard_normal(shape, dtype=np.float32) / spread
        return name

    def conv(self, x: str, channels: int, filters: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        pad = kernel // 2
        return self.put(
            "Conv",
            x,
            self.weight(filters, channels // group, kernel, kernel),
            self.weight(filters),
            group=group,
            strides=(stride, stride),
            pads=(pad, pad, pad, pad),
        )

    def classify(self, x: str, channels: int, classes: int) -> None:
        x = self.put("Flatten", self.put("GlobalAveragePool", x))
        self.put("Gemm", x, self.weight(classes, channels), self.weight(classes), transB=1)

    def file(self) -> bytes:
        bounds = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
        if not any(op.name == "Clip" for op in self.ops):
            bounds = {}
        last = self.ops[-1].output
        nodes = [
            node(op.name, op.inputs, ["y" if op.output == last else op.output], **op.attributes) for op in self.ops
        ]
        classes = self.weights[self.ops[-1].inputs[2]].size
        images = ("float32", ("batch", 3, self.size, self.size))
        return model(nodes, {"x": images}, {"y": ("float32", ("batch", classes))}, self.weights | bounds)

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        shape = (batch, 3, self.size, self.size)
        return (np.random.default_rng(seed).standard_normal(shape, dtype=np.float32),)


def small_cnn(size: int) -> Images:
    """Two convolutions, two kinds of pooling, a concatenation."""
    out = Images(f"CNN {size}", size)
    x = out.put("Relu", out.conv("x", 3, 6, 3))
    x = out.put("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    left, right = out.put("Relu", out.conv(x, 6, 5, 3)), out.put("Relu", out.conv(x, 6, 4, 1))
    x = out.put("Concat", left, right, axis=1)
    x = out.put("AveragePool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    out.classify(x, 9, 10)
    return out


def resnet(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, size: int = 224, classes: int = 1000) -> Images:
    """With bottlenecks: (3, 4, 6, 3) and 64 is ResNet50."""
    out = Images(f"ResNet{2 + 3 * sum(blocks)} {size}", size)
    x = out.put("Relu", out.conv("x", 3, width, 7, 2))
    x = out.put("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    channels = width
    for stage, count in enumerate(blocks):
        narrow = width << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            same = out.conv(x, channels, 4 * narrow, 1, stride) if block == 0 else x
            x = out.put("Relu", out.conv(x, channels, narrow, 1))
            x = out.put("Relu", out.conv(x, narrow, narrow, 3, stride))
            x = out.put("Relu", out.put("Add", out.conv(x, narrow, 4 * narrow, 1), same))
            channels = 4 * narrow
    out.classify(x, channels, classes)
    return out


MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    stages: tuple[tuple[int, int, int, int], ...] = MOBILENET_V2,
    first: int = 32,
    last: int = 1280,
    size: int = 224,
    classes: int = 1000,
) -> Images:
    """Stages are (expansion, filters, blocks, stride)."""
    out = Images(f"MobileNetV2 {size}", size)

    def relu6(x: str) -> str:
        return out.put("Clip", x, "low", "high")

    x, channels = relu6(out.conv("x", 3, first, 3, 2)), first
    for expansion, filters, count, stride in stages:
        for block in range(count):
            wide, step = channels * expansion, stride if block == 0 else 1
            y = x if expansion == 1 else relu6(out.conv(x, channels, wide, 1))
            y = relu6(out.conv(y, wide, wide, 3, step, group=wide))
            y = out.conv(y, wide, filters, 1)
            x = out.put("Add", x, y) if step == 1 and channels == filters else y
            channels = filters
    out.classify(relu6(out.conv(x, channels, last, 1)), last, classes)
    return out


def tiny_resnet() -> Images:
    return resnet((1, 1), 4, 16, 5)


def tiny_mobilenet() -> Images:
    return mobilenet_v2(((1, 4, 1, 1), (3, 6, 2, 2)), 4, 12, 12, 5)
