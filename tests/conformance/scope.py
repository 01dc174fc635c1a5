"""What inferkit is not for, as rules on a model: these it must refuse rather than answer."""

from __future__ import annotations

import onnx

from .cases import nodes

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
TRAINING_DOMAINS = {"ai.onnx.training", "ai.onnx.preview.training"}
Graph = onnx.GraphProto


def out_of_scope(model: onnx.ModelProto) -> str | None:
    """The reason why the model is none of ours, or None."""
    return next((reason for reason, rule in RULES.items() if rule(model.graph)), None)


def values(graph: Graph) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def is_training(graph: Graph) -> bool:
    return any(n.domain in TRAINING_DOMAINS or (n.op_type == "Dropout" and drops(graph, n)) for n in nodes(graph))


def drops(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Dropout may be in training mode: its third input, which is a constant here or comes with the run."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    for constant in graph.node:
        if node.input[2] in constant.output and constant.op_type == "Constant":
            return any(onnx.numpy_helper.to_array(a.t).any() for a in constant.attribute if a.name == "value")
    return True


def is_random(graph: Graph) -> bool:
    return any(n.op_type in RANDOM for n in nodes(graph))


def decodes_images(graph: Graph) -> bool:
    return any(n.op_type == "ImageDecoder" for n in nodes(graph))


def has_sequences(graph: Graph) -> bool:
    return any(v.type.HasField("sequence_type") for v in values(graph)) or any(
        "Sequence" in n.op_type and n.op_type != "ReverseSequence" for n in nodes(graph)
    )


def has_optionals(graph: Graph) -> bool:
    return any(v.type.HasField("optional_type") for v in values(graph)) or any(
        n.op_type.startswith("Optional") for n in nodes(graph)
    )


# Cases whose expected answer is not ours, knowingly, and why.
DIFFERS = {
    f"test_resize_downsample_scales_{mode}_align_corners": "docs/decisions/024-resize-as-torch-means-it.md"
    for mode in ("linear", "cubic")
}

RULES = {
    "training": is_training,
    "random draws": is_random,
    "image decoding": decodes_images,
    "optionals": has_optionals,
    "sequences": has_sequences,
}
