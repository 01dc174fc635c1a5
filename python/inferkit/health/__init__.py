"""Whether the process is alive and ready, and why not: for load balancers, orchestrators and people.

The states are ``loading`` (there is no batcher yet), ``warming`` (the model of a batcher has not run yet), ``ready``,
``degraded`` (a limit is exceeded), ``draining`` (closing) and ``failed`` (a worker hangs, the device of a model has
failed, or the batchers belong to the process from which this one was forked).

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

from .. import _watchdog
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
    """Set the limits for the functions of this module, and for apps that have no limits of their own.

    Parameters
    ----------
    limits : Limits
    """
    _monitor.limits = limits  # checks them
    _watchdog.look_again()


def report() -> Report:
    """Look at every open batcher of the process now.

    Returns
    -------
    Report
        The state of the process, and the reasons for it.
    """
    return _monitor.report()


def ready() -> Report:
    """Tell whether the process should get requests.

    Returns
    -------
    Report
        True if it should (``if inferkit.health.ready(): ...``); it also has the reasons if not.
    """
    return _monitor.ready()


def live() -> bool:
    """Tell whether the process should go on: always, unless ``Limits(failed_is_dead=True)`` and it has failed.

    Returns
    -------
    bool
    """
    return _monitor.live()


def loading(what: str = "a model") -> AbstractContextManager[None]:
    """Make the process not ready, in state ``loading``, during a ``with`` block.

    Parameters
    ----------
    what : str
        What is being loaded; the reasons show it.
    """
    return _monitor.loading(what)


def drain(reason: str = "the process is shutting down") -> None:
    """Make the process not ready from now on, in state ``draining``, so that no more requests come.

    Parameters
    ----------
    reason : str
        Why; the reasons show it.
    """
    _monitor.drain(reason)


def asgi_app(limits: Limits | None = None, *, metrics_directory: str | None = None) -> Callable[..., Awaitable[Any]]:
    """Make an ASGI app that answers ``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``.

    Serve it by itself (with ``uvicorn``), or mount it in FastAPI or Starlette:
    ``app.mount("/internal", inferkit.health.asgi_app())``. It needs neither of these packages.

    ``/healthz`` answers 200 while the process lives. ``/readyz`` answers 200 or 503, with the state and the reasons as
    JSON. ``/metrics`` is for Prometheus and needs ``prometheus_client``. ``/statusz`` is a page for people, and
    ``/statusz?format=json`` has the same figures for programs. The pages show names of models and ids of requests: do
    not serve them to the world.

    Parameters
    ----------
    limits : Limits, optional
        What counts as healthy; by default the limits of :func:`configure`.
    metrics_directory : str, optional
        The directory in which the processes behind one port share their figures: see :func:`inferkit.metrics.share`.

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
