"""The service of the deployment guide, behind real servers: it shares metrics, drains, and stops."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from readme import blocks

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {
    "uvicorn": ("uvicorn", "app:app", "--port", "{port}", "--workers", "2"),
    "uvicorn alone": ("uvicorn", "app:app", "--port", "{port}"),
    "gunicorn": (
        *("gunicorn", "app:app", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", "--workers", "2"),
    ),
}
BODY = json.dumps([7.0] * 64).encode()


def get(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body; 0 where nobody answers."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@contextmanager
def served(folder: Path, command: tuple[str, ...]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    needed = ("gunicorn", "uvicorn_worker") if command[0] == "gunicorn" else ("uvicorn",)
    for module in ("fastapi", "prometheus_client", *needed):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the guide needs {module}")
    (folder / "app.py").write_text(blocks("python")["deploy-app"])
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "metrics").mkdir()
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    variables = {"METRICS_DIRECTORY": str(folder / "metrics"), "DRAIN_SECONDS": "2", "PYTHONPATH": path}
    arguments = [argument.format(port=port) for argument in command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=folder, env={**os.environ, **variables}, stdout=log, stderr=log
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_the_service_drains_and_stops(name: str, tmp_path: Path) -> None:
    with served(tmp_path, SERVERS[name]) as (process, address):
        until = time.monotonic() + 120
        while get(f"{address}/internal/readyz")[0] != 200:
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)

        assert get(f"{address}/digit", BODY)[0] == 200
        assert get(f"{address}/digit", b"[1.0]")[0] == 400
        for _ in range(20):
            assert get(f"{address}/digit", BODY)[0] == 200
        until = time.monotonic() + 60
        completed = 'inferkit_requests_total{batcher="digits",outcome="completed"} 21.0'
        while completed not in (metrics := get(f"{address}/internal/metrics")[1].decode()):  # of all processes
            assert time.monotonic() < until, metrics
            time.sleep(0.2)

        draining = threading.Event()
        statuses: list[int] = []

        def client() -> None:
            while not draining.is_set():
                statuses.append(get(f"{address}/digit", BODY)[0])

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while (reply := get(f"{address}/internal/readyz"))[0] == 200 and time.monotonic() < until:
            time.sleep(0.02)
        draining.set()
        for thread in clients:
            thread.join()
        assert reply[0] == 503, reply
        assert json.loads(reply[1])["state"] == "draining"
        assert set(statuses) == {200}, "nobody is turned away while it drains"
        # uvicorn by itself ends by the signal that stopped it.
        assert process.wait(60) in (0, -signal.SIGTERM), (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
