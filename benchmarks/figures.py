"""Write docs/performance.md's table of figures, and the README's five, from what `compare.py --json FILE` measured.

python benchmarks/compare.py --json figures.json && python benchmarks/figures.py figures.json
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ONNXRUNTIME = "onnxruntime, run"
MARKED = re.compile(r"(<!-- figures: begin[^\n]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)


def cpu() -> str:
    """Name the processor and say how many CPUs there are."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"model name\s*:\s*(.+)", text)
    return f"{text.count('processor')} CPUs of {name.group(1) if name else 'an unnamed kind'}"


def microseconds(value: float) -> str:
    return f"{value:.2f} us" if value < 10 else f"{value:,.0f} us" if value < 1000 else f"{value / 1000:,.1f} ms"


def by_model(cases: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group "NAME, batch 1" and "NAME, batch 8" as "NAME, batch 1, 8"."""
    found: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for what, who in cases.items():
        name, _, batch = what.rpartition(" ")
        batches, figures = found.setdefault(name, ([], []))
        batches.append(batch)
        figures.append(who)
    return {f"{name} {', '.join(batches)}": figures for name, (batches, figures) in found.items()}


def lines(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    out = ["| what | inferkit | the others, in the same run |", "| --- | --- | --- |"]

    def row(what: str, ours: str, others: list[str]) -> None:
        out.append(f"| {what} | {ours} | {', '.join(others)} |")

    def groups(section: str) -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for r in results[section]:
            found.setdefault(r["what"], {})[r["who"]] = r
        return found

    for section in ("direct", "real"):
        for what, cases in by_model(groups(section)).items():
            ours = [who.pop("inferkit")["us"] for who in cases]
            others = []
            for name in dict.fromkeys(name for who in cases for name in who):
                theirs = [who.get(name) for who in cases]
                times = ", ".join(microseconds(r["us"]) if r else "-" for r in theirs)
                ratios = ", ".join(f"{1 / r['ratio']:.1f}x" if r else "-" for r in theirs)
                others.append(f"{name} {times} ({ratios})")
            row(f"one call, one thread: {what}", ", ".join(map(microseconds, ours)), others)
    for what, who in groups("overhead").items():
        row(f"what `batcher(x)` adds to `model(x)`: {what}", microseconds(who["batcher(x)"]["added_us"]), [])
    for what, who in groups("asyncio").items():
        ours = who.pop("inferkit")
        row(
            what,
            f"{ours['requests_per_second']:,.0f} requests/s",
            [f"{name} {r['requests_per_second']:,.0f} ({r['times']:.1f}x)" for name, r in who.items()],
        )
    for what, who in groups("busy").items():
        ours = who.pop("inferkit")
        row(
            f"p50 and p99 beside a main thread that computes in Python: {what}",
            f"{microseconds(ours['p50_us'])}, {microseconds(ours['p99_us'])}",
            [f"{name} {microseconds(r['p50_us'])}, {microseconds(r['p99_us'])}" for name, r in who.items()],
        )
    return out


def five(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The rows of the README."""
    out = ["| what | inferkit | beside it, in the same run |", "| --- | --- | --- |"]

    def find(section: str, who: str, what: str = "") -> dict[str, Any]:
        return next(r for r in results[section] if r["who"] == who and r["what"].startswith(what))

    network = "MLP 64-256-256-10"
    ours, theirs = (find("direct", who, f"{network}, batch 1") for who in ("inferkit", ONNXRUNTIME))
    times = f"{1 / theirs['ratio']:.1f} times"
    what = f"one call of a small network ({network}), one row"
    out.append(f"| {what} | {microseconds(ours['us'])} | ONNX Runtime {microseconds(theirs['us'])} ({times}) |")
    real = sorted(1 / r["ratio"] for r in results["real"] if r["who"] == ONNXRUNTIME and r["what"].endswith("batch 1"))
    what = f"one call of {len(real)} models that packages on PyPI ship, one row"
    times = f"{statistics.median(real):.1f} times in the median, {real[0]:.1f} to {real[-1]:.1f} times"
    out.append(f"| {what}, relative time | 1 | ONNX Runtime {times} |")
    added = find("overhead", "batcher(x)", network)["added_us"]
    out.append(f"| what `batcher(x)` adds to `model(x)` where the batcher is idle | {microseconds(added)} | |")
    ours = find("asyncio", "inferkit")["requests_per_second"]
    queue = find("asyncio", "asyncio.Queue, worker thread")["requests_per_second"]
    rates = f"{ours:,.0f} requests/s | an `asyncio.Queue` with a worker thread and ONNX Runtime {queue:,.0f}"
    out.append(f"| 64 asyncio clients of the same network | {rates} |")
    ours, theirs = (find("busy", who, "another thread") for who in ("inferkit", "worker thread by hand"))
    p99s = f"{microseconds(ours['p99_us'])} | a worker thread in Python {microseconds(theirs['p99_us'])}"
    out.append(f"| p99 latency while the main thread computes in pure Python | {p99s} |")
    return out


def write(path: Path, table: str) -> None:
    text, count = MARKED.subn(lambda m: f"{m.group(1)}{table}\n{m.group(2)}", path.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit(f"{path.name} has no marks for the figures")
    path.write_text(text, encoding="utf-8")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run = f"Medians of one run on {cpu()}: {', '.join(data['versions'])}."
    # The five first: the rows of the whole table take theirs out of the results.
    write(ROOT / "README.md", "\n".join([run, "", *five(data["results"])]))
    note = f"{run} In brackets: how many times inferkit's figure."
    write(ROOT / "docs" / "performance.md", "\n".join([note, "", *lines(data["results"])]))


if __name__ == "__main__":
    main()
