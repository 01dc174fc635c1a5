"""XGBoost and LightGBM models: trained on scikit-learn's data sets, exported by onnxmltools, against ONNX Runtime.

Labels are equal, numbers agree to 1e-4 of the output's scale, and a row has the same bits alone and in any batch.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit

onnxruntime = pytest.importorskip("onnxruntime")
# Their own warnings (deprecations) are not what is tested here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightgbm = pytest.importorskip("lightgbm")
    xgboost = pytest.importorskip("xgboost")
    onnxmltools = pytest.importorskip("onnxmltools")
    from onnxmltools.convert.common.data_types import FloatTensorType
    from sklearn import datasets

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
BATCHES = (1, 3, 8, 64)
TREES = 20


@functools.cache
def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "missing":
        x, y = data("wine")
        holes = np.random.default_rng(0).random(x.shape) < 0.1
        return np.where(holes, np.nan, x).astype(np.float32), y
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y


XGB = functools.partial(xgboost.XGBClassifier, n_estimators=TREES, max_depth=4, n_jobs=1)
XGBR = functools.partial(xgboost.XGBRegressor, n_estimators=TREES, max_depth=4, n_jobs=1)
LGBM = functools.partial(lightgbm.LGBMClassifier, n_estimators=TREES, n_jobs=1, verbose=-1)
LGBMR = functools.partial(lightgbm.LGBMRegressor, n_estimators=TREES, n_jobs=1, verbose=-1)

MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "xgboost binary": (XGB, "breast_cancer"),
    "xgboost classes": (XGB, "wine"),
    "xgboost ten classes": (XGB, "digits"),
    "xgboost missing": (XGB, "missing"),
    "xgboost regressor": (XGBR, "diabetes"),
    "xgboost poisson": (functools.partial(XGBR, objective="count:poisson"), "diabetes"),
    "lightgbm binary": (LGBM, "breast_cancer"),
    "lightgbm classes": (LGBM, "wine"),
    "lightgbm ten classes": (LGBM, "digits"),
    "lightgbm missing": (LGBM, "missing"),
    "lightgbm regressor": (LGBMR, "diabetes"),
    "lightgbm poisson": (functools.partial(LGBMR, objective="poisson"), "diabetes"),
}


@functools.cache
def trained(name: str) -> tuple[Any, bytes]:
    make, source = MODELS[name]
    x, y = data(source)
    estimator = make().fit(x, y)
    types = [("x", FloatTensorType([None, x.shape[1]]))]
    if name.startswith("lightgbm"):
        options = {} if isinstance(estimator, lightgbm.LGBMRegressor) else {"zipmap": False}
        model = onnxmltools.convert_lightgbm(estimator, initial_types=types, target_opset=15, **options)
    else:
        model = onnxmltools.convert_xgboost(estimator, initial_types=types, target_opset=15)
    return estimator, model.SerializeToString()


def as_tuple(answer: Any) -> tuple[np.ndarray, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_onnx_runtime(name: str) -> None:
    _, content = trained(name)
    x, _ = data(MODELS[name][1])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    model = inferkit.Model.load(content, input_checks=inferkit.InputChecks(finite=False))
    whole = as_tuple(model(x))
    for batch in BATCHES:
        rows = x[-batch:]
        got, expected = as_tuple(model(rows)), session.run(None, {session.get_inputs()[0].name: rows})
        assert len(got) == len(expected)
        for o, (g, w) in enumerate(zip(got, expected, strict=True)):
            assert g.dtype == w.dtype
            assert g.shape == w.shape
            if w.dtype.kind == "f":
                np.testing.assert_allclose(g, w, rtol=0, atol=1e-4 * np.abs(w).max())
            else:
                np.testing.assert_array_equal(g, w)
            assert g.tobytes() == whole[o][-batch:].tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_the_library_that_trained_it(name: str) -> None:
    estimator, content = trained(name)
    x, _ = data(MODELS[name][1])
    answers = as_tuple(inferkit.Model.load(content, input_checks=inferkit.InputChecks(finite=False))(x))
    want = estimator.predict(x)
    if len(answers) == 1:
        np.testing.assert_allclose(answers[0].ravel(), want, rtol=0, atol=1e-4 * np.abs(want).max())
    else:
        # LightGBM compares in float64: where a row lies on a border, float32 may fall on the other side.
        assert np.mean(answers[0] == want) >= 0.99
        near = np.abs(answers[1] - estimator.predict_proba(x)).max(axis=1) < 1e-4
        assert near.mean() >= 0.97
