"""Is the process alive, is it ready, and why not: for load balancers, orchestrators and people.

States: ``loading`` (no batcher yet), ``warming`` (none of a batcher's model has run), ``ready``, ``degraded`` (a limit
is breached), ``draining`` (closing) and ``failed`` (a worker hangs, or is gone with the process that was forked).

Examples
--------
>>> import inferkit, numpy as np
>>> model = inferkit.Model.from_callable(
...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
>>> with inferkit.Batcher(model, name="scorer") as batcher:
...     before = inferkit.health.ready()
...     batcher.warm_up()
...     after = inferkit.health.ready()
>>> before.ready, before.reasons
(False, ('scorer: not warmed up; call batcher.warm_up()',))
>>> after.ready, after.state.value
(True, 'ready')
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from .._arguments import path_text
from ._app import App
from ._monitor import Limits, Monitor, Report, State

__all__ = [
    "Limits",
    "Monitor",
    "Report",
    "State",
    "asgi_app",
    "configure",
    "drain",
    "live",
    "loading",
    "ready",
    "report",
]

_monitor = Monitor()


def configure(limits: Limits) -> None:
    """Set the limits that this module's functions, and apps without limits of their own, judge by.

    Parameters
    ----------
    limits : Limits
    """
    _monitor.limits = limits  # checks them


def report() -> Report:
    """Look at every open batcher of the process now.

    Returns
    -------
    Report
    """
    return _monitor.report()


def ready() -> Report:
    """Whether the process should get requests: a report, which is true where it should, and has the reasons.

    Returns
    -------
    Report
    """
    return _monitor.ready()


def live() -> bool:
    """Whether the process should be left running: always, unless ``Limits(failed_is_dead=True)`` says otherwise.

    Returns
    -------
    bool
    """
    return _monitor.live()


def loading(what: str = "a model") -> AbstractContextManager[None]:
    """Not ready, in state ``loading``, for the length of a ``with`` block.

    Parameters
    ----------
    what : str
        What is being loaded, for the reasons.
    """
    return _monitor.loading(what)


def drain(reason: str = "the process is shutting down") -> None:
    """Say that no more requests should come: not ready, in state ``draining``, from now on.

    Parameters
    ----------
    reason : str
        For the reasons.
    """
    _monitor.drain(reason)


def asgi_app(limits: Limits | None = None, *, metrics_directory: str | None = None) -> Callable[..., Awaitable[Any]]:
    """Make an ASGI app: ``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``.

    Serve it by itself (``uvicorn``), or mount it: ``app.mount("/internal", inferkit.health.asgi_app())`` in FastAPI and
    Starlette. It needs neither.

    ``/healthz`` is 200 while the process lives. ``/readyz`` is 200 or 503, with the state and the reasons as JSON.
    ``/metrics`` is for Prometheus and needs ``prometheus_client``. ``/statusz`` is a page for people;
    ``/statusz?format=json`` is what it shows. They tell names of models and ids of requests: do not serve them to the
    world.

    Parameters
    ----------
    limits : Limits, optional
        By default those of :func:`configure`.
    metrics_directory : str, optional
        Where the processes that share one port share their figures: see :func:`inferkit.metrics.share`.

    Returns
    -------
    ASGI application

    Examples
    --------
    >>> import inferkit
    >>> app = inferkit.health.asgi_app(inferkit.health.Limits(max_p99_ms=20.0))
    """
    directory = None if metrics_directory is None else path_text(metrics_directory, "metrics_directory")
    return App(_monitor if limits is None else Monitor(limits), directory)
