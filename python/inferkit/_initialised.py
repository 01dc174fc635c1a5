"""Objects whose ``__init__`` did not run, or raised, say so instead of lacking attributes."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["says_if_not_initialised"]

_Class = TypeVar("_Class", bound=type)


class _Slot:
    """A slot that is a TypeError to read before it is set."""

    __slots__ = ("_class_name", "_slot")

    def __init__(self, slot: Any, class_name: str) -> None:
        self._slot = slot
        self._class_name = class_name

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return self._slot.__get__(instance, owner)
        except AttributeError:
            name = self._class_name
            raise TypeError(
                f"this {name} is not initialised: {name}.__init__() was not called, or it raised an error"
            ) from None

    def __set__(self, instance: object, value: Any) -> None:
        self._slot.__set__(instance, value)


def says_if_not_initialised(cls: _Class) -> _Class:
    """Decorate a class with slots, all of which its ``__init__`` sets."""
    for name in vars(cls)["__slots__"]:
        if not name.startswith("__"):  # __weakref__ and __dict__ are the interpreter's
            setattr(cls, name, _Slot(vars(cls)[name], cls.__name__))
    return cls
