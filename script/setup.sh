# shellcheck shell=bash
# Makes the Python environment ready for the programs. demo.sh and test.sh source it; `bash script/setup.sh` does
# only this. test.sh names requirements-dev.txt in `requirements`, which adds what lint and tests need.
# Afterwards the current folder is the project's, and PYTHON is the environment's interpreter.
#
# The environment is the active one (venv, virtualenv or conda), else .venv in the project. A stamp in it for each
# requirement file records what was installed: while that file, requirements.txt and constraints.txt stay the same,
# nothing is installed again and no network is needed. Stamps are written last, so an interrupted installation is
# done again.

set -euo pipefail
if [ "${BASH_SOURCE[0]}" = "$0" ]; then requirements=requirements.txt; fi
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Prints the name of a Python that can make a virtual environment.
find_python() {
    local candidate without_venv=''
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        is_new_enough "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv cannot make a virtual environment (its modules venv and ensurepip are missing):" \
            "install them (Debian, Ubuntu: apt install python3-venv) or activate an environment, then run again."
    fi
    fail "Python 3.11 or newer is needed, and PATH has" \
        "$(python3 --version 2>/dev/null || echo 'no python3'): install one, or activate an environment that has one."
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

has_pip() { "$PYTHON" -m pip --version >/dev/null 2>&1; }

has_torch() { "$PYTHON" -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("torch"))'; }

stamp_of() { echo "$environment/pose-${1%.txt}.stamp"; }

# Prints what the stamp of a requirement file holds when this Python has these requirements.
fingerprint() {
    "$PYTHON" - "$1" requirements.txt constraints.txt 2>/dev/null <<'PYTHON_END'
import hashlib, pathlib, sys

content = b"\0".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])
print(sys.implementation.cache_tag, hashlib.sha256(content).hexdigest())
PYTHON_END
}

is_stamped() {
    local stamp
    stamp=$(stamp_of "$requirements")
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint "$requirements")" ]
}

# Whether everything in the requirement file is already there, at whatever version in its ranges.
is_satisfied() {
    case $("$PYTHON" -m pip --quiet install --dry-run --report - --no-index --no-build-isolation \
        --requirement "$requirements" 2>/dev/null) in
        *'"install": []'*) return 0 ;;
        *) return 1 ;;
    esac
}

# Prints the versions, or fails with the error as the last line of its output. A torch and a torchvision that
# do not match fail at the import or at the first operator.
check_imports() {
    "$PYTHON" -W ignore - 2>&1 <<'PYTHON_END'
import torch, torchvision, visdom

torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
PYTHON_END
}

find_interpreter() {
    PYTHON=$environment/bin/python
    if [ -e "$environment/Scripts/python.exe" ]; then PYTHON=$environment/Scripts/python.exe; fi # Windows
}

make_environment() {
    local base
    if [ "$environment" = "$PWD/.venv" ]; then
        if ! is_new_enough "$PYTHON" || ! has_pip; then
            base=$(find_python)
            say "making .venv with $base ($("$base" --version))"
            "$base" -m venv --clear .venv || fail "making .venv failed: see the message above."
            find_interpreter
        fi
        return
    fi
    is_new_enough "$PYTHON" ||
        fail "the active environment $environment has no Python 3.11 or newer:" \
            "activate another, or deactivate it and .venv in the project is used."
    has_pip || "$PYTHON" -m ensurepip >/dev/null 2>&1 ||
        fail "the active environment $environment has no pip: install pip in it," \
            "or deactivate it and .venv in the project is used."
}

pip_install() {
    # shellcheck disable=SC2086 # two words or none
    "$PYTHON" -m pip --quiet --disable-pip-version-check --no-input install $constraint "$@" ||
        fail "the installation failed: see pip's message above. It needs the package index and about 10 GB of" \
            "free disk; run the same command again to go on."
}

install_requirements() {
    if has_torch; then
        say "installing what is missing into $environment"
    else
        say "installing into $environment: on Linux 2.6 GB to download, 6 GB on disk (PyTorch with CUDA);" \
            "1 to 30 minutes, depending on the network"
    fi
    # visdom's build imports setuptools, so that has to be there first: docs/installation.md.
    constraint='--constraint constraints.txt'
    # A torch in the user's own environment is the user's choice: there only the ranges count.
    if [ "$environment" != "$PWD/.venv" ] && has_torch; then
        constraint=''
    fi
    pip_install 'setuptools>=77.0.3,<81' wheel
    pip_install --no-build-isolation --requirement "$requirements"
}

set_up() {
    local file versions started=$SECONDS
    if is_stamped; then return; fi
    make_environment
    rm -f -- "$environment"/pose-requirements*.stamp
    # In the user's own environment, versions that do are left alone.
    if [ "$environment" = "$PWD/.venv" ] || ! is_satisfied || ! check_imports >/dev/null; then
        install_requirements
    fi
    versions=$(check_imports) ||
        fail "the installed packages do not work together: ${versions##*$'\n'}. torch and torchvision must be a" \
            "matching pair from the same index: remove $environment, or use another environment, and run again."
    for file in requirements.txt "$requirements"; do # the larger file holds the smaller
        fingerprint "$file" >"$(stamp_of "$file")"
    done
    say "ready after $((SECONDS - started)) s: $versions"
}

# conda's base is everyone's, and often active unasked: it is not installed into.
if [ -n "${VIRTUAL_ENV:-}" ]; then
    environment=$VIRTUAL_ENV
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    environment=$CONDA_PREFIX
else
    environment=$PWD/.venv
fi
find_interpreter

set_up
