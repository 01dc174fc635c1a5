"""What the tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def digits_path() -> Path:
    """The model of the examples: image (batch, 64) -> probabilities (batch, 10)."""
    return ROOT / "examples" / "digits.onnx"


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The held-out images, float32 (450, 64), and their labels."""
    with np.load(ROOT / "examples" / "digits_test.npz") as held_out:
        return held_out["images"].astype(np.float32), held_out["labels"]


@pytest.fixture
def fresh_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code, or a script with arguments, in an interpreter of its own; ``env`` adds to the environment."""

    def run(
        code: str | Path, *arguments: str, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(code)] if isinstance(code, Path) else [sys.executable, "-c", code]
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="module", autouse=True)
def nothing_counted_elsewhere() -> None:
    """The counters of the hundreds of batchers of other files, which a scrape would show, take seconds to write."""
    ended = sys.modules.get("inferkit.metrics._ended")
    for buckets in list(ended._of) if ended else []:
        ended._of[buckets] = type(ended._of[buckets])(buckets)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """A batcher that one file leaves open is in the figures of the next."""
    import inferkit

    yield
    if batchers := inferkit._batcher._open_batchers():
        names = [batcher.name for batcher in batchers]
        del batchers  # which would keep them
        gc.collect()
        left = [batcher.name for batcher in inferkit._batcher._open_batchers()]
        assert left == [], f"open, and kept by something: of {names}"


@pytest.fixture
def no_buffer_left() -> Iterator[None]:
    """What the batchers of a test take from the pool is given back by its end."""
    import inferkit

    yield
    gc.collect()
    ours = {"request", "batch input", "batch output", "caller output", "result cache"}
    assert [leak for leak in inferkit.BufferPool.default().leaks() if leak.tag in ours] == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import inferkit

    sanitizers = inferkit.build_info()["sanitizers"]
    for item in items if sanitizers else ():
        if marker := item.get_closest_marker("unsanitized"):
            item.add_marker(pytest.mark.skip(reason=f"built with -fsanitize={sanitizers}: {marker.args[0]}"))


def pytest_configure() -> None:
    """Hear Ctrl-C even below a shell that started us in the background, where SIGINT comes ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
