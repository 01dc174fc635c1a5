"""Tensors of strings from end to end: what comes in, what moves them, what goes out, alone and in a batcher."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit

STRING, INT64, FLOAT, BOOL = TensorProto.STRING, TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
# Empty, of one byte to four a character, a letter with a combining mark, a NUL within, what stands outside the BMP.
WORDS = ["", "a", "été", "e\u0301", "漢字", "\U0001f600", "in\x00side", "x" * 300, " blank ", "\U0010ffff"]


def value(name: str, kind: int, *shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def load(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    **options: Any,
) -> inferkit.Model:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(constants))
    opsets = [helper.make_opsetid(domain, version) for domain, version in
              (("", opset), ("ai.onnx.ml", 4), ("com.microsoft", 1))]  # fmt: skip
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return inferkit.Model.load(model.SerializeToString(), **options)


def identity(*shape: Any, **options: Any) -> inferkit.Model:
    ports = [value(name, STRING, *shape) for name in ("x", "y")]
    return load([helper.make_node("Identity", ["x"], ["y"])], ports[:1], ports[1:], **options)


def words(*items: str) -> np.ndarray:
    return np.array(items, object)


# ---- in and out ----------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out() -> None:
    model = identity("n")
    assert [(p.name, p.dtype, p.shape) for p in (*model.inputs, *model.outputs)] == [
        ("x", "string", (None,)), ("y", "string", (None,)),
    ]  # fmt: skip
    got = model(words(*WORDS))
    assert got.dtype == object
    assert got.tolist() == WORDS
    assert all(type(w) is str for w in got)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=12))
def test_any_text(texts: list[str]) -> None:
    model = identity("n", input_checks=LENIENT)
    assert model(words(*texts)).tolist() == texts


@pytest.mark.parametrize(
    "x",
    [
        np.array(["a", "bé", "漢字"]),
        np.array(["a", "bé", "漢字"], "<U40"),
        np.array([np.str_("a"), "bé", "漢字"], object),
        ["a", "bé", "漢字"],
        ("a", "bé", "漢字"),
        np.array(["a", "-", "bé", "-", "漢字"])[::2],
        np.array(["漢字", "bé", "a"], object)[::-1],
        np.array([["a", "z"], ["bé", "z"], ["漢字", "z"]])[:, 0],
    ],
    ids=["str_", "wide", "object of str_", "list", "tuple", "every second", "backwards", "a column"],
)
def test_ways_to_give_strings(x: Any) -> None:
    assert identity("n")(x).tolist() == ["a", "bé", "漢字"]


@pytest.mark.skipif(not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="numpy 1")
def test_strings_of_any_length_of_numpy_2() -> None:
    x = np.array(["a", "bé", "漢字" * 40], np.dtypes.StringDType())
    assert identity("n")(x).tolist() == x.tolist()


def test_an_object_with_array() -> None:
    class Column:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array(["a", "b"], dtype)

    assert identity("n")(Column()).tolist() == ["a", "b"]


def test_shapes() -> None:
    x = np.array([["a", "b", "c"], ["d", "e", "f"]])
    got = identity("n", 3)(x)
    assert got.shape == (2, 3)
    assert got.tolist() == x.tolist()
    assert identity("n", 3)(x[0]).tolist() == ["a", "b", "c"]  # one row
    assert identity("n")("just one").tolist() == "just one"
    assert identity("n", input_checks=LENIENT)(words()).shape == (0,)
    # Unaligned, and with other fields between.
    records = np.array([("a", 1, "bé"), ("c", 2, "d")], np.dtype([("p", "S1"), ("n", "i1"), ("w", "<U3")]))
    assert identity("n")(records["w"]).tolist() == ["bé", "d"]


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (words("a", None), r"at \[1\] is None"),
        (np.array([["a", "b"], ["c", float("nan")]], object), r"at \[1, 1\] is a float, nan"),
        (words("a", b"b"), r"at \[1\] is bytes.*decode"),
        (words("a", 3), r"at \[1\] is of type int, not a str: numpy\.asarray\(x\)\.astype\(str\)"),
        (words("a", "b\ud800c"), r"at \[1\] holds U\+D800"),
        (np.array(["a", "\udfff"]), r"at \[1\] holds U\+DFFF, half"),
        (np.array([97, 0x110000], np.uint32).view("U1"), r"at \[1\] holds U\+110000, which is beyond"),
        (np.array([b"a"]), r"has dtype \|S1; expected strings .*decode"),
        (np.array([1.0]), r"has dtype float64; expected strings .*astype\(str\)"),
        (np.array(["a"]).astype(">U1"), r"has dtype >U1; expected strings .*astype\(str\)"),
        (np.ma.masked_array(["a", "b"], [True, False]), "masked"),
        ({"a", "b"}, "got set"),
        (3, "got int"),
        ([["a"], ["b", "c"]], r"is of type list"),
    ],
)
def test_what_is_no_string_is_refused(x: Any, says: str) -> None:
    for shape in (("n",), ("n", "m")):
        with pytest.raises(inferkit.ValidationError, match=says) as caught:
            identity(*shape)(x)
        assert caught.value.reason == "dtype"
        assert "input 'x'" in str(caught.value)


def test_numbers_take_no_strings() -> None:
    model = load([helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, "n")], [value("y", FLOAT, "n")])
    for x in (np.array(["1"]), words("1")):
        with pytest.raises(inferkit.ValidationError, match="input 'x'"):
            model(x)


def test_out_takes_no_strings() -> None:
    with pytest.raises(inferkit.ValidationError, match=r"out\['y'\]: an output of strings"):
        identity("n").run({"x": words("a")}, out={"y": np.empty(1, object)})


def test_the_answer_outlives_model_and_input() -> None:
    model = identity("n")
    x = words("first " * 9, "second " * 9)
    got = model(x)
    before = got.tolist()
    x[:] = "gone"
    model(words("third " * 9, "fourth " * 9))
    del model
    assert got.tolist() == before


def test_references_are_given_back() -> None:
    model, word = identity("n"), "".join(["a word ", "of its own"])
    x = words(word)
    before = sys.getrefcount(word)
    for _ in range(50):
        model(x)
        with pytest.raises(inferkit.ValidationError):
            model(words(word, None))
    assert sys.getrefcount(word) == before


def test_constants() -> None:
    constant = helper.make_tensor("c", STRING, [2], ["één".encode(), b""])
    model = load([helper.make_node("Identity", ["c"], ["y"])], [], [value("y", STRING, 2)], [constant])
    assert model.run({})["y"].tolist() == ["één", ""]
    with pytest.raises(inferkit.ModelError, match="not UTF-8"):
        load([], [], [value("c", STRING, 1)], [helper.make_tensor("c", STRING, [1], [b"\xff"])])
    for attributes in ({"value_string": b"a\xf0"}, {"value_strings": ["a", b"\xc3"]}):
        node = helper.make_node("Constant", [], ["y"], **attributes)
        with pytest.raises(inferkit.ModelError, match="not UTF-8"):
            load([node], [], [value("y", STRING, *([2] * ("value_strings" in attributes)))])


# ---- what moves strings ----------------------------------------------------------------------------------------------

X = np.array([[f"{r}{c}é" * (r + c) for c in range(4)] for r in range(3)], object)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


MOVES: list[tuple[str, onnx.NodeProto, list[onnx.TensorProto], Any]] = [
    ("reshape", helper.make_node("Reshape", ["x", "a"], ["y"]), [ints("a", 2, 6)], X.reshape(2, 6)),
    ("flatten", helper.make_node("Flatten", ["x"], ["y"], axis=0), [], X.reshape(1, 12)),
    ("unsqueeze", helper.make_node("Unsqueeze", ["x", "a"], ["y"]), [ints("a", 1)], X[:, None]),
    ("transpose", helper.make_node("Transpose", ["x"], ["y"]), [], X.T),
    ("concat", helper.make_node("Concat", ["x", "x"], ["y"], axis=1), [], np.concatenate([X, X], 1)),
    ("gather", helper.make_node("Gather", ["x", "a"], ["y"], axis=1), [ints("a", 3, 0, -2)], X[:, [3, 0, -2]]),
    ("gather rows", helper.make_node("Gather", ["x", "a"], ["y"]), [ints("a", 2, 2)], X[[2, 2]]),
    ("slice", helper.make_node("Slice", ["x", "a", "b", "c", "d"], ["y"]),
     [ints("a", 3), ints("b", -9), ints("c", 1), ints("d", -2)], X[:, 3::-2]),
    ("expand", helper.make_node("Expand", ["x", "a"], ["y"]), [ints("a", 2, 1, 1)], np.stack([X, X])),
    ("tile", helper.make_node("Tile", ["x", "a"], ["y"]), [ints("a", 2, 3)], np.tile(X, (2, 3))),
    ("where", helper.make_node("Where", ["m", "x", "w"], ["y"]),
     [numpy_helper.from_array(np.array([[True], [False], [True]]), "m"),
      helper.make_tensor("w", STRING, [4], [b"w", b"x", b"y", b"z"])],
     np.where([[True], [False], [True]], X, np.array(list("wxyz"), object))),
    ("gather elements", helper.make_node("GatherElements", ["x", "a"], ["y"], axis=1),
     [numpy_helper.from_array(np.array([[1], [0], [3]]), "a")], np.take_along_axis(X, np.array([[1], [0], [3]]), 1)),
    ("compress", helper.make_node("Compress", ["x", "m"], ["y"], axis=0),
     [numpy_helper.from_array(np.array([True, False, True]), "m")], X[[0, 2]]),
    ("scatter elements", helper.make_node("ScatterElements", ["x", "a", "w"], ["y"], axis=1),
     [numpy_helper.from_array(np.array([[1], [0], [3]]), "a"),
      helper.make_tensor("w", STRING, [3, 1], [b"w", b"", b"y"])],
     np.array([[X[0, 0], "w", X[0, 2], X[0, 3]], ["", *X[1, 1:]], [*X[2, :3], "y"]], object)),
    ("scatter nd", helper.make_node("ScatterND", ["x", "a", "w"], ["y"]),
     [numpy_helper.from_array(np.array([[2], [0]]), "a"),
      helper.make_tensor("w", STRING, [2, 4], [c.encode() for c in "abcdefgé"])],
     np.array([list("efgé"), X[1], list("abcd")], object)),
    ("pad", helper.make_node("Pad", ["x", "a", "w"], ["y"]),
     [ints("a", 0, 1, 1, -2), helper.make_tensor("w", STRING, [], ["é".encode()])],
     np.pad(X[:, :2], ((0, 1), (1, 0)), constant_values="é")),
    ("pad with nothing", helper.make_node("Pad", ["x", "a"], ["y"]), [ints("a", 1, 0, 0, 0)],
     np.pad(X, ((1, 0), (0, 0)), constant_values="")),
    ("pad by mirroring", helper.make_node("Pad", ["x", "a"], ["y"], mode="reflect"), [ints("a", 0, 3, 0, 0)],
     np.pad(X, ((0, 0), (3, 0)), mode="reflect")),
    ("trilu", helper.make_node("Trilu", ["x"], ["y"], upper=0), [], np.where(np.tri(3, 4) > 0, X, "")),
    ("crop and pad", helper.make_node("CenterCropPad", ["x", "a"], ["y"]), [ints("a", 5, 2)],
     np.pad(X[:, 1:3], ((1, 1), (0, 0)), constant_values="")),
]  # fmt: skip


@pytest.mark.parametrize(("node", "constants", "want"), [m[1:] for m in MOVES], ids=[m[0] for m in MOVES])
def test_moves(node: onnx.NodeProto, constants: list[onnx.TensorProto], want: np.ndarray) -> None:
    ports = [value("x", STRING, 3, 4)], [value("y", STRING, *want.shape)]
    got = load([node], *ports, constants)(X)
    assert got.shape == want.shape
    assert got.tolist() == want.tolist()
    # And folded, of a constant.
    x = helper.make_tensor("x", STRING, X.shape, [w.encode() for w in X.ravel()])
    assert load([node], [], ports[1], [*constants, x]).run({})["y"].tolist() == want.tolist()


def test_one_hot() -> None:
    node = helper.make_node("OneHot", ["x", "d", "v"], ["y"])
    depth = numpy_helper.from_array(np.array([3]), "d")
    model = load([node], [value("x", INT64, 4), value("v", STRING, 2)], [value("y", STRING, 4, 3)], [depth])
    y = model(np.array([2, 0, -1, 9]), np.array(["off", "ön"], object))
    assert y.tolist() == [["off", "off", "ön"], ["ön", "off", "off"], ["off", "off", "ön"], ["off"] * 3]


def test_a_cache_of_strings() -> None:
    node = helper.make_node("TensorScatter", ["x", "u", "a"], ["y"], axis=1)
    ports = [value("x", STRING, 3, 4), value("u", STRING, 3, 1)], [value("y", STRING, 3, 4)]
    y = load([node], *ports, [ints("a", 0, 3, 1)], opset=24)(X, np.array([["p"], ["q"], ["é"]], object))
    want = X.copy()
    want[0, 0], want[1, 3], want[2, 1] = "p", "q", "é"
    assert y.tolist() == want.tolist()


def test_split_and_squeeze() -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Slice", ["b", "zero", "one", "one"], ["s"]),
        helper.make_node("Squeeze", ["s", "one"], ["c"]),
    ]
    model = load(nodes, [value("x", STRING, "n", 4)], [value("a", STRING, "n", 2), value("c", STRING, "n")],
                 [ints("zero", 0), ints("one", 1)])  # fmt: skip
    a, c = model(X)
    assert a.tolist() == X[:, :2].tolist()
    assert c.tolist() == X[:, 2].tolist()


def test_equal() -> None:
    model = load(
        [helper.make_node("Equal", ["x", "w"], ["y"])], [value("x", STRING, "n", 1)], [value("y", BOOL, "n", 3)],
        [helper.make_tensor("w", STRING, [3], [b"", "é".encode(), b"ab"])],
    )  # fmt: skip
    x = words("é", "e\u0301", "ab", "abc", "", "ab\x00")[:, None]
    assert model(x).tolist() == (x == words("", "é", "ab")).tolist()


def test_shape_and_size() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Size", ["x"], ["n"])]
    model = load(nodes, [value("x", STRING, "a", "b")], [value("s", INT64, 2), value("n", INT64)])
    s, n = model(X)
    assert s.tolist() == [3, 4]
    assert n == 12


@pytest.mark.parametrize("is_sorted", [0, 1])
def test_unique(is_sorted: int) -> None:
    node = helper.make_node("Unique", ["x"], ["y", "first", "of", "count"], sorted=is_sorted)
    ports = [value("y", STRING, "u"), *(value(name, INT64, "u") for name in ("first", "of", "count"))]
    x = ["bé", "é", "a", "é", "bé", "é", "a"]
    y, first, of, count = load([node], [value("x", STRING, "n")], ports)(words(*x))
    assert y.tolist() == (["a", "bé", "é"] if is_sorted else ["bé", "é", "a"])
    assert y[of].tolist() == x
    assert words(*x)[first].tolist() == y.tolist()
    assert dict(zip(y, count.tolist(), strict=True)) == {"bé": 2, "é": 3, "a": 2}


def test_through_if_and_loop() -> None:
    then = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "then", [], [value("t", STRING, "n")])
    other = helper.make_graph([helper.make_node("Identity", ["w"], ["e"])], "else", [], [value("e", STRING, "n")])
    constants = [helper.make_tensor("w", STRING, [1], [b"other"])]
    model = load(
        [helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)],
        [value("yes", BOOL), value("x", STRING, "n")], [value("y", STRING, None)], constants,
    )  # fmt: skip
    assert model(np.array(True), words("a", "b")).tolist() == ["a", "b"]
    assert model(np.array(False), words("a", "b")).tolist() == ["other"]

    body = helper.make_graph(
        [helper.make_node("StringConcat", ["v", "x"], ["longer"]), helper.make_node("Identity", ["go"], ["on"]),
         helper.make_node("Identity", ["longer"], ["each"])],
        "body", [value("i", INT64), value("go", BOOL), value("v", STRING, "n")],
        [value("on", BOOL), value("longer", STRING, "n"), value("each", STRING, "n")],
    )  # fmt: skip
    model = load(
        [helper.make_node("Loop", ["turns", "", "x"], ["last", "all"], body=body)],
        [value("turns", INT64), value("x", STRING, "n")], [value("last", STRING, "n"), value("all", STRING, "t", "n")],
    )  # fmt: skip
    last, each = model(np.array(3), words("ab", "é"))
    assert last.tolist() == ["ab" * 4, "é" * 4]
    assert each.tolist() == [["ab" * n, "é" * n] for n in (2, 3, 4)]


def test_a_loop_that_never_stops_growing_is_stopped() -> None:
    body = helper.make_graph(
        [helper.make_node("StringConcat", ["v", "v"], ["longer"]), helper.make_node("Identity", ["go"], ["on"])],
        "body", [value("i", INT64), value("go", BOOL), value("v", STRING, "n")],
        [value("on", BOOL), value("longer", STRING, "n")],
    )  # fmt: skip
    model = load(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        [value("turns", INT64), value("x", STRING, "n")], [value("y", STRING, "n")], max_run_bytes=1 << 22,
    )  # fmt: skip
    assert len(model(np.array(10), words("ab"))[0]) == 2 * 2**10
    with pytest.raises(inferkit.ValidationError, match="max_run_bytes") as caught:
        model(np.array(60), words("ab"))
    assert caught.value.reason == "too_large"


def test_one_string_shown_many_times_is_no_way_around_the_bound() -> None:
    node = helper.make_node("Tile", ["x", "a"], ["y"])
    ports = [value("x", STRING, 2)], [value("y", STRING, None)]
    model = load([node], *ports, [ints("a", 10_000)], max_run_bytes=1 << 22)
    assert model(words("a", "b")).shape == (20_000,)
    with pytest.raises(inferkit.ValidationError, match="max_run_bytes"):
        model(words("a" * 1000, "b" * 1000))


# ---- in a batcher ----------------------------------------------------------------------------------------------------


def shouting() -> inferkit.Model:
    """Strings and numbers in, strings and numbers out: y is "<x>!" or "<x>?" by the sign of n, and m is n."""
    nodes = [
        helper.make_node("Less", ["n", "zero"], ["negative"]),
        helper.make_node("Where", ["negative", "asks", "calls"], ["end"]),
        helper.make_node("StringConcat", ["x", "end"], ["y"]),
        helper.make_node("Identity", ["n"], ["m"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        helper.make_tensor("asks", STRING, [1], [b"?"]),
        helper.make_tensor("calls", STRING, [1], [b"!"]),
    ]
    return load(
        nodes, [value("x", STRING, "b", 2), value("n", FLOAT, "b", 1)],
        [value("y", STRING, "b", 2), value("m", FLOAT, "b", 1)], constants,
    )  # fmt: skip


def said(x: np.ndarray, n: np.ndarray) -> list[list[str]]:
    return [[w + ("?" if s < 0 else "!") for w in row] for row, (s,) in zip(x, n, strict=True)]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_in_a_batch_as_alone(data: st.DataObject) -> None:
    model = shouting()
    text = st.text(max_size=8) | st.sampled_from(WORDS)
    requests = []
    for rows in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)):
        x = np.array(data.draw(st.lists(st.tuples(text, text), min_size=rows, max_size=rows)), object)
        n = np.array(data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=rows, max_size=rows)), np.float32)
        requests.append((x, n[:, None]))
    with inferkit.Batcher(model, max_batch_size=8, max_delay=0.02, workers=2) as batcher:
        tickets = [batcher.submit(x, n) for x, n in requests]
        for (x, n), ticket in zip(requests, tickets, strict=True):
            y, m = ticket.result(timeout=30)
            assert y.tolist() == said(x, n) == model(x, n)[0].tolist()
            assert m.tolist() == n.tolist()
        y, m = batcher(*requests[0])
        assert y.tolist() == said(*requests[0])


def test_rows_from_an_event_loop() -> None:
    model = shouting()

    async def main() -> None:
        with inferkit.Batcher(model, max_batch_size=16) as batcher:

            async def one(i: int) -> None:
                x, n = words(f"é{i}", "漢" * i), np.float32([(-1) ** i])
                y, _ = await batcher.submit(x, n)
                assert y.tolist() == said(x[None], n[None])[0]
                named = await batcher.submit({"x": x, "n": n})
                assert named["y"].tolist() == y.tolist()

            await asyncio.gather(*(one(i) for i in range(64)))

    asyncio.run(main())


def test_beside_inputs_that_are_copied() -> None:
    """Bools, and what lies apart, are copied for a run on the caller's thread, and strings with them."""
    model = load(
        [helper.make_node("Where", ["m", "x", "w"], ["y"])], [value("m", BOOL, "b", 1), value("x", STRING, "b", 2)],
        [value("y", STRING, "b", 2)], [helper.make_tensor("w", STRING, [2], [b"no", "né".encode()])],
    )  # fmt: skip
    x = np.array([["a", "é"], ["", "漢"], ["c", "d"]], object)
    m = np.array([[True], [False], [True]])
    want = [["a", "é"], ["no", "né"], ["c", "d"]]
    assert model(m, x).tolist() == want
    with inferkit.Batcher(model, max_batch_size=4, max_delay=0.02) as batcher:
        assert batcher(m, x).tolist() == want
        tickets = [batcher.submit(m[r], x[r]) for r in range(3)]
        assert [t.result(30).tolist() for t in tickets] == want


def test_a_bad_request_fails_alone() -> None:
    model = load(
        [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], [value("x", STRING, "b")], [value("y", FLOAT, "b")]
    )
    with inferkit.Batcher(model, max_batch_size=16, max_delay=0.05, workers=1) as batcher:
        tickets = [batcher.submit(words(w)) for w in ("1", "2.5", "none", "-4")]
        assert tickets[0].result(30).tolist() == [1]
        assert tickets[1].result(30).tolist() == [2.5]
        with pytest.raises(inferkit.InferenceError, match="'none'"):
            tickets[2].result(30)
        assert tickets[3].result(30).tolist() == [-4]
        with pytest.raises(inferkit.ValidationError, match=r"at \[0\] is None"):
            batcher.submit(words(None)).result(30)  # type: ignore[arg-type]
        assert batcher.stats().invalid == 1


def test_a_callable_of_strings() -> None:
    def upper(x: np.ndarray) -> np.ndarray:
        assert x.dtype == object
        assert all(type(w) is str for w in x.ravel())
        return np.array([w.upper() for w in x.ravel()], object).reshape(x.shape)

    model = inferkit.Model.from_callable(
        upper, inputs=[("x", "string", (None, 2))], outputs=[("y", "string", (None, 2))]
    )
    x = np.array([["a", "é"], ["", "ß"]], object)
    want = [["A", "É"], ["", "SS"]]
    assert model(x).tolist() == want
    with inferkit.Batcher(model, max_batch_size=4, max_delay=0.05) as batcher:
        tickets = [batcher.submit(row) for row in x]
        assert [t.result(30).tolist() for t in tickets] == want
        assert batcher(x).tolist() == want


@pytest.mark.parametrize("answer", [[1.0, 2.0], [None, "a"], [b"a", "b"]])
def test_a_callable_that_gives_something_else(answer: list[Any]) -> None:
    model = inferkit.Model.from_callable(
        lambda x: np.array(answer, object), inputs=[("x", "string", (None,))], outputs=[("y", "string", (None,))]
    )
    with pytest.raises(inferkit.OutputError, match=r"output 'y'.*at \[[01]\] is"):
        model(words("a", "b"))


def test_warm_up() -> None:
    model = shouting()
    model.warm_up([1, 4])
    with inferkit.Batcher(model, max_batch_size=4) as batcher:
        batcher.warm_up()
        assert batcher(words("a", "b"), np.float32([1]))[0].tolist() == ["a!", "b!"]


@pytest.mark.parametrize("dtype", ["string", str, object, "U7", np.str_])
def test_names_of_the_type(dtype: Any) -> None:
    model = inferkit.Model.from_callable(lambda x: x, inputs=[("x", dtype, (None,))], outputs=[("y", dtype, (None,))])
    assert model.inputs[0].dtype == "string"
    assert model(["a", "b"]).tolist() == ["a", "b"]


def test_the_doctor_knows_strings() -> None:
    with inferkit.Batcher(shouting()) as batcher:
        report = inferkit.diagnose(batcher, seconds=0.1)
    # A sanitizer keeps what is freed, to watch it; and a machine that is busy holds any loop.
    sanitized = {"no sanitizers", "RSS stable after warm-up"} if inferkit.build_info()["sanitizers"] else set()
    assert {check.name for check in report.failures} <= sanitized | {"loop never held"}, str(report)
