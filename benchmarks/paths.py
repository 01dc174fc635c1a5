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


def _model(
    op: str, x: np.ndarray, constants: dict[str, np.ndarray], inputs: list[str], y: Any = None, **attributes: Any
) -> bytes:
    """`y`: the type of the answer, where that is another."""
    kind = helper.np_dtype_to_tensor_dtype
    return common.model(
        [helper.make_node(op, inputs, ["y"], **attributes)],
        [helper.make_tensor_value_info("x", kind(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", kind(np.dtype(y or x.dtype)), [None] * x.ndim)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        opset=18 if op == "Col2Im" else 17,
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
    counted = _model("AveragePool", cube, {}, ["x"], **thirds, pads=[1] * 6, count_include_pad=1)
    yield "AveragePool 3x3x3, padding counts", counted, cube, 1e-6
    yield "MaxPool 3x3x3, stride 2", _model("MaxPool", cube, {}, ["x"], **thirds, strides=[2] * 3), cube, 0
    for n in (2, 4, 8, 9, 16, 32):
        x = _draw(20_000, n)
        yield f"Softmax of {n}, 20,000 rows", _model("Softmax", x, {}, ["x"], axis=-1), x, 1e-6
    for m, k, n in (256, 64, 256), (1024, 16, 64):
        x, constants = _draw(m, k), {"w": _draw(n, k), "c": _draw(n)}
        data = _model("Gemm", x, constants, ["x", "w", "c"], transB=1, alpha=0.3, beta=0.7)
        yield f"Gemm with factors, {m} x {k} x {n}", data, x, 1e-5
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


def _moves() -> Iterator[Case]:
    """Few operations an element, along rows, columns and windows."""
    near = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for shape, dtype in ((16, 32, 32), np.float32), ((256, 13, 13), np.float32), ((16, 32, 32), np.uint8):
        x = (_draw(1, *shape) * 50).astype(dtype)
        what = f"Resize nearest, 2x, {shape[0]} channels, {shape[1]}x{shape[2]}, {x.dtype}"
        yield what, _model("Resize", x, {"s": np.float32([1, 1, 2, 2])}, ["x", "", "s"], **near), x, 0
    x = RNG.integers(0, 256, (1, 16, 32, 32)).astype(np.uint8)
    for kernel, stride in (2, 2), (3, 2):
        pads = [kernel // 3] * 4
        data = _model("MaxPool", x, {}, ["x"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
        yield f"MaxPool {kernel}x{kernel}, stride {stride}, bytes, 16 channels, 32x32", data, x, 0
    for channels, size, kernel, stride in (8, 32, 3, 1), (3, 64, 8, 8):
        x = _draw(1, channels * kernel**2, (size // stride) ** 2)
        constants = {"image": np.int64([size] * 2), "block": np.int64([kernel] * 2)}
        more = {"strides": [stride] * 2, "pads": [kernel // 2 if stride == 1 else 0] * 4}
        data = _model("Col2Im", x, constants, ["x", *constants], **more)
        yield f"Col2Im {kernel}x{kernel}, stride {stride}, {channels} channels, {size}x{size}", data, x, 1e-6
    for dtype in np.float64, np.int32, np.uint8:
        x = (_draw(1, 8000) * 50).astype(dtype)
        yield f"ArgMax of 8000, {x.dtype}", _model("ArgMax", x, {}, ["x"], np.int64, axis=1), x, 0
    x = _draw(1, 16, 32, 32)
    yield "CumSum over channels, 16, 32x32", _model("CumSum", x, {"axis": np.int64(1)}, ["x", "axis"]), x, 1e-6
    for mode in "reflect", "edge":
        data = _model("Pad", x, {"p": np.int64([0, 0, 3, 3, 0, 0, 3, 3])}, ["x", "p"], mode=mode)
        yield f"Pad {mode}, by 3, 16 channels, 32x32", data, x, 0
    places = {"places": np.arange(4096).reshape(1, 16, 16, 16) * 4}
    x = _draw(1, 16, 16, 16)
    data = _model("MaxUnpool", x, places, ["x", "places"], kernel_shape=[2, 2], strides=[2, 2])
    yield "MaxUnpool 2x2, 16 channels, 16x16", data, x, 0


def _models() -> Iterator[Case]:
    for size in 64, 128:
        yield f"UNet, channels last, {size}x{size}", *unets.unet(True, size), 1e-5
        # A layer may round to the next byte, which those behind it multiply.
        yield f"UNet, QDQ, {size}x{size}", *unets.quantized_unet(size), 0.1


def slow_before() -> list[dict[str, Any]]:
    """Operators in shapes that a general way is slow for, one call on one thread."""
    rows = []
    for what, data, x, tolerance in (*_depthwise(), *_bytes(), *_others(), *_moves(), *_models()):
        common.progress(f"paths: {what}")
        rows += beside_onnxruntime(what, data, x, tolerance)
    return rows
