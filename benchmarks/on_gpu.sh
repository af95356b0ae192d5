#!/usr/bin/env bash
# Everything that a GPU has to show, in one command: bash benchmarks/on_gpu.sh OUT [--parts 1,3] [--minutes 9]
# benchmarks/on_gpu/__main__.py says what. It takes the Python that is there ($PYTHON, or python3) and installs nothing.
# Paths are meant from the project's folder.

set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

exec "${PYTHON:-python3}" -m benchmarks.on_gpu "$@"
