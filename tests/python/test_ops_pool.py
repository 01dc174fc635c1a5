"""Pooling against a plain float64 definition, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

GLOBAL = {"GlobalAveragePool": np.mean, "GlobalMaxPool": np.max}


def out_size(n: int, k: int, s: int, d: int, begin: int, end: int, ceil: bool) -> int:
    room = n + begin + end - (k - 1) * d - 1
    out = (-(-room // s) if ceil else room // s) + 1
    return out - 1 if ceil and (out - 1) * s >= n + begin else out


def pool(op: str, x: Array, **a: Any) -> Array:
    """One window after the other."""
    n = x.ndim - 2
    kernel = a["kernel_shape"]
    strides, dilations = a.get("strides", [1] * n), a.get("dilations", [1] * n)
    pads, ceil = a.get("pads", [0] * 2 * n), bool(a.get("ceil_mode", 0))
    sizes = [
        out_size(x.shape[2 + i], kernel[i], strides[i], dilations[i], pads[i], pads[n + i], ceil) for i in range(n)
    ]
    y = np.zeros((*x.shape[:2], *sizes))
    for at in np.ndindex(*sizes):
        taps = [[at[i] * strides[i] - pads[i] + k * dilations[i] for k in range(kernel[i])] for i in range(n)]
        inside = [[p for p in taps[i] if 0 <= p < x.shape[2 + i]] for i in range(n)]
        window = x[(slice(None), slice(None), *np.ix_(*inside))].astype(np.float64)
        axes = tuple(range(2, 2 + n))
        if op == "MaxPool":
            value = window.max(axes, initial=-np.inf)
        elif op == "AveragePool":
            padded = [[p for p in taps[i] if p < x.shape[2 + i] + pads[n + i]] for i in range(n)]
            count = np.prod([len(p) for p in (padded if a.get("count_include_pad") else inside)])
            value = window.sum(axes) / max(count, 1)
        else:
            p = a.get("p", 2)
            value = (np.abs(window) ** p).sum(axes) ** (1 / p)
        y[(slice(None), slice(None), *at)] = value
    return y


def drawn_windows(data: st.DataObject, kernel_most: int, size_most: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The shape of an image, and a pool's attributes that fit it."""
    rank = data.draw(st.integers(1, 3))
    pick = lambda low, high: [data.draw(st.integers(low, high)) for _ in range(rank)]  # noqa: E731
    kernel, strides, dilations = pick(1, kernel_most), pick(1, 4), pick(1, 2)
    attributes = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": [data.draw(st.integers(0, k - 1)) for k in kernel + kernel],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    size = [max(data.draw(st.integers(1, size_most)), (k - 1) * d + 1) for k, d in zip(kernel, dilations, strict=True)]
    return (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), *size), attributes


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_geometry(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    shape, attributes = drawn_windows(data, 4, 24)
    if op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if op == "LpPool":
        attributes["p"] = data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.float16]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal(shape).astype(dtype)
    found = Case(op, x, opset=19, **attributes).run()[0]
    expected = pool(op, x, **attributes)
    if op == "MaxPool":
        np.testing.assert_array_equal(found, expected)
    else:
        close(found, expected, *TOLERANCE[np.dtype(dtype).name])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 33, 64, 100, 3000, 5000])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_widths(op: str, width: int, stride: int) -> None:
    x = np.random.default_rng(width).standard_normal((1, 2, 6, width)).astype(np.float32)
    a = {"kernel_shape": [3, 3], "strides": [stride, stride], "pads": [1, 1, 1, 1]}
    close(Case(op, x, **a).run()[0], pool(op, x, **a) if width < 200 else Case(op, x, **a).onnxruntime()[0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_of_integers(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(-128 if dtype == np.int8 else 0, 127, (2, 3, 9, 10)).astype(dtype)
    a = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    found = Case("MaxPool", x, **a).run()[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pool("MaxPool", x, **a))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_geometry(data: st.DataObject) -> None:
    shape, attributes = drawn_windows(data, 5, 20)
    if data.draw(st.booleans()):
        attributes["dilations"] = [1] * (len(shape) - 2)
    info = np.iinfo(data.draw(st.sampled_from(["int8", "uint8"])))
    # Low ones, too: padding is never the largest.
    high = data.draw(st.sampled_from([info.min + 3, info.max + 1]))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(info.min, high, shape).astype(info.dtype)
    found = Case("MaxPool", x, opset=19, **attributes).run()[0]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.maximum(pool("MaxPool", x, **attributes), info.min))


@pytest.mark.parametrize("width", [15, 16, 17, 100, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (4, 3), (9, 5), (256, 256), (257, 1)])
def test_bytes_of_long_rows(width: int, kernel: int, stride: int) -> None:
    x = np.random.default_rng(width).integers(-128, 128, (1, 2, width + kernel)).astype(np.int8)
    a = {"kernel_shape": [kernel], "strides": [stride], "pads": [kernel // 2, 0]}
    padded = np.pad(x, ((0, 0), (0, 0), (kernel // 2, 0)), constant_values=-128)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=2)[:, :, ::stride]
    np.testing.assert_array_equal(Case("MaxPool", x, **a).run()[0], windows.max(-1))


def test_windows_of_bytes_in_padding_alone() -> None:
    x = np.full((1, 1, 2, 2), 5, np.uint8)
    found = Case("MaxPool", x, opset=19, kernel_shape=[1, 2], strides=[1, 1], pads=[1, 2, 1, 2]).run()[0]
    expected = np.pad(np.full((2, 3), 5, np.uint8), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(found, expected[None, None])


@pytest.mark.parametrize(("storage_order", "rank"), [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)])
def test_indices_against_onnxruntime(storage_order: int, rank: int) -> None:
    x = np.random.default_rng(rank).standard_normal((2, 3, *(7, 8, 9)[:rank])).astype(np.float32)
    for kernel, stride, pad in product([2, 3], [1, 2], [0, 1]):
        case = Case(
            "MaxPool",
            x,
            outputs=2,
            kernel_shape=[kernel] * rank,
            strides=[stride] * rank,
            pads=[pad] * 2 * rank,
            storage_order=storage_order,
        )
        for found, expected in zip(case.run(), case.onnxruntime(), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad_against_onnxruntime(op: str, auto_pad: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 10, 13)).astype(np.float32)
    for kernel, stride in product([2, 3], [1, 2, 3]):
        case = Case(op, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, auto_pad=auto_pad)
        close(case.run()[0], case.onnxruntime()[0])


@pytest.mark.parametrize("op", list(GLOBAL))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 5, 1, 1), (3, 2, 100), (2, 2, 3, 4, 5), (4, 64, 56, 56), (2, 5)])
def test_global(op: str, dtype: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    axes = tuple(range(2, len(shape)))
    expected = GLOBAL[op](x.astype(np.float64), axis=axes, keepdims=True)
    close(Case(op, x).run()[0], expected, *TOLERANCE[np.dtype(dtype).name])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp(p: int) -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 5, 6)).astype(np.float32)
    expected = (np.abs(x.astype(np.float64)) ** p).sum((2, 3), keepdims=True) ** (1 / p)
    close(Case("GlobalLpPool", x, p=p).run()[0], expected)


@pytest.mark.parametrize("width", [5, 40])
def test_a_window_with_nan_is_nan(width: int) -> None:
    x = np.random.default_rng(4).standard_normal((1, 1, 8, width)).astype(np.float32)
    x[0, 0, 3, 2] = np.nan
    a = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    for op in ("MaxPool", "AveragePool"):
        found = np.isnan(Case(op, x, **a).run()[0])
        expected = np.zeros_like(found)
        expected[0, 0, 2:5, 1:4] = True
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "GlobalAveragePool"])
def test_an_image_has_the_same_bits_in_any_batch(op: str) -> None:
    x = np.random.default_rng(5).standard_normal((7, 5, 23, 21)).astype(np.float32)
    a = {} if op.startswith("Global") else {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    model = Case(op, x, free_batch=True, **a).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


def test_refused_and_malformed() -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    with pytest.raises(inferkit.ModelError, match="does not fit"):
        inferkit.Model.load(Case("MaxPool", x, kernel_shape=[9, 9]).bytes_with_output("float32", (1, 1, 1, 1)))
    six = Case("AveragePool", np.ones((1, 1, 2, 2, 2, 2), np.float32), kernel_shape=[2] * 4).with_output_types()
    with pytest.raises(inferkit.UnsupportedOpError, match="spatial dimensions"):
        inferkit.Model.load(six)
    integers = Case("AveragePool", x.astype(np.int32), kernel_shape=[2, 2]).bytes_with_output("int32", (1, 1, 3, 3))
    with pytest.raises(inferkit.UnsupportedOpError, match="int32"):
        inferkit.Model.load(integers)


def test_slices_of_padding_count_where_they_are_told_to() -> None:
    """Windows that begin, end and lie in the slices before and behind a volume, as each way sums them."""
    x = np.random.default_rng(8).standard_normal((2, 3, 6, 9, 21)).astype(np.float32)
    x[0, :, :2] = -0.0
    for kernel, strides, pads, ceil_mode in product(
        [(3, 3, 3), (4, 2, 1), (3, 1, 5)], [(1, 1, 1), (3, 2, 2)], [(2, 0, 0, 0, 0, 0), (1, 1, 0, 2, 0, 1)], [0, 1]
    ):
        pads = tuple(min(p, k - 1) for p, k in zip(pads, kernel * 2, strict=True))
        a = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": ceil_mode}
        for include_pad in 0, 1:
            case = Case("AveragePool", x, opset=19, **a, count_include_pad=include_pad)
            assert case.load().explain({"x0": x.shape}).steps[0].lowering == "planes"
            close(case.run()[0], pool("AveragePool", x, **a, count_include_pad=include_pad))


OPS = ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")


@pytest.mark.parametrize("case", node_test_cases(*OPS), ids=lambda c: c.name)
def test_onnx_node(case: Any) -> None:
    check_node_test(case)


FORCED = """
import sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    given = dict(f)
for i in range(len(given) // 2):
    model = inferkit.Model.load(given[f"model{i}"].tobytes())
    assert model.explain({"x0": given[f"x{i}"].shape}).steps[0].lowering == "generic"
    print(model.run({"x0": given[f"x{i}"]})["y0"].tobytes().hex())
"""


def test_a_maximum_of_zero_is_positive_whichever_way_it_is_found(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Zeros of both signs and subnormals, which a run takes for zeros, in every order; windows by planes, in pairs,
    with the indices, and by the generic way."""
    rng = np.random.default_rng(0)
    given, expected = {}, []
    for i, (kernel, stride, pad) in enumerate(product([(1, 1), (2, 2), (3, 2), (1, 3)], [1, 2, 3], [0, 1])):
        x = rng.choice(np.array([0.0, -0.0, 1e-40, -1e-40, -1.0], np.float32), (2, 3, 9, 40))
        a = {"kernel_shape": kernel, "strides": [stride] * 2, "pads": [pad if k > 1 else 0 for k in kernel] * 2}
        want = pool("MaxPool", np.where(np.abs(x) < 1e-30, np.float32(0), x), **a).astype(np.float32)
        case = Case("MaxPool", x, **a)
        assert case.run()[0].tobytes() == want.tobytes()
        y, at = Case("MaxPool", x, outputs=2, **a).run()
        assert y.tobytes() == want.tobytes()
        np.testing.assert_array_equal(np.where(np.abs(x.flat[at]) < 1e-30, 0, x.flat[at]), want)
        given[f"model{i}"], given[f"x{i}"] = np.frombuffer(case.with_output_types(), np.uint8), x
        expected.append(want.tobytes().hex())
    np.savez(tmp_path / "in.npz", **given)
    done = fresh_python(FORCED, str(tmp_path / "in.npz"), env={"INFERKIT_LOWERING": "MaxPool=generic"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected
