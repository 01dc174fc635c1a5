"""The ai.onnx.ml operators on strings, and TfIdfVectorizer: against ONNX Runtime, and alone as in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit

STRING = TensorProto.STRING
LENIENT = inferkit.InputChecks(finite=False)
CITIES = ["köln", "", "東京", "köln ", "K\u00f6ln", "ko\u0308ln", "a\x00b", "\U0001f3d9"]


def words(*items: str) -> np.ndarray:
    return np.array(items, object)


def model_of(op: str, x: np.ndarray, outputs: int, opset: int, domain: str = "ai.onnx.ml", **attributes: Any) -> bytes:
    kind = STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
    names = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], names, domain=domain, **attributes)], "g",
        [helper.make_tensor_value_info("x", kind, ["n", *x.shape[1:]])],
        [helper.make_empty_tensor_value_info(n) for n in names],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def call(data: bytes, x: np.ndarray) -> list[np.ndarray]:
    answer = inferkit.Model.load(data, input_checks=LENIENT)(x)
    return list(answer) if isinstance(answer, tuple) else [answer]


def theirs(data: bytes, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, {"x": x})]


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    else:
        assert got.tolist() == want.tolist()


def check(data: bytes, x: np.ndarray) -> list[np.ndarray]:
    """The same as ONNX Runtime, and each row as alone."""
    got = call(data, x)
    for g, w in zip(got, theirs(data, x), strict=True):
        same(g, w)
    model = inferkit.Model.load(data, input_checks=LENIENT)
    with inferkit.Batcher(model, max_batch_size=64, max_delay=0.02) as batcher:
        tickets = [batcher.submit(row) for row in x]
        for r, ticket in enumerate(tickets):
            alone = ticket.result(30)
            for a, g in zip(alone if isinstance(alone, tuple) else [alone], got, strict=True):
                assert a.tolist() == g.tolist()[r]
    return got


# ---- LabelEncoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [2, 4])
def test_label_encoder(opset: int) -> None:
    text = words(*CITIES, "nowhere")[:, None]
    numbers = np.array([[3], [1], [4], [9]], np.int64)
    floats = np.array([[1.5], [-0.0], [np.nan], [9]], np.float32)
    some = CITIES[:5]
    places = list(range(5, 10))

    def label(x: np.ndarray, **attributes: Any) -> np.ndarray:
        return check(model_of("LabelEncoder", x, 1, opset, **attributes), x)[0]

    got = label(text, keys_strings=some, values_int64s=places, default_int64=-3)
    assert got.ravel().tolist() == [*places, -3, -3, -3, -3]
    label(text, keys_strings=some, values_int64s=places)
    label(text, keys_strings=some, values_floats=[0.5, 1, 2, 3, 4], default_float=0.25)
    got = label(text, keys_strings=some, values_strings=some[::-1], default_string="默认")
    assert got.ravel().tolist() == [*some[::-1], *["默认"] * 4]
    got = label(numbers, keys_int64s=[1, 3, 4], values_strings=some[:3])
    assert got.ravel().tolist() == [some[1], some[0], some[2], "_Unused"]
    encoder = model_of("LabelEncoder", floats, 1, opset, keys_floats=[float("nan"), 1.5, 0.0], values_strings=some[:3])
    assert call(encoder, floats)[0].ravel().tolist() == [some[1], some[2], some[0], "_Unused"]
    label(floats, keys_floats=[1.5, 0.0, 9.0], values_strings=some[:3], default_string="x")
    label(text, keys_strings=some, values_strings=some)


@pytest.mark.parametrize(("opset", "last"), [(2, False), (4, True)])
def test_label_encoder_with_a_repeated_key(opset: int, last: bool) -> None:
    x = words("a", "b")[:, None]
    data = model_of("LabelEncoder", x, 1, opset, keys_strings=["a", "b", "a"], values_int64s=[1, 2, 3])
    assert call(data, x)[0].ravel().tolist() == [3 if last else 1, 2]


def test_label_encoder_with_tensors() -> None:
    x = words("a", "é", "z")[:, None]
    for values in (np.array([1, 2], np.int16), np.array([1.0, 2.0], np.float64), words("v", "w")):
        given = {"keys": words("é", "a"), "values": values, "default": values[:1]}
        attributes = {
            f"{n}_tensor": helper.make_tensor(n, STRING, v.shape, [w.encode() for w in v])
            if v.dtype == object else numpy_helper.from_array(v, n)
            for n, v in given.items()
        }  # fmt: skip
        (got,) = call(model_of("LabelEncoder", x, 1, 4, **attributes), x)
        assert got.dtype == values.dtype
        assert got.ravel().tolist() == [*values[::-1].tolist(), values[0]]


def test_label_encoder_of_the_first_opset() -> None:
    attributes: dict[str, Any] = {"classes_strings": ["a", "é"]}
    x = words("é", "z", "a")[:, None]
    data = model_of("LabelEncoder", x, 1, 1, **attributes, default_int64=-5)
    assert call(data, x)[0].ravel().tolist() == [1, -5, 0]
    n = np.array([[1], [7], [0]])
    data = model_of("LabelEncoder", n, 1, 1, **attributes, default_string="?")
    assert call(data, n)[0].ravel().tolist() == ["é", "?", "a"]


@pytest.mark.parametrize(
    ("attributes", "error", "says"),
    [
        ({"keys_strings": ["a"], "values_int64s": [1, 2]}, inferkit.ModelError, "1 key and 2 values"),
        ({"keys_strings": [b"\xff"], "values_int64s": [1]}, inferkit.ModelError, "not UTF-8"),
        (
            {"keys_int64s": [1], "values_int64s": [1]},
            inferkit.ModelError,
            "keys of type int64 and an input of type string",
        ),
        ({"keys_strings": ["a"]}, inferkit.ModelError, "has no values"),
    ],
)
def test_label_encoder_refuses(attributes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        inferkit.Model.load(model_of("LabelEncoder", words("a"), 1, 2, **attributes))


# ---- OneHotEncoder and CategoryMapper --------------------------------------------------------------------------------


def test_one_hot_encoder() -> None:
    x = words(*CITIES, "nowhere").reshape(3, 3)
    data = model_of("OneHotEncoder", x, 1, 3, cats_strings=CITIES)
    (got,) = check(data, x)
    assert got.reshape(9, -1).argmax(1)[:8].tolist() == list(range(8))
    assert got[2, 2].tolist() == [0] * 8
    strict = inferkit.Model.load(model_of("OneHotEncoder", x, 1, 3, cats_strings=CITIES, zeros=0))
    assert strict(x[:2]).sum() == 6
    with pytest.raises(inferkit.InferenceError, match="'nowhere' is not one of the categories"):
        strict(x)


def test_category_mapper() -> None:
    x = words("köln", "東京", "?")[:, None]
    attributes: dict[str, Any] = {"cats_strings": CITIES, "cats_int64s": [10 * i for i in range(len(CITIES))]}
    assert check(model_of("CategoryMapper", x, 1, 1, **attributes), x)[0].ravel().tolist() == [0, 20, -1]
    n = np.array([[0], [20], [3]])
    got = check(model_of("CategoryMapper", n, 1, 1, **attributes, default_string="none"), n)
    assert got[0].ravel().tolist() == ["köln", "東京", "none"]
    with pytest.raises(inferkit.ModelError, match="2 cats_int64s and 1 cats_strings"):
        inferkit.Model.load(model_of("CategoryMapper", x, 1, 1, cats_strings=["a"], cats_int64s=[1, 2]))


def test_array_feature_extractor() -> None:
    x = words(*CITIES[:6]).reshape(2, 3)
    graph = helper.make_graph(
        [helper.make_node("ArrayFeatureExtractor", ["x", "i"], ["y"], domain="ai.onnx.ml")], "g",
        [helper.make_tensor_value_info("x", STRING, ["n", 3])], [helper.make_tensor_value_info("y", STRING, ["n", 2])],
        [numpy_helper.from_array(np.array([2, 0]), "i")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    same(call(data, x)[0], theirs(data, x)[0])


# ---- TfIdfVectorizer -------------------------------------------------------------------------------------------------

POOL = ["a", "é", "漢", "", "a", "é", "é", "é", "漢", "a"]  # four of one word, three of two


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("least", "most", "skips"), [(1, 1, 0), (1, 2, 0), (2, 2, 0), (1, 2, 2), (2, 2, 1)])
def test_tfidf(mode: str, least: int, most: int, skips: int) -> None:
    attributes: dict[str, Any] = {
        "mode": mode, "min_gram_length": least, "max_gram_length": most, "max_skip_count": skips,
        "ngram_counts": [0, 4], "ngram_indexes": [1, 0, 2, 6, 5, 3, 4], "pool_strings": POOL,
        "weights": [0.5, 2.0, 1.5, 1.0, 3.0, 0.25, 4.0],
    }  # fmt: skip
    rng = np.random.default_rng(1)
    x = words("a", "é", "漢", "", "other", "#")[rng.integers(0, 6, (9, 7))]
    check(model_of("TfIdfVectorizer", x, 1, 1, domain="", **attributes), x)


def test_tfidf_refuses() -> None:
    attributes: dict[str, Any] = {
        "mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0],
        "ngram_indexes": [0],
    }  # fmt: skip
    for x, pool in ((words("a")[None], {"pool_int64s": [1]}), (np.array([[1]]), {"pool_strings": ["a"]})):
        with pytest.raises(inferkit.UnsupportedOpError, match="input 0 of type"):
            inferkit.Model.load(model_of("TfIdfVectorizer", x, 1, 1, domain="", **attributes, **pool))
    with pytest.raises(inferkit.ModelError, match="both"):
        inferkit.Model.load(model_of("TfIdfVectorizer", np.array([[1]]), 1, 1, domain="", **attributes,
                                     pool_strings=["a"], pool_int64s=[1]))  # fmt: skip


# ---- classifiers -----------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_values": [0.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
}  # fmt: skip
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("LinearClassifier", {
        "coefficients": [1.0, 0, 0, 0, 1, 0, 0, 0, 1], "intercepts": [0.0, 0.1, 0], "post_transform": "SOFTMAX",
        "classlabels_strings": CITIES[:3]}),
    "linear, two classes": ("LinearClassifier", {
        "coefficients": [1.0, -1, 0.5], "intercepts": [0.1], "post_transform": "LOGISTIC",
        "classlabels_strings": CITIES[:2]}),
    "svm": ("SVMClassifier", {
        "kernel_type": "RBF", "kernel_params": [0.5, 0.0, 3.0], "vectors_per_class": [1, 1, 1],
        "support_vectors": [1.0, 0, 0, 0, 1, 0, 0, 0, 1], "coefficients": [1.0, -1, -1, 1, 1, -1],
        "rho": [0.0, 0.1, 0.05], "classlabels_strings": CITIES[:3]}),
    "tree": ("TreeEnsembleClassifier", TREE | {
        "class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 2], "class_weights": [1.0, 1.0],
        "classlabels_strings": CITIES[:3]}),
    "tree, two classes": ("TreeEnsembleClassifier", TREE | {
        "class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 0], "class_weights": [0.25, 0.75],
        "classlabels_strings": CITIES[:2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_class_labels(name: str) -> None:
    op, attributes = CLASSIFIERS[name]
    data = model_of(op, X, 2, 1, **attributes)
    labels, _ = check(data, X)
    assert labels.dtype == object
    assert len(set(labels)) > 1
    # The same classes as with numbers for labels, and as alone.
    ints = "classlabels_ints" if op != "TreeEnsembleClassifier" else "classlabels_int64s"
    numbers = {k: v for k, v in attributes.items() if k != "classlabels_strings"}
    numbers[ints] = list(range(len(attributes["classlabels_strings"])))
    found, _ = call(model_of(op, X, 2, 1, **numbers), X)
    assert [attributes["classlabels_strings"][i] for i in found] == labels.tolist()


def test_labels_nobody_reads() -> None:
    op, attributes = CLASSIFIERS["linear"]
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["label", "p"], domain="ai.onnx.ml", **attributes),
         helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_strings=CITIES[:3])],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = inferkit.Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    np.testing.assert_allclose(model(X).sum(1), 1, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=6) | st.sampled_from(CITIES), min_size=1, max_size=20))
def test_any_text_is_found_as_alone(texts: list[str]) -> None:
    x = words(*texts)[:, None]
    data = model_of("LabelEncoder", x, 1, 2, keys_strings=CITIES, values_int64s=list(range(len(CITIES))))
    got = call(data, x)[0].ravel().tolist()
    assert got == [CITIES.index(t) if t in CITIES else -1 for t in texts]
