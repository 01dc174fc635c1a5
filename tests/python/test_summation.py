"""The summation rule of operators' own loops, and of products inside of operators, against a model of it in NumPy, to
the bit, and against float64.

The rule: csrc/kernels/summation.h. That of products and convolutions: test_same_bits.py, and tests/cpp/kernels, which
hold rows too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from op_cases import Array, Case
from summation_rule import (
    by_rule,
    chain,
    chunk_of,
    computed_chunk,
    fma,
    has_fma,
    in_lanes,
    product_chain,
    sum_of_products,
)
from test_ops_ml import node_model

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
ISA: str = inferkit.build_info()["isa"]
FUSED = has_fma(ISA)


@dataclass
class Sum:
    """Long sums: an operator's answer by the rule, by one chain, and in float64; `rows` go one by one or together."""

    make: Callable[..., Case]
    rows: tuple[Array, ...]
    rule: Array
    chain: Array
    exact: Array

    @property
    def case(self) -> Case:
        return self.make(*self.rows)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(-1, 3, shape).astype(np.float32)


Add = Callable[..., Array]


def each_way(answer: Callable[[Add, type], Array], chunk: int = 0) -> tuple[Array, Array, Array]:
    """answer(add, dtype) by the rule, by one chain, in float64."""
    return (
        answer(lambda terms, start=None: by_rule(terms, start, chunk), np.float32),
        answer(chain, np.float32),
        answer(lambda terms, start=None: terms.sum(0) + (0 if start is None else start), np.float64),
    )


def average(kernel: tuple[int, ...], size: tuple[int, ...], pads: int = 0) -> Sum:
    """Windows are summed down their columns, then across; a term beside the image is 0 there, and none above it."""
    x = draw(3, 2, *size)
    attributes = {"kernel_shape": kernel, "pads": [0] * (len(kernel) - 1) + [pads] + [0] * len(kernel)}
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(pads, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=tuple(range(2, x.ndim)))

    def answer(add: Add, dtype: type) -> Array:
        taps = np.moveaxis(windows.astype(dtype), range(x.ndim, windows.ndim), range(len(kernel)))
        if len(kernel) == 3:  # row by row, each slice by slice
            taps = taps.swapaxes(0, 1)
        return add(add(taps.reshape(-1, *taps.shape[len(kernel) - 1 :]))) / dtype(np.prod(kernel))

    make = lambda x: Case("AveragePool", x, opset=19, count_include_pad=1, **attributes)  # noqa: E731
    return Sum(make, (x,), *each_way(answer))


def scattered(sent: Array, kernel: tuple[int, ...], stride: int, dilation: int) -> tuple[Array, int]:
    """What each tap adds to each pixel, from `sent` [taps, rows, *size]; how many taps are a chunk."""
    size = sent.shape[2:]
    out = [(n - 1) * stride + (k - 1) * dilation + 1 for n, k in zip(size, kernel, strict=True)]
    terms = np.zeros((len(sent), sent.shape[1], *out), sent.dtype)
    for tap, at in enumerate(np.ndindex(*kernel)):
        places = [
            slice(a * dilation, a * dilation + (n - 1) * stride + 1, stride) for a, n in zip(at, size, strict=True)
        ]
        terms[(tap, slice(None), *places)] = sent[tap]
    apart = stride // np.gcd(stride, dilation)
    reach = int(np.prod([-(-k // apart) for k in kernel]))
    return terms, chunk_of(reach) * apart ** len(kernel) if reach >= 32 else len(sent)


def transposed(kernel: tuple[int, ...], size: tuple[int, ...], stride: int = 1, dilation: int = 1) -> Sum:
    """ConvTranspose with one channel: the taps that reach a pixel."""
    x, w, b = draw(3, 1, *size), draw(1, 1, *kernel), draw(1)
    sent = np.stack([x[:, 0] * w[0, 0][at] for at in np.ndindex(*kernel)])
    terms, chunk = scattered(sent, kernel, stride, dilation)

    def answer(add: Add, dtype: type) -> Array:
        return add(terms.astype(dtype), np.broadcast_to(b.astype(dtype), terms.shape[1:]))[:, None]

    attributes = {"strides": [stride] * len(kernel), "dilations": [dilation] * len(kernel)}
    make = lambda x: Case("ConvTranspose", x, w, b, constant=(1, 2), **attributes)  # noqa: E731
    return Sum(make, (x,), *each_way(answer, chunk))


def images(block: tuple[int, ...], blocks: tuple[int, ...], stride: int) -> Sum:
    """Col2Im."""
    x = draw(3, int(np.prod(block)), int(np.prod(blocks)))
    terms, chunk = scattered(np.moveaxis(x, 1, 0).reshape(-1, 3, *blocks), block, stride, 1)
    given = [np.array(terms.shape[2:]), np.array(block)]
    make = lambda x: Case(  # noqa: E731
        "Col2Im", x, *given, constant=(1, 2), opset=18, strides=[stride] * len(block)
    )
    return Sum(make, (x,), *each_way(lambda add, dtype: add(terms.astype(dtype))[:, None], chunk))


def causal(taps: int) -> Sum:
    x, w, b, past = draw(3, 2, 700), draw(2, 1, taps), draw(2), draw(3, 2, taps - 1)
    whole = np.concatenate([past, x], -1)

    def answer(add: Add, dtype: type) -> Array:
        wide = whole.astype(dtype)
        terms = np.stack([w[:, 0, j, None].astype(dtype) * wide[:, :, j : j + 700] for j in range(taps)])
        return add(terms, np.broadcast_to(b.astype(dtype)[:, None], terms.shape[1:]))

    make = lambda x, past: Case("CausalConvWithState", x, w, b, past, constant=(1, 2), outputs=2, opset=27)  # noqa: E731
    return Sum(make, (x, past), *each_way(answer))


def attention(key: int) -> Sum:
    """LinearAttention by the delta rule: what is read from the state, over the elements of a key."""
    rows, tokens, value = 2, 3, 5
    q, k, past = draw(rows, tokens, key), draw(rows, tokens, key, seed=1), draw(rows, 1, key, value)
    k /= np.float32(key)
    v, beta = draw(rows, tokens, value), np.full((rows, tokens, 1), 0.5, np.float32)

    def answer(add: Add, dtype: type) -> Array:
        state, out = past[:, 0].astype(dtype), []
        for t in range(tokens):
            key_, query = (np.moveaxis(a[:, t].astype(dtype), 1, 0)[..., None] for a in (k, q))
            read = add(np.moveaxis(state, 1, 0) * key_)
            update = dtype(0.5) * (v[:, t].astype(dtype) - read)
            state = state + np.moveaxis(key_ * update, 0, 1)
            out.append(add(query * np.moveaxis(state, 1, 0)) * dtype(0.25))
        return np.stack(out, 1)

    make = lambda *x: Case(  # noqa: E731
        "LinearAttention", *x[:4], None, x[4], outputs=2, opset=27, q_num_heads=1, kv_num_heads=1, scale=0.25,
        update_rule="delta",
    )  # fmt: skip
    return Sum(make, (q, k, v, past, beta), *each_way(answer))


def aligned(sampling: int) -> Sum:
    """RoiAlign with one bin to a box inside of the image: the samples of a bin."""
    x = draw(1, 4, 40, 40)
    rng = np.random.default_rng(1)
    corner = rng.uniform(1, 10, (3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 25, (3, 2))], 1).astype(np.float32)

    def answer(add: Add, dtype: type) -> Array:
        box, out = boxes.astype(dtype) - dtype(0.5), []
        for left, top, right, bottom in box:
            terms = []
            for i in range(sampling * sampling):
                iy, ix = dtype(i // sampling), dtype(i % sampling)
                y = top + dtype(0) * (bottom - top) + (iy + dtype(0.5)) * (bottom - top) / dtype(sampling)
                z = left + dtype(0) * (right - left) + (ix + dtype(0.5)) * (right - left) / dtype(sampling)
                r, c = int(y), int(z)
                ly, lx = y - dtype(r), z - dtype(c)
                hy, hx = 1 - ly, 1 - lx
                p = [x[0, :, r + a, c + b].astype(dtype) for a in (0, 1) for b in (0, 1)]
                terms.append(hy * hx * p[0] + hy * lx * p[1] + ly * hx * p[2] + ly * lx * p[3])
            out.append(add(np.stack(terms)) / dtype(sampling * sampling))
        return np.stack(out)[:, :, None, None]

    make = lambda boxes: Case(  # noqa: E731
        "RoiAlign", x, boxes, np.zeros(len(boxes), np.int64), opset=16, sampling_ratio=sampling
    )
    return Sum(make, (boxes,), *each_way(answer))


class Learned(Case):
    """A model of ai.onnx.ml with one input."""

    def __init__(self, op: str, x: Array, **attributes: Any) -> None:
        self.inputs, self.outputs = {"x0": x}, ["y0"]
        self.bytes = node_model(op, [x], 1, **attributes)

    def with_output_types(self) -> bytes:
        return self.bytes


def machine(features: int) -> Sum:
    """SVMRegressor with radial basis functions: the distances. The exponential is Exp's."""
    x, vectors = draw(4, features), draw(7, features, seed=1)
    gamma = np.float32(0.3 / features)

    def answer(add: Add, dtype: type) -> Array:
        d = x.astype(dtype).T[:, :, None] - vectors.astype(dtype).T[:, None, :]
        scaled = add(d * d) * -dtype(gamma)
        values = Case("Exp", scaled).run()[0] if dtype is np.float32 else np.exp(scaled)
        return chain(values.T.astype(np.float64)).astype(dtype)[:, None]

    make = lambda x: Learned(  # noqa: E731
        "SVMRegressor", x, kernel_type="RBF", kernel_params=[float(gamma), 0.0, 3.0], n_supports=7, rho=[0.0],
        coefficients=[1.0] * 7, support_vectors=vectors.ravel().tolist(),
    )  # fmt: skip
    return Sum(make, (x,), *each_way(answer))


def forest(trees: int, targets: int) -> Sum:
    """Each tree compares one feature with zero."""
    rng = np.random.default_rng(trees)
    x, feature = rng.standard_normal((35, 6)).astype(np.float32), rng.integers(0, 6, trees)
    weights = draw(trees, 2, targets)  # where it is at most zero, and where it is more
    every = np.arange(trees)
    make = lambda x: Learned(  # noqa: E731
        "TreeEnsembleRegressor", x, n_targets=targets,
        nodes_treeids=np.repeat(every, 3).tolist(), nodes_nodeids=[0, 1, 2] * trees,
        nodes_featureids=[int(i) for f in feature for i in (f, 0, 0)], nodes_values=[0.0] * 3 * trees,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * trees, nodes_truenodeids=[1, 0, 0] * trees,
        nodes_falsenodeids=[2, 0, 0] * trees, target_treeids=np.repeat(every, 2 * targets).tolist(),
        target_nodeids=np.tile(np.repeat([1, 2], targets), trees).tolist(),
        target_ids=np.tile(np.arange(targets), 2 * trees).tolist(), target_weights=weights.ravel().tolist(),
    )  # fmt: skip

    def answer(add: Add, dtype: type) -> Array:
        return add(weights.astype(dtype)[every[:, None], (x[:, feature] > 0).T.astype(int)])

    return Sum(make, (x,), *each_way(answer))


def neighbours(size: int) -> Sum:
    """LRN: the squares of the channels beside each. The logarithm and the exponential are Log's and Exp's."""
    x = draw(2, 90, 3, 5)
    low, high = (size - 1) // 2, size // 2

    def answer(add: Add, dtype: type) -> Array:
        wide = x.astype(dtype)
        squares = np.moveaxis(wide * wide, 1, 0)
        chunk = chunk_of(size)
        parts = [squares[max(0, c - low) : c + high + 1] for c in range(90)]
        whole = [by_rule(p, chunk=chunk) if add is not chain and dtype is np.float32 else add(p) for p in parts]
        base = np.stack(whole, 1) * (dtype(0.5) / dtype(size)) + dtype(2)
        if dtype is np.float64:
            return wide * base**-0.75
        power = Case("Log", base).run()[0] * np.float32(-0.75)
        return wide * Case("Exp", power).run()[0]

    return Sum(lambda x: Case("LRN", x, size=size, alpha=0.5, beta=0.75, bias=2.0), (x,), *each_way(answer))


def classes(count: int) -> Sum:
    """SOFTMAX_ZERO, which leaves scores of zero out. The exponential is Exp's."""
    x, weights = np.float32([[1], [0.25], [4], [-2]]), draw(count)
    weights[::7] = 0

    def exp(v: Array) -> Array:
        return np.exp(v) if v.dtype == np.float64 else Case("Exp", v).run()[0]

    def answer(add: Add, dtype: type) -> Array:
        scores = x.astype(dtype) * weights.astype(dtype) + dtype(0)  # a sum begins at zero, which is not negative
        top = scores.max(1, keepdims=True)
        powers = exp(scores - top)
        out = np.where(scores == 0, scores * exp(-top), powers)
        return out / add(np.where(scores == 0, dtype(0), powers).T)[:, None]

    make = lambda x: Learned(  # noqa: E731
        "LinearRegressor", x, coefficients=weights.tolist(), targets=count, post_transform="SOFTMAX_ZERO"
    )
    return Sum(make, (x,), *each_way(answer))


# ---- Sums in lanes, and sums of products -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How terms are added, in chunks of so many or in lanes, and products; `fused` is a b + c."""

    dtype: type
    add: Callable[[Array, int], Array]
    lanes: Callable[[Array], Array]
    products: Callable[[Array, Array, int], Array]
    fused: Callable[[Array, Array, Array], Array]

    def call(self, op: str, x: Array) -> Array:
        """The operator of this name, whose bits are its own."""
        if self.dtype is np.float32:
            return Case(op, np.ascontiguousarray(x)).run()[0]
        return {"Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda v: 1 / (1 + np.exp(-v))}[op](x)


def fused(a: Array, b: Array, c: Array) -> Array:
    return fma(a, b, c) if FUSED else a * b + c


WAYS = (
    Way(
        np.float32,
        lambda terms, chunk: by_rule(terms, chunk=chunk),
        in_lanes,
        lambda a, b, chunk: sum_of_products(a, b, chunk, FUSED),
        fused,
    ),
    Way(np.float32, lambda terms, _: chain(terms), chain, lambda a, b, _: product_chain(a, b, FUSED), fused),
    Way(
        np.float64,
        lambda terms, _: terms.sum(0),
        lambda terms: terms.sum(0),
        lambda a, b, _: (a * b).sum(0),
        lambda a, b, c: a * b + c,
    ),
)


def each_sum(make: Callable[..., Case], rows: tuple[Array, ...], answer: Callable[[Way], Array]) -> Sum:
    return Sum(make, rows, *map(answer, WAYS))


def product(way: Way, a: Array, b: Array, chunk: int) -> Array:
    """a b' of [..., m, k] and [..., n, k]."""
    left, right = (np.moveaxis(x.astype(way.dtype), -1, 0) for x in (a, b))
    return way.products(left[..., :, None], right[..., None, :], chunk)


def softmax(way: Way, x: Array) -> Array:
    """Along the last axis."""
    powers = way.call("Exp", x - x.max(-1, keepdims=True))
    return powers * (way.dtype(1) / way.lanes(np.moveaxis(powers, -1, 0)))[..., None]


def normalised(way: Way, x: Array, epsilon: float = 1e-5) -> Array:
    """Along the last axis: what is left of the mean is subtracted, too."""
    wide, n = np.moveaxis(x.astype(way.dtype), -1, 0), way.dtype(x.shape[-1])
    apart = wide - way.lanes(wide) / n
    rest = way.lanes(apart) / n
    variance = way.lanes(apart * apart) / n - rest * rest
    return np.moveaxis((apart - rest) * (1 / np.sqrt(variance + way.dtype(np.float32(epsilon)))), 0, -1)


def reduced(op: str, length: int) -> Sum:
    x = draw(3, length, 7)

    def answer(way: Way) -> Array:
        total = way.lanes(np.moveaxis(x.astype(way.dtype), 1, 0))[:, None]
        return total / way.dtype(length) if op == "ReduceMean" else total

    return each_sum(lambda x: Case(op, x, np.array([1]), constant=(1,), opset=18), (x,), answer)


def soft(length: int, axis: int) -> Sum:
    x = draw(3, *((length, 2) if axis == 1 else (2, length)))

    def answer(way: Way) -> Array:
        return np.moveaxis(softmax(way, np.moveaxis(x.astype(way.dtype), axis, -1)), -1, axis)

    return each_sum(lambda x: Case("Softmax", x, axis=axis), (x,), answer)


def layer_norm(length: int) -> Sum:
    x, scale, bias = draw(3, 2, length), draw(length), draw(length, seed=1)

    def answer(way: Way) -> Array:
        return normalised(way, x) * scale.astype(way.dtype) + bias.astype(way.dtype)

    return each_sum(lambda x: Case("LayerNormalization", x, scale, bias, constant=(1, 2)), (x,), answer)


def grouped_norm(op: str, channels: int, groups: int, size: tuple[int, int]) -> Sum:
    x, scale, bias = draw(3, channels, *size), draw(channels), draw(channels, seed=1)
    attributes = {"num_groups": groups, "opset": 21} if op == "GroupNormalization" else {}

    def answer(way: Way) -> Array:
        y = normalised(way, x.reshape(3, groups, -1)).reshape(x.shape)
        by_channel = (a.astype(way.dtype)[:, None, None] for a in (scale, bias))
        return way.fused(*np.broadcast_arrays(y, *by_channel))

    make = lambda x: Case(op, x, scale, bias, constant=(1, 2), **attributes)  # noqa: E731
    return each_sum(make, (x,), answer)


def einsum(equation: str, a: Array, b: Array, chunk: int, constant: bool = False) -> Sum:
    """A product of [..., m, k] and [..., n, k]."""
    make = lambda *given: Case("Einsum", *given, equation=equation)  # noqa: E731
    if constant:
        make = lambda a: Case("Einsum", a, b, constant=(1,), equation=equation)  # noqa: E731
    return each_sum(make, (a,) if constant else (a, b), lambda way: product(way, a, b, chunk))


def einsum_of_one(*shape: int) -> Sum:
    """All axes but the first are summed."""
    x = draw(3, *shape)
    terms = x.reshape(3, -1).T

    def answer(way: Way) -> Array:
        return way.add(terms.astype(way.dtype), computed_chunk(len(terms)))

    labels = "ijkl"[: x.ndim]
    return each_sum(lambda x: Case("Einsum", x, equation=f"{labels}->i"), (x,), answer)


def recurrent(op: str, depth: int, hidden: int, constant: tuple[int, ...] = (1, 2, 3)) -> Sum:
    """Both products go by K and columns; the gates z and r of a GRU are columns of one product, h those of another."""
    steps, gates = 3, {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    rng = np.random.default_rng([depth, hidden])
    x, w, r, b = (
        (rng.standard_normal(shape) / np.sqrt(by)).astype(np.float32)
        for shape, by in (
            ((3, steps, depth), 1),
            ((1, gates * hidden, depth), depth),
            ((1, gates * hidden, hidden), hidden),
            ((1, 2 * gates * hidden), 4),
        )
    )

    def answer(way: Way) -> Array:
        bias = b[0].astype(way.dtype).reshape(2, -1)
        given = product(way, x.reshape(-1, depth), w[0], chunk_of(depth, gates * hidden)) + (bias[0] + bias[1])
        given = given.reshape(3, steps, -1)
        state = cell = np.zeros((3, hidden), way.dtype)
        out = []
        for t in range(steps):
            parts = np.split(given[:, t], gates, -1)
            if op == "GRU":
                both = product(way, state, r[0, : 2 * hidden], chunk_of(hidden, 2 * hidden))
                z, reset = (way.call("Sigmoid", p + q) for p, q in zip(parts[:2], np.split(both, 2, -1), strict=True))
                kept = product(way, reset * state, r[0, 2 * hidden :], chunk_of(hidden, hidden))
                state = way.fused(z, state, (1 - z) * way.call("Tanh", parts[2] + kept))
            else:
                again = np.split(product(way, state, r[0], chunk_of(hidden, gates * hidden)), gates, -1)
                summed = [p + q for p, q in zip(parts, again, strict=True)]
                if op == "LSTM":
                    i, o, f = (way.call("Sigmoid", s) for s in summed[:3])
                    cell = way.fused(f, cell, i * way.call("Tanh", summed[3]))
                    state = o * way.call("Tanh", cell)
                else:
                    state = way.call("Tanh", summed[0])
            out.append(state)
        return np.stack(out, 1)[:, :, None]

    make = lambda x: Case(op, x, w, r, b, constant=constant, layout=1, hidden_size=hidden)  # noqa: E731
    return each_sum(make, (x,), answer)


# ---- Attention -------------------------------------------------------------------------------------------------------

VALUES = 64  # keys in a chunk of what attention as one operator sums over them


def attended(way: Way, q: Array, k: Array, v: Array, key_chunk: int, value_chunk: int, causal: bool = False) -> Array:
    """Of [..., rows, size]; a row that is causal sees the keys up to its own, which are the last."""
    scores = product(way, q, k, key_chunk) * way.dtype(np.float32(1 / np.sqrt(q.shape[-1])))
    rows, keys = scores.shape[-2:]
    seen = np.arange(keys) <= np.arange(rows)[:, None] + (keys - rows if causal else keys)
    weights = softmax(way, np.where(seen, scores, way.dtype(-np.inf)))
    return product(way, weights, np.swapaxes(v, -1, -2), value_chunk)


def all_heads(heads: int, rows: int, keys: int, size: int, value: int) -> tuple[Array, Array, Array]:
    shapes = ((rows, size), (keys, size), (keys, value))
    q, k, v = (draw(2, heads, *shape, seed=i) for i, shape in enumerate(shapes))
    return q - 1, k - 1, v


def side_by_side(x: Array) -> Array:
    """[batch, heads, rows, size] as [batch, rows, heads * size]."""
    return np.ascontiguousarray(np.swapaxes(x, 1, 2)).reshape(len(x), x.shape[2], -1)


def attention_node(keys: int, size: int = 40, rows: int = 3) -> Sum:
    q, k, v = all_heads(2, rows, keys, size, 24)
    make = lambda *given: Case("Attention", *given, opset=23)  # noqa: E731
    return each_sum(make, (q, k, v), lambda way: attended(way, q, k, v, chunk_of(size), VALUES))


class Declared(Case):
    """Of ONNX Runtime's domain, which onnx does not infer the types of."""

    def with_output_types(self) -> bytes:
        model = onnx.load_from_string(self.bytes)
        for port in model.graph.output:
            port.CopyFrom(helper.make_tensor_value_info(port.name, onnx.TensorProto.FLOAT, None))
        return model.SerializeToString()


def multi_head(keys: int, size: int = 32) -> Sum:
    q, k, v = all_heads(2, 3, keys, size, size)
    rows = tuple(map(side_by_side, (q, k, v)))
    make = lambda *given: Declared("MultiHeadAttention", *given, domain="com.microsoft", num_heads=2)  # noqa: E731
    return each_sum(make, rows, lambda way: side_by_side(attended(way, q, k, v, chunk_of(size), VALUES)))


def group_query(keys: int, rows: int, size: int = 32) -> Sum:
    """Few rows read the cache in pieces while it grows, many read all of it."""
    q, k, v = all_heads(2, rows, keys, size, size)
    past = keys - rows
    given = (*map(side_by_side, (q, k[:, :, past:], v[:, :, past:])), k[:, :, :past], v[:, :, :past])
    lengths, total = np.full(2, keys - 1, np.int32), np.array(keys, np.int32)
    make = lambda *given: Declared(  # noqa: E731
        "GroupQueryAttention", *given, total, constant=(6,), outputs=3, domain="com.microsoft", num_heads=2,
        kv_num_heads=2,
    )  # fmt: skip
    return each_sum(
        make,
        (*map(np.ascontiguousarray, given), lengths),
        lambda way: side_by_side(attended(way, q, k, v, chunk_of(size), VALUES, causal=True)),
    )


class SpelledOut(Case):
    """MatMul, Mul, Softmax, MatMul."""

    def __init__(self, *inputs: Array, scale: float) -> None:
        self.inputs, self.outputs = {f"x{i}": x for i, x in enumerate(inputs)}, ["y0"]
        nodes = [
            helper.make_node("MatMul", ["x0", "x1"], ["products"]),
            helper.make_node("Mul", ["products", "scale"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
            helper.make_node("MatMul", ["weights", "x2"], ["y0"]),
        ]
        ports = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, x.shape) for n, x in self.inputs.items()]
        graph = helper.make_graph(
            nodes, "g", ports, [onnx.ValueInfoProto(name="y0")], [numpy_helper.from_array(np.float32(scale), "scale")]
        )
        imports = [helper.make_opsetid("", 17)]
        self.bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def spelled_out(keys: int, size: int = 40) -> Sum:
    q, k, v = all_heads(2, 3, keys, size, 24)
    make = lambda *given: SpelledOut(*given, scale=1 / np.sqrt(size))  # noqa: E731
    rows = (q, np.ascontiguousarray(np.swapaxes(k, -1, -2)), v)
    return each_sum(make, rows, lambda way: attended(way, q, k, v, computed_chunk(size), computed_chunk(keys)))


def sums() -> Iterator[tuple[str, Sum]]:
    yield "AveragePool, few terms", average((3, 5), (9, 20))
    yield "AveragePool, a line", average((2000,), (2050,))
    yield "AveragePool, a line with padding", average((200,), (260,), pads=150)
    yield "AveragePool, a plane", average((150, 33), (153, 60))
    yield "AveragePool, halves", average((70, 2), (72, 40))
    yield "AveragePool, a volume", average((9, 8, 40), (10, 9, 50))
    yield "AveragePool, a volume with padding, few terms", average((3, 3, 5), (7, 8, 20), pads=2)
    yield "ConvTranspose, few terms", transposed((4, 4), (9, 9), stride=2)
    yield "ConvTranspose, few of many taps, few terms", transposed((60,), (50,), stride=2)
    yield "ConvTranspose, a line", transposed((400,), (900,))
    yield "ConvTranspose, a plane", transposed((16, 24), (20, 30), stride=2)
    yield "ConvTranspose, a volume", transposed((3, 9, 8), (4, 9, 9), stride=4, dilation=2)
    yield "Col2Im, few terms", images((3, 3), (8, 9), 1)
    yield "Col2Im, a line", images((300,), (500,), 1)
    yield "Col2Im, a plane", images((20, 33), (20, 30), 2)
    yield "CausalConvWithState, few terms", causal(4)
    yield "CausalConvWithState", causal(600)
    yield "LinearAttention, few terms", attention(16)
    yield "LinearAttention", attention(300)
    yield "RoiAlign, few terms", aligned(2)
    yield "RoiAlign", aligned(16)
    yield "SVMRegressor, few terms", machine(20)
    yield "SVMRegressor", machine(900)
    yield "TreeEnsembleRegressor, few terms", forest(31, 1)
    yield "TreeEnsembleRegressor, 100 trees", forest(100, 1)
    yield "TreeEnsembleRegressor, 37 trees of three targets", forest(37, 3)
    yield "TreeEnsembleRegressor, 2,003 trees", forest(2003, 1)
    yield "SOFTMAX_ZERO, few terms", classes(31)
    yield "SOFTMAX_ZERO, 100 classes", classes(100)
    yield "SOFTMAX_ZERO, 2,000 classes", classes(2000)
    yield "LRN, few terms", neighbours(5)
    yield "LRN", neighbours(80)
    yield "ReduceSum, 500 terms", reduced("ReduceSum", 500)
    yield "ReduceMean, more than a chunk for each lane", reduced("ReduceMean", 2 * 64 * 256 + 777)
    yield "Softmax, rows", soft(3000, 2)
    yield "Softmax, columns", soft(3000, 1)
    yield "Softmax, more than a chunk for each lane", soft(64 * 256 + 999, 2)
    yield "LayerNormalization", layer_norm(1000)
    yield "LayerNormalization, more than a chunk for each lane", layer_norm(64 * 256 + 555)
    yield "InstanceNormalization", grouped_norm("InstanceNormalization", 4, 4, (31, 70))
    yield "GroupNormalization", grouped_norm("GroupNormalization", 6, 2, (17, 40))
    yield "Einsum, computed", einsum("bqk,bdk->bqd", draw(3, 4, 500), draw(3, 20, 500, seed=1), 32)
    yield "Einsum, computed, longer", einsum("bqk,bdk->bqd", draw(3, 2, 1100), draw(3, 20, 1100, seed=1), 256)
    for k in (100, 500):
        given = draw(3, k), draw(20, k, seed=1)
        yield f"Einsum, constant, of {k}", einsum("qk,dk->qd", *given, chunk_of(k), constant=True)
    yield "Einsum, one operand", einsum_of_one(500)
    yield "Einsum, one operand of several axes", einsum_of_one(7, 30, 40)
    yield "LSTM", recurrent("LSTM", 600, 40)
    yield "LSTM of 8", recurrent("LSTM", 120, 8)
    yield "LSTM of 8, computed weights", recurrent("LSTM", 120, 8, constant=())
    yield "GRU", recurrent("GRU", 600, 130)
    yield "GRU of 32", recurrent("GRU", 600, 32)
    yield "RNN", recurrent("RNN", 600, 140)
    yield "RNN of 32", recurrent("RNN", 300, 32)
    yield "Attention, 30 keys", attention_node(30, size=120)
    yield "Attention, 200 keys", attention_node(200)
    yield "Attention, 600 keys", attention_node(600)
    yield "Attention, 1,500 keys", attention_node(1500, size=160, rows=20)
    yield "MultiHeadAttention", multi_head(700)
    yield "GroupQueryAttention, a row", group_query(700, 1)
    yield "GroupQueryAttention, many rows", group_query(700, 40)
    yield "MatMul, Softmax, MatMul", spelled_out(700)
    yield "MatMul, Softmax, MatMul of 1,500 keys", spelled_out(1500)


SUMS = dict(sums())
#: Exp and Log have bits of their own where there is no FMA, and so have sums of products.
OF_THEIR_OWN = (
    "LRN", "SVM", "SOFTMAX_ZERO", "Softmax", "InstanceNorm", "GroupNorm", "Einsum, comp", "Einsum, const", "LSTM",
    "GRU", "RNN", "Attention", "MultiHead", "GroupQuery", "MatMul",
)  # fmt: skip
some_sums = pytest.mark.parametrize("name", SUMS)


@some_sums
def test_the_bits_are_those_of_the_rule(name: str) -> None:
    s = SUMS[name]
    assert s.rule.dtype == np.float32
    for threads in (1, 2):
        found = s.case.run(threads=threads)[0]
        np.testing.assert_array_equal(found.view(np.int32), s.rule.reshape(found.shape).view(np.int32))


@some_sums
def test_no_error_is_larger_than_that_of_a_chain(name: str) -> None:
    s = SUMS[name]
    error, before = (np.sqrt(np.mean((y - s.exact) ** 2)) for y in (s.rule.astype(np.float64), s.chain))
    if "few terms" in name:
        assert s.rule.tobytes() == s.chain.tobytes()
    else:
        assert s.rule.tobytes() != s.chain.tobytes()
        assert error < 0.95 * before


@some_sums
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    s = SUMS[name]
    for i in range(len(s.rows[0])):
        assert s.make(*[a[i : i + 1] for a in s.rows]).run()[0].tobytes() == s.rule[i : i + 1].tobytes()


RUN_ALL = """
import sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    given = dict(f)
answers = {}
for name in {n.split("/")[0] for n in given}:
    inputs = {n.split("/")[1]: v for n, v in given.items() if n.startswith(name + "/x")}
    answers[name] = inferkit.Model.load(given[name + "/model"].tobytes()).run(inputs)["y0"]
np.savez(sys.argv[2], **answers)
"""


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sums") / "in.npz"
    arrays: dict[str, Any] = {}
    for i, s in enumerate(SUMS.values()):
        arrays[f"{i}/model"] = np.frombuffer(s.case.with_output_types(), np.uint8)
        arrays.update({f"{i}/{name}": value for name, value in s.case.inputs.items()})
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "environment",
    [{"INFERKIT_ISA": tier} for tier in inferkit.build_info()["isa_available"]]
    + [{"INFERKIT_LOWERING": "AveragePool=generic"}],
    ids=lambda e: next(iter(e.values())),
)
def test_every_tier_and_every_way_has_these_bits(
    fresh_python: Fresh, all_cases: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "out.npz"
    done = fresh_python(RUN_ALL, str(all_cases), str(out), env=environment)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        assert set(found) == {str(i) for i in range(len(SUMS))}
        for i, (name, s) in enumerate(SUMS.items()):
            if has_fma(environment.get("INFERKIT_ISA", ISA)) != FUSED and name.startswith(OF_THEIR_OWN):
                continue
            assert found[str(i)].tobytes() == s.rule.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("group", [1, 3])
def test_a_deformed_convolution_that_is_not_deformed_has_the_bits_of_one(dtype: type, group: int) -> None:
    """Its windows are the rows of the same product: sums are long, and in the chunks of Conv."""
    x, w, b = (draw(*shape).astype(dtype) for shape in [(3, 120, 11, 12), (24, 120 // group, 3, 3), (24,)])
    attributes = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": group}
    expected = Case("Conv", x, w, b, constant=(1, 2), **attributes).run()[0]
    offset = np.zeros((3, 18, *expected.shape[2:]), dtype)
    for threads in (1, 2):
        found = Case("DeformConv", x, w, offset, b, constant=(1, 3), opset=19, **attributes).run(threads=threads)[0]
        assert found.tobytes() == expected.tobytes()
    alone = Case("DeformConv", x[1:2], w, offset[1:2], b, constant=(1, 3), opset=19, **attributes).run()[0]
    assert alone.tobytes() == expected[1:2].tobytes()


def test_resize_adds_many_pixels_in_chunks() -> None:
    """A much smaller image: the errors against float64, beside those of one chain of the same weights; and a line has
    the bits of a column."""

    def resize(x: Array, axis: int = 1) -> Array:
        scales = np.where(np.arange(2) == axis, 0.01, 1).astype(np.float32)
        return Case("Resize", x, None, scales, constant=(2,), opset=18, mode="linear", antialias=1).run()[0]

    x, unit = draw(50, 1200), np.eye(1200)
    found = resize(x)
    assert np.ascontiguousarray(resize(np.ascontiguousarray(x.T), 0).T).tobytes() == found.tobytes()
    exact = x.astype(np.float64) @ resize(unit)
    one_chain = chain(resize(unit.astype(np.float32))[:, None] * x.T[:, :, None])
    error, before = (np.sqrt(np.mean((y - exact) ** 2)) for y in (found, one_chain))
    assert error < 0.9 * before


@pytest.mark.parametrize("keys", [128, 512, 2048])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_attention_adds_the_values_of_64_keys_at_a_time(dtype: type, keys: int) -> None:
    """All keys weigh the same, a power of two: no product is rounded, so that its sums are those without FMA, too."""
    q, k = np.zeros((1, 1, 1, 8), dtype), np.zeros((1, 1, keys, 8), dtype)
    v = np.random.default_rng(keys).standard_normal((1, 1, keys, 40)).astype(dtype)
    found = Case("Attention", q, k, v, opset=23).run()[0].ravel()
    terms = v[0, 0] / dtype(keys)
    assert found.tobytes() == by_rule(terms, chunk=VALUES).tobytes()
    for other in (32, 128, 256, keys):
        assert found.tobytes() != by_rule(terms, chunk=other).tobytes()


COUNT_KEYS = """
import sys
import numpy as np, inferkit
keys = 2048
given = {"x0": np.zeros((1, 1, 1, 8), np.float32), "x1": np.zeros((1, 1, keys, 8), np.float32)}
given["x2"] = np.ones((1, 1, keys, 16), np.float32)
given["x2"][0, 0, 0] = 2.0**25
model = inferkit.Model.load(sys.argv[1], precision=sys.argv[2])
(step,) = (s for s in model.explain({n: x.shape for n, x in given.items()}).steps if s.operator == "Attention")
print(step.precision, *np.unique(keys - (model.run(given)["y0"] * keys - 2.0**25)))
"""


@pytest.mark.parametrize("tier", inferkit.build_info()["isa_available"])
@pytest.mark.parametrize(("precision", "step", "chunk"), [("float32", "any", VALUES), ("bf16", "bf16", 256)])
def test_the_keys_of_attention_s_first_chunk(
    fresh_python: Fresh, tmp_path: Path, tier: str, precision: str, step: str, chunk: int
) -> None:
    """Beside a value of 2^25 those of one get lost: the others of its chunk. Tiles have chunks of their own."""
    shapes = ((1, 1, 1, 8), (1, 1, 2048, 8), (1, 1, 2048, 16))
    path = tmp_path / "attention.onnx"
    path.write_bytes(Case("Attention", *(np.zeros(s, np.float32) for s in shapes), opset=23).with_output_types())
    isa = "avx512,-amx-bf16" if tier == "avx512" else tier
    done = fresh_python(COUNT_KEYS, str(path), precision, env={"INFERKIT_ISA": isa})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [step, f"{chunk}.0"]
