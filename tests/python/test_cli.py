"""The command line: exit codes, one clear line where something is wrong, JSON, and text with and without rich."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit
from inferkit._cli import bench, main
from inferkit._cli._out import Out, bytes_text, plain_table
from inferkit.diagnostics import Check, Report

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
Capture = pytest.CaptureFixture[str]
BENCH = pytest.param("bench", marks=pytest.mark.unsanitized("bench refuses it"))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERKIT_PLAIN", "1")


def model_file(tmp_path: Path, *nodes: onnx.NodeProto, domain: str = "") -> Path:
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        list(nodes),
        "cli",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


# info and inspect


def test_info(capsys: Capture) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["build"] == inferkit.build_info()
    assert facts["numpy"] == np.__version__
    assert facts["extras"]["onnxruntime"]
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert inferkit.build_info()["isa"] in text
    assert "onnxruntime" in text


def test_inspect(capsys: Capture, digits_path: Path) -> None:
    assert main(["inspect", str(digits_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    truth = onnx.load(digits_path)
    kinds = [node.op_type for node in truth.graph.node]
    assert {op["name"]: op["nodes"] for op in facts["operators"]} == {k: kinds.count(k) for k in kinds}
    assert facts["parameters"] == sum(np.prod(t.dims, dtype=int) for t in truth.graph.initializer)
    assert facts["inputs"] == [{"name": "image", "dtype": "float32", "shape": [None, 64], "made_by": None}]
    assert facts["outputs"][0]["made_by"] == "Softmax"
    assert facts["opsets"] == {o.domain: o.version for o in truth.opset_import}
    assert facts["file_bytes"] == digits_path.stat().st_size
    assert facts["runs"]
    assert facts["missing"] == []
    assert main(["inspect", str(digits_path)]) == 0
    text = capsys.readouterr().out
    for word in ("probabilities", "[*, 64]", "Gemm", "float32", "inferkit can run it"):
        assert word in text


def test_inspect_lists_what_is_missing(capsys: Capture, tmp_path: Path) -> None:
    path = model_file(
        tmp_path,
        helper.make_node("Frobnicate", ["x"], ["a"], domain="acme"),
        helper.make_node("Grumble", ["a"], ["y"], domain="acme"),
        domain="acme",
    )
    assert main(["inspect", str(path), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert not facts["runs"]
    assert len(facts["missing"]) == 2
    assert "Frobnicate" in facts["problem"]
    assert main(["inspect", str(path)]) == 1
    text = capsys.readouterr().out
    assert "cannot run it" in text
    assert "Frobnicate" in text
    assert "Grumble" in text


def test_inspect_names_what_cuda_lacks(capsys: Capture, tmp_path: Path, digits_path: Path) -> None:
    path = model_file(
        tmp_path,
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Shrink", ["a"], ["b"], name="wave"),
        helper.make_node("Tanh", ["b"], ["y"]),
    )
    assert main(["inspect", str(path), "--device", "cuda", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"]
    assert facts["cuda"]["nodes"] == 3
    assert facts["cuda"]["lacks"] == [
        {"operator": "Shrink", "name": "wave", "why": "it has no lowering for the device 'cuda'"}
    ]
    assert main(["inspect", str(path), "--device", "cuda"]) == 1
    text = capsys.readouterr().out
    for word in ("CUDA lacks (1 of 3 nodes after fusions)", "wave", "fallback='cpu'"):
        assert word in text
    assert main(["inspect", str(path)]) == 0
    assert "CUDA" not in capsys.readouterr().out
    assert main(["inspect", str(digits_path), "--device", "cuda"]) == 0
    assert "CUDA has a lowering for all of it" in capsys.readouterr().out


# what is wrong with the command line or the file


def one_line(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("inferkit: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", ["inspect", "explain", "doctor", BENCH])
def test_no_such_file(capsys: Capture, tmp_path: Path, command: str) -> None:
    path = tmp_path / "nothing.onnx"
    assert main([command, str(path)]) == 3
    error = one_line(capsys)
    assert str(path) in error
    assert "No such file" in error


@pytest.mark.parametrize("command", ["inspect", "explain", "doctor", BENCH])
@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage" * 50], ids=["empty", "garbage"])
def test_broken_file(capsys: Capture, tmp_path: Path, command: str, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert main([command, str(path)]) == 3
    assert str(path) in one_line(capsys)


@pytest.mark.parametrize("command", ["inspect", "explain", "doctor", BENCH])
def test_a_folder(capsys: Capture, tmp_path: Path, command: str) -> None:
    assert main([command, str(tmp_path)]) == 3
    assert str(tmp_path) in one_line(capsys)


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["doctor"], ["doctor", "m.onnx", "--seconds", "soon"], ["bench", "m", "--batch", "0"]],
)
def test_wrong_command_line(capsys: Capture, arguments: list[str]) -> None:
    """argparse's own exit code, 2, would say that a check failed."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 3
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["bench", "m", "--batch", "a"],
            "argument --batch: expected whole numbers of at least 1, as in 1,8,64; got 'a'",
        ),
        (["bench", "m", "--concurrency", "1,0"], "argument --concurrency: expected whole numbers of at least 1"),
        (["bench", "m", "--threads", "-1"], "argument --threads: expected a whole number of at least 0, got '-1'"),
        (["doctor", "m", "--workers", "0"], "argument --workers: expected a whole number between 1 and 1024, got '0'"),
        (["doctor", "m", "--max-batch-size", "x"], "argument --max-batch-size: expected a whole number of at least 1"),
    ],
)
def test_a_wrong_option_is_named(capsys: Capture, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 3
    assert words in capsys.readouterr().err


def test_pack_where_nothing_can_be_written(capsys: Capture, tmp_path: Path, digits_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/folder")):
        assert main(["pack", str(digits_path), "--cache", str(folder)]) == 3
        assert capsys.readouterr().err.startswith(f"inferkit: no packed file could be written: {folder}")


def test_help(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("doctor", "inspect", "bench", "top", "info"))


def test_help_of_each_command(capsys: Capture) -> None:
    for command in ("doctor", "inspect", "explain", "pack", "bench", "top", "info"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert "Exit code 0" in text or command == "top"
        assert "``" not in text


@pytest.mark.parametrize("command", ["doctor", "explain", "pack", BENCH])
def test_a_list_of_what_is_missing_has_a_line_for_each(capsys: Capture, tmp_path: Path, command: str) -> None:
    nodes = [helper.make_node(kind, ["x"], ["y"], domain="foo") for kind in ("Nope", "No\nr")]
    nodes[0].output[0] = "x1"
    nodes[1].input[0] = "x1"
    assert main([command, str(model_file(tmp_path, *nodes, domain="foo"))]) == 3
    first, *items = capsys.readouterr().err.splitlines()
    assert first.endswith("does not support (2):")
    assert [item.partition(" (")[0] for item in items] == [r"  - operator foo.No\nr", "  - operator foo.Nope"]


def test_as_a_module(fresh_python: Fresh, digits_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['inferkit', *sys.argv[1:]]; runpy.run_module('inferkit', run_name='__main__')"
    )
    done = fresh_python(code, "inspect", str(digits_path))
    assert done.returncode == 0, done.stderr
    assert "Gemm" in done.stdout
    done = fresh_python(code, "inspect", "nothing.onnx")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr


@pytest.mark.unsanitized("bench refuses it")
def test_ctrl_c(digits_path: Path) -> None:
    command = [sys.executable, "-m", "inferkit", "bench", str(digits_path), "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            time.sleep(3)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "stopped" in errors


def test_ctrl_c_before_numpy_is_there(tmp_path: Path, fresh_python: Fresh) -> None:
    """`python -m inferkit` imports the package, and numpy with it, before it comes to any code of the command line."""
    numpy = tmp_path / "numpy"
    numpy.mkdir()
    (numpy / "__init__.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    as_module = "os.execv(sys.executable, [sys.executable, '-m', 'inferkit', 'info'])"
    as_script = (
        "sys.argv = [os.path.join(os.path.dirname(sys.executable), 'inferkit'), 'info']; import inferkit.__main__"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for start in (as_module, as_script):
        # A job of a shell may have Ctrl-C ignored.
        code = f"import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); {start}"
        done = fresh_python(code, env={"PYTHONPATH": path})
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_ctrl_c_is_a_programs_own_affair(fresh_python: Fresh) -> None:
    """Only the command line sets a handler."""
    for told in ("", "sys.argv = ['-m', *sys.argv]", "sys.argv = ['inferkit']", "sys.argv = []"):
        code = f"import signal, sys; {told}\nimport inferkit\nprint(signal.getsignal(signal.SIGINT))"
        assert fresh_python(code).stdout.count("_stop") == 0, told
        assert fresh_python(code, "inferkit").stdout.count("_stop") == 0, told


CTRL_C_AT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import inferkit
at, lost = sys.argv[1], sys.argv[2] == "lost"
class CtrlC:
    def find_spec(self, name, *_):
        if name == at:
            try:
                if at == "inferkit._cli":
                    os.kill(os.getpid(), signal.SIGINT)
                exec("os.kill(os.getpid(), signal.SIGINT)")
            except KeyboardInterrupt:
                if not lost:
                    raise
sys.meta_path.insert(0, CtrlC())
sys.argv[1:] = ["info"]
import runpy
runpy.run_module("inferkit", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "how"),
    [("inferkit._cli.doctor", "lost"), ("inferkit._cli.doctor", "raised"), ("inferkit._cli", "raised")],
)
def test_ctrl_c_while_it_imports(tmp_path: Path, module: str, how: str) -> None:
    """Where C code loses the exception, too, and where it passes exec(), after which `python -m` ends by the signal."""
    (tmp_path / "with_ctrl_c.py").write_text(CTRL_C_AT)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "with_ctrl_c", module, how]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_what_needs_too_much_memory_is_one_line(
    capsys: Capture, digits_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> int:
        return len(np.zeros(1 << 60, np.int8))

    monkeypatch.setattr(importlib.import_module("inferkit._cli.inspect"), "gather", fails)
    assert main(["inspect", str(digits_path)]) == 3
    assert "out of memory" in one_line(capsys)


@pytest.mark.parametrize("command", ["doctor", BENCH])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_wrong_seconds(capsys: Capture, digits_path: Path, command: str, seconds: str) -> None:
    assert main([command, str(digits_path), f"--seconds={seconds}"]) == 3
    assert "--seconds must be a" in one_line(capsys)


def test_an_archive_of_broken_arrays(capsys: Capture, tmp_path: Path, digits_path: Path) -> None:
    path = tmp_path / "broken.npz"
    np.savez(path, image=np.ones((3, 64), np.float32))
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF  # in the array; the archive's directory is whole
    path.write_bytes(content)
    assert main(["doctor", str(digits_path), "--input", str(path)]) == 3
    assert "not an .npz" in one_line(capsys)


@pytest.mark.parametrize("rich", [False, True])
def test_a_reader_that_leaves(digits_path: Path, monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    if rich:
        pytest.importorskip("rich")
        monkeypatch.delenv("INFERKIT_PLAIN")
    command = [sys.executable, "-m", "inferkit", "inspect", str(digits_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == ""
    assert process.returncode == 0


def in_a_shell(command: str, *arguments: str, buffered: bool = True) -> tuple[int, str, str]:
    """Run `inferkit` with redirections of its standard streams."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments],
        env=environment if buffered else {**environment, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("rich", [False, True])
def test_standard_output_that_is_closed(digits_path: Path, monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    if rich:
        pytest.importorskip("rich")
        monkeypatch.delenv("INFERKIT_PLAIN")
    closed = (3, "", "inferkit: standard output is closed\n")
    for command in ("inspect", "explain", "doctor", "bench", "pack"):
        assert in_a_shell('"$0" -m inferkit "$@" >&-', command, str(digits_path)) == closed
    for arguments in (["explain", str(digits_path), "--json"], ["info"], ["top"], ["--help"], ["explain", "--help"]):
        assert in_a_shell('"$0" -m inferkit "$@" >&-', *arguments) == closed
    assert in_a_shell('"$0" -m inferkit "$@" >&- 2>&-', "info") == (3, "", "")
    assert not digits_path.with_name(digits_path.name + ".packed").exists()


def test_standard_error_that_is_closed(tmp_path: Path) -> None:
    """Then print() would write what is wrong to standard output."""
    assert in_a_shell('"$0" -m inferkit "$@" 2>&-', "explain", str(tmp_path / "nothing.onnx")) == (3, "", "")
    assert in_a_shell('"$0" -m inferkit "$@" 2>&-', "frobnicate") == (3, "", "")


@pytest.mark.parametrize("buffered", [False, True])
def test_a_disk_that_is_full(digits_path: Path, buffered: bool) -> None:
    for arguments in (["explain", str(digits_path)], ["info", "--json"], ["--help"]):
        code, _, errors = in_a_shell('"$0" -m inferkit "$@" > /dev/full', *arguments, buffered=buffered)
        assert (code, errors) == (3, "inferkit: No space left on device\n")


@pytest.mark.parametrize("command", ["inspect", "explain", "doctor", BENCH, "pack"])
def test_an_empty_path(capsys: Capture, command: str) -> None:
    assert main([command, ""]) == 3
    assert "inferkit: '': No such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "doctor", BENCH])
def test_inputs_of_other_kinds(capsys: Capture, tmp_path: Path, digits_path: Path, command: str) -> None:
    """What numpy says of them is how to load them with pickle."""
    np.save(tmp_path / "objects.npy", np.array([{}, None], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", image=np.array([{}, None], object))
    with zipfile.ZipFile(tmp_path / "archive.npz", "w") as archive:
        archive.writestr("image", b"pixels")
    for name, problem in (
        (digits_path, "not an .npz or .npy file\n"),
        (tmp_path / "objects.npy", "holds an array of Python objects"),
        (tmp_path / "objects.npz", "holds an array of Python objects"),
        (tmp_path / "archive.npz", "'image' in it is no array"),
        ("", "'': No such file"),
    ):
        assert main([command, str(digits_path), "--input", str(name)]) == 3
        error = one_line(capsys)
        assert problem in error
        assert "pickle" not in error


# doctor


def test_doctor(capsys: Capture, digits_path: Path) -> None:
    code = main(["doctor", str(digits_path), "--seconds", "0.2", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == report["exit_code"]
    assert {check["step"] for check in report["checks"]} == set(range(1, 8))
    assert {"name", "status", "figure", "why", "remedy", "step_name"} <= set(report["checks"][0])


@pytest.mark.parametrize("status", ["pass", "warn", "fail"])
@pytest.mark.parametrize("rich", [False, True])
def test_doctor_prints_and_exits(
    capsys: Capture, digits_path: Path, monkeypatch: pytest.MonkeyPatch, status: Any, rich: bool
) -> None:
    if rich:
        pytest.importorskip("rich")
        monkeypatch.delenv("INFERKIT_PLAIN")
    check = Check(step=7, name="RSS [stable]", status=status, figure="a [figure]", why="it matters", remedy="do that")
    report = Report(subject="<the model>", checks=(check,), seconds=1.0)
    monkeypatch.setattr("inferkit.diagnostics._diagnose.examine", lambda *args, **kwargs: report)
    assert main(["doctor", str(digits_path)]) == {"pass": 0, "warn": 1, "fail": 2}[status]
    text = capsys.readouterr().out
    assert "<the model>" in text
    assert "7. Memory health" in text
    assert "RSS [stable]: a [figure]" in text
    assert ("it matters" in text) == ("do that" in text) == (status != "pass")
    assert "\033" not in text


def test_doctor_with_inputs(capsys: Capture, tmp_path: Path, digits: tuple[np.ndarray, Any], digits_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, image=digits[0][:40])
    code = main(["doctor", str(digits_path), "--input", str(data), "--seconds", "0.1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code in (0, 1, 2)
    assert next(c for c in report["checks"] if c["name"] == "'probabilities' is finite")["status"] == "pass"


@pytest.mark.parametrize("command", ["doctor", BENCH])
@pytest.mark.parametrize("kind", ["missing", "garbage", "names", "nan"])
def test_wrong_inputs(capsys: Capture, tmp_path: Path, digits_path: Path, command: str, kind: str) -> None:
    data = tmp_path / "data.npz"
    if kind == "garbage":
        data.write_bytes(b"no archive")
    elif kind == "names":
        np.savez(data, picture=np.zeros((2, 64), np.float32))
    elif kind == "nan":
        np.savez(data, image=np.full((2, 64), np.nan, np.float32))
    assert main([command, str(digits_path), "--input", str(data)]) == 3
    error = one_line(capsys)
    assert {"missing": "No such file", "garbage": "not an .npz", "names": "picture", "nan": "NaN"}[kind] in error


def test_doctor_finds_a_broken_model(tmp_path: Path, capsys: Capture) -> None:
    path = model_file(tmp_path, helper.make_node("Log", ["x"], ["y"]))
    assert main(["doctor", str(path), "--seconds", "0.1"]) == 2
    assert "fail  'y' is finite" in capsys.readouterr().out


# bench

QUICK = ["--seconds", "0.03", "--batch", "1,4", "--concurrency", "1,4"]


@pytest.mark.unsanitized("bench refuses it")
def test_bench(capsys: Capture, digits_path: Path) -> None:
    assert main(["bench", str(digits_path), *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [line["batch"] for line in found["direct"]] == [1, 4]
    assert [line["clients"] for line in found["batched"]] == [1, 4]
    assert found["compared_with"].startswith("onnxruntime")
    for line in found["direct"]:
        for engine in ("inferkit", "onnxruntime"):
            assert 0 < line[engine]["p50_us"] <= line[engine]["p99_us"]
            assert line[engine]["rows_per_second"] > 0
    assert found["answers_checked"] > 10
    assert found["wrong"] == []


@pytest.mark.unsanitized("bench refuses it")
def test_bench_where_all_rows_share_an_input(capsys: Capture, tmp_path: Path) -> None:
    text = "g (float[n, 4] x, float k) => (float[n, 4] y) { y = Mul(x, k) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "in.npz", x=np.ones((9, 4), np.float32), k=np.float32(2))
    for more in ([], ["--input", str(tmp_path / "in.npz")]):
        assert main(["bench", str(tmp_path / "m.onnx"), *more, *QUICK, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [line["batch"] for line in found["direct"]] == [1, 4]
        assert found["compared_with"].startswith("onnxruntime")
        assert found["answers_checked"] > 10
        assert found["wrong"] == []


@pytest.mark.parametrize(("threads", "words"), [("0", "all threads"), ("1", "1 thread"), ("2", "2 threads")])
def test_bench_says_how_many_threads(capsys: Capture, threads: str, words: str) -> None:
    build = {"isa": "avx2", "compiler": "gcc"}
    found = {"compared_with": None, "direct": [], "batched": [], "wrong": [], "answers_checked": 0, "build": build}
    bench.show({**found, "threads": int(threads)}, Out(plain=True))
    assert f"direct calls, {words}, avx2, gcc\n" in capsys.readouterr().out


@pytest.mark.unsanitized("bench refuses it")
def test_bench_prints(capsys: Capture, digits_path: Path) -> None:
    assert main(["bench", str(digits_path), *QUICK]) == 0
    text = capsys.readouterr().out
    assert "x as fast" in text
    assert "answers checked" in text
    assert main(["bench", str(digits_path), *QUICK, "--alone"]) == 0
    assert "onnxruntime" not in capsys.readouterr().out


def test_bench_refuses_a_debug_build(capsys: Capture, digits_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {**inferkit.build_info(), "debug": True, "build_type": "Debug"}
    monkeypatch.setattr("inferkit._cli.bench.build_info", lambda: info)
    assert main(["bench", str(digits_path), *QUICK]) == 3
    assert "Debug build" in one_line(capsys)


@pytest.mark.unsanitized("bench refuses it")
def test_bench_finds_wrong_answers(capsys: Capture, digits_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inferkit._cli import _measure

    inner = _measure.OnnxRuntime.__call__
    monkeypatch.setattr(
        _measure.OnnxRuntime, "__call__", lambda self, feeds: lambda: [a + 0.01 for a in inner(self, feeds)()]
    )
    assert main(["bench", str(digits_path), *QUICK]) == 2
    assert "WRONG ANSWERS" in capsys.readouterr().out


def classifier(tmp_path: Path, labels: list[Any]) -> Path:
    """As scikit-learn's are exported: labels, and a map from class to probability for each row."""
    name = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    rng = np.random.default_rng(0)
    weights = onnx.numpy_helper.from_array(rng.standard_normal((2, len(labels))).astype(np.float32), "w")
    value = helper.make_tensor_value_info
    key = TensorProto.STRING if isinstance(labels[0], str) else TensorProto.INT64
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["p"]),
            helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
            helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", **{name: labels}),
        ],
        "classifier",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("label", TensorProto.INT64, ["n"]), helper.make_value_info("maps", maps)],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "classifier.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.unsanitized("bench refuses it")
@pytest.mark.parametrize("labels", [[0, 1, 2], [7, -3, 5], ["a", "b"], ["z", "b", "é", "a"]], ids=str)
def test_bench_on_maps(capsys: Capture, tmp_path: Path, labels: list[Any]) -> None:
    """ONNX Runtime sorts the keys of its maps; our columns are in the model's order."""
    path = classifier(tmp_path, labels)
    assert main(["bench", str(path), *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared_with"].startswith("onnxruntime")
    assert found["wrong"] == []


@pytest.mark.unsanitized("bench refuses it")
def test_bench_finds_wrong_maps(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inferkit._cli import _measure

    inner = _measure.OnnxRuntime.answer

    def swapped(self: Any, feeds: Any) -> Any:
        answer = inner(self, feeds)
        return {**answer, "maps": [{**row, 0: row[1], 1: row[0]} for row in answer["maps"]]}

    monkeypatch.setattr(_measure.OnnxRuntime, "answer", swapped)
    assert main(["bench", str(classifier(tmp_path, [0, 1, 2])), *QUICK]) == 2
    text = capsys.readouterr().out
    assert "WRONG ANSWERS" in text
    assert "'maps' differs in 2 of 3 elements, the worst at [0, " in text


@pytest.mark.unsanitized("bench refuses it")
def test_bench_on_what_is_not_finite(capsys: Capture, tmp_path: Path) -> None:
    path = model_file(tmp_path, helper.make_node("Log", ["x"], ["y"]))
    assert main(["bench", str(path), *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == []


@pytest.mark.unsanitized("bench refuses it")
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_bench_draws(tmp_path: Path, capsys: Capture, digits_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{kind}"
    assert main(["bench", str(digits_path), *QUICK, "--plot", str(path)]) == 0
    assert path.stat().st_size > 5000
    capsys.readouterr()
    assert main(["bench", str(digits_path), *QUICK, "--plot", str(tmp_path / "plot.exe")]) == 3
    assert "exe" in capsys.readouterr().err


# what it prints with


def test_plain_table() -> None:
    assert plain_table(["name", ">n"], [["a", "1"], ["long", "10"]], "title") == [
        "title",
        "name   n",
        "----  --",
        "a      1",
        "long  10",
    ]
    table = ["name", ">n", "shape", ">bytes"], [["long name", "1", "[1, 2]", "10"], ["b", "2", "", "200"]]
    assert plain_table(*table, width=15) == [
        "name       n",
        "  shape   bytes",
        "---------  -",
        "  ------  -----",
        "long name  1",
        "  [1, 2]     10",
        "b          2",
        "            200",
    ]


@pytest.mark.parametrize("width", [200, 80, 60, 20, 1, 0])
@pytest.mark.parametrize("without_rich", ["", "1"])
def test_no_terminal_is_too_narrow(width: int, without_rich: str) -> None:
    """Text may be folded, and rows broken between columns; numbers are whole."""
    pytest.importorskip("rich")
    rows = [["7", "a_name_of_many_letters/" * 4, "float32[1, 2, 3, 4]", "123.4 KiB", "0.0123 us"]]
    table = f"Out().table(['>step', 'name', 'output', '>read', '>estimated'], {rows}, title={'a title ' * 20!r})"
    environment = {"COLUMNS": str(width), "TERM": "xterm", "INFERKIT_PLAIN": without_rich}
    title, *lines = on_a_terminal(["-c", f"from inferkit._cli._out import Out\n{table}"], environment).splitlines()
    assert title.rstrip() == ("a title " * 20).rstrip()
    for word in ("step", "name", "output", "read", "estimated", " 7", "123.4 KiB", "0.0123 us"):
        assert any(word in line for line in lines)
    drawn = any("─" in line for line in lines)
    assert drawn == (not without_rich and width in (200, 80, 0))
    if drawn:
        assert all(len(line) <= (width or 80) for line in lines)


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """Run Python, and give what it writes, without colours."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **environment}
    ) as process:
        os.close(theirs)
        content = bytearray()
        with contextlib.suppress(OSError):  # when it has ended
            while part := os.read(ours, 1 << 16):
                content += part
        os.close(ours)
    assert process.returncode == 0, content.decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", content.decode()).replace("\r", "")


def test_rich_does_not_read_markup(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("INFERKIT_PLAIN")
    out = Out()
    out.line("[red]line[/red]")
    out.table(["a"], [["[bold]cell"]])
    out.facts([("name", "[*, 64]")])
    text = capsys.readouterr().out
    assert all(word in text for word in ("[red]line[/red]", "[bold]cell", "[*, 64]"))


def test_bytes() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1024, -2048, 5 << 20, 3 << 30)] == [
        "0 B", "1023 B", "1.0 KiB", "-2.0 KiB", "5.0 MiB", "3.00 GiB",
    ]  # fmt: skip
