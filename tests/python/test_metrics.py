"""The metrics as Prometheus reads them, of one process and of several; the dashboard and the alert rules."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import shutil
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
from inferkit import _background
from inferkit.metrics import _ended
from inferkit.metrics._collector import _counters
from inferkit.metrics._ended import _OF_TAGS, counts_of
from inferkit.metrics._figures import process_figures

prometheus = pytest.importorskip("prometheus_client", reason="needs prometheus_client")
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as parse  # noqa: E402

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
X = np.ones(2, np.float32)
PORT = [("x", "float32", (None, 2))]


@pytest.fixture(autouse=True)
def nothing_has_ended() -> None:
    """The counters of a process stay; tests that look at them use the same names."""
    _ended._of.clear()


def model(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, PORT, PORT)


def scrape(**options: Any) -> dict[str, Any]:
    """By metric name; what the parser rejects raises."""
    body, content_type = inferkit.metrics.exposition(**options)
    assert content_type.startswith("text/plain")
    return {family.name: family for family in parse(body.decode())}


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


@pytest.fixture
def busy() -> Iterator[inferkit.Batcher]:
    """A batcher that has answered 5 requests in 5 batches, failed one and refused one."""

    def sums(x: np.ndarray) -> np.ndarray:
        if (x == 13).any():
            raise RuntimeError("thirteen")
        return x

    with inferkit.Batcher(model(sums), name="busy", max_batch_size=4) as batcher:
        for _ in range(5):
            batcher(X)
        with pytest.raises(inferkit.InferenceError):
            batcher(np.full(2, 13, np.float32))
        with pytest.raises(inferkit.ValidationError):
            batcher(np.ones(3, np.float32))
        yield batcher


def test_figures_are_those_of_stats(busy: inferkit.Batcher) -> None:
    families, stats = scrape(), busy.stats()
    for outcome in ("completed", "failed", "cancelled", "expired", "rejected", "invalid"):
        assert value(families, "inferkit_requests_total", batcher="busy", outcome=outcome) == getattr(stats, outcome)
    for reason, count in stats.dispatched.items():
        assert value(families, "inferkit_batches_total", batcher="busy", reason=reason) == count
    assert value(families, "inferkit_batch_rows_total", batcher="busy") == 6
    assert value(families, "inferkit_batch_fill_ratio", batcher="busy") == 0.25
    assert value(families, "inferkit_inference_error_ratio", batcher="busy") == pytest.approx(1 / 6)
    assert value(families, "inferkit_queue_limit", batcher="busy") == 1024
    assert value(families, "inferkit_memory_rss_bytes") == pytest.approx(stats.memory_rss_bytes, rel=0.5)
    seconds = value(families, "inferkit_latency_seconds", batcher="busy", stage="total", quantile="0.99")
    assert seconds == pytest.approx(stats.windows[60].p99_latency_ms / 1e3, rel=0.01)


def test_the_histogram_is_cumulative_and_adds_up(busy: inferkit.Batcher) -> None:
    samples = scrape()["inferkit_request_duration_seconds"].samples
    for stage in ("queue", "compute", "total"):
        mine = [s for s in samples if s.labels["stage"] == stage and s.labels["batcher"] == "busy"]
        buckets = {float(s.labels["le"]): s.value for s in mine if s.name.endswith("_bucket")}
        assert tuple(buckets) == (*inferkit.metrics.BUCKETS, float("inf"))
        assert list(buckets.values()) == sorted(buckets.values())
        (count,) = (s.value for s in mine if s.name.endswith("_count"))
        (total,) = (s.value for s in mine if s.name.endswith("_sum"))
        assert buckets[float("inf")] == count == 6
        mean = getattr(busy.stats(), f"{stage}_ms").mean / 1e3
        assert total == pytest.approx(6 * mean)


def test_names_and_units_follow_the_conventions(busy: inferkit.Batcher) -> None:
    for name, family in scrape().items():
        assert re.fullmatch(r"inferkit_[a-z0-9_]+", name)
        assert family.documentation.endswith(".") or "1." in family.documentation or family.documentation
        if family.type == "counter":
            assert all(s.name.endswith("_total") for s in family.samples)
        else:
            assert not name.endswith("_total")
        assert not re.search(r"_(ms|milliseconds|us|kb|mb|percent)$", name)  # base units: seconds, bytes, ratios


def test_quantiles_are_a_summary(busy: inferkit.Batcher) -> None:
    family, stats = scrape()["inferkit_latency_seconds"], busy.stats()
    assert family.type == "summary"
    mine = [s for s in family.samples if s.labels["batcher"] == "busy" and s.labels["stage"] == "compute"]
    quantiles = {s.labels["quantile"]: s.value for s in mine if "quantile" in s.labels}
    assert set(quantiles) == {"0.5", "0.9", "0.95", "0.99", "0.999"}
    assert list(quantiles.values()) == sorted(quantiles.values())
    ever = {s.name: s.value for s in mine if "quantile" not in s.labels}
    assert ever["inferkit_latency_seconds_count"] == stats.compute_ms.count == 6
    assert ever["inferkit_latency_seconds_sum"] == pytest.approx(6 * stats.compute_ms.mean / 1e3)


def test_promtool_has_nothing_to_say(busy: inferkit.Batcher) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    body, _ = inferkit.metrics.exposition()
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_openmetrics_too(busy: inferkit.Batcher) -> None:
    body, content_type = inferkit.metrics.exposition(accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert {f.name for f in parse_openmetrics(body.decode())} >= {"inferkit_requests", "inferkit_queue_depth"}


@pytest.mark.parametrize("auto_describe", [False, True])
def test_a_registry_has_the_metrics_once(auto_describe: bool) -> None:
    """Application factories register each time that they are called."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=auto_describe)

    def families() -> int:
        text = generate_latest(registry).decode()
        return sum(line.startswith("# TYPE inferkit_requests_total ") for line in text.splitlines())

    first = inferkit.metrics.register(registry)
    assert inferkit.metrics.register(registry) is first
    assert importlib.reload(inferkit.metrics).register(registry) is first
    assert families() == 1
    finer = inferkit.metrics.register(registry, buckets=(0.001, 0.01))
    assert finer is not first
    assert families() == 1
    registry.unregister(finer)
    assert families() == 0
    inferkit.metrics.register(registry)
    assert families() == 1


def test_a_registry_refuses_a_second_collector() -> None:
    registry = prometheus.CollectorRegistry(auto_describe=False)
    first = inferkit.metrics.Collector()
    registry.register(first)
    with pytest.raises(ValueError, match="inferkit_requests"):
        registry.register(inferkit.metrics.Collector(buckets=(0.1,)))
    with pytest.raises(ValueError, match="inferkit_requests"):
        inferkit.metrics.register(registry)
    registry.unregister(first)
    inferkit.metrics.register(registry)
    with pytest.raises(ValueError, match="inferkit_requests"):
        registry.register(inferkit.metrics.Collector())


@pytest.mark.parametrize("shared", [False, True])
def test_a_collector_describes_what_it_collects(busy: inferkit.Batcher, tmp_path: Path, shared: bool) -> None:
    collector = inferkit.metrics.Collector(directory=tmp_path if shared else None)
    collected = {(family.name, family.type) for family in collector.collect()}
    assert collected == {(family.name, family.type) for family in collector.describe()}
    assert not [s for f in collector.describe() for s in f.samples if s.labels.get("batcher")]


def test_register_and_unregister() -> None:
    registry = prometheus.CollectorRegistry()
    collector = inferkit.metrics.register(registry)
    with inferkit.Batcher(model(), name="seen"):
        assert registry.get_sample_value("inferkit_queue_depth", {"batcher": "seen"}) == 0
    assert registry.get_sample_value("inferkit_queue_depth", {"batcher": "seen"}) is None  # closed
    registry.unregister(collector)
    assert prometheus.generate_latest(registry) == b""


def test_names_of_batchers_are_unique() -> None:
    with inferkit.Batcher(model(), name="twin") as one, inferkit.Batcher(model(), name="twin") as two:
        assert (one.name, two.name) == ("twin", "twin-2")
        families = scrape()
        assert value(families, "inferkit_queue_depth", batcher="twin") == 0
        assert value(families, "inferkit_queue_depth", batcher="twin-2") == 0


def test_a_queue_and_a_hung_run_are_seen() -> None:
    release, inside = threading.Event(), threading.Event()
    clock = inferkit._core.ManualClock()

    def hangs(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(60)
        return x

    with inferkit.Batcher(model(hangs), name="hung", _clock=clock) as batcher:
        tickets = [batcher.submit(X)]
        inside.wait(60)
        tickets += [batcher.submit(X) for _ in range(3)]
        clock.advance(7.0)
        families = scrape()
        release.set()
        for ticket in tickets:
            ticket.result()
    assert value(families, "inferkit_queue_depth", batcher="hung") == 3
    assert value(families, "inferkit_in_flight_batches", batcher="hung") == 1
    assert value(families, "inferkit_oldest_wait_seconds", batcher="hung") == pytest.approx(7)
    assert value(families, "inferkit_longest_run_seconds", batcher="hung") == pytest.approx(7)


@pytest.mark.parametrize("buckets", [(), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)])
def test_bad_buckets(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        inferkit.metrics.Collector(buckets=buckets)


def test_the_missing_extra_is_named(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import inferkit\n"
        "try:\n    inferkit.metrics.register()\nexcept ImportError as error:\n    print(error)\n"
    )
    assert "pip install prometheus_client" in done.stdout, done.stderr


# Several processes

WORKER = """
import sys, numpy as np, inferkit
model = inferkit.Model.from_callable(lambda x: x, [("x", "float32", (None, 2))], [("y", "float32", (None, 2))])
with inferkit.metrics.share(sys.argv[1], interval=0.01) as sharing, inferkit.Batcher(model, name="shared") as batcher:
    for _ in range(int(sys.argv[2])):
        batcher(np.ones(2, np.float32))
    sharing.write()
    print("ready", flush=True)
    sys.stdin.read()
"""


def worker(folder: Path, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_several_processes_are_one_scrape(tmp_path: Path) -> None:
    with inferkit.Batcher(model(), name="shared") as batcher:
        batcher(X)
        workers = [worker(tmp_path, 10), worker(tmp_path, 100)]
        try:
            families = scrape(directory=tmp_path)
            assert value(families, "inferkit_requests_total", batcher="shared", outcome="completed") == 111
            assert value(families, "inferkit_request_duration_seconds_count", batcher="shared", stage="total") == 111
            pids = {s.labels["pid"] for s in families["inferkit_memory_rss_bytes"].samples}
            assert pids == {str(os.getpid()), *(str(w.pid) for w in workers)}
            workers[0].kill()
            workers[0].wait()
            families = scrape(directory=tmp_path)
            assert value(families, "inferkit_requests_total", batcher="shared", outcome="completed") == 111
            pids = {s.labels["pid"] for s in families["inferkit_queue_depth"].samples}
            assert pids == {str(os.getpid()), str(workers[1].pid)}
        finally:
            for process in workers:
                process.kill()
                process.communicate()


def completed_by_gone(**where: Any) -> float:
    return value(scrape(**where), "inferkit_requests_total", batcher="gone", outcome="completed")


@pytest.mark.parametrize("end", ["close", "drop", "close in a child"])
def test_what_a_batcher_counted_stays_when_it_ends(tmp_path: Path, end: str) -> None:
    with inferkit.metrics.share(tmp_path):
        for round_ in (1, 2, 3):
            batcher = inferkit.Batcher(model(), name="gone")
            for _ in range(4):
                batcher(X)
            assert completed_by_gone() == completed_by_gone(directory=tmp_path) == 4 * round_
            if end == "close in a child" and (child := os.fork()) == 0:
                batcher.close()
                os._exit(0 if value(scrape(), "inferkit_memory_rss_bytes") > 0 else 1)
            if end == "close in a child":
                assert os.waitpid(child, 0)[1] == 0
            if end != "drop":
                batcher.close()
            del batcher
            families = scrape()
            assert completed_by_gone() == completed_by_gone(directory=tmp_path) == 4 * round_
            assert (
                value(families, "inferkit_request_duration_seconds_count", batcher="gone", stage="total") == 4 * round_
            )
            assert value(families, "inferkit_batch_rows_total", batcher="gone") == 4 * round_
            assert not [s for s in families["inferkit_queue_depth"].samples if s.labels["batcher"] == "gone"]


class Asked(dict[str, Any]):
    """Tells which of its entries were asked for."""

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_all_that_counters_show_is_kept_when_a_batcher_ends() -> None:
    """A figure that a counter takes, and _ended.py does not keep, would go back to 0 with the batcher."""
    with inferkit.Batcher(model(), clients={"a": inferkit.Client()}) as batcher:
        for x in (X, np.ones(3, np.float32), np.full(2, np.nan, np.float32)):  # some of each figure of a set of tags
            batcher.submit(x, client="a", tags={"a": "b"}).exception()
        figures = process_figures()
        kept = counts_of(batcher.name, batcher._stats(list(inferkit.metrics.BUCKETS)))
        (mine,) = [one for one in figures["batchers"] if one["name"] == batcher.name]
    mine["stats"] = Asked(mine["stats"])
    client = mine["clients"]["a"] = Asked(mine["clients"]["a"])
    tags = mine["tags"][0] = Asked(mine["tags"][0])
    assert len(list(_counters([({**figures, "batchers": [mine]}, True)]))) > 10
    assert len(mine["stats"].names) > 10
    assert mine["stats"].names - set(kept["stats"]) == set()
    assert client.names
    assert client.names - set(kept["clients"]["a"]) == set()
    assert len(tags.names) > 8
    assert tags.names - {"tags", *_OF_TAGS} == set()


def test_many_batchers_come_and_go() -> None:
    scrape()  # from now on, what has ended is kept
    shown = []
    for number in range(1100):
        with inferkit.Batcher(model(), name=f"passing-{number}") as batcher:
            batcher(X)
        if number % 100 == 99:
            samples = scrape()["inferkit_requests"].samples
            names = {"ended", *(f"passing-{n}" for n in range(1100))}
            mine = [s for s in samples if s.labels["outcome"] == "completed" and s.labels["batcher"] in names]
            shown.append(sum(s.value for s in mine))
            assert len(mine) <= 501
    first = shown[0]
    assert [total - first for total in shown] == [100 * step for step in range(11)]


def test_a_worker_that_closes_its_batcher_counts_on(tmp_path: Path) -> None:
    process = worker(tmp_path, 10)
    process.communicate(timeout=60)  # it closes its batcher, then shares its last figures
    assert process.returncode == 0
    families = scrape(directory=tmp_path)
    assert value(families, "inferkit_requests_total", batcher="shared", outcome="completed") == 10
    assert not [s for s in families["inferkit_queue_depth"].samples if s.labels["batcher"] == "shared"]


def test_a_forked_worker_shares_its_own_figures(tmp_path: Path, fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        """
import os, sys, time, numpy as np, inferkit
def make():
    model = inferkit.Model.from_callable(lambda x: x, [("x", "float32", (None, 2))], [("y", "float32", (None, 2))])
    return inferkit.Batcher(model, name="forked")
folder = sys.argv[1]
before = make()
before(np.ones(2, np.float32))
inferkit.metrics.share(folder, interval=0.01)
if os.fork() == 0:
    inside = make()
    for _ in range(4):
        inside(np.ones(2, np.float32))
    time.sleep(0.3)
    os._exit(0)
os.wait()
print(inferkit.metrics.exposition(directory=folder)[0].decode())
""",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    families = {f.name: f for f in parse(done.stdout)}
    total = sum(
        s.value for s in families["inferkit_requests"].samples if s.labels["outcome"] == "completed"
    )  # the parent's one, and the child's four, under whatever name
    assert total == 5


def test_sharing_needs_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with pytest.raises(ValueError, match="PROMETHEUS_MULTIPROC_DIR"):
        inferkit.metrics.share()
    with pytest.raises(NotADirectoryError):
        inferkit.metrics.share(tmp_path / "none")
    with pytest.raises(ValueError, match="interval"):
        inferkit.metrics.share(tmp_path, interval=0)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with inferkit.metrics.share():
        assert len(list(tmp_path.glob("inferkit_*.json"))) == 1


def test_other_files_of_the_directory_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "inferkit_1_1.json").write_text("{")
    (tmp_path / "counter_1.db").write_bytes(b"\\0")
    scrape(directory=tmp_path)


def test_a_pipe_in_the_place_of_the_unfinished_file(tmp_path: Path) -> None:
    """Opening it would wait for a reader, and the end of the process for the thread that opens it."""
    with inferkit.metrics.share(tmp_path, interval=3600) as sharing:
        (own,) = tmp_path.glob("inferkit_*.json")
        before = own.stat().st_ino
        os.mkfifo(own.with_suffix(f".{id(sharing):x}.tmp"))
        writer = threading.Thread(target=sharing.write, daemon=True)
        writer.start()
        writer.join(30)
        assert not writer.is_alive()
        assert own.stat().st_ino != before


def test_writers_at_once_leave_no_file_half_written(tmp_path: Path) -> None:
    """The thread's write, the last one of stop(), one's own: each replaces the file by a whole one."""
    with inferkit.metrics.share(tmp_path, interval=3600) as one, inferkit.metrics.share(tmp_path, interval=3600) as two:
        (path,) = tmp_path.glob("inferkit_*.json")
        over, failures = threading.Event(), list[BaseException]()

        def write(sharing: inferkit.metrics.Sharing) -> None:
            try:
                while not over.is_set():
                    sharing.write()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(sharing,)) for sharing in (one, one, two, two)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(500):
                json.loads(path.read_text())
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
        assert failures == []
    assert [name.suffix for name in tmp_path.iterdir()] == [".json"]


def test_a_signal_handler_may_write_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """As one does that stops the process's figures when it is told to end."""
    heard = []
    with inferkit.metrics.share(tmp_path, interval=3600) as sharing:

        def handler(*_: Any) -> None:
            heard.append(sharing.write())

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            end = time.monotonic() + 60
            while len(heard) < 50 and time.monotonic() < end:
                sharing.write()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        (path,) = tmp_path.iterdir()
        json.loads(path.read_text())
    assert len(heard) >= 50


def figures_of_another(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """What a worker has written, under its name."""
    process = worker(tmp_path, 3)
    (path,) = tmp_path.glob("inferkit_*.json")
    text = path.read_text()
    process.kill()
    process.communicate()
    for left in tmp_path.iterdir():  # it may have been in the middle of a write
        left.unlink()
    return {**json.loads(text), **changes}


def completed(directory: Path) -> tuple[float, float]:
    """Of the batcher of the workers, and how many files were skipped."""
    families = scrape(directory=directory)
    text = inferkit.metrics.exposition(directory=directory)[0].decode()
    assert len(list(parse(text))) == len(families)
    samples = families["inferkit_requests"].samples
    done = sum(s.value for s in samples if s.labels["outcome"] == "completed" and s.labels["batcher"] == "shared")
    return done, value(families, "inferkit_shared_files_skipped")


def changed(figures: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    """A copy with one value changed, or taken out: by keys and indices with dots."""
    copy = json.loads(json.dumps(figures))
    at = copy
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if new is None:
        del at[last]
    else:
        at[last] = new
    return copy


def test_files_that_are_not_ours_take_nothing_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_background, "_told", set())
    mine = figures_of_another(tmp_path)
    pid, name = mine["pid"], "inferkit_{}_1.json".format
    (tmp_path / name(pid)).write_text(json.dumps(mine))
    assert completed(tmp_path) == (3, 0)
    wrong: list[Any] = [
        "", "{", "null", "7", "[]", "{}", "[" * 100_000, "\xff", '{"pid": 1}', json.dumps(mine)[:-20],
        mine,  # of another process than its name says
        changed(mine, "buckets", [1.0]),
        changed(mine, "buckets", None),
        changed(mine, "batchers", {"a": 1}),
        changed(mine, "batchers", [5]),
        changed(mine, "batchers", mine["batchers"] * 2),
        changed(mine, "batchers.0.stats", None),
        changed(mine, "batchers.0.stats.windows", {"soon": {}}),
        changed(mine, "batchers.0.stats.windows.60", None),
        changed(mine, "batchers.0.stats.completed", "many"),
        changed(mine, "batchers.0.stats.completed", [1]),
        changed(mine, "batchers.0.stats.queue_depth", 10**400),
        changed(mine, "batchers.0.histograms.total.at_most", [1, 2]),
        changed(mine, "batchers.0.stats.dispatched", {"\udcff": 1}),
        changed(mine, "batchers.0.stats.completed", -4),
        changed(mine, "batchers.0.stats.completed", 10**308),
        changed(mine, "batchers.0.stats.completed", 2**64 + 1),
        changed(mine, "batchers.0.stats.completed", True),
        changed(mine, "batchers.0.stats.rows", -0.5),
        changed(mine, "batchers.0.stats.queue_depth", "5"),
        changed(mine, "batchers.0.stats.oldest_wait", "nan"),
        changed(mine, "batchers.0.stats.in_flight", False),
        changed(mine, "batchers.0.stats.windows.60.total_ms.p99", 1e300),
        changed(mine, "batchers.0.histograms.total.sum", 1.7e308),
        changed(mine, "batchers.0.histograms.total.sum", "1"),
        changed(mine, "batchers.0.histograms.total.count", 0),
        changed(mine, "batchers.0.histograms.total.at_most", list(range(len(mine["buckets"]), 0, -1))),
        changed(mine, "batchers.0.histograms.total.at_most", "a" * len(mine["buckets"])),
        changed(mine, "batchers.0.histograms.total", None),
        changed(mine, "batchers.0.histograms.more", mine["batchers"][0]["histograms"]["total"]),
        changed(mine, "batchers.0.name", ["shared"]),
        changed(mine, "pool.hits", 10**308),
        changed(mine, "pool", None),
        changed(mine, "memory_rss_bytes", {}),
        json.dumps(mine).replace('"completed": 3', '"completed": NaN'),
        json.dumps(mine).replace('"completed": 3', '"completed": 1e999'),
    ]  # fmt: skip
    for number, content in enumerate(wrong, 1_000_001):
        if isinstance(content, dict):
            content = json.dumps(content if content is mine else {**content, "pid": number})
        elif content.startswith(f'{{"pid": {pid}'):
            content = content.replace(f'"pid": {pid}', f'"pid": {number}')
        (tmp_path / name(number)).write_bytes(content.encode("latin-1"))
    (tmp_path / "inferkit_x.json").write_text(json.dumps(mine))
    (tmp_path / "inferkit_-1_2.json").write_text(json.dumps(mine))
    (tmp_path / "inferkit_7_7.json").mkdir()
    os.mkfifo(tmp_path / "inferkit_8_8.json")  # a reader that waits would wait for ever
    (tmp_path / "inferkit_9_9.json").symlink_to(tmp_path / name(pid))
    (tmp_path / "inferkit_10_10.json").symlink_to(tmp_path / "nowhere")
    with open(tmp_path / "inferkit_11_11.json", "wb") as huge:
        huge.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("inferkit_12_12.json")
    os.close(os.open(bytes(tmp_path) + b"/inferkit_\xff.json", os.O_CREAT | os.O_WRONLY))
    others = ["counter_1.db", "notes.txt", f"inferkit_{pid}_2.tmp"]
    for other in others:
        (tmp_path / other).write_bytes(b"\xff")
    with caplog.at_level("WARNING", "inferkit.metrics"):
        skipped = len(os.listdir(tmp_path)) - 1 - len(others)
        assert completed(tmp_path) == (3, skipped)
        lines = [r.getMessage() for r in caplog.records if r.name == "inferkit.metrics"]
        completed(tmp_path)
        assert len([r for r in caplog.records if r.name == "inferkit.metrics"]) == len(lines) == skipped  # once each
    assert all(line.isprintable() for line in lines)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away, and may read all")
def test_files_of_other_users(tmp_path: Path) -> None:
    mine = figures_of_another(tmp_path)
    path = tmp_path / f"inferkit_{mine['pid']}_1.json"
    path.write_text(json.dumps(mine))
    os.chown(path, 12345, 12345)
    assert completed(tmp_path) == (0, 1)
    os.chown(tmp_path, 12345, 12345)  # the folder's owner may write there
    assert completed(tmp_path) == (3, 0)


def test_files_that_vanish_and_a_folder_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = importlib.import_module("inferkit.metrics._shared")
    mine = figures_of_another(tmp_path)
    path = tmp_path / f"inferkit_{mine['pid']}_1.json"
    path.write_text(json.dumps(mine))
    listed = os.listdir(tmp_path)
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shared.os, "listdir", lambda _: listed)
        assert completed(tmp_path) == (0, 0)
    collector = inferkit.metrics.Collector(directory=tmp_path)
    tmp_path.rmdir()
    assert "inferkit_memory_rss_bytes" in {family.name for family in collector.collect()}


def test_a_process_whose_program_has_any_bytes_for_a_name() -> None:
    names = importlib.import_module("inferkit.metrics._figures")
    comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    if threading.get_native_id() != os.getpid():
        pytest.skip("only the main thread's name is the process's")
    before = comm.read_bytes()
    try:
        comm.write_bytes(b"a) \xff\n b")
        assert re.fullmatch(rf"{os.getpid()}_\d+", names.process_key() or "")
        tracing = importlib.import_module("inferkit.tracing._perfetto")
        assert os.getpid() in tracing._thread_names()
    finally:
        comm.write_bytes(before)


def test_the_writing_thread_outlives_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = importlib.import_module("inferkit.metrics._shared")
    tried = threading.Semaphore(0)
    with inferkit.metrics.share(tmp_path, interval=0.001) as sharing:
        with monkeypatch.context() as patch:

            def fails(_: Any) -> Any:
                tried.release()
                raise RuntimeError("once")

            patch.setattr(shared, "process_figures", fails)
            for _ in range(3):
                assert tried.acquire(timeout=30)
        for path in tmp_path.glob("inferkit_*.json"):
            path.unlink()
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("inferkit_*.json")) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sharing._thread.is_alive()
        assert list(tmp_path.glob("inferkit_*.json"))


def test_no_sum_of_what_others_say_is_too_large(tmp_path: Path) -> None:
    mine = figures_of_another(tmp_path)
    for number in range(1_000_001, 1_000_101):
        most = changed({**mine, "pid": number}, "batchers.0.stats.completed", 2**64)
        most = changed(most, "batchers.0.histograms.total.sum", 1.8e19)
        most["pool"]["hits"] = 2**64
        (tmp_path / f"inferkit_{number}_1.json").write_text(json.dumps(most))
    assert completed(tmp_path) == (100 * 2.0**64, 0)


def test_the_writing_thread_outlives_a_wait_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_background, "_told", set())
    monkeypatch.setattr(_background, "_AFTER_FAILURE", 0.001)

    class NoMemory(threading.Event):
        failures = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.failures += 1
            raise MemoryError

    with inferkit.metrics.share(tmp_path, interval=0.001) as sharing:
        before, sharing._stopped = sharing._stopped, NoMemory()
        deadline = time.monotonic() + 30
        while sharing._stopped.failures < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sharing._stopped.failures >= 3
        assert sharing._thread.is_alive()
    assert before is not sharing._stopped
    assert not sharing._thread.is_alive()


# What is in docs/monitoring


def known_metrics() -> set[str]:
    with inferkit.Batcher(model(), clients={"a": inferkit.Client()}) as batcher:
        batcher(X, tags={"a": "b"})
        families = scrape()
    # Of a CUDA device, which is not here, the families have no samples.
    cuda = {n + ("_total" if f.type == "counter" else "") for n, f in families.items() if n.startswith("inferkit_cuda")}
    return cuda | {s.name for family in families.values() for s in family.samples}


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml", "alerts_test.yml", "README.md"])
def test_the_documents_name_metrics_that_exist(name: str) -> None:
    used = set(re.findall(r"\binferkit_[a-z0-9_]+\b", (MONITORING / name).read_text()))
    families = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in known_metrics()}
    assert used
    assert used - known_metrics() - families == set()


def test_the_page_has_a_row_for_every_metric(busy: inferkit.Batcher) -> None:
    page = (MONITORING / "README.md").read_text()
    shown = {name + ("_total" if family.type == "counter" else "") for name, family in scrape().items()}
    assert len(shown) > 25
    assert sorted(name for name in shown if f"`{name}`" not in page) == []


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    panels = dashboard["panels"]
    assert len({p["id"] for p in panels}) == len(panels) >= 12
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & covered, panel["title"]
        cells |= covered
        assert panel["targets"]
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    text = json.dumps(panels)
    used = set(re.findall(r"\$\{?([a-z]+)\}?", text))
    assert used - {"__rate_interval"} <= variables | {""}


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_alert_rules(command: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_s_queries_parse(tmp_path: Path) -> None:
    """promtool reads expressions as rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    queries = [t["expr"] for p in json.loads((MONITORING / "grafana.json").read_text())["panels"] for t in p["targets"]]
    rules = [{"record": f"r{i}", "expr": query.replace("$__rate_interval", "1m")} for i, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["_collector", "_shared"])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"inferkit.metrics.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
