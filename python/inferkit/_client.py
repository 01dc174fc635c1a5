"""Named clients of a batcher: what each may send, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._arguments import number

__all__ = ["Client", "ClientStats", "NamedClient", "named_client", "named_clients"]

NamedClient = tuple[str, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Client:
    """What a client of a :class:`Batcher` may have: a share, and a rate.

    Parameters
    ----------
    weight : float
        Of the requests of one priority, clients that wait are served in proportion to their weights, counted in rows.
        From 0.001 to 1000.
    rate : float, optional
        Requests in a second; more raise a :class:`QueueFullError` at once, whose ``retry_after`` says when there will
        be room again. By default without a limit.
    burst : float, optional
        How many requests may come at once after a pause; by default as many as in a second, and at least one.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.Client(rate=50.0)
    Client(weight=1.0, rate=50.0, burst=None)
    """

    weight: float = 1.0
    rate: float | None = None
    burst: float | None = None

    def __post_init__(self) -> None:
        _within(self.weight, "weight", 0.001, 1000.0)
        if self.rate is not None:
            _within(self.rate, "rate", 1e-6, 1e9)
        if self.burst is not None:
            _within(self.burst, "burst", 1.0, 1e9)
            if self.rate is None:
                raise ValueError("burst says how far a rate may be exceeded for a moment: give a rate as well")


@dataclass(frozen=True, kw_only=True)
class ClientStats:
    """What became of a client's requests.

    Parameters
    ----------
    submitted : int
        Requests that came, but for those whose inputs have a wrong dtype or shape.
    answered : int
        Requests that ended with an answer.
    refused : int
        Requests that were refused when they came: over the client's rate, by a full queue, or since they could not be
        answered in time.
    rows : int
        The rows of the answered requests.
    waiting : int
        How many of its requests have a place in the queue.
    """

    submitted: int
    answered: int
    refused: int
    rows: int
    waiting: int


def _within(value: object, name: str, least: float, most: float) -> None:
    got = number(value, name)
    if not least <= got <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, got {got:g}")


def named_client(name: str, client: Client) -> NamedClient:
    """Say it as the core takes it: 0 for what is not given."""
    rate, burst = (0.0 if value is None else float(value) for value in (client.rate, client.burst))
    return name, float(client.weight), rate, burst


def named_clients(clients: Mapping[str, Client] | None) -> list[NamedClient]:
    """Check an argument ``clients``."""
    if clients is None:
        return []
    if not isinstance(clients, Mapping):
        raise TypeError(f"clients must map names to Client, got {type(clients).__name__}")
    for name, client in clients.items():
        for one, kind in ((name, str), (client, Client)):
            if not isinstance(one, kind):
                raise TypeError(f"clients must map names to Client, got a mapping with {type(one).__name__}")
    return [named_client(name, client) for name, client in clients.items()]
