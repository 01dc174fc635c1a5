"""Conv and ConvTranspose against float64 numpy, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

FLOATS = [np.float32, np.float64, np.float16]


def draw(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: tuple[int, ...] = (),
    pads: tuple[int, ...] = (),
    dilations: tuple[int, ...] = (),
    group: int = 1,
) -> Array:
    """The definition, in float64."""
    n = x.ndim - 2
    strides, dilations, pads = strides or (1,) * n, dilations or (1,) * n, pads or (0,) * 2 * n
    x, w = x.astype(np.float64), w.astype(np.float64)
    x = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[n + i]) for i in range(n))])
    reach = tuple((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + n)))
    windows = windows[(slice(None),) * 2 + tuple(slice(None, None, s) for s in strides)]
    windows = windows[(..., *(slice(None, None, d) for d in dilations))]
    out = []
    for g in range(group):
        c, m = w.shape[1], w.shape[0] // group
        axes = [1, *range(2 + n, 2 + 2 * n)], list(range(1, 2 + n))
        part = np.tensordot(windows[:, g * c : (g + 1) * c], w[g * m : (g + 1) * m], axes)
        out.append(np.moveaxis(part, -1, 1))
    y = np.concatenate(out, 1)
    return y if b is None else y + b.astype(np.float64).reshape(1, -1, *(1,) * n)


def bound(x: Array, w: Array, y: Array, **attributes: Any) -> Array:
    """How far a float32 sum of K products may be from the truth."""
    k = w[0].size
    return np.sqrt(k + 1) * 4 * np.finfo(np.float32).eps * conv(np.abs(x), np.abs(w), **attributes) + 1e-6 * np.abs(y)


def check(x: Array, w: Array, b: Array | None, **attributes: Any) -> None:
    found = Case("Conv", x, w, b, constant=(1, 2), **attributes).run()[0]
    expected = conv(x, w, b, **attributes)
    assert found.shape == expected.shape
    if x.dtype == np.float32:
        error = np.abs(found - expected) - bound(x, w, expected, **attributes) - 1e-6
        assert error.max(initial=0) <= 0, error.max()
    else:
        close(found, expected, *TOLERANCE[x.dtype.name])


@pytest.mark.parametrize("size", [(5, 5), (7, 7), (8, 16), (13, 9), (28, 28), (1, 40), (33, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (1, 3), (2, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_two_dimensions(size: tuple[int, int], kernel: tuple[int, int], stride: int) -> None:
    rng = np.random.default_rng(stride)
    for pads, (c, m), n in product([(0, 0, 0, 0), (1, 2, 0, 1), (2, 2, 2, 2)], [(1, 8), (5, 3), (16, 33)], [1, 3]):
        if any(size[i] + pads[i] + pads[i + 2] < kernel[i] for i in range(2)):
            continue
        check(
            draw(rng, n, c, *size), draw(rng, m, c, *kernel), draw(rng, m), strides=(stride, min(stride, 2)), pads=pads
        )


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_geometry(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, strides, dilations = pick(1, 4), pick(1, 4), pick(1, 3)
    pads = pick(0, 3) + pick(0, 3)
    size = tuple(max(data.draw(st.integers(1, 20)), (k - 1) * d + 1) for k, d in zip(kernel, dilations, strict=True))
    group, c, m = (data.draw(st.integers(1, 4)) for _ in range(3))
    dtype = data.draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = draw(rng, data.draw(st.integers(1, 3)), group * c, *size, dtype=dtype)
    w = draw(rng, group * m, c, *kernel, dtype=dtype) / np.sqrt(c * np.prod(kernel)).astype(dtype)
    b = draw(rng, group * m, dtype=dtype) if data.draw(st.booleans()) else None
    check(x, w, b, strides=strides, pads=pads, dilations=dilations, group=group)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 5), (7, 7), (11, 11), (1, 9)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(kernel: tuple[int, int], stride: int, multiplier: int) -> None:
    rng = np.random.default_rng(stride)
    pads = (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2)
    for size, dilation in product([(1, 1), (7, 7), (14, 15), (17, 40), (60, 130)], [1, 2]):
        if any(size[i] + 2 * pads[i] < (kernel[i] - 1) * dilation + 1 for i in range(2)):
            continue
        x, w, b = draw(rng, 2, 6, *size), draw(rng, 6 * multiplier, 1, *kernel), draw(rng, 6 * multiplier)
        check(x, w, b, group=6, strides=(stride, stride), pads=pads, dilations=(dilation, dilation))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("strides", [(1, 11), (1, 12), (2, 10), (11, 1), (12, 2), (21, 1), (2, 21)])
def test_depthwise_with_strides_of_two_digits(kernel: int, strides: tuple[int, int]) -> None:
    rng = np.random.default_rng(kernel)
    check(draw(rng, 1, 2, 50, 60), draw(rng, 2, 1, kernel, kernel), None, group=2, strides=strides)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pads", [(1, 16, 1, 16), (1, 20, 1, 0), (0, 33, 2, 40), (20, 2, 30, 17), (2, 70, 2, 70)])
@pytest.mark.parametrize("width", [5, 17, 100])
def test_depthwise_with_more_padding_than_kernel(kernel: int, stride: int, pads: tuple[int, ...], width: int) -> None:
    rng = np.random.default_rng(kernel)
    x, w = draw(rng, 1, 2, 8, width), draw(rng, 2, 1, kernel, kernel)
    check(x, w, None, group=2, strides=(stride, stride), pads=pads)


@pytest.mark.parametrize("area", [(4, 4), (7, 7), (1, 1), (20, 20), (64, 64)])
def test_pointwise(area: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for c, m in [(1, 1), (3, 17), (64, 24), (130, 96)]:
        check(draw(rng, 2, c, *area), draw(rng, m, c, 1, 1), draw(rng, m))


def test_one_dimension_and_three() -> None:
    rng = np.random.default_rng(2)
    check(draw(rng, 2, 3, 500), draw(rng, 8, 3, 25), draw(rng, 8), pads=(12, 12), strides=(4,))
    check(draw(rng, 2, 3, 7, 8, 9), draw(rng, 4, 3, 3, 3, 3), None, pads=(1, 1, 1, 1, 1, 1), strides=(2, 1, 2))


@pytest.mark.parametrize("shape", [(40, 1), (9, 1, 1), (1, 33, 1), (7, 8, 1), (1, 1)])
@pytest.mark.parametrize("pad", [(0, 0), (1, 0), (0, 1)])
def test_a_last_dimension_of_one(shape: tuple[int, ...], pad: tuple[int, int]) -> None:
    """As TensorFlow's one-dimensional convolutions come; with padding the one pixel is not the only one."""
    rng = np.random.default_rng(5)
    lead, rank = len(shape) - 1, len(shape)
    kernel = (*(min(3, d) for d in shape[:-1]), 1)
    pads = (0,) * lead + (pad[0],) + (0,) * lead + (pad[1],)
    for stride in (1, 2):
        check(draw(rng, 2, 5, *shape), draw(rng, 6, 5, *kernel), draw(rng, 6), pads=pads, strides=(stride,) * rank)


def test_large_enough_for_threads_is_the_same_bits() -> None:
    rng = np.random.default_rng(3)
    for shape, w, attributes in [
        ((1, 32, 40, 40), (64, 32, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 256, 7, 7), (256, 256, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 48, 64, 64), (48, 1, 3, 3), {"group": 48}),
        ((2, 96, 32, 32), (128, 96, 1, 1), {}),
    ]:
        case = Case("Conv", draw(rng, *shape), draw(rng, *w), constant=(1,), **attributes)
        one, many = case.run(threads=1)[0], case.run(threads=4)[0]
        assert one.tobytes() == many.tobytes()


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad_against_onnxruntime(auto_pad: str, stride: int) -> None:
    rng = np.random.default_rng(4)
    for size, kernel in product([(9, 10), (11, 14)], [(3, 3), (2, 4), (1, 5)]):
        case = Case("Conv", draw(rng, 1, 2, *size), draw(rng, 3, 2, *kernel), auto_pad=auto_pad, strides=[stride] * 2)
        close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


@pytest.mark.parametrize("shape", [(2, 12, 12), (16, 7, 7), (4, 16, 16)])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_an_image_has_the_same_bits_in_any_batch(shape: tuple[int, int, int], group: int, kernel: int) -> None:
    rng = np.random.default_rng(5)
    x = draw(rng, 9, *shape)
    w, pad = draw(rng, 10, shape[0] // group, kernel, kernel), kernel // 2
    model = Case("Conv", x, w, draw(rng, 10), constant=(1, 2), group=group, pads=[pad] * 4, free_batch=True).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("stride", [10, 1 << 10, 1 << 16, 1 << 20, 1 << 31])
def test_strides_far_beyond_the_image(stride: int, rank: int, group: int) -> None:
    """Two outputs each way: the first window lies in the padding, the last one begins at the first pixel."""
    x, w = np.full((1, group, *(3,) * rank), 3, np.float32), np.full((group, 1, *(2,) * rank), 5, np.float32)
    attributes = {"strides": (stride,) * rank, "dilations": (stride - 1,) * rank, "pads": (stride,) * 2 * rank}
    expected = np.zeros((1, group, *(2,) * rank), np.float32)
    expected[(..., *(1,) * rank)] = 15
    for constant in [(), (1,)]:
        found = Case("Conv", x, w, constant=constant, group=group, **attributes).run()[0]
        np.testing.assert_array_equal(found, expected)


def test_weights_known_only_in_the_run() -> None:
    rng = np.random.default_rng(6)
    x, w, b = draw(rng, 2, 4, 9, 9), draw(rng, 6, 4, 3, 3), draw(rng, 6)
    close(Case("Conv", x, w, b).run()[0], conv(x, w, b), 1e-4, 1e-4)


def test_no_images() -> None:
    y = Case("Conv", np.zeros((0, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32), constant=(1,)).run()[0]
    assert y.shape == (0, 4, 6, 6)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"group": 3}, "do not fit"),
        ({"strides": [1]}, "strides has 1 value; expected 2"),
        ({"strides": [0, 1]}, "strides holds 0"),
        ({"pads": [-1, 0, 0, 0]}, "pads holds -1"),
        ({"kernel_shape": [2, 2]}, "kernel_shape"),
        ({"dilations": [9, 9]}, "does not fit"),
    ],
)
def test_malformed(attributes: dict[str, Any], message: str) -> None:
    case = Case("Conv", np.ones((1, 4, 6, 6), np.float32), np.ones((2, 4, 3, 3), np.float32), **attributes)
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (1, 2, 4, 4)))


def test_one_group_is_no_groups() -> None:
    """What is counted stands in the singular where there is one of it."""
    case = Case("Conv", np.ones((1, 2, 6, 6), np.float32), np.ones((2, 3, 3, 3), np.float32))
    with pytest.raises(inferkit.ModelError, match="in 1 group do not fit"):
        inferkit.Model.load(case.bytes_with_output("float32", (1, 2, 4, 4)))


# ---- ConvTranspose ----


def conv_transpose(
    x: Array, w: Array, b: Array | None, strides: Any, pads: Any, dilations: Any, extra: Any, group: int
):
    """What every pixel sends to every tap, added up in float64."""
    n = x.ndim - 2
    full = [(x.shape[2 + i] - 1) * strides[i] + (w.shape[2 + i] - 1) * dilations[i] + 1 + extra[i] for i in range(n)]
    channels, filters = x.shape[1] // group, w.shape[1]
    y = np.zeros((x.shape[0], group * filters, *full))
    for g in range(group):
        for tap in np.ndindex(*w.shape[2:]):
            part = np.moveaxis(
                np.tensordot(
                    x[:, g * channels : (g + 1) * channels].astype(np.float64),
                    w[(slice(g * channels, (g + 1) * channels), slice(None), *tap)].astype(np.float64),
                    ([1], [0]),
                ),
                -1,
                1,
            )
            at = tuple(
                slice(tap[i] * dilations[i], tap[i] * dilations[i] + (x.shape[2 + i] - 1) * strides[i] + 1, strides[i])
                for i in range(n)
            )
            y[(slice(None), slice(g * filters, (g + 1) * filters), *at)] += part
    y = y[(slice(None), slice(None), *(slice(pads[i], full[i] - pads[n + i]) for i in range(n)))]
    return y if b is None else y + b.astype(np.float64).reshape(1, -1, *(1,) * n)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_conv_transpose_any_geometry(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    size, kernel, strides, dilations = pick(1, 9), pick(1, 4), pick(1, 3), pick(1, 2)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True))
    pads = tuple(data.draw(st.integers(0, min(2, (k - 1) // 2))) for k in kernel + kernel)
    group, c, m = (data.draw(st.integers(1, 3)) for _ in range(3))
    dtype = data.draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = draw(rng, data.draw(st.integers(1, 3)), group * c, *size, dtype=dtype)
    w = draw(rng, group * c, m, *kernel, dtype=dtype)
    b = draw(rng, group * m, dtype=dtype) if data.draw(st.booleans()) else None
    constant = data.draw(st.sampled_from([(), (1, 2)]))
    found = Case(
        "ConvTranspose", x, w, b, strides=strides, pads=pads, dilations=dilations, output_padding=extra, group=group,
        constant=constant,
    ).run()[0]  # fmt: skip
    rtol, atol = TOLERANCE[np.dtype(dtype).name]
    close(found, conv_transpose(x, w, b, strides, pads, dilations, extra, group), 4 * rtol, 20 * atol)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
def test_conv_transpose_against_onnxruntime(auto_pad: str) -> None:
    rng = np.random.default_rng(7)
    for kernel, stride in product([2, 3, 4], [1, 2, 3]):
        if auto_pad.startswith("SAME") and kernel < stride:
            continue  # the specification leaves open where the missing pixels go
        x, w = draw(rng, 2, 6, 7, 8), draw(rng, 6, 5, kernel, kernel)
        case = Case("ConvTranspose", x, w, draw(rng, 5), auto_pad=auto_pad, strides=[stride] * 2, constant=(1, 2))
        close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-4)


#: Channels, filters, the image, the window: few filters at a time fit the cache, and some taps reach no pixel.
TRANSPOSED = {
    "taps side by side": (
        40,
        48,
        (33, 30),
        (3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    ),
    "two and two taps": (64, 48, (16, 16), (4, 4), {"strides": [2, 2]}),
    "chunks of taps": (3, 5, (20, 21), (9, 9), {"strides": [2, 2], "pads": [3, 4, 5, 2]}),
    "windows apart": (16, 9, (50, 40), (2, 2), {"strides": [2, 2]}),
    "a chunk as long as all taps, and longer": (3, 4, (2, 2, 1), (4, 4, 8), {"strides": [3, 3, 1]}),
    "one by one": (35, 17, (8, 9, 10), (3, 3, 3), {"pads": [1, 1, 1, 0, 1, 2], "dilations": [1, 2, 1]}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose_has_the_same_bits_on_any_thread_count_and_in_any_batch(name: str, dtype: Any) -> None:
    channels, filters, size, kernel, attributes = TRANSPOSED[name]
    rng = np.random.default_rng(8)
    x, w = draw(rng, 3, channels, *size, dtype=dtype), draw(rng, channels, filters, *kernel, dtype=dtype)
    b = draw(rng, filters, dtype=dtype)
    case = Case("ConvTranspose", x, w, b, constant=(1, 2), **attributes)
    found = case.run(threads=1)[0]
    n = len(size)
    full = {"strides": [1] * n, "pads": [0] * 2 * n, "dilations": [1] * n, "output_padding": [0] * n, **attributes}
    expected = conv_transpose(x, w, b, full["strides"], full["pads"], full["dilations"], full["output_padding"], 1)
    far = np.abs(found - expected).max() / np.abs(expected).max()
    assert far < 8 * np.finfo(dtype).eps
    assert found.tobytes() == case.run(threads=4)[0].tobytes()
    for i in range(3):
        alone = Case("ConvTranspose", x[i : i + 1], w, b, constant=(1, 2), **attributes).run()[0]
        assert alone.tobytes() == found[i : i + 1].tobytes()


@pytest.mark.parametrize("case", node_test_cases("Conv", "ConvTranspose"), ids=lambda c: c.name)
def test_onnx_node(case: Any) -> None:
    check_node_test(case)


def test_fused_activation_is_the_unfused_one() -> None:
    """Conv and Relu in one model: whatever a pass makes of it, the answer is relu(conv)."""
    rng = np.random.default_rng(9)
    x, w, b = draw(rng, 2, 4, 9, 9), draw(rng, 6, 4, 3, 3), draw(rng, 6)
    plain = Case("Conv", x, w, b, constant=(1, 2))
    model = onnx.load_from_string(plain.with_output_types())
    model.graph.node.append(onnx.helper.make_node("Relu", ["y0"], ["z"]))
    model.graph.output[0].name = "z"
    fused = inferkit.Model.load(model.SerializeToString()).run({"x0": x})["z"]
    np.testing.assert_array_equal(fused, np.maximum(plain.run()[0], 0))
