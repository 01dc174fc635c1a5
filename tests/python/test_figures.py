"""The README's five figures are those of the whole table, and both are written by one program."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r"<!-- figures: begin[^\n]*-->\n(.*?)<!-- figures: end -->", re.DOTALL)
NETWORK = "MLP 64-256-256-10"
RESULTS: dict[str, list[dict[str, Any]]] = {
    "direct": [
        {"what": f"{NETWORK}, batch 1", "who": "inferkit", "us": 2.5, "ratio": 1.0},
        {"what": f"{NETWORK}, batch 1", "who": "onnxruntime, run", "us": 10.0, "ratio": 0.25},
    ],
    "real": [
        {"what": f"{name}, batch 1", "who": who, "us": us, "ratio": 10.0 / us}
        for name, theirs in (("a", 5.0), ("b", 20.0), ("c", 40.0))
        for who, us in (("inferkit", 10.0), ("onnxruntime, run", theirs))
    ],
    "overhead": [{"what": f"{NETWORK}, one row", "who": "batcher(x)", "us": 3.0, "added_us": 0.5}],
    "asyncio": [
        {"what": "64 asyncio clients", "who": "inferkit", "requests_per_second": 4000.0, "times": 1.0},
        {
            "what": "64 asyncio clients",
            "who": "asyncio.Queue, worker thread",
            "requests_per_second": 2000.0,
            "times": 2.0,
        },
    ],
    "busy": [
        {"what": "another thread", "who": who, "p50_us": 1.0, "p99_us": p99}
        for who, p99 in (("inferkit", 90.0), ("worker thread by hand", 26_400.0))
    ],
}


def figures() -> Any:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_five_rows() -> None:
    head, _, *rows = figures().five(RESULTS)
    assert head.count("|") == 4
    assert all(row.count("|") == 4 for row in rows)
    assert [re.findall(r"[\d.,]+ (?:us|ms|requests/s|times)", row) for row in rows] == [
        ["2.50 us", "10 us", "4.0 times"],
        ["2.0 times", "4.0 times"],
        ["0.50 us"],
        ["4,000 requests/s"],
        ["90 us", "26.4 ms"],
    ]


def test_the_pages_show_one_run() -> None:
    readme, page = (MARKED.search((ROOT / name).read_text()) for name in ("README.md", "docs/performance.md"))
    assert readme
    assert page
    assert readme[1].splitlines()[0] in page[1].splitlines()[0]
    for figure in re.findall(r"[\d.,]+ (?:us|ms|requests/s)", readme[1]):
        assert figure in page[1], "the whole table has it"
