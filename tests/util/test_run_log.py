"""The record of a run on disk."""

import json
import math
import re

import numpy as np
from PIL import Image

from util.run.log import RunLog


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def records(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in lines(folder / "metrics.jsonl")]


def test_losses(tmp_path):
    log = RunLog(tmp_path, "pose")
    line = log.losses(1, 3, 0.8731, {"app_gen": 1.7068, "regularization": -0.0004}, 1e-4, 0.25)
    assert line == "(epoch: 1, iters: 3, time: 0.873) app_gen: 1.707 regularization: -0.000 "
    header, written = lines(tmp_path / "loss_log.txt")
    assert re.fullmatch(r"=+ Training Loss \(.+\) =+", header)
    assert written == line
    (record,) = records(tmp_path)
    assert record.pop("unix_time") > 1e9
    assert record == {
        "kind": "train",
        "model": "pose",
        "iteration": 3,
        "epoch": 1,
        "seconds": 0.8731,
        "iterations_per_second": 1.1453,
        "data_wait_seconds": 0.25,
        "learning_rate": 1e-4,
        "app_gen": 1.7068,
        "regularization": -0.0004,
    }


def test_a_second_run_is_added(tmp_path):
    for iteration in (1, 2):
        RunLog(tmp_path, "pose").losses(1, iteration, 0.1, {"loss": 1.0}, 1e-4)
    headers = [line.startswith("=====") for line in lines(tmp_path / "loss_log.txt")]
    assert headers == [True, False, True, False]
    assert [record["iteration"] for record in records(tmp_path)] == [1, 2]


def test_scores(tmp_path):
    line = RunLog(tmp_path, "pose").scores(20, {"L1": 0.12345, "SSIM": 0.5, "pairs": 12})
    assert line == "(iters: 20) L1: 0.1235, SSIM: 0.5000, pairs: 12"
    assert lines(tmp_path / "eval_log.txt") == [line]
    (record,) = records(tmp_path)
    assert record["kind"] == "eval" and record["iteration"] == 20
    assert (record["L1"], record["SSIM"], record["pairs"]) == (0.12345, 0.5, 12)


def test_what_is_no_number_is_no_json(tmp_path):
    log = RunLog(tmp_path, "pose")
    log.scores(1, {"L1": 0.5, "EPE": math.nan, "pairs": 2})
    log.losses(1, 1, 0.1, {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 0.0}, 1e-4)
    scores, losses = records(tmp_path)
    assert "EPE" not in scores and scores["L1"] == 0.5
    assert not {"a", "b", "c"} & losses.keys() and losses["d"] == 0
    assert "EPE: nan" in lines(tmp_path / "eval_log.txt")[0]
    assert "a: inf b: -inf c: nan" in lines(tmp_path / "loss_log.txt")[1]


def test_snapshots(tmp_path):
    picture = np.full((20, 30, 3), 200, np.uint8)
    RunLog(tmp_path, "pose").snapshot(1500, picture)
    (path,) = (tmp_path / "web" / "images").iterdir()
    assert path.name == "pose_iter_00001500.jpg"
    with Image.open(path) as stored:
        assert stored.format == "JPEG"
        assert np.abs(np.asarray(stored).astype(int) - 200).max() <= 2
