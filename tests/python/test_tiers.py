"""Every list of instruction-set tiers and of features has all of them: a name that one lacks shows nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from isa_tiers import FLAGGED, ISA_CMAKE
from test_layout import kernel_families

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "csrc" / "platform" / "isa.h").read_text()
SOURCE = (ROOT / "csrc" / "platform" / "isa.cc").read_text()


def names(text: str) -> list[str]:
    return re.findall(r'"([\w-]+)"', text)


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, pattern
    return match[1]


def enumerators(name: str) -> list[str]:
    """As they are called outside: kAvx2 is avx2, kAmxInt8 amx-int8."""
    listed = re.findall(r"k(\w+)", found(rf"enum class {name} : \w+ {{([^}}]*)}}", HEADER))
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "-", one).lower() for one in listed]


TIERS = names(found(r"kNames = {(.*?)};", SOURCE))
FEATURES = names(found(r"kFeatureNames = {(.*?)};", SOURCE))

#: Where all tiers are listed, lowest first, and the pattern that finds the list.
LISTS = {
    "csrc/platform/isa.cc": r"is not a tier; use one of ([\w, ]+)\"",
    "python/inferkit/_build.py": r'\["isa"\] in \(([^)]*)\)',
    "python/inferkit/diagnostics/_steps/build.py": r"_ORDER = \(([^)]*)\)",
    "tests/python/test_layout.py": r"\nTIERS = \(([^)]*)\)",
    "tests/python/test_build_info.py": r"\nTIERS = \[([^]]*)\]",
    "tests/python/test_isa.py": r"\nTIERS = \[([^]]*)\]",
    "tests/python/commands.py": r"INFERKIT_ISA=([\w|]+)",
    "docs/performance.md": r"INFERKIT_ISA=([\w|]+)",
    ".ci/full": r"for tier in ([\w ]+); do",
}
#: And all features.
FEATURE_LISTS = {
    "python/inferkit/_build.py": r"kernels may use: ([^)]*)\)",
    "python/inferkit/_cli/info.py": r"\"none of ([^\"]*)\"",
    "tests/python/test_build_info.py": r"avx512_vnni\": ([^}]*)}",
}


def test_names_are_those_of_the_enumerations() -> None:
    assert enumerators("Isa") == TIERS
    assert enumerators("IsaFeature") == FEATURES
    assert len(FEATURES) == int(found(r"kIsaFeatures = (\d+)", HEADER))


@pytest.mark.parametrize("path", LISTS)
def test_a_list_of_tiers_has_all(path: str) -> None:
    assert re.findall(r"\w+", found(LISTS[path], (ROOT / path).read_text())) == TIERS


@pytest.mark.parametrize("path", FEATURE_LISTS)
def test_a_list_of_features_has_all(path: str) -> None:
    listed = re.findall(r"[a-z][\w-]*", found(FEATURE_LISTS[path], (ROOT / path).read_text()))
    assert [name for name in FEATURES if name not in listed] == []


def test_what_has_flags_is_compiled_with_them() -> None:
    """In cmake/Isa.cmake. A file of what is not in the list would be compiled without any flags."""
    listed = ["baseline", *found(r"INFERKIT_X86_TIERS ([\w ]+)\)", ISA_CMAKE).split()]
    assert listed == ["baseline", *FLAGGED]
    assert set(TIERS) <= set(listed)
    assert set(listed) <= {
        *TIERS,
        *(one for name in FEATURES for one in (name.partition("-")[0], name.replace("-", "_"))),
    }


def test_linux_is_asked_for_the_tiles_of_every_feature_that_uses_them() -> None:
    """Without its permission their first instruction ends the process."""
    listed = found(r"tiles = ([^;]*);", (ROOT / "csrc" / "kernels" / "cpu" / "dispatch.h").read_text())
    asked = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", one).lower() for one in re.findall(r"IsaFeature::k(\w+)", listed)}
    assert asked == {name for name in FEATURES if name.startswith("amx-")}


def test_what_kernels_of_bf16_use_has_a_name_for_users() -> None:
    from inferkit import _build
    from inferkit.diagnostics._steps import build

    family = ROOT / "csrc" / "kernels" / "cpu" / "gemm_bf16"
    named = [
        name
        for path in family.glob("*.h")
        for name in re.findall(r'compiled_for\(\) { return "(\w+)"', path.read_text())
    ]
    assert sorted(_build.BF16_INSTRUCTIONS) == sorted(named)
    assert set(build._BF16) == set(_build.BF16_INSTRUCTIONS.values())


def compiled_files(family: Path) -> dict[str, str]:
    """Of a family: each file that makes its kernels for a tier, and the tier."""
    made = {
        path.stem: re.search(r"^#define INFERKIT_TIER (\w+)$", path.read_text(), re.M) for path in family.glob("*.cc")
    }
    return {name: match[1] for name, match in made.items() if match}


@pytest.mark.parametrize("family", kernel_families(), ids=lambda path: path.name)
def test_a_family_s_files_are_compiled_and_listed(family: Path) -> None:
    files = compiled_files(family)
    assert all(name == tier for name, tier in files.items())
    assert set(files) <= {"baseline", *FLAGGED}
    row = re.compile(r"^INFERKIT_KERNELS\((\w+), k(\w+)(?:, (.*))?\)$", re.MULTILINE)
    rows = row.findall((family / "kernels.inc").read_text())
    assert sorted(name for name, _, _ in rows) == sorted(files)
    order = [(needs not in ("", "{}"), TIERS.index(tier.lower())) for _, tier, needs in rows]
    assert order == sorted(order, reverse=True)  # the first that can run is taken
