"""cmake/hot_path.txt names functions that are there, in the libraries whose functions are placed one by one.

A name that nothing has would silently place nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = (ROOT / "cmake" / "hot_path.txt").read_text()
CMAKE = (ROOT / "cmake" / "HotPath.cmake").read_text()
NAMES = [name for line in LIST.splitlines() if not line.startswith("#") for name in line.split()]


def sources() -> dict[Path, str]:
    """All files of the rooms that HotPath.cmake compiles with a section for each function, in part or whole."""
    libraries = re.search(r"foreach\(library ([\w ]+)\)", CMAKE)
    assert libraries
    rooms = {library.removesuffix("_warm").replace("engine_", "engine/") for library in libraries[1].split()}
    files = [path for room in sorted(rooms) for path in sorted((ROOT / "csrc" / room).rglob("*.*"))]
    assert len(files) > 100
    return {path: path.read_text() for path in files if path.suffix in (".h", ".cc")}


TEXTS = sources()


def is_defined(name: str) -> bool:
    *classes, function = name.replace("<>", "").split("::")
    if not classes:  # clang-format begins the line of a definition with its type, and that of a call with spaces
        free = re.compile(rf"^(?!return)[\w\[\]:<>].*[\s&*]{function}\(", re.MULTILINE)
        return any(free.search(text) for text in TEXTS.values())
    owner = re.compile(rf"\b(?:class|struct) (?:\[\[\w+\]\] )?(?:\w+::)*{classes[-1]}\b[^;]*\{{")
    if function.lstrip("~") == classes[-1]:  # the compiler may have written it
        return any(owner.search(text) for text in TEXTS.values())
    qualified = re.compile(rf"\b{classes[-1]}(?:<\w+>)?::{function}\(")
    inside = re.compile(rf"(?<![\w:~.>]){function}\(")
    return any(qualified.search(text) or (owner.search(text) and inside.search(text)) for text in TEXTS.values())


@pytest.mark.parametrize("name", NAMES)
def test_function_exists(name: str) -> None:
    assert is_defined(name), f"cmake/hot_path.txt: csrc has no {name} in what cmake/HotPath.cmake places"


def test_each_is_there_once() -> None:
    assert len(NAMES) > 150
    assert sorted(set(NAMES)) == sorted(NAMES)


@pytest.mark.parametrize("name", ["nothing_of_that", "Batcher::nothing_of_that", "Nothing::run", "Nothing::~Nothing"])
def test_what_is_not_there_is_seen(name: str) -> None:
    assert not is_defined(name)
