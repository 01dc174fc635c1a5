"""build_info() tells the truth about the binary, the machine and the choice of code."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from importlib import metadata

import pytest

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
TIERS = ["baseline", "avx2", "avx512"]
KEYS = {
    "version": str, "build_type": str, "debug": bool, "compiler": str, "flags": str, "sanitizers": str,
    "isa_available": list, "isa": str, "isa_features": list, "isa_reason": str, "kernels": dict, "cpus": int,
    "time_slices": str, "cuda": bool, "cuda_targets": list,
}  # fmt: skip


def test_keys_and_types() -> None:
    info = inferkit.build_info()
    assert {key: type(value) for key, value in info.items()} == KEYS


def test_every_key_is_documented() -> None:
    assert set(re.findall(r"``(\w+)``", inferkit.build_info.__doc__ or "")) >= set(KEYS)


def test_versions_agree() -> None:
    """The C++ core's, the package's, and the one that pip knows."""
    assert inferkit.build_info()["version"] == inferkit.__version__ == metadata.version("inferkit")


def test_the_compiler_is_named() -> None:
    assert re.match(r"(gcc|clang) \d+", inferkit.build_info()["compiler"])


def test_tiers_are_a_ladder() -> None:
    available = inferkit.build_info()["isa_available"]
    assert available == TIERS[: len(available)]
    assert inferkit.build_info()["isa"] in available


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="needs /proc/cpuinfo")
def test_tiers_match_what_the_system_says() -> None:
    """The kernel's own list of features, not the core's look at cpuid."""
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", file.read(), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    expected, features = ["baseline"], []
    if {"avx2", "fma", "f16c", "bmi1", "bmi2"} <= flags:
        expected.append("avx2")
        if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
            expected.append("avx512")
            names = {"avx512_vnni": "vnni", "avx512_bf16": "bf16", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16"}
            features = [ours for theirs, ours in names.items() if theirs in flags]
    assert inferkit.build_info()["isa_available"] == expected
    if inferkit.build_info()["isa"] == expected[-1]:
        assert inferkit.build_info()["isa_features"] == features
    else:
        assert inferkit.build_info()["isa_features"] == []


def test_cpus_are_those_that_the_process_may_use(fresh_python: Fresh) -> None:
    assert 1 <= inferkit.build_info()["cpus"] <= len(os.sched_getaffinity(0))
    one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); import inferkit; "
    done = fresh_python(one + "print(inferkit.build_info()['cpus'])")
    assert done.stdout.strip() == "1", done.stderr


def test_a_release_build_does_not_warn_and_a_debug_build_does(fresh_python: Fresh) -> None:
    done = fresh_python("import inferkit")
    assert ("RuntimeWarning" in done.stderr) == inferkit.build_info()["debug"]


def test_the_warning_of_a_debug_build(fresh_python: Fresh) -> None:
    """The same code path with a core that says it is one."""
    done = fresh_python(
        "import sys, importlib; import inferkit; from inferkit import _core, _build\n"
        "info = dict(_core.build_info(), debug=True)\n"
        "_core.build_info = lambda: info\n"
        "importlib.reload(_build)"
    )
    assert done.returncode == 0
    assert "debug build" in done.stderr
    assert "pip install ." in done.stderr


def test_the_answer_is_a_copy() -> None:
    inferkit.build_info()["isa"] = "abacus"
    assert inferkit.build_info()["isa"] in TIERS


def test_supported_ops_are_rows_of_the_table() -> None:
    rows = inferkit.supported_ops()
    assert len(rows) == len(set(rows))
    assert {"Gemm", "MatMul", "Softmax", "Conv", "Relu"} <= {name for _, name, *_ in rows}
    assert all(since <= until for _, _, since, until in rows)
