"""The innermost loops of GEMM keep what they multiply in registers: hardly a multiply-add reads the stack.

GCC 12 kept rows of B there in tiles of 4 x 3, 6 x 2 and 7 x 2, which then took up to twice as long. One read in sixteen
is not seen: 3 x 8, which needs a register more than there are, takes 0.77 of the time that it took without any.
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
def test_hardly_a_multiply_add_reads_the_stack(path: Path) -> None:
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
    tiles = [name for name in all_of if "::tile<" in name]
    assert len(tiles) > 10, f"{path} has no tiles"
    assert not [name for name in tiles if 16 * from_stack[name] > all_of[name]]
