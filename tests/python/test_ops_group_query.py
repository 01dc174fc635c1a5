"""GroupQueryAttention of com.microsoft, against float64 and ONNX Runtime."""

from __future__ import annotations

import time
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

import inferkit
from inferkit import tracing

Array = np.ndarray[Any, Any]
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
POSITIONS = 48  # of the tables


def rotated(x: Array, positions: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Turn the pairs of x of shape (batch, rows, heads, size)."""
    half = cos.shape[1]
    c, s = (t.astype(np.float64)[positions][:, :, None] for t in (cos, sin))
    y = x.copy()
    a, b = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    y[..., a], y[..., b] = c * x[..., a] - s * x[..., b], s * x[..., a] + c * x[..., b]
    return y


class Decoder:
    """A node of given attributes, its inputs, and what they mean in float64."""

    def __init__(
        self,
        lengths: list[int],
        rows: int,
        past: int | None,
        *,
        heads: tuple[int, int] = (4, 2),
        size: int = 16,
        packed: bool = False,
        rotary: int | None = None,
        positions: bool = False,
        bias: bool = False,
        sinks: bool = False,
        dtype: str = "float32",
        seed: int = 0,
        **attributes: Any,
    ) -> None:
        random = np.random.default_rng(seed)

        def draw(*shape: int) -> Array:
            return random.standard_normal(shape).astype(dtype)

        n, kv = heads
        self.n, self.kv, self.size, self.rows, self.lengths, self.attributes = n, kv, size, rows, lengths, attributes
        batch, self.total = len(lengths), max(lengths)
        parts = [draw(batch, rows, h * size) for h in (n, kv, kv)]
        self.parts = [x.astype(np.float64).reshape(batch, rows, -1, size) for x in parts]
        given: dict[str, Array | None] = dict(zip(("q", "k", "v"), parts, strict=True))
        if packed:
            given |= {"q": np.concatenate(parts, -1), "k": None, "v": None}
        cache = None if past is None else (batch, kv, past, size)
        given |= {name: None if cache is None else draw(*cache) for name in ("past_k", "past_v")}
        given["lengths"] = np.array(lengths, np.int32) - np.int32(1)
        given["total"] = np.array(self.total, np.int32)
        self.starts = [0 if rows == self.total else length - rows for length in lengths]
        if rotary is not None:
            angles = np.outer(np.arange(POSITIONS), 1 / 100 ** (np.arange(rotary) / rotary))
            given |= {"cos": np.cos(angles).astype(dtype), "sin": np.sin(angles).astype(dtype)}
        self.positions = np.array(self.starts)[:, None] + np.arange(rows)
        if positions:
            self.positions = random.integers(0, POSITIONS, (batch, rows))
            given["positions"] = self.positions
        if bias:
            given |= {name: None for name in ("cos", "sin", "positions") if name not in given}
            given["bias"] = draw(batch, 1, rows, self.total)
        if sinks:
            given["sinks"] = 3 * draw(n)
        self.given = given
        self.feeds = {name: x for name, x in given.items() if x is not None}
        order = ["q", "k", "v", "past_k", "past_v", "lengths", "total", "cos", "sin", "positions", "bias", "sinks"]
        names = [name if name in self.feeds else "" for name in order]
        while not names[-1]:
            names.pop()
        node = helper.make_node(
            "GroupQueryAttention",
            names,
            ["y", "present_k", "present_v"],
            domain="com.microsoft",
            num_heads=n,
            kv_num_heads=kv,
            do_rotary=int(rotary is not None),
            **attributes,
        )
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in self.feeds.items()
        ]
        # Declared, as exporters do: a trial run on zeros has a total_sequence_length of 0, and tells nothing.
        shapes = ([None] * 3, [None] * 4, [None] * 4)
        outputs = [
            helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(node.output, shapes, strict=True)
        ]
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([node], "g", ports, outputs)
        self.bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()

    def load(self) -> inferkit.Model:
        return inferkit.Model.load(self.bytes, input_checks=LENIENT)

    def run(self) -> list[Array]:
        return list(self.load().run(self.feeds).values())

    def expected(self) -> list[Array]:
        """The answer, and the caches; rows of the answer behind a sequence's end are NaN: nothing is said of them."""
        q, k, v = self.parts
        if "cos" in self.feeds:
            interleaved = bool(self.attributes.get("rotary_interleaved", 0))
            q, k = (rotated(x, self.positions, self.feeds["cos"], self.feeds["sin"], interleaved) for x in (q, k))
        past = self.given["past_k"]
        present = max(self.total, 0 if past is None else past.shape[2])
        window = self.attributes.get("local_window_size", -1)
        softcap = self.attributes.get("softcap", 0.0)
        scale = self.attributes.get("scale", 0.0) or 1 / np.sqrt(self.size)
        y = np.full((len(self.lengths), self.rows, self.n, self.size), np.nan)
        caches = np.zeros((2, len(self.lengths), self.kv, present, self.size))
        for b, (length, start) in enumerate(zip(self.lengths, self.starts, strict=True)):
            for cache, fresh, name in zip(caches, (k, v), ("past_k", "past_v"), strict=True):
                if start:
                    cache[b, :, :start] = self.feeds[name][b, :, :start]
                cache[b, :, start : start + self.rows] = fresh[b].transpose(1, 0, 2)
            for i in range(min(self.rows, length - start)):
                end = start + i + 1
                low = max(0, end - window) if window > 0 else 0
                for h in range(self.n):
                    group = h // (self.n // self.kv)
                    scores = caches[0, b, group, low:end] @ q[b, i, h] * scale
                    if softcap:
                        scores = softcap * np.tanh(scores / softcap)
                    if "bias" in self.feeds:
                        scores = scores + self.feeds["bias"][b, 0, i, low:end]
                    sink = self.sink(h)
                    top = max(scores.max(), sink)
                    weights = np.exp(scores - top)
                    y[b, i, h] = weights @ caches[1, b, group, low:end] / (weights.sum() + np.exp(sink - top))
        return [y.reshape(len(self.lengths), self.rows, -1), *caches]

    def sink(self, head: int) -> float:
        """One more score of each row, whose weight nothing gets."""
        if "sinks" in self.feeds:
            return float(self.feeds["sinks"][head])
        return 0 if self.attributes.get("smooth_softmax", -1) > 0 else -np.inf

    def check(self, tolerance: float = 2e-6) -> None:
        for got, want in zip(self.run(), self.expected(), strict=True):
            assert got.shape == want.shape
            said = ~np.isnan(want)
            np.testing.assert_allclose(got[said], want[said], rtol=tolerance, atol=tolerance)


CASES: dict[str, dict[str, Any]] = {
    "a prompt": {"lengths": [6, 6], "rows": 6, "past": None},
    "an empty cache": {"lengths": [6, 6], "rows": 6, "past": 0},
    "a padded prompt": {"lengths": [6, 3, 1], "rows": 6, "past": None},
    "a prompt before a larger cache": {"lengths": [6, 4], "rows": 6, "past": 20},
    "a token": {"lengths": [7, 7], "rows": 1, "past": 6},
    "a token of sequences of different lengths": {"lengths": [7, 2, 5], "rows": 1, "past": 6},
    "a token and a larger cache": {"lengths": [7, 3], "rows": 1, "past": 24},
    "several tokens": {"lengths": [9], "rows": 3, "past": 6},
    "several tokens and a larger cache": {"lengths": [9], "rows": 3, "past": 16},
    "long": {"lengths": [300], "rows": 300, "past": None, "heads": (2, 1), "size": 8},
    "long, a token": {"lengths": [700, 650], "rows": 1, "past": 699, "heads": (2, 1), "size": 8},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packed": {"packed": True},
    "one head each": {"heads": (3, 3), "size": 24},
    "window": {"local_window_size": 3},
    "softcap and scale": {"softcap": 1.5, "scale": 0.4},
    "bias": {"bias": True},
    "rotary": {"rotary": 8},
    "rotary, packed": {"rotary": 8, "packed": True},
    "rotary, a part": {"rotary": 8, "size": 32, "rotary_interleaved": 1},
    "rotary, positions": {"rotary": 8, "positions": True},
    "smooth": {"smooth_softmax": 1},
    "sinks": {"sinks": True},
    "sinks, window, softcap and bias": {"sinks": True, "local_window_size": 3, "softcap": 1.5, "bias": True},
}


#: Those whose sequences are longer than the tables are not turned.
PAIRS = [(case, option) for case in CASES for option in OPTIONS if not (case[:4] == "long" and option[:6] == "rotary")]


@pytest.mark.parametrize(("case", "option"), PAIRS)
def test_against_float64(case: str, option: str) -> None:
    given = {**CASES[case], **OPTIONS[option]}
    Decoder(**given).check()


@pytest.mark.parametrize("case", ["a prompt", "a token of sequences of different lengths", "a padded prompt"])
@pytest.mark.parametrize("option", ["plain", "rotary", "rotary, packed", "window", "sinks"])
def test_half(case: str, option: str) -> None:
    Decoder(**{**CASES[case], **OPTIONS[option]}, dtype="float16").check(4e-3)


CACHED = ("plain", "packed", "rotary", "rotary, packed", "one head each")


def steps_of(model: inferkit.Model, feeds: dict[str, Array]) -> list[str]:
    begin = time.monotonic()
    tracing.trace_steps()
    try:
        model.run(feeds)
    finally:
        tracing.trace_steps(False)
    return [step.name for step in tracing.steps() if step.started >= begin]


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize(("case", "option"), [pair for pair in PAIRS if pair[1] in CACHED])
def test_a_cache_of_halves_is_not_widened_and_rounded(case: str, option: str, dtype: Any) -> None:
    decoder = Decoder(**{**CASES[case], **OPTIONS[option]}, dtype=dtype)
    tolerance = 4e-3 if dtype == "float16" else 4e-2
    got, want = decoder.run(), decoder.expected()
    for of, right in zip(got, want, strict=True):
        said = ~np.isnan(right)
        np.testing.assert_allclose(of.astype(np.float64)[said], right[said], rtol=tolerance, atol=tolerance)
    for cache, name in zip(got[1:], ("past_k", "past_v"), strict=True):
        for b, start in enumerate(decoder.starts):
            if start:
                assert cache[b, :, :start].tobytes() == decoder.feeds[name][b, :, :start].tobytes()
    casts = [step for step in steps_of(decoder.load(), decoder.feeds) if step.startswith("Cast")]
    assert not [step for step in casts if "past" in step or "present" in step], casts


@pytest.mark.parametrize("change", ["the past is read", "the past is made", "the cache is read", "one of two"])
def test_a_cache_that_others_read_has_the_same_answer(change: str) -> None:
    """Then it is widened with the rest of the model."""
    decoder = Decoder([7, 2, 5], 1, 6, rotary=8, dtype="float16")
    plain = decoder.run()
    model = onnx.load_from_string(decoder.bytes)
    graph, node = model.graph, model.graph.node[0]
    half = onnx.TensorProto.FLOAT16
    if change == "the past is read":
        graph.node.append(helper.make_node("Neg", ["past_k"], ["more"]))
    elif change == "the past is made":
        graph.node.insert(0, helper.make_node("Neg", ["past_k"], ["minus"]))
        graph.node.insert(1, helper.make_node("Neg", ["minus"], ["made"]))
        graph.node[2].input[3] = "made"
    elif change == "the cache is read":
        graph.node.append(helper.make_node("Neg", ["present_v"], ["more"]))
    else:
        del graph.output[2]
        graph.node[0].output[2] = ""
    if any("more" in n.output for n in graph.node):
        graph.output.append(helper.make_tensor_value_info("more", half, [None] * 4))
    assert node.op_type == "GroupQueryAttention" or change == "the past is made"
    answers = inferkit.Model.load(model.SerializeToString(), input_checks=LENIENT).run(decoder.feeds)
    for got, want in zip(answers.values(), plain, strict=False):
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=4e-3, atol=4e-3)
    if "more" in answers:
        source = decoder.feeds["past_k"] if change == "the past is read" else answers["present_v"]
        assert answers["more"].tobytes() == (-source).tobytes()


@pytest.mark.parametrize("case", ["a token", "a prompt", "several tokens and a larger cache"])
def test_bits_do_not_depend_on_the_chosen_outputs(case: str) -> None:
    decoder = Decoder(**CASES[case], rotary=8, dtype="float16")
    whole = decoder.load().run(decoder.feeds)
    for chosen in (["y"], ["present_v"], ["present_k", "y"]):
        answers = inferkit.Model.load(decoder.bytes, outputs=chosen, input_checks=LENIENT).run(decoder.feeds)
        assert [x.tobytes() for x in answers.values()] == [whole[name].tobytes() for name in chosen]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_attribute_that_only_inferkit_writes(dtype: str) -> None:
    """A file that has it is no way past the checks of types."""
    for code in (10, 16, 1, 7, -1, 2**40):
        decoder = Decoder([7, 2], 1, 6, dtype=dtype, cache_type=code)
        try:
            answers = decoder.run()
        except inferkit.InferkitError:
            continue
        for got, want in zip(answers, Decoder([7, 2], 1, 6, dtype=dtype).run(), strict=True):
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=4e-3, atol=4e-3)


#: ONNX Runtime says nothing of rows behind a sequence's end, and has another meaning of positions in a prompt.
COMPARED = [
    pair for pair in PAIRS if "padded" not in pair[0] and "bias" not in pair[1] and pair[1] != "rotary, positions"
]


@pytest.mark.parametrize(("case", "option"), COMPARED)
def test_against_onnxruntime(case: str, option: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    given = {**CASES[case], **OPTIONS[option]}
    decoder = Decoder(**given)
    session = onnxruntime.InferenceSession(decoder.bytes, providers=["CPUExecutionProvider"])
    for got, want in zip(decoder.run(), session.run(None, decoder.feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_rows_do_not_depend_on_their_batch() -> None:
    lengths = [7, 2, 5]
    together = Decoder(lengths, 1, 6, rotary=8)
    answers = together.run()
    for b, length in enumerate(lengths):
        alone = Decoder([length], 1, 6, rotary=8)
        for name in ("q", "k", "v", "past_k", "past_v"):
            alone.feeds[name] = together.feeds[name][b : b + 1]
        y, k, v = alone.run()
        assert y[0].tobytes() == answers[0][b].tobytes()
        for got, of in ((k, 1), (v, 2)):
            assert got[0, :, :length].tobytes() == answers[of][b, :, :length].tobytes()


def test_prompt_and_tokens_are_one_sequence() -> None:
    """Eight rows at once have the answers of five, and three that go on from the cache one by one."""
    whole = Decoder([8], 8, None, rotary=8)
    y, k, v = whole.run()
    parts, cache = [], (None, None)
    for first, rows in ((0, 5), (5, 1), (6, 1), (7, 1)):
        step = Decoder([first + rows], rows, None if first == 0 else first, rotary=8)
        step.feeds |= {name: whole.feeds[name][:, first : first + rows] for name in ("q", "k", "v")}
        if first:
            step.feeds |= dict(zip(("past_k", "past_v"), cache, strict=True))
        part, *cache = step.run()
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, 1), y, rtol=1e-6, atol=1e-6)
    assert cache[0].tobytes() == k.tobytes()
    assert cache[1].tobytes() == v.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("heads", "size"), [((4, 2), 16), ((3, 1), 24), ((8, 8), 64)])
def test_many_rows_have_the_bits_of_one_by_one(dtype: str, heads: tuple[int, int], size: int) -> None:
    """The first are attention over a cache that was made before, the others make it while they read it."""
    before, rows = 590, 40
    whole = Decoder([before + rows], rows, before, heads=heads, size=size, dtype=dtype)
    y, *caches = whole.run()
    for i in (0, 17, rows - 1):
        length = before + i + 1
        step = Decoder([length], 1, before + rows, heads=heads, size=size, dtype=dtype)
        step.feeds |= {name: whole.feeds[name][:, i : i + 1] for name in ("q", "k", "v")}
        step.feeds |= {"past_k": caches[0].copy(), "past_v": caches[1].copy()}
        one, *made = step.run()
        assert one.tobytes() == y[:, i : i + 1].tobytes()
        for got, cache in zip(made, caches, strict=True):
            assert got[:, :, :length].tobytes() == cache[:, :, :length].tobytes()
            assert not got[:, :, length:].any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_threads_and_the_batch_change_no_bit(dtype: str) -> None:
    lengths = [700, 260, 1, 512]
    decoder = Decoder(lengths, 1, 700, heads=(8, 4), size=64, dtype=dtype)
    one, two = (
        list(inferkit.Model.load(decoder.bytes, input_checks=LENIENT, threads=n).run(decoder.feeds).values())
        for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()
    for b, length in enumerate(lengths):
        alone = Decoder([length], 1, 700, heads=(8, 4), size=64, dtype=dtype)
        for name in ("q", "k", "v", "past_k", "past_v"):
            alone.feeds[name] = decoder.feeds[name][b : b + 1]
        assert alone.run()[0][0].tobytes() == one[0][b].tobytes()


def test_the_error_is_no_larger_than_onnx_runtimes() -> None:
    import onnxruntime

    decoder = Decoder([256] * 4, 1, 255, heads=(8, 8), size=128)
    want = decoder.expected()[0]
    session = onnxruntime.InferenceSession(decoder.bytes, providers=["CPUExecutionProvider"])
    ours, theirs = (np.sqrt(np.mean((y - want) ** 2)) for y in (decoder.run()[0], session.run(None, decoder.feeds)[0]))
    assert ours <= theirs


@pytest.mark.parametrize("bad", [[9, 2], [-1, 2], [2**31 - 1, 2], [-(2**31), 0], [5, 6]])
def test_lengths_that_do_not_fit(bad: list[int]) -> None:
    decoder = Decoder([6, 3], 1, 5)
    with pytest.raises(inferkit.InferenceError, match=r"seqlens_k\[\d\] is"):
        decoder.load().run({**decoder.feeds, "lengths": np.array(bad, np.int32)})


def test_totals_that_do_not_fit() -> None:
    decoder = Decoder([6, 3], 1, 5)
    model = decoder.load()
    for total in (0, -1, -(2**31)):
        with pytest.raises((inferkit.ValidationError, inferkit.InferenceError), match="total_sequence_length"):
            model.run({**decoder.feeds, "total": np.array(total, np.int32)})
    with pytest.raises(inferkit.InferkitError):  # a cache of terabytes
        model.run({**decoder.feeds, "total": np.array(2**31 - 1, np.int32)})
    model.run(decoder.feeds)


@pytest.mark.parametrize(
    ("attributes", "match"),
    [({"qk_output": 1}, "scores"), ({"k_quant_type": "PER_TENSOR"}, "k_quant_type")],
)
def test_what_is_refused(attributes: dict[str, Any], match: str) -> None:
    with pytest.raises(inferkit.UnsupportedOpError, match=match):
        Decoder([6], 6, None, **attributes).load()


def test_malformed() -> None:
    with pytest.raises(inferkit.ModelError, match="cannot share"):
        Decoder([6], 6, None, heads=(3, 2)).load()
    model = onnx.load_from_string(Decoder([6], 6, None).bytes)
    for change in ("total_sequence_length", "num_heads", "query"):
        broken = onnx.ModelProto()
        broken.CopyFrom(model)
        node = broken.graph.node[0]
        if change == "total_sequence_length":
            node.input[6] = ""
        elif change == "num_heads":
            del node.attribute[[a.name for a in node.attribute].index("num_heads")]
        else:
            broken.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 63
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(broken.SerializeToString())
