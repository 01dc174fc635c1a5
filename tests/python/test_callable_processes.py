"""Processes that a wrapped callable starts or forks, on a worker as on its caller's thread."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
PORT = [("x", "float32", (None, 2))]


@pytest.mark.parametrize("caller_runs", [True, False])
def test_a_process_that_a_callable_starts_can_be_ended(caller_runs: bool) -> None:
    """A process inherits what its thread has blocked, and workers have all signals blocked."""
    blocked: list[str] = []

    def start(x: Any) -> Any:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            with open(f"/proc/{process.pid}/status") as file:
                blocked.append(file.read().split("SigBlk:")[1].split()[0])
            process.terminate()
            try:
                assert process.wait(60) == -signal.SIGTERM
            finally:
                process.kill()
        return x

    with inferkit.Batcher(inferkit.Model.from_callable(start, PORT, PORT), caller_runs=caller_runs) as batcher:
        batcher(np.ones(2, np.float32))
    assert blocked == ["0" * 16]


FORKED = """
import os, sys, threading
import numpy as np, inferkit
port = [("x", "float32", (None, 2))]

def call(x):
    pid = os.fork()
    if pid == 0:
        {child}
        return x
    status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return x

status = []
with inferkit.Batcher(inferkit.Model.from_callable(call, port, port), caller_runs=False) as batcher:
    batcher(np.ones(2, np.float32))
print(*status, flush=True)
"""


@pytest.mark.parametrize(
    ("child", "status", "says"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('a reason')", 1, "a reason"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong"),
        ("print('child', end=' ')", 0, ""),
        ("os._exit(3)", 3, ""),
    ],
)
def test_the_child_of_a_callable_that_forks_on_a_worker_ends(
    fresh_python: Fresh, child: str, status: int, says: str
) -> None:
    """It is alone in its process: the batcher that it comes back to has no threads there."""
    done = fresh_python(FORKED.format(child=child), timeout=60)
    assert done.returncode == 0, done.stderr
    printed = "child " if child.startswith("print") else ""
    assert done.stdout == f"{printed}{status}\n"
    assert says in done.stderr


def test_the_child_of_a_callable_that_forks_on_its_caller_s_thread_goes_on(fresh_python: Fresh) -> None:
    code = FORKED.format(child="pass").replace(", caller_runs=False", "")
    code += "if not status: os._exit(9)\n"
    done = fresh_python(code, timeout=60)
    assert sorted(done.stdout.split("\n")) == ["", "", "9"], done.stderr
