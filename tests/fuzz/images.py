"""Image files of every format that is read."""

import functools
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests.fuzz.mutations import EDGES, make_no_file, mutate_bytes
from util.images import IMAGE_SUFFIXES, read_image, read_image_size

MEGABYTES = 2048  # an honest image of LARGEST_IMAGE pixels with transparency takes 1.5 GB
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@functools.cache
def honest_files() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (24, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "made by a test"
    text = PngImagePlugin.PngInfo()
    text.add_text("title", "a" * 50)
    text.add_text("long", "b" * 500, zip=True)
    more = {"save_all": True}  # and a second frame
    files = []
    for name, options, mode in (
        ("JPEG", {"exif": exif, "comment": b"by hand", "icc_profile": b"x" * 200}, "RGB"),
        ("JPEG", {"progressive": True}, "RGB"), ("JPEG", {}, "L"), ("JPEG", {}, "CMYK"),
        ("MPO", more, "RGB"), ("PNG", {"exif": exif, "pnginfo": text}, "RGB"), ("PNG", {}, "RGBA"),
        ("PNG", {"transparency": 3}, "P"), ("PNG", more, "RGB"), ("BMP", {}, "RGB"),
        ("BMP", {}, "P"), ("DIB", {}, "RGB"), ("WEBP", {"exif": exif}, "RGB"),
        ("WEBP", {"lossless": True}, "RGBA"), ("WEBP", more, "RGB"), ("TIFF", {}, "RGB"),
        ("TIFF", {"compression": "tiff_lzw"}, "RGB"), ("TIFF", more, "RGB"),
        ("TIFF", {"compression": "jpeg"}, "RGB"), ("TIFF", {"compression": "tiff_deflate"}, "L"),
        ("GIF", more, "RGB"), ("GIF", {"transparency": 1, "comment": b"c" * 400}, "P"),
        ("AVIF", {"exif": exif}, "RGB"), ("PPM", {}, "RGB"), ("PPM", {}, "1"),
        ("JPEG2000", {}, "RGB"), ("JPEG2000", {"tile_size": (8, 8)}, "L"), ("TGA", {}, "RGB"),
        ("TGA", {"compression": "tga_rle"}, "RGBA"),
    ):  # fmt: skip
        stream = io.BytesIO()
        frames = [pixels.rotate(180)] if options is more else []
        pixels.convert(mode).save(stream, name, append_images=frames, **options)
        files.append((name, stream.getvalue()))
    files.append(("PPM", b"P3\n# text\n2 2\n255\n" + b"1 2 3 " * 4))
    files.append(("EPS", EPS))
    return files


def generate(rng: random.Random, folder: Path) -> None:
    path = folder / f"image{rng.choice(sorted(IMAGE_SUFFIXES))}"
    if rng.random() < 0.02:
        make_no_file(rng, path)
    else:
        name, data = rng.choice(honest_files())
        for _ in range(rng.choice([0, 1, 1, 1, 2, 4, 16])):
            if name == "PNG" and len(data) < 10**5 and rng.random() < 0.7:
                data = _mutate_png(rng, data)
            elif rng.random() < 0.05:
                data = _pad(rng, name, data)
            else:
                data = mutate_bytes(rng, data, rng.choice(honest_files())[1])
        path.write_bytes(data)


@functools.cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _mutate_png(rng: random.Random, data: bytes) -> bytes:
    """A change in a chunk, whose checksum fits again."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append([data[place + 4 : place + 8], data[place + 8 : place + 8 + length]])
        place += 12 + length
    if not chunks:
        return data
    k = rng.randrange(len(chunks))
    kind, content = chunks[k]
    choice = rng.randrange(6)
    if choice == 0 and kind == b"IHDR":
        side = struct.pack(">I", rng.choice(EDGES) % 2**32)
        place = rng.choice([0, 4])
        chunks[k][1] = content[:place] + side + content[place + 4 :]
    elif choice == 1:
        chunks.insert(rng.randrange(len(chunks)), chunks[k])
    elif choice == 2:
        kinds = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"fcTL", b"gAMA"]
        large = zlib.compress(bytes(10 ** rng.choice([1, 6, 8])))
        extra = rng.choice([b"", b"a\0\0" + large, b"a\0\1\0\0\0" + large, rng.randbytes(40)])
        chunks[k:k] = [[rng.choice(kinds), extra]] * rng.choice([1, 3, 50])
    elif choice == 3:
        kind_bytes = bytearray(kind)
        kind_bytes[rng.randrange(4)] ^= 32
        chunks[k][0] = bytes(kind_bytes)
    else:
        chunks[k][1] = mutate_bytes(rng, content)
    return data[:8] + b"".join(chunk(*part) for part in chunks)


def _pad(rng: random.Random, name: str, data: bytes) -> bytes:
    """A megabyte or more of what has to be walked over."""
    size = rng.choice([10**5, 10**6, 8 * 10**6])
    if name == "JPEG":
        start = 2 if rng.random() < 0.7 else data.rfind(b"\xff\xda")
        piece = rng.choice([b"\xff", b"\0", b"\xff\xfe\0\2", b"\xff\xe1\0\2", data[start:-2]])
        return data[:start] + piece * (size // max(len(piece), 1)) + data[start:]
    if name == "PNG":
        place = rng.choice([33, max(data.rfind(b"IEND") - 4, 0)])
        piece = chunk(rng.choice([b"tEXt", b"IDAT", b"abcd", b"fdAT"]), b"")
        return data[:place] + piece * (size // 12) + data[place:]
    if name == "GIF":
        return data[:-1] + b"!\xfe\1a\0" * (size // 5) + data[-1:]
    if name == "PPM":
        return data[:2] + rng.choice([b" ", b"#\n", b"\n#"]) * (size // 2) + data[2:]
    place = rng.randint(0, len(data))
    return data[:place] + bytes(size) + data[place:]


def read(folder: Path) -> None:
    (path,) = folder.iterdir()
    (height, width), _ = read_image_size(path)
    assert height > 0 and width > 0
    for at_least in (None, (6, 8)):
        image = read_image(path, at_least)
        assert image.mode == "RGB" and not image.info
        np.asarray(image)
