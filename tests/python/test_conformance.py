"""The onnx package's own tests: what is in scope passes or is refused, what is not in scope is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import TensorProto, helper

from conformance.cases import SETS, Case, collect
from conformance.judge import Verdict, difference, judge
from conformance.report import rate
from conformance.scope import DIFFERS, out_of_scope

COUNT = {"node": 1700, "pytorch-converted": 80, "pytorch-operator": 30, "simple": 20}


@cache
def verdicts(name: str) -> list[Verdict]:
    return [judge(case) for case in collect(name)]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("outcome", ["wrong", "crashed"])
def test_none_is(name: str, outcome: str) -> None:
    assert len(verdicts(name)) >= COUNT[name]
    assert [(v.case, v.detail) for v in verdicts(name) if v.outcome == outcome] == []


@pytest.mark.parametrize("name", SETS)
def test_what_is_not_supported_is_refused_at_load(name: str) -> None:
    assert [(v.case, v.detail) for v in verdicts(name) if v.outcome == "late"] == []


def test_what_differs_is_what_is_known_to() -> None:
    assert {v.case for name in SETS for v in verdicts(name) if v.outcome == "differs"} == set(DIFFERS)
    for page in DIFFERS.values():
        assert (Path(__file__).parents[2] / page).is_file()


@pytest.mark.parametrize("name", SETS)
def test_what_is_in_scope_passes_but_for_what_differs(name: str) -> None:
    ours = [v for v in verdicts(name) if not v.scope]
    known = {v.case for v in ours} & set(DIFFERS)
    assert {v.case: v.outcome for v in ours if v.outcome != "passed"} == dict.fromkeys(known, "differs")
    assert rate(verdicts(name)) == pytest.approx(1 - len(known) / len(ours), abs=1e-9)


def test_what_is_out_of_scope_is_refused() -> None:
    beyond = [v for name in SETS for v in verdicts(name) if v.scope]
    assert len(beyond) >= 15
    assert {v.scope for v in beyond} == {"training", "image decoding"}
    # Where the answer does not hang on what is out of scope, a right one is as good.
    assert [v.case for v in beyond if v.outcome not in ("refused", "passed")] == []


# ---- the judge itself can find fault -------------------------------------------------------------------------------


def test_differences_are_found() -> None:
    ones = np.ones(4, np.float32)
    assert difference(ones, ones, 1e-3, 1e-7) == ""
    assert "first at [2]: 1.1" in difference(np.array([1, 1, 1.1, 1], np.float32), ones, 1e-3, 1e-7)
    assert "float64[4] instead of float32[4]" in difference(ones.astype(np.float64), ones, 1e-3, 1e-7)
    assert "float32[2, 2] instead of" in difference(ones.reshape(2, 2), ones, 1e-3, 1e-7)
    assert difference(np.array([np.nan, 1, 1, 1], np.float32), ones, 1e-3, 1e-7)
    assert difference(np.arange(4), np.array([0, 1, 2, 4]), 1e-3, 1e-7) == "1 of 4 elements differ"


def test_few_bits_are_allowed_few_steps() -> None:
    want = np.array([1, 0.5], np.float16)
    assert difference(np.array([1 + 4 * 2.0**-10, 0.5], np.float16), want, 1e-3, 1e-7) == ""
    assert difference(np.array([1 + 9 * 2.0**-10, 0.5], np.float16), want, 1e-3, 1e-7) != ""


def relu_case(*expected: float) -> Case:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.array([-1, 2], np.float32)
    return Case("relu", model, [([x], [np.array(expected, np.float32)])])


def test_verdicts() -> None:
    assert judge(relu_case(0, 2)) == Verdict("relu", "Relu", None, "passed")
    assert judge(relu_case(0, 3)).outcome == "wrong"
    case = relu_case(0, 2)
    case.model.graph.node[0].op_type = "Nothing"
    assert judge(case).outcome == "refused"
    case.model.graph.node[0].input[0] = "absent"
    assert judge(case).outcome == "wrong"  # a ModelError for what is called a right model


@pytest.mark.parametrize(
    ("op", "attributes", "scope"),
    [
        ("RandomNormalLike", {}, None),
        ("SequenceLength", {}, None),
        ("ReverseSequence", {}, None),
        ("BatchNormalization", {"training_mode": 1}, None),
        ("BatchNormalization", {"training_mode": 0}, None),
        ("Dropout", {}, None),
    ],
)
def test_scope_is_told_by_the_model(op: str, attributes: dict[str, int], scope: str | None) -> None:
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", [], [])
    assert out_of_scope(onnx.ModelProto(graph=graph)) == scope
