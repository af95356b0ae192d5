"""PG2 as a user runs it: options, both stages in one run, resuming, testing."""

import json
import shutil

import pytest
import torch
from PIL import Image

from data import create_dataset, create_loader
from models import create_model
from models.checkpoints import load_for_training
from options.base_options import build_train_parser, parse_test_options, parse_train_options
from tests.conftest import TEST_PAIRS
from tests.support.golden_pg2 import pg2_options
from tests.support.helpers import (
    MARKET,
    PROJECT,
    assert_one_line_error,
    inference_options,
    run_here,
    same,
)
from util.errors import UserError

SMALL = ["--conv_hidden_num=4", "--z_num=6"]
TRAINING = [
    *MARKET, "--model=pg2", *SMALL, "--ndf=4", "--name=person", "--batchSize=2", "--lr=0.001",
    "--stage1_steps=3", "--print_freq=1", "--no_html", "--eval_iters_freq=0", "--nThreads=0",
]  # fmt: skip
STAGE_1_LOSSES = ["l1_coarse", "mask_coarse"]
STAGE_2_LOSSES = ["l1_refined", "mask_refined", "ad_refined", "dis"]


def succeed(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def train(data, root, *arguments):
    places = [f"--dataroot={data}", f"--checkpoints_dir={root}"]
    return run_here("train.py", *TRAINING, *places, *arguments)


def loaded(folder, *, label="latest"):
    names = ["net_G1", "net_G2", "net_D", "state"]
    paths = {name: folder / f"{label}_{name}.pth" for name in names}
    return {n: torch.load(path, weights_only=True) for n, path in paths.items() if path.exists()}


@pytest.fixture(scope="module")
def run(tiny_market, tmp_path_factory):
    """A run of 6 iterations in one go, with all its checkpoints: (folder's parent, output)."""
    root = tmp_path_factory.mktemp("pg2")
    records = ["--save_iters_freq=1", "--eval_iters_freq=3", "--eval_pairs=2"]
    return root, succeed(train(tiny_market, root, "--niter=6", *records))


# Options.


def test_defaults_are_the_published_training():
    market, fashion = pg2_options(), pg2_options(dataset_mode="fashion")
    for options in (market, fashion):
        assert (options.lr, options.stage1_steps) == (2e-5, 22000)
        assert (options.conv_hidden_num, options.z_num, options.ndf) == (128, 64, 64)
        assert options.pose_encoding == "disc"
        assert (options.angle, options.shift, options.scale) == (0, 0, (1, 1))
        assert (options.lr_policy, options.niter_decay) == ("lambda", 0)  # no decay
    published = [(o.layout, o.batchSize, o.niter, o.lambda_rec) for o in (market, fashion)]
    assert published == [("market", 16, 60000, 10), ("fashion", 1, 80000, 50)]
    tested = inference_options("--model=pg2")
    assert (tested.layout, tested.pose_encoding, tested.batchSize) == ("market", "disc", 1)


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_the_commands_of_the_docs(page):
    text = (PROJECT / page).read_text(encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if line.startswith("python t")]
    of_pg2 = [words[1:] for words in commands if "--model=pg2" in words]
    assert [words[0] for words in of_pg2].count("train.py") == 2
    for program, *arguments in of_pg2:
        parse = parse_train_options if program == "train.py" else parse_test_options
        assert parse(arguments).layout == parse(arguments).dataset_mode


def test_what_is_given_counts_more_than_the_defaults():
    given = [
        "--batchSize=3",
        "--niter=7",
        "--lambda_rec=2",
        "--angle=4",
        "--pose_encoding=gaussian",
    ]
    options = pg2_options(*given, "--layout=fashion", "--load_size=64,32")
    assert (options.batchSize, options.niter, options.lambda_rec) == (3, 7, 2)
    assert (options.angle, options.pose_encoding, options.layout) == (4, "gaussian", "fashion")
    assert pg2_options("--load_size=64,32", "--layout=fashion").lambda_rec == 50


def test_help_shows_the_models_defaults():
    parser = build_train_parser(["--model=pg2", "--dataset_mode=market", "--help"])
    text = " ".join(parser.format_help().split())
    for shown in ("pairs per iteration (default: 16)", "disc", "--help"):
        assert shown in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--load_size=64,32"], ["--layout", "64,32", "market or fashion"]),
        (["--load_size=120,64", "--layout=market"], ["--load_size", "120,64", "multiples of 16"]),
        (["--load_size=48,48", "--layout=fashion"], ["--load_size", "multiples of 32"]),
        (["--layout=chictopia"], ["--layout", "chictopia"]),
        (["--conv_hidden_num=0"], ["--conv_hidden_num"]),
        (["--stage1_steps=-1"], ["--stage1_steps"]),
    ],
)
def test_bad_values_are_refused_by_name(arguments, parts):
    with pytest.raises(UserError) as error:
        pg2_options(*arguments)
    assert all(part in str(error.value) for part in parts), str(error.value)


# Training.


def test_the_stage_shows_in_log_output_and_records(run):
    root, output = run
    lines = (root / "person" / "loss_log.txt").read_text().splitlines()[1:]
    names = [[text.rstrip(":") for text in line.split(") ")[1].split()[::2]] for line in lines]
    assert names == [["stage", *STAGE_1_LOSSES]] * 3 + [["stage", *STAGE_2_LOSSES]] * 3
    assert all(f"stage: {1 if i < 3 else 2} " in line for i, line in enumerate(lines))
    assert output.index("iteration 1: stage 1") < output.index("iteration 4: stage 2")
    records = [json.loads(line) for line in (root / "person" / "metrics.jsonl").open()]
    assert [r["stage"] for r in records if r["kind"] == "train"] == [1, 1, 1, 2, 2, 2]
    assert [r["iteration"] for r in records if r["kind"] == "eval"] == [3, 6]


def test_each_stage_trains_its_networks_and_no_other(run):
    folder = run[0] / "person"
    steps = [loaded(folder, label=str(number)) for number in range(1, 7)]
    assert all(step.keys() == {"net_G1", "state"} for step in steps[:3])
    assert not same(steps[0]["net_G1"], steps[2]["net_G1"])
    assert all(same(steps[2]["net_G1"], step["net_G1"]) for step in steps[3:])
    for name in ("net_G2", "net_D"):
        assert not same(steps[3][name], steps[4][name]) and not same(steps[4][name], steps[5][name])
    held = [{k: bool(v["state"]) for k, v in s["state"]["optimizers"].items()} for s in steps]
    assert (
        held
        == [{"G1": True, "G2": False, "D": False}] * 3 + [{"G1": False, "G2": True, "D": True}] * 3
    )


@pytest.mark.parametrize("first", [2, 3, 5])
def test_a_resumed_run_is_the_run_in_one_go(run, tiny_market, tmp_path, first):
    """Stopped within stage 1, at its end, and within stage 2."""
    succeed(train(tiny_market, tmp_path, f"--niter={first}"))
    output = succeed(train(tiny_market, tmp_path, "--niter=6", "--continue_train"))
    assert f"iteration {first + 1}: stage {1 if first < 3 else 2}" in output
    assert ("starts fresh" in output) == (first <= 3)
    assert same(loaded(tmp_path / "person"), loaded(run[0] / "person"))


def test_a_lost_plain_file_is_written_again(run, tiny_market, tmp_path):
    """A resume needs the state alone; test.py says what to do until then."""
    shutil.copytree(run[0] / "person", tmp_path / "person")
    for path in (tmp_path / "person").glob("latest_net_*.pth"):
        path.unlink()
    (tmp_path / "person" / "latest_net_G1.pth").write_bytes(
        (run[0] / "person" / "2_net_G1.pth").read_bytes()
    )
    process = run_test([tmp_path], tiny_market, tmp_path / "pictures")
    assert_one_line_error(process, "latest_net_G2.pth", "--continue_train")
    output = succeed(train(tiny_market, tmp_path, "--niter=7", "--continue_train"))
    assert "latest_net_G1.pth holds other weights than latest_state.pth" in output
    succeed(train(tiny_market, tmp_path / "whole", "--niter=7"))
    assert same(loaded(tmp_path / "person"), loaded(tmp_path / "whole" / "person"))


def test_back_to_stage_1_no_later_network_stays_beside_it(run, tiny_market, tmp_path):
    """G2 was trained on another G1's pictures."""
    shutil.copytree(run[0] / "person", tmp_path / "person")
    arguments = ["--continue_train", "--which_iter=2", "--niter=3"]
    succeed(train(tiny_market, tmp_path, *arguments))
    assert loaded(tmp_path / "person").keys() == {"net_G1", "state"}
    process = run_test([tmp_path], tiny_market, tmp_path / "pictures")
    assert_one_line_error(process, "latest_net_G2.pth", "--stage=1")


def test_other_widths_are_refused(run, tiny_market, tmp_path):
    shutil.copytree(run[0] / "person", tmp_path / "person")
    process = train(tiny_market, tmp_path, "--niter=7", "--continue_train", "--conv_hidden_num=5")
    assert_one_line_error(process, "--conv_hidden_num: got 5", "trained with 4 (", "network.json")


def test_every_network_lowers_its_own_losses(tiny_market):
    """Each alone: together, G2 and D work against one another."""
    options = pg2_options(
        f"--dataroot={tiny_market}", *SMALL, "--ndf=4", "--batchSize=4", "--lr=0.002"
    )
    batch = next(iter(create_loader(create_dataset(options, pose_mask=True), 4, training=True)))
    torch.manual_seed(0)
    model = create_model(options)
    coarse = [sum(model.train_coarse(batch).values()).item() for _ in range(30)]
    assert coarse[-1] < 0.7 * coarse[0]
    start = model.coarse_picture(batch)
    refined = [sum(model.train_refinement(batch, start).values()).item() for _ in range(30)]
    assert refined[-1] < 0.95 * refined[0]
    judged = [model.train_discriminator(batch, start)["dis"].item() for _ in range(30)]
    assert judged[-1] < 0.2 * judged[0]


# Predictions.


def test_the_coarse_picture_is_the_result_until_stage_2(tiny_market):
    options = pg2_options(f"--dataroot={tiny_market}", *SMALL, "--ndf=4")
    model = create_model(options)
    batch = next(iter(create_loader(create_dataset(options, pose_mask=True), 2, training=False)))
    coarse = model.predict(batch)
    assert torch.equal(coarse.image, model.coarse_picture(batch)) and not coarse.extras
    model.training_step(batch, options.stage1_steps + 1)
    refined = model.predict(batch)
    assert torch.equal(refined.extras["coarse"], coarse.image)
    assert not torch.equal(refined.image, coarse.image)


def test_loaded_weights_of_g2_count_in_stage_1_too(run, tiny_market):
    """As when imported weights are trained on from the first iteration."""
    options = pg2_options(f"--dataroot={tiny_market}", *SMALL, "--ndf=4")
    batch = next(iter(create_loader(create_dataset(options, pose_mask=True), 2, training=False)))
    for label, networks in (("6", ["G1", "G2", "D"]), ("3", ["G1"])):
        model = create_model(options)
        assert load_for_training(model, run[0] / "person", label).networks == networks
        assert bool(model.predict(batch).extras) == ("G2" in networks)
        assert model.networks_to_save() == networks


def run_test(run, data, results, *arguments):
    return run_here(
        "test.py", *MARKET[:2], "--model=pg2", *SMALL, "--name=person", f"--dataroot={data}",
        f"--checkpoints_dir={run[0]}", f"--results_dir={results}", *arguments,
    )  # fmt: skip


def test_every_test_pair_gets_its_picture_once(run, tiny_market, tmp_path):
    output = succeed(run_test(run, tiny_market, tmp_path, "--save_input", "--results_format=png"))
    assert f"{len(TEST_PAIRS)} images" in output
    results = sorted(tmp_path.glob("*_vis.png"))
    assert len(results) == len(TEST_PAIRS)
    with Image.open(next((tmp_path / "strips").iterdir())) as strip:
        assert strip.width == 5 * (64 + 2)  # source, target pose, target, coarse, result
    again = tmp_path / "in batches"
    succeed(run_test(run, tiny_market, again, "--batchSize=3", "--results_format=png"))
    for path in results:
        with Image.open(path) as one, Image.open(again / path.name) as other:
            difference = [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]
            assert max(difference) <= 1


def test_stage_1_can_be_tested_when_asked_for(run, tiny_market, tmp_path):
    process = run_test(run, tiny_market, tmp_path, "--which_iter=3")
    assert_one_line_error(process, "3_net_G2.pth", "--stage=1")
    output = succeed(run_test(run, tiny_market, tmp_path, "--which_iter=3", "--stage=1"))
    assert f"{len(TEST_PAIRS)} images" in output and "G2" not in output
    process = run_test(run, tiny_market, tmp_path, "--which_iter=9")
    assert_one_line_error(process, "no checkpoint", "9_net_G1.pth")
