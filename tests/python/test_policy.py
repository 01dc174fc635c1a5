"""What a batcher is told of how to batch, and what it says of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel

X = np.ones(2, np.float32)


def serve(**options: Any) -> inferkit.PolicyStats:
    with inferkit.Batcher(FakeModel(), **options) as batcher:
        for _ in range(40):
            batcher(X)
        return batcher.stats().policy


def test_auto_is_the_default() -> None:
    chosen = serve()
    assert (chosen.name, chosen.max_batch_size, chosen.max_delay) == ("auto", 64, 0.0)
    assert chosen.run_seconds > 0
    assert chosen.row_seconds == pytest.approx(chosen.run_seconds / 64)
    assert "rows go on getting cheaper up to 64" in chosen.why


def test_numbers_that_are_given_are_bounds() -> None:
    assert serve(max_batch_size=8).max_batch_size == 8
    assert serve(max_delay=0.0).max_delay == 0.0
    assert serve(max_delay=0.0005, max_batch_size=1).max_delay == 0.0005


def test_before_anything_has_run() -> None:
    with inferkit.Batcher(FakeModel(), max_batch_size=8) as batcher:
        chosen = batcher.stats().policy
    assert (chosen.max_batch_size, chosen.run_seconds, chosen.row_seconds) == (8, 0.0, 0.0)
    assert "too few batches" in chosen.why


def test_fixed_is_what_it_says() -> None:
    chosen = serve(policy=inferkit.Fixed(max_batch_size=4, max_delay=0.0005))
    assert (chosen.name, chosen.max_batch_size, chosen.max_delay) == ("fixed", 4, 0.0005)
    assert chosen.why == "these are the numbers that it was given"
    assert inferkit.Fixed() == inferkit.Fixed(max_batch_size=64, max_delay=0.0)


def test_fixed_waits_for_company_as_it_is_told() -> None:
    """Forty requests one by one: each waits for its delay, and goes alone."""
    with inferkit.Batcher(FakeModel(), policy=inferkit.Fixed(max_delay=0.0005)) as batcher:
        for _ in range(5):
            batcher(X)
        assert batcher.stats().dispatched["delay"] == 5


def test_what_is_no_policy() -> None:
    model = FakeModel()
    for policy, error in ((None, TypeError), (5, TypeError), (inferkit.Fixed, TypeError), ("fixed", ValueError)):
        with pytest.raises(error, match=r"policy must be 'auto' or an inferkit\.Fixed, got"):
            inferkit.Batcher(model, policy=policy)  # type: ignore[arg-type]
    for options in ({"max_delay": 0.0}, {"max_batch_size": 8}):
        with pytest.raises(ValueError, match="said twice"):
            inferkit.Batcher(model, policy=inferkit.Fixed(), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_batch_size must be at least 1, got 0"):
        inferkit.Fixed(max_batch_size=0)
    with pytest.raises(ValueError, match="max_delay must be a number of seconds that is not negative, got -1"):
        inferkit.Fixed(max_delay=-1)


def test_it_is_told_with_the_other_figures() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(X)
        stats = batcher.stats()
    assert json.loads(json.dumps(stats.as_dict()))["policy"]["name"] == "auto"
    assert set(stats.dispatched) == {"full", "ready", "delay", "deadline", "drain", "caller", "enough", "company"}
