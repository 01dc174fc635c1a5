"""What a wrapped callable may give for its outputs: an array, a sequence of them, or a mapping by name."""

from __future__ import annotations

import array
import collections
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import inferkit

X = np.arange(8, dtype=np.float32).reshape(2, 4)
SPEC = ("float32", (None, 4))


def wrap(fn: Callable[..., Any], *outputs: str) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, inputs=[("x", *SPEC)], outputs=[(name, *SPEC) for name in outputs])


class OwnMapping(Mapping[str, Any]):
    def __init__(self, items: dict[str, Any]) -> None:
        self.items_ = items

    def __getitem__(self, key: str) -> Any:
        return self.items_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_)

    def __len__(self) -> int:
        return len(self.items_)


class OwnSequence(Sequence[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items_ = items

    def __getitem__(self, at: Any) -> Any:
        return self.items_[at]

    def __len__(self) -> int:
        return len(self.items_)


MAPPINGS: list[Callable[[dict[str, Any]], Any]] = [
    dict,
    types.MappingProxyType,
    collections.OrderedDict,
    collections.UserDict,
    collections.ChainMap,
    lambda items: collections.defaultdict(lambda: X, items),
    OwnMapping,
]
SEQUENCES: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    collections.deque,
    collections.UserList,
    lambda items: collections.namedtuple("Outputs", [f"o{i}" for i in range(len(items))])(*items),
    OwnSequence,
]


@pytest.mark.parametrize("kind", MAPPINGS)
def test_mappings(kind: Callable[[dict[str, Any]], Any]) -> None:
    two = wrap(lambda x: kind({"z": -x, "y": x}), "y", "z")
    with inferkit.Batcher(two) as batcher:
        for y, z in (two(X), batcher(X), batcher.submit(X).result()):
            np.testing.assert_array_equal(y, X)
            np.testing.assert_array_equal(z, -X)
    np.testing.assert_array_equal(wrap(lambda x: kind({"y": x}), "y")(X), X)
    with pytest.raises(inferkit.OutputError, match="output 'z' is missing from the callable's mapping"):
        wrap(lambda x: kind({"y": x}), "y", "z")(X)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences(kind: Callable[[list[Any]], Any]) -> None:
    two = wrap(lambda x: kind([x, -x]), "y", "z")
    with inferkit.Batcher(two) as batcher:
        for y, z in (two(X), batcher(X), batcher.submit(X).result()):
            np.testing.assert_array_equal(y, X)
            np.testing.assert_array_equal(z, -X)
    np.testing.assert_array_equal(wrap(lambda x: kind([x]), "y")(X), X)
    with pytest.raises(inferkit.OutputError, match="returned 1 output, but 2 are declared"):
        wrap(lambda x: kind([x]), "y", "z")(X)


def test_arrays_that_call_themselves_sequences() -> None:
    np.testing.assert_array_equal(wrap(memoryview, "y")(X), X)
    flat = inferkit.Model.from_callable(
        lambda x: array.array("f", x.ravel()), inputs=[("x", "float32", (8,))], outputs=[("y", "float32", (8,))]
    )
    np.testing.assert_array_equal(flat(X.ravel()), X.ravel())


@pytest.mark.parametrize("answer", [None, "text", b"bytes", 3, object(), {1, 2}, iter([X])])
def test_what_is_neither(answer: Any) -> None:
    with pytest.raises(inferkit.OutputError, match=r"^the callable's output 'y': expected a numpy array"):
        wrap(lambda x: answer, "y")(X)
    with pytest.raises(inferkit.OutputError, match=r"returned one object of type .*, but 2 outputs are declared"):
        wrap(lambda x: answer, "y", "z")(X)


@pytest.mark.parametrize("answer", [X.astype(">f4"), np.ma.masked_array(X), np.zeros((1,) * 9, np.float32)])
def test_an_output_is_called_one(answer: Any) -> None:
    for given in (answer, [answer], {"y": answer}):
        with pytest.raises(inferkit.OutputError, match=r"^the callable's output 'y'"):
            wrap(lambda x, given=given: given, "y")(X)


def test_errors_of_a_mapping_are_the_callables() -> None:
    class Broken(OwnMapping):
        def __getitem__(self, key: str) -> Any:
            raise RuntimeError("its own")

    with pytest.raises(inferkit.InferenceError, match="its own") as caught:
        wrap(lambda x: Broken({}), "y")(X)
    assert isinstance(caught.value.__cause__, RuntimeError)
