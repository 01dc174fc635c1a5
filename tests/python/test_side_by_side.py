"""What comes at once runs as several batches at once, where that is over sooner."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel, ManualClock


def batches_of(model: FakeModel, count: int, rounds: int = 4, **options: Any) -> list[list[int]]:
    """The sizes of the batches that `count` requests of one turn of a loop make, round by round, after two others."""

    async def serve() -> list[list[int]]:
        sizes = []
        async with inferkit.Batcher(model, max_batch_size=64, **options) as batcher:
            for _ in range(rounds + 2):
                before = len(model.batches)
                xs = [np.full((1, 2), i, np.float32) for i in range(count)]
                answers = await asyncio.gather(*(batcher.submit(x) for x in xs))
                for x, y in zip(xs, answers, strict=True):
                    np.testing.assert_array_equal(y, 2 * x)
                sizes.append(sorted(model.batches[before:]))
                await asyncio.sleep(0.02)  # until the workers sleep again
        return sizes[2:]

    return asyncio.run(serve())


def test_workers_share_what_came_at_once() -> None:
    model = FakeModel({1: 0.001, 64: 0.064})
    for sizes in batches_of(model, 64, workers=2):
        assert sizes == [32, 32]


def test_one_worker_has_nobody_to_share_with() -> None:
    for sizes in batches_of(FakeModel({1: 0.001, 64: 0.064}), 64, workers=1):
        assert sizes == [64]


def test_what_costs_the_same_is_not_shared() -> None:
    """Half a batch is found to take as long as a whole one once both have run."""
    clock = ManualClock()
    model = FakeModel(0.02, clock=clock)

    async def serve() -> list[list[int]]:
        sizes = []
        async with clock.batcher(model, max_batch_size=64, workers=2) as batcher:
            for _ in range(10):
                before = len(model.batches)
                tickets = [batcher.submit(np.ones((1, 2), np.float32)) for _ in range(64)]
                while sum(model.batches[before:]) < 64:  # until all of them run: each run takes the same
                    await asyncio.sleep(0.001)
                clock.wait_for_sleepers(len(model.batches) - before)
                clock.advance(0.02)
                await asyncio.gather(*tickets)
                sizes.append(sorted(model.batches[before:]))
        return sizes

    sizes = asyncio.run(asyncio.wait_for(serve(), 60))
    assert [32, 32] in sizes
    assert sizes[-1] == [64]


@pytest.mark.parametrize("options", [{"max_concurrent": 1}, {"max_delay": 0.005}])
def test_options_that_forbid_it(options: dict[str, Any]) -> None:
    for sizes in batches_of(FakeModel({1: 0.001, 64: 0.064}), 64, workers=2, **options):
        assert sizes == [64]


def test_a_request_is_never_cut() -> None:
    model = FakeModel({1: 0.001, 64: 0.064})
    with inferkit.Batcher(model, max_batch_size=64, workers=4) as batcher:
        for rows in (64, 40, 64):
            batcher.submit(np.ones((rows, 2), np.float32)).result()
    assert model.batches == [64, 40, 64]
