"""One-node models for the tests of operators: inferkit, ONNX Runtime and onnx's reference evaluator side by side."""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import inferkit

Array = np.ndarray[Any, Any]
LENIENT = inferkit.InputChecks(finite=False, non_empty=False)
#: On x86 without VNNI, ONNX Runtime adds two products of unsigned and signed bytes in 16 bits, where they saturate.
PEER_SATURATES = platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text()


def weights_of(rng: np.random.Generator, kind: str, *shape: int) -> Array:
    """Bytes for the second factor of products: signed ones of seven bits where ONNX Runtime's products saturate."""
    info = np.iinfo(kind)
    x: Array = rng.integers(info.min, info.max + 1, shape).astype(kind)
    return x // 2 if PEER_SATURATES and kind == "int8" else x


class Case:
    """An operator with its inputs; `None` leaves an input out, and `constant` names those that are initializers."""

    def __init__(
        self,
        op: str,
        *inputs: Array | None,
        outputs: int = 1,
        opset: int = 17,
        constant: Sequence[int] = (),
        free_batch: bool = False,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        self.inputs = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in constant}
        names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
        self.outputs = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, names, self.outputs, name="n", domain=domain, **attributes)

        def port(name: str, x: Array) -> onnx.ValueInfoProto:
            shape: list[int | str] = list(x.shape)
            if free_batch and name == "x0":
                shape[0] = "batch"
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), shape)

        graph = helper.make_graph(
            [node],
            "case",
            [port(name, x) for name, x in self.inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            [numpy_helper.from_array(inputs[i], f"x{i}") for i in constant if inputs[i] is not None],
        )
        imports = [helper.make_opsetid("", opset)]
        if domain:
            imports.append(helper.make_opsetid(domain, 1))
        self.bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()

    def load(self, **options: Any) -> inferkit.Model:
        return inferkit.Model.load(self.with_output_types(), input_checks=LENIENT, **options)

    def with_output_types(self) -> bytes:
        """Graph outputs need a type: it comes from onnx's own shape inference."""
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(self.bytes), data_prop=True)
        return model.SerializeToString()

    def bytes_with_output(self, dtype: str, shape: Sequence[int]) -> bytes:
        """With a type for the first output as given, for models that onnx's inference refuses."""
        model = onnx.load_from_string(self.bytes)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info(self.outputs[0], kind, shape))
        return model.SerializeToString()

    def run(self, **options: Any) -> list[Array]:
        found = self.load(**options).run(dict(self.inputs))
        return [found[name] for name in self.outputs]

    def onnxruntime(self) -> list[Array]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.with_output_types(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(y) for y in session.run(None, dict(self.inputs))]

    def reference(self) -> list[Array]:
        from onnx.reference import ReferenceEvaluator

        return [
            np.asarray(y) for y in ReferenceEvaluator(onnx.load_from_string(self.bytes)).run(None, dict(self.inputs))
        ]


def close(found: Array, expected: Array, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol)


#: (rtol, atol) of one rounding to a type, with room for the type's own arithmetic.
TOLERANCE = {"float16": (2e-3, 2e-3), "float32": (2e-5, 2e-6), "float64": (1e-12, 1e-12)}


@functools.cache
def _all_node_tests() -> list[Any]:
    import warnings

    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collect_testcases(None)


def node_test_cases(*ops: str) -> list[Any]:
    """The onnx package's own tests of single nodes of these operators."""
    return [c for c in _all_node_tests() if len(c.model.graph.node) == 1 and c.model.graph.node[0].op_type in ops]


def check_node_test(case: Any) -> None:
    """Runs one of node_test_cases; being refused as unsupported is an answer too, a wrong result is not."""
    import pytest

    from conformance.scope import told

    def array(value: Any) -> Array:
        return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)

    graph = onnx.ModelProto.FromString(case.model.SerializeToString()).graph
    try:
        for inputs, outputs in case.data_sets:
            values = {port.name: array(x) for port, x in zip(graph.input, inputs, strict=True)}
            found = inferkit.Model.load(case.model.SerializeToString(), input_checks=LENIENT).run(values)
            for port, expected in zip(graph.output, outputs, strict=True):
                y, e = found[port.name], array(expected)
                assert y.dtype == e.dtype
                if e.dtype == object:
                    assert y.tolist() == e.tolist()
                    continue
                # Two roundings to bfloat16, as onnx's own runner allows.
                least = 2**-6 if e.dtype.name == "bfloat16" else 1e-4
                assert y.shape == e.shape
                mask = told(case.model, values, e)
                close(y[mask], e[mask], max(case.rtol, least), max(case.atol, 1e-5))
    except inferkit.UnsupportedOpError as error:
        pytest.skip(str(error))
