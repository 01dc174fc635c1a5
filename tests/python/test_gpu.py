"""What must hold on a CUDA device. The functions are those of benchmarks/gpu/checks.py, which run there without pytest;
test_gpu_rehearsal.py runs them over the tests' own driver."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import inferkit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"))

from checks import CHECKS, SkippedError


@pytest.mark.gpu
@pytest.mark.skipif(not inferkit.cuda.is_available(), reason=f"no CUDA device: {inferkit.cuda.why_not()}")
@pytest.mark.parametrize("name", CHECKS)
def test_on_a_device(name: str) -> None:
    try:
        CHECKS[name]("cuda", False)
    except SkippedError as why:
        pytest.skip(str(why))
