"""Kill a program at random moments, again and again: python -m tests.support.kills.

The training saves after every iteration. After each kill -9 its checkpoint is compared, bit for
bit, with that of the same iteration of a run that nobody disturbed, and the run is continued. The
plain network files must be those of one iteration, which may be an earlier one. Every other kill is
aimed at a moment within a save.

With --program another one writes one of two outputs, in turn over the other and into no folder.
After each kill whatever a reader takes for whole must be, bit for bit, what an undisturbed run
writes; then the program is started again, and must come to the same end as if nothing had been.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

import torch

from data.tfrecord_dataset import TFRecordDataset
from models import model_names
from models.checkpoints import save_model
from options.base_options import parse_test_options, parse_train_options
from script.compare_runs.runs import read_run
from script.convert_to_tfrecord.__main__ import main as convert_to_tfrecord
from script.make_synthetic_dataset.__main__ import main as make_synthetic_dataset
from script.metrics.__main__ import main as metrics
from script.resize_dataset import main as resize_dataset
from test import generate
from tests.support.helpers import same
from train import Trainer
from util.argument_types import non_negative_int, positive_int, real_number
from util.checkpoints import load_training_state, read_state_dict
from util.command_line import Parser
from util.errors import UserError
from util.json_files import parse_json
from util.result_table import read_table

COMMON = [
    "--dataset_mode=market", "--gpu_id=-1", "--display_id=0", "--name=killed", "--batchSize=2",
    "--nThreads=0", "--no_html", "--eval_iters_freq=0", "--print_freq=1", "--save_latest_freq=1",
]  # fmt: skip
MODELS = {
    "pg2": ["--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--lr=0.001", "--stage1_steps=12"],
    "poseflownet": ["--vgg_weights=random"],
    "pose": ["--vgg_weights=random"],
}


def train(arguments: list[str], marks: int | None = None) -> int:
    """Train, writing `b<iteration>` before and `e<iteration>` after every save to a pipe."""

    def marked_save(model: object, folder: Path, label: str, iteration: int, *rest: object) -> None:
        if marks is not None:
            os.write(marks, f"b{iteration}\n".encode())
        save_model(model, folder, label, iteration, *rest)
        if marks is not None:
            os.write(marks, f"e{iteration}\n".encode())

    with mock.patch("models.checkpoints.save_model", marked_save):
        return Trainer(parse_train_options(arguments)).run()


def plain_files(folder: Path, label: str, networks: Iterable[str]) -> dict[str, dict]:
    """The plain network files that are there, by the network's key."""
    paths = {key: folder / f"{label}_net_{key}.pth" for key in networks}
    return {key: read_state_dict(path) for key, path in paths.items() if path.exists()}


def started(action: Callable[[], int]) -> int:
    """Do something in a forked process, without its output; gives the process's number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        code = action()
    except UserError:
        code = 2
    finally:
        os._exit(code)


def run_and_kill(
    arguments: list[str], rng: random.Random, aim_at_save: bool, longest_wait: float
) -> tuple[list[str], bool]:
    """Train in a forked process and kill it; gives the marks and whether it was killed in time."""
    reading, writing = os.pipe()
    child = started(lambda: train(arguments, writing))
    os.close(writing)
    text = b""
    if aim_at_save:
        wanted, began, duration = rng.randint(2, 4), 0.0, 0.0
        while text.count(b"b") < wanted and (part := os.read(reading, 4096)):
            now = time.monotonic()
            began, duration = (now, duration) if b"b" in part else (began, now - began)
            text += part
        time.sleep(rng.uniform(0, duration))  # the save will take about as long as the last one
    else:
        time.sleep(rng.uniform(0.05, longest_wait))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while part := os.read(reading, 4096):
        text += part
    os.close(reading)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the training ended with code {os.WEXITSTATUS(status)}")
    return text.decode().split(), os.WIFSIGNALED(status)


Files = dict[str, bytes]  # by path below the output's folder


@dataclass(frozen=True)
class Program:
    """A program that is killed.

    Attributes:
        run: gives its exit code.
        out: folder of its output.
        outputs: arguments for either output.
        check: given that folder, what is there and either whole output, asserts that what a reader
            takes is whole; gives whether a reader takes anything.
    """

    run: Callable[[list[str]], int]
    out: Path
    outputs: tuple[list[str], list[str]]
    check: Callable[[Path, Files, list[Files]], bool]


def files_below(folder: Path) -> Files:
    """All files that have their names, without the time in a report."""
    paths = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    return {
        str(path.relative_to(folder)): re.sub(rb'"created": ".*?"', b"", path.read_bytes())
        for path in paths
    }


def check_all_or_nothing(read: Callable[[Path], object], pattern: str = "*") -> Callable[..., bool]:
    """A check for files, named by a pattern, that a reader takes as one: then they are of one."""

    def chosen(files: Files) -> Files:
        return {name: content for name, content in files.items() if fnmatch(name, pattern)}

    def check(folder: Path, found: Files, whole: list[Files]) -> bool:
        try:
            read(folder)
        except UserError:
            return False
        assert chosen(found) in map(chosen, whole), "two outputs, or half of one, are read as one"
        return True

    return check


def check_table(folder: Path, found: Files, whole: list[Files]) -> bool:
    """Of test.py's results those with a row count."""
    rows = read_table(folder) or {}
    for row in rows.values():
        output = whole[parse_json(row.options)["jpeg_quality"] == 90]
        assert found[row.result] == output[row.result], row.result
    return bool(rows)


def check_each(folder: Path, found: Files, whole: list[Files]) -> bool:
    """Every file counts by itself."""
    for name, content in found.items():
        assert content == whole[0][name], name
    return bool(found)


def read_tables(folder: Path) -> None:
    """What tells that a synthetic data set is whole."""
    if len(list(folder.glob("*.csv"))) < 4:
        raise UserError("tables are missing")


def programs(root: Path) -> dict[str, Program]:
    """All programs; their input and output lie in `root`."""
    data, out = root / "data", root / "out"
    market = ["--dataset_mode=market", f"--dataroot={data}"]
    convert = [*market, f"--out={out}", "--shards=3"]
    run_test = [
        *market, "--name=killed", "--model=pg2", "--gpu_id=-1", f"--checkpoints_dir={root}/whole",
        f"--results_dir={out}", "--nThreads=0", "--jpeg_quality",
    ]  # fmt: skip
    score = [
        f"--gt_path={data}/test", f"--distorated_path={root}/results", f"--output={out}",
        "--name=./mine", "--workers=0", "--device=cpu", "--figures",
    ]  # fmt: skip
    resize = [*market, "--phases=train", "--size=256,128", "--workers=2"]
    make = ["--layout=market", f"--out={out}", "--identities=3", "--no_flow", "--workers=1"]
    return {
        "test": Program(
            lambda arguments: generate(parse_test_options(arguments)),
            out,
            ([*run_test, "75"], [*run_test, "90"]),
            check_table,
        ),
        "metrics": Program(
            metrics,
            out,
            ([*score, "SSIM,L1"], [*score, "SSIM,PSNR"]),
            check_all_or_nothing(
                lambda folder: read_run(folder / "mine_metrics"), "mine_metrics/*"
            ),
        ),
        "convert_to_tfrecord": Program(
            convert_to_tfrecord,
            out,
            (convert, [*convert, "--max_dataset_size=20"]),
            check_all_or_nothing(lambda folder: TFRecordDataset(folder, "train")),
        ),
        "resize_dataset": Program(
            resize_dataset, data / "train_256128", (resize, resize), check_each
        ),
        "make_synthetic_dataset": Program(
            make_synthetic_dataset,
            out,
            (make, [*make, "--seed=1"]),
            check_all_or_nothing(read_tables),
        ),
    }


def kill_program(name: str, kills: int, rng: random.Random, root: Path) -> str:
    """Kill a program until `kills` of the kills have come in time; gives what is to be said."""
    program = programs(root)[name]

    def finish(arguments: list[str]) -> Files:
        code = os.waitstatus_to_exitcode(os.waitpid(started(lambda: program.run(arguments)), 0)[1])
        assert code == 0, f"{name} ended with code {code}"
        return files_below(program.out)

    whole, durations = [], []
    for arguments in program.outputs:
        shutil.rmtree(program.out, ignore_errors=True)
        began = time.monotonic()
        whole.append(finish(arguments))
        durations.append(time.monotonic() - began)
    done = over_another = taken = leftovers = 0
    while done < kills:
        which = rng.randrange(2)
        shutil.rmtree(program.out, ignore_errors=True)
        is_replaced = done % 2 == 0
        if is_replaced:
            finish(program.outputs[1 - which])
        child = started(lambda which=which: program.run(program.outputs[which]))
        time.sleep(rng.uniform(0, durations[which]))
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            continue
        done += 1
        over_another += is_replaced
        found = files_below(program.out)
        taken += program.check(program.out, found, whole)
        leftovers += any(program.out.rglob(".*.part"))
        assert finish(program.outputs[which]) == whole[which], "started again, it ends otherwise"
        print(f"kill {done}: {len(found)} of {len(whole[which])} files", flush=True)
    return (
        f"{name}: {kills} kills, {over_another} of them over another output, after {taken} of them "
        f"a reader took what was there, which was whole; {leftovers} left hidden files behind; "
        "started again, it came to the same end each time"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code is 0 when nothing was lost."""
    parser = Parser(prog="python -m tests.support.kills", description=__doc__.split(":")[0])
    parser.add_argument("--program", choices=("train", *programs(Path())), default="train")
    parser.add_argument("--model", choices=MODELS, default="pg2")
    parser.add_argument("--kills", type=positive_int, default=50)
    parser.add_argument(
        "--iterations", type=positive_int, default=30, help="of the undisturbed run"
    )
    parser.add_argument(
        "--longest_wait",
        type=real_number(0, 3600),
        default=0.8,
        help="seconds to a kill that is not aimed",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0)
    options: argparse.Namespace = parser.parse_all(arguments)
    torch.set_num_threads(1)  # a process with threads of its own must not fork
    rng = random.Random(options.seed)
    kills = in_save = chains = lost = older = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_synthetic_dataset(
            ["--layout=market", f"--out={root}/data", "--identities=3", "--no_flow"]
        )
        training = [
            *COMMON, f"--model={options.model}", *MODELS[options.model],
            f"--dataroot={root}/data", f"--niter={options.iterations}",
        ]  # fmt: skip
        whole = [*training, f"--checkpoints_dir={root}/whole", "--save_iters_freq=1"]
        if not os.fork():  # nothing of torch is to run in this process
            os._exit(train(whole))
        assert os.wait()[1] == 0
        if options.program != "train":
            writing = started(lambda: generate(parse_test_options([
                *programs(root)["test"].outputs[0], f"--results_dir={root}/results"
            ])))  # fmt: skip
            assert os.waitpid(writing, 0)[1] == 0
            print(kill_program(options.program, options.kills, rng, root))
            return 0
        folder, reference = root / "cut" / "killed", root / "whole" / "killed"
        cut = [*training, f"--checkpoints_dir={root}/cut"]
        ended = 0  # the newest iteration whose save came to its end
        while kills < options.kills:
            goes_on = (folder / "latest_state.pth").exists()
            marks, killed = run_and_kill(
                [*cut, *["--continue_train"][:goes_on]], rng, kills % 2 == 1, options.longest_wait
            )
            kills += killed
            begun = max([int(mark[1:]) for mark in marks if mark[0] == "b"], default=ended)
            ended = max([int(mark[1:]) for mark in marks if mark[0] == "e"], default=ended)
            in_save += killed and begun > ended
            left = sorted(path.name for path in folder.glob(".*"))
            if not begun:
                continue  # killed before there was anything to save
            found = load_training_state(folder / "latest_state.pth", model_names())
            if found is None:
                assert not ended, f"no checkpoint, though iteration {ended} had been saved"
                continue
            iteration = found["iteration"]
            assert ended <= iteration <= begun, (ended, iteration, begun)
            expected = load_training_state(reference / f"{iteration}_state.pth", model_names())
            assert same(found, expected), f"iteration {iteration}"
            plain = plain_files(folder, "latest", ["G1", "G2", "G", "D"])
            if not same(plain, found["networks"]):
                older += 1
                assert any(
                    same(plain, plain_files(reference, str(earlier), plain))
                    for earlier in range(iteration + 1)
                ), f"the plain files beside iteration {iteration} are of no one iteration"
            lost += begun - iteration
            print(
                f"kill {kills}: saved {ended}, begun {begun}, found {iteration}"
                + (f"; left behind: {', '.join(left)}" if left else ""),
                flush=True,
            )
            ended = iteration
            if iteration == options.iterations:
                assert not [path for path in folder.glob(".*") if not killed]
                os.rename(folder, folder.with_name(f"done {kills}"))
                ended, chains = 0, chains + 1
    print(
        f"{options.model}: {kills} kills, {in_save} of them within a save, {chains} runs came to "
        f"their end, each checkpoint equal to the undisturbed run's; {lost} saves that had begun "
        f"did not count, {older} kills left older or fewer plain files"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
