"""For tests of programs that use inferkit: time that stands still, models of scripted speed, and load.

>>> import inferkit.testing, numpy as np
>>> clock = inferkit.testing.ManualClock()
>>> model = inferkit.testing.FakeModel(duration=0.020, clock=clock)
>>> with clock.batcher(model, max_batch_size=8) as batcher:
...     first = batcher.submit(np.ones(2, np.float32))
...     clock.wait_for_sleepers()           # the worker has begun to run it, which takes 20 ms of the clock
...     late = batcher.submit(np.ones(2, np.float32), timeout=0.010)
...     clock.advance(0.010)                # now the second one's time has passed
...     clock.advance(0.010)                # and now the run is over
...     first.result(), type(late.exception()).__name__
(array([2., 2.], dtype=float32), 'DeadlineError')
"""

from __future__ import annotations

from ._clock import ManualClock
from ._fake_model import FakeModel
from ._load import LoadReport, adrive, bursts, drive, poisson

__all__ = ["FakeModel", "LoadReport", "ManualClock", "adrive", "bursts", "drive", "poisson"]
