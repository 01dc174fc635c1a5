"""scikit-learn pipelines over text and categories, exported by skl2onnx: against scikit-learn and ONNX Runtime."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx.helper
import onnxruntime
import pytest

import inferkit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn import compose, ensemble, linear_model, naive_bayes, neighbors, pipeline, preprocessing, svm, tree
    from sklearn.feature_extraction import text
from test_sklearn import plain_integers  # noqa: F401 (a fixture)

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
ROWS = 80
CITY = RNG.choice(["köln", "東京", "paris", "", "Zürich"], ROWS)
SIZE = RNG.choice(["s", "m", "l"], ROWS)
CATEGORIES = np.stack([CITY, SIZE], 1).astype(object)
NUMBERS = RNG.standard_normal((ROWS, 2)).astype(np.float32)
ANSWER = np.where((CITY == "paris") | (NUMBERS[:, 0] > 0.5), "да", "nein").astype(object)
GRADE = np.array([f"grade {'ABC'[i]}" for i in (CITY == "köln").astype(int) + (SIZE == "s")], object)
VOCABULARY = ["good", "bad", "Fine", "awful", "the", "a", "movie", "plot", "x1", "GOOD,", "bad."]
DOCUMENTS = np.array([" ".join(RNG.choice(VOCABULARY, RNG.integers(1, 9))) for _ in range(ROWS)], object)
OPINION = np.array(["pos" if "good" in d.lower() or "Fine" in d else "neg" for d in DOCUMENTS], object)
# ONNX Runtime asks for a locale, which the default of is not installed everywhere.
LOCALE = {"locale": "C.UTF-8"}


def export(estimator: Any, types: list[tuple[str, Any]], options: dict[int, Any] | None = None) -> bytes:
    made = to_onnx(estimator, initial_types=types, options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    return made.SerializeToString()


def close(got: np.ndarray, want: Any) -> None:
    if isinstance(want, list):  # ZipMap: a dictionary per row, whose keys are in the order of our columns
        want = np.array([list(row.values()) for row in want], np.float32)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    else:
        assert got.tolist() == want.tolist()


def check(model: bytes, feeds: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """As scikit-learn and ONNX Runtime; in a batcher the bits that each row has alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    ours = inferkit.Model.load(model)
    got = ours.run(feeds)
    names = [o.name for o in session.get_outputs()]
    for name, want in zip(names, session.run(None, feeds), strict=True):
        close(got[name], want)
    assert got[names[0]].tolist() == labels.tolist()
    with inferkit.Batcher(ours, max_batch_size=32, max_delay=0.02) as batcher:
        tickets = [batcher.submit({n: x[r : r + 1] for n, x in feeds.items()}) for r in range(24)]
        for r, ticket in enumerate(tickets):
            answer = ticket.result(30)
            alone = ours.run({n: x[r : r + 1] for n, x in feeds.items()})
            for name in names:
                assert answer[name].tolist() == alone[name].tolist() == got[name][r : r + 1].tolist()


CLASSIFIERS: dict[str, Any] = {
    "logistic": linear_model.LogisticRegression(),
    "sgd": linear_model.SGDClassifier(loss="log_loss", random_state=0),
    "tree": tree.DecisionTreeClassifier(random_state=0),
    "forest": ensemble.RandomForestClassifier(5, random_state=0),
    "svc": svm.SVC(),
    "neighbours": neighbors.KNeighborsClassifier(3),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("target", [ANSWER, GRADE], ids=["two classes", "three classes"])
def test_labels(name: str, target: np.ndarray) -> None:
    estimator = CLASSIFIERS[name].fit(NUMBERS, target)
    check(export(estimator, [("x", FloatTensorType([None, 2]))]), {"x": NUMBERS}, estimator.predict(NUMBERS))


@pytest.mark.parametrize("zipmap", [True, False])
def test_one_hot_categories(zipmap: bool) -> None:
    classifier = linear_model.LogisticRegression()
    steps = pipeline.make_pipeline(preprocessing.OneHotEncoder(handle_unknown="ignore"), classifier)
    steps.fit(CATEGORIES[:60], ANSWER[:60])
    x = np.concatenate([CATEGORIES, [["nowhere", "xl"]]])
    model = export(steps, [("x", StringTensorType([None, 2]))], {id(classifier): {"zipmap": zipmap}})
    check(model, {"x": x}, steps.predict(x))


def test_ordinal_categories() -> None:
    encoder = preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    steps = pipeline.make_pipeline(encoder, ensemble.RandomForestClassifier(5, random_state=0))
    steps.fit(CATEGORIES, GRADE)
    check(export(steps, [("x", StringTensorType([None, 2]))]), {"x": CATEGORIES}, steps.predict(CATEGORIES))


def test_numbers_and_categories() -> None:
    columns = compose.ColumnTransformer([
        ("numbers", preprocessing.StandardScaler(), [0, 1]),
        ("categories", preprocessing.OneHotEncoder(handle_unknown="ignore"), [2, 3]),
    ])  # fmt: skip
    steps = pipeline.make_pipeline(columns, linear_model.LogisticRegression())
    steps.fit(np.concatenate([NUMBERS.astype(object), CATEGORIES], 1), ANSWER)
    model = export(steps, [("n", FloatTensorType([None, 2])), ("c", StringTensorType([None, 2]))])
    want = steps.predict(np.concatenate([NUMBERS.astype(object), CATEGORIES], 1))
    check(model, {"n": NUMBERS, "c": CATEGORIES}, want)


VECTORIZERS: dict[str, Any] = {
    "tfidf": text.TfidfVectorizer(token_pattern="[a-zA-Z0-9_]+"),
    "counts of pairs": text.CountVectorizer(ngram_range=(1, 2), token_pattern="[a-zA-Z0-9_]+"),
    "pairs alone": text.TfidfVectorizer(ngram_range=(2, 2), token_pattern="[a-zA-Z0-9_]+", sublinear_tf=True),
    "as written": text.TfidfVectorizer(lowercase=False, token_pattern="[a-zA-Z0-9_]+"),
    "characters": text.CountVectorizer(analyzer="char", lowercase=False),
}


@pytest.mark.parametrize("name", VECTORIZERS)
@pytest.mark.parametrize("classifier", [linear_model.LogisticRegression(), naive_bayes.MultinomialNB()], ids=str)
def test_documents(name: str, classifier: Any) -> None:
    vectorizer = VECTORIZERS[name]
    steps = pipeline.make_pipeline(vectorizer, classifier).fit(DOCUMENTS, OPINION)
    x = np.concatenate([DOCUMENTS, ["", "été GOOD\nmovie", "nothing known"]])[:, None].astype(object)
    model = export(steps, [("x", StringTensorType([None, 1]))], {id(vectorizer): LOCALE})
    check(model, {"x": x}, steps.predict(x[:, 0]))


def test_words_as_scikit_learn_finds_them() -> None:
    r"""Its own pattern, (?u)\b\w\w+\b, is not RE2's; without the flag it finds the same in ASCII."""
    vectorizer = text.TfidfVectorizer()
    steps = pipeline.make_pipeline(vectorizer, linear_model.LogisticRegression()).fit(DOCUMENTS, OPINION)
    options = {id(vectorizer): {"tokenexp": r"\b\w\w+\b", **LOCALE}}
    model = export(steps, [("x", StringTensorType([None, 1]))], options)
    check(model, {"x": DOCUMENTS[:, None]}, steps.predict(DOCUMENTS))


def test_rows_of_text_share_batches() -> None:
    vectorizer = VECTORIZERS["tfidf"]
    steps = pipeline.make_pipeline(vectorizer, linear_model.LogisticRegression()).fit(DOCUMENTS, OPINION)
    model = inferkit.Model.load(export(steps, [("x", StringTensorType([None, 1]))], {id(vectorizer): LOCALE}))
    with inferkit.Batcher(model, max_batch_size=16, max_delay=1.0, workers=1) as batcher:
        tickets = [batcher.submit(np.array([d], object)) for d in DOCUMENTS[:16]]
        assert [t.result(30)[0] for t in tickets] == steps.predict(DOCUMENTS[:16]).tolist()
        assert batcher.stats().batches == 1


def test_padding_in_the_vocabulary() -> None:
    """Then it counts, and so requests do not share a batch: each answer is as alone."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Tokenizer", ["x"], ["t"], domain="com.microsoft", mark=0, mincharnum=1, pad_value="#",
                               tokenexp=r"\w+|#"),
         onnx.helper.make_node("TfIdfVectorizer", ["t"], ["y"], mode="TF", min_gram_length=1, max_gram_length=1,
                               max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_strings=["a", "#"])],
        "g", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.STRING, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = inferkit.Model.load(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    x = np.array(["a", "a a # a", "", "#"], object)
    assert model(x).tolist() == [[1, 3], [3, 1], [0, 4], [0, 4]]
    with inferkit.Batcher(model, max_batch_size=4, max_delay=0.05, workers=1) as batcher:
        tickets = [batcher.submit(x[r : r + 1]) for r in range(4)]
        assert [t.result(30)[0].tolist() for t in tickets] == [[1, 0], [3, 1], [0, 0], [0, 1]]
