"""What more threads bring: whole networks on 1, 2, 4... threads, and ONNX Runtime on as many, in turns.

    python benchmarks/scaling.py [--threads 1,4,16] [--rounds 9] [--only NAME]

The networks have the shapes of ResNet50, MobileNetV2 and MiniLM, with weights drawn at random (gpu/models.py); each
answer is compared with ONNX Runtime's. One line for each network and batch, and medians in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import onnxruntime as ort

import common
import inferkit

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from images import mobilenet_v2, resnet
from models import Encoder

NETWORKS = [
    (resnet(), 1),
    (mobilenet_v2(), 1),
    (mobilenet_v2(), 16),
    (Encoder(6, 384, 12, 1536, 16), 1),
    (Encoder(6, 384, 12, 1536, 128), 1),
    (Encoder(6, 384, 12, 1536, 128), 16),
]


def session(file: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", help="how many, with commas between; by default powers of two up to the CPUs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="networks whose names hold this")
    arguments = parser.parse_args()
    common.require_release()
    cpus = len(os.sched_getaffinity(0))
    counts = [int(n) for n in (arguments.threads or "").split(",") if n]
    counts = counts or [2**i for i in range(cpus.bit_length()) if 2**i <= cpus]
    print(f"{cpus} CPUs, {inferkit.build_info()['isa']}, ONNX Runtime {ort.__version__}")
    print("| network | " + " | ".join(f"{n} threads: inferkit, ONNX Runtime" for n in counts) + " |")
    print("| --- |" + " --- |" * len(counts))
    for made, batch in NETWORKS:
        name = f"{made.name} b{batch}"
        if arguments.only not in name:
            continue
        file, cells = made.file(), []
        (x,) = made.inputs(batch)
        for threads in counts:
            common.progress(f"{name}, {threads} threads")
            ours, theirs = inferkit.Model.load(file, threads=threads), session(file, threads)
            feed = {theirs.get_inputs()[0].name: x}
            common.check(name, ours(x), theirs.run(None, feed)[0])
            cases = {"ours": lambda: ours(x), "theirs": lambda: theirs.run(None, feed)}  # noqa: B023
            times = common.interleave(cases, arguments.rounds, budget=0.03)
            us, them = times["ours"].median * 1e3, times["theirs"].median * 1e3
            cells.append(f"{us:.2f}, {them:.2f} ({us / them:.2f})")
        common.progress("")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
