"""From one stage to the next: what is loaded, kept and refused."""

import shutil

import pytest
import torch

from models import create_model
from models.checkpoints import load_for_training, save_model
from tests.conftest import test_pairs as pairs_of_the_test_phase
from tests.support.helpers import MARKET, assert_one_line_error, run_here, save_file, train_options
from train import short_losses
from util.errors import UserError
from util.run.folder import keep_given, keep_stage


def names(folder):
    return {path.name for path in folder.iterdir()}


def saved(folder, label, model, content=0.0):
    """A checkpoint as far as its files tell whose it is; gives their names."""
    for part in ("net_G", "state"):
        save_file({"model": model, "x": torch.tensor(content)}, folder / f"{label}_{part}.pth")
    return {f"{label}_net_G.pth", f"{label}_state.pth"}


def value(folder, name):
    return torch.load(folder / name, weights_only=True)["x"].item()


def test_the_stage_before_keeps_its_checkpoints(tmp_path):
    folder = tmp_path / "run"
    latest, numbered = (saved(folder, label, "poseflownet", 1.0) for label in ("latest", "20"))
    (folder / "log.txt").write_text("log")
    kept = {f"poseflownet_{name}" for name in latest | numbered}
    for _ in range(2):  # again after a stage 2 that was cut off before its first save
        keep_stage(folder, "poseflownet")
        # `latest` stays until the next stage has saved its own: that has just read it.
        assert names(folder) == {*latest, *kept, "log.txt"}
    assert names(tmp_path) == {"run"}


def test_what_is_no_checkpoint_of_the_stage_before_is_not_kept_as_one(tmp_path):
    folder, earlier = tmp_path / "run", tmp_path / "run.earlier-1"
    kept = saved(folder, "poseflownet_latest", "poseflownet", 1.0)
    of_stage_2 = saved(folder, "latest", "pose", 2.0) | saved(folder, "30", "pose", 2.0)
    unknown = saved(folder, "40", "poseflownet", 3.0)
    (folder / "40_state.pth").unlink()
    keep_stage(folder, "poseflownet")
    assert names(folder) == kept
    assert names(earlier) == (kept | of_stage_2 | unknown) - {"40_state.pth"}
    assert value(folder, "poseflownet_latest_net_G.pth") == 1


def test_a_kept_file_is_never_replaced(tmp_path):
    """Stage 1 was trained on, under the same name, after a stage 2 that saved nothing."""
    folder, earlier = tmp_path / "run", tmp_path / "run.earlier-1"
    saved(folder, "poseflownet_latest", "poseflownet", 1.0)
    saved(folder, "latest", "poseflownet", 2.0)
    keep_stage(folder, "poseflownet")
    assert value(folder, "poseflownet_latest_net_G.pth") == 2
    assert value(earlier, "poseflownet_latest_net_G.pth") == 1
    assert value(earlier, "latest_net_G.pth") == 2


def test_files_put_there_by_hand_are_kept_apart(tmp_path):
    folder = tmp_path / "run"
    of_stage_1 = saved(folder, "latest", "poseflownet", 1.0) | saved(folder, "5", "poseflownet")
    (folder / "network.json").write_text('{"model": "poseflownet"}')
    for name, content in (("7_net_G", 7.0), ("7_net_D", 7.5), ("given1_7_net_D", 6.0)):
        save_file({"x": torch.tensor(content)}, folder / f"{name}.pth")
    keep_given(folder, "latest")
    keep_stage(folder, "poseflownet")
    kept = {f"poseflownet_{name}" for name in of_stage_1}
    given = {"given1_7_net_D.pth", "given2_7_net_G.pth", "given2_7_net_D.pth"}
    latest = {"latest_net_G.pth", "latest_state.pth"}
    assert names(folder) == {*kept, *given, *latest, "network.json"}
    assert [value(folder, f"{name}.pth") for name in ("given1_7_net_D", "given2_7_net_D")] == [
        6, 7.5
    ]  # fmt: skip


def test_what_a_run_starts_from_stays_until_it_has_saved(tmp_path):
    folder = tmp_path / "run"
    for label in ("latest", "5"):
        save_file({"x": torch.tensor(1.0)}, folder / f"{label}_net_G.pth")
    for _ in range(2):  # again after a run that was cut off before its first save
        keep_given(folder, "5")
        expected = {"5_net_G.pth", "given1_5_net_G.pth", "given1_latest_net_G.pth"}
        assert names(folder) == expected
    keep_given(folder, "latest")  # a checkpoint of a run from now on, were it to stay
    assert names(folder) == {"given1_5_net_G.pth", "given1_latest_net_G.pth"}


def test_stage_1_does_not_train_on_over_a_stage_2_checkpoint(tmp_path):
    save_model(create_model(train_options("--model=pose")), tmp_path, "latest", 3)
    flow_model = create_model(train_options("--model=poseflownet"))
    with pytest.raises(UserError, match=r"left over \(source, target\).*--model=poseflownet"):
        load_for_training(flow_model, tmp_path, "latest")


def test_stage_2_says_which_stage_it_starts_from(tmp_path):
    flow_model = create_model(train_options("--model=poseflownet"))
    save_model(flow_model, tmp_path, "latest", 7)
    model = create_model(train_options("--model=pose"))
    start = load_for_training(model, tmp_path, "latest")
    assert (start.iteration, start.earlier_model) == (0, "poseflownet")
    taken = model.networks["G"].state_dict()
    for name, value in flow_model.networks["G"].state_dict().items():
        assert torch.equal(taken[name], value)
    again = load_for_training(flow_model, tmp_path, "latest")
    assert (again.iteration, again.earlier_model) == (7, None)


def test_weights_without_a_training_state_start_at_the_first_iteration(tmp_path):
    model = create_model(train_options("--model=poseflownet"))
    save_file(model.networks["G"].state_dict(), tmp_path / "latest_net_G.pth")
    start = load_for_training(model, tmp_path, "latest")
    assert (start.iteration, start.earlier_model) == (0, None)
    assert "start fresh" in start.lines[-1]


def test_a_finished_training_is_left_alone(tiny_market, tmp_path):
    common = ["--model=poseflownet", f"--dataroot={tiny_market}", f"--checkpoints_dir={tmp_path}"]
    model = create_model(train_options(*common))
    (tmp_path / "done").mkdir()
    save_model(model, tmp_path / "done", "latest", 5)
    before = {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()}
    process = run_here(
        "train.py", *MARKET, *common, "--name=done", "--vgg_weights=random", "--continue_train",
        "--niter=5",
    )  # fmt: skip
    assert_one_line_error(process, "--niter", "5")
    assert {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()} == before


def test_two_pairs_of_one_result_name_are_refused(tiny_market, tmp_path):

    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(tiny_market, data)
    source, target = pairs_of_the_test_phase()[0]
    twin = target.rsplit(".", 1)[0] + ".png"
    shutil.copy(data / "test" / target, data / "test" / twin)
    annotation = data / "market-annotation-test.csv"
    row = next(line for line in annotation.read_text().splitlines() if line.startswith(target))
    with annotation.open("a") as file:
        file.write(row.replace(target, twin) + "\n")
    with (data / "market-pairs-test.csv").open("a") as file:
        file.write(f"{source},{twin}\n")
    (tmp_path / "m").mkdir()
    model = create_model(train_options("--model=poseflownet"))
    save_file(model.networks["G"].state_dict(), tmp_path / "m" / "latest_net_G.pth")
    process = run_here(
        "test.py", *MARKET[:2], "--model=poseflownet", f"--dataroot={data}", "--name=m",
        f"--checkpoints_dir={tmp_path}", f"--results_dir={results}",
    )  # fmt: skip
    assert_one_line_error(process, "market-pairs-test.csv", twin, "rename")
    assert not list(results.glob("*_vis.*"))


def test_the_bar_shows_the_losses_that_count():
    losses = {"app_gen": 1.234, "regularization": 0.0021, "ad_gen": 0.5, "correctness_gen": -0.1}
    shown = short_losses({name: torch.tensor(value) for name, value in losses.items()})
    assert shown == "app 1.23 ad 0.50 correctness -0.10"


@pytest.mark.parametrize("skip", [True, False])
def test_a_bad_training_image(tiny_market, tmp_path, skip):
    data = tmp_path / "data"
    shutil.copytree(tiny_market, data)
    bad = sorted((data / "train").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:200])
    process = run_here(
        "train.py", *MARKET, "--model=poseflownet", "--vgg_weights=random", f"--dataroot={data}",
        f"--checkpoints_dir={tmp_path}", "--name=m", "--batchSize=12", "--niter=1", "--no_html",
        "--eval_iters_freq=0", "--nThreads=0", *(["--skip_bad_samples"] if skip else []),
    )  # fmt: skip
    if skip:
        assert process.returncode == 0, process.stderr
        assert "--skip_bad_samples replaced" in process.stdout and bad.name in process.stderr
        assert (tmp_path / "m" / "latest_net_G.pth").exists()
    else:
        assert_one_line_error(process, bad.name, "--skip_bad_samples")
