"""The ways to run an operator: which there are, which one a node takes, and what INFERKIT_LOWERING forces.

For every way there is a graph that takes it of itself, and each way of each graph gives the same bits. More graphs of
Conv, products, reductions and pools: tests/cpp/engine/compile/test_place.cc.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import workers
from op_cases import Array, Case
from test_ops_recurrent import Layer

from inferkit import _core

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
#: Best first. Every other operator has one way, or is spelled out in others before it is compiled.
SEVERAL = {
    "Attention": ("default", "bf16"),
    "AveragePool": ("planes", "generic"),
    "Conv": ("depthwise", "channels", "blocks", "packed", "windows", "rows", "plain", "bf16"),
    "ConvInteger": ("planes", "windows", "gemm", "taps"),
    "GRU": ("default", "bf16"),
    "Gemm": ("ahead", "packed", "plain", "bf16_ahead", "bf16_packed"),
    "GroupQueryAttention": ("default", "bf16"),
    "LSTM": ("default", "bf16"),
    "Linear": ("default", "bf16"),
    "MatMul": ("ahead", "in_place", "packed", "plain", "bf16_ahead", "bf16_packed"),
    "MaxPool": ("planes", "generic"),
    "MultiHeadAttention": ("default", "bf16"),
    "PackedAttention": ("default", "bf16"),
    "QLinearConv": ("planes", "windows", "gemm", "taps"),
    "RNN": ("default", "bf16"),
    "ScaledMatMul": ("ahead", "in_place", "packed", "plain", "bf16_ahead", "bf16_packed"),
    **dict.fromkeys(REDUCTIONS, ("alias", "rows", "columns", "generic")),
}


def test_the_lowerings_of_each_operator() -> None:
    listed = {(domain, name): names for domain, name, _, names in _core.lowerings()}
    assert {name: names for (_, name), names in listed.items() if len(names) > 1} == SEVERAL
    assert listed["inferkit", "Conv"] == listed["", "Conv"]
    assert all(names == ("default",) for names in listed.values() if len(names) == 1)


def test_the_lowerings_of_each_operator_on_cuda() -> None:
    """One for each, but where tensor cores can round the operands of products."""
    listed = {(domain, name): names for domain, name, _, names in _core.lowerings(cuda=True)}
    several = {key for key, names in listed.items() if len(names) > 1}
    assert several == {("", "Conv"), ("inferkit", "Conv"), ("", "Gemm"), ("inferkit", "Linear"), ("", "MatMul")}
    assert {listed[key] for key in several} == {("cuda", "cuda_bf16", "cuda_float16")}
    assert {names for names in listed.values() if len(names) == 1} == {("cuda",)}


# ---- Every way is taken by somebody ----------------------------------------------------------------------------------

MS = "com.microsoft"


class Known(NamedTuple):
    """A graph of one node that takes the way of itself; in bf16, if the way is one of bf16."""

    operator: str
    way: str
    model: bytes
    feeds: dict[str, Array]

    @property
    def options(self) -> dict[str, Any]:
        return {"precision": "bf16"} if self.way.startswith("bf16") else {}


def draw(*shape: int, dtype: str = "float32") -> Array:
    rng = np.random.default_rng(shape)
    if dtype in ("int8", "uint8"):
        return rng.integers(-100 if dtype == "int8" else 0, 100, shape).astype(dtype)
    return (3 * rng.standard_normal(shape)).astype(dtype)


def of_case(operator: str, way: str, case: Case) -> Known:
    return Known(operator, way, case.bytes, case.inputs)


def of_floats(op: str, *shapes: tuple[int, ...], dtype: str = "float32", **options: Any) -> Case:
    return Case(op, *(draw(*shape, dtype=dtype) for shape in shapes), **options)


def convolutions() -> Iterator[tuple[str, Case]]:
    def conv(*shapes: tuple[int, ...], fixed: bool = True, **options: Any) -> Case:
        return of_floats("Conv", *shapes, constant=(1,) if fixed else (), **options)

    yield "depthwise", conv((1, 24, 20, 21), (24, 1, 3, 3), fixed=False, pads=[1] * 4, group=24)
    yield "channels", conv((2, 35, 7, 9), (35, 1, 9, 5), pads=[4, 2, 3, 2], group=35)
    yield "blocks", conv((2, 40, 14, 14), (64, 40, 3, 3), pads=[1] * 4)
    yield "packed", conv((1, 24, 16, 16), (40, 24, 1, 1), fixed=False)
    yield "windows", conv((1, 16, 40, 40), (32, 16, 3, 3), fixed=False, pads=[1] * 4)
    yield "rows", conv((9, 24, 3, 5), (50, 24, 3, 5))
    yield "plain", conv((1, 3, 8, 8), (3, 1, 3, 3), dtype="float64", group=3)
    yield "bf16", conv((2, 40, 14, 14), (64, 40, 3, 3), pads=[1] * 4)


def byte_convolutions(op: str) -> Iterator[tuple[str, Case]]:
    def conv(dtype: str, filters: tuple[int, ...], group: int = 1) -> Case:
        x, w = draw(1, 8, 9, 9, dtype=dtype), draw(*filters, dtype=dtype)
        if op == "ConvInteger":
            return Case(op, x, w, constant=(1,), pads=[1] * 4, group=group)
        scale, zero = np.float32(0.02), np.array(0, dtype)
        given = (x, scale, zero, w, scale, zero, np.float32(1), zero)
        return Case(op, *map(np.asarray, given), constant=range(1, 8), pads=[1] * 4, group=group)

    yield "planes", conv("uint8", (8, 1, 3, 3), group=8)
    yield "windows", conv("int8", (3, 8, 3, 3))
    yield "gemm", conv("uint8", (3, 8, 3, 3))
    yield "taps", conv("uint8", (2, 8, 3, 3))


def products(op: str) -> Iterator[tuple[str, Case]]:
    """A constant matrix beside MatMul makes a Linear of it: several of them do not."""
    options: dict[str, Any] = {"domain": MS, "alpha": 0.5} if op == "FusedMatMul" else {}
    several, matrix = ((4, 3, 70), (4, 70, 9)), ((2, 3, 70), (70, 32))
    yield "ahead", of_floats(op, *several, constant=(1,), **options)
    yield "in_place", of_floats(op, *matrix, **options)
    yield "packed", of_floats(op, *several, **options)
    yield "plain", of_floats(op, *several, dtype="float16", **options)
    yield "bf16_ahead", of_floats(op, *several, constant=(1,), **options)
    yield "bf16_packed", of_floats(op, *matrix, **options)


def gemms() -> Iterator[tuple[str, Case]]:
    for prefix in ("", "bf16_"):  # without alpha it would be a Linear
        yield f"{prefix}ahead", of_floats("Gemm", (9, 300), (50, 300), constant=(1,), transB=1, alpha=0.5)
        yield f"{prefix}packed", of_floats("Gemm", (9, 300), (300, 50))
    yield "plain", of_floats("Gemm", (9, 30), (30, 5), dtype="int64")


def pools(op: str) -> Iterator[tuple[str, Case]]:
    yield "planes", of_floats(op, (1, 3, 19, 9), kernel_shape=[3, 3])
    if op == "MaxPool":
        yield "generic", of_floats(op, (1, 1, 2, 10_000), kernel_shape=[2, 2])
    else:
        yield "generic", of_floats(op, (1, 1, 9, 9, 9), kernel_shape=[6, 6, 2])


def reductions(op: str) -> Iterator[tuple[str, Case]]:
    for way, shape, axes in (
        ("alias", (5, 1, 7), [1]),
        ("rows", (5, 700), [1]),
        ("columns", (5, 70, 9), [1]),
        ("generic", (3, 4, 5, 6), [0, 2]),
    ):
        if (op, way) not in NEVER:
            yield way, Case(op, np.abs(draw(*shape)), np.array(axes), constant=(1,), opset=18)


def in_both() -> Iterator[tuple[str, Case]]:
    """Of operators with one way for each precision."""
    yield "Attention", of_floats("Attention", (1, 2, 5, 8), (1, 2, 40, 8), (1, 2, 40, 8), opset=23)
    yield "MultiHeadAttention", of_floats("MultiHeadAttention", *[(2, 5, 32)] * 3, domain=MS, num_heads=4)
    packed = ((2, 5, 24), (24, 96), (96,))
    yield "PackedAttention", of_floats("Attention", *packed, constant=(1, 2), domain=MS, num_heads=4)
    heads = (
        draw(2, 5, 32), draw(2, 5, 16), draw(2, 5, 16), None, None, np.array([4, 4], np.int32), np.array(5, np.int32),
    )  # fmt: skip
    grouped: dict[str, Any] = {"domain": MS, "num_heads": 4, "kv_num_heads": 2}
    yield "GroupQueryAttention", Case("GroupQueryAttention", *heads, constant=(5, 6), outputs=3, **grouped)
    yield "Linear", of_floats("MatMul", (3, 70), (70, 32), constant=(1,))
    for op in ("GRU", "LSTM", "RNN"):
        yield op, Layer(op, 0, steps=4, batch=3, size=8, hidden=40).case()


#: Ways that are listed for an operator and can run none of its nodes, and what explain() says then.
NEVER = {
    ("ReduceLogSumExp", "columns"): "it has no columns of exponentials",
    **{
        (f"Reduce{name}", "alias"): "of one element it is not that element"
        for name in ("L1", "L2", "LogSum", "SumSquare")
    },
}


def all_known() -> Iterator[Known]:
    several = {
        "Conv": convolutions(),
        **{op: byte_convolutions(op) for op in ("ConvInteger", "QLinearConv")},
        "MatMul": products("MatMul"),
        "ScaledMatMul": products("FusedMatMul"),
        "Gemm": gemms(),
        **{op: pools(op) for op in ("AveragePool", "MaxPool")},
        **{op: reductions(op) for op in REDUCTIONS},
    }
    for operator, ways in several.items():
        yield from (of_case(operator, way, case) for way, case in ways)
    for way in ("default", "bf16"):
        yield from (of_case(operator, way, case) for operator, case in in_both())


KNOWN = {(known.operator, known.way): known for known in all_known()}


@pytest.mark.parametrize(("operator", "way"), [(op, way) for op, ways in SEVERAL.items() for way in ways])
def test_place_takes_the_expected_way(operator: str, way: str) -> None:
    if (operator, way) in NEVER:
        same = [known for known in KNOWN.values() if known.operator == operator]
        why_not = {workers.ask(known.model, [known.feeds]).step(operator).ways[way] for known in same}
        assert NEVER[operator, way] in why_not
        assert None not in why_not
        return
    assert (operator, way) in KNOWN, "no graph is known that takes this way: write one above"
    known = KNOWN[operator, way]
    step = workers.ask(known.model, [known.feeds], **known.options).step(operator)
    assert step.lowering == way, step.ways
    # A way of bf16 is none of float32: where it is the only other, there is no choice.
    assert step.why == ("only" if way == "default" else "precision" if "bf16" in way else "cheapest")


def test_no_graph_is_known_for_what_is_not_there() -> None:
    assert {(op, way) for op, ways in SEVERAL.items() for way in ways} == {*KNOWN, *NEVER}


def test_every_way_of_every_known_graph_gives_the_same_bits() -> None:
    """Each interpreter forces one way of each operator."""
    wishes = [
        ",".join(f"{op}={ways[i % len(ways)]}" for op, ways in SEVERAL.items())
        for i in range(max(map(len, SEVERAL.values())))
    ]
    forced = set()
    with workers.hired(*({"INFERKIT_LOWERING": wish} for wish in wishes)) as hired:
        for (operator, way), known in KNOWN.items():
            expected = workers.ask(known.model, [known.feeds], **known.options)
            can = {name for name, why_not in expected.step(operator).ways.items() if why_not is None}
            answers = workers.ask_all(hired, known.model, [known.feeds], known.options)
            for i, (answer,) in enumerate(answers):
                wish, step = SEVERAL[operator][i % len(SEVERAL[operator])], answer.step(operator)
                if can:
                    assert (step.lowering, step.why) == ((wish, "forced") if wish in can else (way, "cannot_force"))
                    forced.add((operator, step.lowering))
                for found, y in zip(answer.outputs[0], expected.outputs[0], strict=True):
                    assert found.dtype == y.dtype
                    assert found.tobytes() == y.tobytes(), f"{operator}={wish} instead of {way}"
    assert forced == {(op, way) for op, way in KNOWN if way != "default"}


# ---- What is forced --------------------------------------------------------------------------------------------------

# Prints, for each case, the operator's lowering, why, and the answer.
RUN = """
import json, sys
import numpy as np, inferkit
with np.load(sys.argv[1]) as f:
    cases = dict(f)
out = {}
for name in sorted({n.rsplit("/")[0] for n in cases}):
    model = inferkit.Model.load(cases[name + "/model"].tobytes())
    x = cases[name + "/x"]
    step = model.explain({"x0": x.shape}).steps[0]
    out[name] = [step.lowering, step.why, step.reason(), model.run({"x0": x})["y0"].tobytes().hex()]
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {
        "conv": Case("Conv", draw(2, 24, 14, 15), draw(32, 24, 3, 3), draw(32), constant=(1, 2), pads=[1, 1, 1, 1]),
        # 307,200 taps: "packed" goes about it in pieces
        "long windows": Case("Conv", draw(2, 300, 33, 54), draw(13, 300, 32, 32), draw(13), constant=(1, 2)),
        "depthwise": Case("Conv", draw(2, 12, 14, 15), draw(12, 1, 3, 3), constant=(1,), group=12),
        "rows": Case("ReduceMean", draw(5, 700), axes=[1]),
        "columns": Case("ReduceMean", draw(700, 40), axes=[0]),
        "max": Case("ReduceMax", draw(5, 700), axes=[1]),
    }
    path = tmp_path_factory.mktemp("lowerings") / "cases.npz"
    arrays: dict[str, Any] = {f"{n}/model": np.frombuffer(c.with_output_types(), np.uint8) for n, c in made.items()}
    arrays.update({f"{n}/x": c.inputs["x0"] for n, c in made.items()})
    np.savez(path, **arrays)
    return path


def answers(fresh_python: Fresh, cases: Path, wish: str) -> dict[str, list[str]]:
    done = fresh_python(RUN, str(cases), env={"INFERKIT_LOWERING": wish})
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_a_forced_lowering_runs_and_changes_no_bit(fresh_python: Fresh, cases: Path) -> None:
    chosen = answers(fresh_python, cases, "")
    assert {name: row[1] for name, row in chosen.items()} == dict.fromkeys(chosen, "cheapest")
    assert chosen["depthwise"][0] == "depthwise"
    assert chosen["rows"][0] == "rows"
    assert chosen["columns"][0] == "columns"
    for way in ("packed", "windows", "rows", "blocks"):
        forced = answers(fresh_python, cases, f"Conv={way},ReduceMax=generic")
        assert forced["conv"][:2] == [way, "forced"]
        assert forced["max"][:2] == ["generic", "forced"]
        assert {name: row[3] for name, row in forced.items()} == {name: row[3] for name, row in chosen.items()}
        if way == "rows":  # a group of the depthwise one has too few filters
            assert forced["depthwise"][:2] == ["depthwise", "cannot_force"]
            assert "rows cannot: a group has less than 8 filters" in forced["depthwise"][2]


def test_a_reduction_has_the_same_bits_whichever_way_it_goes(fresh_python: Fresh, cases: Path) -> None:
    chosen, forced = answers(fresh_python, cases, ""), answers(fresh_python, cases, "ReduceMean=generic")
    with np.load(cases) as f:
        for name, axis in (("rows", 1), ("columns", 0)):
            assert forced[name][:2] == ["generic", "forced"]
            assert forced[name][3] == chosen[name][3]
            mean = np.frombuffer(bytes.fromhex(forced[name][3]), np.float32)
            exact = f[f"{name}/x"].astype(np.float64).mean(axis=axis)
            np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (
            "Conv=fast",
            "Conv has no lowering 'fast'; use one of bf16, blocks, channels, depthwise, packed, plain, rows, windows",
        ),
        (
            "Convolution=rows",
            "there is no operator 'Convolution'; those with several lowerings are Attention, AveragePool,",
        ),
        ("Conv", "'Conv' is not Operator=lowering, as in Conv=rows,ReduceSum=generic"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_names(fresh_python: Fresh, wish: str, says: str) -> None:
    done = fresh_python("import inferkit", env={"INFERKIT_LOWERING": wish})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("ImportError", "ValueError"))
    assert "INFERKIT_LOWERING" in last
    assert says in last
