"""Einsum against numpy in float64, ONNX Runtime and the onnx package's own node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from op_cases import TOLERANCE, Array, Case, check_node_test, close, node_test_cases

import inferkit

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "h": 3, "i": 6, "j": 7, "k": 5, "s": 4, "t": 1, "N": 3, "x": 2, "y": 3}


def operands(equation: str, dtype: str = "float32", hidden: tuple[int, ...] = (2, 3)) -> list[Array]:
    """Random operands; `hidden` is what an ellipsis stands for."""
    out = []
    for n, term in enumerate(equation.replace(" ", "").split("->")[0].split(",")):
        shape: list[int] = []
        for part in term.replace("...", "."):
            shape += hidden if part == "." else (SIZES[part],)
        values = np.random.default_rng(n).standard_normal(shape)
        out.append((3 * values).astype(dtype) if dtype.startswith(("int", "uint")) else values.astype(dtype))
    return out


EQUATIONS = [
    "ij->ij",
    "ij->ji",
    "ij->",
    "ij->i",
    "ij->j",
    "ii->i",
    "ii->",
    "ii",
    "bii->ib",
    "abc->ca",
    "ba",
    "ij,jk->ik",
    "ij,jk",
    "ij,kj->ik",
    "ji,jk->ik",
    "ij,jk->ki",
    "ij,j->i",
    "i,ij->j",
    "i,i->",
    "i,j->ij",
    "i,j->ji",
    "ij,ij->ij",
    "ij,ij->",
    "bi,bi->b",
    "bij,bjk->bik",
    "bid,bjd->bij",
    "bhid,bhjd->bhij",
    "bhij,bhjd->bhid",
    "bihd,bjhd->bhij",
    "bhij,bjhd->bihd",
    "bsd,dhe->bshe",
    "bshe,hed->bsd",
    "bcxy,by->bcx",
    "abc,cd,de->abe",
    "ij,jk,kd->id",
    "a,b,c->abc",
    "ab,cb,db->acd",
    "ij,->ij",
    ",ij,->ji",
    "ijk,jd->id",
    "aij,jk->ik",
    "iij,jk->ik",
    "ij , jk -> ik",
    "...ij,...jk->...ik",
    "...i,i->...",
    "i...,ij->j...",
    "...,...->...",
    "...ij->...ji",
    "...ij",
    "b...i,b...i->b...",
    "Ni,Na->ia",
    "t,ti->i",
]


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8"])
def test_equations(equation: str, dtype: str) -> None:
    xs = operands(equation, dtype)
    exact = np.einsum(equation, *(x.astype(np.int64 if "int" in dtype else np.float64) for x in xs))
    rtol, atol = TOLERANCE.get(dtype, (0, 0))
    for constant in ((), (len(xs) - 1,)) if len(xs) > 1 else ((),):
        (found,) = Case("Einsum", *xs, equation=equation, constant=constant).run()
        assert found.dtype == np.dtype(dtype)
        close(found, exact.astype(dtype) if "int" in dtype else exact, 10 * rtol, 20 * atol)


@pytest.mark.parametrize("equation", [e for e in EQUATIONS if e not in (",ij,->ji", "b...i,b...i->b...", "...ij")])
def test_onnx_runtime_agrees(equation: str) -> None:
    case = Case("Einsum", *operands(equation), equation=equation)
    close(case.run()[0], case.onnxruntime()[0], 1e-4, 1e-5)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_random_equations(data: st.DataObject) -> None:
    letters = st.sampled_from("abcde")
    terms = ["".join(data.draw(st.lists(letters, max_size=4))) for _ in range(data.draw(st.integers(1, 3)))]
    used = sorted(set("".join(terms)))
    out = "".join(data.draw(st.lists(st.sampled_from(used), unique=True))) if used else ""
    equation = ",".join(terms) + "->" + out
    xs = operands(equation, "float64")
    close(Case("Einsum", *xs, equation=equation).run()[0], np.einsum(equation, *xs), 1e-10, 1e-10)


def test_broadcasting() -> None:
    a, b = operands("...ij", hidden=(4, 1)) + operands("...jk", hidden=(3,))
    expected = np.einsum("...ij,...jk->...ik", a.astype(np.float64), b)
    for first, second in ((a, b), (a[:1], b), (a, b[:1])):
        expected = np.einsum("...ij,...jk->...ik", first.astype(np.float64), second)
        close(Case("Einsum", first, second, equation="...ij,...jk->...ik").run()[0], expected, 1e-4, 1e-5)


def test_empty_operands() -> None:
    empty = np.zeros((3, 0), np.float32)
    np.testing.assert_array_equal(Case("Einsum", empty, equation="ij->i").run()[0], np.zeros(3))
    found = Case("Einsum", empty, empty.T.copy(), equation="ij,jk->ik").run()[0]
    np.testing.assert_array_equal(found, np.zeros((3, 3)))
    assert Case("Einsum", empty, empty, equation="ij,ij->ij").run()[0].shape == (3, 0)


@pytest.mark.parametrize(
    ("equation", "shape", "axis"),
    [
        ("bij,bjk->bik", (70, 33), 0),
        ("bij,jk->bik", (70, 33), 0),
        ("ij,bj->ib", (7, 65), 1),
        ("bi,bi->b", (130,), 0),
        ("bij->bi", (30, 100), 0),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_s_bits_do_not_depend_on_the_batch(equation: str, shape: tuple[int, ...], axis: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    size = {"b": 9, **dict(zip("ij", shape, strict=False)), "k": 20}
    if len(shape) == 1:
        size["i"] = shape[0]
    terms = equation.split("->")[0].split(",")
    xs = [rng.standard_normal([size[ch] for ch in term]).astype(dtype) for term in terms]
    case = Case("Einsum", *xs, equation=equation)
    model = onnx.load_from_string(case.bytes)
    for port, term in zip(model.graph.input, terms, strict=True):
        for ch, d in zip(term, port.type.tensor_type.shape.dim, strict=True):
            if ch == "b":
                d.dim_param = "batch"
    model.graph.output[0].type.CopyFrom(
        helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
    )
    loaded = inferkit.Model.load(model.SerializeToString())
    whole = loaded.run(case.inputs)["y0"]
    for rows in ([0], [4], [8, 2], [1, 3, 5, 7]):
        feeds = {
            f"x{n}": np.ascontiguousarray(np.take(x, rows, term.index("b"))) if "b" in term else x
            for n, (x, term) in enumerate(zip(xs, terms, strict=True))
        }
        assert loaded.run(feeds)["y0"].tobytes() == np.take(whole, rows, axis).tobytes()


@pytest.mark.parametrize("k", [33, 300, 1500])
def test_float64_is_near_the_exact_sums(k: int) -> None:
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((3, 7, k)), rng.standard_normal((3, k, 20))
    exact = np.einsum("bij,bjk->bik", a.astype(np.longdouble), b.astype(np.longdouble))
    size = np.einsum("bij,bjk->bik", np.abs(a), np.abs(b))
    for constant in ((), (1,)):
        (found,) = Case("Einsum", a, b, equation="bij,bjk->bik", constant=constant).run()
        assert np.abs(found - exact).max() <= 8 * np.finfo(np.float64).eps * size.max()
    (found,) = Case("Einsum", a, b[0], equation="bij,jk->bik", constant=(1,)).run()
    exact = np.einsum("bij,jk->bik", a.astype(np.longdouble), b[0].astype(np.longdouble))
    assert np.abs(found - exact).max() <= 8 * np.finfo(np.float64).eps * size.max()


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk->ik", [(2, 3)], r"2 terms for 1 input\b"),
        ("ij->i", [(2, 3, 4)], "does not fit an input of shape"),
        ("...ijk->i", [(2, 3)], "does not fit an input of shape"),
        ("ij->ii", [(2, 3)], "twice"),
        ("ij->ik", [(2, 3)], "that no input has"),
        ("i1->i", [(2, 3)], "where a letter is expected"),
        ("i....->i", [(2, 3)], "where a letter is expected"),
        ("ij->i->j", [(2, 3)], "where a letter is expected"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "is 3 in one input and 4 in another"),
        ("ii->i", [(2, 3)], "in one input"),
    ],
)
def test_malformed_equations(equation: str, shapes: list[tuple[int, ...]], message: str) -> None:
    case = Case("Einsum", *(np.zeros(s, np.float32) for s in shapes), equation=equation)
    with pytest.raises(inferkit.ModelError, match=message):
        inferkit.Model.load(case.bytes_with_output("float32", (2,)))


def test_an_intermediate_result_beyond_all_memory_is_refused() -> None:
    shapes = [(2**16, 2**16), (2**16, 2**16), (2**16, 2**16)]
    case = Case("Einsum", *(np.zeros((2, 2), np.float32) for _ in shapes), equation="ab,cd,bd->ac")
    model = onnx.load_from_string(case.bytes_with_output("float32", (2**16, 2**16)))
    for port in model.graph.input:
        for d in port.type.tensor_type.shape.dim:
            d.dim_value = 2**16
    with pytest.raises(inferkit.UnsupportedOpError, match="an intermediate result"):
        inferkit.Model.load(model.SerializeToString(), max_run_bytes=1 << 62)


def test_an_output_without_the_ellipsis_is_refused() -> None:
    case = Case("Einsum", np.zeros((2, 3, 4), np.float32), equation="...i->i")
    with pytest.raises(inferkit.UnsupportedOpError, match="without the ellipsis"):
        inferkit.Model.load(case.bytes_with_output("float32", (4,)))


@pytest.mark.parametrize("case", node_test_cases("Einsum"), ids=lambda c: c.name)
def test_node_tests(case: Any) -> None:
    check_node_test(case)


def test_integers_wrap_around() -> None:
    """As numpy's do, in everything that sums products."""
    a, b = np.full((3, 3), 2**62, np.int64), np.full((3, 3), 3, np.int64)
    np.testing.assert_array_equal(Case("Einsum", a, b, opset=13, equation="ij,jk->ik").run()[0], a @ b)
    np.testing.assert_array_equal(Case("Einsum", a, opset=13, equation="ij->i").run()[0], a.sum(1))
    np.testing.assert_array_equal(Case("MatMul", a, b, opset=13).run()[0], a @ b)
    np.testing.assert_array_equal(Case("Gemm", a, b, a, opset=13).run()[0], a @ b + a)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", [(), (1,), (2,), (1, 2)], ids=str)
@pytest.mark.parametrize("shape", [None, (), (1,), (50,), (1, 50), (1, 1), (19, 1), (19, 50)], ids=str)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.3, 1.0), (1.0, 0.7), (-1.7, 0.3), (0.25, 0.0)])
def test_what_gemm_does_to_a_product_is_rounded_as_if_it_came_behind(
    alpha: float, beta: float, shape: tuple[int, ...] | None, constant: tuple[int, ...], dtype: type
) -> None:
    rng = np.random.default_rng(3)
    a, b, c = (rng.standard_normal(s or ()).astype(dtype) for s in ((19, 700), (700, 50), shape))
    right = (1,) if 1 in constant else ()
    product = Case("MatMul", a, b, constant=right).run()[0]
    expected = product * dtype(np.float32(alpha))
    if shape is not None and beta != 0:
        expected = expected + dtype(np.float32(beta)) * c
    addend, constant = (None, right) if shape is None else (c, constant)
    for threads in 1, 2:
        found = Case("Gemm", a, b, addend, constant=constant, alpha=alpha, beta=beta).run(threads=threads)[0]
        np.testing.assert_array_equal(found, expected)


def test_gemm_reads_no_addend_that_it_takes_zero_times() -> None:
    a, b, c = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32), np.full(4, np.nan, np.float32)
    for constant in (), (1,), (1, 2):
        assert (Case("Gemm", a, b, c, constant=constant, beta=0.0).run()[0] == 3).all()


def test_a_factor_of_what_is_left_out_costs_no_digit() -> None:
    large = np.array([[2**60 + 1]])
    assert Case("Gemm", large, np.array([[1]]), opset=13, alpha=2.0, beta=0.5).run()[0].item() == 2**61 + 2


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_integers_times_fractions(dtype: str) -> None:
    """Gemm's factors are floats whatever the type: what stands behind the point is cut off once, at the end."""
    a, b, c = np.array([[5, 3]], dtype), np.array([[3], [4]], dtype), np.array([[7]], dtype)
    for alpha, beta, want in ((0.5, 1.0, 20), (1.0, 0.5, 30), (1.25, 1.5, 44), (2.0, 0.0, 54), (0.25, 0.25, 8)):
        assert Case("Gemm", a, b, c, opset=13, alpha=alpha, beta=beta).run()[0].item() == want
    assert Case("Gemm", a, b, opset=13, alpha=0.5).run()[0].item() == 13
    if dtype.startswith("i"):
        assert Case("Gemm", -a, b, opset=13, alpha=0.5).run()[0].item() == -13
