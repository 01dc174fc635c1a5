"""HACKING.md, csrc/README.md and the decisions speak of what is there: files, classes, functions, other names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from readme import COMMAND, FENCE

ROOT = Path(__file__).resolve().parents[2]
HACKING = (ROOT / "HACKING.md").read_text()
PAGES = ["HACKING.md", "csrc/README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/decisions/*.md"))]

# A folder or file from somewhere, or the name of a file.
PATH = re.compile(r"[\w.][\w.<>*-]*/[\w.<>*/-]*|[\w.<>*-]+\.(cc|cu|h|inc|py|md|cmake)")

# What the pages name and the code does not, and what it is. Whoever names something new that is not ours adds it here.
NOT_IN_THE_CODE = {
    "rsync --inplace": "a command that people run",
    "ENOSYS": "an error of Linux",
    "protected_hardlinks": "a setting of Linux",
    "sched_runtime": "a field of Linux's sched_attr",
    "tf32": "a format of GPUs",
    "wgmma": "an instruction of GPUs",
    "length_resized": "a word of ONNX's specification",
    "test_resize_downsample_scales_linear_align_corners": "a test of the onnx package",
}


class Page(NamedTuple):
    """What a page says in backticks, and where it says that a name is: `name` (`file`), and `name` in `file`."""

    paths: list[str]
    names: list[str]
    placed: list[tuple[str, str]]
    links: list[str]


def read(text: str) -> Page:
    text = FENCE.sub("", text)
    spoken = sorted({" ".join(what.split()) for what in re.findall(r"`([^`]+)`", text) if not COMMAND.match(what)})
    paths = [what for what in spoken if PATH.fullmatch(what)]
    return Page(
        paths,
        [what for what in spoken if what not in paths],
        re.findall(r"`([\w:]+)`,?\s+(?:\(|\(in |in )`([\w/.]+\.\w+)`", text),
        sorted(link for link in set(re.findall(r"\]\(([^)#]+)\)", text)) if "://" not in link),
    )


@cache
def page(name: str) -> Page:
    return read((ROOT / name).read_text())


class Code(NamedTuple):
    """All words of the code, and those of the files that define a class."""

    words: set[str]
    beside: dict[str, set[str]]


@cache
def code() -> Code:
    kinds = (".h", ".cc", ".cu", ".inc", ".cmake", ".py", ".pyi")
    folders = ("csrc", "cmake", "python", "tests", "benchmarks")
    found = Code(set(), defaultdict(set))
    for path in (p for folder in folders for p in sorted((ROOT / folder).rglob("*.*"))):
        if path.suffix not in kinds or path == Path(__file__):
            continue
        text = path.read_text()
        words = set(re.findall(r"\w+", text))
        found.words.update(words)
        for owner in set(re.findall(r"\b(?:class|struct)\s+(?:alignas\(\w+\)\s+)?(\w+)", text)):
            found.beside[owner].update(words)
    return found


def is_there(name: str) -> bool:
    """`Class::member`, `function`, `call(x)`, `option=value` or `register_<family>`: all words of it."""
    qualified = re.match(r"(?:\w+(?:::|\.))*([A-Z]\w*)(?:::|\.)(\w+)", name)
    if qualified:
        return qualified[2] in code().beside[qualified[1]]
    words = re.findall(r"[A-Za-z_]\w+(?:<\w+>)?", name)
    return all(word in code().words or ("<" in word and is_one_of(word)) for word in words)


def is_one_of(word: str) -> bool:
    pattern = re.compile(re.sub(r"<\w+>", r"\\w+", word))
    return any(pattern.fullmatch(other) for other in code().words)


def find(path: str, name: str) -> list[Path]:
    """From the root, or from the page's folder; `<tier>.cc` is any, a name without a folder is anywhere in the core."""
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    found = [file for folder in {ROOT, (ROOT / name).parent} for file in folder.glob(pattern)]
    if not found and "/" not in pattern:
        found = [file for folder in ("csrc", "tests") for file in (ROOT / folder).rglob(pattern)]
    return found


def has(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def test_they_speak_of_files_and_of_code() -> None:
    hacking = page("HACKING.md")
    assert len(hacking.paths) > 50
    assert len(hacking.names) > 50
    assert len(hacking.placed) > 20
    assert len(page("csrc/README.md").paths) > 5
    assert sum(len(page(name).paths) for name in PAGES[2:]) > 50
    assert sum(len(page(name).names) for name in PAGES[2:]) > 200


@pytest.mark.parametrize("name", PAGES)
def test_files_exist(name: str) -> None:
    found = page(name)
    assert [path for path in found.paths if not find(path, name)] == []
    assert [link for link in found.links if not (ROOT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_names_are_in_the_code(name: str) -> None:
    assert [said for said in page(name).names if not is_there(said) and said not in NOT_IN_THE_CODE] == []


@pytest.mark.parametrize("name", PAGES)
def test_names_are_where_they_are_said_to_be(name: str) -> None:
    placed = [(said, path, find(path, name)) for said, path in page(name).placed]
    assert [
        (said, path)
        for said, path, files in placed
        if files and not any(has(file.read_text(), said.rpartition("::")[2]) for file in files)
    ] == []


def test_what_is_not_in_the_code_is_named_and_is_not_there() -> None:
    """An entry that nobody needs any more would hide a name that is gone."""
    said = {what for name in PAGES for what in page(name).names}
    assert [name for name in NOT_IN_THE_CODE if name not in said or is_there(name)] == []


def test_what_is_not_there_would_be_found() -> None:
    assert not find("csrc/engine/model.cc", "HACKING.md")
    assert not find("engine/runner.h", "HACKING.md")
    assert find("engine/runner.h", "csrc/README.md")
    assert not find("no_such_file.cc", "HACKING.md")
    assert not is_there("Batcher::no_such_" + "member")
    assert not is_there("No" + "SuchClass::run")
    assert not is_there("no_such_" + "function")
    assert not is_there("submit(no_such_" + "option=1)")
    assert not is_there("no_such_" + "prefix_<family>")
    made = read("`push` (`csrc/base/shape.h`), `a/b.cc`, `x.h`, `csrc/batching/`, `Batcher::submit`, [c](d.md)")
    assert made.paths == ["a/b.cc", "csrc/base/shape.h", "csrc/batching/", "x.h"]
    assert made.names == ["Batcher::submit", "push"]
    assert (made.placed, made.links) == ([("push", "csrc/base/shape.h")], ["d.md"])


def test_every_preset_is_named() -> None:
    (said,) = re.findall(r"cmake --preset dev.*?The other presets are named\s+([^.]*)\.", HACKING, re.DOTALL)
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    assert [p["name"] for p in presets if not p.get("hidden") and not has(f"dev {said}", p["name"])] == []


def test_the_ways_of_conv_are_where_they_are_said_to_be() -> None:
    """conv_<way>.cc, but for plain."""
    ways = re.findall(r'\.name = "(\w+)",\s*\.lower', (ROOT / "csrc/engine/ops/conv.cc").read_text())
    files = {path.stem for path in (ROOT / "csrc/engine/ops/common").glob("conv_*.cc")}
    assert files == {f"conv_{way}" for way in ways if way != "plain"}


def test_lines_are_wrapped() -> None:
    assert [line for line in HACKING.splitlines() if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("readme", ["README.md", "csrc/README.md"])
def test_the_readmes_lead_here(readme: str) -> None:
    assert "HACKING.md)" in (ROOT / readme).read_text()
