"""The buffer pool, and memory that must not grow, for asv."""

from __future__ import annotations

import numpy as np

import inferkit
from common import LARGE, mlp, require_release


class Pool:
    """A buffer out and back."""

    params = (64, 4096, 262144)
    param_names = ("bytes",)

    def setup(self, size: int) -> None:
        require_release()
        self.pool = inferkit.BufferPool()
        self.pool.acquire(size).release()

    def time_acquire_release(self, size: int) -> None:
        self.pool.acquire(size).release()


class Shapes:
    """Memory after many input shapes."""

    def peakmem_500_shapes(self) -> None:
        require_release()
        model = inferkit.Model.load(mlp(LARGE))
        for n in range(1, 501):
            model(np.zeros((n, 64), np.float32))
