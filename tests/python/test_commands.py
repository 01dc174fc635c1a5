"""Every command and every block of code that the pages show is run by somebody."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import ELSEWHERE, HERE, LATER, NOT_RUN
from readme import COMMAND, commands, fences, files

ROOT = Path(__file__).resolve().parents[2]
LOGS = ("json-logs", "watch-loop")  # blocks that write to stderr, because they are about it
FENCES = {fence.name: fence for fence in fences() if fence.mark == "run" and fence.language == "python"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the commands need of a clone, and the files whose names stand for the reader's own."""
    for name in ("examples", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "examples" / "digits.onnx", tmp_path / "model.onnx")
    with np.load(ROOT / "examples" / "digits_test.npz") as held_out:
        np.savez(tmp_path / "data.npz", image=held_out["images"].astype(np.float32))
    return tmp_path


def test_every_command_is_run_by_somebody() -> None:
    known = Counter([*HERE, *LATER, *ELSEWHERE, *NOT_RUN])
    assert {c: page for c, page in commands().items() if c not in known} == {}, "say in commands.py what runs it"
    assert [c for c in known if c not in commands()] == [], "no page shows these any more"
    assert max(known.values()) == 1


def test_commands_are_recognised() -> None:
    assert len(commands()) > 20
    assert all(COMMAND.match(command) for command in commands()), "else it would not be found within a line"


def test_whoever_is_said_to_run_a_command_is_there() -> None:
    parts = re.findall(r"^part ([\w-]+) ", (ROOT / ".ci" / "full").read_text(), re.MULTILINE)
    assert "commands" in parts
    for command, where in ELSEWHERE.items():
        file, _, test = where.partition("::")
        if test:
            assert f"def {test}(" in (ROOT / "tests" / "python" / file).read_text(), command
        else:
            assert where in parts, command


def test_every_block_is_run_or_says_why_not() -> None:
    for fence in fences():
        if fence.language == "python" or fence.mark == "run":
            assert fence.mark == "run", f"{fence.page}: {fence.text}"
        elif fence.language != "bash":
            assert fence.mark == "shown", f"{fence.page}: {fence.text}"
    names = [fence.name for fence in fences() if fence.mark == "run"]
    assert len(names) == len(set(names))


DOCTOR = pytest.param("diagnose", marks=pytest.mark.unsanitized("the doctor does not call it good"))


@pytest.mark.parametrize("name", [DOCTOR if name == "diagnose" else name for name in sorted(FENCES)])
def test_block(name: str, clone: Path) -> None:
    """As it stands, from the repository's root, beside the files that its page shows."""
    fence = FENCES[name]
    kept = files(fence.page)
    for file, text in kept.items():
        (clone / file).write_text(text)
    script = fence.file or ("block.py" if "app.py" in kept else "app.py")
    text = fence.text.replace("start_http_server(9400)", "start_http_server(0)")  # whatever port is free
    (clone / script).write_text(text)
    for module in re.findall(r"^(?:import|from) (\w+)", text + "".join(kept.values()), re.MULTILINE):
        if not (clone / f"{module}.py").exists() and importlib.util.find_spec(module) is None:
            pytest.skip(f"the page tells its readers to install {module}")
    done = subprocess.run([sys.executable, script], cwd=clone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" or name in LOGS, done.stderr
    if name == "watch-loop":
        where = r"event loop held for \d+ ms by \S*/app\.py:7 in handler: time\.sleep\(0\.2\)\n"
        assert re.fullmatch(where, done.stdout), done.stdout


@pytest.mark.unsanitized("bench refuses to measure it, and the doctor to call it good")
@pytest.mark.parametrize("command", HERE)
def test_command(command: str, clone: Path) -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=clone,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    # The doctor exits with 1 where it only warns, as of a machine that is busy.
    assert done.returncode in ((0, 1) if " doctor " in command else (0,)), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout
