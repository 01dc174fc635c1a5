"""Rewrites that know operators by name know every function of one float: what they do not know costs speed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
ROWS = re.findall(r"{kOnnx, \"(\w+)\"", (CSRC / "engine" / "ops" / "unary.cc").read_text())
FUNCTIONS = sorted(set(ROWS))
LISTS = {
    "graph/passes/sink_transposes.cc": r"kUnary\[\] = {(.*?)};",
    "graph/passes/pattern.cc": r"kKeepType =(.*?);",
    "engine/compile/layouts.cc": r"kElementwise\[\] = {(.*?)};",
}


def test_there_are_functions() -> None:
    assert {"Sigmoid", "Swish", "Atanh"} <= set(FUNCTIONS)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_all_of_them(path: str) -> None:
    found = re.search(LISTS[path], (CSRC / path).read_text(), re.DOTALL)
    assert found, path
    assert [name for name in FUNCTIONS if name not in re.findall(r"\w+", found[1])] == []


def test_what_may_follow_a_product_is_known_to_its_steps() -> None:
    """A name that the pass gives and the steps do not know would refuse a model that runs without the pass."""
    given = (CSRC / "graph" / "passes" / "fuse_activation.cc").read_text()
    as_in_onnx = re.findall(r'op == "(\w+)"', given)
    named = re.findall(r'Activation{"(\w+)"', given)
    of_ours = re.findall(r'is_op\(node, "(\w+)", kInternalDomain\)\) return Activation{node', given)
    known = re.findall(r'{"(\w+)", Unary::', (CSRC / "engine" / "ops" / "activation_attr.h").read_text())
    assert {"Relu", "Clip", "GeluTanh", "Silu"} <= {*as_in_onnx, *named, *of_ours}
    assert {*as_in_onnx, *named, *of_ours} - {"Swish"} == set(known)  # Swish is named Silu
