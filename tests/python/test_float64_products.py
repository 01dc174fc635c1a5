"""MatMul, Gemm, Conv and ConvTranspose in float64: near the exact sums; bits of the layer alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import Array, Case
from test_ops_conv import conv, conv_transpose

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
EPS = np.finfo(np.float64).eps


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def exact(a: Array, b: Array) -> Array:
    """The product in long double, whose last place is 1/2048 of a double's."""
    return np.matmul(a.astype(np.longdouble), b.astype(np.longdouble))


def error(found: Array, expected: Array, size: Array) -> float:
    """The root mean square of the errors, in roundings of the sums of absolute values."""
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    return float(np.sqrt(np.mean(((found - expected) / (EPS * size)) ** 2)))


@pytest.mark.parametrize("constant", [(), (1,)], ids=["b computed", "b constant"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 700), (700, 330)),
        ((70, 1200), (1200, 48)),
        ((5, 3, 40), (40, 17)),
        ((4, 1, 9, 130), (3, 130, 24)),
        ((6, 2, 64), (6, 64, 7)),
        ((300,), (300, 9)),
        ((7, 300), (300,)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul_is_near_the_exact_product(a: tuple[int, ...], b: tuple[int, ...], constant: tuple[int, ...]) -> None:
    x, w = draw(1, *a), draw(2, *b)
    case = Case("MatMul", x, w, constant=constant)
    expected = exact(x, w)
    size = np.maximum(np.matmul(np.abs(x), np.abs(w)), 1e-300)
    ours = error(case.run()[0], expected, size)
    assert ours < 0.6
    if 0 not in a:
        assert ours <= 1.05 * error(case.onnxruntime()[0], expected, size)


@pytest.mark.parametrize("constant", [(), (1, 2)], ids=["b computed", "b constant"])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.25), (2.0, 0.0)])
@pytest.mark.parametrize("c", [None, (), (50,), (1, 50), (19, 1), (19, 50)])
def test_gemm_is_near_the_exact_product(
    trans_a: int, trans_b: int, alpha: float, beta: float, c: tuple[int, ...] | None, constant: tuple[int, ...]
) -> None:
    x, w = draw(1, 19, 300), draw(2, 300, 50)
    addend = None if c is None else draw(3, *c)
    case = Case(
        "Gemm", x.T.copy() if trans_a else x, w.T.copy() if trans_b else w, addend,
        constant=constant[: 1 if c is None else 2], transA=trans_a, transB=trans_b, alpha=alpha, beta=beta,
    )  # fmt: skip
    added = np.longdouble(0) if addend is None else beta * addend.astype(np.longdouble)
    size = alpha * np.matmul(np.abs(x), np.abs(w)) + np.abs(added).astype(np.float64)
    assert error(case.run()[0], alpha * exact(x, w) + added, size) < 0.6


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3 x 3": ((64, 14, 14), (64, 64, 3, 3), {"pads": [1, 1, 1, 1]}),
    "first layer": ((3, 33, 31), (16, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "one channel": ((1, 20, 20), (8, 1, 5, 5), {}),
    "pointwise": ((40, 8, 8), (24, 40, 1, 1), {}),
    "pointwise, 7 x 7": ((40, 7, 7), (24, 40, 1, 1), {}),
    "groups": ((12, 9, 9), (24, 4, 3, 3), {"group": 3, "pads": [1, 0, 2, 1]}),
    "dilated": ((6, 15, 17), (9, 6, 3, 3), {"dilations": [2, 3], "strides": [1, 3], "pads": [2, 3, 0, 1]}),
    "a line": ((5, 200), (7, 5, 31), {"strides": [4], "pads": [30, 2]}),
    "volume": ((3, 5, 6, 7), (10, 3, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 1]}),
    "depthwise": ((10, 12, 12), (10, 1, 3, 3), {"group": 10, "pads": [1, 1, 1, 1]}),
    "padding alone": ((1, 1, 2), (4, 1, 1, 1), {"strides": [2, 1], "pads": [1, 0, 1, 0]}),
}
some_convs = pytest.mark.parametrize("name", CONVS)


def conv_case(name: str, batch: int, **options: Any) -> tuple[Case, Array, Array, Array]:
    image, weights, attributes = CONVS[name]
    x, w, b = draw(1, batch, *image), draw(2, *weights), draw(3, weights[0])
    return Case("Conv", x, w, b, constant=(1, 2), **options, **attributes), x, w, b


@some_convs
@pytest.mark.parametrize("batch", [1, 3])
def test_conv_is_near_the_exact_sums(name: str, batch: int) -> None:
    case, x, w, b = conv_case(name, batch)
    attributes = CONVS[name][2]
    # numpy's own sums in double: their error counts as ours
    size = conv(np.abs(x), np.abs(w), np.abs(b), **attributes)
    assert error(case.run()[0], conv(x, w, b, **attributes), np.maximum(size, 1e-300)) < 1


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_small_image(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, strides, dilations, pads = pick(1, 4), pick(1, 3), pick(1, 2), pick(0, 2) + pick(0, 2)
    size = tuple(max(data.draw(st.integers(1, 12)), (k - 1) * d + 1) for k, d in zip(kernel, dilations, strict=True))
    group, c, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 15))
    attributes: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    x, w = draw(1, data.draw(st.integers(1, 3)), group * c, *size), draw(2, group * m, c, *kernel)
    found = Case("Conv", x, w, **attributes).run()[0]
    np.testing.assert_allclose(found, conv(x, w, **attributes), rtol=1e-12, atol=1e-12)


def rows_keep_their_bits(case: Case, x: Array) -> None:
    expected = case.run(threads=1)[0]
    for threads in (1, 2, 4):
        model = case.load(threads=threads)
        for first, last in [(0, len(x)), (0, 1), (5, 7), (3, 19), (1, len(x) - 1)]:
            found = model.run({"x0": x[first:last]})["y0"]
            assert found.tobytes() == expected[first:last].tobytes()


@pytest.mark.parametrize("shape", [(300,), (3, 300), (600,)])
@pytest.mark.parametrize("columns", [8, 33, 300])
def test_rows_of_matmul_keep_their_bits(shape: tuple[int, ...], columns: int) -> None:
    x = draw(1, 67, *shape)
    rows_keep_their_bits(Case("MatMul", x, draw(2, shape[-1], columns), constant=(1,), free_batch=True), x)


@pytest.mark.parametrize("columns", [8, 33, 300])
def test_rows_of_gemm_keep_their_bits(columns: int) -> None:
    x = draw(1, 67, 500)
    case = Case("Gemm", x, draw(2, columns, 500), draw(3, columns), constant=(1, 2), free_batch=True, transB=1)
    rows_keep_their_bits(case, x)


@some_convs
def test_images_keep_their_bits(name: str) -> None:
    case, x, _, _ = conv_case(name, 23, free_batch=True)
    rows_keep_their_bits(case, x)


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
    x, w = draw(1, 37, 700), draw(2, 700, 90)
    inputs: dict[str, Array] = {}
    expected = {"product": exact(x, w).astype(np.float64)}
    made = {"product": (Case("MatMul", x, w, constant=(1,)), x)}
    image, weights = draw(3, 2, 70, 9, 12), draw(4, 70, 5, 3, 3)
    made["transposed"] = Case("ConvTranspose", image, weights, constant=(1,), strides=[2, 2]), image
    expected["transposed"] = conv_transpose(image, weights, None, [2, 2], [0] * 4, [1, 1], [0, 0], 1)
    for name in CONVS:
        case, image, weights, bias = conv_case(name, 3)
        made[name] = case, image
        expected[name] = conv(image, weights, bias, **CONVS[name][2])
    for name, (case, value) in made.items():
        inputs[name + "/model"] = np.frombuffer(case.with_output_types(), np.uint8)
        inputs[name + "/x"] = value
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
            np.testing.assert_allclose(answers[tier][name], y, rtol=1e-11, atol=1e-11, err_msg=f"{name} on {tier}")
    for tier in answers.keys() - {"baseline", "avx2"}:
        for name in expected:
            assert answers["avx2"][name].tobytes() == answers[tier][name].tobytes(), (name, tier)


def test_nan_and_infinity_reach_the_answer() -> None:
    x, w = draw(1, 20, 64), draw(2, 64, 24)
    x[3, 5], x[17, 60] = np.nan, np.inf
    y = Case("MatMul", x, w, constant=(1,)).run()[0]
    assert np.isnan(y[3]).all()
    assert np.isinf(y[17]).all()
    assert np.isfinite(np.delete(y, [3, 17], 0)).all()
