"""Several processes, one scrape: each writes its figures to a file, and whoever is asked reads them all."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ._figures import BUCKETS, Figures, process_figures, process_key

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sharing", "directory_from", "read_shared", "share"]

_PREFIX = "inferkit_"


def directory_from(directory: str | os.PathLike[str] | None) -> Path:
    """Resolve an argument: itself, or prometheus_client's variable."""
    chosen = directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not chosen:
        raise ValueError("give a directory, or set PROMETHEUS_MULTIPROC_DIR, for the figures of several processes")
    path = Path(chosen)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} must be a directory that all of the processes can write to")
    return path


class Sharing:
    """Writes the figures of this process until it is stopped; made by :func:`share`. A context manager."""

    def __init__(self, directory: Path, interval: float, buckets: Sequence[float]) -> None:
        self._directory, self._interval, self._buckets = directory, interval, tuple(buckets)
        self._start()
        atexit.register(self.stop)
        # A forked child has its own figures and lacks the thread.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this()))

    def _start(self) -> None:
        self._stopped = threading.Event()
        self.write()
        self._thread = threading.Thread(target=self._run, name="inferkit-metrics", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Write the figures now."""
        path = self._directory / f"{_PREFIX}{process_key()}.json"
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(process_figures(self._buckets)))
        unfinished.replace(path)  # a reader sees the old file or the new one

    def stop(self) -> None:
        """Write the last figures, which later scrapes still count, and no more. Does nothing the second time."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join()
        atexit.unregister(self.stop)
        with contextlib.suppress(OSError):  # the directory may be gone by now
            self.write()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            with contextlib.suppress(OSError):
                self.write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _restart(sharing: Sharing | None) -> None:
    if sharing is not None and not sharing._stopped.is_set():
        sharing._start()


def share(
    directory: str | os.PathLike[str] | None = None, *, interval: float = 2.0, buckets: Sequence[float] = BUCKETS
) -> Sharing:
    """Let other processes' scrapes count this one: write its figures to a directory, now and then.

    Call it once in each worker process; one that is forked afterwards goes on by itself. A process that has ended still
    counts in counters and histograms, as the directory is only emptied by you, before the workers start.

    Parameters
    ----------
    directory : path, optional
        That all the workers write to; by default ``$PROMETHEUS_MULTIPROC_DIR``.
    interval : float
        Seconds between two writes.
    buckets : sequence of float
        As for :class:`Collector`, and the same in all processes.

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
    if not interval > 0:
        raise ValueError(f"interval must be a positive number of seconds, got {interval}")
    return Sharing(directory_from(directory), interval, buckets)


def read_shared(directory: Path, buckets: Sequence[float]) -> list[tuple[Figures, bool]]:
    """Read the figures of every process, this one's as they are now, and whether it lives."""
    own = process_key()
    found: list[tuple[Figures, bool]] = [(process_figures(buckets), True)]
    for path in sorted(directory.glob(f"{_PREFIX}*.json")):
        key = path.stem.removeprefix(_PREFIX)
        if key == own:
            continue
        try:
            figures = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # removed meanwhile, or not ours
        if figures["buckets"] != list(buckets):
            raise ValueError(f"{path} has other histogram buckets: give share() and Collector the same ones")
        found.append((figures, process_key(int(key.partition("_")[0])) == key))
    return found
