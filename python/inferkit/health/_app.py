"""The health of the process over HTTP, as an ASGI app that needs no framework."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from .._background import told
from .._text import printable
from ._memory import memory
from ._monitor import Monitor
from ._status import status

__all__ = ["App"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PAGE = (Path(__file__).parent / "statusz.html").read_text(encoding="utf-8")  # here: descriptors may run out later
_TEXT, _JSON, _HTML = "text/plain; charset=utf-8", "application/json", "text/html; charset=utf-8"
# The page loads nothing from anywhere, and asks nobody but us.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"


class App:
    """``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``; made by :func:`inferkit.health.asgi_app`."""

    def __init__(self, monitor: Monitor, metrics_directory: str | None) -> None:
        self._monitor, self._metrics_directory = monitor, metrics_directory
        self._routes = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/statusz": self._statusz,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            raise RuntimeError(f"inferkit's health app speaks HTTP, not {scope['type']}")
        code, content_type, body = self._answer(scope)
        headers = {
            "content-type": content_type,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        if content_type == _HTML:
            headers["content-security-policy"] = _POLICY
        if code == 405:
            headers["allow"] = "GET, HEAD"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": code, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, scope: Message) -> tuple[int, str, bytes]:
        path: str = scope["path"]
        root = scope.get("root_path", "")
        if root and path.startswith(root + "/"):
            path = path[len(root) :]  # below a mount: servers differ on whether the prefix is in the path
        route = self._routes.get(path.rstrip("/"))
        if route is None:
            return 404, _TEXT, ("there is " + ", ".join(self._routes) + "\n").encode()
        if scope["method"] not in ("GET", "HEAD"):
            return 405, _TEXT, b"GET or HEAD\n"
        try:
            return route(scope)
        except Exception as error:  # whoever asks how the process is gets an answer, above all where it is not well
            problem = f"{type(error).__name__}: {printable(error, 1000)}"
            told("health", "no answer", problem, path=path)
            return 500, _TEXT, f"{problem}\n".encode()

    def _healthz(self, _: Message) -> tuple[int, str, bytes]:
        alive = self._monitor.live()
        return (200 if alive else 503), _TEXT, b"alive\n" if alive else b"failed\n"

    def _readyz(self, _: Message) -> tuple[int, str, bytes]:
        report = self._monitor.report()
        body = {
            "state": report.state.value,
            "ready": report.ready,
            "reasons": report.reasons,
            "batchers": {name: state.value for name, state in report.batchers.items()},
        }
        return (200 if report.ready else 503), _JSON, json.dumps(body).encode()

    def _metrics(self, scope: Message) -> tuple[int, str, bytes]:
        from .. import metrics

        memory.look()

        accept = next((value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"accept"), "")
        try:
            body, content_type = metrics.exposition(directory=self._metrics_directory, accept=accept)
        except ImportError as error:
            return 501, _TEXT, f"{error}\n".encode()
        return 200, content_type, body

    def _statusz(self, scope: Message) -> tuple[int, str, bytes]:
        figures = json.dumps(status(self._monitor))
        if "json" in parse_qs(scope.get("query_string", b"").decode("latin-1")).get("format", []):
            return 200, _JSON, figures.encode()
        # Inside a script element, only "</" and "<!--" could end it.
        return 200, _HTML, _PAGE.replace("{{figures}}", figures.replace("<", "\\u003c")).encode()
