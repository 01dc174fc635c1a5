"""Whole scikit-learn exports: trained on its own data sets, exported by skl2onnx, compared with ONNX Runtime.

Labels are equal, numbers agree to 1e-5, and a row has the same bits alone and in any batch.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx.helper
import onnxruntime
import pytest

import inferkit

# Their own warnings (deprecations, convergence) are not what is tested here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from skl2onnx import to_onnx
    from sklearn import (
        cluster,
        compose,
        datasets,
        decomposition,
        discriminant_analysis,
        ensemble,
        impute,
        linear_model,
        naive_bayes,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

pytestmark = pytest.mark.filterwarnings("ignore")
BATCHES = (1, 3, 8, 64)
Data = tuple[np.ndarray, np.ndarray]


@functools.cache
def data(name: str) -> Data:
    if name == "missing":
        x, y = data("iris")
        holes = np.random.default_rng(0).random(x.shape) < 0.1
        return np.where(holes, np.nan, x).astype(np.float32), y
    if name == "codes":
        x, y = data("iris")
        return np.round(x * 2), y
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y


@pytest.fixture(autouse=True)
def plain_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """skl2onnx 1.20 gives booleans for integers, which newer protobufs refuse."""
    make_attribute = onnx.helper.make_attribute

    def convert(key: str, value: Any, *args: Any, **kwargs: Any) -> onnx.AttributeProto:
        if isinstance(value, list | np.ndarray) and any(isinstance(v, bool | np.bool_) for v in value):
            value = [int(v) for v in value]
        return make_attribute(key, value, *args, **kwargs)

    monkeypatch.setattr(onnx.helper, "make_attribute", convert)


def export(estimator: Any, x: np.ndarray, **options: Any) -> bytes:
    opsets = {"": 17, "ai.onnx.ml": 3}
    chosen = {id(estimator): options} if options else None
    return to_onnx(estimator, x[:1], options=chosen, target_opset=opsets).SerializeToString()


def ort_session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def as_tuple(answer: Any) -> tuple[np.ndarray, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def compare(model: bytes, x: np.ndarray, *, tolerance: float = 1e-5) -> None:
    session = ort_session(model)
    ours = inferkit.Model.load(model, input_checks=inferkit.InputChecks(finite=False))
    whole = as_tuple(ours(x))
    for batch in BATCHES:
        rows = x[-batch:]
        got, want = as_tuple(ours(rows)), session.run(None, {session.get_inputs()[0].name: rows})
        assert len(got) == len(want)
        for o, (g, w) in enumerate(zip(got, want, strict=True)):
            if isinstance(w, list):  # ZipMap: a dictionary per row, whose keys are in the order of our columns
                w = np.array([list(row.values()) for row in w], np.float32)
            assert g.shape == w.shape
            assert g.dtype == w.dtype
            if g.dtype.kind == "f":
                np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(g, w)
            assert g.tobytes() == whole[o][-batch:].tobytes()


def scaled(*steps: Any) -> Any:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), *steps)


LR = functools.partial(linear_model.LogisticRegression, max_iter=500)
MLP = functools.partial(neural_network.MLPClassifier, max_iter=50, random_state=0)
CLASSIFIERS = {
    "logistic": (LR(), "iris"),
    "logistic binary": (LR(C=0.01), "breast_cancer"),
    "scaled pca logistic": (scaled(decomposition.PCA(3), LR()), "iris"),
    "imputed": (pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), scaled(LR())), "missing"),
    "mlp": (MLP((16,)), "iris"),
    "mlp two layers": (scaled(MLP((32, 16), activation="tanh")), "digits"),
    "mlp binary": (scaled(MLP((8,), activation="logistic")), "breast_cancer"),
    "sgd": (scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)), "iris"),
    "ridge": (linear_model.RidgeClassifier(), "iris"),
    "linear svc": (svm.LinearSVC(), "iris"),
    "linear svc binary": (svm.LinearSVC(C=1e-4), "breast_cancer"),
    "svc": (svm.SVC(), "iris"),
    "svc binary": (scaled(svm.SVC()), "breast_cancer"),
    "svc linear": (svm.SVC(kernel="linear"), "iris"),
    "svc poly": (scaled(svm.SVC(kernel="poly")), "iris"),
    "svc sigmoid": (scaled(svm.SVC(kernel="sigmoid")), "iris"),
    "svc probability": (svm.SVC(probability=True, random_state=0), "iris"),
    "svc binary probability": (scaled(svm.SVC(probability=True, random_state=0)), "breast_cancer"),
    "tree": (tree.DecisionTreeClassifier(random_state=0), "iris"),
    "tree binary": (tree.DecisionTreeClassifier(max_depth=4, random_state=0), "breast_cancer"),
    "forest": (ensemble.RandomForestClassifier(20, random_state=0), "digits"),
    "forest binary": (ensemble.RandomForestClassifier(20, random_state=0), "breast_cancer"),
    "extra trees": (ensemble.ExtraTreesClassifier(10, random_state=0), "iris"),
    "boosting": (ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0), "iris"),
    "boosting binary": (ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0), "breast_cancer"),
    "histogram boosting": (ensemble.HistGradientBoostingClassifier(max_iter=10), "iris"),
    "histogram boosting binary": (ensemble.HistGradientBoostingClassifier(max_iter=10), "breast_cancer"),
    "histogram boosting missing": (ensemble.HistGradientBoostingClassifier(max_iter=10), "missing"),
    "adaboost": (ensemble.AdaBoostClassifier(n_estimators=5, random_state=0), "iris"),
    "bagging": (ensemble.BaggingClassifier(n_estimators=5, random_state=0), "iris"),
    "naive bayes": (naive_bayes.GaussianNB(), "iris"),
    "multinomial bayes": (naive_bayes.MultinomialNB(), "iris"),
    "lda": (discriminant_analysis.LinearDiscriminantAnalysis(), "iris"),
}
WITHOUT_ZIPMAP = {"linear svc", "linear svc binary", "ridge"}
OTHERS = {
    "linear": (linear_model.LinearRegression(), "diabetes"),
    "ridge": (linear_model.Ridge(), "diabetes"),
    "polynomial": (
        pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.LinearRegression()),
        "diabetes",
    ),
    "svr": (svm.SVR(), "diabetes"),
    "tree regressor": (tree.DecisionTreeRegressor(max_depth=6, random_state=0), "diabetes"),
    "forest regressor": (ensemble.RandomForestRegressor(20, random_state=0), "diabetes"),
    "boosting regressor": (ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0), "diabetes"),
    "histogram boosting regressor": (ensemble.HistGradientBoostingRegressor(max_iter=20), "diabetes"),
    "isolation forest": (ensemble.IsolationForest(n_estimators=10, random_state=0), "iris"),
    "kmeans": (cluster.KMeans(3, n_init=2, random_state=0), "iris"),
    "pca": (decomposition.PCA(2), "iris"),
    "standard scaler": (preprocessing.StandardScaler(), "iris"),
    "min-max scaler": (preprocessing.MinMaxScaler(), "iris"),
    "robust scaler": (preprocessing.RobustScaler(), "iris"),
    "normalizer l1": (preprocessing.Normalizer("l1"), "iris"),
    "normalizer l2": (preprocessing.Normalizer("l2"), "iris"),
    "normalizer max": (preprocessing.Normalizer("max"), "iris"),
    "binarizer": (preprocessing.Binarizer(threshold=2.0), "iris"),
    "imputer": (impute.SimpleImputer(), "missing"),
    "one hot": (preprocessing.OneHotEncoder(sparse_output=False, handle_unknown="ignore"), "codes"),
    "ordinal": (preprocessing.OrdinalEncoder(), "codes"),
    "bins": (preprocessing.KBinsDiscretizer(3, encode="onehot-dense"), "iris"),
    "columns": (
        compose.ColumnTransformer(
            [("a", preprocessing.StandardScaler(), [0, 2]), ("b", preprocessing.MinMaxScaler(), [1, 3])]
        ),
        "iris",
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str) -> None:
    estimator, source = CLASSIFIERS[name]
    x, y = data(source)
    estimator.fit(x, y)
    if name in WITHOUT_ZIPMAP:
        model = export(estimator, x)
        compare(model, x)
    else:
        model = export(estimator, x, zipmap=False)
        compare(model, x, tolerance=2e-5 if "svc" in name else 1e-5)
        compare(export(estimator, x), x, tolerance=2e-5 if "svc" in name else 1e-5)
    label = as_tuple(inferkit.Model.load(model, input_checks=inferkit.InputChecks(finite=False))(x))[0]
    # scikit-learn itself computes in float64: where a row lies on a border, float32 may fall on the other side.
    assert np.mean(label == estimator.predict(x)) >= 0.99


@pytest.mark.parametrize("name", OTHERS)
def test_regressor_or_transformer(name: str) -> None:
    estimator, source = OTHERS[name]
    x, y = data(source)
    estimator.fit(x, y)
    # Squared distances as differences of large squares lose digits in either engine.
    compare(export(estimator, x), x, tolerance=1e-4 if name == "kmeans" else 1e-5)


def test_one_row_without_its_batch_axis() -> None:
    x, y = data("iris")
    model = inferkit.Model.load(export(LR().fit(x, y), x, zipmap=False))
    label, probabilities = model(x[0])
    assert label.shape == ()
    assert probabilities.shape == (3,)
    assert probabilities.tobytes() == model(x)[1][0].tobytes()
