"""Floats of 8 and 4 bits and integers of 4 and 2: against ml_dtypes and onnx's reference evaluator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from op_cases import Array, Case

import inferkit

FLOATS = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn"]
INTEGERS = ["int4", "uint4", "int2", "uint2"]


def small(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name))


def code_of(name: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(small(name)))


def all_of(name: str) -> Array:
    bits = (
        ml_dtypes.finfo(small(name)).bits if name in [*FLOATS, "float8_e8m0fnu"] else ml_dtypes.iinfo(small(name)).bits
    )
    return np.arange(2**bits, dtype=np.uint8).view(small(name))


def same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(found.astype(np.float64)), np.signbit(expected.astype(np.float64)))


def cast(x: Array, to: int, **attributes: Any) -> Array:
    return Case("Cast", x, opset=25, to=to, **attributes).run()[0]


@pytest.mark.parametrize("name", [*FLOATS, "float8_e8m0fnu", *INTEGERS])
@pytest.mark.parametrize("to", ["float32", "float16", "float64", "bfloat16", "int32", "int8", "uint64", "bool"])
def test_every_value_widens(name: str, to: str) -> None:
    x = all_of(name)
    to_dtype = np.dtype(to) if to != "bfloat16" else small(to)
    wide = x.astype(np.float64)
    if to_dtype.kind in "iu":
        # What is open in ONNX, saturation, is the engine's own matter.
        x = x[(np.nan_to_num(wide, nan=-1) >= 0) & (wide < 128)]
    with np.errstate(over="ignore"):  # E8M0 has larger numbers than float16
        expected = x.astype(np.float32 if name in FLOATS else np.float64).astype(to_dtype)
    same(cast(x, helper.np_dtype_to_tensor_dtype(to_dtype)), expected)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", "int8"])
def test_rounds_as_ml_dtypes_does(name: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    largest = float(ml_dtypes.finfo(small(name)).max)
    drawn = rng.standard_normal(4000) * 2.0 ** rng.integers(-20, np.log2(largest), 4000)
    values = all_of(name).astype(np.float64)
    values = np.sort(values[np.isfinite(values)])
    drawn = np.concatenate([drawn, values, (values[1:] + values[:-1]) / 2, [0.0, -0.0]])  # and the ties
    x = np.clip(drawn, -largest, largest).astype(small(dtype) if dtype == "bfloat16" else dtype)
    if dtype == "float64":
        x = np.concatenate([x, np.nextafter((values[1:] + values[:-1]) / 2, np.inf)])  # would round twice by a float32
    # ml_dtypes goes through float32, which is right for all but float64 and large integers: those from nearest values.
    expected = nearest(x.astype(np.float64), values)
    found = cast(x, code_of(name))
    np.testing.assert_array_equal(found.astype(np.float64), expected)
    if dtype in ("float32", "float16"):
        same(found, x.astype(small(name)))


def nearest(x: Array, values: Array) -> Array:
    """The nearest of the sorted values; of two, the one with an even last bit, which is every other one from 0."""
    values = np.unique(values)
    high = np.clip(np.searchsorted(values, x), 1, len(values) - 1)
    low = high - 1
    zero = int(np.searchsorted(values, 0.0))
    to_low, to_high = x - values[low], values[high] - x
    choose_low = (to_low < to_high) | ((to_low == to_high) & ((low - zero) % 2 == 0))
    return np.where(choose_low, values[low], values[high])


@pytest.mark.parametrize("name", FLOATS[:4])
@pytest.mark.parametrize("saturate", [0, 1])
def test_what_is_too_large(name: str, saturate: int) -> None:
    info = ml_dtypes.finfo(small(name))
    x = np.array([1e6, -1e6, np.inf, -np.inf, np.nan, float(info.max) * 1.01], np.float32)
    found = cast(x, code_of(name), saturate=saturate)
    expected = np.clip(x, float(info.min), float(info.max)).astype(small(name)) if saturate else x.astype(small(name))
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


def test_float4_has_no_infinity_and_no_nan() -> None:
    x = np.array([np.inf, -np.inf, 100, np.nan], np.float32)
    assert cast(x, code_of("float4_e2m1fn")).astype(np.float32).tolist() == [6.0, -6.0, 6.0, 0.0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("up", [128, 128, 129, 0, 254, 255]),
        ("down", [127, 127, 128, 0, 254, 255]),
        ("nearest", [127, 128, 128, 0, 254, 255]),
    ],
)
def test_powers_of_two(mode: str, expected: list[int]) -> None:
    x = np.array([1.25, 1.5, 2.125, 0, np.inf, np.nan], np.float32)
    found = cast(x, TensorProto.FLOAT8E8M0, round_mode=mode)
    assert found.view(np.uint8).tolist() == expected
    with pytest.raises(inferkit.ModelError, match="round_mode is 'sideways'"):
        cast(x, TensorProto.FLOAT8E8M0, round_mode="sideways")


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "float32", "float16", "bool"])
def test_to_small_integers(name: str, dtype: str) -> None:
    x = np.arange(-40, 40).astype(dtype)
    same(cast(x, code_of(name)), x.astype(np.int32).astype(small(name)))


@pytest.mark.parametrize("name", [*FLOATS[:4], *INTEGERS])
def test_between_small_types(name: str) -> None:
    for other in ["float8_e5m2", "int4"]:
        x = all_of("uint2") if name != "uint2" else all_of("int2")
        there = cast(x, code_of(name))
        same(
            cast(there, code_of(other)),
            there.astype(np.float32).astype(np.int32).astype(np.float32).astype(small(other)),
        )


def test_high_bits_do_not_matter() -> None:
    x = np.array([0xF7, 0x18], np.uint8).view(ml_dtypes.int4)
    assert cast(x, TensorProto.INT32).tolist() == [7, -8]


@pytest.mark.parametrize("name", [*FLOATS[:4], *INTEGERS, "float4_e2m1fn"])
@pytest.mark.parametrize("raw", [True, False])
def test_packed_initializers(name: str, raw: bool) -> None:
    """Of 7 elements: the last byte of a packed type is not full."""
    x = np.resize(all_of(name)[1:6], (7,))
    if raw:
        tensor = numpy_helper.from_array(x, "w")
    else:
        tensor = helper.make_tensor("w", code_of(name), [7], x.astype(np.float32))
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT), helper.make_node("Mul", ["x", "w32"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [7])],
        [tensor],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]).SerializeToString()
    model = inferkit.Model.load(data)
    assert model(np.ones(7, np.float32)).tolist() == x.astype(np.float32).tolist()
    weights = model.weights
    assert weights is not None
    assert weights.dtype("w") == name
    same(np.asarray(weights["w"]), x)
    for change in (b"", tensor.raw_data[:-1], tensor.raw_data + b"\0"):
        broken = onnx.load_from_string(data)
        broken.graph.initializer[0].ClearField("int32_data")
        broken.graph.initializer[0].raw_data = change
        with pytest.raises(inferkit.ModelError, match="'w'"):
            inferkit.Model.load(broken.SerializeToString())


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantize_and_dequantize(name: str, axis: int | None) -> None:
    x = (3 * np.random.default_rng(1).standard_normal((5, 6))).astype(np.float32)
    size = [] if axis is None else [x.shape[axis]]
    scale = np.random.default_rng(2).uniform(0.1, 0.5, size).astype(np.float32)
    zero = np.ones(size, np.int32).astype(small(name)) if name in INTEGERS else np.zeros(size, small(name))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    case = Case("QuantizeLinear", x, scale, zero, opset=25, **attributes)
    (quantized,) = case.run()
    same(quantized, case.reference()[0])
    back = Case("DequantizeLinear", quantized, scale, zero, opset=25, **attributes)
    np.testing.assert_allclose(back.run()[0], back.reference()[0], rtol=1e-6)


def test_blocks_of_four_bits() -> None:
    """As weight-only quantisation writes them: a scale for every 16 rows."""
    rng = np.random.default_rng(5)
    w = rng.integers(-8, 8, (64, 8)).astype(ml_dtypes.int4)
    scale = rng.uniform(0.01, 0.1, (4, 8)).astype(np.float32)
    (found,) = Case("DequantizeLinear", w, scale, opset=21, constant=(0, 1), axis=0, block_size=16).run()
    np.testing.assert_array_equal(found, w.astype(np.float32) * scale.repeat(16, 0))


def test_scales_that_are_powers_of_two() -> None:
    x = np.array([-6, 0.5, 3, 1], np.float32).astype(ml_dtypes.float4_e2m1fn)
    scale = np.array([0.25, 8], np.float32).astype(ml_dtypes.float8_e8m0fnu)
    case = Case("DequantizeLinear", x, scale, opset=28, axis=0, block_size=2, output_dtype=TensorProto.FLOAT)
    model = inferkit.Model.load(case.bytes_with_output("float32", [4]))
    (found,) = model.run({"x0": x, "x1": scale}).values()
    assert found.tolist() == [-1.5, 0.125, 24, 8]


def test_movement_keeps_the_bytes() -> None:
    x = all_of("float8_e4m3fn").reshape(16, 16)
    (found,) = Case("Transpose", x, opset=25, perm=[1, 0]).run()
    assert found.view(np.uint8).tolist() == x.T.view(np.uint8).tolist()


def test_arithmetic_is_refused() -> None:
    x = all_of("int4")
    for op in ("Add", "Mul", "Less"):
        case = Case(op, x, x, opset=25)
        data = case.bytes_with_output("bool" if op == "Less" else "uint8", [16])
        with pytest.raises((inferkit.UnsupportedOpError, inferkit.ModelError), match=op):
            inferkit.Model.load(data)


@pytest.mark.parametrize("name", [*FLOATS[:4], "float8_e8m0fnu"])
def test_nan_and_infinity_are_refused(name: str) -> None:
    """By default inputs must be finite, at every value of the type, contiguous or not."""
    case = Case("Identity", np.zeros(2, small(name)), opset=25, free_batch=True)
    model = inferkit.Model.load(case.with_output_types())
    values = all_of(name)
    for pair in (values.reshape(-1, 2)[:, 0], values.reshape(-1, 2)[:, 1]):
        for value in pair:
            x = np.zeros(2, small(name))
            x[1] = value
            if np.isfinite(value.astype(np.float32)):
                same(model(x), x)
                continue
            for given in (x, np.repeat(x, 3)[::3]):
                with pytest.raises(inferkit.ValidationError, match=r"NaN or infinity at index \(1,\)") as caught:
                    model(given)
                assert caught.value.reason == "non_finite"


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "TopK", "Resize"])
def test_what_lacks_a_type_says_so_at_load(op: str) -> None:
    """Although its shape hangs on a value that only a run has."""
    x = all_of("int4").reshape(1, 1, 4, 4)
    if op == "Resize":
        case = Case(op, x, None, np.ones(4, np.float32), opset=21, mode="linear")
    else:
        case = Case(op, x, np.ones(1, np.int64), opset=21, outputs=2 if op == "TopK" else 1)
    with pytest.raises(inferkit.UnsupportedOpError, match="input 0 of type int4"):
        inferkit.Model.load(case.bytes_with_output("float32", [1]))


def test_the_doctor_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    case = Case("Cast", np.zeros((2, 3), small("int4")), opset=25, free_batch=True, to=TensorProto.FLOAT)
    path.write_bytes(case.with_output_types())
    command = [sys.executable, "-m", "inferkit", "doctor", str(path), "--json", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = [check["name"] for check in json.loads(done.stdout)["checks"] if check["status"] == "fail"]
    assert not [name for name in failed if "y0" in name or "answered" in name], done.stdout


def test_safetensors(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\x7e\x01")
    weights = inferkit.Weights.open(tmp_path / "w.safetensors")
    assert weights.dtype("w") == "float8_e4m3fn"
    assert weights["w"].astype(np.float32).tolist() == [448.0, 2.0**-9]


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None
import inferkit, numpy
y = inferkit.Model.load(sys.argv[1])(numpy.array([1, -1], numpy.float32))
assert y.dtype == numpy.uint8 and y.tolist() == [1, 15], y
"""


def test_without_ml_dtypes_the_bits_come(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    case = Case("Cast", np.zeros(2, np.float32), opset=25, to=TensorProto.INT4)
    path.write_bytes(case.with_output_types())
    subprocess.run([sys.executable, "-c", WITHOUT, str(path)], check=True)
