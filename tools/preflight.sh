#!/usr/bin/env bash
# Names everything that a first `make` needs and this machine lacks, and how to get it.
set -u
python=${1:-python3}
missing=0
lacks() { printf 'missing: %s\n   get it: %s\n' "$1" "$2" >&2; missing=1; }

if ! command -v "$python" >/dev/null; then
  lacks "Python >= 3.11 ($python)" "Debian: apt-get install python3 python3-venv; elsewhere: python.org; or make PYTHON=/path/to/python3"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  lacks "Python >= 3.11 ($python is $("$python" -V 2>&1))" "install a newer one and run make PYTHON=/path/to/python3.11"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  lacks "Python's venv module" "Debian: apt-get install python3-venv"
fi

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
  lacks "a Rust toolchain >= 1.85 (cargo, rustc)" "https://rustup.rs, then open a new shell; or add ~/.cargo/bin to PATH"
else
  rust=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n1.85.0\n' "$rust" | sort -V | head -1)" != 1.85.0 ]; then
    lacks "Rust >= 1.85 (rustc is $rust)" "rustup update stable"
  fi
fi

if ! command -v cc >/dev/null; then
  lacks "a C compiler (cc), which the zstd crate is built with" "Debian: apt-get install build-essential"
fi

exit "$missing"
