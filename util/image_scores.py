"""Reconstruction scores of one picture against its ground truth, computed in float64.

All take `(result, target)`, uint8 [H, W, 3] of one size, and give a float. The masked scores of
either protocol are these functions on pictures that went through `mask_picture`.
"""

from typing import Any

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from util.errors import UserError

SSIM_WINDOW = 51
SSIM_256_SIGMA = 1.5
SSIM_256_WINDOW = 11  # what scikit-image truncates a Gaussian of that sigma to
SSIM_7X7_WINDOW = 7


def mask_picture(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Black outside the mask.

    Masking bytes gives the same numbers as masking the picture in [0, 1], so this serves both
    mask-SSIM of this line of work and PG2's masked scores.

    Args:
        picture: uint8 [H, W, 3].
        mask: bool [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    return picture * mask.astype(np.bool_, copy=False)[..., None]


def psnr(result: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(1 / mean (a - b)²) of pictures in [0, 1].

    Pictures in [0, 255] with data range 255 give the same.

    Returns:
        Above 0 (black against white gives 0); infinity for identical pictures. JSON has no
        infinity and a mean drowns in it: `report.mean_figure` leaves such values out and says so.
    """
    if np.array_equal(result, target):  # scikit-image would warn of a division by zero
        return float("inf")
    return float(peak_signal_noise_ratio(target, result, data_range=255))


def l1(result: np.ndarray, target: np.ndarray) -> float:
    """Mean |a - b| of pictures in [0, 1]: 0 (equal) to 1 (black against white)."""
    return l1_255(result, target) / 255


def mae(result: np.ndarray, target: np.ndarray) -> float:
    """Sum of |a - b| / sum of (a + b): what papers of this line of work call MAE.

    Returns:
        0 (equal) to 1; 0 for two black pictures, which are equal although 0 / 0 is undefined.
    """
    total = int(result.sum(dtype=np.int64)) + int(target.sum(dtype=np.int64))
    return float(_difference(result, target).sum() / total) if total else 0.0


def ssim(result: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, uniform window 51, data range 1, mean over the channels.

    The protocol of this line of work: sample covariance, pictures in [0, 1]. (Computed on
    [0, 255], which is the same: SSIM does not change when picture and data range are scaled.)

    Returns:
        -1 to 1 (equal).

    Raises:
        UserError: the window does not fit into the picture.
    """
    return _structural_similarity(result, target, SSIM_WINDOW, data_range=255)


def ssim_256(result: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, Gaussian window of sigma 1.5, mean over the channels ("SSIM_256").

    Population covariance; pictures in [0, 255], data range = max - min of the result.

    Returns:
        -1 to 1 (equal). NaN where the result has a single value in all channels: its range is 0,
        the constants of the SSIM formula vanish and 0 / 0 remains.

    Raises:
        UserError: the window (11 pixels, where the Gaussian ends) does not fit into the picture.
    """
    data_range = int(result.max()) - int(result.min())
    if data_range == 0:
        return float("nan")
    return _structural_similarity(
        result,
        target,
        SSIM_256_WINDOW,
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_256_SIGMA,
        use_sample_covariance=False,
    )


def ssim_7x7(result: np.ndarray, target: np.ndarray) -> float:
    """PG2's structural similarity: uniform window 7, data range 255, mean over the channels.

    Returns:
        -1 to 1 (equal).

    Raises:
        UserError: the window does not fit into the picture.
    """
    return _structural_similarity(result, target, SSIM_7X7_WINDOW, data_range=255)


def l1_255(result: np.ndarray, target: np.ndarray) -> float:
    """PG2's L1: mean |a - b| of pictures in [0, 255]."""
    return float(_difference(result, target).mean())


def l2_255(result: np.ndarray, target: np.ndarray) -> float:
    """PG2's L2: sqrt(sum (a - b)²) / N of pictures in [0, 255]; N = H * W * 3 numbers."""
    difference = _difference(result, target).astype(np.float64)
    return float(np.linalg.norm(difference) / difference.size)


def _difference(result: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.abs(result.astype(np.int16) - target.astype(np.int16))


def _structural_similarity(
    result: np.ndarray, target: np.ndarray, window: int, **options: Any
) -> float:
    height, width = result.shape[:2]
    if min(height, width) < window:
        raise UserError(
            f"the {window}x{window} window of this SSIM does not fit into a picture of "
            f"{height}x{width} (height x width); leave the figure out or score larger pictures"
        )
    # With Gaussian weights `window` must be what scikit-image derives from sigma: it only crops.
    return float(structural_similarity(result, target, win_size=window, channel_axis=2, **options))
