"""What the pages show: README.md and those of docs, benchmarks, examples and csrc.

A block of Python stands behind ``<!-- run: NAME -->`` and is run by that name; what is no code says so, ``<!-- shown:
WHY -->``. ``<!-- run: NAME as FILE.py -->`` is also a file of that name for the other blocks of its page. Shell
commands, in blocks or in a line, need no mark: commands.py says what runs each.

    python tests/python/readme.py NAME      prints a block, for a shell to run

So what the pages print is what the tests and .ci run.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "csrc/*.md")
    for page in ROOT.glob(pattern)
)
FENCE = re.compile(
    r"^(?:<!-- (run|shown): ([^\n]+?)(?: as ([\w.]+))? -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(
    r"(?:python|pip|asv|pytest|cmake|ctest|promtool|curl|uvicorn|gunicorn|mkdocs|chrt|cd|apt-get|git|docker|kubectl|export)\s"
    r"|\.ci/\w+|[A-Z][A-Z_]+="
)


@dataclass(frozen=True)
class Fence:
    """A fenced block; `mark` is "run", "shown" or empty, `name` what stands behind it, `file` where it is kept."""

    page: str
    mark: str
    name: str
    file: str
    language: str
    text: str


def fences() -> list[Fence]:
    return [Fence(str(page.relative_to(ROOT)), *found) for page in PAGES for found in FENCE.findall(page.read_text())]


def blocks(language: str | None = None) -> dict[str, str]:
    """Name -> text of every block that is marked as run, or of those in one language."""
    return {f.name: f.text for f in fences() if f.mark == "run" and language in (None, f.language)}


def files(page: str) -> dict[str, str]:
    """File name -> text, of the blocks that a page wants to have kept."""
    return {f.file: f.text for f in fences() if f.page == page and f.file}


def commands() -> dict[str, str]:
    """Shell command -> the page that shows it: lines of blocks without their comments, and code within a line."""
    found = {}
    for fence in fences():
        if fence.language != "python" and fence.mark != "shown":
            lines = (re.sub(r"\s+# .*", "", line).strip() for line in fence.text.replace("\\\n", " ").splitlines())
            found.update({line: fence.page for line in lines if line})
    for page in PAGES:
        for code in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text())):
            if COMMAND.match(code):
                found[" ".join(code.split())] = str(page.relative_to(ROOT))
    return found


if __name__ == "__main__":
    print(blocks()[sys.argv[1]], end="")
