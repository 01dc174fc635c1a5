"""Where a figure becomes a finding: the same for health, the doctor and the alert rules. Beyond is more than that."""

from __future__ import annotations

__all__ = ["ERROR_RATE", "HUNG_AFTER", "INVALID_RATE", "OLDEST_WAIT", "QUEUE_DEPTH", "UNSERVED_RATE"]

QUEUE_DEPTH = 100  # requests that wait
OLDEST_WAIT = 5.0  # seconds that one of them has waited
ERROR_RATE = 0.01  # failed, of those that ran
UNSERVED_RATE = 0.05  # rejected or expired, of those that were good; a burst may cost some
INVALID_RATE = 0.1  # invalid, of all: somebody sends what the model was not made for
HUNG_AFTER = 30.0  # seconds that a batch runs
