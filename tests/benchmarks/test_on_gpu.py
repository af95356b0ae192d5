"""benchmarks/on_gpu.sh, rehearsed on the CPU without what a machine lent for its GPU lacks."""

import contextlib
import operator
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import training_step
from benchmarks.on_gpu import __main__ as on_gpu
from benchmarks.on_gpu import device_tests, speed
from benchmarks.on_gpu.report import Child, FailedError, Job, Report
from benchmarks.training_step import count_waits, train_arguments
from options.base_options import parse_train_options
from tests.support.helpers import PROJECT, assert_one_line_error
from util.command_line import run_program
from util.errors import UserError

# Found neither by import nor by find_spec, as if it had never been installed.
WITHOUT = """
from importlib.machinery import PathFinder

MISSING = {
    "visdom", "lpips", "torch_fidelity", "tornado", "google_crc32c", "selenium", "pandas", "ruff",
}
find_spec = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None:
    None if name.partition(".")[0] in MISSING else find_spec(name, path, target)
)
"""
REHEARSAL = ["--device", "cpu", "--tiny"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables under which Python lacks those packages."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(WITHOUT)
    scratch = tmp_path_factory.mktemp("scratch")
    return {
        **os.environ, "PYTHONPATH": str(folder), "PYTHON": sys.executable, "TMPDIR": str(scratch),
    }  # fmt: skip


def command(*arguments):
    return ["bash", str(PROJECT / "benchmarks" / "on_gpu.sh"), *map(str, arguments)]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory, environment):
    """Its folder, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    done = subprocess.run(
        command(out, *REHEARSAL), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr + (out / "log.txt").read_text()
    return out, done.stdout


def rows_of(text):
    """Cells of all tables, by the first cell of the row; of several such rows, the last one's."""
    cells = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: rest for name, *rest in cells}


def test_its_files_can_come_back_and_hold_what_was_printed(rehearsal):
    out, printed = rehearsal
    names = {"part1.md", "part2.md", "part3.md", "curves.png", "pictures.png", "log.txt"}
    assert {path.name for path in out.iterdir()} == names
    parts = [(out / f"part{number}.md").read_text() for number in (1, 2, 3)]
    assert printed == "".join(parts)
    assert all(f"torch {torch.__version__.partition('+')[0]}" in part for part in parts)
    assert "FAILED" not in printed


def test_the_environment_lacks_what_it_should(environment):
    code = "import importlib.util as u; print(u.find_spec('lpips')); import lpips"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "None\n"
    assert "ModuleNotFoundError: No module named 'lpips'" in done.stderr


def test_programs_name_a_wrong_option_there_too(environment):
    """To say whose it is, they look at every data set, also at those of TensorFlow's files."""
    done = subprocess.run(
        [sys.executable, "train.py", "--nonsense"],
        cwd=PROJECT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_one_line_error(done, "--nonsense")


def test_part_1_finds_every_test_on_the_gpu(rehearsal):
    rows = rows_of((rehearsal[0] / "part1.md").read_text())
    for path in (PROJECT / "tests").rglob("test_*.py"):
        if "mark.gpu" in path.read_text() and path != Path(__file__):
            found = [cells for name, cells in rows.items() if path.name in name]
            assert any(int(cells[2]) for cells in found), f"{path.name}: none was skipped"
    passed = rows["models/test_gather_sum.py::test_weighted_gather_by_hand"]
    assert passed[:3] == ["1", "0", "0"]


def test_part_2_measures_steps_pictures_and_operations(rehearsal):
    text = (rehearsal[0] / "part2.md").read_text()
    rows = rows_of(text)
    for stage in ("pose", "poseflownet", "pg2 refined"):
        batch, _, milliseconds, rate, waits, peak, first = rows[stage]
        assert float(rate) == pytest.approx(
            1000 * float(batch) / float(milliseconds.split()[0]), rel=0.01, abs=0.051
        )
        assert (waits, peak) == ("-", "-")  # a CPU has neither
        assert float(first) > 0
    for batch in ("1", "8"):
        rate, milliseconds, _ = rows[batch]
        assert float(rate) * float(milliseconds) == pytest.approx(1000, rel=0.05)
    for name in (
        "instance norm, PyTorch's", "instance norm, blocks.InstanceNorm", "pad_border by 2",
        "weighted_gather, 16 terms",
    ):  # fmt: skip
        _, _, forward, both, _, layout = rows[name]
        assert 0 < float(forward) < float(both)
        assert layout in ("channels_last", "contiguous_format")
    assert float(rows["local attention, k = 3"][2]) > 0


def test_part_3_trains_and_shows_pictures(rehearsal):
    out, _ = rehearsal
    rows = rows_of((out / "part3.md").read_text())
    for stage in ("stage 1 (--model=poseflownet)", "stage 2 (--model=pose)"):
        (result,) = rows[stage]
        assert int(result.split()[0]) >= 3
    assert rows["test.py, batch 1"][0].startswith("2 pictures, ")
    assert float(rows["stage 2: generated"][0]) < 1
    with Image.open(out / "pictures.png") as picture:
        # 5 pictures; warped source, flow and mask at 1/8 and 1/4; two pairs.
        assert picture.size == (11 * (64 + 2), 14 + 2 * (64 + 2))
    with Image.open(out / "curves.png") as curves:
        assert np.asarray(curves.convert("L")).min() < 100


def test_it_is_stopped_without_a_trace_but_its_tables(environment, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        command(tmp_path, *REHEARSAL, "--parts", "2,3"), env={**environment, "TMPDIR": str(scratch)}
    )
    table = tmp_path / "part2.md"
    while not (table.exists() and "### Data" in table.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "### Data" in table.read_text()
    assert list(scratch.iterdir()) == []
    commands = [path.read_bytes() for path in _existing(Path("/proc").glob("[0-9]*/cmdline"))]
    assert not any(bytes(scratch) in line for line in commands)


def _existing(paths):
    return (path for path in paths if path.exists())


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Its main function, without data and with parts that the test gives."""
    monkeypatch.setattr(on_gpu, "_write_people", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(on_gpu.signal, "signal", lambda *_: None)

    def run(*parts, arguments=()):
        modules = dict(zip(("device_tests", "speed", "training"), parts, strict=True))
        monkeypatch.setattr(
            on_gpu.importlib, "import_module", lambda name: modules[name.rpartition(".")[2]]
        )
        return on_gpu.main([str(tmp_path), *REHEARSAL, *arguments])

    return run


class Part:
    def __init__(self, run):
        self.run = run


def works(job):
    job.report.table("Works", ("what", "result"))
    job.report.attempt(["one"], lambda: [f"{job.seconds_left:.0f}"])


def breaks(job):
    works(job)
    raise ValueError("a defect | of two\nlines")


def fails_in_a_row(job):
    job.report.table("Fails", ("what", "result"))
    job.report.attempt(["one"], lambda: [1 / 0])
    job.report.attempt(["two"], lambda: ["fine"])


def test_a_part_that_fails_does_not_lose_the_others(main, tmp_path, capsys):
    assert main(Part(breaks), Part(fails_in_a_row), Part(works)) == 1
    first, second, third = ((tmp_path / f"part{n}.md").read_text() for n in (1, 2, 3))
    assert "| FAILED: ValueError: a defect / of two lines |" in first
    assert "one" in rows_of(first)
    assert rows_of(second)["one"] == ["FAILED: division by zero"]
    assert rows_of(second)["two"] == ["fine"]
    assert "FAILED" not in third
    assert "part 1, 2;" in capsys.readouterr().err
    assert "ValueError" in (tmp_path / "log.txt").read_text()


def test_the_parts_share_the_time(main, tmp_path):
    assert main(*[Part(works)] * 3) == 0
    limits = [
        int(rows_of((tmp_path / f"part{n}.md").read_text())["one"][0]) for n in (1, 2, 3)
    ]  # of nine minutes, of which the parts take next to none
    assert limits == [pytest.approx(seconds, abs=2) for seconds in (120, 231, 540)]
    assert main(None, Part(works), None, arguments=["--parts=2", "--minutes=1"]) == 0
    assert 58 <= int(rows_of((tmp_path / "part2.md").read_text())["one"][0]) <= 60


def test_a_part_without_a_result_has_failed(main):
    assert main(Part(lambda job: None), None, None, arguments=["--parts=1"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--parts=1,4"], ["--parts="], ["--minutes=0"], ["--vgg=missing.pth"], ["--device=tpu"]],
)
def test_bad_options(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_program(on_gpu.main, [str(tmp_path / "out"), *REHEARSAL, *arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert arguments[0].partition("=")[0] in error
    assert not (tmp_path / "out").exists()


def test_a_bad_option_by_the_shell(environment, tmp_path):
    done = subprocess.run(
        command(tmp_path, "--part=1"), env=environment, capture_output=True, text=True, check=False
    )
    assert_one_line_error(done, "--part", "--parts")


def test_a_child_outlives_its_failures(tmp_path):
    log = tmp_path / "log.txt"
    child = Child(log)
    try:
        first = child.call(60, os.getpid)
        assert child.call(60, operator.truediv, 6, 2) == 3
        assert child.call(60, os.getpid) == first
        for function, arguments, reason in (
            (operator.truediv, (1, 0), "ZeroDivisionError: division by zero"),
            (os._exit, (7,), r"died \(exit code 7\)"),
        ):
            with pytest.raises(FailedError, match=reason):
                child.call(60, function, *arguments)
        with pytest.raises(FailedError, match="time limit of 1 s"):
            child.call(1, time.sleep, 60)
        assert child.call(60, operator.truediv, 6, 3) == 2
    finally:
        child.close()
    assert "line" in log.read_text()  # of the traceback


FAILING = """
import time, pytest

@pytest.mark.<gpu>
@pytest.mark.parametrize("k", [1, 2])
def test_a(k):
    assert k == 1

def test_plain():
    pass

@pytest.mark.<gpu>
@pytest.mark.parametrize("arguments", ["--compile"])
def test_slow(arguments):
    time.sleep(600)
""".replace("<gpu>", "gpu")


def test_tests_that_fail_or_take_too_long_are_named(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_speed.py").write_text(FAILING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    table = tmp_path / "part1.md"
    report = Report(table)
    job = Job(
        report, time.monotonic() + 12, tmp_path, tmp_path, tmp_path / "log.txt", None, "cpu",
        False, "random",
    )  # fmt: skip
    device_tests.run(job)
    report.close()
    rows = rows_of(table.read_text())
    assert rows["test_speed.py::test_a"][:3] == ["1", "1", "0"]
    assert rows["test_speed.py::test_a"][4] == "FAILED: test_a[2]: assert 2 == 1"
    assert "test_speed.py::test_plain" not in rows
    assert "test_speed.py::test_slow" not in rows
    assert "time limit" in rows["all"][4]
    assert (report.done, report.failed) == (0, 2)


def test_a_row_has_failed_only_if_its_own_time_was_too_long(tmp_path):
    child = Child(tmp_path / "log.txt")
    report = Report(tmp_path / "part2.md")
    job = Job(
        report, time.monotonic() + 2, tmp_path, tmp_path, tmp_path / "log.txt", child, "cpu",
        False, "random",
    )  # fmt: skip
    sleep = partial(time.sleep, 60)
    report.table("Rows", ("what", "result"))
    try:
        speed._write_rows(job, [(["hangs"], sleep)], longest=1)
        speed._write_rows(job, [(["cut off"], sleep), (["later"], sleep)])
    finally:
        child.close()
        report.close()
    rows = rows_of((tmp_path / "part2.md").read_text())
    assert rows["hangs"] == ["FAILED: time limit of 1 s"]
    assert rows["cut off"][0].startswith("not measured: the part ended")
    assert rows["later"] == ["not measured: no time left"]
    assert report.failed == 1


def test_rows_of_part_2_are_ones_that_can_be_run():
    steps = [*speed.STEPS, *speed.MORE_STEPS, *speed.COMPILED_STEPS]
    assert len(set(steps)) == len(steps)
    for stage, batch, row in steps:
        arguments = train_arguments(stage, row, "fashion", Path("data"), batch, "0")
        assert parse_train_options(arguments).batchSize == batch


def test_waits_are_counted(monkeypatch):
    """With PyTorch's warning, word for word, and others between."""

    class Model:
        device = torch.device("cuda")

        def training_step(self, batch, iteration):
            for text in ["called a synchronizing CUDA operation"] * batch + ["something else"]:
                warnings.warn(text, stacklevel=1)

    modes = []
    monkeypatch.setattr(training_step.torch.cuda, "set_sync_debug_mode", modes.append)
    assert count_waits(Model(), [3, 4]) == 3.5
    assert modes == ["warn", "default"]
    model = Model()
    model.device = torch.device("cpu")
    assert count_waits(model, [3]) is None


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device: there is no usable GPU"):
        on_gpu.main([str(tmp_path)])
