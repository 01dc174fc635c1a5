"""Arrays in a CUDA device's memory, in and out, over the tests' own driver: each program is a process that finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_objects import BUILD, sanitized

import inferkit

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = [path for path in BUILD.glob("**/cuda_on_host/driver/libcuda.so.1") if not sanitized(path)]
REASON = (
    "this build has no CUDA kernels"
    if not inferkit.build_info()["cuda"]
    else f"no driver of the tests below {BUILD}: build with INFERKIT_BUILD_TESTS"
)
pytestmark = [
    pytest.mark.skipif(not inferkit.build_info()["cuda"] or not DRIVERS, reason=REASON),
    pytest.mark.unsanitized("the tests' driver has no sanitizers"),
]

START = """
import gc
import numpy as np
import inferkit
import there
from there import ByDlpack, ByInterface, tensor_of

there.start()
DIGITS = "examples/digits.onnx"
model = inferkit.Model.load(DIGITS, device="cuda")
host = inferkit.Model.load(DIGITS)
x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)

def refused(given, *pieces, on=model):
    try:
        on(given)
    except inferkit.ValidationError as error:
        assert all(piece in str(error) for piece in pieces), str(error)
        return error
    raise AssertionError(f"not refused: {pieces}")
"""


def over_the_driver(program: str) -> None:
    driver = max(DRIVERS, key=lambda path: path.stat().st_mtime).parent
    done = subprocess.run(
        [sys.executable, "-c", START + program + "\nprint('all ended')"],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all ended\n"


@pytest.mark.parametrize(
    "kind", ["ByInterface(x)", "ByDlpack(x)", "ByDlpack(x, old=True)", "ByInterface(x, strides=(256, 4))"]
)
def test_an_array_that_arrives_late_is_waited_for_and_the_answer_lies_there(kind: str) -> None:
    over_the_driver(f"""
want = host(x)
for _ in range(3):  # the second finds what the first has left
    given = {kind}
    y = model(given)
    assert type(y) is inferkit.cuda.DeviceArray, y
    assert (y.shape, y.dtype, y.nbytes, y.device) == (want.shape, "float32", want.nbytes, "cuda:0")
    np.testing.assert_array_equal(y.numpy(), want)
    assert all(stream > 2 for stream in given.asked), given.asked
assert type(model(x)) is np.ndarray
np.testing.assert_array_equal(model(x), want)
np.testing.assert_array_equal(model(ByInterface(x[0])).numpy(), host(x[0]))  # a single row
by_name = model.run({{model.inputs[0].name: {kind}}})
np.testing.assert_array_equal(by_name[model.outputs[0].name].numpy(), want)
# What one model gives another takes.
ports = [("x", "float32", (None, 10))], [("y", "float32", (None, 10))]
again = inferkit.Model.load(DIGITS, device="cuda")
np.testing.assert_array_equal(again(model.run({{model.inputs[0].name: ByDlpack(x)}}) and ByDlpack(x)).numpy(), want)
""")


def test_what_is_not_as_it_should_be_is_refused_with_the_reason() -> None:
    over_the_driver("""
import ctypes
class Nowhere:
    def __init__(self, device):
        self.device = device
    def __dlpack_device__(self):
        if isinstance(self.device, Exception):
            raise self.device
        return self.device
for device in (ValueError("it has no device"), (2**70, 0), ("cuda", 0), (), None):
    refused(Nowhere(device), "input 'image'", "got Nowhere")
refused(ByInterface(x, strides=(512, 4)), "row-major and gapless")
refused(ByInterface(x, strides=(256,)), "as many strides")
refused(ByInterface(x, typestr=">f4"), "'>f4'")
refused(ByInterface(x, typestr="<c8"), "'<c8'")
refused(ByInterface(x.astype(np.float64)), "float64")
refused(ByInterface(x, typestr=None), "no typestr")
refused(ByInterface(x, data=(0, False)), "null")
refused(ByInterface(x, data=None), "no pair")
refused(ByInterface(x, data=(-1, False)), "whole number")
refused(ByInterface(x, data=(x.ctypes.data, False)), "no memory that the CUDA driver knows")
refused(ByInterface(x, data=(ByInterface(x).at + 2, False)), "multiples of their size")
refused(ByInterface(x, shape=[5, 64]), "no tuple")
refused(ByInterface(x, shape=(5, -64)), "negative")
refused(ByInterface(x, shape=(2**62, 64)), "larger than any memory")
refused(ByInterface(x, shape=(1,) * 20), "dimensions")
refused(ByInterface(x, mask=1), "masked")
refused(ByInterface(x, stream=0), "is 0")
refused(ByInterface(x, stream=12345678), "primary context")
refused(ByInterface(x[:, :63]), "63")
refused(ByInterface(x[:0]), "empty")
pinned = ctypes.c_void_p()
there.call("cuMemHostAlloc", ctypes.byref(pinned), ctypes.c_size_t(x.nbytes), 3)
refused(ByInterface(x, data=(pinned.value, False)), "is the host's", 'on "cuda:0"')

strides = (ctypes.c_int64 * 2)(1, 5)
refused(ByDlpack(x, strides=strides), "row-major and gapless")
refused(ByDlpack(x, name="used_dltensor"), "already consumed")
refused(ByDlpack(x, name="used_dltensor_versioned"), "already consumed")
refused(ByDlpack(x, name="another"), "'another'")
refused(ByDlpack(x, major=2), "version is 2.0")
refused(ByDlpack(x, code=5), "type 5")
refused(ByDlpack(x, lanes=4), "no counterpart")
refused(ByDlpack(x, device=(ctypes.c_int32 * 2)(1, 0)), "device 1")
refused(ByDlpack(x, data=None), "null")
refused(ByDlpack(x, shape=None), "no shape")

class Raises(ByDlpack):
    def __dlpack__(self, **_):
        raise BufferError("it has a gradient")
refused(Raises(x), "it has a gradient")
class NoCapsule(ByDlpack):
    def __dlpack__(self, **_):
        return 5
refused(NoCapsule(x), "no capsule")
class Stops(ByDlpack):
    def __dlpack__(self, **_):
        raise KeyboardInterrupt
try:
    model(Stops(x))
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("not stopped")
try:
    model.run({model.inputs[0].name: ByDlpack(x)}, out={model.outputs[0].name: np.empty((5, 10), np.float32)})
except ValueError as error:
    assert "out=" in str(error)
else:
    raise AssertionError("not refused")
np.testing.assert_array_equal(model(ByDlpack(x)).numpy(), host(x))  # and nothing of it stays
""")


def test_a_model_that_fixes_its_rows_takes_no_single_row_from_there_either() -> None:
    over_the_driver("""
import onnx.parser

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
TEXT = HEAD + ' g (float[{n}, 4] x) => (float[{n}, 4] y) { y = Softmax <axis = 0> (x) }'
fixed, one = (inferkit.Model.load(onnx.parser.parse_model(TEXT.replace("{n}", n)), device="cuda") for n in "81")
rows = np.arange(32, dtype=np.float32).reshape(8, 4)
for by in (ByInterface, ByDlpack):
    refused(by(rows[0]), "has shape (4,); expected (8, 4)", "fixes its first dimension at 8", on=fixed)
    refused(by(rows[:1]), "has shape (1, 4); expected (8, 4)", on=fixed)
    assert fixed(by(rows)).shape == (8, 4)
    np.testing.assert_array_equal(one(by(rows[0])).numpy(), np.ones(4))
""")


def test_values_that_are_not_finite_are_found_there_as_on_the_host() -> None:
    over_the_driver("""
for bad in (np.nan, np.inf, -np.inf):
    for place in ((0, 0), (3, 17), (4, 63)):
        wrong = x.copy()
        wrong[place] = bad
        there_says, host_says = refused(ByInterface(wrong)), refused(wrong, on=host)
        assert str(there_says) == str(host_says)
        assert there_says.reason == host_says.reason == "non_finite"
open_to_all = inferkit.Model.load(DIGITS, device="cuda", input_checks=inferkit.InputChecks(finite=False))
wrong = x.copy()
wrong[2, 3] = np.inf
want = inferkit.Model.load(DIGITS, input_checks=inferkit.InputChecks(finite=False))(wrong)
np.testing.assert_array_equal(open_to_all(ByInterface(wrong)).numpy(), want)
np.testing.assert_array_equal(model(ByInterface(x)).numpy(), host(x))
""")


def test_an_answer_goes_to_other_libraries_by_both_protocols() -> None:
    over_the_driver("""
import ctypes
want = host(x)

def read(address, shape):
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)

y = model(ByDlpack(x))
interface = y.__cuda_array_interface__
address, read_only = interface["data"]
assert interface == {"shape": (5, 10), "typestr": "<f4", "data": (address, False), "strides": None, "stream": None,
                     "version": 3}
np.testing.assert_array_equal(read(address, (5, 10)), want)
assert y.__dlpack_device__() == (2, 0)
for arguments, name in (
    ({}, b"dltensor"),
    ({"max_version": (0, 8)}, b"dltensor"),
    ({"stream": 1, "max_version": (1, 0), "dl_device": (2, 0), "copy": False}, b"dltensor_versioned"),
):
    tensor = tensor_of(y.__dlpack__(**arguments), name)
capsule = y.__dlpack__(max_version=(1, 1))
tensor = tensor_of(capsule, b"dltensor_versioned")
assert (tensor.rank, tensor.shape[:2], tensor.strides[:2]) == (2, [5, 10], [10, 1])
assert (tensor.code, tensor.bits, tensor.lanes, tuple(tensor.device)) == (2, 32, 1, (2, 0))
del y
gc.collect()
np.testing.assert_array_equal(read(tensor.data, (5, 10)), want)  # the capsule keeps it
np.testing.assert_array_equal(model(ByInterface(x)).numpy(), want)
np.testing.assert_array_equal(read(tensor.data, (5, 10)), want)
del capsule

y = model(ByDlpack(x))
for arguments, error in (
    ({"stream": 0}, ValueError), ({"stream": -2}, ValueError), ({"stream": "1"}, TypeError),
    ({"copy": True}, BufferError), ({"dl_device": (1, 0)}, BufferError), ({"dl_device": (2, 1)}, BufferError),
):
    try:
        y.__dlpack__(**arguments)
    except error:
        pass
    else:
        raise AssertionError(arguments)
""")


def test_memory_that_another_library_works_on_is_not_used_again_before() -> None:
    over_the_driver("""
import ctypes

def arrays():
    return sum(row.count for row in inferkit.cuda.leaks() if row.tag == "array")

# Nobody was told of it: it goes back at once.
y = model(ByInterface(x))
assert arrays() == 1
del y
assert arrays() == 0

# Taken in the default stream, where something is still to come: an array of that size is elsewhere until it is done.
given = ByInterface(x)
y = model(given)
capsule = y.__dlpack__(stream=1)
address = tensor_of(capsule, b"dltensor").data
late, event = np.zeros(4, np.float32), ctypes.c_void_p()
there.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(given.at), ctypes.c_void_p(late.ctypes.data), ctypes.c_size_t(16),
           ctypes.c_void_p(given.stream))
there.call("cuEventCreate", ctypes.byref(event), 2)
there.call("cuEventRecordWithFlags", event, ctypes.c_void_p(given.stream), 0)
there.call("cuStreamWaitEvent", ctypes.c_void_p(1), event, 0)
del capsule, y
assert arrays() == 1
other = model(ByInterface(x))
assert other.__cuda_array_interface__["data"][0] != address
assert arrays() == 2
there.call("cuStreamSynchronize", ctypes.c_void_p(1))
third = model(ByInterface(x))
assert arrays() == 2 and third.__cuda_array_interface__["data"][0] == address

# Taken in a stream that nobody can ask later: the driver has it back, which waits.
cached = inferkit.cuda.memory().device.cached_bytes
third.__dlpack__(stream=there.stream())
del third
assert arrays() == 1 and inferkit.cuda.memory().device.cached_bytes == cached

# Where there is no memory left, what is leaving is waited for.
y = model(ByInterface(x))
y.__dlpack__(stream=1)
del y
inferkit.cuda.limit_memory(inferkit.cuda.memory().device.in_use_bytes)
z = model(ByInterface(x))
inferkit.cuda.limit_memory(None)
np.testing.assert_array_equal(z.numpy(), host(x))
del z, other
gc.collect()
inferkit.cuda.trim()
assert arrays() == 0
""")


def test_threads_have_arrays_there_at_the_same_time() -> None:
    over_the_driver("""
import threading
want = {n: host(x[:n]) for n in (1, 2, 5)}
errors = []

def run(number):
    try:
        there.start()
        for i in range(10):
            n = (1, 2, 5)[(number + i) % 3]
            kind = ByInterface if i % 2 else ByDlpack
            np.testing.assert_array_equal(model(kind(x[:n])).numpy(), want[n])
            np.testing.assert_array_equal(model(x[:n]), want[n])
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
""")


def test_a_device_that_fails_is_an_error_there_too_and_shows() -> None:
    over_the_driver("""
import ctypes
given = ByInterface(x)
model(given)
there.cuda.cuda_on_host_break()
for _ in range(2):
    try:
        model(given)
    except inferkit.DeviceError as error:
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in str(error)
    else:
        raise AssertionError("no error")
there.cuda.cuda_on_host_break()
np.testing.assert_array_equal(model(ByInterface(x)).numpy(), host(x))
""")


def test_models_with_steps_on_the_cpu_bools_and_several_inputs_take_them() -> None:
    over_the_driver("""
import onnx
from onnx import TensorProto as T, helper

def load(nodes, inputs, outputs, **options):
    ports = [[helper.make_tensor_value_info(n, t, s) for n, t, s in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *ports)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return inferkit.Model.load(content, **options), inferkit.Model.load(content)

row = ("n", 4)
a, b = (np.random.default_rng(s).normal(size=(3, 4)).astype(np.float32) for s in (1, 2))
square = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
for product, b, shape in (("MatMul", square, (4, 4)), ("Add", b, row)):  # the latter stays with its neighbours
    on, off = load([helper.make_node("Shrink", ["a"], ["t"]), helper.make_node(product, ["t", "b"], ["y"]),
                    helper.make_node("Shrink", ["y"], ["z"])],
                   [("a", T.FLOAT, row), ("b", T.FLOAT, shape)], [("y", T.FLOAT, row), ("z", T.FLOAT, row)],
                   device="cuda", fallback="cpu")
    assert ("copy" in {step.operator for step in on.explain().steps}) == (product == "MatMul")
    for given in ((ByInterface(a), ByDlpack(b)), (a, ByDlpack(b)), (ByInterface(a), b)):
        for got, want in zip(on(*given), off(a, b)):
            np.testing.assert_array_equal(got.numpy(), want)
wrong = a.copy()
wrong[1, 2] = np.nan
for given in ((ByInterface(wrong), b), (a, ByInterface(wrong))):
    try:
        on(*given)
    except inferkit.ValidationError as error:
        assert "index (1, 2)" in str(error), error
    else:
        raise AssertionError("not refused")

on, off = load([helper.make_node("Where", ["c", "a", "b"], ["y"])],
               [("c", T.BOOL, row), ("a", T.FLOAT, row), ("b", T.FLOAT, row)], [("y", T.FLOAT, row)], device="cuda")
truths = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3  # a byte that is not 0 is true
got = on(ByInterface(truths.view(bool)), ByInterface(a), ByDlpack(b)).numpy()
np.testing.assert_array_equal(got, np.where(truths != 0, a, b))

index = np.array([0, 2, 9], np.int64)
on, off = load([helper.make_node("Gather", ["a", "i"], ["y"])],
               [("a", T.FLOAT, ("n", 4)), ("i", T.INT64, ("k",))], [("y", T.FLOAT, ("k", 4))], device="cuda")
try:
    on(ByInterface(a), ByInterface(index))
except inferkit.InferenceError as error:
    assert "out of range" in str(error)
else:
    raise AssertionError("no error")
index[2] = 1
np.testing.assert_array_equal(on(ByInterface(a), ByInterface(index)).numpy(), a[index])
""")


def test_arrays_become_those_of_the_library_that_the_input_is_of() -> None:
    over_the_driver("""
import sys, types

class ndarray(ByDlpack):
    pass
taken = []
def from_dlpack(array):
    taken.append(array.__dlpack__(stream=1, max_version=(1, 0)))
    return "cupy's"
class Device:
    id = 0
class Elsewhere:
    id = 7
fake = types.ModuleType("cupy")
fake.ndarray, fake.from_dlpack, fake.cuda = ndarray, from_dlpack, types.SimpleNamespace(Device=(Device, Elsewhere))
assert "cupy" not in sys.modules
sys.modules["cupy"] = fake
assert model(ndarray(x)) == "cupy's" and len(taken) == 1
assert type(model(ByDlpack(x))) is inferkit.cuda.DeviceArray
assert inferkit.Model.load(DIGITS, device=Device())(ndarray(x)) == "cupy's"
try:
    inferkit.Model.load(DIGITS, device=Elsewhere())
except inferkit.DeviceError as error:
    assert "no CUDA device 7" in str(error)
else:
    raise AssertionError("no error")
""")


def test_tensors_of_torch_take_the_short_way_where_torch_tells_its_stream() -> None:
    over_the_driver("""
import sys, types

class Tensor(ByDlpack):
    pass
taken = []
def from_dlpack(given):
    taken.append(given)
    return "torch's"
at = there.stream()
torch = types.ModuleType("torch")
torch.Tensor, torch.from_dlpack = Tensor, from_dlpack
assert "torch" not in sys.modules
sys.modules["torch"] = torch
want = host(x)

def value_of(capsule):
    shape = want.shape
    found = tensor_of(capsule, b"dltensor")
    assert tuple(found.shape[i] for i in range(found.rank)) == shape
    return there.read(found.data, shape)

# One that tells: its capsule is asked for without a stream, and the values, which are late, are waited for.
torch._C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: given.stream)
for _ in range(3):
    given = Tensor(x)
    assert model(given) == "torch's" and given.asked == [-1], given.asked
    np.testing.assert_array_equal(value_of(taken.pop()), want)
# In the default stream, whose handle is 0 there.
torch._C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 0)
given = Tensor(x)
there.wait(given.stream)
assert model(given) == "torch's" and given.asked == [-1]
np.testing.assert_array_equal(value_of(taken.pop()), want)
# One that does not tell, and arrays of others: by the protocol.
for torch._C in (types.SimpleNamespace(), None):
    given = Tensor(x)
    assert model(given) == "torch's" and given.asked[0] > 2
    assert type(taken.pop()) is inferkit.cuda.DeviceArray
assert type(model(ByDlpack(x))) is inferkit.cuda.DeviceArray
# What it raises is an error of the call.
torch._C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 1 // device)
refused(Tensor(x), "could not read the Tensor", "ZeroDivisionError")
""")
