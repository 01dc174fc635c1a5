"""The models of benchmarks/gpu: their files, their inputs, and the cases that are timed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from images import Images, mobilenet_v2, resnet, small_cnn, tiny_mobilenet, tiny_resnet
from onnx_files import model, node

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"


def scaled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))


class Mlp:
    """Gemm and ReLU; no activation at the end."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        rng = np.random.default_rng(0)
        self.layers = [(scaled(rng, k, n), scaled(rng, n)) for k, n in itertools.pairwise(sizes)]
        self.name = "MLP " + "-".join(map(str, sizes))

    def file(self) -> bytes:
        nodes, constants, value = [], {}, "x"
        for i, (w, b) in enumerate(self.layers):
            constants |= {f"w{i}": w, f"b{i}": b}
            last = i + 1 == len(self.layers)
            nodes.append(node("Gemm", [value, f"w{i}", f"b{i}"], ["y" if last else f"h{i}"]))
            if not last:
                nodes.append(node("Relu", [f"h{i}"], [f"r{i}"]))
                value = f"r{i}"
        return model(
            nodes,
            {"x": ("float32", ("batch", self.sizes[0]))},
            {"y": ("float32", ("batch", self.sizes[-1]))},
            constants,
        )

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        return (np.random.default_rng(seed).standard_normal((batch, self.sizes[0]), dtype=np.float32),)


class Waves:
    """A product, what Shrink makes of it, which CUDA has no lowering for, and a product of that; both are outputs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"waves {size}"

    def file(self) -> bytes:
        rng = np.random.default_rng(0)
        nodes = [
            node("MatMul", ["x", "w0"], ["h"]),
            node("Shrink", ["h"], ["wave"]),
            node("MatMul", ["wave", "w1"], ["y"]),
        ]
        shape = ("float32", ("batch", self.size))
        constants = {f"w{i}": scaled(rng, self.size, self.size) for i in range(2)}
        return model(nodes, {"x": shape}, {"y": shape, "wave": shape}, constants)

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        return (np.random.default_rng(seed).standard_normal((batch, self.size), dtype=np.float32),)


class Swishes:
    """Products with a hard swish between them, spelled out as exporters do: operators that are one kernel."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"swishes {size}"

    def file(self) -> bytes:
        rng = np.random.default_rng(0)
        numbers = {"zero": 0, "three": 3, "six": 6, "scale": 1.37}
        nodes = [
            node("MatMul", ["x", "w0"], ["h"]),
            node("Mul", ["scale", "h"], ["scaled"]),
            node("Add", ["scaled", "three"], ["raised"]),
            node("Clip", ["raised", "zero", "six"], ["bounded"]),
            node("Mul", ["scaled", "bounded"], ["product"]),
            node("Div", ["product", "six"], ["swish"]),
            node("Sigmoid", ["swish"], ["gate"]),
            node("MatMul", ["gate", "w1"], ["y"]),
        ]
        shape = ("float32", ("batch", self.size))
        constants = {f"w{i}": scaled(rng, self.size, self.size) for i in range(2)}
        constants |= {name: np.array(value, np.float32) for name, value in numbers.items()}
        return model(nodes, {"x": shape}, {"y": shape}, constants)

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        return (np.random.default_rng(seed).standard_normal((batch, self.size), dtype=np.float32) * 4,)


class Encoder:
    """A transformer encoder as BERT has it, without dropout and mask; the answer is the mean over the sequence."""

    def __init__(self, layers: int, hidden: int, heads: int, inner: int, length: int, words: int = 1000) -> None:
        self.layers, self.hidden, self.heads, self.inner, self.length, self.words = (
            layers, hidden, heads, inner, length, words,
        )  # fmt: skip
        self.name = f"encoder {layers}x{hidden} s{length}"

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        h, out = self.hidden, {}
        out["words"], out["places"] = scaled(rng, self.words, h) * 8, scaled(rng, self.length, h)
        for i in range(self.layers):
            for name, shape in {"qkv": (h, 3 * h), "o": (h, h), "up": (h, self.inner), "down": (self.inner, h)}.items():
                out[f"{name}{i}"], out[f"{name}_b{i}"] = scaled(rng, *shape), scaled(rng, shape[1]) / 8
        for i in range(2 * self.layers + 1):
            out[f"scale{i}"] = np.float32(1) + scaled(rng, h) / 8
            out[f"shift{i}"] = scaled(rng, h) / 8
        return out

    def file(self) -> bytes:
        size = self.hidden // self.heads
        constants = dict(self.weights)
        constants |= {
            "split": np.array([0, 0, 3, self.heads, size], np.int64),
            "joined": np.array([0, 0, self.hidden], np.int64),
            "one": np.array([1], np.int64),
            "root": np.array(1 / np.sqrt(size), np.float32),
            **{f"take{k}": np.array(k, np.int64) for k in range(3)},
        }
        nodes: list[bytes] = []

        def put(op: str, *inputs: str, **attributes: object) -> str:
            out = f"v{len(nodes)}"
            nodes.append(node(op, inputs, [out], **attributes))
            return out

        def norm(value: str, i: int) -> str:
            return put("LayerNormalization", value, f"scale{i}", f"shift{i}", axis=-1, epsilon=1e-5)

        def linear(value: str, name: str, i: int) -> str:
            return put("Add", put("MatMul", value, f"{name}{i}"), f"{name}_b{i}")

        x = norm(put("Add", put("Gather", "words", "ids", axis=0), "places"), 0)
        for i in range(self.layers):
            qkv = put("Transpose", put("Reshape", linear(x, "qkv", i), "split"), perm=(2, 0, 3, 1, 4))
            q, k, v = (put("Gather", qkv, f"take{part}", axis=0) for part in range(3))
            scores = put("Mul", put("MatMul", q, put("Transpose", k, perm=(0, 1, 3, 2))), "root")
            mixed = put("MatMul", put("Softmax", scores, axis=-1), v)
            mixed = put("Reshape", put("Transpose", mixed, perm=(0, 2, 1, 3)), "joined")
            x = norm(put("Add", x, linear(mixed, "o", i)), 2 * i + 1)
            x = norm(put("Add", x, linear(put("Gelu", linear(x, "up", i)), "down", i)), 2 * i + 2)
        nodes.append(node("ReduceMean", [x, "one"], ["y"], keepdims=0))
        ids = {"ids": ("int64", ("batch", self.length))}
        return model(nodes, ids, {"y": ("float32", ("batch", self.hidden))}, constants)

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        return (np.random.default_rng(seed).integers(0, self.words, (batch, self.length)),)


class Digits:
    """The example's file, on images of its kind."""

    name = "digits"

    def file(self) -> bytes:
        return DIGITS.read_bytes()

    def inputs(self, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
        return (np.random.default_rng(seed).integers(0, 17, (batch, 64)).astype(np.float32),)


def wide_sum(width: int = 4096) -> bytes:
    """y = the sum of x + c over `width` columns: a run needs `width` times the memory of what goes in."""
    c = np.arange(width, dtype=np.float32)[None] / np.float32(width)
    nodes = [node("Add", ["x", "c"], ["wide"]), node("ReduceSum", ["wide", "axis"], ["y"], keepdims=1)]
    column = ("float32", ("batch", 1))
    return model(nodes, {"x": column}, {"y": column}, {"c": c, "axis": np.array([1], np.int64)})


def to_check(quick: bool) -> dict[str, tuple[Mlp | Encoder | Digits | Images | Swishes, tuple[int, ...]]]:
    """Models and batches whose bits are compared; `quick` is what an emulator can do."""
    large = (1, 8, 64, 512)
    return {
        "small MLP": (Mlp(4, 16, 3), (1, 8, 64) if quick else large),
        "middle MLP": (Mlp(64, 256, 256, 10), (1, 9) if quick else large),
        "large MLP": (Mlp(512, 1024, 1024, 256), (1,) if quick else large),
        "digits": (Digits(), (1, 8) if quick else large),
        "swishes": (Swishes(16), (1, 9)) if quick else (Swishes(200), large),
        "encoder": (Encoder(2, 16, 2, 32, 4), (1, 2)) if quick else (Encoder(2, 64, 4, 256, 16), large),
        "CNN": (small_cnn(10), (1, 2)) if quick else (small_cnn(32), large),
        "ResNet": (tiny_resnet(), (1, 2)) if quick else (resnet(), (1, 4)),
        "MobileNet": (tiny_mobilenet(), (1, 2)) if quick else (mobilenet_v2(), (1, 4)),
    }


@dataclass
class Case:
    """Something to time, and the goal in microseconds on an H100: from numpy to numpy, but on the device for images."""

    made: Mlp | Encoder | Images
    batch: int
    goal: int | None = None
    precision: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.made.name} b{self.batch}" + (f" in {self.precision}" if self.precision != "float32" else "")


def to_time(quick: bool) -> list[Case]:
    if quick:
        encoder = Encoder(1, 16, 2, 32, 4)
        return [Case(Mlp(4, 16, 3), 1), Case(encoder, 2), Case(encoder, 2, None, "bf16"), Case(tiny_mobilenet(), 1)]
    middle, large = Mlp(64, 256, 256, 10), Mlp(512, 1024, 1024, 256)
    short, long = (Encoder(6, 384, 12, 1536, length) for length in (16, 128))
    return [
        Case(middle, 1, 10),
        Case(middle, 64, 16),
        Case(large, 1, 15),
        Case(large, 512, 150),
        Case(short, 1, 160),
        Case(long, 1, 260),
        Case(long, 32, 2500),
        Case(short, 1, 110, "bf16"),
        Case(long, 1, 130, "bf16"),
        Case(long, 32, 400, "bf16"),
        Case(mobilenet_v2(), 1, 300),
        Case(resnet(), 1, 900),
        Case(resnet(), 32, 9000),
    ]
