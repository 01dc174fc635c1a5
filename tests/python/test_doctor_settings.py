"""Settings that cost more than they bring: what the doctor says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import diagnose
from inferkit.diagnostics._steps import settings
from inferkit.testing import FakeModel, ManualClock

X = np.ones(2, np.float32)


def findings(report: inferkit.diagnostics.Report, name: str) -> list[Any]:
    return [check for check in report.checks if check.name == name]


def test_a_window_in_which_nobody_comes() -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(), max_delay=0.005) as batcher:
        for _ in range(30):
            ticket = batcher.submit(X)
            clock.advance(0.006)
            ticket.result(60)
        stats = batcher.stats()
        assert stats.dispatched["delay"] == 30
        (check,) = settings.window(stats)
        assert check.status == "warn"
        assert check.figure.startswith("100% of batches waited out max_delay, 5 ms, for 0.0 requests more")
        assert "leave max_delay out" in check.remedy
        # Where as many come that it saves more than it costs, or few batches wait, or few have run, nothing is said.
        crowded = {"dispatched_rows": {**stats.dispatched_rows, "delay": 300}, "rows": 300, "completed": 300}
        slow = dataclasses.replace(stats.compute_ms, p50=10.0)
        assert not list(settings.window(dataclasses.replace(stats, **crowded, compute_ms=slow)))
        assert list(settings.window(dataclasses.replace(stats, **crowded)))  # a run takes no time on this clock
        assert not list(settings.window(dataclasses.replace(stats, batches=100)))
        assert not list(settings.window(dataclasses.replace(stats, batches=19)))


def test_requests_of_several_rows_are_no_company() -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(), max_delay=0.005) as batcher:
        for _ in range(30):
            ticket = batcher.submit(np.ones((4, 2), np.float32))
            clock.advance(0.006)
            ticket.result(60)
        (check,) = settings.window(batcher.stats())
        assert "for 0.0 requests more" in check.figure


@pytest.mark.parametrize(
    ("workers", "at_once", "threads", "cpus", "remedy"),
    [
        (2, 2, 4, 4, "load the model with threads=2, or have at most 1 worker"),
        (8, 8, 3, 4, "load the model with threads=1, or have at most 1 worker"),
        (8, 8, 1, 4, "have at most 4 workers"),  # fewer threads than one there are not
        (2, 2, 2, 4, None),
        (1, 1, 8, 4, None),  # of one run, the pool has no more threads than CPUs
        (8, 2, 2, 4, None),  # two run at once
    ],
)
def test_more_threads_than_cpus(workers: int, at_once: int, threads: int, cpus: int, remedy: str | None) -> None:
    found = list(settings.cores({"workers": workers, "max_concurrent": at_once}, threads, cpus))
    assert [check.status for check in found] == ["warn"] * (remedy is not None)
    for check in found:
        assert check.remedy == remedy
        assert f"{cpus} CPUs" in check.figure


def test_plans_that_are_compiled_again_and_again(digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path, max_plans=2)
    x = np.zeros((8, 64), np.float32)
    for _ in range(10):
        for n in (1, 2, 3, 4):
            model(x[:n])
    (check,) = settings.plans(model.memory())
    assert check.status == "warn"
    assert "max_plans" in check.remedy
    calm = inferkit.Model.load(digits_path)
    for _ in range(10):
        for n in (1, 2, 3, 4):
            calm(x[:n])
    assert not list(settings.plans(calm.memory()))


def test_the_doctor_says_so(digits_path: Path) -> None:
    cpus = inferkit.build_info()["cpus"]
    model = inferkit.Model.load(digits_path, threads=cpus)
    with inferkit.Batcher(model, workers=cpus + 1, max_batch_size=4) as batcher:
        report = diagnose(batcher, seconds=0.1)
        (check,) = findings(report, "threads fit the CPUs")
        assert (check.status, check.step) == ("warn", 5)
        assert not findings(report, "the window pays")
    with inferkit.Batcher(FakeModel()) as batcher:
        assert not findings(diagnose(batcher, seconds=0.1), "threads fit the CPUs")
