"""Poses as discs, and the items of a data set that PG2 reads."""

import numpy as np
import pytest
import torch

from data import create_dataset
from data.pose_maps import pose_discs, pose_maps
from tests.support.golden_pg2 import golden_pg2, pg2_options
from tests.support.market_folder import Folder, annotation_row
from util.errors import UserError

NAN = float("nan")
ZIGZAG = {"x": [*[12, 48] * 8, 30, -1], "y": [*range(10, 112, 6), -1]}  # the last one is missing


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_discs_are_the_originals(size):
    golden = golden_pg2("poses.npz")
    name = f"{size[0]}x{size[1]}"
    expected = golden[f"pose_{name}"].astype(np.float32).transpose(0, 3, 1, 2) * 2 - 1
    discs = pose_discs(torch.from_numpy(golden[f"keypoints_xy_{name}"]), size)
    assert discs.dtype == torch.float32
    assert np.array_equal(discs.numpy(), expected)


def test_a_disc_has_49_pixels_about_the_truncated_centre():
    pose = torch.tensor([[20.9, 10.2], [NAN, 3.0], [-0.5, 0.0], [-3.0, 5.0], [-9.0, 5.0]])
    discs = pose_discs(pose, (32, 40))
    counts = ((discs + 1) / 2).sum((1, 2)).tolist()
    quarter = sum(dx * dx + dy * dy <= 16 for dx in range(5) for dy in range(5))
    beyond = sum((x + 3) ** 2 + (y - 5) ** 2 <= 16 for x in range(2) for y in range(10))
    assert counts == [49, 0, quarter, beyond, 0]
    rows, columns = torch.nonzero(discs[0] == 1).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 14, 16, 24)
    assert set(discs.unique().tolist()) == {-1.0, 1.0}


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "market")
    folder.write_annotation([annotation_row(name, **ZIGZAG) for name in folder.names])
    return folder


def items(folder, *arguments):
    options = pg2_options(f"--dataroot={folder.root}", *arguments)
    return create_dataset(options, pose_mask=True)[0]


def test_pg2_reads_discs_and_the_targets_mask(folder):
    item = items(folder)
    assert torch.equal(item["BP2"], pose_discs(item["pose2"], (128, 64)))
    assert torch.equal(item["BP1"], pose_discs(item["pose1"], (128, 64)))
    mask = item["mask2"]
    assert mask.shape == (1, 128, 64) and mask.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    on_a_disc = (item["BP2"] == 1).any(0)
    assert mask[0][on_a_disc].all() and mask.sum() > on_a_disc.sum()


def test_the_mask_moves_with_the_augmented_target(folder):
    plain, moved = items(folder), items(folder, "--shift=20")
    assert not torch.equal(plain["pose2"], moved["pose2"])
    assert moved["mask2"][0][(moved["BP2"] == 1).any(0)].all()
    assert not torch.equal(plain["mask2"], moved["mask2"])


def test_the_encoding_is_an_option(folder):
    item = items(folder, "--pose_encoding=gaussian")
    assert torch.equal(item["BP2"], pose_maps(item["pose2"], (128, 64)))


def test_others_get_gaussians_and_no_mask(folder):
    item = folder.dataset()[0]
    assert "mask2" not in item
    assert torch.equal(item["BP2"], pose_maps(item["pose2"], (128, 64)))


def test_the_mask_of_25_key_points_is_that_of_the_18_among_them(folder):
    expected = items(folder)["mask2"]
    feet = range(40, 46)
    body_25 = {axis: [*v[:8], 60, *v[8:], *feet] for axis, v in ZIGZAG.items()}
    folder.write_annotation([annotation_row(name, **body_25) for name in folder.names])
    with pytest.raises(UserError, match=r"if all rows have 25: --structure_nc=25"):
        items(folder)
    item = items(folder, "--structure_nc=25")
    assert torch.equal(item["mask2"], expected) and len(item["BP2"]) == 25


def test_the_mask_needs_key_points_of_known_limbs(folder):
    with pytest.raises(UserError, match=r"--structure_nc=17.*18 or 25"):
        items(folder, "--structure_nc=17")
