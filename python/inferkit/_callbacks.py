"""The event loop that calls what is to be called when a request has ended, where no loop of the program does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable
from contextvars import Context

from . import _core
from ._background import started

__all__ = ["call_soon", "running_loop"]

_lock = threading.RLock()  # one thread at a time starts it, and a signal handler in the middle of that
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None  # that runs it
_process = 0  # that this thread is of: a child of fork() has none
_AFTER_MEMORY_ERROR = 0.01  # seconds that it waits for others to give some back


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; the first call in a process starts its thread, and so does one that finds it ended."""
    loop = _running()
    if loop is None:
        with _lock:
            loop = _running() or _started()
    return loop


def _running() -> asyncio.AbstractEventLoop | None:
    is_there = _thread is not None and _process == os.getpid() and _thread.is_alive()
    return _loop if is_there else None


def call_soon(function: Callable[[], object], context: Context) -> None:
    """Have the loop call it, from any thread."""
    running_loop().call_soon_threadsafe(function, context=context)


def _started() -> asyncio.AbstractEventLoop:
    global _loop, _thread, _process
    loop = asyncio.new_event_loop()
    known = threading.Event()

    def register() -> None:
        _core.register_running_loop()
        known.set()

    loop.call_soon(register)
    try:
        thread = started(functools.partial(_run, loop), "inferkit-callbacks", "the callbacks of tickets")
    except BaseException:
        loop.close()
        raise
    known.wait()
    _loop, _thread, _process = loop, thread, os.getpid()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run it for ever: a callback may neither stop it nor end the thread, on which those of everybody wait."""
    while not loop.is_closed():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # noqa: PERF203 - what asyncio passes on and does not report
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.call_exception_handler({"message": "Exception in a done callback of a ticket", "exception": error})
        except MemoryError:  # of the loop's own: who waits for it would wait for ever
            time.sleep(_AFTER_MEMORY_ERROR)


def _unlocked_in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_unlocked_in_child)
