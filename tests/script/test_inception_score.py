"""Inception score against torch-fidelity, golden numbers and values known on paper."""

import json
import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from script.metrics.inception_score import InceptionScore
from tests.support.helpers import GOLDEN
from util.errors import UserError

PG2 = GOLDEN / "pg2"


def score_of(
    logits: np.ndarray, batch: int = 8, splits: int = 10, shuffle_seed: int | None = None
) -> tuple[float, float]:
    score = InceptionScore(len(logits), splits, shuffle_seed)
    for start in range(0, len(logits), batch):
        score.add(logits[start : start + batch])
    return score.result()


def random_logits(count: int) -> np.ndarray:
    return 3 * np.random.default_rng(0).standard_normal((count, 15)).astype(np.float32)


@pytest.mark.parametrize("shuffle_seed", [None, 2020, 7])
@pytest.mark.parametrize("count", [10, 64, 103])
def test_equal_to_torch_fidelity(count, shuffle_seed):
    logits = random_logits(count)
    expected = isc_features_to_metric(
        torch.from_numpy(logits), 10, shuffle_seed is not None, shuffle_seed
    )
    mean, std = score_of(logits, shuffle_seed=shuffle_seed)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


def test_golden_score():
    expected = json.loads((PG2 / "scores.json").read_text())["inception_score_of_probs"]
    with np.load(PG2 / "scores.npz") as arrays:
        logits = np.log(arrays["inception_probs"])
    assert score_of(logits) == pytest.approx((expected["mean"], expected["std"]), abs=1e-6)


def test_batch_size_does_not_matter():
    logits = random_logits(37)
    scores = [score_of(logits, batch, 4, 2020) for batch in (1, 5, 37)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)
    assert scores[0] == pytest.approx(scores[2], rel=1e-12)


def test_scores_known_on_paper():
    certain = np.full((12, 3), -np.inf)
    certain[np.arange(12), np.arange(12) % 3] = 0
    assert score_of(certain, splits=4) == pytest.approx((3, 0))  # all classes, each sure
    assert score_of(certain[:4], splits=4) == pytest.approx((1, 0))  # one image per split
    assert score_of(np.zeros((12, 3)), splits=2) == pytest.approx((1, 0))  # never sure
    half = np.log([[0.75, 0.25], [0.25, 0.75]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert score_of(half, splits=1)[0] == pytest.approx(math.exp(divergence))


def test_fewer_images_than_splits():
    with pytest.raises(UserError, match="Inception score of 9 images: 10 splits"):
        InceptionScore(9)


def test_the_announced_number_of_images_is_kept():
    score = InceptionScore(10)
    score.add(random_logits(9))
    with pytest.raises(ValueError, match="got 9 images, expected 10"):
        score.result()
    with pytest.raises(ValueError, match="got 11 images, expected 10"):
        score.add(random_logits(2))
    score.add(random_logits(1))
    assert score.result()[0] == pytest.approx(1)
