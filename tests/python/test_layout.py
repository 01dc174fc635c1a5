"""The house rules that need no build: who may include whom, how files are named, what a kernel may see."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath

import pytest
from isa_tiers import FLAGGED

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "inferkit"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
TIERS = ("baseline", "avx2", "avx512")


def layer_table() -> dict[str, set[str]]:
    """Folder -> what it may include, as csrc/README.md says."""
    table = {}
    for line in (CSRC / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] not in ("folder", "---"):
            table[cells[0]] = set(cells[2].split())
    return table


def includes(path: Path) -> list[tuple[str, str]]:
    """Every include of a file as (bracket, name)."""
    return INCLUDE.findall(path.read_text())


def sources(folder: Path = CSRC) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".h", ".cc", ".inc", ".cu", ".cuh"))


def row_of(table: dict[str, set[str]], path: str) -> str | None:
    """The innermost folder of a path below csrc that has a row."""
    return next((str(p) for p in PurePosixPath(path).parents if str(p) in table), None)


def upward_arrows(table: dict[str, set[str]], files: dict[str, list[str]]) -> list[str]:
    """What in `files` (path below csrc -> quoted includes) the table does not allow."""
    found = []
    for path, names in files.items():
        folder = row_of(table, path)
        allowed = {folder} | table[folder] if folder else set()
        found += [
            f"{path} includes {name}"
            for name in names
            if (target := row_of(table, name)) and target not in allowed and name not in allowed
        ]
    return found


def test_table_and_folders_agree() -> None:
    rooms = {f"engine/{p.name}" for p in (CSRC / "engine").iterdir() if p.is_dir()}
    assert set(layer_table()) == {p.name for p in CSRC.iterdir() if p.is_dir()} | rooms


def test_table_is_a_hierarchy() -> None:
    """Each row may name only rows above it, so the table itself holds no arrow upwards."""
    above: set[str] = set()
    for folder, allowed in layer_table().items():
        assert {name if name in above else str(PurePosixPath(name).parent) for name in allowed} <= above, folder
        above.add(folder)


def test_the_design_s_narrow_doors() -> None:
    table = layer_table()
    assert table["kernels"] == {"base", "platform"}
    assert {name for name in table["batching"] if name.startswith("engine")} == {"engine/runner.h"}
    assert all("bindings" not in allowed and not {"engine/ops", "engine/cuda"} & allowed for allowed in table.values())


def test_the_rooms_of_the_engine() -> None:
    """plan <- compile <- run <- model; ops and cuda see compile and plan."""
    order = ["engine/plan", "engine/compile", "engine/run", "engine/model"]
    table = layer_table()
    rooms = {folder for folder in table if folder.startswith("engine/")}
    families = ["engine/ops", "engine/cuda"]
    assert rooms == {*order, *families}
    for i, room in enumerate(order):
        assert table[room] & rooms == set(order[:i])
    assert all(table[room] & rooms == {"engine/plan", "engine/compile"} for room in families)
    assert {room for room in rooms if "kernels" in table[room]} == set(families)


def test_includes_run_downwards() -> None:
    files = {str(p.relative_to(CSRC)): [n for kind, n in includes(p) if kind == '"'] for p in sources()}
    assert len(files) > 100
    assert upward_arrows(layer_table(), files) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("base/shape.h", "engine/model/model.h"),
        ("base/shape.h", "engine/runner.h"),
        ("batching/worker.cc", "engine/model/model.h"),
        ("engine/runner.h", "engine/plan/plan.h"),
        ("engine/plan/timed_plan.cc", "engine/compile/compile.h"),
        ("engine/plan/timed_plan.cc", "engine/runner.h"),
        ("engine/compile/lower.cc", "engine/run/plan_cache.h"),
        ("engine/compile/lower.cc", "engine/ops/dispatch.h"),
        ("engine/compile/lower.cc", "kernels/cpu/gemm/gemm.h"),
        ("engine/run/program.cc", "engine/model/packed_weights.h"),
        ("engine/ops/conv.cc", "engine/run/program.h"),
        ("engine/ops/ml/ml_tree.cc", "engine/model/model.h"),
        ("engine/ops/ml/common/tree_reader.h", "memory/buffer.h"),
        ("engine/model/model.cc", "engine/ops/reduce.h"),
        ("kernels/cpu/gemm/gemm.cc", "graph/ir.h"),
        ("engine/model/model.cc", "bindings/errors.h"),
    ],
)
def test_an_upward_arrow_would_be_found(path: str, name: str) -> None:
    assert upward_arrows(layer_table(), {path: [name]}) == [f"{path} includes {name}"]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("batching/worker.cc", ["engine/runner.h", "base/error.h"]),
        ("engine/model/model.cc", ["engine/run/program.h", "engine/model/model.h", "graph/ir.h"]),
        ("engine/ops/ml/ml_tree.cc", ["engine/ops/dispatch.h", "engine/compile/op_registry.h"]),
        ("engine/compile/op_registry.cc", ["op_families.inc"]),
    ],
)
def test_a_downward_arrow_is_none(path: str, names: list[str]) -> None:
    assert upward_arrows(layer_table(), {path: names}) == []


def test_quoted_includes_name_files_that_exist() -> None:
    """From csrc as the root, or generated by the build."""
    generated = {"op_families.inc", "cuda_families.inc"}
    missing = [
        f"{path.relative_to(CSRC)} includes {name}"
        for path in sources()
        for kind, name in includes(path)
        if kind == '"' and name not in generated and not (CSRC / name).is_file()
    ]
    assert missing == []


def library(folder: str) -> str:
    return "inferkit_" + folder.replace("/", "_")


def test_one_library_per_folder() -> None:
    cmake = (ROOT / "cmake" / "Libraries.cmake").read_text()
    made = re.findall(r"^inferkit_library\(([\w/]+)", cmake, re.MULTILINE)
    assert made == [folder for folder in layer_table() if folder not in ("engine", "bindings")]


def test_libraries_link_as_the_table_allows() -> None:
    cmake = (ROOT / "cmake" / "Libraries.cmake").read_text()
    table = layer_table()
    for folder, links in re.findall(r"^inferkit_library\(([\w/]+)([^)]*)\)", cmake, re.MULTILINE):
        allowed = {library(name if name in table else str(PurePosixPath(name).parent)) for name in table[folder]}
        assert set(links.split()) <= allowed, folder
    others = re.findall(r"^target_link_libraries\((\w+) \w+ (.*)\)", cmake, re.MULTILINE)
    # That the operator table calls what families register, headers that are parsed once, and the name for all of the
    # engine.
    assert others == [
        ("inferkit_engine_compile", "inferkit_engine_ops inferkit_engine_cuda"),
        ("inferkit_engine_headers", "inferkit_flags"),
        ("inferkit_engine", "inferkit_engine_model"),
    ]


def test_isa_flags_live_in_one_file() -> None:
    places = [
        ROOT / "CMakeLists.txt",
        *sorted((ROOT / "cmake").glob("*.cmake")),
        *sorted(ROOT.glob("tests/**/CMake*")),
    ]
    with_flags = [p.name for p in places if re.search(r"-m(avx|fma|arch|amx|sse|f16c|bmi)", p.read_text())]
    assert with_flags == ["Isa.cmake"]


def kernel_families() -> list[Path]:
    """Folders of csrc/kernels/cpu that hold code for several tiers."""
    return sorted(p for p in (CSRC / "kernels" / "cpu").iterdir() if p.is_dir() and (p / "kernels.inc").exists())


def test_kernel_families_have_every_tier() -> None:
    assert len(kernel_families()) >= 5
    for family in kernel_families():
        assert {t for t in TIERS if (family / f"{t}.cc").is_file()} == set(TIERS), family.name
        assert (family / f"{family.name}.h").is_file(), family.name
        assert (family / "dispatch.cc").is_file(), family.name


def test_what_is_reported_is_what_runs() -> None:
    """build_info names every family, and only those that something calls."""
    report = (CSRC / "kernels" / "cpu" / "report.cc").read_text()
    reported = re.findall(r'\{"(\w+)", (\w+)_kernels\(\)\.compiled_isa\(\)\}', report)
    assert sorted(name for name, _ in reported) == [family.name for family in kernel_families()]
    assert all(name == function for name, function in reported)
    for family in kernel_families():
        callers = [p for p in sources(CSRC / "engine") if ("kernels/cpu/" + family.name) in p.read_text()]
        assert callers, f"nothing calls {family.name}"


def test_what_is_lowered_does_not_ask_the_machine() -> None:
    """A plan follows the threads that its model may use (LowerContext::threads), not how many CPUs there are."""
    asking = [
        p.name
        for p in sources(CSRC / "engine")
        if re.search(r"(usable|process)_cpus|hardware_concurrency", p.read_text())
    ]
    assert asking == []
    pools = [p.name for p in sources(CSRC / "engine") if "ThreadPool::process()" in p.read_text()]
    assert pools == ["model.cc", "program.cc"]
    # Once, when a model is loaded.
    asked = [p.name for p in sources(CSRC / "engine") for _ in re.findall("usable_size", p.read_text())]
    assert asked == ["model.cc"]


def test_tier_files_stand_only_in_families() -> None:
    families = set(kernel_families())
    strays = [str(p) for p in sources() if p.stem in (*TIERS, *FLAGGED, "amx") and p.parent not in families]
    assert strays == []


def test_code_compiled_per_tier_includes_no_stl() -> None:
    """Inline code of the STL compiled for AVX-512 and linked elsewhere would crash on an older machine."""
    allowed = {"immintrin.h", "arm_neon.h", "stdint.h", "stddef.h", "string.h", "math.h", "float.h"}
    per_tier = [
        p
        for p in sources(CSRC / "kernels")
        if p.name == "simd.h" or p.name.endswith(("_impl.h", "_inl.h")) or p.stem in (*TIERS, *FLAGGED)
    ]
    assert len(per_tier) > 20
    found = []
    seen: set[Path] = set()
    while per_tier:
        path = per_tier.pop()
        if path in seen:
            continue
        seen.add(path)
        for kind, name in includes(path):
            if kind == "<" and name not in allowed:
                found.append(f"{path.relative_to(CSRC)} includes <{name}>")
            elif kind == '"':
                per_tier.append(CSRC / name)
    assert found == []


def test_the_core_has_no_iostreams() -> None:
    """They bring the C++ library's locale into the process, of which there may be a second copy; see base/cat.h."""
    streams = {
        "codecvt", "filesystem", "format", "fstream", "iomanip", "ios", "iostream", "istream", "locale", "ostream",
        "regex", "sstream", "streambuf", "strstream", "syncstream", "pybind11/iostream.h", "pybind11/stl/filesystem.h",
    }  # fmt: skip
    found = [
        f"{p.relative_to(CSRC)} includes <{name}>" for p in sources() for _, name in includes(p) if name in streams
    ]
    assert found == []


def test_headers_guard_themselves() -> None:
    assert [str(p) for p in sources() if p.suffix == ".h" and "#pragma once" not in p.read_text()] == []


def top_level_imports(path: Path) -> set[str]:
    """What importing a file imports: not what stands in functions or below TYPE_CHECKING."""
    names: set[str] = set()
    nodes: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            nodes += node.body + node.orelse
        elif isinstance(node, ast.Try):
            nodes += node.body + node.orelse + node.finalbody
            nodes += [statement for handler in node.handlers for statement in handler.body]
        elif isinstance(node, ast.ClassDef | ast.With):
            nodes += node.body
    return names


def test_the_package_needs_numpy_alone() -> None:
    import sys

    for path in sorted(PACKAGE.rglob("*.py")):
        foreign = top_level_imports(path) - set(sys.stdlib_module_names) - {"numpy", "inferkit"}
        assert foreign == set(), path.name


def test_optional_extras_are_found_by_the_check(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n"
        "try:\n    import b\nexcept ImportError:\n    import c\ndef f():\n    import d\n"
    )
    assert top_level_imports(module) == {"typing", "b", "c"}


@pytest.mark.parametrize("folder", ["python", "csrc", "tests", "examples", "benchmarks", "docs", "cmake"])
def test_files_do_not_speak_of_a_machine(folder: str) -> None:
    """No absolute path of somebody's machine gets into the repository."""
    pattern = re.compile(r"(?<![\w.])/(work|root|home|tmp/(venv|build))\b")
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file()
        and path.suffix in (".py", ".pyi", ".cc", ".h", ".md", ".txt", ".cmake", ".inc", ".json", ".svg")
        and path != Path(__file__)
        and pattern.search(path.read_text())
    ]
    assert found == []
