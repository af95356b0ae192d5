#!/usr/bin/env bash
# Sets up the environment, then runs the demo. Arguments go to it: bash script/demo.sh --help

set -euo pipefail
requirements=requirements.txt
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

exec "$PYTHON" -m script.demo "$@"
