"""Operators that move, select or generate elements: against numpy and the onnx package's own cases."""

from __future__ import annotations

import copy
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import op_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper
from op_cases import Array, Case

import inferkit

DTYPES = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64", "bool"]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=6)
RELAXED = settings(max_examples=40, deadline=None)


def numbered(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """Elements that tell where they came from."""
    x = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return (x % 2 if dtype == "bool" else x).astype(dtype)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


# Transpose and its kin.


@RELAXED
@given(data=st.data())
def test_transpose(data: st.DataObject) -> None:
    x = numbered(data.draw(SHAPES), data.draw(st.sampled_from(DTYPES)))
    perm = data.draw(st.permutations(range(x.ndim)))
    same(Case("Transpose", x, perm=perm).run()[0], x.transpose(perm))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((2, 128, 12, 32), (0, 2, 1, 3)),
        ((2, 12, 65, 33), (0, 1, 3, 2)),
        ((3, 7, 35, 41), (0, 2, 3, 1)),
        ((3, 35, 41, 7), (0, 3, 1, 2)),
        ((70, 90), (1, 0)),
        ((4, 1, 67), (2, 1, 0)),
        ((33, 1, 5, 1, 66), (4, 3, 2, 1, 0)),
        ((1, 1, 9), (2, 0, 1)),
    ],
)
def test_transpose_of_blocks(shape: tuple[int, ...], perm: tuple[int, ...], dtype: str) -> None:
    x = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    same(Case("Transpose", x, perm=perm).run()[0], x.transpose(perm))


@pytest.mark.parametrize("dtype", ["float32", "int32", "float64", "float16"])
def test_pairs_move_together(dtype: str) -> None:
    """Real and imaginary parts, at even and at odd places, forwards and backwards."""
    x = numbered((3, 37, 41, 2), dtype)
    for perm in ((0, 2, 1, 3), (2, 1, 0, 3), (1, 0, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)):
        same(Case("Transpose", x, perm=perm).run()[0], x.transpose(perm))
    y = numbered((5, 9, 7), dtype)
    for start, end, step in ((1, 3, 1), (2, 4, 1), (3, 1, -1), (0, 4, 2)):
        found = Case("Slice", y, ints(start), ints(end), ints(2), ints(step), constant=(1, 2, 3, 4)).run()[0]
        same(found, y[:, :, start:end:step])


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64", "int16"])
@pytest.mark.parametrize("lengths", [[1] * 8, [1] * 35, [2, 0, 1, 3, 1], [5] * 17 + [1], [300, 900, 1]])
def test_concat_of_short_parts(lengths: list[int], dtype: str) -> None:
    parts = [numbered((7, 211, n), dtype) + np.array(i, dtype) for i, n in enumerate(lengths)]
    same(Case("Concat", *parts, axis=2).run()[0], np.concatenate(parts, 2))


def test_transpose_of_much_uses_threads_and_keeps_bits() -> None:
    x = np.random.default_rng(1).standard_normal((5, 600, 700)).astype(np.float32)
    for threads in (1, 2, 4):
        same(Case("Transpose", x, perm=[0, 2, 1]).run(threads=threads)[0], x.transpose(0, 2, 1))
        same(Case("Transpose", x, perm=[1, 0, 2]).run(threads=threads)[0], x.transpose(1, 0, 2))


def test_transpose_defaults_and_refusals() -> None:
    x = numbered((2, 3, 4))
    same(Case("Transpose", x).run()[0], x.transpose())
    same(Case("Transpose", np.float32(3)).run()[0], np.float32(3))
    for perm in [[0, 1], [0, 0, 1], [0, 1, 3]]:
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(untyped(Case("Transpose", x, perm=perm)))


def untyped(case: Case) -> bytes:
    """For models that onnx's shape inference refuses itself."""
    model = onnx.load_from_string(case.bytes)
    for port in model.graph.output:
        port.type.tensor_type.elem_type = 1
    return model.SerializeToString()


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_depth_to_space(mode: str, dtype: str) -> None:
    n, c, h, w, b = 2, 3, 4, 5, 3
    x = numbered((n, c * b * b, h, w), dtype)
    if mode == "DCR":
        expected = x.reshape(n, b, b, c, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        expected = x.reshape(n, c, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    expected = expected.reshape(n, c, h * b, w * b)
    same(Case("DepthToSpace", x, opset=13, blocksize=b, mode=mode).run()[0], expected)
    # Each undoes the other.
    y = Case("SpaceToDepth", expected, opset=28, blocksize=b, mode=mode).run()[0]
    same(y, x)
    if mode == "DCR":
        same(Case("SpaceToDepth", expected, opset=13, blocksize=b).run()[0], x)


# Concat and Split.


@RELAXED
@given(data=st.data())
def test_concat_and_split(data: st.DataObject) -> None:
    shape = list(data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    dtype = data.draw(st.sampled_from(DTYPES))
    shape[axis] = sum(lengths)
    whole = numbered(tuple(shape), dtype)
    parts = np.split(whole, np.cumsum(lengths)[:-1], axis)
    same(Case("Concat", *parts, axis=axis).run()[0], whole)
    for opset in (13, 18):
        found = Case("Split", whole, ints(*lengths), outputs=len(lengths), opset=opset, constant=[1], axis=axis).run()
        for y, part in zip(found, parts, strict=True):
            same(y, part)
    if all(lengths):
        found = Case("Split", whole, outputs=len(lengths), opset=11, axis=axis, split=lengths).run()
        for y, part in zip(found, parts, strict=True):
            same(y, part)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_threads_share_of_a_concat_or_split(axis: int) -> None:
    """Few long rows, whose pieces are cut at odd places; some rows; and many short ones."""
    whole = numbered((2, 5, 70_001) if axis < 2 else (1100, 130, 7))
    lengths = [1, whole.shape[axis] - 1]
    parts = np.split(whole, [1], axis)
    same(Case("Concat", *parts, axis=axis).run(threads=2)[0], whole)
    split = Case("Split", whole, ints(*lengths), outputs=2, opset=13, constant=[1], axis=axis)
    for y, part in zip(split.run(threads=2), parts, strict=True):
        same(y, part)


def test_even_and_uneven_split() -> None:
    x = numbered((2, 10))
    for y, e in zip(Case("Split", x, outputs=5, opset=13, axis=1).run(), np.split(x, 5, 1), strict=True):
        same(y, e)
    found = Case("Split", x, outputs=4, opset=18, axis=1, num_outputs=4).run()
    assert [y.shape[1] for y in found] == [3, 3, 3, 1]
    same(np.concatenate(found, 1), x)
    for bad in [
        Case("Split", x, outputs=3, opset=13, axis=1),
        Case("Split", x, outputs=2, opset=11, axis=1, split=[3, 3]),
        Case("Split", x, outputs=3, opset=18, axis=1, num_outputs=4),
    ]:
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(untyped(bad))


def test_concat_refuses_what_does_not_fit() -> None:
    for other in [numbered((2, 4, 1)), numbered((3,)), numbered((2, 3), "float64")]:
        with pytest.raises(inferkit.ModelError):
            inferkit.Model.load(untyped(Case("Concat", numbered((2, 3)), other, axis=0)))


# Slice.


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_slice(data: st.DataObject) -> None:
    x = numbered(data.draw(SHAPES), data.draw(st.sampled_from(DTYPES)))
    axes = data.draw(st.lists(st.integers(0, x.ndim - 1), unique=True, min_size=1))
    starts, ends, steps = [], [], []
    expected = x
    for axis in axes:
        dim = x.shape[axis]
        step = data.draw(st.integers(-3, 3).filter(bool))
        start = data.draw(st.integers(-dim - 2, dim + 2))
        end = data.draw(st.one_of(st.integers(-dim - 2, dim + 2), st.sampled_from([2**63 - 1, -(2**63)])))
        if step < 0 and start < -dim:
            start = -dim  # ONNX starts at the first element here, where numpy gives nothing
        index: list[Any] = [slice(None)] * x.ndim
        index[axis] = slice(start, end, step)
        expected = expected[tuple(index)]
        starts.append(start)
        ends.append(end)
        steps.append(step)
    shift = data.draw(st.sampled_from([0, x.ndim]))
    names = [a - shift for a in axes]
    arguments = (ints(*starts), ints(*ends), ints(*names), ints(*steps))
    same(Case("Slice", x, *arguments, opset=13, constant=[1, 2, 3, 4]).run()[0], expected)
    if all(s == 1 for s in steps) and shift == 0:
        same(Case("Slice", x, opset=9, starts=starts, ends=ends, axes=axes).run()[0], expected)


def test_slice_without_axes_and_with_int32() -> None:
    x = numbered((4, 5, 6))
    same(Case("Slice", x, ints(1, 2), ints(3, 9), constant=[1, 2]).run()[0], x[1:3, 2:9])
    i32 = [np.array([v], np.int32) for v in (1, 100, -1, 2)]
    same(Case("Slice", x, *i32, constant=[1, 2, 3, 4]).run()[0], x[..., 1:100:2])
    same(Case("Slice", x, ints(1), ints(2)).run()[0], x[1:2])  # known in the run alone
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(untyped(Case("Slice", x, ints(0), ints(2), ints(0), ints(0), constant=[1, 2, 3, 4])))
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(untyped(Case("Slice", x, ints(0, 0), ints(2, 2), ints(0, -3), constant=[1, 2, 3])))


# Gather and scatter.


@RELAXED
@given(data=st.data())
def test_gather(data: st.DataObject) -> None:
    x = numbered(data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)), data.draw(st.sampled_from(DTYPES)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    dim = x.shape[axis]
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    kind = data.draw(st.sampled_from(["int32", "int64"]))
    indices = data.draw(hnp.arrays(kind, shape, elements=st.integers(-dim, dim - 1)))
    same(Case("Gather", x, indices, axis=axis).run()[0], np.take(x, indices, axis))
    if indices.ndim == x.ndim and indices.size:
        fits = indices[tuple(slice(0, d if i != axis % x.ndim else None) for i, d in enumerate(x.shape))]
        same(
            Case("GatherElements", x, fits, axis=axis).run()[0],
            np.take_along_axis(
                x[tuple(slice(0, d if i != axis % x.ndim else None) for i, d in enumerate(fits.shape))], fits, axis
            ),
        )


@pytest.mark.parametrize("op", ["Gather", "GatherElements"])
def test_indices_are_checked(op: str) -> None:
    x = numbered((3, 4))
    for index in (4, -5, 2**40):
        with pytest.raises(inferkit.InferenceError, match=f"index {index} is out of range for a dimension of 4"):
            Case(op, x, np.full((3, 2), index, np.int64), axis=1).run()
    with pytest.raises(inferkit.ModelError, match="int32 or int64"):
        inferkit.Model.load(untyped(Case(op, x, np.zeros((1, 1), np.float32))))


@pytest.mark.parametrize("batch_dims", [0, 1, 2])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_gather_nd(batch_dims: int, depth: int) -> None:
    rng = np.random.default_rng(3)
    x = numbered((2, 3, 4, 5))
    batch = x.shape[:batch_dims]
    indices = np.stack(
        [rng.integers(-x.shape[batch_dims + d], x.shape[batch_dims + d], (*batch, 6)) for d in range(depth)], -1
    ) if depth else np.zeros((*batch, 6, 0), np.int64)  # fmt: skip
    expected = np.empty((*batch, 6, *x.shape[batch_dims + depth :]), x.dtype)
    for place in np.ndindex(*batch, 6):
        expected[place] = x[place[:-1]][tuple(indices[place])]
    same(Case("GatherND", x, indices.astype(np.int64), opset=13, batch_dims=batch_dims).run()[0], expected)


REDUCTIONS = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": np.maximum,
    "min": np.minimum,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_elements(reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    for axis in (0, 1, -1):
        x = rng.integers(0, 4, (3, 5, 4)).astype(dtype)
        indices = rng.integers(-x.shape[axis], x.shape[axis], (2, 4, 3)).astype(np.int64)
        updates = rng.integers(0, 3, indices.shape).astype(dtype)
        expected = x.copy()
        for place in np.ndindex(indices.shape):  # in this order: repeated indices build on each other
            target = list(place)
            target[axis] = indices[place]
            expected[tuple(target)] = REDUCTIONS[reduction](expected[tuple(target)], updates[place])
        extra = {} if reduction == "none" else {"reduction": reduction}
        # Exporters write max and min before opset 18 defines them.
        for opset in (16, 17, 18):
            same(Case("ScatterElements", x, indices, updates, opset=opset, axis=axis, **extra).run()[0], expected)
        if reduction == "none":
            same(Case("Scatter", x, indices, updates, opset=10, axis=axis).run()[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_nd(depth: int, reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 4, (3, 4, 2)).astype(dtype)
    indices = np.stack([rng.integers(-n, n, (5,)) for n in x.shape[:depth]], -1).astype(np.int64)
    updates = rng.integers(0, 3, (5, *x.shape[depth:])).astype(dtype)
    expected = x.copy()
    for i, index in enumerate(indices):
        expected[tuple(index)] = REDUCTIONS[reduction](expected[tuple(index)], updates[i])
    extra = {} if reduction == "none" else {"reduction": reduction}
    for opset in (16, 17, 18):
        same(Case("ScatterND", x, indices, updates, opset=opset, **extra).run()[0], expected)
    with pytest.raises(inferkit.InferenceError, match="out of range"):
        Case("ScatterND", x, np.full_like(indices, 9), updates, opset=18).run()


def test_scatter_leaves_its_inputs_alone() -> None:
    x = numbered((4, 3))
    before = x.copy()
    Case("ScatterND", x, ints(1).reshape(1, 1), numbered((1, 3)), opset=16).run()
    same(x, before)
    # Data and updates are one value, or share its memory: it is overwritten only where it is not read any more.
    i = np.repeat(ints(1, 2, 3, 0)[:, None], 3, 1)
    for updates in ["a", "u"]:
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Neg", ["x"], ["a"]),
                onnx.helper.make_node("Reshape", ["a", "s"], ["u"]),
                onnx.helper.make_node("ScatterElements", ["a", "i", updates], ["b"], axis=0),
                onnx.helper.make_node("Neg", ["b"], ["y"]),
            ],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [4, 3]), onnx.helper.make_tensor_value_info("i", 7, [4, 3])],
            [onnx.helper.make_tensor_value_info("y", 1, [4, 3])],
            [numpy_helper.from_array(ints(4, 3), "s")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        y = inferkit.Model.load(model.SerializeToString()).run({"x": x, "i": i})["y"]
        same(y, np.roll(x, 1, 0))


def test_tensor_scatter() -> None:
    cache, update = numbered((2, 3, 8, 4)), -numbered((2, 3, 2, 4))
    for mode, starts in [("linear", (0, 6)), ("circular", (3, 7))]:
        expected = cache.copy()
        for b, start in enumerate(starts):
            for i in range(2):
                expected[b, :, (start + i) % 8] = update[b, :, i]
        same(Case("TensorScatter", cache, update, ints(*starts), opset=24, mode=mode).run()[0], expected)
    with pytest.raises(inferkit.InferenceError):
        Case("TensorScatter", cache, update, ints(0, 7), opset=24).run()


# Expand, Tile, Pad.


@RELAXED
@given(data=st.data())
def test_expand(data: st.DataObject) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=5))
    x = numbered(shapes.input_shapes[0], data.draw(st.sampled_from(DTYPES)))
    wish = shapes.input_shapes[1]
    expected = np.broadcast_to(x, np.broadcast_shapes(x.shape, wish))
    same(Case("Expand", x, np.array(wish, np.int64), constant=[1]).run()[0], expected)


@RELAXED
@given(data=st.data())
def test_tile(data: st.DataObject) -> None:
    x = numbered(data.draw(hnp.array_shapes(max_dims=5, min_side=0, max_side=4)), data.draw(st.sampled_from(DTYPES)))
    repeats = data.draw(st.lists(st.integers(0, 3), min_size=x.ndim, max_size=x.ndim))
    same(Case("Tile", x, ints(*repeats), constant=[1]).run()[0], np.tile(x, repeats))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pad(data: st.DataObject) -> None:
    x = numbered(data.draw(hnp.array_shapes(max_dims=4, max_side=5)), data.draw(st.sampled_from(DTYPES)))
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    pads = [(data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))) for _ in range(x.ndim)]
    used = data.draw(st.lists(st.integers(0, x.ndim - 1), unique=True, min_size=1))
    pads = [p if i in used else (0, 0) for i, p in enumerate(pads)]
    value = np.array(1, x.dtype)
    extra = {"constant_values": value} if mode == "constant" else {}
    expected = np.pad(x, pads, mode, **extra)
    flat = ints(*[b for b, _ in pads], *[a for _, a in pads])
    given_value = value if mode == "constant" else None
    constants = [1, 2] if mode == "constant" else [1]
    same(Case("Pad", x, flat, given_value, opset=19, constant=constants, mode=mode).run()[0], expected)
    axes = ints(*[a - x.ndim for a in used])
    flat = ints(*[pads[a][0] for a in used], *[pads[a][1] for a in used])
    same(Case("Pad", x, flat, given_value, axes, opset=19, constant=[1, 3], mode=mode).run()[0], expected)


@RELAXED
@given(data=st.data())
def test_pad_repeats_what_negative_pads_leave(data: st.DataObject) -> None:
    x = numbered(data.draw(hnp.array_shapes(max_dims=4, min_side=3, max_side=6)), data.draw(st.sampled_from(DTYPES)))
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    pads = [(data.draw(st.integers(-1, 9)), data.draw(st.integers(-1, 9))) for _ in range(x.ndim)]
    left = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pads, strict=True))]
    flat = ints(*[b for b, _ in pads], *[a for _, a in pads])
    expected = np.pad(left, [(max(b, 0), max(a, 0)) for b, a in pads], mode)  # type: ignore[call-overload]
    same(Case("Pad", x, flat, opset=19, constant=[1], mode=mode).run()[0], expected)


def test_negative_pads_and_old_opsets() -> None:
    x = numbered((4, 6))
    same(Case("Pad", x, ints(-1, 2, 0, -3), constant=[1]).run()[0], np.pad(x[1:, :3], ((0, 0), (2, 0))))
    for mode in ["constant", "reflect", "edge"]:
        e = np.pad(x, ((1, 2), (0, 3)), mode, **({"constant_values": 2.5} if mode == "constant" else {}))
        same(Case("Pad", x, opset=10, pads=[1, 0, 2, 3], mode=mode, value=2.5).run()[0], e)
    with pytest.raises(inferkit.UnsupportedOpError, match="wrap"):
        Case("Pad", x, ints(1, 1, 1, 1), opset=13, constant=[1], mode="wrap").load()
    # It came with opset 19, and torch.onnx.export writes it into models of opset 18.
    circular = Case("Pad", x, ints(1, 2, 0, 3), opset=18, constant=[1], mode="wrap")
    same(circular.run()[0], np.pad(x, ((1, 0), (2, 3)), "wrap"))
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(untyped(Case("Pad", x, ints(0, -4, 0, -4), constant=[1])))


# Generators.


def test_constant_of_shape() -> None:
    for value in [np.array([2.5], np.float32), np.array([7], np.int64), np.array([True]), np.array([3], np.uint8)]:
        case = Case("ConstantOfShape", ints(2, 0, 3), constant=[0], value=numpy_helper.from_array(value))
        same(case.run()[0], np.full((2, 0, 3), value[0]))
        case = Case("ConstantOfShape", ints(5, 3), constant=[0], value=numpy_helper.from_array(value))
        same(case.run()[0], np.full((5, 3), value[0]))
    same(Case("ConstantOfShape", np.zeros(0, np.int64), constant=[0]).run()[0], np.zeros((), np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "int64"])
@pytest.mark.parametrize("span", [(0, 10, 1), (3, 11, 3), (10, 4, -2), (5, 5, 1), (5, 0, 1), (-7, 8, 5)])
def test_range(span: tuple[int, int, int], dtype: str) -> None:
    start, limit, delta = (np.array(v, dtype) for v in span)
    same(Case("Range", start, limit, delta, constant=[0, 1, 2]).run()[0], np.arange(*span).astype(dtype))


def test_range_of_fractions() -> None:
    values = [np.array(v, np.float32) for v in (0.5, 2.05, 0.1)]
    (y,) = Case("Range", *values, constant=[0, 1, 2]).run()
    np.testing.assert_allclose(y, 0.5 + 0.1 * np.arange(16), rtol=1e-6)
    with pytest.raises(inferkit.ModelError, match="step of 0"):
        inferkit.Model.load(untyped(Case("Range", *ints(0, 1, 0).reshape(3, 1).squeeze(1), constant=[0, 1, 2])))


@pytest.mark.parametrize("k", [-9, -2, 0, 1, 3, 9])
def test_eye_like_and_trilu(k: int) -> None:
    x = numbered((4, 6), "float64") + 1
    same(Case("EyeLike", x, k=k).run()[0], np.eye(4, 6, k))
    same(Case("EyeLike", x, k=k, dtype=7).run()[0], np.eye(4, 6, k, np.int64))
    batch = numbered((2, 3, 4, 6)) + 1
    for constant in [(), (1,)]:
        for upper, f in [(1, np.triu), (0, np.tril)]:
            case = Case("Trilu", batch, np.array(k, np.int64), constant=constant, upper=upper)
            same(case.run()[0], f(batch, k))
    same(Case("Trilu", batch).run()[0], np.triu(batch))


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64))]
)
@pytest.mark.parametrize("k", [None, -9, -1, 0, 2, 9])
@pytest.mark.parametrize("upper", [None, 0, 1])
def test_trilu_of_onnxruntime_s_own_domain(dtype: str, k: int | None, upper: int | None) -> None:
    x = (numbered((2, 3, 5)) + 1).astype(dtype)
    options = {} if upper is None else {"upper": upper}
    case = Case("Trilu", x, None if k is None else np.array(k, np.int64), domain="com.microsoft", **options)
    case.bytes = case.bytes_with_output(dtype, x.shape)
    same(case.run()[0], (np.tril if upper == 0 else np.triu)(x, k or 0))


def test_own_trilu_as_onnxruntime_has_it() -> None:
    for upper in (0, 1):
        x = numbered((2, 3, 5)) + 1
        case = Case("Trilu", x, np.array(1, np.int64), domain="com.microsoft", upper=upper)
        case.bytes = case.bytes_with_output("float32", x.shape)
        same(case.run()[0], case.onnxruntime()[0])


@pytest.mark.parametrize("axis", [-4, -1, 0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bool", "int8", "uint64", "object"])
@pytest.mark.parametrize("constant", [(), (1,)])
def test_expand_dims(axis: int, dtype: str, constant: tuple[int, ...]) -> None:
    x = numbered((2, 3, 5)).astype(str).astype(object) if dtype == "object" else numbered((2, 3, 5)).astype(dtype)
    case = Case("ExpandDims", x, np.array(axis, np.int32), domain="com.microsoft", constant=constant)
    expected = np.expand_dims(x, axis)
    case.bytes = case.bytes_with_output(dtype, expected.shape)
    found = case.run()[0]
    assert found.tolist() == expected.tolist()
    assert found.dtype == expected.dtype
    if dtype == "float32":
        same(found, case.onnxruntime()[0])


@pytest.mark.parametrize("axis", [-5, 4])
def test_expand_dims_out_of_range(axis: int) -> None:
    case = Case("ExpandDims", numbered((2, 3, 5)), np.array(axis, np.int32), domain="com.microsoft", constant=[1])
    with pytest.raises(inferkit.ModelError, match=r"node 'n' \(com.microsoft.ExpandDims.*out of range"):
        inferkit.Model.load(case.bytes_with_output("float32", (1,)))


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize("dtype", ["int64", "int32", "float32"])
def test_one_hot(axis: int, dtype: str) -> None:
    indices = np.array([[0, 1, -1], [4, 5, -6]]).astype(dtype)  # 5 and -6 are out of range: nothing is set
    values = np.array([2, 9], np.float32)
    (y,) = Case("OneHot", indices, np.array(5, np.int64), values, constant=[1], axis=axis).run()
    expected = np.where(np.arange(5) == indices[..., None] % 5, 9, 2).astype(np.float32)
    expected[1, 1:] = 2
    same(y, np.moveaxis(expected, -1, axis))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "float16"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumulative(axis: int, dtype: str) -> None:
    x = (np.random.default_rng(6).integers(1, 4, (3, 4, 5))).astype(dtype)
    for op, f, opset in [("CumSum", np.cumsum, 14), ("CumProd", np.cumprod, 26)]:
        for exclusive in (0, 1):
            for reverse in (0, 1):
                e = np.flip(x, axis) if reverse else x
                e = f(e, axis=axis, dtype=x.dtype)
                if exclusive:
                    e = np.roll(e, 1, axis)
                    e[tuple(0 if i == axis % 3 else slice(None) for i in range(3))] = op == "CumProd"
                e = np.flip(e, axis) if reverse else e
                case = Case(
                    op, x, np.array(axis, np.int64), opset=opset, constant=[1], exclusive=exclusive, reverse=reverse
                )
                same(case.run()[0], e.astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint64", "float16"])
@pytest.mark.parametrize("width", [1, 31, 32, 33, 48, 71, 255, 256, 257, 600])
def test_cumulative_down_columns(width: int, dtype: str) -> None:
    x = np.random.default_rng(width).integers(0, 9, (2, 7, width)).astype(dtype)
    x[:, 2, 0] = -0.0
    for exclusive in (0, 1):
        for reverse in (0, 1):
            options: dict[str, Any] = {"opset": 14, "constant": [1], "exclusive": exclusive, "reverse": reverse}
            found = Case("CumSum", x, np.array(1, np.int64), **options).run()[0]
            turned = Case("CumSum", x.transpose(0, 2, 1).copy(), np.array(2, np.int64), **options).run()[0]
            assert found.transpose(0, 2, 1).tobytes() == turned.tobytes()
            e = np.cumsum(x[:, ::-1] if reverse else x, axis=1, dtype=dtype)
            if exclusive:
                e = np.concatenate([np.zeros_like(e[:, :1]), e[:, :-1]], axis=1)
            same(found, e[:, ::-1] if reverse else e)


def test_a_sum_down_columns_begins_with_its_first_element() -> None:
    x = np.full((3, 40), -0.0, np.float32)
    x[2] = np.nan
    found = Case("CumSum", x, np.array(0, np.int64), opset=14, constant=[1]).run()[0]
    assert np.signbit(found[:2]).all()
    assert np.isnan(found[2]).all()


def test_reverse_sequence() -> None:
    x = numbered((4, 3, 2))
    lengths = ints(1, 4, 0)
    expected = x.copy()
    for b, n in enumerate(lengths):
        expected[:n, b] = x[:n, b][::-1]
    same(Case("ReverseSequence", x, lengths, batch_axis=1, time_axis=0).run()[0], expected)
    y = Case("ReverseSequence", x.swapaxes(0, 1).copy(), lengths, batch_axis=0, time_axis=1).run()[0]
    same(y, expected.swapaxes(0, 1))
    with pytest.raises(inferkit.InferenceError, match="sequence length of 5"):
        Case("ReverseSequence", x, ints(1, 5, 0), batch_axis=1, time_axis=0).run()


def test_what_depends_on_data() -> None:
    x = numbered((3, 4))
    pick = np.array([True, False, True])
    same(Case("Compress", x, pick, constant=[1], axis=0).run()[0], x[pick])
    same(Case("Compress", x, pick, constant=[1]).run()[0], x.ravel()[[0, 2]])
    same(Case("NonZero", x % 2, constant=[0]).run()[0], np.array(np.nonzero(x % 2), np.int64))
    same(Case("Compress", x, pick, axis=0).run()[0], x[pick])
    same(Case("NonZero", x % 2).run()[0], np.array(np.nonzero(x % 2), np.int64))
    same(Case("Range", *(np.array(v) for v in (0, 7, 3))).run()[0], np.arange(0, 7, 3))


# ArgMax, ArgMin, TopK.


@RELAXED
@given(data=st.data())
def test_arg(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16", "int32", "int64", "uint8"]))
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=5))
    x = data.draw(hnp.arrays(dtype, shape, elements=st.sampled_from([0, 1, 2, 3])))
    if dtype.startswith("float") and data.draw(st.booleans()):
        x.ravel()[data.draw(st.integers(0, x.size - 1))] = np.nan
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    keep, last = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))
    for op, f in [("ArgMax", np.argmax), ("ArgMin", np.argmin)]:
        e = x.shape[axis] - 1 - f(np.flip(x, axis), axis=axis) if last else f(x, axis=axis)
        e = np.expand_dims(e, axis) if keep else np.asarray(e)
        case = Case(op, x, opset=13, axis=axis, keepdims=keep, select_last_index=last)
        same(case.run()[0], e.astype(np.int64))


@pytest.mark.parametrize("axis", [0, 1])
def test_arg_of_long_rows(axis: int) -> None:
    x = np.random.default_rng(7).standard_normal((200, 300)).astype(np.float32)
    same(Case("ArgMax", x, opset=13, axis=axis, keepdims=0).run()[0], x.argmax(axis))
    same(Case("ArgMin", x, opset=13, axis=axis, keepdims=0).run()[0], x.argmin(axis))
    x[:] = np.nan
    same(Case("ArgMax", x, opset=13, axis=axis, keepdims=0).run()[0], x.argmax(axis))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint64", "int32", "uint8", "int8", "float32"])
@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 1000, 2048])
def test_arg_of_a_row_of_any_type(n: int, dtype: str) -> None:
    """Of few values, so that equals lie in different blocks; of rising and falling ones; and of NaN."""
    rng = np.random.default_rng(n)
    rows = [rng.integers(0, high, n) for high in (1, 2, 100)] + [np.arange(n) % 128, np.arange(n)[::-1] % 128]
    x = np.stack(rows).astype(dtype)
    if dtype.startswith("float"):
        lines = np.repeat(x[2:3], 3, 0)
        lines[0, n // 2 :] = np.nan
        lines[1, -1] = np.nan
        lines[2, ::2] = -0.0
        x = np.concatenate([x, lines, np.full((1, n), np.inf, dtype), np.full((1, n), -np.inf, dtype)])
    elif dtype != "uint8":
        x[1, n // 2] = np.iinfo(dtype).max
        x[2, n // 3] = np.iinfo(dtype).min
    for op, f in [("ArgMax", np.argmax), ("ArgMin", np.argmin)]:
        for last in (0, 1):
            e = n - 1 - f(x[:, ::-1], axis=1) if last else f(x, axis=1)
            same(Case(op, x, opset=13, axis=1, keepdims=0, select_last_index=last).run()[0], e)


@RELAXED
@given(data=st.data())
def test_top_k(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16", "int32", "int64", "uint8"]))
    x = data.draw(
        hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=6), elements=st.sampled_from([0, 1, 2, 3, 7]))
    )
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    k = data.draw(st.integers(0, x.shape[axis]))
    largest = data.draw(st.integers(0, 1))
    order = np.argsort(-x.astype(np.float64) if largest else x.astype(np.float64), axis, kind="stable")
    order = np.take(order, np.arange(k), axis)
    values, indices = Case("TopK", x, ints(k), outputs=2, opset=11, constant=[1], axis=axis, largest=largest).run()
    same(indices, order)
    same(values, np.take_along_axis(x, order, axis))


@pytest.mark.parametrize(("n", "k"), [(100, 40), (1000, 500), (3000, 1000), (8192, 6000), (8192, 6200), (8193, 3000)])
@pytest.mark.parametrize("high", [3, 1000])
def test_top_k_of_many(n: int, k: int, high: int) -> None:
    x = np.random.default_rng(n).integers(0, high, (2, n)).astype(np.float32)
    x[1, ::7] = np.nan
    for largest in (0, 1):
        with np.errstate(invalid="ignore"):
            keys = np.where(np.isnan(x), np.inf, x) * (-1 if largest else 1)
        order = np.argsort(keys, 1, kind="stable")[:, :k]
        case = Case("TopK", x, ints(k), outputs=2, opset=11, constant=[1], axis=1, largest=largest)
        values, indices = case.run()
        same(indices, order)
        same(values, np.take_along_axis(x, order, 1))


@pytest.mark.parametrize("k", [1, 15, 16, 17, 100, 300])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_of_long_rows(k: int, largest: int) -> None:
    for axis in (0, 1):
        x = np.random.default_rng(k).integers(0, 50, (300, 300)).astype(np.float32)
        order = np.argsort(-x if largest else x, axis, kind="stable").take(np.arange(k), axis)
        case = Case("TopK", x, ints(k), outputs=2, opset=11, constant=[1], axis=axis, largest=largest)
        values, indices = case.run()
        same(indices, order)
        same(values, np.take_along_axis(x, order, axis))


def test_top_k_ranks_nan_highest_and_refuses() -> None:
    x = np.array([1, np.nan, 3, np.inf, np.nan, -np.inf], np.float32)
    _, indices = Case("TopK", x, ints(4), outputs=2, opset=11, constant=[1]).run()
    assert indices.tolist() == [1, 4, 3, 2]
    _, indices = Case("TopK", x, ints(5), outputs=2, opset=11, constant=[1], largest=0).run()
    assert indices.tolist() == [5, 0, 2, 3, 1]
    for count in (30, 50):
        _, indices = Case("TopK", np.tile(x, 10), ints(count), outputs=2, opset=11, constant=[1]).run()
        nan, inf = np.arange(1, 60, 3), np.arange(3, 60, 6)
        assert indices[:30].tolist() == [*nan, *inf]
    _, indices = Case("TopK", x, outputs=2, opset=9, k=2).run()
    assert indices.tolist() == [1, 4]
    with pytest.raises(inferkit.ModelError, match="K is 7"):
        inferkit.Model.load(untyped(Case("TopK", x, ints(7), outputs=2, opset=11, constant=[1])))


def test_bfloat16_moves() -> None:
    x = numbered((3, 4)).astype(ml_dtypes.bfloat16)
    same(Case("Transpose", x).run()[0], x.T)
    same(Case("Gather", x, ints(2, 0)).run()[0], x[[2, 0]])
    same(Case("ArgMax", x, opset=13, axis=1, keepdims=0).run()[0], np.full(3, 3, np.int64))


@pytest.mark.parametrize(
    ("op", "extra"), [("Transpose", {"perm": [0, 2, 1]}), ("ArgMax", {"axis": 2}), ("Gather", {"axis": 1})]
)
def test_rows_do_not_depend_on_the_batch(op: str, extra: dict[str, Any]) -> None:
    x = np.random.default_rng(8).standard_normal((9, 11, 13)).astype(np.float32)
    inputs = (x, ints(3, -1, 0)) if op == "Gather" else (x,)
    model = Case(op, *inputs, opset=13, constant=[1] if op == "Gather" else (), free_batch=True, **extra).load()
    whole = model.run({"x0": x})["y0"]
    for i in range(9):
        same(model.run({"x0": x[i : i + 1]})["y0"], whole[i : i + 1])


# The onnx package's own cases; those that leave shapes to inputs run with these inputs as constants.

#: which inputs stay inputs
FED = {"Range": (), "ConstantOfShape": (), "NonZero": (), "Pad": (0, 2), "OneHot": (0, 2)}
NODE_OPS = [
    "ArgMax", "ArgMin", "Compress", "Concat", "ConstantOfShape", "CumProd", "CumSum", "DepthToSpace", "Expand",
    "EyeLike", "Gather", "GatherElements", "GatherND", "NonZero", "OneHot", "Pad", "Range", "ReverseSequence",
    "Scatter", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "TensorScatter", "Tile", "TopK",
    "Transpose", "Trilu",
]  # fmt: skip


def with_constants(case: Any, fed: tuple[int, ...]) -> Any:
    case = copy.deepcopy(case)
    graph = case.model.graph
    inputs, outputs = case.data_sets[0]
    ports = [onnx.ValueInfoProto.FromString(p.SerializeToString()) for p in graph.input]
    for i, port in enumerate(ports):
        if i not in fed:
            x = inputs[i]
            tensor = x if isinstance(x, onnx.TensorProto) else numpy_helper.from_array(np.asarray(x))
            constant = graph.initializer.add()
            constant.CopyFrom(tensor)
            constant.name = port.name
    del graph.input[:]
    graph.input.extend(p for i, p in enumerate(ports) if i in fed)
    case.data_sets = [([x for i, x in enumerate(inputs) if i in fed], outputs)]
    return case


@pytest.mark.parametrize("op", NODE_OPS)
def test_onnx_node_cases(op: str) -> None:
    cases = op_cases.node_test_cases(op)
    assert cases
    for case in cases:
        try:
            op_cases.check_node_test(case)
            continue
        except pytest.skip.Exception as skipped:
            refused = str(skipped)
        assert "during a run" in refused, case.name
        op_cases.check_node_test(with_constants(case, FED.get(op, (0,))))
