"""Tickets: what a submitted request is to its caller."""

from __future__ import annotations

from ._core import Ticket, Timing

__all__ = ["Ticket", "Timing"]
