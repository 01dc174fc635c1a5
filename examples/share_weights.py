"""Many threads, and many processes, one copy of the weights.

    python examples/share_weights.py

A model's file is mapped: processes that load it share the pages of large weights, where the file has them at addresses
that fit; external data has. `model.weights` shows the tensors where they lie, `model.memory()` tells what is mapped.
Within a process one Model serves all threads.
"""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np

import inferkit

PATH = Path(__file__).resolve().parent / "digits.onnx"


def in_another_process(image: np.ndarray) -> list[float]:
    return inferkit.Model.load(PATH)(image).tolist()


def main() -> None:
    model = inferkit.Model.load(PATH)
    weights = model.weights
    for name in weights:
        tensor = weights[name]
        print(f"{name}: {tensor.dtype}{list(tensor.shape)}, writeable: {tensor.flags.writeable}")
    print(model.memory())

    image = np.arange(64, dtype=np.float32) % 17
    here = model(image)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(model(image))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers += pool.map(in_another_process, [image, image])
    assert all(np.array_equal(here, np.asarray(answer, np.float32)) for answer in answers)
    print(f"{len(answers)} answers from 8 threads and 2 processes, all the same to the bit")


if __name__ == "__main__":
    main()
