"""A run is never lost: kills, signals, NaN, full disks, two runs at once (docs/reliability.md)."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from models.base_model import BaseModel
from options.base_options import parse_train_options
from tests.support.helpers import MARKET, PROJECT, assert_one_line_error, run_here, run_python, same
from train import Trainer
from util.errors import UserError
from util.run.folder import drop_old_checkpoints

COMMON = [
    "--print_freq=1", "--no_html", "--eval_iters_freq=0", "--nThreads=0", "--batchSize=2",
    "--name=person",
]  # fmt: skip
PG2 = [
    *MARKET, "--model=pg2", "--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--lr=0.001",
    "--stage1_steps=5", *COMMON,
]  # fmt: skip
FLOW = [*MARKET, "--model=poseflownet", "--vgg_weights=random", *COMMON]
POSE = [*MARKET, "--model=pose", "--vgg_weights=random", *COMMON]


def places(data, root):
    return [f"--dataroot={data}", f"--checkpoints_dir={root}"]


def checkpoint(folder, label="latest"):
    paths = sorted(folder.glob(f"{label}_*.pth"))
    assert paths
    return {path.name: torch.load(path, weights_only=True) for path in paths}


def succeed(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trainer(data, root, *arguments):
    return Trainer(parse_train_options([*PG2, *places(data, root), *arguments]))


# Kills and signals.


def test_no_kill_loses_more_than_the_save_it_hits():
    """At random moments, half of them aimed at saves; every iteration is saved."""
    process = run_python("-m", "tests.support.kills", "--kills=10")
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    last = process.stdout.splitlines()[-1]
    assert int(re.search(r"10 kills, (\d+) of them within a save", last)[1]) >= 1, last


def test_no_kill_of_another_program_leaves_half_an_output():
    process = run_python(
        "-m", "tests.support.kills", "--program=test", "--kills=3", "--iterations=13"
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert "test: 3 kills, 2 of them over another output" in process.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "workers", "iterations"),
    [(PG2, 0, 9), (PG2, 2, 9), (FLOW, 2, 7), (POSE, 1, 4)],
    ids=["PG2 across its stages", "PG2 with workers", "GFLA 1", "GFLA 2"],
)
def test_after_sigterm_the_run_goes_on_as_if_nothing_had_been(
    tiny_market, tmp_path, arguments, workers, iterations
):
    """A random moment, also the middle of an epoch (6 iterations); all processes get the signal."""
    arguments = ["train.py", *arguments, f"--niter={iterations}"]
    succeed(run_here(*arguments, *places(tiny_market, tmp_path / "whole")))  # without workers
    cut = [*arguments, *places(tiny_market, tmp_path / "cut"), f"--nThreads={workers}"]
    process = subprocess.Popen(
        [sys.executable, *cut], cwd=PROJECT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while not process.stdout.readline().startswith("(epoch: 1, iters: 1,"):
            assert process.poll() is None, process.stderr.read()
        time.sleep(random.Random(str(arguments)).uniform(0, 0.15))
        os.killpg(process.pid, signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    done = int(re.search(r"stopped after iteration (\d+), saved; --continue_train", output)[1])
    assert 1 <= done < iterations
    succeed(run_here(*cut, "--continue_train"))
    assert same(checkpoint(tmp_path / "cut" / "person"), checkpoint(tmp_path / "whole" / "person"))


def test_the_second_ctrl_c_stops_at_once(tiny_market, tmp_path):
    run = trainer(tiny_market, tmp_path, "--niter=4", "--save_latest_freq=1")
    step, handler = run.model.training_step, signal.getsignal(signal.SIGINT)

    def step_with_signals(batch, iteration):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return step(batch, iteration)

    run.model.training_step = step_with_signals
    with pytest.raises(SystemExit) as end:
        run.run()
    assert end.value.code == 130
    assert checkpoint(tmp_path / "person")["latest_state.pth"]["iteration"] == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_stopped_run_says_which_command_goes_on(tiny_market, tmp_path, capsys):
    def stop(*arguments):
        run = trainer(tiny_market, tmp_path, "--niter=9", *arguments)
        step = run.model.training_step

        def step_with_signal(batch, iteration):
            os.kill(os.getpid(), signal.SIGTERM)
            return step(batch, iteration)

        run.model.training_step = step_with_signal
        assert run.run() == 143
        return capsys.readouterr().out.splitlines()[-1].partition("saved; ")[2]

    rest = " goes on from there"
    assert stop() == "--continue_train" + rest
    assert stop("--from_scratch") == "--continue_train without --from_scratch" + rest
    assert stop("--continue_train") == "the same command" + rest
    again = ("--continue_train", "--which_iter=1")
    shutil.copyfile(tmp_path / "person/latest_state.pth", tmp_path / "person/1_state.pth")
    for path in (tmp_path / "person").glob("latest_net_*.pth"):
        shutil.copyfile(path, path.with_name(path.name.replace("latest", "1")))
    assert stop(*again) == "--continue_train without --which_iter" + rest
    start = ("--name=other", "--init_from=person")
    assert stop(*start) == "--continue_train without --init_from" + rest
    assert stop(start[0], "--continue_train") == "the same command" + rest


def test_a_stop_does_not_wait_for_an_evaluation(tiny_market, tmp_path):
    run = trainer(tiny_market, tmp_path, "--niter=4", "--eval_iters_freq=1", "--eval_pairs=5")
    predict, calls = run.model.predict, []

    def predict_with_signal(batch):
        calls.append(batch)
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(batch)

    run.model.predict = predict_with_signal
    assert run.run() == 143
    assert len(calls) == 1  # of three batches
    assert not (tmp_path / "person" / "eval_log.txt").exists()


def test_an_unreadable_image_ends_the_run_though_workers_wait(tiny_market, tmp_path):
    """What was trained is saved, and the program ends: it does not wait for its workers."""
    shutil.copytree(tiny_market, tmp_path / "data")
    pairs = (tmp_path / "data" / "market-pairs-train.csv").read_text().splitlines()
    image = tmp_path / "data" / "train" / pairs[-1].split(",")[0]
    image.write_bytes(image.read_bytes()[:700])
    process = run_python(
        "train.py", *FLOW, *places(tmp_path / "data", tmp_path), "--nThreads=2", "--niter=9",
        "--serial_batches", "--batchSize=1", timeout=60,
    )  # fmt: skip
    assert_one_line_error(process, str(image), "row 9 of", "--skip_bad_samples")
    assert checkpoint(tmp_path / "person")["latest_state.pth"]["iteration"] == 7


def test_memory_that_runs_out_in_a_step_loses_nothing(tiny_market, tmp_path):
    run = trainer(tiny_market, tmp_path, "--niter=9")
    step = run.model.training_step

    def step_without_memory(batch, iteration):
        if iteration == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(batch, iteration)

    run.model.training_step = step_without_memory
    with pytest.raises(torch.OutOfMemoryError):
        run.run()
    assert checkpoint(tmp_path / "person")["latest_state.pth"]["iteration"] == 3


# Runs that earlier versions saved: the weights in the plain files alone.


@pytest.mark.parametrize(
    ("arguments", "iterations"),
    [(PG2, (3, 7)), (PG2, (6, 8)), (FLOW, (2, 4)), (POSE, (1, 3))],
    ids=["PG2 stage 1", "PG2 stage 2", "GFLA 1", "GFLA 2"],
)
def test_a_run_of_an_earlier_version_goes_on(tiny_market, tmp_path, arguments, iterations):
    first, last = iterations
    whole = ["train.py", *arguments, *places(tiny_market, tmp_path / "whole")]
    cut = ["train.py", *arguments, *places(tiny_market, tmp_path / "cut")]
    succeed(run_here(*whole, f"--niter={last}"))
    succeed(run_here(*cut, f"--niter={first}"))
    folder = tmp_path / "cut" / "person"
    path = folder / "latest_state.pth"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "networks": list(state["networks"])}, path)
    if arguments is POSE:  # each network of the list must be there
        (folder / "latest_net_D.pth").rename(folder / "away")
        refused = run_here(*cut, f"--niter={last}", "--continue_train")
        assert_one_line_error(refused, "latest_net_D.pth", "saved with the files beside it")
        (folder / "away").rename(folder / "latest_net_D.pth")
    output = succeed(run_here(*cut, f"--niter={last}", "--continue_train"))
    assert re.search(r"latest_net_G1?\.pth: took", output)
    assert same(checkpoint(folder), checkpoint(tmp_path / "whole" / "person"))


# NaN and infinity.


def spoil(run, iterations):
    """Make the batches of some iterations NaN."""
    step = run.model.training_step

    def spoilt_step(batch, iteration):
        if iteration in iterations:
            batch["P1"].fill_(float("nan"))
        return step(batch, iteration)

    run.model.training_step = spoilt_step


def test_a_loss_that_is_nan_stops_before_the_step(tiny_market, tmp_path, capsys):
    run = trainer(tiny_market, tmp_path, "--niter=9")
    spoil(run, {3})
    with pytest.raises(UserError) as raised:
        run.run()
    message, folder = str(raised.value), tmp_path / "person"
    assert "saved: the weights after iteration 2" in capsys.readouterr().out
    assert message.startswith(
        "iteration 3: l1_coarse, mask_coarse, gradient of G1: NaN or infinite; the batch is in "
    )
    assert "saved" not in message  # said when it is true: a run may break at its first iteration
    batch = torch.load(folder / "nonfinite_3_batch.pth", weights_only=True)
    assert batch["P1"].isnan().all() and batch["P2"].isfinite().all()
    for source, target in zip(batch["P1_path"], batch["P2_path"], strict=True):
        assert f"{os.path.basename(source)} to {os.path.basename(target)}" in message
    # What was trained before is there, and is what an undisturbed run has.
    whole = trainer(tiny_market, tmp_path / "whole", "--niter=2")
    assert whole.run() == 0
    assert same(checkpoint(folder), checkpoint(tmp_path / "whole" / "person"))
    # What a checkpoint brings may be the reason, too.
    assert "another checkpoint" not in message
    again = trainer(tiny_market, tmp_path, "--niter=9", "--continue_train")
    spoil(again, {3})
    with pytest.raises(UserError, match="take another checkpoint"):
        again.run()


@pytest.mark.parametrize(
    ("arguments", "spoilt"), [(FLOW, "gradient of G"), (POSE, "gradient of D"), (PG2, "of G1")]
)
def test_a_gradient_alone_stops_it_too(tiny_market, tmp_path, arguments, spoilt):
    """A loss can be finite where its gradient is not."""
    options = parse_train_options(
        [*arguments, *places(tiny_market, tmp_path), "--niter=2", "--init_type=normal"][
            : -1 if arguments is PG2 else None
        ]
    )
    run = Trainer(options)
    network = run.model.networks[spoilt.rsplit(" ", 1)[-1]]
    parameter = next(iter(network.parameters()))
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"iteration 1: gradient of \S+: NaN or infinite"):
        run.run()
    names = [name for name, _ in network.named_parameters()]
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in names)
    assert not list((tmp_path / "person").glob("latest_*"))


def test_skip_nonfinite_goes_on_for_so_many_in_a_row(tiny_market, tmp_path, capsys):
    run = trainer(tiny_market, tmp_path, "--niter=9", "--skip_nonfinite=2")
    spoil(run, {2, 3, 6})
    assert run.run() == 0
    output = capsys.readouterr().out
    assert "--skip_nonfinite skipped 3 iterations" in output
    assert output.count("NaN or infinite; skipped; the batch: 000") == 3
    lines = re.findall(r"iters: (\d+)", (tmp_path / "person" / "loss_log.txt").read_text())
    assert lines == ["1", "4", "5", "7", "8", "9"]
    for name, content in checkpoint(tmp_path / "person").items():
        if "net" in name:
            assert all(value.isfinite().all() for value in content.values()), name

    run = trainer(tiny_market, tmp_path, "--niter=9", "--skip_nonfinite=2")
    spoil(run, {2, 3, 4})
    with pytest.raises(UserError, match="iteration 4: "):
        run.run()


def test_weights_that_blow_up_reach_no_checkpoint(tiny_market, tmp_path):
    run = trainer(tiny_market, tmp_path, "--niter=9", "--save_latest_freq=1")
    step = run.model.training_step

    def exploding_step(batch, iteration):
        losses = step(batch, iteration)
        if iteration == 3:
            next(iter(run.model.networks["G1"].parameters())).data[0] = float("inf")
        return losses

    run.model.training_step = exploding_step
    with pytest.raises(UserError, match="iteration 4: l1_coarse"):
        run.run()
    content = checkpoint(tmp_path / "person")
    assert content["latest_state.pth"]["iteration"] == 2
    assert all(value.isfinite().all() for value in content["latest_net_G1.pth"].values())


def test_a_checkpoint_with_nan_is_refused(tiny_market, tmp_path):
    succeed(run_here("train.py", *PG2, *places(tiny_market, tmp_path), "--niter=1"))
    path = tmp_path / "person" / "latest_state.pth"
    state = torch.load(path, weights_only=True)
    name = next(iter(state["networks"]["G1"]))
    state["networks"]["G1"][name][0] = float("nan")
    torch.save(state, path)
    process = run_here(
        "train.py", *PG2, *places(tiny_market, tmp_path), "--niter=2", "--continue_train"
    )
    assert_one_line_error(process, str(path), name, "NaN", "--which_iter")


def test_nothing_is_written_of_weights_that_make_no_pictures(tiny_market, tmp_path):
    succeed(run_here("train.py", *PG2, *places(tiny_market, tmp_path), "--niter=1"))
    path = tmp_path / "person" / "latest_net_G1.pth"
    weights = torch.load(path, weights_only=True)
    torch.save({name: value * 1e30 for name, value in weights.items()}, path)
    shape = [option for option in PG2 if option.startswith(("--conv", "--z_num"))]
    process = run_here(
        "test.py", *MARKET[:2], "--model=pg2", *shape, "--stage=1", "--name=person",
        *places(tiny_market, tmp_path), f"--results_dir={tmp_path}/new/results",
    )  # fmt: skip
    assert_one_line_error(process, "makes NaN or infinite numbers", "--which_iter")
    assert not (tmp_path / "new").exists()


# A disk that is full.


@pytest.fixture
def full_disk(monkeypatch):
    """Gives a set: saves of these iterations, and records of lines with them, find no space."""
    full = set()
    from util import checkpoints
    from util.run import log as run_log

    write, opened = checkpoints._write, open

    def write_if_there_is_space(path, content):
        if "latest" in full and "state" in path.name:
            raise OSError(28, "No space left on device")
        write(path, content)

    def open_for_records(path, mode="r", **options):
        if "records" in full and "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(path, mode, **options)

    monkeypatch.setattr(checkpoints, "_write", write_if_there_is_space)
    monkeypatch.setattr(run_log, "open", open_for_records, raising=False)
    return full


def fill(run, disk, during):
    step = run.model.training_step

    def filling_step(batch, iteration):
        disk.clear()
        if iteration in during:
            disk.update({"latest", "records"})
        return step(batch, iteration)

    run.model.training_step = filling_step


def test_training_goes_on_while_the_disk_is_full(tiny_market, tmp_path, full_disk, capsys):
    run = trainer(tiny_market, tmp_path, "--niter=6", "--save_latest_freq=1")
    fill(run, full_disk, {3, 4})
    assert run.run() == 0
    output, folder = capsys.readouterr().out, tmp_path / "person"
    for iteration in (3, 4):
        assert re.search(
            rf"NOT SAVED at iteration {iteration}: .*latest_state\.pth: cannot be written "
            r"\(No space left on device\); the checkpoint of iteration 2 stays",
            output,
        )
    assert output.count("NOT RECORDED: ") == 2  # loss_log.txt and metrics.jsonl, once each
    assert "loss_log.txt is written again" in output
    lines = re.findall(r"iters: (\d+)", (folder / "loss_log.txt").read_text())
    assert lines == ["1", "2", "5", "6"]
    assert checkpoint(folder)["latest_state.pth"]["iteration"] == 6


def test_a_disk_that_stays_full_is_told_at_the_end_and_the_old_checkpoint_stays(
    tiny_market, tmp_path, full_disk
):
    run = trainer(tiny_market, tmp_path, "--niter=6", "--save_latest_freq=2")
    fill(run, full_disk, {3, 4, 5, 6})
    with pytest.raises(UserError, match="No space left on device"):
        run.run()
    assert checkpoint(tmp_path / "person")["latest_state.pth"]["iteration"] == 2
    assert not [path.name for path in (tmp_path / "person").glob(".*")]


def test_save_failure_stop_ends_the_run(tiny_market, tmp_path, full_disk):
    run = trainer(tiny_market, tmp_path, "--niter=6", "--save_latest_freq=1", "--save_failure=stop")
    fill(run, full_disk, {3})
    with pytest.raises(UserError, match="No space left on device"):
        run.run()
    assert run.iteration < 4
    assert checkpoint(tmp_path / "person")["latest_state.pth"]["iteration"] == 2


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="only root may mount a small file system"
)
def test_on_a_real_file_system_that_is_full(tiny_market, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    try:
        arguments = ["train.py", *PG2, *places(tiny_market, disk), "--niter=4"]
        succeed(run_here(*arguments, "--save_latest_freq=1"))
        saved = checkpoint(disk / "person")
        used = shutil.disk_usage(disk)
        (disk / "other").write_bytes(bytes(used.free - 100_000))
        process = run_here(*arguments[:-1], "--niter=9", "--continue_train", "--save_latest_freq=1")
        assert process.returncode == 2, process.stdout
        assert "NOT SAVED at iteration 5" in process.stdout
        assert process.stderr.count("\n") == 1 and "No space left" in process.stderr
        assert same(checkpoint(disk / "person"), saved)
        (disk / "other").unlink()
        succeed(run_here(*arguments[:-1], "--niter=6", "--continue_train"))
        assert checkpoint(disk / "person")["latest_state.pth"]["iteration"] == 6
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Folders.


def test_a_second_run_of_the_same_name_is_refused(tiny_market, tmp_path):
    arguments = ["train.py", *PG2, *places(tiny_market, tmp_path)]
    process = subprocess.Popen(
        [sys.executable, *arguments, "--niter=100000"], cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not process.stdout.readline().startswith("(epoch: 1, iters: 1,"):
            assert process.poll() is None
        before = {path.name for path in tmp_path.iterdir()}
        for extra in ([], ["--continue_train"]):
            second = run_here(*arguments, *extra)
            assert_one_line_error(second, "person", "another run is writing", "--name")
        assert {path.name for path in tmp_path.iterdir()} == before
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 143
    assert {path.name for path in tmp_path.iterdir()} == {"person"}


def test_keep_checkpoints_keeps_the_newest(tiny_market, tmp_path):
    arguments = [*places(tiny_market, tmp_path), "--save_iters_freq=1", "--keep_checkpoints=2"]
    succeed(run_here("train.py", *PG2, *arguments, "--niter=7"))
    names = {path.name for path in (tmp_path / "person").glob("*.pth")}
    parts = ["net_G1", "net_G2", "net_D", "state"]
    assert names == {f"{label}_{part}.pth" for label in ("6", "7", "latest") for part in parts}


def test_keep_checkpoints_after_going_back(tiny_market, tmp_path):
    """The newest are those written last, not those of the largest numbers."""
    arguments = [*places(tiny_market, tmp_path), "--save_iters_freq=1"]
    succeed(run_here("train.py", *PG2, *arguments, "--niter=7"))
    back = ["--continue_train", "--which_iter=2", "--keep_checkpoints=2"]
    for last, kept in ((3, {"3", "7"}), (5, {"4", "5"})):
        succeed(run_here("train.py", *PG2, *arguments, *back, f"--niter={last}"))
        labels = {path.name.split("_")[0] for path in (tmp_path / "person").glob("*.pth")}
        assert labels == {*kept, "latest"}
        back[1] = "--which_iter=3"


def test_only_numbered_checkpoints_are_dropped(tmp_path):
    others = ["latest_net_G.pth", "poseflownet_1_net_G.pth", "nonfinite_3_batch.pth", "1_net_G.txt"]
    numbered = [f"{n}_{part}.pth" for n in (9, 10, 100) for part in ("net_G", "state")]
    for name in [*others, *numbered]:
        (tmp_path / name).write_text("x")
    for name in numbered:  # as a copy may have it: all of one time
        os.utime(tmp_path / name, (1e9, 1e9))
    drop_old_checkpoints(tmp_path, None, 9)
    assert len(list(tmp_path.iterdir())) == 10
    drop_old_checkpoints(tmp_path, 2, 9)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, *(name for name in numbered if not name.startswith("10_"))}
    os.utime(tmp_path / "100_state.pth", (2e9, 2e9))
    drop_old_checkpoints(tmp_path, 1, 9)  # just saved, whatever the clock says
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, "9_net_G.pth", "9_state.pth"}


def test_other_settings_on_resuming_are_said(tiny_market, tmp_path):
    arguments = ["train.py", *PG2, *places(tiny_market, tmp_path)]
    succeed(run_here(*arguments, "--niter=1"))
    same_settings = succeed(run_here(*arguments, "--niter=2", "--continue_train"))
    assert "the checkpoint comes from" not in same_settings
    other = succeed(run_here(*arguments, "--niter=3", "--continue_train", "--seed=4"))
    assert "--seed: 4, the checkpoint comes from 0" in other
    assert other.count("the checkpoint comes from") == 1


def test_a_run_that_cannot_start_leaves_the_earlier_one_alone(tiny_market, tmp_path):
    arguments = ["train.py", *PG2, *places(tiny_market, tmp_path)]
    succeed(run_here(*arguments, "--niter=2"))
    before = files(tmp_path)
    for wrong in (["--niter=1"], ["--niter=4", "--z_num=7"]):
        assert run_here(*arguments, *wrong, "--continue_train").returncode == 2
        assert files(tmp_path) == before


def test_every_models_step_goes_through_the_check():
    """A model that stepped its optimisers itself would let NaN into its weights."""
    from models import find_model, model_names

    for name in model_names():
        assert find_model(name).update is BaseModel.update
