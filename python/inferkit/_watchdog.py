"""A thread that looks after callables: where one hangs, the log tells it though nobody asks.

It sleeps where none runs, and costs a look at each batcher now and then where some do. Behind a callable that hangs, it
also ends requests whose time has passed, which workers would do if one were free.
"""

from __future__ import annotations

import os
import threading

from . import _core
from ._background import pause, surviving

__all__ = ["look_again", "start"]

_AREA = "health"
_PARTS = 4  # a hang is seen at most this part of the limit too late
_MOST, _LEAST = 10.0, 0.02  # seconds between two looks
_WHILE_HUNG = 1.0  # those at most while something hangs: what has expired behind it keeps its buffers for so long

_lock = threading.RLock()  # one thread at a time starts it, and a signal handler in the middle of that
_thread: threading.Thread | None = None
_process = 0  # that this thread is of: a child of fork() has none
_changed = threading.Event()  # the limit is another one


def start() -> None:
    """Have callables looked after from now on; where there is no thread for that, nobody does."""
    global _thread, _process
    if _is_there():
        return
    with surviving(_AREA, "not watched"), _lock:
        if not _is_there():
            # Not first by the thread: a child that is forked meanwhile would wait for ever for the lock of the module.
            from .health import _monitor

            del _monitor
            thread = threading.Thread(target=_run, name="inferkit-watchdog", daemon=True)
            thread.start()
            _thread, _process = thread, os.getpid()


def look_again() -> None:
    """Take account of another limit at once."""
    _changed.set()


def _is_there() -> bool:
    return _thread is not None and _process == os.getpid() and _thread.is_alive()


def _run() -> None:
    hung = False
    while True:
        if not hung:
            _core.wait_for_call()
        _changed.clear()  # first: a limit that is set from here on is looked at again
        after: float | None = None
        with surviving(_AREA, "not watched"):
            hung, after = _look(hung)
        most = _WHILE_HUNG if hung else _MOST
        pause(_changed, most if after is None else min(most, max(_LEAST, after / _PARTS)), _AREA)


def _look(hung: bool) -> tuple[bool, float | None]:
    """Look once, where something `hung` at the last look: whether it does now, and the limit.

    A function of its own: the names of a loop that never ends would keep the last batcher that hung, open.
    """
    from .health import _monitor as monitor
    from .health._monitor import hanging

    limits = monitor.limits
    found = hanging(limits)
    if found or hung:  # and when it is over, so that the log tells that, too
        monitor.report()
    for batcher in found:
        batcher._sweep()
    return bool(found), limits.hung_after


def _afresh_in_child() -> None:
    global _lock, _changed
    _lock, _changed = threading.RLock(), threading.Event()


os.register_at_fork(after_in_child=_afresh_in_child)
