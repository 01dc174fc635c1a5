"""Subnormals are zero to what computes, and keep their bits where values only move."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import Case

TINY = np.array([1e-40, -1e-40, 1.17e-38, -1e-45, 1.0], np.float32)


@pytest.mark.parametrize("n", [5, 64, 4099])
def test_arithmetic_flushes_operands_and_results(n: int) -> None:
    x = np.resize(TINY, n)
    one = np.ones(n, np.float32)
    found = Case("Mul", x, one, opset=14).run()[0]
    assert found.tobytes() == np.where(np.abs(x) < 1.2e-38, np.copysign(np.float32(0), x), x).tobytes()
    small = np.full(n, 1.2e-38, np.float32)
    assert Case("Mul", small, one / 2, opset=14).run()[0].tolist() == [0.0] * n
    assert Case("Log", x[:2], opset=13).run()[0].tolist() == [-np.inf, -np.inf]  # of zeros of either sign


@pytest.mark.parametrize("op", ["Identity", "Transpose", "Flatten"])
def test_movement_keeps_the_bits(op: str) -> None:
    x = np.resize(TINY, (3, 5))
    found = Case(op, x, opset=13).run()[0]
    assert found.tobytes() == (x.T if op == "Transpose" else x).tobytes()


def test_constants_and_products() -> None:
    x = np.ones((2, 3), np.float32)
    weights = np.full((3, 40), 1e-39, np.float32)
    assert not Case("MatMul", x, weights, opset=13, constant=(1,)).run()[0].any()
    assert not Case("MatMul", x, weights, opset=13, constant=(0, 1)).run()[0].any()  # folded, too
    assert not Case("MatMul", x, weights, opset=13).run()[0].any()


def test_the_caller_keeps_its_environment() -> None:
    tiny = np.float32(1e-40)
    Case("Mul", TINY, TINY, opset=14).run()
    assert tiny * np.float32(0.5) != 0
