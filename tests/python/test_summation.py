"""The summation rule of operators' own loops, against a model of it in NumPy, to the bit, and against float64.

The rule: csrc/kernels/summation.h. That of products, convolutions and rows is held by tests/cpp/kernels.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_cases import Array, Case

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


def chunk_of(k: int) -> int:
    """How many terms a chunk of a sum of k terms has."""
    if k < 32:
        return max(k, 1)
    return min(-(-k // 2) if k < 128 else -(-k // 4), 256)


def chain(terms: Array, start: Array | None = None) -> Array:
    """The sum over the first axis, one after the other, in the type of the terms."""
    total = np.zeros(terms.shape[1:], terms.dtype) if start is None else start.copy()
    for term in terms:
        total = total + term
    return total


def by_rule(terms: Array, start: Array | None = None, chunk: int = 0) -> Array:
    """The sum over the first axis by the rule; the first chunk goes on from `start`."""
    chunk = chunk or chunk_of(len(terms))
    total = chain(terms[:chunk], start)
    for first in range(chunk, len(terms), chunk):
        total = total + chain(terms[first : first + chunk])
    return total


@dataclass
class Sum:
    """A long sum: the operator's answer by the rule, by one chain, and in float64."""

    case: Case
    rule: Array
    chain: Array
    exact: Array


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(-1, 3, shape).astype(np.float32)


def average(kernel: tuple[int, ...], size: tuple[int, ...], pads: int = 0) -> Sum:
    """Windows are summed down their columns, then across; a term beside the image is 0 there, and none above it."""
    x = draw(3, 2, *size)
    attributes = {"kernel_shape": kernel, "pads": [0] * (len(kernel) - 1) + [pads] + [0] * len(kernel)}
    case = Case("AveragePool", x, free_batch=True, opset=19, count_include_pad=1, **attributes)
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(pads, 0)])
    spatial = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=spatial)

    def down_and_across(add: Callable[[Array], Array]) -> Array:
        taps = np.moveaxis(windows, range(x.ndim, windows.ndim), range(len(kernel)))
        columns = taps.reshape(-1, kernel[-1], *taps.shape[len(kernel) :])
        return add(add(columns)) / columns.dtype.type(np.prod(kernel))

    return Sum(case, down_and_across(by_rule), down_and_across(chain), windows.mean(spatial_of(windows, x), np.float64))


def spatial_of(windows: Array, x: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim, windows.ndim))


def sums() -> Iterator[tuple[str, Sum]]:
    yield "AveragePool, few terms", average((3, 5), (9, 20))
    yield "AveragePool, a line", average((2000,), (2050,))
    yield "AveragePool, a line with padding", average((200,), (260,), pads=150)
    yield "AveragePool, a plane", average((150, 33), (153, 60))
    yield "AveragePool, halves", average((70, 2), (72, 40))
    yield "AveragePool, a volume", average((9, 8, 40), (10, 9, 50))


SUMS = dict(sums())
some_sums = pytest.mark.parametrize("name", SUMS)


@some_sums
def test_the_bits_are_those_of_the_rule(name: str) -> None:
    s = SUMS[name]
    assert s.rule.dtype == np.float32
    for threads in (1, 2):
        found = s.case.run(threads=threads)[0]
        np.testing.assert_array_equal(found.view(np.int32), s.rule.reshape(found.shape).view(np.int32))


@some_sums
def test_no_error_is_larger_than_that_of_a_chain(name: str) -> None:
    s = SUMS[name]
    error, before = (np.sqrt(np.mean((y - s.exact) ** 2)) for y in (s.rule.astype(np.float64), s.chain))
    if "few terms" in name:
        assert s.rule.tobytes() == s.chain.tobytes()
    else:
        assert error < 0.8 * before


@some_sums
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    case = SUMS[name].case
    model = case.load()
    whole = model.run(dict(case.inputs))["y0"]
    rows = len(case.inputs["x0"])
    for i in range(rows):
        one = {n: v[i : i + 1] if len(v) == rows else v for n, v in case.inputs.items()}
        assert model.run(one)["y0"].tobytes() == whole[i : i + 1].tobytes()


RUN_ALL = """
import sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    given = dict(f)
answers = {}
for name in {n.split("/")[0] for n in given}:
    inputs = {n.split("/")[1]: v for n, v in given.items() if n.startswith(name + "/x")}
    answers[name] = inferkit.Model.load(given[name + "/model"].tobytes()).run(inputs)["y0"]
np.savez(sys.argv[2], **answers)
"""


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sums") / "in.npz"
    arrays: dict[str, Any] = {}
    for i, s in enumerate(SUMS.values()):
        arrays[f"{i}/model"] = np.frombuffer(s.case.with_output_types(), np.uint8)
        arrays.update({f"{i}/{name}": value for name, value in s.case.inputs.items()})
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "environment",
    [{"INFERKIT_ISA": tier} for tier in inferkit.build_info()["isa_available"]]
    + [{"INFERKIT_LOWERING": "AveragePool=generic"}],
    ids=lambda e: next(iter(e.values())),
)
def test_every_tier_and_every_way_has_these_bits(
    fresh_python: Fresh, all_cases: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "out.npz"
    done = fresh_python(RUN_ALL, str(all_cases), str(out), env=environment)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        assert set(found) == {str(i) for i in range(len(SUMS))}
        for i, (name, s) in enumerate(SUMS.items()):
            assert found[str(i)].tobytes() == s.rule.tobytes(), name
