"""The event loop that calls what is to be called when a request has ended, where no loop of the program does."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextvars import Context

from . import _core

__all__ = ["call_soon", "running_loop"]

_lock = threading.RLock()  # one thread at a time starts it, and a signal handler in the middle of that
_loop: asyncio.AbstractEventLoop | None = None
_process = 0  # that its thread runs in: a child of fork() has none


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; the first call in a process starts its thread."""
    global _loop, _process
    if _loop is None or _process != os.getpid():
        with _lock:
            if _loop is None or _process != os.getpid():
                _loop, _process = _started(), os.getpid()
    return _loop


def call_soon(function: Callable[[], object], context: Context) -> None:
    """Have the loop call it, from any thread."""
    running_loop().call_soon_threadsafe(function, context=context)


def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    known = threading.Event()

    def register() -> None:
        _core.register_running_loop()
        known.set()

    loop.call_soon(register)
    threading.Thread(target=loop.run_forever, name="inferkit-callbacks", daemon=True).start()
    known.wait()
    return loop


def _unlocked_in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_unlocked_in_child)
