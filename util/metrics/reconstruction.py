"""Reconstruction metrics of one picture against its ground truth."""

import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 51


def l1(result: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute difference.

    Args:
        result: uint8 [H, W, 3].
        target: the same.

    Returns:
        0 (equal) to 1 (black against white).
    """
    return float(np.abs(result.astype(np.float64) - target.astype(np.float64)).mean() / 255)


def ssim(result: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, uniform window 51, data range 1, mean over the channels.

    The protocol of this line of work (float64; the window must fit into the picture).

    Args:
        result: uint8 [H, W, 3].
        target: the same.

    Returns:
        -1 to 1 (equal).
    """
    return float(
        structural_similarity(
            result / 255.0, target / 255.0, win_size=SSIM_WINDOW, data_range=1.0, channel_axis=2
        )
    )
