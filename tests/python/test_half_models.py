"""Models in float16 and bfloat16 are computed in float32: half at the edges, and nothing between is rounded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

Array = np.ndarray[Any, Any]
HALF, FLOAT, INT64, BFLOAT = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT64, TensorProto.BFLOAT16
RNG = np.random.default_rng(5)


def port(name: str, kind: int, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def build(nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: Array) -> bytes:
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(x, name) for name, x in constants.items()]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def half(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float16)


def deep(layers: int = 6, width: int = 64) -> tuple[bytes, Any]:
    """Tanh of products, one behind the other; and the same in float64."""
    weights = [half(width, width) / np.float16(8) for _ in range(layers)]
    nodes, last = [], "x"
    for i in range(layers):
        nodes += [node("MatMul", f"{last} w{i}", f"p{i}"), node("Tanh", f"p{i}", f"t{i}")]
        last = f"t{i}"
    nodes.append(node("Identity", last, "y"))
    model = build(
        nodes,
        [port("x", HALF, [None, width])],
        [port("y", HALF, [None, width])],
        **{f"w{i}": w for i, w in enumerate(weights)},
    )

    def exact(x: Array) -> Array:
        y = x.astype(np.float64)
        for w in weights:
            y = np.tanh(y @ w.astype(np.float64))
        return y

    return model, exact


def test_nothing_between_is_rounded() -> None:
    data, exact = deep()
    x = half(5, 64)
    y = inferkit.Model.load(data)(x)
    assert y.dtype == np.float16
    want = exact(x)
    nearest = want.astype(np.float16)
    assert (y != nearest).mean() < 0.01  # float32's own errors reach the last bit of a half now and then
    assert np.abs(y - want).max() <= 2 * np.abs(nearest - want).max()


def test_no_less_accurate_than_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    data, exact = deep()
    x = half(5, 64)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    want = exact(x)
    assert np.abs(inferkit.Model.load(data)(x) - want).max() <= np.abs(session.run(None, {"x": x})[0] - want).max()


def test_products_run_in_float32() -> None:
    data, _ = deep()
    steps = [step.operator for step in inferkit.Model.load(data).explain().steps]
    assert sum("Linear" in name or "MatMul" in name for name in steps) == 6
    casts = [name for name in steps if "Cast" in name]
    assert len(casts) == 2, steps


def test_rows_have_the_same_bits_in_any_batch() -> None:
    data, _ = deep()
    model, x = inferkit.Model.load(data), half(33, 64)
    together = model(x)
    for i in range(33):
        assert model(x[i]).tobytes() == together[i].tobytes()
    with inferkit.Batcher(model) as batcher:
        tickets = [batcher.submit(row) for row in x]
        assert np.stack([ticket.result() for ticket in tickets]).tobytes() == together.tobytes()


def test_what_overflows_between_does_not() -> None:
    nodes = [node("Mul", "x big", "m"), node("Mul", "m small", "y")]
    data = build(
        nodes,
        [port("x", HALF, [None])],
        [port("y", HALF, [None])],
        big=np.array(6e4, np.float16),
        small=np.array(1e-3, np.float16),
    )
    assert np.isclose(
        inferkit.Model.load(data)(np.array([10], np.float16))[0], 6e5 * float(np.float16(1e-3)), rtol=1e-3
    )


def test_a_table_that_is_gathered_from_stays_half() -> None:
    table = half(4096, 64)
    nodes = [node("Gather", "table i", "e"), node("Sigmoid", "e", "y")]
    data = build(nodes, [port("i", INT64, [None])], [port("y", HALF, [None, 64])], table=table)
    model = inferkit.Model.load(data)
    i = np.array([5, 4095, 0])
    want = 1 / (1 + np.exp(-table[i].astype(np.float64)))
    np.testing.assert_allclose(model(i), want, rtol=1e-3)
    assert model.memory().copied_bytes < 2 * table.nbytes
    shared = [node("Gather", "table i", "e"), node("MatMul", "e t", "y"), node("Transpose", "table", "t")]
    shared.insert(0, shared.pop())
    tied = inferkit.Model.load(build(shared, [port("i", INT64, [None])], [port("y", HALF, [None, 4096])], table=table))
    np.testing.assert_allclose(tied(i), table[i].astype(np.float64) @ table.T.astype(np.float64), rtol=2e-3, atol=2e-2)


def test_edges() -> None:
    """An input and a constant that are outputs, an output twice, one that other nodes read."""
    nodes = [node("Add", "x c", "y"), node("Relu", "y", "z"), node("Cast", "z", "f", to=FLOAT)]
    c = np.array([1.5, -2], np.float16)
    outputs = [port(name, HALF, [None, 2]) for name in ("y", "z", "x")] + [port("f", FLOAT, [None, 2])]
    data = build(nodes, [port("x", HALF, [None, 2])], [*outputs, port("c", HALF, [2])], c=c)
    x = half(3, 2)
    got = inferkit.Model.load(data).run({"x": x})
    exact = x.astype(np.float32) + c.astype(np.float32)
    assert got["x"].tobytes() == x.tobytes()
    assert got["c"].tobytes() == c.tobytes()
    assert got["y"].tobytes() == exact.astype(np.float16).tobytes()
    assert got["z"].tobytes() == np.maximum(exact, 0).astype(np.float16).tobytes()
    assert got["f"].dtype == np.float32
    assert got["f"].tobytes() == np.maximum(exact, 0).tobytes()


def test_float32_inside_and_out() -> None:
    """A model in mixed precision, as converters write it: casts at the edges, halves between."""
    w = half(8, 4)
    nodes = [node("Cast", "x", "h", to=HALF), node("MatMul", "h w", "m"), node("Cast", "m", "y", to=FLOAT)]
    model = inferkit.Model.load(build(nodes, [port("x", FLOAT, [None, 8])], [port("y", FLOAT, [None, 4])], w=w))
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    rounded = x.astype(np.float16).astype(np.float64)  # where the file says so
    np.testing.assert_allclose(model(x), rounded @ w.astype(np.float64), rtol=1e-5, atol=1e-6)
    assert sum(step.operator == "Cast" for step in model.explain().steps) == 2


def test_bfloat16() -> None:
    w = RNG.standard_normal((8, 4)).astype(np.float32)
    bits = (w.view(np.uint32) >> 16).astype(np.uint16)
    kept = (bits.astype(np.uint32) << 16).view(np.float32)
    nodes = [node("Cast", "x", "h", to=BFLOAT), node("MatMul", "h w", "m"), node("Cast", "m", "y", to=FLOAT)]
    graph = helper.make_graph(
        nodes,
        "g",
        [port("x", FLOAT, [None, 8])],
        [port("y", FLOAT, [None, 4])],
        [helper.make_tensor("w", BFLOAT, w.shape, bits.tobytes(), raw=True)],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    whole = x.view(np.uint32)
    rounded = ((whole + 0x7FFF + ((whole >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    np.testing.assert_allclose(
        inferkit.Model.load(data)(x), rounded.astype(np.float64) @ kept.astype(np.float64), rtol=1e-5, atol=1e-6
    )


def test_casts_that_the_file_holds_round_and_overflow() -> None:
    nodes = [
        node("Cast", "x", "h", to=HALF),
        node("Cast", "h", "back", to=FLOAT),
        node("Sub", "x back", "lost"),
        node("Sqrt", "h", "root"),
        node("Cast", "root", "y", to=FLOAT),
    ]
    outputs = [port("lost", FLOAT, [None]), port("y", FLOAT, [None]), port("h", HALF, [None])]
    x = np.array([0.1, 1.2345678, 70000, 3], np.float32)
    got = inferkit.Model.load(build(nodes, [port("x", FLOAT, [None])], outputs)).run({"x": x})
    with np.errstate(over="ignore"):
        h = x.astype(np.float16)
    assert got["h"].tobytes() == h.tobytes()
    assert got["lost"].tolist() == (x - h.astype(np.float32)).tolist()
    np.testing.assert_allclose(got["y"], np.sqrt(h.astype(np.float32)), rtol=1e-6)


def test_bits_do_not_depend_on_the_outputs_that_are_chosen() -> None:
    nodes = [node("Exp", "x", "e"), node("Mul", "e e", "y"), node("Cast", "e", "s", to=TensorProto.STRING)]
    outputs = [port("y", HALF, [None]), port("s", TensorProto.STRING, [None])]
    data = build(nodes, [port("x", HALF, [None])], outputs)
    x = half(40)
    alone = inferkit.Model.load(data, outputs=["y"])(x)
    assert alone.tobytes() == inferkit.Model.load(data).run({"x": x})["y"].tobytes()


def test_who_divides_in_halves_does() -> None:
    """From opset 23 on, QuantizeLinear divides in the type of its scale."""
    onnxruntime = pytest.importorskip("onnxruntime")
    scale = np.array(0.0437, np.float16)
    graph = helper.make_graph(
        [node("QuantizeLinear", "x scale", "y")],
        "g",
        [port("x", HALF, [None])],
        [port("y", TensorProto.UINT8, [None])],
        [numpy_helper.from_array(scale, "scale")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10).SerializeToString()
    x = np.linspace(0, 11, 4001).astype(np.float16)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert inferkit.Model.load(data)(x).tolist() == session.run(None, {"x": x})[0].tolist()


@pytest.mark.parametrize("condition", [True, False])
def test_branches(condition: bool) -> None:
    c = np.array([0.5, 2], np.float16)
    branches = {}
    for name, op in (("then_branch", "Mul"), ("else_branch", "Add")):
        body = [node(op, "x c", "r"), node("Exp", "r", name)]
        branches[name] = helper.make_graph(
            body, name, [], [port(name, HALF, [None, 2])], [numpy_helper.from_array(c, "c")]
        )
    nodes = [helper.make_node("If", ["b"], ["y"], **branches)]
    data = build(nodes, [port("x", HALF, [None, 2]), port("b", TensorProto.BOOL, [])], [port("y", HALF, [None, 2])])
    x = half(3, 2)
    wide = x.astype(np.float64)
    want = np.exp(wide * c if condition else wide + c)
    got = inferkit.Model.load(data).run({"x": x, "b": np.array(condition)})["y"]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_loops() -> None:
    """A state of halves, and a captured input."""
    body = helper.make_graph(
        [node("Identity", "c", "go"), node("Mul", "s x", "m"), node("Add", "m x", "out")],
        "body",
        [port("i", INT64, []), port("c", TensorProto.BOOL, []), port("s", HALF, [2])],
        [port("go", TensorProto.BOOL, []), port("out", HALF, [2])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    data = build(nodes, [port("x", HALF, [2])], [port("y", HALF, [2])], n=np.array(3))
    x = np.array([0.5, -0.3], np.float16)
    s = wide = x.astype(np.float64)
    for _ in range(3):
        s = s * wide + wide
    got = inferkit.Model.load(data).run({"x": x})["y"]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, s, rtol=1e-3)


def test_who_looks_at_halves_gets_halves() -> None:
    digits = [node("Exp", "x", "e"), node("Cast", "e", "y", to=TensorProto.STRING)]
    data = build(digits, [port("x", HALF, [None])], [port("y", TensorProto.STRING, [None])])
    zero = np.array([0.1], np.float16)
    assert inferkit.Model.load(data)(zero)[0] == str(np.exp(zero.astype(np.float32)).astype(np.float16)[0])


def test_undeclared_outputs() -> None:
    w = half(8, 4)
    data = build([node("MatMul", "x w", "y")], [port("x", HALF, [3, 8])], [onnx.ValueInfoProto(name="y")], w=w)
    x = half(3, 8)
    y = inferkit.Model.load(data)(x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, x.astype(np.float64) @ w.astype(np.float64), rtol=2e-3, atol=2e-3)


def test_optional_inputs() -> None:
    w = half(8, 4)
    inputs = [port("x", HALF, [None, 8]), port("w", HALF, [8, 4])]
    model = inferkit.Model.load(build([node("MatMul", "x w", "y")], inputs, [port("y", HALF, [None, 4])], w=w))
    x, other = half(3, 8), half(8, 4)
    for feeds, by in (({"x": x}, w), ({"x": x, "w": other}, other)):
        np.testing.assert_allclose(
            model.run(feeds)["y"], x.astype(np.float64) @ by.astype(np.float64), rtol=2e-3, atol=2e-3
        )


def test_models_have_the_same_bits_in_every_load() -> None:
    data, _ = deep(2)
    script = """
import sys
import inferkit
import numpy as np
print(inferkit.Model.load(sys.stdin.buffer.read())(np.ones((1, 64), np.float16)).tobytes().hex())
"""
    command = [sys.executable, "-c", script]
    runs = {subprocess.run(command, input=data, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1
