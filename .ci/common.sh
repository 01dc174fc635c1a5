# Shared by the scripts of this folder: steps with a heading and a time, and steps that a machine cannot run.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Nothing that a user's shell exports may change what is built.
unset CFLAGS CXXFLAGS LDFLAGS CMAKE_ARGS INFERKIT_ISA PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# One name for the compiler, so that a cache knows it again.
export CXX=${CXX:-g++}
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1
fi
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}

step() {
  printf '\n=== [%4ds] %s\n' "$SECONDS" "$*"
}

# The tools of an extra of pyproject.toml, one a line.
extra() {
  awk -v key="$1 = [" 'index($0, key) == 1 { on = 1 } on { print } on && /\]$/ { exit }' pyproject.toml |
    grep -o '"[^"]*"' | tr -d '"'
}

# make_venv DIR PYTHON: a fresh virtual environment with a current pip, not activated.
make_venv() {
  rm -rf "$1"
  "$2" -m venv "$1"
  "$1/bin/python" -m pip install -qq --upgrade pip
}

# The newest Python that the project supports among those that this machine has.
find_python() {
  local version
  for version in 3.11 3.12 3.13 3.10; do
    if "python$version" -c 'import venv' 2>/dev/null; then
      echo "python$version"
      return
    fi
  done
  echo "no python3.10 to python3.13 here" >&2
  return 1
}
