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


#: Queries, keys and values are parts of one input, with what may stand in front and be wrong with it.
EDGES = """
import inferkit
import numpy as np
from onnx_files import model, node

def parts(front, index=2, length="length"):
    constants = {f"take{i}": np.array(index if i == 2 else i, np.int64) for i in range(3)}
    constants["root"] = np.array(0.25, np.float32)
    nodes = [node(front, ["x"], ["h"])]
    nodes.append(node("Transpose", ["h"], ["qkv"], perm=(2, 0, 3, 1, 4)))
    nodes += [node("Gather", ["qkv", f"take{i}"], ["qkv"[i]], axis=0) for i in range(3)]
    nodes.append(node("Transpose", ["k"], ["turned"], perm=(0, 1, 3, 2)))
    nodes.append(node("MatMul", ["q", "turned"], ["products"]))
    nodes.append(node("Mul", ["products", "root"], ["scores"]))
    nodes.append(node("Softmax", ["scores"], ["weights"], axis=-1))
    nodes.append(node("MatMul", ["weights", "v"], ["mixed"]))
    nodes.append(node("Transpose", ["mixed"], ["y"], perm=(0, 2, 1, 3)))
    x, y = ("batch", length, 3, 2, 8), ("batch", length, 2, 8)
    return model(nodes, {"x": ("float32", x)}, {"y": ("float32", y)}, constants)

anything = {"input_checks": inferkit.InputChecks(non_empty=False)}
for front, fallback in (("Relu", None), ("Shrink", "cpu")):  # CUDA lacks the latter
    file = parts(front)
    there = inferkit.Model.load(file, device="cuda", fallback=fallback, **anything)
    here = inferkit.Model.load(file, **anything)
    for batch, length in ((2, 5), (1, 1), (2, 0), (0, 5), (3, 33)):
        x = np.random.default_rng(length).normal(size=(batch, length, 3, 2, 8)).astype(np.float32)
        got, want = there(x), here(x)
        assert got.shape == want.shape and np.array_equal(got, want), (front, batch, length)
    steps = [step.operator for step in there.explain({"x": (2, 5, 3, 2, 8)}).steps]
    assert steps.count("inferkit.Attention") == 1, steps

x = np.ones((2, 5, 3, 2, 8), np.float32)
for index in (3, -4):
    said = []
    for device in ("cuda", "cpu"):
        try:
            inferkit.Model.load(parts("Relu", index), device=device)(x)
            said.append("nothing")
        except inferkit.InferkitError as error:
            said.append(str(error))
    assert all("out of range" in text for text in said), said
"""


@pytest.mark.parametrize("program", [PROGRAM, EDGES], ids=["encoder", "edges"])
def test_attention_is_one_step_on_cuda_with_the_bits_of_the_cpu(program: str) -> None:
    driver = max(DRIVERS, key=lambda path: path.stat().st_mtime).parent
    gpu = ROOT / "benchmarks" / "gpu"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": os.pathsep.join(map(str, (gpu, gpu.parent)))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
