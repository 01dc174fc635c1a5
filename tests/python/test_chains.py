"""Elementwise operators that follow each other run as one step, with the bits that they have by themselves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

f32 = np.float32


def model(steps: list[tuple[str, ...]], numbers: dict[str, float], shape: list[int | str], *more: str) -> bytes:
    """Nodes named after their outputs; the last one's is ``y``, and `more` are outputs, too."""
    nodes = [helper.make_node(op, list(inputs), [out], name=out) for out, op, *inputs in steps]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*more, "y")],
        [numpy_helper.from_array(np.asarray(value, f32), name) for name, value in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


HARD_SWISH: list[tuple[str, ...]] = [
    ("s", "Mul", "scale", "x"),
    ("b", "Add", "s", "bias"),
    ("h", "Add", "b", "three"),
    ("c", "Clip", "h", "zero", "six"),
    ("m", "Mul", "b", "c"),
    ("y", "Div", "m", "six"),
]
NUMBERS = {"scale": 1.37, "bias": -0.21, "three": 3.0, "zero": 0.0, "six": 6.0}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 333), (1, 16, 160, 161)])
def test_a_chain_has_the_bits_of_numpy(shape: tuple[int, ...], threads: int) -> None:
    """Each of these operations rounds once, there as here."""
    found = inferkit.Model.load(model(HARD_SWISH, NUMBERS, ["n", *shape[1:]]), threads=threads)
    (step,) = found.explain({"x": shape}).steps
    assert step.operator == "inferkit.Chain"
    assert [part.name for part in step.stands_for] == ["s", "b", "h", "c", "m", "y"]
    x = np.random.default_rng(1).standard_normal(shape).astype(f32) * 4
    b = x * f32(1.37) + f32(-0.21)
    np.testing.assert_array_equal(found(x), b * np.clip(b + f32(3), f32(0), f32(6)) / f32(6))


def test_numbers_may_stand_on_either_side() -> None:
    steps = [("a", "Sub", "two", "x"), ("b", "Div", "two", "a"), ("c", "Sub", "b", "x"), ("y", "Mul", "c", "c")]
    x = np.random.default_rng(2).standard_normal((4, 50)).astype(f32)
    found = inferkit.Model.load(model(steps, {"two": 2.0}, ["n", 50]))
    assert [step.operator for step in found.explain({"x": (4, 50)}).steps] == ["inferkit.Chain"]
    c = f32(2) / (f32(2) - x) - x
    np.testing.assert_array_equal(found(x), c * c)


def test_what_is_not_rounded_once_has_the_bits_that_it_has_alone() -> None:
    steps = [("a", "Mul", "x", "two"), ("b", "Sigmoid", "a"), ("c", "Tanh", "b"), ("d", "Relu", "c")]
    steps += [("y", "Sub", "d", "two")]
    x = np.random.default_rng(3).standard_normal((3, 1500)).astype(f32) * 3
    whole = inferkit.Model.load(model(steps, {"two": 2.0}, ["n", 1500]))
    # Whose values are outputs cannot be a chain.
    apart = inferkit.Model.load(model(steps, {"two": 2.0}, ["n", 1500], "a", "b", "c", "d"))
    operators = [[step.operator for step in m.explain({"x": (3, 1500)}).steps] for m in (whole, apart)]
    assert operators[0] == ["inferkit.Chain"]
    assert "inferkit.Chain" not in operators[1]
    np.testing.assert_array_equal(whole(x), apart.run({"x": x})["y"])


def test_many_values_at_once() -> None:
    """Values that wait to be read keep their places until they are."""
    steps: list[tuple[str, ...]] = [
        ("first", "Mul", "x", "n0"),
        *[(f"a{i}", "Add", "first", f"n{i}") for i in range(4)],
    ]
    steps += [("p", "Mul", "a0", "a1"), ("q", "Mul", "a2", "a3"), ("r", "Sub", "p", "q"), ("y", "Div", "r", "n3")]
    x = np.random.default_rng(4).standard_normal((2, 3000)).astype(f32)
    n = [f32(v) for v in (0.5, 1.5, -2.5, 3.5)]
    found = inferkit.Model.load(model(steps, {f"n{i}": float(v) for i, v in enumerate(n)}, ["n", 3000]))
    assert [step.operator for step in found.explain({"x": (2, 3000)}).steps] == ["inferkit.Chain"]
    first = x * n[0]
    a = [first + v for v in n]
    np.testing.assert_array_equal(found(x), (a[0] * a[1] - a[2] * a[3]) / n[3])


def test_nan_and_infinity_go_through() -> None:
    found = inferkit.Model.load(model(HARD_SWISH, NUMBERS, ["n", 4]), input_checks=inferkit.InputChecks(finite=False))
    y = found(np.array([[np.nan, np.inf, -np.inf, 1]], f32))
    assert np.isnan(y[0, 0])
    assert y[0, 1] == np.inf
    assert np.isnan(y[0, 2])  # infinity by zero
    assert np.isfinite(y[0, 3])


def test_a_number_that_is_a_list_of_one_makes_a_list_of_a_scalar() -> None:
    nodes = [helper.make_node("Mul", ["x", "list"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "scalar",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([2], f32), "list")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    y = inferkit.Model.load(data)(np.array(3, f32))
    assert y.shape == (1,)
    assert y[0] == 6


def test_between_convolutions_it_stays_in_blocks() -> None:
    rng = np.random.default_rng(5)
    nodes = [helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1, 1, 1, 1])]
    nodes += [
        helper.make_node(op, [{"x": "c0"}.get(name, name) for name in inputs], [{"y": "swish"}.get(out, out)])
        for out, op, *inputs in HARD_SWISH
    ]
    nodes.append(helper.make_node("Conv", ["swish", "w1"], ["y"], pads=[1, 1, 1, 1]))
    weights = {f"w{i}": rng.standard_normal((64, 64, 3, 3)).astype(f32) / 24 for i in range(2)}

    def load(*more: str) -> inferkit.Model:
        graph = helper.make_graph(
            nodes,
            "blocks",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64, 14, 14])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*more, "y")],
            [numpy_helper.from_array(np.asarray(v, f32), k) for k, v in {**NUMBERS, **weights}.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return inferkit.Model.load(made.SerializeToString())

    x = rng.standard_normal((2, 64, 14, 14)).astype(f32)
    steps = load().explain({"x": x.shape}).steps
    chain = next(step for step in steps if step.operator == "inferkit.Chain")
    assert chain.layout == "blocks"
    apart = load("s", "b", "c", "m")  # whose values are outputs cannot be a chain
    np.testing.assert_array_equal(load()(x), apart.run({"x": x})["y"])


def test_it_is_in_onnx_only_in_memory() -> None:
    """No file may have it."""
    node = helper.make_node("Chain", ["x"], ["y"], domain="inferkit")
    graph = helper.make_graph(
        [node],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("inferkit", 1)]
    made = onnx.helper.make_model(graph, opset_imports=imports, ir_version=9)
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(made.SerializeToString())
