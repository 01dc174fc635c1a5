"""What asv runs: a package of its own, so that asv does not take the scripts beside it for benchmarks.

asv imports this folder and nothing around it. The folder above has what the scripts share with the suite.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
