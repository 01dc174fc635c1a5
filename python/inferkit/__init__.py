"""Small AI models inside your process: batched, validated, measured, in microseconds.

>>> import inferkit
>>> inferkit.build_info()["isa"] in inferkit.build_info()["isa_available"]
True
"""

from __future__ import annotations

from ._at_once import is_command_line as _is_command_line
from ._at_once import stop_at_once as _stop_at_once

if _is_command_line():  # before what takes long to import
    _stop_at_once()

from typing import TYPE_CHECKING

try:
    from . import _core
    from ._core import Buffer, BufferPool, LeakRow, PoolStats, Weights
except ImportError as error:
    if "subinterpreters" in str(error):
        raise ImportError(
            "inferkit cannot be imported in a subinterpreter: import it in the main interpreter of the process "
            "(under mod_wsgi, set WSGIApplicationGroup %{GLOBAL})"
        ) from error
    raise

from ._batcher import Batcher, OutputChecks
from ._build import build_info, supported_ops
from ._build import built as _built
from ._client import Client, ClientStats
from ._cores import max_concurrent, set_max_concurrent
from ._deadline import deadline
from ._errors import (
    ClosedError,
    DeadlineError,
    DeviceError,
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
from ._policy import Fixed, PolicyStats
from ._stats import BatcherStats, Latency, WindowStats
from ._tags import TagStats
from ._ticket import Ticket, Timing
from ._types import InputChecks, MemoryUse, Metadata, TensorSpec

if TYPE_CHECKING:
    from . import cuda as cuda
    from . import diagnostics as diagnostics
    from . import health as health
    from . import metrics as metrics
    from . import testing as testing
    from . import top as top
    from . import tracing as tracing
    from ._explain import Explanation, FileNode, KernelLaunch, LoweringChoice, PlanStep, Scaling
    from ._precision import OutputDifference, PrecisionReport
    from .diagnostics import diagnose

__all__ = [
    "Batcher",
    "BatcherStats",
    "Buffer",
    "BufferPool",
    "Client",
    "ClientStats",
    "ClosedError",
    "DeadlineError",
    "DeviceError",
    "Explanation",
    "FileNode",
    "Fixed",
    "InferenceError",
    "InferkitError",
    "InputChecks",
    "KernelLaunch",
    "Latency",
    "LeakRow",
    "LoweringChoice",
    "MemoryUse",
    "Metadata",
    "Model",
    "ModelError",
    "NotReadyError",
    "OutputChecks",
    "OutputDifference",
    "OutputError",
    "PlanStep",
    "PolicyStats",
    "PoolExhaustedError",
    "PoolStats",
    "PrecisionReport",
    "QueueFullError",
    "RequestCancelledError",
    "Scaling",
    "TagStats",
    "TensorSpec",
    "Ticket",
    "Timing",
    "UnsupportedOpError",
    "ValidationError",
    "Weights",
    "WindowStats",
    "__version__",
    "build_info",
    "deadline",
    "diagnose",
    "max_concurrent",
    "set_max_concurrent",
    "supported_ops",
]

# help() shows these as what they are to a user: parts of this package, with signatures of Python's own.
_core._make_docs_plain()
for _cls in (Buffer, BufferPool, LeakRow, PoolStats, Ticket, Timing, Weights):
    _cls.__module__ = __name__

__version__: str = _built()["version"]


def __getattr__(name: str) -> object:
    """Import on first use what needs more of the standard library: most programs that import inferkit do not."""
    from importlib import import_module

    if name in ("cuda", "diagnostics", "health", "metrics", "testing", "top", "tracing"):
        return import_module(f".{name}", __name__)
    if name in ("Explanation", "FileNode", "KernelLaunch", "LoweringChoice", "PlanStep", "Scaling"):
        return getattr(import_module("._explain", __name__), name)
    if name in ("OutputDifference", "PrecisionReport"):
        return getattr(import_module("._precision", __name__), name)
    if name == "diagnose":
        return import_module(".diagnostics", __name__).diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
