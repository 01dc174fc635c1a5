"""The documentation site has every page and every public name; .ci/full builds it, with warnings as errors."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import inferkit

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Explained by other pages, or by themselves.
ELSEWHERE = {"__version__", "diagnose"}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"^ +- (?:.+: )?(\S+\.md)$", navigation, re.MULTILINE))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent.name != "decisions"}
    outside = set(re.findall(r'^    "(\S+\.md)",$', (DOCS / "_site" / "hooks.py").read_text(), re.MULTILINE))
    assert listed == pages | outside | {"decisions/index.md"}
    assert all((ROOT / page).is_file() for page in outside)


def test_every_public_name_is_in_the_reference() -> None:
    shown = [
        name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"^::: inferkit\.(\w+)$", page.read_text(), re.MULTILINE)
    ]
    modules = {module.name for module in pkgutil.iter_modules(inferkit.__path__) if not module.name.startswith("_")}
    assert sorted(shown) == sorted((set(inferkit.__all__) - ELSEWHERE) | modules)
