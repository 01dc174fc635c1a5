"""A program may end while daemon threads are inside a call: its exit code and its output are its own.

Each program runs in fresh interpreters, several at once so that they meet the end at different moments.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNS = 10

START = f"""
import asyncio, os, sys, threading, time
import numpy as np
import inferkit

MODEL = {str(ROOT / "examples" / "digits.onnx")!r}
PORTS = dict(inputs=[("x", "float32", (None, 64))], outputs=[("y", "float32", (None, 64))])
x = np.zeros((512, 64), np.float32)
row = np.zeros((1, 64), np.float32)

def forever(call):
    def run():
        while True:
            call()
    for _ in range(2):
        threading.Thread(target=run, daemon=True).start()

def busy(a):
    for _ in range(200):  # Python's own code: where threads take turns
        a = a + 1
    return a

def sleepy(a):
    time.sleep(0.002)
    return a

def loop_of(main):
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
"""

DAEMONS = {
    "model": "m = inferkit.Model.load(MODEL)\nforever(lambda: m(x))",
    "model.run": "m = inferkit.Model.load(MODEL)\nforever(lambda: m.run({m.inputs[0].name: x}))",
    "callable that computes": "m = inferkit.Model.from_callable(busy, **PORTS)\nforever(lambda: m(x))",
    "callable that sleeps": "m = inferkit.Model.from_callable(sleepy, **PORTS)\nforever(lambda: m(x))",
    "load": "forever(lambda: inferkit.Model.load(MODEL))",
    "new shapes": """
import itertools
m = inferkit.Model.load(MODEL)
rows = itertools.count(1)
forever(lambda: m(np.zeros((next(rows) % 3000 + 1, 64), np.float32)))""",
    "batcher": "b = inferkit.Batcher(inferkit.Model.load(MODEL), max_batch_size=512)\nforever(lambda: b(x))",
    "batcher of a callable": """
b = inferkit.Batcher(inferkit.Model.from_callable(sleepy, **PORTS), max_batch_size=512)
forever(lambda: b(x))""",
    "workers alone": """
b = inferkit.Batcher(inferkit.Model.from_callable(busy, **PORTS), max_batch_size=512, caller_runs=False, workers=2)
forever(lambda: b(x))""",
    "result": """
b = inferkit.Batcher(inferkit.Model.load(MODEL), max_batch_size=512)
forever(lambda: b.submit(x).result())""",
    "result of a callable": """
b = inferkit.Batcher(inferkit.Model.from_callable(sleepy, **PORTS), max_batch_size=512)
forever(lambda: b.submit(x).result(timeout=5))""",
    "stats": """
b = inferkit.Batcher(inferkit.Model.load(MODEL), max_batch_size=512)
forever(lambda: (b.stats(), b.submit(x)))""",
    "drain and close": """
m = inferkit.Model.from_callable(sleepy, **PORTS)
def drain():
    b = inferkit.Batcher(m, max_batch_size=512)
    tickets = [b.submit(row) for _ in range(20)]
    b.drain(0.01)
    b.close()
forever(drain)""",
    "swap": """
m = inferkit.Model.load(MODEL)
b = inferkit.Batcher(m, max_batch_size=64)
forever(lambda: b.swap(m, batch_sizes=()))""",
    "diagnose": """
b = inferkit.Batcher(inferkit.Model.load(MODEL), max_batch_size=64)
forever(lambda: inferkit.diagnose(b, seconds=0.001))""",
    "batcher that nobody holds": """
m = inferkit.Model.from_callable(sleepy, **PORTS)
forever(lambda: inferkit.Batcher(m, max_batch_size=512).submit(row))""",
    "event loop": """
b = inferkit.Batcher(inferkit.Model.load(MODEL), max_batch_size=64)
async def main():
    async def one():
        while True:
            await b.submit(row)
    await asyncio.gather(*(one() for _ in range(20)))
loop_of(main)""",
    "event loop, workers, a callable": """
b = inferkit.Batcher(inferkit.Model.from_callable(busy, **PORTS), max_batch_size=64, inline_limit=0)
async def main():
    async def one():
        while True:
            await b.submit(row, timeout=5)
            sum(range(1000))
    await asyncio.gather(*(one() for _ in range(20)))
loop_of(main)""",
    "buffers and weights": """
pool = inferkit.BufferPool()
def turn():
    with pool.acquire(1 << 20) as buffer:
        np.frombuffer(buffer, np.uint8)[:10].sum()
    pool.trim()
    list(inferkit.Weights.open(MODEL))
forever(turn)""",
}

ENDS = {
    "the end": ("print('done')", 0, "done\n", ""),
    "sys.exit(3)": ("print('done')\nsys.exit(3)", 3, "done\n", ""),
    "an exception": ("raise ValueError('mine')", 1, "", r"Traceback[^\0]*\nValueError: mine\n"),
    "os._exit(5)": ("os._exit(5)", 5, "", ""),
}


def run_many(code: str) -> list[tuple[int, str, str]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(RUNS)
    ]
    outcomes = []
    for process in processes:
        try:
            out, error = process.communicate(timeout=120)
        finally:
            process.kill()
        outcomes.append((process.returncode, out, error))
    return outcomes


def check(code: str, end: str) -> None:
    last, status, output, errors = ENDS[end]
    for returncode, out, error in run_many(f"{START}\n{code}\ntime.sleep(0.1)\n{last}\n"):
        assert returncode == status, f"exit code {returncode}, {error}"
        assert out == output
        assert re.fullmatch(errors, error), error


@pytest.mark.parametrize("daemon", DAEMONS)
def test_exit_code_and_output_are_the_programs_own(daemon: str) -> None:
    check(DAEMONS[daemon], "the end")


@pytest.mark.parametrize("end", [end for end in ENDS if end != "the end"])
def test_however_the_program_ends(end: str) -> None:
    check(DAEMONS["model"] + "\n" + DAEMONS["result of a callable"], end)


def test_what_is_closed_is_said_by_the_core_alone() -> None:
    """It knows whether the exit has closed it: an error raised in Python would be printed by daemon threads."""
    package = ROOT / "python" / "inferkit"
    assert not [path for path in package.rglob("*.py") if "raise ClosedError" in path.read_text()]


# What the core keeps for the life of the process must not be destroyed by exit(), under threads that still run.

BUILD = Path(os.environ.get("INFERKIT_BUILD_DIR", ROOT / "build"))
OBJECTS = [
    path
    for folder in ("base", "platform", "telemetry", "memory", "graph", "kernels", "engine", "batching")
    for path in sorted(BUILD.glob(f"**/csrc/{folder}/**/*.cc.o"))
]


@pytest.mark.skipif(not OBJECTS or not shutil.which("nm"), reason="needs nm and the objects of a build")
def test_nothing_static_is_destroyed_at_exit() -> None:
    out = subprocess.run(
        ["nm", "--undefined-only", "--print-file-name", *map(str, OBJECTS)], check=True, capture_output=True, text=True
    )
    guilty = {line.split(":")[0] for line in out.stdout.splitlines() if line.endswith(" __cxa_atexit")}
    assert not guilty


# Functions of Python that the bindings call and that neither take the GIL nor run Python code: they make or read
# objects of built-in types. (Making one may start the garbage collector up to Python 3.11.)
HARMLESS = """
PyBool_FromLong PyBuffer_FillInfo PyBuffer_IsContiguous PyByteArray_AsString PyByteArray_Size PyBytes_AsString
PyBytes_AsStringAndSize PyBytes_FromString PyBytes_FromStringAndSize PyBytes_Size PyCMethod_New PyCallable_Check
PyCapsule_GetContext PyCapsule_GetName PyCapsule_GetPointer PyCapsule_IsValid PyCapsule_New PyCapsule_SetContext
PyCapsule_SetDestructor PyContextVar_Get PyContextVar_New PyContext_CopyCurrent PyContext_Enter PyDescr_NewMethod
PyDict_GetItemString PyDict_Next PyDict_SetItemString PyDict_Size PyErr_Fetch PyErr_Format
PyErr_GivenExceptionMatches PyErr_Occurred PyErr_SetInterrupt
PyErr_SetNone PyErr_SetString PyEval_GetBuiltins PyEval_SaveThread PyFloat_FromDouble PyFrame_GetBack PyFrame_GetCode
PyFrame_GetLineNumber PyGILState_GetThisThreadState PyImport_GetModuleDict PyIndex_Check PyInstanceMethod_New
PyInterpreterState_Get PyInterpreterState_GetDict PyInterpreterState_Main PyIter_Check PyList_Append PyList_AsTuple
PyList_GetItem PyList_Size PyLong_AsUnsignedLong PyLong_FromLong PyLong_FromSize_t PyLong_FromSsize_t
PyLong_FromUnsignedLong PyMem_Calloc PyMem_Free PyModuleDef_Init PyModule_AddObject PyModule_NewObject PyNumber_Check
PyObject_CallFunctionObjArgs PyObject_CheckBuffer PyObject_Free PyObject_GC_UnTrack PyObject_GenericGetDict
PyObject_GenericSetDict PyObject_Malloc PyObject_SelfIter PyObject_Type PySequence_Check PyStaticMethod_New
PyThreadState_DeleteCurrent PyThreadState_New PyThread_get_thread_ident PyThread_tss_create PyThread_tss_delete
PyThread_tss_get PyThread_tss_set
PyTuple_GetItem PyTuple_Size PyType_FromSpec PyType_IsSubtype PyType_Ready PyUnicode_AsEncodedString
PyUnicode_AsUTF8AndSize PyUnicode_AsUTF8String PyUnicode_Compare PyUnicode_CompareWithASCIIString
PyUnicode_DecodeFSDefaultAndSize PyUnicode_DecodeUTF8 PyUnicode_FromFormat PyUnicode_FromString
PyUnicode_FromStringAndSize PyUnicode_InternFromString PyWeakref_NewRef Py_EnterRecursiveCall Py_GetVersion
Py_IsInitialized Py_LeaveRecursiveCall _PyObject_GetDictPtr _PyObject_New _PyThreadState_UncheckedGet _PyType_Lookup
PyThreadState_Get PyObject_GC_Del PyObject_GC_Track PyThreadState_GetUnchecked PyUnicode_AsUTF8 PyThreadState_Swap
PyException_GetTraceback PyDict_Keys PyErr_ExceptionMatches PyErr_NoMemory PyException_GetCause
PyLong_AsLongLongAndOverflow PyLong_AsUnsignedLongLong PyWeakref_GetObject PyWeakref_GetRef PyMem_Malloc
PyObject_VisitManagedDict _Py_CheckFunctionResult _PyUnicode_Ready
"""


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_every_call_that_may_let_go_of_the_gil_is_guarded() -> None:
    from inferkit import _core

    out = subprocess.run(
        ["nm", "-D", "--undefined-only", str(_core.__file__)], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1] for line in out.stdout.splitlines()}
    called = {n for n in names if re.match(r"_?Py", n) and not re.search(r"_Type$|Struct$|^PyExc_", n)}
    listed = (ROOT / "csrc" / "bindings" / "python_calls.inc").read_text()
    guarded = set(re.findall(r"^INFERKIT_PYTHON_CALL\([^,]+, (\w+),", listed, re.MULTILINE))
    assert len(called) > 100
    unknown = called - guarded - set(HARMLESS.split())
    assert not unknown, "add them to python_calls.inc, or to HARMLESS if they cannot run Python code"


LAST = """
import sys
import inferkit
port = [("x", "float32", (None, 2))]
class Last:
    def __init__(self):
        self.batcher = inferkit.Batcher(inferkit.Model.from_callable(abs, port, port))
        self.kept = sys.modules["inferkit._batcher"]  # one that something keeps is emptied
    def __del__(self, write=sys.stdout.write, errors=BaseException):
        try:
            write(f"{self.batcher.close()} {self.batcher.drain()} {self.batcher.closed}")
        except errors as error:
            write(f"{type(error).__name__}: {error}")
sys.last = Last()  # goes when all modules have gone
"""


def test_what_is_freed_last_may_close_its_batcher(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(LAST)
    assert (done.stdout, done.stderr) == ("True True True", "")
