"""The trace as a file for https://ui.perfetto.dev or chrome://tracing: the Trace Event Format, as JSON."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._arguments import path_text
from .._batcher import Batcher
from .._build import built
from .._text import NAME_LIMIT, printable
from ._records import BatchTrace, RequestTrace, Snapshot, StepTrace, chosen, snapshot, steps

__all__ = ["export_perfetto", "trace_events"]

Event = dict[str, Any]
# Lanes that are no threads. The kernel's thread ids are far above.
_QUEUE, _BATCHES, _REQUESTS = 1, 2, 3


def export_perfetto(path: str | os.PathLike[str], batcher: Batcher | Iterable[Batcher] | None = None) -> int:
    """Write the last requests and batches to a file, as a Chrome trace for https://ui.perfetto.dev.

    There, each batcher is a process of its own. Its lanes are the queue (which requests waited, and how many), the
    batches from assembly to end with their sizes, the requests with their stages, and every thread with what it ran,
    down to the steps of the model if :func:`trace_steps` was on.

    Parameters
    ----------
    path : path
        The file, which is made or overwritten.
    batcher : Batcher or iterable of Batcher, optional
        Which batchers; by default all that are open in the process.

    Returns
    -------
    int
        How many requests the file has.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model) as batcher:
    ...     _ = batcher(np.ones(2, np.float32))
    ...     inferkit.tracing.export_perfetto("trace.json")
    1
    """
    file = Path(path_text(path, "path"))
    batchers = chosen(batcher)
    snapshots = {one.name: snapshot(one) for one in batchers}
    build = built()
    document = {
        "traceEvents": trace_events(snapshots, steps()),
        "displayTimeUnit": "ms",
        "otherData": {
            "clock": "CLOCK_MONOTONIC",
            "inferkit": build["version"],
            "isa": build["isa"],
            "dropped": sum(s.dropped for s in snapshots.values()),
        },
    }
    file.write_text(json.dumps(document), encoding="utf-8")
    return sum(len(s.requests) for s in snapshots.values())


def trace_events(snapshots: dict[str, Snapshot], traced: Iterable[StepTrace] = ()) -> list[Event]:
    """Turn each batcher's records, and the steps of all models, into events, in order of time; metadata first."""
    names = _thread_names()
    metadata: list[Event] = []
    events: list[Event] = []
    for pid, (name, one) in enumerate(snapshots.items(), 1):
        metadata.append(_metadata(pid, 0, "process_name", f"batcher {name}"))
        metadata += [
            _metadata(pid, lane, "thread_name", title)
            for lane, title in ((_QUEUE, "queue"), (_BATCHES, "batches"), (_REQUESTS, "requests"))
        ]
        for thread in sorted({b.thread for b in one.batches}):
            metadata.append(_metadata(pid, thread, "thread_name", names.get(thread, f"thread {thread}")))
        for number, request in enumerate(one.requests, 1):
            events += _request(pid, f"{pid}.{number}", request)
        for batch in one.batches:
            events += _batch(pid, batch)
        events += _queue_depth(pid, one.requests)
    outside = len(snapshots) + 1
    threads: set[int] = set()
    for step in traced:
        ran_in = _process_of(step, snapshots)
        if ran_in is None:
            threads.add(step.thread)
        events.append(_step(ran_in or outside, step))
    if threads:
        metadata.append(_metadata(outside, 0, "process_name", "models called directly"))
        metadata += [_metadata(outside, t, "thread_name", names.get(t, f"thread {t}")) for t in sorted(threads)]
    events.sort(key=lambda event: event["ts"])  # stable: what begins and ends together stays in its order
    return metadata + events


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _metadata(pid: int, tid: int, what: str, name: str) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": printable(name, NAME_LIMIT)}}


def _span(pid: int, tid: int, category: str, key: str, name: str, begin: float, end: float, args: Event) -> list[Event]:
    common = {"pid": pid, "tid": tid, "cat": category, "id": key, "name": name}
    return [{**common, "ph": "b", "ts": _us(begin), "args": args}, {**common, "ph": "e", "ts": _us(end)}]


def _request(pid: int, key: str, r: RequestTrace) -> list[Event]:
    name = r.request_id if isinstance(r.request_id, int) else printable(r.request_id, NAME_LIMIT)
    args: Event = {"request_id": name, "outcome": r.outcome, "rows": r.rows, "priority": r.priority}
    if r.batch_id is not None:
        args |= {"batch_id": r.batch_id, "batch_size": r.batch_size}
    if r.tags:
        args["tags"] = {name: printable(value, NAME_LIMIT) for name, value in r.tags.items()}
    last = r.finished if r.delivered is None else max(r.finished, r.delivered)
    begin, end = _span(pid, _REQUESTS, "request", key, f"request {name}", r.enqueued, last, args)
    stages: list[Event] = []
    waited_until = r.finished if r.dequeued is None else r.dequeued
    if r.started is not None and r.dequeued is not None:
        stages += _span(pid, _REQUESTS, "request", key, "queue", r.enqueued, r.dequeued, {})
        stages += _span(pid, _REQUESTS, "request", key, "batch", r.dequeued, r.started, {})
        stages += _span(pid, _REQUESTS, "request", key, "compute", r.started, r.finished, {})
        if last > r.finished:
            stages += _span(pid, _REQUESTS, "request", key, "delivery", r.finished, last, {})
    waits = _span(pid, _QUEUE, "queue", key, f"request {name}", r.enqueued, waited_until, {})
    return [begin, *stages, end, *waits]


def _batch(pid: int, b: BatchTrace) -> list[Event]:
    name = f"batch {b.batch_id}: {b.rows} row{'s' * (b.rows != 1)}"
    args = {"batch_id": b.batch_id, "rows": b.rows, "requests": b.requests, "reason": b.reason, "failed": b.failed}
    if b.padding:
        args["padding"] = b.padding
    run = {"ph": "X", "pid": pid, "tid": b.thread, "cat": "worker", "name": name, "args": args}
    started, finished = _us(b.started), _us(b.finished)
    return [
        *_span(pid, _BATCHES, "batch", f"{pid}.{b.batch_id}", name, b.dequeued, b.finished, args),
        {**run, "ts": started, "dur": round(finished - started, 3)},
        {"ph": "C", "pid": pid, "tid": 0, "name": "batch size", "ts": started, "args": {"rows": b.rows}},
    ]


def _process_of(step: StepTrace, snapshots: dict[str, Snapshot]) -> int | None:
    """Find the batcher in one of whose batches the step ran."""
    for pid, one in enumerate(snapshots.values(), 1):
        at = bisect.bisect_left(one.batches, step.finished, key=lambda b: b.finished)
        # Batches overlap where there are several workers: the right one is among the next few that ended.
        for batch in one.batches[at : at + 16]:
            if batch.thread == step.thread and batch.started <= step.started:
                return pid
    return None


def _step(pid: int, step: StepTrace) -> Event:
    started, finished = _us(step.started), _us(step.finished)
    where = {"pid": pid, "tid": step.thread, "cat": "step", "name": printable(step.name)}
    return {"ph": "X", **where, "ts": started, "dur": round(finished - started, 3), "args": {}}


def _queue_depth(pid: int, requests: Iterable[RequestTrace]) -> list[Event]:
    steps: dict[float, int] = {}
    for r in requests:
        left = r.finished if r.dequeued is None else r.dequeued
        for at, step in ((r.enqueued, 1), (left, -1)):
            steps[_us(at)] = steps.get(_us(at), 0) + step
    depth, events = 0, []
    for at, step in sorted(steps.items()):
        depth += step
        events.append({"ph": "C", "pid": pid, "tid": 0, "name": "queue depth", "ts": at, "args": {"requests": depth}})
    return events


def _thread_names() -> dict[int, str]:
    """By the kernel's ids: the kernel's names, or Python's where the thread is Python's."""
    names = {}
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            names[int(task.name)] = os.fsdecode((task / "comm").read_bytes()).strip()  # any bytes
    names.update({thread.native_id: thread.name for thread in threading.enumerate() if thread.native_id})
    return names
