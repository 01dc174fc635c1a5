"""Ends that wait for nobody: closing beside a model that hangs, signals while closing, the exit of the process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit

LONG = 30.0  # seconds that nothing here takes unless it hangs


class Hung:
    """A model that waits inside until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.model = inferkit.Model.from_callable(
            self, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))]
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.let_go.wait(LONG)
        return x * 2


@pytest.fixture
def hung() -> Iterator[Hung]:
    made = Hung()
    yield made
    made.let_go.set()


def row(value: float = 1) -> np.ndarray:
    return np.full(2, value, np.float32)


def workers() -> int:
    """Threads of batchers in this process."""
    names = [name_of(task) for task in Path("/proc/self/task").iterdir()]
    return sum(name.startswith(("ik-batch", "ik-closing")) for name in names)


def name_of(task: Path) -> str:
    try:
        return (task / "comm").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""


def falls_to(count: int) -> bool:
    until = time.monotonic() + LONG
    while workers() > count and time.monotonic() < until:
        time.sleep(0.005)
    return workers() <= count


@pytest.mark.parametrize("drain", [True, False])
def test_close_waits_no_longer_than_told(hung: Hung, drain: bool) -> None:
    batcher = inferkit.Batcher(hung.model, max_batch_size=1)
    running = batcher.submit(row())
    assert hung.entered.wait(LONG)
    waiting = batcher.submit(row())
    assert batcher.close(drain=drain, timeout=0.05) is False
    for ticket in (running, waiting):
        with pytest.raises(inferkit.ClosedError):
            ticket.result(LONG)
    assert batcher.closed
    assert batcher.stats().in_flight == 1
    assert batcher.close(timeout=0) is False
    hung.let_go.set()
    assert batcher.close() is True
    with pytest.raises(inferkit.ClosedError):  # the answer came for nobody
        running.result()


def test_a_block_does_not_wait_again_for_what_a_close_gave_up(hung: Hung) -> None:
    start = time.monotonic()
    with inferkit.Batcher(hung.model, caller_runs=False) as batcher:
        batcher.submit(row())
        assert hung.entered.wait(LONG)
        assert batcher.close(drain=False, timeout=0.05) is False

    async def main() -> None:
        async with inferkit.Batcher(hung.model, inline_limit=0) as other:
            other.submit(row())
            while not other.stats().in_flight:
                await asyncio.sleep(0.001)
            assert await other.aclose(drain=False, timeout=0.05) is False

    asyncio.run(main())
    assert time.monotonic() - start < LONG  # for which the model hangs
    hung.let_go.set()
    assert batcher.close() is True


def test_close_with_a_timeout_that_is_long_enough() -> None:
    model = inferkit.Model.from_callable(
        lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))]
    )
    batcher = inferkit.Batcher(model, max_delay=60)
    ticket = batcher.submit(row(3))
    assert batcher.close(timeout=LONG) is True
    assert ticket.result().tolist() == [6, 6]
    assert batcher.close(timeout=0) is True


def test_a_second_ctrl_c_is_heard_while_the_block_is_left(hung: Hung) -> None:
    batcher = inferkit.Batcher(hung.model)

    def interrupt_twice() -> None:
        assert hung.entered.wait(LONG)
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + LONG
        while not batcher.closed and time.monotonic() < until:  # __exit__ has been reached
            time.sleep(0.005)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_twice)
    with pytest.raises(KeyboardInterrupt) as heard, batcher:  # noqa: PT012 - the block is what is tested
        ticket = batcher.submit(row())
        thread.start()
        ticket.result()
    assert isinstance(heard.value.__context__, KeyboardInterrupt)  # the second, raised where the first was handled
    thread.join()
    hung.let_go.set()
    assert batcher.close(timeout=LONG) is True


def test_a_dropped_batcher_does_not_wait_for_its_model(hung: Hung) -> None:
    before = workers()
    batcher = inferkit.Batcher(hung.model)
    batcher.submit(row())
    assert hung.entered.wait(LONG)
    with pytest.warns(ResourceWarning, match="unclosed batcher"):
        del batcher
    gc.collect()
    assert not hung.let_go.is_set()  # and here we are
    assert workers() > before
    hung.let_go.set()
    assert falls_to(before)


def test_aclose_waits_no_longer_than_told_and_may_be_cancelled(hung: Hung) -> None:
    async def main() -> None:
        batcher = inferkit.Batcher(hung.model, inline_limit=0)
        running = batcher.submit(row())
        while not hung.entered.is_set():
            await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(batcher.aclose())
        await asyncio.sleep(0.02)
        assert batcher.closed
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not running.done()
        assert await batcher.aclose(timeout=0.05) is False
        with pytest.raises(inferkit.ClosedError):
            await running
        hung.let_go.set()
        assert await batcher.aclose() is True

    asyncio.run(main())


HANGS = """
import asyncio, os, signal, sys, threading, time
import numpy as np, inferkit
def hang(x):
    print("hangs", flush=True)
    threading.Event().wait()
model = inferkit.Model.from_callable(hang, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
batcher = inferkit.Batcher(model, inline_limit=0)
x = np.zeros(2, np.float32)
def leave():
    while not batcher.stats().in_flight:
        time.sleep(0.001)
"""
EXITS = {
    "falls off its end": "inferkit._batcher._EXIT_SECONDS = 0.2\nticket = batcher.submit(x)\nleave()",
    "sys.exit": "inferkit._batcher._EXIT_SECONDS = 0.2\nticket = batcher.submit(x)\nleave()\nsys.exit(7)",
    "an exception": "inferkit._batcher._EXIT_SECONDS = 0.2\nticket = batcher.submit(x)\nleave()\nraise SystemExit(7)",
    "an event loop": """
inferkit._batcher._EXIT_SECONDS = 0.2
async def main():
    async with batcher:
        ticket = batcher.submit(x)
        threading.Thread(target=interrupt_twice).start()
        await ticket
def interrupt_twice():
    leave()
    os.kill(os.getpid(), signal.SIGINT)
    while not batcher.closed:
        time.sleep(0.001)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(7)
""",
}


@pytest.mark.parametrize("way", EXITS)
def test_the_process_leaves_beside_a_model_that_hangs(fresh_python: Callable[..., Any], way: str) -> None:
    start = time.monotonic()
    done = fresh_python(HANGS + EXITS[way], timeout=LONG)
    assert done.returncode == (0 if way == "falls off its end" else 7), done.stderr
    assert done.stdout == "hangs\n"
    assert done.stderr == ""
    assert time.monotonic() - start < LONG


def test_the_exit_waits_for_all_batchers_together(fresh_python: Callable[..., Any]) -> None:
    code = (
        HANGS
        + """
inferkit._batcher._EXIT_SECONDS = 0.5
others = [inferkit.Batcher(model, inline_limit=0) for _ in range(20)]
tickets = [b.submit(x) for b in others]
while any(not b.stats().in_flight for b in others):
    time.sleep(0.001)
import atexit
start = time.monotonic()
atexit.register(lambda: None)
inferkit._batcher._close_all()
took = time.monotonic() - start
assert took < 5, took  # not 20 times half a second
"""
    )
    done = fresh_python(code, timeout=LONG)
    assert done.returncode == 0, done.stderr


def test_a_close_of_a_subclass_s_own_keeps_no_other_batcher_open_at_the_exit(fresh_python: Callable[..., Any]) -> None:
    code = """
import os, sys, time
import numpy as np, inferkit
class Own(inferkit.Batcher):
    def close(self):
        raise ValueError("mine")
entered = []
def slow(x):
    entered.append(x)
    time.sleep(0.3)
    os.write(1, b"ended\\n")  # in one piece, from each of three threads
    return x
port = [("x", "float32", (None, 2))]
kept = [Own(inferkit.Model.from_callable(abs, port, port)) for _ in range(4)]
for _ in range(3):
    kept.append(inferkit.Batcher(inferkit.Model.from_callable(slow, port, port), caller_runs=False))
    kept.append(kept[-1].submit(np.zeros(2, np.float32)))
while len(entered) < 3:
    time.sleep(0.001)
sys.exit(4)
"""
    done = fresh_python(code, timeout=LONG)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n" * 3, "", 4)
