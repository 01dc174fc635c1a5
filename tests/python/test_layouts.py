"""Stretches of convolutions run over blocks of sixteen channels, with the bits of plain tensors."""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_known_operators import FUNCTIONS

import inferkit

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


class Network:
    """Convolutions and what stands between them, in the order in which they are written down."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        self.rng = np.random.default_rng(channels)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, *size])

    def put(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def constant(self, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value.astype(np.float32), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def whole(self, values: list[int]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def conv(self, x: str, channels: int, filters: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        shape = (filters, channels // group, kernel, kernel)
        weights = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        bias = self.constant(self.rng.standard_normal(filters))
        pads = [kernel // 2] * 4
        return self.put("Conv", x, self.constant(weights), bias, group=group, strides=[stride, stride], pads=pads)

    def file(self, *outputs: str, opset: int = 17) -> bytes:
        named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", [self.input], named, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        return made.SerializeToString()


def residual_network() -> bytes:
    """Bottlenecks with ReLU, one of them at stride 2, and a pool at the end."""
    net = Network(64, (14, 14))
    x = net.put("Relu", net.conv("x", 64, 128, 1))
    for stride, wide in ((1, 128), (2, 192)):
        channels = 128
        same = net.conv(x, channels, wide, 1, stride) if wide != channels else x
        y = net.put("Relu", net.conv(x, channels, 64, 1))
        y = net.put("Relu", net.conv(y, 64, 64, 3, stride))
        x = net.put("Relu", net.put("Add", net.conv(y, 64, wide, 1), same))
    return net.file(net.put("GlobalAveragePool", x))


def inverted_network() -> bytes:
    """Depthwise convolutions between pointwise ones, clipped, swished and added; what leaves is in the middle, too."""
    net = Network(48, (13, 11))
    low, high = net.constant(np.float32(0)), net.constant(np.float32(6))
    x = net.conv("x", 48, 64, 1)
    for activation in ("clip", "swish"):
        y = net.conv(x, 64, 192, 1)
        if activation == "clip":
            y = net.put("Clip", y, low, high)
        else:
            z = net.put("Clip", net.put("Add", y, net.constant(np.float32(3))), low, high)
            y = net.put("Div", net.put("Mul", y, z), high)
        y = net.put("Sigmoid", net.conv(y, 192, 192, 3, group=192))
        middle = y
        x = net.put("Add", x, net.conv(y, 192, 64, 1))
    return net.file(net.put("MaxPool", x, kernel_shape=[2, 2]), middle, x)


def squeezed_network() -> bytes:
    """Squeeze and excite: products with one value a channel, from the run and from the file, of every rank."""
    net = Network(32, (24, 25))
    x = net.put("Relu", net.conv("x", 32, 64, 3))
    for stride in (1, 2):
        pooled = net.put("GlobalAveragePool", x) if stride == 1 else net.put("ReduceMean", x, axes=[2, 3])
        gate = net.put("Sigmoid", net.conv(net.put("Relu", net.conv(pooled, 64, 24, 1)), 24, 96, 1))
        y = net.put("Mul", net.constant(net.rng.standard_normal((1, 64, 1, 1))), net.conv(x, 64, 64, 3))
        y = net.put("Mul", net.conv(y, 64, 96, 3, stride), gate)
        y = net.put("Add", net.conv(y, 96, 64, 3), net.constant(net.rng.standard_normal((64, 1, 1))))
        x = net.put("HardSigmoid", net.conv(y, 64, 64, 3))
    return net.file(net.put("Sub", x, net.constant(np.float32(0.25))))


REDUCTIONS = ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "SumSquare")


def reduced_network(*ways: tuple[str, dict[str, Any]]) -> bytes:
    """Reductions that read what convolutions write."""
    net = Network(32, (9, 10))
    x = net.put("Sigmoid", net.conv(net.put("Relu", net.conv("x", 32, 64, 3)), 64, 48, 3))
    return net.file(*(net.put(op, x, **attributes) for op, attributes in ways))


def all_reductions_network() -> bytes:
    """Over whole images, which are read in blocks, and over rows, columns and channels, which are not."""
    whole: list[tuple[str, dict[str, Any]]] = [
        (f"Reduce{op}", {"axes": [3, 2] if op == "Max" else [-2, -1], "keepdims": op != "L1"}) for op in REDUCTIONS
    ]
    others: list[tuple[str, dict[str, Any]]] = [
        ("ReduceMean", {"axes": axes}) for axes in ([2], [3], [1, 2, 3], [1], [1, 2])
    ]
    norms = [("GlobalLpPool", {"p": p}) for p in (1, 2, 3)]
    return reduced_network(*whole, *others, *norms, ("ReduceLogSumExp", {"axes": [2, 3]}))


def branching_network() -> bytes:
    """Values that are read in both layouts: by convolutions, concatenations, shapes, and as a graph's output."""
    net = Network(32, (9, 10))
    a = net.conv("x", 32, 64, 3)
    b = net.conv(a, 64, 64, 3)
    c = net.put("Concat", a, b, net.put("Add", a, b), axis=1)
    d = net.put("Mul", net.conv(c, 192, 64, 1), net.put("Sigmoid", net.put("GlobalAveragePool", b)))
    e = net.conv(net.put("Add", d, net.constant(net.rng.standard_normal((1, 64, 1, 1)))), 64, 40, 3)
    return net.file(e, a, net.put("Transpose", net.conv(d, 64, 32, 3), perm=[0, 2, 3, 1]))


def few_channels_network() -> bytes:
    """Planes of few channels, padded, at strides, or pixel by pixel, that become blocks; 40 of them stay planes."""
    net = Network(3, (45, 37))
    x = net.put("Relu", net.conv("x", 3, 32, 5, 2))
    x = net.put("Clip", net.conv(net.conv(x, 32, 40, 1), 40, 64, 1), net.constant(np.float32(-1)), "")
    x = net.put("Add", x, net.conv(net.conv(x, 64, 24, 3), 24, 64, 3))
    x = net.put("Relu", net.conv(net.put("Relu", net.conv(x, 64, 64, 3)), 64, 64, 3))
    return net.file(net.conv(net.conv("x", 3, 16, 3, 3), 16, 32, 7), net.put("HardSigmoid", net.conv(x, 64, 48, 1)))


def activated(net: Network, x: str, op: str) -> str:
    if op == "Clip":
        return net.put(op, x, net.constant(np.float32(-0.5)), net.constant(np.float32(1)))
    return net.put(op, x) if op else x


def widened_network() -> bytes:
    """Pointwise convolutions that depthwise ones read alone, of which no value is whole in memory."""
    net = Network(24, (37, 41))
    x = net.put("Relu", net.conv("x", 24, 32, 1))
    found = [net.conv(net.conv("x", 24, 160, 1), 160, 160, 3, 2, group=160)]  # from planes, written in planes
    windows: list[tuple[str, str, dict[str, Any]]] = [
        ("Relu", "Clip", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Clip", "", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("HardSwish", "Sigmoid", {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
        ("Sigmoid", "HardSwish", {"kernel_shape": [5, 5], "pads": [4, 0, 1, 3], "strides": [2, 1]}),
        ("", "Relu", {"kernel_shape": [7, 4], "pads": [0, 6, 9, 2], "strides": [3, 2], "dilations": [2, 1]}),
        ("Relu", "", {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1], "strides": [4, 1]}),
    ]
    for before, after, attributes in windows:
        filters = net.constant(net.rng.standard_normal((208, 32, 1, 1)) / 6)
        y = net.conv(x, 32, 208, 1) if before else net.put("Conv", x, filters)
        weights = net.constant(net.rng.standard_normal((208, 1, *attributes["kernel_shape"])))
        bias = [net.constant(net.rng.standard_normal(208))] if before else []
        y = activated(net, y, before)
        y = activated(net, net.put("Conv", y, weights, *bias, group=208, **attributes), after)
        found.append(net.conv(y, 208, 24 if after else 48, 1))
    return net.file(*found)


def pooled_network() -> bytes:
    """Pools between convolutions: of pairs, padded, past the edge, wide ones, global ones; one of 40 channels stays."""
    net = Network(3, (37, 30))
    x = net.put("Relu", net.conv("x", 3, 32, 3))
    x = net.put("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.put("AveragePool", net.conv(x, 32, 64, 3), kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)
    x = net.put("MaxPool", net.conv(x, 64, 64, 1), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    y = net.conv(x, 64, 48, 3)
    y = net.put("Concat", y, *(net.put("MaxPool", y, kernel_shape=[5, 5], pads=[2] * 4) for _ in range(2)), axis=1)
    y = net.conv(y, 144, 32, 1)
    y = net.conv(net.put("AveragePool", y, kernel_shape=[2, 2], pads=[0, 1, 1, 0]), 32, 32, 3)
    found = [net.put("GlobalMaxPool", y), net.put("GlobalAveragePool", y), net.put("GlobalLpPool", y)]
    z = net.put("MaxPool", net.conv(x, 64, 40, 3), kernel_shape=[2, 2])
    return net.file(*found, net.conv(z, 40, 16, 3), net.put("MaxPool", y, kernel_shape=[3, 3]))


# Of the pools behind convolutions: the convolution's kernel, its activation, and the pool.
POOLS: list[tuple[int, str, str, dict[str, Any]]] = [
    (3, "Relu", "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    (3, "Relu", "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    (1, "Tanh", "MaxPool", {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
    (3, "Gelu", "MaxPool", {"kernel_shape": [2, 3], "strides": [3, 1]}),  # rows that no window reads
    (5, "", "MaxPool", {"kernel_shape": [3, 2], "dilations": [4, 3], "pads": [2, 1, 1, 0]}),
    (1, "", "MaxPool", {"kernel_shape": [70, 2]}),  # of more rows than are kept
    (3, "Sigmoid", "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 2, 2, 1], "count_include_pad": 1}),
    (1, "Relu", "AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1}),
    (3, "", "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    (3, "", "AveragePool", {"kernel_shape": [15, 9], "strides": [4, 5]}),
]


def convolved_and_pooled_network() -> bytes:
    """Pools that alone read convolutions, over rows that no room holds at once; convolutions read what they give."""
    net = Network(20, (71, 60))
    found = []
    for kernel, activation, op, window in POOLS:
        x = net.put("Relu", net.conv("x", 20, 128, 1))
        x = net.conv(x, 128, 112, kernel)  # seven blocks, of which six are summed at once
        if activation == "Gelu":
            x = net.put("Mul", net.put("Sigmoid", x), x)
        elif activation:
            x = net.put(activation, x)
        found.append(net.conv(net.put(op, x, **window), 112, 16, 1))
    return net.file(*found)


def joined_network() -> bytes:
    """Channels that are split and joined, also where they are no multiple of sixteen, and along other axes."""
    net = Network(16, (12, 10))

    def split(x: str, axis: int, *lengths: int) -> list[str]:
        names = [f"{x}_{axis}_{i}" for i in range(len(lengths))]
        net.nodes.append(helper.make_node("Split", [x, net.whole(list(lengths))], names, axis=axis))
        return names

    x = net.put("Relu", net.conv("x", 16, 64, 3))
    a, b = split(x, 1, 32, 32)
    c = net.put("Relu", net.conv(b, 32, 32, 3))
    x = net.conv(net.put("Concat", a, b, c, net.put("Add", b, c), axis=1), 128, 96, 1)
    parts = split(x, 1, 48, 16, 32)
    y = net.conv(net.put("Concat", parts[2], parts[0], axis=1), 80, 64, 3)
    odd = [net.conv(part, n, 32, 1) for part, n in zip(split(y, 1, 24, 40), (24, 40), strict=True)]
    y = net.conv(net.put("Concat", *(net.conv(z, 32, 32, 1) for z in odd), axis=2), 32, 64, 3)
    top, below = split(y, 2, 10, 14)
    beside = net.put("Concat", top, net.put("Slice", below, *map(net.whole, ([0], [10], [2]))), axis=3)
    last = net.conv(net.put("MaxPool", below, kernel_shape=[2, 2]), 64, 16, 1)
    return net.file(net.conv(beside, 64, 32, 3), parts[1], last)


def resized_network() -> bytes:
    """Images made larger and smaller, by every mode, between convolutions and beside pools."""
    net = Network(16, (9, 11))
    x = net.put("Relu", net.conv("x", 16, 32, 3))
    found = []
    for i, attributes in enumerate(
        [
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"mode": "nearest"},
            {"mode": "linear"},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
        ]
    ):
        scales = net.constant(np.array([1, 1, *((2, 2), (1.5, 1), (2, 3), (0.5, 2), (1, 2))[i]]))
        large = net.put("Resize", net.conv(x, 32, 48, 1), "", scales, **attributes)
        found.append(net.conv(net.put("MaxPool", large, kernel_shape=[2, 2]), 48, 16, 3))
        wide = net.constant(np.array([1, 1, 1, 3]))
        found.append(net.conv(net.put("Resize", net.put("Tanh", x), "", wide, **attributes), 32, 32, 1))
    return net.file(*found)


NETWORKS = {
    "resized": (resized_network, (16, 9, 11)),
    "joined": (joined_network, (16, 12, 10)),
    "pooled": (pooled_network, (3, 37, 30)),
    "convolved and pooled": (convolved_and_pooled_network, (20, 71, 60)),
    "widened": (widened_network, (24, 37, 41)),
    "few channels": (few_channels_network, (3, 45, 37)),
    "residual": (residual_network, (64, 14, 14)),
    "inverted": (inverted_network, (48, 13, 11)),
    "squeezed": (squeezed_network, (32, 24, 25)),
    "reduced": (all_reductions_network, (32, 9, 10)),
    "branching": (branching_network, (32, 9, 10)),
}


def draw(batch: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *shape), dtype=np.float32)


# Prints the bits of all outputs, for each file that it is given, and how many nodes wrote blocks.
RUN = """
import json, sys
import numpy as np, inferkit
out = []
for path in sys.argv[1:]:
    with np.load(path) as f:
        model, x = inferkit.Model.load(f["model"].tobytes(), threads=2), f["x"]
    steps = model.explain({"x": x.shape}).steps
    answer = model.run({"x": x})
    out.append([[v.tobytes().hex() for v in answer.values()], sum(step.layout == "blocks" for step in steps)])
print(json.dumps(out))
"""


def test_the_bits_are_those_of_plain_tensors(fresh_python: Fresh, tmp_path: Path) -> None:
    for name, (make, shape) in NETWORKS.items():
        np.savez(tmp_path / f"{name}.npz", model=np.frombuffer(make(), np.uint8), x=draw(3, shape))
    files = [str(tmp_path / f"{name}.npz") for name in NETWORKS]
    found = {}
    plain = "Conv=packed,MaxPool=generic,AveragePool=generic"
    for wish in ("", "Conv=blocks", "Conv=packed", "Conv=rows", "Conv=channels", plain):
        done = fresh_python(RUN, *files, env={"INFERKIT_LOWERING": wish})
        assert done.returncode == 0, done.stderr
        found[wish] = json.loads(done.stdout)
    for wish, rows in found.items():
        for name, (bits, blocks), (expected, _) in zip(NETWORKS, rows, found[plain], strict=True):
            assert bits == expected, (wish, name)
            if wish in ("", "Conv=blocks"):  # most of what the last one has is read in both layouts
                assert blocks > (0 if name in ("branching", "reduced") else 3), (wish, name)
            if wish == plain:
                assert blocks == 0, (wish, name)


@pytest.mark.parametrize("name", NETWORKS)
def test_against_onnx_runtime(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    make, shape = NETWORKS[name]
    data, x = make(), draw(2, shape)
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    answer = inferkit.Model.load(data).run({"x": x})
    for got, want in zip(answer.values(), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_batch_and_any_thread_count(name: str) -> None:
    make, shape = NETWORKS[name]
    data, x = make(), draw(9, shape)
    whole = inferkit.Model.load(data, threads=1).run({"x": x})
    for threads in (1, 2, 4):
        model = inferkit.Model.load(data, threads=threads)
        for first, last in ((0, 1), (2, 9)):
            answer = model.run({"x": x[first:last]})
            for output, value in answer.items():
                assert value.tobytes() == whole[output][first:last].tobytes()


@pytest.mark.parametrize("op", FUNCTIONS)
def test_a_function_of_one_float_stays_in_blocks(op: str) -> None:
    net = Network(32, (9, 10))
    before = net.conv("x", 32, 64, 3)
    value = net.put(op, before)
    after = net.conv(value, 64, 64, 3)
    shape, opset = (2, 32, 9, 10), 24 if op == "Swish" else 20
    steps = inferkit.Model.load(net.file(after, opset=opset), threads=1).explain({"x": shape}).steps
    assert {step.layout for step in steps if op in [part.operator for part in step.stands_for]} == {"blocks"}
    model = inferkit.Model.load(net.file(after, before, value, opset=opset))
    _, between, got = model.run({"x": draw(2, shape[1:])}).values()
    alone = Network(64, (9, 10))
    expected = inferkit.Model.load(alone.file(alone.put(op, "x"), opset=opset), input_checks=None)
    np.testing.assert_array_equal(got, expected(between))


def test_products_by_channel_stay_in_blocks() -> None:
    steps = inferkit.Model.load(squeezed_network(), threads=1).explain({"x": (1, 32, 24, 25)}).steps
    layouts = {step.layout for step in steps if step.operator in ("Mul", "Add")}
    assert layouts == {"blocks"}, [(step.operator, step.layout) for step in steps]


def test_pools_read_and_write_blocks() -> None:
    steps = inferkit.Model.load(pooled_network(), threads=1).explain({"x": (1, 3, 37, 30)}).steps
    pools = [step for step in steps if step.stands_for and "Pool" in step.stands_for[-1].operator]
    layouts = [(step.stands_for[-1].operator, step.layout) for step in pools]
    assert sum(op in ("MaxPool", "AveragePool") and layout == "blocks" for op, layout in layouts) >= 4, layouts
    assert not any(step.operator == "Reorder" for step in steps[: steps.index(pools[2])])


def test_a_pool_that_alone_reads_a_convolution_is_one_step_with_it() -> None:
    steps = inferkit.Model.load(convolved_and_pooled_network(), threads=1).explain({"x": (1, 20, 71, 60)}).steps
    ends = [[part.operator for part in step.stands_for] for step in steps]
    assert ends.count(["Conv", "Relu", "MaxPool"]) == 2
    assert ends.count(["Conv", "MaxPool"]) == 1
    assert ["Conv", "Tanh", "MaxPool"] in ends
    assert ["Conv", "Sigmoid", "Mul", "MaxPool"] in ends
    assert ["Conv", "Sigmoid", "AveragePool"] in ends
    assert ["MaxPool"] in ends  # of 70 rows
    joined = [step for step in steps if step.stands_for[-1].operator == "MaxPool" and len(step.stands_for) > 1]
    assert {(step.lowering, step.layout) for step in joined} == {("blocks", "blocks")}
    assert all(step.scratch_bytes < 112 * 71 * 60 * 4 / 2 for step in joined)
    net = Network(3, (32, 32))  # what others read too stays whole
    x = net.conv("x", 3, 32, 3)
    both = net.file(net.conv(net.put("MaxPool", x, kernel_shape=[2, 2]), 32, 16, 3), net.conv(x, 32, 16, 3))
    steps = inferkit.Model.load(both, threads=1).explain({"x": (1, 3, 32, 32)}).steps
    assert any([part.operator for part in step.stands_for] == ["MaxPool"] for step in steps)


@pytest.mark.parametrize("op", [f"Reduce{op}" for op in REDUCTIONS] + ["GlobalLpPool", "GlobalMaxPool"])
def test_reductions_of_whole_images_read_blocks(op: str) -> None:
    """A convolution writes blocks where all that reads them can."""
    whole: dict[str, Any] = {"axes": [2, 3]} if op.startswith("Reduce") else {}
    steps = inferkit.Model.load(reduced_network((op, whole)), threads=1).explain({"x": (1, 32, 9, 10)}).steps
    assert [step.layout for step in steps] == ["blocks", "blocks", "plain"]
    if op.startswith("Reduce"):
        rows = inferkit.Model.load(reduced_network((op, {"axes": [3]})), threads=1).explain({"x": (1, 32, 9, 10)}).steps
        assert [step.layout for step in rows] == ["blocks", "plain", "plain"]


def test_channels_are_split_and_joined_in_blocks() -> None:
    steps = inferkit.Model.load(joined_network(), threads=1).explain({"x": (1, 16, 12, 10)}).steps
    found = [(step.operator, step.layout, step.outputs[0].shape) for step in steps]
    assert ("Split", "blocks", (1, 32, 12, 10)) in found
    assert ("Concat", "blocks", (1, 128, 12, 10)) in found
    assert ("Concat", "blocks", (1, 80, 12, 10)) in found
    assert all(layout == "plain" for operator, layout, shape in found if operator == "Concat" and shape[2:] != (12, 10))


def test_images_are_resized_in_blocks() -> None:
    steps = inferkit.Model.load(resized_network(), threads=1).explain({"x": (1, 16, 9, 11)}).steps
    layouts = [step.layout for step in steps if step.operator == "Resize"]
    assert layouts[::2] == ["blocks"] * 5  # between a convolution and a pool


def test_what_blocks_bring_nothing_to_stays_plain() -> None:
    """A global pool reads blocks where convolutions write them; by itself it is no reason to turn anything."""
    net = Network(32, (6, 6))
    gate = net.put("Mul", "x", net.put("Sigmoid", net.put("ReduceMean", "x", axes=[2, 3])))
    both = net.put("Add", net.put("Tanh", gate), net.put("Exp", gate))
    model = inferkit.Model.load(net.file(net.put("GlobalAveragePool", net.put("Concat", both, gate, axis=1))))
    assert {step.layout for step in model.explain({"x": (1, 32, 6, 6)}).steps} == {"plain"}


def test_pools_of_sequences_read_and_write_blocks() -> None:
    net = Network(16, (60,))  # one dimension of space
    weights = [net.constant(net.rng.standard_normal((32, c, 3)) / 8) for c in (16, 32)]
    x = net.put("Conv", "x", weights[0], pads=[1, 1])
    x = net.put("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 0])
    x = net.put("GlobalAveragePool", net.put("Conv", x, weights[1]))
    data, values = net.file(x), draw(3, (16, 60))
    model = inferkit.Model.load(data, threads=1)
    assert [step.layout for step in model.explain({"x": (3, 16, 60)}).steps].count("blocks") == 3
    ort = pytest.importorskip("onnxruntime")
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": values})[0]
    np.testing.assert_allclose(model(values), expected, rtol=1e-4, atol=1e-4)


def test_explain_says_where_tensors_lie_in_blocks() -> None:
    steps = inferkit.Model.load(residual_network(), threads=1).explain({"x": (1, 64, 14, 14)}).steps
    assert {step.layout for step in steps} == {"plain", "blocks"}
    assert steps[-1].layout == "plain"
    convolutions = [step for step in steps if step.operator.endswith("Conv")]
    assert all(step.lowering == "blocks" for step in convolutions)
    assert {step.why for step in convolutions} <= {"cheapest", "neighbours"}
    ends = [[part.operator for part in step.stands_for] for step in convolutions]
    assert ["Conv", "Add", "Relu"] in ends


def test_what_is_widened_is_never_whole_in_memory() -> None:
    """A pointwise convolution and the depthwise one that alone reads it are one step where they are large."""
    explained = inferkit.Model.load(widened_network(), threads=1).explain({"x": (3, 24, 37, 41)})
    joined = [s for s in explained.steps if [p.operator for p in s.stands_for].count("Conv") == 2]
    assert len(joined) == 6
    assert {step.layout for step in joined} == {"blocks"}
    assert {step.lowering for step in joined} == {"channels"}
    widened = 3 * 208 * 37 * 41 * 4
    assert all(step.read_bytes < widened for step in joined)
    assert explained.arena_bytes < 2 * widened  # what windows give may be as large
    small = inferkit.Model.load(inverted_network(), threads=1).explain({"x": (1, 48, 13, 11)})
    assert all([p.operator for p in s.stands_for].count("Conv") < 2 for s in small.steps)
    # Windows that reach over many rows would have nearly all of them summed up for each task.
    for far in (2, 3):
        net = Network(24, (37, 41))
        wide = net.conv(net.put("Relu", net.conv("x", 24, 32, 1)), 32, 208, 1)
        weights = net.constant(net.rng.standard_normal((208, 1, 7, 4)))
        window = {"kernel_shape": [7, 4], "pads": [9, 6, 9, 2], "strides": [3, 2], "dilations": [far, 1]}
        y = net.put("Relu", net.put("Conv", wide, weights, group=208, **window))
        steps = inferkit.Model.load(net.file(net.conv(y, 208, 48, 1)), threads=1).explain({"x": (3, 24, 37, 41)}).steps
        assert any([p.operator for p in s.stands_for].count("Conv") == 2 for s in steps) == (far == 2)


@pytest.mark.parametrize("shape", ["one node that reads it 30,000 times", "3,000 nodes that read it"])
def test_a_value_that_many_read_costs_little_to_load(shape: str, fresh_python: Fresh, tmp_path: Path) -> None:
    net = Network(16, (8, 8))
    value = net.conv("x", 16, 16, 3)
    if shape.startswith("one"):
        outputs = [net.put("Max", *[value] * 30_000)]
    else:
        outputs = [net.put("Relu" if i % 2 else "Sigmoid", value) for i in range(3_000)]
    (tmp_path / "many.onnx").write_bytes(net.file(value, *outputs))
    code = """
        import sys, numpy as np, inferkit
        model = inferkit.Model.load(sys.argv[1])
        x = np.random.default_rng(1).standard_normal((1, 16, 8, 8)).astype(np.float32)
        conv, *others = model.run({"x": x}).values()
        want = conv if len(others) == 1 else np.maximum(conv, 0)
        np.testing.assert_array_equal(others[-1], want)
        (peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
        print(peak)  # KiB, of this process alone
    """
    done = fresh_python(textwrap.dedent(code), str(tmp_path / "many.onnx"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20


@pytest.mark.parametrize("channels", [16, 48])
def test_threads_share_the_rows_of_a_depthwise_convolution(channels: int) -> None:
    """One block of channels, or three, for two threads: pieces of odd heights, whose windows reach into each other."""
    net = Network(channels, (121, 17))
    x = net.conv("x", channels, channels, 1)
    for kernel, stride, after in ((3, 1, "Relu"), (5, 1, "Sigmoid"), (3, 2, "Relu"), (5, 2, "Tanh")):
        x = net.put(after, net.conv(x, channels, channels, kernel, stride, group=channels))
        x = net.conv(x, channels, channels, 1)
    data, image = net.file(x), draw(2, (channels, 121, 17))
    one, two = (inferkit.Model.load(data, threads=threads) for threads in (1, 2))
    ways = [step.lowering for step in two.explain({"x": image.shape}).steps if step.layout == "blocks"]
    assert ways.count("channels") >= 2
    assert one(image).tobytes() == two(image).tobytes()
    assert one(image[:1]).tobytes() == two(image)[:1].tobytes()
