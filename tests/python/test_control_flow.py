"""If, Loop, Scan, and shapes that depend on values: against ONNX Runtime, and against what the operators mean."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

import inferkit

Array = np.ndarray[Any, Any]
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)


def model_of(text: str, opset: int = 17) -> bytes:
    source = f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}'
    return parser.parse_model(source).SerializeToString()


def load(text: str, **options: Any) -> inferkit.Model:
    return inferkit.Model.load(model_of(text), input_checks=LENIENT, **options)


def reference(text: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model_of(text), options, providers=["CPUExecutionProvider"])


def check(text: str, *feeds: dict[str, Array]) -> None:
    model, session = load(text), reference(text)
    names = [o.name for o in session.get_outputs()]
    for _ in range(2):  # the second time all plans are there
        for feed in feeds:
            expected = session.run(None, feed)
            found = model.run(feed)
            for name, want in zip(names, expected, strict=True):
                assert found[name].dtype == want.dtype, name
                np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


F32 = np.float32
X = np.arange(6, dtype=F32).reshape(2, 3) - 2

IF = """
g (float[N, 3] x, bool c) => (float[N, M] y) {
   twice = Add (x, x)
   y = If (c) <
     then_branch = t () => (float[N, 3] a) { a = Mul (twice, x) },
     else_branch = e () => (float[N, 6] b) { b = Concat <axis = 1> (x, twice) }
   >
}
"""


def test_if_takes_the_branch_that_its_condition_says() -> None:
    check(IF, {"x": X, "c": np.array(True)}, {"x": X, "c": np.array(False)}, {"x": X[:1], "c": np.array(True)})


def test_a_branch_may_give_a_captured_value_a_constant_and_the_same_value_twice() -> None:
    text = """
    g (float[2] x, bool c) => (float[2] y, float[2] z) {
       y, z = If (c) <
         then_branch = t () => (float[2] a, float[2] b) { a = Identity (x)  b = Identity (x) },
         else_branch = e () => (float[2] a, float[2] a2) <float[2] a = {5, 6}> { a2 = Neg (a) }
       >
    }
    """
    check(text, {"x": X[0, :2], "c": np.array(True)}, {"x": X[0, :2], "c": np.array(False)})


@pytest.mark.parametrize(
    "wrong",
    [
        "b = Gather (table, nine)",
        "b = Reshape (table, seven)",
        "d = Div (nine, zero)  e = Cast <to = 1> (d)  b = Add (x, e)",
    ],
)
def test_what_never_runs_may_be_wrong(wrong: str) -> None:
    """ONNX checks what a node is given where it runs: a branch that guards against it is sound."""
    held = "float[3] table = {1, 2, 3}, int64 nine = {9}, int64[1] seven = {7}, int64 zero = {0}"
    model = load(f"""
    g (float[3] x, bool c) => (float[N] y) <{held}> {{
       y = If (c) <
         then_branch = t () => (float[3] a) {{ a = Neg (x) }}, else_branch = e () => (float[N] b) {{ {wrong} }}
       >
    }}
    """)
    assert np.asarray(model.run({"x": X[0], "c": np.array(True)})["y"]).tolist() == (-X[0]).tolist()
    with pytest.raises(inferkit.InferkitError):
        model.run({"x": X[0], "c": np.array(False)})


def test_ifs_nest_and_read_values_of_all_graphs_around_them() -> None:
    text = """
    g (float[3] x, int64 n) => (float[3] y) {
       zero = Constant <value_int = 0> ()
       two = Constant <value_int = 2> ()
       positive = Greater (n, zero)
       large = Greater (n, two)
       e = Exp (x)
       y = If (positive) <
         then_branch = t () => (float[3] a) {
            k = Add (e, x)
            a = If (large) <
              then_branch = et () => (float[3] b) { b = Mul (k, e) },
              else_branch = ef () => (float[3] c) { c = Sub (k, x) }
            >
         },
         else_branch = ee () => (float[3] d) { d = Neg (e) }
       >
    }
    """
    check(text, *({"x": X[0], "n": np.array(n)} for n in (-1, 1, 5)))


def test_a_condition_that_shapes_decide_costs_no_second_plan() -> None:
    text = """
    g (float[N] x) => (float[N] y) {
       s = Shape (x)
       two = Constant <value_ints = [2]> ()
       c1 = Equal (s, two)
       c = Squeeze (c1)
       y = If (c) <
         then_branch = t () => (float[N] a) { a = Neg (x) },
         else_branch = e () => (float[N] b) { b = Abs (x) }
       >
    }
    """
    check(text, {"x": X[0, :2]}, {"x": X[0]})
    model = load(text)
    before = model.memory().plans
    model(X[0])
    assert model.memory().plans == before + 1


LOOP = """
g (int64 n, float[K] x) => (float[K] last, float[T, K] all) {
   go = Constant <value = bool {1}> ()
   last, all = Loop (n, go, x) <body = b (int64 i, bool c, float[K] v) => (bool c2, float[K] v2, float[K] out) {
      c2 = Identity (c)
      fi = Cast <to = 1> (i)
      s = Add (v, fi)
      v2 = Add (s, x)
      out = Mul (v2, v2)
   }>
}
"""


@pytest.mark.parametrize("trips", [1, 7])
def test_loop_carries_and_stacks(trips: int) -> None:
    check(LOOP, {"n": np.array(trips), "x": X[0]})


def test_a_loop_without_iterations_stacks_nothing_of_the_right_shape() -> None:
    """ONNX Runtime has 0 for every dimension that the body names, and what follows then does not fit."""
    got = load(LOOP).run({"n": np.array(0), "x": X[0]})
    assert got["last"].tolist() == X[0].tolist()
    assert got["all"].shape == (0, 3)
    assert got["all"].dtype == F32


@pytest.mark.parametrize("declared", [True, False])
def test_a_loop_without_iterations_gives_what_one_would_have_been_of(declared: bool) -> None:
    """As in ONNX's own function bodies, a body need not declare the types of its outputs."""
    types = {"sum": 7, "row": 7} if declared else {}
    ports = [
        onnx.helper.make_tensor_value_info(name, types[name], None) if name in types else onnx.ValueInfoProto(name=name)
        for name in ("sum", "row")
    ]
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["c"], ["c2"]),
            onnx.helper.make_node("Add", ["v", "i"], ["sum"]),
            onnx.helper.make_node("Unsqueeze", ["sum", "axes"], ["row"]),
        ],
        "b",
        [value("i", 7, []), value("c", 9, []), value("v", 7, [])],
        [value("c2", 9, []), *ports],
        [onnx.numpy_helper.from_array(np.array([0, 1]), "axes")],
    )
    nodes = [
        onnx.helper.make_node("Loop", ["n", "", "x"], ["last", "rows"], body=body),
        onnx.helper.make_node("Concat", ["rows", "one"], ["y"], axis=0),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("n", 7, []), value("x", 7, [])], [value("y", 7, ["k", 1, 1]), value("rows", 7, None)],
        [onnx.numpy_helper.from_array(np.full((1, 1, 1), 9), "one")],
    )  # fmt: skip
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    model = inferkit.Model.load(made.SerializeToString())
    assert [spec.dtype for spec in model.outputs] == ["int64", "int64"]
    for trips in (2, 0):
        got = model.run({"n": np.array(trips), "x": np.array(5)})
        assert got["rows"].shape == (trips, 1, 1)
        assert got["rows"].dtype == np.int64
        assert got["y"].ravel().tolist() == [5, 6, 9][2 - trips :]


def test_a_scan_over_nothing_gives_what_a_step_would_have_been_of() -> None:
    text = """
    g (int64 start, int64[T, 3] xs) => (int64 last, int64[T, 2, 3] ys) {
       last, ys = Scan (start, xs) <num_scan_inputs = 1, body = b (int64 s, int64[3] x) => (int64 s2, int64[2, 3] y) {
          one = Constant <value = int64 {1}> ()
          s2 = Add (s, one)
          axes = Constant <value_ints = [0]> ()
          u = Unsqueeze (x, axes)
          y = Concat <axis = 0> (u, u)
       }>
    }
    """
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    del proto.graph.node[0].attribute[-1].g.output[1].type.tensor_type.shape.dim[:]
    for attribute in proto.graph.node[0].attribute:
        if attribute.name == "body":
            attribute.g.output[1].ClearField("type")
    checks = inferkit.InputChecks(non_empty=False)
    model = inferkit.Model.load(proto.SerializeToString(), input_checks=checks)
    for steps in (2, 0):
        got = model.run({"start": np.array(1), "xs": np.ones((steps, 3), np.int64)})
        assert got["ys"].shape == (steps, 2, 3)
        assert got["ys"].dtype == np.int64


@pytest.mark.parametrize("direction", [0, 1])
def test_a_scan_of_opset_8_goes_over_each_entry_of_a_batch(direction: int) -> None:
    """Its inputs have a batch first; the body sees one entry's step, and values that are around the node."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    port = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["sum", "x"], ["next"]), helper.make_node("Mul", ["next", "factor"], ["out"])],
        "body",
        [port("sum", kind, [2]), port("x", kind, [2])],
        [port("next", kind, [2]), port("out", kind, [2])],
    )
    scan = helper.make_node("Scan", ["", "start", "xs"], ["last", "all"], num_scan_inputs=1, body=body, name="scan")
    if direction:
        scan.attribute.append(helper.make_attribute("directions", [1]))
    graph = helper.make_graph(
        [helper.make_node("Exp", ["f"], ["factor"]), scan],
        "g",
        [port("f", kind, [2]), port("start", kind, ["n", 2]), port("xs", kind, ["n", "steps", 2])],
        [port("last", kind, ["n", 2]), port("all", kind, ["n", "steps", 2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(s).astype(np.float32) for name, s in
             {"f": 2, "start": (3, 2), "xs": (3, 5, 2)}.items()}  # fmt: skip
    xs = feeds["xs"][:, ::-1] if direction else feeds["xs"]
    sums = feeds["start"][:, None] + np.cumsum(xs, 1)
    model = inferkit.Model.load(made)
    got = model.run(feeds)
    np.testing.assert_allclose(got["last"], sums[:, -1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["all"], sums * np.exp(feeds["f"]), rtol=1e-5, atol=1e-5)
    ort = pytest.importorskip("onnxruntime").InferenceSession(made.SerializeToString())
    for name, want in zip(("last", "all"), ort.run(None, feeds), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)
    scan.input[0] = "lengths"
    graph.node[1].CopyFrom(scan)
    graph.input.append(port("lengths", onnx.TensorProto.INT64, ["n"]))
    made.graph.CopyFrom(graph)
    with pytest.raises(inferkit.UnsupportedOpError, match="sequence_lens"):
        inferkit.Model.load(made)


def test_loop_ends_where_its_condition_does() -> None:
    text = """
    g (float limit, float x) => (float y, int64 count) {
       none = Constant <value = int64 {0}> ()
       one = Constant <value = int64 {1}> ()
       two = Constant <value = float {2}> ()
       go = Less (x, limit)
       y, count = Loop (, go, x, none) <body = b (int64 i, bool c, float v, int64 k) => (bool c2, float v2, int64 k2) {
          v2 = Mul (v, two)
          k2 = Add (k, one)
          c2 = Less (v2, limit)
       }>
    }
    """
    check(text, *({"limit": np.array(v, F32), "x": np.array(1, F32)} for v in (0.5, 3, 1000)))


def test_what_a_loop_carries_may_grow() -> None:
    text = """
    g (int64 n, float[K] x) => (float[M] y) {
       go = Constant <value = bool {1}> ()
       y = Loop (n, go, x) <body = b (int64 i, bool c, float[P] v) => (bool c2, float[Q] v2) {
          c2 = Identity (c)
          v2 = Concat <axis = 0> (v, x)
       }>
    }
    """
    check(text, *({"n": np.array(n), "x": X[0]} for n in (0, 1, 5)))


def test_a_slice_that_moves_with_the_iterations() -> None:
    text = """
    g (float[N, 3] x) => (float[N, 3] y) {
       s = Shape <start = 0, end = 1> (x)
       n = Squeeze (s)
       go = Constant <value = bool {1}> ()
       one = Constant <value_ints = [1]> ()
       zero = Constant <value_ints = [0]> ()
       none = Constant <value = float[3] {0, 0, 0}> ()
       last, y = Loop (n, go, none) <body = b (int64 i, bool c, float[3] sum)
                                           => (bool c2, float[3] sum2, float[3] out) {
          c2 = Identity (c)
          from = Unsqueeze (i, zero)
          to = Add (from, one)
          row1 = Slice (x, from, to, zero)
          row = Squeeze (row1, zero)
          sum2 = Add (sum, row)
          out = Identity (sum2)
       }>
    }
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3)).astype(F32)
    model = load(text)
    np.testing.assert_allclose(model(x), np.cumsum(x, 0), rtol=1e-4, atol=1e-5)
    assert model.memory().plan_misses <= 6, "every iteration was compiled anew"


def test_loops_nest_with_an_if_inside() -> None:
    text = """
    g (int64 n, int64 m, float x) => (float y) {
       go = Constant <value = bool {1}> ()
       two = Constant <value = int64 {2}> ()
       y = Loop (n, go, x) <body = b (int64 i, bool c, float v) => (bool c2, float v2) {
          c2 = Identity (c)
          v2 = Loop (m, go, v) <body = bb (int64 j, bool d, float w) => (bool d2, float w2) {
             d2 = Identity (d)
             s = Add (i, j)
             r = Mod (s, two)
             even = Cast <to = 9> (r)
             fj = Cast <to = 1> (j)
             w2 = If (even) <
               then_branch = t () => (float p) { p = Add (w, fj) },
               else_branch = e () => (float q) { q = Sub (w, x) }
             >
          }>
       }>
    }
    """
    check(text, *({"n": np.array(n), "m": np.array(m), "x": np.array(1.5, F32)} for n, m in ((0, 3), (3, 0), (4, 5))))


SCAN = """
g (float[K] start, float[T, K] x) => (float[K] last, float[T, K] all) {
   last, all = Scan <num_scan_inputs = 1, body = b (float[K] v, float[K] s) => (float[K] v2, float[K] out) {
      v2 = Add (v, s)
      out = Mul (v2, start)
   }> (start, x)
}
"""


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_scan(steps: int) -> None:
    x = np.random.default_rng(steps).standard_normal((steps, 3)).astype(F32)
    check(SCAN, {"start": X[0], "x": x})


def test_scan_along_other_axes_and_backwards() -> None:
    text = """
    g (float[2] start, float[2, T] x, float[T] f) => (float[2] last, float[2, T] all) {
       last, all = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [1, 0],
                         scan_output_axes = [-1], scan_output_directions = [1],
                         body = b (float[2] v, float[2] s, float k) => (float[2] v2, float[2] out) {
          p = Mul (s, k)
          v2 = Add (v, p)
          out = Sub (v2, s)
       }> (start, x, f)
    }
    """
    rng = np.random.default_rng(1)
    feeds = [
        {
            "start": X[0, :2],
            "x": rng.standard_normal((2, t)).astype(F32),
            "f": rng.standard_normal(t).astype(F32),
        }
        for t in (1, 4)
    ]
    check(text, *feeds)


# Shapes that depend on values.


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=1, max_size=9))
def test_non_zero_and_what_follows(values: list[float]) -> None:
    x = np.array(values, F32)
    found = NON_ZERO.run({"x": x})
    places = np.nonzero(x)[0]
    np.testing.assert_array_equal(found["places"], places[None])
    np.testing.assert_array_equal(found["picked"], x[places] * 2)


NON_ZERO = load("""
g (float[N] x) => (int64[1, M] places, float[M] picked) {
   places = NonZero (x)
   zero = Constant <value_ints = [0]> ()
   flat = Squeeze (places, zero)
   some = Gather (x, flat)
   picked = Add (some, some)
}
""")


def test_plans_of_many_shapes_and_values_stay_within_the_bound() -> None:
    text = """
    g (float[N] x, int64[1] n) => (float[M] y) {
       one = Constant <value = float[1] {1}> ()
       wide = Expand (one, n)
       y = Concat <axis = 0> (x, wide)
    }
    """
    model = load(text, max_plans=8)
    for n in range(50):
        y = model.run({"x": X[0], "n": np.array([n])})["y"]
        np.testing.assert_array_equal(y, np.concatenate([X[0], np.ones(n, F32)]))
    assert model.memory().plans <= 8


def test_values_that_decide_shapes() -> None:
    text = """
    g (float[N, K] x, int64[2] shape, int64 k, int64[1] to) => (float[A, B] r, float[C, D] t, float[E, F] s) {
       zero = Constant <value_ints = [0]> ()
       axis = Constant <value_ints = [1]> ()
       r = Reshape (x, shape)
       k1 = Unsqueeze (k, zero)
       t, places = TopK <axis = 1> (x, k1)
       s = Slice (x, zero, to, axis)
    }
    """
    feeds = [
        {"x": X, "shape": np.array(shape), "k": np.array(k), "to": np.array([to])}
        for shape, k, to in (((3, 2), 1, 2), ((6, -1), 3, 1), ((3, 2), 2, 2))
    ]
    check(text, *feeds)


def test_a_value_that_does_not_fit_is_an_error_that_names_the_node() -> None:
    model = load("g (float[N] x, int64[2] shape) => (float[A, B] y) { y = Reshape (x, shape) }")
    np.testing.assert_array_equal(model.run({"x": X.ravel(), "shape": np.array([2, 3])})["y"], X)
    with pytest.raises(inferkit.InferenceError, match="Reshape"):
        model.run({"x": X.ravel(), "shape": np.array([4, 4])})
    np.testing.assert_array_equal(model.run({"x": X.ravel(), "shape": np.array([3, 2])})["y"], X.reshape(3, 2))


def test_a_loop_without_end_fails() -> None:
    text = """
    g (float x) => (float y) {
       go = Constant <value = bool {1}> ()
       y = Loop (, go, x) <body = b (int64 i, bool c, float v) => (bool c2, float v2) {
          c2 = Identity (c)
          v2 = Neg (v)
       }>
    }
    """
    model = load(text, max_iterations=1000)
    with pytest.raises(inferkit.InferenceError, match=r"Loop.*max_iterations"):
        model(np.array(1, F32))
    with pytest.raises(inferkit.InferenceError, match="max_iterations"):
        load(text)(np.array(1, F32))
    with pytest.raises(ValueError, match="max_iterations"):
        load(text, max_iterations=0)


@pytest.mark.unsanitized("its estimates of time are for another speed")
def test_a_loop_that_takes_long_does_not_hold_up_the_load() -> None:
    text = """
    g (float[1024, 1024] x) => (float[1024, 1024] y) {
       many = Constant <value = int64 {9999}> ()
       y = Loop (many, , x) <body = b (int64 i, bool c, float[1024, 1024] v) => (bool c2, float[1024, 1024] v2) {
          c2 = Identity (c)
          v2 = MatMul (v, v)
       }>
    }
    """
    start = time.monotonic()
    assert load(text).outputs[0].shape == (1024, 1024)
    assert time.monotonic() - start < 20  # all of it takes minutes


def test_out_arrays_of_a_run_in_stages_are_apart_and_checked_before_any_is_written() -> None:
    model = load(LOOP)
    both = np.zeros(9, F32)
    feeds = {"n": np.array(3), "x": X[0]}
    with pytest.raises(ValueError, match="share memory"):
        model.run(feeds, out={"last": both[:3], "all": both.reshape(3, 3)})
    assert not both.any()
    with pytest.raises((inferkit.ValidationError, ValueError)):
        model.run(feeds, out={"last": both[:3], "all": np.zeros((2, 3), F32)})
    assert not both.any()


def test_what_a_loop_stacks_counts_as_memory_of_the_run() -> None:
    model = load(LOOP, max_run_bytes=1 << 20)
    x = np.ones(1000, F32)
    assert model.run({"n": np.array(50), "x": x})["all"].shape == (50, 1000)
    with pytest.raises((inferkit.InferenceError, inferkit.ValidationError), match="max_run_bytes"):
        model.run({"n": np.array(5000), "x": x})


def test_what_a_branch_lacks_is_told_at_load() -> None:
    model = onnx.load_from_string(model_of(IF))
    model.graph.node[1].attribute[0].g.node[0].op_type = "NoSuchOperator"
    with pytest.raises(inferkit.UnsupportedOpError, match="NoSuchOperator"):
        inferkit.Model.load(model.SerializeToString())


def test_what_both_branches_of_nested_ifs_lack_is_told_at_once() -> None:
    text = """
    g (float[3] x, bool c, bool d) => (float[K] y) {
       y = If (c) <
         then_branch = t () => (float[K] a) {
            a = If (d) <
              then_branch = et () => (float[3] b) { b = Cast <to = 1> (x) },
              else_branch = ef () => (float[3] e) { f = Cast <to = 14> (x)  e = Cast <to = 1> (f) }
            >
         },
         else_branch = ee () => (float[3] h) { k = Cast <to = 15> (x)  h = Cast <to = 1> (k) }
       >
    }
    """
    with pytest.raises(inferkit.UnsupportedOpError, match=r"(?s)COMPLEX128.*COMPLEX64"):
        load(text)


def test_out_arrays() -> None:
    model = load(IF)
    out = np.empty((2, 3), F32)
    found = model.run({"x": X, "c": np.array(True)}, out={"y": out})["y"]
    assert found is out
    np.testing.assert_array_equal(out, X * 2 * X)
    with pytest.raises((inferkit.ValidationError, ValueError)):
        model.run({"x": X, "c": np.array(False)}, out={"y": out})


def test_many_threads_through_many_plans() -> None:
    model = load(IF)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(150):
                x = rng.standard_normal((int(rng.integers(1, 5)), 3)).astype(F32)
                c = bool(rng.integers(2))
                y = model.run({"x": x, "c": np.array(c)})["y"]
                np.testing.assert_array_equal(y, x * 2 * x if c else np.concatenate([x, x + x], 1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]


def test_nothing_stays_out_of_the_pool() -> None:
    pool = inferkit.BufferPool.default()
    model = load(LOOP)
    for n in (3, 0, 9):
        model.run({"n": np.array(n), "x": X[0]})
    model.trim()
    gc.collect()
    before = pool.stats().outstanding
    for n in (9, 3, 0):
        model.run({"n": np.array(n), "x": X[0]})
    model.trim()
    assert pool.stats().outstanding == before


def test_rows_of_a_model_with_an_if_are_the_same_in_any_batch() -> None:
    model = load(IF)
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(F32)
    whole = model.run({"x": x, "c": np.array(True)})["y"]
    for i in range(8):
        assert model.run({"x": x[i : i + 1], "c": np.array(True)})["y"].tobytes() == whole[i : i + 1].tobytes()


def test_a_loop_behind_a_batcher() -> None:
    text = """
    g (float[N, 3] x) => (float[N, 3] y) {
       three = Constant <value = int64 {3}> ()
       go = Constant <value = bool {1}> ()
       y = Loop (three, go, x) <body = b (int64 i, bool c, float[N, 3] v) => (bool c2, float[N, 3] v2) {
          c2 = Identity (c)
          t = Tanh (v)
          v2 = Add (t, x)
       }>
    }
    """
    model = load(text)
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(F32)
    expected = model(x)
    with inferkit.Batcher(model, max_batch_size=16, inline_limit=0.0) as batcher:
        tickets = [batcher.submit(row) for row in x]
        for ticket, want in zip(tickets, expected, strict=True):
            assert ticket.result(10).tobytes() == want.tobytes()
