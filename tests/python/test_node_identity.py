"""What is made once per node (forests, tables, packed weights) is that node's, wherever copies of it run: in branches
that take an If's place at every new shape, in bodies of loops, in functions that are inlined twice. Against ONNX
Runtime."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

Array = np.ndarray[Any, Any]
ML = "ai.onnx.ml"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)


def value(name: str, dtype: int, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def tree(op: str, name: str, k: float, **more: Any) -> onnx.NodeProto:
    """A root that compares feature 0 with 0.5, and two leaves."""
    return helper.make_node(
        op, ["x"], [name, *more.pop("outputs", [])], domain=ML, name=name,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0], **more,
    )  # fmt: skip


def regressor_tree(name: str, k: float) -> list[onnx.NodeProto]:
    weights = {"target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0]}
    return [tree("TreeEnsembleRegressor", name, k, n_targets=1, target_weights=[k, k + 1.0], **weights)]


def classifier_tree(name: str, k: float) -> list[onnx.NodeProto]:
    weights = {"class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 2], "class_weights": [1.0, 1.0]}
    labels = [int(k), int(k) + 1, int(k) + 2]
    node = tree("TreeEnsembleClassifier", f"{name}_l", k, outputs=[f"{name}_s"], classlabels_int64s=labels, **weights)
    return [node, helper.make_node("Cast", [f"{name}_l"], [f"{name}_f"], to=FLOAT), column(f"{name}_f", name)]


def column(source: str, name: str) -> onnx.NodeProto:
    return helper.make_node("Reshape", [source, "column"], [name])


def label_encoder(name: str, k: float) -> list[onnx.NodeProto]:
    table = {"keys_int64s": [0, 1], "values_floats": [k, k + 1.0], "default_float": k + 2.0}
    return [
        helper.make_node("Cast", ["x"], [f"{name}_i"], to=INT64),
        helper.make_node("LabelEncoder", [f"{name}_i"], [name], domain=ML, **table),
    ]


def one_hot(name: str, k: float) -> list[onnx.NodeProto]:
    return [
        helper.make_node("OneHotEncoder", ["x"], [f"{name}_h"], domain=ML, cats_int64s=[int(k), 0], zeros=1),
        helper.make_node("Reshape", [f"{name}_h", "two"], [name]),
    ]


def linear_regressor(name: str, k: float) -> list[onnx.NodeProto]:
    weights = {"coefficients": [k, 1.0], "intercepts": [0.5], "targets": 1}
    return [helper.make_node("LinearRegressor", ["x"], [name], domain=ML, **weights)]


def linear_classifier(name: str, k: float) -> list[onnx.NodeProto]:
    weights = {"coefficients": [k, 1.0, 1.0, -k], "intercepts": [0.25, 0.0], "classlabels_ints": [0, 1]}
    return [helper.make_node("LinearClassifier", ["x"], [f"{name}_l", name], domain=ML, **weights)]


def svm_regressor(name: str, k: float) -> list[onnx.NodeProto]:
    machine = {"kernel_type": "RBF", "kernel_params": [0.5, 0.0, 0.0], "support_vectors": [k / 10, 0.0]}
    return [
        helper.make_node("SVMRegressor", ["x"], [name], domain=ML, coefficients=[2.0], rho=[k], n_supports=1, **machine)
    ]


def svm_classifier(name: str, k: float) -> list[onnx.NodeProto]:
    machine = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0], "support_vectors": [k / 10, 0.0, 0.0, 1.0]}
    labels = {"classlabels_ints": [int(k), int(k) + 1], "vectors_per_class": [1, 1]}
    node = helper.make_node(
        "SVMClassifier",
        ["x"],
        [f"{name}_l", f"{name}_s"],
        domain=ML,
        coefficients=[1.0, -1.0],
        rho=[0.1],
        **machine,
        **labels,
    )
    return [node, helper.make_node("Cast", [f"{name}_l"], [f"{name}_f"], to=FLOAT), column(f"{name}_f", name)]


Make = Callable[[str, float], list[onnx.NodeProto]]
OPERATORS: list[Make] = [
    regressor_tree, classifier_tree, label_encoder, one_hot,
    linear_regressor, linear_classifier, svm_regressor, svm_classifier,
]  # fmt: skip


def branch(make: Make, name: str, k: float) -> onnx.GraphProto:
    return helper.make_graph(make(name, k), name, [], [value(name, FLOAT, None, None)])


def choice(make: Make, condition: str, result: str, low: float = 3.0, high: float = 40.0) -> onnx.NodeProto:
    branches = {"then_branch": branch(make, f"{result}_then", low), "else_branch": branch(make, f"{result}_else", high)}
    return helper.make_node("If", [condition], [result], **branches)


CONSTANTS = [
    numpy_helper.from_array(np.array(0, np.float32), "zero"),
    numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
    numpy_helper.from_array(np.array([-1, 2], np.int64), "two"),
]


def model_of(nodes: list[onnx.NodeProto], *inputs: onnx.ValueInfoProto, functions: Any = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", list(inputs), [value("y", FLOAT, None, None)], CONSTANTS)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions).SerializeToString()


def signed(make: Make) -> bytes:
    """One branch where the sum of s is positive, else the other."""
    nodes = [
        helper.make_node("ReduceSum", ["s"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["c"]),
        choice(make, "c", "y"),
    ]
    return model_of(nodes, value("x", FLOAT, None, 2), value("s", FLOAT, None, 1))


def reference(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check(model: inferkit.Model, session: onnxruntime.InferenceSession, feed: dict[str, Array]) -> None:
    (want,) = session.run(None, feed)
    np.testing.assert_allclose(model.run(feed)["y"], want, rtol=1e-5, atol=1e-6)


def points(rows: int) -> Array:
    return np.array([[i % 3 - 0.5, i % 2] for i in range(rows)], np.float32)


@pytest.mark.parametrize("make", OPERATORS, ids=lambda make: make.__name__)
def test_each_branch_keeps_what_is_its_own(make: Make) -> None:
    data = signed(make)
    model, session = inferkit.Model.load(data, max_plans=4, input_checks=LENIENT), reference(data)
    packed = set()
    for rows in range(1, 13):
        for sign in (1, -1, 1):
            check(model, session, {"x": points(rows), "s": np.full((rows, 1), sign, np.float32)})
        packed.add(model.memory().packed_bytes)
    assert len(packed) == 1, "each shape made what its node needs anew"


@pytest.mark.parametrize("make", OPERATORS, ids=lambda make: make.__name__)
def test_models_that_follow_one_another(make: Make) -> None:
    x = points(5)
    for k in (3.0, 40.0, 5.0, 60.0):
        data = model_of(make("y", k), value("x", FLOAT, None, 2))
        check(inferkit.Model.load(data), reference(data), {"x": x})
        gc.collect()


def body(inner: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> Any:
    return helper.make_graph(inner, "body", inputs, outputs)


@pytest.mark.parametrize("make", [regressor_tree, label_encoder, linear_regressor])
def test_branches_within_a_loop(make: Make) -> None:
    """The sum of what the branches give that the iterations choose, which alternate; an If within each branch."""

    def nested(name: str, k: float) -> list[onnx.NodeProto]:
        return [choice(make, "late", name, k, k + 7)]

    inner = [
        helper.make_node("Mod", ["i", "two_0"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["odd"], to=BOOL),
        helper.make_node("Greater", ["i", "two_0"], ["late"]),
        choice(nested, "odd", "part"),
        helper.make_node("Add", ["state", "part"], ["next"]),
        helper.make_node("Identity", ["go"], ["go_on"]),
    ]
    loop = body(
        inner,
        [value("i", INT64), value("go", BOOL), value("state", FLOAT, None, None)],
        [value("go_on", BOOL), value("next", FLOAT, None, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["two_0"], value_int=2),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["start"], keepdims=1),
        helper.make_node("Loop", ["n", "", "start"], ["y"], body=loop),
    ]
    data = model_of(nodes, value("x", FLOAT, None, 2), value("n", INT64))
    model, session = inferkit.Model.load(data, input_checks=LENIENT), reference(data)
    packed = set()
    for rows in (1, 2, 7, 3):
        for trips in (6, 1, 0, 5):
            check(model, session, {"x": points(rows), "n": np.array(trips)})
        packed.add(model.memory().packed_bytes)
    assert len(packed) == 1


@pytest.mark.parametrize("make", [regressor_tree, linear_regressor])
def test_branches_within_a_scan(make: Make) -> None:
    inner = [
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        choice(make, "c", "parts"),
        helper.make_node("ReduceSum", ["parts"], ["part"], keepdims=1),
        helper.make_node("Add", ["state", "part"], ["next"]),
    ]
    scan = body(inner, [value("state", FLOAT, None, None), value("s", FLOAT)], [value("next", FLOAT, None, None)])
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["start"], keepdims=1),
        helper.make_node("Scan", ["start", "signs"], ["y"], body=scan, num_scan_inputs=1),
    ]
    data = model_of(nodes, value("x", FLOAT, None, 2), value("signs", FLOAT, None))
    model, session = inferkit.Model.load(data, input_checks=LENIENT), reference(data)
    for rows in (1, 4, 2):
        check(model, session, {"x": points(rows), "signs": np.array([1, -1, -1, 1, 1], np.float32)})


def test_a_function_that_is_called_twice_with_other_attributes() -> None:
    encoder = helper.make_node("LabelEncoder", ["i"], ["out"], domain=ML, keys_int64s=[0, 1])
    encoder.attribute.append(
        onnx.AttributeProto(name="values_floats", ref_attr_name="to", type=onnx.AttributeProto.FLOATS)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    cast = helper.make_node("Cast", ["in"], ["i"], to=INT64)
    function = helper.make_function("own", "Encode", ["in"], ["out"], [cast, encoder], opsets, attributes=["to"])
    nodes = [
        helper.make_node("Encode", ["x"], ["a"], domain="own", to=[1.0, 2.0]),
        helper.make_node("Encode", ["x"], ["b"], domain="own", to=[30.0, 40.0]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    data = model_of(nodes, value("x", FLOAT, None, 2), functions=[function])
    x = np.array([[0, 1], [1, 0]], np.float32)
    np.testing.assert_array_equal(
        inferkit.Model.load(data).run({"x": x})["y"], np.array([[31, 42], [42, 31]], np.float32)
    )


def test_two_normalizations_of_the_same_numbers_whose_epsilons_print_alike() -> None:
    """They share scale, bias, mean and variance, and so all that their tables could be known by but for one number."""
    epsilons = [1e-5, 1.000002e-5]
    tiny = [numpy_helper.from_array(np.full(1, v, np.float32), n) for n, v in (("s", 1), ("b", 0), ("m", 0), ("v", 0))]
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], [f"y{i}"], epsilon=e)
        for i, e in enumerate(epsilons)
    ]
    outputs = [value("y0", FLOAT, None, 1), value("y1", FLOAT, None, 1)]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, None, 1)], outputs, tiny)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(data)
    got = model.run({"x": np.full((1, 1), 1, np.float32)})
    want = [np.float32(1 / np.sqrt(np.float64(np.float32(e)))) for e in epsilons]
    assert want[0] != want[1]
    assert [got["y0"][0, 0], got["y1"][0, 0]] == want
