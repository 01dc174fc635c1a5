"""The debug checklist for inference services, as a program; and a detector of what holds an event loop.

:func:`diagnose` walks the checklist on a batcher; ``python -m inferkit doctor MODEL`` does it for a model file.
:func:`watch_loop` names the file and line that holds an asyncio loop.
"""

from __future__ import annotations

from ._diagnose import diagnose
from ._loop import LoopWatch, Stall, watch_loop
from ._report import Check, Report

__all__ = ["Check", "LoopWatch", "Report", "Stall", "diagnose", "watch_loop"]
