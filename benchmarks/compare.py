"""Compare inferkit with what is installed beside it, interleaved in one process; see README.md here.

Every engine's answer is checked before it is timed. Figures are medians; ratios are inferkit's against the peer's,
measured in the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import functools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

# Before numpy loads its BLAS: one thread, as all others here, and the kernels that it would choose by itself.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

import numpy as np

import batchers
import common
import decoders
import inferkit
import paths
import peers
import precisions
import real
import starting

Row = dict[str, Any]
Feed = tuple[np.ndarray, ...]
AsyncCall = Callable[[np.ndarray], Awaitable[np.ndarray]]


def direct() -> list[Row]:
    """One call on one thread."""
    models = [("MLP 4-16-3", common.mlp(common.SMALL), (4,)), ("MLP 64-256-256-10", common.mlp(common.LARGE), (64,))]
    cases = [(*model, batch) for model in models for batch in (1, 8, 64)]
    cases += [("CNN 28x28", common.cnn(), (1, 28, 28), batch) for batch in (1, 8)]
    rows = []
    for name, data, shape, batch in cases:
        common.progress(f"direct: {name}, batch {batch}")
        x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
        calls: dict[str, Callable[[], Any]] = {"inferkit": peers.inferkit_call(data, x)}
        for peer, (package, make) in peers.PEERS.items():
            call = make(data, x) if peers.installed(package) else None
            if call is not None:
                calls[peer] = call
        expected = (
            peers.ort_session(data).run(None, {"x": x})[0] if peers.installed("onnxruntime") else calls["inferkit"]()
        )
        for peer, call in calls.items():
            common.check(f"{peer} on {name}", getattr(call, "answer", call)(), expected)
        timings = common.interleave(calls)
        ours = timings["inferkit"].median
        rows += [
            {"what": f"{name}, batch {batch}", "who": peer, "us": t.median * 1e6, "ratio": ours / t.median}
            for peer, t in timings.items()
        ]
    return rows


def values() -> list[Row]:
    """The same model on ordinary values and on those that leave subnormals on the way, one thread."""
    rng = np.random.default_rng(0)
    digits = Path(__file__).resolve().parents[1] / "examples"
    images = np.load(digits / "digits_test.npz")["images"][:64].astype(np.float32) / 16
    state = np.ones((1, 1, 64), np.float32)
    steps = rng.standard_normal((600, 1, 32)).astype(np.float32)
    cases: dict[str, tuple[bytes, dict[str, Feed]]] = {
        "digits, batch 64": (
            (digits / "digits.onnx").read_bytes(),
            {"random pixels": (rng.random(images.shape, np.float32),), "real images": (images,)},
        ),
        "LSTM, 600 steps": (
            common.lstm(),
            {
                "noise": (steps, state, state),
                "silence after one step": (steps * (np.arange(600) == 0)[:, None, None], state, state),
            },
        ),
    }
    rows = []
    for name, (data, feeds) in cases.items():
        common.progress(f"values: {name}")
        model = inferkit.Model.load(data, threads=1)
        session = peers.ort_session(data)
        names = [port.name for port in session.get_inputs()]
        calls: dict[str, Callable[[], Any]] = {}
        for what, feed in feeds.items():
            feed = tuple(np.ascontiguousarray(x) for x in feed)
            named = dict(zip(names, feed, strict=True))
            common.check(f"inferkit on {name}, {what}", model(*feed), session.run(None, named)[0])
            calls[f"inferkit, {what}"] = functools.partial(model, *feed)
            calls[f"onnxruntime, {what}"] = functools.partial(session.run, None, named)
        timings = common.interleave(calls)
        for who, t in timings.items():
            ordinary = timings[who.split(",")[0] + ", " + next(iter(feeds))].median
            rows.append({"what": name, "who": who, "us": t.median * 1e6, "of_ordinary": t.median / ordinary})
    return rows


def overhead() -> list[Row]:
    """What the batcher adds to a call from one thread."""
    common.progress("overhead")
    rows = []
    for name, sizes in (("MLP 4-16-3", common.SMALL), ("MLP 64-256-256-10", common.LARGE)):
        model = inferkit.Model.load(common.mlp(sizes), threads=1)
        x = np.random.default_rng(0).standard_normal((1, sizes[0])).astype(np.float32)
        with inferkit.Batcher(model) as batcher:
            common.check("the batcher", batcher(x), model(x), 0)
            calls = {"model(x)": functools.partial(model, x), "batcher(x)": functools.partial(batcher, x)}
            timings = common.interleave(calls)
        base = timings["model(x)"].median
        rows += [
            {"what": f"{name}, one row", "who": who, "us": t.median * 1e6, "added_us": (t.median - base) * 1e6}
            for who, t in timings.items()
        ]
    return rows


async def _clients(
    call: Callable[[np.ndarray], Awaitable[np.ndarray]], xs: np.ndarray, expected: np.ndarray, count: int
) -> float:
    """Seconds that 64 clients take for `count` requests each, one after the other."""

    async def client(i: int) -> None:
        for n in range(count):
            row = (i + n) % len(xs)
            answer = await call(xs[row])
            if n == 0:
                common.check("a batcher", answer, expected[row])

    start = time.perf_counter()
    await asyncio.gather(*(client(i) for i in range(64)))
    return time.perf_counter() - start


def asyncio_clients() -> list[Row]:
    """Requests a second that 64 asyncio clients get, every batcher in its turn, several rounds."""
    data = common.mlp(common.LARGE)
    xs = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    expected = inferkit.Model.load(data)(xs)
    session = peers.ort_session(data)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    rates: dict[str, list[float]] = {}
    mean_batch = 0.0

    async def measure() -> None:
        nonlocal mean_batch
        model = inferkit.Model.load(data, threads=1)
        async with inferkit.Batcher(model, max_batch_size=64) as batcher:
            inline = batchers.AsyncioQueueBatcher(session, None)
            threaded = batchers.AsyncioQueueBatcher(session, executor)
            calls: dict[str, AsyncCall] = {
                "inferkit": batcher.submit,
                "asyncio.Queue, on the loop": inline,
                "asyncio.Queue, worker thread": threaded,
            }
            if peers.installed("batched"):
                calls["batched"] = batchers.batched_package(session)
            package = batchers.async_batcher_package(session) if peers.installed("async_batcher") else None
            if package:
                calls["async-batcher"] = package.process
            for round_number in range(6):
                for who, call in calls.items():
                    common.progress(f"asyncio: {who}, round {round_number + 1} of 6")
                    count = 150 if who == "inferkit" else 30 if who.startswith("asyncio") else 4
                    seconds = await _clients(call, xs, expected, count)
                    if round_number:
                        rates.setdefault(who, []).append(64 * count / seconds)
            mean_batch = batcher.stats().mean_batch_size
            await inline.close()
            await threaded.close()
            if package:
                await package.stop()

    asyncio.run(measure())
    executor.shutdown()
    ours = statistics.median(rates["inferkit"])
    return [
        {
            "what": "64 asyncio clients, MLP 64-256-256-10",
            "who": who,
            "requests_per_second": statistics.median(values),
            "times": ours / statistics.median(values),
        }
        | ({"mean_batch": mean_batch} if who == "inferkit" else {})
        for who, values in rates.items()
    ]


def several_workers() -> list[Row]:
    """Requests a second that 64 asyncio clients of a model that computes get from one worker, and from one a core."""
    sizes = (512, 1024, 1024, 256)
    model = inferkit.Model.load(common.mlp(sizes), threads=1)
    xs = np.random.default_rng(0).standard_normal((256, sizes[0])).astype(np.float32)
    expected = model(xs)
    cores = len(os.sched_getaffinity(0))
    counts = sorted({1, min(2, cores), cores})
    rates: dict[int, list[float]] = {count: [] for count in counts}
    mean_batch: dict[int, float] = {}

    async def measure(count: int, counted: bool) -> None:
        async with inferkit.Batcher(model, max_batch_size=64, workers=count) as batcher:
            await _clients(batcher.submit, xs, expected, 30)
            before = batcher.stats()
            seconds = await _clients(batcher.submit, xs, expected, 100)
            after = batcher.stats()
        if counted:
            rates[count].append(64 * 100 / seconds)
            mean_batch[count] = 64 * 100 / (after.batches - before.batches)

    for round_number in range(6):
        for count in counts:
            common.progress(f"workers: {count}, round {round_number + 1} of 6")
            asyncio.run(measure(count, round_number > 0))
    one = statistics.median(rates[1])
    return [
        {
            "what": "64 asyncio clients, MLP 512-1024-1024-256",
            "who": f"{count} worker{'s' if count > 1 else ''}",
            "requests_per_second": statistics.median(values),
            "times_one_worker": statistics.median(values) / one,
            "mean_batch": mean_batch[count],
        }
        for count, values in rates.items()
    ]


def _spin(seconds: float) -> int:
    """Pure Python that never gives up the GIL by itself."""
    total, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for i in range(200):
            total += i * i
    return total


def busy() -> list[Row]:
    """Latency while the main thread computes in pure Python.

    ``submitted by the busy thread``: it submits, goes on computing, and the request is done when the worker has
    the answer. ``another thread``: a client thread that calls and waits, 300 times a second.
    """
    data = common.mlp(common.LARGE)
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    model = inferkit.Model.load(data, threads=1)
    by_hand = batchers.ThreadQueueBatcher(peers.ort_session(data))
    rows = []
    with inferkit.Batcher(model) as batcher:
        common.check("the batcher by hand", by_hand.submit(x).result()[0], batcher(x))

        ours, theirs = [], []
        for i in range(300):
            common.progress(f"busy: submitted by the busy thread, {i + 1} of 300")
            ticket = batcher.submit(x)
            _spin(0.012)
            ticket.result()
            ours.append(ticket.timing.finished - ticket.timing.enqueued)
            start = time.monotonic()
            future = by_hand.submit(x)
            _spin(0.012)
            theirs.append(future.result()[1] - start)
        rows += _latencies("submitted by the busy thread", {"inferkit": ours, "worker thread by hand": theirs})

        def client(call: Callable[[], object], into: list[float]) -> None:
            for _ in range(300):
                time.sleep(0.003)
                start = time.perf_counter()
                call()
                into.append(time.perf_counter() - start)

        ours, theirs = [], []
        common.progress("busy: another thread")
        for call, into in ((lambda: batcher(x), ours), (lambda: by_hand.submit(x).result(), theirs)):
            thread = threading.Thread(target=client, args=(call, into))
            thread.start()
            while thread.is_alive():
                _spin(0.05)
            thread.join()
        rows += _latencies("another thread", {"inferkit": ours, "worker thread by hand": theirs})
    by_hand.close()
    return rows


def _latencies(what: str, values: dict[str, list[float]]) -> list[Row]:
    return [
        {
            "what": what,
            "who": who,
            "p50_us": float(np.percentile(v, 50)) * 1e6,
            "p99_us": float(np.percentile(v, 99)) * 1e6,
        }
        for who, v in values.items()
    ]


SECTIONS: dict[str, Callable[[], list[Row]]] = {
    "direct": direct,
    "real": real.real_models,
    "start": starting.start,
    "precisions": precisions.one_operator,
    "paths": paths.slow_before,
    "decoders": decoders.one_operator,
    "values": values,
    "overhead": overhead,
    "asyncio": asyncio_clients,
    "workers": several_workers,
    "busy": busy,
}


def show(name: str, rows: list[Row], markdown: bool) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns] + [[_cell(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    common.progress("")
    print(f"\n{'### ' if markdown else ''}{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
    edge = "| " if markdown else ""
    for i, line in enumerate(table):
        cells = [
            cell.ljust(w) if j < 2 else cell.rjust(w) for j, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print(edge + (" | " if markdown else "  ").join(cells) + (" |" if markdown else ""))
        if i == 0 and markdown:
            print("| " + " | ".join("---" if j < 2 else "---:" for j in range(len(columns))) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="run this section (may be repeated)")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    args = parser.parse_args()
    common.require_release()
    info = inferkit.build_info()
    versions = [f"inferkit {info['version']} ({info['isa']}, {info['compiler']})"]
    versions += [
        f"{p} {__import__('importlib.metadata').metadata.version(p)}"
        for p in ("onnxruntime", "openvino", "torch", "numpy", "batched", "async-batcher")
        if peers.installed(p.replace("-", "_"))
    ]
    missing = [p for p in ("onnxruntime", "openvino", "torch", "batched", "async_batcher") if not peers.installed(p)]
    print(", ".join(versions))
    if missing:
        print(f"not installed, so not compared: {', '.join(missing)}")
    if not peers.installed("onnxruntime"):
        sys.exit("onnxruntime is what inferkit is compared with: pip install '.[bench]'")
    results = {}
    for name in args.only or SECTIONS:
        results[name] = SECTIONS[name]()
        show(name, results[name], args.markdown)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"build": info, "versions": versions, "results": results}, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped")
