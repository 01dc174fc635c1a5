"""asv finds the suite of benchmarks/ by itself, and all of it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("asv", reason="needs asv")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose asv keeps its files to itself, as on a machine that it does not know."""
    folder = tmp_path_factory.mktemp("asv")
    (folder / "benchmarks").mkdir()
    for path in (ROOT / "benchmarks").iterdir():
        (folder / "benchmarks" / path.name).symlink_to(path)
    assert asv(folder, "machine", "--yes").returncode == 0
    return folder


def asv(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asv", *arguments],
        cwd=folder / "benchmarks",
        # asv takes PYTHONPATH away from what it runs, unless it comes by this name.
        env={**os.environ, "HOME": str(folder), "ASV_PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_asv_finds_every_file_of_the_suite(suite: Path) -> None:
    done = asv(suite, "run", "--python=same", "--bench", "just-discover")
    assert done.returncode == 0, done.stdout + done.stderr
    done = asv(suite, "check", "--python=same")
    assert done.returncode == 0, done.stdout + done.stderr
    found = (suite / ".asv" / "results" / "benchmarks.json").read_text()
    for path in (ROOT / "benchmarks" / "suite").glob("[a-z]*.py"):
        assert f'"{path.stem}.' in found, path.name


@pytest.mark.unsanitized("benchmarks refuse to measure it")
def test_the_suite_runs(suite: Path) -> None:
    """All of it once, but for the longest, of which one case."""
    chosen = ("--bench", "^(?!tracing)", "--bench", r"tracing\.track_share\('one thread, MLP 4-16-3'\)")
    done = asv(suite, "run", "--python=same", "--quick", "--show-stderr", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout, done.stdout
    names = json.loads((suite / ".asv" / "results" / "benchmarks.json").read_text()).keys() - {"version"}
    for kind in ("time_", "peakmem_", "track_"):
        assert any(kind in name for name in names), names
    for name in names:
        assert re.search(rf"{re.escape(name)} +\S", done.stdout), f"{name} did not run: {done.stdout}"
