"""How long torch takes for the same models with the same weights, from numpy to numpy.

    python benchmarks/gpu/peers.py eager|compiled [--seconds 60] [--warm] [--quick] [--out FILE] [--answers FOLDER]

eager has two ways: the module called as it stands, and the module captured into a CUDA graph together with both
copies, through pinned memory ("captured by hand"). compiled has torch.compile(mode="reduce-overhead"), and compiled
code captured by hand, which is the strongest. --warm compiles and measures nothing, so that compiled code is in torch's
cache. Answers are compared with inferkit's where those are in the folder. Without a CUDA device all of it runs on the
CPU, for a rehearsal.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from images import Images
from models import Encoder, Mlp, to_time
from results import Results, measure

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    print(f"skipped: torch cannot be imported: {error}")
    sys.exit(3)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-3  # of the largest element, for orders of summation that differ


def parameter(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)), requires_grad=False)


class TorchMlp(nn.Module):
    def __init__(self, made: Mlp) -> None:
        super().__init__()
        self.weights = nn.ParameterList(parameter(w.T) for w, _ in made.layers)
        self.biases = nn.ParameterList(parameter(b) for _, b in made.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.linear(x, w, b)
            if i + 1 < len(self.weights):
                x = torch.relu(x)
        return x


class TorchEncoder(nn.Module):
    def __init__(self, made: Encoder) -> None:
        super().__init__()
        self.made = made
        matrix = {f"{name}{i}" for name in ("qkv", "o", "up", "down") for i in range(made.layers)}
        self.w = nn.ParameterDict(
            {name: parameter(array.T if name in matrix else array) for name, array in made.weights.items()}
        )

    def norm(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return functional.layer_norm(x, (self.made.hidden,), self.w[f"scale{i}"], self.w[f"shift{i}"], 1e-5)

    def linear(self, x: torch.Tensor, name: str, i: int) -> torch.Tensor:
        return functional.linear(x, self.w[f"{name}{i}"], self.w[f"{name}_b{i}"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        made = self.made
        batch, length = ids.shape
        x = self.norm(functional.embedding(ids, self.w["words"]) + self.w["places"], 0)
        for i in range(made.layers):
            qkv = self.linear(x, "qkv", i).view(batch, length, 3, made.heads, made.hidden // made.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, made.hidden)
            x = self.norm(x + self.linear(mixed, "o", i), 2 * i + 1)
            x = self.norm(x + self.linear(functional.gelu(self.linear(x, "up", i)), "down", i), 2 * i + 2)
        return x.mean(1)


class TorchImages(nn.Module):
    def __init__(self, made: Images) -> None:
        super().__init__()
        self.ops = made.ops
        self.w = nn.ParameterDict({name: parameter(array) for name, array in made.weights.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"x": x}
        for op in self.ops:
            data = [
                values[name] if name in values else self.w[name] for name in op.inputs if name not in ("low", "high")
            ]
            values[op.output] = self.call(op.name, data, op.attributes)
        return values[self.ops[-1].output]

    @staticmethod
    def call(name: str, data: list[torch.Tensor], of: dict[str, object]) -> torch.Tensor:
        pads = of.get("pads", (0, 0))[:2]
        if name == "Conv":
            return functional.conv2d(*data, stride=of["strides"], padding=pads, groups=of["group"])
        if name == "MaxPool":
            return functional.max_pool2d(data[0], of["kernel_shape"], of["strides"], pads)
        if name == "AveragePool":
            return functional.avg_pool2d(data[0], of["kernel_shape"], of["strides"], pads, count_include_pad=False)
        calls = {
            "Relu": torch.relu,
            "Clip": lambda x: torch.clamp(x, 0, 6),
            "Add": torch.add,
            "Concat": lambda *parts: torch.cat(parts, 1),
            "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
            "Flatten": lambda x: x.flatten(1),
            "Gemm": functional.linear,
        }
        return calls[name](*data)


def module_of(made: Mlp | Encoder | Images) -> nn.Module:
    kind = {Mlp: TorchMlp, Encoder: TorchEncoder, Images: TorchImages}[type(made)]
    return kind(made).to(DEVICE).eval()


class OnTheHost:
    """Stands for a graph where there is no device."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.replay = call


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph | OnTheHost:
    if DEVICE == "cpu":
        call()
        return OnTheHost(call)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory() if DEVICE == "cuda" else tensor.clone()


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.current_stream().synchronize()


def plain(module: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: module(torch.from_numpy(x).to(DEVICE)).cpu().numpy()


def by_hand(module: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> Callable[[], np.ndarray]:
    held = pinned(torch.from_numpy(x))
    there = torch.empty_like(held, device=DEVICE)
    there.copy_(held)
    back = pinned(torch.empty_like(module(there), device="cpu"))
    held_array, back_array = held.numpy(), back.numpy()

    def all_of_it() -> None:
        there.copy_(held, non_blocking=True)
        back.copy_(module(there), non_blocking=True)

    graph = captured(all_of_it)

    def call() -> np.ndarray:
        np.copyto(held_array, x)
        graph.replay()
        synchronize()
        return back_array.copy()

    return call


def by_hand_there(module: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> Callable[[], np.ndarray]:
    """From the device to the device; the answer is brought to the host once, before."""
    there = torch.from_numpy(x).to(DEVICE)
    out = torch.empty_like(module(there))

    def all_of_it() -> None:
        out.copy_(module(there))

    graph = captured(all_of_it)
    graph.replay()
    synchronize()
    answer = out.cpu().numpy()

    def call() -> np.ndarray:
        graph.replay()
        synchronize()
        return answer

    return call


def compiled(module: nn.Module, mode: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
    torch._dynamo.reset()
    if DEVICE == "cpu":  # a rehearsal: no compiler, the same calls
        return torch.compile(module, backend="eager", dynamic=False)
    return torch.compile(module, mode=mode, dynamic=False)


def ways(kind: str, module: nn.Module, x: np.ndarray) -> dict[str, Callable[[], Callable[[], np.ndarray]]]:
    if kind == "eager":
        return {
            "torch eager": lambda: plain(module, x),
            "torch captured by hand": lambda: by_hand(module, x),
            "torch captured by hand, dev": lambda: by_hand_there(module, x),
        }
    return {
        "torch compiled, captured by hand": lambda: by_hand(compiled(module, None), x),
        "torch compiled, captured by hand, dev": lambda: by_hand_there(compiled(module, None), x),
        "torch reduce-overhead": lambda: plain(compiled(module, "reduce-overhead"), x),
    }


def difference(answer: np.ndarray, folder: Path | None, name: str) -> float | None:
    path = folder / f"{name}.npy" if folder else None
    if not path or not path.is_file():
        return None
    want = np.load(path)
    return float(np.abs(answer - want).max() / np.abs(want).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("eager", "compiled"))
    parser.add_argument("--seconds", type=float, default=60, help="starts nothing after that")
    parser.add_argument("--warm", action="store_true", help="measures nothing")
    parser.add_argument("--quick", action="store_true", help="small models, few calls")
    parser.add_argument("--out", type=Path, help="adds a line of JSON for each")
    parser.add_argument("--answers", type=Path, help="what inferkit answered")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    results = Results(arguments.out)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if DEVICE == 'cuda' else 'the CPU'}", flush=True)
    failed = 0
    for case in to_time(arguments.quick):
        if case.precision != "float32":
            continue  # torch is timed in float32 alone
        (x,) = case.made.inputs(case.batch)
        with torch.inference_mode():
            module = module_of(case.made)
            for way, make in ways(arguments.kind, module, x).items():
                if time.monotonic() > end:
                    results.put(case=case.name, way=way, failed="no time was left for it")
                    continue
                try:
                    call = make()
                    for _ in range(3):
                        answer = call()
                    if arguments.warm:
                        continue
                    apart = difference(answer, arguments.answers, case.name)
                    if apart is not None and not apart < TOLERANCE:
                        raise ValueError(f"its answer differs from inferkit's by {apart:.1e} of the largest element")
                    figures = measure(call, 0.01 if arguments.quick else 0.5)
                    results.put(case=case.name, way=way, **figures, apart=apart)
                except Exception as error:
                    traceback.print_exc()
                    results.put(case=case.name, way=way, failed=f"{type(error).__name__}: {str(error)[:200]}")
                    failed += 1
                call = None
                gc.collect()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
