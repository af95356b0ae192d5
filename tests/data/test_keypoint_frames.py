"""Key points written otherwise than the programs take them: told, with a fix that is right."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import STANDING
from tests.support.market_folder import Folder, annotation_row
from util.images import save_image

BODY = np.array(STANDING, float)
PEOPLE = [
    BODY + np.array([dx, dy]) for dx, dy in ((0, 0), (3, 2), (-4, 3), (2, -3), (-2, 1), (5, 0))
]


@pytest.fixture
def data(tmp_path):
    folder = Folder(tmp_path / "market")
    write(folder, PEOPLE)
    return folder


def write(folder, poses):
    folder.write_annotation(
        [
            annotation_row(name, y=pose[:, 1].tolist(), x=pose[:, 0].tolist())
            for name, pose in zip(folder.names, poses, strict=False)
        ]
    )


def resize(folder, sizes):
    for name, size in zip(folder.names, sizes, strict=True):
        save_image(folder.images / name, np.zeros((*size, 3), np.uint8))


def poses_of(dataset):
    return np.array([dataset[k]["pose1"].numpy() for k in range(len(dataset))])


def test_true_tables_are_taken_without_a_word(data):
    assert data.dataset().notices == []
    np.testing.assert_allclose(poses_of(data.dataset()), PEOPLE[:5])
    assert data.dataset(old_size="image").notices == []


def test_zero_for_a_missing_joint(data):
    poses = [pose.copy() for pose in PEOPLE]
    poses[2][[4, 7]] = 0
    write(data, poses)
    message = data.error(skip_bad_samples=True)
    assert "2 of 108 key points (1.9%) are at (0, 0)" in message
    assert "--missing 0" in message and "--missing=-1" in message
    assert np.isnan(poses_of(data.dataset(missing=0))[2]).all(axis=1).nonzero()[0].tolist() == [
        4,
        7,
    ]
    assert not np.isnan(poses_of(data.dataset(missing=-1))).any()
    write(data, [PEOPLE[0] * 0, *PEOPLE[1:]])
    assert "no key point is there (all are (0, 0))" in data.error(missing=0)


@pytest.mark.parametrize("lost", [(1, 1), (20, 0)])  # counted from 1; moved with the others
def test_one_place_for_all_missing_joints(data, lost):
    poses = [pose.copy() for pose in PEOPLE]
    for number in range(2):  # a chance in so few
        poses[number][[4, 7, number]] = lost
    write(data, poses)
    assert "are at" not in str(data.dataset(missing=0).notices)
    poses[5][[4, 16]] = lost
    write(data, poses)
    message = data.error(skip_bad_samples=True)
    assert f"8 key points are at x = {lost[0]}, y = {lost[1]}, more than one in 3 of 6" in message
    assert "write -1 for those" in message
    assert (poses_of(data.dataset(trust_keypoints=True))[1, 4] == lost).all()
    for pose in poses:
        pose[(pose == lost).all(axis=1)] = -1
    write(data, poses)
    assert data.dataset().notices == []
    for pose in poses:
        pose[pose[:, 0] < 0] = 0
    write(data, poses)
    assert (poses_of(data.dataset(missing=-1))[1, 4] == 0).all()


@pytest.mark.parametrize("count", [2, 6])
def test_shares_of_the_image(tmp_path, count):
    data = Folder(tmp_path / "market", count=count)
    write(data, [pose / (64, 128) for pose in PEOPLE])
    for frame in (None, "image"):
        message = data.error(old_size=frame, skip_bad_samples=True)
        assert "in [0, 1]" in message and f"{count} of {count} images" in message
        assert "--old_size 1,1" in message
    np.testing.assert_allclose(
        poses_of(data.dataset(old_size=(1, 1))), PEOPLE[: count - 1], atol=1e-4
    )
    write(data, [PEOPLE[0] / (64, 128), *PEOPLE[1:]])
    assert "row 2 ('p0.png')" in data.error()


def test_each_images_own_pixels(data):
    sizes = [(300, 200), (128, 64), (200, 300), (400, 150), (256, 256), (90, 64)]
    resize(data, sizes)
    own = [pose * (w / 64, h / 128) for pose, (h, w) in zip(PEOPLE, sizes, strict=True)]
    write(data, own)
    assert "--old_size image" in data.error() and "--old_size image" in data.error(
        skip_bad_samples=True
    )
    for fast_decode in (False, True):
        dataset = data.dataset(old_size="image", fast_decode=fast_decode)
        np.testing.assert_allclose(poses_of(dataset), PEOPLE[:5], atol=1e-4)
    # All within the frame, as all images are smaller.
    sizes = [(100 - 5 * k, 60 - 2 * k) for k in range(6)]
    resize(data, sizes)
    write(data, [pose * (w / 64, h / 128) for pose, (h, w) in zip(PEOPLE, sizes, strict=True)])
    assert "--old_size image" in data.error()
    np.testing.assert_allclose(poses_of(data.dataset(old_size="image")), PEOPLE[:5], atol=1e-4)


def test_a_wrong_row_in_own_pixels_beyond_the_first_hundred(tmp_path):
    data = Folder(tmp_path / "market", count=103)
    poses = [PEOPLE[k % 6] for k in range(103)]
    write(data, [*poses[:102], PEOPLE[0] * 3])
    dataset = data.dataset(old_size="image", skip_bad_samples=True)
    assert dataset[100] is not None and dataset[101] is None


@pytest.mark.parametrize(
    ("scale", "frame", "advice"),
    [(1, (64, 128), "128,64"), (1, (256, 128), "128,64"), (1, (256, 176), "128,64"),
     (4, (128, 64), "height,width")],
)  # fmt: skip
def test_another_frame(data, scale, frame, advice):
    write(data, [pose * scale for pose in PEOPLE])
    assert f"--old_size {advice}" in data.error(old_size=frame)


def test_x_and_y_swapped(data):
    write(data, [pose[:, ::-1] for pose in PEOPLE])
    assert "name:keypoints_x:keypoints_y" in data.error()
    text = data.annotation.read_text()
    data.annotation.write_text(text.replace("keypoints_y:keypoints_x", "keypoints_x:keypoints_y"))
    np.testing.assert_allclose(poses_of(data.dataset()), PEOPLE[:5])


def test_load_size_swapped(data):
    assert "--load_size 128,64" in data.error(load_size=(64, 128))
    assert "--load_size" not in data.error(load_size=(64, 128), has_network_options=False)
    assert len(data.dataset(load_size=(64, 128), trust_keypoints=True)) == 5
    assert len(data.dataset(load_size=(64, 64))) == 5


def test_padded_squares(data):
    """With key points of what is between the padding; squeezed into squares they would be right."""
    rng = np.random.default_rng(0)
    for name in data.names:
        inner = Image.fromarray(rng.integers(0, 256, (128, 64, 3), dtype=np.uint8))
        square = Image.new("RGB", (128, 128), "white")
        square.paste(inner, (32, 0))
        square.save(data.images / name)
    message = data.error()
    assert "padded left and right" in message
    assert "add 32 to every x and say --old_size 128,128" in message
    moved = [pose + np.array([32, 0]) for pose in PEOPLE]
    write(data, moved)
    assert "--old_size 128,128" in data.error()
    assert data.dataset(old_size=(128, 128)).notices == []
    # The key points of the squares with images that are cut.
    for name in data.names:
        save_image(data.images / name, rng.integers(0, 256, (128, 64, 3), dtype=np.uint8))
    padded = "subtract 32 from every x and say --old_size 128,64"
    assert f"if they were padded to it, {padded}" in data.error()
    # Those of images resized to squares, which in so few may lie between the padding.
    write(data, [pose * np.array([1.2, 1]) + np.array([26, 0]) for pose in PEOPLE])
    assert "if the images were resized to it, say --old_size 128,128" in data.error()
    write(data, [pose * np.array([2, 1]) for pose in PEOPLE])
    assert "they fit images resized to 128×128: --old_size 128,128" in data.error()
    assert data.dataset(old_size=(128, 128)).notices == []
    many = Folder(data.root.parent / "many", count=40)
    people = [PEOPLE[k % 6] for k in range(40)]
    write(many, [pose + np.array([32, 0]) for pose in people])
    assert f"they fit the images padded to 128×128: {padded}" in many.error()
    # Squeezed.
    write(data, PEOPLE)
    for name in data.names:
        pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
        save_image(data.images / name, pixels)
    assert data.dataset().notices == []


def test_key_points_of_pictures_before_they_are_turned(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in data.names:
        Image.new("RGB", (128, 64)).save(data.images / name, exif=exif)
    assert data.dataset().notices == []
    stored = [np.stack([pose[:, 1], 63 - pose[:, 0]], axis=1) for pose in PEOPLE]
    write(data, stored)
    assert "turn" in data.error()


def test_one_pair_is_looked_at_too(tmp_path):
    """Too few to refuse what may be right; it is told."""
    data = Folder(tmp_path / "market", count=2)
    write(data, PEOPLE)
    assert data.dataset().notices == []
    write(data, [pose[:, ::-1] * 0.5 for pose in PEOPLE])
    (notice,) = data.dataset().notices
    assert "name:keypoints_x:keypoints_y" in notice and "trust" not in notice
    write(data, [pose * 0.4 for pose in PEOPLE])
    (notice,) = data.dataset().notices
    assert "reach only" in notice
    # Within the frame, as the images are smaller than it.
    resize(data, [(100, 60)] * 2)
    write(data, [pose * (60 / 64, 100 / 128) for pose in PEOPLE])
    (notice,) = data.dataset().notices
    assert "frame of 128×64" in notice and "--old_size 100,60" in notice
    assert data.dataset(old_size=(100, 60)).notices == []
    write(data, [pose * 3 for pose in PEOPLE])
    assert "outside the frame" in data.error()
