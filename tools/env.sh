# Sourced by the scripts beside it: strict mode, the repository root, .venv and cargo on PATH.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VIRTUAL_ENV="$PWD/.venv"
export PATH="$VIRTUAL_ENV/bin:$PATH:$HOME/.cargo/bin"
export ORT_DISABLE_TELEMETRY=1 # onnxruntime would tell its makers of every test
# Tests and the extension share one profile, hence one set of dependencies. Lints keep to `dev`:
# maturin hands pyo3 another configuration than cargo, and in one profile each would undo the other.
PROFILE=test-ext
# The build directory, wherever cargo was told to put it; logs and reports go there too.
TARGET="${CARGO_TARGET_DIR:-$PWD/target}"

# All tests of Python, in one process more than there are cores, for most of them wait. WORKERS=0 keeps them in one.
# Files are given out in their order: those that take longest are in the middle of it.
# shellcheck disable=SC2034
PYTEST=(pytest tests/python -n "${WORKERS:-$(($(nproc) + 1))}" --dist loadfile --no-loadscope-reorder)

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Rust's tests of ONNX run on the library that lies in PyPI's wheel of onnxruntime. For `cargo test` alone: Python finds
# it by itself, and its tests are to see that.
onnxruntime() {
    local found
    found=$(compgen -G "$VIRTUAL_ENV/lib/python3.*/site-packages/onnxruntime/capi/libonnxruntime[.]*" | head -n 1) || true
    [[ -n $found ]] || die "no onnxruntime in .venv"
    echo "$found"
}
