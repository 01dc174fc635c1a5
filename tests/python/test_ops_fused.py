"""The com.microsoft operators that ONNX Runtime's optimiser and quantiser write, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from op_cases import LENIENT, Array, Case, close, weights_of

import inferkit

RNG = np.random.default_rng(15)
MS = "com.microsoft"


def draw(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


def case(op: str, *inputs: Array | None, domain: str = MS, **attributes: Any) -> Case:
    return Case(op, *inputs, domain=domain, **attributes)


def session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def both(c: Case) -> tuple[list[Array], list[Array]]:
    found = inferkit.Model.load(c.bytes, input_checks=LENIENT).run(dict(c.inputs))
    return [found[name] for name in c.outputs], session(c.bytes).run(None, dict(c.inputs))


def agree(c: Case, rtol: float = 1e-5, atol: float = 2e-6) -> None:
    for found, expected in zip(*both(c), strict=True):
        assert found.dtype == expected.dtype
        close(found, expected, rtol, atol)


def agree_in_bytes(c: Case) -> None:
    """Rounding may differ where a number lies in the middle between two bytes."""
    for found, expected in zip(*both(c), strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        gap = np.abs(found.astype(int) - expected.astype(int))
        assert gap.max(initial=0) <= 1
        assert (gap != 0).sum() <= max(1, 0.02 * gap.size)


# ---- Activations and normalisations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "bias", "options"),
    [
        ("Gelu", None, {}),
        ("BiasGelu", True, {}),
        ("FastGelu", None, {}),
        ("FastGelu", True, {}),
        ("QuickGelu", None, {}),
        ("QuickGelu", None, {"alpha": 1.5}),
    ],
)
def test_activations(op: str, bias: bool | None, options: dict[str, Any]) -> None:
    x = 3 * draw(2, 5, 40)
    agree(case(op, x, *([draw(40)] if bias else []), **options), 1e-4, 1e-5)


def test_biases_that_onnx_runtime_has_for_devices_only() -> None:
    from math import erf

    x, bias, skip = draw(2, 3, 8), draw(8), draw(2, 3, 8)
    found = inferkit.Model.load(case("BiasAdd", x, bias, skip).bytes).run({"x0": x, "x1": bias, "x2": skip})["y0"]
    close(found, x + bias + skip)
    left, right = np.split((x + bias).astype(np.float64), 2, -1)
    gelu = right / 2 * (1 + np.vectorize(erf)(right / np.sqrt(2)))
    close(inferkit.Model.load(case("BiasSplitGelu", x, bias).bytes).run({"x0": x, "x1": bias})["y0"], left * gelu)


@pytest.mark.parametrize("skip_shape", [(2, 5, 24), (1, 5, 24), (5, 24)])
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_skip_layer_normalization(skip_shape: tuple[int, ...], beta: bool, bias: bool) -> None:
    x, skip, gamma = draw(2, 5, 24), draw(*skip_shape), draw(24)
    extra = [draw(24) if beta else None, draw(24) if bias else None]
    agree(case("SkipLayerNormalization", x, skip, gamma, *extra, epsilon=1e-5))
    agree(case("SkipLayerNormalization", x, skip, gamma, *extra))


@pytest.mark.parametrize("bias", [False, True])
def test_skip_simplified_layer_normalization(bias: bool) -> None:
    x, skip, gamma = draw(2, 5, 24), draw(2, 5, 24), draw(24)
    agree(case("SkipSimplifiedLayerNormalization", x, skip, gamma, *([draw(24)] if bias else []), epsilon=1e-5))


@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_the_sum_is_an_output(op: str) -> None:
    x, skip, gamma = draw(2, 5, 24), draw(2, 5, 24), draw(24)
    c = case(op, x, skip, gamma)
    model = onnx.load_from_string(c.bytes)
    model.graph.node[0].output.extend(["", "", "sum"])
    model.graph.output.append(onnx.ValueInfoProto(name="sum"))
    expected = session(model.SerializeToString()).run(None, c.inputs)
    found = inferkit.Model.load(model.SerializeToString()).run(c.inputs)
    close(found["y0"], expected[0])
    np.testing.assert_array_equal(found["sum"], x + skip)
    np.testing.assert_array_equal(expected[1], x + skip)


def test_simplified_layer_normalization() -> None:
    agree(case("SimplifiedLayerNormalization", draw(2, 5, 24), draw(24), domain="", axis=-1, epsilon=1e-5))


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_embed_layer_normalization(segments: bool, positions: bool, mask: bool) -> None:
    ids = RNG.integers(0, 30, (3, 7)).astype(np.int32)
    inputs = [
        ids,
        RNG.integers(0, 2, (3, 7)).astype(np.int32) if segments else None,
        draw(30, 16),
        draw(12, 16),
        draw(2, 16) if segments else None,
        draw(16),
        draw(16),
        (np.arange(7) < np.array([7, 3, 1])[:, None]).astype(np.int32) if mask else None,
        RNG.integers(0, 12, (3, 7)).astype(np.int32) if positions else None,
    ]
    options: dict[str, Any] = {"epsilon": 1e-5, "mask_index_type": int(mask)}
    agree(case("EmbedLayerNormalization", *inputs, outputs=3 if mask else 1, **options))


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_qembed_layer_normalization(segments: bool, mask: bool) -> None:
    tables = [bytes_of("uint8", n, 16) for n in (30, 12, 2)] + [bytes_of("uint8", 16) for _ in range(2)]
    inputs = [
        RNG.integers(0, 30, (3, 7)).astype(np.int32),
        RNG.integers(0, 2, (3, 7)).astype(np.int32) if segments else None,
        *tables[:2],
        tables[2] if segments else None,
        *tables[3:],
        (np.arange(7) < np.array([7, 3, 1])[:, None]).astype(np.int32) if mask else None,
        *[scale(0.01 + 0.01 * i) if segments or i != 2 else None for i in range(5)],
        *[zero("uint8", 100 + i) if segments or i != 2 else None for i in range(5)],
    ]
    agree(case("QEmbedLayerNormalization", *inputs, outputs=2, epsilon=1e-5), 1e-4, 1e-5)


# ---- Attention ------------------------------------------------------------------------------------------------------

MASKS = {
    "none": None,
    "ends": np.array([9, 4, 6], np.int32),
    "ends and starts": np.array([9, 4, 6, 0, 1, 2], np.int32),
    "keys": (RNG.random((3, 9)) < 0.7).astype(np.int32),
    "rows": (RNG.random((3, 9, 9)) < 0.7).astype(np.int32),
    "padded left": (np.arange(9) >= np.array([0, 4, 2])[:, None]).astype(np.int32),
}


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_attention(mask: str, unidirectional: int, bias: bool) -> None:
    x, w, b = draw(3, 9, 20), draw(20, 72), draw(72)
    inputs = [x, w, b, MASKS[mask], None, draw(1, 4, 9, 9) if bias else None]
    # Where a mask leaves a row nothing, scores are rounded near mask_filter_value, -10000.
    rtol, atol = (1e-4, 2e-5) if mask in ("none", "ends") else (1e-3, 5e-3)
    agree(case("Attention", *inputs, num_heads=4, unidirectional=unidirectional), rtol, atol)
    constant = Case("Attention", *inputs, domain=MS, constant=(1, 2), num_heads=4, unidirectional=unidirectional)
    agree(constant, rtol, atol)


def test_attention_with_sizes_and_scale() -> None:
    x, w, b = draw(3, 9, 20), draw(20, 16 + 16 + 40), draw(72)
    agree(case("Attention", x, w, b, num_heads=4, qkv_hidden_sizes=[16, 16, 40], scale=0.3), 1e-4, 1e-5)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_quantized_attention(per_column: bool, past: bool, unidirectional: int) -> None:
    x, w, b = bytes_of("uint8", 2, 6, 20), weights_of(RNG, "int8", 20, 48), draw(48)
    w_scale = np.abs(draw(48)) / 50 if per_column else scale(0.01)
    w_zero = np.zeros(48, np.int8) if per_column else zero("int8", 3)
    mask = np.array([6, 4], np.int32)
    inputs = [x, w, b, scale(0.01), w_scale, None if past else mask, zero("uint8", 120), w_zero]
    if past:
        inputs.append(draw(2, 2, 4, 5, 4))
    options: dict[str, Any] = {"num_heads": 4, "unidirectional": unidirectional}
    agree(case("QAttention", *inputs, outputs=2 if past else 1, **options), 1e-4, 1e-5)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", [False, True])
def test_attention_with_a_past(unidirectional: int, mask: bool) -> None:
    x, w, b, past = draw(2, 3, 20), draw(20, 48), draw(48), draw(2, 2, 4, 5, 4)
    extra = (RNG.random((2, 8)) < 0.7).astype(np.int32) if mask else None
    options: dict[str, Any] = {"num_heads": 4, "unidirectional": unidirectional}
    agree(case("Attention", x, w, b, extra, past, outputs=2, **options), 1e-4, 1e-5)


@pytest.mark.parametrize("mask", ["none", "ends", "keys"])
@pytest.mark.parametrize("added", [None, (1, 1), (3, 1), (1, 4), (3, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention(mask: str, added: tuple[int, int] | None, bias: bool) -> None:
    q, k, v = draw(3, 5, 16), draw(3, 9, 16), draw(3, 9, 24)
    extra = draw(*added, 5, 9) if added else None
    agree(case("MultiHeadAttention", q, k, v, draw(56) if bias else None, MASKS[mask], extra, num_heads=4), 1e-4, 1e-5)


def test_multi_head_attention_with_keys_of_four_dimensions() -> None:
    q, k, v = draw(2, 5, 16), draw(2, 4, 9, 4), draw(2, 4, 9, 4)
    agree(case("MultiHeadAttention", q, k, v, num_heads=4), 1e-4, 1e-5)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention_with_a_past(unidirectional: int) -> None:
    q, k, v = draw(2, 3, 16), draw(2, 3, 16), draw(2, 3, 16)
    past = [draw(2, 4, 5, 4), draw(2, 4, 5, 4)]
    options: dict[str, Any] = {"num_heads": 4, "unidirectional": unidirectional}
    agree(case("MultiHeadAttention", q, k, v, None, None, None, *past, outputs=3, **options), 1e-4, 1e-5)


def test_packed_heads() -> None:
    """ONNX Runtime has these for devices only: the same numbers, unpacked."""
    qkv = draw(2, 6, 4, 3, 5)
    q, k, v = (np.ascontiguousarray(qkv[:, :, :, i]).reshape(2, 6, 20) for i in range(3))

    def run(*inputs: Array) -> Array:
        c = case("MultiHeadAttention", *inputs, num_heads=4)
        return inferkit.Model.load(c.bytes).run(c.inputs)["y0"]

    expected = run(q, k, v)
    np.testing.assert_array_equal(run(qkv), expected)
    np.testing.assert_array_equal(run(q, np.ascontiguousarray(qkv[:, :, :, 1:])), expected)


@pytest.mark.parametrize("mask", ["none", "keys"])
def test_a_sequence_s_bits_do_not_depend_on_the_batch(mask: str) -> None:
    x, w, b = draw(3, 9, 32), draw(32, 96), draw(96)
    c = Case("Attention", x, w, b, MASKS[mask], domain=MS, constant=(1, 2), num_heads=4)
    model = onnx.load_from_string(c.bytes)
    for port in model.graph.input:
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    loaded = inferkit.Model.load(model.SerializeToString())
    whole = loaded.run(c.inputs)["y0"]
    for row in range(3):
        one = loaded.run({name: value[row : row + 1] for name, value in c.inputs.items()})["y0"]
        assert one.tobytes() == whole[row].tobytes()


# ---- Products -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["FusedMatMul", "TransposeMatMul"])
@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("constant", [(), (1,)])
def test_fused_matmul(op: str, trans: tuple[int, int], constant: tuple[int, ...]) -> None:
    a = draw(2, 3, 7, 5) if trans[0] else draw(2, 3, 5, 7)
    b = draw(9, 7) if trans[1] else draw(7, 9)
    options: dict[str, Any] = {"transA": trans[0], "transB": trans[1], "alpha": 0.25}
    agree(Case(op, a, b, domain=MS, constant=constant, **options), 1e-4, 1e-5)
    if not constant:
        b = draw(2, 3, 9, 7) if trans[1] else draw(2, 3, 7, 9)
        agree(case(op, a, b, **options), 1e-4, 1e-5)


@pytest.mark.parametrize("batch", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("rank", [3, 4])
def test_fused_matmul_moves_the_batch(batch: tuple[int, int], trans: tuple[int, int], rank: int) -> None:
    """As ONNX Runtime's optimiser writes it for torch.nn.MultiheadAttention."""
    outer = (3, 4)[: rank - 2]
    a, b = draw(*outer, 5, 7), draw(*outer, 7, 6)
    expected = 0.5 * (a.astype(np.float64) @ b)
    given = []
    for x, turned, moved in zip((a, b), trans, batch, strict=True):
        last = x.swapaxes(-1, -2) if turned else x
        given.append(np.ascontiguousarray(np.moveaxis(last, -2, 0) if moved else last))
    names = ("transBatchA", "transBatchB", "transA", "transB")
    product = case("FusedMatMul", *given, alpha=0.5, **dict(zip(names, (*batch, *trans), strict=True)))
    close(product.run()[0], expected, 1e-5, 1e-5)
    agree(product, 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.3}), ("Sigmoid", {}), ("Tanh", {})],
)
def test_fused_gemm(activation: str, parameters: dict[str, float]) -> None:
    options: dict[str, Any] = {"transB": 1, "alpha": 0.5, "beta": 2.0, "activation": activation, **parameters}
    agree(case("FusedGemm", draw(4, 6), draw(5, 6), draw(5), **options), 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", None),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.2, 0.5]),
        ("Tanh", None),
        ("Sigmoid", None),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(activation: str, parameters: list[float] | None, added: bool) -> None:
    x, w, b = draw(2, 3, 8, 8), draw(4, 3, 3, 3), draw(4)
    options: dict[str, Any] = {"activation": activation, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    if parameters:
        options["activation_params"] = parameters
    z = [draw(2, 4, 8, 8)] if added else []
    agree(case("FusedConv", x, w, b, *z, **options), 1e-4, 1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize(("k", "block"), [(64, 16), (40, 32), (96, 32)])
def test_matmul_nbits(bits: int, zeros: str, k: int, block: int) -> None:
    n, blocks = 12, -(-k // block)
    b = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = (0.1 * np.abs(draw(n, blocks))).astype(np.float32)
    zero: Array | None = None
    if zeros == "packed":
        zero = RNG.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    if zeros == "float":
        zero = RNG.integers(0, 2**bits, (n, blocks)).astype(np.float32)
    options: dict[str, Any] = {"K": k, "N": n, "bits": bits, "block_size": block}
    if bits == 8 and zeros == "float":
        pytest.skip("ONNX Runtime has no such thing")
    agree(Case("MatMulNBits", draw(2, 5, k), b, scales, zero, domain=MS, constant=(1, 2, 3), **options), 1e-4, 1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("zeros", "given"),
    [("none", "scales"), *((z, given) for z in ("packed", "float") for given in ("scales", "zero points", "both"))],
)
def test_matmul_nbits_whose_scales_or_zero_points_come_with_a_run(bits: int, zeros: str, given: str) -> None:
    k, n, block, blocks = 40, 12, 16, 3
    rng = np.random.default_rng(bits)
    b = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = (0.1 * np.abs(rng.standard_normal((n, blocks)))).astype(np.float32)
    zero: Array | None = None
    if zeros == "packed":
        zero = rng.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    if zeros == "float":
        zero = rng.integers(0, 2**bits, (n, blocks)).astype(np.float32)
    inputs = [rng.standard_normal((2, 5, k)).astype(np.float32), b, scales] + ([] if zero is None else [zero])
    options: dict[str, Any] = {"K": k, "N": n, "bits": bits, "block_size": block}
    fixed = {"scales": (1, 3), "zero points": (1, 2), "both": (1,)}[given]
    constant = tuple(i for i in fixed if i < len(inputs))
    c = Case("MatMulNBits", *inputs, domain=MS, constant=constant, **options)
    whole = Case("MatMulNBits", *inputs, domain=MS, constant=tuple(range(1, len(inputs))), **options)
    np.testing.assert_allclose(c.run(), whole.run(), rtol=1e-5, atol=1e-5)


# ---- Quantised operators --------------------------------------------------------------------------------------------


def bytes_of(kind: str, *shape: int) -> Array:
    info = np.iinfo(kind)
    return RNG.integers(info.min, info.max + 1, shape).astype(kind)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def zero(kind: str, value: int) -> Array:
    return np.array(value, kind)


KINDS = [("uint8", 120), ("int8", -7)]


@pytest.mark.parametrize(("kind", "z"), KINDS)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_qlinear_binary(op: str, kind: str, z: int) -> None:
    a, b = bytes_of(kind, 3, 4, 50), bytes_of(kind, 4, 50)
    agree_in_bytes(
        case(op, a, scale(0.03), zero(kind, z), b, scale(0.05), zero(kind, z + 3), scale(0.11), zero(kind, z - 5))
    )
    agree_in_bytes(case(op, a, scale(0.03), zero(kind, 0), b, scale(0.05), zero(kind, 0), scale(0.11)))


@pytest.mark.parametrize(("kind", "z"), KINDS)
def test_qlinear_unary(kind: str, z: int) -> None:
    x = bytes_of(kind, 2, 6, 8, 8)
    ends = [scale(0.0513), zero(kind, z), scale(0.0207), zero(kind, z - 9)]
    agree_in_bytes(case("QLinearSigmoid", x, *ends))
    agree_in_bytes(case("QLinearLeakyRelu", x, *ends, alpha=0.1))
    agree_in_bytes(case("QLinearGlobalAveragePool", x, *ends))
    pool: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    agree_in_bytes(case("QLinearAveragePool", x, *ends, **pool))
    agree_in_bytes(case("QLinearAveragePool", x, *ends, **pool, count_include_pad=1))
    last: dict[str, Any] = {"channels_last": 1}
    images = [bytes_of(kind, 2, 8, 7, 6), bytes_of(kind, 2, 9, 6), bytes_of(kind, 1, 4, 5, 6, 3)]
    for image in images[:2]:
        agree_in_bytes(case("QLinearGlobalAveragePool", image, *ends, **last))
    agree_in_bytes(case("QLinearAveragePool", images[0], *ends, **pool, **last))
    agree_in_bytes(case("QLinearAveragePool", images[0], *ends, **pool, **last, count_include_pad=1))
    agree_in_bytes(case("QLinearAveragePool", images[1], *ends, kernel_shape=[3], pads=[1, 1], **last))
    agree_in_bytes(case("QLinearAveragePool", images[2], *ends, kernel_shape=[2, 3, 2], **last))
    low = np.iinfo(kind).min
    softmax = [scale(0.05), zero(kind, z), scale(1 / 256), zero(kind, low)]
    c = case("QLinearSoftmax", x, *softmax, axis=-1)
    model = onnx.load_from_string(c.bytes)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", 13))
    c.bytes = model.SerializeToString()
    agree_in_bytes(c)


@pytest.mark.parametrize(("kind", "z"), KINDS)
def test_qlinear_concat_and_where(kind: str, z: int) -> None:
    a, b = bytes_of(kind, 2, 3, 5), bytes_of(kind, 2, 4, 5)
    parts = [a, scale(0.03), zero(kind, z), b, scale(0.05), zero(kind, z + 1)]
    c = Case("QLinearConcat", scale(0.04), zero(kind, z), *parts, domain=MS, constant=(0, 1, 3, 4, 6, 7), axis=1)
    agree_in_bytes(c)
    ends = [scale(0.04), zero(kind, z)]
    x = [bytes_of(kind, 4, 5), scale(0.03), zero(kind, z)]
    agree_in_bytes(case("QLinearWhere", RNG.random((2, 4, 5)) < 0.5, *x, b, scale(0.05), zero(kind, z + 1), *ends))


@pytest.mark.parametrize("constant", [(), (1,)])
@pytest.mark.parametrize(("left", "right"), [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
@pytest.mark.parametrize("per_column", [False, True])
def test_integer_products(constant: tuple[int, ...], left: str, right: str, per_column: bool) -> None:
    a, b = bytes_of(left, 2, 5, 33), weights_of(RNG, right, 33, 10)
    b_scale = np.abs(draw(10)) if per_column else scale(0.02)
    b_zero = bytes_of(right, 10) // 8 if per_column else zero(right, 4)
    ends = [scale(0.03), b_scale, zero(left, 7), b_zero]
    agree(Case("MatMulIntegerToFloat", a, b, *ends, domain=MS, constant=constant), 1e-5, 1e-4)
    agree(Case("MatMulIntegerToFloat", a, b, *ends, draw(10), domain=MS, constant=constant), 1e-5, 1e-4)
    agree(Case("MatMulIntegerToFloat", a, b, *ends[:2], domain=MS, constant=constant), 1e-5, 1e-4)
    if left == "uint8":
        x = [draw(2, 5, 33), b, b_scale, b_zero]
        agree(Case("DynamicQuantizeMatMul", *x, domain=MS, constant=constant), 1e-4, 1e-3)
        agree(Case("DynamicQuantizeMatMul", *x, draw(10), domain=MS, constant=constant), 1e-4, 1e-3)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("quantized", [False, True])
def test_qgemm(per_column: bool, trans: tuple[int, int], quantized: bool) -> None:
    a = bytes_of("uint8", 33, 6) if trans[0] else bytes_of("uint8", 6, 33)
    b = weights_of(RNG, "int8", 10, 33) if trans[1] else weights_of(RNG, "int8", 33, 10)
    b_scale = np.abs(draw(10)) if per_column else scale(0.02)
    b_zero = np.zeros(10, np.int8) if per_column else zero("int8", 4)
    c = RNG.integers(-9999, 9999, 10).astype(np.int32)
    inputs = [a, scale(0.03), zero("uint8", 100), b, b_scale, b_zero, c]
    options: dict[str, Any] = {"transA": trans[0], "transB": trans[1], "alpha": 0.5}
    if quantized:
        agree_in_bytes(case("QGemm", *inputs, scale(2.0), zero("uint8", 120), **options))
    else:
        agree(case("QGemm", *inputs, **options), 1e-4, 1e-4)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
def test_quantize_and_dequantize(kind: str) -> None:
    x, z = 5 * draw(3, 4, 6), zero(kind, 9)
    agree_in_bytes(case("QuantizeLinear", x, scale(0.05), z))
    agree_in_bytes(case("QuantizeLinear", x, np.array([0.05, 0.1, 0.2, 0.3], np.float32), np.full(4, 9, kind), axis=1))
    q = bytes_of(kind, 3, 4, 6)
    agree(case("DequantizeLinear", q, scale(0.05), z))
    agree(case("DequantizeLinear", q, np.array([0.05, 0.1, 0.2, 0.3], np.float32), np.full(4, 9, kind), axis=1))


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_nhwc_max_pool(kind: str) -> None:
    options: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    agree_in_bytes(case("NhwcMaxPool", bytes_of(kind, 2, 9, 8, 5), **options))


# ---- Refusals, and how they are told --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (case("Attention", draw(1, 2, 4), draw(4, 12), draw(12), num_heads=2, do_rotary=1), "do_rotary"),
        (case("Attention", draw(1, 2, 4), draw(4, 12), draw(12), np.ones((1, 1, 9, 9), np.int32), num_heads=2), "mask"),
        (case("FusedGemm", draw(2, 3), draw(3, 4), activation="Swish"), "activation Swish"),
        (case("QLinearAveragePool", bytes_of("uint8", 1, 4, 4, 3), scale(1), None, scale(1), None,
              kernel_shape=[2, 2, 1, 1], channels_last=1), "channels_last"),
        (case("MatMulNBits", draw(2, 16), bytes_of("uint8", 3, 1, 8), draw(3, 1), K=16, N=3, bits=4, block_size=16),
         "only known during a run"),
    ],
)  # fmt: skip
def test_refusals(c: Case, message: str) -> None:
    with pytest.raises(inferkit.UnsupportedOpError, match=message):
        inferkit.Model.load(c.bytes)


def test_errors_name_the_node_of_the_file() -> None:
    """Not what it is spelled out as, which stands behind it."""
    x, w, r = draw(3, 2, 6), bytes_of("int8", 1, 5, 16), bytes_of("int8", 1, 4, 16)
    one, none = np.float32([0.01]), np.int8([0])
    inputs = [x, w, r, None, None, None, None, None, one, none, one, none]
    wrong = Case("DynamicQuantizeLSTM", *inputs, domain=MS, constant=(1, 2, 8, 9, 10, 11), hidden_size=4)
    with pytest.raises(inferkit.ModelError) as caught:  # x has six columns, and w five rows
        inferkit.Model.load(wrong.bytes_with_output("float32", (3, 1, 2, 4)))
    assert "node 'n' (com.microsoft.DynamicQuantizeLSTM, which is computed with ByteLSTM): " in str(caught.value)
    assert "n/ByteLSTM" not in str(caught.value)


def test_an_error_of_a_run_names_the_node_of_the_file() -> None:
    bytes_of_table = ", ".join(["17"] * 48)
    graph = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[n] x, int64[m] i) => (float[m, 32] y)
        <uint8[3, 16] w = {{{bytes_of_table}}}, float[3, 1] s = {{1.0, 1.0, 1.0}}> {{
            y = com.microsoft.GatherBlockQuantized <bits = 4, block_size = 32, gather_axis = 0, quantize_axis = 1>
                (w, i, s)
        }}"""
    )
    graph.graph.node[0].name = "table"
    model = inferkit.Model.load(graph.SerializeToString())
    with pytest.raises(inferkit.InferenceError, match=r"node 'table' \(com.microsoft.GatherBlockQuantized, which is"):
        model.run({"x": np.float32([1]), "i": np.int64([3])})


def test_all_refusals_are_listed() -> None:
    x = helper.make_tensor_value_info("x", 1, [2, 3])
    nodes = [
        helper.make_node("FusedGemm", ["x", "w"], ["a"], name="first", domain=MS, activation="Swish"),
        helper.make_node("FusedGemm", ["a", "v"], ["y"], name="second", domain=MS, activation="Mish"),
    ]
    weights = [numpy_helper.from_array(draw(3, 3), name) for name in ("w", "v")]
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", 1, [2, 3])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)])
    with pytest.raises(inferkit.UnsupportedOpError, match=r"(?s)'first'.*Swish.*'second'.*Mish"):
        inferkit.Model.load(model.SerializeToString())


def test_inside_a_subgraph() -> None:
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["x"], [f"out_{op}"], domain=MS)],
            op,
            [],
            [helper.make_tensor_value_info(f"out_{op}", 1, [4])],
        )
        for op in ("Gelu", "QuickGelu")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])
    ports = [helper.make_tensor_value_info("x", 1, [4]), helper.make_tensor_value_info("c", 9, [])]
    graph = helper.make_graph([node], "g", ports, [helper.make_tensor_value_info("y", 1, [4])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    data = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    try:
        model = inferkit.Model.load(data)
    except inferkit.UnsupportedOpError as error:
        pytest.skip(str(error))
    for c in (True, False):
        feeds = {"x": draw(4), "c": np.array(c)}
        close(model.run(feeds)["y"], session(data).run(None, feeds)[0], 1e-4, 1e-5)
