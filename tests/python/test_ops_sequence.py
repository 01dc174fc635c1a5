"""Sequences and optionals of tensors: in graphs, through branches and loops, as inputs and as outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import inferkit

FLOAT, INT64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
Array = np.ndarray
node = helper.make_node


def value(name: str, dtype: int = FLOAT, dims: Any = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def sequence(name: str, dtype: int = FLOAT, dims: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, dtype, dims)


def optional(name: str, dtype: int = FLOAT, of_sequence: bool = False) -> onnx.ValueInfoProto:
    inner = helper.make_tensor_type_proto(dtype, None)
    if of_sequence:
        inner = helper.make_sequence_type_proto(inner)
    return helper.make_value_info(name, helper.make_optional_type_proto(inner))


def constants(given: dict[str, Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(v), k) for k, v in given.items()]


def proto(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    given: dict[str, Any] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants(given or {}))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def load(*args: Any, **options: Any) -> inferkit.Model:
    return inferkit.Model.load(proto(*args, **options).SerializeToString(), input_checks=LENIENT)


def same(got: Any, want: Any) -> None:
    if want is None or got is None:
        assert got is want is None
    elif isinstance(want, list):
        assert isinstance(got, list)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w)
    else:
        want = np.asarray(want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(got, want)


def check(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """Against onnx's reference evaluator."""
    got = inferkit.Model.load(model.SerializeToString(), input_checks=LENIENT).run(feeds)
    names = [o.name for o in model.graph.output]
    for name, want in zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True):
        same(got[name], want)
    return got


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ROWS = [value("x", FLOAT, ["n", 3, 4])]


# ---- known when the plan is compiled --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2, -1, -3])
def test_at(at: int) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Neg", ["x"], ["m"]), node("SequenceConstruct", ["x", "r", "m"], ["s"]),
             node("SequenceAt", ["s", "i"], ["y"])]  # fmt: skip
    model = proto(nodes, ROWS, [value("y", FLOAT, None)], {"i": np.int64(at)})
    check(model, {"x": X})
    assert inferkit.Model.load(model.SerializeToString()).explain().complete


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("split", [None, 1, 2, 3, 7, "list"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_split_and_back(axis: int, split: Any, keepdims: int) -> None:
    given = {}
    if split == "list":
        n = X.shape[axis]
        given["k"] = np.array([n - 1, 0, 1], np.int64)
    elif split is not None:
        given["k"] = np.array(split, np.int64)
    into = node("SplitToSequence", ["x", *given], ["s"], axis=axis, keepdims=keepdims)
    squeezed = split is None and not keepdims
    back = node("ConcatFromSequence", ["s"], ["y"], axis=axis, new_axis=int(squeezed))
    length = node("SequenceLength", ["s"], ["n"])
    model = proto([into, back, length], [value("x", FLOAT, X.shape)],
                  [value("y", FLOAT, None), value("n", INT64, []), sequence("s")], given)  # fmt: skip
    got = inferkit.Model.load(model.SerializeToString()).run({"x": X})
    same(got["y"], X)
    sizes = [1] * X.shape[axis] if split is None else given["k"].tolist()
    if isinstance(sizes, int):
        n = X.shape[axis]
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    want = np.split(X, np.cumsum(sizes)[:-1], axis)
    same(got["s"], [np.squeeze(w, axis) for w in want] if squeezed else want)
    assert got["n"] == len(sizes)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_chain_is_what_it_is_on_a_list(data: Any) -> None:
    """Sequences of any operations against Python's lists, with positions that are constants or come with the run."""
    nodes, given, feeds, ports = [node("SequenceEmpty", [], ["s0"])], {}, {"x": X}, [value("x", FLOAT, X.shape)]
    want: list[Array] = []
    dynamic = data.draw(st.booleans())
    for step in range(data.draw(st.integers(1, 8))):
        s, t = f"s{step}", f"s{step + 1}"
        ops = ["insert", "append"] + (["erase", "pop"] if want else [])
        op = data.draw(st.sampled_from(ops))
        if op in ("insert", "erase"):
            n = len(want)
            at = data.draw(st.integers(-n, n if op == "insert" else n - 1))
            if dynamic and data.draw(st.booleans()):
                ports.append(value(f"p{step}", INT64, []))
                feeds[f"p{step}"] = np.array(at, np.int64)
            else:
                given[f"p{step}"] = np.array(at, np.int64)
        if op in ("insert", "append"):
            factor = float(step + 1)
            given[f"f{step}"] = np.float32(factor)
            nodes.append(node("Mul", ["x", f"f{step}"], [f"v{step}"]))
        if op == "insert":
            nodes.append(node("SequenceInsert", [s, f"v{step}", f"p{step}"], [t]))
            want.insert(at, X * np.float32(factor))
        elif op == "append":
            nodes.append(node("SequenceInsert", [s, f"v{step}"], [t]))
            want.append(X * np.float32(factor))
        elif op == "erase":
            nodes.append(node("SequenceErase", [s, f"p{step}"], [t]))
            del want[at]
        else:
            nodes.append(node("SequenceErase", [s], [t]))
            want.pop()
    last = nodes[-1].output[0]
    nodes.append(node("SequenceLength", [last], ["n"]))
    outputs = [sequence(last), value("n", INT64, [])]
    if want:
        nodes.append(node("ConcatFromSequence", [last], ["y"], axis=0, new_axis=1))
        outputs.append(value("y", FLOAT, None))
    model = load(nodes, ports, outputs, given)
    for _ in range(2):
        got = model.run(feeds)
        same(got[last], want)
        assert got["n"] == len(want)
        if want:
            same(got["y"], np.stack(want))


def test_elements_of_any_shape_and_type() -> None:
    for x in (np.zeros((0, 3), np.float32), np.array([True, False]), np.array(["a", "b\0c"], object),
              np.arange(3, dtype=np.int8)):  # fmt: skip
        kind = STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
        nodes = [node("Concat", ["x", "x"], ["xx"], axis=0), node("SequenceConstruct", ["x", "xx"], ["s"]),
                 node("SequenceAt", ["s", "i"], ["y"])]  # fmt: skip
        model = load(nodes, [value("x", kind, ["n", *x.shape[1:]])], [value("y", kind, None), sequence("s", kind)],
                     {"i": np.int32(-1)})  # fmt: skip
        got = model.run({"x": x})
        same(got["y"], np.concatenate([x, x]))
        same(got["s"], [x, np.concatenate([x, x])])


def test_map() -> None:
    body = helper.make_graph(
        [node("Add", ["a", "b"], ["c"]), node("Shape", ["a"], ["d"]), node("Mul", ["c", "outer"], ["e"])], "body",
        [value("a", FLOAT, None), value("b", FLOAT, None)], [value("e", FLOAT, None), value("d", INT64, None)],
    )  # fmt: skip
    nodes = [node("SplitToSequence", ["x"], ["s"], axis=1), node("Exp", ["outer"], ["unused"]),
             node("SequenceMap", ["s", "t"], ["y", "z"], body=body)]  # fmt: skip
    model = proto(nodes, [value("x", FLOAT, X.shape), value("t", FLOAT, [4])], [sequence("y"), sequence("z", INT64)],
                  {"outer": np.float32(2)})  # fmt: skip
    got = inferkit.Model.load(model.SerializeToString()).run({"x": X, "t": X[0, 0]})
    same(got["y"], [(X[:, i : i + 1] + X[0, 0]) * 2 for i in range(3)])
    same(got["z"], [np.array([2, 1, 4])] * 3)
    both = [node("SplitToSequence", ["x"], ["s"], axis=1), node("SequenceMap", ["s", "s"], ["y"], body=body)]
    got = load(both, [value("x", FLOAT, X.shape)], [sequence("y")], {"outer": np.float32(2)}).run({"x": X})
    same(got["y"], [X[:, i : i + 1] * 4 for i in range(3)])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_map_to_a_type_that_its_body_does_not_declare(count: int) -> None:
    """What follows has the type that the body computes, also where no tensor shows it."""
    ports = [onnx.ValueInfoProto(name=name) for name in ("a", "b")]
    body = helper.make_graph([node("Cast", ["a"], ["b"], to=INT64)], "body", ports[:1], ports[1:])
    nodes = [node("SequenceMap", ["s"], ["t"], body=body), node("SequenceInsert", ["t", "z"], ["y"])]
    z = np.array([7, 8])
    model = load(nodes, [sequence("s")], [sequence("y", INT64)], {"z": z})
    given = [np.full(2, 1.5 + i, np.float32) for i in range(count)]
    same(model.run({"s": given})["y"], [*(x.astype(np.int64) for x in given), z])
    # The same in a loop, which holds what it carries.
    turn = helper.make_graph(
        [node("SequenceInsert", ["carried", "z"], ["more"]), node("Identity", ["go_on"], ["goes_on"])], "turn",
        [value("i", INT64), value("go_on", BOOL), sequence("carried", INT64)],
        [value("goes_on", BOOL), sequence("more", INT64)],
    )  # fmt: skip
    nodes[1] = node("Loop", ["turns", "", "t"], ["y"], body=turn)
    model = load(nodes, [sequence("s"), value("turns", INT64)], [sequence("y", INT64)], {"z": z})
    got = model.run({"s": given, "turns": np.array(2)})["y"]
    same(got, [*(x.astype(np.int64) for x in given), z, z])


# ---- through branches and loops -------------------------------------------------------------------------------------


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [sequence(nodes[-1].output[0])])


@pytest.mark.parametrize("constant", [True, False])
def test_if(constant: bool) -> None:
    one = branch("one", node("SequenceConstruct", ["x"], ["a"]))
    two = branch("two", node("Neg", ["x"], ["m"]), node("SequenceInsert", ["outer", "m"], ["b"]))
    nodes = [node("SequenceConstruct", ["x", "x"], ["outer"]), node("If", ["c"], ["s"], then_branch=one,
                                                                   else_branch=two),
             node("SequenceLength", ["s"], ["n"]), node("ConcatFromSequence", ["s"], ["y"], axis=0)]  # fmt: skip
    for c in (True, False):
        given = {"c": np.array(c)} if constant else {}
        ports = ROWS if constant else [*ROWS, value("c", BOOL)]
        model = load(nodes, ports, [value("y", FLOAT, None), value("n", INT64, []), sequence("s")], given)
        feeds = {"x": X} if constant else {"x": X, "c": np.array(c)}
        got = model.run(feeds)
        want = [X] if c else [X, X, -X]
        same(got["s"], want)
        same(got["y"], np.concatenate(want))
        assert got["n"] == len(want)


def decoder(stop: float) -> onnx.ModelProto:
    """As torch scripts a loop that appends until a value says stop."""
    body = helper.make_graph(
        [
            node("Add", ["h", "one"], ["h2"]),
            node("SequenceInsert", ["list", "h2"], ["list2"]),
            node("ReduceMax", ["h2"], ["top"], keepdims=0),
            node("Less", ["top", "stop"], ["on"]),
        ],
        "body",
        [value("i", INT64), value("go", BOOL), sequence("list"), value("h", FLOAT, None)],
        [value("on", BOOL), sequence("list2"), value("h2", FLOAT, None)],
    )
    nodes = [
        node("SequenceEmpty", [], ["empty"]),
        node("Loop", ["", "yes", "empty", "x"], ["list_", "last"], body=body),
        node("SequenceLength", ["list_"], ["n"]),
        node("ConcatFromSequence", ["list_"], ["y"], axis=0, new_axis=1),
        node("SequenceAt", ["list_", "back"], ["second"]),
    ]
    given = {"yes": np.array(True), "one": np.float32(1), "stop": np.float32(stop), "back": np.int64(-1)}
    return proto(nodes, [value("x", FLOAT, ["n", 2])],
                 [value("y", FLOAT, None), value("n", INT64, []), sequence("list_"), value("second", FLOAT, None)],
                 given)  # fmt: skip


def test_a_loop_that_appends() -> None:
    model = inferkit.Model.load(decoder(20).SerializeToString())
    for start in (0, 5, 12, 3):
        x = np.full((3, 2), start, np.float32)
        got = model.run({"x": x})
        want = [x + i for i in range(1, 21 - start)]
        same(got["list_"], want)
        same(got["y"], np.stack(want))
        same(got["second"], want[-1])
        assert got["n"] == len(want)


def test_appending_costs_no_plan_for_each_length() -> None:
    model = inferkit.Model.load(decoder(300).SerializeToString())
    model.run({"x": np.zeros((3, 2), np.float32)})
    before = model.memory().plans
    model.run({"x": np.zeros((3, 2), np.float32)})
    assert model.memory().plans == before < 10


def test_a_loop_that_looks_into_a_sequence() -> None:
    """Reads by the iteration, and joins what it has so far."""
    body = helper.make_graph(
        [
            node("SequenceAt", ["parts", "i"], ["part"]),
            node("SequenceInsert", ["list", "part", "zero"], ["list2"]),
            node("ConcatFromSequence", ["list2"], ["joined"], axis=0),
            node("ReduceSum", ["joined"], ["sum"], keepdims=0),
            node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("i", INT64), value("go", BOOL), sequence("list")],
        [value("on", BOOL), sequence("list2"), value("sum", FLOAT, [])],
    )
    nodes = [
        node("SplitToSequence", ["x", "size"], ["parts"], axis=0),
        node("SequenceLength", ["parts"], ["n"]),
        node("SequenceEmpty", [], ["empty"]),
        node("Loop", ["n", "", "empty"], ["reversed", "sums"], body=body),
    ]
    model = load(nodes, [value("x", FLOAT, ["n", 3, 4])], [sequence("reversed"), value("sums", FLOAT, ["m"])],
                 {"size": np.int64(2), "zero": np.int64(0)})  # fmt: skip
    for rows in (2, 5, 1, 8):
        x = np.arange(rows * 12, dtype=np.float32).reshape(rows, 3, 4)
        got = model.run({"x": x})
        parts = [x[i : i + 2] for i in range(0, rows, 2)]
        same(got["reversed"], parts[::-1])
        np.testing.assert_allclose(got["sums"], np.cumsum([p.sum() for p in parts]))


def test_a_loop_that_makes_no_iteration_gives_what_it_got() -> None:
    body = helper.make_graph(
        [node("SequenceInsert", ["list", "x"], ["list2"]), node("Identity", ["go"], ["on"])], "body",
        [value("i", INT64), value("go", BOOL), sequence("list")], [value("on", BOOL), sequence("list2")],
    )  # fmt: skip
    nodes = [node("SequenceConstruct", ["x"], ["start"]), node("Loop", ["m", "", "start"], ["s"], body=body)]
    model = load(nodes, [*ROWS, value("m", INT64)], [sequence("s")])
    for m in (0, 1, 3):
        same(model.run({"x": X, "m": np.array(m, np.int64)})["s"], [X] * (m + 1))


def test_elements_whose_shape_only_a_run_tells() -> None:
    nodes = [node("NonZero", ["x"], ["where"]), node("SequenceConstruct", ["where", "where"], ["s"]),
             node("SequenceAt", ["s", "i"], ["y"]), node("SequenceLength", ["s"], ["n"])]  # fmt: skip
    model = load(nodes, ROWS, [value("y", INT64, None), value("n", INT64, []), sequence("s", INT64)],
                 {"i": np.int64(1)})  # fmt: skip
    for x in (X, X * 0, X - 5):
        got = model.run({"x": x})
        want = np.array(np.nonzero(x))
        same(got["y"], want)
        same(got["s"], [want, want])
        assert got["n"] == 2


def test_the_same_bits_in_a_batch() -> None:
    """Sequences that the compiler resolves are no matter of the batcher's."""
    nodes = [node("SplitToSequence", ["x"], ["s"], axis=2), node("SequenceAt", ["s", "i"], ["a"]),
             node("ConcatFromSequence", ["s"], ["b"], axis=2), node("Add", ["a", "b"], ["y"])]  # fmt: skip
    model = load(nodes, ROWS, [value("y", FLOAT, ["n", 3, 4])], {"i": np.int64(2)})
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.05) as batcher:
        xs = [X[:1] * i for i in range(8)]
        tickets = [batcher.submit(x) for x in xs]
        for x, ticket in zip(xs, tickets, strict=True):
            same(ticket.result(), x[:, :, 2:3] + x)
        assert batcher.stats().batches < 8


@pytest.mark.parametrize("split", [None, 2, 16])
def test_rows_that_become_tensors_are_kept_apart(split: int | None) -> None:
    """The first tensor is added to all: what the first row of a batch says to the others."""
    given = {"i": np.int64(0)} | ({} if split is None else {"k": np.int64(split)})
    nodes = [node("SplitToSequence", ["x", *(["k"] if split else [])], ["s"], axis=0),
             node("SequenceAt", ["s", "i"], ["a"]), node("ReduceSum", ["a"], ["b"], keepdims=0),
             node("Add", ["x", "b"], ["y"])]  # fmt: skip
    model = load(nodes, ROWS, [value("y", FLOAT, ["n", 3, 4])], given)
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.02) as batcher:
        xs = [X[:1] * i for i in range(6)]
        tickets = [batcher.submit(x) for x in xs]
        for x, ticket in zip(xs, tickets, strict=True):
            same(ticket.result(), model(x))


# ---- as inputs and outputs ------------------------------------------------------------------------------------------


def test_ports() -> None:
    nodes = [node("SequenceInsert", ["s", "x"], ["t"]), node("SequenceLength", ["s"], ["n"]),
             node("SequenceAt", ["s", "i"], ["first"])]  # fmt: skip
    model = load(nodes, [sequence("s", FLOAT, ["a", 4]), *ROWS], [sequence("t"), value("n", INT64, []),
                 value("first", FLOAT, None)], {"i": np.int64(0)})  # fmt: skip
    spec = model.inputs[0]
    assert (spec.name, spec.dtype, spec.shape, spec.sequence, spec.optional) == ("s", "float32", (None, 4), True, False)
    assert model.outputs[0].sequence
    assert "sequence=True" in repr(spec)
    assert "sequence" not in repr(model.inputs[1])
    for items in ([X[0]], [X[0], X[1], X[0, :1]], (X[1],)):
        got = model.run({"s": items, "x": X})
        same(got["t"], [*items, X])
        same(got["first"], items[0])
        assert got["n"] == len(items)
    t, n, _ = model([X[0]], X)
    same(t, [X[0], X])
    assert n == 1


def test_inputs_are_copied_before_they_can_change() -> None:
    model = load([node("Identity", ["s"], ["t"])], [sequence("s")], [sequence("t")])
    a = np.ones(3, np.float32)
    got = model.run({"s": [a, a[::-1], a[:0]]})
    a[:] = 2
    same(got["t"], [np.ones(3, np.float32)] * 2 + [np.zeros(0, np.float32)])
    same(model.run({"s": []})["t"], [])
    got["t"].append(1)  # the caller's own
    same(model.run({"s": []})["t"], [])


@pytest.mark.parametrize("of_sequence", [False, True])
def test_optionals(of_sequence: bool) -> None:
    nodes = [node("OptionalHasElement", ["o"], ["has"]), node("Identity", ["o"], ["same"])]
    model = load(
        nodes, [optional("o", FLOAT, of_sequence)], [value("has", BOOL, []), optional("same", FLOAT, of_sequence)]
    )
    assert model.inputs[0].optional
    assert model.inputs[0].sequence == of_sequence
    for what in (None, [X[0], X] if of_sequence else X):
        got = model.run({"o": what})
        assert got["has"].shape == ()
        assert got["has"] == (what is not None)
        same(got["same"], what)


def test_an_optional_is_opened() -> None:
    then = helper.make_graph([node("OptionalGetElement", ["o"], ["e"])], "then", [], [value("e", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["x"], ["m"])], "else", [], [value("m", FLOAT, None)])
    nodes = [node("OptionalHasElement", ["o"], ["has"]),
             node("If", ["has"], ["y"], then_branch=then, else_branch=other)]  # fmt: skip
    model = load(nodes, [optional("o"), *ROWS], [value("y", FLOAT, None)])
    same(model.run({"o": None, "x": X})["y"], -X)
    same(model.run({"o": X[0], "x": X})["y"], X[0])
    alone = load([node("OptionalGetElement", ["o"], ["y"])], [optional("o")], [value("y", FLOAT, ["n"])])
    same(alone.run({"o": X[0, 0]})["y"], X[0, 0])
    with pytest.raises(inferkit.InferkitError, match="the optional is empty"):
        alone.run({"o": None})


RANKS = [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 4)]


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_tensors_whose_shape_the_file_does_not_declare(rank: int) -> None:
    """The file declares neither what is in the sequence nor what comes out."""
    x = np.arange(np.prod(RANKS[rank]), dtype=np.float32).reshape(RANKS[rank])
    joined = load([node("ConcatFromSequence", ["s"], ["y"], axis=rank - 1)], [sequence("s")], [value("y", FLOAT, None)])
    same(joined.run({"s": [x, -x]})["y"], np.concatenate([x, -x], rank - 1))
    turned = load(
        [node("SequenceAt", ["s", "i"], ["a"]), node("Transpose", ["a"], ["y"], perm=list(range(rank))[::-1])],
        [sequence("s")], [value("y", FLOAT, None)], {"i": np.int64(1)},
    )  # fmt: skip
    same(turned.run({"s": [x, -x]})["y"], -x.T)
    opened = load(
        [node("OptionalGetElement", ["o"], ["a"]), node("Transpose", ["a"], ["y"], perm=list(range(rank))[::-1])],
        [optional("o")], [value("y", FLOAT, None)],
    )  # fmt: skip
    same(opened.run({"o": x})["y"], x.T)


def test_a_product_with_weights_of_tensors_that_are_not_declared() -> None:
    w = np.arange(24, dtype=np.float32).reshape(6, 4)
    nodes = [node("SequenceAt", ["s", "i"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    model = load(nodes, [optional("s", FLOAT, True)], [value("y", FLOAT, ["n", 4])], {"i": np.int64(0), "w": w})
    x = np.ones((3, 6), np.float32)
    same(model.run({"s": [x]})["y"], x @ w)
    assert model.outputs[0].shape == (None, 4)
    model = load([node("MatMul", ["a", "w"], ["y"])], [optional("a")], [value("y", FLOAT, None)], {"w": w})
    same(model.run({"a": x})["y"], x @ w)


def test_a_trial_that_cannot_succeed_says_what_is_not_declared() -> None:
    reshape = [node("SequenceAt", ["s", "i"], ["a"]), node("Reshape", ["a", "shape"], ["y"])]
    given = {"i": np.int64(0), "shape": np.array([7, 11, 13], np.int64)}
    message = r"output 'y' declares no type and shape.*or the shapes of the tensors in input 's': none is declared"
    with pytest.raises(inferkit.UnsupportedOpError, match=message):
        load(reshape, [sequence("s")], [value("y", FLOAT, None)], given)
    model = load(reshape, [sequence("s", FLOAT, [1001])], [value("y", FLOAT, None)], given)
    x = np.arange(1001, dtype=np.float32)
    same(model.run({"s": [x]})["y"], x.reshape(7, 11, 13))


def test_what_is_wrong_whatever_the_shape_shows_at_load() -> None:
    w = np.ones((4, 4))
    with pytest.raises(inferkit.InferkitError, match="float64"):
        load([node("MatMul", ["o", "w"], ["y"])], [optional("o")], [value("y", FLOAT, ["a", "b"])], {"w": w})
    with pytest.raises(inferkit.InferkitError, match="has no axis"):
        load([node("ConcatFromSequence", ["s"], ["y"])], [sequence("s")], [value("y", FLOAT, ["a", "b"])])


# ---- what is wrong --------------------------------------------------------------------------------------------------


def test_wrong_arguments() -> None:
    model = load([node("SequenceLength", ["s"], ["n"])], [sequence("s")], [value("n", INT64, [])])
    for bad, message in [
        (X, "is a sequence: expected a list of arrays"),
        (None, "is a sequence: expected a list of arrays; got NoneType"),
        ([X, X.astype(np.float64)], r"input 's\[1\]' has dtype float64; expected float32: convert it"),
        ([X, object()], r"s\[1\]"),
        ([X, [X, X, [1]]], r"s\[1\]"),
        ("abc", "is a sequence"),
    ]:
        with pytest.raises(inferkit.ValidationError, match=message):
            model.run({"s": bad})
    with pytest.raises(inferkit.ValidationError):
        inferkit.Model.load(proto([node("Identity", ["s"], ["t"])], [sequence("s")], [sequence("t")])
                            .SerializeToString()).run({"s": [np.array([np.nan], np.float32)]})  # fmt: skip
    with pytest.raises(ValueError, match="sequence"):
        model.run({"s": [X]}, out={"n": np.zeros((), np.int64)})


def test_batchers_do_not_take_them() -> None:
    takes = load([node("SequenceAt", ["s", "i"], ["y"])], [sequence("s"), *ROWS], [value("y", FLOAT, None)],
                 {"i": np.int64(0)})  # fmt: skip
    gives = load([node("SequenceConstruct", ["x"], ["s"])], ROWS, [sequence("s")])
    undeclared = load([node("SequenceAt", ["s", "i"], ["y"])],
                      [helper.make_tensor_sequence_value_info("s", FLOAT, None)], [value("y", FLOAT, None)],
                      {"i": np.int64(0)})  # fmt: skip
    for model in (takes, gives, undeclared):
        with pytest.raises(ValueError, match="is a sequence or an optional, whose rows a Batcher cannot tell"):
            inferkit.Batcher(model)
    assert [part.operator for part in takes.explain().waiting] == ["SequenceAt"]
    with pytest.raises(ValueError, match="sequence"):
        takes.warm_up()


DIMS = {"SequenceLength": [], "ConcatFromSequence": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("SequenceAt", ["s", "three"], {}, "position 3 is out of range for a sequence of 2 tensors"),
        ("SequenceAt", ["s", "least"], {}, "position -9223372036854775808 is out of range"),
        ("SequenceAt", ["s", ""], {}, "input 1 is missing"),
        ("SequenceAt", ["s", "list"], {}, "the position must be one number, not 2"),
        ("SequenceAt", ["s", "real"], {}, "must be int64 or int32"),
        ("SequenceAt", ["x", "three"], {}, "input 0 must be a sequence, not a tensor"),
        ("SequenceErase", ["s", "three"], {}, "position 3 is out of range"),
        ("SequenceErase", ["empty"], {}, "position -1 is out of range for a sequence of 0 tensors"),
        ("SequenceInsert", ["s", "x", "three"], {}, "position 3 is out of range"),
        ("SequenceInsert", ["s", "three"], {}, "a tensor of int64 for a sequence of float32"),
        ("SequenceInsert", ["s", "s"], {}, "input 1 must be a tensor, not a sequence"),
        ("SequenceConstruct", ["x", "three"], {}, "a tensor of int64 for a sequence of float32"),
        ("SequenceConstruct", ["x", "s"], {}, "input 1 must be a tensor, not a sequence"),
        ("SequenceLength", ["x"], {}, "must be a sequence"),
        ("SplitToSequence", ["x", "zero"], {}, "pieces of length 0"),
        ("SplitToSequence", ["x", "list"], {}, "do not add up to the dimension, which is 2"),
        ("SplitToSequence", ["x"], {"axis": 3}, "axis 3 is out of range"),
        ("SplitToSequence", ["s"], {}, "must be a tensor"),
        ("ConcatFromSequence", ["s"], {}, "has no axis"),
        ("ConcatFromSequence", ["s"], {"axis": 0, "new_axis": 2}, "new_axis is 2"),
        ("ConcatFromSequence", ["s"], {"axis": 5}, "axis 5 is out of range"),
        ("ConcatFromSequence", ["empty"], {"axis": 0}, "the sequence is empty"),
        ("SequenceEmpty", [], {"dtype": 99}, "dtype"),
        ("Relu", ["s"], {}, "input 0 must be a tensor, not a sequence"),
        ("Concat", ["x", "s"], {"axis": 0}, "input 1 must be a tensor, not a sequence"),
        ("NonZero", ["s"], {}, "input 0 must be a tensor, not a sequence"),
        ("OptionalGetElement", ["none"], {}, "the optional is empty"),
        ("SequenceLength", ["none"], {}, "the optional is empty"),
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_wrong_graphs(op: str, inputs: list[str], attributes: dict[str, Any], message: str, held: bool) -> None:
    """The same where the compiler knows the sequence, and where only the run has it."""
    given = {"three": np.int64(3), "least": np.int64(-(2**63)), "zero": np.int64(0), "list": np.array([1, 2]),
             "real": np.float32(0)}  # fmt: skip
    makers = {"s": node("SequenceConstruct", ["x", "x"], ["s"]), "empty": node("SequenceEmpty", [], ["empty"]),
              "none": node("Optional", [], ["none"])}  # fmt: skip
    nodes = [maker for name, maker in makers.items() if name in inputs]
    ports, feeds = [value("x", FLOAT, X.shape)], {"x": X}
    if held:
        nodes = []
        for name, what in (("s", [X, X]), ("empty", []), ("none", None)):
            if name in inputs:
                ports.append(optional(name, FLOAT, True) if what is None else sequence(name))
                feeds[name] = what
    nodes.append(node(op, inputs, ["y"], **attributes))
    is_list = op in ("SequenceErase", "SequenceInsert", "SequenceConstruct", "SplitToSequence", "SequenceEmpty")
    kind = INT64 if op in ("SequenceLength", "NonZero") else FLOAT
    is_list |= held and op == "OptionalGetElement"
    outputs = [sequence("y") if is_list else value("y", kind, DIMS.get(op))]
    used = {k: v for k, v in given.items() if k in inputs}
    with pytest.raises(inferkit.InferkitError, match=message):
        load(nodes, ports, outputs, used).run(feeds)


@pytest.mark.parametrize("role", ["trips", "condition", "stacked", "body condition", "scanned"])
def test_sequences_where_a_loop_takes_tensors(role: str) -> None:
    body_outputs = [value("on", BOOL), value("v", FLOAT, None)]
    inner = [node("Identity", ["go"], ["on"]), node("Identity", ["x"], ["v"])]
    if role == "stacked":
        inner[1] = node("SequenceConstruct", ["x"], ["v"])
    if role == "body condition":
        inner[0] = node("SequenceConstruct", ["go"], ["on"])
    if role == "scanned":
        body = helper.make_graph([node("Identity", ["a"], ["b"])], "body", [value("a", FLOAT, None)],
                                 [value("b", FLOAT, None)])  # fmt: skip
        loop = node("Scan", ["s"], ["y"], body=body, num_scan_inputs=1)
    else:
        body = helper.make_graph(inner, "body", [value("i", INT64), value("go", BOOL)], body_outputs)
        loop = node("Loop", ["s" if role == "trips" else "m", "t" if role == "condition" else ""], ["y"], body=body)
    given = {"m": np.int64(2), "i64": np.int64(2), "yes": np.array(True)}
    nodes = [node("SequenceConstruct", ["x" if role == "scanned" else "i64"], ["s"]),
             node("SequenceConstruct", ["yes"], ["t"]), loop]  # fmt: skip
    with pytest.raises(inferkit.InferkitError, match=r"sequence|must be one|int64"):
        load(nodes, ROWS, [value("y", FLOAT, None)], given).run({"x": X})


def test_outputs_that_are_not_declared_as_sequences() -> None:
    message = "declares output 'y' as a tensor of float32, and the graph gives a sequence of float32: correct"
    with pytest.raises(inferkit.ModelError, match=message):
        load([node("SequenceConstruct", ["x"], ["y"])], ROWS, [value("y", FLOAT, None)])


@pytest.mark.parametrize(
    ("nodes", "declared", "message"),
    [
        ([node("SequenceConstruct", ["x"], ["y"])], sequence("y", INT64),
         "as a sequence of int64, and the graph gives a sequence of float32"),
        ([node("SequenceConstruct", ["x"], ["y"])], optional("y"),
         "as an optional of a tensor of float32, and the graph gives a sequence of float32"),
        ([node("SequenceConstruct", ["x"], ["y"])], optional("y", INT64, True),
         "as an optional of a sequence of int64, and the graph gives a sequence of float32"),
        ([node("Relu", ["x"], ["y"])], sequence("y"),
         "as a sequence of float32, and the graph gives a tensor of float32"),
        ([node("Optional", ["x"], ["y"])], optional("y", INT64),
         "as an optional of a tensor of int64, and the graph gives a tensor of float32"),
        ([node("Optional", [], ["y"])], sequence("y"),
         "as a sequence of float32, and the graph gives an optional with nothing in it"),
    ],
)  # fmt: skip
def test_outputs_are_what_is_declared(nodes: Any, declared: Any, message: str) -> None:
    with pytest.raises(inferkit.ModelError, match=f"declares output 'y' {message}: correct the declaration"):
        load(nodes, ROWS, [declared]).run({"x": X})


def test_what_only_a_run_shows_of_an_output_is_held_to_the_declaration() -> None:
    """On the zeros and ones of a trial it is an empty sequence, which is of any type."""
    full = branch("full", node("Cast", ["x"], ["i"], to=INT64), node("SequenceConstruct", ["i"], ["a"]))
    empty = branch("empty", node("SequenceEmpty", [], ["b"], dtype=FLOAT))
    nodes = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "two"], ["c"]),
             node("If", ["c"], ["y"], then_branch=full, else_branch=empty)]  # fmt: skip
    model = load(nodes, ROWS, [sequence("y")], {"two": np.float32(2)})
    same(model.run({"x": X[:1] * 0})["y"], [])
    with pytest.raises(inferkit.ModelError, match="as a sequence of float32, and the graph gives a sequence of int64"):
        model.run({"x": X})
    right = load(nodes, ROWS, [sequence("y", INT64)], {"two": np.float32(2)})
    same(right.run({"x": X})["y"], [X.astype(np.int64)])


def test_too_many_tensors() -> None:
    with pytest.raises(inferkit.InferkitError, match=r"a sequence of .* tensors"):
        load([node("SplitToSequence", ["x"], ["s"]), node("SequenceLength", ["s"], ["n"])],
             [value("x", FLOAT, [2**20])], [value("n", INT64, [])])  # fmt: skip
    body = helper.make_graph(
        [node("SequenceInsert", ["list", "go"], ["list2"]), node("Identity", ["go"], ["on"])], "body",
        [value("i", INT64), value("go", BOOL), sequence("list", BOOL)], [value("on", BOOL), sequence("list2", BOOL)],
    )  # fmt: skip
    nodes = [node("SequenceEmpty", [], ["empty"], dtype=BOOL), node("Loop", ["m", "", "empty"], ["s"], body=body),
             node("SequenceLength", ["s"], ["n"])]  # fmt: skip
    model = load(nodes, [value("m", INT64)], [value("n", INT64, [])])
    assert model(np.array(3, np.int64)) == 3


def test_draws_within_a_map_are_refused() -> None:
    body = helper.make_graph([node("RandomNormalLike", ["a"], ["b"])], "body", [value("a", FLOAT, None)],
                             [value("b", FLOAT, None)])  # fmt: skip
    nodes = [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceMap", ["s"], ["t"], body=body)]
    with pytest.raises(inferkit.UnsupportedOpError, match="random draws in the body"):
        load(nodes, ROWS, [sequence("t")])


def test_a_chain_of_inserts_that_would_fill_memory_is_refused() -> None:
    """After each of them the list is there once more: 60,000 inserts, a file of 2 MB, would take 7 GB."""
    count = 5000
    nodes = [node("SequenceEmpty", [], ["s0"], dtype=FLOAT)]
    nodes += [node("SequenceInsert", [f"s{i}", "x"], [f"s{i + 1}"]) for i in range(count)]
    nodes.append(node("SequenceLength", [f"s{count}"], ["y"]))
    with pytest.raises(inferkit.ModelError, match="hold more than 4194304 tensors in all; a loop"):
        load(nodes, [value("x", dims=[2])], [value("y", INT64)])


def test_many_nodes_on_sequences_are_spelled_out_one_by_one() -> None:
    """Each once moved all that follow it: this took a minute."""
    count = 20_000
    nodes = []
    for i in range(count):
        nodes.append(node("SequenceConstruct", [f"x{i}", "x0"], [f"s{i}"]))
        nodes.append(node("SequenceAt", [f"s{i}", "first"], [f"x{i + 1}"]))
    model = load(nodes, [value("x0", dims=[2])], [value(f"x{count}", dims=[2])], {"first": np.int64(0)})
    x = np.array([1, 2], np.float32)
    np.testing.assert_array_equal(model(x), x)
