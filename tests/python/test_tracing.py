"""What inferkit.tracing tells of requests: records, Perfetto files, log lines."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import itertools
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readme import blocks

import inferkit
from inferkit import tracing

X = np.ones(2, np.float32)


def double(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, [("x", "float32", (None, 2))], [("y", "float32", (None, 2))])


def requests_of(batcher: inferkit.Batcher, count: int) -> list[tracing.RequestTrace]:
    """A worker writes a request down just after it has woken the caller."""
    deadline = time.monotonic() + 30
    while len(found := tracing.snapshot(batcher).requests) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    return list(found)


def test_five_times_in_order_for_tickets_callers_and_tasks() -> None:
    with inferkit.Batcher(double()) as batcher:
        batcher(X, request_id="call")
        batcher.submit(X, request_id="ticket").result()

        async def task() -> None:
            await batcher.submit(X, request_id="task")

        asyncio.run(task())
        records = {r.request_id: r for r in requests_of(batcher, 3)}
    assert set(records) == {"call", "ticket", "task"}
    for r in records.values():
        assert None not in (r.dequeued, r.started, r.delivered)
        times = [r.enqueued, r.dequeued, r.started, r.finished, r.delivered]
        assert times == sorted(times), r.request_id
        assert r.outcome == "completed"
        assert (r.rows, r.batch_size) == (1, 1)
        assert r.queue_ms + r.compute_ms == pytest.approx(r.total_ms)
    assert len({r.batch_id for r in records.values()}) == 3


def test_the_priority_however_a_request_went() -> None:
    with inferkit.Batcher(double(), max_queue_size=1) as batcher:
        batcher(X, priority=-100)
        batcher.submit(X, priority=100).result()
        assert isinstance(batcher.submit(X, priority=-7, timeout=0).exception(), inferkit.DeadlineError)
        batcher.submit(X).result()
        records = sorted(requests_of(batcher, 4), key=lambda r: r.enqueued)
        assert [r.priority for r in records] == [-100, 100, -7, 0]
        assert [r.rows for r in records] == [1] * 4


def test_a_ticket_and_the_trace_agree() -> None:
    with inferkit.Batcher(double()) as batcher:
        ticket = batcher.submit(X)
        ticket.result()
        (record,) = requests_of(batcher, 1)
    timing = ticket.timing
    assert record.request_id == ticket.request_id
    for name in ("enqueued", "dequeued", "started", "finished", "delivered", "batch_id", "batch_size"):
        assert getattr(record, name) == pytest.approx(getattr(timing, name)), name


def test_every_outcome_is_written_down() -> None:
    release, inside = threading.Event(), threading.Event()

    def model(x: np.ndarray) -> np.ndarray:
        inside.set()
        release.wait(30)
        if (x == 13).any():
            raise RuntimeError("thirteen")
        return x

    with inferkit.Batcher(double(model), max_queue_size=3, caller_runs=False) as batcher:
        tickets = [batcher.submit(X, request_id="good")]
        inside.wait(30)
        tickets += [
            batcher.submit(np.full(2, 13, np.float32), request_id="bad"),
            batcher.submit(X, request_id="gone"),
            batcher.submit(X, request_id="late", timeout=0.01),
        ]
        with pytest.raises(inferkit.QueueFullError):
            batcher.submit(X, request_id="refused").result()
        assert tickets[2].cancel()
        with pytest.raises(inferkit.DeadlineError):
            tickets[3].result()
        release.set()
        for ticket in tickets:
            ticket.exception(30)
        batcher.drain()
        seen = tracing.snapshot(batcher)
    outcomes = {r.request_id: r.outcome for r in seen.requests}
    assert outcomes == {
        "good": "completed", "bad": "failed", "gone": "cancelled", "late": "expired", "refused": "rejected",
    }  # fmt: skip
    assert [b.failed for b in seen.batches] == [False, True]
    assert {r.batch_id for r in seen.requests if r.outcome in ("cancelled", "expired", "rejected")} == {None}


def test_the_newest_are_kept_and_memory_is_fixed() -> None:
    with inferkit.Batcher(double(), trace_size=8) as batcher:
        for i in range(1, 31):
            batcher(X, request_id=i)
        assert [r.request_id for r in tracing.snapshot(batcher).requests] == list(range(23, 31))


def test_the_log_outlives_a_filter_that_raises() -> None:
    logger, seen = logging.getLogger("inferkit.request"), threading.Event()

    class Raises(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if getattr(record, "request_id", "") == "bad":
                raise RuntimeError("filter")
            if getattr(record, "request_id", "") == "good":
                seen.set()
            return False

    raises, before = Raises(), logger.level
    logger.addFilter(raises)
    logger.setLevel(logging.DEBUG)
    try:
        with inferkit.Batcher(double()) as batcher, tracing.log_requests(interval=0.001) as log:
            for name in ("bad", "good"):
                batcher(X, request_id=name)
            assert seen.wait(30)
            assert log._thread.is_alive()
    finally:
        logger.removeFilter(raises)
        logger.setLevel(before)


def test_off_and_on() -> None:
    with inferkit.Batcher(double(), trace_size=0) as never, inferkit.Batcher(double()) as batcher:
        tracing.enable(False, batcher)
        tracing.enable(True, never)
        batcher(X)
        never(X)
        assert tracing.snapshot([batcher, never]).requests == ()
        tracing.enable(True, batcher)
        batcher(X)
        assert len(tracing.snapshot(batcher).requests) == 1


def test_long_names_are_cut_and_all_batchers_are_there() -> None:
    with inferkit.Batcher(double(), name="one") as one, inferkit.Batcher(double(), name="two") as two:
        one(X, request_id="é" * 40)
        two(X)
        records = tracing.snapshot().requests
        assert {r.batcher for r in records} >= {"one", "two"}
        assert next(r for r in records if r.batcher == "one").request_id == "é" * 24  # 48 bytes
    with pytest.raises(ValueError, match="trace_size"):
        inferkit.Batcher(double(), trace_size=1 << 30)


# Perfetto


def load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def check_trace_event_format(events: list[dict[str, Any]]) -> None:
    """The rules of the Trace Event Format for the phases that we use."""
    open_spans: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    runs: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    last = 0.0
    for event in events:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert isinstance(event["ts"], float)
        assert event["ts"] >= last >= 0  # in order, which viewers need for what begins at the same time
        last = event["ts"]
        key = (event["pid"], event.get("cat"), event.get("id"))
        if event["ph"] == "X":
            assert event["dur"] >= 0
            if event["cat"] != "step":  # steps lie within runs
                runs[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(v, int | float) for v in event["args"].values())
        elif event["ph"] == "b":
            assert None not in key
            open_spans[key].append(event)
        else:
            assert event["ph"] == "e"
            assert open_spans[key].pop()["name"] == event["name"]  # nested, the innermost ends first
    assert not any(open_spans.values())
    for spans in runs.values():
        spans.sort()
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert begin >= end - 0.002  # one thread runs one batch at a time; rounding


def test_perfetto_file_keeps_the_rules(
    tmp_path: Path, digits_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    with (
        inferkit.Batcher(inferkit.Model.load(digits_path), name="digits", workers=2, inline_limit=0.0) as batcher,
        inferkit.Batcher(double(), name="other") as other,
    ):
        other(X, request_id="o")

        async def clients() -> None:
            await asyncio.gather(*(batcher.submit(image) for image in digits[0][:300]))

        asyncio.run(clients())
        batcher.submit(digits[0][0]).cancel()
        batcher.drain()
        count = tracing.export_perfetto(tmp_path / "trace.json", [batcher, other])
    assert count == 302
    events = load(tmp_path / "trace.json")
    check_trace_event_format(events)
    lanes = {(e["pid"], e["args"]["name"]) for e in events if e["ph"] == "M"}
    assert {"batcher digits", "batcher other", "queue", "batches", "requests"} <= {name for _, name in lanes}
    assert any(name.startswith("ik-batch-") for _, name in lanes)  # a worker's lane
    sizes = [e["args"]["rows"] for e in events if e["ph"] == "X" and e["pid"] == 1]
    assert sum(sizes) in (300, 301)  # the cancelled one may have run
    depths = [e["args"]["requests"] for e in events if e["name"] == "queue depth"]
    assert max(depths) > 1
    assert min(depths) >= 0
    stages = {e["name"] for e in events if e["ph"] == "b" and e["cat"] == "request"}
    assert {"queue", "batch", "compute", "delivery"} <= stages


def test_steps_lie_in_the_lane_of_the_run_that_they_are_part_of(tmp_path: Path, digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path)
    rows = np.zeros((4, 64), np.float32)
    model(rows)
    earlier = len(tracing.steps())  # of other tests: their lane is that of runs outside of a batcher
    tracing.trace_steps()
    try:
        with inferkit.Batcher(model, name="digits", inline_limit=0.0) as batcher:
            for _ in range(20):
                batcher.submit(rows).result()
            while len(tracing.snapshot(batcher).batches) < 20:  # written down after the answer
                time.sleep(0.001)
            model(rows)
            tracing.export_perfetto(tmp_path / "trace.json", batcher)
    finally:
        tracing.trace_steps(False)
    before = len(tracing.steps())
    model(rows)
    assert len(tracing.steps()) == before  # off again
    events = load(tmp_path / "trace.json")
    check_trace_event_format(events)
    steps = [e for e in events if e["ph"] == "X" and e["cat"] == "step"]
    runs = [e for e in events if e["ph"] == "X" and e["cat"] == "worker"]
    names = [s["name"] for s in steps if s["pid"] == 2][earlier:]  # the run outside of the batcher
    assert len(names) >= 3
    assert any("Softmax" in name for name in names)
    inside = [s for s in steps if s["pid"] == 1]
    assert len(inside) == 20 * len(names)
    for step in inside:
        assert any(
            r["tid"] == step["tid"]
            and r["ts"] - 0.002 <= step["ts"]
            and step["ts"] + step["dur"] <= r["ts"] + r["dur"] + 0.002
            for r in runs
        )


def test_a_broken_file_would_be_noticed() -> None:
    good = {"ph": "b", "pid": 1, "tid": 1, "cat": "c", "id": "1", "name": "n", "ts": 1.0}
    check_trace_event_format([good, {**good, "ph": "e", "ts": 2.0}])
    for bad in ([good], [good, {**good, "ph": "e", "ts": 0.5}], [good, {**good, "ph": "e", "name": "m", "ts": 2.0}]):
        with pytest.raises(AssertionError):
            check_trace_event_format(bad)


# Logging


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Any:
    handler, logger = Lines(), logging.getLogger("inferkit")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_each_line_about_a_request_has_its_id(lines: list[logging.LogRecord]) -> None:
    def model(x: np.ndarray) -> np.ndarray:
        if (x == 13).any():
            raise RuntimeError("thirteen")
        return x

    with inferkit.Batcher(double(model), name="b") as batcher:
        batcher(X, request_id="before")
        with tracing.log_requests(slow=3600, interval=0.01):
            batcher(X, request_id="good")
            with pytest.raises(inferkit.InferenceError):
                batcher(np.full(2, 13, np.float32), request_id="bad")
    requests = {r.request_id: r for r in lines if r.name == "inferkit.request"}
    assert set(requests) == {"good", "bad"}
    good, bad = requests["good"], requests["bad"]
    assert (good.levelname, bad.levelname) == ("DEBUG", "WARNING")
    assert (good.outcome, bad.outcome, good.batcher) == ("completed", "failed", "b")
    assert good.total_ms >= good.compute_ms >= 0
    assert "request_id=bad" in bad.getMessage()
    assert [r.event for r in lines if r.name == "inferkit.batcher"] == ["made", "closed"]


def test_slow_requests_are_warnings(lines: list[logging.LogRecord]) -> None:
    with inferkit.Batcher(double()) as batcher, tracing.log_requests(slow=1e-9, interval=0.01):
        batcher(X, request_id="slow")
    (line,) = [r for r in lines if r.name == "inferkit.request"]
    assert (line.levelname, line.event, line.request_id) == ("WARNING", "slow", "slow")


def test_nothing_is_printed_where_logging_is_not_set_up(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        "import logging, inferkit, numpy as np\n"
        "port = [('x', 'float32', (None, 2))]\n"
        "m = inferkit.Model.from_callable(lambda x: 1 / 0, port, port)\n"
        "with inferkit.Batcher(m) as b, inferkit.tracing.log_requests():\n"
        "    b.submit(np.ones(2, np.float32)).exception()\n"
        "print(type(logging.getLogger('inferkit').handlers[0]).__name__)\n"
    )
    assert (done.stdout, done.stderr) == ("NullHandler\n", "")


def test_the_json_recipe_of_the_documents(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(blocks("python")["json-logs"])
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("inferkit.batcher", "made"), ("inferkit.request", "completed"), ("inferkit.batcher", "closed"),
    ]  # fmt: skip
    assert lines[1]["request_id"] == "a1"


@pytest.mark.parametrize("name", ["_records", "_perfetto", "_request_log"])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"inferkit.tracing.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
