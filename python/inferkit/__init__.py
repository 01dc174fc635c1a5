"""Small AI models inside your process: batched, validated, measured, in microseconds.

>>> import inferkit
>>> inferkit.build_info()["cuda"]
False
"""

from __future__ import annotations

from ._build import build_info, supported_ops
from ._core import Buffer, BufferPool, Weights
from ._errors import (
    ClosedError,
    DeadlineError,
    InferenceError,
    InferkitError,
    ModelError,
    NotReadyError,
    OutputError,
    PoolExhaustedError,
    QueueFullError,
    RequestCancelledError,
    UnsupportedOpError,
    ValidationError,
)
from ._model import Model
from ._types import InputChecks, MemoryUse, TensorSpec

__all__ = [
    "Buffer",
    "BufferPool",
    "ClosedError",
    "DeadlineError",
    "InferenceError",
    "InferkitError",
    "InputChecks",
    "MemoryUse",
    "Model",
    "ModelError",
    "NotReadyError",
    "OutputError",
    "PoolExhaustedError",
    "QueueFullError",
    "RequestCancelledError",
    "TensorSpec",
    "UnsupportedOpError",
    "ValidationError",
    "Weights",
    "__version__",
    "build_info",
    "supported_ops",
]

__version__: str = build_info()["version"]
