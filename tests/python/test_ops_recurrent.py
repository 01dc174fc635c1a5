"""LSTM, GRU and RNN against a float64 oracle, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from op_cases import LENIENT, TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
Function = Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def function(name: str, alpha: float | None = None, beta: float | None = None) -> Function:
    a, b = float(np.float32(alpha or 0)), float(np.float32(beta or 0))
    return {
        "Sigmoid": sigmoid,
        "Tanh": np.tanh,
        "Relu": lambda x: np.maximum(x, 0),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.logaddexp(0, x),
        "LeakyRelu": lambda x: np.where(x < 0, a * x, x),
        "ThresholdedRelu": lambda x: np.where(x > a, x, 0),
        "Elu": lambda x: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
        "HardSigmoid": lambda x: np.clip(a * x + b, 0, 1),
        "Affine": lambda x: a * x + b,
        "ScaledTanh": lambda x: a * np.tanh(b * x),
    }[name]


class Layer:
    """Random weights of a layer, and what it gives by the letter of the specification, in float64."""

    def __init__(self, op: str, seed: int, steps: int, batch: int, size: int, hidden: int, **options: Any) -> None:
        self.op, self.hidden, self.options = op, hidden, options
        self.direction: str = options.get("direction", "forward")
        d, g, rng = DIRECTIONS[self.direction], GATES[op], np.random.default_rng(seed)
        draw = rng.standard_normal
        dtype = options.get("dtype", "float32")
        self.x = draw((steps, batch, size)).astype(dtype)
        self.w = (0.7 * draw((d, g * hidden, size))).astype(dtype)
        self.r = (0.7 * draw((d, g * hidden, hidden))).astype(dtype)
        self.b = (0.3 * draw((d, 2 * g * hidden))).astype(dtype)
        self.lengths = rng.integers(1, steps + 1, batch).astype(np.int32)
        self.h0 = draw((d, batch, hidden)).astype(dtype)
        self.c0 = draw((d, batch, hidden)).astype(dtype)
        self.p = draw((d, 3 * hidden)).astype(dtype)
        self.names: list[str] = options.get(
            "activations", {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op] * d
        )
        self.functions = options.get("functions", [function(n) for n in self.names])

    def inputs(self, given: str) -> list[Array | None]:
        """`given` names the optional ones: b, l(engths), h, c, p."""
        swap = self.options.get("layout", 0) == 1
        axes = (1, 0, 2)
        x, h0, c0 = (v.transpose(axes) if swap else v for v in (self.x, self.h0, self.c0))
        optional = [
            self.b if "b" in given else None,
            self.lengths if "l" in given else None,
            h0 if "h" in given else None,
        ]
        if self.op == "LSTM":
            optional += [c0 if "c" in given else None, self.p if "p" in given else None]
        return [np.ascontiguousarray(v) if v is not None else None for v in [x, self.w, self.r, *optional]]

    def case(self, given: str = "b", **keywords: Any) -> Case:
        attributes = {k: v for k, v in self.options.items() if k not in ("dtype", "functions")}
        outputs = 3 if self.op == "LSTM" else 2
        return Case(self.op, *self.inputs(given), outputs=outputs, hidden_size=self.hidden, **attributes, **keywords)

    def expected(self, given: str = "b") -> list[Array]:
        ys, hs, cs = [], [], []
        each = len(self.functions) // len(self.w)
        for d in range(len(self.w)):
            reverse = self.direction == "reverse" or d == 1
            y, h, c = self.one(d, reverse, given, self.functions[d * each : (d + 1) * each])
            ys.append(y), hs.append(h), cs.append(c)
        out = [np.stack(ys, 1), np.stack(hs), np.stack(cs)]
        if self.options.get("layout", 0) == 1:
            out = [out[0].transpose(2, 0, 1, 3), out[1].transpose(1, 0, 2), out[2].transpose(1, 0, 2)]
        return out if self.op == "LSTM" else out[:2]

    def one(self, d: int, reverse: bool, given: str, functions: list[Function]) -> tuple[Array, Array, Array]:
        steps, batch, _ = self.x.shape
        w, r = self.w[d].astype(np.float64), self.r[d].astype(np.float64)
        b = self.b[d].astype(np.float64) if "b" in given else np.zeros(self.b.shape[1])
        p = self.p[d].astype(np.float64) if "p" in given else np.zeros(self.p.shape[1])
        y = np.zeros((steps, batch, self.hidden))
        h_out, c_out = np.zeros((batch, self.hidden)), np.zeros((batch, self.hidden))
        for row in range(batch):
            h = self.h0[d, row].astype(np.float64) if "h" in given else np.zeros(self.hidden)
            c = self.c0[d, row].astype(np.float64) if "c" in given else np.zeros(self.hidden)
            length = int(self.lengths[row]) if "l" in given else steps
            order = range(length - 1, -1, -1) if reverse else range(length)
            for t in order:
                h, c = getattr(self, self.op.lower())(self.x[t, row].astype(np.float64), h, c, w, r, b, p, functions)
                y[t, row] = h
            h_out[row], c_out[row] = h, c
        return y, h_out, c_out

    def clip(self, v: Array) -> Array:
        limit = self.options.get("clip")
        return v if limit is None else np.clip(v, -limit, limit)

    def lstm(self, x: Array, h: Array, c: Array, w: Array, r: Array, b: Array, p: Array, fs: list[Function]) -> Any:
        f, g, last = fs
        wb, rb = np.split(b, 2)
        i, o, forget, candidate = np.split(w @ x + r @ h + wb + rb, 4)
        pi, po, pf = np.split(p, 3)
        i = f(self.clip(i + pi * c))
        forget = 1 - i if self.options.get("input_forget") else f(self.clip(forget + pf * c))
        c = forget * c + i * g(self.clip(candidate))
        o = f(self.clip(o + po * c))
        return o * last(c), c

    def gru(self, x: Array, h: Array, c: Array, w: Array, r: Array, b: Array, p: Array, fs: list[Function]) -> Any:
        f, g = fs
        (wz, wr, wh), (rz, rr, rh) = np.split(w, 3), np.split(r, 3)
        bz, br, bh, cz, cr, ch = np.split(b, 6)
        z = f(self.clip(wz @ x + rz @ h + bz + cz))
        reset = f(self.clip(wr @ x + rr @ h + br + cr))
        if self.options.get("linear_before_reset"):
            hidden = wh @ x + reset * (rh @ h + ch) + bh
        else:
            hidden = wh @ x + rh @ (reset * h) + ch + bh
        return (1 - z) * g(self.clip(hidden)) + z * h, c

    def rnn(self, x: Array, h: Array, c: Array, w: Array, r: Array, b: Array, p: Array, fs: list[Function]) -> Any:
        wb, rb = np.split(b, 2)
        return fs[0](self.clip(w @ x + r @ h + wb + rb)), c


def agree(case: Case, expected: list[Array], factor: float = 1, dtype: str = "float32") -> None:
    rtol, atol = TOLERANCE[dtype]
    for found, e in zip(case.run(), expected, strict=True):
        assert found.dtype == np.dtype(dtype)
        close(found, e, factor * rtol, factor * 4 * atol)


def agree_with_onnxruntime(case: Case) -> None:
    for found, e in zip(case.run(), case.onnxruntime(), strict=True):
        close(found, e, 2e-5, 2e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("given", ["", "b", "bh", "blhc", "lh", "blhcp", "bcp"])
def test_optional_inputs(op: str, direction: str, given: str) -> None:
    extra = [{"linear_before_reset": 0}, {"linear_before_reset": 1}] if op == "GRU" else [{}]
    for (steps, batch, size, hidden, opset), more in itertools.product(
        [(1, 1, 1, 1, 7), (5, 3, 4, 6, 14), (7, 1, 10, 16, 22), (4, 6, 3, 33, 13)], extra
    ):
        layer = Layer(op, steps, steps, batch, size, hidden, direction=direction, **more)
        expected = layer.expected(given)
        for constant in ((), (1, 2, 3)):
            case = layer.case(given, opset=opset, constant=constant if "b" in given else constant[:2])
            agree(case, expected, 4)
        agree_with_onnxruntime(layer.case(given, opset=14))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_batch_first(op: str, direction: str) -> None:
    layer = Layer(op, 3, 5, 3, 4, 6, direction=direction, layout=1)
    agree(layer.case("blhc", constant=(1, 2)), layer.expected("blhc"), 4)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("constant", [(), (1, 2, 3)])
def test_other_types(op: str, dtype: str, direction: str, constant: tuple[int, ...]) -> None:
    for layout in (0, 1):
        extra = {"linear_before_reset": layout} if op == "GRU" else {}
        layer = Layer(op, 5, 4, 3, 5, 7, direction=direction, dtype=dtype, layout=layout, **extra)
        agree(layer.case("blhcp", constant=constant), layer.expected("blhcp"), 4, dtype)


ACTIVATIONS = [
    ("Relu", None, None),
    ("Softsign", None, None),
    ("Softplus", None, None),
    ("LeakyRelu", 0.2, None),
    ("ThresholdedRelu", 0.5, None),
    ("Elu", 0.7, None),
    ("HardSigmoid", 0.3, 0.4),
    ("Affine", 0.5, 0.1),
    ("ScaledTanh", 0.8, 1.3),
    ("Tanh", None, None),
    ("Sigmoid", None, None),
]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("name", [a[0] for a in ACTIVATIONS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations(op: str, name: str, dtype: str) -> None:
    count = {"LSTM": 3, "GRU": 2, "RNN": 1}[op]
    at = [a[0] for a in ACTIVATIONS].index(name)
    chosen = [ACTIVATIONS[(at + i) % len(ACTIVATIONS)] for i in range(2 * count)]
    functions = [function(*a) for a in chosen]
    names = [a[0] for a in chosen]
    alphas = [a[1] for a in chosen if a[1] is not None]
    betas = [a[2] for a in chosen if a[2] is not None]
    options: dict[str, Any] = {"activations": names, "functions": functions, "direction": "bidirectional"}
    if alphas:
        options["activation_alpha"] = alphas
    if betas:
        options["activation_beta"] = betas
    layer = Layer(op, at, 3, 2, 4, 5, dtype=dtype, **options)
    for v in (layer.w, layer.r):
        v *= 0.3  # what is not bounded must not run away
    agree(layer.case("bh"), layer.expected("bh"), 8, dtype)
    if dtype == "float32":
        agree_with_onnxruntime(layer.case("bh"))


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [("LeakyRelu", 0.01, None), ("Elu", 1.0, None), ("HardSigmoid", 0.2, 0.5)],
)
def test_defaults_of_the_functions_parameters(name: str, alpha: float, beta: float | None) -> None:
    layer = Layer("RNN", 4, 3, 2, 4, 5, activations=[name], functions=[function(name, alpha, beta)])
    agree(layer.case(), layer.expected(), 4)
    agree_with_onnxruntime(layer.case())


@pytest.mark.parametrize("op", GATES)
def test_clip(op: str) -> None:
    layer = Layer(op, 6, 4, 3, 5, 7, clip=0.4)
    agree(layer.case("blhcp"), layer.expected("blhcp"), 4)
    agree_with_onnxruntime(layer.case("blhcp"))


def test_coupled_gates() -> None:
    for given in ("b", "bhcp"):
        layer = Layer("LSTM", 7, 4, 3, 5, 7, input_forget=1)
        agree(layer.case(given), layer.expected(given), 4)
        agree_with_onnxruntime(layer.case(given))


def wanted(case: Case, *names: str) -> bytes:
    """The case's model with these outputs only; the node's others are left out."""
    model = onnx.load_from_string(case.with_output_types())
    node = model.graph.node[0]
    kept = [port for port in model.graph.output if port.name in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    for i, name in enumerate(node.output):
        if name not in names:
            node.output[i] = ""
    return model.SerializeToString()


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_output_may_be_left_out(op: str, direction: str) -> None:
    layer = Layer(op, 8, 4, 2, 5, 7, direction=direction)
    case, expected = layer.case("bl"), layer.expected("bl")
    for count in (1, 2):
        for some in itertools.combinations(range(len(expected)), count):
            found = inferkit.Model.load(wanted(case, *(f"y{i}" for i in some))).run(case.inputs)
            assert set(found) == {f"y{i}" for i in some}
            for i in some:
                close(found[f"y{i}"], expected[i], 1e-4, 1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("sizes", [(3, 5, 8), (11, 20, 64), (6, 7, 100)])
def test_a_row_s_bits_do_not_depend_on_the_batch(op: str, layout: int, sizes: tuple[int, int, int]) -> None:
    steps, size, hidden = sizes
    for extra in [{"linear_before_reset": 0}, {"linear_before_reset": 1}] if op == "GRU" else [{}]:
        layer = Layer(op, 9, steps, 9, size, hidden, direction="bidirectional", layout=layout, **extra)
        case = layer.case("blhc", constant=(1, 2, 3))
        whole = dict(zip(case.outputs, case.run(), strict=True))
        model = onnx.load_from_string(case.with_output_types())
        batch_axis = {"x0": 1 - layout, "x4": 0, "x5": 1 - layout, "x6": 1 - layout}
        for port in model.graph.input:
            port.type.tensor_type.shape.dim[batch_axis[port.name]].dim_param = "batch"
        del model.graph.value_info[:]
        for port in model.graph.output:
            port.type.CopyFrom(helper.make_tensor_type_proto(1, None))
        loaded = inferkit.Model.load(model.SerializeToString())
        out_axis = {"y0": 0 if layout else 2, "y1": 1 - layout, "y2": 1 - layout}
        for rows in ([0], [4], [8, 2], [1, 3, 5, 7]):
            feeds = {n: np.take(x, rows, batch_axis[n]) for n, x in case.inputs.items()}
            for name, y in loaded.run(feeds).items():
                assert y.tobytes() == np.take(whole[name], rows, out_axis[name]).tobytes()


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("batch", [1, 3, 9, 40])
@pytest.mark.parametrize("layout", [0, 1])
def test_bits_do_not_depend_on_the_threads(op: str, batch: int, layout: int) -> None:
    """Of a small batch each direction has a thread of its own."""
    layer = Layer(op, 10, 12, batch, 40, 130, direction="bidirectional", layout=layout)
    case = layer.case("blhc", constant=(1, 2, 3))
    one = case.run(threads=1)
    for threads in (2, 4):
        for a, b in zip(one, case.run(threads=threads), strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(("batch", "at_once"), [(1, True), (7, True), (16, False)])
def test_directions_that_run_at_once_have_room_of_their_own(op: str, batch: int, at_once: bool) -> None:
    """A batch of sixteen is cut among the threads instead, and the second direction takes the room of the first."""
    steps, hidden = 12, 130
    case = Layer(op, 10, steps, batch, 40, hidden, direction="bidirectional").case("b", constant=(1, 2, 3))
    shapes = {name: x.shape for name, x in case.inputs.items()}
    one, two = (case.load(threads=threads).explain(shapes).arena_bytes for threads in (1, 2))
    assert (two - one >= 4 * steps * batch * GATES[op] * hidden) == at_once


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_both_directions_at_once_in_other_types(op: str, dtype: str) -> None:
    case = Layer(op, 11, 12, 2, 40, 130, direction="bidirectional", dtype=dtype).case("blhc")
    for a, b in zip(case.run(threads=1), case.run(threads=2), strict=True):
        assert a.tobytes() == b.tobytes()


def test_sequence_lengths_are_checked_in_the_run() -> None:
    layer = Layer("LSTM", 1, 4, 2, 3, 5)
    layer.lengths[1] = 5
    with pytest.raises(inferkit.InferenceError, match=r"sequence_lens\[1\] is 5; expected 0 to 4"):
        layer.case("bl").run()
    at_once = Layer("LSTM", 1, 12, 2, 3, 130, direction="bidirectional")
    at_once.lengths[0] = 13
    with pytest.raises(inferkit.InferenceError, match=r"sequence_lens\[0\] is 13; expected 0 to 12"):
        at_once.case("bl").run(threads=2)
    layer.lengths[:] = [0, -1]
    with pytest.raises(inferkit.InferenceError, match=r"sequence_lens\[1\] is -1"):
        layer.case("bl").run()


def test_a_sequence_of_no_steps_keeps_its_state() -> None:
    layer = Layer("LSTM", 1, 4, 2, 3, 5)
    layer.lengths[:] = [0, 4]
    agree(layer.case("blhc"), layer.expected("blhc"), 4)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("shape", [(2**40, 2**18, 0), (2**40, 4, 0)])
def test_a_run_that_64_bits_do_not_count_is_refused(op: str, shape: tuple[int, int, int]) -> None:
    hidden = 4 if shape[1] > 4 else 1024
    w, r = np.zeros((2, GATES[op] * hidden, 0), np.float32), np.zeros((2, GATES[op] * hidden, hidden), np.float32)
    node = helper.make_node(op, ["x", "w", "r"], ["", "h"], hidden_size=hidden, direction="bidirectional")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * 3)],
        [helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(r, "r")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    for threads in (1, 2):
        loaded = inferkit.Model.load(model, threads=threads, input_checks=LENIENT)
        with pytest.raises(inferkit.ValidationError, match="one run may take at most"):
            loaded(np.zeros(shape, np.float32))


@pytest.mark.parametrize("op", GATES)
def test_nothing_to_do(op: str) -> None:
    for steps, batch in [(0, 2), (3, 0)]:
        layer = Layer(op, 1, 1, 1, 3, 5)
        layer.x = np.zeros((steps, batch, 3), np.float32)
        layer.h0 = np.ones((1, batch, 5), np.float32)
        found = layer.case("bh").run()
        assert found[0].shape == (steps, 1, batch, 5)
        np.testing.assert_array_equal(found[1], layer.h0)


def test_refusals() -> None:
    layer = Layer("LSTM", 1, 4, 2, 3, 5)

    def load(**attributes: Any) -> None:
        inferkit.Model.load(Case("LSTM", *layer.inputs("b"), **attributes).bytes_with_output("float32", (4, 1, 2, 5)))

    with pytest.raises(inferkit.UnsupportedOpError, match="activation 'Gelu'"):
        load(hidden_size=5, activations=["Sigmoid", "Gelu", "Tanh"])
    with pytest.raises(inferkit.UnsupportedOpError, match="'ScaledTanh' without its alpha"):
        load(hidden_size=5, activations=["Sigmoid", "ScaledTanh", "Tanh"])
    with pytest.raises(inferkit.UnsupportedOpError, match="'ThresholdedRelu' without its alpha"):
        load(hidden_size=5, activations=["Sigmoid", "ThresholdedRelu", "Tanh"])
    with pytest.raises(inferkit.ModelError, match="2 activations for 1 direction of 3"):
        load(hidden_size=5, activations=["Sigmoid", "Tanh"])
    with pytest.raises(inferkit.ModelError, match="W has shape"):
        load(hidden_size=4)
    with pytest.raises(inferkit.ModelError, match="direction must be"):
        load(hidden_size=5, direction="backward")


@pytest.mark.parametrize("case", node_test_cases("LSTM", "GRU", "RNN"), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)
