"""What ``import inferkit`` brings along. Its time is a benchmark's matter; what costs time is what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]

# Modules of the standard library that importing inferkit may add to what numpy has imported already.
ALLOWED = {
    "__future__",
    "atexit",
    "dataclasses",
    "inspect",
    "copy",
    "dis",
    "opcode",
    "_opcode",
    "ast",
    "_ast",
    "linecache",
}
if sys.version_info < (3, 11):  # what inspect is made of: the newest numpy for Python 3.10 does not bring it
    ALLOWED |= {
        "importlib",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "importlib.machinery",
        "token",
        "tokenize",
    }
EXTRAS = {
    "asyncio", "concurrent", "ssl", "socket", "selectors", "logging", "importlib.metadata", "http", "urllib.request",
    "onnx", "onnxruntime", "torch", "sklearn", "safetensors", "uvloop", "cupy", "prometheus_client", "opentelemetry",
}  # fmt: skip

PROBE = """
import json, sys, numpy
before = set(sys.modules)
import inferkit
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def added(fresh_python: Fresh) -> set[str]:
    done = fresh_python(PROBE)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_imports_only_itself_and_what_is_cheap(fresh_python: Fresh) -> None:
    foreign = {name for name in added(fresh_python) if name.split(".")[0] != "inferkit"}
    assert foreign <= ALLOWED, sorted(foreign - ALLOWED)


def test_imports_no_extra(fresh_python: Fresh) -> None:
    assert not {name for name in added(fresh_python) if name in EXTRAS or name.split(".")[0] in EXTRAS}


def test_the_core_is_loaded_once(fresh_python: Fresh) -> None:
    assert "inferkit._core" in added(fresh_python)


def test_starts_no_thread(fresh_python: Fresh) -> None:
    """A fork right after the import must find one thread, and idle programs must pay for none."""
    count = "import os, sys; print(len(os.listdir('/proc/self/task')))"
    done = fresh_python(f"import numpy; {count}; import inferkit; {count}")
    before, after = done.stdout.split()
    assert before == after, done.stderr


def test_import_is_quiet(fresh_python: Fresh) -> None:
    done = fresh_python("import inferkit")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    if not json.loads(fresh_python("import inferkit, json; print(json.dumps(inferkit.build_info()['debug']))").stdout):
        assert done.stderr == ""


def test_type_marker_is_installed() -> None:
    from importlib import resources

    assert resources.files("inferkit").joinpath("py.typed").is_file()
    assert resources.files("inferkit").joinpath("_core.pyi").is_file()


def test_imports_in_any_thread(fresh_python: Fresh) -> None:
    done = fresh_python(
        "import threading; t = threading.Thread(target=__import__, args=['inferkit']); t.start(); t.join()"
    )
    assert done.returncode == 0, done.stderr


def test_python_is_supported() -> None:
    assert sys.version_info >= (3, 10)


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if sys.argv[1] == "main first":
    import inferkit
code = '''
try:
    import inferkit
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(interpreters.create(), code)
"""


@pytest.mark.parametrize("order", ["main first", "sub first"])
def test_a_subinterpreter_is_told_what_to_do(order: str, fresh_python: Fresh) -> None:
    """It would wait for ever for what the main interpreter's GIL guards."""
    done = fresh_python(SUBINTERPRETER, order, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "import it in the main interpreter" in done.stdout
    assert "WSGIApplicationGroup %{GLOBAL}" in done.stdout


@pytest.mark.parametrize("change", ["del sys.argv", "sys.argv = []", "sys.executable = None", "sys.executable = ''"])
def test_a_program_that_embeds_python_may_lack_arguments_and_executable(fresh_python: Fresh, change: str) -> None:
    done = fresh_python(f"import sys; {change}; import inferkit; print(inferkit.build_info()['debug'])")
    assert done.stdout == "False\n", done.stderr
