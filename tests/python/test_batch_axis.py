"""Models whose inputs are not all of a free number of rows: a fixed batch, and inputs that all rows share."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx.parser
import pytest

import inferkit
from inferkit.diagnostics import _samples


def load(text: str, opset: int = 17) -> inferkit.Model:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return inferkit.Model.load(onnx.parser.parse_model(f"{head} {text}").SerializeToString())


def double(batch: int) -> inferkit.Model:
    return load(f"g (float[{batch}, 3] x) => (float[{batch}, 3] y) <float[1] k = {{2}}> {{ y = Mul(x, k) }}")


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("options", [{}, {"caller_runs": False}, {"max_delay": 0.02}], ids=str)
def test_a_fixed_batch_is_gathered_and_filled_up(batch: int, options: dict[str, Any]) -> None:
    with inferkit.Batcher(double(batch), max_batch_size=16, **options) as batcher:
        assert batcher.max_batch_size == batch
        tickets = [batcher.submit(np.full((1, 3), i, np.float32)) for i in range(11)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(), np.full((1, 3), 2 * i))
        np.testing.assert_array_equal(batcher(np.ones(3, np.float32)), np.full(3, 2))
        whole = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
        np.testing.assert_array_equal(batcher(whole), 2 * whole)
        np.testing.assert_array_equal(batcher(whole[: batch - 1 or 1]), 2 * whole[: batch - 1 or 1])
        with pytest.raises(inferkit.ValidationError, match=f"fixed at {batch}") as caught:
            batcher(np.ones((batch + 1, 3), np.float32))
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("x", "y", "row"),
    [
        ("float[n, 3, 1]", "float[n, 3]", (3, 1)),
        ("float[n, 1]", "float[n]", (1,)),
        ("float[n, 4]", "float[n, 4]", (4,)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"caller_runs": False}, {"max_delay": 0.02}], ids=str)
def test_a_row_alone_answers_as_in_a_batch_where_a_squeeze_takes_its_axis(
    x: str, y: str, row: tuple[int, ...], options: dict[str, Any]
) -> None:
    """Squeeze without axes takes every dimension of 1: of a batch of one also that of the batch."""
    model = load(f"g ({x} x) => ({y} y) {{ z = Squeeze(x) y = Add(z, z) }}")
    rows = np.arange(5 * np.prod(row), dtype=np.float32).reshape(5, *row)
    expected = 2 * rows.reshape(5, *[d for d in row if d != 1])
    np.testing.assert_array_equal(model(rows[:1]), expected[0])  # by the operator's text
    with inferkit.Batcher(model, max_batch_size=8, **options) as batcher:
        np.testing.assert_array_equal(batcher(rows[:1]), expected[:1])
        np.testing.assert_array_equal(batcher(rows[0]), expected[0])
        np.testing.assert_array_equal(batcher(rows), expected)
        tickets = [batcher.submit(rows[i : i + 1]) for i in range(5)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(), expected[i : i + 1])


@pytest.mark.parametrize("rows", [1, 2])
def test_an_answer_that_is_no_row_is_refused(rows: int) -> None:
    model = inferkit.Model.from_callable(
        lambda x: x.ravel()[:2], inputs=[("x", "float32", (None, 3))], outputs=[("y", "float32", (None, 3))]
    )
    with inferkit.Batcher(model) as batcher, pytest.raises(inferkit.OutputError):
        batcher(np.ones((rows, 3), np.float32))


def test_threads_fill_a_fixed_batch_together() -> None:
    wrong: list[int] = []

    def ask(start: int) -> None:
        for i in range(start, start + 50):
            x = np.full((1 + i % 3, 3), i, np.float32)
            if not np.array_equal(batcher(x), 2 * x):
                wrong.append(i)

    with inferkit.Batcher(double(4)) as batcher:
        threads = [threading.Thread(target=ask, args=(100 * i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert batcher.stats().completed == 300


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax <axis = 0> (x)",
        "m = ReduceMax <axes = [0], keepdims = 1> (x) y = Sub(x, m)",
        "m = ReduceMin <axes = [0], keepdims = 1> (x) y = Sub(x, m)",
        "y = Mul(x, place)",
        "y = CumSum(x, zero)",
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_rows_that_depend_on_one_another_are_not_filled_up(body: str, sign: int) -> None:
    constants = "float[4, 1] place = {1, 2, 3, 4}, int64 zero = {0}"
    model = load(f"g (float[4, 3] x) => (float[4, 3] y) <{constants}> {{ {body} }}")
    x = sign * np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    with inferkit.Batcher(model) as batcher:
        for _ in range(2):
            with pytest.raises(inferkit.ValidationError, match="depends on the others") as caught:
                batcher(x[:1])
            assert caught.value.reason == "shape"
        np.testing.assert_array_equal(batcher(x), model(x))


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8", "double"])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_rows_of_other_types_that_depend_on_one_another(dtype: str, op: str) -> None:
    model = load(
        f"g ({dtype}[4, 3] x) => ({dtype}[4, 3] y) {{ m = {op} <axes = [0], keepdims = 1> (x) y = Max(x, m) }}"
    )
    x = np.arange(1, 13).reshape(4, 3).astype({"double": "float64"}.get(dtype, dtype))
    with inferkit.Batcher(model) as batcher:
        if op == "ReduceMax":
            with pytest.raises(inferkit.ValidationError, match="depends on the others"):
                batcher(x[:1])
        else:  # the larger of a row's own value and of the least of all: its own, whatever the others are
            np.testing.assert_array_equal(batcher(x[:2]), x[:2])
        np.testing.assert_array_equal(batcher(x), model(x))


SCALED = "g (float[n, 3] a, float s) => (float[n, 3] y) { y = Mul(a, s) }"


@pytest.mark.parametrize("options", [{}, {"caller_runs": False}, {"inline_limit": 0, "max_delay": 0.02}], ids=str)
def test_a_scalar_input_is_shared_by_the_rows_of_a_run(options: dict[str, Any]) -> None:
    with inferkit.Batcher(load(SCALED), max_batch_size=8, **options) as batcher:
        tickets = [batcher.submit(np.ones((1 + i % 2, 3), np.float32), np.float32(i % 4)) for i in range(40)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(), np.full((1 + i % 2, 3), i % 4))
        np.testing.assert_array_equal(batcher(np.ones(3, np.float32), np.float32(5)), np.full(3, 5))
        answer = batcher({"a": np.ones((2, 3), np.float32), "s": np.array(6, np.float32)})["y"]
        np.testing.assert_array_equal(answer, np.full((2, 3), 6))
        for wrong in (np.ones(1, np.float32), np.float64(1), np.float32("nan")):
            with pytest.raises(inferkit.ValidationError, match="'s'"):
                batcher(np.ones((1, 3), np.float32), wrong)


def test_a_row_beside_a_scalar_is_the_same_for_the_model() -> None:
    model, row = load(SCALED), np.ones(3, np.float32)
    swapped = load("g (float s, float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { p = Mul(a, s) y = Add(p, b) }")
    np.testing.assert_array_equal(model(row, np.float32(5)), 5 * row)
    np.testing.assert_array_equal(model(np.stack([row, row]), np.float32(5)), np.full((2, 3), 5))
    np.testing.assert_array_equal(swapped(np.float32(5), row, row), 6 * row)
    with pytest.raises(inferkit.ValidationError, match=r"'b' of shape .* has a batch axis, but input 'a' does not"):
        swapped(np.float32(5), row, np.stack([row]))
    with pytest.raises(inferkit.ValidationError, match="'s'"):
        model(row, np.ones(1, np.float32))


def test_requests_of_one_scalar_share_a_batch() -> None:
    seen: list[tuple[int, float]] = []

    def scaled(a: np.ndarray, s: np.ndarray) -> np.ndarray:
        assert s.shape == ()
        seen.append((len(a), float(s)))
        return a * s

    ports = [("a", "float32", (None, 3)), ("s", "float32", ())]
    model = inferkit.Model.from_callable(scaled, ports, [("y", "float32", (None, 3))])
    with inferkit.Batcher(model, max_batch_size=4, max_delay=30.0) as batcher:
        tickets = [batcher.submit(np.ones(3, np.float32), np.float32(i % 2)) for i in range(8)]
        assert [float(ticket.result()[0]) for ticket in tickets] == [0, 1] * 4
    assert sorted(seen) == [(4, 0.0), (4, 1.0)]


def test_a_model_of_scalars_alone_cannot_be_batched() -> None:
    model = load("g (float a) => (float y) { y = Neg(a) }")
    with pytest.raises(ValueError, match="no other input has one"):
        inferkit.Batcher(model)


def test_a_swapped_model_is_looked_at_anew() -> None:
    text = "g (float[4, 3] x) => (float[4, 3] y) {{ y = {} (x) }}"
    apart, mixing = load(text.format("Neg")), load(text.format("Softmax <axis = 0>"))
    x = np.arange(1, 4, dtype=np.float32)
    with inferkit.Batcher(apart) as batcher:
        for _ in range(3):
            np.testing.assert_array_equal(batcher(x), -x)
            batcher.swap(mixing)
            with pytest.raises(inferkit.ValidationError, match="depends on the others"):
                batcher(x)
            batcher.swap(apart)


def test_swaps_among_short_requests() -> None:
    models = [load(f"g (float[4, 3] x) => (float[4, 3] y) {{ y = {op} (x) }}") for op in ("Neg", "Identity")]
    wrong: list[np.ndarray] = []
    done = threading.Event()

    def ask() -> None:
        x = np.arange(1, 4, dtype=np.float32)
        while not done.is_set():
            y = batcher(x)
            if abs(y).tolist() != x.tolist():
                wrong.append(y)

    with inferkit.Batcher(models[0]) as batcher:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(100):
            batcher.swap(models[i % 2])
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_one_row_is_no_rows() -> None:
    """Where the rows depend on each other, a request must have all of them."""
    mixed = "{ s = ReduceSum <keepdims = 1> (x, axes) y = Div(x, s) }"
    model = load(f"g (float[4, 3] x) => (float[4, 3] y) <int64[1] axes = {{0}}> {mixed}")
    with inferkit.Batcher(model) as batcher, pytest.raises(inferkit.ValidationError, match="the request has 1 row;"):
        batcher(np.ones(3, np.float32))


# ---- Inputs with dimensions that all rows share ---------------------------------------------------------------------

LOOKED_UP = """g (float[n, 4] x, float[4, 3] table, float[3] shift) => (float[n, 3] y)
{ p = MatMul(x, table) y = Add(p, shift) }"""
OPTIONS: list[dict[str, Any]] = [{}, {"caller_runs": False}, {"inline_limit": 0, "max_delay": 0.02}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_table_is_shared_by_the_rows_of_a_run(options: dict[str, Any]) -> None:
    model, rng = load(LOOKED_UP), np.random.default_rng(0)
    assert [spec.shared for spec in model.inputs] == [False, True, True]
    tables = rng.standard_normal((3, 4, 3)).astype(np.float32)
    shifts = rng.standard_normal((2, 3)).astype(np.float32)
    with inferkit.Batcher(model, max_batch_size=8, **options) as batcher:
        asked = [
            (rng.standard_normal((1 + i % 3, 4)).astype(np.float32), tables[i % 3], shifts[i % 2]) for i in range(60)
        ]
        tickets = [batcher.submit(*inputs) for inputs in asked]
        for ticket, inputs in zip(tickets, asked, strict=True):
            assert ticket.result().tobytes() == model(*inputs).tobytes()
        row = asked[0][0][0]
        for answer in (batcher(row, tables[0], shifts[0]), model(row, tables[0], shifts[0])):
            np.testing.assert_array_equal(answer, model(row[None], tables[0], shifts[0])[0])
        for wrong in (tables[0][:3], tables[0][0], tables[:1]):
            with pytest.raises(inferkit.ValidationError, match="'table'"):
                batcher(asked[0][0], wrong, shifts[0])


def test_requests_of_one_table_share_a_batch_and_others_do_not() -> None:
    tables = [np.full((4, 3), i, np.float32) for i in range(2)]
    x, shift = np.ones((1, 4), np.float32), np.zeros(3, np.float32)
    with inferkit.Batcher(load(LOOKED_UP), max_batch_size=4, max_delay=30.0, caller_runs=False) as batcher:
        tickets = [batcher.submit(x, tables[i % 2].copy(), shift) for i in range(8)]
        assert [float(ticket.result()[0, 0]) for ticket in tickets] == [0, 4] * 4
        assert [ticket.timing.batch_size for ticket in tickets] == [4] * 8
        assert batcher.stats().batches == 2


def test_one_row_for_all_of_them_may_come_without_its_first_dimension() -> None:
    model = load("g (float[n, 5] x, float[1, 5] place) => (float[n, 5] y) { y = Add(x, place) }")
    x, place = np.ones((3, 5), np.float32), np.arange(5, dtype=np.float32)
    with inferkit.Batcher(model, max_batch_size=8) as batcher:
        np.testing.assert_array_equal(batcher(x, place[None]), x + place)
        np.testing.assert_array_equal(batcher(x[0], place), x[0] + place)
        np.testing.assert_array_equal(batcher(x, place), x + place)
        tickets = [batcher.submit(x[:1], place + i % 2) for i in range(20)]
        for i, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(), x[:1] + place + i % 2)


@pytest.mark.parametrize(
    "text",
    [
        # As many rows as the other input has, which its file fixes.
        "g (float[n, 3] x, float[2, 3] z) => (float[n, 3] y) { y = Add(x, z) }",
        # The batch is another one of its axes.
        "g (float[n, 3] x, float[2, m, 3] z) => (float[n, 3] y) "
        "<int64 first = {0}> { h = Gather <axis = 0> (z, first) y = Add(x, h) }",
    ],
)
def test_an_input_that_the_rows_must_fit_is_not_shared(text: str) -> None:
    model = load(text)
    shape = [2 if size is None else size for size in model.inputs[1].shape]
    x, z = np.ones((2, 3), np.float32), np.ones(shape, np.float32)
    with inferkit.Batcher(model, max_batch_size=8) as batcher:
        np.testing.assert_array_equal(batcher(x, z), model(x, z))
        with pytest.raises(inferkit.ValidationError):
            batcher(np.ones((4, 3), np.float32), z)


@pytest.mark.parametrize("size", ["1, 3, 100, 100", "1, m"])
def test_one_that_may_be_too_large_to_tell_requests_apart_by_is_the_batch(size: str) -> None:
    """As an image beside its points: a request of one row has one, and runs alone."""
    model = load(
        f"g (float[n, 1] x, float[{size}] image) => (float[n, 1] y) "
        "{ f = Flatten(image) p = Mul(f, x) y = ReduceMean <axes = [1], keepdims = 1> (p) }"
    )
    assert not model.inputs[1].shared
    image = np.random.default_rng(0).random([m or 30_000 for m in model.inputs[1].shape], np.float32)
    rows = [np.full((1, 1), i, np.float32) for i in range(8)]
    with inferkit.Batcher(model, max_batch_size=8) as batcher:
        tickets = [batcher.submit(x, image) for x in rows]
        for ticket, x in zip(tickets, rows, strict=True):
            assert ticket.result().tobytes() == model(x, image).tobytes()


def test_a_table_that_is_too_large_to_be_shared_is_told_so() -> None:
    model = load("g (float[n, 400] x, float[400, 300] t) => (float[n, 300] y) { y = MatMul(x, t) }")
    assert not model.inputs[1].shared
    x, table = np.ones((3, 400), np.float32), np.ones((400, 300), np.float32)
    said = (
        "Input 't' has 480000 bytes, and a value for all rows may have 65536: if it is meant as one, "
        "call the model directly$"
    )
    with inferkit.Batcher(model) as batcher:
        for rows, why in ((x, "has 3 and input 't' has 400"), (x[0], "'t' has a batch axis and input 'x' does not")):
            with pytest.raises(inferkit.ValidationError, match=f"{why}.*{said}"):
                batcher(rows, table)
    np.testing.assert_array_equal(model(x, table), x @ table)  # as it says


def test_rows_that_do_not_fit_are_no_large_tables() -> None:
    model = load("g (float[n, 20000] x, float[n, 20000] z) => (float[n, 20000] y) { y = Add(x, z) }")
    x = np.ones((2, 20000), np.float32)
    with inferkit.Batcher(model) as batcher:
        with pytest.raises(inferkit.ValidationError, match=r"input 'x' has 2 and input 'z' has 1$"):
            batcher(x, x[:1])
        with pytest.raises(inferkit.ValidationError, match=r"or all without it for a single row$"):
            batcher(x, x[0])


def test_rows_that_a_table_combines_run_alone() -> None:
    """Which rows it picks, the table says."""
    model = load(
        "g (float[n, 3] x, int64[2] picked) => (float[n, 3] y) "
        "{ r = Gather <axis = 0> (x, picked) m = ReduceMax <axes = [0], keepdims = 1> (r) y = Sub(x, m) }"
    )
    picked = np.array([0, 0])
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.05) as batcher:
        tickets = [batcher.submit(np.full((2, 3), i, np.float32), picked) for i in range(12)]
        for ticket in tickets:
            np.testing.assert_array_equal(ticket.result(), np.zeros((2, 3)))


def test_a_padded_batch_beside_a_table() -> None:
    text = (
        "g (float[n, t] x, float[n, t] mask, float[2] w) => (float[n, 1] y) <int64[1] one = {1}> "
        "{ p = Mul(x, mask) s = ReduceSum <keepdims = 1> (p, one) m = ReduceMax <keepdims = 0> (w) y = Mul(s, m) }"
    )
    w = np.array([2, 3], np.float32)
    with inferkit.Batcher(load(text), max_batch_size=8, pad={"x": (1, 0), "mask": (1, 0)}, pad_to=[4, 8]) as batcher:
        batcher.warm_up()
        tickets = [batcher.submit(*[np.ones(i % 8 + 1, np.float32)] * 2, w) for i in range(24)]
        assert [float(ticket.result()[0]) for ticket in tickets] == [3.0 * (i % 8 + 1) for i in range(24)]


@pytest.mark.parametrize("shape", ["", "[2]"])
@pytest.mark.parametrize("options", [*OPTIONS, {"coalesce": True, "caller_runs": False}], ids=str)
def test_text_that_all_rows_share(shape: str, options: dict[str, Any]) -> None:
    kind = f"string{shape}" if shape else "string"
    start = "s = Gather <axis = 0> (prefix, zero)" if shape else "s = Identity(prefix)"
    model = load(
        f"g (string[n, 1] x, {kind} prefix) => (string[n, 1] y) <int64 zero = {{0}}> "
        f"{{ {start} y = StringConcat(s, x) }}",
        opset=20,
    )
    words = ["", "a", "ab", "b" * 300, "\u00e9\u4e2d"]
    given = [np.array([word, "b"] if shape else word, object) for word in words]
    with inferkit.Batcher(model, max_batch_size=8, **options) as batcher:
        tickets = [
            batcher.submit(np.array([[f"{i}{k}"] for k in range(1 + i % 2)], object), given[i % 5].copy())
            for i in range(40)
        ]
        for i, ticket in enumerate(tickets):
            assert ticket.result().tolist() == [[f"{words[i % 5]}{i}{k}"] for k in range(1 + i % 2)]
        long = np.array(["b" * 70_000, "b"] if shape else "b" * 70_000, object)
        with pytest.raises(inferkit.ValidationError, match="65536 bytes at most") as caught:
            batcher(np.array([["x"]], object), long)
        assert caught.value.reason == "too_large"


def test_what_cannot_be_made_up_says_how_to_give_it() -> None:
    model = inferkit.Model.from_callable(
        lambda x: (_ for _ in ()).throw(ValueError("not these")),
        [("x", "float32", (None, None))],
        [("y", "float32", (None, 1))],
    )
    with pytest.raises(ValueError, match=r"--input DATA.npz \(in Python, with diagnose.*last error was: .*not these"):
        _samples.made_up(model, 3, model.run)


@pytest.mark.parametrize(("fixed", "rows"), [("2, 3", 2), ("1, 3", 1)])
def test_what_is_made_up_for_a_model_fits_it(fixed: str, rows: int) -> None:
    """As many rows of an input as the file fixes for another; and one table for all samples that share a batch."""
    model = load(f"g (float[n, 3] x, float[{fixed}] z) => (float[n, 3] y) {{ y = Add(x, z) }}")
    samples = _samples.made_up(model, 3, model.run)
    assert [sample["x"].shape for sample in samples] == [(rows, 3)] * 3
    assert _samples.fixed_rows(model.inputs) == (None if model.inputs[1].shared else rows)
    with inferkit.Batcher(model) as batcher:
        for sample in samples:
            np.testing.assert_array_equal(batcher(sample["x"], sample["z"]), sample["x"] + sample["z"])
