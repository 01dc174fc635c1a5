"""Models in bf16: the answers follow from the format, and from nothing but the layer."""

from __future__ import annotations

import copy
import pickle
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]
RNG = np.random.default_rng(45)
#: Each operand is rounded by at most half of 2^-7 in relation to itself: 2^-8.
ROUNDING = 2.0**-8


def made(
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "bf16",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def layers(depth: int = 70, width: int = 90) -> bytes:
    """A product that becomes a Linear with an activation, one of two computed sides, and a softmax."""
    return made(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Add", ["h", "b"], ["i"]),
            helper.make_node("Relu", ["i"], ["r"]),
            helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["r", "t"], ["s"]),
            helper.make_node("Softmax", ["s"], ["y"], axis=-1),
        ],
        {"x": ("n", 5, depth)},
        ["y", "r"],
        {"w": draw(depth, width) / np.float32(np.sqrt(depth)), "b": draw(width)},
    )


PRODUCTS: dict[str, tuple[list[Any], dict[str, np.ndarray], tuple[int, ...]]] = {
    "constant side": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": draw(300, 47)}, (9, 300)),
    "odd depth": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": draw(301, 64)}, (9, 301)),
    "many matrices": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": draw(3, 33, 20)}, (3, 7, 33)),
    "transposed": (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        {"w": draw(50, 128), "b": draw(50)},
        (9, 128),
    ),
    "scaled": (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
        {"w": draw(60, 50), "b": draw(50)},
        (9, 60),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_error_is_that_of_the_format(name: str) -> None:
    """Both operands are rounded: |error| <= (2 2^-8 + 2^-16) sum |a b|, and the sums' own in float32 besides."""
    nodes, constants, shape = PRODUCTS[name]
    content = made(nodes, {"x": (None, *shape[1:])}, ["y"], constants)
    model = inferkit.Model.load(content, precision="bf16")
    assert {step.precision for step in model.explain({"x": shape}).steps if "Mul" in step.operator} <= {"bf16"}
    x = draw(*shape)
    w = constants["w"].astype(np.float64)
    w = w.T if name == "transposed" else w
    scale = 0.5 if name == "scaled" else 1.0
    exact = scale * (x.astype(np.float64) @ w)
    size = scale * (np.abs(x).astype(np.float64) @ np.abs(w))
    if "b" in constants:
        exact = exact + (2.0 if name == "scaled" else 1.0) * constants["b"].astype(np.float64)
    error = np.abs(model(x) - exact)
    assert np.all(error <= (2 * ROUNDING + ROUNDING**2) * size + 1e-5)
    assert error.max() > 1e-4 * size.max() / np.sqrt(shape[-1])  # it is not float32
    float32 = inferkit.Model.load(content)
    assert np.abs(float32(x) - exact).max() < error.max() / 20


def test_the_bits_are_those_of_rounded_operands() -> None:
    """Small integers: what bf16 holds exactly has exact products and sums, and 257 is rounded to 256."""
    w = RNG.integers(-8, 9, (40, 24)).astype(np.float32)
    x = RNG.integers(-8, 9, (6, 40)).astype(np.float32)
    content = made([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (None, 40)}, ["y"], {"w": w})
    model = inferkit.Model.load(content, precision="bf16")
    np.testing.assert_array_equal(model(x), x @ w)
    x[0, 0] = 257
    rounded = x.copy()
    rounded[0, 0] = 256
    np.testing.assert_array_equal(model(x), rounded @ w)


def test_rows_do_not_depend_on_the_batch_nor_on_threads() -> None:
    content = layers()
    x = draw(23, 5, 70)
    whole = inferkit.Model.load(content, precision="bf16")(x)
    for threads in (1, 2):
        model = inferkit.Model.load(content, precision="bf16", threads=threads)
        for size in (1, 2, 7, 23):
            for first in range(0, 23, size):
                part = model(x[first : first + size])
                for a, b in zip(part, whole, strict=True):
                    np.testing.assert_array_equal(a, b[first : first + size])


def test_a_batcher_gives_the_bits_of_the_model() -> None:
    model = inferkit.Model.load(layers(), precision="bf16")
    x = draw(40, 5, 70)
    expected = [model(row) for row in x]
    answers: list[Any] = [None] * len(x)
    with inferkit.Batcher(model, max_batch_size=16, max_delay=0.002) as batcher:

        def ask(first: int) -> None:
            for i in range(first, len(x), 4):
                answers[i] = batcher(x[i])

        askers = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    for answer, want in zip(answers, expected, strict=True):
        for a, b in zip(answer, want, strict=True):
            np.testing.assert_array_equal(a, b)


DIGEST = """
import hashlib, sys
import numpy as np, inferkit
model = inferkit.Model.load(sys.argv[1], precision="bf16")
x = np.load(sys.argv[2])
digest = hashlib.sha256()
for rows in (1, 3, len(x)):
    for answer in model(x[:rows]):
        digest.update(answer.tobytes())
print(inferkit.build_info()["kernels"]["gemm_bf16"], digest.hexdigest())
"""


def test_the_bits_do_not_depend_on_the_processor(fresh_python: Fresh, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(layers(130, 200))
    np.save(tmp_path / "x.npy", draw(17, 5, 130))
    found = {}
    info = inferkit.build_info()
    for wish in ("avx2", "avx512", "avx512,-bf16"):
        if wish.split(",")[0] not in info["isa_available"]:
            continue
        done = fresh_python(DIGEST, str(tmp_path / "m.onnx"), str(tmp_path / "x.npy"), env={"INFERKIT_ISA": wish})
        assert done.returncode == 0, done.stderr
        ran, digest = done.stdout.split()
        found[ran] = digest
    if len(found) < 2:
        pytest.skip(f"this machine has one way to compute it: {', '.join(found) or 'the baseline'}")
    assert len(set(found.values())) == 1, found
    if "bf16" in info["isa_features"]:
        assert set(found) == {"avx2", "avx512", "avx512bf16"}


def test_explain_says_which_steps_compute_in_bf16() -> None:
    model = inferkit.Model.load(layers(), precision="bf16")
    steps = {step.operator: step for step in model.explain({"x": (2, 5, 70)}).steps}
    assert steps["inferkit.Linear"].precision == "bf16"
    assert steps["MatMul"].precision == "bf16"
    assert steps["Softmax"].precision != "bf16"
    assert "in_place cannot: this node computes in bf16" in steps["MatMul"].reason()
    plain = {step.precision for step in inferkit.Model.load(layers()).explain({"x": (2, 5, 70)}).steps}
    assert "bf16" not in plain


def test_packed_weights_take_half(tmp_path: Path) -> None:
    w = draw(256, 512)
    content = made([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (None, 256)}, ["y"], {"w": w})
    float32, bf16 = (inferkit.Model.load(content, precision=p) for p in ("float32", "bf16"))
    for model in (float32, bf16):
        model(draw(1, 256))
        model(draw(64, 256))
    assert float32.memory().packed_bytes == w.nbytes
    assert bf16.memory().packed_bytes == w.nbytes // 2
    # And files hold them, for models in bf16 alone.
    path = tmp_path / "bf16.packed"
    bf16.save_packed(path)
    again = inferkit.Model.load(content, precision="bf16", packed=path)
    assert again.memory().packed_shared_bytes == w.nbytes // 2
    x = draw(5, 256)
    np.testing.assert_array_equal(again(x), bf16(x))
    with pytest.raises(
        inferkit.ModelError, match="made for the precision 'bf16', and this model computes in 'float32'"
    ):
        inferkit.Model.load(content, packed=path)
    cache = tmp_path / "cache"
    for _ in range(2):
        for precision in ("float32", "bf16"):
            model = inferkit.Model.load(content, precision=precision, packed_cache=cache)
            np.testing.assert_array_equal(model(x), (bf16 if precision == "bf16" else float32)(x))
    assert len(list(cache.glob("*.packed"))) == 2


def test_the_precision_stays_with_the_model(tmp_path: Path) -> None:
    content = layers()
    model = inferkit.Model.load(content, precision="bf16")
    x = draw(3, 5, 70)
    expected = model(x)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.precision == "bf16"
        assert "in bf16" in repr(other)
        for a, b in zip(other(x), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert inferkit.Model.load(content).precision == "float32"
    assert "bf16" not in repr(inferkit.Model.load(content))
    wrapped = inferkit.Model.from_callable(np.tanh, [("x", "float32", (None, 4))], [("y", "float32", (None, 4))])
    assert wrapped.precision == ""


def test_loops_and_branches_compute_in_it_too() -> None:
    """The body of an If that a run decides."""

    def branch(name: str, weight: str) -> Any:
        node = helper.make_node("MatMul", ["x", weight], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    w = {"w": draw(64, 32), "v": draw(64, 32)}
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "w"), else_branch=branch("b", "v")),
    ]
    content = made(nodes, {"x": (None, 64)}, ["y"], {**w, "zero": np.array(0, np.float32)})
    model = inferkit.Model.load(content, precision="bf16")
    x = np.abs(draw(3, 64))
    plain = made([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (None, 64)}, ["y"], w)
    straight = inferkit.Model.load(plain, precision="bf16")
    np.testing.assert_array_equal(model(x), straight(x))
    assert np.any(model(x) != inferkit.Model.load(plain)(x))


@pytest.mark.parametrize("precision", ["fp32", "BF16", "bfloat16", "", "float16", "auto"])
def test_another_name_is_refused(precision: str) -> None:
    with pytest.raises(ValueError, match='precision must be "float32" or "bf16", got'):
        inferkit.Model.load(layers(), precision=precision)


@pytest.mark.parametrize("precision", [None, 16, b"bf16", np.float32, True])
def test_a_precision_is_named_by_a_str(precision: Any) -> None:
    with pytest.raises(TypeError, match="precision"):
        inferkit.Model.load(layers(), precision=precision)


def test_it_is_for_the_cpu() -> None:
    with pytest.raises(ValueError, match='precision="bf16" is for models on the CPU'):
        inferkit.Model.load(layers(), precision="bf16", device="cuda")


def test_nan_and_infinity_reach_the_answer() -> None:
    content = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (None, 40)}, ["y"], {"w": np.abs(draw(40, 24))}
    )
    model = inferkit.Model.load(content, precision="bf16", input_checks=inferkit.InputChecks(finite=False))
    x = np.abs(draw(4, 40))
    x[1, 3], x[2, 5], x[3, 7] = np.nan, np.inf, 3.4e38  # the last rounds to infinity
    y = model(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
    assert np.isposinf(y[2]).all()
    assert np.isposinf(y[3]).all()


# ---- Model.compare_precision


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compare_precision_is_the_difference_of_the_two_models(precision: str) -> None:
    content = layers()
    x = draw(6, 5, 70)
    exact = inferkit.Model.load(content)(x)
    rounded = inferkit.Model.load(content, precision="bf16")(x)
    model = inferkit.Model.load(content, precision=precision)
    before = model.memory()
    report = model.compare_precision(x)
    assert model.memory() == before
    assert [output.name for output in report.outputs] == ["y", "r"]
    for output, a, b in zip(report.outputs, exact, rounded, strict=True):
        want, got = a.astype(np.float64), b.astype(np.float64)
        assert output.elements == a.size
        assert output.max_abs_error == np.abs(want - got).max() > 0
        assert output.relative_error == pytest.approx(np.linalg.norm(want - got) / np.linalg.norm(want), rel=1e-9)
        assert output.cosine == pytest.approx(
            np.sum(want * got) / np.linalg.norm(want) / np.linalg.norm(got), rel=1e-12
        )
        assert output.equal == np.mean(a == b)
        nonzero = want != 0
        assert output.max_rel_error == pytest.approx((np.abs(want - got)[nonzero] / np.abs(want)[nonzero]).max())
    text = str(report)
    assert text.startswith("bf16 beside float32\n  y: 150 elements")
    assert "cosine 0.99" in text


def test_compare_precision_of_what_has_no_errors_or_only_them() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ArgMax", ["h"], ["i"], axis=1),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Mul", ["x", "zero"], ["none"]),
    ]
    content = made(nodes, {"x": (None, 64)}, ["i", "same", "none"], {"w": draw(64, 9), "zero": np.array(0, np.float32)})
    report = inferkit.Model.load(content).compare_precision(draw(5, 64))
    index, same, none = report.outputs
    assert (index.cosine, index.max_abs_error in (0.0, np.inf), 0 <= index.equal <= 1) == (None, True, True)
    assert (same.max_abs_error, same.relative_error, same.equal) == (0.0, 0.0, 1.0)
    assert same.cosine == pytest.approx(1.0)
    assert (none.max_rel_error, none.relative_error, none.cosine, none.equal) == (0.0, 0.0, None, 1.0)


def test_compare_precision_refuses_what_it_cannot_run() -> None:
    wrapped = inferkit.Model.from_callable(np.tanh, [("x", "float32", (None, 4))], [("y", "float32", (None, 4))])
    with pytest.raises(ValueError, match="a wrapped callable has one precision, its own"):
        wrapped.compare_precision(draw(1, 4))
    model = inferkit.Model.load(layers())
    with pytest.raises(inferkit.ValidationError, match="the model takes 1 input"):
        model.compare_precision()
    with pytest.raises(inferkit.ValidationError, match="dtype"):
        model.compare_precision(np.zeros((1, 5, 70)))


def test_a_report_is_frozen() -> None:
    report = inferkit.Model.load(layers()).compare_precision(draw(1, 5, 70))
    with pytest.raises(AttributeError):
        report.outputs = ()  # type: ignore[misc]
