"""What the extension shows to the process it is loaded into, and what it takes from the C++ library.

Other modules bring their own copies of the same templates, and of the library itself: one name shared with them, and
one copy's code works on the other's data. Reads the file that is imported, whichever toolchain built it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferkit import _core

FILE = Path(_core.__file__)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")

LOCAL, UNDEFINED = 0, 0
DEFAULT, PROTECTED = 0, 3
DYNSYM = 11


@dataclass(frozen=True)
class Symbol:
    name: str
    binding: int
    visibility: int
    section: int

    @property
    def exported(self) -> bool:
        return self.section != UNDEFINED and self.binding != LOCAL and self.visibility in (DEFAULT, PROTECTED)


def dynamic_symbols(elf: bytes) -> list[Symbol]:
    """The dynamic symbol table of a 64-bit ELF file, as the loader sees it."""
    assert elf[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    order = "<" if elf[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", elf, 0x28)
    size, count = struct.unpack_from(f"{order}HH", elf, 0x3A)

    def section(index: int) -> tuple[Any, ...]:  # name, type, flags, address, offset, size, link
        return struct.unpack_from(f"{order}IIQQQQI", elf, table + index * size)

    symbols = []
    for index in range(count):
        _, kind, _, _, offset, length, link = section(index)
        if kind != DYNSYM:
            continue
        names = section(link)[4]
        for at in range(offset + 24, offset + length, 24):  # the first is a blank
            name, info, other, where = struct.unpack_from(f"{order}IBBH", elf, at)
            end = elf.index(b"\0", names + name)
            symbols.append(Symbol(elf[names + name : end].decode(), info >> 4, other & 3, where))
    return symbols


def test_exports_its_entry_point_alone() -> None:
    symbols = dynamic_symbols(FILE.read_bytes())
    assert any(s.section == UNDEFINED and s.name == "PyErr_SetString" for s in symbols), "the table was not read"
    assert [s.name for s in symbols if s.exported] == ["PyInit__core"]


@pytest.mark.parametrize(
    "name", [b"St8ios_base", b"St9basic_ios", b"St13basic_ostream", b"St13basic_istream", b"St6locale"]
)
def test_has_no_iostreams(name: bytes) -> None:
    """Neither from the C++ library nor of its own: the names of functions hold these, and so do those of types."""
    assert name not in FILE.read_bytes()


def test_unwinds_by_the_process_s_own_library() -> None:
    """A thread that Python ends is unwound by it, and a second copy does not know the state of the first."""
    assert "_Unwind_Resume" in [s.name for s in dynamic_symbols(FILE.read_bytes()) if s.section == UNDEFINED]


def test_other_extensions_are_read_alike() -> None:
    from numpy.random import _generator

    names = [s.name for s in dynamic_symbols(Path(_generator.__file__).read_bytes()) if s.exported]
    assert "PyInit__generator" in names


@pytest.mark.parametrize("first", ["numpy", "inferkit", "onnxruntime", "ml_dtypes", "sklearn"])
def test_imports_in_any_order(first: str, fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(f"""
try:
    import {first}
except ImportError:
    pass
import numpy, inferkit
double = inferkit.Model.from_callable(
    lambda x: x * 2, inputs=[("x", "float32", (None,))], outputs=[("y", "float32", (None,))])
try:
    inferkit.Model.load(b"none")
except inferkit.ModelError as error:
    print(double(numpy.ones(3, numpy.float32)).tolist())
""")
    assert (done.returncode, done.stdout) == (0, "[2.0, 2.0, 2.0]\n"), done.stderr
