"""Two installed versions of inferkit side by side: is anything slower than before?

    python benchmarks/versions.py /path/to/old/bin/python /path/to/new/bin/python

Each interpreter has inferkit and numpy; this one has the extra ``bench`` as well. Two processes at a time, one of each
version, take turns within a round, so that both see the same noise. As where a process happens to get its memory can
make several per cent, every case is measured in several pairs of fresh processes, and the versions take turns in being
the first of a pair, which has first choice of large pages: the ratio is the median over pairs of the medians of their
rounds, beside the smallest and the largest of them.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

Feeds = dict[str, np.ndarray]
#: What is called: the model itself, or a batcher in front of it.
VIA = ("model", "batcher")


# What runs in the interpreters that are compared: it needs their inferkit and numpy, and nothing else of here.


def _send(pipe: IO[bytes], message: object) -> None:
    data = pickle.dumps(message, protocol=4)
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    size = pipe.read(8)
    if len(size) < 8:
        raise EOFError("the other side is gone")
    return pickle.loads(pipe.read(int.from_bytes(size, "little")))


def _work() -> None:
    """Serve one case at a time: load it, answer once, then time as many calls as are asked for."""
    import inferkit

    commands, results = sys.stdin.buffer, sys.stdout.buffer
    info = inferkit.build_info()
    _send(results, {name: info[name] for name in ("version", "isa", "compiler", "debug", "sanitizers")})
    call: Callable[[], Any] = lambda: None  # noqa: E731
    batcher = None
    while True:
        try:
            command, *rest = _receive(commands)
        except EOFError:
            return
        if command == "load":
            data, feeds, via, threads = rest
            if batcher is not None:
                batcher.close()
                batcher = None
            model = inferkit.Model.load(data, threads=threads)
            values = [feeds[port.name] for port in model.inputs]
            if via == "batcher":
                batcher = inferkit.Batcher(model)
                target: Callable[..., Any] = batcher
            else:
                target = model
            call = lambda target=target, values=values: target(*values)  # noqa: E731
            answer = call()
            _send(results, list(answer.values()) if isinstance(answer, dict) else answer)
        else:
            count = rest[0]
            start = time.perf_counter()
            for _ in range(count):
                call()
            _send(results, time.perf_counter() - start)


# What asks them.


class Worker:
    """One interpreter with its version of inferkit."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, __file__, "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        self.info = self._receive()
        if self.info["debug"] or self.info["sanitizers"]:
            sys.exit(f"{python} has a debug or sanitizer build of inferkit: its figures would mislead")

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        return _receive(self._process.stdout)

    def ask(self, *command: object) -> Any:
        assert self._process.stdin is not None
        _send(self._process.stdin, command)
        return self._receive()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _node(kind: str, shape: tuple[int, ...], constants: Feeds, **attributes: Any) -> tuple[bytes, Feeds]:
    """Make a model of one operator, and an input for it."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *constants], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return model.SerializeToString(), {"x": x}


def _operators() -> Iterator[tuple[str, bytes, Feeds, str]]:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    for channels, size in ((16, 56), (64, 56), (128, 28), (256, 14), (512, 7)):
        case = _node("Conv", (1, channels, size, size), {"w": weights(channels, channels, 3, 3)}, pads=[1, 1, 1, 1])
        yield f"Conv 3x3, {channels} channels, {size}x{size}", *case, "model"
    for channels, size in ((64, 56), (256, 14)):
        case = _node("Conv", (1, channels, size, size), {"w": weights(4 * channels, channels, 1, 1)})
        yield f"Conv 1x1, {channels} to {4 * channels} channels, {size}x{size}", *case, "model"
    case = _node("Conv", (1, 96, 28, 28), {"w": weights(96, 1, 3, 3)}, pads=[1, 1, 1, 1], group=96)
    yield "Conv 3x3, depthwise, 96 channels, 28x28", *case, "model"
    for m in (1, 16, 128):
        yield f"MatMul {m}x1024x1024", *_node("MatMul", (m, 1024), {"w": weights(1024, 1024)}), "model"
    scale = {"scale": np.ones(384, np.float32), "bias": np.zeros(384, np.float32)}
    yield "LayerNormalization 128x384", *_node("LayerNormalization", (128, 384), scale), "model"
    for kind in ("Softmax", "Relu", "Sigmoid", "Tanh", "Erf"):
        yield f"{kind} 128x384", *_node(kind, (128, 384), {}), "model"
    yield "ReduceMean 128x384, rows", *_node("ReduceMean", (128, 384), {}, axes=[1]), "model"
    yield "ReduceMean 8x128x384, columns", *_node("ReduceMean", (8, 128, 384), {}, axes=[1]), "model"
    yield "ReduceMean 64x4096, columns", *_node("ReduceMean", (64, 4096), {}, axes=[0]), "model"
    yield "Softmax 21x4096, columns", *_node("Softmax", (1, 21, 4096), {}, axis=1), "model"
    yield "ArgMax 21x4096, columns", *_node("ArgMax", (1, 21, 4096), {}, axis=1), "model"
    yield "Transpose 128x384", *_node("Transpose", (128, 384), {}), "model"


def _networks() -> Iterator[tuple[str, bytes, Feeds, str]]:
    import common

    rng = np.random.default_rng(0)
    models = [("MLP 4-16-3", common.mlp(common.SMALL), (4,)), ("MLP 64-256-256-10", common.mlp(common.LARGE), (64,))]
    cases = [(*model, batch) for model in models for batch in (1, 8, 64)]
    cases += [("CNN 28x28", common.cnn(), (1, 28, 28), batch) for batch in (1, 8)]
    for name, data, shape, batch in cases:
        feeds = {"x": rng.standard_normal((batch, *shape)).astype(np.float32)}
        for via in VIA if batch == 1 and name.startswith("MLP") else VIA[:1]:
            yield f"{name}, batch {batch}{', batcher' if via == 'batcher' else ''}", data, feeds, via
    state = np.ones((1, 1, 64), np.float32)
    feeds = {"x": rng.standard_normal((100, 1, 32)).astype(np.float32), "h": state, "c": state}
    yield "LSTM, 100 steps", common.lstm(), feeds, "model"


def _real() -> Iterator[tuple[str, bytes, Feeds, str]]:
    import real

    for case in real._cases():
        try:
            data = case.read()
        except real.UnreachableError as error:
            print(f"not measured: {case.what}: {error}")
            continue
        yield case.what, data, case.feeds(data), "model"


def _images() -> Iterator[tuple[str, bytes, Feeds, str]]:
    sys.path.insert(0, str(Path(__file__).resolve().parent / "gpu"))
    import images

    for made in (images.resnet(), images.mobilenet_v2()):
        for batch in (1, 8):
            yield f"{made.name}, batch {batch}", made.file(), {"x": made.inputs(batch)[0]}, "model"


SECTIONS: dict[str, Callable[[], Iterator[tuple[str, bytes, Feeds, str]]]] = {
    "operators": _operators,
    "networks": _networks,
    "images": _images,
    "real": _real,
}


def _same(name: str, old: Any, new: Any) -> bool:
    """Whether both gave the same bits; stops where they are not even close."""
    from inferkit._cli._compare import difference

    pairs = list(zip(old, new, strict=True)) if isinstance(old, (list, tuple)) else [(old, new)]
    for before, after in pairs:
        problem = difference(after, before, tolerance=1e-2)
        if problem:
            sys.exit(f"the two versions do not agree on {name}: the new output {problem}")
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def measure(pythons: list[str], case: tuple[str, bytes, Feeds, str], args: argparse.Namespace) -> dict[str, Any]:
    name, data, feeds, via = case
    ratios, seconds = [], []
    same = True
    for pair in range(args.pairs):
        workers = [Worker(python) for python in pythons]
        try:
            answers: list[Any] = [None, None]
            for which in (0, 1) if pair % 2 else (1, 0):
                answers[which] = workers[which].ask("load", data, feeds, via, args.threads)
            same &= _same(name, *answers)
            once = max(workers[1].ask("time", 2) / 2, 1e-7)
            count = max(1, int(args.budget / once))
            rounds = []
            for index in range(args.rounds + 1):
                # Always in this order: who runs twice in a row finds its weights in the caches, which makes up to 8%.
                took = [worker.ask("time", count) / count for worker in workers]
                if index:  # the first one warms caches and clocks up
                    rounds.append((took[0], took[1]))
        finally:
            for worker in workers:
                worker.close()
        ratios.append(statistics.median(new / old for old, new in rounds))
        seconds.append(statistics.median(new for _, new in rounds))
    return {
        "what": name,
        "us": statistics.median(seconds) * 1e6,
        "of the old": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "bits": "same" if same else "other",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs=2, help="the interpreter of the old version, and that of the new one")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section (may be repeated)")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of fresh processes for each case")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of each pair")
    parser.add_argument("--budget", type=float, default=0.01, help="seconds that a version takes in a round, at least")
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    args = parser.parse_args()
    import common

    rows = []
    for section in args.only or SECTIONS:
        for case in SECTIONS[section]():
            if args.case not in case[0]:
                continue
            common.progress(case[0])
            row = measure(args.python, case, args)
            rows.append(row)
            common.progress("")
            print(
                f"{row['what']:52} {row['us']:10.1f} us  {row['of the old']:.3f} of the old"
                f"  ({row['least']:.3f} to {row['most']:.3f})  {row['bits']} bits",
                flush=True,
            )
            if args.json:
                Path(args.json).write_text(json.dumps(rows, indent=1))
    if rows:
        print(f"median of all {statistics.median(row['of the old'] for row in rows):.3f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        _work()
    else:
        try:
            main()
        except KeyboardInterrupt:
            sys.exit("\nstopped")
