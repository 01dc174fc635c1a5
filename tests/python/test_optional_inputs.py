"""Inputs that are initializers too: a default, which a call may replace."""

from __future__ import annotations

import os
import threading

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
