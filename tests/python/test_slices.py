"""Workers of models that run shortly ask the kernel for shorter slices of a core; nobody else notices."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit

# Of struct sched_attr, as sched_setattr(2) describes it: size, policy, flags, nice, priority, runtime, ...
LAYOUT = "IIQiIQQQ"
CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
HAS_SLICES = inferkit.build_info()["time_slices"] == "yes"

READER = f"""
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def slice_of(thread):
    raw = ctypes.create_string_buffer(48)
    assert libc.syscall({CALLS.get(platform.machine(), (0, 0))[1]}, int(thread), raw, 48, 0) == 0
    return struct.unpack({LAYOUT!r}, raw.raw)[5]
"""

SLICES = (
    READER
    + """
import os, threading, time
import numpy as np, inferkit
model = inferkit.Model.load({path!r}, threads=1)
x = np.ones(64, np.float32)
usual = slice_of(0)
first = threading.Thread(target=time.time)  # with which TSan starts one of its own
first.start()
first.join()
while str(first.native_id) in os.listdir("/proc/self/task"):
    time.sleep(0.001)
others = set(os.listdir("/proc/self/task"))
with inferkit.Batcher(model, workers=2) as batcher:
    workers = set(os.listdir("/proc/self/task")) - others
    assert len(workers) == 2 and all(slice_of(w) == usual for w in workers)
    assert batcher.stats().slice_ms == 0
    for _ in range(50):
        [ticket.result() for ticket in [batcher.submit(x) for _ in range(4)]]
    asked = round(batcher.stats().slice_ms * 1e6)
    print("asked", asked, "usual", usual)
    print("have", *sorted({{slice_of(w) for w in workers}}))
    print("others", *sorted({{slice_of(o) for o in others}}))
    print("answers", np.array_equal(batcher.submit(x).result(), model(x)))
    print("told", inferkit.build_info()["time_slices"])
    assert ("slices of" in str(batcher.stats())) == bool(asked)
"""
)

# A filter of system calls, as containers have: sched_setattr is refused, with EPERM.
FILTER = """
import ctypes, struct
CALL = {call}
code = [(0x20, 0, 0, 0), (0x15, 0, 1, CALL), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
filter = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
assert libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0  # PR_SET_SECCOMP
"""


def told(done: Any) -> dict[str, list[str]]:
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


@pytest.mark.skipif(platform.machine() not in CALLS, reason="the number of the system call is not known here")
def test_workers_of_short_runs_have_short_slices(fresh_python: Callable[..., Any], digits_path: Path) -> None:
    found = told(fresh_python(SLICES.format(path=str(digits_path))))
    asked, usual = int(found["asked"][0]), int(found["asked"][2])
    assert found["answers"] == ["True"]
    assert found["others"] == [str(usual)]
    if HAS_SLICES:
        assert 100_000 <= asked < usual
        assert set(found["have"]) <= {str(asked), str(usual)}  # one of them may have had no batch yet
        assert str(asked) in found["have"]
    else:
        assert asked == 0
        assert found["have"] == [str(usual)]


@pytest.mark.skipif(platform.machine() not in CALLS, reason="the number of the system call is not known here")
@pytest.mark.parametrize("which", [0, 1])
def test_where_a_filter_refuses_the_call_nothing_happens(
    fresh_python: Callable[..., Any], digits_path: Path, which: int
) -> None:
    call = CALLS[platform.machine()][which]
    body = SLICES.format(path=str(digits_path))
    if which == 1:  # nor may it be looked at
        body = body.replace("assert libc.syscall", "return 0\n    assert libc.syscall")
    found = told(fresh_python(FILTER.format(call=call) + body))
    assert found["asked"][0] == "0"
    assert len(found["have"]) == 1
    assert found["answers"] == ["True"]
    if HAS_SLICES:
        assert " ".join(found["told"]) == "no: the kernel, or a filter of system calls, refuses sched_setattr"


def test_what_a_callable_starts_has_the_usual_slice() -> None:
    """A thread or a process that a worker starts is not the worker's business."""
    seen: list[int] = []
    x = np.ones(2, np.float32)

    def starts(values: np.ndarray) -> np.ndarray:
        thread = threading.Thread(target=lambda: seen.append(slice_here()))
        thread.start()
        thread.join()
        return values

    if platform.machine() not in CALLS:
        pytest.skip("the number of the system call is not known here")
    usual = slice_here()
    port = [("x", "float32", (None, 2))]
    model = inferkit.Model.from_callable(starts, port, port)
    with inferkit.Batcher(model) as batcher:
        for _ in range(20):
            batcher.submit(x).result()
    assert set(seen) == {usual}
    assert len(seen) == 20


def slice_here() -> int:
    raw = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(CALLS[platform.machine()][1], 0, raw, 48, 0) == 0
    return int(struct.unpack(LAYOUT, raw.raw)[5])


def test_the_usual_slice_stays_where_runs_are_long() -> None:
    """FakeModel sleeps for as long as it is told."""
    model = inferkit.testing.FakeModel(lambda rows: 0.2)
    with inferkit.Batcher(model) as batcher:
        for _ in range(8):
            batcher.submit(np.ones(model.inputs[0].shape[1:], np.float32)).result()
        assert batcher.stats().slice_ms == 0


def test_switched_off() -> None:
    code = "import inferkit; print(inferkit.build_info()['time_slices'])"
    environment = {**os.environ, "INFERKIT_TIME_SLICES": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "no: INFERKIT_TIME_SLICES=0 is set\n"
