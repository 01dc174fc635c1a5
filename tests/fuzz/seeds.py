"""Writes models for the fuzzers to start from: `python tests/fuzz/seeds.py FOLDER` (needs the onnx package).

One model of each operator and kind that the package's node tests have, the smaller first, none over 4 KB.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases("")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    for content, case in sorted(
        ((c.model.SerializeToString(), c) for c in cases if c.model.ByteSize() < 4096), key=lambda pair: len(pair[0])
    ):
        kind = " ".join(sorted({n.op_type for n in case.model.graph.node}))
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= 4:
            (folder / f"{case.name}.onnx").write_bytes(content)
    print(f"{len(list(folder.iterdir()))} seeds in {folder}")


if __name__ == "__main__":
    main()
