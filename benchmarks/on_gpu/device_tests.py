"""Part 1: the tests marked gpu, then the operator's others; pytest loads this file as a plugin."""

import importlib.util
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.on_gpu.report import Job, last_line, program

if TYPE_CHECKING:  # the other parts run without it
    import pytest

OPERATOR = ("test_gather_sum.py", "test_local_attention.py")
RESULTS, IS_TINY = "ON_GPU_RESULTS", "ON_GPU_TINY"  # variables of the environment
WORKERS = 8  # processes that share the GPU
WORKER = "PYTEST_XDIST_WORKER"  # in the environment of such a process


def pytest_collection_modifyitems(config: "pytest.Config", items: "list[pytest.Item]") -> None:
    """Keep the tests of this part; those on the GPU first, of these the ones that compile last."""

    def rank(item: "pytest.Item") -> int | None:
        if item.get_closest_marker("gpu"):
            return int("compile" in repr(getattr(item, "callspec", "")))
        if os.environ.get(IS_TINY):
            return 2 if "by_hand" in item.name else None
        return 2 if item.path.name in OPERATOR else None

    left_out = [item for item in items if rank(item) is None]
    items[:] = sorted((item for item in items if rank(item) is not None), key=rank)
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_logreport(report: "pytest.TestReport") -> None:
    """Note a test's end, or what it failed in."""
    if report.when == "call" or report.outcome != "passed":
        _note(report)


def pytest_collectreport(report: "pytest.CollectReport") -> None:
    """Note a file that cannot be collected, or is left out as a whole."""
    if report.outcome != "passed":
        _note(report)


def _note(report: "pytest.TestReport | pytest.CollectReport") -> None:
    if os.environ.get(WORKER):  # the process that started it hears of it, too
        return
    lines = str(report.longrepr or "").splitlines() if report.outcome == "failed" else []
    lines = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")] or lines
    result = {
        "test": report.nodeid.removeprefix("tests/"),
        "outcome": report.outcome,
        "seconds": getattr(report, "duration", 0.0),
        "reason": lines[0] if lines else "",
    }
    with open(os.environ[RESULTS], "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def run(job: Job) -> None:
    """Run the tests and write a row per test function."""
    results = job.scratch / "tests.jsonl"
    tests = sorted(Path("tests").rglob("test_*.py"))
    files = [  # others may import what is not here
        str(path)
        for path in tests
        if path.name in OPERATOR or "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    arguments = ["-m", "pytest", "-p", "benchmarks.on_gpu.device_tests", "-v", *files]
    # Whoever runs this may be a worker; the new pytest is none.
    environment = {RESULTS: str(results), IS_TINY: "1" if job.is_tiny else "", WORKER: ""}
    if job.device == "cuda" and importlib.util.find_spec("xdist"):
        # They wait for compilers and for each other's processes most of the time.
        arguments += ["-n", str(WORKERS), "--dist", "worksteal"]
        environment["OMP_NUM_THREADS"] = "2"
    end = ""
    try:
        with program(arguments, job.log, environment) as process:
            try:
                code = process.wait(max(0.0, job.seconds_left))
                if code not in (0, 1):
                    end = f"pytest: exit code {code}: {last_line(job.log)}"
            except subprocess.TimeoutExpired:
                end = "pytest: time limit; tests without a row above had not ended"
    finally:  # what ended before a Ctrl-C counts, too
        _write_table(job, results)
    if end:
        job.report.failure("all", "", "", "", "", end)


def _write_table(job: Job, results: Path) -> None:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    groups: dict[str, list[dict]] = {}
    for result in map(json.loads, lines):
        groups.setdefault(result["test"].partition("[")[0], []).append(result)
    job.report.table(
        "Tests", ("test", "passed", "failed", "skipped", "seconds, all together", "what failed")
    )
    for test, found in groups.items():
        counts = Counter(result["outcome"] for result in found)
        seconds = sum(result["seconds"] for result in found)
        cells = [test, *(str(counts[key]) for key in ("passed", "failed", "skipped"))]
        cells.append(f"{seconds:.1f} s")
        if counts["failed"]:
            first = next(result for result in found if result["outcome"] == "failed")
            job.report.failure(*cells, f"{first['test'].partition('::')[2]}: {first['reason']}")
        else:
            job.report.row(*cells)
            job.report.done += counts["passed"]
