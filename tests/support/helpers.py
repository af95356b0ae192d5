"""What several test files need: options, and running the programs as a user does."""

import contextlib
import importlib
import io
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from options.base_options import parse_test_options, parse_train_options

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "golden"
SHARED = PROJECT.parent / "shared"  # where it is there
MARKET = ["--dataset_mode=market", "--gpu_id=-1", "--display_id=0"]


def train_options(*arguments: str):
    """Options of train.py on the CPU for market, with random VGG19."""
    return parse_train_options([*MARKET, "--vgg_weights=random", *arguments])


def inference_options(*arguments: str):
    """Options of test.py on the CPU for market."""
    return parse_test_options(["--dataset_mode=market", "--gpu_id=-1", *arguments])


def run_python(*arguments: str, folder: Path = PROJECT, timeout: float = 600):
    """Run the interpreter with `arguments`; gives the finished process, its output as text."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_here(program: str, *arguments: str):
    """Run train.py or test.py within this process; gives what `run_python` gives, but sooner."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [program, *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(PROJECT / program), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def main_of(program: str) -> Callable[[], int | None]:
    """The `main` of a program's module or folder, such as script.metrics or train."""
    module = importlib.import_module(program)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{program}.__main__")
    return module.main


def save_file(content, path: Path) -> Path:
    """torch.save, the folder being made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def same(first, second) -> bool:
    """Whether two nested structures of tensors and values are bit for bit the same."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_one_line_error(process, *parts: str) -> None:
    """The program ended with code 2 and one line on stderr that has all `parts` in it."""
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1, process.stderr
    for part in parts:
        assert part in process.stderr
