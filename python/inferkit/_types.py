"""Small immutable types of the public surface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from . import _core

__all__ = ["InputChecks", "MemoryUse", "Metadata", "TensorSpec"]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Find the dtype of a `TensorSpec.dtype`; those that numpy lacks come from ml_dtypes, strings are objects."""
    if name == "string":
        return np.dtype(object)
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found
    except (ImportError, AttributeError):
        raise TypeError(f"numpy has no {name}; install the package ml_dtypes, which has it") from None


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare two answers to the bit; strings by their characters."""
    return a.tolist() == b.tolist() if a.dtype == b.dtype == object else a.tobytes() == b.tobytes()


@dataclass(frozen=True, repr=False)
class TensorSpec:
    """Name, type and shape of a model's input or output.

    Parameters
    ----------
    name : str
        As in the model file.
    dtype : str
        numpy's name of the element type: ``"float32"``, ``"int64"``, ``"bool"``... For types that numpy does not have,
        the name in the package ``ml_dtypes``: ``"bfloat16"``, ``"float8_e4m3fn"``, ``"int4"``... ``"string"`` takes
        arrays of ``numpy.str_`` of any width, and arrays of objects, or lists, that hold ``str``; it gives arrays of
        objects.
    shape : tuple of int or None
        ``None`` marks a free dimension, such as the batch: each request chooses its size.
    sequence : bool
        It is a list of such arrays, whose shapes may differ: what the file says of them is not checked.
    optional : bool
        It may be ``None``.
    any_shape : bool
        ``shape`` is ``()``, and says nothing. Of an output: the file declares no shape, and nothing that was tried when
        the model was loaded has shown one: the shape is known only from each answer. Of an input: the file declares no
        shape, so any is tried, also of other ranks than those before. Of a sequence or an optional: the file declares
        no shape for its arrays.
    shared : bool
        Of an input: it is one value for all rows, although it has dimensions, and the first of them is not the batch.
        Inputs without dimensions are shared by all rows, too, although this is False for them.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.TensorSpec("x", "float32", (None, 64))
    TensorSpec(name='x', dtype='float32', shape=(None, 64))
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    sequence: bool = False
    optional: bool = False
    any_shape: bool = False
    shared: bool = False

    def __repr__(self) -> str:
        kinds = ("sequence", "optional", "any_shape", "shared")
        true = "".join(f", {kind}=True" for kind in kinds if getattr(self, kind))
        return f"TensorSpec(name={self.name!r}, dtype={self.dtype!r}, shape={self.shape!r}{true})"

    def _as_tuple(self) -> tuple[str, str, list[int | None]]:
        return (self.name, str(self.dtype), list(self.shape))


def refuse_sequences(specs: Iterable[TensorSpec]) -> None:
    """Raise for an input whose size no shape tells."""
    for spec in specs:
        if spec.sequence or spec.optional:
            raise ValueError(
                f"input '{spec.name}' is a sequence or an optional, which has no shape: run the model on it"
            )
        if spec.any_shape:
            raise ValueError(f"the model file declares no shape for input '{spec.name}': run the model on it")


def refuse_unknown(names: Iterable[object], specs: Iterable[TensorSpec]) -> None:
    """Raise for a name that none of a model's inputs has."""
    for name in names:
        known = ", ".join(f"'{spec.name}'" for spec in specs)
        raise ValueError(f"the model has no input {name!r}; its inputs are {known}")


@dataclass(frozen=True, kw_only=True)
class InputChecks:
    """What is checked of an input besides dtype and shape, which are always checked.

    Give it to ``Model.load(input_checks=...)``, ``Model.from_callable(...)`` or ``Batcher(...)``: one for all inputs,
    or a mapping of input names to them for some.

    Parameters
    ----------
    finite : bool, optional
        True refuses NaN and infinity, False lets them through. By default they are refused, except where the model
        gives them a meaning: NaN as a missing value, where it comes to decision trees that track missing values, to an
        ``Imputer`` that replaces it or a ``LabelEncoder`` that has it among its keys, or where the model asks
        ``IsNaN``; minus infinity as a mask, where it is added to what a ``Softmax`` or ``LogSoftmax`` is taken of;
        infinity, where it is subtracted there or the model asks ``IsInf``.
    non_empty : bool, optional
        True refuses dimensions of size 0, False lets them through. By default they are refused, except where the model
        gives them a meaning: the past of a decoder, to which ``Concat`` or an attention adds the present step. A
        request to a Batcher has at least one row whatever this says.
    min_length, max_length : int
        Bounds of every free dimension except the batch, such as the length of a text. A ``max_length`` of 0 sets no
        bound.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.InputChecks(max_length=512).max_length
    512
    >>> with_missing_ages = {"age": inferkit.InputChecks(finite=False)}  # of the other inputs, the default
    """

    finite: bool | None = None
    non_empty: bool | None = None
    min_length: int = 0
    max_length: int = 0

    def __post_init__(self) -> None:
        self._native()  # checks each of them
        if self.max_length and self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")

    def _native(self) -> _core.InputChecks:
        return _core.InputChecks(
            finite=self.finite,
            non_empty=self.non_empty,
            min_length=self.min_length,
            max_length=self.max_length,
        )


GivenChecks = InputChecks | Mapping[str, InputChecks] | None
_EXPECTED = "input_checks must be InputChecks, or map names of inputs to them"


def given_checks(checks: GivenChecks) -> GivenChecks:
    """Check the type of an argument ``input_checks``, and keep what a mapping says now."""
    if checks is None or isinstance(checks, InputChecks):
        return checks
    if not isinstance(checks, Mapping):
        raise TypeError(f"{_EXPECTED}, got {type(checks).__name__}")
    found = dict(checks)
    for name, check in found.items():
        for one, kind in ((name, str), (check, InputChecks)):
            if not isinstance(one, kind):
                raise TypeError(f"{_EXPECTED}, got a mapping with {type(one).__name__}")
    return found


def checks_by_name(checks: GivenChecks, specs: Iterable[TensorSpec]) -> dict[str, InputChecks]:
    """Find what an argument ``input_checks`` says of the inputs; a mapping may leave some out."""
    specs = tuple(specs)
    found = given_checks(checks)
    if found is None:
        return {}
    if isinstance(found, InputChecks):
        return {spec.name: found for spec in specs}
    refuse_unknown(sorted(found.keys() - {spec.name for spec in specs}), specs)
    return dict(found)


class Metadata(Mapping[str, str]):
    """What a model file says about itself: a read-only mapping of its own entries, and fields that all files have.

    Parameters
    ----------
    entries : mapping of str to str
        The file's ``metadata_props``: the names of classes, the size of images, or whatever else its author put there.
    producer : str
        The program that wrote the file, with its version.
    version : int
        The version of the model, as its authors count it; 0 if the file has none.
    ir_version : int
        The version of ONNX's file format.
    opsets : mapping of str to int
        The operator sets that the file uses, by domain; ``""`` is ONNX's own.

    Examples
    --------
    >>> import inferkit
    >>> metadata = inferkit.Model.load("examples/digits.onnx").metadata
    >>> dict(metadata), metadata.ir_version, dict(metadata.opsets)
    ({}, 8, {'': 17})
    """

    __slots__ = {
        "_entries": "",
        "ir_version": "The version of ONNX's file format.",
        "opsets": "The operator sets that the file uses, by domain.",
        "producer": "The program that wrote the file, with its version.",
        "version": "The version of the model, as its authors count it; 0 if the file has none.",
    }

    def __init__(
        self,
        entries: Mapping[str, str],
        *,
        producer: str = "",
        version: int = 0,
        ir_version: int = 0,
        opsets: Mapping[str, int] | None = None,
    ) -> None:
        self._entries = dict(entries)
        self.producer = producer
        self.version = version
        self.ir_version = ir_version
        self.opsets: Mapping[str, int] = MappingProxyType(dict(opsets or {}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy it by what it was made of: a view of a mapping has no copy."""
        return _metadata, (self._entries, self.producer, self.version, self.ir_version, dict(self.opsets))

    def __getitem__(self, key: str) -> str:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"Metadata({self._entries!r}, producer={self.producer!r}, version={self.version}, "
            f"ir_version={self.ir_version}, opsets={dict(self.opsets)!r})"
        )


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """How much memory a model holds, in bytes; from ``Model.memory()``.

    Parameters
    ----------
    file_bytes : int
        The size of the model file and its external data.
    weight_bytes : int
        All constants of the model: the sum of mapped_bytes and copied_bytes.
    mapped_bytes : int
        Constants that are read in place, in the mapped file; shared with every process that maps it.
    copied_bytes : int
        Constants that are copied into memory of this process: small ones, integers, those that the file encodes or puts
        at addresses that the processor cannot read them from, and results of constant folding.
    misaligned_bytes : int
        Constants that are copied only because of their address in the file, which happens when their elements are first
        read: by the packing of weights, for example, unless a packed file has them. Weights saved as external data are
        aligned.
    packed_bytes : int
        Additional copies of weights, in the layout that the kernels of matrix products and convolutions read.
    packed_shared_bytes : int
        Of those, what is in the pages of a packed file, which every process that maps it shares (see
        ``Model.load(packed_cache=...)``); the rest was packed by this process.
    arena_bytes : int
        Working memory that plans keep for their next run; ``Model.trim()`` frees it.
    plans, sessions : int
        How many shapes are compiled, and how many working memories are kept for them.
    plan_hits, plan_misses, plan_evictions : int
        How often a shape was compiled already, had to be compiled, and was dropped to make room for another.
    """

    file_bytes: int
    weight_bytes: int
    mapped_bytes: int
    copied_bytes: int
    misaligned_bytes: int
    packed_bytes: int
    packed_shared_bytes: int
    arena_bytes: int
    plans: int
    sessions: int
    plan_hits: int
    plan_misses: int
    plan_evictions: int


def _metadata(
    entries: dict[str, str], producer: str, version: int, ir_version: int, opsets: dict[str, int]
) -> Metadata:
    return Metadata(entries, producer=producer, version=version, ir_version=ir_version, opsets=opsets)
