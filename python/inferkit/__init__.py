"""Small AI models inside your process: batched, validated, measured, in microseconds.

>>> import inferkit
>>> inferkit.build_info()["cuda"]
False
"""

from __future__ import annotations

from ._batcher import Batcher, BatcherStats, Latency, OutputChecks
from ._build import build_info, supported_ops
from ._core import Buffer, BufferPool, LeakRow, PoolStats, Weights
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
from ._ticket import Ticket, Timing
from ._types import InputChecks, MemoryUse, TensorSpec

__all__ = [
    "Batcher",
    "BatcherStats",
    "Buffer",
    "BufferPool",
    "ClosedError",
    "DeadlineError",
    "InferenceError",
    "InferkitError",
    "InputChecks",
    "Latency",
    "LeakRow",
    "MemoryUse",
    "Model",
    "ModelError",
    "NotReadyError",
    "OutputChecks",
    "OutputError",
    "PoolExhaustedError",
    "PoolStats",
    "QueueFullError",
    "RequestCancelledError",
    "TensorSpec",
    "Ticket",
    "Timing",
    "UnsupportedOpError",
    "ValidationError",
    "Weights",
    "__version__",
    "build_info",
    "supported_ops",
]

__version__: str = build_info()["version"]
