import json

import numpy as np
import pytest
import torch
from PIL import Image

from data.augmentation import (
    AffineParameters,
    Augmentation,
    affine_matrix,
    draw_augmentation,
    transform_points,
    warp_image,
    weaken_for_target,
)
from data.pose_maps import pose_maps
from tests.support import helpers
from util.images import read_image

GOLDEN = helpers.GOLDEN / "data"
SIZES = {"fashion": (256, 256), "market": (128, 64)}
OLD_SIZES = {"fashion": (256, 176), "market": (128, 64)}
CASES = {
    key: case
    for key, case in json.loads((GOLDEN / "pose_maps_affine.json").read_text()).items()
    if "angle" in case
}
POSES = json.loads((GOLDEN / "poses.json").read_text())
MAPS = np.load(GOLDEN / "pose_maps_affine.npz")


def scaled_pose(dataset, name):
    yx = np.array(POSES[f"{dataset}.{name}"], dtype=np.float64)
    yx[(yx == -1).any(axis=1)] = np.nan
    return yx[:, ::-1] * SIZES[dataset][::-1] / OLD_SIZES[dataset][::-1]


def direct_maps(pose, size, sigma):
    """The definition, one pixel at a time, in float64."""
    maps = np.zeros((len(pose), *size))
    for joint, (x, y) in enumerate(pose):
        if np.isnan(x) or np.isnan(y):
            continue
        for row in range(size[0]):
            for column in range(size[1]):
                distance = (row - int(y)) ** 2 + (column - int(x)) ** 2
                maps[joint, row, column] = np.exp(-distance / (2 * sigma**2))
    return maps


@pytest.mark.parametrize("sigma", [6.0, 2.5])
def test_maps_follow_the_definition(sigma):
    pose = np.array([[3.0, 4.0], [7.9, 0.2], [-0.9, 12.0], [np.nan, np.nan], [-4.5, 30.0]])
    maps = pose_maps(torch.from_numpy(pose), (17, 11), sigma)
    assert maps.shape == (5, 17, 11)
    assert maps.dtype == torch.float32
    np.testing.assert_allclose(maps.numpy(), direct_maps(pose, (17, 11), sigma), atol=1e-6, rtol=0)


def test_peak_is_one_at_the_truncated_centre():
    maps = pose_maps(torch.tensor([[5.99, 3.5]]), (10, 20))
    assert maps[0, 3, 5] == 1
    assert maps.sum() > maps.max() == 1


def test_missing_in_one_coordinate_is_missing():
    maps = pose_maps(torch.tensor([[float("nan"), 3.0], [3.0, float("nan")]]), (8, 8))
    assert not maps.any()


def test_a_batch_gives_the_maps_of_its_poses():
    poses = torch.rand(2, 3, 18, 2) * 20
    poses[0, 1, 4] = float("nan")
    maps = pose_maps(poses, (16, 24))
    assert maps.shape == (2, 3, 18, 16, 24)
    assert torch.equal(maps[1, 2], pose_maps(poses[1, 2], (16, 24)))
    assert torch.equal(maps[0, 1], pose_maps(poses[0, 1], (16, 24)))


@pytest.mark.parametrize("case", CASES)
def test_affine_matrix_and_centres_are_golden(case):
    dataset = case.split(".")[0]
    expected = CASES[case]
    parameters = AffineParameters(expected["angle"], tuple(expected["shift"]), expected["scale"])
    matrix = affine_matrix(parameters, SIZES[dataset])
    np.testing.assert_allclose(matrix, expected["matrix"], atol=1e-9, rtol=0)
    inverse = np.linalg.inv(matrix)[:2].ravel()
    np.testing.assert_allclose(inverse, expected["inverse_row_major_2x3"], atol=1e-9, rtol=0)
    for name, centres in expected["centers"].items():
        pose = transform_points(scaled_pose(dataset, name), matrix)
        expected_yx = np.array(centres, dtype=np.float64)  # None becomes NaN
        np.testing.assert_array_equal(np.trunc(pose[:, ::-1]), expected_yx)


@pytest.mark.parametrize("key", [key for key in MAPS.files if ".map" in key])
def test_maps_after_the_affine_map_are_golden(key):
    case, pose_name, kind = key.rsplit(".", 2)
    dataset = case.split(".")[0]
    matrix = np.array(CASES[case]["matrix"])
    pose = torch.from_numpy(transform_points(scaled_pose(dataset, pose_name), matrix))
    maps = pose_maps(pose, SIZES[dataset]).numpy()
    stride = 8 if kind == "map_stride8" else 1
    np.testing.assert_allclose(maps[:, ::stride, ::stride], MAPS[key], atol=1e-6, rtol=0)


@pytest.mark.parametrize("key", [key for key in MAPS.files if "warped" in key])
def test_warped_images_are_golden(key):
    image = read_image(GOLDEN / "dataset" / "market" / "test" / "m_a.png")
    warped = warp_image(image, np.array(CASES[key.removesuffix(".warped_uint8")]["matrix"]))
    np.testing.assert_array_equal(np.asarray(warped), MAPS[key])


def test_draws_are_golden():
    expected = json.loads((GOLDEN / "market_train_item_seed123.json").read_text())
    rng = np.random.RandomState(123)
    ranges = Augmentation(5, 5, (0.95, 1.05))
    first, second = (draw_augmentation(rng, ranges) for _ in range(2))
    drawn = [[p.angle, list(p.shift), p.scale] for p in (first, second)]
    applied = [[p.angle, list(p.shift), p.scale] for p in (first, weaken_for_target(second))]
    assert drawn == expected["draws_angle_shift_scale"]
    assert applied == expected["applied"]


def test_image_and_key_points_move_together():
    """A bright dot stays under its key point, to the pixel that nearest neighbour can keep."""
    size = (60, 40)
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[20:23, 11:14] = 255
    matrix = affine_matrix(AffineParameters(5.0, (4.0, -3.0), 1.05), size)
    warped = np.asarray(warp_image(Image.fromarray(pixels), matrix))[..., 0] == 255
    rows, columns = np.nonzero(warped)
    # Pillow samples at pixel centres: pixel 12 covers [12, 13).
    x, y = transform_points(np.array([12.5, 21.5]), matrix)
    assert abs(columns.mean() + 0.5 - x) < 0.5
    assert abs(rows.mean() + 0.5 - y) < 0.5


@pytest.mark.parametrize(
    ("augmentation", "active"),
    [
        (Augmentation(), False),
        (Augmentation(angle=1), True),
        (Augmentation(shift=1), True),
        (Augmentation(scale=(1.0, 1.1)), True),
        (Augmentation(scale=[1, 1]), False),
    ],
)
def test_active(augmentation, active):
    assert augmentation.active is active
