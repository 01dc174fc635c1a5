"""Attention, rotary embedding and linear attention against float64 numpy, ONNX Runtime and onnx's own node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from op_cases import LENIENT, TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

RNG = np.random.default_rng(7)


def draw(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


def attend(q: Array, k: Array, v: Array, bias: Array | float = 0.0, scale: float | None = None) -> Array:
    """Of [batch, heads, rows, size], in float64; keys are shared by neighbouring query heads."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    factor = float(np.float32(scale)) if scale else q.shape[-1] ** -0.5
    scores = factor * np.einsum("bhid,bhjd->bhij", q, k.repeat(group, 1)) + bias
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bhij,bhjd->bhid", weights / np.where(total == 0, 1, total), v.repeat(group, 1))


def heads_first(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def rows_first(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def causal(rows: int, keys: int, offset: int = 0) -> Array:
    return np.where(np.arange(keys) <= np.arange(rows)[:, None] + offset, 0.0, -np.inf)


SIZES = [  # batch, query heads, key heads, rows, keys, size, size of values
    (1, 1, 1, 1, 1, 1, 1),
    (2, 3, 3, 4, 6, 8, 8),
    (2, 4, 2, 5, 5, 16, 24),
    (1, 6, 1, 33, 70, 32, 16),
    (3, 2, 2, 1, 130, 7, 5),
    (1, 2, 2, 150, 600, 20, 32),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("packed", [False, True])
def test_attention(size: tuple[int, ...], packed: bool, dtype: str) -> None:
    b, h, kv, s, t, d, dv = size
    q, k, v = draw(b, h, s, d, dtype=dtype), draw(b, kv, t, d, dtype=dtype), draw(b, kv, t, dv, dtype=dtype)
    rtol, atol = TOLERANCE[dtype]
    for is_causal in (0, 1):
        expected = attend(q, k, v, causal(s, t) if is_causal else 0.0)
        if packed:
            xs = [rows_first(x) for x in (q, k, v)]
            found = Case("Attention", *xs, opset=23, q_num_heads=h, kv_num_heads=kv, is_causal=is_causal).run()[0]
            close(found, rows_first(expected), 5 * rtol, 5 * atol)
        else:
            close(Case("Attention", q, k, v, opset=23, is_causal=is_causal).run()[0], expected, 5 * rtol, 5 * atol)


@pytest.mark.parametrize(
    "shape", [(6,), (4, 6), (1, 6), (3, 4, 6), (1, 1, 6), (2, 1, 4, 6), (2, 3, 4, 6), (2, 1, 1, 4)]
)
@pytest.mark.parametrize("kind", ["bool", "float32"])
@pytest.mark.parametrize("is_causal", [0, 1])
def test_masks(shape: tuple[int, ...], kind: str, is_causal: int) -> None:
    q, k, v = draw(2, 3, 4, 8), draw(2, 3, 6, 8), draw(2, 3, 6, 5)
    mask: Array = RNG.random(shape) < 0.7 if kind == "bool" else draw(*shape)
    full = np.where(mask, 0.0, -np.inf) if kind == "bool" else mask.astype(np.float64)
    full = np.concatenate([full, np.full((*shape[:-1], 6 - shape[-1]), -np.inf)], -1)
    expected = attend(q, k, v, np.broadcast_to(full + (causal(4, 6) if is_causal else 0), (2, 3, 4, 6)))
    close(Case("Attention", q, k, v, mask, opset=23, is_causal=is_causal).run()[0], expected)
    double = [x.astype(np.float64) for x in (q, k, v)]
    extra = mask if kind == "bool" else mask.astype(np.float64)
    close(Case("Attention", *double, extra, opset=23, is_causal=is_causal).run()[0], expected, 1e-10, 1e-10)


def test_a_row_that_sees_nothing_is_zero() -> None:
    q, k, v = draw(1, 2, 3, 4), draw(1, 2, 5, 4), draw(1, 2, 5, 4)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    for extra in (mask, np.where(mask, 0, -np.inf).astype(np.float32)):
        found = Case("Attention", q, k, v, extra, opset=23).run()[0]
        assert not found[:, :, 1].any()
        close(found, attend(q, k, v, np.where(mask, 0, -np.inf)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("is_causal", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_past_and_present(packed: bool, is_causal: int, dtype: str) -> None:
    b, h, kv, s, past, d, dv = 2, 4, 2, 3, 5, 8, 6
    q, k, v = draw(b, h, s, d, dtype=dtype), draw(b, kv, s, d, dtype=dtype), draw(b, kv, s, dv, dtype=dtype)
    pk, pv = draw(b, kv, past, d, dtype=dtype), draw(b, kv, past, dv, dtype=dtype)
    keys, values = np.concatenate([pk, k], 2), np.concatenate([pv, v], 2)
    expected = attend(q, keys, values, causal(s, s + past, past) if is_causal else 0.0)
    xs: list[Array] = [q, k, v]
    options: dict[str, Any] = {"is_causal": is_causal}
    if packed:
        xs, expected = [rows_first(x) for x in xs], rows_first(expected)
        options |= {"q_num_heads": h, "kv_num_heads": kv}
    y, present_k, present_v = Case("Attention", *xs, None, pk, pv, outputs=3, opset=23, **options).run()
    close(y, expected, *TOLERANCE[dtype])
    np.testing.assert_array_equal(present_k, keys)
    np.testing.assert_array_equal(present_v, values)
    close(Case("Attention", *xs, None, pk, pv, opset=23, **options).run()[0], expected, *TOLERANCE[dtype])


@pytest.mark.parametrize("is_causal", [0, 1])
def test_lengths(is_causal: int) -> None:
    q, k, v = draw(4, 2, 3, 8), draw(4, 2, 6, 8), draw(4, 2, 6, 8)
    lengths = np.array([6, 1, 3, 0])
    bias = np.where(np.arange(6) < lengths[:, None, None, None], 0.0, -np.inf)
    if is_causal:
        bias = bias + np.stack([causal(3, 6, n - 3) for n in lengths])[:, None]
    found = Case("Attention", q, k, v, None, None, None, lengths, opset=24, is_causal=is_causal).run()[0]
    close(found, attend(q, k, v, np.broadcast_to(bias, (4, 2, 3, 6))))


@pytest.mark.parametrize("left", [-1, 0, 2])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_windows(left: int, right: int) -> None:
    q, k, v = draw(1, 2, 5, 8), draw(1, 2, 9, 8), draw(1, 2, 9, 8)
    gap = np.arange(9) - np.arange(5)[:, None]
    hidden = (left >= 0) & (gap < -left) | (right >= 0) & (gap > right)
    case = Case("Attention", q, k, v, opset=25, left_window_size=left, right_window_size=right)
    close(case.run()[0], attend(q, k, v, np.where(hidden, -np.inf, 0.0)))


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_scores(mode: int, softcap: float) -> None:
    q, k, v, mask = draw(2, 4, 3, 8), draw(2, 2, 7, 8), draw(2, 2, 7, 8), draw(3, 7)
    options: dict[str, Any] = {"softcap": softcap, "scale": 0.25, "is_causal": 1}
    y, scores = (
        Case("Attention", q, k, v, mask, outputs=4, opset=24, qk_matmul_output_mode=mode, **options).run()[i]
        for i in (0, 3)
    )
    stages = [0.25 * np.einsum("bhid,bhjd->bhij", q.astype(np.float64), k.repeat(2, 1).astype(np.float64))]
    stages.append(softcap * np.tanh(stages[0] / softcap) if softcap else stages[0])
    stages.append(stages[1] + mask + causal(3, 7))
    weights = np.exp(stages[2])
    stages.append(weights / weights.sum(-1, keepdims=True))
    close(scores, stages[mode])
    close(y, stages[3] @ v.repeat(2, 1))
    # Without the scores the fused path runs.
    close(Case("Attention", q, k, v, mask, opset=24, **options).run()[0], stages[3] @ v.repeat(2, 1))


def test_softmax_in_double() -> None:
    q, k, v = draw(1, 2, 4, 8), draw(1, 2, 9, 8), draw(1, 2, 9, 8)
    close(Case("Attention", q, k, v, opset=23, softmax_precision=11).run()[0], attend(q, k, v), 1e-6, 1e-7)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_onnx_runtime_agrees(opset: int, dtype: str) -> None:
    q, k, v = draw(2, 4, 9, 16, dtype=dtype), draw(2, 2, 12, 16, dtype=dtype), draw(2, 2, 12, 16, dtype=dtype)
    mask = RNG.random((9, 12)) < 0.8
    for extra, options in [((), {}), ((mask,), {"softcap": 2.0}), ((), {"scale": 0.3})]:
        case = Case("Attention", q, k, v, *extra, opset=opset, **options)
        close(case.run()[0], case.onnxruntime()[0], *TOLERANCE[dtype])


def free_batch(case: Case, shape: list[int]) -> inferkit.Model:
    """The case with batch sizes left open."""
    model = onnx.load_from_string(case.bytes)
    for port in model.graph.input:
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    for port in model.graph.output:
        port.type.CopyFrom(helper.make_tensor_type_proto(1, ["batch", *shape]))
    return inferkit.Model.load(model.SerializeToString(), input_checks=LENIENT)


@pytest.mark.parametrize("size", [(4, 2, 5, 70, 16), (2, 1, 130, 130, 24), (3, 3, 1, 300, 32)])
def test_a_sequence_s_bits_do_not_depend_on_the_batch(size: tuple[int, ...]) -> None:
    h, kv, s, t, d = size
    xs = [draw(7, h, s, d), draw(7, kv, t, d), draw(7, kv, t, d), draw(7, 1, s, t)]
    case = Case("Attention", *xs, opset=24, is_causal=1)
    model = free_batch(case, [h, s, d])
    whole = model.run(case.inputs)["y0"]
    for rows in ([0], [6, 2], [1, 3, 5]):
        found = model.run({name: np.ascontiguousarray(x[rows]) for name, x in case.inputs.items()})["y0"]
        assert found.tobytes() == whole[rows].tobytes()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([(2, 3, 4), (2, 3, 4), (2, 3, 4)], {}, "need q_num_heads"),
        ([(2, 3, 4), (2, 3, 4), (2, 3, 4)], {"q_num_heads": 3, "kv_num_heads": 3}, "do not divide"),
        ([(1, 3, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)], {}, "cannot share"),
        ([(1, 2, 4, 4), (1, 2, 4, 5), (1, 2, 4, 4)], {}, "do not fit"),
        ([(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 5, 4)], {}, "differ"),
        ([(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4), (5, 4)], {}, "mask of shape"),
        ([(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)], {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode"),
    ],
)
def test_malformed(shapes: list[tuple[int, ...]], options: dict[str, Any], message: str) -> None:
    case = Case("Attention", *(np.zeros(s, np.float32) for s in shapes), opset=23, **options)
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (1,)))


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros((4, 1), np.float32), {}, "a mask of one key"),
        (np.zeros((4, 4), np.int32), {}, "input 3 of type int32"),
        (None, {"softmax_precision": 16}, "softmax_precision 16"),
    ],
)
def test_refusals(mask: Array | None, options: dict[str, Any], message: str) -> None:
    case = Case("Attention", *(np.zeros((1, 2, 4, 4), np.float32) for _ in range(3)), mask, opset=23, **options)
    with pytest.raises(inferkit.UnsupportedOpError, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (1, 2, 4, 4)))


# ---- RotaryEmbedding ------------------------------------------------------------------------------------------------


def rotate(x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Of [batch, heads, rows, size]; cos and sin are [batch, rows, half]."""
    y = x.astype(np.float64)
    half = cos.shape[-1]
    a, b = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(half), slice(half, 2 * half))
    c, s = cos[:, None].astype(np.float64), sin[:, None].astype(np.float64)
    real, imaginary = x[..., a].astype(np.float64), x[..., b].astype(np.float64)
    y[..., a], y[..., b] = c * real - s * imaginary, s * real + c * imaginary
    return y


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(dtype: str, interleaved: int, turned: int, rank: int) -> None:
    half = (turned or 8) // 2
    x, ids = draw(2, 3, 5, 8, dtype=dtype), RNG.integers(0, 11, (2, 5))
    cos, sin = draw(11, half, dtype=dtype), draw(11, half, dtype=dtype)
    expected = rotate(x, cos[ids], sin[ids], bool(interleaved))
    given = x
    if rank == 3:
        given, expected = rows_first(x), rows_first(expected)
    options: dict[str, Any] = {"interleaved": interleaved, "rotary_embedding_dim": turned, "num_heads": 3}
    tolerance = TOLERANCE[dtype]
    close(Case("RotaryEmbedding", given, cos, sin, ids, opset=23, **options).run()[0], expected, *tolerance)
    close(Case("RotaryEmbedding", given, cos[ids], sin[ids], opset=23, **options).run()[0], expected, *tolerance)
    if rank == 3:
        case = Case("RotaryEmbedding", given, ids, cos, sin, domain="com.microsoft", **options)
        close(run_typed(case, dtype, given.shape), expected, *tolerance)


def run_typed(case: Case, dtype: str, shape: tuple[int, ...]) -> Array:
    model = inferkit.Model.load(case.bytes_with_output(dtype, shape), input_checks=LENIENT)
    return model.run(case.inputs)["y0"]


def test_rotary_embedding_of_onnx_runtime() -> None:
    import onnxruntime

    x, cos, sin = draw(2, 5, 24), draw(11, 4), draw(11, 4)
    for ids in (RNG.integers(0, 11, (2, 5)), np.array([3])):
        case = Case("RotaryEmbedding", x, ids, cos, sin, domain="com.microsoft")
        data = case.bytes_with_output("float32", x.shape)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        close(run_typed(case, "float32", x.shape), session.run(None, case.inputs)[0])


def test_a_position_out_of_range() -> None:
    for domain, order in (("", (0, 2, 3, 1)), ("com.microsoft", (0, 1, 2, 3))):
        xs = [draw(1, 1, 2, 4), np.array([[0, 7]]), draw(7, 2), draw(7, 2)]
        case = Case("RotaryEmbedding", *(xs[i] for i in order), opset=23, domain=domain)
        with pytest.raises(inferkit.InferenceError, match="index 7 is out of range"):
            run_typed(case, "float32", (1, 1, 2, 4))


# ---- LinearAttention, CausalConvWithState, SwiGLU ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_swiglu(dtype: str) -> None:
    a, b = draw(3, 700, dtype=dtype), draw(3, 700, dtype=dtype)
    gate = a.astype(np.float64) / (1 + np.exp(-1.5 * a.astype(np.float64)))
    close(Case("SwiGLU", a, b, opset=28, alpha=1.5).run()[0], gate * b, *TOLERANCE[dtype])


def test_linear_attention_is_the_same_in_any_batch_and_in_pieces() -> None:
    b, t, h, dk, dv = 5, 6, 3, 8, 10
    xs = [draw(b, t, 2 * h * dk), draw(b, t, h * dk), draw(b, t, h * dv), draw(b, h, dk, dv)]
    xs += [-np.abs(draw(b, t, h)), np.abs(draw(b, t, h))]

    def run(*inputs: Array) -> list[Array]:
        return Case("LinearAttention", *inputs, outputs=2, opset=27, q_num_heads=2 * h, kv_num_heads=h).run()

    y, state = run(*xs)
    for row in range(b):
        one = run(*(x[row : row + 1] for x in xs))
        assert one[0].tobytes() == y[row].tobytes()
        assert one[1].tobytes() == state[row].tobytes()
    first = run(*(x if i == 3 else np.ascontiguousarray(x[:, :2]) for i, x in enumerate(xs)))
    second = run(*(first[1] if i == 3 else np.ascontiguousarray(x[:, 2:]) for i, x in enumerate(xs)))
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]], 1), y)
    np.testing.assert_array_equal(second[1], state)


OPERATORS = ("Attention", "RotaryEmbedding", "LinearAttention", "CausalConvWithState", "SwiGLU")


@pytest.mark.parametrize("case", node_test_cases(*OPERATORS), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)
