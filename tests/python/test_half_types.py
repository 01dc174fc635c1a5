"""Operators of half types compute in float and round once: no intermediate result is rounded or overflows."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from op_cases import Array, Case

import inferkit

TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def rounded_once(found: Array, exact: Array) -> None:
    """Within a little more than half a unit in the last place of its type."""
    info = ml_dtypes.finfo(found.dtype)
    wide = found.astype(np.float64)
    with np.errstate(over="ignore"):
        nearest = exact.astype(found.dtype).astype(np.float64)
    least = max(float(info.smallest_subnormal), float(np.finfo(np.float32).tiny))  # float's own subnormals may be lost
    room = np.abs(exact) * float(info.eps) * 0.53 + least
    assert found.shape == exact.shape
    bad = ~((np.abs(wide - exact) <= room) | (wide == nearest))
    assert not bad.any(), (wide[bad][:4], nearest[bad][:4])


def operands(kind: str, *values: Any) -> tuple[list[Array], list[Array]]:
    """In the half type, and what they are in float64."""
    half = [np.asarray(v, np.float64).astype(TYPES[kind]) for v in values]
    return half, [v.astype(np.float64) for v in half]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shapes", [[(40, 6)] * 3, [(6,), (40, 1), (40, 6)], [(40, 6), (1,)], [(40, 6), (40, 6)]])
@pytest.mark.parametrize("op", ["Sum", "Mean"])
def test_sums_of_several(op: str, shapes: list[tuple[int, ...]], kind: str) -> None:
    half, wide = operands(kind, *(normal(i, *shape) for i, shape in enumerate(shapes)))
    total = np.asarray(sum(wide))
    rounded_once(Case(op, *half).run()[0], total if op == "Sum" else total / len(wide))


def test_sums_of_several_do_not_overflow_on_the_way() -> None:
    big = np.full(300, 60000, np.float16)
    assert (Case("Mean", big, big).run()[0] == 60000).all()
    assert (Case("Mean", big, big, big).run()[0] == 60000).all()
    assert (Case("Sum", big, big, -big).run()[0] == 60000).all()
    assert (Case("Max", big, -big, big).run()[0] == 60000).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("c_shape", [None, (1,), (7,), (5, 1), (5, 7)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (0.75, -0.3)])
def test_gemm(alpha: float, beta: float, c_shape: tuple[int, ...] | None, kind: str) -> None:
    (a, b, c), (wa, wb, wc) = operands(kind, normal(1, 5, 30), normal(2, 30, 7), normal(3, *(c_shape or (1,))))
    found = Case("Gemm", a, b, None if c_shape is None else c, alpha=alpha, beta=beta).run()[0]
    alpha, beta = float(np.float32(alpha)), float(np.float32(beta))
    rounded_once(found, alpha * (wa @ wb) + (0 if c_shape is None else beta * wc))


def test_gemm_does_not_overflow_on_the_way() -> None:
    a, b, c = (np.full(shape, v, np.float16) for shape, v in (((3, 6), 200), ((6, 2), 100), ((2,), 60000)))
    assert (Case("Gemm", a, b, c, alpha=0.25, beta=-1.0).run()[0] == -30000).all()
    assert (Case("Gemm", a, b, alpha=0.001).run()[0] == 120).all()
    assert (Case("Gemm", a[:, :3], b[:3], c, beta=-1.0).run()[0] == 0).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shapes", [[(5, 30), (30, 7)], [(3, 5, 30), (30, 7)], [(2, 1, 5, 30), (3, 30, 7)]])
def test_fused_matmul(shapes: list[tuple[int, ...]], kind: str) -> None:
    (a, b), (wa, wb) = operands(kind, *(normal(i, *shape) for i, shape in enumerate(shapes)))
    exact = float(np.float32(0.3)) * (wa @ wb)
    case = Case("FusedMatMul", a, b, domain="com.microsoft", alpha=0.3)
    model = inferkit.Model.load(case.bytes_with_output(kind, exact.shape))
    rounded_once(model.run(case.inputs)["y0"], exact)


def test_fused_matmul_does_not_overflow_on_the_way() -> None:
    a, b = np.full((1, 7), 100, np.float16), np.full((7, 2), 100, np.float16)
    case = Case("FusedMatMul", a, b, domain="com.microsoft", alpha=0.25)
    found = inferkit.Model.load(case.bytes_with_output("float16", (1, 2))).run(case.inputs)["y0"]
    assert (found == 17500).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk,kl->il", [(5, 30), (30, 7), (7, 3)]),
        ("ij,kl->i", [(5, 30), (6, 7)]),
        ("ij,jk->ki", [(5, 30), (30, 7)]),
        ("bi,bi,i->b", [(4, 9), (4, 9), (9,)]),
        ("ij->", [(5, 30)]),
        ("ii->i", [(5, 5)]),
        ("ij->ji", [(5, 30)]),
        ("i,j->ij", [(5,), (6,)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]], kind: str) -> None:
    half, wide = operands(kind, *(normal(i, *shape) for i, shape in enumerate(shapes)))
    exact = np.asarray(np.einsum(equation, *wide))
    found = Case("Einsum", *half, equation=equation).run()[0]
    rounded_once(found, exact)
    held = Case("Einsum", *half, equation=equation, constant=range(1, len(half))).run()[0]
    rounded_once(held, exact)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_in_its_far_tail(approximate: str, kind: str) -> None:
    x = np.concatenate([np.linspace(-14, 6, 4001), [-np.inf, -30.0, -60000.0, 0.0, np.inf]])
    (half,), (wide,) = operands(kind, x)
    u = np.clip(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3), -340, 340)
    erfc = np.vectorize(math.erfc)(-wide / math.sqrt(2))
    with np.errstate(invalid="ignore"):
        exact = wide * (erfc / 2 if approximate == "none" else 1 / (1 + np.exp(-2 * u)))
    exact[np.isnan(exact)] = 0  # of -inf
    found = Case("Gelu", half, opset=20, approximate=approximate).run()[0]
    seen = np.isfinite(exact) & ((np.abs(exact) > 1e-36) | (exact == 0))  # less is lost with the exponentials
    rounded_once(found[seen], exact[seen])
    assert found[-1] == np.inf


@pytest.mark.parametrize("kind", TYPES)
def test_gelu_keeps_nan_and_does_not_know_its_place(kind: str) -> None:
    x = np.linspace(-8, 8, 700).astype(TYPES[kind])
    x[::7] = np.nan
    found = Case("Gelu", x, opset=20).run()[0]
    assert np.isnan(found[::7].astype(np.float32)).all()
    assert np.isnan(found.astype(np.float32)).sum() == 100
    each = np.concatenate([Case("Gelu", x[i : i + 1], opset=20).run()[0] for i in range(0, 700, 13)])
    assert found[::13].tobytes() == each.tobytes()
