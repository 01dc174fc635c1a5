"""GridSample, AffineGrid, RoiAlign, MaxRoiPool, DeformConv, Col2Im, CenterCropPad, MaxUnpool and Det against numpy,
ONNX Runtime, onnx's reference evaluator and its own node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import LENIENT, TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

RNG = np.random.default_rng(3)


def draw(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


# ---- GridSample and AffineGrid --------------------------------------------------------------------------------------

MODES = ["nearest", "linear", "cubic"]
BORDERS = ["zeros", "border", "reflection"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("opset", [16, 20])
def test_grid_sample(mode: str, border: str, align: int, opset: int) -> None:
    if opset == 16:
        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    x, grid = draw(2, 3, 5, 7), (1.5 * draw(2, 4, 6, 2)).astype(np.float32)
    case = Case("GridSample", x, grid, opset=opset, mode=mode, padding_mode=border, align_corners=align)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample_in_three_dimensions(mode: str, border: str, align: int) -> None:
    x, grid = draw(2, 2, 3, 4, 5), (1.5 * draw(2, 3, 2, 4, 3)).astype(np.float32)
    case = Case("GridSample", x, grid, opset=20, mode=mode, padding_mode=border, align_corners=align)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_grid_sample_types(dtype: str, mode: str) -> None:
    x, grid = draw(1, 2, 5, 6, dtype=dtype), RNG.uniform(-0.9, 0.9, (1, 3, 4, 2)).astype(dtype)
    case = Case("GridSample", x, grid, opset=20, mode=mode)
    exact = Case("GridSample", x.astype(np.float64), grid.astype(np.float64), opset=20, mode=mode)
    rtol, atol = TOLERANCE[dtype]
    if mode != "nearest" or dtype == "float64":
        close(case.run()[0], exact.reference()[0].astype(np.float64), 10 * rtol, max(5 * atol, 1e-5))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample_of_onnxruntime_s_own_domain(mode: str, border: str, align: int) -> None:
    x, grid = draw(2, 3, 5, 7), (1.5 * draw(2, 4, 6, 2)).astype(np.float32)
    options: dict[str, Any] = {"mode": mode, "padding_mode": border, "align_corners": align}
    case = Case("GridSample", x, grid, domain="com.microsoft", **options)
    case.bytes = case.bytes_with_output("float32", (2, 3, 4, 6))
    found = case.run()[0]
    close(found, case.onnxruntime()[0], 1e-4, 1e-5)
    assert found.tobytes() == Case("GridSample", x, grid, opset=16, **options).run()[0].tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_types_of_onnxruntime_s_own_grid_sample(dtype: str) -> None:
    x, grid = draw(1, 2, 5, 6, dtype=dtype), RNG.uniform(-0.9, 0.9, (1, 3, 4, 2)).astype(dtype)
    case = Case("GridSample", x, grid, domain="com.microsoft")
    case.bytes = case.bytes_with_output(dtype, (1, 2, 3, 4))
    exact = Case("GridSample", x.astype(np.float64), grid.astype(np.float64), opset=16).reference()[0]
    rtol, atol = TOLERANCE[dtype]
    close(case.run()[0], exact.astype(np.float64), 10 * rtol, max(5 * atol, 1e-5))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("mode", MODES)
def test_points_that_are_no_numbers(border: str, mode: str) -> None:
    grid = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9], np.float32).repeat(2).reshape(1, 1, 6, 2)
    x = draw(1, 1, 4, 4)
    y = Case("GridSample", x, grid, opset=20, mode=mode, padding_mode=border).run()[0]
    assert np.isfinite(y).all()
    if border == "zeros":
        assert not y.any()


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 5, 7), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_affine_grid(align: int, size: tuple[int, ...], dtype: str) -> None:
    d = len(size) - 2
    theta = draw(2, d, d + 1, dtype=dtype)
    case = Case("AffineGrid", theta, np.array(size), opset=20, constant=(1,), align_corners=align)
    axes = [
        np.linspace(-1, 1, n) if align else (2 * np.arange(n) + 1) / n - 1
        for n in size[2:]
    ]  # fmt: skip
    mesh = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(size[2:])], -1)
    expected = np.einsum("brc,...c->b...r", theta.astype(np.float64), mesh)
    close(case.run()[0], expected, *TOLERANCE[dtype])
    if dtype == "float32":
        close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


# ---- Boxes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2, 3])
@pytest.mark.parametrize("pixels", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, ratio: int, pixels: str) -> None:
    x = draw(2, 3, 12, 10)
    corners = RNG.uniform(-2, 14, (7, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], -1)
    options: dict[str, Any] = {"output_height": 3, "output_width": 4, "spatial_scale": 0.8, "mode": mode}
    options |= {"sampling_ratio": ratio, "coordinate_transformation_mode": pixels}
    case = Case("RoiAlign", x, boxes, RNG.integers(0, 2, 7), opset=16, **options)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


def test_roi_align_of_opset_10() -> None:
    x, boxes = draw(1, 2, 8, 8), np.array([[0, 0, 5, 6], [1, 1, 3, 2]], np.float32)
    case = Case("RoiAlign", x, boxes, np.zeros(2, np.int64), opset=10, output_height=2, output_width=2)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


def test_boxes_that_cannot_be() -> None:
    x, boxes = draw(2, 1, 4, 4), np.array([[0, 0, 1, 1]], np.float32)
    case = Case("RoiAlign", x, boxes, np.array([2]), opset=16)
    with pytest.raises(inferkit.InferenceError, match="index 2 is out of range"):
        case.run()
    for far in (1e30, np.nan):
        case = Case("RoiAlign", x, (boxes * far).astype(np.float32), np.array([1]), opset=16)
        with pytest.raises(inferkit.InferenceError, match="too large"):
            case.run()


def test_max_roi_pool() -> None:
    x = draw(2, 3, 12, 10)
    corners = RNG.uniform(-2, 14, (7, 2, 2)).astype(np.float32)
    boxes = np.concatenate([RNG.integers(0, 2, (7, 1)), corners.min(1), corners.max(1)], -1).astype(np.float32)
    case = Case("MaxRoiPool", x, boxes, opset=13, pooled_shape=[3, 4], spatial_scale=0.8)
    close(case.run()[0], case.onnxruntime()[0], 1e-5, 1e-6)


# ---- DeformConv -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "offset_group", "options"),
    [
        (1, 1, {}),
        (2, 1, {"pads": [1, 1, 1, 1]}),
        (1, 2, {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
        (2, 4, {"dilations": [2, 1]}),
    ],
)
@pytest.mark.parametrize("extra", [False, True])
def test_deform_conv(group: int, offset_group: int, options: dict[str, Any], extra: bool) -> None:
    n, c, h, w, k = 2, 4, 7, 8, (3, 2)
    strides, dilations = options.get("strides", [1, 1]), options.get("dilations", [1, 1])
    pads = options.get("pads", [0, 0, 0, 0])
    out = [(s + pads[i] + pads[i + 2] - dilations[i] * (k[i] - 1) - 1) // strides[i] + 1 for i, s in enumerate((h, w))]
    taps = offset_group * k[0] * k[1]
    inputs = [draw(n, c, h, w), draw(6, c // group, *k), draw(n, 2 * taps, *out)]
    if extra:
        inputs += [draw(6), np.abs(draw(n, taps, *out))]
    case = Case("DeformConv", *inputs, opset=19, group=group, offset_group=offset_group, **options)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-4)


# ---- Places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    ("image", "block", "options"),
    [
        ((5, 5), (1, 5), {}),
        ((6, 7), (2, 3), {"strides": [2, 2]}),
        ((6, 7), (2, 3), {"pads": [1, 0, 1, 2], "dilations": [1, 2]}),
        ((4, 5, 6), (2, 1, 3), {"strides": [2, 1, 3]}),
        ((9,), (3,), {"strides": [2]}),
    ],
)
def test_col2im(image: tuple[int, ...], block: tuple[int, ...], options: dict[str, Any], dtype: str) -> None:
    n = len(image)
    strides, dilations = options.get("strides", [1] * n), options.get("dilations", [1] * n)
    pads = options.get("pads", [0] * 2 * n)
    blocks = [
        (image[i] + pads[i] + pads[n + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(n)
    ]
    x = draw(2, 3 * int(np.prod(block)), int(np.prod(blocks)), dtype=dtype)
    case = Case("Col2Im", x, np.array(image), np.array(block), opset=18, constant=(1, 2), **options)
    exact = Case("Col2Im", x.astype(np.float64), np.array(image), np.array(block), opset=18, **options)
    close(case.run()[0], exact.reference()[0], *TOLERANCE[dtype])
    if dtype == "float32":
        close(case.run()[0], case.onnxruntime()[0])


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_col2im_of_any_geometry(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    pick = lambda low, high, count=n: [data.draw(st.integers(low, high)) for _ in range(count)]  # noqa: E731
    block, strides, dilations, pads = pick(1, 4), pick(1, 4), pick(1, 3), pick(0, 3, 2 * n)
    room = [(block[i] - 1) * dilations[i] + 1 - pads[i] - pads[n + i] for i in range(n)]
    image = [
        data.draw(st.integers(max(least, block[i], 1), max(least, block[i], 1) + 9)) for i, least in enumerate(room)
    ]
    blocks = [
        (image[i] + pads[i] + pads[n + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(n)
    ]
    shape = (data.draw(st.integers(1, 2)), 2, *block, *blocks)
    # Whole numbers: exact in any order.
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-9, 9, shape).astype(dtype)
    expected = np.zeros((*shape[:2], *image), dtype)
    for tap in np.ndindex(*block):
        for at in np.ndindex(*blocks):
            place = [at[i] * strides[i] - pads[i] + tap[i] * dilations[i] for i in range(n)]
            if all(0 <= p < size for p, size in zip(place, image, strict=True)):
                expected[(..., *place)] += x[(slice(None), slice(None), *tap, *at)]
    columns = x.reshape(shape[0], 2 * int(np.prod(block)), int(np.prod(blocks)))
    options = {"strides": strides, "dilations": dilations, "pads": pads}
    case = Case("Col2Im", columns, np.array(image), np.array(block), opset=18, constant=(1, 2), **options)
    np.testing.assert_array_equal(case.run()[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64", "bool", "float16"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((4, 9, 5), None), ((7, 3, 8), None), ((10, 4), [0, 2]), ((1,), [-2]), ((0, 6, 6), None)]
)
def test_center_crop_pad(dtype: str, shape: tuple[int, ...], axes: list[int] | None) -> None:
    x = RNG.integers(1, 100, (6, 6, 6)).astype(dtype)
    options: dict[str, Any] = {} if axes is None else {"axes": axes}
    case = Case("CenterCropPad", x, np.array(shape), opset=18, constant=(1,), **options)
    found = case.run()[0]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, case.reference()[0])


def test_max_unpool_undoes_max_pool() -> None:
    x = draw(2, 3, 6, 8)
    options: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pooled, indices = Case("MaxPool", x, outputs=2, opset=12, **options).onnxruntime()
    case = Case("MaxUnpool", pooled, indices, opset=11, **options)
    found = case.run()[0]
    np.testing.assert_array_equal(found, case.onnxruntime()[0])
    np.testing.assert_array_equal(found, np.where(found != 0, x, 0))
    larger = np.array([2, 3, found.shape[2] + 1, found.shape[3] + 2])
    placed = Case("MaxUnpool", pooled, indices, larger, opset=11, constant=(2,), **options).run()[0]
    np.testing.assert_array_equal(placed[:, :, :-1, :-2], found)
    assert placed.shape == tuple(larger)
    assert not placed[:, :, -1].any()


def test_max_unpool_with_padding() -> None:
    values, places = draw(2, 3, 3, 4), RNG.permutation(2 * 3 * 5 * 7)[:72].reshape(2, 3, 3, 4)
    case = Case("MaxUnpool", values, places, opset=11, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1])
    found = case.run()[0]
    assert found.shape == (2, 3, 5, 7)
    np.testing.assert_array_equal(found, case.onnxruntime()[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "bool"])
@pytest.mark.parametrize("more", [None, (0, 0), (1, 2)])
def test_max_unpool_of_any_type(dtype: str, more: tuple[int, int] | None) -> None:
    values = RNG.integers(1, 100, (2, 3, 4, 5)).astype(dtype)
    places = RNG.permutation(2 * 3 * 8 * 10)[: values.size].reshape(values.shape)
    expected = np.zeros((2, 3, 8, 10), dtype)
    expected.reshape(-1)[places] = values
    shape = None if more is None else np.array([2, 3, 8 + more[0], 10 + more[1]])
    options: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    found = Case("MaxUnpool", values, places, shape, opset=11, constant=(2,), **options).run()[0]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found[:, :, :8, :10], expected)
    assert np.count_nonzero(found) == values.size


@pytest.mark.parametrize("index", [4, -1])
@pytest.mark.parametrize("size", [2, 3])
def test_an_index_out_of_the_image(index: int, size: int) -> None:
    x, places, shape = draw(1, 1, 1, 1), np.full((1, 1, 1, 1), index), np.array([1, 1, size, size])
    case = Case("MaxUnpool", x, places, shape, opset=11, constant=(2,), kernel_shape=[2, 2])
    with pytest.raises(inferkit.InferenceError, match=f"index {index} is out of range"):
        case.run()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 4, 4), (2, 0, 3, 3), (2, 6, 6), (0, 0)])
def test_det(dtype: str, shape: tuple[int, ...]) -> None:
    x = draw(*shape, dtype=dtype)
    expected = np.asarray(np.linalg.det(x.astype(np.float64)))
    rtol, atol = TOLERANCE[dtype]
    case = Case("Det", x, opset=11)
    model = inferkit.Model.load(case.bytes_with_output(dtype, shape[:-2]), input_checks=LENIENT)
    close(model.run(case.inputs)["y0"], expected, 5 * rtol, atol)


def test_det_of_a_singular_matrix() -> None:
    assert Case("Det", np.array([[1, 2], [2, 4]], np.float32), opset=11).run()[0] == 0
    assert Case("Det", np.array([[0, 2], [3, 4]], np.float32), opset=11).run()[0] == -6


# ---- All ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("GridSample", draw(1, 1, 4, 4), draw(2, 3, 3, 2), opset=16), "an image of shape"),
        (Case("GridSample", draw(1, 1, 4, 4), draw(1, 3, 3, 3), opset=16), "points of 3 coordinates"),
        (Case("Col2Im", draw(1, 5, 5), np.array([5, 5]), np.array([1, 4]), opset=18, constant=(1, 2)), "blocks"),
        (Case("CenterCropPad", draw(3, 3), np.array([-1, 3]), opset=18, constant=(1,)), "a size of -1"),
        (Case("Det", draw(3, 4), opset=11), "square"),
        (Case("DeformConv", draw(1, 1, 3, 3), draw(1, 1, 2, 2), draw(1, 8, 3, 3), opset=19), "offsets of shape"),
        (Case("MaxRoiPool", draw(1, 1, 4, 4), draw(2, 4), opset=13, pooled_shape=[1, 1]), "boxes of shape"),
    ],
)
def test_malformed(case: Case, message: str) -> None:
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (1,)))


@pytest.mark.parametrize(
    ("op", "inputs", "axis", "options"),
    [
        ("GridSample", [draw(5, 3, 6, 6), draw(5, 4, 4, 2)], 0, {"mode": "bilinear"}),
        ("DeformConv", [draw(5, 2, 6, 6), draw(3, 2, 2, 2), draw(5, 8, 5, 5)], 0, {}),
    ],
)
def test_an_image_s_bits_do_not_depend_on_the_batch(
    op: str, inputs: list[Array], axis: int, options: dict[str, Any]
) -> None:
    opset = 19
    whole = Case(op, *inputs, opset=opset, **options).run()[0]
    for row in range(5):
        part = [x[row : row + 1] if x.shape[0] == 5 else x for x in inputs]
        assert Case(op, *part, opset=opset, **options).run()[0].tobytes() == whole[row].tobytes()


OPERATORS = ("GridSample", "AffineGrid", "RoiAlign", "MaxRoiPool", "DeformConv", "Col2Im", "CenterCropPad", "MaxUnpool")


@pytest.mark.parametrize("case", node_test_cases(*OPERATORS, "Det"), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)


def test_the_loaded_model_tells_its_outputs() -> None:
    case = Case("GridSample", draw(1, 2, 4, 4), draw(1, 3, 5, 2), opset=16)
    model = onnx.load_from_string(case.bytes_with_output("float32", (1, 2, 3, 5)))
    assert inferkit.Model.load(model.SerializeToString()).run(case.inputs)["y0"].shape == (1, 2, 3, 5)
