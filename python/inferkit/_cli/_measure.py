"""How `inferkit bench` times and checks."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._batcher import Batcher, OutputChecks
from .._model import Model
from .._text import counted
from .._types import same_bits
from ..diagnostics._samples import Feeds
from ._compare import difference

__all__ = ["Answers", "Figures", "OnnxRuntime", "alternate", "clients", "inferkit_call", "onnxruntime_call"]

_SLICE = 0.02  # seconds that one engine runs before it is another's turn


@dataclass
class Figures:
    """Durations of single calls, in nanoseconds."""

    nanos: list[int] = field(default_factory=list)
    busy: float = 0.0  # seconds in all

    def to_dict(self, rows: int) -> dict[str, float]:
        """Sum up, where each call had so many rows."""
        p50, p99 = np.percentile(self.nanos, [50, 99]) / 1e3
        return {
            "calls": len(self.nanos),
            "p50_us": round(float(p50), 3),
            "p99_us": round(float(p99), 3),
            "rows_per_second": round(len(self.nanos) * rows / self.busy, 1),
        }


@dataclass
class Answers:
    """What was compared, and what was wrong."""

    columns: dict[str, list[Any]] = field(default_factory=dict)  # output -> keys, where others give maps
    checked: int = 0
    wrong: list[str] = field(default_factory=list)

    def compare(self, where: str, ours: Feeds, theirs: dict[str, Any]) -> None:
        """Hold one engine's outputs against another's, within rounding."""
        if set(ours) != set(theirs):
            self.wrong.append(f"{where}: the outputs are {list(ours)}, not {list(theirs)}")
        for name in ours.keys() & theirs.keys():
            a = ours[name]
            self.checked += len(a) if a.ndim else 1
            problem = difference(a, theirs[name], self.columns.get(name))
            if problem:
                self.wrong.append(f"{where}: '{name}' {problem}")

    def note(self, where: str, counts: tuple[int, int]) -> None:
        """Add (checked, wrong) of answers that must be the same to the bit."""
        self.checked += counts[0]
        if counts[1]:
            differ = "differs" if counts[1] == 1 else "differ"
            self.wrong.append(f"{where}: {counted(counts[1], 'answer')} {differ} from the model's own")


def inferkit_call(model: Model, feeds: Feeds) -> Callable[[], Any]:
    """One call on fixed arrays."""
    arrays = tuple(feeds[spec.name] for spec in model.inputs)
    return lambda: model(*arrays)


class OnnxRuntime:
    """ONNX Runtime with as many threads, on the same file."""

    def __init__(self, path: str, threads: int) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.version = f"onnxruntime {runtime.__version__}"
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, feeds: Feeds) -> Callable[[], Any]:
        session = self._session
        return lambda: session.run(None, feeds)

    def answer(self, feeds: Feeds) -> dict[str, Any]:
        """Run once; outputs by name."""
        names = [port.name for port in self._session.get_outputs()]
        return dict(zip(names, self(feeds)(), strict=True))


def onnxruntime_call(path: str, threads: int, feeds: Feeds) -> OnnxRuntime | None:
    """Open it; None where it is not installed, or does not take the model or inputs of its types."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        runtime = OnnxRuntime(path, threads)
        runtime.answer(feeds)
        return runtime
    except Exception:  # its own kinds
        return None


def alternate(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, Figures]:
    """Time all of them in turn, in short slices, so that all see the same noise; `seconds` for each."""
    out = {name: Figures() for name in calls}
    for call in calls.values():
        call()
        call()
    clock = time.perf_counter_ns
    while any(figures.busy < seconds for figures in out.values()):
        for name, call in calls.items():
            figures, begin = out[name], clock()
            last, end = begin, begin + int(_SLICE * 1e9)
            while last < end:
                call()
                now = clock()
                figures.nanos.append(now - last)
                last = now
            figures.busy += (last - begin) * 1e-9
    return out


def _finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def clients(
    model: Model, samples: list[Feeds], expected: list[Feeds], count: int, seconds: float, max_batch_size: int
) -> tuple[Figures, float, tuple[int, int]]:
    """Serve asyncio clients that each wait for an answer before they ask again.

    Returns the figures, the mean batch size, and how many answers were checked and how many were wrong.
    """
    figures = Figures()
    kept: list[tuple[int, Any]] = []

    async def client(batcher: Batcher, number: int, end: int) -> None:
        i = number
        while (start := time.perf_counter_ns()) < end:
            answer = await batcher.submit(samples[i % len(samples)])
            figures.nanos.append(time.perf_counter_ns() - start)
            if len(kept) < 10_000:
                kept.append((i % len(samples), answer))
            i += 1

    async def main() -> float:
        checks = OutputChecks(finite=all(_finite(value) for answer in expected for value in answer.values()))
        async with Batcher(model, max_batch_size=max_batch_size, max_queue_size=None, output_checks=checks) as batcher:
            await asyncio.gather(*(client(batcher, i, time.perf_counter_ns() + 50_000_000) for i in range(count)))
            figures.nanos.clear()  # that was to warm up
            kept.clear()
            before = batcher.stats()
            start = time.perf_counter()
            end = time.perf_counter_ns() + int(seconds * 1e9)
            await asyncio.gather(*(client(batcher, i, end) for i in range(count)))
            figures.busy = time.perf_counter() - start
            after = batcher.stats()
            return (after.rows - before.rows) / max(after.batches - before.batches, 1)

    mean = asyncio.run(main())
    wrong = sum(
        any(not same_bits(np.asarray(answer[name]), value) for name, value in expected[i].items()) for i, answer in kept
    )
    return figures, mean, (len(kept), wrong)
