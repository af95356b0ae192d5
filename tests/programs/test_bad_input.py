"""Bad input as a user meets it: exit code 2, one line that names it and the fix, nothing written.

What single readers refuse is in their own tests; docs/reliability.md has a table of all cases.
"""

import contextlib
import errno
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.helpers import PROJECT, assert_one_line_error, main_of, run_here, run_python
from tests.support.market_folder import POSE, Folder, annotation_row
from util.command_line import Parser, run_program
from util.device import choose_device
from util.errors import UserError

NAME = "p2.png"  # in pairs of rows 3 and 4, annotated in row 4


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program of script/ within this process, as `python -m` does."""
    output, errors = io.StringIO(), io.StringIO()
    main = main_of(name)
    with (
        mock.patch.object(sys, "argv", [name, *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as end,
    ):
        run_program(main)
    return subprocess.CompletedProcess(
        arguments, end.value.code or 0, output.getvalue(), errors.getvalue()
    )


def contents(root: Path) -> dict[str, bytes | None]:
    """Every file below a folder, and what is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


class Place:
    """A data set, an earlier run of the name that is used, and what the programs get."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = Folder(root / "market")
        self.run = root / "result" / "run"
        self.run.mkdir(parents=True)
        for name in ("latest_net_G.pth", "latest_net_D.pth", "loss_log.txt", "train_opt.txt"):
            (self.run / name).write_bytes(b"of an earlier run")
        data = [f"--dataroot={self.data.root}", "--phase=train", "--dataset_mode=market"]
        self.network = [
            *data, f"--checkpoints_dir={root / 'result'}", "--name=run", "--gpu_id=-1",
            "--nThreads=0",
        ]  # fmt: skip
        self.results = f"--results_dir={root / 'pictures'}"
        self.commands = {
            "train.py": [*self.network, "--display_id=0", "--vgg_weights=random", "--niter=1"],
            "test.py": [*self.network, self.results],
            "script.convert_to_tfrecord": [*data, f"--out={root / 'records'}"],
        }

    def refused(self, program: str, *arguments: str, parts: tuple[str, ...]) -> None:
        """The program ends as it should, and everything is as it was."""
        before = contents(self.root)
        run = run_here if program.endswith(".py") else run_script
        process = run(program, *self.commands.get(program, []), *arguments)
        assert_one_line_error(process, *parts)
        assert contents(self.root) == before


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def _annotate(data: Folder, row: str) -> None:
    rows = [annotation_row(name) for name in data.names]
    rows[2] = row
    data.write_annotation(rows)


HEADERS = {"pairs": "from,to", "annotation": "name:keypoints_y:keypoints_x"}
SPOILS = {
    "image missing": (
        lambda d: (d.images / NAME).unlink(),
        ("market-pairs-train.csv, row 3", f"'{NAME}' is not in", "--skip_bad_samples"),
    ),
    "17 key points": (
        lambda d: _annotate(d, annotation_row(NAME, y=POSE[:17])),
        ("annotation-train.csv, row 4", "17 values, 18 are needed", "--skip_bad_samples"),
    ),
    "broken JSON": (
        lambda d: _annotate(d, f"{NAME}: [1, 2: [3, 4]"),
        ("annotation-train.csv, row 4", "is not a JSON list", "--skip_bad_samples"),
    ),
    "no annotation": (
        lambda d: d.write_annotation([annotation_row(n) for n in d.names if n != NAME]),
        ("pairs-train.csv, row 3", f"'{NAME}' has no row in", "--skip_bad_samples"),
    ),
    "all key points missing": (
        lambda d: _annotate(d, annotation_row(NAME, y=[-1] * 18, x=[-1] * 18)),
        ("annotation-train.csv, row 4", "no key point is there", "--skip_bad_samples"),
    ),
    "a key point outside": (
        lambda d: _annotate(d, annotation_row(NAME, x=[70, *POSE[1:]])),
        ("annotation-train.csv", "row 4", NAME, "x = 70", "128×64", "--old_size",
         "--skip_bad_samples"),
    ),
}  # fmt: skip
for kind, header in HEADERS.items():
    table = f"market-{kind}-train.csv"

    def _write(data: Folder, text: str | None, kind: str = kind) -> None:
        path = getattr(data, kind)
        path.unlink() if text is None else path.write_text(text)

    other = header.replace(",", ";").replace(":", ",")
    rows = {"pairs": "p0.png;p1.png", "annotation": "p0.png,[1],[2]"}[kind]
    for name, text, part in (
        ("missing", None, "there is no such file"),
        ("empty", "", "is empty"),
        ("header only", f"{header}\n", "has a header but no rows"),
        ("wrong separator", f"{other}\n{rows}\n", f"it must be {header}"),
        ("wrong header", f"{header}x\nrow\n", f"it must be {header}"),
    ):
        spoil = lambda d, text=text, write=_write: write(d, text)  # noqa: E731
        SPOILS[f"{kind} {name}"] = (spoil, (table, part))


@pytest.mark.parametrize("program", ["train.py", "test.py", "script.convert_to_tfrecord"])
@pytest.mark.parametrize("kind", SPOILS)
def test_bad_data_set(place, program, kind):
    spoil, parts = SPOILS[kind]
    spoil(place.data)
    place.refused(program, parts=parts)


@pytest.mark.parametrize("program", ["train.py", "test.py", "script.convert_to_tfrecord"])
def test_missing_data_root(place, program):
    shutil.rmtree(place.data.root)
    place.refused(program, parts=("--dataroot", str(place.data.root), "dataset/README.md"))


@pytest.mark.parametrize(
    ("kind", "part"),
    [("cut off", "cannot be read as an image"), ("text", "cannot be read as an image"),
     ("16 bits", "8 bits a channel")],
)  # fmt: skip
def test_an_image_that_cannot_be_read_names_its_row(place, kind, part):
    path = place.data.images / NAME
    if kind == "16 bits":
        path.write_bytes(wide_png())
    else:
        path.write_bytes(path.read_bytes()[:3000] if kind == "cut off" else b"no image at all")
    fix = (str(path), part, "row 3 of", "market-pairs-train.csv", "--skip_bad_samples")
    place.refused("script.convert_to_tfrecord", parts=fix)


def wide_png() -> bytes:
    """A PNG of 16-bit RGB, which Pillow reads as 8-bit RGB and cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size, pixels = struct.pack(">IIBBBBB", 64, 128, 16, 2, 0, 0, 0), np.zeros((128, 64 * 6), "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    return content


@pytest.mark.parametrize(
    ("program", "arguments", "parts"),
    [
        ("train.py", ["--attn_layer=2,3"], ("--attn_layer", "--kernel_size")),
        ("train.py", ["--attn_layer=2", "--kernel_size=2=4"], ("--kernel_size", "odd")),
        ("train.py", ["--bathSize=4"], ("--bathSize", "did you mean --batchSize?")),
        ("train.py", ["--name=a/b"], ("--name", "'a/b'", "without slashes")),
        ("train.py", ["--display_server=http://far.example.org", "--start_dashboard"],
         ("--start_dashboard", "--display_server")),
        ("train.py", ["--continue_train", "--which_iter=9"], ("9_net_G.pth", "--which_iter")),
        ("test.py", ["--attn_layer=2", "--kernel_size=2=4"], ("--kernel_size", "odd")),
        ("test.py", ["--resultsdir=x"], ("--resultsdir", "did you mean --results_dir?")),
        ("test.py", ["--which_iter=9"], ("9_net_G.pth", "there are latest; ", "--which_iter")),
        ("test.py", [], ("latest_net_G.pth", "it is a text")),
        ("script.convert_to_tfrecord", ["--shards=9"], ("--shards 9", "only 5 pairs")),
        ("script.convert_to_tfrecord", ["--shard=1"], ("--shard", "did you mean --shards?")),
        ("script.import_pg2_checkpoint", ["x", "--name=a/b"], ("--name", "'a/b'")),
        ("script.import_pg2_checkpoint", ["{root}/x", "--name=new", "--checkpoints_dir={root}"],
         ("{root}/x.index",)),
        ("script.import_pg2_checkpoint", ["x", "--name=run", "--checkpoints_dir={root}/result"],
         ("result/run", "--overwrite")),
        ("script.resize_dataset", ["--dataset_mode=market", "--dataroot={root}/no"],
         ("{root}/no/test", "cannot list")),
        ("script.resize_dataset", ["--dataset_mode=nowhere"], ("--dataset_mode nowhere",)),
        ("script.make_synthetic_dataset", ["--layout=market", "--out={root}/market"],
         ("--out {root}/market", "not empty", "new folder")),
        ("script.make_synthetic_dataset", ["--layout=market", "--out={root}/n", "--identities=1"],
         ("--identities", "from 2 to 9999")),
        ("script.plot_losses", ["{root}/result/run", "--out={root}/x.png"], ("result/run",)),
        ("script.plot_losses", ["{root}/result/run", "--smoth=1"], ("did you mean --smooth?",)),
        ("script.compare_runs", ["{root}/result/run"], ("result/run",)),
        ("script.compare_runs", ["{root}", "--basline=a"], ("did you mean --baseline?",)),
        ("script.metrics", ["--gt_path={root}/no", "--distorated_path={root}/market/train",
                            "--output={root}/out"], ("--gt_path", "{root}/no")),
        ("script.metrics", ["--gt_path={root}/market/train", "--distorated_path={root}/no",
                            "--output={root}/out"], ("--distorated_path", "{root}/no")),
        ("script.metrics", ["--gt_path=x", "--distorated_path=x", "--devise=cpu"],
         ("--devise", "did you mean --device?")),
        ("script.generate_fashion_datasets", ["--dataroot={root}"], ("train.lst", "--dataroot")),
    ],
)  # fmt: skip
def test_bad_options(place, program, arguments, parts):
    root = str(place.root)
    place.refused(
        program,
        *[text.replace("{root}", root) for text in arguments],
        parts=tuple(part.replace("{root}", root) for part in parts),
    )


class Code:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_checkpoint_that_would_run_code(place, monkeypatch):
    monkeypatch.chdir(place.root)
    (place.run / "latest_net_G.pth").write_bytes(pickle.dumps({"weight": Code()}))
    for program, more in (("test.py", []), ("train.py", ["--continue_train"])):
        place.refused(program, *more, parts=("latest_net_G.pth", "more than tensors"))


def test_a_key_point_outside_can_be_skipped_but_a_wrong_frame_cannot(place):
    data = place.data
    _annotate(data, annotation_row(NAME, x=[70, *POSE[1:]]))
    dataset = data.dataset(skip_bad_samples=True)
    assert len(dataset) == 3 and len(dataset.bad_rows) == 2
    assert "row 4" in dataset.bad_rows[0] and "--old_size" in dataset.bad_rows[0]
    # Five of six: that is no slip of a row.
    rows = [annotation_row(n, x=[70, *POSE[1:]]) for n in data.names[:5]]
    data.write_annotation([*rows, annotation_row("p5.png")])
    for skip in (False, True):
        message = data.error(skip_bad_samples=skip)
        assert "5 of 6 images, such as row 2 ('p0.png'); name the frame" in message
        assert "--old_size height,width" in message and "--skip_bad_samples" not in message


@pytest.mark.parametrize(("x", "kept"), [(67, True), (100, False)])
def test_one_of_many_a_little_outside_is_kept_and_told(tmp_path, x, kept):
    """As in the published tables; far outside it is a mistake even so."""
    data = Folder(tmp_path / "market", count=120)
    rows = [annotation_row(name, y=[120, *POSE[1:]], x=[60, *POSE[1:]]) for name in data.names]
    rows[4] = annotation_row("p4.png", x=[x, *POSE[1:]])
    data.write_annotation(rows)
    if kept:
        (notice,) = data.dataset().notices
        assert "key points of 1 images lie a little outside" in notice
        assert "annotation-train.csv, row 6 ('p4.png')" in notice
        return
    message = data.error()
    assert "pairs-train.csv, row 5" in message and "row 6 ('p4.png')" in message
    assert "x = 100" in message and "--old_size" in message and "--skip_bad_samples" in message
    assert len(data.dataset(skip_bad_samples=True)) == 117


def test_a_frame_that_is_much_too_large_is_told(tmp_path):
    data = Folder(tmp_path / "market", count=100)
    rows = [annotation_row(name, y=[120, *POSE[1:]], x=[60, *POSE[1:]]) for name in data.names]
    data.write_annotation(rows)
    assert data.dataset().notices == []
    message = data.error(old_size=(256, 256))
    assert "reach x = 60, y = 120" in message and "the frame of 256×256" in message
    assert "--old_size 128,64" in message and "--trust_keypoints" in message
    assert len(data.dataset(old_size=(256, 256), trust_keypoints=True)) == 99
    # Nor do they fit the images: nothing says which frame is right.
    data.write_annotation([annotation_row(n, y=[52, *POSE[1:]]) for n in data.names])
    (notice,) = data.dataset(old_size=(256, 256)).notices
    assert "reach only x = 27, y = 52 in the frame of 256×256" in notice and "--old_size" in notice


def test_results_folder_that_cannot_be_written(place, monkeypatch):
    """By then the model is loaded, but neither results nor options are written."""
    monkeypatch.setattr("test.create_model", mock.MagicMock())
    (place.root / "pictures").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    place.refused("test.py", parts=("--results_dir", "pictures", "choose another"))
    monkeypatch.undo()
    monkeypatch.setattr("test.create_model", mock.MagicMock())
    (place.root / "pictures").rmdir()
    (place.root / "pictures").write_text("a file")
    place.refused("test.py", parts=("--results_dir", "pictures", "cannot be made"))


def test_checkpoints_folder_that_cannot_be_made(place):
    (place.root / "file").write_text("a file")
    before = contents(place.root)
    process = run_here(
        "train.py", *place.commands["train.py"], f"--checkpoints_dir={place.root / 'file'}"
    )
    assert_one_line_error(process, str(place.root / "file"))
    assert contents(place.root) == before


def test_all_that_asks_for_the_present_gpu_gets_the_chosen_one(monkeypatch):
    """Triton's kernels, the thread that pins batches, the question for bfloat16."""
    present = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", present.append)
    assert choose_device([1]) == torch.device("cuda", 1)
    assert present == [torch.device("cuda", 1)]


def test_a_gpu_that_is_absent_is_said_once_and_the_cpu_used(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    choose_device.__globals__["_say_once"].cache_clear()
    assert [choose_device([0]).type for _ in range(2)] == ["cpu", "cpu"]
    assert capsys.readouterr().out.count("no usable GPU: running on the CPU") == 1


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
         "out of GPU memory (2.00 GiB"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 80 bytes. Error code 12"), "(80 bytes"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
         "out of GPU memory"),
        (MemoryError("Unable to allocate 3.64 TiB for an array with shape (5,)"), "(3.64 TiB"),
        (MemoryError(), "out of memory"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_names_the_options(capsys, error, part):
    def main() -> int:
        parser = Parser()
        parser.add_argument("--batchSize")
        parser.add_argument("--load_size")
        parser.parse_all([])
        raise error

    with pytest.raises(SystemExit) as end:
        run_program(main)
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1
    assert line.startswith("error: ") and part in line
    assert "a smaller --batchSize, or a smaller --load_size" in line


def test_a_folder_of_another_user_is_told(tmp_path, capsys):
    """Tests run as root, too, who may enter it: so the system's answer is made here."""

    def main() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", tmp_path / "a\nb")

    with pytest.raises(SystemExit) as end:
        run_program(main)
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1
    assert r"a\nb: Permission denied; it, or a folder above it, is another user's" in line


def test_a_defect_keeps_its_traceback(capsys):
    def main() -> int:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError):
        run_program(main)


@pytest.mark.parametrize("debug", [False, True])
def test_debug_shows_where_the_error_arose(monkeypatch, capsys, debug):
    def main() -> int:
        Parser().parse_all()
        try:
            raise OSError("the cause that users need not see")
        except OSError:
            raise UserError("file.csv: is empty") from None

    monkeypatch.setattr("sys.argv", ["program", *(["--debug"] if debug else [])])
    with pytest.raises(SystemExit) as end:
        run_program(main)
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and lines[-1] == "error: file.csv: is empty"
    assert (len(lines) > 1) == debug
    assert any("the cause that" in line for line in lines) == debug


@pytest.mark.parametrize(
    "program",
    ["compare_runs", "convert_to_tfrecord", "dashboard", "demo", "import_pg2_checkpoint",
     "generate_fashion_datasets", "make_synthetic_dataset", "metrics", "plot_losses",
     "resize_dataset"],
)  # fmt: skip
def test_programs_import_pytorch_only_when_they_run(program):
    """So that Ctrl-C in these seconds is `run_program`'s."""
    code = (
        "import runpy, sys; from util import command_line\n"
        "def told(*_): sys.exit('torch' if sys.modules.get('torch') else 'no torch')\n"
        "command_line.run_program = told\n"
        f"runpy.run_module('script.{program}', run_name='__main__')"
    )
    assert run_python("-c", code, timeout=60).stderr == "no torch\n"


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_ctrl_c_at_the_start_is_one_line(seconds):
    process = subprocess.Popen(
        [sys.executable, "test.py", "--dataset_mode=market", "--dataroot=no", "--debug"],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 2:  # a fast machine was done before
        assert "--dataroot" in errors
        return
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_real_process_with_a_bad_table(place):
    _annotate(place.data, annotation_row(NAME, y=POSE[:17]))
    before = contents(place.root)
    process = run_python("train.py", *place.commands["train.py"], timeout=120)
    assert_one_line_error(process, "annotation-train.csv, row 4", "17 values")
    assert contents(place.root) == before
