"""One operator in float64, float16 and bf16, one call on one thread: inferkit beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

import common
import peers
from inferkit._cli._compare import difference

#: Name, operator, the shape of x, those of its constants, attributes.
CASES: list[tuple[str, str, tuple[int, ...], list[tuple[int, ...]], dict[str, Any]]] = [
    ("MatMul 128x1024 by 1024x1024", "MatMul", (128, 1024), [(1024, 1024)], {}),
    ("MatMul 1x1024 by 1024x1024", "MatMul", (1, 1024), [(1024, 1024)], {}),
    ("Gemm 64x512 by 512x512, transB", "Gemm", (64, 512), [(512, 512), (512,)], {"transB": 1}),
    ("Conv 3x3, 64 channels, 56x56", "Conv", (1, 64, 56, 56), [(64, 64, 3, 3), (64,)], {"pads": [1, 1, 1, 1]}),
    ("Softmax 128x1000", "Softmax", (128, 1000), [], {"axis": -1}),
    ("Softmax 4x1000x64, axis 1", "Softmax", (4, 1000, 64), [], {"axis": 1}),
    ("LogSoftmax 128x1000", "LogSoftmax", (128, 1000), [], {"axis": -1}),
    ("Einsum bij,bjk->bik, 8x64x128x64", "Einsum", (8, 64, 128), [(8, 128, 64)], {"equation": "bij,bjk->bik"}),
    (
        "ConvTranspose 3x3, stride 2, 32 channels, 28x28",
        "ConvTranspose",
        (1, 32, 28, 28),
        [(32, 32, 3, 3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    ("LayerNormalization 128x768", "LayerNormalization", (128, 768), [(768,), (768,)], {"axis": -1}),
]
#: How far answers may be apart, of the largest value: halves round each result, in another order; bf16 rounds operands.
TOLERANCE = {"float64": 1e-12, "float16": 1e-2, "bf16": 2e-2}
#: Which of the operators compute in bf16 where a model of float32 asks for it.
IN_BF16 = {"MatMul", "Gemm", "Conv"}


def _model(op: str, x: np.ndarray, constants: list[np.ndarray], attributes: dict[str, Any]) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    names = [f"c{i}" for i in range(len(constants))]
    return common.model(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, [None] * x.ndim)],
        [numpy_helper.from_array(c, name) for c, name in zip(constants, names, strict=True)],
    )


def beside_onnxruntime(what: str, data: bytes, x: np.ndarray, tolerance: float) -> list[dict[str, Any]]:
    """One call of a model on one thread, checked and timed beside ONNX Runtime, if that has its kernels."""
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {"inferkit": peers.inferkit_call(data, x)}
    try:
        calls["onnxruntime"] = peers.ort_run(data, x)
    except Exception as error:
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        rows.append({"what": what, "who": "onnxruntime: no such kernel", "us": "", "ratio": ""})
    if "onnxruntime" in calls:
        expected = peers.ort_run(data, x, exact=True)()
        common.check(f"inferkit on {what}", calls["inferkit"](), expected, tolerance)
        if difference(calls["onnxruntime"](), expected, tolerance=tolerance):
            calls["onnxruntime, which saturates"] = calls.pop("onnxruntime")
    timings = common.interleave(calls)
    ours = timings["inferkit"].median
    rows += [{"what": what, "who": who, "us": t.median * 1e6, "ratio": ours / t.median} for who, t in timings.items()]
    return rows


def in_bf16(what: str, data: bytes, x: np.ndarray) -> list[dict[str, Any]]:
    """A model of float32 in bf16, beside OpenVINO in bf16, and in float32, against which it is checked."""
    calls = {
        "inferkit": peers.inferkit_call(data, x, "bf16"),
        "inferkit, float32": peers.inferkit_call(data, x),
        "onnxruntime, float32": peers.ort_run(data, x),
    }
    if peers.installed("openvino"):
        calls["openvino"] = peers.openvino_call(data, x, "bf16")
    common.check(f"inferkit on {what}", calls["inferkit"](), calls["onnxruntime, float32"](), TOLERANCE["bf16"])
    timings = common.interleave(calls)
    ours = timings["inferkit"].median
    return [{"what": what, "who": who, "us": t.median * 1e6, "ratio": ours / t.median} for who, t in timings.items()]


def one_operator() -> list[dict[str, Any]]:
    """One operator in float64, float16 and bf16, one call on one thread."""
    rng = np.random.default_rng(0)
    rows = []
    for precision in TOLERANCE:
        dtype = "float32" if precision == "bf16" else precision
        for name, op, shape, constants, attributes in CASES:
            if precision == "bf16" and op not in IN_BF16:
                continue
            what = f"{precision} {name}"
            common.progress(f"precisions: {what}")
            x = rng.standard_normal(shape).astype(dtype)
            values = [(rng.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(dtype) for s in constants]
            data = _model(op, x, values, attributes)
            if precision == "bf16":
                rows += in_bf16(what, data, x)
            else:
                rows += beside_onnxruntime(what, data, x, TOLERANCE[precision])
    return rows
