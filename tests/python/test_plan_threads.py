"""What a plan takes follows the threads that its model may use, not the machine: the same on a large one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cpus}])
import hashlib, numpy as np, inferkit
model = inferkit.Model.load({path!r}, threads={threads})
answer = model(np.random.default_rng(1).standard_normal((1, 24, 40, 40), dtype=np.float32))
print(model.memory().arena_bytes, hashlib.sha256(answer.tobytes()).hexdigest())
"""


@pytest.fixture
def conv(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((24, 24, 3, 3)).astype(np.float32) / 8 for _ in range(2)]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w0"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["h", "w1"], ["y"], pads=[1, 1, 1, 1]),
        ],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 24, 40, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 24, 40, 40])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_scratch_is_for_the_threads_of_the_model(fresh_python: Fresh, conv: str) -> None:
    def measure(cpus: int, threads: int) -> tuple[int, str]:
        arena, digest = fresh_python(SCRIPT.format(cpus=cpus, path=conv, threads=threads)).stdout.split()
        return int(arena), digest

    alone = measure(cpus=1, threads=1)
    assert measure(cpus=2, threads=1) == alone, "a plan for one thread depends on the machine"
    assert measure(cpus=1, threads=0) == alone
    assert measure(cpus=1, threads=8) == alone, "no run can use more threads than there are"
    both = measure(cpus=2, threads=0)
    assert both[0] != alone[0]  # not always more: two threads take smaller blocks
    assert both[1] == alone[1]
    assert measure(cpus=2, threads=2) == both


NARROWED = """
import os
import numpy as np, inferkit
def load():
    return inferkit.Model.load({path!r}, threads={threads})
def threads():
    return len(os.listdir("/proc/self/task"))
first = load()
had = first._threads
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
second, began = load(), threads()
x = np.random.default_rng(1).standard_normal((1, 24, 40, 40), dtype=np.float32)
answer = second(x)
alone = threads() - began
print(had, first._threads, second._threads, alone, answer.tobytes() == first(x).tobytes())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("threads", [None, 2])
def test_a_cpu_set_that_is_narrowed_after_the_import(fresh_python: Fresh, conv: str, threads: int | None) -> None:
    """What is loaded from then on uses fewer threads, to the same bits; what was loaded before keeps its own."""
    done = fresh_python(NARROWED.format(path=conv, threads=threads))
    had, first, second, started, same = done.stdout.split()
    assert int(had) >= 2
    assert first == had
    assert (second, started, same) == ("1", "0", "True")
