"""script/plot_losses.py: curves of runs as a picture."""

import re

import numpy as np
import pytest
from PIL import Image

from script.plot_losses import main, plot_losses, read_losses, smoothed
from tests.support.helpers import run_python
from util.errors import UserError
from util.run.log import RunLog


@pytest.fixture
def runs(tmp_path):
    """Two runs: one with both stages, one with the first."""
    for name, models in (("lo$n$g", ["poseflownet", "pose"]), ("short", ["poseflownet"])):
        for model in models:
            folder = tmp_path / "result" / name
            folder.mkdir(parents=True, exist_ok=True)
            log = RunLog(folder, model)
            for iteration in range(100, 1100, 100):
                log.losses(1, iteration, 0.1, {"regularization": 1.0 / iteration}, 1e-4, 0.01)
                if model == "pose":
                    log.losses(1, iteration, 0.1, {"app_gen": 3.0}, 1e-4, 0.01)
    return tmp_path / "result"


def test_curves_of_runs_and_stages(runs):
    losses, notes = read_losses([runs / "lo$n$g", runs / "short"])
    assert {name: list(curves) for name, curves in losses.items()} == {
        "regularization": ["lo$n$g (poseflownet)", "lo$n$g (pose)", "short"],
        "app_gen": ["lo$n$g (pose)"],
    }
    expected = [(iteration, 1.0 / iteration) for iteration in range(100, 1100, 100)]
    assert losses["regularization"]["short"].tolist() == [list(point) for point in expected]
    assert notes == []


def test_an_iteration_trained_again_counts_once(runs):
    RunLog(runs / "short", "poseflownet").losses(1, 500, 0.1, {"regularization": 7.0}, 1e-4)
    points = read_losses([runs / "short"])[0]["regularization"]["short"]
    assert len(points) == 10 and dict(points.tolist())[500] == 7


def test_bad_lines_are_left_out_and_counted(runs):
    path = runs / "short" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    more = ['{"kind": "train"', "[1, 2]", '{"kind": "train", "model": "pose"}', ""]
    path.write_text("\n".join([lines[0], *more, *lines[1:]]) + "\n")
    losses, (note,) = read_losses([runs / "short"])
    assert len(losses["regularization"]["short"]) == 10
    assert str(path) in note and ": 3 lines" in note


def test_png_as_a_user_runs_it(runs, tmp_path):
    picture = tmp_path / "pictures" / "losses.png"
    process = run_python(
        "-m", "script.plot_losses", str(runs / "lo$n$g"), str(runs / "short"),
        f"--out={picture}", "--smooth=3",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(picture) and process.stderr == ""
    with Image.open(picture) as opened:
        assert opened.format == "PNG" and opened.width > opened.height > 300
        assert len(np.unique(np.asarray(opened.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_svg_has_a_panel_per_loss_and_a_legend_by_run(runs, tmp_path, monkeypatch):
    from matplotlib import rcParams

    monkeypatch.setitem(rcParams, "svg.fonttype", "none")
    picture = tmp_path / "losses.svg"
    arguments = [str(runs / "lo$n$g"), str(runs / "short"), f"--out={picture}"]
    assert main(arguments) == 0
    text = picture.read_text()
    words = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for word in ("regularization", "app_gen", "lo$n$g (pose)", "lo$n$g (poseflownet)", "short"):
        assert words.count(word) == 1, words
    assert len(re.findall(r'<g id="axes_\d+">', text)) == 2
    assert main([*arguments, "--losses=app_gen"]) == 0
    text = picture.read_text()
    assert len(re.findall(r'<g id="axes_\d+">', text)) == 1 and ">short<" not in text


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50])
def test_smoothing_is_the_mean_around_each_value(count):
    values = np.random.default_rng(0).normal(size=20)
    expected = [
        values[max(0, i - (count - 1) // 2) : i + count // 2 + 1].mean() for i in range(len(values))
    ]
    np.testing.assert_allclose(smoothed(values, count), expected, atol=1e-12)


def test_mistakes_are_named(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "metrics.jsonl").write_text("")
    for folder, message in (
        ("nowhere", "no such run"), ("empty", "no metrics.jsonl"), ("fresh", "no losses yet"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as caught:
            read_losses([runs / "short", tmp_path / folder])
        assert str(tmp_path / folder) in str(caught.value)
    losses, _ = read_losses([runs / "short"])
    with pytest.raises(UserError, match="--losses: there is no 'L1'; there are regularization"):
        plot_losses(losses, tmp_path / "x.png", ["L1"])
    with pytest.raises(UserError, match=r"--out: .*x\.gif"):
        plot_losses(losses, tmp_path / "x.gif")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        plot_losses(losses, tmp_path / "file" / "x.png")
