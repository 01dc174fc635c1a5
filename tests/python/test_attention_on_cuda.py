"""What an encoder's plan on CUDA says of attention, over the tests' own driver, which a process of its own finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_objects import BUILD, sanitized

import inferkit

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = [path for path in BUILD.glob("**/cuda_on_host/driver/libcuda.so.1") if not sanitized(path)]
pytestmark = [
    pytest.mark.skipif(
        not inferkit.build_info()["cuda"] or not DRIVERS, reason="no kernels, or no driver of the tests"
    ),
    pytest.mark.unsanitized("the tests' driver has no sanitizers"),
]

PROGRAM = """
import inferkit
import numpy as np
from models import Encoder

LAYERS = 2
made = Encoder(LAYERS, 16, 2, 32, 4)
file, ids = made.file(), made.inputs(3)[0]
shapes = {"ids": (3, 4)}

def operators(model):
    return [step.operator for step in model.explain(shapes).steps]

model = inferkit.Model.load(file, device="cuda")
steps = [step for step in model.explain(shapes).steps if step.operator == "inferkit.Attention"]
assert len(steps) == LAYERS
for step in steps:
    parts = [part.operator for part in step.stands_for]
    moves = ["Reshape", "Transpose", *["Gather"] * 3, "Transpose"]
    assert parts == [*moves, "MatMul", "Mul", "Softmax", "MatMul", "Transpose"]
    assert [kernel.name for kernel in step.kernels] == ["attention_2"]
    assert [tensor.shape for tensor in step.outputs] == [(3, 4, 2, 8)]
assert not {"Softmax", "Transpose", "MatMul", "Gather"} & set(operators(model)[2:])

cpu = inferkit.Model.load(file)
assert np.array_equal(model(ids), cpu(ids))
assert operators(cpu).count("Softmax") == LAYERS

halves = inferkit.Model.load(file, device="cuda", precision="bf16")
assert operators(halves).count("Softmax") == LAYERS

timed = [step for step in model.profile(ids).steps if step.operator == "inferkit.Attention"]
assert all(step.measured_seconds is not None for step in timed)
"""


def test_attention_is_one_step_on_cuda_with_the_bits_of_the_cpu() -> None:
    driver = max(DRIVERS, key=lambda path: path.stat().st_mtime).parent
    gpu = ROOT / "benchmarks" / "gpu"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": os.pathsep.join(map(str, (gpu, gpu.parent)))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
