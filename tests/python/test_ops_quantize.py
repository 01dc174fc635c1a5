"""Quantised operators against exact integer arithmetic in numpy, ONNX Runtime and the onnx package's node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from op_cases import PEER_SATURATES, Array, Case, check_node_test, close, node_test_cases

import inferkit

QUANTIZED = ["uint8", "int8", "uint16", "int16"]


def draw(seed: int, *shape: int, dtype: str = "float32") -> Array:
    return (4 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def codes(seed: int, dtype: str, *shape: int) -> Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


def scales(seed: int, *shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).uniform(0.01, 0.2, shape).astype(dtype)


def spread(v: Array, x: Array, axis: int, block: int = 0) -> Array:
    """A scale or zero point as it lies over x."""
    if v.size == 1 and v.ndim <= 1 and not block:
        return v.reshape(())
    if not block:
        return v.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])
    return np.take(v.repeat(block, axis), range(x.shape[axis]), axis)


def quantized(x: Array, scale: Array, zero: Array, axis: int = 1, block: int = 0) -> Array:
    info = np.iinfo(zero.dtype)
    quotient = x.astype(np.float32) / spread(scale.astype(np.float32), x, axis, block)
    v = np.rint(quotient).astype(np.float64) + spread(zero, x, axis, block)
    return np.clip(v, info.min, info.max).astype(zero.dtype)


def dequantized(x: Array, scale: Array, zero: Array, axis: int = 1, block: int = 0) -> Array:
    shifted = x.astype(np.int64) - spread(zero.astype(np.int64), x, axis, block)
    return shifted * spread(scale.astype(np.float64), x, axis, block)


@pytest.mark.parametrize("code", QUANTIZED)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantize_and_dequantize(code: str, dtype: str, axis: int | None) -> None:
    x = draw(0, 5, 6, 7, dtype=dtype)
    size = () if axis is None else (x.shape[axis],)
    scale, zero = scales(1, *size, dtype=dtype), codes(2, code, *size)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    case = Case("QuantizeLinear", x, scale, zero, opset=21, **attributes)
    expected = quantized(x, scale, zero, axis if axis is not None else 1)
    assert case.run()[0].dtype == np.dtype(code)
    np.testing.assert_array_equal(case.run()[0], expected)
    np.testing.assert_array_equal(case.onnxruntime()[0], expected)
    back = Case("DequantizeLinear", expected, scale, zero, opset=21, **attributes)
    close(
        back.run()[0],
        dequantized(expected, scale, zero, axis or 0 if axis != 1 else 1),
        1e-3 if dtype == "float16" else 1e-6,
    )
    np.testing.assert_array_equal(back.run()[0], back.onnxruntime()[0])


@pytest.mark.parametrize("code", QUANTIZED)
@pytest.mark.parametrize(
    ("shape", "axis", "block"), [((4, 6), 1, 2), ((4, 6), 0, 2), ((3, 7, 5), 1, 3), ((2, 8), 1, 8)]
)
def test_blocks(code: str, shape: tuple[int, ...], axis: int, block: int) -> None:
    x = draw(0, *shape)
    blocks = [-(-d // block) if i == axis else d for i, d in enumerate(shape)]
    scale, zero = scales(1, *blocks), codes(2, code, *blocks)
    case = Case("QuantizeLinear", x, scale, zero, opset=21, axis=axis, block_size=block)
    expected = quantized(x, scale, zero, axis, block)
    np.testing.assert_array_equal(case.run()[0], expected)
    back = Case("DequantizeLinear", expected, scale, zero, opset=21, axis=axis, block_size=block)
    close(back.run()[0], dequantized(expected, scale, zero, axis, block))


def refined(code: Array, scale: Array, zero: Array | None, axis: int, block: int = 0) -> Array:
    """DequantizeLinear in float32, to the bit."""
    shift = np.zeros((), np.int64) if zero is None else spread(zero.astype(np.int64), code, axis, block)
    return (code.astype(np.int64) - shift).astype(np.float32) * spread(scale, code, axis, block)


# Runs of neighbours with one scale, or with a scale each, that end before, at and after whole vectors.
LAYOUTS = [
    ((5, 1), 1),
    ((4, 3), 1),
    ((4, 16), 1),
    ((3, 47), 1),
    ((3, 47), 0),
    ((67,), 0),
    ((2, 3, 1), 1),
    ((2, 3, 15), 1),
    ((2, 3, 17), 1),
    ((2, 3, 17), 0),
    ((90, 13), 1),
    ((9, 11, 7), 1),
    ((9, 11, 7), 2),
    ((2, 0, 4), 1),
    ((2, 3, 0), 1),
    ((0, 20), 1),
]


@pytest.mark.parametrize("code", ["uint8", "int8"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("shifted", [False, True])
def test_layouts_of_bytes(code: str, shape: tuple[int, ...], axis: int, shifted: bool) -> None:
    x, size = 4 * draw(0, *shape), shape[axis]
    scale, zero = scales(1, size), codes(2, code, size) if shifted else np.zeros(size, code)
    case = Case("QuantizeLinear", x, scale, zero, opset=13, axis=axis)
    found, expected = case.run()[0], quantized(x, scale, zero, axis)
    np.testing.assert_array_equal(found, expected)
    back = Case("DequantizeLinear", expected, scale, zero if shifted else None, opset=13, axis=axis)
    np.testing.assert_array_equal(back.run()[0], refined(expected, scale, zero, axis))
    if x.size:
        np.testing.assert_array_equal(found, case.onnxruntime()[0])
        np.testing.assert_array_equal(back.run()[0], back.onnxruntime()[0])


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_layouts_of_int32(shape: tuple[int, ...], axis: int) -> None:
    x, scale = codes(0, "int32", *shape), scales(1, shape[axis])
    found = Case("DequantizeLinear", x, scale, opset=13, axis=axis).run()[0]
    np.testing.assert_array_equal(found, refined(x, scale, None, axis))
    # The difference from a zero point may take more than 32 bits.
    zero = codes(2, "int32", shape[axis])
    found = Case("DequantizeLinear", x, scale, zero, opset=13, axis=axis).run()[0]
    np.testing.assert_array_equal(found, refined(x, scale, zero, axis))


@pytest.mark.parametrize("code", ["uint8", "int8", "int16"])
@pytest.mark.parametrize(
    ("shape", "axis", "block"),
    [
        ((3, 50), 1, 16),
        ((3, 50), 1, 1),
        ((3, 50), 0, 2),
        ((2, 5, 33), 1, 2),
        ((2, 5, 33), 2, 7),
        ((300, 701), 1, 32),
        ((9, 701), 1, 3),
    ],
)
def test_blocks_to_the_bit(code: str, shape: tuple[int, ...], axis: int, block: int) -> None:
    x = 4 * draw(0, *shape)
    blocks = [-(-d // block) if i == axis else d for i, d in enumerate(shape)]
    scale, zero = scales(1, *blocks), codes(2, code, *blocks)
    attributes: dict[str, Any] = {"axis": axis, "block_size": block}
    expected = quantized(x, scale, zero, axis, block)
    back = refined(expected, scale, zero, axis, block)
    for threads in (1, 4):
        found = Case("QuantizeLinear", x, scale, zero, opset=21, **attributes).run(threads=threads)[0]
        np.testing.assert_array_equal(found, expected)
        found = Case("DequantizeLinear", expected, scale, zero, opset=21, **attributes).run(threads=threads)[0]
        np.testing.assert_array_equal(found, back)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((300001,), None), ((3, 5, 40001), 1), ((600, 701), 1), ((701, 600), 0), ((40001, 7), 1)]
)
def test_threads_do_not_matter(shape: tuple[int, ...], axis: int | None, dtype: str) -> None:
    x = (4 * draw(0, *shape)).astype(dtype)
    size = () if axis is None else (shape[axis],)
    scale, zero = scales(1, *size, dtype=dtype), codes(2, "uint8", *size)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    expected = quantized(x, scale, zero, axis or 0)
    back = refined(expected, scale.astype(np.float32), zero, axis or 0).astype(dtype)
    for threads in (1, 4):
        found = Case("QuantizeLinear", x, scale, zero, opset=19, **attributes).run(threads=threads)[0]
        np.testing.assert_array_equal(found, expected)
        found = Case("DequantizeLinear", expected, scale, zero, opset=19, **attributes).run(threads=threads)[0]
        np.testing.assert_array_equal(found, back)


def test_rows_do_not_depend_on_the_batch() -> None:
    x, scale, zero = draw(0, 9, 37), scales(1, 37), codes(2, "int8", 37)
    y = quantized(x, scale, zero)
    for op, rows, expected in [("QuantizeLinear", x, y), ("DequantizeLinear", y, refined(y, scale, zero, 1))]:
        loaded = Case(op, rows, scale, zero, opset=13, constant=(1, 2), free_batch=True).load()
        for taken in ([0], [4, 2], [8], list(range(9))):
            assert loaded.run({"x0": rows[taken]})["y0"].tobytes() == expected[taken].tobytes()


@pytest.mark.parametrize("code", ["uint8", "int8"])
@pytest.mark.parametrize("per_axis", [False, True])
def test_numbers_without_a_byte_of_their_own(code: str, per_axis: bool) -> None:
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 2.5], np.float32), (3, 5))
    info, size = np.iinfo(code), (40,) if per_axis else ()
    scale, zero = np.full(size, 0.5, np.float32), np.full(size, 7, code)
    found = Case("QuantizeLinear", x, scale, zero, opset=13).run()[0]
    expected = [info.min, info.max, info.min, info.max, info.min, 7, 7, 12]
    np.testing.assert_array_equal(found, np.tile(np.array(expected, code), (3, 5)))


def test_without_a_zero_point() -> None:
    x, scale = draw(0, 3, 4), scales(1)
    zero = np.zeros((), np.uint8)
    np.testing.assert_array_equal(Case("QuantizeLinear", x, scale, opset=13).run()[0], quantized(x, scale, zero))
    y = codes(2, "int8", 3, 4)
    close(Case("DequantizeLinear", y, scale, opset=10).run()[0], dequantized(y, scale, zero))
    named = Case("QuantizeLinear", x, scale, opset=21, output_dtype=TensorProto.INT16)
    np.testing.assert_array_equal(named.run()[0], quantized(x, scale, np.zeros((), np.int16)))


def test_dequantize_int32() -> None:
    x, scale = codes(0, "int32", 4, 5), scales(1, 5)
    case = Case("DequantizeLinear", x, scale, opset=13, axis=1)
    close(case.run()[0], dequantized(x, scale, np.zeros((), np.int32)), 1e-6)


def test_halves_are_even_and_the_ends_saturate() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf], np.float32)
    found = Case("QuantizeLinear", x, np.array(1, np.float32), np.array(1, np.int8), opset=13).run()[0]
    np.testing.assert_array_equal(found, [1, 3, 3, 1, -1, 127, -128, 127, -128])


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 50), (0, 4)])
@pytest.mark.parametrize("kind", ["both", "positive", "negative", "zero"])
def test_dynamic(shape: tuple[int, ...], kind: str) -> None:
    x = draw(3, *shape)
    x = {"both": x, "positive": np.abs(x), "negative": -np.abs(x), "zero": 0 * x}[kind]
    case = Case("DynamicQuantizeLinear", x, outputs=3, opset=11)
    y, scale, zero = case.run()
    low, high = min(0, x.min(initial=0)), max(0, x.max(initial=0))
    if low != high:
        close(scale, np.array((high - low) / 255))
        assert abs(int(zero) + low / scale) <= 0.5001
    assert y.dtype == zero.dtype == np.uint8
    np.testing.assert_array_equal(y, quantized(x, scale, zero))
    if x.size:
        for found, expected in zip(case.run(), case.onnxruntime(), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 4])
def test_dynamic_over_threads_and_around_nan(threads: int) -> None:
    x = draw(3, 300001)
    x[[7, 150000, 300000]] = np.nan
    x[[5, 200001]] = [-40, 50]
    y, scale, zero = Case("DynamicQuantizeLinear", x, outputs=3, opset=11).run(threads=threads)
    assert scale == np.float32(90) / np.float32(255)
    assert zero == np.rint(np.float32(40) / scale)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(y[number], quantized(x[number], scale, zero))
    assert not y[~number].any()


MATRICES = [
    ((3, 4), (4, 5)),
    ((1, 33), (33, 17)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((3, 1, 2, 4), (2, 4, 3)),
    ((4,), (4, 3)),
    ((3, 4), (4,)),
]


@pytest.mark.parametrize("a_type", ["uint8", "int8"])
@pytest.mark.parametrize("b_type", ["uint8", "int8"])
@pytest.mark.parametrize(("a_shape", "b_shape"), MATRICES)
def test_matmul_integer(a_type: str, b_type: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    a, b = codes(0, a_type, *a_shape), codes(1, b_type, *b_shape)
    plain = np.matmul(a.astype(np.int32), b.astype(np.int32))
    np.testing.assert_array_equal(Case("MatMulInteger", a, b, opset=10).run()[0], plain)
    for size in [(), (1,)]:
        az, bz = codes(2, a_type, *size), codes(3, b_type, *size)
        expected = np.matmul(a.astype(np.int32) - az.astype(np.int32), b.astype(np.int32) - bz.astype(np.int32))
        case = Case("MatMulInteger", a, b, az, bz, opset=10)
        np.testing.assert_array_equal(case.run()[0], expected)
        saturates = PEER_SATURATES and b_type == "int8"
        if not saturates and not (a_type == "int8" and b_type == "uint8") and min(len(a_shape), len(b_shape)) > 1:
            np.testing.assert_array_equal(case.onnxruntime()[0], expected)


def test_matmul_integer_with_a_zero_point_per_row_and_column() -> None:
    a, b, az, bz = codes(0, "uint8", 5, 9), codes(1, "int8", 9, 4), codes(2, "uint8", 5), codes(3, "int8", 4)
    expected = (a.astype(np.int32) - az[:, None]) @ (b.astype(np.int32) - bz)
    np.testing.assert_array_equal(Case("MatMulInteger", a, b, az, bz, opset=10).run()[0], expected)
    case = Case("MatMulInteger", a, b, None, bz, opset=10)
    np.testing.assert_array_equal(case.run()[0], a.astype(np.int32) @ (b.astype(np.int32) - bz))


@pytest.mark.parametrize("a_type", ["uint8", "int8"])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("a_shape", "b_shape"), [s for s in MATRICES if len(s[0]) > 1 < len(s[1])])
def test_qlinear_matmul(a_type: str, per_column: bool, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    size = (b_shape[-1],) if per_column else ()
    a, b = codes(0, a_type, *a_shape), codes(1, "int8", *b_shape)
    az, bz, yz = codes(2, a_type), codes(3, "int8", *size), np.array(7, a_type)
    a_scale, b_scale, y_scale = scales(4), scales(5, *size), np.array(1.5, np.float32)
    case = Case("QLinearMatMul", a, a_scale, az, b, b_scale, bz, y_scale, yz, opset=10)
    exact = np.matmul(a.astype(np.int64) - int(az), b.astype(np.int64) - bz.astype(np.int64))
    info = np.iinfo(a_type)
    expected = np.clip(np.rint(exact * (a_scale * b_scale / y_scale)) + 7, info.min, info.max)
    found = case.run()[0]
    assert found.dtype == np.dtype(a_type)
    np.testing.assert_array_equal(found, expected)
    if len(b_shape) == 2 and not PEER_SATURATES:
        np.testing.assert_array_equal(found, case.onnxruntime()[0])


@pytest.mark.parametrize(
    ("left", "right", "result", "code"),
    [(1e-20, 1e-20, 1e-36, 200), (2e-19, 1e-20, 1e-35, 200), (2e19, 2e19, 3e38, 3)],
)
def test_scales_whose_product_is_no_float_by_itself(left: float, right: float, result: float, code: int) -> None:
    a, b, zero = np.full((1, 64), code, np.uint8), np.full((64, 2), 1, np.uint8), np.uint8(0)
    scale = [np.float32(v) for v in (left, right, result)]
    exact = 64 * code * (float(scale[0]) * float(scale[1]) / float(scale[2]))
    case = Case("QLinearMatMul", a, scale[0], zero, b, scale[1], zero, scale[2], zero, opset=10)
    np.testing.assert_array_equal(case.run()[0], np.full((1, 2), min(round(exact), 255)))
    # Beside one whose product is a float: each column has its own scale, and each row.
    columns, rows = np.array([scale[1], np.float32(1)]), np.array([scale[0]] * 3)
    a, none = np.repeat(a, 3, axis=0), np.zeros(2, np.uint8)
    for left_scale, left_zero in ((scale[0], zero), (rows, np.zeros(3, np.uint8))):
        case = Case("QLinearMatMul", a, left_scale, left_zero, b, columns, none, scale[2], zero, opset=10)
        beside = min(round(64 * code * float(scale[0]) / float(scale[2])), 255)
        np.testing.assert_array_equal(case.run()[0], np.array([[min(round(exact), 255), beside]] * 3))


def requantized(exact: Array, left: Array, right: Array, scale: Array, zero: Array) -> Array:
    """To the bit: float32, the scales multiplied in this order."""
    factor = (left * right / scale).astype(np.float32)
    info = np.iinfo(zero.dtype)
    whole = np.rint(exact.astype(np.float32) * factor) + np.float32(zero)
    y: Array = np.clip(whole, info.min, info.max).astype(zero.dtype)
    return y


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(5, 1), (1, 33), (7, 300), (600, 519)])
def test_requantized_products(rows: int, columns: int, per_row: bool, per_column: bool, threads: int) -> None:
    a, b = codes(0, "uint8", rows, 6), codes(1, "int8", 6, columns)
    a_size, b_size = (rows,) if per_row else (), (columns,) if per_column else ()
    az, bz, yz = codes(2, "uint8", *a_size), codes(3, "int8", *b_size), np.array(7, "uint8")
    a_scale, b_scale, y_scale = scales(4, *a_size), scales(5, *b_size), np.array(1.5, np.float32)
    exact = (a.astype(np.int64) - az.reshape(-1, 1)) @ (b.astype(np.int64) - bz)
    case = Case("QLinearMatMul", a, a_scale, az, b, b_scale, bz, y_scale, yz, opset=10)
    expected = requantized(exact, a_scale.reshape(-1, 1), b_scale, y_scale, yz)
    np.testing.assert_array_equal(case.run(threads=threads)[0], expected)


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 8, 9), (4, 3, 3, 3), {}),
    ((1, 3, 8, 9), (4, 3, 3, 2), {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    ((2, 4, 7, 7), (6, 2, 3, 3), {"group": 2, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ((1, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((2, 3, 12), (5, 3, 4), {"strides": [3], "pads": [2, 1]}),
    ((2, 6, 19, 21), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    ((1, 3, 9, 40), (6, 1, 5, 5), {"group": 3, "pads": [2, 2, 2, 2], "strides": [1, 2]}),
    ((2, 3, 37), (3, 1, 11), {"group": 3, "dilations": [2]}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"pads": [1, 1, 1, 0, 0, 0]}),
]


def exact_convolution(x: Array, w: Array, xz: Array, wz: Array, attributes: dict[str, Any]) -> Array:
    """Through our float64 Conv, which is exact on these numbers and tested on its own."""
    x64 = x.astype(np.float64) - float(xz)
    w64 = w.astype(np.float64) - spread(wz.astype(np.float64), w, 0)
    return np.rint(Case("Conv", x64, w64, **attributes).run()[0])


@pytest.mark.parametrize(("x_shape", "w_shape", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("w_type", ["uint8", "int8"])
def test_conv_integer(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], attributes: dict[str, Any], w_type: str
) -> None:
    x, w = codes(0, "uint8", *x_shape), codes(1, w_type, *w_shape)
    xz, wz = codes(2, "uint8"), codes(3, w_type)
    case = Case("ConvInteger", x, w, xz, wz, opset=10, **attributes)
    expected = exact_convolution(x, w, xz, wz, attributes)
    assert case.run()[0].dtype == np.int32
    np.testing.assert_array_equal(case.run()[0], expected)
    if w_type == "uint8":
        np.testing.assert_array_equal(case.onnxruntime()[0], expected)
    plain = Case("ConvInteger", x, w, opset=10, **attributes)
    zero = np.zeros((), np.uint8)
    np.testing.assert_array_equal(plain.run()[0], exact_convolution(x, w, zero, zero, attributes))


@pytest.mark.parametrize(("x_shape", "w_shape", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("per_filter", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], attributes: dict[str, Any], per_filter: bool, bias: bool
) -> None:
    size = (w_shape[0],) if per_filter else ()
    x, w = codes(0, "uint8", *x_shape), codes(1, "int8", *w_shape)
    xz, wz, yz = codes(2, "uint8"), np.zeros(size, np.int8), np.array(100, np.uint8)
    x_scale, w_scale, y_scale = scales(4), scales(5, *size), np.array(2, np.float32)
    b = np.random.default_rng(6).integers(-5000, 5000, w_shape[0]).astype(np.int32) if bias else None
    case = Case("QLinearConv", x, x_scale, xz, w, w_scale, wz, y_scale, yz, b, opset=10, **attributes)
    exact = exact_convolution(x, w, xz, wz, attributes)
    if b is not None:
        exact += spread(b, exact, 1)
    multiplier = spread((x_scale * w_scale / y_scale).reshape(size), exact, 1)
    expected = np.clip(np.rint(exact * multiplier) + 100, 0, 255)
    np.testing.assert_array_equal(case.run()[0], expected)
    if not PEER_SATURATES:
        np.testing.assert_array_equal(case.run()[0], case.onnxruntime()[0])


@pytest.mark.parametrize("per_filter", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_large_qlinear_conv(per_filter: bool, bias: bool, threads: int) -> None:
    x, w = codes(0, "uint8", 2, 2, 251, 199), codes(1, "int8", 3, 2, 1, 1)
    size = (3,) if per_filter else ()
    xz, wz, yz = codes(2, "uint8"), np.zeros(size, np.int8), np.array(100, np.uint8)
    x_scale, w_scale, y_scale = scales(4), scales(5, *size), np.array(2, np.float32)
    b = np.array([-5000, 3, 4000], np.int32) if bias else None
    exact = np.einsum("nchw,fc->nfhw", x.astype(np.int64) - int(xz), w[:, :, 0, 0].astype(np.int64))
    if b is not None:
        exact += b.reshape(-1, 1, 1)
    expected = requantized(exact, x_scale, spread(w_scale, exact, 1), y_scale, yz)
    case = Case("QLinearConv", x, x_scale, xz, w, w_scale, wz, y_scale, yz, b, opset=10)
    np.testing.assert_array_equal(case.run(threads=threads)[0], expected)


def test_integer_products_do_not_depend_on_the_batch() -> None:
    a, b, zero = codes(0, "uint8", 9, 40), codes(1, "int8", 40, 21), codes(2, "uint8")
    case = Case("MatMulInteger", a, b, zero, opset=10, constant=(1, 2), free_batch=True)
    loaded, whole = case.load(), case.run()[0]
    for rows in ([0], [4, 2], [8]):
        assert loaded.run({"x0": a[rows]})["y0"].tobytes() == whole[rows].tobytes()


def test_refusals() -> None:
    x = draw(0, 3, 4)

    def load(op: str, *inputs: Array | None, dtype: str = "uint8", **keywords: Any) -> None:
        inferkit.Model.load(Case(op, *inputs, **keywords).bytes_with_output(dtype, (3, 4)))

    with pytest.raises(inferkit.ModelError, match="one for each of the 4 indices of axis 1"):
        load("QuantizeLinear", x, scales(1, 3), opset=13)
    with pytest.raises(inferkit.ModelError, match="must be a scalar before opset 13"):
        load("QuantizeLinear", x, scales(1, 4), opset=10)
    with pytest.raises(inferkit.ModelError, match="the zero point has shape"):
        load("QuantizeLinear", x, scales(1, 4), np.zeros((), np.uint8), opset=13)
    with pytest.raises(inferkit.ModelError, match="blocks of 3 need scales"):
        load("QuantizeLinear", x, scales(1, 3, 4), opset=21, block_size=3)
    with pytest.raises(inferkit.UnsupportedOpError, match="element type 15"):
        load("QuantizeLinear", x, scales(1), opset=21, output_dtype=TensorProto.COMPLEX128)
    with pytest.raises(inferkit.UnsupportedOpError, match="quantizing to float8_e8m0fnu"):
        load("QuantizeLinear", x, scales(1), opset=24, output_dtype=TensorProto.FLOAT8E8M0)


NODE_TESTS = node_test_cases(
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
)


@pytest.mark.parametrize("case", NODE_TESTS, ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)


def test_every_operator_has_node_tests() -> None:
    assert len({onnx.ModelProto.FromString(c.model.SerializeToString()).graph.node[0].op_type for c in NODE_TESTS}) == 7
