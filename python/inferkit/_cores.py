"""A limit on the cores that all batchers of the process use together."""

from __future__ import annotations

from . import _core

__all__ = ["max_concurrent", "set_max_concurrent"]


def set_max_concurrent(cores: int | None) -> None:
    """Limit how many cores the runs of all batchers of the process may use at once.

    A run counts as many as the `threads` of its model, and a wrapped callable one, also while it waits for something;
    none counts more than the limit. Where a batch could go and there is no core for it, it waits, and the next core
    that is free is for the batcher that has used the least core time for its `weight`. Priorities and deadlines decide
    within a batcher, as always. A batcher that had nothing to run has saved nothing up.

    Without a limit, which is how a process begins, batchers know nothing of one another, and the kernel shares the
    cores among their workers. Set one where several batchers have more workers than there are cores, and what they get
    is to be in proportion to their weights, or where some cores are for other work.

    It holds for runs that begin from then on, on workers, on callers' threads and on the threads of event loops, but
    not for ``model(x)``, which has no batcher. A run is never interrupted. One that submits requests itself, as a
    callable may, gives its cores back until it is over, since it is likely to wait for them; but a callable must not
    wait for another thread that submits. A child of a fork has the limit, too.

    Parameters
    ----------
    cores : int or None
        At least 1; ``None`` for no limit.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> inferkit.set_max_concurrent(2)
    >>> with inferkit.Batcher(model, weight=3.0) as important, inferkit.Batcher(model) as other:
    ...     tickets = [batcher.submit(np.ones(2, np.float32)) for batcher in (important, other)]
    ...     [ticket.result().tolist() for ticket in tickets]
    [[2.0, 2.0], [2.0, 2.0]]
    >>> inferkit.set_max_concurrent(None)
    """
    _core.set_max_concurrent(cores)


def max_concurrent() -> int | None:
    """Return how many cores the runs of all batchers may use at once; ``None`` without a limit.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.max_concurrent() is None
    True
    """
    return _core.max_concurrent()
