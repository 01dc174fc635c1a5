"""Random graphs against ONNX Runtime (the onnx reference evaluator where that refuses), and rows against batches.

``INFERKIT_FUZZ_SECONDS`` sets how long it runs, ``INFERKIT_FUZZ_SEED`` where it starts; a failure names its seed.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import onnxruntime
import pytest
from graph_gen import BATCH, Array, Generator, Val
from onnx.reference import ReferenceEvaluator

import inferkit

SECONDS = float(os.environ.get("INFERKIT_FUZZ_SECONDS", "15"))
START = int(os.environ.get("INFERKIT_FUZZ_SEED", "0")) or int(time.time())
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)


class Oracle:
    def __init__(self, model: bytes) -> None:
        self.model = model
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception:
            self.session = None

    def run(self, feeds: dict[str, Array]) -> list[Array] | None:
        """None where neither oracle can run it."""
        if self.session is not None:
            try:
                return [np.asarray(y) for y in self.session.run(None, feeds)]
            except Exception:
                pass
        try:
            with np.errstate(all="ignore"):
                return [np.asarray(y) for y in ReferenceEvaluator(self.model).run(None, feeds)]
        except Exception:
            return None


def check(found: Array, expected: Array, spec: Val) -> None:
    assert found.dtype == expected.dtype, (found.dtype, expected.dtype)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if spec.exact:
        np.testing.assert_array_equal(found, expected)
        return
    size = float(np.abs(expected[np.isfinite(expected)]).max(initial=1))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * size)


def run_one(seed: int) -> str:
    """What came of it: "compared", "unsupported: ...", or "no oracle"."""
    generator = Generator(seed)
    model, outputs = generator.model()
    try:
        loaded = inferkit.Model.load(model, input_checks=LENIENT, max_plans=2)
    except inferkit.UnsupportedOpError as error:
        return f"unsupported: {error}"
    oracle = Oracle(model)
    compared = "no oracle"
    for batch in [3, 1, 2, 7, 3] if generator.batched else [1]:
        feeds = generator.feeds(batch)
        expected = oracle.run(feeds)
        kept = {name: x.copy() for name, x in feeds.items()}
        answer = loaded.run(feeds)
        for name, x in feeds.items():
            np.testing.assert_array_equal(x, kept[name], err_msg="an input was written to")
        again = loaded.run(feeds)
        for v in outputs:
            np.testing.assert_array_equal(answer[v.name], again[v.name], err_msg="two runs differ")
        if expected is not None:
            compared = "compared"
            for v, y in zip(outputs, expected, strict=True):
                check(answer[v.name], y, v)
        if generator.batched and batch > 1:
            for row in range(batch):
                alone = loaded.run({name: x[row : row + 1] for name, x in feeds.items()})
                for v in outputs:
                    if v.shape[:1] == (BATCH,):
                        np.testing.assert_array_equal(
                            alone[v.name][0], answer[v.name][row], err_msg=f"row {row} of {batch}: {v.name}"
                        )
    return compared


def test_random_graphs_agree_with_onnxruntime() -> None:
    deadline = time.monotonic() + SECONDS
    seed = START
    seen: dict[str, int] = {}
    while time.monotonic() < deadline:
        try:
            outcome = run_one(seed)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
        seen[outcome.split(":")[0]] = seen.get(outcome.split(":")[0], 0) + 1
        seed += 1
    print(f"seeds {START} to {seed - 1}: {seen}")
    assert seen.get("compared", 0) > 0.8 * sum(seen.values()), seen


#: Seeds that once found a bug.
@pytest.mark.parametrize("seed", [493, 828, 2680])
def test_known_seeds(seed: int) -> None:
    run_one(seed)


def collect(first: int, seconds: float) -> Any:
    """For a person: every kind of failure within the time, one seed each."""
    found: dict[str, list[int]] = {}
    outcomes: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    seed = first
    while time.monotonic() < deadline:
        try:
            outcome = run_one(seed)[:200]
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        except Exception as error:
            found.setdefault(f"{type(error).__name__}: {str(error)[:160]}", []).append(seed)
        seed += 1
    return found, outcomes, seed - first
