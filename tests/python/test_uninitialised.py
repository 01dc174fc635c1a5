"""``X.__new__(X)`` and then use: every attribute of every class says what is wrong; none crashes."""

from __future__ import annotations

import atexit
import inspect
import itertools
import threading
from collections.abc import Callable, MappingView
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
import inferkit.testing
from inferkit import _core, top
from inferkit.diagnostics import LoopWatch
from inferkit.metrics import BUCKETS, Sharing
from inferkit.testing import FakeModel, ManualClock
from inferkit.tracing import RequestLog

SAYS = "is not initialised"
# What any object can do without a value of ours.
PLAIN = {*dir(object), "__annotations__", "__module__", "__slots__", "__weakref__", "_pybind11_conduit_v1_"}
PLAIN -= {"__repr__"}
PLAIN |= {"__slotnames__"}  # copyreg's, left where an object was copied
PLAIN |= {"__del__"}  # has nothing to say where there is nothing to lose


def classes() -> list[type]:
    core = [value for value in vars(_core).values() if inspect.isclass(value)]
    faces = [inferkit.Model, inferkit.Batcher, FakeModel, ManualClock, Sharing, RequestLog, top.Server, LoopWatch]
    return sorted({*core, *faces}, key=lambda cls: (cls.__module__, cls.__qualname__))


def made_by_new(cls: type) -> Any:
    """An object without a value; None where there can be none."""
    try:
        return cls.__new__(cls)
    except TypeError:
        with pytest.raises(TypeError):
            object.__new__(cls)
        with pytest.raises(TypeError):
            cls()
        return None


def attributes(cls: type) -> list[str]:
    """All that the core gives the class; of what is written in Python, what is not private."""
    ours = (base for base in cls.__mro__ if base.__module__.startswith("inferkit"))
    names = {
        name
        for base in ours
        for name, value in vars(base).items()
        if not (name.startswith("_") and not name.startswith("__") and inspect.isfunction(value))
    }
    return sorted(names - PLAIN)


WHOLE = [cls for cls in classes() if made_by_new(cls) is not None]


def test_there_is_something_to_test() -> None:
    names = {cls.__qualname__ for cls in WHOLE}
    assert {"Batcher", "BufferPool", "Model", "InputChecks", "OutputChecks", "ManualClock"} <= names
    assert {"Sharing", "RequestLog", "Server", "LoopWatch", "FakeModel"} <= names
    sealed = {cls.__qualname__ for cls in classes()} - names
    assert {"Buffer", "Weights", "Ticket", "Timing", "PoolStats", "LeakRow"} <= sealed


@pytest.mark.parametrize("cls", WHOLE, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_attribute_says_so(cls: type) -> None:
    # Its own name, or that of a base that the attribute is of: FakeModel's are Model's, mostly.
    ours = "|".join({base.__name__ for base in cls.__mro__ if base.__module__.startswith("inferkit")})
    for name in attributes(cls):
        found = inspect.getattr_static(cls, name)
        if isinstance(found, (staticmethod, classmethod)):
            continue
        with pytest.raises(TypeError, match=f"this ({ours}) {SAYS}"):
            use(made_by_new(cls), name)


SEALED = [cls for cls in classes() if cls not in WHOLE and cls.__mro__[1].__name__ == "pybind11_object"]


@pytest.mark.parametrize("cls", SEALED, ids=lambda cls: cls.__qualname__)
def test_a_second_base_makes_none_either(cls: type) -> None:
    """What nobody can make is there without a value, where a class derives from it and from another."""
    both = type("Both", (inferkit.BufferPool, cls), {})
    for name in attributes(cls):
        if isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod)):
            continue
        with pytest.raises(TypeError, match=f"(BufferPool|{cls.__qualname__}) {SAYS}"):
            use(both.__new__(both), name)
    if cls is _core.Buffer:
        with pytest.raises((TypeError, BufferError)):
            memoryview(both.__new__(both))


def use(made: Any, name: str) -> None:
    """Read the attribute; where it is a method, call it with as many arguments as it takes."""
    method = getattr(made, name)
    if name == "__call__":
        made(1.0)
    by_position = itertools.chain.from_iterable(itertools.product(VALUES, repeat=n) for n in range(4))
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [(arguments, {}) for arguments in by_position]
    ways += [((), names) for names in BY_NAME]
    errors = [error for arguments, names in ways if (error := error_of(method, arguments, names))]
    assert len(errors) == len(ways), f"{name} works"
    said = [error for error in errors if SAYS in str(error)]
    raise said[0] if said else errors[0]


def error_of(method: Callable[..., Any], arguments: tuple[Any, ...], names: dict[str, Any]) -> TypeError | None:
    try:
        answer = method(*arguments, **names)
        if inspect.iscoroutine(answer):
            answer.send(None)
        if isinstance(answer, MappingView):  # looks at its mapping when it is asked
            list(answer)
    except TypeError as error:
        return error
    return None


VALUES: list[Any] = [None, 1, {}]
BY_NAME: list[dict[str, Any]] = [{"drain": True}, {"drain": True, "timeout": None}, {"by": 1.0}, {"limits": []}]


@pytest.mark.parametrize(
    "use",
    [
        lambda b: b.close(),
        lambda b: b.__exit__(None, None, None),
        lambda b: b.drain(timeout=0.1),
        lambda b: b.stats(),
        lambda b: b(1),
        lambda b: b.submit(1),
        lambda b: b.name,
        lambda b: b.model,
        lambda b: repr(b),
        lambda b: b.warm_up(),
    ],
)
def test_a_batcher_without_init(use: Callable[[inferkit.Batcher], object]) -> None:
    class Unmade(inferkit.Batcher):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=SAYS):
        use(inferkit.Batcher.__new__(inferkit.Batcher))
    with pytest.raises(TypeError):  # pybind11 itself finds that the constructor of the base was not called
        Unmade()


def test_a_subclass_whose_init_raised_and_whose_del_closes(fresh_python: Callable[..., Any]) -> None:
    ran = fresh_python(
        """
import inferkit, numpy as np

class Closing(inferkit.Batcher):
    def __del__(self):
        try:
            self.close()
        except TypeError as error:
            print(error)

model = inferkit.Model.from_callable(
    lambda x: x, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
try:
    Closing(model, on_full="block")
except ValueError as error:
    print(error)
with Closing(model) as batcher:
    print(batcher(np.ones(2, np.float32)).tolist())
"""
    )
    assert ran.returncode == 0, ran.stderr
    raised, unmade, answered = ran.stdout.splitlines()
    assert "on_full" in raised
    assert SAYS in unmade
    assert answered == "[1.0, 1.0]"


NOWHERE = Path("/nowhere/at/all")
#: Arguments that the constructor refuses, or fails with half-way; the error; what one does with the object then.
HALF_MADE: list[tuple[type, tuple[Any, ...], type[Exception], str]] = [
    (Sharing, (NOWHERE, 0.0, BUCKETS), ValueError, "stop"),
    (Sharing, (NOWHERE, 1.0, BUCKETS), OSError, "stop"),
    (RequestLog, (None, 0.0), ValueError, "stop"),
    (top.Server, (NOWHERE,), OSError, "close"),
    (LoopWatch, (0.0,), ValueError, "__enter__"),
    (ManualClock, (0.0,), ValueError, "now"),
    (FakeModel, ({},), ValueError, "__repr__"),
]


def half_made(cls: type, arguments: tuple[Any, ...], error: type[Exception]) -> Any:
    """The object of a subclass whose ``__init__`` raised."""
    seen: list[Any] = []

    def init(self: Any) -> None:
        seen.append(self)
        cls.__init__(self, *arguments)

    with pytest.raises(error):
        type("Sub", (cls,), {"__init__": init})()
    return seen[0]


@pytest.mark.parametrize(("cls", "arguments", "error", "method"), HALF_MADE)
def test_one_whose_init_raised(cls: type, arguments: tuple[Any, ...], error: type[Exception], method: str) -> None:
    made = half_made(cls, arguments, error)
    with pytest.raises(TypeError, match=SAYS):
        getattr(made, method)()
    if hasattr(cls, "__exit__"):
        with pytest.raises(TypeError, match=SAYS):
            made.__exit__(None, None, None)


@pytest.mark.parametrize("cls", [Sharing, RequestLog, top.Server])
def test_one_whose_thread_could_not_start(cls: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    registered: list[object] = []
    arguments = {Sharing: (tmp_path, 1.0, BUCKETS), RequestLog: (None, 1.0), top.Server: (tmp_path / "top.sock",)}[cls]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        patch.setattr(atexit, "register", registered.append)
        made = half_made(cls, arguments, OSError)
    with pytest.raises(TypeError, match=SAYS):
        made.__exit__(None, None, None)
    assert not registered
    assert not list(tmp_path.glob("*.sock"))


def test_a_watch_that_was_not_entered() -> None:
    with pytest.raises(RuntimeError, match="was not entered"):
        LoopWatch().__exit__(None, None, None)


def test_two_classes_of_ours_as_bases() -> None:
    """Each finds its own value, wherever it stands."""

    class Both(_core.BufferPool, _core.Batcher):  # type: ignore[misc]
        pass

    class Other(_core.Batcher, _core.Model):  # type: ignore[misc]
        pass

    bare = Both.__new__(Both)
    for method in (_core.Batcher.submit, _core.Batcher.__call__, _core.BufferPool.stats):
        with pytest.raises(TypeError, match=SAYS):
            method(bare)
    other = Other.__new__(Other)
    for method in (_core.Batcher.submit, _core.Model.__call__, _core.Model._memory):
        with pytest.raises(TypeError, match=SAYS):
            method(other)


@pytest.mark.parametrize(
    "use",
    [
        lambda: _core.Ticket.request_id.__get__(5),
        lambda: _core.Ticket.timing.__get__(object()),
        lambda: _core.Ticket.result(5),
        lambda: _core.Batcher.submit(5),
        lambda: _core.Model._run(5, {}),
        lambda: _core.Batcher._close(inferkit.BufferPool(), True),
    ],
)
def test_objects_of_another_class(use: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        use()


def test_the_collector_comes_as_the_first_of_a_subclass_is_made(fresh_python: Callable[..., Any]) -> None:
    """pybind11 shows the collector the object before it has looked for its class's bases."""
    ran = fresh_python(
        """
import gc, inferkit
for base in (inferkit.Batcher, inferkit.Model, inferkit.BufferPool):
    for _ in range(30):
        sub = type("Sub", (base,), {})
        gc.set_threshold(1)
        sub.__new__(sub)
        gc.set_threshold(700)
print("lives")
"""
    )
    assert (ran.stdout, ran.returncode) == ("lives\n", 0), ran.stderr


def test_a_second_init_is_refused() -> None:
    """It would change what the object says of itself, and not what it does."""
    ports = [("x", "float32", (None, 2))]
    model = inferkit.Model.from_callable(lambda x: x + 1, ports, ports)
    other = inferkit.Model.from_callable(lambda x: x + 2, ports, ports)
    with inferkit.Batcher(model, name="one") as batcher:
        with pytest.raises(TypeError, match="this Batcher is initialised already"):
            batcher.__init__(other, name="two", max_batch_size=3)  # type: ignore[misc]
        assert (batcher.model, batcher.name, batcher.max_batch_size) == (model, "one", 64)
        assert batcher(np.zeros(2, np.float32)).tolist() == [1, 1]
    pool = inferkit.BufferPool(max_bytes=1 << 20)
    with pytest.raises(TypeError, match="this BufferPool is initialised already"):
        pool.__init__(max_bytes=64)  # type: ignore[misc]
    clock = inferkit.testing.ManualClock(2.0)
    with pytest.raises(TypeError, match="this ManualClock is initialised already"):
        clock.__init__(3.0)  # type: ignore[misc]
    assert clock.now() == 2.0
    for wrong in (3, None, model):
        with pytest.raises(TypeError):
            inferkit.BufferPool.__init__(wrong)  # type: ignore[arg-type]
