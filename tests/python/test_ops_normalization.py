"""Normalisations against float64 numpy, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from op_cases import LENIENT, TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

FLOATS = ["float32", "float64", "float16"]
SHAPES = [(2, 3), (4, 16), (2, 5, 7), (3, 8, 6, 5), (1, 4, 1, 1), (2, 12, 30, 33), (2, 4, 3, 4, 5)]


def draw(seed: int, *shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def f32(v: float) -> float:
    """As a float attribute holds it."""
    return float(np.float32(v))


def channels(v: Array, x: Array) -> Array:
    return v.astype(np.float64).reshape(1, -1, *(1,) * (x.ndim - 2))


def batch_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float) -> Array:
    x64 = x.astype(np.float64)
    return (x64 - channels(mean, x)) / np.sqrt(channels(var, x) + f32(epsilon)) * channels(scale, x) + channels(bias, x)


def standardize(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + f32(epsilon))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("constant", [(), (1, 2, 3, 4), (1, 2)])
def test_batch_normalization(dtype: str, shape: tuple[int, ...], opset: int, constant: tuple[int, ...]) -> None:
    c = shape[1]
    parameters = [draw(i, c, dtype=dtype) for i in range(3)] + [np.abs(draw(4, c, dtype=dtype)) + np.ones(1, dtype)]
    x = draw(5, *shape, dtype=dtype)
    case = Case("BatchNormalization", x, *parameters, opset=opset, constant=constant, epsilon=1e-3)
    rtol, atol = TOLERANCE[dtype]
    close(case.run()[0], batch_norm(x, *parameters, 1e-3), 2 * rtol, 5 * atol)


def test_batch_normalization_with_parameters_of_another_type() -> None:
    x, parameters = draw(1, 3, 4, 5, dtype="float16"), [np.abs(draw(i, 4)) + 0.5 for i in range(4)]
    close(Case("BatchNormalization", x, *parameters, opset=15).run()[0], batch_norm(x, *parameters, 1e-5), 2e-3, 2e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("constant", [(), (1, 2, 3, 4)])
def test_training(dtype: str, shape: tuple[int, ...], outputs: int, constant: tuple[int, ...]) -> None:
    c = shape[1]
    scale, bias, mean, var = [draw(i, c, dtype=dtype) for i in range(3)] + [np.abs(draw(4, c, dtype=dtype))]
    x = draw(5, *shape, dtype=dtype)
    attributes = {"training_mode": 1, "momentum": 0.75, "epsilon": 1e-3}
    case = Case(
        "BatchNormalization", x, scale, bias, mean, var, opset=15, constant=constant, outputs=outputs, **attributes
    )
    got = case.run()
    axes, x64 = tuple(i for i in range(x.ndim) if i != 1), x.astype(np.float64)
    now, spread = x64.mean(axes), x64.var(axes)
    want = [batch_norm(x, scale, bias, now, spread, 1e-3)]
    want += [before.astype(np.float64) * 0.75 + s * 0.25 for before, s in ((mean, now), (var, spread))]
    rtol, atol = TOLERANCE[dtype]
    for a, b in zip(got, want, strict=False):
        close(a, b, 4 * rtol, 8 * atol)
    assert len(got) == outputs


@pytest.mark.parametrize("op", ["BatchNormalization", "MeanVarianceNormalization"])
def test_what_takes_all_rows_together(op: str) -> None:
    """A batcher runs each request by itself, and its answer is the model's own."""
    x, p = draw(1, 6, 3, 2, 2), np.ones(3, np.float32)
    training = Case(op, x, p, p, p, p, opset=15, training_mode=1, free_batch=True, constant=(1, 2, 3, 4))
    model = (training if op == "BatchNormalization" else Case(op, x, free_batch=True)).load()
    with inferkit.Batcher(model) as batcher:
        tickets = [batcher.submit(x[i : i + 2]) for i in (0, 2, 4)]
        for i, ticket in zip((0, 2, 4), tickets, strict=True):
            assert ticket.result().tobytes() == model(x[i : i + 2]).tobytes()
        assert batcher.stats().batches == 3


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("read", [("y0",), ("y0", "y1", "y2", "y3", "y4")], ids=["one", "all"])
@pytest.mark.parametrize("constant", [(), (1, 2, 3, 4)])
def test_before_opset_14_five_outputs_say_that_it_trains(
    opset: int, read: tuple[str, ...], constant: tuple[int, ...]
) -> None:
    """Whoever reads them: as the operator's text has it, and as ONNX Runtime runs it."""
    parameters = [draw(i, 3) for i in range(3)] + [np.abs(draw(4, 3))]
    x = draw(5, 4, 3, 5)
    case = Case(
        "BatchNormalization", x, *parameters, opset=opset, constant=constant, outputs=5, momentum=0.75, epsilon=1e-3
    )
    model = onnx.load_from_string(case.bytes)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in read)
    case.bytes, case.outputs = model.SerializeToString(), list(read)
    got = case.run()
    x64 = x.astype(np.float64)
    now, spread = x64.mean((0, 2)), x64.var((0, 2))
    close(got[0], batch_norm(x, parameters[0], parameters[1], now, spread, 1e-3), 1e-4, 1e-5)
    for found, wanted in zip(got, case.onnxruntime(), strict=True):
        close(found, wanted, 1e-4, 1e-5)
    assert case.load()._mixing_node


@pytest.mark.parametrize("mean", [1e4, 1e6, -1e6])
@pytest.mark.parametrize("shape", [(8, 4, 100), (500, 4), (2, 4, 5000)])
def test_training_far_from_zero_keeps_the_digits_of_the_spread(mean: float, shape: tuple[int, ...]) -> None:
    x = (draw(1, *shape).astype(np.float64) + mean).astype(np.float32)
    scale, bias, zero, one = draw(2, 4), draw(3, 4), np.zeros(4, np.float32), np.ones(4, np.float32)
    axes, x64 = tuple(i for i in range(x.ndim) if i != 1), x.astype(np.float64)
    case = Case("BatchNormalization", x, scale, bias, zero, one, opset=15, training_mode=1)
    close(case.run()[0], batch_norm(x, scale, bias, x64.mean(axes), x64.var(axes), 1e-5), 1e-5, 1e-5)


def test_training_that_cannot_be_is_refused() -> None:
    x, p = draw(1, 2, 3), np.ones(3, np.float32)
    old = Case("BatchNormalization", x, p, p, p, p, opset=13, outputs=3)
    with pytest.raises(inferkit.UnsupportedOpError, match="output 1, which only training fills"):
        inferkit.Model.load(old.bytes_with_output("float32", (2, 3)))
    three = Case("BatchNormalization", x, p, p, p, np.ones(2, np.float32), opset=15)
    with pytest.raises(inferkit.ModelError, match="input 4 has shape"):
        inferkit.Model.load(three.bytes_with_output("float32", (2, 3)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 64), (2, 3, 4, 33), (300,), (1, 1)])
def test_layer_normalization(dtype: str, shape: tuple[int, ...]) -> None:
    x = 3 * draw(1, *shape, dtype=dtype) + np.ones(1, dtype)
    for axis in range(-len(shape), len(shape)):
        behind = shape[axis % len(shape) :]
        scale, bias = draw(2, *behind, dtype=dtype), draw(3, *behind, dtype=dtype)
        axes = tuple(range(axis % len(shape), len(shape)))
        expected = standardize(x, axes, 1e-4) * scale
        rtol, atol = TOLERANCE[dtype]
        case = Case("LayerNormalization", x, scale, axis=axis, epsilon=1e-4)
        close(case.run()[0], expected, 4 * rtol, 5 * atol)
        case = Case("LayerNormalization", x, scale, bias, outputs=3, axis=axis, epsilon=1e-4, constant=(1, 2))
        y, mean, inverse = case.run()
        close(y, expected + bias, 4 * rtol, 5 * atol)
        x64 = x.astype(np.float64)
        close(mean, x64.mean(axes, keepdims=True))
        close(inverse, 1 / np.sqrt(x64.var(axes, keepdims=True) + 1e-4))
        assert mean.dtype == inverse.dtype == np.float32


def spread(v: Array, x: Array) -> Array:
    return np.ascontiguousarray(np.broadcast_to(v, x.shape))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("axis", [-1, -2, 1, 0])
@pytest.mark.parametrize("constant", [(), (1, 2)])
def test_scale_and_bias_are_broadcast(dtype: str, op: str, axis: int, constant: tuple[int, ...]) -> None:
    """To the input, from any shape that fits, with the bits of those that are written out."""
    x = draw(1, 3, 4, 6, 20, dtype=dtype)
    axes = tuple(range(axis % 4, 4))
    x64 = x.astype(np.float64)
    plain = standardize(x, axes, 1e-5)
    if op == "RMSNormalization":
        plain = x64 / np.sqrt((x64**2).mean(axes, keepdims=True) + f32(1e-5))
    shapes = [(), (1,), (20,), (1, 20), (6, 1), (1, 1, 1, 20), (4, 6, 20), (3, 1, 1, 1), (4, 1, 20), (3, 4, 1, 20)]
    for number, shape in enumerate(shapes):
        scale, bias = draw(2, *shape, dtype=dtype), draw(3, *shapes[number - 3], dtype=dtype)
        given = [x, scale] if op == "RMSNormalization" else [x, scale, bias]
        y = Case(op, *given, opset=23, axis=axis, constant=constant[: len(given) - 1]).run()[0]
        expected = plain * scale
        close(y, expected + bias if len(given) == 3 else expected, 4 * TOLERANCE[dtype][0], 5 * TOLERANCE[dtype][1])
        if axis == 0:
            written = [x, *(spread(v, x) for v in given[1:])]
            np.testing.assert_array_equal(y, Case(op, *written, opset=23, axis=0).run()[0])


def test_a_row_of_a_batch_has_its_own_scale() -> None:
    x, scale = draw(1, 5, 3, 8), draw(2, 5, 1, 8)
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"], name="n")
    ports = [helper.make_tensor_value_info(n, 1, ("n", d, 8)) for n, d in (("x", 3), ("s", 1), ("y", 3))]
    graph = helper.make_graph([node], "g", ports[:2], ports[2:])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(content)
    y = model(x, scale)
    close(y, standardize(x, (2,), 1e-5) * scale)
    with inferkit.Batcher(model, caller_runs=False) as batcher:
        tickets = [batcher.submit(x[i : i + 1], scale[i : i + 1]) for i in range(5)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(timeout=60), y[i : i + 1])


@pytest.mark.parametrize("dtype", FLOATS)
def test_rms_normalization(dtype: str) -> None:
    x = draw(1, 3, 4, 50, dtype=dtype)
    for axis in (-1, 1, -2):
        axes = tuple(range(axis % 3, 3))
        scale = draw(2, *x.shape[axes[0] :], dtype=dtype)
        x64 = x.astype(np.float64)
        expected = x64 / np.sqrt((x64**2).mean(axes, keepdims=True) + f32(1e-5)) * scale
        close(Case("RMSNormalization", x, scale, opset=23, axis=axis).run()[0], expected, *TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 50), (3, 8, 6, 5), (1, 4, 1, 1), (2, 4, 3, 4, 5)])
def test_instance_normalization(dtype: str, shape: tuple[int, ...]) -> None:
    x, scale, bias = draw(1, *shape, dtype=dtype), draw(2, shape[1], dtype=dtype), draw(3, shape[1], dtype=dtype)
    expected = standardize(x, tuple(range(2, len(shape))), 1e-2) * channels(scale, x) + channels(bias, x)
    rtol, atol = TOLERANCE[dtype]
    close(Case("InstanceNormalization", x, scale, bias, epsilon=1e-2).run()[0], expected, 2 * rtol, 2 * atol)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("spatial", [(), (1,), (50,), (6, 5)])
def test_group_normalization(dtype: str, opset: int, groups: int, spatial: tuple[int, ...]) -> None:
    x = draw(1, 3, 8, *spatial, dtype=dtype)
    if np.prod(x.shape[1:]) == groups:
        return  # one element each: all zeros
    count = groups if opset == 18 else 8
    scale, bias = draw(2, count, dtype=dtype), draw(3, count, dtype=dtype)
    normal = standardize(x.reshape(3, groups, -1), (2,), 1e-5).reshape(x.shape)
    repeat = 8 // count
    expected = normal * channels(scale.repeat(repeat), x) + channels(bias.repeat(repeat), x)
    case = Case("GroupNormalization", x, scale, bias, opset=opset, num_groups=groups)
    rtol, atol = TOLERANCE[dtype]
    close(case.run()[0], expected, 4 * rtol, 4 * atol)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_lrn(dtype: str, size: int) -> None:
    x = draw(1, 2, 9, 6, 7, dtype=dtype)
    alpha, beta, bias = 0.5, 0.75, 1.5
    square = np.pad(x.astype(np.float64) ** 2, [(0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)])
    total = sum(square[:, i : i + 9] for i in range(size))
    expected = x / (bias + alpha / size * total) ** beta
    close(Case("LRN", x, size=size, alpha=alpha, beta=beta, bias=bias).run()[0], expected, *TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lrn_of_half_types_is_rounded_once(dtype: str) -> None:
    """Also where float32 has no squares, and where the base is negative and the exponent whole."""
    x = draw(1, 2, 9, 6, 7, dtype=dtype)
    x[0, :3, 0, 0] = [100, 1e20, 3e10] if dtype == "bfloat16" else [100, 60000, 3]
    for beta, bias in ((0.75, 1.5), (1.0, -2e4)):
        square = np.pad(x.astype(np.float64) ** 2, [(0, 0), (1, 1), (0, 0), (0, 0)])
        expected = x.astype(np.float64) * (bias + 0.5 / 3 * sum(square[:, i : i + 9] for i in range(3))) ** -beta
        model = onnx.load_from_string(Case("LRN", x, size=3, alpha=0.5, beta=beta, bias=bias).with_output_types())
        model.opset_import[0].version = 19
        model.graph.node[0].output[0] = "y"
        model.graph.node.append(helper.make_node("CastLike", ["y", "x0"], [model.graph.output[0].name]))
        y = inferkit.Model.load(model, input_checks=LENIENT)(x)
        assert y.astype(np.float64).tolist() == expected.astype(dtype).astype(np.float64).tolist()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [2**40, 2**63 - 2, 2**63 - 1])
def test_lrn_over_more_channels_than_can_be_counted(dtype: str, size: int) -> None:
    x = draw(1, 2, 9, 6, dtype=dtype)
    total = (x.astype(np.float64) ** 2).sum(1, keepdims=True)
    y = Case("LRN", x, size=size, alpha=float(2**60), beta=0.75, bias=1.5).run()[0]
    close(y, x / (1.5 + 2**60 / size * total) ** 0.75, *TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(dtype: str, p: int) -> None:
    x = draw(1, 3, 4, 5, dtype=dtype)
    x[1, :, 2] = 0
    for axis in (-1, 0, 1):
        x64 = x.astype(np.float64)
        norm = (np.abs(x64) ** p).sum(axis, keepdims=True) ** (1 / p)
        expected = x64 / np.where(norm == 0, 1, norm)
        close(Case("LpNormalization", x, axis=axis, p=p).run()[0], expected, *TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [None, (0, 2, 3), (2, 3), (-1,), (1,)])
def test_mean_variance_normalization(dtype: str, axes: tuple[int, ...] | None) -> None:
    x = draw(1, 3, 4, 5, 6, dtype=dtype)
    attributes: dict[str, Any] = {} if axes is None else {"axes": list(axes)}
    over, x64 = axes or (0, 2, 3), x.astype(np.float64)
    expected = (x64 - x64.mean(over, keepdims=True)) / (x64.std(over, keepdims=True) + 1e-9)
    rtol, atol = TOLERANCE[dtype]
    close(Case("MeanVarianceNormalization", x, **attributes).run()[0], expected, 4 * rtol, 4 * atol)


@pytest.mark.parametrize(
    ("op", "shape", "parameters", "attributes"),
    [
        ("BatchNormalization", (7, 5, 9, 3), [5, 5, 5, 5], {}),
        ("BatchNormalization", (7, 40), [40, 40, 40, 40], {}),
        ("LayerNormalization", (7, 5, 33), [33, 33], {}),
        ("InstanceNormalization", (7, 5, 33), [5, 5], {}),
        ("GroupNormalization", (7, 6, 33), [6, 6], {"num_groups": 2, "opset": 21}),
        ("LRN", (7, 6, 5, 33), [], {"size": 3}),
        ("LpNormalization", (7, 6, 5), [], {}),
    ],
)
def test_a_row_has_the_same_bits_in_any_batch(
    op: str, shape: tuple[int, ...], parameters: list[int], attributes: dict[str, Any]
) -> None:
    x = draw(1, *shape)
    given = [np.abs(draw(i, n)) for i, n in enumerate(parameters)]
    constant = range(1, 1 + len(given))
    model = Case(op, x, *given, constant=constant, free_batch=True, **attributes).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


def test_threads_change_no_bit() -> None:
    x, p = draw(1, 8, 64, 40, 40), [np.abs(draw(i, 64)) for i in range(4)]
    for op, given in (("BatchNormalization", p), ("InstanceNormalization", p[:2])):
        case = Case(op, x, *given)
        assert case.run(threads=1)[0].tobytes() == case.run(threads=4)[0].tobytes()


@pytest.mark.parametrize("n", [4, 33, 256, 1000, 5000])
@pytest.mark.parametrize("far", [0.0, 1e3, -8e4, 1e6])
def test_the_spread_keeps_its_digits_far_from_zero(n: int, far: float) -> None:
    """Decision 025: at a mean of 1e6, one in float32 may be off by a twentieth of this spread."""
    x = (far + np.arange(3 * n).reshape(3, n) * 7 % 5).astype(np.float32)
    want = standardize(x, (-1,), 1e-5)
    one, zero = np.ones(n, np.float32), np.zeros(n, np.float32)
    layer = Case("LayerNormalization", x, one, zero, constant=(1, 2), opset=17, epsilon=1e-5)
    close(layer.run()[0], want, 1e-5, 1e-5)
    three = (np.ones(3, np.float32), np.zeros(3, np.float32))
    instance = Case("InstanceNormalization", x[None], *three, constant=(1, 2), opset=17, epsilon=1e-5)
    close(instance.run()[0], want[None], 1e-5, 1e-5)
    group = Case("GroupNormalization", x[None], *three, constant=(1, 2), opset=21, epsilon=1e-5, num_groups=3)
    close(group.run()[0], want[None], 1e-5, 1e-5)


def test_equal_values_have_no_spread() -> None:
    for value in (0.1, 1234.0, -3.3e7):
        x, one, zero = np.full((2, 1000), value, np.float32), np.ones(1000, np.float32), np.zeros(1000, np.float32)
        y = Case("LayerNormalization", x, one, zero, constant=(1, 2), opset=17, epsilon=1e-5).run()[0]
        assert np.abs(y).max() < 1e-2


def test_malformed() -> None:
    x = draw(1, 2, 6, 5)
    for case in (
        Case("GroupNormalization", x, draw(1, 4), draw(2, 4), opset=21, num_groups=4),
        Case("InstanceNormalization", x, draw(1, 5), draw(2, 5)),
        Case("LayerNormalization", x, draw(1, 4)),
        Case("LayerNormalization", x, draw(1, 1, 2, 6, 5)),
        Case("LayerNormalization", x, None),
        Case("LayerNormalization", x, None, draw(1, 5)),
        Case("RMSNormalization", x, None, opset=23),
    ):
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(case.bytes_with_output("float32", x.shape))


OPS = (
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "LRN",
    "LpNormalization",
    "MeanVarianceNormalization",
)


@pytest.mark.parametrize("case", node_test_cases(*OPS), ids=lambda c: c.name)
def test_onnx_node(case: Any) -> None:
    check_node_test(case)
