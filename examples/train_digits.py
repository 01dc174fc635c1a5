"""Train a small classifier of handwritten digits and write what the quickstart needs.

The data is the UCI handwritten digits in scikit-learn's copy: 1,797 images of 8 x 8 pixels, 0 to 16. A quarter of them,
chosen by a fixed seed, is held out for the test and takes no part in the training. The scaling of the pixels is part of
the ONNX graph, so that whoever calls the model gives it the pixels as they are.

    python examples/train_digits.py     # needs scikit-learn and onnx

writes ``digits.onnx`` (the model) and ``digits_test.npz`` (the held-out images and their labels) beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
SEED = 0
HIDDEN = 128
BRIGHTEST = 16.0


def train(images: np.ndarray, labels: np.ndarray) -> MLPClassifier:
    network = MLPClassifier((HIDDEN,), activation="relu", alpha=1e-3, max_iter=400, random_state=SEED)
    return network.fit(images / BRIGHTEST, labels)


def to_onnx(network: MLPClassifier) -> onnx.ModelProto:
    """The network as Div, Gemm, Relu, Gemm, Softmax in float32."""
    constants = [numpy_helper.from_array(np.float32(BRIGHTEST), "brightest")]
    for i, (weights, biases) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"weights{i}"))
        constants.append(numpy_helper.from_array(biases.astype(np.float32), f"biases{i}"))
    nodes = [
        helper.make_node("Div", ["image", "brightest"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weights0", "biases0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "weights1", "biases1"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = "inferkit examples/train_digits.py"
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    network = train(train_images, train_labels)
    print(f"held-out accuracy {network.score(test_images / BRIGHTEST, test_labels):.4f}")
    onnx.save(to_onnx(network), HERE / "digits.onnx")
    np.savez_compressed(
        HERE / "digits_test.npz", images=test_images.astype(np.uint8), labels=test_labels.astype(np.uint8)
    )


if __name__ == "__main__":
    main()
