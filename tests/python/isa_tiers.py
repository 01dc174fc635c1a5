"""What cmake/Isa.cmake has compiler flags for."""

import re
from pathlib import Path

ISA_CMAKE = (Path(__file__).parents[2] / "cmake" / "Isa.cmake").read_text()
#: Tiers and features, without the baseline, which has no flags of its own: avx2, avx512, vnni...
FLAGGED = tuple(re.findall(r"^ *set\(INFERKIT_ISA_FLAGS_(\w+)", ISA_CMAKE, re.MULTILINE))
