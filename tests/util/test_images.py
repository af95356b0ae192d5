import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from util import images
from util.errors import UserError
from util.images import IMAGE_SUFFIXES, read_image, read_image_size, save_image, to_tensor, to_uint8


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


def test_an_animated_png_is_its_first_frame(tmp_path):
    """Its default image, for programs that know no animations, may be none of the frames."""
    default, *frames = (Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue"))
    for is_outside, expected in ((True, (0, 255, 0)), (False, (255, 0, 0))):
        path = tmp_path / "a.png"
        default.save(path, save_all=True, append_images=frames, default_image=is_outside)
        assert read_image(path).getpixel((0, 0)) == expected


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


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "mpo"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_come_upright_and_it_is_said_once(
    tmp_path, monkeypatch, capsys, suffix, orientation
):
    monkeypatch.setattr(images, "_turned_told", bytearray(1))
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :32] = 255  # stored at the left
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {}
    if suffix == "mpo":  # as phones write it: a second picture behind the first
        more = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), **more)
    assert read_image_size(path) == ((64, 128) if orientation == 3 else (128, 64), orientation != 3)
    for at_least in (None, (16, 8)):
        image = read_image(path, at_least)
        upright = np.asarray(image.resize((64, 128) if orientation != 3 else (128, 64)))
        bright = {3: upright[:, 96:], 6: upright[:32], 8: upright[96:]}[orientation]
        assert bright.mean() > 240 and upright.mean() < 80
    assert capsys.readouterr().err.count("turned upright") == 1


@pytest.mark.parametrize("kind", ["eXIf", "iTXt", "none"])
def test_a_png_that_tells_its_orientation_at_its_end(tmp_path, kind):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :2] = 255
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = {
        "eXIf": exif.tobytes()[6:],
        "iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>',
        "none": b"",
    }[kind]
    end = chunk(b"IEND", b"")
    late = chunk(kind.encode(), data) if data else b""
    path.write_bytes(path.read_bytes().removesuffix(end) + late + end)
    image, turned = read_image(path), kind != "none"
    assert read_image_size(path) == (image.size[::-1], turned)
    assert image.size == ((4, 8) if turned else (8, 4))
    assert np.asarray(image)[:2, :2].min() == 255


def test_a_photo_with_a_video_behind_it(tmp_path):
    """Phones write such files, and the marker of a scan is in any few hundred kilobytes."""
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.jpg")
    video = np.random.default_rng(0).integers(0, 256, 8_000_000, dtype=np.uint8).tobytes()
    assert video.count(b"\xff\xda") > 64
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(video)
    assert np.asarray(read_image(tmp_path / "a.jpg")).max() == 9


def test_what_is_transparent_is_white(tmp_path):
    hidden = np.zeros((4, 4, 4), np.uint8)
    hidden[:2] = (0, 128, 0, 255)
    Image.fromarray(hidden).save(tmp_path / "a.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "b.gif", transparency=1)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "c.png", transparency=(1, 2, 3))
    assert np.asarray(read_image(tmp_path / "a.png"))[:, 0].tolist() == [
        [0, 128, 0], [0, 128, 0], [255] * 3, [255] * 3,
    ]  # fmt: skip
    for name in ("b.gif", "c.png"):
        assert np.asarray(read_image(tmp_path / name)).min() == 255


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("clear", [0, 1])
def test_one_bit_with_a_transparent_colour(tmp_path, clear):
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 2, 1, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", clear)),
        (b"IDAT", zlib.compress(b"\0\xf0\0\xf0")),
        (b"IEND", b""),
    )
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    image = read_image(path)
    assert np.asarray(image)[0, :, 0].tolist() == [255] * 4 + [0 if clear else 255] * 4
    save_image(tmp_path / "b.png", image)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "b.png")), np.asarray(image))


def test_results_carry_nothing_of_the_source_file(tmp_path):
    profile = b"an ICC profile" * 20
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", icc_profile=profile, transparency=(9, 9, 9))
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg", icc_profile=profile, comment=b"mine")
    for name in ("a.png", "b.jpg"):
        for suffix in ("png", "jpg", "webp"):
            save_image(tmp_path / f"out.{suffix}", read_image(tmp_path / name))
            with Image.open(tmp_path / f"out.{suffix}") as out:
                assert not {"icc_profile", "transparency", "comment"} & out.info.keys()


@pytest.mark.parametrize("suffix", ["jfif", "tif", "tiff", "gif", "avif", "ppm", "pgm", "bmp"])
def test_types_that_are_read(tmp_path, suffix):
    assert f".{suffix}" in IMAGE_SUFFIXES
    first, second = (Image.new("L", (8, 8), grey) for grey in (200, 10))
    more = {"save_all": True, "append_images": [second]} if suffix == "gif" else {}
    first.save(tmp_path / f"a.{suffix}", **more)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB" and abs(int(np.asarray(image).mean()) - 200) <= 2
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"a.{suffix}: cannot be read"):
        read_image(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=f"a.{suffix}: is empty"):
        read_image(tmp_path / f"a.{suffix}")


def test_16_bits_a_pixel_are_not_16_bits_a_channel(tmp_path):
    header = struct.pack("<2sIHHI", b"BM", 70 + 8, 0, 0, 70)
    header += struct.pack("<IiiHHIIiiII", 56, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xF800, 0x07E0, 0x001F, 0)
    (tmp_path / "a.bmp").write_bytes(header + struct.pack("<HHHH", 0xF800, 0x07E0, 0x001F, 0xFFFF))
    pixels = np.asarray(read_image(tmp_path / "a.bmp"))
    assert pixels[::-1].reshape(4, 3).tolist() == [
        [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255],
    ]  # fmt: skip


def test_warnings_of_pillow_name_the_file(tmp_path, monkeypatch, capsys):
    path = tmp_path / "large.png"
    Image.new("L", (300, 300)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", images._named_warning)
        read_image(path)
    error = capsys.readouterr().err
    assert (
        error.startswith(f"warning: {path}: Image size (90000 pixels)") and error.count("\n") == 1
    )
