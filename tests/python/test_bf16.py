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
from onnx.reference import ReferenceEvaluator

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


@pytest.mark.parametrize(("depth", "width"), [(1025, 40), (1100, 17)])
def test_nor_where_the_tiles_of_amx_cut_sums_into_chunks(depth: int, width: int) -> None:
    content = layers(depth, width)
    x = draw(19, 5, depth)
    whole = inferkit.Model.load(content, precision="bf16")(x)
    for threads in (1, 2):
        model = inferkit.Model.load(content, precision="bf16", threads=threads)
        for first, last in ((0, 1), (1, 3), (3, 10), (10, 19)):
            for a, b in zip(model(x[first:last]), whole, strict=True):
                np.testing.assert_array_equal(a, b[first:last])


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
    for wish in ("avx2", "avx512,-amx-bf16", "avx512,-bf16", "avx512"):
        if wish.split(",")[0] not in info["isa_available"]:
            continue
        done = fresh_python(DIGEST, str(tmp_path / "m.onnx"), str(tmp_path / "x.npy"), env={"INFERKIT_ISA": wish})
        assert done.returncode == 0, done.stderr
        ran, digest = done.stdout.split()
        found[ran] = digest
    tiles = found.pop("avx512amx", None)  # which add up in an order of their own
    if len(found) < 2:
        pytest.skip(f"this machine has one way to compute it: {', '.join(found) or 'the baseline'}")
    assert len(set(found.values())) == 1, found
    if "bf16" in info["isa_features"]:
        assert set(found) == {"avx2", "avx512", "avx512bf16"}
    assert tiles not in found.values()


def test_explain_says_which_steps_compute_in_bf16() -> None:
    model = inferkit.Model.load(layers(), precision="bf16")
    steps = {step.operator: step for step in model.explain({"x": (2, 5, 70)}).steps}
    assert steps["inferkit.Linear"].precision == "bf16"
    assert steps["MatMul"].precision == "bf16"
    assert steps["Softmax"].precision != "bf16"
    assert "in_place cannot: it does not compute in bf16" in steps["MatMul"].reason()
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


@pytest.mark.parametrize("precision", ["fp32", "BF16", "bfloat16", "", "fp16", "auto"])
def test_another_name_is_refused(precision: str) -> None:
    with pytest.raises(ValueError, match='precision must be "float32", "bf16" or "float16", got'):
        inferkit.Model.load(layers(), precision=precision)


@pytest.mark.parametrize("precision", [None, 16, b"bf16", np.float32, True])
def test_a_precision_is_named_by_a_str(precision: Any) -> None:
    with pytest.raises(TypeError, match="precision"):
        inferkit.Model.load(layers(), precision=precision)


def test_float16_is_for_cuda() -> None:
    for options in ({}, {"device": "cpu"}):
        with pytest.raises(ValueError, match='precision="float16" is for models on CUDA: take "bf16"'):
            inferkit.Model.load(layers(), precision="float16", **options)


@pytest.mark.skipif(inferkit.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("precision", ["bf16", "float16"])
def test_a_device_that_is_not_there_is_what_is_said_in_every_precision(precision: str) -> None:
    with pytest.raises(inferkit.DeviceError) as caught:
        inferkit.Model.load(layers(), precision=precision, device="cuda")
    assert str(caught.value).startswith(inferkit.cuda.why_not())


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


# ---- Convolutions, attention, recurrent layers


def node_model(
    op: str, x: Sequence[Any], constants: dict[str, np.ndarray], outputs: Sequence[str], **attributes: Any
) -> bytes:
    names = ["x", *constants]
    return made([helper.make_node(op, names, outputs, **attributes)], {"x": x}, outputs, constants)


def rounded(x: np.ndarray) -> np.ndarray:
    """To bf16, to nearest even, by whole numbers: what the core's own conversion is not asked."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return nearest.astype(np.uint32).view(np.float32).astype(np.float64)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((2, 24, 14, 15), (40, 24, 3, 3), {"pads": [1, 1, 1, 1]}),
    "1x1": ((2, 48, 9, 11), (33, 48, 1, 1), {}),
    "strided": ((2, 3, 31, 29), (16, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "groups": ((2, 12, 10, 10), (20, 3, 3, 3), {"group": 4}),
    "1d": ((3, 7, 100), (9, 7, 5), {"pads": [2, 2], "dilations": [1]}),
    "3d": ((1, 3, 6, 7, 8), (5, 3, 2, 2, 2), {}),
    "few pixels": ((3, 64, 3, 3), (70, 64, 3, 3), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("constant", [True, False])
def test_a_convolution_is_that_of_rounded_operands(name: str, constant: bool) -> None:
    """Against a convolution in float64 of what is rounded first: then only the sums of float32 are left."""
    shape, kernel, attributes = CONVOLUTIONS[name]
    x, w, b = draw(*shape), draw(*kernel), draw(kernel[0])
    names = {"w": w, "b": b}
    inputs: dict[str, Sequence[Any]] = {"x": (None, *shape[1:])}
    if not constant:
        inputs["w"] = kernel
        del names["w"]
    content = made([helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)], inputs, ["y"], names)
    model = inferkit.Model.load(content, precision="bf16")
    feeds = {"x": x} if constant else {"x": x, "w": w}
    assert model.explain({k: v.shape for k, v in feeds.items()}).steps[0].precision == "bf16"
    wide = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        "exact",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(rounded(w), "w"), numpy_helper.from_array(b.astype(np.float64), "b")],
    )
    made_wide = helper.make_model(wide, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    exact = ReferenceEvaluator(made_wide).run(None, {"x": rounded(x)})[0]
    y = model.run(feeds)["y"]
    terms = np.prod(kernel[1:])
    np.testing.assert_allclose(y, exact, rtol=0, atol=2e-6 * np.sqrt(terms) * 4)
    for row in range(shape[0]):  # alone
        one = {**feeds, "x": x[row : row + 1]}
        np.testing.assert_array_equal(model.run(one)["y"], y[row : row + 1])


def test_threads_do_not_change_a_convolution() -> None:
    content = node_model("Conv", (None, 32, 40, 40), {"w": draw(64, 32, 3, 3)}, ["y"], pads=[1, 1, 1, 1])
    x = draw(3, 32, 40, 40)
    one, two = (inferkit.Model.load(content, precision="bf16", threads=n)(x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_depthwise_convolutions_stay_in_float32() -> None:
    content = node_model("Conv", (None, 12, 9, 9), {"w": draw(12, 1, 3, 3)}, ["y"], group=12)
    x = draw(2, 12, 9, 9)
    model = inferkit.Model.load(content, precision="bf16")
    step = model.explain({"x": x.shape}).steps[0]
    assert step.precision == "float32"
    assert "bf16 cannot: one channel a group, whose sums are too short" in step.reason()
    np.testing.assert_array_equal(model(x), inferkit.Model.load(content)(x))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_is_near_to_float32_and_the_same_in_any_batch(op: str, direction: str) -> None:
    gates, hidden, depth = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 37, 21
    ways = 2 if direction == "bidirectional" else 1
    weights = {"w": draw(ways, gates * hidden, depth) / 5, "r": draw(ways, gates * hidden, hidden) / 6}
    weights["b"] = draw(ways, 2 * gates * hidden) / 10
    content = node_model(op, (11, None, depth), weights, ["y"], hidden_size=hidden, direction=direction)
    x = draw(11, 9, depth)
    model, float32 = inferkit.Model.load(content, precision="bf16"), inferkit.Model.load(content)
    assert model.explain({"x": x.shape}).steps[0].precision == "bf16"
    y, exact = model.run({"x": x})["y"], float32.run({"x": x})["y"]
    assert 0 < np.abs(y - exact).max() < 0.03
    assert float32.memory().packed_bytes > 1.8 * model.memory().packed_bytes
    for size in (1, 4):
        np.testing.assert_array_equal(model.run({"x": x[:, :size]})["y"], y[:, :, :size])


def test_a_long_state_is_added_in_place() -> None:
    """Sums of a state of more than 1,024 go on from block to block, and end on what stands in C already."""
    hidden = 1300
    weights = {"w": draw(1, hidden, 8) / 3, "r": draw(1, hidden, hidden) / 40}
    content = node_model("RNN", (3, None, 8), weights, ["y"], hidden_size=hidden)
    x = draw(3, 2, 8)
    y = inferkit.Model.load(content, precision="bf16").run({"x": x})["y"]
    state = np.zeros((2, hidden))
    for t in range(3):
        state = np.tanh(rounded(x[t]) @ rounded(weights["w"][0]).T + rounded(state) @ rounded(weights["r"][0]).T)
        np.testing.assert_allclose(y[t, 0], state, rtol=0, atol=2e-3)  # a state may round to the other side
        state = y[t, 0].astype(np.float64)


def attention(heads: int, size: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=1)],
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, (None, heads, "rows", size)) for n in "qkv"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("rows", "size"), [(7, 16), (40, 20), (301, 32)])
def test_attention_is_that_of_rounded_operands(rows: int, size: int) -> None:
    model = inferkit.Model.load(attention(2, size), precision="bf16")
    q, k, v = draw(3, 2, rows, size), draw(3, 2, rows, size), draw(3, 2, rows, size)
    feeds = {"q": q, "k": k, "v": v}
    assert model.explain({n: x.shape for n, x in feeds.items()}).steps[0].precision == "bf16"
    y = model.run(feeds)["y"]
    scores = rounded(q) @ rounded(k).swapaxes(-1, -2) / np.sqrt(size)
    scores = np.where(np.tril(np.ones((rows, rows), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    # Weights are rounded, too: some to the other side of what float64 gives.
    np.testing.assert_allclose(y, weights @ rounded(v), rtol=0, atol=4 * ROUNDING)
    np.testing.assert_allclose(y, rounded(weights) @ rounded(v), rtol=0, atol=ROUNDING)
    for row in range(3):
        alone = model.run({n: x[row : row + 1] for n, x in feeds.items()})["y"]
        np.testing.assert_array_equal(alone, y[row : row + 1])


def test_keys_that_no_row_sees_do_not_reach_it() -> None:
    """An odd number of keys ends in the middle of a pair: what follows may be NaN."""
    model = inferkit.Model.load(attention(1, 16), precision="bf16", input_checks=inferkit.InputChecks(finite=False))
    rows, cut = 1456, 7 * 45  # blocks are of 45 rows, for which 2^16 scores have room
    q, k, v = draw(1, 1, rows, 16), draw(1, 1, rows, 16), draw(1, 1, rows, 16)
    good = model.run({"q": q, "k": k, "v": v})["y"]
    v[0, 0, cut:] = np.nan
    y = model.run({"q": q, "k": k, "v": v})["y"]
    np.testing.assert_array_equal(y[0, 0, :cut], good[0, 0, :cut])
    assert np.isnan(y[0, 0, cut:]).all()


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


def test_a_wide_image_is_convolved_in_parts() -> None:
    """What a block of its windows takes is bounded: of one row of this image they are 9 MiB."""
    file = made(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        {"x": ["n", 64, 4, None]},
        ["y"],
        {"w": draw(8, 64, 3, 3)},
    )
    model = inferkit.Model.load(file, precision="bf16", threads=1)
    x = draw(1, 64, 4, 8192)
    (step,) = model.profile(x, runs=1).steps
    assert step.precision == "bf16"
    assert step.scratch_bytes < 2 << 20
    # A narrow part of it goes another way, in whole rows.
    assert model(x[..., :102])[..., :100].tobytes() == model(x)[..., :100].tobytes()
