"""Scores of a picture: golden numbers, values known on paper, and what is undefined."""

import json
import math
import warnings

import numpy as np
import pytest

from tests.support.golden_formula import golden
from tests.support.helpers import GOLDEN
from util import image_scores as reconstruction
from util.errors import UserError
from util.image_scores import (
    l1,
    l1_255,
    l2_255,
    mae,
    mask_picture,
    psnr,
    ssim,
    ssim_7x7,
    ssim_256,
)

GFLA_SCORES = {"psnr": 1e-4, "ssim": 1e-6, "ssim_256": 1e-6, "mae": 1e-6, "l1": 1e-6}
PG2_SCORES = {"ssim": ssim_7x7, "psnr": psnr, "L1": l1_255, "L2": l2_255}
PG2 = GOLDEN / "pg2"
ALL = (psnr, l1, mae, ssim, ssim_256, ssim_7x7, l1_255, l2_255)


def random_pictures(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("pair", range(4))
@pytest.mark.parametrize("name", GFLA_SCORES)
def test_scores_are_the_golden_ones(name, pair):
    images, expected = golden("metrics.npz"), golden("metrics.json")["float64_ssim"]
    score = getattr(reconstruction, name)
    value = score(images[f"pair{pair}.prediction"], images[f"pair{pair}.ground_truth"])
    assert value == pytest.approx(expected[name][pair], abs=GFLA_SCORES[name])


@pytest.mark.parametrize("mask", [None, "source", "target"])
@pytest.mark.parametrize("name", PG2_SCORES)
def test_pg2_scores_are_the_golden_ones(name, mask):
    key = f"masked_with_{mask}_mask" if mask else "unmasked"
    expected = json.loads((PG2 / "scores.json").read_text())["per_image"][key]
    with np.load(PG2 / "scores.npz") as arrays:
        results, targets = arrays["generated_u8"], arrays["target_u8"]
        if mask:
            masks = arrays[f"mask_{mask}_u8"] > 0
            results, targets = (
                [mask_picture(*both) for both in zip(pictures, masks, strict=True)]
                for pictures in (results, targets)
            )
    values = [PG2_SCORES[name](*pair) for pair in zip(results, targets, strict=True)]
    assert values == pytest.approx([scores[name] for scores in expected], abs=1e-6)


def test_scores_known_on_paper():
    dark = np.full((64, 60, 3), 51, np.uint8)
    light = np.full((64, 60, 3), 102, np.uint8)
    assert l1(dark, light) == l1(light, dark) == pytest.approx(0.2)
    assert mae(dark, light) == mae(light, dark) == pytest.approx(1 / 3)
    assert psnr(dark, light) == pytest.approx(10 * math.log10(1 / 0.2**2))
    assert l1_255(light, dark) == 51
    assert l2_255(dark, light) == pytest.approx(51 / math.sqrt(64 * 60 * 3))
    # Flat pictures have the luminance term of SSIM only (Wang et al. 2004, eq. 6).
    luminance = (2 * 0.2 * 0.4 + 0.01**2) / (0.2**2 + 0.4**2 + 0.01**2)
    assert ssim(dark, light) == pytest.approx(luminance)
    assert ssim_7x7(dark, light) == pytest.approx(luminance)


def test_ssim_by_its_definition():
    result, target = random_pictures(51, 51)
    scores = []
    for x, y in zip(result.reshape(-1, 3).T / 255, target.reshape(-1, 3).T / 255, strict=True):
        (xx, xy), (_, yy) = np.cov(x, y)
        numerator = (2 * x.mean() * y.mean() + 0.01**2) * (2 * xy + 0.03**2)
        scores.append(numerator / ((x.mean() ** 2 + y.mean() ** 2 + 0.01**2) * (xx + yy + 0.03**2)))
    assert ssim(result, target) == pytest.approx(np.mean(scores), rel=1e-9)


def test_only_ssim_256_depends_on_which_picture_is_the_result():
    result, target = random_pictures(60, 64)
    target = target // 2
    for score in ALL:
        same = score(result, target) == pytest.approx(score(target, result), rel=1e-9)
        assert same == (score is not ssim_256)


def test_identical_pictures():
    picture, _ = random_pictures(60, 64)
    assert psnr(picture, picture) == math.inf
    for score in (l1, mae, l1_255, l2_255):
        assert score(picture, picture) == 0
    for score in (ssim, ssim_256, ssim_7x7):
        assert score(picture, picture) == pytest.approx(1)


def test_undefined_values_come_without_warnings():
    black, noise = np.zeros((64, 60, 3), np.uint8), random_pictures(64, 60)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mae(black, black) == 0
        assert math.isnan(ssim_256(black, noise))
        assert math.isnan(ssim_256(black + 7, noise))
        assert psnr(noise, noise) == math.inf
        assert math.isfinite(ssim_256(noise, black))


@pytest.mark.parametrize(("score", "window"), [(ssim, 51), (ssim_256, 11), (ssim_7x7, 7)])
def test_a_picture_smaller_than_the_window_is_an_error(score, window):
    assert math.isfinite(score(*random_pictures(window, window)))
    with pytest.raises(UserError, match=rf"{window}x{window} .* {window - 1}x90 "):
        score(*random_pictures(window - 1, 90))
    with pytest.raises(UserError, match=f"90x{window - 1}"):
        score(*random_pictures(90, window - 1))


def test_masking_bytes_is_masking_the_picture_in_0_1():
    picture, _ = random_pictures(60, 64)
    mask = np.random.default_rng(1).random((60, 64)) < 0.5
    masked = mask_picture(picture, mask)
    assert masked.dtype == np.uint8
    assert np.array_equal(masked / 255, picture / 255 * mask[:, :, None])
    assert np.array_equal(masked, mask_picture(picture, mask.astype(np.uint8) * 255))
