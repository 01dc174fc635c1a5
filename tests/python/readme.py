"""The code blocks of README.md, by the marker that stands before each: ``<!-- run: NAME -->``.

    python tests/python/readme.py NAME      prints one, for a shell to run

So what the README prints is what the tests and .ci/run run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^<!-- run: ([\w-]+) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str | None = None) -> dict[str, str]:
    """Name -> text of every marked block, or of those in one language."""
    found = BLOCK.findall(README.read_text())
    return {name: text for name, kind, text in found if language in (None, kind)}


if __name__ == "__main__":
    print(blocks()[sys.argv[1]], end="")
