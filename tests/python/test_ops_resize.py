"""Resize and Upsample against onnx's reference evaluator, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Array, Case, check_node_test, close, node_test_cases

import inferkit
from conformance.scope import DIFFERS

COORDINATES = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "half_pixel_symmetric",
]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


#: Where the reference computes with the length before it is rounded; it reads the one pixel of pytorch_half_pixel at
#: -0.5, too, which the text does not.
BY_LENGTH = {"align_corners", "pytorch_half_pixel", "tf_crop_and_resize"}


def has_whole_place(shape: list[int], scales: np.ndarray) -> bool:
    """Whether half_pixel_symmetric reads at an element, or in the middle of two.

    There the reference's noise decides which neighbour is nearest, and its linear mode takes the one before: of 7
    elements at half the size, at 1, 3 and 5, it gives the first from 0.
    """
    for n, scale in zip(shape, scales.tolist(), strict=True):
        out = int(n * scale)
        places = n / 2 * (1 - out / (n * scale)) + (np.arange(out) + 0.5) / scale - 0.5
        if np.any(np.abs(2 * places - np.round(2 * places)) < 1e-4) and out != n * scale:
            return True
    return False


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_against_the_reference(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    shape = [data.draw(st.integers(1, 7)) for _ in range(rank)]
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": data.draw(st.sampled_from(COORDINATES)),
        "nearest_mode": data.draw(st.sampled_from(NEAREST)),
        "antialias": data.draw(st.integers(0, 1)) if mode != "nearest" else 0,
        "exclude_outside": data.draw(st.integers(0, 1)) if mode == "cubic" else 0,
        "extrapolation_value": 10.0,
    }
    x = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    roi = None
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        begin = [data.draw(st.sampled_from([-0.25, 0.0, 0.125])) for _ in shape]
        roi = np.array([*begin, *(b + data.draw(st.sampled_from([0.5, 1.0])) for b in begin)], np.float32)
    choices = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0]
    scales = np.array([data.draw(st.sampled_from([s for s in choices if s * n >= 1])) for n in shape], np.float32)
    symmetric = attributes["coordinate_transformation_mode"] == "half_pixel_symmetric"
    by_length = attributes["coordinate_transformation_mode"] in BY_LENGTH
    least = 2 if attributes["coordinate_transformation_mode"] == "pytorch_half_pixel" else 1
    lengths = [n * scale for n, scale in zip(shape, scales.tolist(), strict=True)]
    differs = by_length and any(length % 1 or length < least for length in lengths)
    if (symmetric and has_whole_place(shape, scales)) or differs or data.draw(st.booleans()):
        sizes = np.array([data.draw(st.integers(least, 12)) for _ in shape], np.int64)
        case = Case("Resize", x, roi, None, sizes, constant=(1, 3), opset=19, **attributes)
    else:
        case = Case("Resize", x, roi, scales, constant=(1, 2), opset=19, **attributes)
    close(case.run()[0], case.reference()[0], 1e-4, 1e-4)


def test_half_pixel_symmetric_at_whole_places() -> None:
    """Centre 3.5, adjusted by 3 / 3.5: the places are 1, 3 and 5."""
    x = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    case = Case("Resize", x, None, np.array([0.5], np.float32), constant=(2,), opset=19, **attributes)
    close(case.run()[0], x[[1, 3, 5]], 1e-6, 1e-6)


@pytest.mark.parametrize("scale", [1.0, 1.1, 1.15])
def test_antialias_by_a_scale_that_keeps_the_length(scale: float) -> None:
    """The text's formula, in float64; without antialias the axis is copied, as in torch."""
    x = (np.arange(5.0) ** 2).astype(np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    scales = np.array([scale], np.float32)
    filtered = Case("Resize", x, None, scales, constant=(2,), opset=19, antialias=1, **attributes)
    want = np.interp((np.arange(5) + 0.5) / scale - 0.5, np.arange(5), x)
    close(filtered.run()[0], want.astype(np.float32), 1e-6, 1e-6)
    plain = Case("Resize", x, None, scales, constant=(2,), opset=19, **attributes)
    np.testing.assert_array_equal(plain.run()[0], x)
    sizes = np.array([5], np.int64)
    by_sizes = Case("Resize", x, None, None, sizes, constant=(3,), opset=19, antialias=1, **attributes)
    np.testing.assert_array_equal(by_sizes.run()[0], x)


@pytest.mark.parametrize("antialias", [0, 1])
def test_one_pixel_of_pytorch_half_pixel_is_read_at_zero(antialias: int) -> None:
    x = (np.arange(7.0) ** 2).astype(np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel", "antialias": antialias}
    case = Case("Resize", x, None, np.array([0.2], np.float32), constant=(2,), opset=19, **attributes)
    at = np.clip(np.arange(-6, 7), 0, 6)
    weights = np.maximum(0, 1 - np.abs(np.arange(-6, 7)) * (0.2 if antialias else 1))
    want = np.float32([weights @ x[at] / weights.sum()])
    close(case.run()[0], want, 1e-6, 1e-6)
    scales = np.array([1, 1, 1, 0.2], np.float32)
    four = Case("Resize", x[None, None, None], None, scales, constant=(2,), opset=19, **attributes)
    close(four.run()[0].ravel(), four.onnxruntime()[0].ravel(), 1e-5, 1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("scale", [(2, 2), (2, 3), (4, 1), (0.5, 0.5)])
def test_images_against_onnxruntime(mode: str, coordinates: str, scale: tuple[float, float]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 10, 18)).astype(np.float32)
    scales = np.array([1, 1, *scale], np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": "floor"}
    for opset in (11, 13, 18):
        roi = np.zeros(0, np.float32) if opset == 11 else None  # not optional then
        case = Case("Resize", x, roi, scales, constant=(1, 2), opset=opset, **attributes)
        close(case.run()[0], case.onnxruntime()[0], 1e-5, 1e-5)


@pytest.mark.parametrize("op", ["Upsample", "Resize"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_forms_before_opset_11(op: str, mode: str) -> None:
    x = np.random.default_rng(2).standard_normal((1, 2, 5, 6)).astype(np.float32)
    scales = np.array([1, 1, 2, 3], np.float32)
    case = Case(op, x, scales, constant=(1,), opset=9 if op == "Upsample" else 10, mode=mode)
    close(case.run()[0], case.onnxruntime()[0], 1e-5, 1e-5)
    if op == "Upsample":
        old = Case(op, x, opset=7, mode=mode, scales=[1.0, 1.0, 2.0, 3.0])
        np.testing.assert_array_equal(old.run()[0], case.run()[0])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_nearest_moves_any_type(dtype: str) -> None:
    x = np.random.default_rng(3).integers(0, 2, (2, 3, 4)).astype(dtype)
    scales = np.array([1, 2, 2], np.float32)
    case = Case("Resize", x, None, scales, constant=(2,), coordinate_transformation_mode="asymmetric")
    np.testing.assert_array_equal(case.run()[0], x.repeat(2, 1).repeat(2, 2))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_nearest_of_whole_factors(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16", "uint8", "int64", "bool"]))
    rank = data.draw(st.integers(1, 4))
    shape = [data.draw(st.integers(1, 40 if i + 1 == rank else 6)) for i in range(rank)]
    factors = [data.draw(st.integers(1, 5)) for _ in range(rank)]
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 200, shape).astype(dtype)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    case = Case("Resize", x, None, np.array(factors, np.float32), constant=(2,), opset=19, **attributes)
    expected = x
    for axis, factor in enumerate(factors):
        expected = expected.repeat(factor, axis)
    found = case.run()[0]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)])
def test_nearest_of_nothing(shape: tuple[int, ...]) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    case = Case("Resize", np.zeros(shape, np.float32), None, scales, constant=(2,), opset=19, mode="nearest")
    assert case.run()[0].shape == (shape[0], 2, 2 * shape[2], 2 * shape[3])


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("factors", [(1, 1, 2, 2), (1, 1, 3, 1.5), (2, 1, 4, 3)])
def test_nearest_on_several_threads(factors: tuple[float, ...], dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 200, (2, 16, 37, 61)).astype(dtype)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    case = Case("Resize", x, None, np.array(factors, np.float32), constant=(2,), opset=19, **attributes)
    one, many = (case.load(threads=threads).run(case.inputs)["y0"] for threads in (1, 4))
    np.testing.assert_array_equal(one, many)
    np.testing.assert_array_equal(one, case.onnxruntime()[0])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_other_floats(dtype: str, mode: str) -> None:
    x = np.random.default_rng(4).standard_normal((2, 6, 7)).astype(dtype)
    sizes = np.array([2, 9, 5], np.int64)
    found = Case("Resize", x, None, None, sizes, constant=(3,), mode=mode).run()[0]
    expected = Case("Resize", x.astype(np.float64), None, None, sizes, constant=(3,), mode=mode).reference()[0]
    assert found.dtype == x.dtype
    tolerance = 1e-5 if dtype == "float64" else 2e-3  # the reference rounds scales to float32
    close(found, expected, tolerance, tolerance)


def exact_lines(x: list[Fraction], out: int, cubic: bool) -> list[Fraction]:
    """One axis by the definition of half_pixel, in fractions."""

    def weight(d: Fraction) -> Fraction:
        d, a = abs(d), Fraction(-3, 4)
        if not cubic:
            return max(Fraction(0), 1 - d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else Fraction(0)

    lines = []
    for o in range(out):
        place = (o + Fraction(1, 2)) * Fraction(len(x), out) - Fraction(1, 2)
        near = range(math.floor(place) - 2, math.floor(place) + 4)
        lines.append(sum((weight(place - i) * x[min(max(i, 0), len(x) - 1)] for i in near), Fraction(0)))
    return lines


@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32"]),
    cubic=st.booleans(),
    out=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_integers_are_cut_off_after_exact_arithmetic(
    dtype: str, cubic: bool, out: tuple[int, int], data: st.DataObject
) -> None:
    info = np.iinfo(dtype)
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    values = st.one_of(st.integers(int(info.min), int(info.max)), st.sampled_from([int(info.min), int(info.max)]))
    x = np.array([[data.draw(values) for _ in range(shape[1])] for _ in range(shape[0])], dtype)
    rows = [exact_lines([Fraction(v) for v in row], out[1], cubic) for row in x.tolist()]
    columns = [exact_lines([row[j] for row in rows], out[0], cubic) for j in range(out[1])]
    expected = [[min(max(math.trunc(columns[j][i]), info.min), info.max) for j in range(out[1])] for i in range(out[0])]
    mode = "cubic" if cubic else "linear"
    found = Case("Resize", x, None, None, np.array(out, np.int64), constant=(3,), mode=mode).run()[0]
    assert found.dtype == x.dtype
    if info.bits <= 16:
        assert found.tolist() == expected
    else:  # the weights' own rounding may reach the next number
        assert np.abs(found.astype(np.int64) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_an_image_of_one_number_stays_so(dtype: str, mode: str) -> None:
    info = np.iinfo(dtype)
    for value in (info.max - 2, info.min + 2, 1):
        for n, out in ((3, 7), (5, 13), (7, 3), (10, 29), (13, 11)):
            sizes = np.array([out, out], np.int64)
            found = Case("Resize", np.full((n, n), value, dtype), None, None, sizes, constant=(3,), mode=mode).run()[0]
            assert (found == value).all(), (value, n, out)


def test_bytes_against_onnxruntime() -> None:
    x = np.random.default_rng(8).integers(0, 256, (1, 3, 16, 20)).astype(np.uint8)
    scales = np.array([1, 1, 2, 2], np.float32)
    case = Case("Resize", x, None, scales, constant=(2,), mode="linear")
    np.testing.assert_array_equal(case.run()[0], case.onnxruntime()[0])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_bytes_outside_of_the_image(mode: str) -> None:
    x = np.full((1, 1, 4, 4), 7, np.uint8)
    roi = np.array([0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5], np.float32)
    case = Case(
        "Resize",
        x,
        roi,
        None,
        np.array([1, 1, 4, 4], np.int64),
        constant=(1, 3),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=300.0,
    )
    inside = np.pad(np.full((1, 1, 2, 2), 7, np.uint8), [(0, 0), (0, 0), (0, 2), (0, 2)], constant_values=255)
    np.testing.assert_array_equal(case.run()[0], inside)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_the_same_bits_in_any_batch_and_on_any_threads(mode: str) -> None:
    x = np.random.default_rng(5).standard_normal((5, 8, 33, 40)).astype(np.float32)
    scales = np.array([1, 1, 2, 2], np.float32)
    case = Case("Resize", x, None, scales, constant=(2,), mode=mode, free_batch=True)
    model, threaded = case.load(threads=1), case.load(threads=4)
    together = model.run({"x0": x})["y0"]
    assert together.tobytes() == threaded.run({"x0": x})["y0"].tobytes()
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


def test_refused_and_malformed() -> None:
    x, scales = np.ones((1, 1, 4, 4), np.float32), np.array([1, 1, 2, 2], np.float32)
    out = (1, 1, 8, 8)
    integers = Case("Resize", x.astype(np.int64), None, scales, constant=(2,), mode="linear")
    both = Case("Resize", x, None, scales, np.array(out), constant=(2, 3))
    short = Case("Resize", x, None, scales[:3], constant=(2,))
    for case, error in (
        (integers, inferkit.UnsupportedOpError),
        (both, inferkit.ModelError),
        (short, inferkit.ModelError),
    ):
        data = case.bytes_with_output(str(case.inputs["x0"].dtype), out)
        with pytest.raises(error):
            inferkit.Model.load(data)


@pytest.mark.parametrize("case", node_test_cases("Resize", "Upsample"), ids=lambda c: c.name)
def test_onnx_node(case: Any) -> None:
    if case.name not in DIFFERS:  # test_align_corners_reach_the_corners has the answers to those
        check_node_test(case)


# ---- What torch means: values from torch 2.13 (F.interpolate), by decision 024 --------------------------------------


def nearest(n: int, scale: float, rank: int = 3) -> Array:
    """The pixels that torch's mode "nearest" takes, as its exporters write it."""
    x = np.arange(n, dtype=np.float32).reshape([1] * (rank - 1) + [n])
    scales = np.array([1] * (rank - 1) + [scale], np.float32)
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return Case("Resize", x, None, scales, constant=(2,), opset=19, **attributes).run()[0].astype(int).ravel()


@pytest.mark.parametrize(
    ("scale", "lengths"),
    [
        (1.3, {10: 13, 20: 26, 30: 39, 80: 104, 90: 117}),
        (1.4, {5: 7, 10: 14, 45: 62, 85: 118}),
        (0.7, {10: 7, 90: 62, 30: 21}),
        (0.9, {10: 9, 20: 18, 70: 63}),
        (1.8, {5: 9, 15: 27, 35: 63}),
        (1.05, {60: 63, 100: 105, 480: 504}),
        (2.3, {10: 23, 50: 114, 100: 229}),
        (1 / 3, {3: 1, 6: 2, 30: 10, 96: 32}),
        (224 / 300, {300: 224, 299: 223}),
        (640 / 427, {427: 640, 640: 959}),
        (0.5, {7: 3, 8: 4}),
        (2.0, {7: 14}),
    ],
)
def test_lengths_are_those_of_torch(scale: float, lengths: dict[int, int]) -> None:
    assert {n: len(nearest(n, scale)) for n in lengths} == lengths


def test_nearest_pixels_are_those_of_torch() -> None:
    assert nearest(4, 1.1, rank=4).tolist() == [0, 1, 2, 3]  # torch copies an axis of an image whose length stays
    assert nearest(4, 1.1, rank=3).tolist() == nearest(4, 1.1, rank=5).tolist() == [0, 0, 1, 2]  # and no other
    assert nearest(3, 2.2, rank=4).tolist() == [0, 0, 1, 1, 2, 2]  # and doubles one that becomes twice as long
    assert nearest(3, 2.2, rank=3).tolist() == nearest(3, 2.2, rank=5).tolist() == [0, 0, 0, 1, 1, 2]
    assert nearest(10, 0.6).tolist() == [0, 1, 3, 5, 6, 8]
    assert nearest(7, 1.3).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6]
    assert nearest(5, 1.4).tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert nearest(21, 1 / 7).tolist() == [0, 7, 14]
    assert nearest(3, 7 / 3).tolist() == [0, 0, 0, 1, 1, 2, 2]


@given(over=st.integers(1, 400), under=st.integers(1, 400), n=st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_a_scale_is_the_fraction_that_it_was_rounded_from(over: int, under: int, n: int) -> None:
    scale = over / under
    length = math.floor(n * scale)
    if 1 <= length <= 1000:
        found = nearest(n, scale)
        places = np.arange(length, dtype=np.float32) * np.float32(under / over)
        assert found.tolist() == np.minimum(np.floor(places), n - 1).tolist()


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_align_corners_reach_the_corners(mode: str) -> None:
    """The onnx package's own test of this stops at 3.14 (see DIFFERS); torch and ONNX Runtime end at 4."""
    x, scales = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 4), np.array([1, 1, 0.6, 0.6], np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": "align_corners"}
    case = Case("Resize", x, None, scales, constant=(2,), opset=19, **attributes)
    close(case.run()[0], np.array([[[[1, 4]]]], np.float32))
    close(case.onnxruntime()[0], np.array([[[[1, 4]]]], np.float32))


def test_a_single_pixel_of_pytorch_half_pixel_is_the_first() -> None:
    x, sizes = np.arange(1, 5, dtype=np.float32), np.array([1], np.int64)
    for mode in ("nearest", "linear", "cubic"):
        attributes = {"mode": mode, "coordinate_transformation_mode": "pytorch_half_pixel"}
        assert Case("Resize", x, None, None, sizes, constant=(3,), opset=19, **attributes).run()[0].tolist() == [1]


def test_a_linear_axis_whose_length_stays_is_copied() -> None:
    x, scales = np.array([3, 1, 4, 1, 5], np.float32), np.array([1.1], np.float32)
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        attributes = {"mode": "linear", "coordinate_transformation_mode": coordinates}
        case = Case("Resize", x, None, scales, constant=(2,), opset=19, **attributes)
        np.testing.assert_array_equal(case.run()[0], x)
