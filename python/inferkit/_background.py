"""What every thread of ours keeps to: where none can be started the error says why, and one failure does not end it."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator

from ._log import log
from ._text import printable

__all__ = ["SHORTAGES", "pause", "started", "surviving", "told"]

# What accept() and open() fail with for a while, and not for good.
SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EPROTO, errno.EINTR}
)
_AFTER_FAILURE = 0.1  # seconds that stand for a wait that could not be made
_MOST = 1000  # of what is remembered: a process may run for months
_told: set[tuple[str, str, str]] = set()


def told(area: str, event: str, kind: str, **fields: object) -> None:
    """Log a warning, once for each kind: what goes wrong every two seconds would fill the log."""
    key = (area, event, kind)
    if key in _told or len(_told) >= _MOST:
        return
    _told.add(key)
    with contextlib.suppress(Exception):  # a filter or a formatter that raises must not end the thread either
        log(area, event, {"kind": kind, **fields}, "WARNING")


def started(work: Callable[[], object], name: str, purpose: str, *, daemon: bool = True) -> threading.Thread:
    """Start a thread; where the system gives no more of them, say so as a batcher does.

    Raises
    ------
    OSError
        There are as many threads as there may be.

    Examples
    --------
    >>> from inferkit._background import started
    >>> started(lambda: print("done"), "inferkit-example", "an example").join()
    done
    """
    thread = threading.Thread(target=work, name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError as error:
        if "start new thread" not in str(error):  # the interpreter ends
            raise
        raise OSError(
            errno.EAGAIN,
            f"no thread could be started for {purpose}: the user or the container has as many as it may have "
            "(RLIMIT_NPROC, `ulimit -u`, pids.max); raise that limit",
        ) from None
    return thread


@contextlib.contextmanager
def surviving(area: str, event: str) -> Iterator[None]:
    """Let a thread go on after an exception in the block; the first of each type is a warning in the log.

    Examples
    --------
    >>> from inferkit._background import surviving
    >>> with surviving("metrics", "failed"):
    ...     raise OSError("no space left")
    """
    try:
        yield
    except Exception as error:
        thread = threading.current_thread().name
        told(area, event, type(error).__name__, error=printable(error, 1000), thread=thread)


def pause(event: threading.Event, seconds: float | None, area: str) -> bool:
    """Wait for an event, and tell whether it has come; a thread goes on also where it cannot wait, as without memory.

    Examples
    --------
    >>> import threading
    >>> from inferkit._background import pause
    >>> pause(threading.Event(), 0.001, "metrics")
    False
    """
    with surviving(area, "not waited"):
        return event.wait(seconds)
    time.sleep(_AFTER_FAILURE)  # not at once: the loop would turn as fast as it can
    return event.is_set()
