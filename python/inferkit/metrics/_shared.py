"""Several processes, one scrape: each writes its figures to a file, and whoever is asked reads them all."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .._arguments import path_text, seconds
from .._background import pause, started, surviving, told
from .._initialised import says_if_not_initialised
from .._text import printable
from ._ended import remember
from ._figures import BUCKETS, Figures, bucket_bounds, process_figures, process_key
from ._shared_file import ForeignFileError, read_figures

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sharing", "directory_from", "read_shared", "share"]

_PREFIX = "inferkit_"
_PATIENCE = 5.0  # seconds that the end of the process waits for a write that hangs
_NAME = re.compile(rf"{_PREFIX}(?P<key>(?P<pid>[0-9]{{1,9}})_[0-9]{{1,20}})\.json", re.ASCII)


def directory_from(directory: str | os.PathLike[str] | None) -> Path:
    """Resolve an argument: itself, or prometheus_client's variable."""
    chosen = directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not chosen:
        raise ValueError("give a directory, or set PROMETHEUS_MULTIPROC_DIR, for the figures of several processes")
    path = Path(path_text(chosen, "directory"))
    if not path.is_dir():
        raise NotADirectoryError(f"{path} must be a directory that all of the processes can write to")
    return path


@says_if_not_initialised
class Sharing:
    """Writes the figures of this process until it is stopped; made by :func:`share`. A context manager."""

    __slots__ = ("__weakref__", "_buckets", "_busy", "_directory", "_interval", "_stopped", "_thread", "_writing")

    def __init__(self, directory: Path, interval: float, buckets: Sequence[float]) -> None:
        self._directory = directory
        self._interval = seconds(interval, "interval", positive=True)
        self._buckets = bucket_bounds(buckets)
        remember(self._buckets)
        self._writing = threading.RLock()  # one thread at a time: who began later has the later figures
        self._busy = False
        self.write()
        self._start()
        atexit.register(self.stop)
        # A forked child has its own figures and lacks the thread.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this()))

    def _start(self) -> None:
        self._stopped = threading.Event()
        self._thread = started(self._run, "inferkit-metrics", "inferkit.metrics.share()")

    def write(self) -> None:
        """Write the figures now."""
        key = process_key()
        if key is None:
            raise OSError("this process cannot be named: /proc cannot be read")
        path = self._directory / f"{_PREFIX}{key}.json"
        unfinished = path.with_suffix(f".{id(self):x}.tmp")  # another Sharing of this process has another
        with self._writing:
            if self._busy:  # a signal handler, in the middle of its own thread's write, which goes on after it
                return
            try:
                self._busy = True
                unfinished.unlink(missing_ok=True)  # whatever it is: to open a pipe would wait for its reader
                with unfinished.open("x") as file:
                    file.write(json.dumps(process_figures(self._buckets)))
                unfinished.replace(path)  # a reader sees the old file or the new one
            finally:
                self._busy = False

    def stop(self) -> None:
        """Write the last figures, which later scrapes still count, and no more. Does nothing the second time."""
        if self._stopped.is_set():
            return
        thread = self._thread
        self._stopped.set()
        thread.join(_PATIENCE)
        atexit.unregister(self.stop)
        with contextlib.suppress(OSError):  # the directory may be gone by now
            self.write()

    def _run(self) -> None:
        while not pause(self._stopped, self._interval, "metrics"):
            with surviving("metrics", "not shared"):
                self.write()

    def __enter__(self) -> Self:
        """Return itself; the end of the block stops it."""
        _ = self._thread  # one whose __init__ raised says so here already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it: see :meth:`stop`."""
        self.stop()


def _restart(sharing: Sharing | None) -> None:
    if sharing is not None and not sharing._stopped.is_set():
        sharing._writing, sharing._busy = threading.RLock(), False  # as the parent's thread may have left them
        with surviving("metrics", "not shared"):  # the thread tries again
            sharing.write()
        sharing._start()


def share(
    directory: str | os.PathLike[str] | None = None, *, interval: float = 2.0, buckets: Sequence[float] = BUCKETS
) -> Sharing:
    """Share the figures of this process with other processes, by writing them to a directory every few seconds.

    Call it once in each worker process. A process that is forked afterwards goes on by itself. A process that has ended
    still counts in counters and histograms. Nobody but you empties the directory: do it before the workers start.

    Parameters
    ----------
    directory : path, optional
        A directory that all workers can write to; by default ``$PROMETHEUS_MULTIPROC_DIR``.
    interval : float
        Seconds between two writes.
    buckets : sequence of float
        As for :class:`Collector`; they must be the same in all processes.

    Returns
    -------
    Sharing

    Examples
    --------
    >>> import inferkit, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, inferkit.metrics.share(folder):
    ...     len(os.listdir(folder))
    1
    """
    return Sharing(directory_from(directory), interval, buckets)


def read_shared(
    directory: Path, buckets: Sequence[float], check: Callable[[Figures], object]
) -> tuple[list[tuple[Figures, bool]], int]:
    """Read the figures of every process, this one's as they are now, with whether it lives; and count what is skipped.

    A file that is not what one of us writes, or that `check` raises for, is left out: it must not take the figures of
    all others away. The first one of its kind is a warning in the log.
    """
    own = process_key()
    found: list[tuple[Figures, bool]] = [(process_figures(buckets), True)]
    skipped = 0
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:  # gone, or closed to us: our own figures are still there
        told("metrics", "skipped", str(directory), file=str(directory), why=printable(error, 300))
        return found, 1
    for name in names:
        if not (name.startswith(_PREFIX) and name.endswith(".json")):
            continue  # other programs' business, and ours that is still being written
        match = _NAME.fullmatch(name)
        if match is not None and match["key"] == own:
            continue
        try:
            if match is None:
                raise ForeignFileError("its name has no process")
            figures = read_figures(directory / name, int(match["pid"]), buckets)
            try:
                check(figures)
            except Exception as error:  # whatever figures of another shape lead to
                raise ForeignFileError(f"{type(error).__name__}: {error}") from None
        except ForeignFileError as why:
            if not _vanished(directory / name):
                skipped += 1
                told("metrics", "skipped", name, file=str(directory / name), why=printable(why, 300))
            continue
        found.append((figures, process_key(int(match["pid"])) == match["key"]))
    return found, skipped


def _vanished(path: Path) -> bool:
    """Whether a file was there when the folder was listed, and is no more: somebody tidies up."""
    return not os.path.lexists(path)
