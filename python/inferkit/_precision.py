"""What a model loses in bf16: its answers in both precisions side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._text import counted

if TYPE_CHECKING:
    from ._model import Model

__all__ = ["OutputDifference", "PrecisionReport", "compare_precision"]


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far one output in bf16 is from the same in float32.

    Parameters
    ----------
    name : str
        The name of the output.
    elements : int
        How many elements were compared.
    max_abs_error : float
        The largest difference of two elements. Infinite if one of them is NaN or infinite, and the other is not the
        same.
    max_rel_error : float
        The largest difference in relation to the element in float32, of those that are finite and not zero there. It is
        large where an element is a small difference of large numbers.
    relative_error : float
        The root of the mean square of the differences, in relation to that of the output in float32.
    cosine : float or None
        The cosine of the angle between the two outputs, each as one long vector; None if one of them is all zero, not
        finite, or not of numbers.
    equal : float
        The share of the elements that are the same. It is what counts for outputs of integers, bools and strings, for
        which the errors are 0 if all are the same, and infinite if not.
    """

    name: str
    elements: int
    max_abs_error: float
    max_rel_error: float
    relative_error: float
    cosine: float | None
    equal: float

    def __str__(self) -> str:
        """Write it in one line."""
        cosine = "" if self.cosine is None else f", cosine {self.cosine:.6f}"
        return (
            f"{self.name}: {counted(self.elements, 'element')}, {self.equal:.1%} the same, largest error "
            f"{self.max_abs_error:.2e} (relative {self.max_rel_error:.2e}), error relative to the whole output "
            f"{self.relative_error:.2e}{cosine}"
        )


@dataclass(frozen=True, kw_only=True)
class PrecisionReport:
    """How far a model's answers in bf16 are from those in float32; from ``Model.compare_precision()``.

    Parameters
    ----------
    outputs : tuple of OutputDifference
        One for each output of the model, in order.
    precision : str
        What was compared with float32: ``"bf16"``, or ``"float16"`` for a model that computes in it.
    """

    outputs: tuple[OutputDifference, ...]
    precision: str = "bf16"

    def __str__(self) -> str:
        """Write a line for each output."""
        return "\n".join([f"{self.precision} beside float32", *(f"  {output}" for output in self.outputs)])


def _parts(value: Any) -> Iterator[np.ndarray]:
    """Give the arrays of an output, which may be a list of some, or nothing."""
    if isinstance(value, list):
        for item in value:
            yield from _parts(item)
    elif value is not None:
        yield np.asarray(value).reshape(-1)


def _joined(value: Any) -> np.ndarray:
    parts = list(_parts(value))
    return np.concatenate(parts) if parts else np.zeros(0)


def _difference(name: str, exact: np.ndarray, rounded: np.ndarray) -> OutputDifference:
    if exact.shape != rounded.shape:  # values decided about the shape
        return OutputDifference(
            name=name, elements=max(exact.size, rounded.size), max_abs_error=np.inf, max_rel_error=np.inf,
            relative_error=np.inf, cosine=None, equal=0.0,
        )  # fmt: skip
    if exact.dtype.kind not in "fV":  # ml_dtypes has its bfloat16 as V
        same = exact == rounded
        error = 0.0 if bool(np.all(same)) else np.inf
        equal = float(np.mean(same)) if same.size else 1.0
        return OutputDifference(
            name=name, elements=exact.size, max_abs_error=error, max_rel_error=error, relative_error=error,
            cosine=None, equal=equal,
        )  # fmt: skip
    want, got = exact.astype(np.float64), rounded.astype(np.float64)
    same = (want == got) | (np.isnan(want) & np.isnan(got))
    with np.errstate(all="ignore"):
        apart = np.where(same, 0.0, np.abs(want - got))
        apart = np.where(np.isfinite(apart), apart, np.inf)
        counts = (want != 0) & np.isfinite(want)
        relative = np.where(counts, apart / np.where(counts, np.abs(want), 1.0), 0.0)
        length, other = np.linalg.norm(want), np.linalg.norm(got)
        cosine = float(want @ got / (length * other)) if length and other else None
        whole = float(np.linalg.norm(apart) / length) if length else (0.0 if not apart.any() else np.inf)
    return OutputDifference(
        name=name,
        elements=want.size,
        max_abs_error=float(apart.max(initial=0.0)),
        max_rel_error=float(relative.max(initial=0.0)),
        relative_error=whole if not np.isnan(whole) else np.inf,
        cosine=cosine if cosine is not None and np.isfinite(cosine) else None,
        equal=float(same.mean()) if same.size else 1.0,
    )


def compare_precision(model: Model, inputs: Sequence[Any]) -> PrecisionReport:
    """Do the work of ``Model.compare_precision``."""
    exact = _core.run_in_precision(model, list(inputs), False)
    rounded = _core.run_in_precision(model, list(inputs), True)
    return PrecisionReport(
        outputs=tuple(
            _difference(spec.name, _joined(a), _joined(b))
            for spec, a, b in zip(model.outputs, exact, rounded, strict=True)
        ),
        precision="bf16" if model.precision == "float32" else model.precision,
    )
