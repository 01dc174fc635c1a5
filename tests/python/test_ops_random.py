"""Operators that draw: the same bits for a seed, on every machine and in every batch, with the moments that they should
have.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

FLOAT, DOUBLE, HALF, BFLOAT, BOOL = (
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL,
)  # fmt: skip
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
Array = np.ndarray


def value(name: str, dtype: int = FLOAT, *dims: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def load(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    types: dict[str, int],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    **options: Any,
) -> inferkit.Model:
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info(n, t, None) for n, t in types.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString(), input_checks=LENIENT, **options)


def draw(op: str, shape: list[int], dtype: int = FLOAT, **attributes: Any) -> Array:
    node = helper.make_node(op, [], ["y"], shape=shape, dtype=dtype, **attributes)
    return load([node], [], {"y": dtype}, opset=22 if dtype == BFLOAT else 17).run({})["y"]


def unary(op: str, x: Array, out: int = FLOAT, opset: int = 17, **attributes: Any) -> Array:
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    dims = [None, *x.shape[1:]] if x.ndim else []
    return load([helper.make_node(op, ["x"], ["y"], **attributes)], [value("x", dtype, *dims)], {"y": out},
                opset=opset).run({"x": x})["y"]  # fmt: skip


# ---- an implementation beside it ------------------------------------------------------------------------------------


def philox(block: int, key: int, stream: int = 0) -> list[int]:
    """Philox 4x32-10, as Salmon et al. print it."""
    mask = 0xFFFFFFFF
    c = [block & mask, block >> 32, stream & mask, stream >> 32]
    k = [key & mask, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def words(count: int, key: int) -> list[int]:
    return [philox(i // 4, key)[i % 4] for i in range(count)]


def long_words(count: int, key: int) -> list[int]:
    blocks = [philox(i // 2, key) for i in range(count)]
    return [b[2 * (i % 2)] | b[2 * (i % 2) + 1] << 32 for i, b in enumerate(blocks)]


def key_of(seed: float) -> int:
    return 2 << 62 | int(np.float32(seed).view(np.uint32))


def key_at(place: int) -> int:
    return 1 << 62 | place


def test_uniform_draws_are_philoxs_words() -> None:
    got = draw("RandomUniform", [3, 7], seed=4.5, low=-1.0, high=3.0)
    want = np.array([-1 + 4 * (w >> 8) / 2**24 for w in words(21, key_of(4.5))], np.float32)
    np.testing.assert_array_equal(got.ravel(), want)
    got = draw("RandomUniform", [3, 3], DOUBLE, seed=4.5)
    np.testing.assert_array_equal(got.ravel(), [(w >> 11) / 2**53 for w in long_words(9, key_of(4.5))])


def test_normal_draws_are_the_quantiles_of_philoxs_words() -> None:
    got = draw("RandomNormal", [5, 5], seed=2.0, mean=1.0, scale=2.0)
    want = [NormalDist(1, 2).inv_cdf((w + 0.5) / 2**32) for w in words(25, key_of(2))]
    np.testing.assert_allclose(got.ravel(), want, rtol=3e-7, atol=1e-7)
    got = draw("RandomNormal", [5, 5], DOUBLE, seed=2.0)
    want = [NormalDist().inv_cdf(((w >> 12) + 0.5) / 2**52) for w in long_words(25, key_of(2))]
    np.testing.assert_allclose(got.ravel(), want, rtol=1e-13)


def test_without_a_seed_the_place_in_the_graph_is_the_key() -> None:
    nodes = [helper.make_node("RandomUniform", [], [name], shape=[6]) for name in "ab"]
    model = load(nodes, [], {"a": FLOAT, "b": FLOAT})
    for place, name in enumerate("ab"):
        want = np.array([(w >> 8) / 2**24 for w in words(6, key_at(place))], np.float32)
        np.testing.assert_array_equal(model.run({})[name], want)


# ---- the same bits --------------------------------------------------------------------------------------------------

LIKE = {
    "RandomUniformLike": {}, "RandomNormalLike": {"mean": 2.0, "scale": 0.5}, "Bernoulli": {},
    "Multinomial": {"sample_size": 5},
}  # fmt: skip
OUT = {"Multinomial": TensorProto.INT32}


@pytest.mark.parametrize("op", LIKE)
@pytest.mark.parametrize("seed", [{}, {"seed": 3.0}])
def test_loads_and_runs_agree(op: str, seed: dict[str, float]) -> None:
    x = np.full((4, 9), 0.5, np.float32)
    model = [load([helper.make_node(op, ["x"], ["y"], **LIKE[op], **seed)], [value("x", FLOAT, None, 9)],
                  {"y": OUT.get(op, FLOAT)}) for _ in range(2)]  # fmt: skip
    first = model[0].run({"x": x})["y"]
    for again in (model[0], model[1]):
        assert again.run({"x": x})["y"].tobytes() == first.tobytes()
    assert unary(op, x, OUT.get(op, FLOAT), **LIKE[op], seed=7.0).tobytes() != first.tobytes()


@pytest.mark.parametrize("op", LIKE)
def test_a_rows_draws_do_not_depend_on_how_many_follow(op: str) -> None:
    x = np.full((8, 9), 0.5, np.float32)
    out = OUT.get(op, FLOAT)
    whole = unary(op, x, out, seed=1.0, **LIKE[op])
    for rows in (1, 3, 7):
        np.testing.assert_array_equal(unary(op, x[:rows], out, seed=1.0, **LIKE[op]), whole[:rows])


def test_threads_do_not_change_a_bit() -> None:
    node = helper.make_node("RandomNormal", [], ["y"], shape=[300, 1001], seed=1.0)
    one, many = (load([node], [], {"y": FLOAT}, threads=n).run({})["y"] for n in (1, 0))
    assert one.tobytes() == many.tobytes()


def test_a_constant_input_makes_no_constant_of_the_draw() -> None:
    """What is folded must be what a run gives."""
    shape = np.zeros((3, 4), np.float32)
    constant = load([helper.make_node("RandomNormalLike", ["c"], ["n"], seed=1.0),
                     helper.make_node("Add", ["x", "n"], ["y"])],
                    [value("x", FLOAT, None, 4)], {"y": FLOAT}, {"c": shape})  # fmt: skip
    np.testing.assert_array_equal(constant(shape), unary("RandomNormalLike", shape, seed=1.0))


def test_what_is_chosen_of_a_model_changes_no_draw() -> None:
    nodes = [helper.make_node("RandomNormal", [], [name], shape=[6]) for name in "abc"]
    outputs = dict.fromkeys("abc", FLOAT)
    whole = load(nodes, [], outputs).run({})
    assert load(nodes, [], outputs, outputs=["b"]).run({})["b"].tobytes() == whole["b"].tobytes()
    assert len({whole[name].tobytes() for name in "abc"}) == 3


def test_nodes_of_one_seed_draw_the_same() -> None:
    nodes = [helper.make_node("RandomNormal", [], [name], shape=[6], seed=1.0) for name in "ab"]
    got = load(nodes, [], dict.fromkeys("ab", FLOAT)).run({})
    assert got["a"].tobytes() == got["b"].tobytes()


def loop(trips: int, **attributes: Any) -> inferkit.Model:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("RandomNormal", [], ["d"], shape=[4],
                                                                       **attributes)],
        "body", [value("i", TensorProto.INT64), value("go", BOOL)], [value("on", BOOL), value("d", FLOAT, 4)],
    )  # fmt: skip
    return load([helper.make_node("Loop", ["m", ""], ["y"], body=body)], [], {"y": FLOAT}, {"m": np.int64(trips)})


@pytest.mark.parametrize("attributes", [{}, {"seed": 1.0}])
def test_iterations_draw_anew(attributes: dict[str, float]) -> None:
    got = loop(5, **attributes).run({})["y"]
    assert len({row.tobytes() for row in got}) == 5
    np.testing.assert_array_equal(loop(3, **attributes).run({})["y"], got[:3])


# ---- in a batcher ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [*LIKE, "Dropout"])
def test_requests_draw_as_they_do_alone(op: str) -> None:
    if op == "Dropout":
        node = helper.make_node(op, ["x", "", "yes"], ["y"])
        model = load([node], [value("x", FLOAT, None, 9)], {"y": FLOAT}, {"yes": np.array(True)})
    else:
        node = helper.make_node(op, ["x"], ["y"], **LIKE[op])
        model = load([node], [value("x", FLOAT, None, 9)], {"y": OUT.get(op, FLOAT)})
    requests = [np.full((rows, 9), 0.5, np.float32) for rows in (1, 3, 2, 1, 4)]
    with inferkit.Batcher(model, max_batch_size=16, max_delay=0.02) as batcher:
        tickets = [batcher.submit(x) for x in requests]
        for x, ticket in zip(requests, tickets, strict=True):
            assert ticket.result().tobytes() == model(x).tobytes()
        assert batcher.stats().batches == len(requests)


def test_noise_that_all_rows_share_is_batched() -> None:
    nodes = [helper.make_node("RandomNormal", [], ["n"], shape=[1, 9]), helper.make_node("Add", ["x", "n"], ["y"])]
    model = load(nodes, [value("x", FLOAT, None, 9)], {"y": FLOAT})
    rows = np.random.default_rng(0).standard_normal((6, 9), np.float32)
    with inferkit.Batcher(model, max_batch_size=6, max_delay=5.0) as batcher:
        tickets = [batcher.submit(row[None]) for row in rows]
        for row, ticket in zip(rows, tickets, strict=True):
            assert ticket.result().tobytes() == model(row[None]).tobytes()
        assert batcher.stats().batches < 6


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Bernoulli", ["x"], ["y"])],
        [helper.make_node("RandomUniform", [], ["n"], shape=[4, 1]), helper.make_node("Less", ["n", "x"], ["b"]),
         helper.make_node("Cast", ["b"], ["y"], to=FLOAT)],
    ],
    ids=["of the rows", "as many as the rows"],
)  # fmt: skip
def test_a_fixed_number_of_rows_must_be_there(nodes: list[onnx.NodeProto]) -> None:
    """A trial could find by chance that a row draws the same elsewhere."""
    model = load(nodes, [value("x", FLOAT, 4, 1)], {"y": FLOAT})
    for certain in (0.0, 1.0):
        with inferkit.Batcher(model) as batcher:
            x = np.full((4, 1), certain, np.float32)
            np.testing.assert_array_equal(batcher(x), model(x))
            with pytest.raises(inferkit.ValidationError, match="exactly that many"):
                batcher(x[:2])


# ---- distributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, HALF, BFLOAT])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (0.999, 1.0), (2.0, 2.0), (-1e-3, 0.0)])
def test_uniform_draws_are_within_their_bounds(dtype: int, low: float, high: float) -> None:
    got = draw("RandomUniform", [20_000], dtype, seed=1.0, low=low, high=high).astype(np.float64)
    step = {FLOAT: 2.0**-23, DOUBLE: 2.0**-52, HALF: 2.0**-10, BFLOAT: 2.0**-7}[dtype] * max(abs(low), abs(high))
    low, high = float(np.float32(low)), float(np.float32(high))
    assert got.min() >= low - step
    assert got.max() < high or low == high == got.max()
    assert abs(got.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 20_000) + step


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, HALF, BFLOAT])
def test_normal_draws_have_their_moments(dtype: int) -> None:
    n = 200_000
    z = (draw("RandomNormal", [n], dtype, seed=1.0, mean=3.0, scale=2.0).astype(np.float64) - 3) / 2
    coarse = 0.004 if dtype == BFLOAT else 0
    assert abs(z.mean()) < 4 / math.sqrt(n) + coarse
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n) + coarse
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n) + coarse
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n) + 10 * coarse
    for bound in (-2.0, -0.5, 1.0, 3.0):
        assert abs((z < bound).mean() - NormalDist().cdf(bound)) < 4 * 0.5 / math.sqrt(n) + 2 * coarse


@pytest.mark.parametrize("out", [None, BOOL, TensorProto.INT64, TensorProto.UINT8, HALF])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_bernoulli(out: int | None, dtype: Any) -> None:
    chance = np.repeat(np.array([0, 0.1, 0.5, 0.9, 1], dtype), 10_000).reshape(5, -1)
    named = {} if out is None else {"dtype": out}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) if out is None else out
    got = unary("Bernoulli", chance, kind, seed=1.0, **named)
    assert got.dtype == (dtype if out is None else helper.tensor_dtype_to_np_dtype(out))
    assert set(np.unique(got.astype(float))) == {0, 1}
    means = got.astype(float).mean(1)
    assert means[0] == 0
    assert means[-1] == 1
    np.testing.assert_allclose(means, chance[:, 0].astype(float), atol=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("out", [TensorProto.INT32, TensorProto.INT64])
def test_multinomial(dtype: Any, out: int) -> None:
    chance = np.array([[0.1, 0.0, 0.6, 0.3, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]])
    with np.errstate(divide="ignore"):
        logits = (np.log(chance) + np.array([[300], [-5], [0]])).astype(dtype)
    weights = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    chance = weights / weights.sum(1, keepdims=True)  # of what the type has left of them
    n = 20_000
    got = unary("Multinomial", logits, out, sample_size=n, seed=1.0, dtype=out)
    assert got.dtype == helper.tensor_dtype_to_np_dtype(out)
    assert got.shape == (3, n)
    for row, expected in zip(got, chance, strict=True):
        found = np.bincount(row, minlength=5) / n
        assert (found[expected == 0] == 0).all()
        np.testing.assert_allclose(found, expected, atol=0.015)


# ---- Dropout --------------------------------------------------------------------------------------------------------


def dropout(x: Array, ratio: Any, training: Any, constant: bool, dtype: int = FLOAT, opset: int = 17) -> Any:
    node = helper.make_node("Dropout", ["x", "r", "t"], ["y", "m"], seed=5)
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(ratio).dtype)
    ports = [value("x", dtype, *x.shape)]
    given = {"r": np.asarray(ratio), "t": np.asarray(training)}
    if not constant:
        ports += [value("r", kind), value("t", BOOL)]
    model = load([node], ports, {"y": dtype, "m": BOOL}, given if constant else {}, opset)
    got = model.run({"x": x} if constant else {"x": x, **given})
    return got["y"], got["m"]


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.9])
def test_dropout_in_training(constant: bool, dtype: Any, ratio: float) -> None:
    x = np.random.default_rng(0).standard_normal((50, 200)).astype(dtype)
    y, mask = dropout(x, np.float32(ratio), True, constant, helper.np_dtype_to_tensor_dtype(x.dtype))
    assert mask.dtype == bool
    assert abs(mask.mean() - (1 - ratio)) < 0.02
    scale = 1 / (1 - float(np.float32(ratio)))
    np.testing.assert_allclose(y.astype(float), np.where(mask, x.astype(float) * scale, 0), rtol=2e-3 if
                               dtype == np.float16 else 1e-6)  # fmt: skip
    again, _ = dropout(x, np.float32(ratio), True, not constant, helper.np_dtype_to_tensor_dtype(x.dtype))
    assert again.tobytes() == y.tobytes()
    np.testing.assert_array_equal(mask.ravel()[:20], [(w + 0.5) / 2**32 >= np.float32(ratio) for w in words(20, 5)])


@pytest.mark.parametrize("constant", [True, False])
def test_dropout_in_inference(constant: bool) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    y, mask = dropout(x, np.float32(0.5), False, constant)
    np.testing.assert_array_equal(y, x)
    assert mask.all()


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("is_test", [None, 0, 1])
def test_old_dropout(opset: int, is_test: int | None) -> None:
    attributes = {"ratio": 0.25} | ({} if is_test is None else {"is_test": is_test})
    x = np.ones((30, 100), np.float32)
    model = load([helper.make_node("Dropout", ["x"], ["y", "m"], **attributes)], [value("x", FLOAT, None, 100)],
                 {"y": FLOAT, "m": FLOAT}, opset=opset)  # fmt: skip
    got = model.run({"x": x})
    assert got["m"].dtype == np.float32
    if is_test:
        np.testing.assert_array_equal(got["y"], x)
        assert got["m"].all()
    else:
        assert abs(got["m"].mean() - 0.75) < 0.03
        np.testing.assert_allclose(got["y"], got["m"] / 0.75, rtol=1e-6)


@pytest.mark.parametrize("opset", [7, 10])
def test_dropout_of_opsets_that_only_infer(opset: int) -> None:
    x = np.ones((3, 4), np.float32)
    mask = FLOAT if opset < 10 else BOOL
    model = load([helper.make_node("Dropout", ["x"], ["y", "m"], ratio=0.9)], [value("x", FLOAT, None, 4)],
                 {"y": FLOAT, "m": mask}, opset=opset)  # fmt: skip
    got = model.run({"x": x})
    np.testing.assert_array_equal(got["y"], x)
    assert got["m"].dtype == (np.float32 if opset < 10 else bool)
    assert got["m"].all()


@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.5, math.nan])
def test_ratios_that_there_are_not(ratio: float) -> None:
    x = np.ones((3, 4), np.float32)
    with pytest.raises(inferkit.ModelError, match=r"Dropout.*a ratio of"):
        dropout(x, np.float32(ratio), True, True)
    with pytest.raises(inferkit.InferenceError, match=r"a ratio of"):
        dropout(x, np.float32(ratio), True, False)
    y, _ = dropout(x, np.float32(ratio), False, False)
    np.testing.assert_array_equal(y, x)


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "attributes", "error", "message"),
    [
        ("RandomUniform", {"shape": [-1, 2]}, inferkit.ModelError, "a dimension of -1"),
        ("RandomUniform", {}, inferkit.ModelError, "has no shape"),
        ("RandomUniform", {"shape": [2**31, 2**31]}, inferkit.ModelError, "too large"),
        ("RandomUniform", {"shape": [2**36]}, inferkit.InferkitError, "max_run_bytes"),
        ("RandomUniform", {"shape": [1] * 99}, inferkit.UnsupportedOpError, "99 dimensions"),
        ("RandomUniform", {"shape": [2], "low": 2.0, "high": 1.0}, inferkit.ModelError, "bounds of 2 and 1"),
        ("RandomUniform", {"shape": [2], "high": math.inf}, inferkit.ModelError, "bounds of 0 and inf"),
        ("RandomUniform", {"shape": [2], "dtype": TensorProto.INT32}, inferkit.UnsupportedOpError, "dtype INT32"),
        ("RandomUniform", {"shape": [2], "dtype": 77}, inferkit.UnsupportedOpError, "dtype"),
        ("RandomUniform", {"shape": [2], "seed": 3}, inferkit.ModelError, "'seed' is not a float"),
        ("RandomNormal", {"shape": [2], "scale": -1.0}, inferkit.ModelError, "a scale of -1"),
        ("RandomNormal", {"shape": [2], "mean": math.nan}, inferkit.ModelError, "a mean of nan"),
    ],
)
def test_impossible_draws(op: str, attributes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        load([helper.make_node(op, [], ["y"], **attributes)], [], {"y": FLOAT})


@pytest.mark.parametrize(
    ("op", "x", "attributes", "message"),
    [
        ("Multinomial", np.zeros((2, 3), np.float32), {"sample_size": 0}, "a sample_size of 0"),
        ("Multinomial", np.zeros((2, 0), np.float32), {}, "no classes"),
        ("Multinomial", np.zeros((2, 3, 4), np.float32), {}, r"expected \[rows, classes\]"),
        ("RandomNormalLike", np.zeros((2, 3), np.int32), {}, "cannot draw int32"),
    ],
)
def test_impossible_draws_like_a_tensor(op: str, x: Array, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(inferkit.InferkitError, match=message):
        unary(op, x, OUT.get(op, FLOAT), **attributes)


@pytest.mark.parametrize("chance", [1.5, -0.1, math.nan, math.inf])
def test_probabilities_that_there_are_not(chance: float) -> None:
    with pytest.raises(inferkit.InferenceError, match=r"a probability of .*not in \[0, 1\]"):
        unary("Bernoulli", np.array([[0.5, chance]], np.float32))


@pytest.mark.parametrize(("logit", "message"), [(math.nan, "class 1 is NaN"), (math.inf, "largest.* is inf")])
def test_log_probabilities_that_there_are_not(logit: float, message: str) -> None:
    with pytest.raises(inferkit.InferenceError, match=message):
        unary("Multinomial", np.array([[0.5, logit]], np.float32), TensorProto.INT32)
    with pytest.raises(inferkit.InferenceError, match=r"largest.* is -inf"):
        unary("Multinomial", np.full((1, 2), -math.inf, np.float32), TensorProto.INT32)


def test_draws_like_any_type() -> None:
    got = unary("RandomNormalLike", np.zeros((4, 3), np.int32), dtype=FLOAT, seed=1.0)
    np.testing.assert_array_equal(got, draw("RandomNormal", [4, 3], seed=1.0))
    assert unary("RandomUniformLike", np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_half_models_draw_below_the_bound() -> None:
    """A model of halves computes in float32 and rounds at its end, which must not round a draw up to the bound."""
    x = np.ones((4000, 1), np.float16)
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("RandomUniformLike", ["e"], ["y"], seed=1.0)]
    got = load(nodes, [value("x", HALF, None, 1)], {"y": HALF})(x)
    assert got.dtype == np.float16
    assert got.max() < 1
