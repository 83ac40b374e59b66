#!/usr/bin/env bash
# Makes the image walproxy:dev from this tree: the wheel and what it needs, on the base image.
set -euo pipefail
cd "$(dirname "$0")/.."
image=${1:-walproxy:dev}
python=${PYTHON:-.venv/bin/python}

docker/make-base.sh
rm -rf build/docker
mkdir -p build/docker/wheels
"$python" -m maturin build -q --release --out build/docker/wheels
# The image's Python, not ours: Debian bookworm has 3.11.
"$python" -m pip install -q --no-compile --target build/docker/site --only-binary=:all: \
  --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
  --platform manylinux_2_34_x86_64 --platform linux_x86_64 build/docker/wheels/*.whl
docker build -q -f docker/Dockerfile -t "$image" build/docker >/dev/null
echo "made $image"
