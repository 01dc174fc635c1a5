"""Models that quantizers write: products of dequantized bytes run on the bytes, and mean the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import inferkit
from inferkit import tracing

onnxruntime = pytest.importorskip("onnxruntime")
Array = np.ndarray[Any, Any]


class Net:
    """A model in the making; every node gives one value, named v0, v1..."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, array: Array) -> str:
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        at = len(self.nodes)
        self.nodes.append(helper.make_node(kind, inputs, [f"v{at}"], name=f"n{at}", **attributes))
        return str(self.nodes[-1].output[0])

    def model(self, x: Array, y: str, opset: int = 19) -> bytes:
        shape: list[int | str] = ["batch", *x.shape[1:]]
        port = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        out = helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "quantized", [port], [out], self.constants)
        imports = [helper.make_opsetid("", opset)]
        return bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())


def peer(model: bytes, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def steps_of(model: inferkit.Model, *x: Array) -> list[str]:
    begin = time.monotonic()
    tracing.trace_steps()
    try:
        model(*x)
    finally:
        tracing.trace_steps(False)
    return [step.name.split()[0] for step in tracing.steps() if step.started >= begin]


def quantized_product(rng: np.random.Generator, kind: str, x: Array, **how: Any) -> tuple[Net, str]:
    """op(QDQ(x), DQ(weights)) with weights of a shape that fits x."""
    net = Net()
    code = np.dtype(rng.choice(["uint8", "int8"]))
    zero = int(rng.integers(100, 140)) if code == np.uint8 else int(rng.integers(-20, 20))
    scale, point = net.const(np.float32(0.02)), net.const(np.array(zero, code))
    q = net.op("QuantizeLinear", "x", scale, point)
    dq = net.op("DequantizeLinear", q, scale, point)
    filters, wide = how.get("filters", 5), np.dtype(rng.choice(["uint8", "int8"]))
    inner = x.shape[-1]
    axis = {"MatMul": 1, "Gemm": 0 if how.get("transB") else 1, "Conv": 0}[kind]
    attributes = {key: how[key] for key in ("transB", "group", "pads", "strides", "dilations") if key in how}
    if kind == "Conv":
        taps = (3,) * (x.ndim - 2)
        shape: tuple[int, ...] = (filters, x.shape[1] // how.get("group", 1), *taps)
    else:
        shape = (filters, inner) if how.get("transB") else (inner, filters)
    low, high = np.iinfo(wide).min, np.iinfo(wide).max
    weights = rng.integers(low, high + 1, shape).astype(wide)
    lines = ((), (1,))[rng.integers(2)] if how.get("per_tensor") else (filters,)
    w_scale = net.const(rng.uniform(0.001, 0.01, lines).astype(np.float32))
    w_zero = net.const(rng.integers(low, high + 1, lines).astype(wide) if rng.integers(2) else np.zeros(lines, wide))
    right = net.op("DequantizeLinear", net.const(weights), w_scale, w_zero, **({"axis": axis} if lines else {}))
    inputs = [dq, right]
    if how.get("bias") and kind != "MatMul":
        codes = net.const(rng.integers(-2000, 2000, filters).astype(np.int32))
        bias_scale = net.const(rng.uniform(1e-4, 1e-3, filters).astype(np.float32))
        inputs.append(net.op("DequantizeLinear", codes, bias_scale, axis=0))
    return net, net.op(kind, *inputs, **attributes)


PRODUCTS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("MatMul", (3, 33), {}),
    ("MatMul", (2, 5, 64), {"filters": 40}),
    ("MatMul", (2, 3, 4, 7), {"per_tensor": True}),
    ("Gemm", (3, 30), {"transB": 1, "bias": True}),
    ("Gemm", (1, 16), {"transB": 0, "filters": 17}),
    ("Gemm", (4, 9), {"transB": 1, "per_tensor": True, "bias": True}),
    ("Conv", (2, 3, 9, 8), {"filters": 4, "bias": True, "pads": [1, 1, 1, 1]}),
    ("Conv", (2, 4, 11, 7), {"filters": 8, "group": 2, "strides": [2, 1]}),
    ("Conv", (1, 6, 40), {"filters": 20, "bias": True, "dilations": [2], "pads": [3, 0]}),
    ("Conv", (1, 2, 5, 6, 7), {"filters": 6, "pads": [1, 0, 1, 1, 0, 1], "per_tensor": True, "bias": True}),
]


@pytest.mark.parametrize(("kind", "shape", "how"), PRODUCTS)
@pytest.mark.parametrize("seed", range(4))
def test_products_of_dequantized_bytes(kind: str, shape: tuple[int, ...], how: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    net, y = quantized_product(rng, kind, x, **how)
    model = net.model(x, y)
    loaded = inferkit.Model.load(model)
    found = loaded(x)
    expected = peer(model, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert {"inferkit.DequantizedMatMul", "ConvInteger"} & set(steps_of(loaded, x))
    for i in range(shape[0]):
        assert loaded(x[i : i + 1]).tobytes() == found[i : i + 1].tobytes()
    assert inferkit.Model.load(model, threads=2)(x).tobytes() == found.tobytes()


def two_computed(left: Array, right: Array, zeros: tuple[int, int]) -> tuple[onnx.ModelProto, Array]:
    """MatMul of two inputs that are bytes, each dequantized; and its value in float64."""
    net = Net()
    scales = (np.float32(0.03), np.float32(0.007))
    dequantized = [
        net.op("DequantizeLinear", name, net.const(scale), net.const(np.array(zero, codes.dtype)))
        for name, codes, scale, zero in zip("ab", (left, right), scales, zeros, strict=True)
    ]
    y = net.op("MatMul", *dequantized)
    graph = helper.make_graph(
        net.nodes,
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim)
            for name, x in zip("ab", (left, right), strict=True)
        ],
        [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None)],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wide = [(x.astype(np.float64) - zero) * scale for x, zero, scale in zip((left, right), zeros, scales, strict=True)]
    return model, np.matmul(*wide)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 33), (33, 5)),
        ((2, 6, 40, 64), (2, 6, 64, 40)),
        ((1, 7), (3, 7, 20)),
        ((4, 1, 9, 130), (2, 130, 17)),
        ((5, 16), (16,)),
        ((16,), (2, 16, 3)),
        ((12,), (12,)),
        ((2, 0), (0, 3)),
        ((0, 4), (4, 3)),
    ],
)
@pytest.mark.parametrize("codes", [("uint8", "uint8"), ("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
def test_products_of_two_computed_operands(
    left: tuple[int, ...], right: tuple[int, ...], codes: tuple[str, str]
) -> None:
    rng = np.random.default_rng(len(left) + right[-1])
    a, b = (
        rng.integers(np.iinfo(code).min, np.iinfo(code).max + 1, shape).astype(code)
        for code, shape in zip(codes, (left, right), strict=True)
    )
    model, expected = two_computed(a, b, (5, 99))
    checks = inferkit.InputChecks(non_empty=False)
    loaded = inferkit.Model.load(model, threads=1, input_checks=checks)
    found = loaded(a, b)
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-30)  # exact sums, rounded twice
    assert inferkit.Model.load(model, threads=2, input_checks=checks)(a, b).tobytes() == found.tobytes()
    if found.size:
        assert set(steps_of(loaded, a, b)) == {"inferkit.DequantizedMatMul"}


@pytest.mark.parametrize("length", [33_024, 33_025, 33_026, 100_000])
def test_sums_that_int32_does_not_hold(length: int) -> None:
    """Every product is 255 * 255, and then one row is shorter by one of them."""
    a, b = np.full((2, 3, length), 255, np.uint8), np.zeros((length, 18), np.uint8)
    a[1, 2, 7] = 0
    model, expected = two_computed(a, b, (0, 255))
    found = inferkit.Model.load(model)(a, b)
    np.testing.assert_allclose(found, expected, rtol=5e-7)


def test_a_depthwise_convolution_stays_in_float() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 8, 9, 9)).astype(np.float32)
    net, y = quantized_product(rng, "Conv", x, filters=8, group=8, bias=True)
    model = net.model(x, y)
    loaded = inferkit.Model.load(model)
    expected = peer(model, x)
    np.testing.assert_allclose(loaded(x), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert "ConvInteger" not in steps_of(loaded, x)


@pytest.mark.parametrize("inner", [33_025, 33_026, 40_000])
def test_sums_that_int32_does_not_hold_stay_in_float(inner: int) -> None:
    """All products at their largest: 255 * 255 each, so that 33,026 of them pass 2**31."""
    net = Net()
    scale, zero = net.const(np.float32(1)), net.const(np.uint8(0))
    x = np.full((1, inner), 255, np.float32)
    dq = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", scale, zero), scale, zero)
    w = net.op("DequantizeLinear", net.const(np.full((inner, 4), 255, np.uint8)), scale, zero)
    found = inferkit.Model.load(net.model(x, net.op("MatMul", dq, w)))(x)
    np.testing.assert_allclose(found, np.full((1, 4), 255.0 * 255 * inner), rtol=1e-4)


@pytest.mark.parametrize("size", [1e20, 1e-20, 1e-22, 1e-23])
def test_scales_whose_product_float_does_not_hold(size: float) -> None:
    """1e20 twice are inf, and inf times a sum of 0 would be NaN."""
    net = Net()
    scale, zero = net.const(np.float32(size)), net.const(np.uint8(128))
    x = np.array([[0, 0], [size, 3 * size]], np.float32)
    dq = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", scale, zero), scale, zero)
    w = net.op("DequantizeLinear", net.const(np.array([[1, 2], [3, 4]], np.int8)), scale, net.const(np.int8(0)))
    model = net.model(x, net.op("MatMul", dq, w))
    tiny = np.finfo(np.float32).tiny  # below it all is zero
    np.testing.assert_allclose(inferkit.Model.load(model)(x), peer(model, x), rtol=1e-3, atol=tiny)


def test_a_gemm_takes_matrices_alone() -> None:
    rng = np.random.default_rng(0)
    net, y = quantized_product(rng, "Gemm", np.zeros((2, 3, 8), np.float32), transB=0)
    with pytest.raises(inferkit.InferkitError, match="matri"):
        inferkit.Model.load(net.model(np.zeros((2, 3, 8), np.float32), y))(np.zeros((2, 3, 8), np.float32))


@given(
    kind=st.sampled_from(["MatMul", "Gemm", "Conv"]),
    rows=st.integers(1, 14),
    inner=st.integers(1, 70),
    filters=st.integers(1, 70),
    seed=st.integers(0, 2**20),
    per_tensor=st.booleans(),
    bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_sizes(kind: str, rows: int, inner: int, filters: int, seed: int, per_tensor: bool, bias: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, rows, inner + 2) if kind == "Conv" else (rows, inner)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    how = {"filters": filters, "per_tensor": per_tensor, "bias": bias}
    net, y = quantized_product(rng, kind, x, **how)
    model = net.model(x, y)
    expected = peer(model, x)
    found = inferkit.Model.load(model)(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * max(1.0, float(np.abs(expected).max())))


# ---- ONNX Runtime's own quantizer, on a small network of convolutions and products ----------------------------------


def small_network(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    net = Net()

    def weights(*shape: int) -> str:
        return net.const((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    h = net.op("Conv", "x", weights(16, 3, 3, 3), weights(16), pads=[1, 1, 1, 1])
    h = net.op("Conv", net.op("Relu", h), weights(16, 1, 3, 3), weights(16), pads=[1, 1, 1, 1], group=16)
    h = net.op("Conv", net.op("Relu", h), weights(24, 16, 1, 1), weights(24))
    h = net.op("MaxPool", net.op("Relu", h), kernel_shape=[2, 2], strides=[2, 2])
    h = net.op("Flatten", h)
    h = net.op("Gemm", h, weights(32, 24 * 16), weights(32), transB=1)
    h = net.op("MatMul", net.op("Sigmoid", h), weights(32, 10))
    path = folder / "float.onnx"
    path.write_bytes(net.model(np.zeros((1, 3, 8, 8), np.float32), h, opset=17))
    return path


@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("codes", ["QUInt8", "QInt8"])
def test_what_the_quantizer_of_onnx_runtime_writes(form: str, per_channel: bool, codes: str, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    source, target = small_network(tmp_path), tmp_path / "quantized.onnx"
    kind = quantization.QuantType[codes]
    if form == "dynamic":
        quantization.quantize_dynamic(source, target, per_channel=per_channel, weight_type=kind)
    else:

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                self.batches = iter([{"x": x}])

            def get_next(self) -> dict[str, Array] | None:
                return next(self.batches, None)

        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat[form],
            per_channel=per_channel,
            activation_type=kind,
            weight_type=quantization.QuantType.QInt8,
        )
    model = target.read_bytes()
    expected = peer(model, x)
    loaded = inferkit.Model.load(model)
    found = loaded(x)
    # A sum that lies between two codes may round to either; each such flip is worth a small part of the scale.
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    exact = inferkit.Model.load(source)(x)
    assert np.abs(found - exact).max() <= 2 * np.abs(expected - exact).max() + 0.02 * np.abs(exact).max()
    assert {"inferkit.DequantizedMatMul", "ConvInteger", "QLinearConv"} & set(steps_of(loaded, x))
