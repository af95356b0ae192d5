"""Inception score against golden numbers and values known on paper."""

import json
import math

import numpy as np
import pytest

from script.metrics.inception_score import inception_score
from tests.support.helpers import GOLDEN

PG2 = GOLDEN / "pg2"


def test_golden_score():
    expected = json.loads((PG2 / "scores.json").read_text())["inception_score_of_probs"]
    with np.load(PG2 / "scores.npz") as arrays:
        logits = np.log(arrays["inception_probs"])
    assert inception_score(logits) == pytest.approx((expected["mean"], expected["std"]), abs=1e-6)


def test_scores_known_on_paper():
    certain = 50 * np.eye(3)[np.arange(12) % 3]
    assert inception_score(certain, splits=4) == pytest.approx((3, 0))  # all classes, each sure
    assert inception_score(certain[:4], splits=4) == pytest.approx((1, 0))  # one image per split
    assert inception_score(np.zeros((12, 3)), splits=2) == pytest.approx((1, 0))  # never sure
    half = np.log([[0.75, 0.25], [0.25, 0.75]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert inception_score(half, splits=1)[0] == pytest.approx(math.exp(divergence))


def test_shuffling_deals_the_images_to_other_splits():
    sorted_classes = 50 * np.eye(3)[np.arange(12) // 4]
    assert inception_score(sorted_classes, splits=3) == pytest.approx((1, 0))
    assert inception_score(sorted_classes, splits=3, shuffle_seed=2020)[0] > 1.5
