"""`inferkit top`: what a process shows, to whom, and what is left when it ends."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import top
from inferkit._cli import main
from inferkit._cli.top import ask, look

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own; paths of sockets must be short."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    return tmp_path / "inferkit"


@pytest.fixture
def server() -> Iterator[top.Server]:
    with top.serve() as server:
        yield server


def double() -> inferkit.Model:
    return inferkit.Model.from_callable(
        lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))]
    )


def test_shows_the_batchers(server: top.Server, capsys: Capture) -> None:
    with inferkit.Batcher(double(), max_batch_size=7) as batcher:
        for _ in range(5):
            batcher(np.ones(2, np.float32))
        [process] = look([])
        assert process["pid"] == os.getpid()
        assert process["rss_bytes"] > 1 << 20
        [shown] = [b for b in process["batchers"] if b["max_batch_size"] == 7]
        assert shown["stats"]["completed"] == 5
        assert shown["stats"]["p99_latency_ms"] > 0
        assert main(["top", "--once"]) == 0
        text = capsys.readouterr().out
        assert "1 process, " in text
        assert batcher.name in text
        assert str(os.getpid()) in text
        assert main(["top", str(os.getpid()), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["pid"] == os.getpid()


def test_with_rich(server: top.Server, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("INFERKIT_PLAIN")
    with inferkit.Batcher(double()):
        assert main(["top", "--once"]) == 0
    assert "req/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pids", "words"),
    [
        (["999999999"], "process 999999999 cannot be seen: it must be yours, and have called inferkit.top.serve()"),
        (["999999998", "999999999"], "processes 999999998, 999999999 cannot be seen: they must be yours, and have"),
    ],
)
def test_who_asks_for_a_process_that_is_not_there(runtime: Path, capsys: Capture, pids: list[str], words: str) -> None:
    assert main(["top", "--once", *pids]) == 3
    assert words in capsys.readouterr().err


def test_others_are_not_shown(server: top.Server) -> None:
    assert look([1]) == []
    assert len(look([os.getpid()])) == 1


def test_belongs_to_its_user_alone(server: top.Server, runtime: Path) -> None:
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert server.path.parent == runtime
    assert server.path.stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_may_enter_is_refused(runtime: Path, capsys: Capture) -> None:
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with pytest.raises(PermissionError, match="0700"):
        top.serve()
    assert main(["top", "--once"]) == 3
    assert "0700" in capsys.readouterr().err


def test_a_link_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        top.serve()


def test_without_a_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with top.serve() as server:
        assert server.path.parent == tmp_path / f"inferkit-{os.getuid()}"


def test_close(runtime: Path) -> None:
    server = top.serve()
    assert top.serve() is server
    assert server.serving
    server.close()
    server.close()
    assert not server.serving
    assert not server.path.exists()
    assert look([]) == []
    again = top.serve()
    assert again is not server
    assert len(look([])) == 1
    again.close()


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process may open nothing more; what is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def eventually(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(holds())


def test_serves_on_after_descriptors_ran_out(server: top.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(top, "told", lambda *_, **__: waiting.set())
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for peer in (first, second):
            peer.settimeout(30)
        with no_descriptors_left():
            first.connect(str(server.path))  # an accept() that waits has its descriptor already
            assert waiting.wait(30)  # this one, or the next, has failed
            second.connect(str(server.path))
            assert server.serving
        assert first.recv(1)
        assert second.recv(1)  # who came then is answered as well
    assert server.serving
    assert len(look([])) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED])
def test_what_passes_ends_nothing(server: top.Server, number: int) -> None:
    failures, inner = iter([OSError(number, "for a while")] * 3), server._socket

    class Failing:
        def accept(self) -> tuple[socket.socket, object]:
            for failure in failures:
                raise failure
            return inner.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

    assert len(look([])) == 1  # and the thread accepts again
    server._socket = Failing()  # type: ignore[assignment]
    assert ask(server.path) is not None  # by the accept() that was on its way
    assert ask(server.path) is not None
    assert next(failures, None) is None
    assert server.serving


def test_an_answer_that_fails_is_not_the_last(server: top.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(top, "snapshot", lambda: 1 / 0)
        assert ask(server.path) is None
    assert ask(server.path) is not None


def test_says_the_truth_about_serving(server: top.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.serving
    server.path.unlink()  # as what tidies up temporary files does
    assert not server.serving
    again = top.serve()
    assert again is not server
    assert again.serving
    assert len(look([])) == 1
    os.close(again._socket.detach())  # as what closes all files does
    with socket.socket(socket.AF_UNIX) as peer, contextlib.suppress(OSError):
        peer.connect(str(again.path))  # wakes the thread
    assert eventually(lambda: not again.serving)
    third = top.serve()
    assert third.serving
    assert len(look([])) == 1
    third.close()


def test_many_who_never_read(server: top.Server) -> None:
    idle = []
    try:
        for _ in range(100):
            peer = socket.socket(socket.AF_UNIX)
            idle.append(peer)
            peer.setblocking(False)
            with contextlib.suppress(OSError):
                peer.connect(str(server.path))
                peer.send(b"\xff" * 1000)
        assert ask(server.path) is not None
    finally:
        for peer in idle:
            peer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"{", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"pid": 1, "batchers": [{}], "rss_bytes": 1}',
        b'{"pid": 1, "batchers": [], "rss_bytes": 1%s}' % (b"0" * 400),
        b'{"pid": 1, "batchers": [], "rss_bytes": 1%s}' % (b"0" * 308),
        b'{"pid": 1, "batchers": [], "rss_bytes": 1%s}' % (b"0" * 10_000),
        b'{"pid": 1, "batchers": [], "rss_bytes": NaN}',
        b'{"pid": 1, "batchers": [], "rss_bytes": 1e999}',
        b'{"pid": 1, "batchers": [], "rss_bytes": -1}',
        b'{"pid": 1, "batchers": {}, "rss_bytes": []}',
    ],
)  # fmt: skip
def test_a_foreign_answer_does_not_end_the_view(server: top.Server, runtime: Path, answer: bytes) -> None:
    path = runtime / f"{os.getppid()}.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()

        def serve() -> None:
            peer, _ = foreign.accept()
            with peer, contextlib.suppress(OSError):
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert [process["pid"] for process in look([])] == [os.getpid()]
        thread.join()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_depth", "1" * 1000), ("queue_depth", None), ("in_flight", {"a": 1}), ("oldest_wait", 10**400),
        ("p99_latency_ms", 10**400), ("requests_per_second", 1e308), ("total_ms", []), ("windows", {"60": 5}),
    ],
    ids=["text", "none", "dict", "wait", "p99", "rate", "list", "windows"],
)  # fmt: skip
def test_a_foreign_figure_does_not_end_the_view(
    server: top.Server, runtime: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    command = importlib.import_module("inferkit._cli.top")
    with inferkit.Batcher(double(), name="b\x1b[2J" + "x" * 10_000):
        mine = json.loads(json.dumps(top.snapshot()))
    for changed, seen in ((mine, 1), ({**mine, "pid": "1\x1b[2J"}, 0), ({**mine, "rss_bytes": "9"}, 0)):
        monkeypatch.setattr(command, "_read", lambda _, changed=changed: json.dumps(changed).encode())
        assert len(look([])) == seen
    mine["batchers"][0]["stats"][name] = value
    monkeypatch.setattr(command, "_read", lambda _: json.dumps(mine).encode())
    assert look([]) == []
    mine["batchers"][0]["stats"] = {}
    assert look([]) == []


def test_names_of_others_are_cut(server: top.Server, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with inferkit.Batcher(double()):
        mine = top.snapshot()
    mine["batchers"][0]["name"] = "\x1b[2J" + "x" * 1_000_000
    command = importlib.import_module("inferkit._cli.top")
    monkeypatch.setattr(command, "_read", lambda _: json.dumps(mine).encode())
    assert main(["top", "--once", "--plain"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out) < 5000


@pytest.mark.parametrize("interval", ["0", "-1", "nan"])
def test_wrong_intervals(server: top.Server, capsys: Capture, interval: str) -> None:
    assert main(["top", f"--interval={interval}"]) == 3
    assert "--interval must be a" in capsys.readouterr().err


def test_an_interval_without_end(server: top.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    command = importlib.import_module("inferkit._cli.top")
    intervals: list[float] = []
    monkeypatch.setattr(command, "watch_plain", lambda options: intervals.append(options.interval))
    for interval in ("inf", "1e300"):
        assert main(["top", f"--interval={interval}", "--plain"]) == 0
    assert max(intervals) < threading.TIMEOUT_MAX  # what time.sleep() takes


def test_nobody_to_see(capsys: Capture) -> None:
    assert main(["top", "--once"]) == 3
    assert "inferkit.top.serve()" in capsys.readouterr().err
    assert main(["top", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_what_a_killed_process_left_is_removed(runtime: Path) -> None:
    top.runtime_directory()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    path = runtime / f"{int(gone.stdout)}.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert look([]) == []
    assert not path.exists()


def test_a_process_that_does_not_answer_well(runtime: Path) -> None:
    top.runtime_directory()
    path = runtime / f"{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        assert ask(path) is None  # nobody listens
    assert path.exists()  # but its process lives


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_parent_s_socket(server: top.Server) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            server.close()
            code = 0 if not server.serving else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.path.exists()
    assert len(look([])) == 1


SERVICE = """
import inferkit, numpy as np, sys
from inferkit import top
model = inferkit.Model.from_callable(
    lambda x: x, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
batcher = inferkit.Batcher(model)
batcher(np.ones(2, np.float32))
top.serve()
print("ready", flush=True)
sys.stdin.read()
"""


def test_another_process(runtime: Path, capsys: Capture) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert main(["top", "--json"]) == 0
        [shown] = json.loads(capsys.readouterr().out)
        assert shown["pid"] == process.pid
        assert shown["batchers"][0]["stats"]["completed"] == 1
        process.communicate(timeout=60)  # its end removes the socket
    assert list(runtime.glob("*.sock")) == []


@pytest.mark.parametrize("plain", [True, False])
def test_live_until_ctrl_c(server: top.Server, plain: bool) -> None:
    command = [sys.executable, "-m", "inferkit", "top", "--interval", "0.05", *(["--plain"] if plain else [])]
    environment = {k: v for k, v in os.environ.items() if plain or k != "INFERKIT_PLAIN"}
    with (
        inferkit.Batcher(double()),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process,
    ):
        try:
            assert process.stdout is not None
            if plain:
                lines = [process.stdout.readline() for _ in range(9)]
                assert sum("1 batcher, " in line for line in lines) >= 2  # it goes on
            else:
                import time

                time.sleep(3)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
