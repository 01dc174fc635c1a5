"""DFT, STFT, window functions and MelWeightMatrix against numpy's FFT, ONNX Runtime and onnx's own node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

RNG = np.random.default_rng(5)


def draw(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


def parts(z: Array) -> Array:
    return np.stack([z.real, z.imag], -1)


def dft(x: Array, length: int | None = None, axis: int = 1, opset: int = 20, **options: Any) -> Array:
    extra: Array | None = None if length is None else np.array(length)
    if opset < 20:
        return Case("DFT", x, extra, opset=opset, constant=(1,), axis=axis, **options).run()[0]
    return Case("DFT", x, extra, np.array(axis), opset=opset, constant=(1, 2), **options).run()[0]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 12, 16, 30, 31, 37, 49, 97, 128, 200, 210, 512, 1009, 2 * 4099])
@pytest.mark.parametrize("inverse", [0, 1])
def test_lengths(n: int, inverse: int) -> None:
    x = draw(2, n, 2, dtype="float64")
    z = x[..., 0] + 1j * x[..., 1]
    expected = np.fft.ifft(z) if inverse else np.fft.fft(z)
    close(dft(x, inverse=inverse), parts(expected), 1e-11, 1e-11)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3])
@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("length", [None, 4, 9])
def test_axes_and_padding(opset: int, axis: int, last: int, length: int | None) -> None:
    x = draw(3, 5, 6, last, dtype="float64")
    z = x[..., 0] + (1j * x[..., 1] if last == 2 else 0)
    along = axis if axis >= 0 else axis + 4
    close(dft(x, length, axis, opset), parts(np.fft.fft(z, length, along)), 1e-11, 1e-11)
    if last == 1:
        found = dft(x, length, axis, opset, onesided=1)
        close(found, parts(np.fft.rfft(x[..., 0], length, along)), 1e-11, 1e-11)


@pytest.mark.parametrize("n", [4, 7, 10])
@pytest.mark.parametrize("length", [None, 8, 9])
def test_real_results(n: int, length: int | None) -> None:
    x = draw(2, n, 2, dtype="float64")
    expected = np.fft.irfft(x[..., 0] + 1j * x[..., 1], length)
    found = Case(
        "DFT", x, None if length is None else np.array(length), np.array(1), opset=20, constant=(1, 2), inverse=1,
        onesided=1,
    )  # fmt: skip
    data = found.bytes_with_output("float64", (2, expected.shape[1], 1))
    close(inferkit.Model.load(data).run(found.inputs)["y0"], expected[..., None], 1e-11, 1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_types(dtype: str) -> None:
    x = draw(2, 64, 2, dtype=dtype)
    expected = np.fft.fft(x[..., 0].astype(np.float64) + 1j * x[..., 1])
    rtol, atol = TOLERANCE[dtype]
    found = dft(x)
    assert found.dtype == np.dtype(dtype)
    close(found, parts(expected), rtol, 10 * atol)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("onesided", [0, 1])
def test_onnx_runtime_agrees(opset: int, onesided: int) -> None:
    x = draw(2, 30, 1)
    extra = () if opset < 20 else (None, np.array(1))
    options: dict[str, Any] = {"axis": 1} if opset < 20 else {}
    case = Case("DFT", x, *extra, opset=opset, constant=(2,) if extra else (), onesided=onesided, **options)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-4)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize(("length", "step"), [(16, 8), (20, 5), (15, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stft(onesided: int, windowed: bool, length: int, step: int, dtype: str) -> None:
    x = draw(2, 100, 1, dtype=dtype)
    window = draw(length, dtype=dtype) if windowed else None
    case = Case("STFT", x, np.array(step), window, np.array(length), opset=17, constant=(1, 3), onesided=onesided)
    frames = np.lib.stride_tricks.sliding_window_view(x[..., 0].astype(np.float64), length, -1)[:, ::step]
    frames = frames * (window.astype(np.float64) if window is not None else 1)
    expected = parts(np.fft.rfft(frames) if onesided else np.fft.fft(frames))
    rtol, atol = TOLERANCE[dtype]
    close(case.run()[0], expected, 10 * rtol, 10 * atol)
    close(case.run()[0], case.onnxruntime()[0], max(rtol, 1e-4), max(atol, 1e-4))


def test_stft_of_a_real_signal_without_its_last_axis() -> None:
    x = draw(2, 50)
    window = draw(12)
    of = [Case("STFT", v, np.array(5), window, np.array(12), opset=17, constant=(1, 3)) for v in (x, x[..., None])]
    np.testing.assert_array_equal(
        inferkit.Model.load(of[0].bytes_with_output("float32", [2, 8, 7, 2]))(x, window), of[1].run()[0]
    )


def test_stft_of_complex_signals() -> None:
    x = draw(2, 50, 2, dtype="float64")
    case = Case("STFT", x, np.array(7), None, np.array(12), opset=17, constant=(1, 3), onesided=0)
    z = np.lib.stride_tricks.sliding_window_view(x[..., 0] + 1j * x[..., 1], 12, -1)[:, ::7]
    close(case.run()[0], parts(np.fft.fft(z)), 1e-11, 1e-11)


def test_a_signal_s_bits_do_not_depend_on_the_batch() -> None:
    x = draw(5, 90, 1)
    whole = Case("STFT", x, np.array(10), None, np.array(30), opset=17, constant=(1, 3)).run()[0]
    for row in range(5):
        one = Case("STFT", x[row : row + 1], np.array(10), None, np.array(30), opset=17, constant=(1, 3)).run()[0]
        assert one.tobytes() == whole[row].tobytes()


# ---- Tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [0, 2, 10, 33])
@pytest.mark.parametrize("code", [1, 10, 11])
def test_windows(op: str, periodic: int, size: int, code: int) -> None:
    case = Case(op, np.array(size, np.int64), opset=17, constant=(0,), periodic=periodic, output_datatype=code)
    a = 2 * np.pi * np.arange(size) / max(size if periodic else size - 1, 1)
    expected = {
        "HannWindow": 0.5 - 0.5 * np.cos(a),
        "HammingWindow": 25 / 46 - 21 / 46 * np.cos(a),
        "BlackmanWindow": 0.42 - 0.5 * np.cos(a) + 0.08 * np.cos(2 * a),
    }[op]
    found = case.run()[0]
    assert found.dtype == {1: np.float32, 10: np.float16, 11: np.float64}[code]
    close(found, expected, *TOLERANCE[str(found.dtype)])


@pytest.mark.parametrize(
    ("bins", "length", "rate", "low", "high"),
    [(8, 16, 8192, 0.0, 4096.0), (40, 512, 16000, 20.0, 7600.0), (80, 400, 16000, 0.0, 8000.0)],
)
def test_mel_weight_matrix(bins: int, length: int, rate: int, low: float, high: float) -> None:
    inputs = [np.array(n, np.int64) for n in (bins, length, rate)] + [np.array(f, np.float32) for f in (low, high)]
    case = Case("MelWeightMatrix", *inputs, opset=17, constant=range(5))
    found = case.run()[0]
    assert found.shape == (length // 2 + 1, bins)
    close(found, case.reference()[0], 1e-6, 1e-7)
    close(found, case.onnxruntime()[0], 1e-6, 1e-7)


TOO_LARGE = "is too large; expected at most 4194304 numbers"


def mel(bins: int, length: int) -> Case:
    inputs = [np.array(n, np.int64) for n in (bins, length, 16000)]
    edges = [np.array(0, np.float32), np.array(8000, np.float32)]
    return Case("MelWeightMatrix", *inputs, *edges, opset=17, constant=range(5))


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        (Case("DFT", draw(2, 8, 2), opset=17, onesided=1), inferkit.ModelError, "onesided for complex"),
        (Case("DFT", draw(2, 8, 3), opset=17), inferkit.ModelError, "1 or 2"),
        (Case("DFT", draw(2, 8, 1), opset=17, axis=2), inferkit.ModelError, "axis"),
        (Case("DFT", draw(2, 8, 1), np.array(0), opset=17, constant=(1,)), inferkit.ModelError, "length 0"),
        (Case("STFT", draw(1, 8, 1), np.array(0), None, np.array(4), opset=17, constant=(1, 3)), inferkit.ModelError,
         "frames of 4 every 0"),
        (Case("STFT", draw(1, 8, 1), np.array(2), draw(3), np.array(4), opset=17, constant=(1, 3)),
         inferkit.ModelError, "another length"),
        (Case("HannWindow", np.array(-1), opset=17, constant=(0,)), inferkit.ModelError, "a window of -1"),
        (Case("HannWindow", np.array(2**40), opset=17, constant=(0,)), inferkit.ModelError, TOO_LARGE),
        (Case("BlackmanWindow", np.array(5 * 10**7), opset=17, constant=(0,)), inferkit.ModelError, TOO_LARGE),
        (mel(6000, 20000), inferkit.ModelError, TOO_LARGE),
        (mel(10**7, 10**6), inferkit.ModelError, "too many; expected a table of at most 4194304 numbers"),
        (mel(10, 10**7), inferkit.ModelError, "too many; expected a table of at most 4194304 numbers"),
    ],
)  # fmt: skip
def test_refusals(case: Case, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (1,)))


OPERATORS = ("DFT", "STFT", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix")


@pytest.mark.parametrize("case", node_test_cases(*OPERATORS), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)
