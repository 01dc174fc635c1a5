"""Operators of opsets before 7, whose second operand was broadcast from an axis that an attribute named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)


def load(op: str, *shapes: tuple[int, ...], boolean: bool = False, **attributes: object) -> inferkit.Model:
    names = [f"i{n}" for n in range(len(shapes))]
    kind = TensorProto.BOOL if boolean else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], name="culprit", **attributes)],
        "g",
        [helper.make_tensor_value_info(n, kind, s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    return inferkit.Model.load(made.SerializeToString())


ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
COMPARISON = {"Greater": np.greater, "Less": np.less}


@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISON])
@pytest.mark.parametrize(("axis", "shape"), [(0, (2,)), (0, (2, 3)), (1, (3,)), (1, (3, 4)), (2, (4, 5)), (3, (5,))])
def test_broadcast_from_an_axis(op: str, axis: int, shape: tuple[int, ...]) -> None:
    b = rng.standard_normal(shape).astype(np.float32)
    got = load(op, X.shape, shape, broadcast=1, axis=axis).run({"i0": X, "i1": b})["y"]
    aligned = b.reshape(*shape, *[1] * (X.ndim - axis - len(shape)))
    np.testing.assert_allclose(got, (ARITHMETIC | COMPARISON)[op](X, aligned), rtol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1,), ()])
def test_broadcast_without_an_axis(shape: tuple[int, ...]) -> None:
    b = np.abs(rng.standard_normal(shape)).astype(np.float32) + 1
    got = load("Add", X.shape, shape, broadcast=1).run({"i0": X, "i1": b})["y"]
    np.testing.assert_allclose(got, X + b, rtol=1e-6)
    got = load("Pow", X.shape, shape, broadcast=1).run({"i0": np.abs(X), "i1": b})["y"]
    np.testing.assert_allclose(got, np.abs(X) ** b, rtol=1e-4)


def test_logic() -> None:
    a, b = rng.random((2, 3)) < 0.5, rng.random(2) < 0.5
    for op, fn in {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}.items():
        got = load(op, (2, 3), (2,), boolean=True, broadcast=1, axis=0).run({"i0": a, "i1": b})["y"]
        np.testing.assert_array_equal(got, fn(a, b[:, None]))


@pytest.mark.parametrize("slopes", [1, 3])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_prelu_by_channel(rank: int, slopes: int) -> None:
    x, slope = X[(..., *[0] * (4 - rank))], rng.random(slopes).astype(np.float32)
    got = load("PRelu", x.shape, slope.shape).run({"i0": x, "i1": slope})["y"]
    np.testing.assert_allclose(got, np.where(x < 0, x * slope.reshape(-1, *[1] * (rank - 2)), x), rtol=1e-6)


@pytest.mark.parametrize("c", [(4, 3), (3,), (1,)])
def test_gemm(c: tuple[int, ...]) -> None:
    a, b, bias = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4), (2, 3), c))
    model = load("Gemm", a.shape, b.shape, c, broadcast=1, transA=1, alpha=0.5, beta=2.0)
    got = model.run({"i0": a, "i1": b, "i2": bias})["y"]
    np.testing.assert_allclose(got, 0.5 * a.T @ b + 2 * bias, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(inferkit.UnsupportedOpError, match="axis"):
        load("Add", X.shape, (3,), broadcast=1, axis=-3)
    for axis, shape in ((3, (4, 5)), (1, (4,))):
        with pytest.raises(inferkit.ModelError):
            load("Add", X.shape, shape, broadcast=1, axis=axis)


def test_newer_opsets_are_not_touched() -> None:
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 7]> g (float[2, 3, 4] x, float[4] s) => (float[2, 3, 4] y)
        { y = PRelu(x, s) }"""
    )
    x, s = X[..., 0][:, :, :4], rng.random(4).astype(np.float32)
    got = inferkit.Model.load(graph.SerializeToString()).run({"x": x, "s": s})["y"]
    np.testing.assert_allclose(got, np.where(x < 0, x * s, x), rtol=1e-6)
