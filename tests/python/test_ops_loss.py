"""The losses, TfIdfVectorizer and BitCast against numpy, onnx's reference evaluator, ONNX Runtime and node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

RNG = np.random.default_rng(9)


def draw(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 6), (2, 4, 3, 5)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 2, -1])
def test_losses(dtype: str, shape: tuple[int, ...], reduction: str, weighted: bool, ignored: int | None) -> None:
    x = draw(*shape, dtype=dtype)
    target = RNG.integers(0, shape[1], (shape[0], *shape[2:]))
    if ignored is not None:
        target.flat[::3] = ignored
    weight = np.abs(draw(shape[1], dtype=dtype)) if weighted else None
    options: dict[str, Any] = {"reduction": reduction}
    if ignored is not None:
        options["ignore_index"] = ignored

    wide = x.astype(np.float64)
    log_prob = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    counts = np.ones(target.shape) if weight is None else weight.astype(np.float64)[target]
    if ignored is not None:
        counts = np.where(target == ignored, 0, counts)
    rtol, atol = TOLERANCE[dtype]
    for op, scores in (("NegativeLogLikelihoodLoss", wide), ("SoftmaxCrossEntropyLoss", log_prob)):
        picked = np.take_along_axis(scores, np.expand_dims(np.clip(target, 0, None), 1), 1)[:, 0]
        loss = -counts * picked
        expected = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / counts.sum()}[reduction]
        for index in ("int64", "int32"):
            found = Case(op, x, target.astype(index), weight, opset=13, **options).run()[0]
            assert found.dtype == np.dtype(dtype)
            close(found, np.asarray(expected), 5 * rtol, 20 * atol)
    loss_and_log = Case("SoftmaxCrossEntropyLoss", x, target, weight, outputs=2, opset=13, **options).run()
    close(loss_and_log[1], log_prob, 5 * rtol, 5 * atol)


def test_a_target_out_of_range() -> None:
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        for bad in (5, -1):
            with pytest.raises(inferkit.InferenceError, match=f"index {bad} is out of range"):
                Case(op, draw(2, 5), np.array([0, bad]), opset=13).run()


GRAMS: dict[str, Any] = {
    "ngram_counts": [0, 4],
    "ngram_indexes": [0, 1, 2, 3, 4, 5, 6],
    "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
}


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_tfidf(mode: str, least: int, most: int, skips: int, weighted: bool, dtype: str) -> None:
    options: dict[str, Any] = {
        **GRAMS,
        "mode": mode,
        "min_gram_length": least,
        "max_gram_length": most,
        "max_skip_count": skips,
    }
    if weighted:
        options["weights"] = [2.0, 1.0, 0.5, 4.0, 3.0, 0.25, 1.5]
    for x in (RNG.integers(2, 9, (3, 12)), RNG.integers(2, 9, 12)):
        case = Case("TfIdfVectorizer", x.astype(dtype), opset=9, **options)
        found = case.run()[0]
        np.testing.assert_array_equal(found, case.onnxruntime()[0])


@pytest.mark.parametrize(("source", "code"), [("float32", 6), ("int32", 1), ("int64", 11), ("float16", 16), ("int8", 2),
                                              ("uint16", 10), ("uint64", 7), ("bool", 9)])  # fmt: skip
def test_bit_cast(source: str, code: int) -> None:
    x = RNG.integers(0, 2, (3, 5)).astype(source) if source == "bool" else (50 * draw(3, 5)).astype(source)
    found = Case("BitCast", x, opset=26, to=code).run()[0]
    assert found.dtype == onnx.helper.tensor_dtype_to_np_dtype(code)
    assert found.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        (Case("BitCast", draw(2), opset=26, to=11), inferkit.ModelError, "differ in width"),
        (Case("BitCast", np.zeros(2, np.uint8), opset=26, to=9), inferkit.UnsupportedOpError, "BOOL"),
        (Case("NegativeLogLikelihoodLoss", draw(2, 5), np.zeros(3, np.int64), opset=13), inferkit.ModelError,
         "targets of shape"),
        (Case("TfIdfVectorizer", np.zeros(3, np.int64), opset=9, mode="TF", **{**GRAMS, "ngram_counts": [0, 99]}),
         inferkit.ModelError, "does not fit the pool"),
    ],
)  # fmt: skip
def test_refusals(case: Case, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (2,)))


OPERATORS = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "TfIdfVectorizer", "BitCast")


@pytest.mark.parametrize("case", node_test_cases(*OPERATORS), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)
