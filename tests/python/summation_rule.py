"""The summation rule in NumPy, to the bit (csrc/kernels/summation.h)."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def chunk_of(k: int, columns: int = 33) -> int:
    """How many terms a chunk of a sum of k terms has; of a product, by the columns of the right side."""
    if k < 32:
        return max(k, 1)
    return min(-(-k // 2) if k < 128 and columns > 32 else -(-k // 4), 256)


def computed_chunk(k: int) -> int:
    """The same of a product whose right side a run computes."""
    return 32 if k <= 1024 else 256


def chain(terms: Array, start: Array | None = None) -> Array:
    """The sum over the first axis, one after the other, in the type of the terms."""
    total = np.zeros(terms.shape[1:], terms.dtype) if start is None else start.copy()
    for term in terms:
        total = total + term
    return total


def by_rule(terms: Array, start: Array | None = None, chunk: int = 0) -> Array:
    """The sum over the first axis by the rule; the first chunk goes on from `start`."""
    chunk = chunk or chunk_of(len(terms))
    total = chain(terms[:chunk], start)
    for first in range(chunk, len(terms), chunk):
        total = total + chain(terms[first : first + chunk])
    return total


def in_lanes(terms: Array, lanes: int = 64) -> Array:
    """The same of what reductions, normalisations and Softmax sum: 64 lanes, each in chunks of 256, then a tree."""
    rows = np.concatenate([terms, np.zeros((-len(terms) % lanes, *terms.shape[1:]), terms.dtype)])
    rows = by_rule(rows.reshape(-1, lanes, *terms.shape[1:]), chunk=256)
    first, second, third, fourth = np.split(rows, 4)
    total: Array = (first + second) + (third + fourth)
    while len(total) > 1:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return total[0]


def has_fma(tier: str) -> bool:
    """All but the baseline of x86 have."""
    return tier != "baseline" or platform.machine() == "aarch64"


def fma(a: Array, b: Array, c: Array) -> Array:
    """a b + c of float32, rounded once.

    The product is exact in float64. The sum is rounded there to the odd one of its two neighbours (Boldo and
    Melquiond, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd, IEEE Trans. Comput.
    57, 2008), so that rounding it again is as rounding the exact sum.
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (np.ascontiguousarray(total).view(np.int64) & 1) == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return odd.astype(np.float32)


def product_chain(a: Array, b: Array, fused: bool) -> Array:
    total = np.zeros(np.broadcast_shapes(a.shape, b.shape)[1:], np.float32)
    for x, y in zip(a, b, strict=True):
        total = fma(x, y, total) if fused else total + x * y
    return total


def sum_of_products(a: Array, b: Array, chunk: int, fused: bool) -> Array:
    """The sum of a b over the first axis in chunks of so many, with FMA or without."""
    total = product_chain(a[:chunk], b[:chunk], fused)
    for first in range(chunk, len(a), chunk):
        total = total + product_chain(a[first : first + chunk], b[first : first + chunk], fused)
    return total
