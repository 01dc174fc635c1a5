"""The innermost loops of GEMM keep what they multiply in registers: no multiply-add reads the stack.

GCC 12 kept rows of B there in tiles of 4 x 3, 6 x 2 and 7 x 2, which then took up to twice as long.
"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from kernel_objects import OBJECTS, cached

TILES = [
    path
    for path in OBJECTS
    if path.parent.name in ("gemm", "gemm64")
    and cached(path).get("CMAKE_BUILD_TYPE") == "Release"
    and path.name in ("avx2.cc.o", "avx512.cc.o")
]

pytestmark = pytest.mark.skipif(
    not TILES or not shutil.which("objdump"), reason="needs objdump and the objects of a release build"
)


@pytest.mark.parametrize("path", TILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_multiply_adds_read_no_stack(path: Path) -> None:
    listing = subprocess.run(
        ["objdump", "-dC", "--no-show-raw-insn", str(path)], check=True, capture_output=True, text=True
    ).stdout
    function = ""
    all_of: Counter[str] = Counter()
    from_stack: Counter[str] = Counter()
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line
        elif "vfmadd" in line:
            all_of[function] += 1
            from_stack[function] += bool(re.search(r"\(%r[sb]p[,)]", line))
    # Not those that read B through windows: some of them need one register more than there are.
    tiles = [name for name in all_of if "::tile<" in name]
    assert len(tiles) > 10, f"{path} has no tiles"
    assert not [name for name in tiles if from_stack[name]]
