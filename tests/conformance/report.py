"""Writes docs/conformance.md: `python -m tests.conformance.report` from the repository's root, or `--list` to print
every case that did not pass.
"""

from __future__ import annotations

import argparse
import faulthandler
from collections import Counter, defaultdict
from pathlib import Path

import onnx

from .cases import SETS, collect
from .judge import OUTCOMES, Verdict, judge
from .scope import DIFFERS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
HEAD = """# Conformance

The test cases that the `onnx` package {version} carries, run by `tests/conformance`; written by
`python -m tests.conformance.report`. A case is *refused* where the model raises `UnsupportedOpError`, and *differs*
where inferkit means another answer ({differs}). Of outputs that are drawn at random, types and shapes
are compared. Out of scope are {scope}: models that need them must be refused.

"""


def table(heads: list[str], rows: list[list[object]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def rate(verdicts: list[Verdict]) -> float:
    """The share of the cases in scope that pass."""
    ours = [v for v in verdicts if not v.scope]
    return sum(v.outcome == "passed" for v in ours) / len(ours) if ours else 1.0


def counts(verdicts: list[Verdict]) -> list[object]:
    found = Counter(v.outcome for v in verdicts)
    return [len(verdicts), *(found[o] or "" for o in OUTCOMES)]


def page(by_set: dict[str, list[Verdict]]) -> str:
    scopes = sorted({v.scope for verdicts in by_set.values() for v in verdicts if v.scope})
    links = ", ".join(f"[why]({page.removeprefix('docs/')})" for page in sorted(set(DIFFERS.values())))
    text = HEAD.format(version=onnx.__version__, scope=" and ".join(scopes), differs=links)
    heads = ["cases", *OUTCOMES]
    rows = []
    for name, verdicts in by_set.items():
        ours = [v for v in verdicts if not v.scope]
        rows.append([f"{name}, in scope", *counts(ours), f"{rate(verdicts):.1%}"])
        rows.append([f"{name}, out of scope", *counts([v for v in verdicts if v.scope]), ""])
    text += table(["set", *heads, "rate"], rows)
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for v in by_set["node"]:
        groups[f"out of scope: {v.scope}" if v.scope else v.operator].append(v)
    text += "\n## Node tests by operator\n\n"
    text += table(["operator", *heads], [[name, *counts(groups[name])] for name in sorted(groups, key=str.lower)])
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print each case that did not pass, write nothing")
    arguments = parser.parse_args()
    faulthandler.enable()
    by_set = {name: [judge(case) for case in collect(name)] for name in SETS}
    if arguments.list:
        for verdicts in by_set.values():
            for v in verdicts:
                if v.outcome != "passed":
                    print(f"{v.outcome}\t{v.scope or ''}\t{v.operator}\t{v.case}\t{' '.join(v.detail.split())[:200]}")
    else:
        PAGE.write_text(page(by_set))
    for name, verdicts in by_set.items():
        print(f"{name}: {rate(verdicts):.1%} in scope;", dict(Counter(v.outcome for v in verdicts)))


if __name__ == "__main__":
    main()
