"""Models compute in an environment of their own: it flushes subnormals, and nothing of the caller's shows in a bit."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from float_environment_set import FLAGS, NAMES, ROUNDINGS, X86, environment, set_word, word
from onnx import numpy_helper, parser
from op_cases import LENIENT, Case

import inferkit

Array = np.ndarray[Any, Any]

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


# ---- The caller's environment ---------------------------------------------------------------------------------------

F32, F64 = np.float32, np.float64
Bits = tuple[str, tuple[int, ...], bytes]
FLUSHING = ("flushing",)
RNG = np.random.default_rng(10)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(F32)


def lifted(*shape: int) -> tuple[Array, Array]:
    """Two factors whose products are inexact; the first element of the one is subnormal, its product is not."""
    a, b = drawn(*shape), drawn(*shape)
    a.flat[0], b.flat[0] = 1e-40, 1e10
    return a, b


def model_of(text: str, **constants: Array) -> bytes:
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return bytes(model.SerializeToString())


def bits(value: Array) -> Bits:
    return value.dtype.str, value.shape, value.tobytes()


@dataclass(frozen=True, eq=False)
class Sample:
    """A model; `alone` is the arithmetic in question by numpy, which differs in each of the environments it `cares`."""

    content: bytes
    feeds: dict[str, Array]
    alone: Callable[[], Array]
    cares: Sequence[str] = NAMES
    precision: Literal["float32", "bf16"] = "float32"

    def load(self) -> inferkit.Model:
        return inferkit.Model.load(self.content, input_checks=LENIENT, threads=1, precision=self.precision)

    def run(self, model: inferkit.Model) -> dict[str, Bits]:
        return {name: bits(value) for name, value in model.run(dict(self.feeds)).items()}

    @contextmanager
    def within(self, name: str) -> Iterator[int]:
        """The environment `name`, in which the bits of what is not guarded would be others; gives its word."""
        usual = self.alone().tobytes()
        with environment(name) as before:
            assert self.alone().tobytes() != usual
            yield before


# What is computed at load.


def batch_norm() -> Sample:
    """Conv and BatchNormalization become one: w scale, in double and then rounded."""
    w, (gamma, beta, mean) = drawn(4, 3, 3, 3), drawn(3, 4)
    variance = np.abs(drawn(4)) + F32(0.5)
    w[0], gamma[0], beta[0], mean[0] = 1e-40, 1e10, 0, 0
    text = """g (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
        h = Conv (x, w)
        y = BatchNormalization (h, gamma, beta, mean, variance)
    }"""
    content = model_of(text, w=w, gamma=gamma, beta=beta, mean=mean, variance=variance)

    def alone() -> Array:
        scale = gamma.astype(F64) / np.sqrt(variance.astype(F64) + F64(F32(1e-5)))
        folded: Array = (w.astype(F64) * scale[:, None, None, None]).astype(F32)
        return folded

    return Sample(content, {"x": drawn(2, 3, 6, 6)}, alone)


def product() -> Sample:
    """A product of constants is folded."""
    a, b = lifted(9, 9)
    b[1:, 0] = 0
    text = "g (float[N, 9] x) => (float[N, 9] y) { c = Mul (a, b)  y = MatMul (x, c) }"
    return Sample(model_of(text, a=a, b=b), {"x": drawn(2, 9)}, lambda: a * b)


def matrix_product() -> Sample:
    a, b = lifted(9, 9)
    a[:, 0], b[1:, 0], b[0, 1:] = 1e-40, 0, 0
    text = "g (float[N, 9] x) => (float[N, 9] y) { c = MatMul (a, b)  y = MatMul (x, c) }"
    return Sample(model_of(text, a=a, b=b), {"x": drawn(2, 9)}, lambda: (a[:, :, None] * b).sum(axis=1))


def recurrent(op: str, gates: int) -> Sample:
    """The biases of W and R are one sum in the plan."""
    w, r, b = drawn(1, gates * 32, 4), drawn(1, gates * 32, 32), drawn(1, 2 * gates * 32)
    text = f"g (float[5, N, 4] x) => (float[5, 1, N, 32] y) {{ y = {op} <hidden_size = 32> (x, w, r, b) }}"
    both = b.reshape(2, -1)
    return Sample(model_of(text, w=w, r=r, b=b), {"x": drawn(5, 2, 4)}, lambda: both[0] + both[1], ROUNDINGS)


def bf16() -> Sample:
    """Packing rounds weights by integers, not by arithmetic as here; and processors' own products round to nearest."""
    w, b, x = drawn(64, 32), drawn(32), drawn(3, 64)
    text = "g (float[N, 64] x) => (float[N, 32] y) { h = MatMul (x, w)  i = Add (h, b)  y = Sigmoid (i) }"

    def alone() -> Array:
        larger = w * F32(2**16 + 1)
        return np.concatenate([larger - (larger - w), x[:, :32] + b])

    return Sample(model_of(text, w=w, b=b), {"x": x}, alone, ROUNDINGS, "bf16")


LOADS: dict[str, Callable[[], Sample]] = {
    "batch norm": batch_norm,
    "product": product,
    "matrix product": matrix_product,
    "GRU": functools.partial(recurrent, "GRU", 3),
    "LSTM": functools.partial(recurrent, "LSTM", 4),
    "bf16": bf16,
}


# What is computed in a run.


def flat() -> Sample:
    x, c = lifted(7, 64)
    text = "g (float[N, 64] x) => (float[N, 64] y) { p = Mul (x, c)  s = Sigmoid (x)  y = Mul (s, p) }"
    return Sample(model_of(text, c=c[:1]), {"x": x}, lambda: x * c[:1])


def resized() -> Sample:
    """For each new shape the places in the input are counted in float32, and cut to whole numbers."""
    scales = np.array([1, 3 / 7], F32)
    text = """g (float[N, L] x) => (float[N, M] y) {
        y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , s)
    }"""
    three, seven = np.array([3.0]), np.array([7.0])

    def alone() -> Array:
        places: Array = np.arange(42, dtype=F32) * (1 / (three / seven)).astype(F32)
        return np.floor(places)

    return Sample(model_of(text, s=scales), {"x": drawn(2, 100)}, alone, ROUNDINGS)


def staged() -> Sample:
    """Plans that follow once a value is known."""
    x, c = lifted(3, 40)
    text = """g (float[3, 40] x, bool[3] chosen) => (float[K, 40] y) {
        v = Compress <axis = 0> (x, chosen)
        p = Mul (v, c)
        a = Abs (p)
        y = Log (a)
    }"""
    return Sample(model_of(text, c=c[:1]), {"x": x, "chosen": np.array([True, False, True])}, lambda: x * c[:1])


def counted() -> Sample:
    """How many steps there are from one number to another is known when the next plan is made."""
    start, limit, step = np.array([[0.02, 1.42, 0.35], [0.15, 14.72, 0.47], [0, 1e-310, 1]]).T
    text = """g (double a, double b, double c) => (double[K] x, double[M] y, double[N] z) {
        x = Range (s0, a, d0)
        y = Range (s1, b, d1)
        z = Range (s2, c, d2)
    }"""
    constants = {f"{name}{i}": value[i] for name, value in (("s", start), ("d", step)) for i in range(3)}
    feeds = {name: np.array(value) for name, value in zip("abc", limit, strict=True)}
    return Sample(model_of(text, **constants), feeds, lambda: np.ceil((limit - start) / step))


def non_zero() -> Sample:
    x = np.array([1, 0, 1e-40, -1e-45, 1, 2], F32)
    return Sample(model_of("g (float[N] x) => (int64[1, K] y) { y = NonZero (x) }"), {"x": x}, lambda: x != 0, FLUSHING)


def unique() -> Sample:
    x = np.array([1, 0, 1e-40, -1e-45, 1, 2], F32)
    return Sample(model_of("g (float[N] x) => (float[K] y) { y = Unique (x) }"), {"x": x}, lambda: x == 0, FLUSHING)


def overlap() -> Sample:
    """Boxes of which 7 of 10 parts, a third and all are in common, beside thresholds where the last bit decides."""
    pairs = np.array(
        [
            [[0, 0, 1, 8.5], [0, 1.5, 1, 10]],
            [[2, 0, 3, 2], [2, 1, 3, 3]],
            [[0, 0, 1e-20, 1e-20], [0, 0, 1e-20, 1e-20]],
        ],
        F32,
    )
    scores = np.linspace(1, 0.5, 6, dtype=F32)
    high, low = F32(0.7), np.nextafter(F32(1) / F32(3), F32(0))
    text = """g (float[1, N, 4] boxes, float[1, 1, N] scores) => (int64[K, 3] y, int64[M, 3] z) {
        y = NonMaxSuppression (boxes, scores, most, high)
        z = NonMaxSuppression (boxes, scores, most, low)
    }"""
    content = model_of(text, most=np.array([10]), high=np.array([high]), low=np.array([low]))

    def alone() -> Array:
        (a, b), areas = pairs.swapaxes(0, 1), (pairs[..., 2] - pairs[..., 0]) * (pairs[..., 3] - pairs[..., 1])
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        common = sides[:, 0] * sides[:, 1]
        rest = areas[:, 0] + areas[:, 1] - common
        with np.errstate(invalid="ignore"):
            return np.stack([common / rest > high, common / rest > low])

    return Sample(content, {"boxes": pairs.reshape(1, 6, 4), "scores": scores.reshape(1, 1, 6)}, alone)


def loop() -> Sample:
    v, c = lifted(64)
    x = drawn(64)
    x[0] = 0
    text = """g (int64 n, float[64] v, float[64] x) => (float[64] y) {
        go = Constant <value = bool {1}> ()
        y = Loop (n, go, v) <body = b (int64 i, bool g, float[64] v1) => (bool g2, float[64] v2) {
            g2 = Identity (g)
            p = Mul (v1, c)
            v2 = Add (p, x)
        }>
    }"""
    return Sample(model_of(text, c=c), {"n": np.array(3), "v": v, "x": x}, lambda: v * c)


def branch() -> Sample:
    x, c = lifted(64)
    text = """g (float[64] x, bool a) => (float[64] y) {
        y = If (a) <
            then_branch = t () => (float[64] p) { p = Mul (x, c) },
            else_branch = e () => (float[64] q) { q = Neg (x) }
        >
    }"""
    return Sample(model_of(text, c=c), {"x": x, "a": np.array(True)}, lambda: x * c)


RUNS: dict[str, Callable[[], Sample]] = {
    **LOADS,
    "flat": flat,
    "resized": resized,
    "staged": staged,
    "counted": counted,
    "not zero": non_zero,
    "unique": unique,
    "overlap": overlap,
    "loop": loop,
    "branch": branch,
}


def pairs_of(samples: dict[str, Callable[[], Sample]]) -> list[Any]:
    """Each with the environments that would show in it."""
    made = {name: make() for name, make in samples.items()}
    return [pytest.param(s, e, id=f"{name}-{e}") for name, s in made.items() for e in s.cares]


@pytest.mark.parametrize(("sample", "name"), pairs_of(LOADS))
def test_a_load_is_in_its_own(sample: Sample, name: str) -> None:
    expected = sample.run(sample.load())
    with sample.within(name) as before:
        model = sample.load()
        assert word() == before
    assert sample.run(model) == expected


@pytest.mark.parametrize(("sample", "name"), pairs_of(RUNS))
def test_a_run_is_in_its_own(sample: Sample, name: str) -> None:
    expected = sample.run(sample.load())
    model = sample.load()
    with sample.within(name) as before:
        for _ in range(2):  # a run that makes plans, and one that has them
            found = sample.run(model)
            assert word() == before
            assert found == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_of_python_become_the_same_elements(dtype: str, name: str) -> None:
    """They are rounded to the nearest element, subnormal ones too, and what only moves keeps those."""
    kind, tiny, odd = {"float32": ("float", 1e-40, 16_777_217), "float16": ("float16", 1e-7, 2049)}[dtype]
    model = inferkit.Model.load(model_of(f"g ({kind}[n] x) => ({kind}[n] y) {{ y = Identity(x) }}"))
    numbers = [0.1, 1 / 3, -0.7, -1e-5, tiny, odd]
    expected = np.array(numbers, dtype).tobytes()
    with environment(name):  # numpy makes halves without the processor's arithmetic
        assert (np.array(numbers, dtype).tobytes() != expected) == (dtype == "float32")
    with environment(name) as before:
        found = model(numbers).tobytes()
        assert word() == before
    assert found == expected


def on_the_caller(batcher: inferkit.Batcher, x: Array) -> Array:
    return np.asarray(batcher(x))


def on_a_worker(batcher: inferkit.Batcher, x: Array) -> Array:
    return np.asarray(batcher.submit(x).result())


def on_a_loop(batcher: inferkit.Batcher, x: Array) -> Array:
    async def ask() -> Array:
        return np.asarray(await batcher.submit(x))

    return asyncio.run(ask())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("ask", "caller_runs"), [(on_the_caller, True), (on_a_worker, True), (on_a_worker, False), (on_a_loop, True)]
)
def test_a_batcher_is_in_its_own(ask: Callable[..., Array], caller_runs: bool, name: str) -> None:
    """Its threads begin with the environment of who makes it."""
    sample = flat()
    (x,) = sample.feeds.values()
    model = sample.load()
    expected = model(x).tobytes()
    with sample.within(name) as before:
        with inferkit.Batcher(model, caller_runs=caller_runs, inline_limit=10) as batcher:
            for _ in range(3):
                found = ask(batcher, x).tobytes()
                assert word() == before
                assert found == expected
            dispatched = batcher.stats().dispatched
        assert word() == before
    assert (dispatched["caller"] > 0) == (ask is on_the_caller)


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("batched", [False, True])
def test_a_warm_up_is_in_its_own(batched: bool, name: str) -> None:
    """The plans that it makes hold what was counted for their shapes."""
    sample = resized()
    model, expected = sample.load(), sample.run(sample.load())
    with sample.within(name) as before:
        if batched:
            with inferkit.Batcher(model, max_batch_size=2) as batcher:
                batcher.warm_up([2], shapes={"x": [100]})
        else:
            model.warm_up([2], shapes={"x": [100]})
        assert word() == before
    plans = model.memory().plans
    assert sample.run(model) == expected
    assert model.memory().plans == plans


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapped_callable_has_the_callers(name: str) -> None:
    seen = []

    def double(x: Array) -> Array:
        seen.append(word())
        return x + x

    model = inferkit.Model.from_callable(
        double, inputs=[("x", "float32", (None,))], outputs=[("y", "float32", (None,))]
    )
    with environment(name) as before:
        model(np.ones(3, F32))
        assert word() == before
    assert seen == [before]


GATHER = "g (float[3] x, int64[N] i) => (float[N] y) { y = Gather (x, i) }"
GATHERS = {"x": np.ones(3, F32), "i": np.array([7])}
#: What cannot go on: in a step, on values, in a body, and where a plan is made for the values of a run.
FAILURES: dict[str, tuple[bytes, dict[str, Array]]] = {
    "step": (model_of(GATHER), GATHERS),
    "values": (
        model_of(
            "g (float[1, N, 4] b, float[1, 1, N] s, float t) => (int64[K, 3] y) { y = NonMaxSuppression (b, s, m, t) }",
            m=np.array([3]),
        ),
        {"b": np.ones((1, 2, 4), F32), "s": np.ones((1, 1, 2), F32), "t": np.array(2, F32)},
    ),
    "body": (
        model_of("""g (int64 n, float[3] x, int64[1] i) => (float[1] y) {
            go = Constant <value = bool {1}> ()
            zero = Constant <value_floats = [0.0]> ()
            y = Loop (n, go, zero) <body = b (int64 k, bool g, float[1] v) => (bool g2, float[1] w) {
                g2 = Identity (g)
                w = Gather (x, i)
            }>
        }"""),
        {"n": np.array(3), **GATHERS},
    ),
    "plan": (
        model_of("g (float[3] x, int64[2] i) => (float[N, M] y) { y = Reshape (x, i) }"),
        {"x": np.ones(3, F32), "i": np.array([2, 2])},
    ),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", FAILURES)
def test_a_run_that_fails_gives_it_back(at: str, name: str) -> None:
    content, feeds = FAILURES[at]
    model = inferkit.Model.load(content, input_checks=LENIENT)
    with environment(name) as before:
        for _ in range(2):
            with pytest.raises(inferkit.InferenceError):
                model.run(dict(feeds))
            assert word() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_load_that_fails_gives_it_back(name: str) -> None:
    content = model_of("g () => (float[1] y) { y = Gather (x, i) }", **GATHERS)
    with environment(name) as before:
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(content)
        assert word() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_fails_gives_it_back(name: str) -> None:
    model = inferkit.Model.load(model_of("g (int64[N] i) => (float[N] y) { y = Gather (x, i) }", x=GATHERS["x"]))
    with environment(name) as before, inferkit.Batcher(model) as batcher:
        for ask in (on_the_caller, on_a_worker, on_a_loop):
            with pytest.raises(inferkit.InferenceError):
                ask(batcher, GATHERS["i"])
            assert word() == before


@pytest.mark.skipif(not X86, reason="the flags are apart from FPCR")
@pytest.mark.parametrize("at", ["flat", "staged"])
def test_what_a_run_raises_is_not_seen(at: str) -> None:
    """Nor the flags of a load: those of the caller are as they were, here none."""
    sample = RUNS[at]()
    sample.run(sample.load())  # what is done once may be of Python's
    with environment("upward") as before:
        set_word(clear := before & ~FLAGS)
        model = sample.load()
        assert word() == clear
        sample.run(model)
        assert word() == clear


# ---- Handlers of signals, which Python runs in the middle of long work ----------------------------------------------


@functools.cache
def long_run() -> Sample:
    """Some tenths of a second on one thread: a handler is heard in the middle of it."""
    count = 16
    steps = " ".join(f"p{i} = Mul (h{i}, c) h{i + 1} = Sin (p{i})" for i in range(count))
    text = f"g (float[N, 1000000] h0) => (float[N, 1000000] y) {{ {steps} y = Neg (h{count}) }}"
    x, c = drawn(2, 1_000_000), np.array([1.1], F32)
    return Sample(model_of(text, c=c), {"h0": x}, lambda: x[0] * c, ROUNDINGS)


@contextmanager
def alarms(handler: Callable[..., None], interval: float = 0) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, interval)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["upward", "downward"])
def test_handlers_have_the_callers_and_what_goes_on_its_own(name: str) -> None:
    sample, seen = long_run(), set()
    model = sample.load()
    expected = sample.run(model)
    with sample.within(name) as before:
        with alarms(lambda *_: seen.add(word()), interval=0.02):
            found = sample.run(model)
        assert word() == before
    assert seen == {before}
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_interrupted_gives_it_back(name: str) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    def run_on() -> None:
        while True:
            long_run().run(model)

    model = long_run().load()
    with environment(name) as before:
        with pytest.raises(KeyboardInterrupt), alarms(handler):
            run_on()
        assert word() == before
