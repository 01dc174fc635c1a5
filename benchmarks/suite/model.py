"""A model's calls, for asv."""

from __future__ import annotations

import numpy as np

import inferkit
from common import LARGE, SMALL, check, cnn, mlp, require_release

MODELS = {"mlp_small": (mlp(SMALL), (4,)), "mlp_large": (mlp(LARGE), (64,)), "cnn": (cnn(), (1, 28, 28))}


class Call:
    """One call on one thread."""

    params = (tuple(MODELS), (1, 8, 64))
    param_names = ("model", "batch")

    def setup(self, model: str, batch: int) -> None:
        require_release()
        data, shape = MODELS[model]
        self.model = inferkit.Model.load(data, threads=1)
        self.x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
        check(model, self.model(self.x)[:1], self.model(self.x[:1]), 0)

    def time_call(self, model: str, batch: int) -> None:
        self.model(self.x)


class Load:
    """From bytes to a model, and to a plan for a new shape."""

    params = tuple(MODELS)
    param_names = ("model",)

    def setup(self, model: str) -> None:
        require_release()
        self.data, shape = MODELS[model]
        self.model = inferkit.Model.load(self.data, max_plans=1)
        self.xs = [np.zeros((n, *shape), np.float32) for n in (1, 2)]

    def time_load(self, model: str) -> None:
        inferkit.Model.load(self.data)

    def time_two_new_shapes(self, model: str) -> None:
        for x in self.xs:
            self.model(x)

    def peakmem_load(self, model: str) -> None:
        inferkit.Model.load(self.data)

    def track_packed_bytes(self, model: str) -> int:
        return self.model.memory().packed_bytes
