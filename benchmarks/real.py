"""Real models out of PyPI wheels, whole: what each engine takes for one call of one thread."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common
import inferkit
import peers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from zoo.models import MODELS, ZooModel
from zoo.wheels import UnreachableError

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


def _calls(model: ZooModel, data: bytes, feeds: Feeds) -> dict[str, Call]:
    calls = {"inferkit": _inferkit(data, feeds), "onnxruntime, run": _onnxruntime(data, feeds)}
    expected = calls["onnxruntime, run"]()
    if peers.installed("openvino"):
        if call := _openvino(data, feeds):
            calls["openvino"] = call
        else:
            print(f"not timed: openvino cannot read {model.name}")
    for who, call in list(calls.items()):
        answer = call()
        for name, want in expected.items():
            # What another engine gets wrong is not timed; what we get wrong stops it all.
            if who == "inferkit":
                common.check(f"inferkit on {model.name}", answer[name], want)
            elif name not in answer or np.abs(answer[name] - want).max() > 1e-2 * np.abs(want).max():
                print(f"not timed: {who} on {model.name}, whose {name} is not ONNX Runtime's")
                del calls[who]
                break
    return calls


def real_models() -> list[dict[str, Any]]:
    """One call of a real model on one thread."""
    rows = []
    for model in MODELS:
        try:
            data = model.bytes()
        except UnreachableError as error:
            print(f"not measured: {model.name}: {error}")
            continue
        for batch in (b for b in (1, 8) if b in model.batches and not (b > 1 and model.stream)):
            common.progress(f"real: {model.name}, batch {batch}")
            feeds = model.sizes[0](np.random.default_rng(0), batch)
            timings = common.interleave(dict(_calls(model, data, feeds)), rounds=15)
            ours = timings["inferkit"].median
            rows += [
                {"what": f"{model.name}, batch {batch}", "who": who, "us": t.median * 1e6, "ratio": ours / t.median}
                for who, t in timings.items()
            ]
    return rows
