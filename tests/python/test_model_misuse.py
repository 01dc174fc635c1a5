"""What callers do to a model that they should not, and what they get for it: never a crash, a hang or a leak."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3
FEATURES = ("float32", (None, 4))


def two_outputs() -> inferkit.Model:
    def port(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])

    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", [port("x")], [port("y"), port("z")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString())


def wrap(fn: Callable[..., Any]) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, inputs=[("x", *FEATURES)], outputs=[("y", *FEATURES)])


# ---- the object -----------------------------------------------------------------------------------------


def test_call_needs_a_model() -> None:
    with pytest.raises(TypeError, match=r"'__call__' .* '?inferkit._core.Model'? .*'int'"):
        inferkit.Model.__call__(5, X)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(), ("m.onnx",), (b"",)])
def test_a_model_is_not_made_by_its_class(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match=r"Model\.load\(path\) or Model\.from_callable"):
        inferkit.Model(*arguments)
    with pytest.raises(TypeError, match=r"Model\.load\(path\) or Model\.from_callable"):
        inferkit.Model(path="m.onnx")


class BytesPath:
    def __init__(self, path: bytes) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return self.path


def test_paths_that_are_not_utf_8(tmp_path: Path, digits_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/m\xff\xfe.onnx"
    try:
        with open(raw, "wb") as file:
            file.write(digits_path.read_bytes())
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    for path in (os.fsdecode(raw), BytesPath(raw), Path(os.fsdecode(raw))):
        model = inferkit.Model.load(path)
        assert os.fsencode(model.path) == raw
        assert ascii(repr(model))
    with pytest.raises(FileNotFoundError):
        inferkit.Model.load(os.fsdecode(raw + b"\xff"))


def test_paths_with_a_nul() -> None:
    for path in ("a\0b.onnx", Path("a\0b"), BytesPath(b"\0")):
        with pytest.raises(ValueError, match="NUL"):
            inferkit.Model.load(path)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m(X),
        lambda m: m.run({"x": X}),
        lambda m: m.inputs,
        lambda m: m.outputs,
        lambda m: m.memory(),
        lambda m: m.path,
        lambda m: m.weights,
        lambda m: m.trim(),
        lambda m: m.warm_up(),
        lambda m: inferkit.Batcher(m),
    ],
)
def test_a_model_that_was_never_made_says_so(use: Callable[[inferkit.Model], object]) -> None:
    with pytest.raises(TypeError, match="not initialised"):
        use(inferkit.Model.__new__(inferkit.Model))


def test_a_constructor_without_arguments() -> None:
    with pytest.raises(TypeError):
        inferkit.Model()  # type: ignore[call-arg]


def test_subclasses() -> None:
    class Plain(inferkit.Model):
        pass

    class Own(inferkit.Model):
        def __call__(self, *inputs: object) -> str:  # type: ignore[override]
            return "own"

    class Unmade(inferkit.Model):
        def __init__(self) -> None:
            pass

    def load(cls: type[inferkit.Model]) -> inferkit.Model:
        return cls.from_callable(lambda x: x, [("x", *FEATURES)], [("y", *FEATURES)])

    np.testing.assert_array_equal(load(Plain)(X), X)
    assert load(Own)(X) == "own"
    with pytest.raises(TypeError):
        Unmade()


# ---- arrays and names -----------------------------------------------------------------------------------


def test_outputs_that_share_memory_are_refused() -> None:
    model = two_outputs()
    both = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="share memory"):
        model.run({"x": X}, out={"y": both, "z": both})
    wide = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="share memory"):
        model.run({"x": X}, out={"y": wide[:2], "z": wide[1:]})


@pytest.mark.parametrize("target", [None, memoryview(bytearray(32)), bytearray(32), [1.0], np.float32(1)])
def test_out_must_be_an_array(target: object) -> None:
    with pytest.raises(inferkit.ValidationError, match=r"out\['y'\] must be a numpy array"):
        two_outputs().run({"x": X}, out={"y": target})  # type: ignore[dict-item]


def test_keys_that_are_no_names() -> None:
    class LooksLikeX:
        def __str__(self) -> str:
            return "x"

    model = two_outputs()
    for key in (5, LooksLikeX(), "\udc80", "x\0"):
        with pytest.raises(inferkit.ValidationError, match="no input"):
            model.run({"x": X, key: X})  # type: ignore[dict-item]
        with pytest.raises(inferkit.ValidationError, match="no output"):
            model.run({"x": X}, out={key: X})  # type: ignore[dict-item]


def test_a_name_may_hold_a_nul() -> None:
    model = inferkit.Model.from_callable(lambda x: x, [("x\0a", *FEATURES)], [("y\0b", *FEATURES)])
    np.testing.assert_array_equal(model.run({"x\0a": X})["y\0b"], X)
    with pytest.raises(inferkit.ValidationError) as error:
        model.run({"x": X})
    assert error.value.reason == "name"


@pytest.mark.parametrize(
    ("dtype", "shape", "text"),
    [
        ("float32", (None, -5), "dimension of .*put 'x' .* got -5"),
        ("float32", (-1, 4), "dimension of .*put 'x' .* got -1"),
        ("float32", (1,) * 9, "at most 8"),
    ],
)
def test_ports_that_cannot_be(dtype: str, shape: tuple[int | None, ...], text: str) -> None:
    spec = inferkit.TensorSpec("x", dtype, shape)
    with pytest.raises(ValueError, match=text):
        inferkit.Model.from_callable(lambda x: x, [spec], [("y", *FEATURES)])
    with pytest.raises(ValueError, match=text):
        inferkit.Model.from_callable(lambda x: x, [("y", *FEATURES)], [spec])


def test_two_ports_of_one_name() -> None:
    with pytest.raises(ValueError, match="two ports"):
        inferkit.Model.from_callable(lambda x, y: x, [("x", *FEATURES), ("x", *FEATURES)], [("y", *FEATURES)])


class Capsule:
    """Something with __dlpack__ that goes wrong."""

    def __init__(self, fails: BaseException | None, device: tuple[int, int] = (1, 0)) -> None:
        self.fails = fails
        self.device = device

    def __dlpack__(self, **_: object) -> object:
        if self.fails is not None:
            raise self.fails
        return 5

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_dlpack_that_goes_wrong() -> None:
    model = two_outputs()
    for capsule in (Capsule(None), Capsule(None, (2, 0)), Capsule(BufferError("no"))):
        with pytest.raises(inferkit.ValidationError) as error:
            model(capsule)
        assert error.value.reason == "dtype"
    with pytest.raises(KeyboardInterrupt):
        model(Capsule(KeyboardInterrupt()))


class OnDevice:
    """As an array of CuPy's shows itself, which numpy may not convert."""

    __cuda_array_interface__: Any = {"shape": (1, 2), "typestr": "<f4", "data": (16, False), "version": 3}  # noqa: RUF012

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


@pytest.mark.parametrize("array", [OnDevice(), Capsule(BufferError("device"), (2, 0))], ids=["interface", "dlpack"])
def test_an_array_of_a_gpu_is_called_that(array: Any) -> None:
    told = r"lies in the memory of a CUDA device; .* a Batcher takes arrays of the host: x\.cpu\(\)"
    with pytest.raises(inferkit.ValidationError, match=told):
        two_outputs()(array)
    with inferkit.Batcher(two_outputs()) as batcher:
        with pytest.raises(inferkit.ValidationError, match=told):
            batcher(array)
        with pytest.raises(inferkit.ValidationError, match=told):
            batcher.submit(array).result(60)
    with pytest.raises(inferkit.InferkitError, match=r"expected an array of the host: x\.cpu"):
        wrap(lambda _: array)(X)


# ---- callables ------------------------------------------------------------------------------------------


def raises(error: BaseException) -> Callable[..., Any]:
    def fn(_: object) -> None:
        raise error

    return fn


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_stops_the_program_is_not_swallowed(error: BaseException) -> None:
    model = wrap(raises(error))
    with pytest.raises(type(error)):
        model(X)
    with inferkit.Batcher(model) as batcher, pytest.raises(type(error)):
        batcher(X)


def test_an_error_of_the_callable_is_the_cause_with_its_traceback() -> None:
    with pytest.raises(inferkit.InferenceError, match=r"^the callable raised ValueError: what it says$") as error:
        wrap(raises(ValueError("what it says")))(X)
    cause = error.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "fn"


def test_an_error_that_cannot_be_printed() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    with pytest.raises(inferkit.InferenceError, match="MuteError"):
        wrap(raises(MuteError()))(X)


def test_a_callable_that_calls_itself_without_end(fresh_python: Callable[..., Any]) -> None:
    code = """
import inferkit, numpy as np
spec = ("float32", (None, 4))
model = inferkit.Model.from_callable(lambda x: model(x), [("x", *spec)], [("y", *spec)])
try:
    model(np.ones((2, 4), np.float32))
except inferkit.InferenceError as error:
    while error.__cause__ is not None:
        error = error.__cause__
    print(type(error).__name__)
"""
    done = fresh_python(code)
    assert (done.returncode, done.stdout.strip()) == (0, "RecursionError"), done.stderr[-2000:]


def test_a_callable_that_calls_itself_a_few_times() -> None:
    def fn(x: np.ndarray) -> np.ndarray:
        return x if x[0, 0] > 20 else model(x + 1)

    model = wrap(fn)
    assert model(np.zeros((1, 4), np.float32)).tolist() == [[21.0] * 4]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "fn",
    [
        np.asfortranarray,
        lambda x: x[:, ::-1][:, ::-1],
        read_only,
        memoryview,
        lambda x: x,
        lambda x: {"y": x},
        lambda x: [x],
    ],
)
def test_what_a_callable_may_return(fn: Callable[..., Any]) -> None:
    kept = X.copy()
    y = wrap(fn)(kept)
    np.testing.assert_array_equal(y, X)
    y[:] = 0
    np.testing.assert_array_equal(kept, X)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: None,
        lambda x: np.float32(1),
        lambda x: np.array(1, np.float32),
        lambda x: x.tolist(),
        lambda x: (x, x),
        lambda x: {},
        lambda x: {"y": None},
        lambda x: x.astype(np.float64),
        lambda x: x[..., None],
        lambda x: np.broadcast_to(np.float32(1), (1 << 44, 4)),
    ],
)
def test_what_a_callable_may_not_return(fn: Callable[..., Any]) -> None:
    with pytest.raises((inferkit.OutputError, inferkit.InferenceError)):
        wrap(fn)(X)


# ---- threads and memory ---------------------------------------------------------------------------------


def test_the_first_calls_come_from_many_threads(fresh_python: Callable[..., Any]) -> None:
    """numpy's C API is looked up at the first call, which may hand the GIL over in the middle."""
    code = """
import sys, threading
import inferkit, numpy as np
sys.setswitchinterval(1e-6)
spec = ("float32", (None, 4))
model = inferkit.Model.from_callable(lambda x: x, [("x", *spec)], [("y", *spec)])
x = np.ones((2, 4), np.float32)
threads = [threading.Thread(target=model, args=(x,)) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print("done")
"""
    for _ in range(3):
        assert fresh_python(code, timeout=60).stdout.strip() == "done"


def test_a_model_outlives_its_name_while_threads_run_it() -> None:
    for _ in range(10):
        holder = [two_outputs()]
        start = threading.Barrier(5)

        def work(holder: list[inferkit.Model] = holder, start: threading.Barrier = start) -> None:
            model = holder[0]
            start.wait()
            for n in range(1, 30):
                model(np.ones((n, 4), np.float32))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        start.wait()
        holder.clear()
        for t in threads:
            t.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_other_threads_compile_and_run() -> None:
    """The child's copies of the locks must be free."""
    model = two_outputs()
    done = threading.Event()

    def work(first: int) -> None:
        rows = first
        while not done.is_set():
            rows = rows % 1000 + 1  # more shapes than plans: nearly every call compiles
            model(np.ones((rows, 4), np.float32))

    threads = [threading.Thread(target=work, args=(250 * k,)) for k in range(3)]
    for t in threads:
        t.start()
    try:
        for n in range(30):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                model(np.ones((1001 + n, 4), np.float32))
                model.trim()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        done.set()
        for t in threads:
            t.join()


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def ignoring_errors(f: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        with pytest.raises(inferkit.InferkitError):
            f()

    return call


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_calls_leak_nothing() -> None:
    model = two_outputs()
    out = np.zeros((2, 4), np.float32)
    good, bad = wrap(lambda x: x), wrap(lambda x: 1 / 0)
    cases: list[Callable[[], object]] = [
        lambda: model(X),
        lambda: model(X[0]),
        lambda: model(X[::-1]),
        lambda: model(memoryview(X)),
        lambda: model.run({"x": X}, out={"y": out}),
        lambda: good(X),
        lambda: model.memory(),
        ignoring_errors(lambda: bad(X)),
        ignoring_errors(lambda: model(X.astype(np.int64))),
        ignoring_errors(lambda: model.run({"z": X})),
        ignoring_errors(lambda: model.run({"x": X}, out={"y": X[0]})),
        ignoring_errors(lambda: inferkit.Model.load(b"no model")),
    ]
    keeps_what_is_freed = "address" in inferkit.build_info()["sanitizers"]  # to watch it; the references hold there too
    for case in cases:
        for _ in range(50):
            case()
        gc.collect()
        before = sys.getrefcount(X), sys.getrefcount(X.dtype), sys.getrefcount(out)
        growth = []
        while len(growth) < 3 and (not growth or growth[-1] >= 2_000_000):  # a leak grows each time
            size = rss()
            for _ in range(1000):
                case()
            gc.collect()
            growth.append(rss() - size)
        assert (sys.getrefcount(X), sys.getrefcount(X.dtype), sys.getrefcount(out)) == before
        assert keeps_what_is_freed or growth[-1] < 2_000_000


@pytest.mark.parametrize("mask", [False, True, [[True, False, False, False], [False] * 4]])
def test_masked_arrays_are_refused(mask: object) -> None:
    """Whether anything is masked or not: what works must not fail at the first gap in the data."""
    masked = np.ma.masked_array(X, mask)
    for model in (two_outputs(), wrap(lambda x: x)):
        with pytest.raises(inferkit.ValidationError, match=r"'x'.*masked.*\.filled") as caught:
            model(masked)
        assert caught.value.reason == "dtype"
        model(masked.filled(0))


def test_other_subclasses_of_arrays_are_taken() -> None:
    class Mine(np.ndarray):
        pass

    np.testing.assert_array_equal(two_outputs()(X.view(Mine))[1], -X)


class Service:
    """Holds the model that calls it."""

    def __init__(self) -> None:
        self.model = wrap(self.predict)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x + 1


def test_a_model_and_its_callable_may_refer_to_each_other() -> None:
    service = Service()
    service.model(X)
    gone = weakref.ref(service)
    del service
    gc.collect()
    assert gone() is None


def test_what_a_batcher_runs_is_not_collected() -> None:
    service = Service()
    with inferkit.Batcher(service.model) as batcher:
        gone = weakref.ref(service)
        del service
        gc.collect()
        assert gone() is not None
        np.testing.assert_array_equal(batcher(X), X + 1)


class BatchedService(Service):
    """Holds the batcher that calls it too."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = inferkit.Batcher(self.model)


@pytest.mark.parametrize("closed", [False, True])
def test_a_batcher_and_its_callable_may_refer_to_each_other(closed: bool) -> None:
    service = BatchedService()
    service.batcher(X)
    ticket = service.batcher.submit(X)
    np.testing.assert_array_equal(ticket.result(5), X + 1)
    del ticket
    if closed:
        service.batcher.close()
    gone = weakref.ref(service)
    del service
    for _ in range(3):
        gc.collect()
    assert gone() is None


def test_what_a_ticket_waits_for_is_not_collected() -> None:
    service = BatchedService()
    started, go_on = threading.Event(), threading.Event()

    def slow(x: np.ndarray) -> np.ndarray:
        started.set()
        go_on.wait(10)
        return service.predict(x)

    holder = {"batcher": inferkit.Batcher(wrap(slow), max_batch_size=2)}
    slow.batcher = holder["batcher"]  # type: ignore[attr-defined]
    first = holder["batcher"].submit(X)
    started.wait(10)
    second = holder["batcher"].submit(X)
    holder.clear()
    del slow
    for _ in range(3):
        gc.collect()
    go_on.set()
    for ticket in (first, second):
        np.testing.assert_array_equal(ticket.result(10), X + 1)


def test_a_gather_out_of_range_leaves_the_model_whole() -> None:
    table = numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(5, 4), "t")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["y"], name="look")],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [table],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = inferkit.Model.load(made.SerializeToString())
    for _ in range(3):
        with pytest.raises(inferkit.InferenceError, match=r"'look'.*index 9 is out of range"):
            model(np.array([9]))
        assert model(np.array([4])).tolist() == [[16.0, 17.0, 18.0, 19.0]]
    assert model.memory().sessions == 1


def test_messages_go_on_after_a_nul() -> None:
    model = inferkit.Model.from_callable(lambda x: x, inputs=[("a\0b", *FEATURES)], outputs=[("y", *FEATURES)])
    with pytest.raises(inferkit.ValidationError, match=r"a\\x00b' is missing"):
        model.run({})
    with pytest.raises(inferkit.ValidationError, match=r"a\\x00b' .*float32"):
        model.run({"a\0b": X.astype(np.int64)})
    with pytest.raises(ValueError, match=r"two ports have the name 'a\\x00b'"):
        inferkit.Model.from_callable(abs, inputs=[("a\0b", *FEATURES)] * 2, outputs=[("y", *FEATURES)])

    def fail(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("before\0after")

    with pytest.raises(inferkit.InferenceError, match=r"before.*after"):
        wrap(fail)(X)
