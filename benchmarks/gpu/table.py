"""The results in a folder of run_all.sh as one table in Markdown.

python benchmarks/gpu/table.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from models import to_time

GOALS = {case.name: case.goal for case in to_time(quick=False) if case.goal}


def parsed(line: str) -> dict[str, object]:
    """Empty for a line that a cut run left unfinished."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def lines(path: Path) -> list[dict[str, object]]:
    found = map(parsed, path.read_text().splitlines() if path.is_file() else ())
    return [line for line in found if line]


def rows(header: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *body)]


def table(folder: Path) -> str:
    out: list[str] = []
    stages = lines(folder / "stages.jsonl")
    out += rows(
        ["stage", "state", "seconds", "why"],
        [[str(s.get(key, "")) for key in ("stage", "state", "seconds", "why")] for s in stages],
    )
    checks = lines(folder / "checks.jsonl")
    if checks:
        count = {state: sum(c["state"] == state for c in checks) for state in ("ok", "FAILED", "skipped")}
        out += ["", ", ".join(f"{n} {state}" for state, n in count.items()) + " of the checks.", ""]
        bad = [c for c in checks if c["state"] != "ok"]
        if bad:
            out += rows(["check", "state", "why"], [[str(c[key]) for key in ("check", "state", "why")] for c in bad])
    times = lines(folder / "times.jsonl")
    if times:
        ways = list(dict.fromkeys(str(t["way"]) for t in times))
        out += [
            "",
            "Microseconds from numpy to numpy, and from the device to the device where a column says dev; median (99th "
            "percentile). Goals are for inferkit on an H100.",
            "",
        ]
        body = []
        for case in dict.fromkeys(str(t["case"]) for t in times):
            cells = {str(t["way"]): cell(t) for t in times if t["case"] == case}
            body.append([case, *(cells.get(way, "") for way in ways), str(GOALS.get(case, ""))])
        out += rows(["case", *ways, "goal"], body)
    return "\n".join(out)


def cell(result: dict[str, object]) -> str:
    if "failed" in result:
        return "failed"
    if "a_second" in result:
        return f"{result['a_second']}/s"
    return f"{result['p50']} ({result['p99']})"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
