"""What one run may take: a small file, or a small input, does not get all of the machine's memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

MIB = 1 << 20
node = helper.make_node


def load(
    nodes: list[onnx.NodeProto], x: tuple[int | str, ...], *constants: onnx.TensorProto, dtype: int = TensorProto.FLOAT,
    **options: int,
) -> inferkit.Model:  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return inferkit.Model.load(made.SerializeToString(), **options)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name: str, value: float, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


HUGE = {
    "Range": ([node("Range", ["a", "b", "c"], ["r"], name="culprit"), node("Add", ["x", "r"], ["y"])],
              [scalar("a", 0), scalar("b", 3e9), scalar("c", 1)]),
    "Expand": ([node("Expand", ["x", "s"], ["y"], name="culprit")], [ints("s", 60_000, 60_000)]),
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["r"], name="culprit"), node("Add", ["x", "r"], ["y"])],
                        [ints("s", 3_000_000_000)]),
    "Tile": ([node("Tile", ["x", "s"], ["y"], name="culprit")], [ints("s", 3_000_000_000)]),
    "Pad": ([node("Pad", ["x", "s"], ["y"], name="culprit")], [ints("s", 0, 3_000_000_000)]),
    "Resize": ([node("Resize", ["x", "", "", "s"], ["y"], name="culprit")], [ints("s", 3_000_000_000)]),
    "MatMul": ([node("Unsqueeze", ["x", "o"], ["u"]), node("Expand", ["u", "s"], ["e"]),
                node("Transpose", ["e"], ["t"]), node("MatMul", ["e", "t"], ["y"], name="culprit")],
               [ints("o", 1), ints("s", 100_000, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_files_that_ask_for_much(name: str) -> None:
    nodes, constants = HUGE[name]
    start, before = time.monotonic(), rss()
    with pytest.raises(inferkit.ModelError, match=r"culprit.*MiB.*max_run_bytes"):
        load(nodes, (1,), *constants)
    assert time.monotonic() - start < 5
    assert rss() - before < 100 * MIB


def test_what_is_asked_for_by_values_that_come_with_the_run() -> None:
    nodes = [node("Cast", ["z"], ["y"], to=TensorProto.FLOAT), node("ConstantOfShape", ["x"], ["z"], name="culprit")]
    model = load(nodes, (1,), dtype=TensorProto.INT64)
    assert model(np.array([3])).shape == (3,)
    start = time.monotonic()
    with pytest.raises(inferkit.ValidationError, match=r"culprit.*MiB.*max_run_bytes") as caught:
        model(np.array([3_000_000_000]))
    assert caught.value.reason == "too_large"
    assert time.monotonic() - start < 5


def of_ones(shape: str, *after: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that make as many trues as the input asks for, and then the others."""
    ones = numpy_helper.from_array(np.array([True]))
    return [node("ConstantOfShape", [shape], ["ones"], value=ones), *after]


PLACES = [
    node("NonZero", ["ones"], ["p"], name="culprit"),
    node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
]


def test_how_many_places_there_are_counts_before_they_are_listed() -> None:
    """Twenty million places in eight dimensions are 1.2 GiB, which 270 bytes of a file, or of a request, ask for."""
    by_values = load(of_ones("x", *PLACES), (8,), dtype=TensorProto.INT64, max_run_bytes=64 * MIB)
    small = np.full(8, 2)
    assert by_values(small).shape == (8, 256)
    before = rss()
    with pytest.raises(inferkit.ValidationError, match=r"culprit.*\(8, 20000000\).*max_run_bytes") as caught:
        by_values(np.array([1, 1, 1, 1, 1, 1, 20, 1_000_000]))
    assert caught.value.reason == "too_large"
    assert rss() - before < 200 * MIB
    fixed = of_ones("s", *PLACES)
    with pytest.raises(inferkit.InferkitError, match=r"culprit.*\(8, 20000000\).*max_run_bytes"):
        load(fixed, ("N",), ints("s", 1, 1, 1, 1, 1, 1, 20, 1_000_000), max_run_bytes=64 * MIB)
    assert rss() - before < 200 * MIB


def test_boxes_that_are_picked_count_as_they_are_picked() -> None:
    nodes = [
        node("NonMaxSuppression", ["b", "x", "most", "iou"], ["p"], name="culprit"),
        node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    boxes = np.zeros((1, 500, 4), np.float32)  # none has an area, so none overlaps another
    constants = [numpy_helper.from_array(boxes, "b"), scalar("most", 500, np.int64), scalar("iou", 0.5)]
    model = load(nodes, (1, "C", 500), *constants, max_run_bytes=4 * MIB)
    assert model(np.ones((1, 100, 500), np.float32)).shape == (50_000, 3)
    with pytest.raises(inferkit.ValidationError, match=r"culprit.*max_run_bytes") as caught:
        model(np.ones((1, 1000, 500), np.float32))
    assert caught.value.reason == "too_large"


def test_a_request_that_two_plans_hold_too_much_of_is_too_large() -> None:
    nodes = [node("Compress", ["c", "x"], ["p"], axis=0), node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)]
    nodes.insert(0, node("Cast", ["x"], ["c"], to=TensorProto.INT8))
    model = load(nodes, ("N",), dtype=TensorProto.BOOL, max_run_bytes=8 * MIB)
    assert model(np.ones(1000, bool)).shape == (1000,)
    with pytest.raises(inferkit.ValidationError, match="max_run_bytes") as caught:
        model(np.ones(6 * MIB, bool))
    assert caught.value.reason == "too_large"


def outer(**options: int) -> inferkit.Model:
    """x (N,) -> the product of each with each (N, N)."""
    nodes = [
        node("Unsqueeze", ["x", "o"], ["u"]),
        node("Mul", ["x", "u"], ["p"], name="culprit"),
        node("Relu", ["p"], ["y"]),
    ]
    return load(nodes, ("N",), ints("o", 1), **options)


def test_inputs_that_ask_for_much() -> None:
    model = outer(max_run_bytes=MIB)
    assert model(np.ones(350, np.float32)).shape == (350, 350)
    with pytest.raises(inferkit.ValidationError, match=r"'x' \(600,\).*at most 1024 KiB") as caught:
        model(np.ones(600, np.float32))
    assert caught.value.reason == "too_large"
    assert model(np.ones(350, np.float32)).shape == (350, 350)


def test_the_default_bounds_inputs_too() -> None:
    with pytest.raises(inferkit.ValidationError, match=r"culprit.*max_run_bytes"):
        outer()(np.ones(100_000, np.float32))


def test_the_limit_is_the_user_s() -> None:
    x = np.ones(600, np.float32)
    assert outer(max_run_bytes=4 * MIB)(x).shape == (600, 600)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_run_bytes"):
            outer(max_run_bytes=wrong)


def test_many_small_values_count_together() -> None:
    """Forty values of 100 KB that must all be there at once."""
    nodes = [node("Mul", ["x", f"c{i}"], [f"v{i}"]) for i in range(40)]
    nodes.append(node("Sum", [f"v{i}" for i in range(40)], ["y"]))
    constants = [scalar(f"c{i}", i + 1) for i in range(40)]
    with pytest.raises(inferkit.ValidationError, match=r"besides its outputs.*the largest value: a node"):
        load(nodes, ("N",), *constants, max_run_bytes=2 * MIB)(np.ones(25_000, np.float32))
    load(nodes, ("N",), *constants, max_run_bytes=8 * MIB)(np.ones(25_000, np.float32))


def test_values_that_only_lend_their_shape_cost_nothing() -> None:
    nodes = [
        node("Expand", ["x", "s"], ["e"]),
        node("Shape", ["e"], ["n"]),
        node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
    ]
    model = load(nodes, (1,), ints("s", 2**33))
    assert model(np.ones(1, np.float32)).tolist() == [2.0**33]
