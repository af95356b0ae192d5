"""Reading, resizing, converting and writing images; the one place where pixels meet files."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from util.errors import UserError
from util.files import written_whole

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

# Modes with more than 8 bits a channel: Pillow would clip them to white instead of scaling them.
_WIDE_MODES = ("I", "F")


def read_image(path: str | os.PathLike, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB, fully decoded.

    Grey images are repeated over the channels, transparency is dropped. An EXIF orientation is
    ignored: key points refer to the pixels as they are stored.

    With `at_least`, (height, width), a JPEG may come shrunk by 2, 4 or 8, to that size or more:
    its decoder shrinks blocks in the frequency domain, which is fast but not the same pixels as
    decoding all and resizing then.

    Raises UserError naming the file when it is missing, is no image, is cut off, or has more
    than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(_WIDE_MODES) or _has_wide_channels(image):
                raise UserError(f"{path}: has more than 8 bits a channel; save it as 8-bit RGB")
            if at_least is not None:
                image.draft(None, at_least[::-1])
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def _has_wide_channels(image: Image.Image) -> bool:
    """Whether Pillow would cut the 16 bits of a colour channel to 8 without a word."""
    return any(";16" in str(tile[3]) for tile in image.tile)


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
