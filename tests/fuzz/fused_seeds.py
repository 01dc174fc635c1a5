"""Models of one node each of the com.microsoft operators, which the onnx package has no tests of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: The operator, its inputs as type and dimensions ("-" leaves one out), the number of outputs, attributes.
NODES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("Attention", "f:1,2,4 f:4,12 f:12", 1, {"num_heads": 2}),
    ("Attention", "f:2,3,4 f:4,12 f:12 i:2 f:2,2,2,5,2", 2, {"num_heads": 2, "unidirectional": 1}),
    ("BiasAdd", "f:2,3,8 f:8 f:2,3,8", 1, {}),
    ("BiasGelu", "f:2,5,4 f:4", 1, {}),
    ("BiasSplitGelu", "f:2,3,8 f:8", 1, {}),
    ("DequantizeLinear", "b:3,4,6 f: b:", 1, {}),
    (
        "DynamicQuantizeLSTM",
        "f:2,3,8 b:1,8,20 b:1,5,20 f:1,40 - f:1,3,5 f:1,3,5 - f:1 b:1 f:1 b:1",
        3,
        {"hidden_size": 5},
    ),
    ("DynamicQuantizeMatMul", "f:2,5,9 b:9,4 f: b:", 1, {}),
    ("EmbedLayerNormalization", "i:3,7 - f:9,6 f:7,6 - f:6 f:6 - -", 1, {"mask_index_type": 0}),
    ("FastGelu", "f:2,5,4 f:4", 1, {}),
    ("FusedConv", "f:2,3,8,8 f:4,3,3,3 f:4", 1, {"activation": "Relu", "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("FusedGemm", "f:2,3 f:3,4", 1, {"activation": "LeakyRelu", "activation_alpha": 0.5}),
    ("FusedMatMul", "f:2,3,4 f:2,3,4", 1, {"transA": 1, "alpha": 0.5}),
    ("Gelu", "f:2,5,4", 1, {}),
    ("MatMulIntegerToFloat", "B:2,5,9 b:9,4 f: f:4 B: b:4 f:4", 1, {}),
    ("MatMulNBits", "f:2,16 B:3,1,8 f:3,1", 1, {"K": 16, "N": 3, "bits": 4, "block_size": 16}),
    ("MultiHeadAttention", "f:2,6,4,3,5", 1, {"num_heads": 4}),
    ("MultiHeadAttention", "f:2,3,8 f:2,5,8 f:2,5,8 f:24 i:2,7 - f:2,4,2,2 f:2,4,2,2", 3, {"num_heads": 4}),
    ("NhwcMaxPool", "B:2,9,8,5", 1, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    ("QAttention", "B:2,6,5 b:5,12 f:12 f: f: i:2 B: b:", 1, {"num_heads": 2}),
    ("QEmbedLayerNormalization", "i:3,7 - B:9,6 B:7,6 - B:6 B:6 - f: f: - f: f: B: B: - B: B:", 2, {}),
    ("QGemm", "B:6,9 f: B: b:9,4 f: b: i:4 f: B:", 1, {"alpha": 0.5}),
    ("QLinearAdd", "B:3,4,5 f: B: B:4,5 f: B: f: B:", 1, {}),
    ("QLinearAveragePool", "B:1,3,4,4 f: - f: -", 1, {"kernel_shape": [2, 2]}),
    ("QLinearConcat", "f: b: b:2,3,5 f: b: b:2,4,5 f: b:", 1, {"axis": 1}),
    ("QLinearGlobalAveragePool", "B:2,6,4,4 f: B: f: B:", 1, {}),
    ("QLinearLeakyRelu", "B:2,6,4 f: B: f: B:", 1, {"alpha": 0.1}),
    ("QLinearMul", "b:3,4,5 f: b: b:4,5 f: b: f: b:", 1, {}),
    ("QLinearSigmoid", "b:2,6,8 f: b: f: b:", 1, {}),
    ("QLinearSoftmax", "B:2,6,8 f: B: f: B:", 1, {"axis": -1, "opset": 13}),
    ("QLinearWhere", "?:2,4,5 B:4,5 f: B: B:2,4,5 f: B: f: B:", 1, {}),
    ("QuantizeLinear", "f:3,4,6 f: h:", 1, {}),
    ("QuickGelu", "f:2,5,4", 1, {}),
    ("RotaryEmbedding", "f:2,5,24 q:1 f:11,4 f:11,4", 1, {}),
    ("SkipLayerNormalization", "f:2,5,6 f:5,6 f:6 f:6 f:6", 1, {}),
    ("SkipSimplifiedLayerNormalization", "f:2,5,6 f:2,5,6 f:6", 1, {}),
    ("TransposeMatMul", "f:2,3,7,5 f:7,9", 1, {"alpha": 0.25, "transA": 1}),
]


def models() -> Iterator[tuple[str, bytes]]:
    """Names, and each model twice: all that it reads are inputs, and all but the first are constants of ones."""
    import numpy as np
    from onnx import helper, numpy_helper

    for at, (op, inputs, outputs, attributes) in enumerate(NODES):
        arrays: list[np.ndarray[Any, Any] | None] = []
        for text in inputs.split():
            kind, _, dims = text.partition(":")
            shape = [int(d) for d in dims.split(",") if d]
            arrays.append(None if kind == "-" else np.ones(shape, np.dtype(kind)))
        names = ["" if x is None else f"x{i}" for i, x in enumerate(arrays)]
        given = [(name, x) for name, x in zip(names, arrays, strict=True) if x is not None]
        results = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, names, results, name="n", domain="com.microsoft", **attributes)
        for constant in (False, True):
            ports = given[:1] if constant else given
            graph = helper.make_graph(
                [node],
                "fused",
                [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in ports],
                [helper.make_tensor_value_info(name, 1, None) for name in results],
                [numpy_helper.from_array(x, name) for name, x in given[len(ports) :]],
            )
            imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
            content = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
            yield f"fused_{at}_{op}{'_constant' if constant else ''}", content
