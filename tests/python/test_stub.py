"""The committed stub of the core names what the core has; .ci/stubs writes it and compares every signature."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from inferkit import _core

STUB = Path(__file__).resolve().parents[2] / "python" / "inferkit" / "_core.pyi"


def stub_classes() -> dict[str, set[str]]:
    return {
        node.name: {
            item.name if isinstance(item, ast.FunctionDef) else item.target.id
            for item in node.body
            if isinstance(item, ast.FunctionDef)
            or (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name))
        }
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ClassDef)
    }


def test_functions_and_classes() -> None:
    written = {n.name for n in ast.parse(STUB.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    real = {name for name, value in vars(_core).items() if callable(value) and not name.startswith("__")}
    assert written == real


@pytest.mark.parametrize("name", sorted(stub_classes()))
def test_members(name: str) -> None:
    cls = getattr(_core, name)
    real = {m for m in vars(cls) if not m.startswith("__") and m != "_pybind11_conduit_v1_"}
    assert {m for m in stub_classes()[name] if not m.startswith("__")} == real


def test_nothing_is_left_untyped() -> None:
    """pybind11-stubgen writes `...` as a type where a signature names a C++ type that Python never sees."""
    assert "# value = <" not in STUB.read_text()
    assert "inferkit::" not in STUB.read_text()
