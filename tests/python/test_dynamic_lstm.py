"""DynamicQuantizeLSTM: near the LSTM of floats, nearer than ONNX Runtime, and a row's bits are its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from op_cases import LENIENT, Array, Case, close

import inferkit

AVAILABLE = inferkit.build_info()["isa_available"]
MS = "com.microsoft"


class Layer:
    """A layer, and what it should give."""

    def __init__(
        self, kind: str, width: int, units: int, *, directions: int = 1, per_column: bool = False, seed: int = 0
    ) -> None:
        self.rng, self.units, self.directions = np.random.default_rng(seed), units, directions
        low, high = (-110, 110) if kind == "int8" else (20, 240)
        shape = (directions, 4 * units) if per_column else (directions,)
        self.weights = [self.rng.integers(low, high, (directions, n, 4 * units)).astype(kind) for n in (width, units)]
        self.scales = [(self.rng.uniform(0.5, 1.5, shape) / 50 / n**0.5).astype(np.float32) for n in (width, units)]
        # ONNX Runtime has zero points other than 0 for uint8 alone.
        zeros = np.zeros(shape) if kind == "int8" else self.rng.integers(120, 136, shape)
        self.zeros = [zeros.astype(kind), zeros.astype(kind)]
        self.bias = (0.1 * self.rng.standard_normal((directions, 8 * units))).astype(np.float32)

    def draw(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def case(self, x: Array, *states: Array) -> Case:
        (w, r), (ws, rs), (wz, rz) = self.weights, self.scales, self.zeros
        h0, c0 = states or (None, None)
        direction = "bidirectional" if self.directions == 2 else "forward"
        inputs = (x, w, r, self.bias, None, h0, c0, None, ws, wz, rs, rz)
        constant = (1, 2, 3, 8, 9, 10, 11)
        options: dict[str, Any] = {"hidden_size": self.units, "direction": direction}
        return Case("DynamicQuantizeLSTM", *inputs, outputs=3, domain=MS, constant=constant, **options)

    def exact(self, x: Array, *states: Array) -> list[Array]:
        """By ONNX's reference, of the weights that the bytes stand for, in float64."""
        wide = [
            (q.astype(np.float64) - z.reshape(self.directions, 1, -1)) * s.reshape(self.directions, 1, -1)
            for q, s, z in zip(self.weights, self.scales, self.zeros, strict=True)
        ]
        outs = [self._walk(x, d, [w[d] for w in wide], states) for d in range(self.directions)]
        return [np.stack([o[0] for o in outs], 1), *(np.stack([o[i] for o in outs]) for i in (1, 2))]

    def _walk(self, x: Array, d: int, wide: list[Array], states: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        n, (w, r) = self.units, wide
        bias = self.bias[d].astype(np.float64)
        h, c = (s[d].astype(np.float64) for s in states) if states else (np.zeros((x.shape[1], n)),) * 2
        y = np.zeros((*x.shape[:2], n))
        for t in range(len(x)) if d == 0 else reversed(range(len(x))):
            gates = x[t].astype(np.float64) @ w + h @ r + bias[: 4 * n] + bias[4 * n :]
            i, o, f = (1 / (1 + np.exp(-gates[:, k * n : (k + 1) * n])) for k in range(3))
            c = f * c + i * np.tanh(gates[:, 3 * n :])
            y[t] = h = o * np.tanh(c)
        return y, h, c


def outputs(c: Case, **options: Any) -> list[Array]:
    found = inferkit.Model.load(c.bytes, input_checks=LENIENT, **options).run(dict(c.inputs))
    return [found[name] for name in c.outputs]


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("per_column", [False, True])
def test_near_the_exact_answer(kind: str, directions: int, per_column: bool) -> None:
    layer = Layer(kind, 8, 5, directions=directions, per_column=per_column)
    x, states = layer.draw(6, 3, 8), (0.5 * layer.draw(directions, 3, 5), 0.5 * layer.draw(directions, 3, 5))
    for y, want in zip(outputs(layer.case(x, *states)), layer.exact(x, *states), strict=True):
        close(y, want, 0, 0.04)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize(("steps", "batch", "width", "units"), [(20, 1, 64, 64), (30, 3, 128, 160), (12, 33, 40, 96)])
def test_the_error_is_no_larger_than_onnx_runtimes(kind: str, steps: int, batch: int, width: int, units: int) -> None:
    layer = Layer(kind, width, units)
    x = layer.draw(steps, batch, width)
    c, want = layer.case(x), layer.exact(x)[0]
    ours, theirs = (float(np.sqrt(np.mean((ys[0] - want) ** 2))) for ys in (outputs(c), c.onnxruntime()))
    assert ours <= theirs


@pytest.mark.parametrize(("width", "units"), [(3, 5), (64, 64), (130, 129), (256, 256)])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_row_is_the_same_alone_and_on_any_number_of_threads(width: int, units: int, directions: int) -> None:
    layer = Layer("int8", width, units, directions=directions)
    # A neighbour that is far larger would take all of a range that they share.
    x = layer.draw(7, 26, width) * (2.0 ** layer.rng.integers(-9, 9, (1, 26, 1))).astype(np.float32)
    together = [outputs(layer.case(x), threads=threads) for threads in (1, 2)]
    for one, two in zip(*together, strict=True):
        assert one.tobytes() == two.tobytes()
    for row in (0, 12, 25):
        for threads in (1, 2):  # on two, each direction of a row alone is walked by one
            alone = outputs(layer.case(x[:, row : row + 1]), threads=threads)
            for all_rows, y in zip(together[0], alone, strict=True):
                assert all_rows.take([row], axis=all_rows.ndim - 2).tobytes() == y.tobytes()


def test_what_is_no_number_stays_with_its_row() -> None:
    layer = Layer("int8", 20, 24)
    x = layer.draw(5, 3, 20)
    clean = outputs(layer.case(x))[0]
    x[2, 1, 7] = np.nan
    y = outputs(layer.case(x))[0]
    assert np.isnan(y[2:, :, 1]).all()
    assert y[:2].tobytes() == clean[:2].tobytes()
    assert y[:, :, [0, 2]].tobytes() == clean[:, :, [0, 2]].tobytes()


@pytest.mark.parametrize("left_out", [(9,), (11,), (9, 11)])
def test_zero_points_that_are_left_out_are_zero(left_out: tuple[int, ...]) -> None:
    layer = Layer("int8", 8, 5)
    c = layer.case(layer.draw(6, 3, 8))
    shorter = onnx.load_from_string(c.bytes)
    for i in left_out:
        shorter.graph.node[0].input[i] = ""
    names = {name for name in shorter.graph.node[0].input if name}
    kept = [t for t in shorter.graph.initializer if t.name in names]
    del shorter.graph.initializer[:]
    shorter.graph.initializer.extend(kept)
    found = inferkit.Model.load(shorter, input_checks=LENIENT).run(dict(c.inputs))
    for name, want in zip(c.outputs, outputs(c), strict=True):
        assert found[name].tobytes() == want.tobytes()


def test_weights_that_are_computed_are_widened() -> None:
    layer = Layer("int8", 8, 5)
    x = layer.draw(6, 3, 8)
    c = layer.case(x)
    (w, r), (ws, rs), (wz, rz) = layer.weights, layer.scales, layer.zeros
    inputs = (x, w, r, layer.bias, None, None, None, None, ws, wz, rs, rz)
    computed = Case("DynamicQuantizeLSTM", *inputs, outputs=3, domain=MS, constant=(3, 8, 9, 10, 11), hidden_size=5)
    for y, bytes_of_y in zip(outputs(computed), outputs(c), strict=True):
        close(y, bytes_of_y, 0, 0.02)


DIGEST = """
import hashlib, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_dynamic_lstm import Layer, outputs
digest = hashlib.sha256()
for kind, width, units, batch in ("int8", 64, 64, 1), ("uint8", 130, 129, 13), ("int8", 33, 200, 30):
    layer = Layer(kind, width, units, per_column=kind == "uint8")
    for y in outputs(layer.case(layer.draw(9, batch, width))):
        digest.update(y.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("tier", ["avx2", "avx512,-vnni"])
def test_every_tier_gives_the_same_bits(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]], tier: str
) -> None:
    if tier.split(",")[0] not in AVAILABLE:
        pytest.skip(f"this machine or build lacks {tier}")
    here = str(Path(__file__).parent)
    found = fresh_python(DIGEST, here, env={"INFERKIT_ISA": tier})
    best = fresh_python(DIGEST, here, env={"INFERKIT_ISA": ""})
    assert found.returncode == best.returncode == 0, found.stderr + best.stderr
    assert found.stdout == best.stdout
