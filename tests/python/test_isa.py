"""INFERKIT_ISA: the tier that it names is the one that runs, and the bits do not depend on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
AVAILABLE = inferkit.build_info()["isa_available"]
TIERS = ["baseline", "avx2", "avx512"]

SHOW = """
import json, inferkit
info = inferkit.build_info()
print(json.dumps([info["isa"], sorted(set(info["kernels"].values())), info["isa_reason"]]))
"""

# Every kind of layer, odd sizes on purpose; prints a digest of the answers' bits.
DIGEST = """
import hashlib, sys
import numpy as np, inferkit
images = np.load(sys.argv[2])["images"].astype(np.float32)
model = inferkit.Model.load(sys.argv[1])
digest = hashlib.sha256()
for rows in (1, 2, 3, 5, 8, 13, 64, 449):
    digest.update(model(images[:rows]).tobytes())
print(inferkit.build_info()["isa"], digest.hexdigest())
"""


def tier_or_skip(tier: str) -> str:
    if tier not in AVAILABLE:
        pytest.skip(f"this machine or build lacks the tier {tier}; it has {', '.join(AVAILABLE)}")
    return tier


def tiers_of(kernels: list[str]) -> set[str]:
    """VNNI, BF16 and AMX, where the machine has them, are part of avx512."""
    return {name.removesuffix("vnni").removesuffix("bf16").removesuffix("amx") for name in kernels}


@pytest.mark.parametrize("tier", TIERS)
def test_the_forced_tier_runs(fresh_python: Fresh, tier: str) -> None:
    """What `kernels` tells comes from the kernels' own object files: the macros that they were compiled under."""
    import json

    done = fresh_python(SHOW, env={"INFERKIT_ISA": tier_or_skip(tier)})
    assert done.returncode == 0, done.stderr
    isa, kernels, reason = json.loads(done.stdout)
    assert isa == tier
    assert tiers_of(kernels) == {tier}
    assert f"INFERKIT_ISA={tier}" in reason


def test_the_best_tier_is_the_default(fresh_python: Fresh) -> None:
    import json

    done = fresh_python(SHOW, env={"INFERKIT_ISA": ""})
    isa, kernels, reason = json.loads(done.stdout)
    assert isa == AVAILABLE[-1]
    assert tiers_of(kernels) == {AVAILABLE[-1]}
    assert "INFERKIT_ISA" not in reason


def tiles_or_skip(fresh_python: Fresh) -> None:
    if not {"amx-int8", "amx-bf16"} <= set(inferkit.build_info()["isa_features"]):
        pytest.skip("this machine, build or tier has no AMX")
    ask = "import ctypes; print(ctypes.CDLL(None).syscall(158, 0x1023, 18))"  # arch_prctl, ARCH_REQ_XCOMP_PERM
    if fresh_python(ask).stdout != "0\n":
        pytest.skip("this system gives processes no permission to use tiles")


def test_tiles_are_used_where_the_process_may(fresh_python: Fresh) -> None:
    """And left where Linux refuses them: an alternate stack for signals that is too small for them is there first."""
    tiles_or_skip(fresh_python)
    show = "import inferkit; print(inferkit.build_info()['kernels']['igemm'])"
    assert fresh_python(show).stdout == "avx512amx\n"
    small = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, len(memory))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
"""
    assert fresh_python(small + show).stdout == "avx512vnni\n"


def test_tiles_are_asked_for_by_those_who_need_them(fresh_python: Fresh, digits_path: Path) -> None:
    """Not by an import, nor by float32: with the permission, small alternate stacks for signals are refused."""
    tiles_or_skip(fresh_python)
    code = """
import ctypes, sys

def may_use_tiles():
    mask = ctypes.c_uint64()
    assert ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(mask)) == 0  # arch_prctl, ARCH_GET_XCOMP_PERM
    return bool(mask.value >> 18 & 1)

assert not may_use_tiles()
import inferkit, inferkit.health, numpy as np
model = inferkit.Model.load(sys.argv[1])
with inferkit.Batcher(model) as batcher:
    batcher(np.zeros(64, np.float32))
    inferkit.health.Monitor().report()
model.explain()
print(may_use_tiles())
inferkit.Model.load(sys.argv[1], precision="bf16")(np.zeros((2, 64), np.float32))
print(may_use_tiles())
"""
    done = fresh_python(code, str(digits_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"]


def test_a_feature_can_be_done_without(fresh_python: Fresh) -> None:
    import json

    if "vnni" not in inferkit.build_info()["isa_features"]:
        pytest.skip("this machine, build or tier has no VNNI")
    show = "import json, inferkit; print(json.dumps(inferkit.build_info()))"
    done = fresh_python(show, env={"INFERKIT_ISA": "avx512,-vnni,-bf16,-amx-int8,-amx-bf16"})
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert info["isa"] == "avx512"
    assert not {"vnni", "bf16"} & set(info["isa_features"])
    assert set(info["kernels"].values()) == {"avx512"}


@pytest.mark.parametrize("wish", ["baseline,vnni", "baseline,-avx2", "baseline,-vnni,x"])
def test_an_unknown_feature_is_an_error_that_names_them(fresh_python: Fresh, wish: str) -> None:
    done = fresh_python("import inferkit", env={"INFERKIT_ISA": wish})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"INFERKIT_ISA='{wish}'" in last
    assert "-amx-bf16" in last


@pytest.mark.parametrize("name", ["nonsense", "AVX2", "avx", "avx2 ", "sse4"])
def test_an_unknown_tier_is_an_error_that_names_the_tiers(fresh_python: Fresh, name: str) -> None:
    done = fresh_python("import inferkit", env={"INFERKIT_ISA": name})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"INFERKIT_ISA='{name}'" in last
    assert all(tier in last for tier in TIERS)
    assert last.startswith(("ImportError", "ValueError")), last


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_that_the_machine_lacks_is_an_error(fresh_python: Fresh, tier: str) -> None:
    if tier in AVAILABLE:
        pytest.skip(f"this machine has {tier}")
    done = fresh_python("import inferkit", env={"INFERKIT_ISA": tier})
    assert done.returncode == 1
    assert f"the highest here is {AVAILABLE[-1]}" in done.stderr


def digest(fresh_python: Fresh, tier: str, model: Path) -> str:
    images = str(model.parent / "digits_test.npz")
    done = fresh_python(DIGEST, str(model), images, env={"INFERKIT_ISA": tier})
    assert done.returncode == 0, done.stderr
    ran, value = done.stdout.split()
    assert ran == tier
    return value


def test_avx2_and_avx512_give_the_same_bits(fresh_python: Fresh, digits_path: Path) -> None:
    tiers = [tier_or_skip("avx2"), tier_or_skip("avx512")]
    first, second = (digest(fresh_python, tier, digits_path) for tier in tiers)
    assert first == second


def test_a_tier_gives_the_same_bits_twice(fresh_python: Fresh, digits_path: Path) -> None:
    assert digest(fresh_python, "baseline", digits_path) == digest(fresh_python, "baseline", digits_path)
