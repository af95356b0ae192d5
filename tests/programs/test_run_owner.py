"""A run's folder is written by the run that owns it; what a checkpoint is, the next run knows."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from models.checkpoints import TrainingStart
from options.run_record import changes, option_texts
from tests.support.helpers import MARKET, assert_one_line_error, run_here, train_options

QUICK = [
    *MARKET, "--batchSize=1", "--no_html", "--eval_iters_freq=0", "--nThreads=0", "--print_freq=1",
    "--niter=1",
]  # fmt: skip
GFLA = ["--vgg_weights=random", "--init_type=none"]
PG2 = ["--model=pg2", "--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--name=small"]
STAGE_1, STAGE_2 = "--model=poseflownet", "--model=pose"
RESTART = [STAGE_2, "--continue_train", "--which_iter=poseflownet_latest"]


def succeed(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def content(folder):
    """All files below a folder by relative path: text, or what tells a checkpoint's file."""
    return {path.relative_to(folder): told(path) for path in folder.rglob("*") if path.is_file()}


def told(path):
    """A checkpoint has hundreds of megabytes, and a copy keeps its time of change."""
    stat = path.stat()
    is_large = path.suffix == ".pth"
    return (stat.st_size, stat.st_mtime_ns) if is_large else path.read_bytes()


def copied(source, target):
    """Copy a run, but for checkpoints, which are only ever replaced."""
    os.link(source, target) if source.endswith(".pth") else shutil.copy(source, target)


def state(folder, label="latest"):
    return torch.load(folder / f"{label}_state.pth", weights_only=True)


@pytest.fixture(scope="module")
def made(tiny_market, tmp_path_factory):
    """Runs `one` (stage 1), `both` (stage 1, then stage 2) and `small` (PG2), an iteration each."""
    root = tmp_path_factory.mktemp("runs")
    train = ["train.py", *QUICK, f"--dataroot={tiny_market}", f"--checkpoints_dir={root}"]
    succeed(run_here(*train, *GFLA, STAGE_1, "--name=one"))
    shutil.copytree(root / "one", root / "both")
    succeed(run_here(*train, *GFLA, STAGE_2, "--name=both", "--continue_train"))
    succeed(run_here(*train, *PG2, "--lr=0.002"))
    return root


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs", copy_function=copied)
    return tmp_path / "runs"


@pytest.fixture
def train(tiny_market, root):
    """Runs train.py there."""
    start = ["train.py", *QUICK, f"--dataroot={tiny_market}", f"--checkpoints_dir={root}"]
    return lambda *arguments: run_here(
        *start, *([] if "--model=pg2" in arguments else GFLA), *arguments
    )


@pytest.fixture
def generate(tiny_market, root):
    """Runs test.py there."""
    start = [
        "test.py", *MARKET[:2], f"--dataroot={tiny_market}", f"--checkpoints_dir={root}",
        f"--results_dir={root.parent / 'pictures'}", "--nThreads=0", "--max_dataset_size=1",
    ]  # fmt: skip
    return lambda *arguments: run_here(*start, *arguments)


# One stage's files and the other's.


def test_stage_2_anew_from_stage_1_loses_neither(root, train):
    before = content(root / "both")
    stage_1 = {name: data for name, data in before.items() if name.name.startswith("poseflownet_")}
    output = succeed(train("--name=both", *RESTART, "--lambda_g=1"))
    assert content(root / "both.earlier-1") == before
    assert f"moved to {root / 'both.earlier-1'}" in output
    after = content(root / "both")
    assert len(stage_1) == 2 and stage_1.items() <= after.items()
    assert state(root / "both")["model"] == "pose"
    assert state(root / "both", "poseflownet_latest")["model"] == "poseflownet"


@pytest.mark.parametrize("where", ["", "--which_iter=poseflownet_latest"])
@pytest.mark.parametrize("told_by", ["latest_state.pth", "network.json"])
def test_stage_1_does_not_go_on_over_stage_2(root, train, where, told_by):
    if told_by == "network.json":
        (root / "both" / "latest_state.pth").unlink()
    before = content(root)
    process = train("--name=both", STAGE_1, "--continue_train", "--niter=2", *filter(None, [where]))
    advice = "--init_from=both:poseflownet_latest"
    assert_one_line_error(process, "of --model=pose", "go on with --model=pose", "--name", advice)
    in_place = "in place of --continue_train" + (" and --which_iter" if where else "")
    assert process.stderr.rstrip().endswith(f"{advice} {in_place}")
    assert content(root) == before


@pytest.mark.parametrize("source", ["both:poseflownet_latest", "both"])
def test_the_advice_to_train_stage_1_on_elsewhere_works(root, train, source):
    before = content(root / "both")
    output = succeed(train(STAGE_1, f"--init_from={source}", "--name=other", "--niter=2"))
    assert "iterations 2 to 2" in output
    assert state(root / "other")["iteration"] == 2
    assert content(root / "both") == before


@pytest.mark.parametrize("model", ["pg2", "pose"])
def test_another_family_does_not_go_on_over_a_run(root, train, model):
    name = {"pg2": "both", "pose": "small"}[model]
    before = content(root)
    process = train(f"--name={name}", f"--model={model}", "--continue_train", "--niter=2")
    other = {"pg2": "pose", "pose": "pg2"}[model]
    assert_one_line_error(process, f"go on with --model={other}", "another --name")
    assert content(root) == before


def test_where_a_label_came_from_init_from_that_is_named(root, train):
    """A run of a name that a shell would cut; the words of the message are taken as they are."""
    (root / "one").rename(root / "stage 1")
    from_there = [STAGE_2, "--name=new", "--init_from=stage 1:9"]
    process = train(*from_there)
    assert_one_line_error(process, "there are latest; check --checkpoints_dir and '--init_from=")
    assert "--which_iter" not in process.stderr
    (option,) = (word for word in shlex.split(process.stderr) if word.startswith("--init_from"))
    assert option == "--init_from=stage 1:LABEL"
    path = root / "stage 1" / "latest_state.pth"
    content_of_state = path.read_bytes()
    path.unlink()
    path.write_bytes(content_of_state[:-9])
    process = train(STAGE_2, "--name=new", "--init_from=stage 1")
    assert_one_line_error(process, "copy it again, or take another one with '--init_from=stage 1:")
    process = train(STAGE_2, "--name=new", "--init_from=small")
    assert_one_line_error(process, "choose that --model or another --init_from\n")


def test_downloaded_weights_are_kept_when_training_goes_on_from_them(root, train):
    folder = root / "small"
    (folder / "latest_state.pth").unlink()
    given = (folder / "latest_net_G1.pth").read_bytes()
    go_on = [*PG2, "--continue_train"]
    output = succeed(train(*go_on))
    assert f"kept as {folder}/given1_*.pth" in output
    assert (folder / "given1_latest_net_G1.pth").read_bytes() == given
    assert (folder / "latest_net_G1.pth").read_bytes() != given
    # The latest is the run's own by now; those given are read by their label.
    assert "given" not in succeed(train(*go_on, "--niter=2"))
    output = succeed(train(*go_on, "--which_iter=given1_latest"))
    assert "given1_latest_net_G1.pth: took" in output


# Where a stage starts.


def test_many_stages_2_from_one_stage_1(root, train):
    before = content(root / "both")
    output = succeed(train(STAGE_2, "--name=new", "--init_from=both"))
    assert "both/poseflownet_latest_state.pth, network G: took" in output
    assert "RANDOM weights, without stage 1" not in output
    assert state(root / "new")["iteration"] == 1
    assert content(root / "both") == before


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("one", ["--continue_train starts from it"]),
        ("both", ["--continue_train goes on", "--continue_train --which_iter=poseflownet_latest"]),
    ],
)
def test_stage_2_does_not_push_its_stage_1_aside(root, train, name, ways):
    before = content(root)
    process = train(f"--name={name}", STAGE_2)
    assert_one_line_error(process, *ways, "--from_scratch")
    assert content(root) == before


def test_without_stage_1_is_said(root, train):
    for arguments in (["--name=one", "--from_scratch"], ["--name=new"]):
        process = train(*arguments, STAGE_2, "--iter_count=2")
        assert_one_line_error(process, "--niter")  # as far as needed here
        assert "RANDOM weights, without stage 1" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--name=new", "--init_from=absent"], ["--init_from", "runs/absent"]),
        (["--name=new", "--init_from=one:7"], ["7_net_G.pth"]),
        (["--name=one", "--init_from=one"], ["--init_from", "another --name"]),
        (["--name=new", "--init_from=one", "--which_iter=7"], ["--init_from=one:7"]),
        (
            ["--name=both", "--which_iter=7", "--from_scratch"],
            ["--which_iter=7", "--continue_train"],
        ),
        (["--name=new", "--init_from=one", "--continue_train"], ["give one of them"]),
        (["--name=one", "--from_scratch", "--continue_train"], ["give one of them"]),
        (["--name=new", "--init_from=../one"], ["--init_from", "slashes"]),
        (["--name=new", "--init_from=small"], ["latest_state.pth", "--model=pg2"]),
    ],
)
def test_starts_that_cannot_be(root, train, arguments, parts):
    before = content(root)
    assert_one_line_error(train(STAGE_2, *arguments), *parts)
    assert content(root) == before


def test_an_earlier_run_is_moved_when_the_first_batch_is_there(root, train, tmp_path, tiny_market):
    """Not before: a bad image, or a target that cannot be reached, leaves everything in place."""
    data = tmp_path / "data"
    shutil.copytree(tiny_market, data)
    for path in (data / "train").iterdir():
        path.write_bytes(b"no image")
    before = content(root)
    for arguments in (["--name=one", STAGE_1], ["--name=both", *RESTART]):
        process = train(*arguments, f"--dataroot={data}")
        assert process.returncode == 2 and "--skip_bad_samples" in process.stderr
        assert content(root) == before
    assert {path.name for path in root.iterdir()} == {"one", "both", "small"}


# What differs from the run's own record.


def forget_options(folder):
    """Leave a run with what earlier versions kept of its options: train_opt.txt."""
    saved = state(folder)
    del saved["run"]["options"]
    (folder / "latest_state.pth").unlink()  # it has a second name
    torch.save(saved, folder / "latest_state.pth")


def test_what_differs_on_resuming_is_said_and_logged(root, train, tmp_path, tiny_market):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tiny_market, elsewhere)
    log = root / "small" / "loss_log.txt"
    forget_options(root / "small")
    output = succeed(train(*PG2, "--lr=0.002", "--continue_train", "--niter=2", "--nThreads=1"))
    assert "until here" not in output + log.read_text()  # a longer run is the same run
    other = ["--lambda_rec=3", f"--dataroot={elsewhere}", "--niter=3"]
    output = succeed(train(*PG2, "--continue_train", *other, "--iter_count=9", "--batchSize=99"))
    assert "--iter_count=9 has no effect: the checkpoint is of iteration 2, 3 is" in output
    assert "--batchSize=99: batches have all 12 pairs" in output
    said = [
        "--lr: 0.002 until here, now 2e-05",
        "--lambda_rec: 10.0 until here, now 3.0",
        f"--dataroot: {tiny_market} until here, now {elsewhere}",
    ]
    for line in said:
        assert line in output.splitlines()
        assert f"================ {line} ================" in log.read_text().splitlines()


@pytest.mark.parametrize("recorded", ["network.json", "latest_state.pth", "train_opt.txt"])
@pytest.mark.parametrize(
    "wrong",
    ["--pose_encoding=gaussian", "--load_size=256", "--layout=fashion", "--z_num=7", "--ndf=5"],
)
def test_what_contradicts_the_weights_is_refused(root, train, recorded, wrong):
    folder = root / "small"
    if recorded != "network.json":
        (folder / "network.json").unlink()
    if recorded == "train_opt.txt":
        forget_options(folder)
    before = content(root)
    process = train(*PG2, "--continue_train", "--niter=2", wrong)
    is_by_option = recorded == "network.json" or wrong.startswith(("--pose_encoding", "--ndf"))
    told = "were trained with" if is_by_option else "that it was trained with"
    assert_one_line_error(process, wrong.split("=")[0], told)
    assert content(root) == before


def test_stage_2_reads_what_stage_1_read(root, train):
    for wrong in ("--pose_encoding=disc", "--load_size=192,64", "--use_spect_g"):
        for start in (["--name=one", "--continue_train"], ["--name=new", "--init_from=one"]):
            if wrong.startswith("--load_size") and "--name=new" in start:
                continue  # the next test's
            process = train(STAGE_2, *start, wrong)
            assert_one_line_error(process, wrong.split("=")[0], "network.json")


def test_another_run_of_gfla_starts_from_stage_1_at_another_size(root, train):
    process = train(STAGE_2, "--name=one", "--continue_train", "--load_size=64,64")
    advice = "--init_from=one"
    assert_one_line_error(process, "--load_size: got 64,64", "128,64", advice)
    output = succeed(train(STAGE_2, "--name=new", advice, "--load_size=64,64"))
    assert "--load_size: 128,64 until here, now 64,64" in output
    assert json.loads((root / "new" / "network.json").read_text())["load_size"] == "64,64"


@pytest.mark.parametrize("recorded", [True, False])
def test_another_run_of_pg2_does_not_start_at_another_size(root, train, recorded):
    if not recorded:
        (root / "small" / "network.json").unlink()
    size = ["--load_size=64,64", "--layout=market"]
    process = train(*PG2, "--name=new", "--init_from=small", *size)
    reason = ["fully connected layers", "train anew"] if recorded else ["--load_size=128,64"]
    assert_one_line_error(process, *reason)
    assert not (root / "new").exists()


def test_the_discriminator_is_recorded(root, train):
    record = json.loads((root / "both" / "network.json").read_text())
    assert (record["dis_layers"], record["use_spect_d"]) == ("3", "True")
    for wrong in ("--dis_layers=2", "--use_spect_d=False"):
        process = train("--name=both", STAGE_2, "--continue_train", "--niter=2", wrong)
        assert_one_line_error(process, wrong.split("=")[0], "were trained with", "network.json")


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"niter": "9", "niter_decay": "0"}, {"niter": "99"}, []),
        ({"niter": "9", "niter_decay": "0"}, {"niter_decay": "5"}, ["niter_decay"]),
        ({"niter": "9", "niter_decay": "5"}, {"niter": "99"}, ["niter"]),
        ({"niter": "9", "niter_decay": "5"}, {}, []),
        ({"niter": "9", "niter_decay": "5", "lr_policy": "step"}, {"niter": "99"}, []),
    ],
)
def test_a_longer_run_is_told_where_the_learning_rate_becomes_another(before, now, told):
    options = train_options(
        "--model=poseflownet", *(f"--{k}={v}" for k, v in {**before, **now}.items())
    )
    start = TrainingStart([], 3, run={"options": {**option_texts(options), **before}})
    lines = changes(options, {}, start, Path("run"))
    assert [line.split(":")[0] for line in lines] == [f"--{name}" for name in told]


def test_the_record_gives_the_defaults(root, train, generate, tiny_market):
    """Of --model, too, and of options that another program call had to name."""
    record = json.loads((root / "small" / "network.json").read_text())
    expected = {
        "model": "pg2", "dataset_mode": "market", "load_size": "128,64", "old_size": "128,64",
        "pose_encoding": "disc", "structure_nc": "18", "image_nc": "3", "layout": "market",
        "conv_hidden_num": "4", "z_num": "6", "ndf": "4",
    }  # fmt: skip
    assert record == expected
    before = content(root)
    output = succeed(generate("--name=small", "--stage=1"))
    assert f"--z_num=6: from {root / 'small' / 'network.json'}" in output
    assert content(root) == before
    succeed(train("--model=pg2", "--name=small", "--continue_train", "--niter=2", "--ndf=4"))


@pytest.mark.parametrize(
    ("name", "wrong", "got", "was"),
    [
        ("both", "--pose_encoding=disc", "disc", "gaussian"),
        ("both", "--load_size=256,192", "256,192", "128,64"),
        ("both", "--attn_layer=3", "3", "2"),
        ("both", "--kernel_size=2=5", "2=5", "2=3"),
        ("small", "--pose_encoding=gaussian", "gaussian", "disc"),
        ("small", "--conv_hidden_num=8", "8", "4"),
    ],
)
def test_generating_refuses_what_contradicts_the_record(root, generate, name, wrong, got, was):
    process = generate(f"--name={name}", wrong)
    assert_one_line_error(process, f"{wrong.split('=')[0]}: got {got}", f"with {was}", "give that")
    assert not (root.parent / "pictures").exists()


def test_a_damaged_record_is_told(root, generate):
    path = root / "both" / "network.json"
    for text in ("", "{", "[1]", '{"load_size": 3}', '{"load_size": "big"}', "ÿ"):
        path.write_text(text, encoding="latin-1")
        assert_one_line_error(generate("--name=both"), str(path), "move")
