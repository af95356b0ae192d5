"""Body masks against golden ones and slow definitions."""

import warnings

import numpy as np
import pytest

from data.body_mask import BODY_LIMBS, disc_body_mask, limb_body_mask
from tests.support.golden_formula import golden
from tests.support.helpers import GOLDEN

SIZE = (60, 50)
PG2_POSES = GOLDEN / "pg2" / "poses.npz"
MASKS = pytest.mark.parametrize("body_mask", [limb_body_mask, disc_body_mask])


def pose_of(**points: tuple[float, float]) -> np.ndarray:
    """A pose with these key points, for example joint3=(x, y), and no others."""
    pose = np.full((18, 2), np.nan)
    for name, point in points.items():
        pose[int(name.removeprefix("joint"))] = point
    return pose


def random_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pose = rng.uniform(-15, 65, (18, 2))
    pose[rng.choice(18, 5, replace=False)] = np.nan
    return pose


@pytest.mark.parametrize("name", ["market.A", "market.B", "market.C", "fashion.A"])
def test_limb_mask_is_the_golden_one(name):
    expected = golden("metrics.npz")[f"mask.{name}"]
    pose = np.array(golden("poses.json")[name], dtype=np.float64)[:, ::-1]
    pose[(pose == -1).any(axis=1)] = np.nan
    mask = limb_body_mask(pose, expected.shape)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, expected)
    assert mask.sum() == golden("metrics.json")["mask_pixels"][name]


@pytest.mark.parametrize(
    ("size", "radius"), [("128x64", 4), ("128x64", 7), ("256x256", 4), ("256x256", 8)]
)
def test_disc_mask_is_the_golden_one(size, radius):
    with np.load(PG2_POSES) as arrays:
        poses = arrays[f"keypoints_xy_{size}"]
        expected = arrays[f"mask_r{radius}_{size}"].astype(np.bool_)
    for pose, mask in zip(poses, expected, strict=True):
        drawn = disc_body_mask(pose, mask.shape, radius)
        assert drawn.dtype == np.bool_
        assert np.array_equal(drawn, mask)


def closed(mask: np.ndarray) -> np.ndarray:
    """5x5 dilation and erosion, pixel by pixel, with windows cut at the border."""
    for reduce in (np.any, np.all):
        source, mask = mask, np.zeros_like(mask)
        for row, column in np.ndindex(mask.shape):
            window = source[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            mask[row, column] = reduce(window)
    return mask


@pytest.mark.parametrize("seed", range(3))
def test_disc_mask_by_its_definition(seed):
    pose, radius = random_pose(seed), 3
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = np.zeros(SIZE, np.bool_)
    for start, end in BODY_LIMBS:
        (x0, y0), (x1, y1) = pose[start], pose[end]
        if np.isnan([x0, x1]).any():
            continue
        n = max(1, int(np.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2) / radius))
        for i in range(n + 1):
            x, y = int(x0 + (x1 - x0) * i / n), int(y0 + (y1 - y0) * i / n)
            mask |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    assert mask.any()
    assert np.array_equal(disc_body_mask(pose, SIZE, radius), closed(mask))


def test_limb_mask_is_as_thick_as_it_should_be():
    start, end = np.array([10.0, 12.0]), np.array([40.0, 47.0])
    mask = limb_body_mask(pose_of(joint1=start, joint2=end), SIZE)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    points = np.stack([columns, rows], axis=-1)
    along = ((points - start) @ (end - start) / ((end - start) @ (end - start))).clip(0, 1)
    distance = np.linalg.norm(points - (start + along[..., None] * (end - start)), axis=-1)
    assert mask[distance <= 3.4].all()
    assert not mask[distance >= 4.6].any()


def test_a_lone_key_point_is_a_disc_in_one_mask_only():
    pose = pose_of(joint4=(20, 30))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = (rows - 30) ** 2 + (columns - 20) ** 2 < 16
    assert np.array_equal(limb_body_mask(pose, SIZE), closed(inside))
    assert not disc_body_mask(pose, SIZE).any()  # PG2 draws limbs, and it has none


@MASKS
def test_without_key_points_the_mask_is_empty(body_mask):
    mask = body_mask(np.full((18, 2), np.nan), SIZE)
    assert mask.shape == SIZE and not mask.any()


@MASKS
def test_a_missing_end_leaves_the_limb_out(body_mask):
    whole = body_mask(pose_of(joint2=(10, 10), joint3=(30, 10), joint4=(30, 50)), SIZE)
    part = body_mask(pose_of(joint2=(10, 10), joint3=(30, 10)), SIZE)
    assert whole[30, 30] and not part[30, 30]
    assert part[10, 20]


@MASKS
def test_two_key_points_at_one_place(body_mask):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the limb has no direction: 0 / 0
        mask = body_mask(pose_of(joint2=(20, 30), joint3=(20, 30)), SIZE)
    assert mask[30, 20] and 40 <= mask.sum() <= 60


@MASKS
def test_what_lies_outside_is_cut(body_mask):
    outside = body_mask(pose_of(joint2=(-40, -40), joint3=(-60, 10)), SIZE)
    assert not outside.any()
    pose = pose_of(joint2=(-30, 20), joint3=(25, 20))
    mask = body_mask(pose, SIZE)
    assert mask[20, 0]
    wide = body_mask(pose + np.array([60, 0]), (SIZE[0], SIZE[1] + 60))[:, 60:]
    assert np.array_equal(mask[:, 4:], wide[:, 4:])  # closing looks 4 pixels far


@pytest.mark.parametrize("seed", range(3))
def test_both_masks_cover_about_the_same(seed):
    pose = random_pose(seed)
    limb, disc = limb_body_mask(pose, SIZE), disc_body_mask(pose, SIZE)
    assert (limb & disc).sum() / (limb | disc).sum() > 0.8
