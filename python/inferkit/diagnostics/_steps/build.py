"""Step 1: an optimised build, on the best code that the machine can run."""

from __future__ import annotations

from collections.abc import Iterator

from ..._build import BF16_INSTRUCTIONS, build_info
from .._patient import Finder, Patient
from .._report import Check

__all__ = ["examine"]

_check = Finder(1)
_ORDER = ("baseline", "avx2", "avx512")
#: What the instructions for bf16 mean.
_BF16 = {"AMX": "runs products several times as fast", "AVX512-BF16": "runs products about twice as fast"}


def examine(_: Patient) -> Iterator[Check]:
    """Look at the build; needs no request."""
    info = build_info()
    debug = info["debug"]
    yield _check(
        "optimised build",
        "fail" if debug else "pass",
        f"{info['build_type']}, {info['compiler']}",
        "a debug build is correct but ten to a hundred times slower: no latency measured with it means anything",
        "install an optimised one: pip install .   (or cmake --preset release)" if debug else "",
    )
    yield _check(
        "no sanitizers",
        "fail" if info["sanitizers"] else "pass",
        info["sanitizers"] or "none",
        "sanitizers slow the code down and multiply its memory",
        "build without -fsanitize for production" if info["sanitizers"] else "",
    )
    tiers = [tier for tier in _ORDER if tier in info["isa_available"]] or list(info["isa_available"])
    best = tiers[-1] if tiers else info["isa"]
    slow = info["isa"] != best or best == "baseline"
    remedy = ""
    if info["isa"] != best:
        remedy = f"unset INFERKIT_ISA to use {best}"
    elif slow:
        remedy = "run it on a CPU with AVX2 or AVX-512; a virtual machine may hide them: pass the host's CPU through"
    yield _check(
        "instruction set",
        "warn" if slow else "pass",
        f"{info['isa']}, of {', '.join(info['isa_available'])} ({info['isa_reason']})",
        "vector width decides the speed of every kernel",
        remedy,
    )
    instructions = BF16_INSTRUCTIONS.get(info["kernels"]["gemm_bf16"])
    meaning = _BF16[instructions] if instructions else "is no faster than float32"
    shown = instructions or "no instructions for it"
    yield _check("bf16", "pass", shown, f'Model.load(precision="bf16") {meaning} here')
    cpus = info["cpus"]
    yield _check(
        "CPUs",
        "pass",
        f"{cpus} usable by this process",
        "affinity and the cgroup's quota decide how many threads a call may use",
    )
    sliced = info["time_slices"]
    yield _check(
        "time slices",
        "pass",
        sliced,
        "beside a model that runs long, one that runs shortly answers as fast as alone"
        if sliced == "yes"
        else "beside a model that runs long, one that runs shortly waits for the kernel to take a core from it",
    )
