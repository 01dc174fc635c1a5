"""What a model gives a meaning to is not refused: missing values, masks, a decoder's empty past."""

import pickle
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

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
        [
            numpy_helper.from_array(np.asarray(data, np.int64 if np.asarray(data).dtype.kind == "i" else F32), name)
            for name, data in constants.items()
        ],
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


SOFTMAX = {"Softmax": [[1, 0], [0, 1]], "LogSoftmax": [[0, -np.inf], [-np.inf, 0]]}


@pytest.mark.parametrize("last", SOFTMAX)
@pytest.mark.parametrize(("join", "sign"), [("Add", 1), ("Sum", 1), ("Sub", -1)])
def test_masks_that_are_joined_in_other_ways(last: str, join: str, sign: float) -> None:
    """A mask that is subtracted holds plus infinity."""
    nodes = [helper.make_node(join, ["x", "mask"], ["a"]), helper.make_node(last, ["a"], ["y"], axis=-1)]
    model = Model.load(build(nodes, {"x": [None, 2], "mask": [None, 2]}, {"y": [None, 2]}))
    x, mask = np.zeros((2, 2), F32), np.array([[0, sign * -np.inf], [sign * -np.inf, 0]], F32)
    assert model(x, mask).tolist() == SOFTMAX[last]
    for bad in (sign * np.inf, np.nan):
        wrong = np.array([[0, bad], [0, 0]], F32)
        message = refused("non_finite", lambda wrong=wrong: model(x, wrong))
        assert f"'mask' holds NaN or {'plus' if sign > 0 else 'minus'} infinity at index (0, 1)" in message


def test_a_mask_from_which_something_is_subtracted() -> None:
    nodes = [helper.make_node("Sub", ["mask", "x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"], axis=-1)]
    model = Model.load(build(nodes, {"x": [None, 2], "mask": [None, 2]}, {"y": [None, 2]}))
    assert model(np.zeros((1, 2), F32), np.array([[-np.inf, 0]], F32)).tolist() == [[0, 1]]
    refused("non_finite", lambda: model(np.zeros((1, 2), F32), np.array([[np.inf, 0]], F32)))


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({}, [np.inf, -np.inf]),
        ({"detect_negative": 0}, [np.inf]),
        ({"detect_positive": 0}, [-np.inf]),
        ({"detect_positive": 0, "detect_negative": 0}, []),
    ],
    ids=str,
)
def test_infinity_that_the_model_asks_for(attributes: dict[str, int], allowed: list[float]) -> None:
    nodes = [
        helper.make_node("IsInf", ["x"], ["i"], **attributes),
        helper.make_node("Where", ["i", "nine", "x"], ["y"]),
    ]
    model = Model.load(build(nodes, {"x": [None, 2]}, {"y": [None, 2]}, nine=[9.0]))
    for value in (np.inf, -np.inf, np.nan):
        x = np.array([[value, 1]], F32)
        if value in allowed:
            assert model(x).tolist() == [[9, 1]]
            with Batcher(model) as batcher:
                assert batcher(x).tolist() == [[9, 1]]
        else:
            refused("non_finite", lambda x=x: model(x))
    with Batcher(model) as batcher:
        report = inferkit.diagnose(batcher, seconds=0.05)
    checks = {check.name: check.status for check in report.checks if check.step == 3}
    assert checks["infinity"] == ("skip" if np.inf in allowed else "pass")
    assert checks["NaN"] == "pass"


def test_nan_and_infinity_that_the_model_asks_for() -> None:
    nodes = [
        helper.make_node("IsInf", ["x"], ["i"]),
        helper.make_node("IsNaN", ["x"], ["n"]),
        helper.make_node("Or", ["i", "n"], ["bad"]),
        helper.make_node("Where", ["bad", "nine", "x"], ["y"]),
    ]
    model = Model.load(build(nodes, {"x": [None, 4]}, {"y": [None, 4]}, nine=[9.0]))
    assert model(np.array([[np.inf, 1, -np.inf, np.nan]], F32)).tolist() == [[9, 1, 9, 9]]


@pytest.mark.parametrize("kind", ["keys_floats", "keys_tensor", "no NaN"])
def test_nan_among_the_keys_of_labels(kind: str) -> None:
    keys = np.array([6 if kind == "no NaN" else np.nan, 5], F32)
    attributes = {
        "keys_tensor": {
            "keys_tensor": helper.make_tensor("k", FLOAT, [2], keys),
            "values_tensor": helper.make_tensor("v", TensorProto.INT64, [2], [1, 2]),
            "default_tensor": helper.make_tensor("d", TensorProto.INT64, [1], [3]),
        }
    }.get(kind, {"keys_floats": keys.tolist(), "values_int64s": [1, 2], "default_int64": 3})
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", FLOAT, [None])], [value("y", TensorProto.INT64, [None])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 4)]
    model = Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    x = np.array([np.nan, 5, 7], F32)
    if kind == "no NaN":
        refused("non_finite", lambda: model(x))
    else:
        assert model(x).tolist() == [1, 2, 3]
        refused("non_finite", lambda: model(np.array([np.inf], F32)))


def test_what_a_message_advises_helps() -> None:
    """The switch that a message names is taken where it says, and lets the value through."""
    value = helper.make_tensor_value_info
    node = helper.make_node("SequenceAt", ["s", "i"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_sequence_value_info("s", FLOAT, [None])],
        [value("y", FLOAT, [None])],
        [helper.make_tensor("i", TensorProto.INT64, [], [0])],
    )
    listed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    nan = np.array([np.nan], F32)
    message = refused("non_finite", lambda: Model.load(listed)([nan]))
    assert "'s[0]' holds NaN" in message
    assert "input_checks={'s': InputChecks(finite=False)}" in message
    assert np.isnan(Model.load(listed, input_checks={"s": InputChecks(finite=False)})([nan])).all()
    lenient, x = Model.load(masked(), input_checks=InputChecks(finite=False)), np.zeros((1, 2), F32)
    with Batcher(lenient, input_checks=InputChecks(finite=True)) as batcher:
        message = refused("non_finite", lambda: batcher(np.full((1, 2), np.inf, F32), x))
        assert "give the model or the batcher input_checks={'x': InputChecks(finite=False)}" in message
    relu = build([helper.make_node("Relu", ["x"], ["y"])], {"x": [None, None]}, {"y": [None, None]})
    long = np.ones((1, 5), F32)
    for checks, word in ((InputChecks(max_length=3), "max_length"), (InputChecks(min_length=9), "min_length")):
        reason = "too_large" if word == "max_length" else "shape"
        message = refused(reason, lambda checks=checks: Model.load(relu, input_checks=checks)(long))
        assert f"give the model or the batcher input_checks={{'x': InputChecks({word}=...)}}" in message
    log = build([helper.make_node("Log", ["x"], ["y"])], {"x": [None, 2]}, {"y": [None, 2]})
    with Batcher(Model.load(log)) as batcher, pytest.raises(inferkit.OutputError) as caught:
        batcher(x)
    assert "give the batcher output_checks=OutputChecks(finite=False)" in str(caught.value)


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


NODE = helper.make_node
STACKED = [2, None, 2, None, 4]


@pytest.mark.parametrize(
    ("nodes", "shape", "constants"),
    [
        ([NODE("Mul", ["past", "k"], ["p"])], [None, 2, None, 4], {"k": 2.0}),
        ([NODE("Div", ["past", "k"], ["p"])], [None, 2, None, 4], {"k": [2.0]}),
        ([NODE("Squeeze", ["past", "axes"], ["p"])], [None, 2, None, 1, 4], {"axes": [-2]}),
        ([NODE("Unsqueeze", ["past", "axes"], ["p"])], [2, None, 4], {"axes": [0]}),
        ([NODE("Reshape", ["past", "to"], ["p"])], [None, 2, None, 2, 2], {"to": [0, 2, -1, 4]}),
        ([NODE("Reshape", ["past", "to"], ["p"])], [None, 2, None, 2, 2], {"to": [0, 0, 0, 4]}),
        (
            [
                NODE("Transpose", ["past"], ["t"], perm=[0, 2, 1]),
                NODE("Reshape", ["t", "to"], ["r"]),
                NODE("Transpose", ["r"], ["p"], perm=[0, 2, 1, 3]),
            ],
            [None, 8, None],
            {"to": [0, 0, 2, 4]},
        ),
        (
            [NODE("Split", ["past"], ["a", "b"], axis=0), NODE("Squeeze", ["b", "zero"], ["p"])],
            STACKED,
            {"zero": [0]},
        ),
        (
            [NODE("Slice", ["past", "one", "two", "zero"], ["a"]), NODE("Squeeze", ["a", "zero"], ["p"])],
            STACKED,
            {"zero": [0], "one": [1], "two": [2]},
        ),
    ],
    ids=["Mul", "Div", "Squeeze", "Unsqueeze", "Reshape", "Reshape kept", "Transpose", "Split", "Slice"],
)
@pytest.mark.parametrize("last", [False, True])
def test_an_empty_past_that_is_moved(
    nodes: list[Any], shape: list[int | None], constants: dict[str, Any], last: bool
) -> None:
    """Before what is computed of this step, or behind it."""
    step = helper.make_node("Relu", ["x"], ["k0"])
    join = helper.make_node("Concat", ["k0", "p"] if last else ["p", "k0"], ["y"], axis=2)
    model = Model.load(
        build(
            [*nodes, step, join],
            {"past": shape, "x": [None, 2, None, 4]},
            {"y": [None, 2, None, 4]},
            **constants,
        )
    )
    past = np.zeros([size if size is not None else 0 if i else 1 for i, size in enumerate(shape)], F32)
    if shape[0] == 2 and len(shape) == 5:
        past = np.zeros((2, 1, 2, 0, 4), F32)
    x = np.arange(16, dtype=F32).reshape(1, 2, 2, 4)
    assert np.array_equal(model(past, x), x)
    refused("empty", lambda: model(past, x[:, :, :0]))
    refused("empty", lambda: model(past, x[:0]))


@pytest.mark.parametrize("order", [["w", "x"], ["x", "w"]])
def test_what_stands_beside_a_constant_may_be_empty(order: list[str]) -> None:
    nodes = [NODE("Concat", order, ["y"], axis=-2)]
    model = Model.load(build(nodes, {"x": [1, None, 2]}, {"y": [1, None, 2]}, w=np.ones((1, 3, 2), F32)))
    assert model(np.zeros((1, 0, 2), F32)).tolist() == [[[1, 1]] * 3]
    nothing = Model.load(build(nodes, {"x": [1, None, 2]}, {"y": [1, None, 2]}, w=np.ones((1, 0, 2), F32)))
    refused("empty", lambda: nothing(np.zeros((1, 0, 2), F32)))


def test_what_stands_beside_a_fixed_length_may_be_empty() -> None:
    nodes = [NODE("Concat", ["x", "past"], ["y"], axis=1)]
    model = Model.load(build(nodes, {"past": [None, None, 2], "x": [None, 1, 2]}, {"y": [None, None, 2]}))
    x = np.ones((3, 1, 2), F32)
    assert np.array_equal(model(np.zeros((3, 0, 2), F32), x), x)


@pytest.mark.parametrize("branch", ["then", "else"])
@pytest.mark.parametrize("test", ["IsNaN", "Equal", "Not"])
def test_nan_that_a_comparison_asks_for(test: str, branch: str) -> None:
    """No value but NaN differs from itself."""
    ask = {
        "IsNaN": [NODE("IsNaN", ["x"], ["c"])],
        "Equal": [NODE("Equal", ["x", "x"], ["c"])],
        "Not": [NODE("Equal", ["x", "x"], ["e"]), NODE("Not", ["e"], ["c"])],
    }[test]
    of_others = (test == "Equal") != (branch == "else")
    nodes = [*ask, NODE("Where", ["c", "x", "nine"] if of_others else ["c", "nine", "x"], ["y"])]
    model = Model.load(build(nodes, {"x": [None, 2]}, {"y": [None, 2]}, nine=[9.0]))
    answer = model.run({"x": np.array([[np.nan, 1]], F32)})["y"]
    if branch == "then":
        assert answer.tolist() == [[9, 1]]
    refused("non_finite", lambda: model(np.array([[np.inf, 1]], F32)))


@pytest.mark.parametrize("order", [["IsNaN", "IsInf"], ["IsInf", "IsNaN"]])
def test_nan_and_infinity_that_are_replaced_one_after_the_other(order: list[str]) -> None:
    """As numpy.nan_to_num is written."""
    first, second = order
    nodes = [
        NODE(first, ["x"], ["a"]),
        NODE("Where", ["a", "nine", "x"], ["b"]),
        NODE(second, ["b"], ["c"]),
        NODE("Where", ["c", "nine", "b"], ["y"]),
    ]
    model = Model.load(build(nodes, {"x": [None, 4]}, {"y": [None, 4]}, nine=[9.0]))
    assert model(np.array([[np.inf, 1, -np.inf, np.nan]], F32)).tolist() == [[9, 1, 9, 9]]
    nodes[0] = NODE("Less", ["x", "nine"], ["a"])  # it replaces other values than those it is asked of
    model = Model.load(build(nodes, {"x": [None, 1]}, {"y": [None, 1]}, nine=[9.0]))
    refused("non_finite", lambda: model(np.array([[np.inf]], F32)))
    refused("non_finite", lambda: model(np.array([[np.nan]], F32)))


@pytest.mark.parametrize("read", [None, "a", "d", "e"])
def test_masks_before_a_softmax_that_is_spelled_out(read: str | None) -> None:
    nodes = [
        NODE("Add", ["x", "mask"], ["a"]),
        NODE("ReduceMax", ["a"], ["m"], axes=[-1]),
        NODE("Sub", ["a", "m"], ["d"]),
        NODE("Exp", ["d"], ["e"]),
        NODE("ReduceSum", ["e", "last"], ["s"]),
        NODE("Div", ["e", "s"], ["y"]),
    ]
    outputs = {"y": [None, 2]}
    if read:  # and then minus infinity is something else, too
        nodes.append(NODE("Neg", [read], ["z"]))
        outputs["z"] = [None, 2]
    model = Model.load(build(nodes, {"x": [None, 2], "mask": [None, 2]}, outputs, last=[-1]))
    x, mask = np.zeros((2, 2), F32), np.array([[0, -np.inf], [-np.inf, 0]], F32)
    if read:
        refused("non_finite", lambda: model(x, mask))
        return
    assert model(x, mask).tolist() == [[1, 0], [0, 1]]
    refused("non_finite", lambda: model(x, -mask))


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
