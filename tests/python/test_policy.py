"""What a batcher is told of how to batch, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import inferkit
from inferkit import _core
from inferkit._policy import policy_stats
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
    """Requests one by one: each waits for its delay, and goes alone."""
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


def ticking(clock: _core.ManualClock, seconds: float) -> inferkit.Model:
    """Make a model whose runs move the clock by so much."""

    def run(x: np.ndarray) -> np.ndarray:
        clock.advance(seconds)
        return x

    spec = ("x", "float32", (None, 2))
    return inferkit.Model.from_callable(run, inputs=[spec], outputs=[("y", *spec[1:])])


def test_a_target() -> None:
    """It rests on what runs take and on what comes: one request each 30 ms, and 10 ms for a run."""
    clock = _core.ManualClock()
    with inferkit.Batcher(ticking(clock, 0.01), target_p99=0.2, max_delay=0.0, _clock=clock) as batcher:
        for _ in range(200):
            batcher(X)
            clock.advance(0.02)
        chosen = batcher.stats().policy
    assert (chosen.name, chosen.target_p99, chosen.max_delay) == ("auto", 0.2, 0.0)
    assert chosen.rows_per_second == pytest.approx(33, abs=2)
    assert 0.02 <= chosen.expected_p99 <= 0.18
    assert f"should be answered within {chosen.expected_p99 * 1e3:.3g} ms" in chosen.why


def test_a_target_that_cannot_be_kept() -> None:
    clock = _core.ManualClock()
    with inferkit.Batcher(ticking(clock, 0.01), target_p99=0.005, _clock=clock) as batcher:
        for _ in range(100):
            batcher(X)
        chosen = batcher.stats().policy
    assert chosen.max_delay == 0
    assert "no size of a batch that keeps up with them keeps the target of 5 ms" in chosen.why


def test_why_says_what_was_chosen() -> None:
    raw = {
        "auto": True, "max_delay": 0.0, "pays": 64, "most": 64, "company": 0.0, "alone": 0.01, "of_paying": 0.02,
        "of_most": 0.02, "target": 0.0, "delay": -1e-9, "expected": 0.0, "kept": True, "rate": 0.0,
        "mixes": False, "cores": "",
    }  # fmt: skip
    fewer = policy_stats({**raw, "pays": 8, "of_paying": 0.008, "of_most": 0.064})
    assert fewer.why.startswith("a row takes 1 ms in a batch of 8 and 1 ms in one of 64")
    assert (fewer.max_batch_size, fewer.row_seconds, fewer.target_p99) == (8, 0.001, None)
    waits = policy_stats({**raw, "company": 0.0004})
    assert "others come within 0.4 ms, and are waited for" in waits.why
    assert waits.max_delay == 0.0004
    aims = policy_stats({**raw, "target": 0.2, "delay": 0.1, "expected": 0.15, "rate": 50.0})
    assert "50 rows come in a second" in aims.why
    assert "of which 100 ms are for others to come, since larger batches save work" in aims.why
    assert aims.max_delay == 0.1


def test_what_is_no_target() -> None:
    for value, error in ((0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)):
        with pytest.raises(error, match="target_p99 must be a"):
            inferkit.Batcher(FakeModel(), target_p99=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target_p99 is what policy='auto' aims at"):
        inferkit.Batcher(FakeModel(), policy=inferkit.Fixed(), target_p99=0.1)


def test_it_is_told_with_the_other_figures() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(X)
        stats = batcher.stats()
    assert json.loads(json.dumps(stats.as_dict()))["policy"]["name"] == "auto"
    assert set(stats.dispatched) == {"full", "ready", "delay", "deadline", "drain", "caller", "enough", "company"}


def test_rows_that_depend_on_each_other_are_named_as_the_reason() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=0)
    model = inferkit.Model.load(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])))
    for policy in ("auto", inferkit.Fixed()):
        with inferkit.Batcher(model, policy=policy) as batcher:  # type: ignore[arg-type]
            assert "each request is a batch of its own" in batcher.stats().policy.why


def test_after_a_warm_up_it_knows_what_runs_take(digits_path: Path) -> None:
    """A caller runs a request with a deadline itself where it is known that there is time for that."""
    model = inferkit.Model.load(digits_path, threads=1)
    for warm in (False, True):
        with inferkit.Batcher(model, max_batch_size=16) as batcher:
            if warm:
                batcher.warm_up()
            assert (batcher.stats().batches, batcher.stats().completed) == (0, 0)
            batcher(np.zeros((1, 64), np.float32), timeout=60.0)
            assert batcher.stats().dispatched["caller"] == warm


def test_a_warm_up_at_sizes_that_no_request_may_have(digits_path: Path) -> None:
    checks = inferkit.InputChecks(max_length=1)
    model = inferkit.Model.load(digits_path, threads=1)
    with inferkit.Batcher(model, max_batch_size=2, input_checks=checks) as batcher:
        batcher.warm_up([1, 64])
        assert batcher.stats().invalid == 0
