"""Reading, resizing, converting and writing images; the one place where pixels meet files."""

import contextlib
import io
import mmap
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn import functional as F

from util.argument_types import LARGEST_IMAGE
from util.errors import UserError, printable
from util.files import regular_file, written_whole

# What Pillow reads wherever it is installed, and all that it may open, whatever a file is called:
# others start programs (EPS: Ghostscript) or open further files. Of several frames, the first.
IMAGE_FORMATS = (
    "JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "AVIF", "PPM", "JPEG2000", "TGA",
)  # fmt: skip
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".gif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga",
))  # fmt: skip

# Modes with more than 8 bits a channel: Pillow would clip them to white instead of scaling them.
_WIDE_MODES = ("I", "F")
_MOST_SCANS = 64  # of a JPEG, each of which decodes all pixels; programs write up to 10
# Marker and header of a scan: length 6 + 2 per component, of which there are 1 to 4.
_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_PNG_METADATA = (b"XML:com.adobe.xmp", b"Raw profile type")  # keywords of texts
_LONGEST_KEYWORD = max(map(len, _PNG_METADATA))
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # they are refused

_ORIENTATION = 0x0112  # EXIF: how a viewer turns the picture
_TURNED = (5, 6, 7, 8)  # by 90°: width and height change places
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257

_reading = threading.local()
_turned_told = mmap.mmap(-1, 1)  # shared with worker processes, of which each would tell it again


def read_image(path: str | os.PathLike, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB, fully decoded, upright, without the file's other contents.

    Grey images are repeated over the channels; what is transparent is blended on white. A picture
    with an EXIF orientation is turned upright, which is said once on stderr. Colour profiles are
    not applied.

    With `at_least`, (height, width), a JPEG may come shrunk by 2, 4 or 8, to that size or more:
    its decoder shrinks blocks in the frequency domain, which is fast but not the same pixels as
    decoding all and resizing then.

    Raises UserError naming the file when it is missing, is empty, is no image, is cut off, has more
    than 8 bits a channel or LARGEST_IMAGE pixels, or consists of very many pieces.
    """
    with open_image(path) as image:
        if image.mode.startswith(_WIDE_MODES) or _has_wide_channels(image):
            raise UserError(f"{path}: has more than 8 bits a channel; save it as 8-bit RGB")
        if image.format in ("JPEG", "MPO") and _scans(image) > _MOST_SCANS:
            raise UserError(f"{path}: has more than {_MOST_SCANS} scans; save it again")
        if at_least is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, at_least if _orientation(image) in _TURNED else at_least[::-1])
        if getattr(image, "default_image", False):  # an animated PNG's, which is none of its frames
            image.seek(1)
        was_turned = image.format == "TIFF" and _orientation(image) != 1  # by Pillow, in loading it
        image.load()
        if was_turned or _orientation(image) != 1:
            tell_turned(path)
            image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            picture = image.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            image = Image.alpha_composite(white, picture)
        image = image if image.mode == "RGB" else image.convert("RGB")
        image.info.clear()  # Pillow would write profiles and transparent colours into results
        return image


def read_image_size(path: str | os.PathLike) -> tuple[tuple[int, int], bool]:
    """Read from its header alone the (height, width) that `read_image` gives an image.

    Returns:
        The size; and whether the stored picture is turned by 90° to get there.

    Raises UserError as `read_image`, as far as the header shows it.
    """
    with open_image(path) as image:
        # Pillow looks at the end of a PNG for an orientation, and decodes the picture on the way.
        if image.format == "PNG" and not _may_have_orientation(image):
            return image.size[::-1], False
        turned = _orientation(image) in _TURNED
        stored = image.size
        if image.format == "TIFF":  # Pillow may have turned its size already
            stored = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        return (stored if turned else stored[::-1]), turned


@contextlib.contextmanager
def open_image(path: str | os.PathLike | io.BytesIO) -> Iterator[Image.Image]:
    """Open an image file, or its bytes, of IMAGE_FORMATS; only its header is read.

    What goes wrong with it in the block is a UserError, and Pillow's warnings name it.

    Raises UserError as `read_image`, as far as the header shows it.
    """
    _reading.path = path
    try:
        if isinstance(path, io.BytesIO):
            file = _ImageFile(io.BytesIO(path.getbuffer()), len(path.getbuffer()))
        else:
            size = regular_file(path).st_size
            if size == 0:
                raise UserError(f"{path}: is empty (0 bytes); copy it again")
            file = _ImageFile(io.FileIO(path), size)
        with file, Image.open(file, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise Image.DecompressionBombError
            yield image
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: has more than {LARGEST_IMAGE} pixels; make it smaller") from None
    except _TooManyPieces:
        raise UserError(
            f"{path}: consists of far more pieces (comments, padding, chunks) than an image of its "
            "size; save it again"
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path}: cannot be read as an image (it is of none of the formats "
            f"{', '.join(IMAGE_FORMATS)}, or damaged)"
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None
    finally:
        _reading.path = None


class _TooManyPieces(Exception):
    """An image file has more pieces than its size can need."""


class _ImageFile(io.BufferedReader):
    """An image file for Pillow, with a limit on how often it is read.

    Pillow walks over chunks, comments and padding in Python, some microseconds each: a file of 30
    MB of them takes a minute. Images as programs write them take a read for 700 bytes or more.
    """

    def __init__(self, raw: io.RawIOBase | io.BytesIO, size: int) -> None:
        super().__init__(raw)
        self._size = size
        self._reads_left = 50_000 + size // 200

    def read(self, size: int | None = -1) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise _TooManyPieces
        # A length that a file states is allocated before it is read.
        return super().read(-1 if size is None else min(size, self._size))


def _scans(image: Image.Image) -> int:
    """How often a JPEG has the marker that begins a scan and its header, previews included.

    The marker alone stands by chance in what phones put behind a picture, such as a video.
    """
    place = image.fp.tell()
    image.fp.seek(0)
    count = len(_SCAN.findall(image.fp.read()))
    image.fp.seek(place)
    return count


def _may_have_orientation(image: Image.Image) -> bool:
    """Whether some chunk of an opened PNG may hold one; their contents are not read."""
    place = image.fp.tell()
    image.fp.seek(len(b"\x89PNG\r\n\x1a\n"))
    found = False
    while not found and len(start := image.fp.read(4 + 4 + _LONGEST_KEYWORD)) > 4 + 4:
        length, kind, keyword = int.from_bytes(start[:4]), start[4:8], start[8:]
        found = kind == b"eXIf" or keyword.startswith(_PNG_METADATA)
        image.fp.seek(4 + 4 + length + 4 - len(start), os.SEEK_CUR)  # a checksum ends it
    image.fp.seek(place)
    return found


def _named_warning(message: Warning | str, *rest: Any, **named: Any) -> None:
    """Show a warning, with the image that this thread is reading, where it is."""
    path = getattr(_reading, "path", None)
    if path is None:
        _show_warning(message, *rest, **named)
    else:
        print(printable(f"warning: {path}: {message}"), file=sys.stderr, flush=True)


_show_warning, warnings.showwarning = warnings.showwarning, _named_warning


def tell_turned(path: str | os.PathLike) -> None:
    """Say once that pictures are turned upright."""
    if not _turned_told[0]:
        _turned_told[0] = 1
        print(
            f"{printable(path)}: turned upright, as its EXIF orientation says, and so are others "
            "like it; key points, where there are any, must be those of the upright picture",
            file=sys.stderr,
            flush=True,
        )


def is_plain(image: Image.Image) -> bool:
    """Whether an opened image has neither an orientation nor transparency."""
    return _orientation(image) == 1 and not image.has_transparency_data


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: viewers show the picture as it is stored
        return 1
    return value if value in range(2, 9) else 1


def _has_wide_channels(image: Image.Image) -> bool:
    """Whether Pillow would cut the 16 bits of a colour channel to 8 without a word.

    `RGB;16B` has 16 bits a channel, `BGR;16` a pixel.
    """
    return any(re.search(r";16[BLNS]", str(tile[3])) for tile in image.tile)


def resize_image(image: Image.Image, size: tuple[int, int], exact: bool = True) -> Image.Image:
    """Resize to exactly (height, width) with Pillow's bilinear filter (area-aware when shrinking).

    The aspect ratio is not kept. Data set and ground truth both use this function, so that the
    ground truth of the metrics is what the model saw as P2. Without `exact`, PyTorch's form of the
    filter is used: half the time or less, and some values differ by 1.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if not exact:
        pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)[None]
        resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return Image.fromarray(resized[0].movedim(0, -1).numpy())
    return image.resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(pixels: torch.Tensor) -> torch.Tensor:
    """Turn uint8 [..., H, W, 3] into float32 [..., 3, H, W] in [-1, 1]: (value / 255 - 0.5) / 0.5.

    The result is the same on every device.
    """
    values = pixels.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    # By a tensor: a GPU multiplies by the rounded reciprocal of a plain number instead.
    return values.div_(torch.full((), 255.0, device=pixels.device)).sub_(0.5).div_(0.5)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Turn images [..., 3, H, W] in [-1, 1] into uint8 [..., H, W, 3] in [0, 255].

    Values outside are clamped; halves are rounded up. Undoes to_tensor exactly.
    """
    grey = (images.detach().to(torch.float32).clamp(-1, 1) + 1) * 127.5
    return torch.floor(grey + 0.5).to(torch.uint8).movedim(-3, -1).cpu().numpy()


def save_image(path: str | os.PathLike, image: np.ndarray | Image.Image, quality: int = 75) -> None:
    """Write an image, uint8 HWC in [0, 255] or a Pillow image, in the format of the suffix.

    `quality` (1-95) is that of lossy formats. The folder is made when missing. The file appears
    whole or not at all: it is written beside its place and then renamed.

    Raises UserError when the suffix names no known format or the file cannot be written.
    """
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None:
        raise UserError(f"{path}: '{path.suffix}' names no known image format; use .jpg or .png")
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    options = {"quality": quality} if image_format in ("JPEG", "WEBP") else {}
    with written_whole(path) as temporary:
        image.save(temporary, format=image_format, **options)
