"""Signals are heard while a model is loaded and while it runs, also where one step takes seconds; forks do not wait."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT

# Runs `work()`, interrupts it, and says how late the handler ran and what the work came to.
START = """
import signal, sys, time
import numpy as np
import inferkit

PATH = sys.argv[1]
due = heard = None

def on_alarm(*_):
    global heard
    heard = time.monotonic()
    raise KeyboardInterrupt("stop")

def interrupt(work, after=0.3):
    global due
    signal.signal(signal.SIGALRM, on_alarm)
    due = time.monotonic() + after
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        work()
    except KeyboardInterrupt as error:
        print(f"stopped: {error}, late: {heard - due:.3f}")
    else:
        print("it ended by itself")
"""


def run(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + code, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def check_stopped(out: str) -> None:
    assert out.startswith("stopped: stop, late: "), out
    late = float(out.split()[-1])
    assert late < 2, out  # 0.1 s on an idle machine


def save(folder: Path, nodes: list[onnx.NodeProto], inputs: list[object], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def chain(length: int) -> list[onnx.NodeProto]:
    names = ["x", *(f"h{i}" for i in range(length)), "y"]
    return [helper.make_node("Sin", [a], [b]) for a, b in itertools.pairwise(names)]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = (x W) W, whose steps take seconds for many rows."""
    size = 2048
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", FLOAT, [None, size])
    return save(tmp_path_factory.mktemp("product"), nodes, [x], {"w": np.full((size, size), 1e-3, np.float32)})


LONG = "x = np.ones((60000, 2048), np.float32)\n"


@pytest.mark.parametrize("threads", [None, 1])
def test_a_long_run(threads: int | None, product: Path) -> None:
    check_stopped(run(f"m = inferkit.Model.load(PATH, threads={threads})\n{LONG}interrupt(lambda: m(x))", product))


def test_a_run_on_the_caller_of_a_batcher(product: Path) -> None:
    code = f"b = inferkit.Batcher(inferkit.Model.load(PATH), max_batch_size=60000)\n{LONG}interrupt(lambda: b(x))"
    check_stopped(run(code, product))


ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"
# Inputs by kind and shape.
MAKERS = """
rng = np.random.default_rng(0)
def normal(*shape): return rng.standard_normal(shape, np.float32)
def uniform(*shape): return rng.random(shape, np.float32)
def tokens(*shape): return rng.integers(0, 50, shape)
def indices(*shape): return np.zeros(shape, np.int64)
def doubles(*shape): return rng.standard_normal(shape)
def halves(*shape): return normal(*shape).astype(np.float16)
def huge(*shape): return np.full(shape, 1e308)
def boxes(*shape): return (lambda a: np.concatenate([a, a + 0.001], -1, dtype=np.float32))(uniform(*shape[:-1], 2))
def letters(count): return np.array(["a" * count], object)
def rois(count, width): return np.tile(np.array([0, 0, 0, 190, 190], np.float32)[-width:], (count, 1))
"""


def kind(name: str, *shape: int) -> tuple[str, tuple[int, ...]]:
    return name, shape


def node(op: str, inputs: int, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, [f"i{i}" for i in range(inputs)], ["y"], **attributes)


INTEGERS = {"tokens": TensorProto.INT64, "indices": TensorProto.INT64}
TEXTS = {"letters": TensorProto.STRING}
FLOATS = {"doubles": TensorProto.DOUBLE, "huge": TensorProto.DOUBLE, "halves": TensorProto.FLOAT16}
WEIGHTED = ("Conv", "ConvTranspose", "LSTM", "RNN", "CausalConvWithState")  # all but the first dimension are fixed

# One step of each kind that takes many seconds, with its inputs and constants.
STEPS = {
    "unique": (node("Unique", 1), [kind("normal", 12_000_000)]),
    "top k": (node("TopK", 2), [kind("normal", 1, 9_000_000), np.array([9_000_000])]),
    "boxes": (
        node("NonMaxSuppression", 4),
        [kind("boxes", 1, 150_000, 4), kind("uniform", 1, 1, 150_000), np.array([150_000]), np.array([0.99], "f")],
    ),
    "regions": (
        node("RoiAlign", 3, output_height=14, output_width=14),
        [kind("normal", 1, 64, 200, 200), kind("rois", 2000, 4), kind("indices", 2000)],
    ),
    "maxima of regions": (
        node("MaxRoiPool", 2, pooled_shape=[7, 7]),
        [kind("normal", 1, 256, 200, 200), kind("rois", 1000, 5)],
    ),
    "determinant": (node("Det", 1), [kind("normal", 1, 3500, 3500)]),
    "transform": (node("DFT", 1), [kind("normal", 3, 4_000_037, 1)]),
    "transforms": (node("STFT", 3), [kind("normal", 1, 10_000_000), np.array(512), kind("normal", 4096)]),
    "running sum": (node("CumSum", 2), [kind("normal", 2_000_000, 64), np.array(0)]),
    "reversed": (
        node("ReverseSequence", 2, time_axis=0, batch_axis=1),
        [kind("normal", 1_000_000, 100), np.full(100, 1_000_000)],
    ),
    "one head": (helper.make_node("Attention", ["i0", "i0", "i0"], ["y"]), [kind("normal", 1, 1, 60_000, 64)]),
    "convolution of doubles": (
        node("Conv", 2),
        [kind("doubles", 8, 32, 256, 256), np.ones((64, 32, 5, 5))],
    ),
    "one long sum": (node("Conv", 2), [kind("doubles", 1, 60, 400, 400), np.ones((1, 60, 390, 390))]),
    "windows of millions": (node("Conv", 2), [kind("normal", 1, 60, 400, 400), np.ones((1, 60, 390, 390), "f")]),
    "transposed convolution": (
        node("ConvTranspose", 2, strides=[2, 2]),
        [kind("doubles", 4, 64, 128, 128), np.ones((64, 64, 9, 9))],
    ),
    "gates of doubles": (
        node("LSTM", 3, hidden_size=128),
        [kind("doubles", 10, 2000, 1024), np.ones((1, 512, 1024)), np.ones((1, 512, 128))],
    ),
    "states of doubles": (
        node("RNN", 3, hidden_size=1500),
        [kind("doubles", 1, 12000, 4), np.ones((1, 1500, 4)), np.ones((1, 1500, 1500))],
    ),
    "two directions": (  # each on a thread of its own
        node("RNN", 3, hidden_size=1500, direction="bidirectional"),
        [kind("doubles", 1, 12000, 4), np.ones((2, 1500, 4)), np.ones((2, 1500, 1500))],
    ),
    "remainders": (node("Mod", 2, fmod=1), [kind("huge", 20_000_000), np.array(3e-308)]),
    "causal convolution": (
        helper.make_node("CausalConvWithState", ["i0", "i1"], ["y", "state"]),
        [kind("normal", 1, 1, 4_000_000), np.ones((1, 1, 8000), np.float32)],
    ),
    "words": (
        node(
            "TfIdfVectorizer",
            1,
            mode="TF",
            min_gram_length=1,
            max_gram_length=2,
            max_skip_count=50,
            ngram_counts=[0, 50],
            ngram_indexes=list(range(51)),
            pool_int64s=[*range(50), 1, 2],
        ),
        [kind("tokens", 1, 4_000_000)],
    ),
    "one long text": (node("RegexFullMatch", 1, pattern="[ab]*a[ab]{900}"), [kind("letters", 6_000_000)]),
    "tokens of one text": (
        node("Tokenizer", 1, domain=MICROSOFT, mark=0, mincharnum=1, pad_value="", tokenexp="[ab]*a[ab]{900}c|a"),
        [kind("letters", 6_000_000)],
    ),
    "support vectors": (
        node(
            "SVMRegressor",
            1,
            domain=ML,
            kernel_type="RBF",
            kernel_params=[0.1, 0.0, 3.0],
            n_supports=500,
            support_vectors=[0.5] * 500_000,
            coefficients=[0.5] * 500,
            rho=[0.0],
        ),
        [kind("normal", 40_000, 1000)],
    ),
}


OF_TEXTS = {
    "one long text": {"letters": TensorProto.BOOL},
    "tokens of one text": {"letters": TensorProto.STRING},
}


@pytest.mark.parametrize("name", STEPS)
def test_a_single_long_step(name: str, tmp_path: Path) -> None:
    step, inputs = STEPS[name]
    given = {f"i{i}": x for i, x in enumerate(inputs) if isinstance(x, tuple)}
    graph = helper.make_graph(
        [step],
        "g",
        [
            helper.make_tensor_value_info(
                x,
                (INTEGERS | FLOATS | TEXTS).get(what, FLOAT),
                [None, *shape[1:]] if len(shape) == 2 or step.op_type in WEIGHTED else [None] * len(shape),
            )
            for x, (what, shape) in given.items()
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.INT64, [None, 3])
            if name == "boxes"
            else helper.make_tensor_value_info("y", (FLOATS | OF_TEXTS.get(name, {})).get(given["i0"][0], FLOAT), None)
        ],
        [numpy_helper.from_array(x, f"i{i}") for i, x in enumerate(inputs) if isinstance(x, np.ndarray)],
    )
    opset = {"Attention": 23, "DFT": 17, "CausalConvWithState": 27, "RegexFullMatch": 20}.get(step.op_type, 18)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 1), helper.make_opsetid(MICROSOFT, 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    feeds = ", ".join(f"{x!r}: {what}{shape}" for x, (what, shape) in given.items())
    threads = 2 if name == "two directions" else 1
    code = f"m = inferkit.Model.load(PATH, threads={threads})\nx = {{{feeds}}}\ninterrupt(lambda: m.run(x))"
    check_stopped(run(MAKERS + code, path))


def test_a_model_runs_again_after_it_was_stopped(product: Path) -> None:
    code = f"""
m = inferkit.Model.load(PATH)
few = np.ones((3, 2048), np.float32)
before = m(few)
{LONG}interrupt(lambda: m(x))
print((m(few) == before).all())
"""
    stopped, same, _ = run(code, product).split("\n")
    check_stopped(stopped)
    assert same == "True"


def test_a_handler_that_raises_nothing_changes_nothing(product: Path) -> None:
    code = """
calls = []
m = inferkit.Model.load(PATH)
x = np.ones((4000, 2048), np.float32)
start = time.monotonic()
m(x[:64])
if time.monotonic() - start > 0.5:  # below a sanitizer: all of it would take minutes
    x = x[:64]
expected = m(x)
done = False
def handler(*_):
    calls.append(m(x[:2]))
    if not done:
        signal.setitimer(signal.ITIMER_REAL, 0.02)  # not before: a slow machine would never leave the handler
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
got = [m(x) for _ in range(5)]
done = True
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(calls) > 0, all((g == expected).all() for g in got), all((c == expected[:2]).all() for c in calls))
"""
    assert run(code, product) == "True True True\n"


def test_a_run_of_many_short_plans(tmp_path: Path) -> None:
    """A loop without an end in sight."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["carried", "carried"], ["doubled"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("doubled", FLOAT, [None]),
        ],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    inputs = [
        helper.make_tensor_value_info("x", FLOAT, [None]),
        helper.make_tensor_value_info("n", TensorProto.INT64, []),
    ]
    path = save(tmp_path, nodes, inputs, {})
    code = """
m = inferkit.Model.load(PATH, max_iterations=1 << 40)
interrupt(lambda: m.run({"x": np.zeros(3, np.float32), "n": np.array(1 << 40)}))
"""
    check_stopped(run(code, path))


def test_loading(tmp_path: Path) -> None:
    """Of a graph that takes seconds."""
    path = save(tmp_path, chain(120000), [helper.make_tensor_value_info("x", FLOAT, [None])], {})
    check_stopped(run("interrupt(lambda: inferkit.Model.load(PATH), after=0.15)", path))


def side_by_side(count: int) -> list[onnx.NodeProto]:
    names = [f"h{i}" for i in range(count)]
    return [*(helper.make_node("Sin", ["x"], [name]) for name in names), helper.make_node("Sum", names, ["y"])]


def backwards(length: int) -> list[onnx.NodeProto]:
    return chain(length)[::-1]


@pytest.mark.parametrize("nodes", [chain, side_by_side, backwards])
def test_no_stage_of_loading_is_deaf(nodes: Callable[[int], list[onnx.NodeProto]], tmp_path: Path) -> None:
    """All stages go over all nodes: none of them may keep a signal waiting for a time that grows with their number."""
    path = save(tmp_path, nodes(120000), [helper.make_tensor_value_info("x", FLOAT, [None])], {})
    code = """
heard = [time.thread_time()]  # not what other processes take
signal.signal(signal.SIGALRM, lambda *_: heard.append(time.thread_time()))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
inferkit.Model.load(PATH)
signal.setitimer(signal.ITIMER_REAL, 0)
heard.append(time.thread_time())
print(max(b - a for a, b in zip(heard, heard[1:])), heard[-1] - heard[0])
"""
    longest, whole = map(float, run(code, path).split())
    assert longest < 0.1 + whole / 20, f"{longest:.3f} of {whole:.3f} s"


def test_another_thread_that_runs_hears_nothing(product: Path) -> None:
    """Handlers run in the main thread; a run elsewhere goes on."""
    code = """
import threading
m = inferkit.Model.load(PATH)
x = np.ones((4000, 2048), np.float32)
expected = m(x)
got = []
thread = threading.Thread(target=lambda: got.append(m(x)))
def work():
    thread.start()
    time.sleep(10)
interrupt(work, after=0.05)
thread.join()
print((got[0] == expected).all())
"""
    stopped, same, _ = run(code, product).split("\n")
    check_stopped(stopped)
    assert same == "True"


def test_a_fork_does_not_wait_for_a_compilation(tmp_path: Path) -> None:
    """It is made with the GIL held: everybody would wait. The child compiles what its parent was at."""
    path = save(tmp_path, chain(40000), [helper.make_tensor_value_info("x", FLOAT, [None])], {})
    code = """
import os, threading
m = inferkit.Model.load(PATH)
start = time.monotonic()
m(np.zeros(17, np.float32))
whole = time.monotonic() - start
thread = threading.Thread(target=m, args=[np.zeros(18, np.float32)])
thread.start()
time.sleep(whole / 8)
start = time.monotonic()
child = os.fork()
if child == 0:
    signal.alarm(60 + int(10 * whole))
    m(np.zeros(18, np.float32))
    os._exit(0)
print(time.monotonic() - start < whole / 2, os.waitpid(child, 0)[1])
thread.join()
"""
    assert run(code, path) == "True 0\n"


@pytest.mark.parametrize("dropped", ["del batcher", "batcher.itself = batcher\ndel batcher\ngc.collect()"])
def test_one_that_comes_while_a_batcher_is_dropped_is_heard(fresh_python: Callable[..., Any], dropped: str) -> None:
    """Python prints and forgets what a __del__ raises. Of a subclass, too, and where the garbage collector comes."""
    code = f"""
import gc, signal, threading, warnings, numpy as np, inferkit
from inferkit.testing import FakeModel

class Mine(inferkit.Batcher):
    pass

def show(message, *_, **__):
    told.append(str(message))
    signal.raise_signal(signal.SIGINT)
    for _ in range(1000):  # where it is heard
        pass

told, opened = [], threading.Event()
warnings.simplefilter("always")
warnings.showwarning = show
batcher = Mine(FakeModel(answer=lambda x: (opened.wait(60), x)[1]), caller_runs=False)
ticket = batcher.submit(np.ones(2, np.float32))
heard = 0
try:
    {dropped.replace(chr(10), chr(10) + "    ")}
    for _ in range(1000):
        pass
    print("lost")
except KeyboardInterrupt:
    heard += 1
for _ in range(1000):  # once
    pass
opened.set()
print(heard, len(told), ticket.result(60).tolist())
"""
    done = fresh_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1 [1.0, 1.0]\n", "")
