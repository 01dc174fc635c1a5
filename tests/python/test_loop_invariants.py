"""What a Loop or Scan carries round without changing it is read from outside: the same answers, and no copies."""

from __future__ import annotations

import time

import numpy as np
import pytest
from test_control_flow import check, load

from inferkit import tracing

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2

# `w` goes round unchanged (through an Identity), `s` changes, `t` changes places with `s` in no iteration.
LOOP = """
g (float[2, 3] x, int64 n) => (%(outputs)s) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, -9}> {
   yes = Constant <value = bool {1}> ()
   s_last, w_last, k_last, stacked = Loop (n, yes, x, w, x) <
     body = b (int64 i, bool c, float[2, 3] s, float[3, 3] v, float[2, 3] k)
            => (bool c_out, float[2, 3] s_out, float[3, 3] v_out, float[2, 3] k_out, float[2, 3] each) {
        c_out = Identity (c)
        p = MatMul (s, v)
        q = Tanh (p)
        s_out = Add (q, k)
        v_twice = Identity (v)
        v_out = Identity (v_twice)
        k_out = Identity (k)
        each = Neg (q)
     }
   >
   w_sum = ReduceSum (w_last)
   y = Add (s_last, w_sum)
}
"""


@pytest.mark.parametrize(
    "outputs",
    [
        "float[2, 3] y",
        "float[2, 3] y, float[N, 2, 3] stacked",
        "float[3, 3] w_last, float[2, 3] s_last",  # an output of the graph stays one of the loop
        "float[2, 3] k_last, float[2, 3] y",
    ],
)
def test_a_loop_with_states_that_do_not_change(outputs: str) -> None:
    check(LOOP % {"outputs": outputs}, *({"x": X, "n": np.array(n)} for n in (0, 1, 4)))


def test_a_constant_that_goes_round_is_neither_copied_nor_packed_again() -> None:
    model = load(LOOP % {"outputs": "float[2, 3] y"})
    feed = {"x": X, "n": np.array(3)}
    model.run(feed)
    begin = time.monotonic()
    tracing.trace_steps()
    try:
        model.run(feed)
    finally:
        tracing.trace_steps(False)
    names = [s.name for s in tracing.steps() if s.started >= begin]
    assert not [name for name in names if "'v" in name], names  # outputs are copied under their names
    assert not [name for name in names if name.startswith("MatMul")], names


def test_nested_loops() -> None:
    text = """
    g (float[2, 3] x, int64 n) => (float[2, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, -9}> {
       yes = Constant <value = bool {1}> ()
       y, w_last = Loop (n, yes, x, w) <
         body = b (int64 i, bool c, float[2, 3] s, float[3, 3] v) => (bool c, float[2, 3] s_out, float[3, 3] v) {
            s_out, v_last = Loop (n, c, s, v) <
              body = bb (int64 j, bool d, float[2, 3] t, float[3, 3] u) => (bool d, float[2, 3] t_out, float[3, 3] u) {
                 p = MatMul (t, u)
                 t_out = Tanh (p)
              }
            >
         }
       >
    }
    """
    check(text, *({"x": X, "n": np.array(n)} for n in (0, 1, 3)))


def test_states_that_change_places_are_not_invariant() -> None:
    text = """
    g (float[2, 3] x, float[2, 3] z, int64 n) => (float[2, 3] a_last, float[2, 3] b_last, float[N, 2, 3] stacked) {
       yes = Constant <value = bool {1}> ()
       a_last, b_last, stacked = Loop (n, yes, x, z) <
         body = b (int64 i, bool c, float[2, 3] a, float[2, 3] d)
                => (bool c_out, float[2, 3] a_out, float[2, 3] d_out, float[2, 3] each) {
            c_out = Identity (c)
            a_out = Identity (d)
            d_out = Identity (a)
            each = Sub (a, d)
         }
       >
    }
    """
    check(text, *({"x": X, "z": X * 2, "n": np.array(n)} for n in (0, 1, 2, 5)))


def test_a_scan_with_a_state_that_does_not_change() -> None:
    text = """
    g (float[N, 3] x, float[3] z) => (float[3] s_last, float[N, 3] stacked, float[3] r)
    <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, -9}> {
       s_last, w_last, k_last, stacked = Scan (z, w, z, x) <num_scan_inputs = 1,
         body = b (float[3] s, float[3, 3] v, float[3] k, float[3] row)
                => (float[3] s_out, float[3, 3] v_out, float[3] k_out, float[3] each) {
            p = MatMul (row, v)
            q = Tanh (p)
            s_out = Add (s, q)
            v_out = Identity (v)
            k_out = Identity (k)
            each = Mul (q, k)
         }
       >
       m = MatMul (s_last, w_last)
       r = Add (m, k_last)
    }
    """
    check(text, {"x": X, "z": X[1]}, {"x": X[:1], "z": X[0]})


def test_every_state_unchanged() -> None:
    text = """
    g (float[2, 3] x, int64 n) => (float[2, 3] y) {
       yes = Constant <value = bool {1}> ()
       k = Loop (n, yes, x) <
         body = b (int64 i, bool c, float[2, 3] s) => (bool c_out, float[2, 3] s_out) {
            c_out = Identity (c)
            s_out = Identity (s)
         }
       >
       y = Neg (k)
    }
    """
    check(text, *({"x": X, "n": np.array(n)} for n in (0, 3)))
