"""The line through a process's memory: known answers, and how often its confidence interval is right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from inferkit.diagnostics._steps.memory import slope

X = np.arange(40, dtype=np.float64)


def test_a_straight_line() -> None:
    fit = slope(X, 3 * X + 7)
    assert fit.value == pytest.approx(3)
    assert fit.low == pytest.approx(3)
    assert fit.high == pytest.approx(3)


def test_nothing_changes() -> None:
    fit = slope(X, np.full(40, 5.0))
    assert (fit.value, fit.low, fit.high) == (0, 0, 0)


def test_against_a_textbook() -> None:
    """Weight by height, 15 women: slope 61.272, and a 95% interval of 57.4 to 65.1 (NIST, Wikipedia)."""
    height = np.array([1.47, 1.50, 1.52, 1.55, 1.57, 1.60, 1.63, 1.65, 1.68, 1.70, 1.73, 1.75, 1.78, 1.80, 1.83])
    weight = np.array(
        [52.21, 53.12, 54.48, 55.84, 57.20, 58.57, 59.93, 61.29, 63.11, 64.47, 66.28, 68.10, 69.92, 72.19, 74.46]
    )
    fit = slope(height, weight)
    assert fit.value == pytest.approx(61.272, abs=1e-3)
    # These residuals are correlated, so ours is the wider interval.
    assert fit.low <= 57.5
    assert fit.high >= 65.0


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_covers_the_truth(correlation: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        noise = rng.standard_normal(60)
        for i in range(1, 60):
            noise[i] = correlation * noise[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
        fit = slope(X, 0.25 * X + noise[20:])
        covered += fit.low <= 0.25 <= fit.high
    assert covered / 400 > (0.92 if correlation == 0 else 0.86)


def test_resident_memory(fresh_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """In a process of its own: what other tests freed may be given back to the system meanwhile."""
    code = (
        "import mmap; from inferkit.diagnostics._steps.memory import rss_bytes; before = rss_bytes();"
        "block = mmap.mmap(-1, 8 << 20); block.write(b'1' * (8 << 20)); print(rss_bytes() - before)"
    )
    assert int(fresh_python(code).stdout) > 6 << 20
