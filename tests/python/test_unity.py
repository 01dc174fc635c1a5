"""Files that a release build compiles as one (cmake/Libraries.cmake) have no name for two things.

Only a build without a compiler cache would notice, and that is what a user's first `pip install` is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from isa_tiers import FLAGGED

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CMAKE = (ROOT / "cmake" / "Libraries.cmake").read_text()

# What stands at the beginning of a line, outside functions and classes; clang-format sees to that.
TYPE = re.compile(r"(?:struct|class|union|enum(?: class)?|using)\s+(\w+)\b(?!::)(?![^{]*;\s*$)")
ALIAS = re.compile(r"using\s+(\w+)\s*=")
CONSTANT = re.compile(
    r"(?:inline\s+|static\s+|constexpr\s+|const\s+)+[\w:<>,&* ]*?\b(k[A-Z]\w*)\s*(?:\[[^\]]*\]\s*)?[={]"
)
FUNCTION = re.compile(r"(?!using|return|struct|class|enum|namespace|typedef)[\w:<>,&*\[\] ]+?[\s&*](\w+)\(")
PLAIN_ENUM = re.compile(r"^enum\s+(?!class)\w*[^{;]*\{([^}]*)\}", re.MULTILINE)


def groups() -> dict[str, list[Path]]:
    """What is compiled as one, by a name for the test."""
    found = {}
    calls = re.findall(r"^ *inferkit_unite\(([^)]*)\)", CMAKE, re.MULTILINE)
    assert calls
    # What is compiled apart is among the files of its folder.
    for folder in [name for call in calls for name in call.split() if (CSRC / name).is_dir()]:
        files = [p for p in sorted((CSRC / folder).rglob("*.cc")) if p.stem not in ("baseline", *FLAGGED)]
        found[folder] = files
    for name in ("inferkit_op_groups", "inferkit_cold_op_groups"):
        lines = re.search(rf"^set\({name}\n(.*?)\)", CMAKE, re.MULTILINE | re.DOTALL)
        assert lines
        for line in re.findall(r'"([^"]+)"', lines[1]):
            files = [CSRC / "engine" / "ops" / f"{file}.cc" for file in line.split()]
            found[f"engine/ops: {line.split()[0]} ..."] = files
    return found


def types_of(parameters: str) -> str:
    """Parameters without their names and defaults: what makes an overload."""
    kept, depth = [""], 0
    for char in parameters:
        depth += (char in "<([{") - (char in ">)]}")
        if char == "," and depth == 0:
            kept.append("")
        else:
            kept[-1] += char
    return ", ".join(
        re.sub(r"\s+", " ", re.sub(r"[\s&*]\w+\s*(?:=.*)?$", "", p.strip(), flags=re.DOTALL)) for p in kept
    )


def names(text: str) -> set[tuple[str, str]]:
    """Names that a file has for itself, with the parameters where they are those of a function."""
    found = set()
    for space in re.findall(r"^namespace \{\n(.*?)^\}  // namespace$", text, re.MULTILINE | re.DOTALL):
        for match in PLAIN_ENUM.finditer(space):
            found |= {(name, "") for name in re.findall(r"\b(k[A-Z]\w*)", match[1])}
        at = 0
        for line in space.splitlines(keepends=True):
            if line[0] not in " /}#\n" and not line.startswith("template"):
                for pattern in (ALIAS, CONSTANT, TYPE):
                    if match := pattern.match(line):
                        found.add((match[1], ""))
                        if pattern is CONSTANT:  # and those that follow it in the declaration
                            found |= {(name, "") for name in re.findall(r", (k[A-Z]\w*) = ", line)}
                        break
                else:
                    if match := FUNCTION.match(line):
                        rest = space[at + match.end() :]
                        end, depth = 0, 1
                        while depth and end < len(rest):
                            depth += (rest[end] == "(") - (rest[end] == ")")
                            end += 1
                        found.add((match[1], types_of(rest[: end - 1])))
            at += len(line)
    return found


@pytest.mark.parametrize("group", groups())
def test_no_name_for_two_things(group: str) -> None:
    files = groups()[group]
    assert files
    owners: dict[tuple[str, str], list[str]] = {}
    for path in files:
        for name in names(path.read_text()):
            owners.setdefault(name, []).append(path.name)
    twice = {f"{name}({kind})" if kind else name: at for (name, kind), at in owners.items() if len(at) > 1}
    assert not twice, f"{group}: these are compiled as one file; give one of each another name, or another line"


def test_every_file_of_a_group_exists_once() -> None:
    files = [path for name, group in groups().items() if name.startswith("engine/ops") for path in group]
    assert [p for p in files if not p.is_file()] == []
    assert len(files) == len(set(files)) > 50


@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("ninja"), reason="cmake or ninja is not installed")
def test_groups_are_what_is_compiled(tmp_path: Path) -> None:
    """By the files that cmake writes: names that it does not find would leave every file alone, and say nothing."""
    without_cache = {k: v for k, v in os.environ.items() if not k.endswith("_COMPILER_LAUNCHER")}
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DINFERKIT_BUILD_PYTHON=OFF", "-DINFERKIT_CUDA=OFF"]
    subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", *options],
        check=True,
        capture_output=True,
        env=without_cache,
    )
    written = [path.read_text() for path in tmp_path.glob("CMakeFiles/inferkit_engine_ops*.dir/Unity/unity_*.cxx")]
    included = {tuple(sorted(re.findall(r'^#include "(.*)"$', text, re.MULTILINE))) for text in written}
    wanted = {
        tuple(sorted(str(path) for path in files))
        for name, files in groups().items()
        if name.startswith("engine/ops") and len(files) > 1
    }
    assert included == wanted


def test_names_are_seen() -> None:
    text = """namespace inferkit {
namespace {

enum Input : size_t { kX, kWeight };
constexpr int64_t kBlock = 256;  // of positions
constexpr int kFirst = 1, kSecond = 2;
const Row kRows[] = {{1}};
using Sum = double;
struct Params {
  int64_t n;
};
template <class T>
void run_step(const void* params, std::byte* const* io,
              const ExecContext&) {
  call(1);
}
size_t axis_of(const NodeContext& c, int64_t fallback = 0) {

}  // namespace
void lowered(int x) {
}
"""
    assert names(text) == {
        ("kX", ""),
        ("kWeight", ""),
        ("kBlock", ""),
        ("kFirst", ""),
        ("kSecond", ""),
        ("kRows", ""),
        ("Input", ""),
        ("Sum", ""),
        ("Params", ""),
        ("run_step", "const void*, std::byte* const*, const ExecContext&"),
        ("axis_of", "const NodeContext&, int64_t"),
    }
