"""Models, checks and interleaved timing that the benchmarks share."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import inferkit
from inferkit._cli._compare import difference

SMALL = (4, 16, 3)
LARGE = (64, 256, 256, 10)


def require_release() -> None:
    """Stop where the figures would say nothing."""
    info = inferkit.build_info()
    if info["debug"] or info["sanitizers"]:
        sys.exit(
            f"this is a {info['build_type']} build of inferkit (sanitizers: {info['sanitizers'] or 'none'}): "
            "figures from it would mislead. Install an optimised one with `pip install .`"
        )


def model(nodes: list, inputs: list, outputs: list, constants: list, opset: int = 17) -> bytes:
    graph = helper.make_graph(nodes, "bench", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def mlp(sizes: tuple[int, ...], seed: int = 0) -> bytes:
    """Gemm and Relu; no activation at the end, so that every engine does the same work."""
    rng = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    for i, (k, n) in enumerate(itertools.pairwise(sizes)):
        last = i + 2 == len(sizes)
        weights = rng.standard_normal((k, n)).astype(np.float32) / np.float32(np.sqrt(k))
        constants += [
            numpy_helper.from_array(weights, f"w{i}"),
            numpy_helper.from_array(rng.standard_normal(n).astype(np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], ["y" if last else f"h{i}"]))
        value = f"h{i}"
        if not last:
            nodes.append(helper.make_node("Relu", [value], [f"r{i}"]))
            value = f"r{i}"
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        constants,
    )


def cnn(seed: int = 0) -> bytes:
    """Two convolutions of 3x3, pooling and a classifier, on images of 28x28."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) / scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "c1", "d1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "c2", "d2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "c3", "d3"], ["y"], transB=1),
    ]
    constants = [weights("c1", 16, 1, 3, 3), weights("d1", 16), weights("c2", 32, 16, 3, 3), weights("d2", 32)]
    constants += [weights("c3", 10, 32), weights("d3", 10)]
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )


def lstm(features: int = 32, hidden: int = 64, seed: int = 0) -> bytes:
    """One layer without biases, whose cell is given: with silence as its input it halves that at every step."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / 16).astype(np.float32), name)

    nodes = [helper.make_node("LSTM", ["x", "w", "r", "", "", "h", "c"], ["all", "", ""], hidden_size=hidden)]
    nodes.append(helper.make_node("Squeeze", ["all", "directions"], ["y"]))
    state = ("h", "c")
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", 1, features])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, hidden]) for name in state],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", 1, hidden])],
        [
            weights("w", 1, 4 * hidden, features),
            weights("r", 1, 4 * hidden, hidden),
            numpy_helper.from_array(np.array([1], np.int64), "directions"),
        ],
    )


def check(name: str, got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Stop where an engine's answer is not the others'."""
    problem = difference(got, expected, tolerance=tolerance)
    if problem:
        sys.exit(f"{name} answers wrongly: its output {problem}")


@dataclass
class Timing:
    """Seconds per call of one case, one figure a round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def interleave(cases: dict[str, Callable[[], object]], rounds: int = 25, budget: float = 0.004) -> dict[str, Timing]:
    """Time every case in turn, round after round, so that all of them see the same noise.

    `budget` is the time that one case takes in a round, in seconds.
    """
    calls = {}
    for name, case in cases.items():
        case()
        start = time.perf_counter()
        case()
        once = max(time.perf_counter() - start, 1e-7)
        calls[name] = max(1, int(budget / once))
    timings: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(rounds + 2):
        for name, case in cases.items():
            n = calls[name]
            start = time.perf_counter()
            for _ in range(n):
                case()
            elapsed = (time.perf_counter() - start) / n
            if index >= 2:  # the first rounds warm caches and clocks up
                timings[name].append(elapsed)
    return {name: Timing(rounds) for name, rounds in timings.items()}


def progress(text: str) -> None:
    """Say what is being measured, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
