"""``python -m inferkit``: see ``python -m inferkit --help``."""

from __future__ import annotations

import sys

try:
    from ._cli import main
except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
    sys.exit(130)

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
