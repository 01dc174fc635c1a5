"""Other engines behind one call: bytes of a model and an input in, a callable out. One thread each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import inferkit

Peer = Callable[[bytes, np.ndarray], Callable[[], Any] | None]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def inferkit_call(data: bytes, x: np.ndarray, precision: str = "float32") -> Callable[[], Any]:
    model = inferkit.Model.load(data, threads=1, precision=precision)
    return lambda: model(x)


def ort_session(data: bytes, exact: bool = False) -> Any:
    """One thread. Without VNNI, its products of unsigned and signed bytes saturate in 16 bits, unless `exact`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def ort_bound(data: bytes, x: np.ndarray) -> Callable[[], Any]:
    """ONNX Runtime at its best: inputs and outputs bound once."""
    import onnxruntime as ort

    session = ort_session(data)
    binding = session.io_binding()
    value = ort.OrtValue.ortvalue_from_numpy(x)
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("y")

    def call() -> np.ndarray | None:
        session.run_with_iobinding(binding)
        return None

    call.answer = lambda: (call(), binding.copy_outputs_to_cpu()[0])[1]  # type: ignore[attr-defined]
    return call


def ort_run(data: bytes, x: np.ndarray, exact: bool = False) -> Callable[[], Any]:
    session = ort_session(data, exact)
    return lambda: session.run(None, {"x": x})[0]


def openvino_call(data: bytes, x: np.ndarray, precision: str = "f32") -> Callable[[], Any]:
    import openvino as ov

    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(data), "CPU", config).create_infer_request()
    tensor = ov.Tensor(x, shared_memory=True)
    request.set_input_tensor(tensor)

    def call() -> None:
        request.infer()

    call.answer = lambda: (call(), request.get_output_tensor().data.copy())[1]  # type: ignore[attr-defined]
    return call


def _layers(data: bytes) -> list[tuple[np.ndarray, np.ndarray]] | None:
    graph = onnx.load_from_string(data).graph
    if {node.op_type for node in graph.node} != {"Gemm", "Relu"}:
        return None
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return [(weights[f"w{i}"], weights[f"b{i}"]) for i in range(len(weights) // 2)]


def torch_call(data: bytes, x: np.ndarray) -> Callable[[], Any] | None:
    import torch

    layers = _layers(data)
    if layers is None:
        return None
    torch.set_num_threads(1)
    modules: list[Any] = []
    for i, (w, b) in enumerate(layers):
        linear = torch.nn.Linear(*w.shape)
        linear.weight.data = torch.from_numpy(np.ascontiguousarray(w.T))
        linear.bias.data = torch.from_numpy(b.copy())
        modules += [linear] if i + 1 == len(layers) else [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules).eval()
    tensor = torch.from_numpy(x)

    def call() -> Any:
        with torch.inference_mode():
            return model(tensor)

    call.answer = lambda: call().numpy()  # type: ignore[attr-defined]
    return call


def numpy_call(data: bytes, x: np.ndarray) -> Callable[[], Any] | None:
    layers = _layers(data)
    if layers is None:
        return None

    def call() -> np.ndarray:
        h = x
        for w, b in layers[:-1]:
            h = np.maximum(h @ w + b, 0)
        w, b = layers[-1]
        return h @ w + b

    return call


PEERS: dict[str, tuple[str, Peer]] = {
    "onnxruntime, bound": ("onnxruntime", ort_bound),
    "onnxruntime, run": ("onnxruntime", ort_run),
    "openvino": ("openvino", openvino_call),
    "torch, eager": ("torch", torch_call),
    "numpy": ("numpy", numpy_call),
}
