"""The objects of the kernels' tiers in a CMake build: that of INFERKIT_BUILD_DIR, or those below ``build/``."""

import os
from pathlib import Path

from isa_tiers import FLAGGED

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("INFERKIT_BUILD_DIR", ROOT / "build"))


def cached(path: Path) -> dict[str, str]:
    """Settings of the build that an object is of."""
    caches = (parent / "CMakeCache.txt" for parent in path.parents)
    text = next((cache.read_text() for cache in caches if cache.is_file()), "")
    pairs = (line.partition("=") for line in text.splitlines() if line[:1].isalpha())
    return {name.partition(":")[0]: value for name, _, value in pairs}


def sanitized(path: Path) -> bool:
    """Sanitizers add names of their own."""
    return bool(cached(path).get("INFERKIT_SANITIZE"))


OBJECTS = [
    path
    for path in sorted(BUILD.glob("**/kernels/cpu/*/*.cc.o"))
    if path.name.removesuffix(".cc.o") in FLAGGED and not sanitized(path)
]
