"""The passes never change what a model means: chains of their patterns, against ONNX Runtime without its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferkit

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WIDTH = 6


class Net:
    """A model that grows one pattern at a time; `dims` is the rank of what flows through it."""

    def __init__(self, rng: np.random.Generator, dims: int) -> None:
        self.rng, self.dims = rng, dims
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def const(self, array: np.ndarray | float, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def normal(self, *shape: int, scale: float = 0.5) -> str:
        return self.const(self.rng.standard_normal(shape) * scale)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def maybe_swapped(self, kind: str, a: str, b: str) -> str:
        return self.op(kind, b, a) if self.rng.integers(2) else self.op(kind, a, b)


def linear(n: Net, x: str) -> str:
    form = n.rng.integers(3)
    if n.dims == 2 and form == 0:
        row = [(WIDTH,), (1, WIDTH), (1,), ()][n.rng.integers(4)]
        return n.op("Gemm", x, n.normal(WIDTH, WIDTH), n.normal(*row), transB=int(n.rng.integers(2)))
    w = n.normal(WIDTH, WIDTH)
    y = n.op("MatMul", x, n.op("Transpose", w, perm=[1, 0]) if n.rng.integers(2) else w)
    return n.maybe_swapped("Add", y, n.normal(WIDTH)) if form == 1 else y


def conv(n: Net, x: str) -> str:
    if n.dims != 4:
        return linear(n, x)
    group = int([1, 2, WIDTH][n.rng.integers(3)])
    kind = ["Conv", "ConvTranspose"][n.rng.integers(2)]
    inputs = [x, n.normal(WIDTH, WIDTH // group, 3, 3, scale=0.3)]
    if n.rng.integers(2):
        inputs.append(n.normal(WIDTH))
    return n.op(kind, *inputs, group=group, pads=[1, 1, 1, 1])


def batch_norm(n: Net, x: str) -> str:
    if n.dims == 3:
        return x
    variance = n.const(n.rng.uniform(0.2, 2, WIDTH))
    return n.op("BatchNormalization", x, n.normal(WIDTH), n.normal(WIDTH), n.normal(WIDTH), variance, epsilon=1e-3)


def activation(n: Net, x: str) -> str:
    kind = ["Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Clip"][n.rng.integers(8)]
    if kind == "Clip":
        low, high = n.const(-0.5), n.const(0.75)
        return n.op(kind, x, *[(low, high), (low,), ("", high), ()][n.rng.integers(4)])
    if kind in ("LeakyRelu", "Elu") and n.rng.integers(2):
        return n.op(kind, x, alpha=0.3)
    return n.op(kind, x)


def gelu(n: Net, x: str) -> str:
    z = n.op("Div", x, n.const(2**0.5)) if n.rng.integers(2) else n.maybe_swapped("Mul", x, n.const(0.5**0.5))
    s = n.maybe_swapped("Add", n.op("Erf", z), n.const(1))
    factors = [x, s, n.const(0.5)]
    n.rng.shuffle(factors)
    return n.op("Mul", n.op("Mul", factors[0], factors[1]), factors[2])


def silu(n: Net, x: str) -> str:
    return n.maybe_swapped("Mul", x, n.op("Sigmoid", x))


def layer_norm(n: Net, x: str) -> str:
    d = n.op("Sub", x, n.op("ReduceMean", x, axes=[-1]))
    square = n.op("Pow", d, n.const(2)) if n.rng.integers(2) else n.op("Mul", d, d)
    root = n.op("Sqrt", n.maybe_swapped("Add", n.op("ReduceMean", square, axes=[-1]), n.const(1e-5)))
    y = n.maybe_swapped("Mul", n.op("Div", d, root), n.normal(WIDTH, scale=1))
    return n.maybe_swapped("Add", y, n.normal(WIDTH)) if n.rng.integers(2) else y


def tidy(n: Net, x: str) -> str:
    """What disappears."""
    kind = ["Identity", "Cast", "Dropout"][n.rng.integers(3)]
    return n.op(kind, x, to=TensorProto.FLOAT) if kind == "Cast" else n.op(kind, x)


def look_alike(n: Net, x: str) -> str:
    """What must not be fused, or not entirely."""
    form = n.rng.integers(4)
    if form == 0:  # read twice
        return n.op("Add", n.op("Relu", x), n.op("Tanh", x))
    if form == 1:  # an output in the middle
        n.outputs.append(x)
        return n.op("Relu", x)
    if form == 2:  # nearly GELU
        return n.op("Mul", n.op("Mul", x, n.op("Add", n.op("Erf", x), n.const(1))), n.const(0.5))
    return n.op("Mul", n.op("Sigmoid", x), n.normal(WIDTH))


def channels_last(n: Net, x: str) -> str:
    """As exporters write what wants channels first, where they come last."""
    if n.dims != 4:
        return linear(n, x)
    y = n.op("Transpose", x, perm=[0, 3, 1, 2])
    y = [conv, batch_norm, activation][n.rng.integers(3)](n, y)
    y = n.op("Transpose", y, perm=[0, 2, 3, 1])
    return n.maybe_swapped("Add", y, n.normal(WIDTH)) if n.rng.integers(2) else y


def numbers(n: Net, x: str) -> str:
    """Arithmetic with numbers, as exporters spell out activations."""
    y = x
    for _ in range(int(n.rng.integers(2, 6))):
        kind = ["Add", "Sub", "Mul", "Relu", "Clip", "Div"][n.rng.integers(6)]
        if kind == "Clip":
            y = n.op(kind, y, n.const(-1), n.const(1.5))
        elif kind == "Relu":
            y = n.op(kind, y)
        elif kind == "Div":
            y = n.op(kind, y, n.const([2.5]))
        else:
            y = n.maybe_swapped(kind, y, n.const(0.75) if n.rng.integers(2) else x)
    return y


def along_an_axis(n: Net, x: str) -> str:
    """What minds the order of the dimensions."""
    axis = int(n.rng.integers(-n.dims, n.dims))
    form = n.rng.integers(5)
    if form == 0:
        return n.op("Softmax", x, axis=axis)
    if form == 1:
        return n.maybe_swapped("Mul", x, n.op("ReduceMean", x, axes=[axis], keepdims=1))
    if form == 2:
        shape = [1] * n.dims
        shape[axis if axis % n.dims else -1] = WIDTH
        return n.maybe_swapped("Add", x, n.normal(*shape))
    if form == 3:
        return n.op("Add", x, n.normal(*[WIDTH] * (n.dims - 1)))
    if axis % n.dims == 0:
        return n.maybe_swapped("Max", x, n.const(0.25))
    halves = [n.op(kind, x) for kind in ("Relu", "Neg")]
    both = n.op("Concat", *halves, axis=axis)
    return n.op("Slice", both, n.const([2], np.int64), n.const([2 + WIDTH], np.int64), n.const([axis], np.int64))


PATTERNS = [
    linear,
    conv,
    batch_norm,
    activation,
    gelu,
    silu,
    layer_norm,
    tidy,
    look_alike,
    channels_last,
    along_an_axis,
    numbers,
]


def build(n: Net, steps: list[int]) -> bytes:
    x = "x"
    for step in steps:
        x = PATTERNS[step](n, x)
    shape: list[int | str] = ["batch", WIDTH, WIDTH, WIDTH] if n.dims == 4 else ["batch", *[WIDTH] * (n.dims - 1)]
    names = [v for v in dict.fromkeys([*n.outputs, n.op("Identity", x)]) if v != "x"]
    graph = helper.make_graph(
        n.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        n.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.integers(0, len(PATTERNS) - 1) | st.sampled_from([9, 10, 11]), min_size=1, max_size=7),
    dims=st.integers(2, 4) | st.just(4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_onnx_runtime(steps: list[int], dims: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = build(Net(rng, dims), steps)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    x = rng.standard_normal((batch, *[WIDTH] * (dims - 1)), dtype=np.float32)
    names = [o.name for o in session.get_outputs()]
    got = inferkit.Model.load(data).run({"x": x})
    assert list(got) == names
    for name, want in zip(names, session.run(None, {"x": x}), strict=True):
        assert got[name].shape == want.shape
        np.testing.assert_allclose(got[name], want, rtol=2e-4, atol=2e-4 * max(1, np.abs(want).max()), err_msg=name)


@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.parametrize("bounds", [(np.nan, 1.0), (0.0, np.nan)])
def test_a_bound_that_is_nan_bounds_to_nan(bounds: tuple[float, float], dims: int) -> None:
    n = Net(np.random.default_rng(1), dims)
    y = n.op("Clip", (conv if dims == 4 else linear)(n, "x"), n.const(bounds[0]), n.const(bounds[1]))
    n.outputs.append(y)
    model = inferkit.Model.load(build(n, []), input_checks=inferkit.InputChecks(finite=False))
    found = model.run({"x": np.ones((2, *[WIDTH] * (dims - 1)), np.float32)})
    assert np.isnan(found[y]).all()


@pytest.mark.parametrize("dims", [2, 4])
def test_thresholded_relu_of_nan_is_zero(dims: int) -> None:
    n = Net(np.random.default_rng(1), dims)
    y = n.op("ThresholdedRelu", (conv if dims == 4 else linear)(n, "x"), alpha=0.5)
    n.outputs.append(y)
    model = inferkit.Model.load(build(n, []), input_checks=inferkit.InputChecks(finite=False))
    x = np.full((2, *[WIDTH] * (dims - 1)), np.nan, np.float32)
    assert (model.run({"x": x})[y] == 0).all()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dims", [2, 4])
def test_a_layer_norm_without_constants_is_one_step(dims: int, scaled: bool) -> None:
    """Its scale and shift are computed, as diffusion models write it, or there are none."""
    n = Net(np.random.default_rng(1), dims)
    d = n.op("Sub", "x", n.op("ReduceMean", "x", axes=[-1]))
    variance = n.op("ReduceMean", n.op("Pow", d, n.const(2)), axes=[-1])
    y = n.op("Div", d, n.op("Sqrt", n.op("Add", variance, n.const(1e-5))))
    if scaled:
        scale, shift = (n.op("MatMul", "x", n.normal(WIDTH, WIDTH)) for _ in range(2))
        y = n.op("Add", n.op("Mul", y, n.op("Add", scale, n.const(1))), shift)
    n.outputs.append(y)
    data = build(n, [])
    model = inferkit.Model.load(data)
    x = np.random.default_rng(2).standard_normal((3, *[WIDTH] * (dims - 1)), dtype=np.float32)
    steps = [step.operator for step in model.explain({"x": x.shape}).steps]
    assert steps.count("inferkit.LayerNorm") == 1
    assert "ReduceMean" not in steps
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    want = session.run([y], {"x": x})[0]
    np.testing.assert_allclose(model.run({"x": x})[y], want, rtol=1e-5, atol=1e-5)
