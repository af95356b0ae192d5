"""The programs as a user runs them: stage 1, stage 2, test.py; resuming; Ctrl-C; schedules."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from models import create_model
from models.checkpoints import load_for_training
from models.schedule import learning_rate_factor
from tests.conftest import test_pairs
from tests.support.golden_formula import golden
from tests.support.helpers import (
    MARKET,
    PROJECT,
    assert_one_line_error,
    run_here,
    run_python,
    same,
    save_file,
    train_options,
)
from util.pair_names import pair_name

LOSS_LINE = re.compile(
    r"\(epoch: (\d+), iters: (\d+), time: (\d+\.\d{3})\) ((?:[A-Za-z]\w*: -?\d+\.\d{3} )+)"
)
SCORE_LINE = re.compile(
    r"\(iters: (\d+)\) L1: (\d\.\d{4}), SSIM: (-?\d\.\d{4}), EPE: (\d+\.\d{4}), pairs: (\d+)"
)
STAGE_1_LOSSES = ["correctness", "regularization"]
STAGE_2_LOSSES = [
    "app_gen", "correctness_gen", "content_gen", "style_gen", "regularization", "ad_gen",
    "dis_img_gen",
]  # fmt: skip
TRAINING = [
    *MARKET, "--attn_layer=2", "--kernel_size=2=3", "--name=person", "--batchSize=2",
    "--vgg_weights=random", "--print_freq=1",
]  # fmt: skip
QUIET = ["--no_html", "--eval_iters_freq=0", "--nThreads=0"]
PAIRS = [pair_name(*names) for names in test_pairs()]


def places(data, root):
    return [f"--dataroot={data}", f"--checkpoints_dir={root}"]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def loss_lines(folder):
    found = [line for line in lines(folder / "loss_log.txt") if not line.startswith("=")]
    matches = [LOSS_LINE.fullmatch(line) for line in found]
    assert found and all(matches), found
    return matches


def loss_names(match):
    return [name.rstrip(":") for name in match[4].split()[::2]]


def weights(path):
    return torch.load(path, weights_only=True)


def succeed(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


# Both stages and the test program, each a process of its own, with records along the way.


@pytest.fixture(scope="module")
def runs(tiny_market, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    place, folder = places(tiny_market, root), root / "person"
    records = [
        "--display_freq=2", "--eval_iters_freq=2", "--eval_pairs=3", "--save_latest_freq=2",
        "--save_iters_freq=2", "--nThreads=2",
    ]  # fmt: skip
    stage_1 = succeed(
        run_python(
            "train.py", "--model=poseflownet", *TRAINING, *place, *records,
            "--niter=2", "--niter_decay=1",
        )
    )  # fmt: skip
    shutil.copytree(folder, root / "stage 1" / "person")
    stage_2 = succeed(
        run_python(
            "train.py", "--model=pose", *TRAINING, *place, "--continue_train", "--niter=2",
            "--eval_iters_freq=0", "--nThreads=2", "--no_html",
        )
    )  # fmt: skip
    tested = succeed(
        run_python(
            "test.py", *MARKET[:2], "--attn_layer=2", "--kernel_size=2=3", "--model=pose",
            "--name=person", *place, f"--results_dir={root / 'pictures'}", "--save_input",
            "--save_flow",
        )
    )  # fmt: skip
    return Namespace(
        root=root, folder=folder, stage_1_folder=root / "stage 1" / "person",
        stage_1=stage_1, stage_2=stage_2, tested=tested, pictures=root / "pictures",
    )  # fmt: skip


def test_stage_1_writes_its_checkpoints(runs):
    names = {path.name for path in runs.stage_1_folder.glob("*.pth")}
    assert names == {
        "2_net_G.pth", "2_state.pth", "latest_net_G.pth", "latest_state.pth",
    }  # fmt: skip
    network = weights(runs.stage_1_folder / "latest_net_G.pth")
    assert network.keys() == golden("state_dict_keys.json")["market.flow_generator"]["keys"].keys()
    assert all(value.isfinite().all() for value in network.values())
    assert weights(runs.stage_1_folder / "latest_state.pth")["iteration"] == 3
    assert weights(runs.stage_1_folder / "2_state.pth")["iteration"] == 2
    assert not same(network, weights(runs.stage_1_folder / "2_net_G.pth"))


def test_loss_log_has_the_format_that_plotting_scripts_read(runs):
    first = loss_lines(runs.stage_1_folder)
    assert [int(match[2]) for match in first] == [1, 2, 3]
    assert all(match[1] == "1" and loss_names(match) == STAGE_1_LOSSES for match in first)
    both = loss_lines(runs.folder)
    assert [int(match[2]) for match in both] == [1, 2, 3, 1, 2]
    assert all(loss_names(match) == STAGE_2_LOSSES for match in both[3:])


def test_evaluations_are_logged(runs):
    matches = [SCORE_LINE.fullmatch(line) for line in lines(runs.stage_1_folder / "eval_log.txt")]
    assert [int(match[1]) for match in matches] == [2, 3]
    assert {match[5] for match in matches} == {"3"}
    assert f"test pairs {matches[1][0]}" in runs.stage_1


def test_metrics_are_json_lines(runs):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    records = [
        json.loads(line, parse_constant=refuse)
        for line in lines(runs.stage_1_folder / "metrics.jsonl")
    ]
    kinds = [(record["kind"], record["iteration"]) for record in records]
    assert kinds == [("train", 1), ("train", 2), ("eval", 2), ("train", 3), ("eval", 3)]
    trained = [record for record in records if record["kind"] == "train"]
    for record, line in zip(trained, loss_lines(runs.stage_1_folder), strict=True):
        assert f"correctness: {record['correctness']:.3f} " in line[4]
    # --niter=2 --niter_decay=1: the third iteration has half the rate.
    assert [record["learning_rate"] for record in trained] == pytest.approx([1e-4, 1e-4, 5e-5])


def test_snapshots_have_a_row_per_sample_and_a_column_per_picture(runs):
    pictures = sorted((runs.stage_1_folder / "web" / "images").iterdir())
    assert [path.name for path in pictures] == [
        "poseflownet_iter_00000002.jpg",
        "poseflownet_iter_00000003.jpg",
    ]
    columns, rows, caption, gap = 8, 2, 14, 2  # 5 pictures, flow, mask and warped source at 1/4
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (columns * (64 + gap), caption + rows * (128 + gap))


def test_options_are_kept(runs):
    first, second = (
        dict(line.split(": ", 1) for line in lines(folder / "train_opt.txt") if ": " in line)
        for folder in (runs.stage_1_folder, runs.folder)
    )
    assert (first["model"], second["model"]) == ("poseflownet", "pose")
    assert first["niter_decay"] == "1" and second["continue_train"] == "True"
    assert first["kernel_size"] == "{2: 3}" and first["attn_layer"] == "[2]"
    assert first["vgg_weights"] == "random"
    tested = dict(
        line.split(": ", 1) for line in lines(runs.pictures / "test_opt.txt") if ": " in line
    )
    assert tested["results_dir"] == str(runs.pictures) and tested["batchSize"] == "1"


def test_random_vgg_weights_are_said(runs):
    for output in (runs.stage_1, runs.stage_2):
        note = next(line for line in output.splitlines() if "--vgg_weights=random" in line)
        assert "RANDOM" in note
        assert output.index(note) < output.index("(epoch: 1, iters: 1,")


def test_stage_2_says_what_it_starts_from(runs):
    count = len(golden("state_dict_keys.json")["market.flow_generator"]["keys"])
    assert f"latest_state.pth, network G: took {count} tensors (flow_net)" in runs.stage_2
    assert "not in it (source, target)" in runs.stage_2
    assert "network D: none in latest_state.pth, starts fresh" in runs.stage_2
    assert "the checkpoint is of --model=poseflownet" in runs.stage_2
    assert "training pose on 12 pairs, iterations 1 to 2" in runs.stage_2


def test_stage_2_starts_from_the_flow_estimator_of_stage_1(runs):
    first = weights(runs.stage_1_folder / "latest_net_G.pth")
    second = weights(runs.folder / "latest_net_G.pth")
    assert second.keys() == golden("state_dict_keys.json")["market.pose_generator"]["keys"].keys()
    # Adam with betas (0, 0.999) moves a weight by at most (1 + √2) · 1e-4 in two steps.
    moved = {name: (second[name] - value).abs().max().item() for name, value in first.items()}
    assert max(moved.values()) <= 2.5e-4
    assert sum(value > 0 for value in moved.values()) > 0.7 * len(moved)


def test_stage_2_takes_over_the_flow_estimator_as_it_is(runs):
    options = train_options("--model=pose")
    model = create_model(options)
    load_for_training(model, runs.stage_1_folder, "latest")
    first = weights(runs.stage_1_folder / "latest_net_G.pth")
    second = model.networks["G"].state_dict()
    assert len(second) > len(first)
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_no_html_keeps_no_pictures(runs):
    before = {path.name for path in (runs.stage_1_folder / "web" / "images").iterdir()}
    assert {path.name for path in (runs.folder / "web" / "images").iterdir()} == before


def test_result_names(runs):
    assert {path.name for path in runs.pictures.glob("*.*")} == {
        *(f"{pair}_vis.jpg" for pair in PAIRS), "results.csv", "test_opt.txt",
    }  # fmt: skip
    assert "0001_c1s1_0000010_01_2_0001_c2s1_0000011_02_vis.jpg" in os.listdir(runs.pictures)
    for pair in PAIRS:
        with Image.open(runs.pictures / f"{pair}_vis.jpg") as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 128))
    assert re.search(r"5 images in .*pictures, \d+\.\d images per second", runs.tested)
    assert "took 196 tensors (flow_net, source, target)" in runs.tested


def test_inputs_and_flow_are_saved_in_folders_of_their_own(runs, tiny_market):
    names = {folder: set(os.listdir(runs.pictures / folder)) for folder in ("inputs", "flow")}
    assert names["inputs"] == {f"{p}_{kind}.jpg" for p in PAIRS for kind in ("source", "target")}
    assert names["flow"] == {
        *(f"{p}_{kind}_4.jpg" for p in PAIRS for kind in ("flow", "mask", "warped", "attention")),
        *(f"{p}_flow.npz" for p in PAIRS),
    }
    assert set(os.listdir(runs.pictures / "strips")) == {f"{pair}.jpg" for pair in PAIRS}
    for names, pair in zip(test_pairs(), PAIRS, strict=True):
        for name, kind in zip(names, ("source", "target"), strict=True):
            saved = Image.open(runs.pictures / "inputs" / f"{pair}_{kind}.jpg")
            stored = Image.open(tiny_market / "test" / name)
            difference = np.asarray(saved, float) - np.asarray(stored, float)
            assert np.abs(difference).mean() < 6  # JPEG of quality 75
        with Image.open(runs.pictures / "strips" / f"{pair}.jpg") as strip:
            assert strip.size == (4 * (64 + 2), 14 + 128 + 2)


# test.py on the trained network.


def run_test(data, runs, results, *arguments):
    return run_here(
        "test.py", *MARKET[:2], *places(data, runs.root), "--name=person", "--nThreads=0",
        "--results_format=png", f"--results_dir={results}", *arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_by_one(runs, tiny_market, tmp_path_factory):
    results = tmp_path_factory.mktemp("one by one")
    succeed(run_test(tiny_market, runs, results))
    return results


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture, float)


def test_batch_size_does_not_change_the_pictures(runs, one_by_one, tiny_market, tmp_path):
    output = succeed(run_test(tiny_market, runs, tmp_path, "--batchSize=3"))
    assert "5 images in" in output  # the last batch has two
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {f"{pair}_vis.png" for pair in PAIRS}
    for name in names:
        assert np.abs(pixels(tmp_path / name) - pixels(one_by_one / name)).max() <= 1


def test_jpg_shows_what_png_shows(runs, one_by_one):
    for pair in PAIRS:
        jpg = pixels(runs.pictures / f"{pair}_vis.jpg")
        assert np.abs(jpg - pixels(one_by_one / f"{pair}_vis.png")).mean() < 6


def test_skip_existing_fills_the_gaps(runs, one_by_one, tiny_market, tmp_path):
    shutil.copytree(one_by_one, tmp_path / "results")
    paths = [tmp_path / "results" / f"{pair}_vis.png" for pair in PAIRS]
    paths[1].unlink()
    paths[4].unlink()
    paths[0].write_bytes(b"kept whatever it is")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths if path.exists()}
    output = succeed(
        run_test(tiny_market, runs, tmp_path / "results", "--skip_existing", "--batchSize=3")
    )
    assert "3 of 5 results are there" in output and "2 images in" in output
    for path, (time, content) in before.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == (time, content)
    for number in (1, 4):
        assert np.abs(pixels(paths[number]) - pixels(one_by_one / paths[number].name)).max() <= 1
    output = succeed(run_test(tiny_market, runs, tmp_path / "results", "--skip_existing"))
    assert "5 of 5 results are there" in output and "0 images in" in output


def test_max_dataset_size(runs, tiny_market, tmp_path):
    succeed(run_test(tiny_market, runs, tmp_path, "--max_dataset_size=2"))
    assert {path.name for path in tmp_path.glob("*.png")} == {f"{p}_vis.png" for p in PAIRS[:2]}


def test_numbered_checkpoint(runs, tiny_market, tmp_path):
    runs.root = runs.root / "stage 1"
    try:
        options = ["--model=poseflownet", "--max_dataset_size=1"]
        output = succeed(run_test(tiny_market, runs, tmp_path, "--which_iter=2", *options))
        assert "2_net_G.pth: took" in output
        missing = run_test(tiny_market, runs, tmp_path, "--which_iter=9", *options)
        assert_one_line_error(missing, "9_net_G.pth", "--which_iter")
    finally:
        runs.root = runs.root.parent


def test_results_that_cannot_be_written_are_one_message(runs, tiny_market, tmp_path):
    (tmp_path / "file").write_text("")
    process = run_test(tiny_market, runs, tmp_path / "file" / "results")
    assert_one_line_error(process, "--results_dir")


@pytest.mark.parametrize(("x", "y"), [(0, 0), (2, -3)])
def test_stage_1_gives_the_warped_source(runs, tiny_market, tmp_path, x, y):
    """With constant flow (x, y) on the quarter-size map the source moves by four times that."""
    state = weights(runs.stage_1_folder / "latest_net_G.pth")
    (last,) = {name.rsplit(".", 1)[0].split(".")[1] for name in state if ".output" in name}
    for name, value in state.items():
        if f".{last}." in name:
            value.zero_()
            if name.endswith("bias"):
                value.copy_(torch.tensor([x, y]))
    save_file(state, tmp_path / "person" / "latest_net_G.pth")
    process = run_here(
        "test.py", *MARKET[:2], *places(tiny_market, tmp_path), "--name=person", "--batchSize=2",
        "--model=poseflownet", "--results_format=png", f"--results_dir={tmp_path / 'results'}",
        "--nThreads=0",
    )  # fmt: skip
    succeed(process)
    rows, columns = (np.arange(128) + 4 * y).clip(0, 127), (np.arange(64) + 4 * x).clip(0, 63)
    for names, pair in zip(test_pairs(), PAIRS, strict=True):
        source = pixels(tiny_market / "test" / names[0])
        result = pixels(tmp_path / "results" / f"{pair}_vis.png")
        assert np.abs(result - source[rows][:, columns]).max() <= 1


# Resuming.


@pytest.mark.parametrize(
    ("model", "extra"),
    [("poseflownet", ["--nThreads=2"]), ("pose", ["--gan_mode=wgan-gp"])],
)
def test_resumed_run_is_the_same_run(runs, tiny_market, tmp_path, model, extra):
    """2 + 2 iterations, with records between, are bit for bit the 4 of one go without."""
    training = ["--continue_train", *TRAINING, f"--model={model}", *extra]
    for name in ("parts", "whole"):
        shutil.copytree(runs.stage_1_folder, tmp_path / name / "person")
        if model == "poseflownet":  # start this stage from the weights, at iteration 1
            (tmp_path / name / "person" / "latest_state.pth").unlink()
    parts, whole = (places(tiny_market, tmp_path / name) for name in ("parts", "whole"))
    succeed(run_here("train.py", *QUIET, *training, *parts, "--niter=2", "--save_iters_freq=2"))
    after_two = weights(tmp_path / "parts" / "person" / "2_net_G.pth")
    records = ["--display_freq=1", "--eval_iters_freq=1", "--eval_pairs=1", "--nThreads=0"]
    output = succeed(run_here("train.py", *records, *training, *parts, "--niter=4"))
    assert "optimisers: as after iteration 2" in output
    assert "iterations 3 to 4" in output
    succeed(run_here("train.py", *QUIET, *training, *whole, "--niter=4"))

    logged = [
        [(match[1], match[2], match[4]) for match in loss_lines(tmp_path / name / "person")[3:]]
        for name in ("parts", "whole")
    ]
    assert [line[1] for line in logged[0]] == ["1", "2", "3", "4"]
    assert logged[0] == logged[1]
    names = sorted(path.name for path in (tmp_path / "whole" / "person").glob("latest_*.pth"))
    networks = ["latest_net_D.pth"] if model == "pose" else []
    assert names == [*networks, "latest_net_G.pth", "latest_state.pth"]
    for name in names:
        in_parts, in_one_go = (
            weights(tmp_path / run / "person" / name) for run in ("parts", "whole")
        )
        assert same(in_parts, in_one_go), name
    assert not same(after_two, weights(tmp_path / "whole" / "person" / "latest_net_G.pth"))


def test_learning_rate_of_a_resumed_run_is_the_one_asked_for(runs, tiny_market, tmp_path):
    shutil.copytree(runs.stage_1_folder, tmp_path / "person")
    before = weights(tmp_path / "person" / "latest_net_G.pth")
    succeed(
        run_here(
            "train.py", *TRAINING, *QUIET, *places(tiny_market, tmp_path), "--continue_train",
            "--model=poseflownet", "--niter=4", "--lr=0",
        )
    )  # fmt: skip
    last = json.loads(lines(tmp_path / "person" / "metrics.jsonl")[-1])
    assert (last["iteration"], last["learning_rate"]) == (4, 0)
    assert same(weights(tmp_path / "person" / "latest_net_G.pth"), before)


def test_resuming_with_another_network_is_one_message(runs, tiny_market, tmp_path):
    shutil.copytree(runs.folder, tmp_path / "person")
    before = weights(tmp_path / "person" / "latest_net_D.pth")
    process = run_here(
        "train.py", *TRAINING, *QUIET, *places(tiny_market, tmp_path), "--model=pose",
        "--continue_train", "--niter=3", "--dis_layers=4",
    )  # fmt: skip
    assert_one_line_error(process, "--dis_layers: got 4", "trained with 3", "network.json")
    assert same(weights(tmp_path / "person" / "latest_net_D.pth"), before)


def test_a_flow_estimator_of_other_layers_is_refused(runs, tiny_market, tmp_path):
    """Stage 2 would otherwise train on with untrained flow heads."""
    shutil.copytree(runs.stage_1_folder, tmp_path / "person")
    command = [
        "train.py", *TRAINING, *QUIET, *places(tiny_market, tmp_path), "--model=pose",
        "--continue_train", "--niter=1", "--attn_layer=2,3", "--kernel_size=2=3,3=3",
    ]  # fmt: skip
    process = run_here(*command)
    assert_one_line_error(process, "--attn_layer: got 2,3", "trained with 2 (", "network.json")
    (tmp_path / "person" / "network.json").unlink()
    (tmp_path / "person" / "train_opt.txt").unlink()
    state = weights(tmp_path / "person" / "latest_state.pth")
    del state["run"]["options"]  # as earlier versions saved it
    save_file(state, tmp_path / "person" / "latest_state.pth")
    process = run_here(*command)
    assert_one_line_error(process, "latest_state.pth, network G", "flow_net", "--attn_layer")


def test_a_bad_test_image_does_not_stop_training(runs, tiny_market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_market, data)
    for path in (data / "test").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    output = succeed(
        run_here(
            "train.py", *TRAINING, *places(data, tmp_path), "--model=poseflownet", "--niter=2",
            "--eval_iters_freq=1", "--save_latest_freq=1", "--nThreads=0", "--no_html",
        )
    )  # fmt: skip
    assert "no evaluation at iteration 1: " in output
    assert weights(tmp_path / "person" / "latest_state.pth")["iteration"] == 2


def test_a_bad_test_image_is_left_out_if_asked_for(runs, tiny_market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_market, data)
    bad = test_pairs()[0][0]
    (data / "test" / bad).write_bytes((data / "test" / bad).read_bytes()[:200])
    good = [pair for pair, names in zip(PAIRS, test_pairs(), strict=True) if bad not in names]
    process = run_test(data, runs, tmp_path / "out", "--skip_bad_samples", "--batchSize=2")
    output = succeed(process)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"{p}_vis.png" for p in good
    }
    assert f"{len(good)} images in" in output
    assert f"{len(PAIRS) - len(good)} pairs left out" in output
    assert bad in process.stderr


def test_fresh_run_keeps_the_earlier_one(runs, tiny_market, tmp_path):
    shutil.copytree(runs.stage_1_folder, tmp_path / "person")
    (tmp_path / "person" / "notes.txt").write_text("mine")
    content = {
        p.relative_to(tmp_path / "person"): p.read_bytes() for p in files(tmp_path / "person")
    }
    start = [*TRAINING, *QUIET, *places(tiny_market, tmp_path), "--model=poseflownet", "--niter=1"]
    output = succeed(run_here("train.py", *start))
    earlier = tmp_path / "person.earlier-1"
    assert f"moved to {earlier}" in output
    assert {p.relative_to(earlier): p.read_bytes() for p in files(earlier)} == content
    assert weights(tmp_path / "person" / "latest_state.pth")["iteration"] == 1
    assert len(loss_lines(tmp_path / "person")) == 1
    succeed(run_here("train.py", *start))
    assert {path.name for path in tmp_path.iterdir()} == {
        "person", "person.earlier-1", "person.earlier-2",
    }  # fmt: skip
    assert {p.relative_to(earlier): p.read_bytes() for p in files(earlier)} == content


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_training_goes_on_without_test_pairs(tiny_market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_market, data, ignore=shutil.ignore_patterns("*test*", "flow"))
    output = succeed(
        run_here(
            "train.py", *TRAINING, *places(data, tmp_path), "--model=poseflownet", "--niter=1",
            "--nThreads=0", "--no_html",
        )
    )  # fmt: skip
    assert "no evaluation during training" in output
    assert not (tmp_path / "person" / "eval_log.txt").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_and_can_go_on(tiny_market, tmp_path, workers):
    """The terminal sends the signal to the whole process group, workers included."""
    training = [
        "train.py", "--model=poseflownet", *TRAINING, *places(tiny_market, tmp_path),
        "--no_html", "--eval_iters_freq=0", f"--nThreads={workers}", "--batchSize=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *training], cwd=PROJECT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while not process.stdout.readline().startswith("(epoch: 1, iters: 2,"):
            assert process.poll() is None, process.stderr.read()
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    done = weights(tmp_path / "person" / "latest_state.pth")["iteration"]
    assert done >= 2
    assert f"stopped after iteration {done}, saved" in output and "--continue_train" in output
    assert int(loss_lines(tmp_path / "person")[-1][2]) == done
    output = succeed(run_here(*training, "--continue_train", f"--niter={done + 1}"))
    assert f"optimisers: as after iteration {done}" in output
    assert f"iterations {done + 1} to {done + 1};" in output
    assert int(loss_lines(tmp_path / "person")[-1][2]) == done + 1


# The learning-rate schedules.


def factor(iteration, policy, niter=10, niter_decay=4, lr_decay_iters=5, lr_gamma=0.1):
    options = Namespace(
        lr_policy=policy, niter=niter, niter_decay=niter_decay, lr_decay_iters=lr_decay_iters,
        lr_gamma=lr_gamma,
    )  # fmt: skip
    return learning_rate_factor(options, iteration)


def test_lambda_policy_is_constant_then_linear():
    assert [factor(i, "lambda") for i in (1, 5, 10)] == [1, 1, 1]
    assert [factor(i, "lambda") for i in range(11, 15)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert [factor(i, "lambda", niter_decay=0) for i in (1, 10)] == [1, 1]


def test_step_policy_falls_every_period():
    factors = [factor(i, "step") for i in (1, 5, 6, 10, 11, 16)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_exponent_policy_falls_all_the_time():
    factors = [factor(i, "exponent") for i in range(1, 12)]
    assert factors[0] == 1 and factors[5] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(0.01)
    ratios = [b / a for a, b in pairwise(factors)]
    assert ratios == pytest.approx([0.1**0.2] * 10)
