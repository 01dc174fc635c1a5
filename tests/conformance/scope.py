"""What inferkit is not for, as rules on a model: these it must refuse rather than answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from .cases import nodes

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
TRAINING_DOMAINS = {"ai.onnx.training", "ai.onnx.preview.training"}
Graph = onnx.GraphProto


def out_of_scope(model: onnx.ModelProto) -> str | None:
    """The reason why the model is none of ours, or None."""
    return next((reason for reason, rule in RULES.items() if rule(model.graph)), None)


def is_training(graph: Graph) -> bool:
    return any(n.domain in TRAINING_DOMAINS for n in nodes(graph))


def drops(node: onnx.NodeProto, given: Mapping[str, Any]) -> bool:
    """Whether a Dropout drops, as its ratio and its training mode say, which are inputs in the cases that there are."""
    ratio, training = (given.get(name) for name in [*node.input[1:3], "", ""][:2])
    return training is not None and np.any(training) and (ratio is None or np.any(ratio))


def draws(model: onnx.ModelProto, given: Mapping[str, Any]) -> bool:
    """Whether the answer to these inputs hangs on random draws, which are another implementation's."""
    return any(n.op_type in RANDOM or (n.op_type == "Dropout" and drops(n, given)) for n in nodes(model.graph))


def decodes_images(graph: Graph) -> bool:
    return any(n.op_type == "ImageDecoder" for n in nodes(graph))


#: The least and the greatest of the integers of a few bits.
FEW_BITS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def told(model: onnx.ModelProto, given: Mapping[str, Any], want: Any) -> Any:
    """A mask of the elements that the operator's text determines.

    Cast leaves open what a float becomes that is out of an integer's range. To integers of a few bits the onnx package
    expects there what ml_dtypes makes of it: the lowest bits up to its version 0.6, and 0 since 0.7. What inferkit
    makes of it says csrc/engine/ops/cast.cc; test_small_types.py holds it.
    """
    limits = FEW_BITS.get(str(getattr(want, "dtype", None)))
    x = next(iter(given.values()), None)
    if limits is None or not {n.op_type for n in nodes(model.graph)} <= {"Cast", "CastLike"} or x.dtype.kind in "biuO":
        return ...
    whole = np.trunc(x.astype(np.float64))
    return (limits[0] <= whole) & (whole <= limits[1])


# Cases whose expected answer is not ours, knowingly, and why.
DIFFERS = {
    f"test_resize_downsample_scales_{mode}_align_corners": "docs/decisions/024-resize-as-torch-means-it.md"
    for mode in ("linear", "cubic")
}

RULES = {
    "training": is_training,
    "image decoding": decodes_images,
}
