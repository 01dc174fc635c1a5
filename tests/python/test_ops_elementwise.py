"""Elementwise operators: against numpy in float64, ONNX Runtime, and the onnx package's own cases; special values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import op_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from op_cases import TOLERANCE, Array, Case, close

import inferkit

SEED = 20
INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
DTYPES = {name: np.dtype(name) for name in [*INTS, *FLOATS, "bool"]} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def elu(x: Array, a: float) -> Array:
    return np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x)


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


GELU_C = math.sqrt(2 / math.pi)
#: op, first opset, attributes, the function in float64, the interval from which inputs are drawn
UNARY: list[tuple[str, int, dict[str, Any], Callable[[Array], Array], tuple[float, float]]] = [
    ("Relu", 6, {}, lambda x: np.maximum(x, 0), (-3, 3)),
    ("LeakyRelu", 6, {"alpha": 0.25}, lambda x: np.where(x < 0, 0.25 * x, x), (-3, 3)),
    ("LeakyRelu", 16, {}, lambda x: np.where(x < 0, np.float32(0.01) * x, x), (-3, 3)),
    ("Elu", 6, {"alpha": 1.5}, lambda x: elu(x, 1.5), (-6, 3)),
    ("Selu", 6, {}, lambda x: 1.0507010221481323 * elu(x, 1.6732631921768188), (-6, 3)),
    ("Selu", 6, {"alpha": 2.0, "gamma": 3.0}, lambda x: 3 * elu(x, 2.0), (-6, 3)),
    ("Celu", 12, {"alpha": 2.0}, lambda x: np.where(x < 0, 2 * np.expm1(np.minimum(x, 0) / 2), x), (-6, 3)),
    ("Sigmoid", 6, {}, sigmoid, (-20, 20)),
    ("Tanh", 6, {}, np.tanh, (-10, 10)),
    ("Softplus", 7, {}, softplus, (-20, 20)),
    ("Softsign", 7, {}, lambda x: x / (1 + np.abs(x)), (-5, 5)),
    ("HardSigmoid", 6, {"alpha": 0.5, "beta": 0.25}, lambda x: np.clip(0.5 * x + 0.25, 0, 1), (-3, 3)),
    ("HardSwish", 14, {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), (-5, 5)),
    ("Mish", 18, {}, lambda x: x * np.tanh(softplus(x)), (-8, 8)),
    ("Gelu", 20, {}, lambda x: x / 2 * (1 + erf(x / math.sqrt(2))), (-5, 5)),
    ("Gelu", 20, {"approximate": "tanh"}, lambda x: x / 2 * (1 + np.tanh(GELU_C * (x + 0.044715 * x**3))), (-5, 5)),
    ("Swish", 24, {}, lambda x: x * sigmoid(x), (-8, 8)),
    ("Swish", 24, {"alpha": 1.5}, lambda x: x * sigmoid(1.5 * x), (-8, 8)),
    ("ThresholdedRelu", 10, {"alpha": 0.5}, lambda x: np.where(x > 0.5, x, 0), (-2, 2)),
    ("Exp", 6, {}, np.exp, (-8, 8)),
    ("Log", 6, {}, np.log, (0.01, 50)),
    ("Sqrt", 6, {}, np.sqrt, (0, 50)),
    ("Erf", 9, {}, erf, (-4, 4)),
    ("Abs", 6, {}, np.abs, (-3, 3)),
    ("Neg", 6, {}, np.negative, (-3, 3)),
    ("Sign", 9, {}, np.sign, (-3, 3)),
    ("Reciprocal", 6, {}, lambda x: 1 / x, (0.1, 9)),
    ("Floor", 6, {}, np.floor, (-9, 9)),
    ("Ceil", 6, {}, np.ceil, (-9, 9)),
    ("Round", 11, {}, np.round, (-9, 9)),
    ("Sin", 7, {}, np.sin, (-9, 9)),
    ("Cos", 7, {}, np.cos, (-9, 9)),
    ("Tan", 7, {}, np.tan, (-1.4, 1.4)),
    ("Asin", 7, {}, np.arcsin, (-1, 1)),
    ("Acos", 7, {}, np.arccos, (-1, 1)),
    ("Atan", 7, {}, np.arctan, (-9, 9)),
    ("Sinh", 9, {}, np.sinh, (-3, 3)),
    ("Cosh", 9, {}, np.cosh, (-3, 3)),
    ("Asinh", 9, {}, np.arcsinh, (-9, 9)),
    ("Acosh", 9, {}, np.arccosh, (1, 9)),
    ("Atanh", 9, {}, np.arctanh, (-0.99, 0.99)),
    ("Shrink", 9, {"lambd": 0.5, "bias": 0.25}, lambda x: np.where(x < -0.5, x + 0.25, np.where(x > 0.5, x - 0.25, 0)),
     (-2, 2)),
]  # fmt: skip
IDS = [f"{op}{'-'.join(['', *map(str, attributes.values())])}-{since}" for op, since, attributes, _, _ in UNARY]


def draw(shape: tuple[int, ...], bounds: tuple[float, float], dtype: str) -> Array:
    return np.random.default_rng(SEED).uniform(*bounds, shape).astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", [*FLOATS, "bfloat16"])
@pytest.mark.parametrize(("op", "since", "attributes", "oracle", "bounds"), UNARY, ids=IDS)
def test_unary(op: str, since: int, attributes: dict[str, Any], oracle: Any, bounds: Any, dtype: str) -> None:
    for shape in [(), (1,), (3, 5), (2, 3, 67)]:
        x = draw(shape, bounds, dtype)
        for opset in {since, 26}:
            (y,) = Case(op, x, opset=opset, **attributes).run()
            assert y.dtype == x.dtype
            expected = oracle(x.astype(np.float64))
            if dtype == "bfloat16":
                np.testing.assert_allclose(y.astype(np.float64), expected, rtol=2**-8, atol=1e-6)
            else:
                close(y, np.asarray(expected), *TOLERANCE[dtype])


def flushed(x: np.ndarray) -> np.ndarray:
    """Zeros for subnormals, as in every run; half precision keeps its own, which are normal float32."""
    if x.dtype not in (np.float32, np.float64):
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


@pytest.mark.parametrize(("op", "since", "attributes", "oracle", "bounds"), UNARY, ids=IDS)
def test_unary_against_onnxruntime(op: str, since: int, attributes: Any, oracle: Any, bounds: Any) -> None:
    case = Case(op, draw((4, 33), bounds, "float32"), opset=max(since, 12), **attributes)
    try:
        (expected,) = case.onnxruntime()
    except Exception as error:  # it has no kernel for this opset
        pytest.skip(str(error)[:80])
    close(case.run()[0], expected, 5e-5, 5e-6)


@pytest.mark.parametrize(("op", "since", "attributes", "oracle", "bounds"), UNARY, ids=IDS)
def test_unary_bits_do_not_depend_on_the_place(op: str, since: int, attributes: Any, oracle: Any, bounds: Any) -> None:
    for dtype in ["float32", "float16"]:
        x = draw((37, 19), bounds, dtype)
        model = Case(op, x, opset=max(since, 12), free_batch=True, **attributes).load()
        whole = model.run({"x0": x})["y0"]
        for rows in [slice(0, 1), slice(5, 6), slice(3, 20), slice(36, 37)]:
            assert model.run({"x0": x[rows]})["y0"].tobytes() == whole[rows].tobytes()


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 88.0, -104.0, 1.0], np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "since", "attributes", "oracle", "bounds"), UNARY, ids=IDS)
def test_unary_special_values(op: str, since: int, attributes: Any, oracle: Any, bounds: Any, dtype: str) -> None:
    x = SPECIAL.astype(dtype)
    (y,) = Case(op, x, opset=max(since, 12), **attributes).run()
    with np.errstate(all="ignore"):
        expected = flushed(oracle(flushed(x).astype(np.float64)).astype(dtype))
    limits = {"Softsign": (np.inf, 1.0), "Swish": (-np.inf, 0.0), "Mish": (-np.inf, 0.0), "Gelu": (-np.inf, 0.0)}
    limits["HardSwish"] = (-np.inf, 0.0)
    for i, v in enumerate(x):
        if op in {"Swish", "Mish", "Gelu", "HardSwish"} and v == -np.inf:
            assert y[i] == 0 or np.isnan(y[i])  # the limit, or what the formula says
        elif op == "Softsign" and np.isinf(v):
            assert y[i] == np.sign(v)
        elif op == "Shrink" and np.isnan(v):
            assert y[i] == 0  # neither above nor below
        elif op in {"Sin", "Cos", "Tan"} and abs(v) > 1e30:
            continue  # numpy's own argument reduction differs in the last places
        else:
            np.testing.assert_allclose(y[i], expected[i], rtol=1e-5, atol=2e-43, err_msg=f"{op}({v})")


def test_silu_and_gelu_keep_precision_in_the_tails() -> None:
    x = np.linspace(-12, 12, 1001)
    (y,) = Case("Gelu", x, opset=20).run()
    exact = np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in x])
    np.testing.assert_allclose(y, exact, rtol=1e-13)


@pytest.mark.parametrize("dtype", INTS)
def test_integer_unary(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([0, 1, 2, 7, info.max, info.min, info.max - 1], dtype)
    with np.errstate(all="ignore"):
        expected = {"Abs": np.abs(x), "Sign": np.sign(x), "BitwiseNot": ~x}
        if info.min < 0:
            expected |= {"Neg": -x, "Relu": np.maximum(x, 0)}
    for op, e in expected.items():
        (y,) = Case(op, x, opset=18).run()
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, e)


def test_not_is_nan_is_inf() -> None:
    flags = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(Case("Not", flags).run()[0], ~flags)
    for dtype in ["float32", "float64", "float16"]:
        x = np.array([np.nan, np.inf, -np.inf, 0, 1], dtype)
        np.testing.assert_array_equal(Case("IsNaN", x, opset=20).run()[0], np.isnan(x))
        for positive in (0, 1):
            for negative in (0, 1):
                (y,) = Case("IsInf", x, opset=20, detect_positive=positive, detect_negative=negative).run()
                np.testing.assert_array_equal(y, [False, positive, negative, False, False])


# Two operands.


def pairs(dtype: str) -> st.SearchStrategy[tuple[Array, Array]]:
    """Two arrays whose shapes broadcast, zero-size dimensions included."""
    shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=5)
    elements = hnp.from_dtype(np.dtype(dtype), allow_nan=False) if dtype in FLOATS else hnp.from_dtype(np.dtype(dtype))
    return shapes.flatmap(
        lambda s: st.tuples(*[hnp.arrays(dtype, shape, elements=elements) for shape in s.input_shapes])
    )


BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Min": np.minimum, "Max": np.maximum}
COMPARE = {
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8", "uint64"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_arithmetic_is_numpys_to_the_bit(dtype: str, data: st.DataObject) -> None:
    a, b = data.draw(pairs(dtype))
    op = data.draw(st.sampled_from(sorted(BINARY)))
    with np.errstate(all="ignore"):
        expected = flushed(BINARY[op](flushed(a), flushed(b)))
    (y,) = Case(op, a, b, opset=14).run()
    assert y.dtype == expected.dtype
    if op in {"Max", "Min"}:
        y = flushed(y)  # they choose one of the numbers, and may leave its bits as they are
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_comparisons(dtype: str, data: st.DataObject) -> None:
    a, b = data.draw(pairs(dtype))
    op = data.draw(st.sampled_from(sorted(COMPARE)))
    (y,) = Case(op, a, b, opset=19).run()
    assert y.dtype == bool
    np.testing.assert_array_equal(y, COMPARE[op](flushed(a), flushed(b)))


@pytest.mark.parametrize(
    "shapes",
    [
        ((300, 300, 3), (300, 1, 3)),
        ((1, 9, 1, 4), (40, 9, 300, 1)),
        ((7, 1, 5, 1, 3), (7, 6, 1, 900, 1)),
        ((70000, 2), (2,)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("op", "reference"),
    [("Add", np.add), ("Sub", np.subtract), ("Greater", np.greater), ("Less", np.less), ("Equal", np.equal)],
)
def test_broadcast_of_many_short_rows(
    op: str, reference: Callable[[Array, Array], Array], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """Long enough to be left between two blocks of rows, which begin anywhere in the nest."""
    rng = np.random.default_rng(SEED)
    for dtype in ("int8", "int16", "uint32", "uint64", "float64"):
        a, b = (rng.integers(0, 100, shape).astype(dtype) for shape in shapes)
        np.testing.assert_array_equal(Case(op, a, b, opset=14).run()[0], reference(a, b))


@pytest.mark.parametrize(
    "shapes", [((3000, 2), (3000, 1)), ((700, 3), (1, 3)), ((5, 1, 9), (4, 1)), ((2, 300), (2, 1))]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_rows_of_half_types(dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Of models that are not computed in float32 as a whole, as CastLike keeps the type."""
    rng = np.random.default_rng(SEED)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    nodes = [("Add", ["a", "b"], "s0"), ("CastLike", ["s0", "a"], "s"), ("Less", ["a", "b"], "l")]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(op, names, [out]) for op, names, out in nodes],
        "g",
        [helper.make_tensor_value_info(name, kind, x.shape) for name, x in (("a", a), ("b", b))],
        [helper.make_tensor_value_info(name, t, None) for name, t in (("s", kind), ("l", onnx.TensorProto.BOOL))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    total, less = inferkit.Model.load(model.SerializeToString())(a, b)
    wide = a.astype(np.float32) + b.astype(np.float32)
    assert total.tobytes() == wide.astype(dtype).tobytes()
    np.testing.assert_array_equal(less, a < b)


@pytest.mark.parametrize("shapes", [((64, 5), (5,)), ((3, 1), (1, 70)), ((2, 3, 4, 5), (3, 1, 1)), ((7, 1), (7, 300))])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "PRelu"])
def test_broadcast_floats(op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    rng = np.random.default_rng(SEED)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    if op == "PRelu":
        if np.broadcast_shapes(a.shape, b.shape) != a.shape:
            pytest.skip("the slope broadcasts one way")
        expected = np.where(a < 0, a * b, a)
    else:
        expected = {**BINARY, "Div": np.divide}[op](a, b)
    np.testing.assert_array_equal(Case(op, a, b, opset=16).run()[0], expected)
    if op != "PRelu":
        expected = {**BINARY, "Div": np.divide}[op](b, a)
        np.testing.assert_array_equal(Case(op, b, a, opset=16).run()[0], expected)


def test_the_same_value_twice() -> None:
    """In-place memory must not change what is read twice."""
    import onnx
    from onnx import TensorProto, helper

    x = np.random.default_rng(SEED).standard_normal((4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Exp", ["x"], ["b"]),
        helper.make_node("Sum", ["a", "b", "a"], ["c"]),
        helper.make_node("Sub", ["c", "c"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Max", ["e", "b", "e", "a"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 6])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    y = inferkit.Model.load(model.SerializeToString())(x)
    x64 = x.astype(np.float64)
    c = -x64 + np.exp(x64) - x64
    np.testing.assert_allclose(y, np.maximum(np.maximum(c, np.exp(x64)), -x64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_variadic(dtype: str) -> None:
    rng = np.random.default_rng(SEED)
    xs = [rng.standard_normal(s).astype(dtype) for s in [(3, 1), (4,), (2, 3, 4), ()]]
    total = xs[0].astype(np.float64) + xs[1] + xs[2] + xs[3]
    expected = {"Sum": total, "Mean": total / 4, "Min": np.minimum(np.minimum(xs[0], xs[1]), np.minimum(xs[2], xs[3]))}
    expected["Max"] = np.maximum(np.maximum(xs[0], xs[1]), np.maximum(xs[2], xs[3]))
    for op, e in expected.items():
        close(Case(op, *xs, opset=13).run()[0], e, *TOLERANCE[dtype])
        close(Case(op, xs[0], opset=13).run()[0], xs[0], 0, 0)


def test_nan_wins_in_min_and_max() -> None:
    a = np.array([np.nan, 1, np.nan, 2], np.float32)
    b = np.array([1, np.nan, np.nan, 3], np.float32)
    for dtype in FLOATS:
        for op, expected in [("Min", np.minimum(a, b)), ("Max", np.maximum(a, b))]:
            np.testing.assert_array_equal(Case(op, a.astype(dtype), b.astype(dtype), opset=13).run()[0], expected)


def test_half_types_round_once() -> None:
    rng = np.random.default_rng(SEED)
    for name in ["float16", "bfloat16"]:
        dtype = DTYPES[name]
        a, b = (rng.standard_normal(500).astype(dtype) for _ in range(2))
        for op, f in [("Add", np.add), ("Mul", np.multiply), ("Div", np.divide), ("Sub", np.subtract)]:
            for u, v in [(a, b), (a.reshape(5, 100), b[:100]), (a[:5, None], b), (a, b[:1])]:
                (y,) = Case(op, u, v, opset=14).run()
                expected = f(u.astype(np.float32), v.astype(np.float32)).astype(dtype)
                assert y.view(np.uint16).tolist() == expected.view(np.uint16).tolist()


def truncated(a: Array, b: Array) -> Array:
    """a / b towards zero, exactly."""
    q = [abs(int(x)) // abs(int(y)) * (1 if (int(x) < 0) == (int(y) < 0) else -1) for x, y in zip(a, b, strict=True)]
    return np.array([v & ((1 << a.dtype.itemsize * 8) - 1) for v in q], f"uint{a.dtype.itemsize * 8}").view(a.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize(
    "shapes",
    [
        [(), (), (7, 3)],
        [(3, 1), (3, 1), (3, 40)],
        [(1,), (1,), (1,), (2, 33)],
        [(5, 1), (1, 6), (1, 1)],
        [(2, 1, 1), (1, 3, 1), (1, 1, 20), (2, 3, 20)],
        [(4, 20), (), ()],
    ],
)
def test_variadic_grows_on_the_way(dtype: str, shapes: list[tuple[int, ...]]) -> None:
    """The first inputs together are smaller than the output: read as if they were not, they end too early."""
    rng = np.random.default_rng(SEED)
    xs = [np.asarray(rng.integers(-8, 8, shape), dtype) for shape in shapes]
    expected = {"Sum": functools.reduce(np.add, xs)}
    if dtype != "int32":
        expected["Mean"] = functools.reduce(np.add, xs) / np.dtype(dtype).type(len(xs))
    expected |= {"Max": functools.reduce(np.maximum, xs), "Min": functools.reduce(np.minimum, xs)}
    for op, want in expected.items():
        if dtype == "int32" and op == "Sum":
            continue  # ONNX has it for floats alone
        got = Case(op, *xs, opset=13).run()[0]
        assert got.dtype == want.dtype
        close(got, want, rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", INTS)
def test_integer_division(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = [v for v in [1, 2, 3, 7, -1, -2, -7, info.max, info.min, 100] if v != 0 and info.min <= v <= info.max]
    a, b = (np.array(v, dtype) for v in np.meshgrid(np.array(values, dtype), np.array(values, dtype)))
    a, b = a.ravel(), b.ravel()
    np.testing.assert_array_equal(Case("Div", a, b, opset=14).run()[0], truncated(a, b))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(Case("Mod", a, b, opset=13).run()[0], np.mod(a, b))
        np.testing.assert_array_equal(Case("Mod", a, b, opset=13, fmod=1).run()[0], np.fmod(a, b))
    for op in ["Div", "Mod"]:
        with pytest.raises(inferkit.InferenceError, match="division by zero"):
            Case(op, a, np.zeros_like(b), opset=14).run()


def test_float_mod() -> None:
    rng = np.random.default_rng(SEED)
    a, b = rng.uniform(-9, 9, (2, 200)).astype(np.float32)
    np.testing.assert_array_equal(Case("Mod", a, b, opset=13, fmod=1).run()[0], np.fmod(a, b))
    np.testing.assert_allclose(Case("Mod", a, b, opset=28).run()[0], np.mod(a, b), rtol=1e-6)
    x = np.array([0.0, -0.0, 5.0, -5.0, np.inf, 1.0, np.nan], np.float32)
    y = np.array([-3.0, 3.0, np.inf, np.inf, 2.0, 0.0, 1.0], np.float32)
    (z,) = Case("Mod", x, y, opset=28).run()
    np.testing.assert_array_equal(z, np.array([-0.0, 0.0, 5.0, np.inf, np.nan, np.nan, np.nan], np.float32))
    assert np.signbit(z[0])
    assert not np.signbit(z[1])
    with pytest.raises(inferkit.ModelError, match="fmod"):
        Case("Mod", a, b, opset=13).load()


POW_EXPONENTS: list[Any] = [2.0, 3.0, 0.5, -1.0, 1.7, 0.0, 1.0]


@pytest.mark.parametrize("exponent", POW_EXPONENTS)
@pytest.mark.parametrize("constant", [(), (1,)])
def test_pow(exponent: float, constant: tuple[int, ...]) -> None:
    x = np.concatenate([np.linspace(-3, 3, 41), [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    for dtype in FLOATS:
        a, e = x.astype(dtype), np.array(exponent, dtype)
        (y,) = Case("Pow", a, e, opset=13, constant=constant).run()
        with np.errstate(all="ignore"):
            # An array of exponents: for a single 0.5 numpy takes the square root, which differs from pow at -inf.
            expected = np.power(a.astype(np.float64), np.full(a.shape, e, np.float64)).astype(dtype)
        np.testing.assert_allclose(y, expected, rtol={"float16": 1e-3, "float32": 1e-7, "float64": 1e-15}[dtype])
        np.testing.assert_array_equal(np.signbit(y[~np.isnan(y)]), np.signbit(expected[~np.isnan(expected)]))


@pytest.mark.parametrize("base", ["int32", "int64", "float32", "float64", "float16"])
@pytest.mark.parametrize("exponent", [*INTS, *FLOATS])
def test_pow_of_mixed_types(base: str, exponent: str) -> None:
    a = np.array([[-3], [-1], [0], [1], [2], [7]], base)
    e = np.array([0, 1, 2, 3, 5], exponent)
    (y,) = Case("Pow", a, e, opset=15).run()
    assert y.dtype == a.dtype
    expected = a.astype(np.float64) ** e.astype(np.float64)
    np.testing.assert_allclose(y, expected, rtol=1e-3 if base == "float16" else 1e-6)


def test_integer_pow() -> None:
    a = np.array([3, -1, 1, 2, -1, 5], np.int64)
    e = np.array([39, -3, -9, -1, -2, 0], np.int64)
    np.testing.assert_array_equal(Case("Pow", a, e, opset=15).run()[0], [3**39, -1, 1, 0, 1, 1])
    with pytest.raises(inferkit.InferenceError, match="negative power"):
        Case("Pow", np.zeros(1, np.int64), np.array([-1], np.int64), opset=15).run()


def test_logic_and_bits() -> None:
    rng = np.random.default_rng(SEED)
    a, b = rng.integers(0, 2, (2, 3, 4)).astype(bool)
    for op, f in [("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)]:
        np.testing.assert_array_equal(Case(op, a, b[0]).run()[0], f(a, b[0]))
    for dtype in INTS:
        x, y = rng.integers(0, 127, (2, 5, 3)).astype(dtype)
        for op, f in [("BitwiseAnd", np.bitwise_and), ("BitwiseOr", np.bitwise_or), ("BitwiseXor", np.bitwise_xor)]:
            np.testing.assert_array_equal(Case(op, x, y, opset=18).run()[0], f(x, y))


@pytest.mark.parametrize("dtype", INTS)
def test_bit_shift(dtype: str) -> None:
    bits = np.dtype(dtype).itemsize * 8
    x = np.array([1, 5, np.iinfo(dtype).max, np.iinfo(dtype).min], dtype)[:, None]
    shift = np.array([0, 1, 3, bits - 1, bits, 100], dtype)
    for direction in ["LEFT", "RIGHT"]:
        expected = []
        for v in x.ravel():
            row = []
            for s in shift:
                wide = (int(v) << int(s)) if direction == "LEFT" else (int(v) >> int(s))
                row.append(np.uint64(wide & 0xFFFF_FFFF_FFFF_FFFF).astype(f"uint{bits}"))
            expected.append(row)
        case = Case("BitShift", x, shift, opset=28, direction=direction)
        np.testing.assert_array_equal(case.run()[0].view(f"uint{bits}"), np.array(expected))
        if np.iinfo(dtype).min < 0:
            with pytest.raises(inferkit.UnsupportedOpError):
                Case("BitShift", x, shift, opset=11, direction=direction).load()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_where(data: st.DataObject) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=4))
    dtype = data.draw(st.sampled_from(["float32", "int64", "uint8", "float16", "bool"]))
    rng = np.random.default_rng(SEED)
    c, x, y = (rng.integers(0, 2, s) for s in shapes.input_shapes)
    x, y = (x * 3).astype(dtype), (y * 5 + 1).astype(dtype)
    np.testing.assert_array_equal(Case("Where", c.astype(bool), x, y, opset=16).run()[0], np.where(c, x, y))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS])
def test_clip(dtype: str) -> None:
    x = np.arange(0, 60).astype(dtype).reshape(3, 20)
    low, high = np.array(7, dtype), np.array(31, dtype)
    for constant in [(), (1, 2)]:
        for lo, hi in [(low, high), (None, high), (low, None), (high, low)]:
            given = [i for i in constant if (lo, hi)[i - 1] is not None]
            (y,) = Case("Clip", x, lo, hi, opset=13, constant=given).run()
            expected = x if lo is None else np.maximum(x, lo)
            np.testing.assert_array_equal(y, expected if hi is None else np.minimum(expected, hi))
    np.testing.assert_array_equal(Case("Clip", x, opset=13).run()[0], x)
    if dtype in FLOATS:
        np.testing.assert_array_equal(Case("Clip", x, opset=6, min=7.0, max=31.0).run()[0], np.clip(x, 7, 31))


def test_clip_of_special_values() -> None:
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(Case("Clip", x, np.float32(0), np.float32(1), opset=13).run()[0], [np.nan, 1, 0])
    np.testing.assert_array_equal(Case("Clip", x, np.float32(0), opset=13).run()[0], [np.nan, np.inf, 0])
    for lo, hi in [(np.nan, 1.0), (0.0, np.nan), (np.nan, np.nan), (np.nan, None), (None, np.nan)]:
        for dtype in FLOATS:
            v = np.resize(np.array([0.5, 3, -np.inf], dtype), 50)
            bounds = [None if b is None else np.array(b, dtype) for b in (lo, hi)]
            for constant in [[], [i for i in (1, 2) if bounds[i - 1] is not None]]:
                assert np.isnan(Case("Clip", v, *bounds, opset=13, constant=constant).run()[0]).all()
    old = Case("Clip", np.ones(3, np.float32), opset=6, min=np.nan)
    assert np.isnan(old.run()[0]).all()


# Cast.


def code_of(dtype: np.dtype[Any]) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(dtype)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_cast_in_range(source: str, target: str) -> None:
    low = 0 if "u" in source[:1] + target[:1] or "bool" in (source, target) else -90
    x = np.arange(low, 100).astype(DTYPES[source])
    if source in [*FLOATS, "bfloat16"] and target != "bool":
        x = (x + x.dtype.type(0.4375)).astype(x.dtype)
    (y,) = Case("Cast", x, opset=19, to=code_of(DTYPES[target])).run()
    assert y.dtype == DTYPES[target]
    # bfloat16's own casts go through float32, which is exact here.
    via = x.astype(np.float64) if "bfloat16" in (source, target) and source != "bool" else x
    expected = via != 0 if target == "bool" else via.astype(DTYPES[target])
    assert y.tobytes() == expected.tobytes()
    (like,) = Case("CastLike", x, np.zeros(1, DTYPES[target]), opset=19).run()
    assert like.tobytes() == y.tobytes()


@pytest.mark.parametrize("source", INTS)
@pytest.mark.parametrize("target", INTS)
def test_integers_wrap(source: str, target: str) -> None:
    info = np.iinfo(source)
    x = np.array([info.min, info.max, info.max // 2, info.max - 77, info.min // 3], source)
    np.testing.assert_array_equal(Case("Cast", x, opset=13, to=code_of(DTYPES[target])).run()[0], x.astype(target))


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", INTS)
def test_floats_saturate(source: str, target: str) -> None:
    info = np.iinfo(target)
    x = np.array([np.inf, -np.inf, np.nan, 6e4, -6e4, 1.9, -1.9, 127.5, -128.5, 255.5], source)
    if source != "float16":
        x = np.concatenate([x, np.array([1e30, -1e30, 2.0**63, -(2.0**63), 2.0**64, 2.0**31, 2.0**32], source)])
    expected = [0 if math.isnan(v) else int(min(max(v, info.min), info.max)) for v in map(float, x)]
    (y,) = Case("Cast", x, opset=13, to=code_of(DTYPES[target])).run()
    assert y.tolist() == expected


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 40])
def test_subnormal_halves_are_numbers_wherever_they_lie(length: int) -> None:
    """A run takes subnormal floats for zero; halves that are subnormal are none in float32."""
    bits = np.concatenate([np.arange(0x402, dtype=np.uint16), 0x8000 + np.arange(0x402, dtype=np.uint16)])
    model = Case("Cast", bits[:length].view(np.float16), to=1).load()
    for at in range(0, len(bits) - length, max(length, 5)):
        x = bits[at : at + length].view(np.float16)
        assert model.run({"x0": x})["y0"].tobytes() == x.astype(np.float32).tobytes()


def test_casts_round_once() -> None:
    """A double between two halves, closer to one, and to their middle once it is a float."""
    rng = np.random.default_rng(SEED)
    x = np.concatenate(
        [1 + 2.0**-11 + np.array([1, -1, 0]) * 2.0**-40, rng.standard_normal(4000) * 10.0 ** rng.uniform(-9, 6, 4000)]
    )
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert Case("Cast", x, opset=13, to=10).run()[0].tobytes() == expected.tobytes()
    near = 1 + 2.0**-8 + np.array([1, -1, 0]) * 2.0**-40
    (y,) = Case("Cast", near, opset=13, to=16).run()
    np.testing.assert_array_equal(y.astype(np.float64), [1 + 2.0**-7, 1, 1])
    wide = np.array([(1 << 62) + (1 << 54) + 1, (1 << 62) + (1 << 54), -((1 << 62) + (1 << 54) + 1)], np.int64)
    (y,) = Case("Cast", wide, opset=13, to=16).run()
    step = 2.0**62 * 2.0**-7
    np.testing.assert_array_equal(y.astype(np.float64), [2.0**62 + step, 2.0**62, -(2.0**62) - step])


# Refusals.


def test_refusals() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(inferkit.ModelError, match="do not broadcast"):
        Case("Add", x, np.zeros((4, 3), np.float32)).load()
    with pytest.raises(inferkit.ModelError, match="one type"):
        Case("Add", x, x.astype(np.float64)).load()
    with pytest.raises(inferkit.UnsupportedOpError, match="bool"):
        Case("Add", x.astype(bool), x.astype(bool)).load()
    with pytest.raises(inferkit.UnsupportedOpError, match="int32"):
        Case("Exp", x.astype(np.int32)).load()
    with pytest.raises(inferkit.UnsupportedOpError, match="approximate"):
        Case("Gelu", x, opset=20, approximate="cubic").load()
    with pytest.raises(inferkit.UnsupportedOpError, match="COMPLEX64"):
        Case("Cast", x, opset=19, to=14).load()
    with pytest.raises(inferkit.ModelError, match="slope"):
        Case("PRelu", np.zeros((3,), np.float32), x, opset=16).load()
    with pytest.raises(inferkit.ModelError, match="condition"):
        Case("Where", x, x, x, opset=16).load()
    with pytest.raises(inferkit.ModelError, match="scalar"):
        Case("Clip", x, np.zeros(2, np.float32), opset=13).load()


NODE_OPS = sorted(
    {op for op, *_ in UNARY} | set(BINARY) | set(COMPARE)
    | {"Div", "Mod", "Pow", "PRelu", "Sum", "Mean", "And", "Or", "Xor", "Not", "BitShift", "BitwiseAnd", "BitwiseOr",
       "BitwiseXor", "BitwiseNot", "IsNaN", "IsInf", "Where", "Clip", "Cast", "CastLike"}
)  # fmt: skip


@pytest.mark.parametrize("op", NODE_OPS)
def test_onnx_node_cases(op: str) -> None:
    ran = 0
    for case in op_cases.node_test_cases(op):
        op_cases.check_node_test(case)
        ran += 1
    assert ran > 0
