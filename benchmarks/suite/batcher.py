"""The batcher, for asv."""

from __future__ import annotations

import asyncio

import numpy as np

import inferkit
from common import LARGE, check, mlp, require_release


class Batcher:
    """From one thread, and from 64 asyncio clients."""

    def setup(self) -> None:
        require_release()
        self.model = inferkit.Model.load(mlp(LARGE), threads=1)
        self.batcher = inferkit.Batcher(self.model, max_batch_size=64)
        self.x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
        check("the batcher", self.batcher(self.x), self.model(self.x), 0)

    def teardown(self) -> None:
        self.batcher.close()

    def time_call(self) -> None:
        self.batcher(self.x)

    def time_64_clients(self) -> None:
        async def client() -> None:
            for _ in range(20):
                await self.batcher.submit(self.x)

        async def clients() -> None:
            await asyncio.gather(*(client() for _ in range(64)))

        asyncio.run(clients())

    def track_mean_batch_of_64_clients(self) -> float:
        self.time_64_clients()
        return self.batcher.stats().mean_batch_size
