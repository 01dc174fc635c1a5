"""CUDA as far as a machine without a GPU shows it: what is compiled, what is said, and that importing asks nobody."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"

NO_DEVICE = pytest.mark.skipif(inferkit.cuda.is_available(), reason="there is a CUDA device here")


def test_the_reason_and_the_answer_agree() -> None:
    assert inferkit.cuda.is_available() == (inferkit.cuda.why_not() == "")


def test_a_device_that_nobody_has_is_not_available() -> None:
    assert not inferkit.cuda.is_available(9999)
    assert inferkit.cuda.why_not(9999)


@pytest.mark.parametrize("device", ["0", None, 1.5, -1, True])
def test_the_number_of_a_device_is_a_number(device: object) -> None:
    with pytest.raises((TypeError, ValueError), match="device"):
        inferkit.cuda.why_not(device)  # type: ignore[arg-type]


ABOUT_MEMORY = [inferkit.cuda.memory, inferkit.cuda.leaks, inferkit.cuda.trim, inferkit.cuda.activity]


@pytest.mark.parametrize("ask", ABOUT_MEMORY)
@pytest.mark.parametrize("device", ["0", None, 1.5, -1, True])
def test_the_memory_of_what_is_no_device_is_asked_for(ask: Callable[..., object], device: object) -> None:
    with pytest.raises((TypeError, ValueError), match="device"):
        ask(device)


@pytest.mark.parametrize("ask", ABOUT_MEMORY)
def test_a_device_that_nobody_has_has_no_memory(ask: Callable[..., object]) -> None:
    with pytest.raises(inferkit.DeviceError, match="leave device out"):
        ask(9999)
    with pytest.raises(inferkit.DeviceError, match="leave device out"):
        inferkit.cuda.limit_memory(None, 9999)


@pytest.mark.parametrize("most", [0, -1, 255, "1", 2.5, True])
def test_a_cap_is_a_number_of_bytes(most: object) -> None:
    with pytest.raises((TypeError, ValueError), match="max_bytes"):
        inferkit.cuda.limit_memory(most)  # type: ignore[arg-type]


def test_what_is_compiled_is_said() -> None:
    build = inferkit.build_info()
    assert build["cuda"] == bool(build["cuda_targets"])
    if build["cuda"]:
        assert build["cuda_targets"] == ["sm_80", "sm_90", "sm_100", "ptx"]
    else:
        assert "nvcc" in inferkit.cuda.why_not()


@NO_DEVICE
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
@pytest.mark.parametrize("source", ["path", "bytes"])
def test_a_model_for_a_device_that_is_not_there_says_why_and_what_to_do(device: str, source: str) -> None:
    model = DIGITS if source == "path" else DIGITS.read_bytes()
    with pytest.raises(inferkit.DeviceError) as caught:
        inferkit.Model.load(model, device=device)
    number = int(device.partition(":")[2] or 0)
    assert str(caught.value) == f'{inferkit.cuda.why_not(number)}; leave device out, or give "cpu", to run on the CPU'
    assert caught.value.http_status == 503


def test_the_cpu_is_the_device_of_a_model_that_names_none() -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    model = inferkit.Model.load(DIGITS, device="cpu")
    np.testing.assert_array_equal(model(x), inferkit.Model.load(DIGITS)(x))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(x), model(x))
    assert {step.device for step in model.explain().steps} == {"cpu"}


@pytest.mark.parametrize("device", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:99999", "cuda1"])
def test_another_name_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:" and a number, got'):
        inferkit.Model.load(DIGITS, device=device)


def test_a_device_of_a_library_is_taken_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfTorch:
        def __str__(self) -> str:
            return "cpu"

    class OfCupy:
        id = 99998

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(device=OfTorch))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(Device=OfCupy)))
    assert inferkit.Model.load(DIGITS, device=OfTorch()).explain().steps[0].device == "cpu"
    with pytest.raises(ValueError, match="cuda:99998"):
        inferkit.Model.load(DIGITS, device=OfCupy())
    # Modules of these names that are something else, or are being imported.
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert inferkit.Model.load(DIGITS, device="cpu").explain().steps[0].device == "cpu"
    with pytest.raises(TypeError, match="device"):
        inferkit.Model.load(DIGITS, device=OfTorch())


@pytest.mark.parametrize("device", [None, 0, b"cpu"])
def test_a_device_is_named_by_a_str(device: object) -> None:
    with pytest.raises(TypeError, match="device"):
        inferkit.Model.load(DIGITS, device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize("fallback", ["", "CPU", "cuda", "none"])
def test_the_cpu_is_the_one_fallback(fallback: str) -> None:
    with pytest.raises(ValueError, match='fallback must be "cpu" or None, got'):
        inferkit.Model.load(DIGITS, fallback=fallback)


@pytest.mark.parametrize("fallback", [True, 0, b"cpu"])
def test_a_fallback_is_named_by_a_str(fallback: object) -> None:
    with pytest.raises(TypeError, match="fallback"):
        inferkit.Model.load(DIGITS, fallback=fallback)  # type: ignore[arg-type]


def test_a_model_on_the_cpu_needs_no_fallback() -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    model = inferkit.Model.load(DIGITS, fallback="cpu")
    np.testing.assert_array_equal(model(x), inferkit.Model.load(DIGITS)(x))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(x), model(x))
    assert {step.fallback for step in model.explain().steps} == {""}


def test_importing_and_running_on_the_cpu_open_no_driver(fresh_python: Fresh) -> None:
    done = fresh_python(f"""
import numpy as np, inferkit, inferkit.cuda
inferkit.Model.load({str(DIGITS)!r})(np.zeros(64, np.float32))
inferkit.build_info()
with open("/proc/self/maps") as maps:
    assert "libcuda" not in maps.read()
""")
    assert done.returncode == 0, done.stderr


def test_no_library_of_cuda_is_linked() -> None:
    needed = subprocess.run(["ldd", inferkit._core.__file__], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed
    assert "cuda" not in needed


@pytest.mark.parametrize("name", ["packed", "packed_cache"])
def test_packed_files_are_for_the_cpu(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packed and packed_cache are for models on the CPU"):
        inferkit.Model.load(DIGITS, device="cuda", **{name: tmp_path / "place"})  # type: ignore[arg-type]
    assert not (tmp_path / "place").exists()
