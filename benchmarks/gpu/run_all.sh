#!/usr/bin/env bash
# Everything that wants a GPU, within 9 minutes: builds inferkit, compares its bits with the CPU's, runs the tests marked
# `gpu` and compute-sanitizer, times inferkit and torch, and prints one table.
#
#     benchmarks/gpu/run_all.sh [FOLDER]         results go to FOLDER, ./gpu-results by default, after every stage
#
# Needs a C++20 compiler, nvcc, Python 3.10 or later with numpy, pybind11, scikit-build-core and pip; no network. Uses
# torch and compute-sanitizer where they are there, and says so where they are not. Exit status: 0 where every bit was
# right and every check passed; 1 otherwise.
#
# In the environment:
#   PYTHON       the interpreter, python3 by default
#   SECONDS_IN_ALL   the time for all of it, 525; BUILD_SECONDS for the build, 330
#   INSTALLED    1: the inferkit that PYTHON finds is taken, and nothing is built
#   REHEARSE     a folder with the tests' libcuda.so.1: small models on that in place of a device; the inferkit that
#                PYTHON finds is taken, and nothing is built. benchmarks/gpu/README.md tells how.
#   STAGE_SECONDS    the most that a stage may take
#   SANITIZER    what is called in place of compute-sanitizer
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-gpu-results}
mkdir -p "$out" && out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
in_all=${SECONDS_IN_ALL:-525}
rm -f "$out"/*.jsonl "$out"/*.log "$out/table.md"
rm -rf "$out/answers" && mkdir "$out/answers"
SECONDS=0
failures=0
export PYTHONUNBUFFERED=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
quick=()
if [[ -n ${REHEARSE:-} ]]; then
  quick=(--quick)
  export LD_LIBRARY_PATH=$(cd "$REHEARSE" && pwd)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else # where containers have the driver, and CUDA its tools, when nobody has set the paths
  if [[ -d /usr/local/nvidia/lib64 ]]; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/nvidia/lib64
  fi
  for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/nvidia; do
    [[ -n $folder && -d $folder/bin ]] && PATH=$PATH:$folder/bin
  done
  export PATH
fi

# Who is told to stop says what there is.
running="" warm=""
stopped() {
  echo "stopped"
  # shellcheck disable=SC2086
  kill $running $warm 2>/dev/null
  cat "$out/table.md" 2>/dev/null
  exit 1
}
trap stopped TERM INT HUP

say() { printf '\n=== [%3ds] %s\n' "$SECONDS" "$*"; }

# note STAGE STATE SECONDS WHY: into the results, and the table anew.
note() {
  "$python" -c 'import json, sys; print(json.dumps(dict(zip(("stage", "state", "seconds", "why"), sys.argv[1:]))))' \
    "$@" >>"$out/stages.jsonl"
  "$python" "$here/table.py" "$out" >"$out/table.new" && mv "$out/table.new" "$out/table.md"
}

skip() {
  say "$1: skipped: $2"
  note "$1" skipped 0 "$2"
}

# stage NAME SECONDS must|may COMMAND...: its output is shown and kept. A stage that must and fails is a failure of all;
# status 3 is for what the machine lacks, with the reason as the last line.
stage() {
  local name=$1 limit=$2 kind=$3 begin=$SECONDS status state=ok why=""
  shift 3
  local left=$((in_all - SECONDS - 5))
  if ((left < 5)); then
    say "$name: no time is left"
    note "$name" "not run" 0 "no time was left"
    [[ $kind == may ]] || failures=$((failures + 1))
    return 1
  fi
  ((limit > ${STAGE_SECONDS:-limit})) && limit=$STAGE_SECONDS
  ((limit > left)) && limit=$left
  say "$name (at most $limit s)"
  # Shown from the file and not through a pipe, which ends when everybody has closed it: what a stage that was cut off
  # leaves behind may hold it open.
  : >"$out/$name.log"
  timeout -k 5 "$limit" "$@" >>"$out/$name.log" 2>&1 &
  running=$!
  tail -n +1 -s 0.2 --pid="$running" -f "$out/$name.log" &
  wait "$running"
  status=$?
  wait $!
  running=""
  case $status in
    0) ;;
    3) state=skipped why=$(tail -1 "$out/$name.log") ;;
    124 | 137) state="cut off" why="it took more than $limit s" ;;
    *) state=failed why="exit status $status; see $name.log" ;;
  esac
  note "$name" "$state" "$((SECONDS - begin))" "$why"
  [[ $status == 0 || $status == 3 ]] && return 0
  [[ $kind == may ]] || failures=$((failures + 1))
  return 1
}

the_machine() {
  date -u
  for tool in "nvidia-smi -L" "nvcc --version" "${CXX:-g++} --version" "cmake --version" "$python --version"; do
    echo "+ $tool"
    # shellcheck disable=SC2086
    $tool 2>&1 | tail -4 || true
  done
  nvidia-smi --query-gpu=driver_version,clocks.sm,clocks.max.sm,power.draw,pcie.link.gen.current,pcie.link.width.current \
    --format=csv 2>&1 || true
  lscpu 2>/dev/null | grep -E 'Model name|^CPU\(s\)' || true
  for package in numpy pybind11 scikit_build_core torch triton cupy; do
    "$python" -c "import importlib.metadata as m; print('$package', m.version('$package'.replace('_', '-')))" 2>/dev/null ||
      "$python" -c "import $package; print('$package', $package.__version__)" 2>/dev/null || echo "$package: not here"
  done
  git -C "$root" log -1 --format='inferkit %h %cs' 2>/dev/null || true
}

# Into a folder of its own, from what the machine has; pip takes --target where the system keeps others out.
build() {
  command -v ninja >/dev/null || export CMAKE_GENERATOR="Unix Makefiles"
  CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) SKBUILD_CMAKE_DEFINE="INFERKIT_CUDA=ON" \
    "$python" -m pip install --no-index --no-build-isolation --no-deps --upgrade --target "$out/site" \
    --config-settings=build-dir="$out/build" "$root" || return 1
  "$python" -c 'import inferkit; print(inferkit.__file__); print(inferkit.build_info())' || return 1
}

# Some machines let no such tool at their device.
sanitize() {
  local tool=$1 only=$2 status
  "$sanitizer" --tool "$tool" --error-exitcode 9 --target-processes all \
    "$python" "$here/checks.py" --quick --only "$only" 2>&1 | tee "$out/$tool.said"
  status=${PIPESTATUS[0]}
  if ((status != 0)) && grep -q "Device not supported" "$out/$tool.said"; then
    echo "compute-sanitizer does not support this device"
    return 3
  fi
  return "$status"
}

export -f the_machine build sanitize
sanitizer=${SANITIZER:-compute-sanitizer}
export here root out python sanitizer

stage machine 30 may bash -c the_machine
if [[ -n ${REHEARSE:-} ]]; then
  skip build "a rehearsal takes what is installed"
elif [[ ${INSTALLED:-0} == 1 ]]; then
  skip build "what is installed is taken"
  timeout -k 5 200 "$python" "$here/peers.py" compiled --warm --seconds 180 >"$out/warm.log" 2>&1 &
  warm=$!
else
  export PYTHONPATH=$out/site${PYTHONPATH:+:$PYTHONPATH}
  # A good part of the time that torch takes to compile needs no device: it goes on beside the build.
  timeout -k 5 200 "$python" "$here/peers.py" compiled --warm --seconds 180 >"$out/warm.log" 2>&1 &
  warm=$!
  if ! stage build "${BUILD_SECONDS:-240}" must bash -c build; then
    kill "$warm" 2>/dev/null
    cat "$out/table.md"
    exit 1
  fi
fi

# What says most comes first: a stage that finds no time left is not run.
stage bits 90 must "$python" "$here/checks.py" "${quick[@]}" --only the_bits_of --out "$out/checks.jsonl"
stage checks 90 must "$python" "$here/checks.py" "${quick[@]}" --but the_bits_of --out "$out/checks.jsonl"
if [[ -n $warm ]]; then # nothing else runs while times are taken
  say "waiting for torch to have compiled"
  wait "$warm" || echo "compiling ahead ended with $?; see warm.log"
  warm=""
fi
stage ours 110 must "$python" "$here/ours.py" "${quick[@]}" --out "$out/times.jsonl" --answers "$out/answers"
stage torch 70 may "$python" "$here/peers.py" eager "${quick[@]}" --seconds 60 --out "$out/times.jsonl" \
  --answers "$out/answers"
if [[ -n ${REHEARSE:-} && -z ${SANITIZER:-} ]]; then
  skip sanitizer "it checks a device, and a rehearsal has none"
elif ! command -v "$sanitizer" >/dev/null; then
  skip sanitizer "compute-sanitizer is not on PATH"
else
  stage memcheck 60 must bash -c 'sanitize memcheck "small|encoder|CNN|Net|an_index"'
  stage racecheck 45 must bash -c 'sanitize racecheck "digits|encoder|CNN"'
  stage synccheck 30 must bash -c 'sanitize synccheck "digits|encoder|CNN"'
fi
stage steps 40 may "$python" "$here/steps.py" "${quick[@]}"
stage torch-compiled 120 may "$python" "$here/peers.py" compiled "${quick[@]}" --seconds 100 --out "$out/times.jsonl" \
  --answers "$out/answers"

say "all of it"
cat "$out/table.md"
if ((failures > 0)); then
  echo "FAILED: $failures of the stages above"
  exit 1
fi
if [[ -n ${REHEARSE:-} ]]; then
  echo "the rehearsal passed: nothing of it ran on a device, and its times say nothing"
else
  echo "every bit was right, and every check that was not skipped passed"
fi
