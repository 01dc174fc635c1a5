"""Models: load a file or wrap a callable, call it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arguments import dimensions, flag, integer, mapping, path_text, sequence
from ._errors import ModelError
from ._initialised import says_if_not_initialised
from ._log import log
from ._source import ModelSource, is_like_a_path, model_source
from ._text import printable
from ._types import (
    GivenChecks,
    InputChecks,
    MemoryUse,
    Metadata,
    TensorSpec,
    checks_by_name,
    given_checks,
    numpy_dtype,
    refuse_sequences,
    refuse_unknown,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._explain import Explanation
    from ._precision import PrecisionReport

__all__ = ["Model"]

_SpecLike = TensorSpec | tuple[str, str, Sequence[int | None]]


def _spec(value: _SpecLike) -> TensorSpec:
    try:
        name, dtype, shape = (value.name, value.dtype, value.shape) if isinstance(value, TensorSpec) else value
        sizes = tuple(sequence(shape, "the shape", "a sequence of integers and None"))
    except (TypeError, ValueError):
        raise TypeError(f"an input or output is a TensorSpec or (name, dtype, shape), got {value!r}") from None
    try:
        found = None if dtype is None else np.dtype(dtype)  # numpy takes None for float64
    except (TypeError, ValueError, SyntaxError):  # of its own small language
        found = None
    if found is None and isinstance(dtype, str):
        return TensorSpec(name, dtype, sizes)  # the core knows some that numpy lacks, and judges
    if found is None:
        raise TypeError(f"the dtype of {name!r} must be one of numpy's, or its name, got {dtype!r}")
    if found.kind in "OUT":  # of any width, or none
        return TensorSpec(name, "string", sizes)
    return TensorSpec(name, str(found), sizes)


def _zeros(spec: TensorSpec, shape: list[int]) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype)
    try:
        return np.full(shape, "0", dtype) if spec.dtype == "string" else np.zeros(shape, dtype)
    except ValueError:  # numpy counts its bytes in 64 bits
        raise ValueError(f"input '{spec.name}' of shape {shape} would be larger than any memory") from None


def _names(outputs: Iterable[str]) -> list[str]:
    names = sequence(outputs, "outputs", "an iterable of the outputs' names, or None")
    if not names:
        raise ValueError("outputs must name one output at least, or be None for all")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"outputs must hold names, which are str, got {type(name).__name__}")
    return names


def _place(path: str | os.PathLike[str] | None, name: str) -> str | None:
    """Take a path, as it is wherever the process is that opens it again."""
    if path is None:
        return None
    text = path_text(path, name)
    if not text:
        raise ValueError(f"{name} must not be an empty path")
    return os.path.abspath(text)


def _is_of(value: Any, library: str, kind: str) -> bool:
    try:
        return isinstance(value, attrgetter(kind)(sys.modules[library]))
    except (KeyError, AttributeError):  # it is not imported, or not to its end
        return False


def _device_name(device: Any) -> Any:
    """Take a device of CuPy's or torch's by its name; the core judges what is neither."""
    if _is_of(device, "torch", "device"):
        return str(device)
    if _is_of(device, "cupy", "cuda.Device"):
        return f"cuda:{int(device.id)}"
    return device


def _made_again(cls: type[Model], how: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Model:
    made: Model = getattr(cls, how)(*arguments, **options)
    return made


def _ports(specs: Iterable[_SpecLike], name: str) -> list[tuple[str, str, list[int | None]]]:
    what = "an iterable of TensorSpec or (name, dtype, shape)"
    return [_spec(spec)._as_tuple() for spec in sequence(specs, name, what)]


@says_if_not_initialised
class Model(_core.Model):
    """A model that runs in this process.

    Make one with :meth:`Model.load` or :meth:`Model.from_callable`. It never changes, and many threads may call it at
    once. The GIL is released for runs that are long enough to be worth it. On the main thread, loading and such runs
    let signal handlers run about every 50 ms; if one raises (Ctrl-C does), the call ends with its exception.

    Call it as ``model(x)`` or ``model(a, b)``, with one array for each input, in order. It returns one array, or a
    tuple of arrays if the model has several outputs. An input is either a batch, or a single row without the batch
    axis; the number of dimensions tells which. The answer to a single row has no batch axis either.

    Arrays may be numpy arrays, or anything with ``__dlpack__`` (torch), ``__array__`` (pandas) or the buffer protocol.
    They need not be contiguous, and must have the input's dtype. Python's own numbers, and lists of them, are converted
    to that dtype where their kind is its kind: ints to integers that hold them or to floats, floats to floats, bools to
    bools. That takes about 30 us for a list of 1,000 numbers, as long as many models run: pass arrays where it matters.
    A model on a CUDA device takes arrays that lie there, too: of CuPy, of torch, or of whatever has ``__dlpack__`` or
    the CUDA array interface. Then its answers lie there as well, and are arrays of the same library, or of
    :class:`inferkit.cuda.DeviceArray`. Such arrays must be row-major and gapless. The call waits for the stream that
    they are computed in, and returns when the answers are complete.
    Inputs of strings take arrays of ``numpy.str_`` or of ``str`` objects, lists of ``str``, and objects with
    ``__array__``; answers of strings are arrays of objects. Bools mean what they mean to numpy: a byte that is not 0 is
    true. If another thread changes an array during the call, the answer is computed from a mixture of old and new
    values, or the call raises an error; nothing worse happens.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> double = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 3))], outputs=[("y", "float32", (None, 3))])
    >>> double(np.ones((2, 3), np.float32)).tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    >>> double(np.ones(3, np.float32)).tolist()
    [2.0, 2.0, 2.0]
    """

    __slots__ = ("_origin", "_specs")
    _specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
    _origin: tuple[str, tuple[Any, ...], dict[str, Any]] | None  # the classmethod that made it, and its arguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or "checks" not in kwargs:
            raise TypeError("Model is made by Model.load(path) or Model.from_callable(fn, inputs=..., outputs=...)")
        checks: GivenChecks = kwargs.pop("checks")
        super().__init__(**kwargs)
        self._origin = None
        self._specs = (
            tuple(TensorSpec(*port) for port in self._inputs),
            tuple(TensorSpec(*port) for port in self._outputs),
        )
        given = checks_by_name(checks, (*self.inputs, *self.optional_inputs))
        if given:
            default = InputChecks()
            all_specs = (self.inputs, self.optional_inputs)
            self._set_checks(*([given.get(spec.name, default)._native() for spec in specs] for specs in all_specs))

    @classmethod
    def load(
        cls,
        model: ModelSource,
        *,
        threads: int | None = None,
        max_plans: int = 64,
        max_run_bytes: int | None = None,
        max_iterations: int = 1_000_000,
        outputs: Iterable[str] | None = None,
        mmap: bool = True,
        packed: str | os.PathLike[str] | None = None,
        packed_cache: str | os.PathLike[str] | None = None,
        input_checks: InputChecks | Mapping[str, InputChecks] | None = None,
        device: Any = "cpu",
        fallback: str | None = None,
        precision: str = "float32",
    ) -> Self:
        """Load an ONNX model.

        The file is mapped: large weights are read in place, and shared with every process that maps the same file,
        unless they lie at addresses that do not fit their elements; :meth:`memory` tells how many are shared.
        Everything that is not supported is found here, before the first request.

        The file must stay as it is while the model exists. To replace it, rename a new file over it: the model keeps
        the old one. If the file is rewritten or cut short instead, every call that reads it, or that needs a new shape
        compiled, fails with a ModelError. No call gives a wrong answer or ends the process. One kind of writer is not
        noticed: a process that has the file mapped for writing (``numpy.memmap``). Use ``mmap=False`` for such files.

        Parameters
        ----------
        model : path, bytes-like, binary file or onnx.ModelProto
            The path of an ``.onnx`` file, or its content: bytes or an object with the buffer protocol, a file that is
            open for reading in binary mode (it is read from its current position), or a message of the ``onnx``
            package. External data must lie in the folder of the file, or in the folder of the file to which the path
            leads through symbolic links; content cannot have any. Only a file that is given by its path is mapped and
            shared with other processes; a pickled model has the path, and opens it again. Content is kept, and pickled
            whole. Bytes are always content; if you have a path as bytes, :func:`os.fsdecode` makes a str of it.
        threads : int, optional
            The most threads that one call may use; by default, and for 0, as many as the process has CPUs, and never
            more. The bits of the result do not depend on it, and small runs stay on the calling thread. CPUs are
            counted when the first model is loaded. If the process gets fewer afterwards (``os.sched_setaffinity``),
            models that are loaded from then on use fewer threads, and those loaded before keep theirs: load them again.
        max_plans : int
            How many input shapes stay compiled. The one that was used least recently is dropped first.
        max_run_bytes : int, optional
            The memory, in bytes, that one run may take besides its inputs. A request that would take more is refused,
            and so is a file of which every request would. By default 4 GiB, or half of what the process may use if
            that is less.
        max_iterations : int
            How many iterations the loops of one run (``Loop``, ``Scan``; nested ones included) may make together. A
            run that needs more fails with an InferenceError.
        outputs : iterable of str, optional
            The names of the outputs that you want, in the order in which you want them; by default all, in the order
            of the file. What only the other outputs need is neither checked nor computed. The inputs stay the same.
        mmap : bool
            False copies all weights into memory of this process and closes the file. Use it for files that others
            rewrite in place.
        packed : path, optional
            A file that :meth:`save_packed` wrote for this model. Weights are then not packed but read from it, where
            they are shared with every process that does the same. All of it is checked first; a file that does not fit
            is an error.
        packed_cache : path, optional
            A folder for such files, which is made where it is missing. The file of this model is used where it fits,
            and written where there is none; whether it was is told by :attr:`packed_file`, and by the logger
            ``inferkit.model``. Not together with `packed`.
        input_checks : InputChecks or mapping of str to InputChecks, optional
            What is checked of inputs besides dtype and shape, for all of them or by their names; by default that they
            are finite and not empty, except where the model gives such values a meaning (see :class:`InputChecks`).
        device : str, torch.device or cupy.cuda.Device
            Where the model runs: ``"cpu"``, ``"cuda"``, or ``"cuda:1"`` for another device than the first. Operators
            that CUDA lacks are named here, all at once, unless there is a `fallback`.
        fallback : str, optional
            ``"cpu"`` runs on the CPU what the device has no lowering for. Values go between the two memories, and each
            run waits for the device before a step of the CPU; :meth:`explain` shows the copies, and why a step falls
            back. The bits are the same in float32. Without it, such a model is refused. It says nothing of models on
            the CPU.
        precision : str
            ``"float32"``, or ``"bf16"`` for products of float32 (``MatMul``, ``Gemm``, ``Conv`` of more than
            one channel a group, attention, ``LSTM``, ``GRU``, ``RNN``) whose operands are rounded to bfloat16,
            which keeps 8 of 24 binary digits, and summed in float32. Their packed weights take half the
            memory. Processors with AMX run such products several times as fast, those with AVX512-BF16 about
            twice; others are no faster. All else stays in float32: softmax, normalisations,
            reductions and the operators that :meth:`explain` shows with another precision. An answer is as
            independent of its batch and of the number of threads as in float32. Its last digits are the same on
            all processors without AMX; the tiles of AMX add up in an order of their own.
            :meth:`compare_precision` tells what bf16 costs.

            On CUDA, ``"bf16"`` and ``"float16"`` (11 digits, and infinite beyond 65,504; CUDA alone has it) have
            tensor cores make the products of ``MatMul``, ``Gemm`` and ``Conv``, of which constant weights take half
            the memory there. How a tensor core adds up is its own affair: an answer does not depend on its batch,
            but its last digits are not those of the CPU.

        Raises
        ------
        DeviceError
            There is no such device, or it failed; the message says why.
        FileNotFoundError, PermissionError, OSError
            The file cannot be opened.
        ModelError
            The file is malformed, or changes while it is loaded; or `packed` is damaged, or is not for this model, this
            build of inferkit or this processor.
        UnsupportedOpError
            The model needs something that inferkit does not support; the message lists all of it.
        ValueError
            An argument is out of its range, or the model has no output with a name that `outputs` has, or no input
            with a name that `input_checks` has.

        Examples
        --------
        >>> import inferkit, onnx, tempfile
        >>> from onnx import helper
        >>> weights = helper.make_tensor("w", 1, (64, 96), [0.5] * (64 * 96))
        >>> ports = [helper.make_tensor_value_info(n, 1, ("n", d)) for n, d in (("x", 64), ("y", 96))]
        >>> node = helper.make_node("MatMul", ["x", "w"], ["y"])
        >>> graph = helper.make_graph([node], "layer", ports[:1], ports[1:], [weights])
        >>> content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = inferkit.Model.load(content, packed_cache=folder)
        ...     second = inferkit.Model.load(content, packed_cache=folder)
        ...     print(first.packed_file, second.memory().packed_shared_bytes)
        None 24576
        """
        wanted = None if outputs is None else _names(outputs)
        options = {
            "threads": threads,
            "max_plans": max_plans,
            "max_run_bytes": max_run_bytes,
            "max_iterations": max_iterations,
            "device": _device_name(device),
            "fallback": fallback,
            "precision": precision,
            "packed": _place(packed, "packed"),
            "packed_cache": _place(packed_cache, "packed_cache"),
        }
        checks = given_checks(input_checks)
        mmap = flag(mmap, "mmap")
        source = model_source(model)
        if isinstance(source, bytes):
            try:
                made = cls(data=source, outputs=wanted or [], checks=checks, **options)
            except ModelError as error:
                if not is_like_a_path(source):
                    raise
                raise ModelError(f"{error}; bytes are a model's content: if these are a path, give it as str") from None
        else:
            try:
                made = cls(path=source, outputs=wanted or [], mmap=mmap, checks=checks, **options)
            except ModelError as error:
                if hasattr(error, "add_note"):  # from Python 3.11 on; its message is shown beside other names of files
                    error.add_note(f"This happened while the model was loaded from {os.fspath(source)!r}.")
                raise
            source = os.path.abspath(source)  # wherever the process is that reopens it
        made._origin = ("load", (source,), {**options, "outputs": wanted, "mmap": mmap, "input_checks": checks})
        if packed_cache is not None:
            file, why = made._packed_use()
            fields = {"model": made.path, "file": file, "why": why}
            log("model", "packed anew" if why else "packed weights found", fields, "INFO" if why else "DEBUG")
        return made

    @classmethod
    def from_callable(
        cls,
        fn: Callable[..., Any],
        inputs: Iterable[_SpecLike],
        outputs: Iterable[_SpecLike],
        *,
        input_checks: InputChecks | Mapping[str, InputChecks] | None = None,
    ) -> Self:
        """Make a model of a Python function: of an ONNX Runtime session, a torch module, or anything else.

        Parameters
        ----------
        fn : callable
            Takes one numpy array for each input, by position. Returns one array, a sequence with one array for each
            output (a tuple, a list, any ``collections.abc.Sequence``), or a mapping by output name (any
            ``collections.abc.Mapping``; entries that are not outputs are ignored). It is called with the GIL held, on
            the caller's thread or on a worker of a batcher.
        inputs, outputs : iterable of TensorSpec or (name, dtype, shape)
            What it takes and returns. ``None`` in a shape marks a free dimension; the batch should be one.
        input_checks : InputChecks or mapping of str to InputChecks, optional
            As in :meth:`load`; a function gives no value a meaning.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     np.tanh, inputs=[("x", "float32", (None, 4))], outputs=[("y", "float32", (None, 4))])
        >>> model(np.zeros((1, 4), np.float32)).shape
        (1, 4)
        """
        if not callable(fn):
            raise TypeError(f"fn must be callable, got {type(fn).__name__}")
        ports = _ports(inputs, "inputs"), _ports(outputs, "outputs")
        checks = given_checks(input_checks)
        made = cls(callable=fn, inputs=ports[0], outputs=ports[1], checks=checks)
        made._origin = ("from_callable", (fn, *ports), {"input_checks": checks})
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what made it: a path, which is opened again, content, or a callable by its own way of pickling."""
        if self._origin is None:  # of a subclass with an __init__ of its own
            raise TypeError(f"cannot pickle '{type(self).__name__}' object: only load() and from_callable() make some")
        return _made_again, (type(self), *self._origin), getattr(self, "__dict__", None)

    def __copy__(self) -> Self:
        """Give the same: a model does not change."""
        _ = self._specs  # a model whose __init__ did not run says so
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Give the same, so that no weight is copied."""
        return self.__copy__()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the order in which the model takes them."""
        return self._specs[0]

    @property
    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs for which the file has a default: :meth:`run` takes them by name, other calls use the default.

        Each set of them that is given is compiled as a model of its own, once. For a :class:`Batcher`, see
        :meth:`with_inputs`.
        """
        return tuple(TensorSpec(*port) for port in self._defaults)

    def with_inputs(self, *names: str) -> Self:
        """Give the same model with some of :attr:`optional_inputs` among its :attr:`inputs`.

        It is for batchers: each request of a :class:`Batcher` of such a model may give these inputs, or leave them out
        for the default. An input whose shape the file fixes is one value for all rows of a batch: only requests with
        the same value share one. One whose first dimension is free is the batch's, as of any input, and must be given;
        so must one whose default is larger than 64 KiB or of strings.

        Parameters
        ----------
        *names : str
            Of :attr:`optional_inputs`.

        Returns
        -------
        Model
            Compiled by itself, once for each set of names; the model stays as it is.

        Raises
        ------
        ValueError
            The model has no optional input of that name.

        Examples
        --------
        >>> import inferkit, numpy as np, onnx
        >>> from onnx import helper
        >>> x, y = (helper.make_tensor_value_info(name, 1, ("n", 2)) for name in "xy")
        >>> scale, default = helper.make_tensor_value_info("scale", 1, ()), helper.make_tensor("scale", 1, (), [3])
        >>> node = helper.make_node("Mul", ["x", "scale"], ["y"])
        >>> graph = helper.make_graph([node], "scaled", [x, scale], [y], [default])
        >>> content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        >>> model = inferkit.Model.load(content).with_inputs("scale")
        >>> row = np.array([[1, 2]], np.float32)
        >>> with inferkit.Batcher(model) as batcher:
        ...     for request in {"x": row}, {"x": row, "scale": np.float32(10)}:
        ...         print(batcher(request)["y"])
        [[3. 6.]]
        [[10. 20.]]
        """
        optional = [spec.name for spec in self.optional_inputs]
        for name in names:
            if name not in optional:
                known = ", ".join(map(repr, optional)) or "none"
                raise ValueError(f"the model has no optional input {name!r}; it has {known}")
        if not names:
            return self
        if self._origin is None:  # of a subclass with an __init__ of its own
            raise TypeError(f"only models that load() made have other inputs, not '{type(self).__name__}'")
        how, arguments, options = self._origin
        checks = options["input_checks"]
        wanted = [name for name in optional if name in names]
        made = type(self)(of=self, names=wanted, checks=given_checks(checks))
        made._origin = ("_again_with", (how, arguments, options, names), {"input_checks": checks})
        return made

    @classmethod
    def _again_with(
        cls, how: str, arguments: tuple[Any, ...], options: dict[str, Any], names: tuple[str, ...], **_: Any
    ) -> Self:
        made: Self = getattr(cls, how)(*arguments, **options)
        return made.with_inputs(*names)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the order in which the model returns them."""
        return self._specs[1]

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run on inputs by name.

        Parameters
        ----------
        inputs : mapping
            One array for each input name; those of :attr:`optional_inputs` may be left out. Where the model takes a
            sequence, a list of arrays, and where it takes an optional, an array or None.
        out : mapping, optional
            Arrays to write outputs into: writable, contiguous, and of the output's dtype and shape. An output that is
            not named gets a fresh array.

        Returns
        -------
        dict
            One array for each output name; for a sequence a list of arrays, for an optional with nothing in it None.

        Raises
        ------
        ValidationError
            An input is missing, unknown or does not fit; ``.reason`` says which.
        """
        given = mapping(inputs, "inputs", "a mapping of names to arrays")
        return self._run(given, None if out is None else mapping(out, "out", "a mapping of names to arrays, or None"))

    def warm_up(
        self,
        batch_sizes: Iterable[int] = (1,),
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Compile and run the model once for each batch size, so that the first request finds everything ready.

        Parameters
        ----------
        batch_sizes : iterable of int
            Rows per batch.
        shapes : mapping, optional
            For each input that has free dimensions besides the batch, its shape without the batch axis.

        Raises
        ------
        ValueError
            A batch size is less than 1; an input is unknown, has free dimensions and no shape, or is a sequence.
        ValidationError
            A shape does not fit its input.
        """
        for feeds in self._feeds(batch_sizes, shapes):
            self._run(feeds, None)

    def _feeds(
        self, batch_sizes: Iterable[int], shapes: Mapping[str, Sequence[int]] | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Make up inputs for each batch size."""
        refuse_sequences(self.inputs)
        sizes = sequence(batch_sizes, "batch_sizes", "an iterable of integers")
        batches = [integer(size, "a batch size", 1) for size in sizes]
        rests = self._rests(
            {} if shapes is None else mapping(shapes, "shapes", "a mapping of names to shapes, or None")
        )
        for batch in batches:
            feeds = {}
            for spec, rest in zip(self.inputs, rests, strict=True):
                lead = [] if not spec.shape else [batch if spec.shape[0] is None else spec.shape[0]]
                feeds[spec.name] = _zeros(spec, [*lead, *rest])
            yield feeds

    def _rests(self, given: dict[str, Sequence[int]]) -> list[list[int]]:
        """Find every input's shape without the batch axis."""
        found = []
        for spec in self.inputs:
            rest = dimensions(given.pop(spec.name, spec.shape[1:]), f"shapes['{spec.name}']", 0)
            sizes = [size for size in rest if size is not None]
            if len(sizes) != len(rest):
                raise ValueError(
                    f"input '{spec.name}' has free dimensions besides the batch, {spec.shape}; "
                    f"give warm_up(shapes={{'{spec.name}': (...)}})"
                )
            found.append(sizes)
        refuse_unknown(given, self.inputs)
        return found

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself: its ``metadata_props``, and what wrote it. Empty for a callable."""
        return Metadata(**self._metadata())

    def memory(self) -> MemoryUse:
        """Tell how much memory the model holds, in bytes."""
        return MemoryUse(**self._memory())

    @property
    def packed_file(self) -> str | None:
        """The file from which the packed weights are read; None where this process packed them itself."""
        return self._packed_use()[0] or None

    def save_packed(self, path: str | os.PathLike[str]) -> None:
        """Write the weights as the kernels read them to a file, for ``Model.load(..., packed=path)``.

        Processes that load the model with it start faster, and share one copy. The file is for this model, this build
        of inferkit and this processor's instruction sets, and is refused elsewhere. It holds what was packed so far:
        what loading packs, and what calls packed for shapes that need it otherwise. A file of that name is replaced at
        once, and whoever reads the old one goes on.

        Parameters
        ----------
        path : path
            Where to write it. The folder must exist.

        Raises
        ------
        OSError
            It cannot be written; what was there before is still there.
        ModelError
            The model's file was touched since it was loaded.

        Examples
        --------
        >>> import inferkit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = inferkit.Model.load("examples/digits.onnx")
        ...     model.save_packed(f"{folder}/digits.packed")
        ...     again = inferkit.Model.load("examples/digits.onnx", packed=f"{folder}/digits.packed")
        ...     print(again.memory().packed_shared_bytes > 0)
        True
        """
        _ = self._specs  # a model whose __init__ did not run says so
        self._save_packed(path_text(path, "path"))

    def explain(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Explanation:
        """Tell how the model runs on inputs of given shapes, without running it.

        Each step says which way to run its operator was chosen and why, which nodes of the file it stands for, how many
        bytes it reads, writes and needs for itself, and how long it should take.

        Parameters
        ----------
        shapes : mapping, optional
            The shape of each input, batch axis included. By default a batch of one row. Inputs with more free
            dimensions must be given.

        Returns
        -------
        Explanation
            Its ``str()`` is a table; ``python -m inferkit explain`` prints the same.

        Raises
        ------
        ValidationError
            A shape does not fit its input, or the model cannot run on inputs of these shapes.
        ValueError
            An input is unknown, or has free dimensions and no shape; or the model wraps a callable.

        Examples
        --------
        >>> import inferkit
        >>> model = inferkit.Model.load("examples/digits.onnx")
        >>> plan = model.explain({"image": (64, 64)})
        >>> [step.operator for step in plan.steps]
        ['Div', 'inferkit.Linear', 'inferkit.Linear', 'Softmax']
        >>> [part.operator for part in plan.steps[1].stands_for]
        ['Gemm', 'Relu']
        >>> plan.outputs
        (TensorSpec(name='probabilities', dtype='float32', shape=(64, 10)),)
        """
        from ._explain import explain

        return explain(self, shapes)

    def profile(self, *inputs: Any, runs: int = 20) -> Explanation:
        """Run the model and tell how long each step of its plan takes, beside the estimate.

        Parameters
        ----------
        *inputs : array
            As the model takes them: ``model.profile(x)`` runs what ``model(x)`` runs.
        runs : int
            How many runs are measured, after one that is not. Each step gets the median of its times.

        Returns
        -------
        Explanation
            As from :meth:`explain` for the shapes of the inputs, with ``measured_seconds``. It has all that the runs
            did: also what :meth:`explain` can only name, since its shapes depend on values, and what is in the bodies
            of loops. Twelve further runs, on one thread, tell what 4, 16 and 64 threads would make of it (``scaling``).

        Raises
        ------
        ValidationError
            An input does not fit.
        ValueError
            `runs` is less than 1, or the model wraps a callable.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.load("examples/digits.onnx")
        >>> found = model.profile(np.ones((8, 64), np.float32), runs=3)
        >>> found.runs, found.measured_seconds > 0
        (3, True)
        """
        from ._explain import profile

        return profile(self, inputs, runs)

    def compare_precision(self, *inputs: Any) -> PrecisionReport:
        """Run the model on a sample in float32 and in bf16, and tell how far the answers are apart.

        It does so whichever of them the model computes in, so that you can ask before you choose
        ``Model.load(precision="bf16")``; for a model in float16, that takes the place of bf16. It runs where the model
        does. Both runs pack the weights for themselves, and keep nothing.

        Parameters
        ----------
        *inputs : array
            As the model takes them. Take real inputs: errors of random ones tell little.

        Returns
        -------
        PrecisionReport
            For each output the largest error, the error in relation to the whole output, and the cosine between the
            two; its ``str()`` is made to be read.

        Raises
        ------
        ValidationError
            An input does not fit.
        ValueError
            The model wraps a callable.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.load("examples/digits.onnx")
        >>> image = np.load("examples/digits_test.npz")["images"][:32].astype(np.float32)
        >>> report = model.compare_precision(image)
        >>> report.outputs[0].name, report.outputs[0].max_abs_error < 0.05, report.outputs[0].cosine > 0.999
        ('probabilities', True, True)
        """
        from ._precision import compare_precision

        return compare_precision(self, inputs)

    @property
    def weights(self) -> _core.Weights | None:
        """The model's initializers, as read-only views of the mapped file; ``None`` for a wrapped callable."""
        return self._weights()

    def __repr__(self) -> str:
        def ports(specs: tuple[TensorSpec, ...]) -> str:
            return ", ".join(
                f"{s.name}: {s.dtype}{'[...]' if s.any_shape else list(s.shape)}".replace("None", "*") for s in specs
            )

        source = self.path or ("callable" if not self._is_native else "bytes")
        if self.precision not in ("float32", ""):
            source += f" in {self.precision}"
        return printable(f"<inferkit.Model {source} ({ports(self.inputs)}) -> ({ports(self.outputs)})>")


_core.install_call(Model)
