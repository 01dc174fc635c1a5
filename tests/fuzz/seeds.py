"""Writes models for the fuzzers to start from: `python tests/fuzz/seeds.py FOLDER` (needs the onnx package).

A few models of each set of operators and types that the package's node tests have, the smaller first, none over 4 KB.
Each also with its small inputs of integers as constants, where it has some: shapes, axes, indices and trip counts must
make sense for a run to get anywhere. And those of fused_seeds.py and written_seeds.py.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import fused_seeds
import numpy as np
import written_seeds

LARGEST = 4096  # bytes
MODELS_OF_A_KIND = 3  # of the same operators and types
LARGEST_CONSTANT = 64  # elements


def with_constants(case: Any) -> bytes | None:
    """The case's model with its integers as initializers; None where it has none."""
    import onnx

    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for port, value in zip(case.model.graph.input, case.data_sets[0][0], strict=False):
        if not isinstance(value, np.ndarray | np.generic) or not port.name:
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "iub" or array.size > LARGEST_CONSTANT:
            continue
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, port.name))
        model.graph.input.remove(port)
    return model.SerializeToString() if len(model.graph.input) < len(case.model.graph.input) else None


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases("")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    small = [c for c in cases if c.model.ByteSize() < LARGEST]
    for case in sorted(small, key=lambda c: c.model.ByteSize()):
        ports = (*case.model.graph.input, *case.model.graph.output)
        types = {p.type.tensor_type.elem_type for p in ports}
        kind = " ".join(sorted({n.op_type for n in case.model.graph.node} | {str(t) for t in types}))
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] > MODELS_OF_A_KIND:
            continue
        (folder / f"{case.name}.onnx").write_bytes(case.model.SerializeToString())
        if constant := with_constants(case):
            (folder / f"{case.name}_constant.onnx").write_bytes(constant)
    for name, content in (*fused_seeds.models(), *written_seeds.models()):
        (folder / f"{name}.onnx").write_bytes(content)
    print(f"{len(list(folder.iterdir()))} seeds in {folder}")


if __name__ == "__main__":
    main()
