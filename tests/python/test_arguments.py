"""Arguments of a wrong type or value: TypeError or ValueError that name the argument, in words of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _core

X = np.zeros(2, np.float32)
PYBIND = ("incompatible", "Unable to cast", "supported:")


@pytest.fixture(scope="module")
def batcher() -> Iterator[inferkit.Batcher]:
    with inferkit.Batcher(double()) as made:
        yield made


def double() -> inferkit.Model:
    spec = ("float32", (None, 2))
    return inferkit.Model.from_callable(lambda x: x * 2, inputs=[("x", *spec)], outputs=[("y", *spec)])


class Index:
    def __index__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "Index()"


class Broken:
    def __index__(self) -> int:
        raise RuntimeError("the object's own")

    __float__ = __index__  # type: ignore[assignment]


class Name(str):
    pass


def refused(error: type[Exception], name: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=name) as caught:
        call()
    assert not any(words in str(caught.value) for words in PYBIND)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: inferkit.BufferPool().acquire(),
            "acquire() does not take these arguments: it is called as acquire(nbytes)",
        ),
        (lambda: inferkit.BufferPool().trim(3), "trim() does not take these arguments: it is called as trim()"),
        (
            lambda: inferkit.Weights.open(),
            "open() does not take these arguments: it is called as open(path, *, mmap=True)",
        ),
        (
            lambda: inferkit.BufferPool(size=3),
            "BufferPool() does not take these arguments: it is called as BufferPool(max_bytes=None, *, "
            "thread_cache_bytes=4194304, shared_cache_bytes=268435456)",
        ),
    ],
)
def test_arguments_that_are_missing_or_too_many(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


# Calls that take the argument: of the batcher, with the options.
SUBMITS: list[Callable[..., Any]] = [
    lambda b, **options: b(X, **options),
    lambda b, **options: b.submit(X, **options),
    lambda b, **options: asyncio.run(submit_on_loop(b, **options)),
]


async def submit_on_loop(batcher: inferkit.Batcher, **options: Any) -> Any:
    return await batcher.submit(X, **options)


NOT_SECONDS: list[Any] = ["1", b"1", [1], {}, object(), True, np.bool_(True), 1j, X]
BAD_SECONDS: list[Any] = [float("nan"), np.float32("nan"), 10**400, -(10**400)]
NOT_INTEGERS: list[Any] = ["1", 1.0, np.float64(1), None, [1], True, np.bool_(False), X, Decimal(1)]
NOT_FLAGS: list[Any] = [None, 0, 1, "yes", 1.0, [], X]


@pytest.mark.parametrize("submit", SUBMITS)
def test_submit(submit: Callable[..., Any], batcher: inferkit.Batcher) -> None:
    for value in NOT_SECONDS:
        refused(TypeError, "timeout must be a number of seconds", lambda value=value: submit(batcher, timeout=value))
    for value in BAD_SECONDS:
        refused(ValueError, "timeout must be a number of seconds", lambda value=value: submit(batcher, timeout=value))
    for value in NOT_INTEGERS:
        refused(TypeError, "priority must be an integer", lambda value=value: submit(batcher, priority=value))
    for value in (101, -101, 2**31, 2**63, -(2**64), 10**5000):
        refused(ValueError, "priority must be between", lambda value=value: submit(batcher, priority=value))
    for value in (b"a", 1.0, [], object(), X.astype(object)):
        refused(TypeError, "request_id must be", lambda value=value: submit(batcher, request_id=value))
    for value in (True, np.bool_(True)):
        refused(TypeError, "request_id must be", lambda value=value: submit(batcher, request_id=value))
    for value in ("", 0, -1, 2**64, 10**5000, "a\ud800b", Name("")):
        refused(ValueError, "request_id", lambda value=value: submit(batcher, request_id=value))
    with pytest.raises(RuntimeError, match="the object's own"):
        submit(batcher, priority=Broken())
    with pytest.raises(RuntimeError, match="the object's own"):
        submit(batcher, timeout=Broken())
    for options in (
        {"timeout": np.float32(30)},
        {"timeout": np.int64(30)},
        {"timeout": Decimal(30)},
        {"timeout": Fraction(61, 2)},
        {"timeout": np.array(30.0)},
        {"timeout": float("inf")},
        {"timeout": 10**20},
        {"timeout": Index()},
        {"timeout": None, "request_id": None},
        {"priority": np.int8(-100)},
        {"priority": Index()},
        {"request_id": np.uint64(2**64 - 1)},
        {"request_id": Name("n")},
        {"request_id": "a\0b\n"},
    ):
        answer = submit(batcher, **options)
        answer = answer.result() if isinstance(answer, inferkit.Ticket) else answer
        assert answer.tolist() == [0, 0]


def test_request_ids_come_back_as_they_were(batcher: inferkit.Batcher) -> None:
    for value in ("a\0b", "line\nbreak", "\U0001f600", 2**64 - 1, 7):
        ticket = batcher.submit(X, request_id=value)
        assert ticket.request_id == value
        assert "\n" not in repr(ticket)
        ticket.result()
    name = Name("sub")
    assert type(batcher.submit(X, request_id=name).request_id) is str


def test_keywords(batcher: inferkit.Batcher) -> None:
    for call in (batcher, batcher.submit):
        refused(TypeError, "unexpected keyword argument 'x'", lambda call=call: call(x=X))
        with pytest.raises(TypeError):
            call(**{1: X})  # type: ignore[misc]


def test_waiting(batcher: inferkit.Batcher) -> None:
    ticket = batcher.submit(X)
    for value in [*NOT_SECONDS, [None]]:
        if ticket.timing.finished is None:
            refused(TypeError, "timeout", lambda value=value: ticket.result(value))
        refused(TypeError, "timeout", lambda value=value: batcher.drain(timeout=value))
        refused(TypeError, "timeout", lambda value=value: batcher.close(timeout=value))
    for value in [*BAD_SECONDS, -1, -0.5]:
        refused(ValueError, "timeout", lambda value=value: batcher.drain(timeout=value))
        refused(ValueError, "timeout", lambda value=value: batcher.close(timeout=value))
    for value in NOT_FLAGS:
        refused(TypeError, "drain must be True or False", lambda value=value: batcher.close(drain=value))
        with pytest.raises(TypeError, match="drain must be True or False"):
            asyncio.run(batcher.aclose(drain=value))
    for value, error in [("1", TypeError), (True, TypeError), (float("nan"), ValueError), (-1, ValueError)]:
        with pytest.raises(error, match="timeout"):
            asyncio.run(batcher.aclose(timeout=value))
    assert not batcher.closed
    ticket.result()
    # A wrong timeout is wrong for an answer that is there, too.
    for ask in (ticket.result, ticket.exception):
        refused(TypeError, "timeout", lambda ask=ask: ask("1"))
        refused(TypeError, "one optional argument", lambda ask=ask: ask(1, 2))
        refused(TypeError, "one optional argument", lambda ask=ask: ask(seconds=1))
        refused(ValueError, "timeout", lambda ask=ask: ask(timeout=float("nan")))


INTEGER_OPTIONS = ["max_batch_size", "max_queue_size", "workers", "max_concurrent", "max_waiting", "trace_size"]
SECOND_OPTIONS = ["max_delay", "ageing", "full_timeout", "inline_limit"]
FLAG_OPTIONS = ["caller_runs", "isolate_failures"]


def test_batcher_options() -> None:
    model = double()
    for name in INTEGER_OPTIONS:
        for value in NOT_INTEGERS:
            if value is None and name in ("max_queue_size", "max_concurrent", "max_waiting"):
                continue
            refused(TypeError, f"{name} must be", lambda name=name, value=value: make(model, **{name: value}))
        for value in (-1, -(2**63), 10**5000):
            refused(ValueError, f"{name} must be", lambda name=name, value=value: make(model, **{name: value}))
    for name in SECOND_OPTIONS:
        for value in NOT_SECONDS:
            refused(TypeError, f"{name} must be", lambda name=name, value=value: make(model, **{name: value}))
        for value in [*BAD_SECONDS, -1.0]:
            refused(ValueError, f"{name} must be", lambda name=name, value=value: make(model, **{name: value}))
    for name in FLAG_OPTIONS:
        for value in NOT_FLAGS:
            refused(TypeError, f"{name} must be", lambda name=name, value=value: make(model, **{name: value}))
    refused(ValueError, "on_full", lambda: make(model, on_full="block"))
    refused(TypeError, "name must be", lambda: make(model, name=5))
    refused(TypeError, "input_checks must be", lambda: make(model, input_checks=True))
    refused(TypeError, "output_checks must be", lambda: make(model, output_checks=True))
    refused(TypeError, "output_checks must map", lambda: make(model, output_checks={"y": True}))
    unknown: Any = {"q": inferkit.OutputChecks(), "r": inferkit.OutputChecks()}
    refused(
        ValueError,
        "output_checks for 'q', 'r', which .*; its outputs are 'y'",
        lambda: make(model, output_checks=unknown),
    )
    refused(TypeError, "clock must be", lambda: make(model, _clock=5))
    refused(TypeError, "is not initialised", lambda: make(model, _clock=_core.ManualClock.__new__(_core.ManualClock)))
    numpy_sized = make(
        model,
        max_batch_size=np.int64(4),
        max_queue_size=np.uint8(9),
        max_delay=np.float32(0),
        ageing=np.int64(3),
        caller_runs=np.bool_(True),
        workers=Index(),
        full_timeout=float("inf"),
    )
    assert numpy_sized.max_batch_size == 4
    assert numpy_sized(X).tolist() == [0, 0]
    numpy_sized.close()


def make(model: inferkit.Model, **options: Any) -> inferkit.Batcher:
    return inferkit.Batcher(model, **options)


def test_model_options(digits_path: Path) -> None:
    def load(**options: Any) -> inferkit.Model:
        return inferkit.Model.load(digits_path, **options)

    for name in ("threads", "max_plans", "max_run_bytes", "max_iterations"):
        for value in NOT_INTEGERS:
            if value is None and name in ("threads", "max_run_bytes"):
                continue
            refused(TypeError, f"{name} must be", lambda name=name, value=value: load(**{name: value}))
        for value in (-1, 2**64):
            refused(ValueError, f"{name} must be", lambda name=name, value=value: load(**{name: value}))
    for value in (5, None, 2.5, [str(digits_path)]):
        refused(TypeError, "model must be", lambda value=value: inferkit.Model.load(value))
    refused(TypeError, "input_checks must be", lambda: load(input_checks={"finite": False}))
    refused(TypeError, "batch size must be", lambda: load().warm_up(["1"]))  # type: ignore[list-item]
    refused(ValueError, "batch size must be", lambda: load().warm_up([0]))
    ports: list[Any] = [5, "xy", ("x", "float32"), ("x", "float32", 3), inferkit.TensorSpec("x", "float32", 3)]  # type: ignore[arg-type]
    for port in ports:
        refused(TypeError, "TensorSpec", lambda port=port: inferkit.Model.from_callable(abs, inputs=[port], outputs=[]))
    for value in (False, 0, "", [], {"x": False}, {5: inferkit.InputChecks()}):
        refused(TypeError, "input_checks must be", lambda value=value: load(input_checks=value))
    for value in NOT_FLAGS:
        refused(TypeError, "mmap must be", lambda value=value: load(mmap=value))
        refused(TypeError, "mmap must be", lambda value=value: inferkit.Model.load(b"", mmap=value))
    assert load(threads=np.int64(1), max_plans=Index())(np.zeros(64, np.float32)).shape == (10,)


NOT_SEVERAL: list[Any] = [5, None, True, 1.5, "xy", b"xy", object()]
NOT_SIZES: list[Any] = ["x", 1.5, np.float32(1), True, np.bool_(True), [1], object(), b"x"]


def test_ports() -> None:
    def make(*port: Any) -> inferkit.Model:
        return inferkit.Model.from_callable(abs, inputs=[port], outputs=[("y", "float32", (None, 2))])

    for value in NOT_SEVERAL:
        for name in ("inputs", "outputs"):
            ports: dict[str, Any] = {"inputs": [], "outputs": [], name: value}
            refused(TypeError, f"{name} must be an iterable", lambda p=ports: inferkit.Model.from_callable(abs, **p))
        if value is not None:
            refused(TypeError, "TensorSpec|dtype", lambda value=value: inferkit.Model.from_callable(abs, [value], []))
        refused(TypeError, "TensorSpec|dimension", lambda value=value: make("x", "float32", value))
        spec = inferkit.TensorSpec("x", "float32", value)
        refused(TypeError, "TensorSpec|dimension", lambda spec=spec: inferkit.Model.from_callable(abs, [spec], []))
    for value in (5, None, b"x", 1.5, True, [], Index()):
        refused(TypeError, "name of an input must be a str", lambda value=value: make(value, "float32", (None, 2)))
    refused(ValueError, "name of an input holds a lone surrogate", lambda: make("\ud800", "float32", (None, 2)))
    for value in NOT_SIZES:
        refused(TypeError, "dimension of input 'x'", lambda value=value: make("x", "float32", (None, value)))
    for value in (-1, 2**70, -(2**70), 10**5000):
        refused(ValueError, "dimension of input 'x'", lambda value=value: make("x", "float32", (None, value)))
    for value in (5, None, object(), 1.5, X):
        refused(TypeError, "dtype of 'x' must be", lambda value=value: make("x", value, (None, 2)))
    for value in ("float33", "", "S3", ">f4", "\ud800", [("a", "f4")]):
        refused(ValueError, "dtype", lambda value=value: make("x", value, (None, 2)))
    for dtype in ("float32", "f4", np.float32, np.dtype("float32")):
        made = make("x", dtype, [None, np.int8(2)])
        assert made.inputs == (inferkit.TensorSpec("x", "float32", (None, 2)),)
    assert make("x", "bfloat16", (None, Index())).inputs[0].dtype == "bfloat16"
    for call in (made.run, lambda value: made.run({"x": np.zeros((1, 2), np.float32)}, out=value)):
        for value in (5, "xy", X, [1], object()):
            refused(TypeError, "must be a mapping", lambda call=call, value=value: call(value))


def test_shapes(digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path)
    batcher = inferkit.Batcher(model)
    warm_ups = (model.warm_up, batcher.warm_up)
    for value in NOT_SEVERAL:
        if value is not None:
            refused(TypeError, "shapes must be a mapping", lambda value=value: model.explain(value))
            for warm_up in warm_ups:
                refused(TypeError, "shapes must be a mapping", lambda w=warm_up, value=value: w(shapes=value))
                refused(TypeError, "batch_sizes must be|batch size must", lambda w=warm_up, value=value: w(value))
        refused(TypeError, r"shapes\['image'\]", lambda value=value: model.explain({"image": value}))
        for warm_up in warm_ups:
            refused(TypeError, r"shapes\['image'\]", lambda w=warm_up, value=value: w(shapes={"image": value}))
    for value in NOT_SIZES:
        refused(TypeError, "size of shapes|dimension of", lambda value=value: model.explain({"image": (value, 64)}))
        refused(TypeError, "size of shapes|dimension of", lambda value=value: model.warm_up(shapes={"image": (value,)}))
        refused(TypeError, "batch size must be", lambda value=value: model.warm_up([value]))
    for value in (-1, 2**70, -(2**70), 10**5000):
        refused(ValueError, "size of shapes|dimension of", lambda value=value: model.explain({"image": (value, 64)}))
        refused(ValueError, "size of shapes|dimension of", lambda value=value: model.warm_up(shapes={"image": [value]}))
        refused(ValueError, "batch size must be", lambda value=value: model.warm_up([value]))
    refused(ValueError, "larger than any memory", lambda: model.warm_up([2**62]))
    for use in (lambda shapes: model.explain(shapes), lambda shapes: model.warm_up(shapes=shapes)):
        for name in ("q", 5, None, "image\0"):
            refused(ValueError, "has no input", lambda use=use, name=name: use({name: (64,)}))
    model.warm_up([Index(), np.int64(2)], shapes={"image": [np.int8(64)]})
    assert model.explain({"image": (Index(), 64)}).inputs[0].shape == (7, 64)
    batcher.close()


NOT_PATHS: list[Any] = [None, 5, True, 1.5, [], object(), bytearray(b"x"), X]


def test_paths(tmp_path: Path) -> None:
    class Path5:
        def __fspath__(self) -> Any:
            return 5

    for value in [*NOT_PATHS, Path5()]:
        refused(TypeError, "path must be a path", lambda value=value: inferkit.Weights.open(value))
        refused(TypeError, "path must be a path", lambda value=value: _core.inspect_onnx(value))
    refused(TypeError, "path|fspath", lambda: inferkit.Model.load(Path5()))
    for value in ("\ud800", "a\0b", Path("a\0b")):
        for use in (inferkit.Model.load, inferkit.Weights.open, _core.inspect_onnx):
            refused(ValueError, "file names cannot|NUL", lambda use=use, value=value: use(value))
    refused(ValueError, "NUL", lambda: inferkit.Weights.open(b"a\0b"))
    for value in NOT_FLAGS:
        refused(TypeError, "mmap must be", lambda value=value: inferkit.Weights.open("x", mmap=value))


def test_tracing(batcher: inferkit.Batcher) -> None:
    for value in NOT_FLAGS:
        refused(TypeError, "on must be", lambda value=value: inferkit.tracing.trace_steps(value))
        refused(TypeError, "on must be", lambda value=value: inferkit.tracing.enable(value, batcher))
    for value in NOT_INTEGERS:
        refused(TypeError, "capacity must be", lambda value=value: inferkit.tracing.trace_steps(capacity=value))
    for value in (0, -1, 2**40):
        refused(ValueError, "capacity must be", lambda value=value: inferkit.tracing.trace_steps(capacity=value))


def test_checks() -> None:
    for cls, flags in (
        (inferkit.InputChecks, ("finite", "non_empty")),
        (inferkit.OutputChecks, ("finite", "shape", "not_all_zero", "normalized")),
    ):
        for name in flags:
            for value in NOT_FLAGS:
                if cls is inferkit.InputChecks and value is None:  # what the model says
                    continue
                refused(TypeError, f"{name} must be", lambda cls=cls, name=name, value=value: cls(**{name: value}))
    for name in ("min_length", "max_length"):
        for value in NOT_INTEGERS:
            refused(TypeError, f"{name} must be", lambda name=name, value=value: inferkit.InputChecks(**{name: value}))
        refused(ValueError, f"{name} must be", lambda name=name: inferkit.InputChecks(**{name: -1}))
    for value in ("1", None, True):
        refused(TypeError, "tolerance must be", lambda value=value: inferkit.OutputChecks(tolerance=value))
    for value in (-1, float("nan")):
        refused(ValueError, "tolerance must", lambda value=value: inferkit.OutputChecks(tolerance=value))
    assert inferkit.OutputChecks(tolerance=np.float32(0.5), finite=np.bool_(False)).tolerance == 0.5


def test_pools_and_clocks_and_weights(tmp_path: Path) -> None:
    for name in ("max_bytes", "thread_cache_bytes", "shared_cache_bytes"):
        for value in NOT_INTEGERS:
            if value is None and name == "max_bytes":
                continue
            refused(TypeError, f"{name} must be", lambda name=name, value=value: inferkit.BufferPool(**{name: value}))
        for value in (-1, 2**64):
            refused(ValueError, f"{name} must be", lambda name=name, value=value: inferkit.BufferPool(**{name: value}))
    pool = inferkit.BufferPool(max_bytes=np.int64(1 << 20))
    for value in NOT_INTEGERS:
        refused(TypeError, "nbytes must be", lambda value=value: pool.acquire(value))
    for value in (-1, 2**64):
        refused(ValueError, "nbytes must be", lambda value=value: pool.acquire(value))
    assert pool.acquire(np.uint8(9)).nbytes == 9
    clock = _core.ManualClock()
    for value in NOT_SECONDS:
        refused(TypeError, "start must be", lambda value=value: _core.ManualClock(value))
        refused(TypeError, "by must be", lambda value=value: clock.advance(value))
    for value in (-1, float("nan")):
        refused(ValueError, "by must be", lambda value=value: clock.advance(value))
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"w": X}, tmp_path / "w.safetensors")
    weights = inferkit.Weights.open(tmp_path / "w.safetensors")
    for value in (5, None, b"w"):
        for use in (weights.__getitem__, weights.get, weights.dtype):
            refused(TypeError, "name must be a str", lambda use=use, value=value: use(value))
        assert value not in weights
    assert "\ud800" not in weights
    assert weights.get("\ud800", 3) == 3
    with pytest.raises(KeyError, match="ud800"):
        weights["\ud800"]


def test_ports_of_a_callable() -> None:
    port = ("x", "float32", (None, 2))
    for value in (5, None, "x"):
        refused(TypeError, "inputs must be an iterable", lambda value=value: wrap(inputs=value, outputs=[port]))
        refused(TypeError, "outputs must be an iterable", lambda value=value: wrap(inputs=[port], outputs=value))
    for dtype in (None, 5, {"names": 1}):
        refused(
            TypeError, "dtype of 'x' must be", lambda dtype=dtype: wrap(inputs=[("x", dtype, (2,))], outputs=[port])
        )
    for value in (False, 0, [], {"x": {}}, "no"):
        refused(TypeError, "input_checks must be", lambda value=value: wrap([port], [port], input_checks=value))
    assert wrap(inputs=iter([port]), outputs=(p for p in [port]))(X).tolist() == [0, 0]


def wrap(inputs: Any, outputs: Any, **options: Any) -> inferkit.Model:
    return inferkit.Model.from_callable(lambda x: x, inputs, outputs, **options)


def test_loading_and_running(digits_path: Path) -> None:
    for value in ("no", 1, 0, None):
        refused(
            TypeError, "mmap must be True or False", lambda value=value: inferkit.Model.load(digits_path, mmap=value)
        )
    refused(TypeError, "mmap must be", lambda: inferkit.Model.load(digits_path.read_bytes(), mmap="no"))  # type: ignore[arg-type]
    for value in (False, 0, []):
        refused(TypeError, "input_checks", lambda value=value: inferkit.Model.load(digits_path, input_checks=value))
    model = inferkit.Model.load(digits_path, mmap=np.bool_(True))  # type: ignore[arg-type]
    image = np.zeros((1, 64), np.float32)
    for value in (image, None, 5, [image], "image", [("image", image)]):
        refused(TypeError, "inputs must be a mapping of names", lambda value=value: model.run(value))
    for value in ([1], image, "y", 0):
        refused(TypeError, "out must be a mapping of names", lambda value=value: model.run({"image": image}, out=value))

    class Keyed:
        def keys(self) -> list[str]:
            return ["image"]

        def __getitem__(self, key: str) -> np.ndarray:
            return image

    assert model.run(Keyed())["probabilities"].shape == (1, 10)  # type: ignore[arg-type]


def test_warm_up_and_explain(digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path)
    batcher = inferkit.Batcher(model)
    for warm_up in (model.warm_up, batcher.warm_up):
        for value in (5, "1", np.array(3), 1.5):
            refused(TypeError, "batch_sizes must be an iterable", lambda w=warm_up, value=value: w(value))
        for value in ([1.0], ["a"], [True], [None]):
            refused(TypeError, "a batch size must be an integer", lambda w=warm_up, value=value: w(value))
        for value in ([0], [-1], [2**70]):
            refused(ValueError, "a batch size must be", lambda w=warm_up, value=value: w(value))
        refused(ValueError, "larger than any memory", lambda w=warm_up: w([2**60]))
        refused(ValueError, "no input 'imag'; its inputs are 'image'", lambda w=warm_up: w([1], shapes={"imag": (64,)}))
        refused(ValueError, "no input 5", lambda w=warm_up: w([1], shapes={5: (64,)}))
        refused(ValueError, "at least 0, got -64", lambda w=warm_up: w([1], shapes={"image": (-64,)}))
        warm_up([np.int8(1), Index()], shapes={"image": np.array([64])})
        warm_up(shapes={})
    batcher.close()
    for call in (lambda s: model.warm_up(shapes=s), model.explain):
        for value in (5, [1], "image", (64,), 0, False):
            refused(TypeError, "shapes must be a mapping of names", lambda call=call, value=value: call(value))
        for value in (64, None, "ab", 1.5):
            refused(TypeError, "shapes\\['image'\\] must be a shape", lambda c=call, v=value: c({"image": v}))
        for value in (("a",), (64.0,), (True,)):
            refused(TypeError, "each size of shapes\\['image'\\]", lambda c=call, v=value: c({"image": v}))
        refused(ValueError, "64 bits", lambda call=call: call({"image": (2**70,)}))
        refused(ValueError, "free dimensions", lambda call=call: call({"image": (None, None)}))


def test_output_checks_by_name() -> None:
    checks = inferkit.OutputChecks()
    for value in ({5: checks}, {5: checks, "q": checks}, {None: checks}):
        refused(TypeError, "output_checks must map names", lambda value=value: make(double(), output_checks=value))
    refused(ValueError, "'q'", lambda: make(double(), output_checks={"q": checks}))
