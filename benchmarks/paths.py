"""Operators in shapes that a general way is slow for, one call on one thread: inferkit beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

import common
import unets
from precisions import beside_onnxruntime

#: Name, the model, x, and how far answers may be apart, of the largest value.
Case = tuple[str, bytes, np.ndarray, float]
RNG = np.random.default_rng(0)


def _draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def _model(op: str, x: np.ndarray, constants: dict[str, np.ndarray], inputs: list[str], **attributes: Any) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    return common.model(
        [helper.make_node(op, inputs, ["y"], **attributes)],
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, [None] * x.ndim)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def _depthwise() -> Iterator[Case]:
    for channels, kernel, size in (96, 7, 14), (192, 7, 7), (384, 13, 14), (384, 31, 14), (64, 31, 32), (512, 9, 4):
        x, w = _draw(1, channels, size, size), _draw(channels, 1, kernel, kernel)
        data = _model("Conv", x, {"w": w}, ["x", "w"], group=channels, pads=[kernel // 2] * 4)
        yield f"depthwise {kernel}x{kernel}, {channels} channels, {size}x{size}", data, x, 1e-5


def _bytes() -> Iterator[Case]:
    for channels, kernel, size in (96, 3, 56), (384, 3, 14), (64, 5, 28), (32, 7, 28):
        x = RNG.integers(0, 256, (1, channels, size, size)).astype(np.uint8)
        constants = {
            "xs": np.float32(0.02),
            "xz": np.uint8(128),
            "w": RNG.integers(-127, 128, (channels, 1, kernel, kernel)).astype(np.int8),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
            "ys": np.float32(0.1),
            "yz": np.uint8(120),
        }
        data = _model("QLinearConv", x, constants, ["x", *constants], group=channels, pads=[kernel // 2] * 4)
        yield f"QLinearConv depthwise {kernel}x{kernel}, {channels} channels, {size}x{size}", data, x, 0


def _others() -> Iterator[Case]:
    volume, cube = _draw(1, 16, 32, 32, 32), _draw(1, 8, 24, 24, 24)
    halves, thirds = {"kernel_shape": [2] * 3, "strides": [2] * 3}, {"kernel_shape": [3] * 3}
    yield "AveragePool 2x2x2, 16 channels, 32x32x32", _model("AveragePool", volume, {}, ["x"], **halves), volume, 1e-6
    yield "AveragePool 3x3x3, padded", _model("AveragePool", cube, {}, ["x"], **thirds, pads=[1] * 6), cube, 1e-6
    yield "MaxPool 3x3x3, stride 2", _model("MaxPool", cube, {}, ["x"], **thirds, strides=[2] * 3), cube, 0
    for n in (2, 4, 8):
        x = _draw(20_000, n)
        yield f"Softmax of {n}, 20,000 rows", _model("Softmax", x, {}, ["x"], axis=-1), x, 1e-6
    x = _draw(16, 4096) * 60
    yield "Sigmoid of large values", _model("Sigmoid", x, {}, ["x"]), x, 1e-6
    for channels, filters, size, kernel in (64, 32, 28, 3), (32, 32, 64, 3), (16, 16, 100, 2):
        x, w = _draw(1, channels, size, size), _draw(channels, filters, kernel, kernel)
        more = {"pads": [1] * 4, "output_padding": [1, 1]} if kernel == 3 else {}
        data = _model("ConvTranspose", x, {"w": w}, ["x", "w"], strides=[2, 2], **more)
        yield (
            f"ConvTranspose {kernel}x{kernel}, stride 2, {channels} to {filters} channels, {size}x{size}",
            data,
            x,
            1e-5,
        )


def _models() -> Iterator[Case]:
    for size in 64, 128:
        yield f"UNet, channels last, {size}x{size}", *unets.unet(True, size), 1e-5
        # A layer may round to the next byte, which those behind it multiply.
        yield f"UNet, QDQ, {size}x{size}", *unets.quantized_unet(size), 0.1


def slow_before() -> list[dict[str, Any]]:
    """Operators in shapes that a general way is slow for, one call on one thread."""
    rows = []
    for what, data, x, tolerance in (*_depthwise(), *_bytes(), *_others(), *_models()):
        common.progress(f"paths: {what}")
        rows += beside_onnxruntime(what, data, x, tolerance)
    return rows
