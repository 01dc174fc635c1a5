"""What mkdocs is told about pages that lie outside docs/, and about links that are written for the repository.

Every page reads well in the repository: its links lead to files. In the site, a link to a file that is a page leads to
that page, and a link to another file of the repository becomes the file's name. A link to a file that is not there
stays as it is, so that the strict build fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "HACKING.md",
    "benchmarks/README.md",
    "csrc/README.md",
    "examples/README.md",
)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
DECISIONS = "decisions/index.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and a list of the decisions."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    lines = ["# Design decisions", "", "Why things are as they are, where it is not obvious.", ""]
    for path in sorted((DOCS / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{re.sub(r'^[0-9]+[.:] *', '', title)}]({path.name})")
    files.append(File.generated(config, DECISIONS, content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:  # noqa: ARG001  mkdocs names them
    """Turn links to files of the repository into links to pages."""
    if page.file.src_uri == DECISIONS:
        return markdown
    here = Path(page.file.abs_src_path or "").parent
    pages = {Path(file.abs_src_path).resolve(): file.src_uri for file in files if file.abs_src_path}
    pages[ROOT / "README.md"] = "index.md"

    def link(found: re.Match[str]) -> str:
        image, text, path, anchor = found[1], found[2], found[3], found[4] or ""
        target = (here / path).resolve()
        if target == DOCS / "decisions":
            target = DOCS / "decisions" / "index.md"
            pages[target] = DECISIONS
        if target in pages:
            up = "../" * page.file.src_uri.count("/")
            return f"{image}[{text}]({up}{pages[target]}{anchor})"
        if target.exists() and not image and ROOT in target.parents:
            return text if "`" in text else f"{text} (`{target.relative_to(ROOT)}`)"
        return found[0]

    return LINK.sub(link, markdown)
