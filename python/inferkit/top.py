"""Let ``inferkit top`` look at this process: :func:`serve`.

A socket in the user's runtime directory gives whoever connects the figures of every open batcher, as JSON. The
directory and the socket belong to the process's user alone, and the kernel is asked who connects.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _batcher
from ._background import SHORTAGES, pause, started, surviving, told
from ._build import built
from ._core import BufferPool, resident_bytes
from ._initialised import says_if_not_initialised

__all__ = ["Server", "runtime_directory", "serve", "snapshot"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0  # seconds, after an accept() that the system had no means for


def runtime_directory() -> Path:
    """Find, and make, the directory of the sockets.

    ``$XDG_RUNTIME_DIR/inferkit`` where that is set, else ``inferkit-UID`` in the directory for temporary files; mode
    0700 in either case.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    PermissionError
        If it is there and belongs to somebody else, or others may enter it.

    Examples
    --------
    >>> from inferkit import top
    >>> oct(top.runtime_directory().stat().st_mode & 0o777)
    '0o700'
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "inferkit" if base else Path(tempfile.gettempdir()) / f"inferkit-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    # In a directory that all may write to, somebody else may have been first.
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of user {os.getuid()} with mode 0700; remove it")
    return path


def snapshot() -> dict[str, Any]:
    """Collect the figures of this process as plain data.

    Returns
    -------
    dict
        ``pid``, ``argv``, ``version``, ``isa``, ``time`` (of the epoch, seconds), ``rss_bytes``, ``pool`` and
        ``batchers``: for each its ``name``, ``model``, ``max_batch_size``, ``closed`` and ``stats``.

    Examples
    --------
    >>> from inferkit import top
    >>> sorted(top.snapshot())
    ['argv', 'batchers', 'isa', 'pid', 'pool', 'rss_bytes', 'time', 'version']
    """
    info, pool = built(), BufferPool.default().stats()
    return {
        "pid": os.getpid(),
        "argv": sys.argv,
        "version": info["version"],
        "isa": info["isa"],
        "time": time.time(),
        "rss_bytes": resident_bytes(),
        "pool": {name: getattr(pool, name) for name in ("in_use_bytes", "cached_bytes", "outstanding", "misses")},
        "batchers": [_figures(batcher) for batcher in _open_batchers()],
    }


def _open_batchers() -> list[_batcher.Batcher]:
    while True:
        try:
            return sorted(_batcher._open, key=id)
        except RuntimeError:  # noqa: PERF203 - another thread made or closed one
            time.sleep(0)


def _figures(batcher: _batcher.Batcher) -> dict[str, Any]:
    return {
        "name": batcher.name,
        "model": batcher.model.path or repr(batcher.model),
        "max_batch_size": batcher.max_batch_size,
        "closed": batcher.closed,
        "stats": batcher.stats().as_dict(),
    }


@says_if_not_initialised
class Server:
    """What :func:`serve` returns: answers until it is closed, or the process ends.

    Parameters
    ----------
    path : pathlib.Path
        Where the socket is made.
    """

    __slots__ = ("_closing", "_inode", "_pid", "_socket", "_thread", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self._closing = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if path.is_socket():  # of a process that had this number before; anything else is somebody's
                path.unlink()
            self._socket.bind(str(path))
            self._inode = path.lstat().st_ino
            path.chmod(0o600)
            self._socket.listen(socket.SOMAXCONN)  # who finds no place is refused at once
            self._thread = started(self._serve, "inferkit-top", "inferkit.top.serve()")
        except BaseException:
            self._socket.close()
            with contextlib.suppress(OSError):
                if path.is_socket():
                    path.unlink()
            raise
        atexit.register(self.close)

    @property
    def serving(self) -> bool:
        """Whether it answers: not closed, of this process, its thread alive and its socket where it was made."""
        return self._ours() and not self._closing.is_set() and self._thread.is_alive() and self._in_place()

    def _ours(self) -> bool:
        return self._pid == os.getpid()

    def _in_place(self) -> bool:
        """Whether the socket is still there: what tidies up temporary files may have taken it."""
        try:
            return self.path.lstat().st_ino == self._inode
        except OSError:
            return False

    def _serve(self) -> None:
        rest = _FIRST_PAUSE
        while not self._closing.is_set():
            try:
                peer, _ = self._socket.accept()
            except OSError as error:
                if self._closing.is_set() or error.errno not in SHORTAGES:
                    return
                # Out of descriptors or memory, for a while: whoever asks waits, and we do not turn in a circle.
                told("top", "waiting", error.strerror or "", pause=rest)
                pause(self._closing, rest, "top")
                rest = min(2 * rest, _LONGEST_PAUSE)
                continue
            rest = _FIRST_PAUSE
            with peer, surviving("top", "no answer"):
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(1.0)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] not in (os.getuid(), 0):
            return
        answer = json.dumps(snapshot()).encode()
        with contextlib.suppress(OSError):  # who asked has gone, or does not read
            peer.sendall(answer)

    def close(self) -> None:
        """Stop answering and remove the socket. Does nothing the second time, nor in a child of fork()."""
        if not self._ours() or self._closing.is_set():
            return
        thread = self._thread
        self._closing.set()
        atexit.unregister(self.close)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        if self._in_place():
            self.path.unlink(missing_ok=True)
        thread.join(timeout=2.0)

    def __enter__(self) -> Server:
        """Return the server, which the end of the block closes."""
        _ = self._thread  # one whose __init__ raised says so here already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it: see :meth:`close`."""
        self.close()

    def __repr__(self) -> str:
        return f"<inferkit.top.Server at {self.path}>"


_current: Server | None = None
_current_lock = threading.Lock()  # guards _current


def _forked() -> None:
    global _current_lock
    _current_lock = threading.Lock()  # a thread that the child does not have may hold the old one


os.register_at_fork(after_in_child=_forked)


def serve() -> Server:
    """Let ``python -m inferkit top``, run by the same user, show this process.

    A thread of its own answers; it costs nothing while nobody looks. Called again, it returns the server that is there;
    a child of ``fork()`` is seen once it calls it itself.

    Returns
    -------
    Server
        Close it to stop; the end of the process closes it as well.

    Raises
    ------
    PermissionError
        If the runtime directory is not this user's alone.

    Examples
    --------
    >>> from inferkit import top
    >>> with top.serve() as server:
    ...     server.path.is_socket()
    True
    """
    global _current
    with _current_lock:
        if _current is None or not _current.serving:
            if _current is not None:
                _current.close()  # what is left of one that serves no more
            _current = Server(runtime_directory() / f"{os.getpid()}.sock")
        return _current
