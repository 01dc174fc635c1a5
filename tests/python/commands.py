"""Who runs the commands that the pages show.

    python tests/python/commands.py      prints those of the part `commands` of .ci/full, one a line

A command that a page shows and that stands in none of these tables fails a test.
"""

from __future__ import annotations

#: Run by test_commands.py as they stand, in a copy of the repository in which `model.onnx` and `data.npz` are there.
HERE = (
    "python -m inferkit doctor model.onnx",
    "python -m inferkit doctor model.onnx --input data.npz",
    "python -m inferkit doctor examples/digits.onnx",
    "python -m inferkit explain model.onnx",
    "python -m inferkit bench model.onnx",
    "python -m inferkit inspect examples/digits.onnx",
    "python -m inferkit inspect model.onnx",
    "python -m inferkit inspect model.onnx --device cuda",
    "python -m inferkit explain examples/digits.onnx",
    "python -m inferkit explain model.onnx --profile",
    "python -m inferkit bench examples/digits.onnx",
    "python -m inferkit bench model.onnx --batch 1,8,64 --concurrency 1,8,64 --plot figures.svg",
    "python -m inferkit info",
    "python -m inferkit pack model.onnx --cache packed",
)

#: Run by the part `commands` of .ci/full as they stand and in this order, in a copy of the repository and a fresh
#: environment.
LATER = (
    "pip install '.[cli]'",
    "pip install '.[metrics]'",
    "pip install '.[otel]'",
    "pip install '.[docs]' && mkdocs build",
    "pip install . --config-settings=cmake.define.INFERKIT_CUDA=OFF",
    "pip install '.[docs]'",
    "pip install fastapi uvicorn",
    "pip install httpx",
    "pip install onnx",
    "pip install onnx onnxruntime",
    "pip install onnx tokenizers",
    "pip install tokenizers",
    "pip install scikit-learn skl2onnx",
    "pip install gunicorn uvicorn-worker",
    "pip install openvino batched async-batcher",
    "pip install '.[bench]' && python benchmarks/compare.py",
    "python benchmarks/compare.py --only direct --markdown",
    "python benchmarks/bench_tracing.py",
    "python benchmarks/overload.py --seconds 2",
    "python benchmarks/overload.py --model minilm --loads 1.2 2 5 10 --warm-up --by-hand",
    "python benchmarks/automatic.py",
    "python benchmarks/neighbours.py --seconds 4",
    "python benchmarks/lengths.py",
    "python benchmarks/scaling.py",
    "python benchmarks/versions.py old/bin/python new/bin/python",
    "python benchmarks/tuning.py --plot tuning.svg",
    "python benchmarks/simulate.py --plot policies.svg --replay",
    "cd benchmarks && asv machine --yes && asv run --python=same",
    "pip install '.[test]'",
    "python -m tests.conformance.report",
    "pip install cmake ninja",
    "cmake --preset dev && cmake --build --preset dev && ctest --preset dev",
)

#: Run by another test, FILE::NAME, or another part of .ci/full.
ELSEWHERE = {
    "pip install . && python examples/quickstart.py": "quickstart",
    "pip install '.[test]' && python -m pytest -n 2 --dist loadfile": "run",
    ".ci/run": "run",
    ".ci/operators": "run",  # with --check, which writes nothing
    ".ci/stubs": "run",  # likewise
    "INFERKIT_ISA=baseline|avx2|avx512": "tiers",
    "INFERKIT_ISA=avx512,-amx-bf16": "test_bf16.py::test_the_bits_do_not_depend_on_the_processor",
    "INFERKIT_TIME_SLICES=0": "test_slices.py::test_switched_off",
    "uvicorn app:app": "test_guides.py::test_the_service_drains_and_stops",
    "uvicorn app:app --workers 2": "test_guides.py::test_the_service_drains_and_stops",
    "gunicorn app:app --worker-class uvicorn_worker.UvicornWorker --workers 2": (
        "test_guides.py::test_the_service_drains_and_stops"
    ),
    "curl -s localhost:8000/internal/metrics": "test_guides.py::test_the_service_drains_and_stops",
    "curl -s localhost:8000/internal/readyz": "test_guides.py::test_the_service_drains_and_stops",
    "curl -s localhost:8000/digit -H 'content-type: application/json' -d \"$(python -c 'print([7] * 64)')\"": (
        "test_guides.py::test_the_service_drains_and_stops"
    ),
    "promtool test rules alerts_test.yml": "monitoring",
    "python -m inferkit top": "test_cli_top.py::test_live_until_ctrl_c",
    "python benchmarks/soak.py --seconds 3600 --plot docs/soak.svg": "soak",
}

#: Not run, and why.
NOT_RUN = {
    'export METRICS_DIRECTORY=/tmp/metrics && rm -rf "$METRICS_DIRECTORY" && mkdir "$METRICS_DIRECTORY"': (
        "a test must not empty a folder that may be somebody's"
    ),
    ".ci/full": "it runs everything, these tests among it",
    "chrt -f 20": "not a command by itself: how the run behind the figures was started, as root",
}

if __name__ == "__main__":
    print("\n".join(LATER))
