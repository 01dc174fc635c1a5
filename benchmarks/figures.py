"""Write the README's table of figures from what `compare.py --json FILE` measured.

python benchmarks/compare.py --json figures.json && python benchmarks/figures.py figures.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent.parent / "README.md"
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


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    note = (
        f"Medians of one run on {cpu()}: {', '.join(data['versions'])}. In brackets: how many times inferkit's figure."
    )
    table = "\n".join([note, "", *lines(data["results"])])
    text, count = MARKED.subn(lambda m: f"{m.group(1)}{table}\n{m.group(2)}", README.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit("the README has no marks for the figures")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
