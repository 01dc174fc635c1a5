"""Each public name is deliberate: what is new here must be added here, and documented."""

from __future__ import annotations

import inspect
import pkgutil
import types

import inferkit

PUBLIC = {
    "errors": {
        "ClosedError", "DeadlineError", "InferenceError", "InferkitError", "ModelError", "NotReadyError", "OutputError",
        "PoolExhaustedError", "QueueFullError", "RequestCancelledError", "UnsupportedOpError", "ValidationError",
    },
    "models": {"InputChecks", "MemoryUse", "Model", "TensorSpec"},
    "build": {"__version__", "build_info", "supported_ops"},
}  # fmt: skip

MEMBERS = {
    "Model": {
        "from_callable", "inputs", "load", "memory", "outputs", "path", "run", "trim", "warm_up", "weights",
    },
}  # fmt: skip


def test_the_public_names() -> None:
    assert set(inferkit.__all__) == set().union(*PUBLIC.values())


def test_all_is_sorted_and_true() -> None:
    assert inferkit.__all__ == sorted(inferkit.__all__)
    assert all(hasattr(inferkit, name) for name in inferkit.__all__)


def test_nothing_else_is_visible() -> None:
    """Besides `__all__`: modules that begin with an underscore, and nothing by accident of an import."""
    visible = {name for name in vars(inferkit) if not name.startswith("_")}
    assert visible - set(inferkit.__all__) <= {"annotations"}


def test_modules_are_private() -> None:
    assert {m.name for m in pkgutil.iter_modules(inferkit.__path__) if not m.name.startswith("_")} == set()


def test_public_members_of_classes() -> None:
    for name, members in MEMBERS.items():
        assert {m for m in dir(getattr(inferkit, name)) if not m.startswith("_")} == members, name


def test_errors_say_that_they_are_of_inferkit() -> None:
    """A traceback should read `inferkit.ValidationError`'s family, wherever it was raised."""
    for name in PUBLIC["errors"]:
        assert getattr(inferkit, name).__module__.split(".")[0] == "inferkit"


def test_constructors_take_keywords() -> None:
    """Configuration objects are keyword-only, so that a field can be added in the middle."""
    for cls in (inferkit.InputChecks, inferkit.MemoryUse):
        kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}, cls


def test_public_names_are_no_modules() -> None:
    assert not [n for n in inferkit.__all__ if isinstance(getattr(inferkit, n), types.ModuleType)]
