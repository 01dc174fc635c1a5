"""The storm of storm.py, short; and that it would notice."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import numpy as np
import pytest
import storm

import inferkit


def test_every_request_of_a_storm_ends_once_and_right() -> None:
    seed = secrets.randbits(32)
    print(f"python tests/python/storm.py --seed {seed}")
    count = 20_000 if inferkit.build_info()["sanitizers"] else 100_000
    total = storm.Storm(seed).run(count)
    assert total.total() >= count
    assert all(total[end] for end in storm.ENDS), total
    assert total["completed"] > count / 2, total


def test_one_bit_is_noticed() -> None:
    wind = storm.Storm(1)
    cases = wind.targets[1].cases
    answer = np.frombuffer(cases[5].answer[0], np.uint8).copy()
    answer[2] ^= 1
    cases[5] = dataclasses.replace(cases[5], answer=(answer.tobytes(), *cases[5].answer[1:]))
    with pytest.raises(storm.WrongError, match="not as when it is alone"):
        wind.run(20_000)


@pytest.mark.parametrize(("end", "by"), [("completed", 1), ("completed", -1), ("cancelled", 1), ("rejected", -1)])
def test_a_request_that_is_lost_or_counted_twice_is_noticed(end: str, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = inferkit.Batcher.stats

    def other(self: inferkit.Batcher) -> Any:
        true = stats(self)
        return dataclasses.replace(true, **{end: getattr(true, end) + by})

    monkeypatch.setattr(inferkit.Batcher, "stats", other)
    with pytest.raises(storm.WrongError, match=r"nobody cancelled|ended once"):
        storm.Storm(2).run(5_000)


def test_an_end_without_a_reason_is_noticed() -> None:
    wind = storm.Storm(3)
    case = wind.targets[0].cases[0]
    for error in (inferkit.DeadlineError("late"), inferkit.RequestCancelledError("no"), inferkit.InferenceError("no")):
        with pytest.raises(storm.WrongError):
            wind.blame(case, {}, error)
    assert wind.blame(case, {"timeout": 1.0}, inferkit.DeadlineError("late")) == "expired"
