"""Reductions and softmax against float64 numpy, over types, axes and opsets."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

FLOATS = ["float32", "float64", "float16"]
INTEGERS = ["int8", "uint8", "int32", "int64", "uint32", "uint64"]
AXES_INPUT = {"ReduceSum": 13}  # since which opset; 18 for the others


def log_sum_exp(x: Array, **k: Any) -> Array:
    top = x.max(**{**k, "keepdims": True}, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(np.exp(x - top).sum(**k)) + (top if k["keepdims"] else top.reshape(np.exp(x).sum(**k).shape))


REDUCE = {
    "ReduceSum": lambda x, **k: x.sum(**k),
    "ReduceMean": lambda x, **k: x.mean(**k),
    "ReduceMax": lambda x, **k: x.max(**k),
    "ReduceMin": lambda x, **k: x.min(**k),
    "ReduceProd": lambda x, **k: x.prod(**k),
    "ReduceL1": lambda x, **k: np.abs(x).sum(**k),
    "ReduceL2": lambda x, **k: np.sqrt((x * x).sum(**k)),
    "ReduceLogSum": lambda x, **k: np.log(x.sum(**k)),
    "ReduceLogSumExp": log_sum_exp,
    "ReduceSumSquare": lambda x, **k: (x * x).sum(**k),
}


def reduce_case(op: str, x: Array, axes: Any, keepdims: int, opset: int, **more: Any) -> Case:
    if opset >= AXES_INPUT.get(op, 18):
        given_axes = None if axes is None else np.array(axes, np.int64)
        return Case(op, x, given_axes, constant=(1,), opset=opset, keepdims=keepdims, **more)
    attributes = {} if axes is None else {"axes": list(axes)}
    return Case(op, x, opset=opset, keepdims=keepdims, **attributes, **more)


def values(rng: np.random.Generator, op: str, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype in INTEGERS:
        return rng.integers(1, 4, shape).astype(dtype)
    x = rng.standard_normal(shape)
    if op == "ReduceProd":
        x = 1 + 0.1 * x
    return (np.abs(x) + 0.1 if op == "ReduceLogSum" else x).astype(dtype)


@pytest.mark.parametrize("op", list(REDUCE))
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_axes(op: str, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=0, max_size=5)))
    axes = data.draw(st.one_of(st.none(), st.lists(st.integers(0, max(0, len(shape) - 1)), unique=True, max_size=5)))
    axes = None if not shape or not axes else [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    dtype = data.draw(st.sampled_from(FLOATS))
    keepdims, opset = data.draw(st.integers(0, 1)), data.draw(st.sampled_from([11, 13, 18]))
    x = values(np.random.default_rng(data.draw(st.integers(0, 99))), op, shape, dtype)
    found = reduce_case(op, x, axes, keepdims, opset).run()[0]
    expected = REDUCE[op](x.astype(np.float64), axis=None if axes is None else tuple(axes), keepdims=bool(keepdims))
    assert found.dtype == x.dtype
    rtol, atol = TOLERANCE[dtype]
    close(found, np.asarray(expected), 2 * rtol, 10 * atol)


@pytest.mark.parametrize("op", list(REDUCE))
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((300, 1000), [0]), ((300, 1000), [1]), ((3, 70, 2100), [1]), ((5, 7, 6, 11), [0, 2]), ((2, 3, 4000), [0, 2])],
)
def test_long_sums(op: str, shape: tuple[int, ...], axes: list[int]) -> None:
    x = values(np.random.default_rng(1), op, shape, "float32")
    if op == "ReduceProd":
        x = 1 + (x - 1) / 10
    expected = REDUCE[op](x.astype(np.float64), axis=tuple(axes), keepdims=False)
    magnitude = np.abs(x.astype(np.float64)).sum(tuple(axes))
    found = reduce_case(op, x, axes, 0, 18).run()[0]
    room = 1e-6 * magnitude if op in ("ReduceSum", "ReduceMean") else 2e-5 * np.abs(expected)
    assert (np.abs(found - expected) <= room + 1e-5).all()


@pytest.mark.parametrize("op", [op for op in REDUCE if not op.startswith("ReduceLog")])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(op: str, dtype: str) -> None:
    x = values(np.random.default_rng(2), op, (3, 2, 2), dtype)
    if dtype in ("int32", "int64") and op != "ReduceL2":
        x[0] = -x[0]
    for axes in ([0], [1, 2], None):
        found = reduce_case(op, x, axes, 1, 18).run()[0]
        wide = x.astype(np.float64)
        expected = np.trunc(REDUCE[op](wide, axis=None if axes is None else tuple(axes), keepdims=True))
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_means_of_integers_do_not_wrap(dtype: str) -> None:
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    rows = [[most] * 6, [least] * 6, [least, most] * 3, [most, most - 1, most - 2, most, most, most - 5]]
    rows += [[least, least + 1, least + 2, least, least, least + 5], [1_7 if dtype[-1] == "8" else 1_700_000] * 6]
    rows.append([least, 0, 0, 0, 0, 1])
    expected = [int(abs(sum(row)) // 6) * (-1 if sum(row) < 0 else 1) for row in rows]
    x = np.array(rows, dtype)
    assert reduce_case("ReduceMean", x, [1], 0, 18).run()[0].tolist() == expected
    assert reduce_case("ReduceMean", np.ascontiguousarray(x.T), [0], 0, 13).run()[0].tolist() == expected


def test_bool_max_and_min() -> None:
    x = np.array([[True, False], [True, True]])
    assert reduce_case("ReduceMax", x, [1], 0, 20).run()[0].tolist() == [True, True]
    assert reduce_case("ReduceMin", x, [1], 0, 20).run()[0].tolist() == [False, True]


@pytest.mark.parametrize("op", list(REDUCE))
def test_no_axes_as_no_operation(op: str) -> None:
    x = values(np.random.default_rng(3), op, (3, 4), "float32")
    case = reduce_case(op, x, [], 1, 18, noop_with_empty_axes=1)
    one = REDUCE[op](x.astype(np.float64)[..., None], axis=-1, keepdims=False)
    close(case.run()[0], one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty(dtype: str) -> None:
    x = np.zeros((2, 0, 3), dtype)
    expected = {"ReduceSum": 0, "ReduceProd": 1, "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceLogSum": -np.inf}
    for op, value in expected.items():
        np.testing.assert_array_equal(reduce_case(op, x, [1], 0, 18).run()[0], np.full((2, 3), value))
        assert reduce_case(op, x, [0], 0, 18).run()[0].shape == (0, 3)


def test_nan_is_not_lost() -> None:
    x = np.ones((4, 40), np.float32)
    x[2, 7] = np.nan
    for op in REDUCE:
        assert np.isnan(reduce_case(op, x, [1], 0, 18).run()[0]).tolist() == [False, False, True, False]
        assert np.isnan(reduce_case(op, x, [0], 0, 18).run()[0]).sum() == 1


@pytest.mark.parametrize("op", list(REDUCE))
@pytest.mark.parametrize("axes", [[1], [2], [1, 2], [1, 3], [2, 3]])
def test_a_row_has_the_same_bits_in_any_batch(op: str, axes: list[int]) -> None:
    x = values(np.random.default_rng(4), op, (6, 5, 19, 33), "float32")
    model = reduce_case(op, x, axes, 1, 18, free_batch=True).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("op", list(REDUCE))
@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 16, 17])
def test_short_rows_are_what_they_are_alone(op: str, n: int) -> None:
    """Many are turned and reduced as columns; one is a row. Its NaN are the same to the bit, too."""
    rng = np.random.default_rng(n)
    x = values(rng, op, (300, n), "float32")
    for special in (np.nan, np.inf, -np.inf, -0.0, 1e-40):
        x[rng.integers(0, 300, 20), rng.integers(0, n, 20)] = special
    model = reduce_case(op, x, [1], 0, 18, free_batch=True).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        alone = model.run({"x0": x[i : i + 1]})["y0"]
        assert alone.tobytes() == together[i : i + 1].tobytes(), x[i]


def test_threads_change_no_bit() -> None:
    x = np.random.default_rng(5).standard_normal((64, 50, 1500)).astype(np.float32)
    for axes in ([2], [1]):
        case = reduce_case("ReduceSum", x, axes, 1, 18)
        assert case.run(threads=1)[0].tobytes() == case.run(threads=4)[0].tobytes()


def test_axes_of_the_wrong_opset_are_refused() -> None:
    x = np.ones((2, 3), np.float32)
    for case in (
        Case("ReduceSum", x, opset=13, axes=[0]),
        Case("ReduceMax", x, np.array([0]), constant=(1,), opset=13),
    ):
        with pytest.raises(inferkit.ModelError, match="axes is an"):
            inferkit.Model.load(case.bytes_with_output("float32", (1, 3)))
    with pytest.raises(inferkit.ModelError, match="out of range"):
        inferkit.Model.load(Case("ReduceMax", x, opset=13, axes=[2]).bytes_with_output("float32", (1, 3)))


@pytest.mark.parametrize("case", node_test_cases(*REDUCE), ids=lambda c: c.name)
def test_onnx_node(case: Any) -> None:
    check_node_test(case)


# ---- Softmax, LogSoftmax, Hardmax ----


def softmax(op: str, x: Array, axis: int) -> Array:
    x = x.astype(np.float64)
    if op == "Hardmax":
        best = np.expand_dims(x.argmax(axis), axis)
        return (
            np.arange(x.shape[axis]).reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]) == best
        ) * 1.0
    shifted = x - x.max(axis, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return log if op == "LogSoftmax" else np.exp(log)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_softmax(op: str, dtype: str, opset: int) -> None:
    rng = np.random.default_rng(6)
    for shape in [(1, 1), (3, 10), (2, 3, 4), (2, 17, 5), (2, 3, 4, 5), (1, 1000), (3, 6, 600)]:
        x = (5 * rng.standard_normal(shape)).astype(dtype)
        for axis in [None, *range(len(shape)), *([-1] if opset >= 11 else [])]:
            attributes = {} if axis is None else {"axis": axis}
            if opset >= 13:
                expected = softmax(op, x, -1 if axis is None else axis)
            else:
                split = (1 if axis is None else axis) % len(shape)
                rows = x.reshape(int(np.prod(shape[:split])), -1)
                expected = softmax(op, rows, 1).reshape(shape)
            rtol, atol = TOLERANCE[dtype]
            close(Case(op, x, opset=opset, **attributes).run()[0], expected, 2 * rtol, 2 * atol)


def test_softmax_of_large_and_masked_values() -> None:
    x = np.array([[1e38, -1e38, 0], [-np.inf, 0, 0], [200, 199, -500]], np.float32)
    close(Case("Softmax", x).run()[0], softmax("Softmax", x, -1))
    close(Case("Softmax", x.T.copy(), axis=0).run()[0], softmax("Softmax", x, -1).T)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_has_the_same_bits_in_any_batch(op: str, axis: int) -> None:
    x = np.random.default_rng(7).standard_normal((9, 33, 70)).astype(np.float32)
    model = Case(op, x, axis=axis, free_batch=True).load()
    together = model.run({"x0": x})["y0"]
    for i in range(len(x)):
        assert model.run({"x0": x[i : i + 1]})["y0"].tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9])
def test_short_rows_have_the_same_bits_alone(op: str, n: int) -> None:
    """Many of them go as columns of a copy, one by itself as a row."""
    x = (np.random.default_rng(n).standard_normal((1100, n)) * 20).astype(np.float32)
    x[3] = -np.inf
    x[4, 0] = -np.inf
    x[5, -1] = np.nan
    x[6] = 1e-40
    x[7] = np.float32(3e38)
    model = Case(op, x, axis=-1, free_batch=True).load()
    together = model.run({"x0": x})["y0"]
    for first, last in [(0, 1), (1, 2), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (9, 14), (511, 513), (1099, 1100)]:
        alone = model.run({"x0": x[first:last]})["y0"]
        np.testing.assert_array_equal(alone.view(np.uint32) << 1, together[first:last].view(np.uint32) << 1)
    rest = np.r_[0:3, 6:1100]
    close(together[rest], softmax(op, x[rest], -1))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_short_rows_have_the_bits_of_columns(op: str) -> None:
    """Rows that fit the lanes stay in registers, with whatever stands beside them; columns never do."""
    rng = np.random.default_rng(10)
    for n in (*range(1, 67), 127, 129):
        x = (rng.standard_normal((40, n)) * rng.choice([1, 30, 200])).astype(np.float32)
        x[3, -1], x[4] = -np.inf, -0.0
        found = Case(op, x, axis=1).run()[0]
        assert found.tobytes() == Case(op, x.T.copy(), axis=0).run()[0].T.tobytes(), n
        for i in 0, 3, 39:
            assert found[i : i + 1].tobytes() == Case(op, x[i : i + 1], axis=1).run()[0].tobytes(), n
        if n > 1:
            close(found, softmax(op, x, -1), atol=2e-5)


@pytest.mark.parametrize("case", node_test_cases("Softmax", "LogSoftmax", "Hardmax"), ids=lambda c: c.name)
def test_onnx_softmax_node(case: Any) -> None:
    check_node_test(case)


@pytest.mark.parametrize("axis", [0, 1])
def test_long_sums_lose_nothing(axis: int) -> None:
    # 1.1 a hundred thousand times, one after the other in float32, is off by a thousandth.
    x = np.full((100_000, 16), 1.1, np.float32)
    x = x if axis == 0 else np.ascontiguousarray(x.T)
    y = reduce_case("ReduceSum", x, [axis], 0, 18).run()[0]
    exact = x.astype(np.float64).sum(axis)
    assert np.abs(y - exact).max() <= 1e-5 * exact.max()


def test_long_sums_of_einsum_lose_nothing() -> None:
    x = np.full((2, 100_000), 1.1, np.float32)
    y = Case("Einsum", x, equation="ij->i", opset=13).run()[0]
    exact = x.astype(np.float64).sum(1)
    assert np.abs(y - exact).max() <= 1e-5 * exact.max()


@pytest.mark.parametrize("dtype", FLOATS)
def test_hardmax_stands_where_arg_max_does(dtype: str) -> None:
    nan = np.nan
    x = np.array([[1, nan, 5], [5, nan, nan], [nan, 1, 2], [1, 2, 5], [nan, nan, nan], [5, 5, 1]], dtype)
    for axis in (0, 1):
        (place,) = Case("ArgMax", x, axis=axis, keepdims=1, opset=13).run()
        assert place.tolist() == np.argmax(x, axis=axis, keepdims=True).tolist()
        expected = np.arange(x.shape[axis]).reshape([-1, 1] if axis == 0 else [1, -1]) == place
        np.testing.assert_array_equal(Case("Hardmax", x, axis=axis, opset=13).run()[0], expected.astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_the_place_of_an_extreme_is_numpys(op: str, last: int, dtype: str) -> None:
    """NaN before all, of equals the first or the last, in rows and in blocks of columns that are full or not."""
    rng = np.random.default_rng(0)
    find = np.argmax if op == "ArgMax" else np.argmin
    for shape, axis in (((3, 7, 130), 1), ((5, 1, 64), 1), ((2, 300, 3), 1), ((200, 65), 0), ((40, 9), 1)):
        for some_nan in (False, True):
            x = rng.integers(-3, 3, shape).astype(dtype)
            choice = rng.random(shape)
            x[choice < 0.1] = np.inf
            x[(choice > 0.1) & (choice < 0.2)] = -np.inf
            x[(choice > 0.2) & (choice < 0.25)] = -0.0
            if some_nan:
                x[(choice > 0.25) & (choice < 0.28)] = np.nan
            got = Case(op, x, axis=axis, keepdims=0, select_last_index=last, opset=13).run()[0]
            expected = shape[axis] - 1 - find(np.flip(x, axis), axis) if last else find(x, axis)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [1, 3, 7, 8, 9, 127, 128, 129, 131, 300])
def test_an_extreme_of_doubles_is_the_first_of_equals(n: int, axis: int, op: str) -> None:
    """Zeros of either sign, NaN anywhere, infinities alone: as if one element came after the other."""
    rng = np.random.default_rng(n)
    sign = -1.0 if op == "ReduceMax" else 1.0
    x = np.abs(rng.standard_normal((60, n))) * sign
    x[:, 0] *= 2
    for row in x[10:30]:  # zeros are the best
        row[rng.integers(0, n, 3)] = rng.choice([0.0, -0.0], 3)
    for row in x[30:40]:
        row[rng.integers(0, n)] = np.nan
    x[40:45] = np.inf
    x[45:50] = -np.inf
    x[50:] = rng.standard_normal((10, n))
    given = x if axis == 1 else x.T.copy()
    found = Case(op, given, np.array([axis]), constant=(1,), opset=20, keepdims=0).run()[0]
    for row, value in zip(x, found, strict=True):
        best = (row.max if op == "ReduceMax" else row.min)()
        expected = best if np.isnan(best) else row[np.flatnonzero(row == best)[0]]
        np.testing.assert_array_equal([value, np.signbit(value)], [expected, np.signbit(expected)])


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_extremes_of_integers(dtype: str, op: str) -> None:
    for shape in (3, 5), (4, 131), (2, 300):
        x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
        if dtype != "bool":
            x[0, 1:3] = np.iinfo(dtype).min, np.iinfo(dtype).max
        for axis in (0, 1):
            found = Case(op, x, np.array([axis]), constant=(1,), opset=20, keepdims=0).run()[0]
            np.testing.assert_array_equal(found, (x.max if op == "ReduceMax" else x.min)(axis))


ONE_ELEMENT = """
import sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    given = dict(f)
lenient = inferkit.InputChecks(finite=False)
for name in sorted(n for n in given if n != "x"):
    model = inferkit.Model.load(given[name].tobytes(), input_checks=lenient)
    print(name, model.run({"x0": given["x"]})["y0"].tobytes().hex())
"""


@pytest.mark.parametrize("wish", ["alias", "rows", "columns", "generic"])
def test_a_reduction_of_one_element_is_that_element_whichever_way_is_wished_for(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, wish: str
) -> None:
    """To the bit: a sum that begins with 0 would make +0 of -0, and all arithmetic zero of a subnormal."""
    x = np.array([0.0, -0.0, 1e-40, -1e-40, 3.5, -np.inf, np.inf, np.nan], np.float32).reshape(2, 4, 1, 1)
    ops = [op for op in REDUCE if op not in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare")]
    models = {op: reduce_case(op, x, [2], 1, 18) for op in ops}
    models |= {op: Case(op, x) for op in ("GlobalAveragePool", "GlobalMaxPool")}
    data = {name: np.frombuffer(case.with_output_types(), np.uint8) for name, case in models.items()}
    np.savez(tmp_path / "in.npz", x=x, **data)
    environment = {"INFERKIT_LOWERING": ",".join(f"{op}={wish}" for op in ops)}
    done = fresh_python(ONE_ELEMENT, str(tmp_path / "in.npz"), env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} {x.tobytes().hex()}" for name in sorted(models)]
