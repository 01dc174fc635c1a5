"""UNets as exporters and quantizers write them: channels last, and in QDQ form."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import common


class _Net:
    """Nodes and constants of a UNet for images of `size` x `size`."""

    def __init__(self, channels_last: bool, size: int) -> None:
        self.last, self.size = channels_last, size
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, *shape: int, scale: float) -> str:
        name = f"c{len(self.constants)}"
        value = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def channels_first(self, x: str, f: Callable[[str], str]) -> str:
        if not self.last:
            return f(x)
        return self.op("Transpose", f(self.op("Transpose", x, perm=[0, 3, 1, 2])), perm=[0, 2, 3, 1])

    def conv(self, x: str, channels: int, filters: int, kernel: int = 3) -> str:
        w = self.constant(filters, channels, kernel, kernel, scale=(2 / (channels * kernel * kernel)) ** 0.5)
        bias = self.constant(filters, scale=0.1)
        pads = [kernel // 2] * 4
        if self.last:
            return self.op("Add", self.channels_first(x, lambda v: self.op("Conv", v, w, pads=pads)), bias)
        return self.op("Conv", x, w, bias, pads=pads)

    def block(self, x: str, channels: int, filters: int) -> str:
        x = self.op("Relu", self.conv(x, channels, filters))
        return self.op("Relu", self.conv(x, filters, filters))

    def build(self) -> None:
        skips, channels, x = [], 3, "x"
        for filters in (16, 32, 64):
            x, channels = self.block(x, channels, filters), filters
            if filters < 64:
                skips.append((x, channels))
                halves = {"kernel_shape": [2, 2], "strides": [2, 2]}
                x = self.channels_first(x, lambda v, h=halves: self.op("MaxPool", v, **h))  # type: ignore[misc]
        for skip, filters in reversed(skips):
            w = self.constant(channels, filters, 2, 2, scale=channels**-0.5)
            up = self.channels_first(x, lambda v, w=w: self.op("ConvTranspose", v, w, strides=[2, 2]))  # type: ignore[misc]
            x = self.block(self.op("Concat", up, skip, axis=-1 if self.last else 1), 2 * filters, filters)
            channels = filters
        self.nodes.append(helper.make_node("Sigmoid", [self.conv(x, channels, 1, 1)], ["y"]))


def unet(channels_last: bool, size: int) -> tuple[bytes, np.ndarray]:
    """A model in float32 and an image for it."""
    net = _Net(channels_last, size)
    net.build()
    shape = (1, size, size, 3) if channels_last else (1, 3, size, size)
    x = net.rng.standard_normal(shape).astype(np.float32)
    ports = [helper.make_tensor_value_info(name, 1, dims) for name, dims in (("x", shape), ("y", [None] * 4))]
    return common.model(net.nodes, ports[:1], ports[1:], net.constants), x


def quantized_unet(size: int) -> tuple[bytes, np.ndarray]:
    """The same with channels first, quantized by ONNX Runtime's tools: QDQ, filters of int8 with a scale each."""
    from onnxruntime import quantization

    data, x = unet(False, size)
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess

    class OneImage(quantization.CalibrationDataReader):  # type: ignore[misc]
        images = iter([{"x": x}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "bytes.onnx")
        source.write_bytes(data)
        quantization.quantize_static(
            source,
            target,
            OneImage(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes(), x
