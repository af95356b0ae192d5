"""The benchmarks of speed run as a user runs them, at their smallest.

That of data loading is with what it measures: test_data_loading.
"""

import re
import subprocess
import sys

from tests.support.helpers import PROJECT


def rows_of(*arguments):
    """The cells of the tables that a benchmark prints, by the first cell of their row."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in re.findall(r"^\| (.+) \|$", done.stdout, re.MULTILINE):
        name, *cells = line.split(" | ")
        rows.setdefault(name, []).append(cells)
    return rows


def test_local_attention():
    rows = rows_of(
        "benchmarks.local_attention", "--case", "1x128x32x16x3", "--dtype", "fp32",
        "--method", "direct", "floor", "--seconds", "0.01", "--rounds", "1",
    )  # fmt: skip
    for name in ("operator", "direct", "floor"):
        ((forward, ratio, _, _, both, _, _, _),) = rows[name]
        assert 0 < float(forward.split()[0]) < float(both.split()[0])
        assert float(ratio) > 0 and (ratio == "1.00" or name != "operator")


def test_busy_machine():
    rows = rows_of(
        "benchmarks.busy_machine", "--stage", "poseflownet", "--batchSize", "1", "--load", "1",
        "--rows", "OpenMP's own", "programs", "--warm_up", "0", "--steps", "2", "--rounds", "1",
    )  # fmt: skip
    for name in ("OpenMP's own", "programs"):
        ((step, ratio, processor),) = rows[name]
        assert float(step.split()[0]) > 0 and float(processor) > 0
        assert float(ratio) > 0 and (ratio == "1.00" or name != "OpenMP's own")


def test_training_step():
    rows = rows_of(
        "benchmarks.training_step", "--stage", "poseflownet", "--layout", "market",
        "--batchSize", "1", "--rows", "direct", "direct kept", "default", "--warm_up", "0",
        "--steps", "1", "--rounds", "1",
    )  # fmt: skip
    for name in ("direct", "direct kept", "default"):
        (_, ratio, peak, waits, _), parts = rows[name]
        assert waits == "-"  # there is no GPU to wait for
        assert float(ratio) > 0 and (ratio == "1.00" or name != "direct")
        assert float(peak) > 0
        assert sum(float(part) for part in parts if part) > 0
        # Nothing of it is hidden: what is named makes most of the step.
        assert float(parts[-1]) < 0.5 * sum(float(part) for part in parts if part)


def test_training_step_of_pg2_has_the_rows_that_pg2_has():
    rows = rows_of(
        "benchmarks.training_step", "--stage", "pg2 coarse", "--layout", "market", "--no_parts",
        "--batchSize", "1", "--rows", "default", "unfused", "--warm_up", "0", "--steps", "1",
        "--rounds", "1",
    )  # fmt: skip
    assert float(rows["default"][0][2]) > 0
    assert "unfused" not in rows
