"""What a model gives a meaning to is not refused: missing values, masks, a decoder's empty past."""

import pickle
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import inferkit
from inferkit import Batcher, InputChecks, Model

F32 = np.float32
FLOAT = TensorProto.FLOAT


def build(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **constants: Any) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value(name, FLOAT, shape) for name, shape in inputs.items()],
        [value(name, FLOAT, shape) for name, shape in outputs.items()],
        [helper.make_tensor(name, FLOAT, np.shape(data), np.ravel(data)) for name, data in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def forest(tracks: int = 1) -> bytes:
    """1 where the feature is at most 0 or missing, else 2."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 3,
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0] * 3,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.0] * 3,
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[tracks, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    return build([node], {"x": [None, 1]}, {"y": [None, 1]})


def masked() -> bytes:
    nodes = [helper.make_node("Add", ["x", "mask"], ["a"]), helper.make_node("Softmax", ["a"], ["y"], axis=-1)]
    return build(nodes, {"x": [None, 2], "mask": [None, 2]}, {"y": [None, 2]})


def decoder() -> bytes:
    nodes = [helper.make_node("Concat", ["past", "x"], ["y"], axis=1)]
    return build(nodes, {"past": [None, None, 2], "x": [None, 1, 2]}, {"y": [None, None, 2]})


def refused(reason: str, call: Any) -> str:
    with pytest.raises(inferkit.ValidationError) as caught:
        call()
    assert caught.value.reason == reason
    return str(caught.value)


MISSING = np.array([[np.nan], [5], [-1]], F32)


def test_missing_values_reach_trees_that_track_them() -> None:
    model = Model.load(forest())
    assert model(MISSING).tolist() == [[1], [2], [1]]
    with Batcher(model) as batcher:
        assert batcher(MISSING).tolist() == [[1], [2], [1]]
        assert batcher.submit(MISSING[0]).result().tolist() == [1]
    message = refused("non_finite", lambda: model(np.array([[np.inf]], F32)))
    assert "holds infinity at index (0, 0)" in message
    assert "NaN for missing ones" in message
    assert "input_checks={'x': InputChecks(finite=False)}" in message


def test_trees_that_do_not_track_missing_values_refuse_them() -> None:
    message = refused("non_finite", lambda: Model.load(forest(tracks=0))(MISSING))
    assert "input_checks={'x': InputChecks(finite=False)}" in message
    allowed = Model.load(forest(tracks=0), input_checks={"x": InputChecks(finite=False)})
    assert allowed(MISSING[:1]).shape == (1, 1)


@pytest.mark.parametrize("order", ["C", "F"])
def test_minus_infinity_masks(order: Any) -> None:
    model = Model.load(masked())
    x, mask = np.zeros((2, 2), F32), np.array([[0, -np.inf], [-np.inf, 0]], F32, order=order)
    want = [[1, 0], [0, 1]]
    assert model(x, mask).tolist() == want
    with Batcher(model) as batcher:
        assert batcher(x, mask).tolist() == want
        assert batcher.submit(x, mask).result().tolist() == want
    for bad in (np.inf, np.nan):
        mask[1, 1] = bad
        message = refused("non_finite", lambda: model(x, mask))
        assert "'mask' holds NaN or plus infinity at index (1, 1)" in message
        with Batcher(model) as batcher:
            ticket = batcher.submit(x, mask)
            refused("non_finite", ticket.result)


def test_an_empty_past() -> None:
    model = Model.load(decoder())
    past, x = np.zeros((3, 0, 2), F32), np.arange(6, dtype=F32).reshape(3, 1, 2)
    assert np.array_equal(model(past, x), x)
    with Batcher(model, max_batch_size=4) as batcher:
        assert np.array_equal(batcher(past, x), x)
        tickets = [batcher.submit(past[i], x[i]) for i in range(3)]
        assert [ticket.result().tolist() for ticket in tickets] == x.tolist()
        longer = np.ones((1, 2, 2), F32)
        assert batcher(longer, x[:1]).shape == (1, 3, 2)
        message = refused("empty", lambda: batcher(past[:0], x[:0]))
        assert "has no rows" in message
    refused("empty", lambda: model(past[:0], x[:0]))


def test_switches_beat_the_model() -> None:
    strict = Model.load(forest(), input_checks=InputChecks(finite=True))
    refused("non_finite", lambda: strict(MISSING))
    with Batcher(Model.load(forest()), input_checks={"x": InputChecks(finite=True)}) as batcher:
        refused("non_finite", batcher.submit(MISSING).result)
    refused(
        "empty",
        lambda: Model.load(decoder(), input_checks={"past": InputChecks(non_empty=True)})(
            np.zeros((1, 0, 2), F32), np.ones((1, 1, 2), F32)
        ),
    )


def test_checks_by_name() -> None:
    model = Model.load(masked(), input_checks={"mask": InputChecks(finite=True)})
    x, inf = np.zeros((1, 2), F32), np.array([[0, -np.inf]], F32)
    refused("non_finite", lambda: model(x, inf))
    model(inf, x)  # the other input is judged as the model says
    for copy in (pickle.loads(pickle.dumps(model)), pickle.loads(pickle.dumps(Model.load(masked())))):
        assert copy.inputs == model.inputs
    refused("non_finite", lambda: pickle.loads(pickle.dumps(model))(x, inf))
    with Batcher(model) as batcher:  # the model's checks are the batcher's
        refused("non_finite", batcher.submit(x, inf).result)
    with Batcher(model, input_checks={"x": InputChecks(finite=False)}) as batcher:  # and stay for the others
        refused("non_finite", batcher.submit(x, inf).result)
        batcher.submit(np.array([[-np.inf, 0]], F32), x).result()
    with Batcher(model, input_checks=InputChecks()) as batcher:
        batcher.submit(x, inf).result()
    for make in (
        lambda: Model.load(masked(), input_checks={"y": InputChecks()}),
        lambda: Batcher(model, input_checks={"y": InputChecks()}),
    ):
        with pytest.raises(ValueError, match="no input 'y'; its inputs are 'x', 'mask'"):
            make()


def test_a_mapping_is_read_once() -> None:
    checks = {"mask": InputChecks(finite=True)}
    model = Model.load(masked(), input_checks=checks)
    checks["mask"] = InputChecks(finite=False)
    for one in (model, pickle.loads(pickle.dumps(model))):
        refused("non_finite", lambda one=one: one(np.zeros((1, 2), F32), np.array([[0, np.nan]], F32)))


def test_a_swapped_model_is_judged_by_itself() -> None:
    with Batcher(Model.load(forest())) as batcher:
        assert batcher.submit(MISSING).result().tolist() == [[1], [2], [1]]
        batcher.swap(Model.load(forest(tracks=0)))
        refused("non_finite", batcher.submit(MISSING).result)
        batcher.swap(Model.load(forest()))
        assert batcher.submit(MISSING).result().tolist() == [[1], [2], [1]]


def test_optional_inputs_have_checks_too() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["y"])]
    data = build(nodes, {"x": [None, 2], "b": [2]}, {"y": [None, 2]}, b=[1.0, 2.0])
    model = Model.load(data, input_checks={"b": InputChecks(finite=False)})
    x = np.zeros((1, 2), F32)
    answer = model.run({"x": x, "b": np.array([np.inf, 0], F32)})["y"]
    assert answer.tolist() == [[np.inf, 0]]
    refused("non_finite", lambda: model.run({"x": np.full((1, 2), np.nan, F32), "b": x[0]}))
    refused("non_finite", lambda: Model.load(data).run({"x": x, "b": np.array([np.inf, 0], F32)}))


def test_the_doctor_knows_of_missing_values() -> None:
    with Batcher(Model.load(forest())) as batcher:
        report = inferkit.diagnose(batcher, seconds=0.05)
    checks = {check.name: check for check in report.checks}
    assert checks["NaN"].status == "skip"
    assert "missing value" in checks["NaN"].figure
    assert checks["infinity"].status == "pass"
