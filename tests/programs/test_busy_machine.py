"""Programs set how OpenMP's threads wait before torch, which reads it, is imported."""

import os
import subprocess
import sys

import pytest

from tests.support.helpers import PROJECT
from util.command_line import WAITING

SHOW = """
import os, runpy, sys

class AtImport:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            print({name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")})
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, AtImport)
program, *sys.argv = sys.argv[1:]
if program.endswith(".py"):
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


def at_import(program, **setting):
    """What the environment says when `program` imports torch, given the user's own setting."""
    environment = {k: v for k, v in os.environ.items() if "OMP_" not in k and "KMP_" not in k}
    done = subprocess.run(
        [sys.executable, "-c", SHOW, program, program],
        cwd=PROJECT, env={**environment, **setting}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {k: v for k, v in eval(done.stdout).items() if v is not None}


@pytest.mark.parametrize("program", ["train.py", "test.py", "script.metrics", "script.demo"])
def test_programs_set_it_in_time(program):
    assert at_import(program) == WAITING


@pytest.mark.parametrize("setting", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_the_user_decides(setting):
    assert at_import("train.py", **setting) == setting
