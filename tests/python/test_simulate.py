"""The laws that a simulation of the scheduler must keep, and known answers from the theory of queues."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import simulate as sim

TEN_MS = 0.01
POLICIES: dict[str, Callable[[int], sim.Policy]] = {
    **sim.policies(lambda rows: 0.004 + 0.0005 * rows),
    "target": lambda workers: sim.shipped(workers, auto=True, target=0.05),
}


def cost(rows: int) -> float:
    return 0.004 + 0.0005 * rows


class Watched:
    """A policy, with what went in and what came out of it."""

    def __init__(self, policy: sim.Policy) -> None:
        self.policy = policy
        self.asked: list[int] = []
        self.taken: list[int] = []
        self.largest = 0
        self.come, self.until = self._come, policy.until
        self.over, self.dropped = policy.over, policy.dropped

    def _come(self, now: int, requests: list[int], deadline: int = -1) -> bool:
        self.asked += requests
        return self.policy.come(now, requests, deadline)

    def take(self, now: int) -> tuple[int, list[int], int, str] | None:
        batch = self.policy.take(now)
        if batch is not None:
            assert batch[2] == len(batch[1]) >= 1
            self.taken += batch[1]
            self.largest = max(self.largest, batch[2])
        return batch


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("workers", [1, 3, 64])
@pytest.mark.parametrize("load", [sim.poisson, sim.bursty, sim.diurnal])
def test_everybody_is_answered_once_and_no_worker_does_two_things(
    name: str, workers: int, load: Callable[[float, int], list[float]]
) -> None:
    watched = Watched(POLICIES[name](workers))
    outcome = sim.simulate(watched, load(700.0 * workers, 1500), sim.noisy(cost, 2))
    assert outcome.offered == len(outcome.latencies) == 1500
    assert sorted(watched.taken) == sorted(watched.asked) == list(range(1500))
    assert watched.largest <= (1 if name == "one by one" else sim.MOST)
    assert 1 <= outcome.most_running <= workers
    assert sum(outcome.batches) == 1500
    assert min(outcome.latencies) > 0.003  # nothing is over before it can be


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_gives_the_same_figures(name: str) -> None:
    one, other = (sim.simulate(POLICIES[name](2), sim.poisson(900, 2000, 5), sim.noisy(cost, 4)) for _ in range(2))
    assert one == other


def test_one_by_one_is_lindleys_recursion() -> None:
    """W' = max(0, W + S - A), for each request by itself: no simulation is needed for that."""
    arrivals = list(sim.poisson(80, 3000, 9))
    outcome = sim.simulate(sim.shipped(1, most=1), arrivals, lambda rows: TEN_MS)
    wait, expected = 0.0, []
    for before, now in itertools.pairwise([arrivals[0], *arrivals]):
        wait = max(0.0, wait + (TEN_MS if expected else 0.0) - (now - before))
        expected.append(wait + TEN_MS)
    np.testing.assert_allclose(outcome.latencies, expected, atol=1e-6)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.8])
def test_one_by_one_has_the_mean_wait_of_pollaczek_and_khinchine(part: float) -> None:
    outcome = sim.simulate(sim.shipped(1, most=1), sim.poisson(part / TEN_MS, 60_000, 1), lambda rows: TEN_MS)
    expected = TEN_MS * (1 + part / (2 * (1 - part)))
    assert np.mean(outcome.latencies) == pytest.approx(expected, rel=0.05)


def test_littles_law() -> None:
    """Those who are there, in the mean, are those who come in the time that one stays."""
    outcome = sim.simulate(sim.shipped(1, auto=True), sim.poisson(900, 20_000, 3), sim.noisy(cost, 3))
    there = sum(outcome.latencies) / outcome.seconds
    assert there == pytest.approx(900 * np.mean(outcome.latencies), rel=0.03)


def test_a_window_is_waited_out_and_no_longer() -> None:
    """One that is alone goes after its window; at the tenth of a second none meets another."""
    outcome = sim.simulate(sim.shipped(1, delay=0.005), (0.1 * i for i in range(1, 50)), lambda rows: TEN_MS)
    np.testing.assert_allclose(outcome.latencies, 0.015, atol=1e-9)
    assert outcome.batches == [1] * 49


def test_the_rule_of_triton() -> None:
    triton = sim.Triton(1, (4, 8), 0.005)
    triton.come(0, [0, 1, 2])
    assert triton.take(0) is None
    assert triton.until() == 5_000_000
    triton.come(1, [3, 4])
    assert triton.take(1) == (1, [0, 1, 2, 3], 4, "preferred")  # a preferred size is there
    assert triton.take(1) is None  # nobody is free
    triton.over(2, 1)
    assert triton.take(2) is None
    assert triton.take(5_000_001) == (2, [4], 1, "preferred")  # the oldest has waited
    triton.over(5_000_002, 2)
    triton.come(5_000_003, list(range(10, 90)))
    batch = triton.take(5_000_003)
    assert batch is not None
    assert batch[2] == sim.MOST


def test_deadlines_are_kept_past_saturation() -> None:
    """At three times the capacity: most of what is admitted is in time, and that is about all that can be done."""
    top = sim.capacity(cost)
    outcome = sim.simulate(
        sim.shipped(1, auto=True), sim.poisson(3 * top, 20_000, 2), sim.noisy(cost, 2), deadline=0.15
    )
    assert outcome.offered == 20_000
    assert outcome.refused + outcome.dropped + len(outcome.latencies) == 20_000
    assert outcome.in_time(0.15) > 0.9 * top
    assert outcome.in_time(0.15) * outcome.seconds > 0.9 * (20_000 - outcome.refused)
    one_by_one = sim.simulate(sim.Triton(1, (), 0.0), sim.poisson(3 * top, 20_000, 2), cost, deadline=0.15)
    assert one_by_one.in_time(0.15) < 0.1 * top  # what queues do that let everybody in


def test_auto_is_as_good_as_the_best_of_the_others() -> None:
    """Of those that the guide compares it with, at random loads and in answers to clients that wait.

    A window as long as a run takes trades the mean for p99 at small loads: so within a tenth of that, and none is
    better in the mean.
    """
    for part in (0.1, 0.5, 0.8):
        found = {
            name: sim.simulate(make(1), sim.poisson(part * sim.capacity(cost), 8000, 6), sim.noisy(cost, 6))
            for name, make in POLICIES.items()
            if name != "target"
        }
        assert found["auto"].p99() <= 1.1 * min(one.p99() for one in found.values()), part
        assert np.mean(found["auto"].latencies) <= 1.01 * min(np.mean(one.latencies) for one in found.values()), part
    rates = {}
    for name, make in POLICIES.items():
        first, back = sim.clients(16, 30e-6)
        rates[name] = sim.simulate(make(1), first, sim.noisy(cost, 7), come_back=back, seconds=10.0).rate()
    assert rates["auto"] >= 0.97 * max(rates.values()), rates


def test_loads_have_the_rate_that_they_are_asked_for(tmp_path: Path) -> None:
    for load in (sim.poisson, sim.bursty):
        arrivals = list(load(500, 20_000))
        assert arrivals == sorted(arrivals)
        assert len(arrivals) / arrivals[-1] == pytest.approx(500, rel=0.05)
    day = np.array(list(sim.diurnal(500, 20_000)))  # of forty seconds
    for first, last, share in ((0, 10, 0.0908), (10, 20, 0.4092), (15, 25, 0.4751)):  # of (1 - cos) / 2 pi
        assert np.mean((day >= first) & (day < last)) == pytest.approx(share, rel=0.1)
    counts = np.histogram(list(sim.bursty(500, 20_000)), bins=np.arange(0, 30, 0.1))[0]
    assert counts[::10].mean() == pytest.approx(3 * 50, rel=0.1)
    path = tmp_path / "trace.txt"
    path.write_text("7.5\n7.0\n\n9.0\n")
    trace = sim.recorded(path)
    assert trace == pytest.approx([0.001, 0.501, 2.001])
    assert list(sim.scaled(trace, 10)) == pytest.approx([0.001, 0.051, 0.201])
    path.write_text("1.0\n")
    with pytest.raises(SystemExit, match="two or more lines"):
        sim.recorded(path)


def test_a_simulation_says_what_is_wrong() -> None:
    workers = sim.shipped(1)
    workers.come(1000, [1, 2])
    with pytest.raises(ValueError, match="time goes back from 1000 to 999"):
        workers.take(999)
    with pytest.raises(ValueError, match="no batch of number 5 runs"):
        workers.over(1000, 5)
    with pytest.raises(TypeError, match="now must be an integer"):
        workers.take("now")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers must be between 1 and 1024"):
        sim.shipped(0)
    batch = workers.take(1000)
    assert batch == (1, [1, 2], 2, "ready")
    assert workers.take(1000) is None
    assert workers.until() is None
    assert workers.chosen()["pays"] == 0
