"""The bits of an answer follow from the layer alone: not from the batch, the threads, the tier, or the way it is run.

One interpreter for each tier and each set of forced ways answers the same questions. The baseline has no FMA, and so
bits of its own where products are summed. What the bits are: the summation rule, written out in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
import workers
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Array, Case
from summation_rule import chunk_of, computed_chunk, fma, has_fma, sum_of_products
from test_conv_bits import LAYERS
from test_conv_bits import Layer as ConvLayer
from test_lowerings import SEVERAL
from test_ops_conv import conv
from workers import Worker, ask_all

import inferkit

TIERS: list[str] = inferkit.build_info()["isa_available"]
ROUNDING = 2.0**-24
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd")
#: Those of float32. One interpreter of a tier forces the first way of each, another the second...
WAYS = {
    op: [way for way in ways if way != "plain" and not way.startswith("bf16")]
    for op, ways in SEVERAL.items()
    if ways[0] != "default"
}
WISHES = [""] + [
    ",".join(f"{op}={ways[i % len(ways)]}" for op, ways in WAYS.items()) for i in range(max(map(len, WAYS.values())))
]


@pytest.fixture(scope="module")
def everybody() -> Iterator[list[Worker]]:
    with workers.hired(*({"INFERKIT_ISA": t, "INFERKIT_LOWERING": wish} for t in TIERS for wish in WISHES)) as hired:
        yield hired


def is_fused(worker: Worker) -> bool:
    return has_fma(worker.environment["INFERKIT_ISA"])


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


# ---- Whatever the layer ----------------------------------------------------------------------------------------------


@dataclass
class Layer:
    """A node, and its inputs for a whole batch, which lies along `axis` of those in `rows`, and of the answer."""

    case: Case
    exact: Array | None = None  # the answer in float64,
    error: Array | None = None  # and how far from it sums in chunks may end
    axis: int = 0
    rows: Sequence[str] = ("x0",)
    model: bytes = field(init=False)

    def __post_init__(self) -> None:
        model = onnx.load_from_string(self.case.bytes)
        for port in model.graph.input:
            if port.name in self.rows:
                port.type.tensor_type.shape.dim[self.axis].dim_param = "rows"
        self.model = model.SerializeToString()

    def some(self, first: int, last: int) -> dict[str, Array]:
        part = np.arange(first, last)
        return {n: x.take(part, self.axis) if n in self.rows else x for n, x in self.case.inputs.items()}


def with_error(exact: Array, size: Array, chunk: int, k: int, others: int = 3) -> dict[str, Any]:
    """Each of k terms is rounded as often as there are additions behind it: those of its chunk, and of the chunks."""
    roundings = min(chunk, k) + -(-k // chunk) + others
    return {"exact": exact, "error": 1.01 * roundings * ROUNDING * size + 1e-35}


Draw = Callable[[Any], Any]


def a_batch(pick: Draw, work: int, shared: int, elements: int) -> int:
    """A few rows, or as many as it takes until threads share them; of one, the work and the elements."""
    if pick(st.integers(0, 2)) < 2:
        return pick(st.integers(2, 9))  # type: ignore[no-any-return]
    return max(2, min(-(-shared // work) + 1, 2**18 // elements, 1000))


def a_conv(pick: Draw) -> Layer:
    rank = pick(st.sampled_from([2, 2, 1, 3]))
    kernel, strides, dilations, pads = (
        tuple(pick(st.integers(low, high)) for _ in range(times * rank))
        for low, high, times in ((1, 4, 1), (1, 2, 1), (1, 2, 1), (0, 2, 2))
    )
    size = tuple(
        (k - 1) * d + pick(st.integers(1, 12 if rank < 3 else 4)) for k, d in zip(kernel, dilations, strict=True)
    )
    group, c, m = (
        pick(st.sampled_from([1, 1, 1, 3])),
        pick(st.sampled_from([3, 16, 1, 24])),
        pick(st.sampled_from([16, 33, 8, 5])),
    )
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    return conv_of((group * c, *size), (group * m, c, *kernel), pick, attributes)


def a_depthwise_conv(pick: Draw) -> Layer:
    """With as many taps as two chunks have, or more."""
    channels, times = pick(st.integers(2, 40)), pick(st.sampled_from([1, 1, 1, 2]))
    kernel = pick(st.sampled_from([(3, 3), (5, 7), (6, 6), (7, 7), (11, 11), (12, 11), (9, 40)]))
    size, strides = (tuple(pick(st.integers(low, high)) for _ in range(2)) for low, high in ((3, 24), (1, 2)))
    dilations = pick(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
    around = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = (*(a // 2 for a in around), *(a - a // 2 for a in around))
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": channels}
    return conv_of((channels, *size), (channels * times, 1, *kernel), pick, attributes)


def conv_of(image: tuple[int, ...], weights: tuple[int, ...], pick: Draw, attributes: dict[str, Any]) -> Layer:
    w, b = draw(*weights), draw(weights[0])
    k, pixels = w[0].size, int(np.prod(image[1:]) // np.prod(attributes["strides"])) + 1
    x = draw(a_batch(pick, w.size * pixels, 2**20, max(image[0], len(w)) * pixels), *image)
    case = Case("Conv", x, w, b, constant=pick(st.sampled_from([(1, 2), (1, 2), ()])), **attributes)
    sizes = conv(np.abs(x), np.abs(w), np.abs(b), **attributes)
    return Layer(case, **with_error(conv(x, w, b, **attributes), sizes, chunk_of(k), k))


def a_product(pick: Draw) -> Layer:
    k, n = pick(st.sampled_from([7, 31, 32, 33, 127, 128, 300, 1100])), pick(st.sampled_from([1, 16, 31, 48, 64, 70]))
    kind = pick(st.sampled_from(["Linear", "several", "given", "both", "columns", "Gemm", "Gemm, given"]))
    m = a_batch(pick, k * n, 2**20, k * n if kind == "both" else k)
    a, b = {
        "Linear": (draw(m, k), draw(k, n)),
        "several": (draw(m, 3, 2, k), draw(3, k, n)),
        "given": (draw(m, 2, k), draw(k, n)),
        "both": (draw(m, 2, k), draw(m, k, n)),
        "columns": (draw(n, k), draw(k, m)),  # as many columns as there are rows of the batch
        "Gemm": (draw(m, k), draw(n, k)),
        "Gemm, given": (draw(m, k), draw(n, k)),
    }[kind]
    fixed = {"Linear": (1,), "several": (1,), "columns": (0,), "Gemm": (1,)}.get(kind, ())
    right = b.T if "Gemm" in kind else b
    exact, size = (np.matmul(f(a.astype(np.float64)), f(right.astype(np.float64))) for f in (np.array, np.abs))
    near = with_error(exact, size, chunk_of(k, n) if 1 in fixed else computed_chunk(k), k)
    if "Gemm" in kind:
        return Layer(Case("Gemm", a, b, constant=fixed, transB=1, alpha=0.5), near["exact"] / 2, near["error"] / 2)
    rows = {"both": ("x0", "x1"), "columns": ("x1",)}.get(kind, ("x0",))
    return Layer(Case("MatMul", a, b, constant=fixed), **near, rows=rows, axis=int(kind == "columns"))


def a_pool(pick: Draw) -> Layer:
    op, rank = pick(st.sampled_from(["AveragePool", "AveragePool", "MaxPool"])), pick(st.integers(1, 3))
    sizes = {1: [3, 40, 300], 2: [1, 3, 8, 40], 3: [1, 2, 5]}[rank]
    kernel = tuple(pick(st.sampled_from(sizes)) for _ in range(rank))
    strides = tuple(pick(st.integers(1, 2)) for _ in range(rank))
    size = tuple(k + pick(st.integers(0, 20 if rank < 3 else 4)) for k in kernel)
    pads = tuple(pick(st.integers(0, min(k - 1, 3))) for k in kernel) * 2
    elements = 3 * int(np.prod(size))
    x, attributes = draw(a_batch(pick, elements, 2**17, elements), 3, *size), dict[str, Any](strides=strides, pads=pads)
    if op == "MaxPool":
        return Layer(Case(op, x, kernel_shape=kernel, **attributes))
    case = Case(op, x, kernel_shape=kernel, count_include_pad=1, opset=19, **attributes)
    down, across = int(np.prod(kernel[:-1])), kernel[-1]  # one sum after the other
    ones = np.ones((3, 1, *kernel), np.float32)
    exact, near = (conv(v, ones, group=3, **attributes) / (down * across) for v in (x, np.abs(x)))
    return Layer(
        case, **with_error(exact, near, chunk_of(down), down, chunk_of(across) + -(-across // chunk_of(across)))
    )


def a_reduction(pick: Draw) -> Layer:
    """Rows, columns and gathered axes; the batch leads, or comes last."""
    op, axis = pick(st.sampled_from(REDUCTIONS)), pick(st.integers(0, 1))
    gone, stay = pick(st.sampled_from([1, 5, 63, 64, 65, 700, 5000])), pick(st.integers(1, 20))
    kind = pick(st.sampled_from(["rows", "columns", "gathered"]))
    shape, axes = {"rows": ((gone,), [0]), "columns": ((gone, stay), [0]), "gathered": ((gone, stay, 3), [0, 2])}[kind]
    batch = a_batch(pick, int(np.prod(shape)), 2**17, int(np.prod(shape)))
    whole = (batch, *shape) if axis == 0 else (*shape, batch)
    x, at = np.abs(draw(*whole)) + np.float32(0.5), [a + 1 - axis for a in axes]
    x = x / np.float32(1.1) if op == "ReduceProd" else x
    case = Case(op, x, np.array(at), constant=(1,), opset=18)
    layer = Layer(case, axis=0 if axis == 0 else len(shape))
    wide, over, n = x.astype(np.float64), tuple(at), gone * (3 if kind == "gathered" else 1)
    exact = {
        "ReduceSum": lambda: wide.sum(over, keepdims=True),
        "ReduceMean": lambda: wide.mean(over, keepdims=True),
        "ReduceL1": lambda: wide.sum(over, keepdims=True),
        "ReduceL2": lambda: np.sqrt((wide**2).sum(over, keepdims=True)),
        "ReduceSumSquare": lambda: (wide**2).sum(over, keepdims=True),
    }.get(op)
    if exact:  # of positive terms; 64 lanes, which sum chunks of 256, and a tree of six levels
        y = exact()
        layer.exact, layer.error = y, with_error(y, y, 256, -(-n // 64), 6 + 3)["error"]
    return layer


TREE = 6  # additions behind a lane of Softmax and of normalisations
FUNCTION = 6 * ROUNDING  # three units in the last place: exp, sigmoid, tanh (tests/cpp/kernels/test_vmath.cc)


def soft(x: Array, off: Array, axis: int) -> tuple[Array, Array]:
    """Softmax of scores that are so far off, and how far it may be: the error of a difference is one of its power."""
    apart = x - x.max(axis, keepdims=True)
    powers = np.exp(apart)
    y = powers / powers.sum(axis, keepdims=True)
    each = 2 * off.max(axis, keepdims=True) + ROUNDING * -apart.min(axis, keepdims=True) + FUNCTION
    near = with_error(y, y, 256, -(-x.shape[axis] // 64), TREE + 3)
    return y, near["error"] + 2.02 * each * y + 1e-36  # of the power, and of all powers in the sum; subnormals are zero


def a_softmax(n: int, k: int, inner: int, axis: int) -> Layer:
    x = draw(n, k, inner)
    wide = x.astype(np.float64)
    return Layer(Case("Softmax", x, axis=axis), *soft(wide, np.zeros_like(wide), axis))


def a_layer_norm(n: int, k: int) -> Layer:
    """The error of the variance, half of which is one of its root, and those of the differences and of their mean."""
    x, scale, bias = draw(n, 2, k), draw(k), draw(k, seed=1)
    wide = x.astype(np.float64)
    apart = wide - wide.mean(-1, keepdims=True)
    factor = scale / np.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5)
    size = np.abs(factor) * (np.abs(apart) + np.abs(apart).mean(-1, keepdims=True)) + np.abs(bias)
    near = with_error(apart * factor + bias, size, 256, -(-k // 64), TREE + 8)
    return Layer(Case("LayerNormalization", x, scale, bias, constant=(1, 2)), **near)


def an_attention(n: int, k: int, inner: int) -> Layer:
    """The errors of the scores, of the weights, and of the sums over the keys, in chunks of 64."""
    q, keys, v = given = draw(n, 2, 3, inner), draw(n, 2, k, inner), draw(n, 2, k, 8)
    scores, sizes = (
        np.matmul(a.astype(np.float64), np.swapaxes(b, -1, -2)) / np.sqrt(inner)
        for a, b in ((q, keys), (np.abs(q), np.abs(keys)))
    )
    weights, off = soft(scores, with_error(scores, sizes, chunk_of(inner), inner)["error"], -1)
    near = with_error(weights @ v, weights @ np.abs(v), 64, k)
    near["error"] = near["error"] + 1.01 * off @ np.abs(v)
    return Layer(Case("Attention", *given, opset=23), **near, rows=("x0", "x1", "x2"))


Near = tuple[Array, Array]  # a number, and how far from it float32 may be


def through(f: Callable[[Array], Array], x: Near) -> Near:
    """Of a function that rises."""
    y = f(x[0])
    return y, np.maximum(f(x[0] + x[1]) - y, y - f(x[0] - x[1])) + FUNCTION * np.abs(y)


def plus(a: Near, b: Near) -> Near:
    y = a[0] + b[0]
    return y, a[1] + b[1] + ROUNDING * (np.abs(y) + a[1] + b[1])


def times(a: Near, b: Near) -> Near:
    y = a[0] * b[0]
    off = np.abs(a[0]) * b[1] + a[1] * np.abs(b[0]) + a[1] * b[1]
    return y, off + ROUNDING * (np.abs(y) + off)


def projected(x: Near, weights: Array, columns: int) -> Near:
    """x weights', of a product with so many columns."""
    w, k = weights.astype(np.float64).T, weights.shape[1]
    off = with_error(w, (np.abs(x[0]) + x[1]) @ np.abs(w), chunk_of(k, columns), k, 1)["error"]
    return x[0] @ w, off + x[1] @ np.abs(w)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def step(op: str, given: list[Near], state: Near, cell: Near, r: Array) -> tuple[Near, Near]:
    """The state and the cell after a step, from the gates' products with what comes in."""
    hidden = r.shape[1]
    every = np.split(r, len(given))
    inner = [projected(state, part, len(given) * hidden) for part in every]
    gates = [plus(a, b) for a, b in zip(given, inner, strict=True)]
    if op == "RNN":
        return through(np.tanh, gates[0]), cell
    if op == "LSTM":
        i, o, f = (through(sigmoid, gate) for gate in gates[:3])
        cell = plus(times(f, cell), times(i, through(np.tanh, gates[3])))
        return times(o, through(np.tanh, cell)), cell
    z, reset = (through(sigmoid, gate) for gate in gates[:2])
    kept = plus(given[2], projected(times(reset, state), every[2], hidden))
    fresh = times(plus((np.ones(1), np.zeros(1)), (-z[0], z[1])), through(np.tanh, kept))
    return plus(fresh, times(z, state)), cell


def a_recurrence(op: str, n: int, k: int, hidden: int, directions: int) -> Layer:
    """The errors go from step to step: so far as a gate rises, and by the weights."""
    gates, steps = {"GRU": 3, "LSTM": 4, "RNN": 1}[op], 4
    x, b = draw(n, steps, k), draw(directions, 2 * gates * hidden)
    w, r = (draw(directions, gates * hidden, depth) / np.float32(np.sqrt(depth)) for depth in (k, hidden))
    exact, error = (np.zeros((n, steps, directions, hidden)) for _ in range(2))
    for d in range(directions):
        zero = np.zeros((n, hidden))
        state = cell = (zero, zero)
        bias = b[d].astype(np.float64).reshape(2, -1)
        for t in range(steps)[:: -1 if d else 1]:
            products = projected((x[:, t].astype(np.float64), np.zeros((n, k))), w[d], gates * hidden)
            both = plus(products, (bias.sum(0), ROUNDING * np.abs(bias).sum(0)))
            given = list(zip(*(np.split(part, gates, -1) for part in both), strict=True))
            state, cell = step(op, given, state, cell, r[d])
            exact[:, t, d], error[:, t, d] = state
    direction = ("forward", "bidirectional")[directions - 1]
    case = Case(op, x, w, r, b, constant=(1, 2, 3), layout=1, hidden_size=hidden, direction=direction)
    return Layer(case, exact, error)


def a_layer_of_one_way(pick: Draw) -> Layer:
    """What has sums of its own, or products inside."""
    op = pick(st.sampled_from(["Softmax", "LayerNormalization", "Attention", "GRU", "LSTM", "RNN"]))
    k, inner = pick(st.sampled_from([5, 31, 40, 130, 300])), pick(st.integers(1, 40))
    n = a_batch(pick, k * inner, 2**17, k * inner)
    if op == "Softmax":
        return a_softmax(n, k, inner, pick(st.integers(1, 2)))
    if op == "LayerNormalization":
        return a_layer_norm(n, k)
    if op == "Attention":
        return an_attention(n, k, inner)
    return a_recurrence(op, n, k, inner, pick(st.integers(1, 2)))


def a_byte_conv(pick: Draw) -> Layer:
    group, c, m = pick(st.sampled_from([(1, 8, 3), (1, 30, 20), (16, 1, 1), (2, 5, 9)]))
    rng, kernel = np.random.default_rng(c), pick(st.sampled_from([(1, 1), (3, 3), (7, 5)]))
    w, width = rng.integers(-128, 128, (group * m, c, *kernel)).astype(np.int8), pick(st.integers(7, 40))
    batch = a_batch(pick, w.size * 9 * width, 2**20, max(c, m) * group * 9 * width)
    x = rng.integers(-128, 128, (batch, group * c, 9, width)).astype(np.int8)
    pads = (2, 1, 2, 3)
    exact = conv(x, w, pads=pads, group=group)
    return Layer(Case("ConvInteger", x, w, constant=(1,), pads=pads, group=group), exact, np.zeros_like(exact))


KINDS: dict[str, tuple[Callable[[Draw], Layer], int]] = {
    "Conv": (a_conv, 25),
    "depthwise": (a_depthwise_conv, 25),
    "product": (a_product, 50),
    "pool": (a_pool, 30),
    "reduction": (a_reduction, 40),
    "bytes": (a_byte_conv, 30),
    "one way": (a_layer_of_one_way, 40),
}
#: What each kind is to have taken by force.
TAKEN: dict[str, set[tuple[str, str]]] = {
    "Conv": {("Conv", way) for way in ("packed", "windows", "rows", "blocks")},
    "depthwise": {("Conv", way) for way in ("packed", "windows", "depthwise", "channels")},
    "product": {(op, way) for op in ("MatMul", "Gemm") for way in WAYS[op]},
    "pool": {(op, way) for op in ("AveragePool", "MaxPool") for way in WAYS[op]},
    "reduction": {("any Reduce", way) for way in ("rows", "columns", "generic")},
    "bytes": {("ConvInteger", way) for way in WAYS["ConvInteger"]},
    "one way": set(),
}


def compare(everybody: list[Worker], layer: Layer) -> set[tuple[str, str]]:
    """Asks everybody for the whole batch and for parts of it, on one thread and on two; what was taken by force."""
    batch = layer.case.inputs[layer.rows[0]].shape[layer.axis]
    parts = [(0, batch), (0, 1), (batch - 1, batch), (1, 1 + batch // 2)]
    answers = ask_all(everybody, layer.model, [layer.some(*part) for part in parts], {"threads": 1}, {"threads": 2})
    expected: dict[bool, Array] = {}  # by whether products are fused
    forced = set()
    for worker, both in zip(everybody, answers, strict=True):
        for threads, answer in enumerate(both, 1):
            y = expected.setdefault(is_fused(worker), answer.outputs[0][0])
            for (first, last), (found,) in zip(parts, answer.outputs, strict=True):
                same = found.tobytes() == y.take(np.arange(first, last), layer.axis).tobytes()
                assert same, f"rows {first} to {last}, {threads} threads, {worker.environment}"
            forced |= {(step.operator, step.lowering) for step in answer.steps if step.why == "forced"}
    for y in expected.values():
        if layer.exact is not None and layer.error is not None:
            assert y.shape == layer.exact.shape
            assert np.all(np.abs(y - layer.exact) <= layer.error), np.max(np.abs(y - layer.exact) / layer.error)
    return forced


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_thread_count_tier_and_way(everybody: list[Worker], kind: str) -> None:
    make, examples = KINDS[kind]
    forced: set[tuple[str, str]] = set()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        forced.update(compare(everybody, make(data.draw)))

    check()
    forced |= {("any Reduce", way) for op, way in forced if op in REDUCTIONS}
    assert forced >= TAKEN[kind]


# ---- What the bits are -----------------------------------------------------------------------------------------------


def windows(x: Array, kernel: tuple[int, ...], channels: int, attributes: dict[str, Any]) -> Array:
    """What is multiplied, as it is summed: [channels of a group and taps, images, groups, 1, *pixels]."""
    n = x.ndim - 2
    one, pads = (1,) * n, attributes.get("pads", (0,) * 2 * n)
    strides, dilations = attributes.get("strides", one), attributes.get("dilations", one)
    padded = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[n + i]) for i in range(n))])
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + n)))
    seen = seen[(slice(None),) * 2 + tuple(slice(None, None, step) for step in (*strides, *dilations))]
    pixels = seen.shape[2 : 2 + n]
    seen = seen.reshape(len(x), -1, channels, *seen.shape[2:])
    seen = np.moveaxis(seen, [2, *range(3 + n, 3 + 2 * n)], range(n + 1))
    return seen.reshape(-1, *seen.shape[n + 1 : n + 3], 1, *pixels)


def conv_by_rule(layer: ConvLayer, batch: int, fused: bool, chunk: int = 0) -> Array:
    x, w, b = layer.draw(batch)
    groups, n = layer.attributes.get("group", 1), x.ndim - 2
    a = windows(x, w.shape[2:], w.shape[1], layer.attributes)
    each = w.reshape(groups, -1, len(a)).transpose(2, 0, 1)[:, None]
    y = sum_of_products(a, each.reshape(*each.shape, *(1,) * n), chunk or chunk_of(len(a)), fused)
    return y.reshape(batch, len(w), *y.shape[3:]) + b.reshape(-1, *(1,) * n)


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_has_the_bits_of_the_rule(everybody: list[Worker], name: str) -> None:
    layer = LAYERS[name]
    k, batch = int(np.prod(layer.weights[1:])), 2
    x, w, b = layer.draw(batch)
    case = Case("Conv", x, w, b, constant=(1, 2), **layer.attributes)
    rule = {fused: conv_by_rule(layer, batch, fused) for fused in {is_fused(worker) for worker in everybody}}
    for worker, (answer,) in zip(everybody, ask_all(everybody, case.bytes, [case.inputs]), strict=True):
        assert answer.outputs[0][0].tobytes() == rule[is_fused(worker)].tobytes(), worker.environment
    if k >= 32:
        for fused, y in rule.items():
            assert conv_by_rule(layer, batch, fused, k).tobytes() != y.tobytes()


@pytest.mark.parametrize("k", [31, 32, 127, 128, 500, 1024, 1025, 3000])
@pytest.mark.parametrize("columns", [32, 33])
@pytest.mark.parametrize("constant", [True, False])
def test_a_product_has_the_bits_of_the_rule(everybody: list[Worker], k: int, columns: int, constant: bool) -> None:
    a, b = draw(5, k), draw(k, columns)
    case = Case("MatMul", a, b, constant=(1,) if constant else ())
    chunk = chunk_of(k, columns) if constant else computed_chunk(k)
    left, right = a.T[:, :, None], b[:, None]
    rule = {fused: sum_of_products(left, right, chunk, fused) for fused in {is_fused(worker) for worker in everybody}}
    for worker, (answer,) in zip(everybody, ask_all(everybody, case.bytes, [case.inputs]), strict=True):
        assert answer.outputs[0][0].tobytes() == rule[is_fused(worker)].tobytes(), worker.environment
    if chunk < k:
        for fused, y in rule.items():
            assert sum_of_products(left, right, k, fused).tobytes() != y.tobytes()


def test_fma_rounds_once() -> None:
    """Against fractions: numbers of few bits, whose sums often lie in the middle between two, or beside it."""
    from fractions import Fraction

    rng = np.random.default_rng(0)
    a, b = (2 * rng.integers(2**n, 2 ** (n + 1), 3000).astype(np.float32) + 1 for n in (11, 10))
    c = (rng.integers(-(2**12), 2**12, 3000) * 2.0 ** rng.integers(-70, 30, 3000)).astype(np.float32)
    found, twice = fma(a, b, c), (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)
    assert (found != twice).any()
    for x, y, z, r in zip(a, b, c, found, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = [np.nextafter(r, np.float32(-np.inf)), np.nextafter(r, np.float32(np.inf))]
        gap, others = abs(Fraction(float(r)) - exact), [abs(Fraction(float(v)) - exact) for v in near]
        assert gap < min(others) or (gap == min(others) and r.view(np.int32) % 2 == 0)
