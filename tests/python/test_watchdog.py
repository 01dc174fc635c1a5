"""A callable that hangs is in the log though nobody asks; and who looks for that sleeps where nothing runs."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _watchdog, health

X = np.ones(2, np.float32)
PORT = [("x", "float32", (None, 2))]
LIMIT = 0.08
LONG = 60.0


@pytest.fixture
def limit() -> Iterator[None]:
    health.configure(health.Limits(hung_after=LIMIT))
    yield
    health.configure(health.Limits())


class Hangs:
    """A model that waits inside until it is let go, and does not where it has been."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        assert self.let_go.wait(LONG)
        return x


def comes(true: Callable[[], Any]) -> bool:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.005)
    return False


def switches() -> str:
    """How often the watching thread has gone to sleep."""
    thread = _watchdog._thread
    assert thread is not None
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("voluntary"))


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == event]


def test_a_hang_and_its_end_are_logged_unasked(limit: None, caplog: pytest.LogCaptureFixture) -> None:
    def states() -> list[str]:
        return [record.state for record in logged(caplog, "state")]

    hangs = Hangs()
    with (
        caplog.at_level(logging.DEBUG, "inferkit.health"),
        inferkit.Batcher(inferkit.Model.from_callable(hangs, PORT, PORT), name="stuck") as batcher,
    ):
        ticket = batcher.submit(X)
        assert comes(lambda: logged(caplog, "hung"))
        time.sleep(5 * LIMIT)
        (record,) = logged(caplog, "hung")  # once
        assert (record.levelname, record.batcher) == ("ERROR", "stuck")
        assert record.seconds > LIMIT
        assert f"{__file__}:" in record.stack
        assert states()[-1] == "failed"
        hangs.let_go.set()
        ticket.result()
        assert comes(lambda: states()[-1] != "failed")


def test_a_batcher_that_hung_is_let_go(limit: None, caplog: pytest.LogCaptureFixture) -> None:
    hangs = Hangs()
    batcher = inferkit.Batcher(inferkit.Model.from_callable(hangs, PORT, PORT))
    dropped = weakref.ref(batcher)
    with caplog.at_level(logging.DEBUG, "inferkit.health"):
        ticket = batcher.submit(X)
        assert comes(lambda: logged(caplog, "hung"))
    time.sleep(5 * LIMIT)  # it is looked at over and over
    hangs.let_go.set()
    ticket.result()
    del batcher, ticket
    assert comes(lambda: gc.collect() >= 0 and dropped() is None)


def test_what_expires_behind_a_hang_keeps_no_buffer(limit: None) -> None:
    """Though nobody waits for it, and no worker is free."""
    hangs = Hangs()
    with inferkit.Batcher(inferkit.Model.from_callable(hangs, PORT, PORT), max_queue_size=4) as batcher:
        running = batcher.submit(X)
        assert comes(lambda: batcher.stats().in_flight)
        behind = [batcher.submit(X, timeout=0.01) for _ in range(4)]
        with pytest.raises(inferkit.QueueFullError):
            batcher.submit(X).result()
        assert comes(lambda: batcher.stats().queue_depth == 0)
        assert batcher.stats().expired == 4
        late = batcher.submit(X)  # there is room again
        hangs.let_go.set()
        assert running.result().tolist() == late.result().tolist() == [1, 1]
        assert all(isinstance(ticket.exception(), inferkit.DeadlineError) for ticket in behind)


def test_no_limit_is_none(caplog: pytest.LogCaptureFixture) -> None:
    hangs = Hangs()
    with (
        caplog.at_level(logging.DEBUG, "inferkit.health"),
        inferkit.Batcher(inferkit.Model.from_callable(hangs, PORT, PORT)) as batcher,
    ):
        try:
            health.configure(health.Limits(hung_after=None))
            ticket = batcher.submit(X)
            time.sleep(5 * LIMIT)
            assert not logged(caplog, "hung")
        finally:
            health.configure(health.Limits())
        hangs.let_go.set()
        ticket.result()


def test_a_clock_that_stands_still_is_no_hang(limit: None, caplog: pytest.LogCaptureFixture) -> None:
    clock = inferkit._core.ManualClock()
    hangs = Hangs()
    model = inferkit.Model.from_callable(hangs, PORT, PORT)
    with (
        caplog.at_level(logging.DEBUG, "inferkit.health"),
        inferkit.Batcher(model, _clock=clock) as batcher,
    ):
        ticket = batcher.submit(X)
        clock.advance(10)
        time.sleep(5 * LIMIT)
        assert not logged(caplog, "hung")
        hangs.let_go.set()
        ticket.result()


def test_it_sleeps_where_nothing_runs(limit: None) -> None:
    with inferkit.Batcher(inferkit.Model.from_callable(lambda x: x, PORT, PORT)) as batcher:
        batcher(X)

        def asleep() -> bool:
            before = switches()
            time.sleep(10 * LIMIT)  # many times what it sleeps between two looks
            return switches() == before

        assert comes(asleep)
        before = switches()
        batcher(X)
        assert comes(lambda: switches() != before)  # it was woken


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_that_are_compiled_have_no_such_thread() -> None:
    path = Path(__file__).parents[2] / "examples" / "digits.onnx"
    assert run(
        f"""
import threading, numpy as np, inferkit
with inferkit.Batcher(inferkit.Model.load({str(path)!r})) as batcher:
    batcher(np.zeros(64, np.float32))
    print([thread.name for thread in threading.enumerate()])
"""
    ).split() == ["['MainThread']"]


def test_a_child_of_fork_has_its_own_and_the_exit_waits_for_none() -> None:
    text = run(
        """
import logging, os, sys, threading, numpy as np, inferkit

class Heard(logging.Handler):
    def emit(self, record):
        if getattr(record, "event", "") == "hung":
            heard.set()

heard = threading.Event()
logging.getLogger("inferkit.health").addHandler(Heard())
inferkit.health.configure(inferkit.health.Limits(hung_after=0.05))
PORT = [("x", "float32", (None, 2))]

def hangs(name):
    go = threading.Event()
    batcher = inferkit.Batcher(inferkit.Model.from_callable(lambda x: go.wait(60) and x, PORT, PORT))
    ticket = batcher.submit(np.ones(2, np.float32))
    print(name, heard.wait(60), flush=True)
    go.set()
    ticket.result()
    heard.clear()

hangs("parent")
child = os.fork()
hangs("child" if child == 0 else "parent")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert sorted(text.split("\n")) == ["", "child True", "parent True", "parent True"]


def test_a_callable_that_takes_the_place_of_a_compiled_model_is_watched() -> None:
    path = Path(__file__).parents[2] / "examples" / "digits.onnx"
    code = f"""
import threading, numpy as np, inferkit
model = inferkit.Model.load({str(path)!r})
ports = [[(p.name, p.dtype, p.shape) for p in each] for each in (model.inputs, model.outputs)]
names = [p.name for p in model.inputs]
other = inferkit.Model.from_callable(lambda *given: tuple(model.run(dict(zip(names, given))).values()), *ports)
with inferkit.Batcher(model) as batcher:
    batcher.swap(other)
    print("inferkit-watchdog" in [thread.name for thread in threading.enumerate()])
"""
    assert run(code) == "True\n"


def test_its_thread_imports_nothing() -> None:
    """A child that is forked in the middle of an import would wait for ever for the lock of that module."""
    code = """
import sys, time, numpy as np, inferkit
port = [("x", "float32", (None, 2))]
batcher = inferkit.Batcher(inferkit.Model.from_callable(lambda x: x, port, port), caller_runs=False)
before = set(sys.modules)
inferkit._watchdog._LEAST = 0.001
from inferkit import health
health.configure(health.Limits(hung_after=0.01))
module = sys.modules["inferkit.health._monitor"]
looked = module.hanging
def hanging(limits):
    seen.append(set(sys.modules))
    return looked(limits)
seen = []
module.hanging = hanging
while len(seen) < 3:
    batcher.submit(np.zeros((1, 2), np.float32)).result()
batcher.close()
print(sorted(name for name in seen[-1] - before if name.startswith("inferkit")), "inferkit.health" in before)
"""
    assert run(code) == "[] True\n"
