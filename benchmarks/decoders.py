"""Operators of ONNX Runtime that decoders and quantised models hold, one call on one thread, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

import common
import inferkit
import peers

#: Name, the model, what it is given, and how far answers may be apart, of the largest value.
Case = tuple[str, bytes, dict[str, np.ndarray], float]
RNG = np.random.default_rng(0)


def _draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def _model(op: str, inputs: list[str], feeds: dict[str, Any], constants: dict[str, Any], y: Any, **how: Any) -> bytes:
    outputs = ["y", *how.pop("more", [])]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, domain="com.microsoft", **how)],
        "bench",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for k, x in feeds.items()],
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(y), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


def _attention() -> Iterator[Case]:
    sizes = (1, 1, 1023, 32, 8, 64), (4, 1, 255, 8, 8, 128), (1, 128, 0, 16, 4, 64), (1, 512, 0, 8, 2, 128)
    for dtype in np.float32, np.float16:
        for batch, rows, past, heads, shared, size in sizes:
            caches = (batch, shared, past, size)
            shapes = {"q": (batch, rows, heads * size), "k": (batch, rows, shared * size)}
            shapes |= {"v": shapes["k"], "past_k": caches, "past_v": caches}
            feeds: dict[str, Any] = {name: _draw(*shape).astype(dtype) for name, shape in shapes.items()}
            feeds |= {"lengths": np.full(batch, past + rows - 1, np.int32), "total": np.array(past + rows, np.int32)}
            angles = np.outer(np.arange(2048), 1e-4 ** (np.arange(size // 2) / (size // 2)))
            tables = {"cos": np.cos(angles).astype(dtype), "sin": np.sin(angles).astype(dtype)}
            names, more = [*feeds, *tables], ["present_k", "present_v"]
            data = _model(
                "GroupQueryAttention", names, feeds, tables, np.dtype(dtype), more=more, num_heads=heads,
                kv_num_heads=shared, do_rotary=1,
            )  # fmt: skip
            which = f"{batch} x {rows} rows, {past} before, {heads}/{shared} heads"
            tolerance = 1e-5 if dtype == np.float32 else 1e-2
            yield f"{np.dtype(dtype)} GroupQueryAttention, {which}", data, feeds, tolerance


def _gather() -> Iterator[Case]:
    for lines, width, rows in (32_000, 2048, 1), (32_000, 2048, 128), (50_000, 512, 64):
        table = RNG.integers(0, 256, (lines, width // 2)).astype(np.uint8)
        constants = {"table": table, "scales": np.abs(_draw(lines, width // 32))}
        feeds = {"i": RNG.integers(0, lines, (1, rows))}
        how = {"bits": 4, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        inputs = ["table", "i", "scales"]
        data = _model("GatherBlockQuantized", inputs, feeds, constants, np.dtype("float32"), **how)
        yield f"GatherBlockQuantized, {rows} of {lines} lines of {width}", data, feeds, 1e-6


def _lstm() -> Iterator[Case]:
    for steps, batch, width, hidden in (20, 1, 64, 64), (50, 1, 128, 128), (50, 1, 256, 256), (30, 4, 512, 512):
        w, r = (RNG.integers(-100, 100, (1, n, 4 * hidden)).astype(np.int8) for n in (width, hidden))
        scale, zero = np.full(1, 0.002, np.float32), np.zeros(1, np.int8)
        constants = {"w": w, "r": r, "b": _draw(1, 8 * hidden) / 10, "ws": scale, "wz": zero, "rs": scale, "rz": zero}
        feeds = {"x": _draw(steps, batch, width)}
        inputs = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
        data = _model("DynamicQuantizeLSTM", inputs, feeds, constants, np.dtype("float32"), hidden_size=hidden)
        # ONNX Runtime rounds the inputs and the state of each step to bytes.
        yield f"DynamicQuantizeLSTM, {steps} steps, {batch} x {width}, {hidden} units", data, feeds, 0.15


def one_operator() -> list[dict[str, Any]]:
    """One operator of com.microsoft, one call on one thread."""
    rows = []
    for what, data, feeds, tolerance in (*_attention(), *_gather(), *_lstm()):
        common.progress(f"decoders: {what}")
        model, session = inferkit.Model.load(data, threads=1), peers.ort_session(data)
        calls = {
            "inferkit": lambda model=model, feeds=feeds: list(model.run(feeds).values()),
            "onnxruntime": lambda session=session, feeds=feeds: session.run(None, feeds),
        }
        common.check(f"inferkit on {what}", calls["inferkit"]()[0], calls["onnxruntime"]()[0], tolerance)
        timings = common.interleave(calls)
        ours = timings["inferkit"].median
        rows += [{"what": what, "who": w, "us": t.median * 1e6, "ratio": ours / t.median} for w, t in timings.items()]
    return rows
