"""Random small graphs for the differential fuzzer. The seed decides everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Dim = int | str
KINDS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
FLOATS = ("float32", "float64")
BATCH = "N"
MAX_BOUND = 2048.0


@dataclass
class Val:
    """A value of the graph: no element's magnitude passes `bound`; an `exact` one has a single right answer."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    bound: float
    exact: bool

    @property
    def rest(self) -> tuple[int, ...]:
        return tuple(d for d in self.shape[1:] if isinstance(d, int))


class Generator:
    """`batched`: every value has a free first dimension and every operator treats rows alone."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.batched = bool(self.rng.random() < 0.5)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[Val] = []
        self.values: list[Val] = []
        self.constant_values: list[Val] = []
        self.count = 0

    # -- pieces ---------------------------------------------------------------------------------------------------
    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def name(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def dims(self, rank: int) -> tuple[int, ...]:
        sizes = [1, 2, 3, 4, 5, 8, 17]
        zero = not self.batched and self.chance(0.06)
        return tuple(0 if zero and self.chance(0.4) else int(self.pick(sizes)) for _ in range(rank))

    def data(self, dtype: str, shape: Sequence[int], scale: int = 2) -> Array:
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        whole = self.rng.integers(-4 * scale, 4 * scale + 1, shape)
        return (whole if dtype == "int64" else whole / 4).astype(dtype)

    def constant(self, array: Array) -> str:
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        bound = float(np.abs(array.astype(np.float64)).max(initial=0))
        if array.dtype.name in KINDS:
            self.constant_values.append(Val(name, array.dtype.name, tuple(array.shape), bound, True))
        return name

    def ints(self, *values: int) -> str:
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=self.name("n"), **attributes))
        return names

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        like: Val,
        shape: Sequence[Dim] | None = None,
        *,
        dtype: str | None = None,
        bound: float | None = None,
        exact: bool | None = None,
        **attributes: Any,
    ) -> Val:
        (name,) = self.node(op, inputs, **attributes)
        out = Val(
            name,
            dtype or like.dtype,
            tuple(like.shape if shape is None else shape),
            like.bound if bound is None else bound,
            like.exact if exact is None else exact,
        )
        self.values.append(out)
        return out

    def any(self, where: Callable[[Val], bool] = lambda v: True) -> Val | None:
        fitting = [v for v in self.values if where(v)]
        if not fitting:
            return None
        recent = fitting[-4:] if self.chance(0.6) else fitting
        found: Val = self.pick(recent)
        return found

    def float_value(self) -> Val | None:
        return self.any(lambda v: v.dtype in FLOATS)

    # -- operators ------------------------------------------------------------------------------------------------
    def unary(self) -> None:
        v = self.any()
        assert v is not None
        if v.dtype == "bool":
            self.emit("Not", [v.name], v)
        elif v.dtype == "int64":
            self.emit(self.pick(["Neg", "Abs", "Sign", "Identity"]), [v.name], v)
        else:
            op = self.pick(
                [
                    "Relu",
                    "Neg",
                    "Abs",
                    "Identity",
                    "Tanh",
                    "Sigmoid",
                    "Elu",
                    "LeakyRelu",
                    "HardSigmoid",
                    "HardSwish",
                    "Softplus",
                    "Floor",
                    "Ceil",
                    "Erf",
                    "Clip",
                    "Sqrt",
                    "Exp",
                    "Selu",
                ]
            )
            if op in ("Floor", "Ceil") and not v.exact:
                op = "Tanh"
            if op in ("HardSwish", "Erf", "HardSigmoid", "Selu") and v.dtype == "float64":
                op = "Relu"
            inputs = [v.name]
            if op == "Exp":
                inputs = [self.emit("Tanh", inputs, v, bound=1, exact=False).name]
            if op == "Sqrt":
                inputs = [self.emit("Abs", inputs, v).name]
            if op == "Clip":
                low = float(self.rng.integers(-3, 1))
                inputs += [self.constant(np.array(low, v.dtype)), self.constant(np.array(low + 2, v.dtype))]
            exact = v.exact and op in ("Relu", "Neg", "Abs", "Identity", "Floor", "Ceil", "Clip")
            self.emit(op, inputs, v, bound=v.bound + 3, exact=exact)

    def operand(self, v: Val) -> Val:
        """Something that broadcasts to v's shape, or v's own row count."""
        if self.chance(0.5):
            other = self.any(lambda o: o.dtype == v.dtype and self.joint(v, o) is not None)
            if other is not None:
                return other
        own = [d for d in (v.rest if self.batched else v.shape) if isinstance(d, int)]
        shape = [d if self.chance(0.7) else 1 for d in own][int(self.rng.integers(0, len(own) + 1)) :]
        self.constant(self.data(v.dtype, shape))
        return self.constant_values[-1]

    @staticmethod
    def joint(a: Val, b: Val) -> tuple[Dim, ...] | None:
        rank = max(len(a.shape), len(b.shape))
        x, y = (1,) * (rank - len(a.shape)) + a.shape, (1,) * (rank - len(b.shape)) + b.shape
        if BATCH in x[1:] or BATCH in y[1:]:
            return None
        out: list[Dim] = []
        for p, q in zip(x, y, strict=True):
            if p != q and 1 not in (p, q):
                return None
            out.append(q if p == 1 else p)
        return tuple(out) if math.prod(d for d in out if isinstance(d, int)) <= 4096 else None

    def binary(self) -> None:
        v = self.any()
        assert v is not None
        o = self.operand(v)
        shape = self.joint(v, o)
        if shape is None or (self.batched and shape[:1] != (BATCH,)):
            return
        pair = [v, o] if self.chance(0.5) else [o, v]
        names = [p.name for p in pair]
        exact = v.exact and o.exact
        if v.dtype == "bool":
            self.emit(self.pick(["And", "Or", "Xor"]), names, v, shape)
            return
        op = self.pick(
            ["Add", "Sub", "Mul", "Min", "Max", "Add", "Mul", "Less", "Greater", "Equal", "Div", "Pow", "Where"]
        )
        if op in ("Less", "Greater", "Equal"):
            if exact:
                self.emit(op, names, v, shape, dtype="bool", bound=1, exact=True)
        elif op == "Where":
            condition = self.any(
                lambda c: c.dtype == "bool" and self.joint(c, Val("", v.dtype, shape, 1, True)) == shape
            )
            if condition is not None:
                self.emit(op, [condition.name, *names], v, shape, bound=max(v.bound, o.bound), exact=exact)
        elif op == "Div":
            if v.dtype in FLOATS:
                size = self.emit("Abs", [pair[1].name], pair[1])
                more = self.emit("Add", [size.name, self.constant(np.array(1, v.dtype))], size, bound=size.bound + 1)
                if self.joint(pair[0], more) == shape:
                    self.emit(op, [pair[0].name, more.name], v, shape, bound=pair[0].bound, exact=False)
        elif op == "Pow":
            if v.dtype in FLOATS and v.bound < 32:
                self.emit(op, [v.name, self.constant(np.array(2, v.dtype))], v, bound=v.bound**2, exact=False)
        elif op == "Mul":
            if v.bound * o.bound <= MAX_BOUND:
                self.emit(op, names, v, shape, bound=v.bound * o.bound, exact=exact and v.bound * o.bound < 256)
        else:
            bound = v.bound + o.bound if op in ("Add", "Sub") else max(v.bound, o.bound)
            if bound <= MAX_BOUND:
                self.emit(op, names, v, shape, bound=bound, exact=exact)

    def cast(self) -> None:
        v = self.any()
        assert v is not None
        to = self.pick(list(KINDS))
        if v.dtype in FLOATS and to in ("int64", "bool") and not v.exact:
            return
        self.emit("Cast", [v.name], v, dtype=to, bound=1 if to == "bool" else v.bound, to=KINDS[to])

    def reshape(self) -> None:
        v = self.any(lambda v: 0 not in v.shape)
        if v is None or (self.batched and v.shape[:1] != (BATCH,)):
            return
        own = v.rest if self.batched else tuple(d for d in v.shape if isinstance(d, int))
        target: list[int] = []
        left = math.prod(own)
        while left > 1 and len(target) < 3:
            d = int(self.pick([d for d in range(1, left + 1) if left % d == 0]))
            target.append(d)
            left //= d
        target.append(left)
        written = list(target)
        if self.batched:
            written = [self.pick([0, -1]), *written]
        elif self.chance(0.4):
            written[int(self.rng.integers(len(written)))] = -1
        if self.batched and self.chance(0.4):  # as exporters write it
            (shape,) = self.node("Shape", [v.name])
            (rows,) = self.node("Gather", [shape, self.ints(0)], axis=0)
            (wanted,) = self.node("Concat", [rows, self.ints(*target)], axis=0)
        else:
            wanted = self.ints(*written)
        self.emit("Reshape", [v.name, wanted], v, (BATCH, *target) if self.batched else target)

    def move(self) -> None:
        v = self.any()
        assert v is not None
        lead = 1 if self.batched else 0
        if self.batched and v.shape[:1] != (BATCH,):
            return
        rank = len(v.shape)
        op = self.pick(["Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Transpose", "Tile", "Pad"])
        if op == "Transpose" and rank > 0:
            order = list(range(lead)) + [lead + int(i) for i in self.rng.permutation(rank - lead)]
            self.emit(op, [v.name], v, [v.shape[i] for i in order], perm=order)
        elif op == "Unsqueeze" and rank < 5:
            at = int(self.rng.integers(lead, rank + 1))
            self.emit(op, [v.name, self.ints(at)], v, [*v.shape[:at], 1, *v.shape[at:]])
        elif op == "Squeeze":
            ones = [i for i in range(lead, rank) if v.shape[i] == 1]
            if ones:
                at = self.pick(ones)
                self.emit(op, [v.name, self.ints(at)], v, [*v.shape[:at], *v.shape[at + 1 :]])
        elif op == "Flatten" and rank >= 1:
            rest = math.prod(d for d in v.shape[1:] if isinstance(d, int))
            self.emit(op, [v.name], v, [v.shape[0], rest], axis=1)
        elif op == "Expand" and rank < 5 and not self.batched:
            shape = tuple(d if d != 1 else int(self.pick([1, 2, 3])) for d in v.shape if isinstance(d, int))
            self.emit(op, [v.name, self.ints(*shape)], v, shape)
        elif op == "Tile" and rank > 0:
            repeats = [1] * lead + [int(self.pick([1, 1, 2])) for _ in range(rank - lead)]
            shape = [d * r if isinstance(d, int) else d for d, r in zip(v.shape, repeats, strict=True)]
            if math.prod(d for d in shape if isinstance(d, int)) <= 4096:
                self.emit(op, [v.name, self.ints(*repeats)], v, shape)
        elif op == "Pad" and rank > lead and v.dtype in FLOATS:
            before = [0] * lead + [int(self.pick([0, 1])) for _ in range(rank - lead)]
            after = [0] * lead + [int(self.pick([0, 0, 2])) for _ in range(rank - lead)]
            shape = [d + a + b if isinstance(d, int) else d for d, a, b in zip(v.shape, before, after, strict=True)]
            self.emit(op, [v.name, self.ints(*before, *after), self.constant(np.array(0.5, v.dtype))], v, shape)

    def select(self) -> None:
        lead = 1 if self.batched else 0
        v = self.any(lambda v: len(v.shape) > lead)
        if v is None or (self.batched and v.shape[:1] != (BATCH,)):
            return
        axis = int(self.rng.integers(lead, len(v.shape)))
        size = v.shape[axis]
        assert isinstance(size, int)
        op = self.pick(["Slice", "Gather", "Concat", "Split", "Concat"])
        rest = list(v.shape)
        if op == "Slice":
            step = int(self.pick([1, 1, 2, -1]))
            start, end = int(self.rng.integers(0, size + 1)), int(self.rng.integers(0, size + 1))
            if step < 0:
                start, end = size - 1, -size - 1
            rest[axis] = len(range(size)[slice(start, None if step < 0 else end, step)])
            if rest[axis] == 0 and self.batched:
                return
            ends = [self.ints(n) for n in (start, end, axis, step)]
            self.emit(op, [v.name, *ends], v, rest)
        elif op == "Gather" and size > 0:
            scalar = self.chance(0.3)
            indices = self.rng.integers(-size, size, () if scalar else (int(self.pick([1, 2, 3])),))
            self.emit(
                op,
                [v.name, self.constant(np.asarray(indices, np.int64))],
                v,
                rest[:axis] + list(indices.shape) + rest[axis + 1 :],
                axis=axis,
            )
        elif op == "Concat":
            parts = [v]
            for _ in range(int(self.pick([1, 2]))):
                other = self.any(
                    lambda o: (
                        o.dtype == v.dtype
                        and len(o.shape) == len(v.shape)
                        and all(a == b for i, (a, b) in enumerate(zip(o.shape, v.shape, strict=True)) if i != axis)
                    )
                )
                parts.append(v if other is None or self.chance(0.2) else other)
            total = sum(int(p.shape[axis]) for p in parts)
            if total <= 64:
                rest[axis] = total
                self.emit(
                    op,
                    [p.name for p in parts],
                    v,
                    rest,
                    bound=max(p.bound for p in parts),
                    exact=all(p.exact for p in parts),
                    axis=axis,
                )
        elif op == "Split" and size >= 2:
            first = int(self.rng.integers(1, size))
            names = self.node("Split", [v.name, self.ints(first, size - first)], 2, axis=axis)
            for name, d in zip(names, (first, size - first), strict=True):
                rest[axis] = d
                self.values.append(Val(name, v.dtype, tuple(rest), v.bound, v.exact))

    def linear(self) -> None:
        v = self.any(lambda v: v.dtype in FLOATS and len(v.shape) >= 1 and 0 not in v.shape and v.bound <= 64)
        if v is None or (self.batched and (len(v.shape) < 2 or v.shape[0] != BATCH)):
            return
        k, n = int(v.shape[-1]), int(self.pick([1, 2, 3, 8, 16, 17, 33]))
        w = self.data(v.dtype, (k, n), 1) / 2
        b = self.data(v.dtype, self.pick([(n,), (1,), (), (1, n)]))
        bound = v.bound * k + 4
        if len(v.shape) == 2 and self.chance(0.5):
            transposed = self.chance(0.5)
            names = [v.name, self.constant(w.T.copy() if transposed else w)]
            if self.chance(0.7):
                names.append(self.constant(b))
            out = self.emit("Gemm", names, v, [*v.shape[:-1], n], bound=bound, exact=False, transB=int(transposed))
        else:
            out = self.emit("MatMul", [v.name, self.constant(w)], v, [*v.shape[:-1], n], bound=bound, exact=False)
            if self.chance(0.6) and len(out.shape) >= len(b.shape):
                names = [out.name, self.constant(b)]
                out = self.emit("Add", names if self.chance(0.5) else names[::-1], out, bound=bound + 4)
        if self.chance(0.6):
            op = self.pick(["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu"])
            self.emit(op, [out.name], out)

    def matmul(self) -> None:
        v = self.any(lambda v: v.dtype in FLOATS and len(v.shape) >= 3 and 0 not in v.shape and v.bound <= 32)
        if v is None or (self.batched and v.shape[:1] != (BATCH,)):
            return
        order = [*range(len(v.shape) - 2), len(v.shape) - 1, len(v.shape) - 2]
        turned = self.emit("Transpose", [v.name], v, [v.shape[i] for i in order], perm=order)
        shape = (*v.shape[:-1], v.shape[-2])
        self.emit("MatMul", [v.name, turned.name], v, shape, bound=v.bound**2 * int(v.shape[-1]), exact=False)

    def conv(self) -> None:
        v = self.any(lambda v: v.dtype == "float32" and len(v.shape) == 4 and 0 not in v.shape and v.bound <= 64)
        if v is None or (self.batched and v.shape[:1] != (BATCH,)):
            return
        channels, h, w = (int(d) for d in v.shape[1:])
        group = self.pick([g for g in (1, channels) if channels % g == 0])
        out_channels = group * int(self.pick([1, 2, 3]))
        kernel = int(self.pick([1, 3]))
        pad = kernel // 2
        stride = int(self.pick([1, 1, 2]))
        weight = self.data("float32", (out_channels, channels // group, kernel, kernel), 1) / 2
        names = [v.name, self.constant(weight)]
        if self.chance(0.5):
            names.append(self.constant(self.data("float32", (out_channels,))))
        size = [(d + 2 * pad - kernel) // stride + 1 for d in (h, w)]
        out = self.emit(
            "Conv",
            names,
            v,
            [v.shape[0], out_channels, *size],
            bound=v.bound * channels * 9 + 2,
            exact=False,
            group=group,
            pads=[pad] * 4,
            strides=[stride] * 2,
            kernel_shape=[kernel] * 2,
        )
        if self.chance(0.6):
            out = self.norm(out)
        if self.chance(0.6):
            out = self.emit(self.pick(["Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu"]), [out.name], out)

    def norm(self, v: Val) -> Val:
        c = int(v.shape[1])
        spread = self.data(v.dtype, (c,)).astype(v.dtype) ** 2 + 0.5
        rows = [self.data(v.dtype, (c,)), self.data(v.dtype, (c,)), self.data(v.dtype, (c,)), spread]
        names = [self.constant(r.astype(v.dtype)) for r in rows]
        return self.emit("BatchNormalization", [v.name, *names], v, bound=(v.bound + 2) * 4, exact=False)

    def batch_norm(self) -> None:
        v = self.any(lambda v: v.dtype in FLOATS and len(v.shape) >= 2 and 0 not in v.shape and v.bound <= 256)
        if v is not None and (not self.batched or v.shape[0] == BATCH):
            self.norm(v)

    def pattern(self) -> None:
        v = self.any(lambda v: v.dtype == "float32" and 0 not in v.shape and v.bound <= 256)
        if v is None or len(v.shape) < (2 if self.batched else 1) or (self.batched and v.shape[0] != BATCH):
            return
        n = int(v.shape[-1])

        def f32(x: float) -> str:
            return self.constant(np.array(x, np.float32))

        kind = self.pick(["gelu", "silu", "norm", "layer_norm", "softmax", "reduce", "log_softmax"])
        if kind == "gelu":
            scaled = self.emit("Div", [v.name, f32(math.sqrt(2))], v, exact=False)
            erf = self.emit("Erf", [scaled.name], scaled, bound=1)
            one = self.emit("Add", [erf.name, f32(1)], erf, bound=2)
            product = self.emit("Mul", [v.name, one.name], v, bound=2 * v.bound, exact=False)
            self.emit("Mul", [product.name, f32(0.5)], product, bound=v.bound)
        elif kind == "silu":
            s = self.emit("Sigmoid", [v.name], v, bound=1, exact=False)
            self.emit("Mul", [v.name, s.name] if self.chance(0.5) else [s.name, v.name], v, exact=False)
        elif kind == "norm":
            one_wide = [*v.shape[:-1], 1]
            mean = self.emit("ReduceMean", [v.name], v, one_wide, exact=False, axes=[-1])
            d = self.emit("Sub", [v.name, mean.name], v, bound=2 * v.bound, exact=False)
            two = self.constant(np.array(2, np.float32))
            square = self.emit("Pow", [d.name, two], d, bound=d.bound**2)
            variance = self.emit("ReduceMean", [square.name], square, one_wide, axes=[-1])
            more = self.emit("Add", [variance.name, f32(0.25)], variance)
            root = self.emit("Sqrt", [more.name], more)
            out = self.emit("Div", [d.name, root.name], d, bound=8)
            width = self.pick([n, n, n, 1]) if n > 1 else int(self.pick([1, 3]))
            shape = [*v.shape[:-1], max(n, width)]
            if self.chance(0.8):
                out = self.emit("Mul", [out.name, self.constant(self.data("float32", (width,)))], out, shape, bound=16)
                if self.chance(0.8):
                    self.emit("Add", [out.name, self.constant(self.data("float32", (shape[-1],)))], out, bound=18)
        elif kind == "layer_norm":
            rows = [self.constant(self.data("float32", (n,))) for _ in range(2)]
            self.emit("LayerNormalization", [v.name, *rows], v, bound=16, exact=False, axis=-1, epsilon=0.25)
        elif kind in ("softmax", "log_softmax"):
            op = "Softmax" if kind == "softmax" else "LogSoftmax"
            self.emit(op, [v.name], v, exact=False, bound=2 * v.bound + 8, axis=-1)
        else:
            axis = int(self.rng.integers(1 if self.batched else 0, len(v.shape)))
            keep = self.chance(0.5)
            shape = [1 if i == axis else d for i, d in enumerate(v.shape) if keep or i != axis]
            op = self.pick(["ReduceMean", "ReduceMax", "ReduceMin", "ArgMax"])
            if op == "ArgMax":
                if v.exact:
                    self.emit(op, [v.name], v, shape, dtype="int64", bound=64, axis=axis, keepdims=int(keep))
            else:
                exact = v.exact and op != "ReduceMean"
                self.emit(op, [v.name], v, shape, exact=exact, axes=[axis], keepdims=int(keep))

    # -- the whole ------------------------------------------------------------------------------------------------
    def build(self) -> None:
        for i in range(int(self.pick([1, 1, 2, 3]))):
            dtype = self.pick(["float32", "float32", "float32", "float64", "int64", "bool"])
            rank = int(self.pick([1, 2, 3, 3] if self.batched else [0, 1, 2, 3, 4]))
            shape = (BATCH, *self.dims(rank)) if self.batched else self.dims(rank)
            self.inputs.append(Val(f"x{i}", dtype, shape, 1 if dtype == "bool" else 8, True))
        self.values += self.inputs
        steps = [
            self.unary,
            self.binary,
            self.cast,
            self.reshape,
            self.move,
            self.select,
            self.linear,
            self.matmul,
            self.conv,
            self.pattern,
            self.batch_norm,
            self.unary,
            self.binary,
            self.move,
            self.linear,
            self.pattern,
            self.conv,
        ]
        for _ in range(int(self.rng.integers(1, 16))):
            self.pick(steps)()

    def outputs(self) -> list[Val]:
        chosen: list[Val] = []
        pool = [*self.values[-6:], self.pick(self.values)]
        if self.chance(0.1) and self.constant_values:
            pool = [*pool, self.pick(self.constant_values)]
        for _ in range(int(self.pick([1, 1, 2, 3]))):
            v = self.pick(pool)
            if self.chance(0.15):
                v = self.emit("Identity", [v.name], v)
            if all(v.name != o.name for o in chosen):
                chosen.append(v)
        return chosen

    def model(self) -> tuple[bytes, list[Val]]:
        self.build()
        outputs = self.outputs()

        def port(v: Val) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(v.name, KINDS[v.dtype], list(v.shape))

        graph = helper.make_graph(
            self.nodes, "g", [port(v) for v in self.inputs], [port(v) for v in outputs], self.constants
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return made.SerializeToString(), outputs

    def feeds(self, batch: int) -> dict[str, Array]:
        return {v.name: self.data(v.dtype, [batch if d == BATCH else int(d) for d in v.shape]) for v in self.inputs}
