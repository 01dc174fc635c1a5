"""Graphs whose shapes depend on values, in wrong hands: small files that ask for much between plans, or at load."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, parser

import inferkit

Array = np.ndarray[Any, Any]
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
HUGE = 2**40
SECONDS = 60 if inferkit.build_info()["sanitizers"] else 5  # what must not last for hours


def load(text: str, opset: int = 18) -> inferkit.Model:
    source = f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}'
    return inferkit.Model.load(parser.parse_model(source).SerializeToString(), input_checks=LENIENT)


def answers_or_refuses(text: str, feed: dict[str, Array], opset: int = 18) -> dict[str, Array] | None:
    start = time.monotonic()
    try:
        return dict(load(text, opset).run(feed))
    except inferkit.InferkitError:
        return None
    finally:
        assert time.monotonic() - start < SECONDS


def test_slices_of_no_elements_are_counted() -> None:
    """There are 2^40 of them, all alike, and which of them each is like takes memory."""
    text = f"g (float[{HUGE}, 0] x) => (int64[N] first, int64[N] which) {{ y, first, which = Unique <axis = 0> (x) }}"
    assert answers_or_refuses(text, {"x": np.zeros((HUGE, 0), np.float32)}) is None


def test_slices_of_no_elements_are_alike() -> None:
    model = load("g (float[5, 0] x) => (int64[N] which, int64[N] n) { y, first, which, n = Unique <axis = 0> (x) }")
    found = model.run({"x": np.zeros((5, 0), np.float32)})
    assert (found["which"].tolist(), found["n"].tolist()) == ([0] * 5, [5])


@pytest.mark.parametrize(("batch", "classes", "boxes"), [(0, 1, HUGE), (HUGE, 1, 0), (1, HUGE, 0), (0, HUGE, 1)])
def test_boxes_of_no_elements(batch: int, classes: int, boxes: int) -> None:
    text = f"""g (float[{batch}, {boxes}, 4] b, float[{batch}, {classes}, {boxes}] s) => (int64[N, 3] y) {{
      most = Constant <value_ints = [3]> ()
      y = NonMaxSuppression (b, s, most)
    }}"""
    feed = {"b": np.zeros((batch, boxes, 4), np.float32), "s": np.zeros((batch, classes, boxes), np.float32)}
    found = answers_or_refuses(text, feed)
    assert found is None or found["y"].shape == (0, 3)


def boxes_apart(count: int) -> str:
    """Unit boxes in a row: none overlaps another, and each is compared with all of them."""
    return f"""g (float[1] x) => (int64[N, 3] y) {{
      zero = Constant <value_float = 0.0> ()
      two = Constant <value_float = 2.0> ()
      end = Constant <value_float = {2.0 * count}> ()
      left = Range (zero, end, two)
      line = Constant <value_ints = [1, -1, 1]> ()
      row = Reshape (left, line)
      corners = Constant <value = float[1, 1, 4] {{0, 0, 1, 1}}> ()
      boxes = Add (row, corners)
      size = Constant <value_ints = [1, 1, {count}]> ()
      score = Expand (x, size)
      most = Constant <value_ints = [{count}]> ()
      y = NonMaxSuppression (boxes, score, most)
    }}"""


def test_boxes_that_do_not_overlap_are_all_picked() -> None:
    found = load(boxes_apart(50)).run({"x": np.ones(1, np.float32)})
    assert found["y"][:, 2].tolist() == list(range(50))


@pytest.mark.unsanitized("its estimates of time are for another speed")
def test_many_boxes_do_not_hold_up_loading() -> None:
    """Half a million of them: their pairs would take minutes, and loading runs the model on zeros."""
    start = time.monotonic()
    load(boxes_apart(1 << 19))
    assert time.monotonic() - start < SECONDS


def test_boxes_without_area_overlap_nothing() -> None:
    text = """g (float[1, N, 4] b, float[1, 1, N] s) => (int64[M, 3] y) {
      most = Constant <value_ints = [3]> ()
      y = NonMaxSuppression (b, s, most)
    }"""
    corners = np.array([[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]]], np.float32)
    found = load(text).run({"b": corners, "s": np.array([[[5, 4, 3, 2, 1]]], np.float32)})
    assert found["y"][:, 2].tolist() == [0, 1, 2]


@pytest.mark.parametrize("axis", [0, 1, 4])
def test_a_scan_of_nothing_whose_body_declares_much(axis: int) -> None:
    text = f"""g (float[0, 3] x) => (y) {{
      y = Scan <num_scan_inputs = 1, scan_output_axes = [{axis}],
                body = b (float[3] i) => (float[{HUGE}, {HUGE}, {HUGE}, {HUGE}] o) {{ o = Identity (i) }}> (x)
    }}"""
    assert answers_or_refuses(text, {"x": np.zeros((0, 3), np.float32)}) is None


def test_a_loop_that_compiles_a_plan_in_every_iteration_does_not_hold_up_loading() -> None:
    """Its state grows, so every iteration has shapes of its own, and a plan of 600 nodes."""
    chain = "\n".join(f"t{i + 1} = Relu (t{i})" for i in range(600))
    text = f"""g (float[1] x) => (y, z) {{
      trips = Constant <value_int = 1000000000> ()
      y, z = Loop <body = b (int64 i, bool go, float[N] s) => (bool again, float[M] t0, float[1] last) {{
        again = Identity (go)
        one = Constant <value_floats = [1.0]> ()
        t0 = Concat <axis = 0> (s, one)
        {chain}
        last = ReduceSum <keepdims = 1> (t600)
      }}> (trips, , x)
    }}"""
    start = time.monotonic()
    with contextlib.suppress(inferkit.InferkitError):
        load(text)
    assert time.monotonic() - start < SECONDS


def test_folding_many_slow_nodes_does_not_hold_up_loading() -> None:
    """Each is a tenth of a second, and gives next to no bytes."""
    count = 300
    text = f"""g (float[1] x) => (y) {{
      size = Constant <value_ints = [900, 900]> ()
      big = ConstantOfShape <value = float[1] {{1.0}}> (size)
      {"".join(f"d{i} = Det (big)" for i in range(count))}
      y = Sum (x, {", ".join(f"d{i}" for i in range(count))})
    }}"""
    start = time.monotonic()
    load(text)
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("length", [-(2**63), -1, 2**63 - 1])
def test_lengths_of_sequences_that_make_no_sense(length: int) -> None:
    """They are taken as the nearest that do; found by the fuzzer as an overflow."""
    names = ["q", "k", "v", "", "", "", "n"]
    shape = [1, 1, 4, 8]
    graph = helper.make_graph(
        [helper.make_node("Attention", names, ["y"], is_causal=1)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"]
        + [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10).SerializeToString()
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = inferkit.Model.load(content)
    feed = {"q": x, "k": x, "v": x}
    found = model.run({**feed, "n": np.array([length])})["y"]
    near = model.run({**feed, "n": np.array([np.clip(length, 0, 4)])})["y"]
    np.testing.assert_array_equal(found, near)
