"""Real models against ONNX Runtime: the same answers, and the same bits for a row in any batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import inferkit
from zoo.models import MODELS, WHEELS, ZooModel
from zoo.wheels import UnreachableError, Wheel

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow


def content(model: ZooModel) -> bytes:
    try:
        return model.bytes()
    except UnreachableError as error:
        pytest.skip(str(error))


def reference(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda w: w.name)
def test_every_model_of_the_wheels_is_in_the_zoo(wheel: Wheel) -> None:
    try:
        members = wheel.members(".onnx")
    except UnreachableError as error:
        pytest.skip(str(error))
    assert members == sorted(m.member for m in MODELS if m.wheel is wheel)


@pytest.mark.parametrize("zoo_model", MODELS, ids=lambda m: m.name)
def test_agrees_with_onnx_runtime(zoo_model: ZooModel) -> None:
    data = content(zoo_model)
    model = inferkit.Model.load(data)
    session = reference(data)
    assert [s.name for s in model.inputs] == [s.name for s in session.get_inputs()]
    assert [s.name for s in model.outputs] == [s.name for s in session.get_outputs()]
    rng = np.random.default_rng(0)
    for make, batch in itertools.product(zoo_model.sizes, zoo_model.batches):
        feeds = make(rng, batch)
        expected = dict(zip((s.name for s in session.get_outputs()), session.run(None, feeds), strict=True))
        got = model.run(feeds)
        for name, want in expected.items():
            assert got[name].dtype == want.dtype, name
            assert got[name].shape == want.shape, f"{name} at batch {batch}"
            scale = np.abs(want).max()
            assert scale > 0, f"{name}: nothing to compare"
            np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4 * scale, err_msg=f"{name} at batch {batch}")


@pytest.mark.parametrize(
    "zoo_model",
    [m for m in MODELS if len(m.batches) > 1 and not m.stream],
    ids=lambda m: m.name,
)
def test_a_row_has_the_same_bits_in_any_batch(zoo_model: ZooModel) -> None:
    model = inferkit.Model.load(content(zoo_model))
    for make in zoo_model.sizes:
        feeds = make(np.random.default_rng(1), 8)
        whole = model.run(feeds)
        for first, last in ((0, 1), (5, 8), (7, 8)):
            part = model.run({name: rows(name, array, first, last) for name, array in feeds.items()})
            for name, array in part.items():
                assert array.tobytes() == rows(name, whole[name], first, last).tobytes(), (name, first, last)


def rows(name: str, array: np.ndarray, first: int, last: int) -> np.ndarray:
    """Some rows of a batch: silero's state has its two halves before them, its sampling rate has none."""
    return array if array.ndim == 0 else array.take(range(first, last), 1 if name.startswith("state") else 0)
