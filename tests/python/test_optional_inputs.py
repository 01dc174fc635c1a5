"""Inputs that are initializers too: a default, which a call may replace."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

X = np.arange(10, dtype=np.float32).reshape(2, 5)


def scaled(ir_version: int = 8, length: object = 1) -> bytes:
    """y = a * k + b, with k = 3 and b = 1 as defaults."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["a", "k"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("k", TensorProto.FLOAT, [length]),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.float32([3]), "k"), numpy_helper.from_array(np.float32(1), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir_version)
    return model.SerializeToString()


def test_what_is_not_given_has_its_default() -> None:
    model = inferkit.Model.load(scaled())
    assert [spec.name for spec in model.inputs] == ["a"]
    assert [(spec.name, spec.shape) for spec in model.optional_inputs] == [("k", (1,)), ("b", ())]
    k, b = np.float32([5]), np.float32(-1)
    for _ in range(2):
        np.testing.assert_array_equal(model(X), 3 * X + 1)
        np.testing.assert_array_equal(model.run({"a": X})["y"], 3 * X + 1)
        np.testing.assert_array_equal(model.run({"a": X, "k": k})["y"], 5 * X + 1)
        np.testing.assert_array_equal(model.run({"b": b, "a": X})["y"], 3 * X - 1)
        np.testing.assert_array_equal(model.run({"b": b, "a": X, "k": k})["y"], 5 * X - 1)
    out = np.empty_like(X)
    assert model.run({"a": X, "k": k}, out={"y": out})["y"] is out
    np.testing.assert_array_equal(out, 5 * X + 1)
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_array_equal(batcher(X), 3 * X + 1)
        with pytest.raises(inferkit.ValidationError, match="no input 'k'"):
            batcher({"a": X, "k": k})


def test_what_a_branch_reads() -> None:
    """The models that a default makes do not share the subgraphs that they are made with."""

    def branch(name: str, op: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["a", "k"], [name])], name, [], [output])

    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("sum", "Add"), else_branch=branch("product", "Mul"))],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("k", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.float32([3]), "k")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(data)
    k = np.float32([5])
    for _ in range(2):
        for c, of in ((np.array(True), np.add), (np.array(False), np.multiply)):
            np.testing.assert_array_equal(model.run({"a": X, "c": c})["y"], of(X, 3))
            np.testing.assert_array_equal(model.run({"a": X, "c": c, "k": k})["y"], of(X, 5))


def test_what_is_given_is_checked() -> None:
    model = inferkit.Model.load(scaled())
    for feeds, message in (
        ({"a": X, "k": np.float64([5])}, "'k' has dtype float64"),
        ({"a": X, "k": np.float32([5, 6])}, "'k' has shape"),
        ({"a": X, "k": np.float32([np.nan])}, "'k' holds NaN"),
        ({"k": np.float32([5])}, "'a' is missing"),
        ({"a": X, "c": X}, "no input 'c'"),
        ({"a": X, "k": np.float32([5]), "c": X}, "no input 'c'"),
    ):
        with pytest.raises(inferkit.ValidationError, match=message):
            model.run(feeds)
    np.testing.assert_array_equal(model(X), 3 * X + 1)


def test_the_declared_shape_counts() -> None:
    model = inferkit.Model.load(scaled(length="m"))
    k = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(model(X), 3 * X + 1)
    np.testing.assert_array_equal(model.run({"a": X, "k": k})["y"], k * X + 1)


def test_a_default_that_nothing_reads() -> None:
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])]
    unused = helper.make_tensor_value_info("truncation", TensorProto.FLOAT, [])
    graph = helper.make_graph([], "g", [*ports, unused], ports, [numpy_helper.from_array(np.float32(1), "truncation")])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7).SerializeToString()
    model = inferkit.Model.load(data)
    np.testing.assert_array_equal(model.run({"x": X})["x"], X)
    np.testing.assert_array_equal(model.run({"x": X, "truncation": np.float32(2)})["x"], X)


def test_a_default_that_decides_a_shape() -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["a", "s"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 6]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.int64([3, 4]), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    loaded = inferkit.Model.load(model.SerializeToString())
    a = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_array_equal(loaded.run({"a": a})["y"], a.reshape(3, 4))
    np.testing.assert_array_equal(loaded.run({"a": a, "s": np.int64([4, 3])})["y"], a.reshape(4, 3))


def test_in_ir_version_3_initializers_are_constants() -> None:
    model = inferkit.Model.load(scaled(ir_version=3))
    assert model.optional_inputs == ()
    np.testing.assert_array_equal(model.run({"a": X})["y"], 3 * X + 1)
    with pytest.raises(inferkit.ValidationError, match="no input 'k'"):
        model.run({"a": X, "k": np.float32([5])})


def test_many_sets_from_many_threads_and_a_fork() -> None:
    names = [f"k{i}" for i in range(6)]
    nodes = [helper.make_node("Add", ["a" if i == 0 else f"p{i - 1}", name], [f"p{i}"]) for i, name in enumerate(names)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", *names)],
        [helper.make_tensor_value_info("p5", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.float32([0]), name) for name in names],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model = inferkit.Model.load(data.SerializeToString())
    one = np.float32([1])
    np.random.default_rng()  # imports numpy.random, which no thread may be doing while this one forks
    wrong: list[tuple[int, float]] = []

    def ask(seed: int) -> None:
        for mask in np.random.default_rng(seed).permutation(64):
            given = {name: one for i, name in enumerate(names) if mask >> i & 1}
            got = model.run({"a": one, **given})["p5"]
            if got != 1 + len(given):
                wrong.append((int(mask), float(got[0])))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        ask(9)
        os._exit(len(wrong))
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert not wrong


# ---- In batchers ----------------------------------------------------------------------------------------------------


def test_a_batcher_names_what_to_do() -> None:
    model = inferkit.Model.load(scaled())
    with inferkit.Batcher(model) as batcher, pytest.raises(inferkit.ValidationError, match="no input 'k'") as caught:
        batcher({"a": X, "k": np.float32([5])})
    assert "'k' has a default" in str(caught.value)
    assert "model.with_inputs('k')" in str(caught.value)


def test_a_model_with_inputs_of_its_own() -> None:
    model = inferkit.Model.load(scaled())
    both = model.with_inputs("b", "k")
    assert [spec.name for spec in both.inputs] == ["a", "k", "b"]  # in the file's order
    assert both.optional_inputs == ()
    assert [spec.name for spec in model.inputs] == ["a"]
    one = model.with_inputs("k")
    assert [spec.name for spec in one.optional_inputs] == ["b"]
    k, b = np.float32([5]), np.float32(-1)
    for made in (both, one, one.with_inputs("b"), pickle.loads(pickle.dumps(both)), copy.copy(one)):
        np.testing.assert_array_equal(made(X), 3 * X + 1)
        np.testing.assert_array_equal(made(X[0]), 3 * X[0] + 1)
        np.testing.assert_array_equal(made(X, k), 5 * X + 1)
        np.testing.assert_array_equal(made(X[0], k), 5 * X[0] + 1)
        np.testing.assert_array_equal(made.run({"a": X})["y"], 3 * X + 1)
        np.testing.assert_array_equal(made.run({"k": k, "a": X})["y"], 5 * X + 1)
        np.testing.assert_array_equal(made.run({"b": b, "a": X})["y"], 3 * X - 1)
        np.testing.assert_array_equal(made.run({"b": b, "a": X, "k": k})["y"], 5 * X - 1)
    assert model.with_inputs() is model
    with pytest.raises(ValueError, match="no optional input 'c'; it has 'k', 'b'"):
        model.with_inputs("c")
    with pytest.raises(inferkit.ValidationError, match="got 0"):
        one()
    with pytest.raises(inferkit.ValidationError, match="no input 'c'"):
        one.run({"a": X, "c": k})
    with pytest.raises(ValueError, match="no optional input"):
        inferkit.Model.from_callable(len, inputs=[("x", "float32", (1,))], outputs=[]).with_inputs("k")


@pytest.mark.parametrize("options", [{}, {"caller_runs": False}, {"max_delay": 0.02}, {"coalesce": True}], ids=str)
def test_requests_that_give_it_and_those_that_do_not(options: dict[str, Any]) -> None:
    model = inferkit.Model.load(scaled()).with_inputs("k", "b")
    asked: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for i in range(60):
        given = {}
        if i % 3:
            given["k"] = np.float32([i % 5])
        if i % 4 == 1:
            given["b"] = np.float32(i % 2)
        asked.append((np.full((1 + i % 3, 5), i, np.float32), given))
    with inferkit.Batcher(model, max_batch_size=16, **options) as batcher:
        tickets = [batcher.submit({"a": a, **given}) for a, given in asked]
        for (a, given), ticket in zip(asked, tickets, strict=True):
            want = model.run({"a": a, **given})["y"]
            np.testing.assert_array_equal(want, a * given.get("k", 3) + given.get("b", 1))
            assert ticket.result()["y"].tobytes() == want.tobytes()
        np.testing.assert_array_equal(batcher(X), 3 * X + 1)
        np.testing.assert_array_equal(batcher(X[0], np.float32([2])), 2 * X[0] + 1)
        np.testing.assert_array_equal(batcher({"a": X[0], "k": np.float32([2])})["y"], 2 * X[0] + 1)
        for feeds, message in (
            ({"a": X, "k": np.float64([5])}, "'k' has dtype float64"),
            ({"a": X, "k": np.float32([5, 6])}, "'k' has shape"),
            ({"a": X, "k": np.float32([np.nan])}, "'k' holds NaN"),
            ({"k": np.float32([5])}, "'a' is missing"),
            ({"a": X, "c": X}, "no input 'c'"),
        ):
            with pytest.raises(inferkit.ValidationError, match=message):
                batcher(feeds)


def test_the_default_and_the_same_value_share_a_batch() -> None:
    model = inferkit.Model.load(scaled()).with_inputs("k")
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.2, caller_runs=False) as batcher:
        kinds: list[dict[str, np.ndarray]] = [{}, {"k": np.float32([3])}, {"k": np.float32([4])}, {}]
        tickets = [batcher.submit({"a": X[:1], **kind}) for kind in kinds]
        for ticket in tickets:
            ticket.result()
        ids = [ticket.timing.batch_id for ticket in tickets]
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_a_value_with_as_many_rows_as_the_batch_is_for_all_rows() -> None:
    """Five weights, and five rows: no row has one of its own."""
    model = inferkit.Model.load(scaled(length=5)).with_inputs("k")
    weights = np.arange(5, dtype=np.float32)
    rows = np.arange(25, dtype=np.float32).reshape(5, 5)
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.05) as batcher:
        tickets = [batcher.submit({"a": rows[i : i + 1], "k": weights}) for i in range(5)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result()["y"], rows[i : i + 1] * weights + 1)
        np.testing.assert_array_equal(batcher({"a": rows, "k": weights})["y"], rows * weights + 1)


def test_a_value_for_each_row_must_be_given() -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["a", "k"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in ("a", "k")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.full((1, 5), 2, np.float32), "k")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(data).with_inputs("k")
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_array_equal(batcher({"a": X, "k": X})["y"], X * X)
        with pytest.raises(inferkit.ValidationError, match="'k' is missing"):
            batcher({"a": X})


def test_another_model_brings_its_own_default() -> None:
    def model(k: float) -> inferkit.Model:
        file = onnx.load_from_string(scaled())
        file.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([k]), "k"))
        return inferkit.Model.load(file.SerializeToString()).with_inputs("k")

    with inferkit.Batcher(model(3)) as batcher:
        np.testing.assert_array_equal(batcher(X), 3 * X + 1)
        batcher.swap(model(7))
        np.testing.assert_array_equal(batcher(X), 7 * X + 1)
        np.testing.assert_array_equal(batcher({"a": X, "k": np.float32([2])})["y"], 2 * X + 1)


def test_what_is_too_large_for_a_batcher_to_tell_apart() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 130]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [130, 130]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 130])],
        [numpy_helper.from_array(np.eye(130, dtype=np.float32), "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    model = inferkit.Model.load(data)
    a = np.ones((1, 130), np.float32)
    w = np.full((130, 130), 2, np.float32)
    wide = model.with_inputs("w")
    np.testing.assert_array_equal(wide(a, w), a @ w)
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_array_equal(batcher(a), a)
    with inferkit.Batcher(wide) as batcher:
        with pytest.raises(inferkit.ValidationError, match="'w' is missing"):
            batcher({"a": a})
        with pytest.raises(inferkit.ValidationError):
            batcher({"a": a, "w": w})


def test_threads_and_swaps_with_and_without_it() -> None:
    model = inferkit.Model.load(scaled()).with_inputs("k")
    wrong: list[int] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in range(100):
            a = rng.standard_normal((int(rng.integers(1, 4)), 5)).astype(np.float32)
            given = {"k": np.float32([i % 4])} if i % 2 else {}
            if not np.array_equal(batcher({"a": a, **given})["y"], a * given.get("k", np.float32(3)) + 1):
                wrong.append(i)

    with inferkit.Batcher(model, max_batch_size=8, workers=2) as batcher:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            batcher.swap(model)
        for thread in threads:
            thread.join()
        assert batcher.stats().completed == 400
    assert not wrong
