"""The last few thousand requests, each with its stages and times; recorded always, so that you can look afterwards.

Each batcher records every request and every batch when it ends, in a ring buffer of fixed size
(``Batcher(trace_size=...)``) that no request ever waits for. :func:`snapshot`, :func:`export_perfetto` (a trace for
https://ui.perfetto.dev) and :func:`log_requests` read it. :func:`trace_steps` also records how long each step of each
run takes, and :func:`instrument` makes OpenTelemetry spans.

Examples
--------
>>> import inferkit, numpy as np
>>> model = inferkit.Model.from_callable(
...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> with inferkit.Batcher(model) as batcher:
...     _ = batcher(np.ones(2, np.float32), request_id="a1")
...     [(r.request_id, r.outcome) for r in inferkit.tracing.snapshot().requests]
[('a1', 'completed')]
"""

from __future__ import annotations

from collections.abc import Iterable

from .._arguments import flag
from .._batcher import Batcher
from ._otel import flush, instrument, uninstrument
from ._perfetto import export_perfetto
from ._records import BatchTrace, RequestTrace, Snapshot, StepTrace, chosen, snapshot, steps, trace_steps
from ._request_log import RequestLog, log_requests

__all__ = [
    "BatchTrace",
    "RequestLog",
    "RequestTrace",
    "Snapshot",
    "StepTrace",
    "enable",
    "export_perfetto",
    "flush",
    "instrument",
    "log_requests",
    "snapshot",
    "steps",
    "trace_steps",
    "uninstrument",
]


def enable(on: bool = True, batcher: Batcher | Iterable[Batcher] | None = None) -> None:
    """Switch the recording on or off; it is on from the start.

    Parameters
    ----------
    on : bool
        Whether requests are recorded from now on. A batcher that was made with ``trace_size=0`` stays off.
    batcher : Batcher or iterable of Batcher, optional
        Which batchers; by default all that are open in the process.
    """
    on = flag(on, "on")
    for one in chosen(batcher):
        one._set_tracing(on)
