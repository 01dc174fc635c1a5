"""Conv takes another path by the layer's shape: each is right, and the bits of an image depend on none of them, nor on
the batch, the threads, and AVX2 against AVX-512. What the bits are, and each way by force: test_same_bits.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Array, Case
from test_ops_conv import check, conv, draw

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Layer:
    """Shapes of one layer: an image [channels, *size] and weights [filters, channels / group, *kernel]."""

    image: tuple[int, ...]
    weights: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def draw(self, batch: int, seed: int = 0) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(seed)
        scale = np.float32(1 / np.sqrt(np.prod(self.weights[1:])))
        return draw(rng, batch, *self.image), draw(rng, *self.weights) * scale, draw(rng, self.weights[0])


#: What each path is for, and the edges of its rule.
LAYERS = {
    "long kernel, one pixel": Layer((1, 128), (640, 1, 455), {"strides": [441], "pads": [7, 448]}),
    "long kernel, few pixels": Layer((1, 1000), (160, 1, 475), {"strides": [441], "pads": [17, 458]}),
    "the image is the window": Layer((24, 3, 5), (50, 24, 3, 5)),
    "one pixel": Layer((70, 1, 1), (130, 70, 1, 1)),
    "one pixel, in groups": Layer((36, 1, 1), (48, 12, 1, 1), {"group": 3}),
    "pointwise, 7 x 7": Layer((192, 7, 7), (208, 192, 1, 1)),
    "windows, 7 x 7": Layer((40, 7, 7), (96, 40, 3, 3), {"pads": [1, 1, 1, 1]}),
    "windows, in groups": Layer((32, 5, 5), (64, 16, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    "dilated": Layer((20, 9, 9), (72, 20, 3, 3), {"strides": [2, 3], "dilations": [2, 3], "pads": [2, 3, 1, 0]}),
    "volume": Layer((6, 3, 4, 5), (33, 6, 3, 2, 3), {"pads": [1, 0, 1, 0, 1, 1]}),
    "depthwise": Layer((20, 30, 30), (20, 1, 5, 5), {"pads": [2, 2, 2, 2], "group": 20}),
    "depthwise, two strides": Layer((12, 15, 37), (24, 1, 3, 3), {"pads": [1] * 4, "group": 12, "strides": [2, 1]}),
    "depthwise, 7 x 7": Layer((6, 23, 37), (6, 1, 7, 7), {"pads": [3, 3, 3, 3], "group": 6}),
    "depthwise, 7 x 7, strides": Layer(
        (16, 19, 17), (16, 1, 7, 7), {"pads": [3, 2, 3, 4], "group": 16, "strides": [2, 1]}
    ),
    "depthwise, 11 x 11": Layer((20, 12, 18), (20, 1, 11, 11), {"pads": [5, 5, 5, 5], "group": 20}),
    "depthwise, 12 x 11": Layer((3, 12, 40), (6, 1, 12, 11), {"pads": [5, 5, 6, 5], "group": 3}),
    "channels, windows larger than the image": Layer((35, 7, 9), (35, 1, 13, 19), {"pads": [6, 9, 6, 9], "group": 35}),
    "channels, few pixels": Layer((16, 4, 4), (16, 1, 9, 9), {"pads": [4, 4, 4, 4], "group": 16}),
    "channels, strides and gaps": Layer(
        (50, 11, 10), (50, 1, 5, 4), {"pads": [4, 3, 0, 2], "group": 50, "strides": [2, 3], "dilations": [2, 1]}
    ),
    "channels, a line": Layer((17, 23), (17, 1, 40), {"pads": [19, 20], "group": 17}),
    "blocks, 14 x 14": Layer((40, 14, 14), (64, 40, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks, pointwise": Layer((100, 13, 11), (72, 100, 1, 1)),
    "blocks, short rows": Layer((64, 5, 3), (48, 64, 1, 1)),
    "blocks, strides and gaps": Layer(
        (33, 17, 15), (80, 33, 3, 3), {"pads": [2, 1, 2, 3], "strides": [2, 2], "dilations": [1, 2]}
    ),
    "blocks, three planes": Layer((3, 50, 47), (48, 3, 7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    "blocks, planes pixel by pixel": Layer((20, 30, 31), (64, 20, 1, 1)),
    "blocks, planes at strides": Layer((4, 41, 40), (32, 4, 3, 4), {"pads": [2, 0, 1, 3], "strides": [3, 4]}),
    "blocks, a line": Layer((48, 40), (64, 48, 5), {"pads": [2, 2]}),
    "in place": Layer((16, 14, 14), (32, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "in place, 10 x 10": Layer((24, 10, 10), (16, 24, 3, 3), {"pads": [1, 1, 1, 1]}),
    "in place, uneven padding": Layer((8, 9, 11), (12, 8, 3, 5), {"pads": [3, 4, 0, 1]}),
    "in place, wide padding": Layer((8, 9, 11), (12, 8, 2, 2), {"pads": [3, 5, 3, 5]}),
    "in place, stride 2": Layer((3, 90, 200), (16, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "in place, blocks of rows": Layer((32, 60, 90), (8, 32, 5, 3), {"pads": [2, 1, 2, 1]}),
    "in place, uneven": Layer((4, 40, 41), (10, 2, 3, 4), {"group": 2, "strides": [3, 2], "dilations": [2, 3]}),
    "in place, one filter": Layer((1, 5000), (1, 1, 58), {"strides": [3], "pads": [19, 36]}),
    "in place, blocks of columns": Layer((3, 60001), (3, 3, 31), {"strides": [4], "pads": [19, 36]}),
    "padding alone": Layer((1, 1, 1, 2), (6, 1, 1, 1, 1), {"strides": [2, 1, 1], "pads": [1, 0, 0, 0, 0, 0]}),
    "a last dimension of one": Layer((5, 12, 1), (64, 5, 9, 1), {"pads": [2, 0, 2, 0]}),
}
some_layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())


@some_layers
@pytest.mark.parametrize("batch", [1, 2, 9, 70])
def test_close_to_the_definition(layer: Layer, batch: int) -> None:
    if batch > 2 and np.prod(layer.image) > 10000:
        batch = 3  # NumPy takes long
    x, w, b = layer.draw(batch)
    check(x, w, b, **layer.attributes)
    check(x, w, None, **layer.attributes)


@some_layers
@pytest.mark.parametrize("batch", [1, 11])
def test_weights_known_ahead_change_no_bit(layer: Layer, batch: int) -> None:
    """Only constant weights are packed ahead: a run that brings its weights goes another way."""
    x, w, b = layer.draw(batch)
    ahead = Case("Conv", x, w, b, constant=(1, 2), **layer.attributes).run()[0]
    in_run = Case("Conv", x, w, b, **layer.attributes).run()[0]
    assert ahead.tobytes() == in_run.tobytes()


@some_layers
def test_any_batch_and_any_thread_count(layer: Layer) -> None:
    images = 67 if np.prod(layer.image) < 10000 else 7
    x, w, b = layer.draw(images)
    case = Case("Conv", x, w, b, constant=(1, 2), free_batch=True, **layer.attributes)
    expected = case.run(threads=1)[0]
    for threads in (1, 2, 4):
        model = case.load(threads=threads)
        for first, last in [(0, images), (0, 1), (5, 7), (3, 19), (1, 66)]:
            found = model.run({"x0": x[first:last]})["y0"]
            assert found.tobytes() == expected[first:last].tobytes()


@some_layers
@pytest.mark.parametrize("activation", ["Relu", "HardSwish"])
def test_an_activation_is_the_one_that_stands_alone(layer: Layer, activation: str) -> None:
    x, w, b = layer.draw(2)
    plain = Case("Conv", x, w, b, constant=(1, 2), **layer.attributes)
    model = onnx.load_from_string(plain.with_output_types())
    model.graph.node.append(onnx.helper.make_node(activation, ["y0"], ["z"]))
    model.graph.output[0].name = "z"
    fused = inferkit.Model.load(model.SerializeToString()).run({"x0": x})["z"]
    assert fused.tobytes() == Case(activation, plain.run()[0]).run()[0].tobytes()


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_small_image(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, strides, dilations, pads = pick(1, 4), pick(1, 3), pick(1, 2), pick(0, 2) + pick(0, 2)
    size = tuple(max(data.draw(st.integers(1, 6)), (k - 1) * d + 1) for k, d in zip(kernel, dilations, strict=True))
    group, c, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.integers(6, 50))
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    layer = Layer((group * c, *size), (group * m, c, *kernel), attributes)
    x, w, b = layer.draw(data.draw(st.integers(1, 5)), data.draw(st.integers(0, 99)))
    check(x, w, b, **attributes)
    ahead = Case("Conv", x, w, b, constant=(1, 2), **attributes).run()[0]
    assert ahead.tobytes() == Case("Conv", x, w, b, **attributes).run()[0].tobytes()


RUN_ALL = """
import sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    cases = dict(f)
answers = {}
for name in {n.rsplit("/")[0] for n in cases}:
    answers[name] = inferkit.Model.load(cases[name + "/model"].tobytes()).run({"x0": cases[name + "/x"]})["y0"]
np.savez(sys.argv[2], **answers)
print(inferkit.build_info()["isa"])
"""


def test_every_tier_is_right_and_avx2_has_the_bits_of_avx512(fresh_python: Fresh, tmp_path: Path) -> None:
    inputs, expected = {}, {}
    for name, layer in LAYERS.items():
        x, w, b = layer.draw(3)
        case = Case("Conv", x, w, b, constant=(1, 2), **layer.attributes)
        inputs[name + "/model"] = np.frombuffer(case.with_output_types(), np.uint8)
        inputs[name + "/x"] = x
        expected[name] = conv(x, w, b, **layer.attributes)
    np.savez(tmp_path / "in.npz", **inputs)
    answers = {}
    for tier in inferkit.build_info()["isa_available"]:
        out = tmp_path / f"{tier}.npz"
        done = fresh_python(RUN_ALL, str(tmp_path / "in.npz"), str(out), env={"INFERKIT_ISA": tier})
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == tier
        with np.load(out) as f:
            answers[tier] = dict(f)
        for name, y in expected.items():
            np.testing.assert_allclose(answers[tier][name], y, rtol=2e-5, atol=2e-6, err_msg=f"{name} on {tier}")
    for tier in answers.keys() - {"baseline", "avx2"}:
        for name in LAYERS:
            assert answers["avx2"][name].tobytes() == answers[tier][name].tobytes(), (name, tier)


def test_an_infinity_beside_a_window_does_not_reach_it() -> None:
    """Sixteen channels at once leave out what they do not read, and do not multiply it by zero."""
    layer = LAYERS["channels, few pixels"]
    x, _, b = layer.draw(1)
    w = np.zeros((16, 1, 3, 3), np.float32)
    w[:, :, 1, 1] = 1
    x[:, 5, 0, 0] = np.inf
    case = Case("Conv", x, w, b, constant=(1, 2), group=16, pads=[1, 1, 1, 1])
    model = inferkit.Model.load(case.with_output_types(), input_checks=inferkit.InputChecks(finite=False))
    found = model.run({"x0": x})["y0"]
    assert np.isinf(found[0, 5, 0, 0])
    assert np.isnan(found[0, 5, :2, :2]).sum() == 3  # the windows that hold it multiply it by zero
    found[0, 5, :2, :2] = 0
    assert np.isfinite(found).all()
