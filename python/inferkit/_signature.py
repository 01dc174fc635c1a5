"""Whether one model can stand in for another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._model import Model
    from ._types import TensorSpec

__all__ = ["signature_differences"]


def signature_differences(present: Model, other: Model) -> list[str]:
    """Say in what inputs and outputs differ; nothing where they are the same."""
    return [
        *_of_ports("input", present.inputs, other.inputs),
        *_of_ports("output", present.outputs, other.outputs),
    ]


def _of_ports(kind: str, present: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> list[str]:
    names, theirs = [p.name for p in present], [p.name for p in other]
    if names != theirs:
        return [f"the {kind}s of the present one are {names}, and of the other {theirs}"]
    return [
        f"{kind} {ours.name!r} is {ours.dtype} of shape {ours.shape}, and of the other {its.dtype} of shape {its.shape}"
        for ours, its in zip(present, other, strict=True)
        if ours != its
    ]
