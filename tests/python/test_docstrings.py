"""Every public object says what it is, and the examples that it shows are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import itertools
import pkgutil
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inferkit

ROOT = Path(__file__).resolve().parents[2]
MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(inferkit.__path__, "inferkit.")]
PYTHON_MODULES = [inferkit, *(m for m in MODULES if (m.__file__ or "").endswith(".py"))]
# These explain themselves by the class's docstring.
DATA = {"__version__"}


def public_objects() -> Iterator[tuple[str, Any]]:
    for name in inferkit.__all__:
        if name in DATA:
            continue
        value = getattr(inferkit, name)
        yield name, value
        if inspect.isclass(value):
            for member, attribute in vars(value).items():
                if member.startswith("_") or isinstance(attribute, int | str | tuple | None):
                    continue
                if type(attribute).__name__ == "member_descriptor":
                    continue
                yield f"{name}.{member}", attribute


OBJECTS = dict(public_objects())


def doc(value: Any) -> str:
    """Without the signature that pybind11 puts on top."""
    value = getattr(value, "__func__", value)
    text = inspect.getdoc(value) or ""
    return re.sub(r"\A\w*\([^\n]*\) -> [^\n]*\n+", "", text)


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_has_a_docstring(name: str) -> None:
    text = doc(OBJECTS[name])
    first = text.split("\n", 1)[0]
    assert first, name
    assert first[0].isupper() or first.startswith("`"), first
    assert text.split("\n\n", 1)[0].rstrip().endswith((".", ":")), f"{name}: the summary is a sentence"


@pytest.mark.parametrize("cls", [inferkit.Model, inferkit.Batcher])
def test_a_call_has_a_docstring(cls: type) -> None:
    """Of the two classes whose objects are called, which `help()` shows."""
    assert len(doc(cls.__call__).splitlines()) > 3


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_sections_are_numpydoc(name: str) -> None:
    lines = doc(OBJECTS[name]).split("\n")
    titles = [above for above, rule in itertools.pairwise(lines) if re.fullmatch(r"-{3,}", rule.strip())]
    known = ["Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "See Also", "Notes", "Examples"]
    assert [t for t in titles if t not in known] == []
    assert titles == sorted(titles, key=known.index)


def parameters(value: Any) -> list[str]:
    function = getattr(value, "__func__", value)
    if inspect.isclass(function):
        if getattr(function, "__dataclass_params__", None) is None:
            return []
        return list(inspect.signature(function).parameters)
    if not inspect.isfunction(function):
        return []
    return [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]


@pytest.mark.parametrize("name", sorted(n for n, v in OBJECTS.items() if parameters(v)))
def test_every_parameter_is_documented(name: str) -> None:
    """In its section, or in prose where the docstring is short, or by the method that it says it is like."""
    text = doc(OBJECTS[name])
    like = re.search(r"[Aa]s :meth:`(\w+)`", text)
    if like:
        text += doc(OBJECTS[f"{name.split('.')[0]}.{like[1]}"])
    missing = [p for p in parameters(OBJECTS[name]) if not re.search(rf"(?<!\w){re.escape(p)}(?!\w)", text)]
    assert missing == []


@pytest.mark.parametrize("module", PYTHON_MODULES, ids=lambda m: m.__name__)
def test_examples_run(module: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [t for module in PYTHON_MODULES for t in finder.find(module) if t.examples]
    assert len(found) >= 6


@pytest.mark.parametrize("module", PYTHON_MODULES, ids=lambda m: m.__name__)
def test_modules_say_what_they_hold(module: Any) -> None:
    assert module.__doc__
    if module is not inferkit:
        assert module.__all__ == sorted(module.__all__)


def shown() -> Iterator[tuple[str, Any]]:
    """What somebody may ask help() about: everything public, in public modules."""
    for module in PYTHON_MODULES:
        if not any(part.startswith("_") for part in module.__name__.split(".")):
            for name in module.__all__:
                if name not in DATA:
                    yield f"{module.__name__}.{name}", getattr(module, name)


@pytest.mark.parametrize(("name", "value"), [pytest.param(n, v, id=n) for n, v in sorted(shown())])
def test_help_shows_no_signatures_of_the_bindings(name: str, value: Any) -> None:
    lines = pydoc.render_doc(value, renderer=pydoc.plaintext).splitlines()
    bindings = re.compile(
        r"\barg\d|\(self: |typing\.Supports|(->|: ) ?'?(inferkit\.)?_core\.|Overloaded function|"
        r"in module inferkit\._core$"
    )
    assert [line for line in lines if bindings.search(line)] == []


@pytest.mark.parametrize(
    "cls", [pytest.param(v, id=n) for n, v in sorted(shown()) if inspect.isclass(v) and hasattr(v, "__enter__")]
)
def test_blocks_say_what_their_ends_do(cls: type) -> None:
    for name in ("__enter__", "__exit__", "__aenter__", "__aexit__"):
        method = getattr(cls, name, None)
        assert method is None or doc(method).endswith("."), name


def test_help_shows_the_parameters() -> None:
    assert str(inspect.signature(inferkit.BufferPool.acquire)) == "(self, nbytes)"
    assert str(inspect.signature(inferkit.BufferPool().acquire)) == "(nbytes)"
    assert str(inspect.signature(inferkit.Ticket.result)) == "(self, timeout=None)"
    assert str(inspect.signature(inferkit.Weights.open)) == "(path, *, mmap=True)"
    assert "submit(self, *inputs, timeout=None, priority=0, " in pydoc.render_doc(
        inferkit.Batcher, renderer=pydoc.plaintext
    )
    assert (inferkit.Ticket.timing.__doc__ or "")[:1].isupper()
