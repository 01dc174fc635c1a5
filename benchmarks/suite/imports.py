"""What `import inferkit` costs beyond `import numpy`, for asv."""

from __future__ import annotations

import statistics
import subprocess
import sys

SCRIPT = "import time, numpy; t = time.perf_counter(); import inferkit; print(time.perf_counter() - t)"


def track_import_ms() -> float:
    seconds = [float(subprocess.check_output([sys.executable, "-c", SCRIPT])) for _ in range(11)]
    return statistics.median(seconds) * 1e3


track_import_ms.unit = "ms"  # type: ignore[attr-defined]

if __name__ == "__main__":
    print(f"import inferkit: {track_import_ms():.1f} ms beyond numpy (median of 11 processes)")
