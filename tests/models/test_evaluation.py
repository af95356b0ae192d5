"""Scores: the metrics against golden numbers, and the means over a set of pairs."""

import math

import numpy as np
import pytest
import torch

from data import create_dataset, create_loader
from models.base_model import Prediction
from models.evaluation import copy_source, evaluate, score_batch, spread_indices
from tests.conftest import NOTHING_VISIBLE, WITHOUT_FLOW, test_pairs
from tests.support.golden_formula import golden
from tests.support.helpers import inference_options
from util.image_scores import l1, ssim


@pytest.mark.parametrize("pair", range(4))
def test_metrics_are_the_golden_ones(pair):
    images, expected = golden("metrics.npz"), golden("metrics.json")["float64_ssim"]
    result, target = images[f"pair{pair}.prediction"], images[f"pair{pair}.ground_truth"]
    assert ssim(result, target) == pytest.approx(expected["ssim"][pair], abs=1e-6)
    assert l1(result, target) == pytest.approx(expected["l1"][pair], abs=1e-6)


def test_metrics_of_extremes():
    black, white = np.zeros((64, 60, 3), np.uint8), np.full((64, 60, 3), 255, np.uint8)
    assert l1(black, white) == 1
    assert l1(white, white) == 0
    assert ssim(white, white) == pytest.approx(1)
    assert ssim(black, white) == pytest.approx(0, abs=1e-3)


@pytest.fixture(scope="module")
def dataset(tiny_market):
    return create_dataset(inference_options(f"--dataroot={tiny_market}"))


def loader(dataset, batch_size):
    return create_loader(dataset, batch_size, training=False)


def test_copying_the_source_is_as_wrong_as_the_true_flow_is_long(dataset, tiny_market):
    lengths = []
    for position, names in enumerate(test_pairs()):
        if position in (NOTHING_VISIBLE, WITHOUT_FLOW):
            continue
        stems = "_2_".join(name.removesuffix(".jpg") for name in names)
        with np.load(tiny_market / "flow" / f"{stems}.npz") as true:
            flow, visible = true["flow"].astype(np.float64), true["visible"]
        lengths.append(np.hypot(*flow)[visible].mean())
    assert len(lengths) == 3
    scores = evaluate(copy_source, loader(dataset, 2))
    assert scores["EPE"] == pytest.approx(np.mean(lengths), rel=1e-5)
    assert scores["pairs"] == 5


def test_the_truth_itself_is_perfect(dataset):
    def cheat(batch):
        return Prediction(batch["P2"], [torch.zeros(1), batch["flow"]])  # the finest is the last

    scores = evaluate(cheat, loader(dataset, 2))
    assert scores == {"L1": 0, "SSIM": pytest.approx(1), "EPE": 0, "pairs": 5}


def test_flow_of_a_smaller_map_is_compared_at_image_size(dataset):
    def smaller(batch):
        flow = torch.ones(len(batch["P1"]), 2, 32, 16)  # 1 pixel there is 4 at image size
        return Prediction(batch["P1"], [flow])

    batch = next(iter(loader(dataset, 2)))
    batch["flow"] = torch.full_like(batch["flow"], 4.0)
    batch["visible"] = torch.ones_like(batch["visible"])
    assert [score["EPE"] for score in score_batch(batch, smaller(batch))] == [0, 0]
    batch["flow"][1] = torch.tensor([7.0, 8.0]).view(2, 1, 1)
    scores = score_batch(batch, smaller(batch))
    assert [score["EPE"] for score in scores] == pytest.approx([0, 5])


def test_batch_size_does_not_matter(dataset):
    one, three = (evaluate(copy_source, loader(dataset, size)) for size in (1, 3))
    assert one == pytest.approx(three, rel=1e-6)
    images = {"L1": [], "SSIM": []}
    for item in (dataset[number] for number in range(len(dataset))):
        pair = [
            np.rint((item[key].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
            for key in ("P1", "P2")
        ]
        images["L1"].append(l1(*pair))
        images["SSIM"].append(ssim(*pair))
    for name, values in images.items():
        assert one[name] == pytest.approx(np.mean(values), rel=1e-6)


def test_without_true_flow_there_is_no_flow_error(dataset):
    batch = next(iter(loader(dataset, 2)))
    del batch["flow"], batch["visible"]
    assert [score.keys() for score in score_batch(batch, copy_source(batch))] == [
        {"L1", "SSIM"}
    ] * 2


def test_pairs_without_visible_pixel_have_no_flow_error(dataset):
    item = dataset[NOTHING_VISIBLE]
    batch = {key: value[None] for key, value in item.items() if torch.is_tensor(value)}
    assert math.isnan(score_batch(batch, copy_source(batch))[0]["EPE"])
    assert math.isnan(evaluate(copy_source, [batch])["EPE"])


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(5, 3, [0, 2, 4]), (3, 5, [0, 1, 2]), (1, 4, [0]), (7, 1, [0]), (4, 4, [0, 1, 2, 3])],
)
def test_spread_indices(length, count, expected):
    assert spread_indices(length, count) == expected


def test_spread_indices_reach_both_ends():
    chosen = spread_indices(999, 500)
    assert len(set(chosen)) == 500 and (chosen[0], chosen[-1]) == (0, 998)
