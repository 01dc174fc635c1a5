"""HACKING.md speaks of what is there: its files, and its names of classes and functions."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
from readme import COMMAND

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "HACKING.md").read_text()
SPOKEN = sorted({code for code in re.findall(r"`([^`]+)`", PAGE) if not COMMAND.match(code)})
PATHS = [code for code in SPOKEN if "/" in code or re.search(r"\.(cc|h|inc|py|md|cmake)$", code)]
NAMES = [code for code in SPOKEN if code not in PATHS]
# `name` (`file`), and `name` in `file`
PLACED = re.findall(r"`([\w:]+)`,?\s+(?:\(|\(in |in )`([\w/.]+\.\w+)`", PAGE)
LINKS = sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE)))


@cache
def sources() -> dict[Path, str]:
    files = (path for folder in ("csrc", "cmake", "python", "tests") for path in sorted((ROOT / folder).rglob("*.*")))
    return {p: p.read_text() for p in files if p.suffix in (".h", ".cc", ".cmake", ".py") and p != Path(__file__)}


def has(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def is_there(name: str) -> bool:
    """`Class::member`, `function`, `call(x)` or `register_<family>`."""
    owner, _, member = re.sub(r"<\w+>", r"\\w+", re.sub(r"\(.*\)", "", name)).replace(".", "::").rpartition("::")
    if owner[:1].isupper():
        return any(has(text, f"(class|struct) {owner}") and has(text, member) for text in sources().values())
    return any(has(text, member) for text in sources().values())


def exists(path: str) -> bool:
    """From the root; `<tier>.cc` is any, and a name without a folder is somewhere below csrc."""
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    return any(ROOT.glob(pattern)) or ("/" not in pattern and any((ROOT / "csrc").rglob(pattern)))


def test_it_speaks_of_files_and_of_code() -> None:
    assert len(PATHS) > 50
    assert len(NAMES) > 50
    assert len(PLACED) > 20


@pytest.mark.parametrize("path", [*PATHS, *LINKS])
def test_file_exists(path: str) -> None:
    assert exists(path)


@pytest.mark.parametrize("name", NAMES)
def test_name_is_in_the_code(name: str) -> None:
    assert is_there(name)


@pytest.mark.parametrize(("name", "path"), PLACED)
def test_name_is_where_it_is_said_to_be(name: str, path: str) -> None:
    assert has((ROOT / path).read_text(), name.rpartition("::")[2])


def test_what_is_not_there_would_be_found() -> None:
    assert not exists("csrc/engine/model.cc")
    assert not exists("no_such_file.cc")
    assert not is_there("Batcher::no_such_" + "member")
    assert not is_there("No" + "SuchClass::run")
    assert not is_there("no_such_" + "function")


def test_every_preset_is_named() -> None:
    (said,) = re.findall(r"cmake --preset dev.*?The other presets are named\s+([^.]*)\.", PAGE, re.DOTALL)
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    assert [p["name"] for p in presets if not p.get("hidden") and not has(f"dev {said}", p["name"])] == []


def test_the_ways_of_conv_are_where_they_are_said_to_be() -> None:
    """conv_<way>.cc, but for plain."""
    ways = re.findall(r'\.name = "(\w+)",\s*\.lower', (ROOT / "csrc/engine/ops/conv.cc").read_text())
    files = {path.stem for path in (ROOT / "csrc/engine/ops/common").glob("conv_*.cc")}
    assert files == {f"conv_{way}" for way in ways if way != "plain"}


def test_lines_are_wrapped() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", ["README.md", "csrc/README.md"])
def test_the_readmes_lead_here(page: str) -> None:
    assert "HACKING.md)" in (ROOT / page).read_text()
