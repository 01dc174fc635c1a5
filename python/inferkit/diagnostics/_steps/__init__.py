"""One module for each step of the checklist; ``examine(patient)`` yields its checks."""

from __future__ import annotations

from . import build, event_loop, lifecycle, memory, outputs, queue, validation

__all__ = ["ALL"]

ALL = {
    1: build.examine,
    2: lifecycle.examine,
    3: validation.examine,
    4: event_loop.examine,
    5: queue.examine,
    6: outputs.examine,
    7: memory.examine,
}
