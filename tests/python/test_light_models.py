"""The onnx package's light models with random weights, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inferkit

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from conformance.light import LIGHT, reseeded  # noqa: E402

pytestmark = pytest.mark.slow


def test_all_are_there() -> None:
    assert len(LIGHT) >= 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_agrees_with_onnx_runtime(path: Path) -> None:
    data = reseeded(path).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    model = inferkit.Model.load(data)
    del data
    rng = np.random.default_rng(1)
    feeds = {i.name: rng.standard_normal(i.shape, np.float32) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    got = model.run(feeds)
    for name, want in zip(names, session.run(names, feeds), strict=True):
        assert got[name].shape == want.shape
        scale = np.abs(want).max()
        assert np.std(want) > 0.01 * scale, "the answer says little about the weights"
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4 * scale)
