"""The ai.onnx.ml operators one by one: against ONNX Runtime, against what numpy says, and what must be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}
POST_TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]


def node_model(op: str, inputs: list[np.ndarray], outputs: int, opset: int = 3, **attributes: Any) -> bytes:
    """A model of one node; all dimensions of its inputs but the first are fixed."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), ["n", *x.shape[1:]])
            for n, x in zip(names, inputs, strict=True)
        ],
        [helper.make_empty_tensor_value_info(n) for n in results],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def load(data: bytes) -> inferkit.Model:
    """Non-finite inputs are part of what these operators are for."""
    return inferkit.Model.load(data, input_checks=inferkit.InputChecks(finite=False))


def call(data: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    answer = load(data)(*inputs)
    return list(answer) if isinstance(answer, tuple) else [answer]


def ort(data: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})


def check(data: bytes, *inputs: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """The same as ONNX Runtime, and every row has the bits that it has alone."""
    got, want = call(data, *inputs), ort(data, *inputs)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)
    model = load(data)
    for r in range(min(len(inputs[0]), 5)):
        alone = model(*[x[r : r + 1] for x in inputs])
        for a, g in zip(alone if isinstance(alone, tuple) else [alone], got, strict=True):
            assert a[0].tobytes() == g[r].tobytes()


def matrix(rows: int, columns: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("int"):
        return rng.integers(-5, 6, (rows, columns)).astype(dtype)
    return rng.standard_normal((rows, columns)).astype(dtype)


def refused(data: bytes, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        inferkit.Model.load(data)


# --- linear models


@pytest.mark.parametrize("post_transform", POST_TRANSFORMS)
@pytest.mark.parametrize("targets", [2, 3, 40])
@pytest.mark.parametrize("rows", [1, 7])
def test_linear_regressor(post_transform: str, targets: int, rows: int) -> None:
    rng = np.random.default_rng(targets)
    scale = 0.01 if post_transform == "PROBIT" else 1.0
    data = node_model(
        "LinearRegressor",
        [x := matrix(rows, 5)],
        1,
        targets=targets,
        coefficients=(scale * rng.standard_normal(5 * targets)).tolist(),
        intercepts=(0.5 + 0.01 * rng.standard_normal(targets)).tolist(),
        post_transform=post_transform,
    )
    # ONNX Runtime's PROBIT cancels around 1/2.
    check(data, x, rtol=1e-4, atol=2e-3 if post_transform == "PROBIT" else 1e-5)


def test_probit_against_float64() -> None:
    p = np.linspace(0.01, 0.99, 99, dtype=np.float32)[:, None]
    data = node_model("LinearRegressor", [p], 1, coefficients=[1.0], post_transform="PROBIT")
    (got,) = call(data, p)
    x = 2 * p.astype(np.float64) - 1
    log = np.log((1 - x) * (1 + x))
    half = 2 / (3.14159 * 0.147) + log / 2
    want = np.sqrt(2) * np.sign(x) * np.sqrt(np.sqrt(half**2 - log / 0.147) - half)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_linear_regressor_of_one_target_without_intercept() -> None:
    w = np.random.default_rng(1).standard_normal(9)
    x = matrix(12, 9)
    data = node_model("LinearRegressor", [x], 1, coefficients=w.tolist())
    (y,) = call(data, x)
    np.testing.assert_allclose(y[:, 0], x.astype(np.float64) @ w.astype(np.float32), rtol=1e-5, atol=1e-6)
    check(data, x)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("post_transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
def test_linear_classifier(dtype: str, classes: int, post_transform: str) -> None:
    rng = np.random.default_rng(classes)
    x = matrix(9, 6, dtype)
    data = node_model(
        "LinearClassifier",
        [x],
        2,
        coefficients=rng.standard_normal(6 * classes).tolist(),
        intercepts=rng.standard_normal(classes).tolist(),
        classlabels_ints=(10 * np.arange(classes) - 7).tolist(),
        post_transform=post_transform,
    )
    check(data, x)


@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC"])
def test_linear_classifier_of_one_score_for_two_classes(post_transform: str) -> None:
    x = matrix(9, 3)
    data = node_model(
        "LinearClassifier", [x], 2, coefficients=[0.3, -1.0, 0.4], intercepts=[0.1], classlabels_ints=[4, 9],
        post_transform=post_transform,
    )  # fmt: skip
    check(data, x)


def test_linear_models_that_contradict_themselves() -> None:
    x = matrix(2, 3)
    refused(node_model("LinearRegressor", [x], 1, coefficients=[1.0, 2.0]), inferkit.ModelError, "2 coefficients")
    refused(node_model("LinearRegressor", [x], 1, coefficients=[1.0] * 3, targets=-1), inferkit.ModelError, "targets")
    refused(
        node_model("LinearRegressor", [x], 1, coefficients=[1.0] * 3, intercepts=[1.0, 2.0]),
        inferkit.ModelError,
        "2 intercepts",
    )
    refused(
        node_model("LinearClassifier", [x], 2, coefficients=[1.0] * 9, intercepts=[0.0] * 3, classlabels_ints=[1, 2]),
        inferkit.ModelError,
        "class labels",
    )
    refused(
        node_model("LinearRegressor", [x], 1, coefficients=[1.0] * 3, intercepts=[1.0, 2.0], targets=1),
        inferkit.ModelError,
        "has 2 intercepts for 1 target(?!s)",
    )
    refused(
        node_model("LinearRegressor", [x], 1, coefficients=[1.0] * 3, post_transform="LOGISTIC"),
        inferkit.UnsupportedOpError,
        "LOGISTIC",
    )
    refused(
        node_model("LinearRegressor", [x], 1, coefficients=[1.0] * 3, post_transform="?"),
        inferkit.ModelError,
        "none of",
    )


# --- preparation


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns", [1, 4, 33])
def test_scaler(dtype: str, columns: int) -> None:
    rng = np.random.default_rng(columns)
    x = matrix(6, columns, dtype)
    offset, scale = rng.standard_normal((2, columns)).astype(np.float32)
    data = node_model("Scaler", [x], 1, offset=offset.tolist(), scale=scale.tolist())
    check(data, x)
    np.testing.assert_allclose(call(data, x)[0], (x.astype(np.float64) - offset) * scale, rtol=1e-5, atol=1e-6)
    check(node_model("Scaler", [x], 1, offset=[0.5], scale=[2.0]), x)
    # One for all features, beside one for each, which ONNX Runtime refuses.
    for offsets, scales in ((offset, scale[:1]), (offset[:1], scale)):
        y = call(node_model("Scaler", [x], 1, offset=offsets.tolist(), scale=scales.tolist()), x)[0]
        np.testing.assert_allclose(y, (x.astype(np.float64) - offsets) * scales, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(dtype: str, norm: str) -> None:
    x = matrix(8, 5, dtype)
    x[3] = 0
    data = node_model("Normalizer", [x], 1, norm=norm)
    check(data, x)
    order = {"MAX": None, "L1": 1, "L2": 2}[norm]
    n = x.max(1, keepdims=True) if order is None else np.linalg.norm(x.astype(np.float64), order, 1, keepdims=True)
    want = np.divide(x, n, out=x.astype(np.float64), where=n != 0)
    np.testing.assert_allclose(call(data, x)[0], want, rtol=1e-5)


def test_imputer() -> None:
    x = np.array([[np.nan, 1.0, 3.0], [0.0, np.nan, np.nan], [2.0, 3.0, 4.0]], np.float32)
    per_column = node_model("Imputer", [x], 1, imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan"))
    check(per_column, x)
    np.testing.assert_array_equal(call(per_column, x)[0], np.where(np.isnan(x), np.float32([7, 8, 9]), x))
    check(node_model("Imputer", [x], 1, imputed_value_floats=[5.0], replaced_value_float=3.0), x)
    i = np.array([[-1, 2], [3, -1]], np.int64)
    check(node_model("Imputer", [i], 1, imputed_value_int64s=[5, 6], replaced_value_int64=-1), i)
    d = x.astype(np.float64)
    (got,) = call(node_model("Imputer", [d], 1, imputed_value_floats=[5.0], replaced_value_float=float("nan")), d)
    np.testing.assert_array_equal(got, np.where(np.isnan(d), 5.0, d))
    refused(node_model("Imputer", [x], 1, imputed_value_floats=[1.0, 2.0]), inferkit.ModelError, "2 imputed values")
    refused(node_model("Imputer", [x], 1, imputed_value_int64s=[1]), inferkit.ModelError, "imputed_value_floats")


@pytest.mark.parametrize("dtype", TYPES)
def test_binarizer(dtype: str) -> None:
    x = matrix(5, 4, dtype)
    data = node_model("Binarizer", [x], 1, threshold=0.5)
    np.testing.assert_array_equal(call(data, x)[0], (x > 0.5).astype(dtype))
    if dtype == "float32":
        check(data, x)


@pytest.mark.parametrize("dtype", TYPES)
def test_array_feature_extractor(dtype: str) -> None:
    x = matrix(5, 6, dtype)
    for indices in ([0], [5, 0, 0, 3]):
        i = np.array(indices, np.int64)
        graph = helper.make_graph(
            [helper.make_node("ArrayFeatureExtractor", ["x0", "i"], ["y"], domain="ai.onnx.ml")],
            "g",
            [helper.make_tensor_value_info("x0", TYPES[dtype], ["n", 6])],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(i, "i")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        check(data, x)
        np.testing.assert_array_equal(call(data, x)[0], x[:, i])


def test_array_feature_extractor_out_of_range() -> None:
    x, i = matrix(2, 3), np.array([1], np.int64)
    model = load(node_model("ArrayFeatureExtractor", [x, i], 1))
    np.testing.assert_array_equal(model(x, i), x[:, [1]])
    for bad in (3, -1, 2**62):
        with pytest.raises(inferkit.InferenceError, match="out of range"):
            model(x, np.array([bad], np.int64))


def test_feature_vectorizer() -> None:
    a, b, c = matrix(4, 3), matrix(4, 2, "int64"), matrix(4, 1, "float64")
    check(node_model("FeatureVectorizer", [a], 1, inputdimensions=[5]), a)
    data = node_model("FeatureVectorizer", [a, b, c], 1, inputdimensions=[2, 4, 1])
    want = np.zeros((4, 7), np.float32)
    want[:, :2], want[:, 2:4], want[:, 6:] = a[:, :2], b, c
    np.testing.assert_array_equal(call(data, a, b, c)[0], want)
    refused(node_model("FeatureVectorizer", [a], 1, inputdimensions=[-5]), inferkit.ModelError, "-5")


def test_one_hot_encoder() -> None:
    cats = [3, -1, 7, 1]
    for dtype in ("int64", "float32", "float64"):
        x = np.array([[3, 1], [7, 9], [-1, 3]], dtype)
        check(node_model("OneHotEncoder", [x], 1, cats_int64s=cats), x)
    x = np.array([[np.nan, np.inf], [-np.inf, 7.9]], np.float32)
    (got,) = call(node_model("OneHotEncoder", [x], 1, cats_int64s=cats), x)
    assert got.reshape(4, 4).tolist() == [[0] * 4, [0] * 4, [0] * 4, [0, 0, 1, 0]]
    strict = load(node_model("OneHotEncoder", [x], 1, cats_int64s=cats, zeros=0))
    with pytest.raises(inferkit.InferenceError, match="not one of the categories"):
        strict(x)
    refused(node_model("OneHotEncoder", [x], 1, cats_strings=["a"]), inferkit.UnsupportedOpError, "input 0 of type")


@pytest.mark.parametrize("opset", [2, 4])
def test_label_encoder(opset: int) -> None:
    i = np.array([[1, 2, 3, 4]], np.int64)
    f = np.array([[1.5, 0.0, -0.0, np.nan, 9.0]], np.float32)
    check(node_model("LabelEncoder", [i], 1, opset, keys_int64s=[2, 1, 4], values_int64s=[5, 6, 7]), i)
    check(
        node_model("LabelEncoder", [i], 1, opset, keys_int64s=[2, 1], values_floats=[5.0, 6.0], default_float=0.25), i
    )
    nan = float("nan")
    keys = [nan, 1.5, 0.0]
    labels = {"values_int64s": [5, 6, 7], "default_int64": -9}
    # "Bit-wise comparison is used so even a float NaN can be mapped", says opset 2, which ONNX Runtime does since 4.
    model = node_model("LabelEncoder", [f], 1, opset, keys_floats=keys, **labels)
    assert call(model, f)[0].tolist() == [[6, 7, 7, 5, -9]]
    f[0, 3] = 1.5 if opset == 2 else nan
    check(model, f)
    check(node_model("LabelEncoder", [f], 1, opset, keys_floats=keys, values_floats=[5.0, 6.0, 7.0]), f)


@pytest.mark.parametrize(("opset", "last"), [(2, False), (3, False), (4, True), (5, True)])
def test_label_encoder_with_a_repeated_key(opset: int, last: bool) -> None:
    """Since opset 4 "the last key takes precedence"; before, the text does not say and ONNX Runtime takes the first."""
    i = np.array([[1, 2, 3]], np.int64)
    model = node_model("LabelEncoder", [i], 1, opset, keys_int64s=[2, 1, 2, 2], values_int64s=[5, 6, 7, 8])
    assert call(model, i)[0].tolist() == [[6, 8 if last else 5, -1]]
    if opset == 2:
        check(model, i)
    for dtype in (np.float64, np.int16, np.float32, np.int64) if opset >= 4 else ():
        x = np.array([[1, 2, 3]], dtype)
        keys = np.array([1, 2, 1, 2], dtype)
        if np.issubdtype(dtype, np.floating):
            x[0, 0], keys[[0, 2]] = np.nan, [np.nan, -np.nan]
        tensors = {"keys": keys, "values": np.array([5, 6, 7, 8], dtype), "default": np.array([9], dtype)}
        attributes = {f"{name}_tensor": numpy_helper.from_array(v, name) for name, v in tensors.items()}
        assert call(node_model("LabelEncoder", [x], 1, opset, **attributes), x)[0].tolist() == [[7, 8, 9]]


def test_label_encoder_with_tensors() -> None:
    x = np.array([[1.5, 2.5, np.nan]], np.float64)
    for values in (np.array([1, 2], np.int16), np.array([1.0, 2.0], np.float64), np.array([1, 2], np.int64)):
        data = node_model(
            "LabelEncoder",
            [x],
            1,
            4,
            keys_tensor=numpy_helper.from_array(np.array([np.nan, 2.5]), "keys"),
            values_tensor=numpy_helper.from_array(values, "values"),
            default_tensor=numpy_helper.from_array(np.array([7], values.dtype), "default"),
        )
        (got,) = call(data, x)
        assert got.dtype == values.dtype
        assert got.tolist() == [[7, 2, 1]]


def test_label_encoder_refuses() -> None:
    x = matrix(2, 2, "int64")
    refused(
        node_model("LabelEncoder", [x], 1, 2, keys_int64s=[1, 2], values_int64s=[1]),
        inferkit.ModelError,
        "2 keys and 1",
    )
    refused(
        node_model("LabelEncoder", [x], 1, 2, keys_floats=[1.0], values_int64s=[1]), inferkit.ModelError, "keys of type"
    )


def test_zip_map_passes_the_tensor_on() -> None:
    x = matrix(4, 3)
    np.testing.assert_array_equal(call(node_model("ZipMap", [x], 1, 1, classlabels_int64s=[1, 2, 5]), x)[0], x)
    np.testing.assert_array_equal(call(node_model("ZipMap", [x], 1, 1, classlabels_strings=["a", "b", "c"]), x)[0], x)
    refused(node_model("ZipMap", [x], 1, 1, classlabels_int64s=[1, 2]), inferkit.ModelError, "2 class labels")


# --- trees


def random_forest(
    rng: np.random.Generator, trees: int, depth: int, features: int, modes: list[str], tracks: bool
) -> dict[str, list[Any]]:
    """Random trees in the arrays of opsets 1 and 3; leaves lists (tree, node)."""
    nodes: dict[str, list[Any]] = {
        k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids", "tracks")
    }
    leaves: list[tuple[int, int]] = []

    def grow(tree: int, level: int, ids: list[int]) -> int:
        me = len(ids)
        ids.append(me)
        at = len(nodes["treeids"])
        leaf = level == 0 or rng.random() < 0.15
        row = {
            "treeids": tree,
            "nodeids": me,
            "featureids": 0 if leaf else int(rng.integers(features)),
            # Few distinct values, so that equality and ties occur.
            "values": 0.0 if leaf else float(np.round(rng.standard_normal() * 2) / 2),
            "modes": "LEAF" if leaf else str(rng.choice(modes)),
            "truenodeids": 0,
            "falsenodeids": 0,
            "tracks": int(tracks and rng.random() < 0.5),
        }
        for key, value in row.items():
            nodes[key].append(value)
        if leaf:
            leaves.append((tree, me))
        else:
            nodes["truenodeids"][at] = grow(tree, level - 1, ids)
            nodes["falsenodeids"][at] = grow(tree, level - 1, ids)
        return me

    for tree in range(trees):
        grow(tree, depth, [])
    out = {f"nodes_{k}": v for k, v in nodes.items() if k != "tracks"}
    if tracks:
        out["nodes_missing_value_tracks_true"] = nodes["tracks"]
    out["leaves"] = leaves
    return out


def weights(
    rng: np.random.Generator, forest: dict[str, list[Any]], prefix: str, targets: list[int], per_leaf: int, low: float
) -> dict[str, list[Any]]:
    """`per_leaf` weights (0: one for every target) for each leaf."""
    rows = []
    for tree, node in forest.pop("leaves"):
        chosen = targets if per_leaf == 0 else rng.choice(targets, per_leaf, replace=False).tolist()
        rows += [(tree, node, int(t), float(rng.uniform(low, 1))) for t in chosen]
    names = ("treeids", "nodeids", "ids", "weights")
    return {f"{prefix}_{n}": list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}


def tree_input(rng: np.random.Generator, rows: int, features: int, dtype: str, nan: bool) -> np.ndarray:
    x = np.round(rng.standard_normal((rows, features)) * 4) / 4
    if nan:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x.astype(dtype) if not dtype.startswith("int") else np.round(x * 2).astype(dtype)


ALL_MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


@pytest.mark.parametrize("mode", [*ALL_MODES, "mixed"])
@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_tree_modes_and_missing_values(mode: str, tracks: bool, dtype: str) -> None:
    rng = np.random.default_rng(len(mode) + tracks)
    forest = random_forest(rng, 11, 6, 4, ALL_MODES if mode == "mixed" else [mode], tracks)
    forest |= weights(rng, forest, "target", [0], 0, -1)
    x = tree_input(rng, 70, 4, dtype, nan=not dtype.startswith("int"))
    data = node_model("TreeEnsembleRegressor", [x], 1, n_targets=1, **forest)
    if dtype.startswith("float"):
        check(data, x)
    else:  # which ONNX Runtime lacks
        f = x.astype(np.float32)
        check(node_model("TreeEnsembleRegressor", [f], 1, n_targets=1, **forest), f)
        np.testing.assert_array_equal(
            call(data, x)[0], call(node_model("TreeEnsembleRegressor", [f], 1, n_targets=1, **forest), f)[0]
        )


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize(
    ("targets", "post_transform"), [(1, "NONE"), *((3, p) for p in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"))]
)
def test_tree_regressor(aggregate: str, targets: int, base: bool, post_transform: str) -> None:
    rng = np.random.default_rng(targets)
    forest = random_forest(rng, 9, 5, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "target", list(range(targets)), 0, -1)
    if base:
        forest["base_values"] = rng.standard_normal(targets).tolist()
    x = tree_input(rng, 40, 3, "float32", nan=False)
    data = node_model(
        "TreeEnsembleRegressor", [x], 1, n_targets=targets, aggregate_function=aggregate, post_transform=post_transform,
        **forest,
    )  # fmt: skip
    check(data, x)


def test_tree_regressor_with_sparse_leaves_adds_every_base_value() -> None:
    rng = np.random.default_rng(5)
    forest = random_forest(rng, 3, 2, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "target", [0, 1, 2, 3], 1, 0)
    x = tree_input(rng, 20, 3, "float32", nan=False)
    plain = call(node_model("TreeEnsembleRegressor", [x], 1, n_targets=4, **forest), x)[0]
    check(node_model("TreeEnsembleRegressor", [x], 1, n_targets=4, **forest), x)
    base = node_model("TreeEnsembleRegressor", [x], 1, n_targets=4, base_values=[1.0, 2.0, 3.0, 4.0], **forest)
    np.testing.assert_allclose(call(base, x)[0], plain + np.float32([1, 2, 3, 4]), rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("per_leaf", [0, 1, 2])
@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("post_transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_tree_classifier_of_many_classes(classes: int, per_leaf: int, base: bool, post_transform: str) -> None:
    rng = np.random.default_rng(classes + per_leaf)
    forest = random_forest(rng, 13, 5, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "class", list(range(classes)), per_leaf, -1)
    if base:
        forest["base_values"] = rng.standard_normal(classes).tolist()
    x = tree_input(rng, 40, 3, "float32", nan=False)
    labels = (rng.permutation(classes) * 3).tolist()
    data = node_model(
        "TreeEnsembleClassifier", [x], 2, classlabels_int64s=labels, post_transform=post_transform, **forest
    )
    check(data, x)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("which", "base", "post_transform"),
    [(0, b, p) for b in (None, [0.1]) for p in ("NONE", "LOGISTIC")]
    + [(1, None, p) for p in ("NONE", "LOGISTIC", "SOFTMAX")],
)
def test_tree_classifier_of_two_classes(
    low: float, dtype: str, which: int, base: list[float] | None, post_transform: str
) -> None:
    rng = np.random.default_rng(which)
    forest = random_forest(rng, 1 if low == 0 else 8, 5, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "class", [which], 0, low)
    if base:
        forest["base_values"] = base
    x = tree_input(rng, 60, 3, dtype, nan=False)
    data = node_model(
        "TreeEnsembleClassifier", [x], 2, classlabels_int64s=[10, 20], post_transform=post_transform, **forest
    )
    check(data, x)


def test_tree_classifier_of_two_classes_with_weights_for_both_takes_the_larger() -> None:
    rng = np.random.default_rng(0)
    forest = random_forest(rng, 7, 4, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "class", [0, 1], 0, 0)
    x = tree_input(rng, 50, 3, "float32", nan=False)
    data = node_model("TreeEnsembleClassifier", [x], 2, classlabels_int64s=[10, 20], **forest)
    label, scores = call(data, x)
    np.testing.assert_allclose(scores, ort(data, x)[1], rtol=1e-6)
    np.testing.assert_array_equal(label, np.array([10, 20])[scores.argmax(1)])
    assert set(label.tolist()) == {10, 20}


def test_values_as_float64_tensors() -> None:
    rng = np.random.default_rng(3)
    forest = random_forest(rng, 20, 5, 3, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "target", [0], 0, -1)
    tensors = {}
    for name in ("nodes_values", "target_weights"):
        values = np.array(forest.pop(name), np.float64)
        tensors[f"{name}_as_tensor"] = numpy_helper.from_array(values + 1e-12, name)
    x = tree_input(rng, 50, 3, "float64", nan=False)
    check(node_model("TreeEnsembleRegressor", [x], 1, n_targets=1, **forest, **tensors), x)


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 500])
def test_tree_rows_have_the_same_bits_in_any_batch(rows: int) -> None:
    rng = np.random.default_rng(9)
    forest = random_forest(rng, 150, 7, 6, ["BRANCH_LEQ"], False)
    forest |= weights(rng, forest, "class", [0, 1, 2], 0, 0)
    x = tree_input(rng, 500, 6, "float32", nan=False)
    data = node_model("TreeEnsembleClassifier", [x], 2, classlabels_int64s=[0, 1, 2], **forest)
    whole = call(data, x)
    one_thread = inferkit.Model.load(data, threads=1)(x)
    part = call(data, x[-rows:])
    for w, o, p in zip(whole, one_thread, part, strict=True):
        assert w.tobytes() == o.tobytes()
        assert w[-rows:].tobytes() == p.tobytes()


def ensemble5(dtype: str, members: bool, tracks: bool) -> dict[str, Any]:
    modes = np.array([6 if members else 0, 4, 1, 3], np.uint8)
    out: dict[str, Any] = {
        "n_targets": 2,
        "tree_roots": [0, 2, 3],
        "nodes_featureids": [0, 1, 2, 0],
        "nodes_modes": numpy_helper.from_array(modes, "modes"),
        "nodes_splits": numpy_helper.from_array(np.array([0.5, 1.0, 0.0, -0.5], dtype), "splits"),
        "nodes_truenodeids": [1, 0, 2, 1],
        "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falsenodeids": [0, 1, 2, 3],
        "nodes_falseleafs": [1, 1, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([1.5, -2.0, 3.25, 0.5], dtype), "weights"),
    }
    if members:
        out["membership_values"] = numpy_helper.from_array(np.array([1.0, 2.0, 3.0, np.nan], dtype), "members")
    if tracks:
        out["nodes_missing_value_tracks_true"] = [1, 0, 1, 0]
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_tree_ensemble_of_opset_5(dtype: str, members: bool, tracks: bool, aggregate: int) -> None:
    x = tree_input(np.random.default_rng(1), 60, 3, dtype, nan=True)
    x[:20, 0] = np.arange(20) % 5
    data = node_model("TreeEnsemble", [x], 1, 5, aggregate_function=aggregate, **ensemble5(dtype, members, tracks))
    check(data, x)


def test_explain_counts_constants_that_are_attributes() -> None:
    model = inferkit.Model.load(
        node_model("TreeEnsemble", [np.zeros((4, 3), "f4")], 1, 5, **ensemble5("float32", False, False))
    )
    plan = model.explain({"x0": (4, 3)})
    tensors = 4 + 2 * 4 * 4  # the modes are bytes; the splits and the weights of the leaves
    assert plan.weight_bytes == model.memory().weight_bytes == tensors
    assert plan.steps[0].read_bytes == 4 * 3 * 4 + tensors


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_post_transforms_of_opset_5_are_numbered_as_the_specification_says(dtype: str) -> None:
    x = tree_input(np.random.default_rng(1), 20, 3, dtype, nan=False)

    def run(post_transform: int) -> np.ndarray:
        attributes = ensemble5(dtype, False, False)
        return call(node_model("TreeEnsemble", [x], 1, 5, post_transform=post_transform, **attributes), x)[0]

    raw = run(0).astype(np.float64)
    softmax = np.exp(raw - raw.max(1, keepdims=True))
    np.testing.assert_allclose(run(1), softmax / softmax.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(run(2), 1 / (1 + np.exp(-raw)), rtol=1e-6)


def stump(**changes: Any) -> bytes:
    """A tree of three nodes, with something wrong."""
    attributes: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    return node_model("TreeEnsembleRegressor", [matrix(2, 2)], 1, **(attributes | changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "cycle"),
        ({"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], "nodes_truenodeids": [1, 0, 0]}, "cycle"),
        ({"nodes_truenodeids": [7, 0, 0]}, "not there"),
        ({"nodes_truenodeids": [-(2**63), 0, 0]}, "not there"),
        ({"nodes_nodeids": [0, 1, 1]}, "twice"),
        ({"nodes_treeids": [0, 1, 0]}, "not there|together"),
        ({"nodes_featureids": [2, 0, 0]}, "feature 2"),
        ({"nodes_featureids": [-1, 0, 0]}, "feature -1"),
        ({"nodes_featureids": [2**40, 0, 0]}, "feature"),
        ({"nodes_featureids": [0, 0]}, "nodes_featureids"),
        ({"nodes_values": [0.0]}, "nodes_values"),
        ({"nodes_modes": ["BRANCH_LEQ", "LEAF", "?"]}, "mode"),
        ({"nodes_missing_value_tracks_true": [1]}, "tracks"),
        ({"target_ids": [0, 1]}, "target or class 1"),
        ({"target_ids": [0, -1]}, "target or class -1"),
        ({"target_nodeids": [1, 9]}, "not there"),
        ({"target_weights": [1.0]}, "target_weights"),
        ({"n_targets": 0}, "n_targets"),
        ({"n_targets": 2**60}, "n_targets"),
        ({"base_values": [1.0, 2.0]}, "base_values"),
        ({"aggregate_function": "MEDIAN"}, "MEDIAN"),
    ],
)
def test_hostile_trees(changes: dict[str, Any], match: str) -> None:
    refused(stump(**changes), inferkit.ModelError, match)


def test_the_stump_itself_is_fine() -> None:
    x = np.array([[0.0, 5.0], [1.0, 5.0]], np.float32)
    assert call(stump(), x)[0].tolist() == [[1.0], [2.0]]


def test_a_shared_subtree_is_no_cycle() -> None:
    # Both branches of the root lead to node 1.
    x = np.array([[0.0, 5.0], [1.0, 5.0]], np.float32)
    assert call(stump(nodes_falsenodeids=[1, 0, 0]), x)[0].tolist() == [[1.0], [1.0]]


def test_a_chain_of_a_hundred_thousand_nodes() -> None:
    depth = 100_000
    count = 2 * depth + 1
    # Node 2i goes to leaf 2i + 1 or on to node 2i + 2.
    x = np.array([[0.5, 0.0]], np.float32)
    data = node_model(
        "TreeEnsembleRegressor",
        [x],
        1,
        n_targets=1,
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_values=[0.0] * count,
        nodes_modes=["BRANCH_LEQ" if i % 2 == 0 and i + 1 < count else "LEAF" for i in range(count)],
        nodes_truenodeids=[i + 1 if i + 1 < count else 0 for i in range(count)],
        nodes_falsenodeids=[i + 2 if i + 2 < count else 0 for i in range(count)],
        target_treeids=[0] * (depth + 1),
        target_nodeids=[*range(1, count, 2), count - 1],
        target_ids=[0] * (depth + 1),
        target_weights=[1.0] * depth + [2.0],
    )
    assert call(data, x)[0].tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tree_roots": [9]}, "root"),
        ({"nodes_truenodeids": [0, 0, 2, 1]}, "cycle"),
        ({"nodes_truenodeids": [1, 9, 2, 1]}, "leaf 9"),
        ({"leaf_targetids": [0, 1, 0, 5]}, "target or class 5"),
        ({"leaf_targetids": [0]}, "leaf_targetids"),
        ({"nodes_featureids": [0]}, "nodes_featureids"),
        ({"aggregate_function": 4}, "aggregate_function"),
        ({"post_transform": -1}, "post_transform"),
    ],
)
def test_hostile_ensembles_of_opset_5(changes: dict[str, Any], match: str) -> None:
    data = node_model("TreeEnsemble", [matrix(2, 3)], 1, 5, **(ensemble5("float32", True, False) | changes))
    refused(data, inferkit.ModelError, match)


def test_what_contradicts_between_specification_and_runtime_is_refused() -> None:
    refused(stump(post_transform="LOGISTIC"), inferkit.UnsupportedOpError, "LOGISTIC")
    rng = np.random.default_rng(0)
    for extra in ({"base_values": [0.1, 0.2]}, {"post_transform": "PROBIT"}, {"post_transform": "SOFTMAX"}):
        forest = random_forest(rng, 2, 2, 2, ["BRANCH_LEQ"], False)
        forest |= weights(rng, forest, "class", [0], 0, 0)
        data = node_model("TreeEnsembleClassifier", [matrix(2, 2)], 2, classlabels_int64s=[1, 2], **forest, **extra)
        refused(data, inferkit.UnsupportedOpError, "base values|single score")


# --- support vector machines

KERNELS = [
    ("LINEAR", [0.0, 0.0, 0.0]),
    ("POLY", [0.5, 0.25, 3.0]),
    ("POLY", [0.5, 0.25, 2.0]),
    ("RBF", [0.3, 0.0, 0.0]),
    ("SIGMOID", [0.2, 0.1, 0.0]),
]


@pytest.mark.parametrize(("kernel", "params"), KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("supports", [1, 70])
def test_svm_regressor(kernel: str, params: list[float], one_class: int, supports: int) -> None:
    rng = np.random.default_rng(supports)
    x = matrix(9, 5)
    data = node_model(
        "SVMRegressor",
        [x],
        1,
        kernel_type=kernel,
        kernel_params=params,
        n_supports=supports,
        support_vectors=rng.standard_normal(supports * 5).tolist(),
        coefficients=rng.standard_normal(supports).tolist(),
        rho=[0.3],
        one_class=one_class,
    )
    check(data, x, rtol=1e-4, atol=1e-4)


def test_svm_regressor_without_support_vectors() -> None:
    x = matrix(9, 3)
    check(node_model("SVMRegressor", [x], 1, coefficients=[0.3, 0.2, -0.5], rho=[0.1], kernel_params=[0.0] * 3), x)


@pytest.mark.parametrize(("kernel", "params"), KERNELS)
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("proba", [False, True])
def test_svm_classifier(kernel: str, params: list[float], classes: int, proba: bool) -> None:
    rng = np.random.default_rng(classes)
    per_class = rng.integers(1, 9, classes).tolist()
    supports, pairs = sum(per_class), classes * (classes - 1) // 2
    x = matrix(12, 4)
    extra = {}
    if proba:
        extra = {"prob_a": (-1 - rng.random(pairs)).tolist(), "prob_b": rng.standard_normal(pairs).tolist()}
    data = node_model(
        "SVMClassifier",
        [x],
        2,
        kernel_type=kernel,
        kernel_params=params,
        vectors_per_class=per_class,
        support_vectors=rng.standard_normal(supports * 4).tolist(),
        coefficients=(0.3 * rng.standard_normal((classes - 1) * supports)).tolist(),
        rho=(0.1 * rng.standard_normal(pairs)).tolist(),
        classlabels_ints=(5 * rng.permutation(classes)).tolist(),
        **extra,
    )
    check(data, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_svm_classifier_without_support_vectors(classes: int, low: float) -> None:
    rng = np.random.default_rng(classes)
    x = matrix(20, 4)
    data = node_model(
        "SVMClassifier",
        [x],
        2,
        coefficients=rng.uniform(low, 1, 4 * classes).tolist(),
        rho=[0.2],
        classlabels_ints=list(range(classes)),
        kernel_params=[0.0] * 3,
    )
    check(data, x)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"vectors_per_class": [-1, 3]}, "vectors_per_class"),
        ({"vectors_per_class": [2**62, 2**62]}, "vectors_per_class"),
        ({"vectors_per_class": [2]}, "vectors_per_class"),
        ({"support_vectors": [1.0] * 5}, "support_vectors"),
        ({"coefficients": [1.0]}, "coefficients"),
        ({"rho": None}, "rho"),
        ({"prob_a": [1.0]}, "prob_a and prob_b"),
        ({"kernel_params": [1.0]}, "kernel_params"),
        ({"kernel_type": "?"}, "kernel_type"),
    ],
)
def test_hostile_svms(changes: dict[str, Any], match: str) -> None:
    attributes: dict[str, Any] = {
        "kernel_type": "RBF",
        "kernel_params": [0.1, 0.0, 0.0],
        "vectors_per_class": [1, 1],
        "support_vectors": [1.0] * 6,
        "coefficients": [1.0, -1.0],
        "rho": [0.1],
        "classlabels_ints": [0, 1],
    }
    given = {k: v for k, v in (attributes | changes).items() if v is not None}
    refused(node_model("SVMClassifier", [matrix(2, 3)], 2, **given), inferkit.ModelError, match)
