"""Programs print on terminals of every encoding, and write their files first."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from script.metrics.__main__ import main as score
from tests.support.helpers import PROJECT
from util.command_line import run_program


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def scored(tmp_path):
    """A result whose name no encoding has, and the command line that scores it."""
    name = "ł\udcff" if sys.platform == "linux" else "ł"  # Windows and macOS have no such names
    pixels = np.zeros((64, 64, 3), np.uint8)
    for folder, file in (("truth", f"{name}.png"), ("results", f"a_2_{name}_vis.png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / file)
    Image.fromarray(pixels).save(tmp_path / "results" / f"a_2_{name}_gone_vis.png")
    arguments = [
        f"--gt_path={tmp_path / 'truth'}", f"--distorated_path={tmp_path / 'results'}",
        "--figures=SSIM,L1", f"--output={tmp_path / 'out'}", "--name=x", "--workers=0",
        "--device=cpu",
    ]  # fmt: skip
    return tmp_path, arguments


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8", "cp437"])
def test_every_encoding_takes_every_text(scored, encoding, monkeypatch):
    folder, arguments = scored
    output, errors = Terminal(encoding), Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(SystemExit) as end:
        run_program(score, arguments)
    assert end.value.code == 1  # one result has no ground truth
    arrow = "↑" if encoding == "utf-8" else "^"
    assert f"SSIM {arrow}" in output.text()
    assert "\\u0142" in output.text() or "ł" in output.text()
    report = folder / "out" / "x_metrics"
    assert json.loads((report / "metrics.json").read_text("utf-8"))["figures"]["SSIM"]


def test_a_message_is_one_line_on_a_terminal_of_ascii(monkeypatch):
    errors = Terminal("ascii")
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(SystemExit) as end:
        run_program(score, ["--gt_path=ł…", "--distorated_path=ł…"])
    assert end.value.code == 2
    assert errors.text() == "error: --distorated_path: there is no folder \\u0142...\n"


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_the_report_is_written_before_anything_is_printed(scored, monkeypatch):
    folder, arguments = scored
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        score([*arguments, "--gallery=1"])
    report = folder / "out" / "x_metrics"
    assert (report / "gallery.html").is_file()
    with open(report / "metrics.csv", newline="", errors="surrogateescape") as file:
        assert len(list(csv.DictReader(file))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 there")
def test_names_of_files_that_the_locale_cannot_read(scored):
    """They would be missing for every table."""
    folder, _ = scored
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "script.resize_dataset", "--dataset_mode=market"),
            *(f"--dataroot={folder}", "--phases=truth", "--size=8,8"),
        ],
        cwd=PROJECT,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f"error: {folder / 'truth'}: " in ended.stderr
    assert "for ascii here" in ended.stderr and "set PYTHONUTF8=1" in ended.stderr
    assert not (folder / "truth_8").exists()


PROGRAM = """
import sys
from util.command_line import run_program
from util.errors import UserError

def main():
    print("line\\n" * 100_000, flush=True)
    with open(sys.argv[1], "w") as file:
        print("warning", file=sys.stderr, flush=True)
        file.write("written")
    print("more")  # is in the buffer when Python ends
    if sys.argv[2] == "2":
        raise UserError("bad")
    return int(sys.argv[2])

run_program(main)
"""


def close(descriptor):
    os.close(descriptor)


def fill(descriptor):
    os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def leave(descriptor):
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, descriptor)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("spoil", [close, fill, leave])
@pytest.mark.parametrize("descriptors", [(1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("code", [0, 2])
def test_output_that_nobody_takes_changes_nothing_else(spoil, descriptors, code, tmp_path):
    """`>&-`, a full disk under the output, `| head`: quiet, with the same files and exit code."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "file"), str(code)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=lambda: [spoil(descriptor) for descriptor in descriptors],
        timeout=60,
        check=False,
    )
    assert ended.returncode == code
    assert (tmp_path / "file").read_text() == "written"
    kept = "warning\n" + ("error: bad\n" if code == 2 else "")
    assert ended.stderr == ("" if 2 in descriptors else kept)
    assert ended.stdout == ("" if 1 in descriptors else "line\n" * 100_000 + "\nmore\n")
