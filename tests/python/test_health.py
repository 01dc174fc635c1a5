"""What health says when things are broken on purpose, and how it says it over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _batcher, diagnostics, health

X = np.ones(2, np.float32)
PORT = [("x", "float32", (None, 2))]


def model(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, PORT, PORT)


def look(**limits: Any) -> health.Report:
    return health.Monitor(health.Limits(**limits)).report()


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if no other test had made, or closed, a batcher."""
    monkeypatch.setattr(_batcher, "_open", type(_batcher._open)())
    monkeypatch.setattr(_batcher, "_closed_any", False)
    yield
    for batcher in list(_batcher._open):
        batcher.close(drain=False)


class Hung:
    """A batcher on a clock that stands still, whose model waits inside its run."""

    def __init__(self, **options: Any) -> None:
        self.clock = inferkit._core.ManualClock()
        self.release = release = threading.Event()
        inside = threading.Event()

        def run(x: np.ndarray) -> np.ndarray:
            inside.set()
            release.wait(60)
            return x

        self.batcher = inferkit.Batcher(model(run), name="hung", _clock=self.clock, **options)
        self.batcher.submit(X)
        assert inside.wait(60)

    def __enter__(self) -> Hung:
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.batcher.close()


# States


def test_from_loading_to_drained() -> None:
    assert look().state is health.State.LOADING
    assert look().reasons == ("there is no batcher yet",)
    monitor = health.Monitor()
    with monitor.loading("a.onnx"):
        assert monitor.report().reasons == ("a.onnx is being loaded",)
    with inferkit.Batcher(model(), name="b") as batcher:
        report = look()
        assert (report.state, report.ready) == (health.State.WARMING, False)
        assert "warm_up()" in report.reasons[0]
        assert look(require_warm_up=False).state is health.State.READY
        batcher.warm_up()
        report = look()
        assert (report.state, report.ready, report.reasons) == (health.State.READY, True, ())
        assert report.batchers == {"b": health.State.READY}
        assert report
        batcher._begin_close(True)
        report = look()
        assert (report.state, report.ready, report.reasons) == (health.State.DRAINING, False, ("b: draining",))
    report = look()
    assert (report.state, report.reasons) == (health.State.DRAINING, ("every batcher is closed",))


def test_loading_beside_a_ready_batcher_and_drain() -> None:
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        monitor = health.Monitor()
        assert monitor.ready()
        with monitor.loading("another"):
            assert monitor.report().state is health.State.LOADING
        monitor.drain("SIGTERM")
        assert monitor.report().reasons == ("SIGTERM",)
        assert not monitor.ready()
        assert monitor.live()


def test_a_compiled_model_is_warm(digits_path: Path) -> None:
    loaded = inferkit.Model.load(digits_path)
    with inferkit.Batcher(loaded, max_batch_size=12) as batcher:
        if loaded.memory().plans == 0:
            assert look().state is health.State.WARMING
        batcher.warm_up()
        assert look().state is health.State.READY
        assert loaded.memory().plans >= 5  # 1, 2, 4, 8 and 12


def test_a_hung_worker_has_failed() -> None:
    with Hung() as hung:
        hung.clock.advance(29)
        assert look(require_warm_up=False).state is health.State.READY
        hung.clock.advance(2)
        report = look()
        assert (report.state, report.ready, report.alive) == (health.State.FAILED, False, True)
        where = rf"{__file__}:\d+ in run"
        assert any(
            re.fullmatch(rf"hung: a batch has run for 31.0 s: its worker hangs at {where}", reason)
            for reason in report.reasons
        )
        assert not look(failed_is_dead=True).alive
        assert look(hung_after=None, require_warm_up=False).state is health.State.READY
    assert look().state is health.State.DRAINING


def test_a_request_stuck_for_five_seconds_is_seen() -> None:
    with Hung() as hung:
        hung.batcher.submit(X)
        hung.clock.advance(5.0)
        assert look(require_warm_up=False).state is health.State.READY
        hung.clock.advance(0.1)
        report = look(require_warm_up=False)
        assert report.state is health.State.DEGRADED
        assert report.reasons == ("hung: a request has waited for 5.1 s, over the limit of 5.0 s",)


def test_a_queue_over_its_limit_is_degraded_and_still_ready_unless_told() -> None:
    with Hung(max_queue_size=None) as hung:
        for _ in range(100):
            hung.batcher.submit(X)
        assert look(require_warm_up=False).state is health.State.READY
        hung.batcher.submit(X)
        report = look(require_warm_up=False)
        assert (report.state, report.ready) == (health.State.DEGRADED, True)
        assert report.reasons == ("hung: 101 requests in the queue, over the limit of 100",)
        assert not look(require_warm_up=False, degraded_is_ready=False).ready
        assert look(require_warm_up=False, max_queue_depth=None).state is health.State.READY


def test_a_model_that_emits_nan() -> None:
    with inferkit.Batcher(model(lambda x: x * np.float32("nan"))) as batcher:
        for _ in range(9):
            with pytest.raises(inferkit.OutputError):
                batcher(X)
        assert look().state is health.State.READY  # too few to judge
        with pytest.raises(inferkit.OutputError):
            batcher(X)
        report = look()
        assert report.state is health.State.DEGRADED
        assert "100.0% of the last minute's runs failed" in report.reasons[0]


def flooded(hung: Hung, refused: int) -> None:
    """One request that runs, one that waits, and so many that are refused."""
    hung.batcher.submit(X)
    for _ in range(refused):
        with pytest.raises(inferkit.QueueFullError):
            hung.batcher.submit(X).result()


def test_requests_that_are_rejected() -> None:
    with Hung(max_queue_size=1) as hung:
        flooded(hung, 9)
        assert look(require_warm_up=False).state is health.State.READY  # too few to judge
        with pytest.raises(inferkit.QueueFullError):
            hung.batcher.submit(X).result()
        report = look(require_warm_up=False)
        assert (report.state, report.ready) == (health.State.DEGRADED, True)
        assert report.reasons == (
            "hung: 100.0% of the last minute's requests got no answer (10 rejected, 0 expired), over the limit of 5.0%",
        )
        assert not look(require_warm_up=False, degraded_is_ready=False).ready
        assert look(require_warm_up=False, max_unserved_rate=None).state is health.State.READY
        hung.clock.advance(4)
        assert look(require_warm_up=False).state is health.State.DEGRADED
        hung.clock.advance(58)
        assert look(require_warm_up=False, hung_after=None, max_oldest_wait=None).state is health.State.READY


def test_requests_that_expire() -> None:
    clock = inferkit._core.ManualClock()
    with inferkit.Batcher(model(lambda x: clock.advance(1.0) or x), name="late", _clock=clock) as batcher:
        for _ in range(20):
            with pytest.raises(inferkit.DeadlineError):
                batcher(X, timeout=0.5)
        report = look()
        assert report.state is health.State.DEGRADED
        assert "(0 rejected, 20 expired)" in report.reasons[0]


def test_requests_that_are_invalid() -> None:
    with inferkit.Batcher(model(), name="b") as batcher:
        for _ in range(50):
            batcher(X)
        for _ in range(5):
            with pytest.raises(inferkit.ValidationError):
                batcher(np.ones(3, np.float32))
        assert look().state is health.State.READY
        with pytest.raises(inferkit.ValidationError):
            batcher(np.ones(3, np.float32))
        report = look()
        assert (report.state, report.ready) == (health.State.DEGRADED, True)
        assert report.reasons == ("b: 10.7% of the last minute's requests were invalid, over the limit of 10.0%",)
        assert look(max_invalid_rate=0.5).state is health.State.READY


def test_latency_over_the_target() -> None:
    with inferkit.Batcher(model(lambda x: time.sleep(0.002) or x)) as batcher:
        for _ in range(10):
            batcher(X)
        assert look(max_p99_ms=60_000).state is health.State.READY
        report = look(max_p99_ms=1.0)
        assert report.state is health.State.DEGRADED
        assert "p99 of the last minute" in report.reasons[0]


def test_a_buffer_kept_from_the_pool() -> None:
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        out = inferkit.BufferPool.default().stats().outstanding
        assert look(max_idle_buffers=out).state is health.State.READY
        kept = inferkit.BufferPool.default().acquire(1000)
        report = look(max_idle_buffers=out)
        assert report.state is health.State.DEGRADED
        assert "in use while nothing runs" in report.reasons[0]
        assert "'python'" in report.reasons[0]
        kept.release()
        assert look(max_idle_buffers=out).state is health.State.READY


def test_a_debug_build(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("inferkit.health._monitor")
    monkeypatch.setattr(module, "built", lambda: {**inferkit.build_info(), "debug": True})
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        report = look()
        assert (report.state, report.ready) == (health.State.DEGRADED, True)
        assert "debug build" in report.reasons[0]
        assert look(debug_is_fine=True).state is health.State.READY


def test_a_blocking_call_in_a_coroutine() -> None:
    """The reason names the line, while it blocks and for a minute after."""

    async def main() -> tuple[health.Report, health.Report, health.Report]:
        during: list[health.Report] = []

        def from_a_thread() -> None:
            time.sleep(0.3)
            during.append(look(max_loop_hold=0.1))

        with diagnostics.watch_loop(threshold=0.05):
            await asyncio.sleep(0.02)
            thread = threading.Thread(target=from_a_thread)
            thread.start()
            time.sleep(0.6)  # holds the loop
            await asyncio.sleep(0.02)
            thread.join()
            return during[0], look(max_loop_hold=0.1), look(max_loop_hold=3600.0)

    lines = Path(__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.endswith("time.sleep(0.6)  # holds the loop"))
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        during, after, allowed = asyncio.run(main())
        for report in (during, after):
            assert report.state is health.State.DEGRADED
            assert f"{Path(__file__).name}:{line} in main" in report.reasons[0]
        assert allowed.state is health.State.READY
        assert look(max_loop_hold=0.1).state is health.State.READY  # nobody watches any more


@pytest.mark.parametrize(
    ("factor", "checks", "word"),
    [
        (0.0, inferkit.OutputChecks(not_all_zero=True), "zero"),
        (0.3, inferkit.OutputChecks(normalized=True), "sum"),
    ],
)
def test_wrong_answers(factor: float, checks: Any, word: str) -> None:
    with inferkit.Batcher(model(lambda x: x * np.float32(factor)), output_checks=checks) as batcher:
        for _ in range(10):
            with pytest.raises(inferkit.OutputError, match=word):
                batcher(X)
        report = look()
        assert report.state is health.State.DEGRADED
        assert "of the last minute's runs failed" in report.reasons[0]


def test_memory_over_its_limit() -> None:
    with inferkit.Batcher(model()) as batcher:
        batcher(X)
        assert "memory is" in look(max_memory_bytes=1 << 20).reasons[0]
        assert look(max_memory_bytes=1 << 50).reasons == ()


def test_a_forked_child_has_no_workers(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        "import os, inferkit\n"
        "port = [('x', 'float32', (None, 2))]\n"
        "batcher = inferkit.Batcher(inferkit.Model.from_callable(lambda x: x, port, port), name='b')\n"
        "batcher.warm_up()\n"
        "if os.fork() == 0:\n"
        "    report = inferkit.health.ready()\n"
        "    print(report.state, report.reasons, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(inferkit.health.ready().state)\n"
    )
    child, parent = done.stdout.splitlines()
    assert child.startswith("failed ('b: made before the process was forked"), done.stderr
    assert parent == "ready"


# Signals come at any moment of a report, and forks too; faulthandler ends who waits for ever.
INTERRUPTED = """
import faulthandler, itertools, os, random, signal, sys, threading, time
import inferkit.health
port = [("x", "float32", (None, 2))]
batcher = inferkit.Batcher(inferkit.Model.from_callable(lambda x: x, port, port))
end, rounds = time.monotonic() + 2, itertools.count()
"""

DRAINED_BY_A_SIGNAL = """
faulthandler.dump_traceback_later(20, exit=True)
signal.signal(signal.SIGALRM, lambda *_: inferkit.health.drain())
while time.monotonic() < end:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 6e-5))
    inferkit.health.report()
    next(rounds)
signal.setitimer(signal.ITIMER_REAL, 0)
print(next(rounds) > 100, inferkit.health.report().state)
"""

FORKED = """
def probe():
    while True:
        inferkit.health.report()

sys.setswitchinterval(1e-5)
for _ in range(2):
    threading.Thread(target=probe, daemon=True).start()
while time.monotonic() < end:
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(10, exit=True)
        inferkit.health.report()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, f"child {next(rounds)}"
print("done", flush=True)
os._exit(0)
"""


def test_a_signal_s_handler_may_drain(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(INTERRUPTED + DRAINED_BY_A_SIGNAL)
    assert done.stdout == "True draining\n", done.stderr


def test_a_child_may_report_whatever_the_parent_s_threads_do(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(INTERRUPTED + FORKED)
    assert done.stdout == "done\n", done.stderr


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="max_queue_depth"):
        health.Limits(max_queue_depth=-1)


def test_the_module_s_own_monitor() -> None:
    try:
        health.configure(health.Limits(require_warm_up=False))
        with inferkit.Batcher(model()):
            assert health.ready()
            assert health.report().state is health.State.READY
            assert health.live() is True
            with health.loading():
                assert not health.ready()
    finally:
        health.configure(health.Limits())


def test_a_change_of_state_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    monitor = health.Monitor()
    with caplog.at_level(logging.DEBUG, "inferkit.health"):
        monitor.report()
        monitor.report()
        with inferkit.Batcher(model()) as batcher:
            batcher(X)
            monitor.report()
    lines = [(r.levelname, r.state) for r in caplog.records if r.name == "inferkit.health"]
    assert lines == [("WARNING", "loading"), ("INFO", "ready")]


def test_the_stack_of_a_callable_that_hangs_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def stacks() -> list[Any]:
        return [record for record in caplog.records if getattr(record, "event", "") == "hung"]

    monitor = health.Monitor()
    with caplog.at_level(logging.DEBUG, "inferkit.health"), Hung() as hung:
        monitor.report()
        assert not stacks()
        hung.clock.advance(31)
        monitor.report()
        monitor.report()
        (record,) = stacks()
        assert (record.levelname, record.batcher, record.seconds) == ("ERROR", "hung", 31.0)
        first, *others = record.stack.split(" < ")
        assert re.fullmatch(r".*threading\.py:\d+ in wait", first)
        assert any(re.fullmatch(rf"{__file__}:\d+ in run", site) for site in others)
        hung.release.set()
        hung.batcher.drain()
        monitor.report()
    with caplog.at_level(logging.DEBUG, "inferkit.health"), Hung() as hung:
        hung.clock.advance(31)
        monitor.report()
        assert len(stacks()) == 2  # another call
        health.Monitor(health.Limits(hung_after=None)).report()
        assert len(stacks()) == 2


# The ASGI app, by itself


def ask(app: Any, path: str, method: str = "GET", query: str = "", **scope: Any) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    full = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": [], **scope,
    }  # fmt: skip
    asyncio.run(app(full, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


def test_healthz_and_readyz() -> None:
    app = health.asgi_app(health.Limits())
    assert ask(app, "/healthz")[::2] == (200, b"alive\n")
    code, headers, body = ask(app, "/readyz")
    assert (code, json.loads(body)["state"], headers["cache-control"]) == (503, "loading", "no-store")
    with inferkit.Batcher(model(), name="b") as batcher:
        batcher(X)
        code, _, body = ask(app, "/readyz")
        assert (code, json.loads(body)) == (
            200, {"state": "ready", "ready": True, "reasons": [], "batchers": {"b": "ready"}},
        )  # fmt: skip
    code, _, body = ask(app, "/readyz")
    assert (code, json.loads(body)["reasons"]) == (503, ["every batcher is closed"])
    assert ask(app, "/healthz")[0] == 200


def test_a_hung_worker_over_http() -> None:
    with Hung() as hung:
        hung.clock.advance(31)
        code, _, body = ask(health.asgi_app(health.Limits()), "/readyz")
        assert (code, json.loads(body)["state"]) == (503, "failed")
        assert ask(health.asgi_app(health.Limits()), "/healthz")[0] == 200
        assert ask(health.asgi_app(health.Limits(failed_is_dead=True)), "/healthz")[0] == 503


def test_every_route_answers_without_descriptors() -> None:
    app = health.asgi_app()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop, sent, held = asyncio.new_event_loop(), [], []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def everything() -> None:
        for path in ("/healthz", "/readyz", "/statusz"):
            scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
            await app(scope, None, send)

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        loop.run_until_complete(everything())
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop.close()
    assert [message["status"] for message in sent[::2]] == [200, 503, 200]
    assert b"<html" in sent[-1]["body"]


def test_a_route_that_fails_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("inferkit.health._app")

    def fails(_: object) -> Any:
        raise OSError(24, "too many\x1b[2J")

    monkeypatch.setattr(module, "status", fails)
    code, headers, body = ask(health.asgi_app(), "/statusz")
    assert (code, headers["content-type"].split(";")[0]) == (500, "text/plain")
    assert body == b"OSError: [Errno 24] too many\\x1b[2J\n"


def test_other_paths_and_methods() -> None:
    app = health.asgi_app()
    assert ask(app, "/")[0] == 404
    assert b"/readyz" in ask(app, "/other")[2]
    code, headers, _ = ask(app, "/healthz", "POST")
    assert (code, headers["allow"]) == (405, "GET, HEAD")
    code, headers, body = ask(app, "/healthz", "HEAD")
    assert (code, headers["content-length"], body) == (200, "6", b"")
    assert ask(app, "/healthz/")[0] == 200
    with pytest.raises(RuntimeError, match="websocket"):
        asyncio.run(app({"type": "websocket"}, None, None))


def test_metrics_or_the_name_of_the_extra(fresh_python: Callable[..., Any]) -> None:
    pytest.importorskip("prometheus_client", reason="needs prometheus_client")
    code, headers, body = ask(health.asgi_app(), "/metrics")
    assert code == 200
    assert headers["content-type"].startswith("text/plain")
    assert b"inferkit_memory_rss_bytes" in body
    done = fresh_python(
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import asyncio, inferkit\n"
        "async def send(message): print(message)\n"
        "scope = {'type': 'http', 'method': 'GET', 'path': '/metrics', 'headers': []}\n"
        "asyncio.run(inferkit.health.asgi_app()(scope, None, send))\n"
    )
    assert "501" in done.stdout, done.stderr
    assert "pip install prometheus_client" in done.stdout


def test_statusz_has_its_figures_and_loads_nothing() -> None:
    with inferkit.Batcher(model(), name="</script><b>x", max_batch_size=8) as batcher:
        for i in range(20):
            batcher(X, request_id=f"r{i}")
        code, headers, body = ask(health.asgi_app(), "/statusz")
        figures = json.loads(ask(health.asgi_app(), "/statusz", query="format=json")[2])
    assert code == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    page = body.decode()
    assert not re.search(r"(src|href)\s*=|@import|https?://(?!www\.w3\.org/2000/svg)", page)  # one self-contained file
    assert page.count("</script>") == 2  # the batcher's name ends no element
    embedded = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    (one,) = json.loads(embedded[1])["batchers"]
    assert one["name"] == "</script><b>x"
    (one,) = figures["batchers"]
    assert one["stats"]["completed"] == sum(one["latency"]["counts"]) == 20
    assert len(one["latency"]["counts"]) == len(one["latency"]["seconds"]) + 1
    assert [r["total_ms"] for r in figures["slow"]] == sorted((r["total_ms"] for r in figures["slow"]), reverse=True)
    assert {r["request_id"] for r in figures["slow"]} <= {f"r{i}" for i in range(20)}


def test_statusz_has_the_last_minutes_when_it_is_opened() -> None:
    clock = inferkit._core.ManualClock()
    with inferkit.Batcher(model(), name="b", max_queue_size=1, _clock=clock) as batcher:
        for second in range(90):
            for _ in range(second % 7):
                batcher(X)
            if second % 10 == 0:
                with pytest.raises(inferkit.ValidationError):
                    batcher(np.ones(3, np.float32))
            clock.advance(1.0)
        app = health.asgi_app()
        page = ask(app, "/statusz")[2].decode()
        figures = json.loads(ask(app, "/statusz", query="format=json")[2])
    embedded = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    for shown in (json.loads(embedded[1]), figures):
        (one,) = shown["batchers"]
        assert one["series"]["completed"] == [*(second % 7 for second in range(90)), 0]
        assert one["series"]["invalid"] == [*(int(second % 10 == 0) for second in range(90)), 0]
        assert {len(values) for kind, values in one["series"].items() if kind != "running"} == {91}
        window = one["stats"]["windows"]["60"]
        assert window["invalid_rate"] == window["invalid"] / (window["completed"] + window["invalid"]) > 0
        memory = shown["memory"]
        assert len(memory["ago"]) == len(memory["rss_bytes"]) == len(memory["pool_in_use_bytes"]) >= 1
        assert min(memory["rss_bytes"]) > 1 << 20


def test_memory_is_remembered_by_whoever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("inferkit.health._memory")
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    memory = module.MemoryHistory()
    for _ in range(1000):
        memory.look()
        now += 0.5
    ages = memory.as_dict()["ago"]
    assert ages == sorted(ages, reverse=True)
    assert 290 <= ages[0] <= 300
    assert len(ages) == 300
    now += 1000
    assert memory.as_dict() == {"ago": [], "rss_bytes": [], "pool_in_use_bytes": []}


def test_statusz_script_draws_what_the_process_remembers(tmp_path: Path) -> None:
    """The page's own script, on a document that only keeps what is put into it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    clock = inferkit._core.ManualClock()
    with inferkit.Batcher(model(), name="b<>", _clock=clock) as batcher:
        for _ in range(30):
            batcher(X)
            clock.advance(1.0)
        with pytest.raises(inferkit.ValidationError):
            batcher(np.ones(3, np.float32))
        page = ask(health.asgi_app(), "/statusz")[2].decode()
    figures, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    stub = """
        class Node {
          constructor(tag) { this.tag = tag; this.attributes = {}; this.children = []; this.textContent = ""; }
          setAttribute(name, value) { this.attributes[name] = String(value); }
          append(...nodes) { this.children.push(...nodes); }
          replaceChildren(...nodes) { this.children = nodes; }
        }
        const ids = {};
        globalThis.document = {
          createElement: (tag) => new Node(tag), createElementNS: (_, tag) => new Node(tag),
          getElementById: (id) => ids[id] ??= new Node("#" + id), title: "",
        };
        document.getElementById("figures").textContent = FIGURES;
        globalThis.setTimeout = () => 0;
    """
    ending = """
        const found = {}, texts = [];
        (function walk(node) {
          if (typeof node === "string") return void texts.push(node);
          const label = node.attributes["aria-label"];
          if (label) found[label] = JSON.stringify(node).match(/"class":"stroke","d":"([^"]*)"/)?.[1] ?? null;
          node.children.forEach(walk);
        })({ attributes: {}, children: Object.values(ids) });
        console.log(JSON.stringify([found, texts]));
    """
    path = tmp_path / "page.js"
    path.write_text(stub.replace("FIGURES", json.dumps(figures)) + script + ending)
    done = subprocess.run([node, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    strokes, texts = json.loads(done.stdout)
    assert strokes["requests per second"].count(",") == 30  # a point for each second, without having waited for one
    assert strokes["queue depth"].count(",") == 31
    assert strokes["without an answer"].count(",") == 30
    for name in ("memory", "buffer pool"):
        assert strokes[name] is not None
    assert {"b<>", "unserved", "invalid", "3.23 %"} <= set(texts)
    assert "NaN" not in done.stdout


# Served by others


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_uvicorn_serves_it() -> None:
    with served(health.asgi_app()) as url:
        assert get(url + "/healthz") == (200, b"alive\n")
        assert get(url + "/readyz")[0] == 503
        with inferkit.Batcher(model()) as batcher:
            batcher(X)
            assert get(url + "/readyz")[0] == 200
            assert get(url + "/statusz")[0] == 200
        assert get(url + "/elsewhere")[0] == 404


@pytest.mark.parametrize("framework", ["starlette.applications.Starlette", "fastapi.FastAPI"])
def test_frameworks_mount_it(framework: str) -> None:
    module, _, name = framework.rpartition(".")
    made = getattr(pytest.importorskip(module, reason=f"needs {module}"), name)()
    pytest.importorskip("httpx", reason="needs httpx")
    made.mount("/internal", health.asgi_app())
    with served(made) as url:
        assert get(url + "/internal/healthz") == (200, b"alive\n")
        assert get(url + "/internal/readyz")[0] == 503
        assert b"{{figures}}" not in get(url + "/internal/statusz")[1]


@pytest.mark.unsanitized("the browser does not start below it")
def test_statusz_in_a_browser(tmp_path: Path, digits_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """What a person sees after the page's own script has run, and has fetched new figures."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with (
        inferkit.Batcher(inferkit.Model.load(digits_path), name="digits <&>", max_batch_size=16) as batcher,
        served(health.asgi_app(health.Limits(max_queue_depth=100))) as url,
    ):
        for i, image in enumerate(digits[0][:50]):
            batcher(image, request_id=f"<i>request-{i}</i>")
        done = subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path}", "--virtual-time-budget=3000", "--dump-dom", url + "/statusz",
            ],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    dom = done.stdout
    assert done.returncode == 0, done.stderr
    assert '<span class="pill ready" id="state">ready</span>' in dom
    assert "digits &lt;&amp;&gt;" in dom
    assert "&lt;i&gt;request-" in dom
    assert "<i>request-" not in dom  # a caller's id is text
    charts = ("queue depth", "latency histogram", "batch sizes", "requests per second", "without an answer")
    for chart in (*charts, "memory", "buffer pool"):
        assert f'aria-label="{chart}"' in dom
    assert dom.count('<rect class="bar"') > 10
    assert "p99" in dom
    assert dom.count('<path class="stroke"') >= 2  # two points in time at least: it has fetched new figures
    assert ">live<" in dom
    stretched = re.findall(r'<svg [^>]*preserveAspectRatio="none"[^>]*>(.*?)</svg>', dom, re.DOTALL)
    assert len(stretched) == 7
    assert not any("<text" in shapes for shapes in stretched)  # letters keep their proportions
    assert dom.count("<text") > 20


@pytest.mark.parametrize("name", ["inferkit.health", "inferkit.health._monitor"])
def test_examples_run(name: str) -> None:
    import doctest

    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
