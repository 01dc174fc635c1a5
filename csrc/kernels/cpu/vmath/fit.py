"""Prints the polynomial coefficients of vmath_inl.h.

Each is a minimax fit: weighted least squares at Chebyshev nodes in double, the weights then sharpened by Lawson's
iteration until the error is level; coefficients are rounded to float from the lowest order up, the others fitted
again after each. Needs numpy and scipy. Run: ``python fit.py``.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

Function = Callable[[np.ndarray], np.ndarray]
NODES = 4000


def solve(x: np.ndarray, y: np.ndarray, w: np.ndarray, powers: list[int]) -> np.ndarray:
    """Minimax-weighted coefficients of sum c_i x^powers[i] near y, where errors count w times."""
    basis = np.stack([x**p for p in powers], axis=1)
    lawson = np.full(x.shape, 1.0 / len(x))
    for _ in range(60):
        scale = w * np.sqrt(lawson)
        c = np.linalg.lstsq(basis * scale[:, None], y * scale, rcond=None)[0]
        error = np.abs(w * (basis @ c - y))
        lawson = lawson * (error + 1e-30)
        lawson /= lawson.sum()
    return c


def fit(name: str, f: Function, weight: Function, low: float, high: float, degree: int) -> None:
    """Fit f by a polynomial on [low, high]; the result's error times weight is what is made small."""
    theta = (np.arange(NODES) + 0.5) * np.pi / NODES
    x = (low + high) / 2 + (high - low) / 2 * np.cos(theta)
    y, w = f(x), weight(x)
    done: list[float] = []
    for i in range(degree + 1):
        rest = y - sum(c * x**p for p, c in enumerate(done)) if done else y
        c = solve(x, rest, w, list(range(i, degree + 1)))
        done.append(float(np.float32(c[0])))
    error = np.max(np.abs(w * (sum(c * x**p for p, c in enumerate(done)) - y)))
    print(f"{name}: error 2^{np.log2(error):.1f}")
    for c in done:
        print(f"  {float.hex(c)}f,  // {c:.9g}")


def series(x: np.ndarray, first: int, sign: int) -> np.ndarray:
    """(exp x - 1 - x) / x^2 or (log1p x - x + x^2/2) / x^3 by their Taylor series, which do not cancel."""
    out = np.zeros_like(x)
    term = np.ones_like(x)
    for k in range(60):
        out += term / (special.factorial(k + 2) if sign > 0 else first + k) * (1 if sign > 0 else (-1) ** k)
        term = term * x
    return out


def main() -> None:
    """Print every fit."""
    fit(
        "exp: e^r = 1 + r + r^2 P(r)",
        lambda r: series(r, 2, 1),
        lambda r: r**2 / np.exp(r),
        -0.3468,
        0.3468,
        4,
    )
    low, high = np.sqrt(0.5) - 1, np.sqrt(2) - 1
    fit("log: log(1 + f) = f - f^2/2 + f^3 P(f)", lambda f: series(f, 3, -1), lambda f: f**2, low, high, 7)
    fit(
        "tanh: x + x^3 P(x^2), |x| < 0.625",
        lambda z: (np.tanh(np.sqrt(z)) / np.sqrt(z) - 1) / z,
        lambda z: z,
        1e-3,
        0.625**2,
        4,
    )
    fit(
        "erf: x + x P(x^2), |x| < 0.921875",
        lambda z: special.erf(np.sqrt(z)) / np.sqrt(z) - 1,
        lambda z: 1 + 0 * z,
        0,
        0.85,
        6,
    )
    fit(
        "erf: 1 - exp(-a P(a)), 0.921875 <= a <= 4",
        lambda a: -np.log(special.erfc(a)) / a,
        lambda a: a * special.erfc(a),
        0.92,
        4.0,
        7,
    )


if __name__ == "__main__":
    main()
