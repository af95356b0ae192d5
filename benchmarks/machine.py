"""The machine and the versions that a benchmark's figures belong to."""

import argparse
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from util.precision import keep_freed_memory


def add_malloc_option(parser: argparse.ArgumentParser) -> None:
    """Add --malloc; a measuring process gives its value to `set_up_malloc`."""
    parser.add_argument(
        "--malloc",
        choices=("kept", "default"),
        default="kept",
        help="kept: on a CPU freed memory stays in the process, as in train.py and test.py",
    )


def set_up_malloc(choice: str) -> None:
    """Have this process allocate as --malloc says."""
    if choice == "kept":
        keep_freed_memory()


def describe_machine(packages: Iterable[str]) -> str:
    """Processor, cores, threads, Python and the versions of `packages`, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{_processor()}, {os.cpu_count()} logical cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; "
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
