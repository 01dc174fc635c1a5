"""Writes tests/data/graph/*.onnx: what C++ tests read, and the fuzzer of the ONNX reader starts from.

Run it again after a change: `python tests/data/make_graph_models.py`. The files are committed; the tests know
their values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent / "graph"
FLOAT = TensorProto.FLOAT


def ramp(*shape: int, scale: float = 0.25) -> np.ndarray:
    count = int(np.prod(shape))
    return (np.arange(count, dtype=np.float32) * scale - 1).reshape(shape).astype(np.float32)


def info(name: str, dtype: int, shape: list[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(graph: GraphProto, *, ir: int = 8, opset: int = 17, **kwargs: object) -> ModelProto:
    imports = [helper.make_opsetid("", opset), *kwargs.pop("imports", [])]  # type: ignore[misc]
    out = helper.make_model(graph, opset_imports=imports, producer_name="make_graph_models", **kwargs)
    out.ir_version = ir
    out.producer_version = "1"
    return out


def mlp() -> ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="fc1", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"], name="fc2", transB=1),
        helper.make_node("Softmax", ["z"], ["y"], name="softmax", axis=-1),
    ]
    weights = {"w1": ramp(5, 4), "b1": ramp(5), "w2": ramp(3, 5, scale=0.125), "b2": ramp(3)}
    graph = helper.make_graph(
        nodes,
        "mlp",
        [info("x", FLOAT, ["batch", 4])],
        [info("y", FLOAT, ["batch", 3])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
        value_info=[info("h", FLOAT, ["batch", 5])],
    )
    out = model(graph)
    helper.set_model_props(out, {"author": "tests", "täg": "välue"})
    return out


TYPED: dict[str, tuple[int, list[object]]] = {
    "f32": (TensorProto.FLOAT, [1.5, -2.25, 3e38]),
    "f64": (TensorProto.DOUBLE, [1.5, -2.25, 1e300]),
    "f16": (TensorProto.FLOAT16, [1.5, -2.25, 65504.0]),
    "bf16": (TensorProto.BFLOAT16, [1.5, -2.25, 128.0]),
    "i8": (TensorProto.INT8, [1, -2, 127]),
    "i16": (TensorProto.INT16, [1, -2, 32767]),
    "i32": (TensorProto.INT32, [1, -2, 2**31 - 1]),
    "i64": (TensorProto.INT64, [1, -2, -(2**63)]),
    "u8": (TensorProto.UINT8, [1, 2, 255]),
    "u16": (TensorProto.UINT16, [1, 2, 65535]),
    "u32": (TensorProto.UINT32, [1, 2, 2**32 - 1]),
    "u64": (TensorProto.UINT64, [1, 2, 2**64 - 1]),
    "bool": (TensorProto.BOOL, [True, False, True]),
    "string": (TensorProto.STRING, ["one", "", "drei ß"]),
}


def typed() -> ModelProto:
    """Every element type, in the typed fields of TensorProto rather than as raw data."""
    tensors = [helper.make_tensor(name, dtype, [3], values) for name, (dtype, values) in TYPED.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPED]
    outputs = [info(f"{name}_out", dtype, [3]) for name, (dtype, _) in TYPED.items()]
    tensors += [
        helper.make_tensor("scalar", FLOAT, [], [7.0]),
        helper.make_tensor("nothing", FLOAT, [0, 3], []),
    ]
    nodes += [helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("scalar", "nothing")]
    outputs += [info("scalar_out", FLOAT, []), info("nothing_out", FLOAT, [0, 3])]
    return model(helper.make_graph(nodes, "typed", [], outputs, tensors))


def attributes() -> ModelProto:
    node = helper.make_node(
        "Everything",
        ["x", "", "x"],
        ["y", "", "z"],
        name="all",
        domain="test.domain",
        an_int=-(2**63),
        a_float=0.5,
        a_string="text",
        a_tensor=numpy_helper.from_array(ramp(2, 2), "t"),
        ints=[1, -1, 2**40],
        floats=[0.5, -0.25],
        strings=["a", "", "ü"],
    )
    empty = AttributeProto(name="no_ints", type=AttributeProto.INTS)
    zero = AttributeProto(name="zero", type=AttributeProto.INT)
    node.attribute.extend([empty, zero])
    graph = helper.make_graph(
        [node], "attributes", [info("x", FLOAT, None)], [info("y", FLOAT, None), info("z", FLOAT, None)]
    )
    return model(graph, imports=[helper.make_opsetid("test.domain", 3)])


def control() -> ModelProto:
    """An If in an If, whose innermost branch reads values two graphs further out, and a Loop."""

    def branch(name: str, nodes: list[NodeProto], output: str) -> GraphProto:
        return helper.make_graph(nodes, name, [], [info(output, FLOAT, None)])

    innermost = branch("innermost", [helper.make_node("Add", ["x", "w"], ["deep"], name="add")], "deep")
    other = branch("other", [helper.make_node("Neg", ["x"], ["neg"], name="neg")], "neg")
    inner_if = helper.make_node("If", ["c"], ["inner"], name="inner_if", then_branch=innermost, else_branch=other)
    then_branch = branch("then", [inner_if], "inner")
    else_branch = branch("else", [helper.make_node("Mul", ["late", "late"], ["sq"], name="square")], "sq")
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "x"], ["next"], name="step"),
            helper.make_node("Identity", ["go"], ["go_on"], name="go_on"),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("state", FLOAT, None)],
        [info("go_on", TensorProto.BOOL, []), info("next", FLOAT, None)],
    )
    nodes = [
        # Before the node that computes what its branch captures: the reader must sort.
        helper.make_node("If", ["c"], ["picked"], name="outer_if", then_branch=then_branch, else_branch=else_branch),
        helper.make_node("Abs", ["x"], ["late"], name="abs"),
        helper.make_node("Loop", ["count", "", "picked"], ["y"], name="loop", body=body),
    ]
    constants = [
        numpy_helper.from_array(ramp(2), "w"),
        numpy_helper.from_array(np.array(3, np.int64), "count"),
    ]
    inputs = [info("c", TensorProto.BOOL, []), info("x", FLOAT, [2])]
    return model(helper.make_graph(nodes, "control", inputs, [info("y", FLOAT, [2])], constants), opset=16)


def function() -> ModelProto:
    """`Twice` calls `Scaled` twice; attributes by reference, one with a default."""
    ref = AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    leaky = helper.make_node("LeakyRelu", ["v"], ["w"], name="leaky")
    leaky.attribute.append(ref)
    scaled = helper.make_function(
        "local",
        "Scaled",
        ["v", "factor"],
        ["out"],
        [helper.make_node("Mul", ["w", "factor"], ["out"], name="mul"), leaky],
        [helper.make_opsetid("", 16)],
        attribute_protos=[helper.make_attribute("slope", 0.125)],
    )
    second = helper.make_node("Scaled", ["mid", "factor"], ["twice"], name="second", domain="local")
    second.attribute.append(AttributeProto(name="slope", ref_attr_name="steep", type=AttributeProto.FLOAT))
    twice = helper.make_function(
        "local",
        "Twice",
        ["v", "factor"],
        ["twice", "mid", "v"],
        [helper.make_node("Scaled", ["v", "factor"], ["mid"], name="first", domain="local"), second],
        [helper.make_opsetid("", 16), helper.make_opsetid("local", 1)],
        ["steep"],
    )
    call = helper.make_node("Twice", ["x", "f"], ["y", "", "same"], name="call", domain="local", steep=0.5)
    graph = helper.make_graph(
        [call],
        "function",
        [info("x", FLOAT, ["n"])],
        [info("y", FLOAT, ["n"]), info("same", FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([2.0], np.float32), "f")],
    )
    return model(graph, imports=[helper.make_opsetid("local", 1)], functions=[scaled, twice])


def legacy() -> ModelProto:
    """IR version 3: initializers among the inputs; nodes in reverse order."""
    nodes = [
        helper.make_node("Relu", ["sum"], ["y"], name="last"),
        helper.make_node("Add", ["product", "b"], ["sum"], name="middle"),
        helper.make_node("MatMul", ["x", "w"], ["product"], name="first"),
    ]
    inputs = [info("x", FLOAT, [1, 2]), info("w", FLOAT, [2, 3]), info("b", FLOAT, [3])]
    weights = [numpy_helper.from_array(ramp(2, 3), "w"), numpy_helper.from_array(ramp(3), "b")]
    return model(helper.make_graph(nodes, "legacy", inputs, [info("y", FLOAT, [1, 3])], weights), ir=3, opset=9)


def external() -> tuple[ModelProto, bytes]:
    """`w` at an aligned offset of external.bin, `u` at an unaligned one."""
    w, u = ramp(4, 4), ramp(3)
    blob = bytes(64) + w.tobytes() + b"?" + u.tobytes()

    def tensor(name: str, value: np.ndarray, offset: int) -> TensorProto:
        out = TensorProto(name=name, data_type=FLOAT, dims=value.shape, data_location=TensorProto.EXTERNAL)
        for key, text in {
            "location": "external.bin",
            "offset": str(offset),
            "length": str(value.nbytes),
        }.items():
            out.external_data.add(key=key, value=text)
        return out

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"),
        helper.make_node("Neg", ["u"], ["v"], name="neg"),
    ]
    graph = helper.make_graph(
        nodes,
        "external",
        [info("x", FLOAT, [1, 4])],
        [info("y", FLOAT, [1, 4]), info("v", FLOAT, [3])],
        [tensor("w", w, 64), tensor("u", u, 64 + w.nbytes + 1)],
    )
    return model(graph), blob


def encoder(layers: int = 2, hidden: int = 24, heads: int = 3, inner: int = 40, words: int = 30) -> ModelProto:
    """Write a small transformer encoder as exporters spell it out, with padding that a mask hides."""
    draw = np.random.default_rng(5)
    weights: dict[str, np.ndarray] = {}
    nodes: list[NodeProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights[name] = value
        return name

    def random(name: str, *shape: int, around: float = 0.0) -> str:
        return constant(name, (draw.standard_normal(shape) / 6 + around).astype(np.float32))

    def put(op: str, inputs: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [out], name=f"node_{out}", **attributes))
        return out

    def number(value: float) -> str:
        return constant(f"number_{value}", np.float32(value))

    def norm(x: str, name: str) -> str:
        centered = put("Sub", [x, put("ReduceMean", [x], f"{name}_mean", axes=[-1])], f"{name}_centered")
        squares = put("Pow", [centered, number(2)], f"{name}_squares")
        variance = put("ReduceMean", [squares], f"{name}_variance", axes=[-1])
        deviation = put("Sqrt", [put("Add", [variance, number(1e-12)], f"{name}_shifted")], f"{name}_deviation")
        scaled = put("Mul", [put("Div", [centered, deviation], f"{name}_unit"), random(f"{name}_w", hidden, around=1)],
                     f"{name}_scaled")  # fmt: skip
        return put("Add", [scaled, random(f"{name}_b", hidden)], name)

    def linear(x: str, name: str, k: int, n: int) -> str:
        return put("Add", [put("MatMul", [x, random(f"{name}_w", k, n)], f"{name}_product"), random(f"{name}_b", n)],
                   name)  # fmt: skip

    def by_heads(x: str, name: str, perm: list[int]) -> str:
        shape = constant("by_heads", np.array([0, 0, heads, hidden // heads], np.int64))
        return put("Transpose", [put("Reshape", [x, shape], f"{name}_split")], name, perm=perm)

    rows = put("Gather", [random("words", words, hidden), "ids"], "rows")
    x = norm(put("Add", [rows, random("places", 1, 1, hidden)], "embedded"), "norm")
    seen = put("Cast", ["mask"], "seen", to=FLOAT)
    seen4 = put("Unsqueeze", [seen, constant("axes", np.array([1, 2], np.int64))], "seen4")
    hidden_mask = put("Mul", [put("Sub", [number(1), seen4], "unseen"), number(-1e4)], "bias")
    for i in range(layers):
        q = by_heads(linear(x, f"q{i}", hidden, hidden), f"qh{i}", [0, 2, 1, 3])
        k = by_heads(linear(x, f"k{i}", hidden, hidden), f"kh{i}", [0, 2, 3, 1])
        v = by_heads(linear(x, f"v{i}", hidden, hidden), f"vh{i}", [0, 2, 1, 3])
        scores = put("Div", [put("MatMul", [q, k], f"products{i}"), number((hidden / heads) ** 0.5)], f"scores{i}")
        weighted = put("Softmax", [put("Add", [scores, hidden_mask], f"masked{i}")], f"weights{i}", axis=-1)
        merged = put("Transpose", [put("MatMul", [weighted, v], f"heads{i}")], f"turned{i}", perm=[0, 2, 1, 3])
        together = put("Reshape", [merged, constant("together", np.array([0, 0, hidden], np.int64))], f"merged{i}")
        x = norm(put("Add", [linear(together, f"o{i}", hidden, hidden), x], f"sum{i}"), f"norm_a{i}")
        h = linear(x, f"up{i}", hidden, inner)
        erf = put("Erf", [put("Div", [h, number(2**0.5)], f"over{i}")], f"erf{i}")
        half = put("Mul", [put("Mul", [h, put("Add", [erf, number(1)], f"one{i}")], f"times{i}"), number(0.5)], f"g{i}")
        x = norm(put("Add", [linear(half, f"down{i}", inner, hidden), x], f"sum_b{i}"), f"norm_b{i}")
    put("Identity", [x], "tokens")
    seen3 = put("Unsqueeze", [seen, constant("last", np.array([-1], np.int64))], "seen3")
    put("ReduceMean", [put("Mul", [x, seen3], "kept")], "mean", axes=[1], keepdims=0)
    graph = helper.make_graph(
        nodes,
        "encoder",
        [info("ids", TensorProto.INT64, ["batch", "length"]), info("mask", TensorProto.INT64, ["batch", "length"])],
        [info("tokens", FLOAT, ["batch", "length", hidden]), info("mean", FLOAT, ["batch", hidden])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return model(graph)


def columns() -> ModelProto:
    """As many columns as the batch has rows: they are known when a plan is made, and are no part of the layer."""
    depth = 40
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], end=1),
        helper.make_node("Concat", ["depth", "rows"], ["shape"], axis=0),
        helper.make_node("Expand", ["column", "shape"], ["b"]),
        helper.make_node("MatMul", ["x", "b"], ["p"]),
        helper.make_node("ReduceMax", ["p"], ["y"], axes=[1], keepdims=0),
    ]
    column = np.random.default_rng(7).standard_normal((depth, 1)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "columns",
        [info("x", FLOAT, ["batch", depth])],
        [info("y", FLOAT, ["batch"])],
        [numpy_helper.from_array(np.array([depth]), "depth"), numpy_helper.from_array(column, "column")],
    )
    return model(graph)


def images() -> ModelProto:
    """What convolutional models are made of: every kind of convolution, pooling and padding."""
    rng = np.random.default_rng(11)
    constants: dict[str, np.ndarray] = {
        "around": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
        "across": np.array([0, 0, 0, 1, 0, 0, 1, -1]),
        "half": np.array(0.5, np.float32),
        "starts": np.array([1]),
        "ends": np.array([-1]),
        "axes": np.array([2]),
    }

    def weights(name: str, *shape: int) -> None:
        spread = np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 4
        constants[name] = (rng.standard_normal(shape) / spread).astype(np.float32)

    weights("w1", 8, 3, 3, 3)
    weights("b1", 8)
    weights("w2", 8, 1, 5, 5)
    weights("w3", 12, 4, 3, 3)
    weights("b3", 12)
    weights("w4", 6, 40, 1, 1)
    for name in ("shift", "center"):
        weights(name, 20)
    for name in ("scale", "spread"):
        constants[name] = rng.uniform(0.5, 2, 20).astype(np.float32)
    weights("w5", 12, 4)
    node = helper.make_node
    nodes = [
        node("Pad", ["x", "around"], ["p1"], mode="reflect"),
        node("Conv", ["p1", "w1", "b1"], ["c1"], dilations=[2, 1], pads=[1, 1, 2, 0]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], group=8, pads=[2, 2, 2, 2]),
        node("HardSwish", ["c2"], ["r2"]),
        node("Conv", ["r1", "w3", "b3"], ["c3"], group=2, pads=[1, 1, 1, 1]),
        node("Concat", ["r2", "c3"], ["both"], axis=1),
        node("BatchNormalization", ["both", "scale", "shift", "center", "spread"], ["n1"]),
        node("MaxPool", ["n1"], ["m1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 0], ceil_mode=1),
        node("AveragePool", ["n1"], ["a1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 0], ceil_mode=1),
        node("Concat", ["m1", "a1"], ["pooled"], axis=1),
        node("Conv", ["pooled", "w4"], ["c4"]),
        node("Pad", ["c4", "across", "half"], ["p2"]),
        node("Slice", ["p2", "starts", "ends", "axes"], ["s1"]),
        node("GlobalMaxPool", ["s1"], ["g1"]),
        node("GlobalAveragePool", ["s1"], ["g2"]),
        node("Concat", ["g1", "g2"], ["both2"], axis=1),
        node("Flatten", ["both2"], ["flat"]),
        node("Gemm", ["flat", "w5"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "images",
        [info("x", FLOAT, ["batch", 3, 9, 8])],
        [info("y", FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return model(graph)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for make in (mlp, typed, attributes, control, function, legacy, encoder, columns, images):
        proto = make()
        if make in (
            mlp,
            typed,
            encoder,
            columns,
            images,
        ):  # the others are unsorted or use an unknown operator, on purpose
            onnx.checker.check_model(proto)
        (FOLDER / f"{make.__name__}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    proto, blob = external()
    (FOLDER / "external.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    (FOLDER / "external.bin").write_bytes(blob)


if __name__ == "__main__":
    main()
