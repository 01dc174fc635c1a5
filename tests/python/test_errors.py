"""One table of errors: the core's codes, the classes, the HTTP statuses, the picture in the docstring, the page's."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

import inferkit
from inferkit import _core, _errors

CLASSES = {
    name: value
    for name, value in vars(_errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
}
TABLE = dict(_core.error_table())
REASONS = {
    "ValidationError": {"empty", "too_large", "non_finite", "dtype", "shape", "name"},
    "OutputError": {"non_finite", "all_zero", "shape", "not_normalized"},
}
BUILTINS = {
    "ValidationError": ValueError,
    "UnsupportedOpError": NotImplementedError,
    "DeadlineError": TimeoutError,
    "PoolExhaustedError": MemoryError,
}


def documented_reasons(cls: type) -> set[str]:
    return set(re.findall(r"``(\w+)``", (cls.__doc__ or "").split("One of", 1)[-1]))


def test_the_core_and_the_package_have_the_same_errors() -> None:
    assert set(TABLE) == set(CLASSES) - {"InferkitError"}


def test_every_code_has_a_row() -> None:
    """A code without one would be raised as a plain InferkitError."""
    base = Path(__file__).resolve().parents[2] / "csrc" / "base"
    header = (base / "error.h").read_text()
    codes = re.findall(r"^  (k\w+),", header.split("enum class ErrorCode", 1)[1].split("};", 1)[0], re.MULTILINE)
    assert codes[0] == "kOk"
    assert re.findall(r'{ErrorCode::(k\w+), "', (base / "error.cc").read_text()) == codes[1:]
    assert f"kErrorCodeCount = {len(codes)};" in header
    assert len(TABLE) == len(codes) - 1


@pytest.mark.parametrize("name", sorted(TABLE))
def test_http_status(name: str) -> None:
    assert CLASSES[name].http_status == TABLE[name]


def test_reasons_of_the_core_are_those_of_the_classes() -> None:
    assert set(_core.reasons()) == set().union(*REASONS.values())


@pytest.mark.parametrize("name", sorted(REASONS))
def test_reasons_are_documented(name: str) -> None:
    assert documented_reasons(CLASSES[name]) == REASONS[name]


def test_all_are_public() -> None:
    assert set(_errors.__all__) == set(CLASSES)
    assert set(CLASSES) <= set(inferkit.__all__)
    assert all(getattr(inferkit, name) is cls for name, cls in CLASSES.items())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_one_tree(name: str) -> None:
    cls = CLASSES[name]
    assert issubclass(cls, inferkit.InferkitError)
    builtin = [c for c in cls.__mro__ if c.__module__ == "builtins" and c not in (Exception, BaseException, object)]
    wanted = BUILTINS.get(name)
    assert (wanted in builtin) if wanted else builtin == []
    # Ours come first, so that `except InferkitError` and `http_status` never meet a builtin's own.
    ours = [issubclass(c, inferkit.InferkitError) for c in cls.__mro__]
    assert ours == sorted(ours, reverse=True)


def test_an_unsupported_model_is_a_model_error() -> None:
    assert issubclass(inferkit.UnsupportedOpError, inferkit.ModelError)


def test_the_picture_shows_every_class_with_its_status() -> None:
    drawn = {}
    for line in (_errors.__doc__ or "").splitlines():
        found = re.search(r"[├└]── (\w+).*?(\d{3})?$", line)
        if found:
            drawn[found[1]] = int(found[2])
    assert drawn == TABLE


def test_the_page_shows_every_class_with_its_status() -> None:
    rows = re.findall(
        r"^\| `(\w+Error)`.*\| (\d{3}) \|$",
        (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(),
        re.MULTILINE,
    )
    assert {name: int(status) for name, status in rows} == TABLE


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_pickles_and_copies(name: str) -> None:
    error = CLASSES[name]("said", reason="shape") if name in REASONS else CLASSES[name]("said")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == "said"
        assert getattr(other, "reason", None) == getattr(error, "reason", None)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_can_be_raised_bare(name: str) -> None:
    with pytest.raises(CLASSES[name]):
        raise CLASSES[name]
