#!/usr/bin/env bash
# Sets up the environment, with what tests need, then lints and tests.
# Arguments go to pytest: bash script/test.sh -n 0 -k flow

set -euo pipefail
requirements=requirements-dev.txt
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

lint=passed
"$PYTHON" -m ruff check . || lint=failed
"$PYTHON" -m ruff format --check . || lint=failed

# Most tests keep one core busy: two processes of one thread take half the time of one of two threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PYTHON" -m pytest --numprocesses=2 --dist=worksteal "$@"

if [ "$lint" = failed ]; then
    echo "The tests passed, but lint failed: see ruff's messages above the tests." >&2
    exit 1
fi
