"""The demo, small, as a user runs it, in a folder of its own."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.helpers import PROJECT, run_python

NEEDED = ("data", "models", "options", "script", "util", "train.py", "test.py")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for name in NEEDED:
        (folder / name).symlink_to(PROJECT / name)
    return folder, run_python(
        "-m", "script.demo", "--identities=5", "--poses_per_identity=2", "--batchSize=2",
        "--stage1_iterations=2", "--stage2_iterations=2", "--gpu_id=-1", folder=folder,
    )  # fmt: skip


def test_it_shows_every_command_and_a_score_table(demo):
    folder, process = demo
    assert process.returncode == 0, process.stdout + process.stderr
    commands = re.findall(r"^\$ python (\S+(?: script\.\w+)?)", process.stdout, re.MULTILINE)
    assert commands == ["-m script.make_synthetic_dataset", "train.py", "train.py", "test.py"]
    rows = [line.split("|") for line in process.stdout.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[1:]] == [
        "copy of the source (zero flow)",
        "stage 1: source warped by the flow",
        "stage 2: generated",
    ]
    scores = np.array([[float(value) for value in row[2:5]] for row in rows[1:]])
    assert (scores[:, 0] > 0).all() and (scores[:, 0] < 1).all() and (scores[:, 2] > 0).all()
    assert (Path(folder) / "eval_results/demo/scores.md").read_text().startswith("| | L1 |")


def test_its_sheet_has_a_row_per_pair(demo):
    folder, process = demo
    assert "Look at eval_results/demo/sheet.png" in process.stdout
    with Image.open(folder / "eval_results/demo/sheet.png") as sheet:
        width, height = sheet.size
    assert width == 8 * (2 * 64 + 2)  # 5 pictures; warped source, flow and mask at 1/4
    assert height == 14 + 2 * (2 * 128 + 2)  # one test identity of two poses: two pairs


def test_a_failing_step_stops_it_with_its_name(demo):
    folder, _ = demo
    (folder / "dataset" / "foreign").mkdir(parents=True)
    process = run_python("-m", "script.demo", "--identities=1", folder=folder)
    assert process.returncode == 2
    assert "the demo stopped at 'synthetic people with known flow'" in process.stderr
    assert "Traceback" not in process.stderr
