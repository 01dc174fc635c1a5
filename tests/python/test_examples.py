"""The examples run, and say what they should; the pages' code is test_commands.py's."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from readme import blocks, fences

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the example needs {module}")


def test_quickstart(fresh_python: Fresh) -> None:
    done = fresh_python(EXAMPLES / "quickstart.py", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"all [\d,]+ answers equal the unbatched ones, bit for bit", done.stdout)
    accuracy = re.search(r"accuracy (\d\.\d+) on 450 images", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) > 0.97
    for figure in ("threads", "asyncio", "requests/s", "p50", "p99", "mean batch"):
        assert figure in done.stdout


def test_quickstart_fails_where_an_answer_differs(fresh_python: Fresh) -> None:
    """One bit of one answer is enough."""
    code = f"""
import sys; sys.path.insert(0, {str(EXAMPLES)!r}); sys.argv = ["quickstart.py", "--seconds", "0.3"]
import numpy as np, quickstart
inner = quickstart.Traffic.take
def take(self, index, answer):
    if index == 7:
        answer = answer.copy(); answer.view(np.int32)[0] ^= 1
    inner(self, index, answer)
quickstart.Traffic.take = take
sys.exit(quickstart.main())
"""
    done = fresh_python(code)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differ from the unbatched ones" in done.stderr


def test_quickstart_stops_at_once_on_ctrl_c() -> None:
    command = [sys.executable, "-u", str(EXAMPLES / "quickstart.py"), "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.readline()
            time.sleep(0.5)  # it is sending requests by now; if not, Ctrl-C must work all the same
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "stopped" in errors


def test_wrap_callable(fresh_python: Fresh) -> None:
    needs("sklearn")
    done = fresh_python(EXAMPLES / "wrap_callable.py")
    assert done.returncode == 0, done.stderr
    assert "refused (non_finite)" in done.stdout


def test_share_weights(fresh_python: Fresh) -> None:
    done = fresh_python(EXAMPLES / "share_weights.py")
    assert done.returncode == 0, done.stderr
    assert "10 answers from 8 threads and 2 processes, all the same to the bit" in done.stdout


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_fastapi_app(monkeypatch: pytest.MonkeyPatch, digits: tuple[np.ndarray, np.ndarray]) -> None:
    needs("fastapi", "httpx")
    import httpx

    monkeypatch.syspath_prepend(str(EXAMPLES))
    app = importlib.import_module("fastapi_app").app
    images, labels = digits

    async def main() -> None:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            replies = await asyncio.gather(*(client.post("/digit", json=image.tolist()) for image in images[:40]))
            assert [reply.status_code for reply in replies] == [200] * 40
            answers = np.array([reply.json()["digit"] for reply in replies])
            assert (answers == labels[:40]).mean() > 0.9
            wrong = await client.post("/digit", json=[1.0, 2.0])
            assert (wrong.status_code, wrong.json()["error"]) == (400, "ValidationError")

    asyncio.run(main())


def test_the_model_is_small_and_good(digits_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    import inferkit

    assert digits_path.stat().st_size < 500_000
    images, labels = digits
    assert (inferkit.Model.load(digits_path)(images).argmax(axis=1) == labels).mean() > 0.97


def test_the_test_images_are_those_of_scikit_learn(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """The committed images are the held-out quarter that train_digits.py chooses."""
    needs("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    _, images, _, labels = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    np.testing.assert_array_equal(digits[0], images)
    np.testing.assert_array_equal(digits[1], labels)


def test_the_page_tells_what_is_shared(fresh_python: Fresh, tmp_path: Path) -> None:
    """Each figure beside a print of the recipe is what it prints."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = blocks("python")["share"]
    told = re.findall(r"^print\(.*\)  # (\w+)", code, re.MULTILINE)
    done = fresh_python(f"import os; os.chdir({str(tmp_path)!r})\n{code}")
    assert done.stdout.split() == told, done.stderr
    assert len(told) == 4


def test_the_readme_has_its_recipes() -> None:
    shown = {fence.name for fence in fences() if fence.page == "README.md" and fence.language == "python"}
    assert shown == {"call", "threads", "asyncio"}
    assert {"wrap", "share", "observe"} <= set(blocks("python")), "in the guides"
    assert {"quickstart", "test"} <= set(blocks("bash"))
    assert all(text.count("\n") == 1 for text in (blocks()["quickstart"], blocks()["test"])), "one line each"


def test_the_readme_is_read_in_some_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
