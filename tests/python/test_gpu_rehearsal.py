"""benchmarks/gpu without a GPU: the files that it writes, and all of run_all.sh over the tests' own driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from kernel_objects import BUILD, sanitized

import inferkit

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "benchmarks" / "gpu"
sys.path.insert(0, str(GPU))

import checks  # noqa: E402
import models  # noqa: E402

DRIVERS = [path for path in BUILD.glob("**/cuda_on_host/driver/libcuda.so.1") if not sanitized(path)]
REASON = (
    "this build has no CUDA kernels"
    if not inferkit.build_info()["cuda"]
    else f"no driver of the tests below {BUILD}: build with INFERKIT_BUILD_TESTS"
)
needs_driver = pytest.mark.skipif(not inferkit.build_info()["cuda"] or not DRIVERS, reason=REASON)
MODELS = [made for made, _ in models.to_check(quick=True).values()] + [case.made for case in models.to_time(True)]


@pytest.mark.parametrize("made", MODELS, ids=lambda made: made.name)
def test_the_files_are_onnx_and_mean_what_onnx_runtime_says(made: Any) -> None:
    onnx.checker.check_model(onnx.load_from_string(made.file()), full_check=True)
    session = onnxruntime.InferenceSession(made.file(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = made.inputs(batch)
        names = [port.name for port in session.get_inputs()]
        (want,) = session.run(None, dict(zip(names, x, strict=True)))[-1:]
        got = inferkit.Model.load(made.file())(*x)
        np.testing.assert_allclose(got if isinstance(got, np.ndarray) else got[-1], want, rtol=1e-4, atol=1e-5)


def test_the_large_models_of_a_device_are_onnx() -> None:
    for made in {case.made.name: case.made for case in models.to_time(quick=False)}.values():
        onnx.checker.check_model(onnx.load_from_string(made.file()))
        inferkit.Model.load(made.file())


def test_one_wrong_bit_is_seen() -> None:
    want = np.linspace(-1, 1, 7, dtype=np.float32)
    got = want.copy()
    checks.same(got, want, "equal")
    got.view(np.uint32)[3] ^= 1
    with pytest.raises(AssertionError, match="1 of 7 elements differ"):
        checks.same(got, want, "the bits")
    with pytest.raises(AssertionError, match="has NaN"):
        checks.same(want * np.nan, want * np.nan, "no numbers")


def run_all(folder: Path, driver: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(GPU / "run_all.sh"), str(folder)],
        env={**os.environ, "PYTHON": sys.executable, "REHEARSE": str(driver), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def over_the_driver(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    driver = max(DRIVERS, key=lambda path: path.stat().st_mtime).parent
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@needs_driver
@pytest.mark.unsanitized("it measures, and the tests' driver has no sanitizers")
def test_all_of_it_runs_over_the_tests_driver(tmp_path: Path) -> None:
    done = run_all(tmp_path, max(DRIVERS, key=lambda path: path.stat().st_mtime).parent)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {line["stage"]: line["state"] for line in lines(tmp_path / "stages.jsonl")}
    assert {states[stage] for stage in ("machine", "bits", "checks", "ours", "steps")} == {"ok"}
    assert states["build"] == "skipped"
    checked = {line["check"]: line["state"] for line in lines(tmp_path / "checks.jsonl")}
    assert checked.keys() == checks.CHECKS.keys()
    skipped = {name for name, state in checked.items() if state != "ok"}
    assert skipped == {
        "cupy_gives_and_takes_arrays_there",
        "torch_and_its_captures_live_beside",
        "torch_gives_and_takes_arrays_there",
    }
    table = (tmp_path / "table.md").read_text()
    assert done.stdout.endswith(
        table + "the rehearsal passed: nothing of it ran on a device, and its times say nothing\n"
    )
    for case in models.to_time(quick=True):
        assert f"| {case.name} |" in table
        assert (tmp_path / "answers" / f"{case.name}.npy").is_file()


FAILING_DEVICE = """
import ctypes
import numpy as np
import inferkit
from inferkit import health

driver = ctypes.CDLL("libcuda.so.1")
x = np.linspace(-1, 1, 64, dtype=np.float32)
model = inferkit.Model.load("examples/digits.onnx", device="cuda")
with inferkit.Batcher(model, name="digits") as batcher:
    want = batcher(x)
    assert health.report().state is not health.State.FAILED
    driver.cuda_on_host_break()
    tickets = [batcher.submit(x) for _ in range(40)]
    errors = [ticket.exception(timeout=60) for ticket in tickets]
    assert {type(error) for error in errors} == {inferkit.DeviceError}, errors
    assert all("CUDA_ERROR_ILLEGAL_ADDRESS" in str(error) for error in errors), errors
    report = health.report()
    assert report.state is health.State.FAILED and not report.ready, report
    assert any("digits: the device of its model has failed: " in reason for reason in report.reasons), report
    stats = batcher.stats()
    assert stats.failed == 40, stats
    driver.cuda_on_host_break()  # repairs it, as no device is repaired
    np.testing.assert_array_equal(batcher(x), want)
    assert health.report().state is not health.State.FAILED
print("all ended")
"""


@needs_driver
@pytest.mark.unsanitized("the tests' driver has no sanitizers")
def test_a_device_that_fails_ends_every_request_and_shows_in_health() -> None:
    done = over_the_driver(FAILING_DEVICE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all ended\n"


def test_without_a_device_it_fails_and_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "no driver").mkdir()
    (tmp_path / "no driver" / "libcuda.so.1").write_text("no library")
    done = run_all(tmp_path / "out", tmp_path / "no driver")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {line["stage"]: line["state"] for line in lines(tmp_path / "out" / "stages.jsonl")}
    assert states["machine"] == "ok"
    assert {states[stage] for stage in ("bits", "checks", "ours")} == {"failed"}
    assert "no CUDA device: " in done.stdout
    assert "| bits | failed |" in (tmp_path / "out" / "table.md").read_text()
    assert done.stdout.endswith("FAILED: 3 of the stages above\n")


#: A python that leaves somebody behind, who holds what it wrote to, and does not end by itself.
HANGS = """#!/bin/bash
if [[ $* == *checks.py* ]]; then
  setsid sleep 100000 &
  echo $! >>"$1".left
  echo it hangs
  sleep 100000
fi
exec {python} "$@"
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    python, left = tmp_path / "python", tmp_path / "left"
    python.write_text(HANGS.replace('"$1".left', str(left)).format(python=sys.executable))
    python.chmod(0o755)
    yield python
    for pid in left.read_text().split() if left.exists() else ():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(int(pid), signal.SIGKILL)


def test_a_stage_is_cut_off_whoever_holds_its_output(tmp_path: Path, hanging: Path) -> None:
    done = run_all(tmp_path / "out", tmp_path, PYTHON=str(hanging), STAGE_SECONDS="8")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {line["stage"]: line["state"] for line in lines(tmp_path / "out" / "stages.jsonl")}
    assert {states[stage] for stage in ("bits", "checks")} == {"cut off"}
    assert "it hangs" in done.stdout
    assert "| bits | cut off |" in done.stdout


def test_who_is_told_to_stop_says_what_there_is(tmp_path: Path, hanging: Path) -> None:
    folder = tmp_path / "out"
    running = subprocess.Popen(
        [str(GPU / "run_all.sh"), str(folder)],
        env={**os.environ, "PYTHON": str(hanging), "REHEARSE": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    said = ""
    while "it hangs" not in said:
        line = running.stdout.readline()
        assert line, said
        said += line
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "stopped" in rest
    assert "| machine | ok |" in rest


@pytest.mark.parametrize(("says", "state"), [("Error: Device not supported", "skipped"), ("1 error", "failed")])
def test_a_sanitizer_that_is_let_at_no_device_has_checked_nothing(tmp_path: Path, says: str, state: str) -> None:
    sanitizer = tmp_path / "compute-sanitizer"
    sanitizer.write_text(f"#!/bin/sh\necho '{says}'\nexit 1\n")
    sanitizer.chmod(0o755)
    done = run_all(tmp_path / "out", tmp_path, SANITIZER=str(sanitizer))
    states = {line["stage"]: line["state"] for line in lines(tmp_path / "out" / "stages.jsonl")}
    assert {states[tool] for tool in ("memcheck", "racecheck", "synccheck")} == {state}, done.stdout + done.stderr


FULL_DEVICE = """
import ctypes
import numpy as np
import inferkit

class Figures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in
                ("allocations", "pinned", "streams", "graphs", "events", "contexts", "launches", "captures")]

def held():
    figures = Figures()
    driver.cuda_on_host_figures(ctypes.byref(figures))
    return figures.contexts

driver = ctypes.CDLL("libcuda.so.1")
driver.cuda_on_host_memory(ctypes.c_int64(100))
for _ in range(3):
    try:
        inferkit.Model.load("examples/digits.onnx", device="cuda")
    except inferkit.PoolExhaustedError as error:
        assert "CUDA_ERROR_OUT_OF_MEMORY" in str(error), error
    else:
        raise AssertionError("no error")
    assert held() == 0, held()
driver.cuda_on_host_memory(ctypes.c_int64(1 << 30))
x = np.linspace(-1, 1, 64, dtype=np.float32)
inferkit.Model.load("examples/digits.onnx", device="cuda")(x)
inferkit.Model.load("examples/digits.onnx", device="cuda")(x)
assert held() == 1, held()
print("all ended")
"""


MEASURED = """
import os
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
import inferkit

def scrape(directory=None):
    body, _ = inferkit.metrics.exposition(directory=directory)
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name.startswith("inferkit_cuda"):
                labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "pid"))
                found.setdefault((sample.name, labels), []).append(sample.value)
    return found

assert not scrape(), scrape()  # nobody has asked for a device
x = np.linspace(-1, 1, 64, dtype=np.float32)
model = inferkit.Model.load("examples/digits.onnx", device="cuda")
inferkit.cuda.limit_memory(1 << 30)
for _ in range(5):
    y = model(x)
memory, activity, got = inferkit.cuda.memory(), inferkit.cuda.activity(), scrape()
zero = ("device", "0")
want = {
    ("inferkit_cuda_graph_launches_total", (zero,)): 5,
    ("inferkit_cuda_failures_total", (zero,)): 0,
    ("inferkit_cuda_busy_seconds_total", (zero,)): activity.busy_seconds,
    ("inferkit_cuda_copied_bytes_total", (zero, ("what", "in"))): 5 * x.nbytes,
    ("inferkit_cuda_copied_bytes_total", (zero, ("what", "out"))): 5 * y.nbytes,
    ("inferkit_cuda_copied_bytes_total", (zero, ("what", "weights"))): memory.weight_bytes,
    ("inferkit_cuda_memory_bytes", (zero, ("state", "in_use"))): memory.device.in_use_bytes,
    ("inferkit_cuda_memory_bytes", (zero, ("state", "cached"))): memory.device.cached_bytes,
    ("inferkit_cuda_memory_bytes", (zero, ("state", "peak"))): memory.device.peak_bytes,
    ("inferkit_cuda_memory_bytes", (zero, ("state", "limit"))): 1 << 30,
    ("inferkit_cuda_memory_bytes", (zero, ("state", "weights"))): memory.weight_bytes,
    ("inferkit_cuda_pinned_bytes", (zero, ("state", "in_use"))): memory.pinned.in_use_bytes,
    ("inferkit_cuda_pinned_bytes", (zero, ("state", "cached"))): memory.pinned.cached_bytes,
    ("inferkit_cuda_pinned_bytes", (zero, ("state", "peak"))): memory.pinned.peak_bytes,
    ("inferkit_cuda_running", (zero,)): 0,
}
assert memory.weight_bytes > 0 and activity.busy_seconds > 0
assert got == {key: [value] for key, value in want.items()}, got

# What a model had counted stays when it is gone; a child of fork has used no device.
del model
assert scrape()[("inferkit_cuda_graph_launches_total", (zero,))] == [5]
child = os.fork()
if child == 0:
    os._exit(0 if not scrape() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("all ended")
"""


@needs_driver
@pytest.mark.unsanitized("the tests' driver has no sanitizers")
def test_a_scrape_has_what_a_device_holds_and_does() -> None:
    done = over_the_driver(MEASURED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all ended\n"


SHARED = """
import sys
import numpy as np
import inferkit

model = inferkit.Model.load("examples/digits.onnx", device="cuda")
with inferkit.metrics.share(sys.argv[1], interval=1000):
    for _ in range(3):
        model(np.linspace(-1, 1, 64, dtype=np.float32))
"""


@needs_driver
@pytest.mark.unsanitized("the tests' driver has no sanitizers")
def test_what_processes_that_have_ended_did_on_a_device_still_counts(tmp_path: Path) -> None:
    for _ in range(2):
        done = over_the_driver(SHARED, str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr
    text = inferkit.metrics.exposition(directory=tmp_path)[0].decode()
    assert 'inferkit_cuda_graph_launches_total{device="0"} 6.0' in text
    assert "inferkit_cuda_memory_bytes{" not in text  # of the living alone
    assert "inferkit_shared_files_skipped 0.0" in text
    (path, _) = tmp_path.glob("inferkit_*.json")
    figures = json.loads(path.read_text())
    for wrong in ({"x": figures["cuda"]["0"]}, {"0": {}}, [], {"0": {**figures["cuda"]["0"], "activity": None}}):
        path.write_text(json.dumps({**figures, "cuda": wrong}))
        text = inferkit.metrics.exposition(directory=tmp_path)[0].decode()
        assert 'inferkit_cuda_graph_launches_total{device="0"} 3.0' in text, wrong
        assert "inferkit_shared_files_skipped 1.0" in text, wrong


@needs_driver
@pytest.mark.unsanitized("the tests' driver has no sanitizers")
def test_a_device_that_has_no_room_for_the_kernels_is_left_alone() -> None:
    done = over_the_driver(FULL_DEVICE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all ended\n"


def test_what_finds_no_time_is_not_passed(tmp_path: Path) -> None:
    done = run_all(tmp_path, tmp_path, SECONDS_IN_ALL="9")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {line["stage"]: line["state"] for line in lines(tmp_path / "stages.jsonl")}
    assert states["bits"] in ("not run", "cut off", "failed")
    assert "passed" not in done.stdout


PARTS = """
import numpy as np
from onnx import TensorProto, helper, numpy_helper

import inferkit

# Parts of what a run has made, of parts, and of an input; read in one step and in several, and given out.
def node(op, ins, outs, **attributes):
    return helper.make_node(op, ins, outs, **attributes)

def whole(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)

nodes = [
    node("Tanh", ["x"], ["t"]),
    node("Gather", ["t", "minus"], ["last"], axis=0),
    node("Gather", ["t", "one"], ["middle"], axis=0),
    node("Split", ["last", "halves"], ["a", "b"], axis=0),
    node("Slice", ["middle", "from", "to", "axis0"], ["rows"]),
    node("Slice", ["middle", "from", "to", "axis1"], ["columns"]),
    node("Relu", ["a"], ["ra"]),
    node("Add", ["ra", "b"], ["sum"]),
    node("Neg", ["rows"], ["n"]),
    node("Mul", ["n", "rows"], ["square"]),
    node("Concat", ["sum", "square", "rows"], ["all"], axis=0),
    node("Gather", ["x", "one"], ["of_input"], axis=0),
    node("Sigmoid", ["of_input"], ["s"]),
    node("Abs", ["middle"], ["size"]),
]
given = [whole("minus", -1), whole("one", 1), whole("axis0", [0]), whole("axis1", [1]), whole("halves", [4, 4]),
         whole("from", [2]), whole("to", [6])]
outputs = ["all", "t", "last", "b", "columns", "s", "size"]
for width in (16, 5):  # parts that begin as aligned as memory of their own, and others
    graph = helper.make_graph(
        nodes, "parts", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 8, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], given)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.random.default_rng(width).standard_normal((3, 8, width)).astype(np.float32)
    want = inferkit.Model.load(file).run({"x": x})
    model = inferkit.Model.load(file, device="cuda")
    for _ in range(2):
        got = model.run({"x": x})
        for name in outputs:
            assert got[name].tobytes() == want[name].tobytes(), (width, name)
    free = sum("no copy" in line for line in str(model.explain()).splitlines())
    assert free == {16: 4, 5: 1}[width], (width, str(model.explain()))
"""


@needs_driver
@pytest.mark.unsanitized("the tests' driver has no sanitizers")
def test_parts_of_a_tensor_are_read_where_they_lie() -> None:
    done = over_the_driver(PARTS)
    assert done.returncode == 0, done.stdout + done.stderr
