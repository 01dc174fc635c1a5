"""Arrows that only the linker sees: a function declared in one folder of the core and defined in one above it.

test_layout.py reads the includes; this reads the objects of a CMake build: set INFERKIT_BUILD_DIR, or build below
``build/``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from test_layout import layer_table, row_of

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("INFERKIT_BUILD_DIR", ROOT / "build"))


def source_of(path: Path) -> str:
    """Below csrc; of a group of bindings a file that there is none of."""
    if path.parent.name == "generated":
        return f"bindings/{path.name}".removesuffix(".o")
    return str(path).rpartition("/csrc/")[2].removesuffix(".o")


# Without those that a build has left over from files that are gone.
OBJECTS = [p for p in sorted(BUILD.glob("**/csrc/**/*.cc.o")) if (ROOT / "csrc" / source_of(p)).is_file()]
OBJECTS += sorted(BUILD.glob("**/generated/bindings_*.cc.o"))

Symbols = dict[str, list[tuple[str, str]]]  # path below csrc -> (kind, name), as nm says


def reach(table: dict[str, set[str]], row: str) -> set[str]:
    """All that a folder may see, through the headers of others too."""
    seen: set[str] = set()
    left = [row]
    while left:
        at = left.pop()
        if at not in seen:
            seen.add(at)
            left += [other for name in table[at] if (other := name if name in table else row_of(table, name))]
    return seen


def hidden_arrows(table: dict[str, set[str]], symbols: Symbols) -> list[str]:
    homes = defaultdict(set)  # strong symbols only: the linker takes the others from anywhere
    for path, names in symbols.items():
        for kind, name in names:
            if kind in "TDBR":
                homes[name].add(row_of(table, path))
    found = []
    for path, names in symbols.items():
        row = row_of(table, path)
        for kind, name in names:
            above = homes[name] - reach(table, row) if row and kind == "U" and name in homes else set()
            found += [f"{path} calls {name} of {home}" for home in above]
    return found


def symbols_of_build() -> Symbols:
    found: Symbols = {}
    for path in OBJECTS:
        out = subprocess.run(["nm", "--demangle", str(path)], check=True, capture_output=True, text=True).stdout
        fields = [line[17:].split(maxsplit=1) for line in out.splitlines()]
        found[source_of(path)] = [(field[0], field[1]) for field in fields if len(field) == 2]
    return found


@pytest.mark.skipif(not OBJECTS or not shutil.which("nm"), reason="needs nm and the objects of a build")
def test_calls_run_downwards() -> None:
    symbols = symbols_of_build()
    assert len(symbols) > 100
    # The one that is meant: the table of operators calls what each family registers.
    registers = "inferkit::register_"
    arrows = [arrow for arrow in hidden_arrows(layer_table(), symbols) if f" calls {registers}" not in arrow]
    assert arrows == []


@pytest.mark.parametrize(
    ("caller", "definer", "arrow"),
    [
        ("engine/ops/select.cc", "engine/run/program.cc", True),
        ("engine/compile/lower.cc", "engine/ops/reduce.cc", True),
        ("batching/batcher.cc", "engine/model/model.cc", True),
        ("base/shape.cc", "platform/futex.cc", True),
        ("engine/ops/select.cc", "engine/compile/dynamic.cc", False),
        ("engine/ops/select.cc", "memory/buffer_pool.cc", False),  # by inline functions of what it includes
        ("bindings/model_call.cc", "engine/model/model.cc", False),
    ],
)
def test_an_upward_call_would_be_found(caller: str, definer: str, arrow: bool) -> None:
    symbols = {caller: [("U", "f()"), ("U", "abort")], definer: [("T", "f()")]}
    assert hidden_arrows(layer_table(), symbols) == ([f"{caller} calls f() of {definer.rpartition('/')[0]}"] * arrow)
