"""The ways to run an operator: which there are, and what INFERKIT_LOWERING forces.

Which one a node takes, and that each gives the same bits in float32: tests/cpp/engine/compile/test_place.cc.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_cases import Case

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
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

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
    np.savez(path, **arrays, **{f"{n}/x": c.inputs["x0"] for n, c in made.items()})
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
