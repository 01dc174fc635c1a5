"""No inline code compiled for a tier, or a feature of one, may reach the linker under a name that other files share.

The linker keeps one copy of a weak symbol, from whichever file: a copy with AVX-512 in it crashes older machines.
Reads the objects of a CMake build: set INFERKIT_BUILD_DIR, or build below ``build/``.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_objects import OBJECTS

pytestmark = pytest.mark.skipif(
    not OBJECTS or not shutil.which("nm"), reason="needs nm and the objects of a build (INFERKIT_BUILD_DIR)"
)


@pytest.mark.parametrize("path", OBJECTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_tier_objects_define_nothing_shared(path: Path) -> None:
    tier = path.name.split(".")[0]
    out = subprocess.run(["nm", "--demangle", "--defined-only", str(path)], check=True, capture_output=True, text=True)
    defined = [line.split(maxsplit=2)[1:] for line in out.stdout.splitlines()]
    assert defined, f"{path} defines nothing"
    # Lower-case kinds are local to the file; u and upper case are seen by the linker, W and V merged by it.
    shared = [(kind, name) for kind, name in defined if kind in "uvw" or kind.isupper()]
    weak = [(kind, name) for kind, name in shared if kind in "uvwWV"]
    assert not weak, f"weak symbols in {path.name}: {weak}"
    foreign = [name for _, name in shared if not name.startswith(f"inferkit::kernels::{tier}::")]
    assert not foreign, f"{path.name} defines names outside its tier's namespace: {foreign}"
