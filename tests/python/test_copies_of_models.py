"""Models in pickles, in copies and in processes that are spawned."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inferkit
import inferkit.testing

X = np.linspace(0, 16, 3 * 64, dtype=np.float32).reshape(3, 64)


class Named(inferkit.Model):
    """Has an attribute of its own."""

    name = "unnamed"


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def wrapped(cls: type[inferkit.Model] = inferkit.Model) -> inferkit.Model:
    port = [("x", "float32", (None, 64))]
    return cls.from_callable(double, port, port, input_checks=inferkit.InputChecks(finite=False))


def run(model: inferkit.Model) -> np.ndarray:
    answer = model(X)
    return answer if isinstance(answer, np.ndarray) else answer[0]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same(digits_path: Path, again: Callable[[object], object]) -> None:
    for model in (inferkit.Model.load(digits_path), wrapped()):
        assert again(model) is model
        assert again([model])[0] is model  # type: ignore[index]


def test_a_path_is_opened_again(digits_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(digits_path, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    checks = inferkit.InputChecks(finite=False)
    model = inferkit.Model.load("model.onnx", threads=1, outputs=["probabilities"], mmap=False, input_checks=checks)
    data = pickle.dumps(model)
    assert len(data) < 2000
    monkeypatch.chdir("/")
    other = pickle.loads(data)
    assert other.path == str(tmp_path / "model.onnx")
    assert other.outputs == model.outputs
    assert other.memory().mapped_bytes == 0
    np.testing.assert_array_equal(run(other), run(model))
    assert np.isnan(run_nan(other)).any()
    os.remove(tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def run_nan(model: inferkit.Model) -> np.ndarray:
    answer = model(np.full_like(X, np.nan))
    return answer if isinstance(answer, np.ndarray) else answer[0]


def test_content_is_carried(digits_path: Path) -> None:
    content = digits_path.read_bytes()
    for given in (content, bytearray(content), io.BytesIO(content)):
        model = inferkit.Model.load(given)
        other = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(run(other), run(model))


def test_a_callable_is_pickled_as_functions_are() -> None:
    other = pickle.loads(pickle.dumps(wrapped()))
    np.testing.assert_array_equal(run(other), 2 * X)
    assert np.isnan(run_nan(other)).all()
    port = [("x", "float32", (None, 64))]
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(inferkit.Model.from_callable(lambda x: x, port, port))


def test_subclasses_keep_their_attributes(digits_path: Path) -> None:
    for model in (Named.load(digits_path), wrapped(Named)):
        model.name = "mine"  # type: ignore[attr-defined]
        other = pickle.loads(pickle.dumps(model))
        assert type(other) is Named
        assert other.name == "mine"
        np.testing.assert_array_equal(run(other), run(model))


def test_a_model_that_was_never_made_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not initialised"):
        pickle.dumps(inferkit.Model.__new__(inferkit.Model))


def test_what_neither_of_them_made_says_so() -> None:
    with pytest.raises(TypeError, match="cannot pickle 'FakeModel'"):
        pickle.dumps(inferkit.testing.FakeModel())


def test_a_spawned_process_has_the_model(digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(run, (model,)), run(model))
