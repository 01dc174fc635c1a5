"""What a model lacks, or what is wrong whatever its sizes, shows when it is loaded, also where shapes are free: in
nodes that no guess at them reaches, in bodies of loops that do not go round, behind values that only a run gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

import inferkit

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ML = "ai.onnx.ml"
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid(ML, 3)]
REFUSED = (inferkit.UnsupportedOpError, inferkit.ModelError)


def value(name: str, dtype: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def constant(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(array), name)


def behind_sizes_that_no_guess_fits(node: onnx.NodeProto, opset: int = 21) -> bytes:
    """The node reads a reshaped input of 1001 elements; the output is declared, so that nothing need be known."""
    nodes = [helper.make_node("Reshape", ["x", "target"], ["r"]), node]
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, "n")], [value("y", FLOAT, "a", "b")], [constant("target", [7, 11, 13])]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def node_of(schema: defs.OpSchema, attributes: dict[str, Any]) -> onnx.NodeProto:
    """All of its inputs are r, all outputs but the first have names of their own."""
    inputs = ["r"] * (schema.min_input if schema.max_input > 100 else max(schema.min_input, 1))
    outputs = ["y", *(f"o{i}" for i in range(1, schema.min_output))]
    return helper.make_node(schema.name, inputs, outputs, domain=schema.domain, name="culprit", **attributes)


def choices() -> list[tuple[defs.OpSchema, str]]:
    """Every attribute that names one of some ways."""
    found = []
    for domain, version in (("", 21), (ML, 3)):
        for schema in defs.get_all_schemas():
            if schema.domain != domain:
                continue
            try:
                own = defs.get_schema(schema.name, version, domain)
            except defs.SchemaError:
                continue
            if own.deprecated:
                continue
            found += [(own, a) for a, spec in own.attributes.items() if spec.type == defs.OpSchema.AttrType.STRING]
    return found


# Not the name of a way, or of an operator that inferkit lacks as a whole.
FREE_TEXT = {
    ("Einsum", "equation"), ("Constant", "value_string"), ("LabelEncoder", "default_string"),
    ("CategoryMapper", "default_string"), ("StringSplit", "delimiter"), ("StringNormalizer", "locale"),
    ("RegexFullMatch", "pattern"),
}  # fmt: skip


def required(schema: defs.OpSchema) -> dict[str, Any]:
    """Values for the attributes that the operator must have."""
    values: dict[str, Any] = {
        "blocksize": 2, "kernel_shape": [2], "pooled_shape": [2, 2], "num_heads": 1, "axis": 0, "to": FLOAT,
        "hidden_size": 2, "max_gram_length": 1, "min_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0],
        "ngram_indexes": [0], "pool_int64s": [1], "mode": "TF",
    }  # fmt: skip
    return {name: values[name] for name, spec in schema.attributes.items() if spec.required and name in values}


@pytest.mark.parametrize(
    ("schema", "attribute"),
    [pytest.param(s, a, id=f"{s.name}-{a}") for s, a in choices() if (s.name, a) not in FREE_TEXT],
)
def test_a_way_that_there_is_not(schema: defs.OpSchema, attribute: str) -> None:
    node = node_of(schema, required(schema) | {attribute: "no_such_way"})
    with pytest.raises(REFUSED) as refused:
        inferkit.Model.load(behind_sizes_that_no_guess_fits(node))
    if "operator" in str(refused.value):
        return  # inferkit lacks it as a whole
    assert "culprit" in str(refused.value)
    assert schema.domain == ML or "no_such_way" in str(refused.value)  # of those, other attributes are missing too


NUMBERS: list[tuple[str, int, dict[str, Any]]] = [
    ("Cast", 1, {"to": 99}),
    ("EyeLike", 1, {"dtype": 99}),
    ("DequantizeLinear", 2, {"output_dtype": 99}),
    ("QuantizeLinear", 2, {"output_dtype": 99}),
    ("QuantizeLinear", 2, {"block_size": -1}),
    ("DepthToSpace", 1, {"blocksize": 0}),
    ("SpaceToDepth", 1, {"blocksize": 0}),
    ("LRN", 1, {"size": 0}),
    ("LpPool", 1, {"p": 0, "kernel_shape": [2, 2]}),
    ("GlobalLpPool", 1, {"p": 0}),
    ("LpNormalization", 1, {"p": 3}),
    ("MaxPool", 1, {}),
    ("AveragePool", 1, {"kernel_shape": [0, 2]}),
    ("Conv", 2, {"group": 0}),
    ("Conv", 2, {"strides": [0, 1]}),
    ("Conv", 2, {"dilations": [0, 1]}),
    ("ConvTranspose", 2, {"pads": [-1, 0, 0, 0]}),
    ("ConvInteger", 2, {"group": -2}),
    ("Mod", 2, {"fmod": 2}),
    ("Transpose", 1, {"perm": [0, 0, 1]}),
    ("GatherND", 2, {"batch_dims": -1}),
    ("HannWindow", 1, {"output_datatype": 99}),
    ("ReverseSequence", 2, {"batch_axis": 0, "time_axis": 0}),
    ("GroupNormalization", 3, {"num_groups": 0}),
    ("LSTM", 3, {"activations": ["Sigmoid", "Tanh", "Nonsense"]}),
    ("GRU", 3, {"activations": ["Sigmoid"]}),
    ("RNN", 3, {"layout": 7}),
    ("MaxRoiPool", 2, {"pooled_shape": [0, 1]}),
    ("RoiAlign", 3, {"output_height": 0}),
    ("Einsum", 2, {"equation": "ij"}),
    ("Einsum", 1, {"equation": "i?->i"}),
    ("ReduceSum", 1, {"axes": [0]}),
    ("Concat", 2, {}),
    ("Split", 1, {"num_outputs": 5}),
    ("ConstantOfShape", 1, {"value": constant("v", [1.0, 2.0])}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), NUMBERS, ids=lambda v: str(v)[:40])
def test_a_number_that_no_input_makes_right(op: str, inputs: int, attributes: dict[str, Any]) -> None:
    node = helper.make_node(op, ["r"] * inputs, ["y"], name="culprit", **attributes)
    with pytest.raises(REFUSED, match="culprit"):
        inferkit.Model.load(behind_sizes_that_no_guess_fits(node, opset=23))


ML_NODES: list[tuple[str, dict[str, Any]]] = [
    ("Scaler", {"offset": [1.0, 2.0, 3.0], "scale": [1.0, 2.0]}),
    ("Imputer", {}),
    ("OneHotEncoder", {"cats_strings": ["a"], "cats_int64s": [1]}),
    ("OneHotEncoder", {}),
    ("LabelEncoder", {"keys_strings": ["a"]}),
    ("LabelEncoder", {"keys_int64s": [1], "values_strings": [b"\xff"]}),
    ("LinearClassifier", {"coefficients": [1.0, 2.0], "classlabels_strings": ["a"]}),
    ("LinearRegressor", {"coefficients": [1.0, 2.0], "targets": 3}),
    ("SVMRegressor", {"coefficients": [1.0], "support_vectors": [1.0], "n_supports": 1}),
    (
        "SVMClassifier",
        {"coefficients": [1.0], "support_vectors": [1.0], "classlabels_strings": ["a", "b"], "rho": [1.0]},
    ),
    ("TreeEnsembleRegressor", {"n_targets": 0}),
    ("TreeEnsembleClassifier", {"classlabels_strings": ["a"]}),
    ("FeatureVectorizer", {"inputdimensions": [1, 2, 3]}),
]


@pytest.mark.parametrize(("op", "attributes"), ML_NODES, ids=lambda v: str(v)[:40])
def test_machines_that_contradict_themselves(op: str, attributes: dict[str, Any]) -> None:
    node = helper.make_node(op, ["r"], ["y"], name="culprit", domain=ML, **attributes)
    with pytest.raises(REFUSED, match="culprit"):
        inferkit.Model.load(behind_sizes_that_no_guess_fits(node))


def test_a_forest_that_is_wrong_whatever_its_input() -> None:
    """Both dimensions are free: all guesses fail, for the same reason."""
    forest = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0], "nodes_modes": ["BRANCH_SOMEHOW", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "n_targets": 1,
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0],
    }  # fmt: skip
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, name="culprit", **forest)
    graph = helper.make_graph([node], "g", [value("x", FLOAT, "n", "m")], [value("y", FLOAT, "n", 1)])
    data = helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()
    with pytest.raises(inferkit.ModelError, match="BRANCH_SOMEHOW"):
        inferkit.Model.load(data)


@pytest.mark.parametrize(
    ("op", "types"), [("Add", (FLOAT, INT64)), ("Gather", (FLOAT, FLOAT)), ("Where", (INT64, FLOAT, FLOAT))]
)
def test_types_that_do_not_go_together(op: str, types: tuple[int, ...]) -> None:
    inputs = [value(f"x{i}", dtype, "n", "m") for i, dtype in enumerate(types)]
    node = helper.make_node(op, [i.name for i in inputs], ["y"], name="culprit")
    graph = helper.make_graph([node], "g", inputs, [value("y", FLOAT, "n", "m")])
    data = helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()
    with pytest.raises(REFUSED, match="culprit"):
        inferkit.Model.load(data)


PAD = helper.make_node("Pad", ["v", "pads"], ["w"], mode="no_such_way", name="culprit")


def loop_around(nodes: list[onnx.NodeProto]) -> bytes:
    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [value("i", INT64), value("go", BOOL), value("v", FLOAT, "k")],
        [value("go_on", BOOL), value("w", FLOAT, "k")],
        [constant("pads", [1, 1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        "g",
        [value("x", FLOAT, "m"), value("n", INT64)],
        [value("y", FLOAT, "k")],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()


def test_the_body_of_a_loop() -> None:
    with pytest.raises(REFUSED, match="culprit"):
        inferkit.Model.load(loop_around([PAD]))


def test_a_type_in_the_body_of_a_loop() -> None:
    """On zeros it does not go round, so no plan of the body shows what it lacks."""
    nodes = [
        helper.make_node("Cast", ["v"], ["c"], to=BOOL),
        helper.make_node("CumSum", ["c", "axis"], ["s"], name="culprit"),
        helper.make_node("Cast", ["s"], ["w"], to=FLOAT),
        helper.make_node("Constant", [], ["axis"], value_int=0),
    ]
    with pytest.raises(inferkit.UnsupportedOpError, match="culprit"):
        inferkit.Model.load(loop_around(nodes))


def test_a_type_behind_a_selection() -> None:
    """Zeros select nothing, and nothing is computed of nothing."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=BOOL),
        helper.make_node("CumSum", ["c", "axis"], ["s"], name="culprit"),
        helper.make_node("Cast", ["s"], ["y"], to=FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, "n", "m")], [value("y", FLOAT, 2, "k")], [constant("axis", 1)]
    )
    data = helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()
    with pytest.raises(inferkit.UnsupportedOpError, match="culprit"):
        inferkit.Model.load(data)


def test_all_that_a_model_lacks_is_listed() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Pad", ["r", "pads"], ["a"], mode="no_such_way", name="first"),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="no_such_way", name="second"),
        helper.make_node("NoSuchOperator", ["b"], ["c"]),
        helper.make_node("FusedGemm", ["c", "c"], ["d"], domain="com.microsoft", activation="Swish", name="fourth"),
        helper.make_node("GridSample", ["d", "d"], ["y"], padding_mode="no_such_way", name="third"),
    ]
    constants = [constant("target", [7, 11, 13]), constant("pads", [0] * 6), constant("scales", np.ones(3, np.float32))]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, "n")], [value("y", FLOAT, "a", "b")], constants)
    opsets = [*OPSETS, helper.make_opsetid("com.microsoft", 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    with pytest.raises(inferkit.UnsupportedOpError) as refused:
        inferkit.Model.load(data)
    for what in ("first", "second", "third", "fourth", "NoSuchOperator"):
        assert what in str(refused.value), what


def test_what_nobody_reads_is_not_asked_for() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Pad", ["x", "pads"], ["unread"], mode="no_such_way"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", FLOAT, "n")], [value("y", FLOAT, "n")], [constant("pads", [0, 0])]
    )
    data = helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()
    np.testing.assert_array_equal(inferkit.Model.load(data)(np.array([-1, 2], np.float32)), [0, 2])


def test_operators_for_one_processor_come_with_a_hint() -> None:
    """As ONNX Runtime writes them at the level that its sessions optimize at by default. The hint stands once."""
    domain = "com.microsoft.nchwc"
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["r"], domain=domain),
        helper.make_node("Conv", ["r", "w"], ["c"], domain=domain, activation="Relu"),
        helper.make_node("ReorderOutput", ["c"], ["y"], domain=domain, channels=16),
    ]
    ports = [value("x", FLOAT, "n", 16, "h", "w")], [value("y", FLOAT, "n", 16, "h", "w")]
    graph = helper.make_graph(nodes, "g", *ports, [constant("w", np.ones((16, 16, 1, 1), np.float32))])
    opsets = [*OPSETS, helper.make_opsetid(domain, 1)]
    with pytest.raises(inferkit.UnsupportedOpError, match=r"com\.microsoft\.nchwc\.Conv") as refused:
        inferkit.Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    assert str(refused.value).count("ORT_ENABLE_EXTENDED") == 1


def test_what_onnxruntime_saves_loads_at_the_level_of_the_hint(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    x, w = np.random.default_rng(1).standard_normal((2, 16, 16, 3, 3)).astype(np.float32)
    ports = [value("x", FLOAT, "n", 16, 3, 3)], [value("y", FLOAT, "n", 16, 1, 1)]
    graph = helper.make_graph(nodes, "g", *ports, [constant("w", w)])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    data = helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    got = inferkit.Model.load(tmp_path / "saved.onnx")(x)
    np.testing.assert_allclose(got, session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)
