from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from util.errors import UserError
from util.images import read_image, save_image, to_tensor, to_uint8


def test_uint8_survives_the_way_to_a_tensor_and_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tensor = to_tensor(torch.from_numpy(pixels))
    assert tensor.shape == (3, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(tensor), pixels)
    np.testing.assert_array_equal(to_uint8(tensor[None])[0], pixels)


def test_to_uint8_clamps_and_rounds():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 5.0, 2 * 10.4 / 255 - 1, 2 * 10.6 / 255 - 1])
    grey = to_uint8(values.expand(3, 1, -1))[0, :, 0]
    assert grey.tolist() == [0, 0, 128, 255, 255, 10, 11]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert np.asarray(image).min() == 255


def test_images_that_cannot_be_read(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "b.png")
    for name, expected in (
        ("a.png", "cannot be read as an image"),
        ("b.png", "more than 8 bits"),
        ("c.png", "there is no such file"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{expected}"):
            read_image(tmp_path / name)


def test_save_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    save_image(tmp_path / "deep" / "a.png", pixels)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "deep" / "a.png")), pixels)
    save_image(tmp_path / "a.jpg", pixels)
    Image.fromarray(pixels).save(tmp_path / "b.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    save_image(tmp_path / "c.jpg", pixels, quality=95)
    assert (tmp_path / "c.jpg").stat().st_size > (tmp_path / "a.jpg").stat().st_size
    with pytest.raises(UserError, match="names no known image format"):
        save_image(tmp_path / "a.unknown", pixels)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_image(tmp_path / "file" / "a.png", pixels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "deep", "file"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    pixels = np.zeros((4, 4, 3), np.uint8)
    save_image(tmp_path / "a.png", pixels)
    before = (tmp_path / "a.png").read_bytes()

    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(UserError, match=r"a.png: cannot be written \(No space left"):
        save_image(tmp_path / "a.png", pixels + 1)
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
