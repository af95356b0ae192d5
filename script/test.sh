#!/usr/bin/env bash
# Sets up the environment, then lints and tests. Arguments go to pytest: bash script/test.sh -k flow

set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

lint=passed
"$PYTHON" -m ruff check . || lint=failed
"$PYTHON" -m ruff format --check . || lint=failed

"$PYTHON" -m pytest "$@"

if [ "$lint" = failed ]; then
    echo "The tests passed, but lint failed: see ruff's messages above the tests." >&2
    exit 1
fi
