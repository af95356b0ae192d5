"""Masks of the body from its key points: where the masked scores and PG2's masked loss look."""

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter
from skimage.draw import disk, polygon

# Limbs as pairs of OpenPose-18 key points (0 nose, 1 neck, 2-4 right arm, 5-7 left arm,
# 8-10 right leg, 11-13 left leg, 14 right eye, 15 left eye, 16 right ear, 17 left ear).
LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
# And lines that fill the body: from the neck to the ears, round the trunk, from ear to ear.
BODY_LIMBS = (*LIMBS, (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17))
CLOSING = 5  # side of the square, pixels
# What a pose may have: those 18, or OpenPose's BODY_25, which adds the middle of the hips and feet.
KEYPOINT_COUNTS = (18, 25)
_OF_BODY_25 = [*range(8), *range(9, 19)]


def without_feet(pose: np.ndarray) -> np.ndarray:
    """The OpenPose-18 key points of a pose of one of KEYPOINT_COUNTS."""
    return pose[_OF_BODY_25] if len(pose) == 25 else pose


def limb_body_mask(pose: np.ndarray, size: tuple[int, int], radius: float = 4) -> np.ndarray:
    """Mask of the masked scores: every limb a rectangle, every key point a disc, then closed.

    The rectangle of a limb is 2 * radius wide and as long as the limb. The closing is a 5x5
    dilation and a 5x5 erosion, which look at pixels of the picture only.

    Args:
        pose: [18 or 25, 2], (x, y) in pixels of the picture; NaN for a missing key point. Points
            may lie outside the picture.
        size: (height, width) of the picture.
        radius: of the discs, and half the thickness of the limbs, in pixels.

    Returns:
        bool [height, width]; all False without key points.
    """
    pose = without_feet(pose)
    mask = np.zeros(size, np.bool_)
    for start, end in _limb_ends(pose):
        direction = end - start
        length = np.hypot(*direction)
        if length == 0:  # its discs are all there is
            continue
        aside = np.array([-direction[1], direction[0]]) / length * radius
        x, y = np.stack([start + aside, end + aside, end - aside, start - aside]).T
        mask[polygon(y, x, shape=size)] = True
    for x, y in _present(pose):
        mask[disk((y, x), radius, shape=size)] = True
    return _close(mask)


def disc_body_mask(pose: np.ndarray, size: tuple[int, int], radius: int = 4) -> np.ndarray:
    """PG2's pose mask: a chain of discs along every limb, then closed (Ma et al. 2017, sec. 3.1).

    A limb of length L has n = trunc(L / radius) steps: discs at its ends and, where n > 1, at the
    n - 1 points between. The centres are truncated toward zero to whole pixels; the disc of radius
    r has the pixels with dx² + dy² <= r². A key point whose limbs all miss their other end has no
    disc. The closing is the one of `limb_body_mask`.

    Args:
        pose: [18 or 25, 2], (x, y) in pixels of the picture; NaN for a missing key point. Points
            may lie outside the picture.
        size: (height, width) of the picture.
        radius: of the discs in pixels.

    Returns:
        bool [height, width]; all False without a limb.
    """
    centres = [np.empty((0, 2))]
    for start, end in _limb_ends(without_feet(pose)):
        steps = max(1, int(np.hypot(*(end - start)) / radius))
        centres.append(start + (end - start) * np.arange(steps + 1)[:, None] / steps)
    columns, rows = np.unique(np.trunc(np.concatenate(centres)).astype(np.int64), axis=0).T
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = dy**2 + dx**2 <= radius**2
    rows, columns = rows[:, None] + dy[inside], columns[:, None] + dx[inside]
    visible = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    mask = np.zeros(size, np.bool_)
    mask[rows[visible], columns[visible]] = True
    return _close(mask)


def _present(pose: np.ndarray) -> np.ndarray:
    return pose[np.isfinite(pose).all(axis=1)]


def _limb_ends(pose: np.ndarray) -> np.ndarray:
    """[n, 2 ends, 2] of the limbs whose ends are both there, float64."""
    ends = np.asarray(pose, np.float64)[np.array(BODY_LIMBS)]
    return ends[np.isfinite(ends).all(axis=(1, 2))]


def _close(mask: np.ndarray) -> np.ndarray:
    # Outside the picture counts as the neutral element of either filter.
    pixels = mask.view(np.uint8)
    dilated = maximum_filter(pixels, CLOSING, mode="constant", cval=0)
    return minimum_filter(dilated, CLOSING, mode="constant", cval=1).view(np.bool_)
