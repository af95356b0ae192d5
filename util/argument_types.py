"""Argument types for argparse: text in, checked value out; what is wrong is said in one line."""

import argparse
import math
import os
from collections.abc import Callable
from urllib.parse import urlsplit

from util.files import is_file_name

LARGEST = 2**31 - 1  # of a whole number: what counts iterations goes into 32 bits in places
LARGEST_SIDE = 65535  # of an image in pixels: JPEG's limit
LARGEST_IMAGE = 89_478_485  # pixels; beyond it Pillow warns of files made to fill the memory
LARGEST_RATE = 1000  # of learning: steps of that size destroy any network, but are numbers
LARGEST_WEIGHT = 1e12  # of a loss: its gradients' squares still are numbers of float32
SCALES = (0.01, 100.0)
_LONGEST_NAME = 200  # bytes; file systems take 255, and suffixes such as .earlier-1 are added


def size(text: str) -> tuple[int, int]:
    """Read an image size: "128,64" or "128x64" is (height, width), "256" is a square.

    Raises argparse.ArgumentTypeError unless it is one or two whole numbers, 1 to LARGEST_SIDE, of
    LARGEST_IMAGE pixels at most.
    """
    parts = text.strip().strip("()").lower().replace("x", ",").split(",")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(1 <= side <= LARGEST_SIDE for side in numbers):
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is not a size: give height,width in pixels (128,64) or one number "
            f"(256), {LARGEST_SIDE} at most"
        )
    if numbers[0] * numbers[-1] > LARGEST_IMAGE:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} has more than {LARGEST_IMAGE} pixels; give a smaller size"
        )
    return numbers[0], numbers[-1]


def frame(text: str) -> tuple[int, int] | str:
    """Read the frame of key points: a size, or "image" for each image's own.

    Raises argparse.ArgumentTypeError otherwise.
    """
    return "image" if text.strip().lower() == "image" else size(text)


def scale_range(text: str) -> tuple[float, float]:
    """Read a range of scale factors: "0.95,1.05"; one number stands for both ends ("1": none).

    Raises argparse.ArgumentTypeError unless low <= high, both within SCALES.
    """
    try:
        numbers = [float(part) for part in text.strip().strip("()").split(",")]
    except ValueError:
        numbers = []
    lowest, highest = SCALES
    if len(numbers) not in (1, 2) or not lowest <= numbers[0] <= numbers[-1] <= highest:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is not a range of scales: give low,high (0.95,1.05), low not above "
            f"high, from {lowest:g} to {highest:g}"
        )
    return numbers[0], numbers[-1]


def real_number(low: float, high: float, above: bool = False) -> Callable[[str], float]:
    """Make the type of numbers from `low` (with `above`: only those above it) to `high`.

    The type raises argparse.ArgumentTypeError for others, NaN among them.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low):
            range_text = (
                f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"
            )
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not a number {range_text}")
        return value

    return read


def whole_number(low: int, high: int = LARGEST) -> Callable[[str], int]:
    """Make the type of whole numbers from `low` to `high`, written in digits.

    The type raises argparse.ArgumentTypeError for others.
    """

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{_shown(text)} is not a whole number from {low} to {high}"
            )
        return value

    return read


positive_int = whole_number(1)
non_negative_int = whole_number(0)
port = whole_number(1, 65535)
worker_count = whole_number(1, 256)
channels = whole_number(1, 1024)  # the width of a network: more does not fit into memory
loss_weight = real_number(0, LARGEST_WEIGHT)
learning_rate = real_number(0, LARGEST_RATE)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def server_address(text: str) -> str:
    """Read the address of a server without its port: http://localhost, also without the http://.

    Raises argparse.ArgumentTypeError unless it is that.
    """
    address = text.strip().rstrip("/")
    address = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port is None
    except ValueError:
        is_good = False
    if not is_good or address != f"{parts.scheme}://{parts.netloc}":
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is not an address without port (http://localhost)"
        )
    return address


def display_backends(text: str) -> list[str]:
    """Read the displays: visdom, tensorboard, or both with a comma between.

    Raises argparse.ArgumentTypeError for another name.
    """
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= {"visdom", "tensorboard"}:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is no display: give visdom, tensorboard or visdom,tensorboard"
        )
    return names


def folder_name(text: str) -> str:
    """Read the name of a folder, which is no path.

    Raises argparse.ArgumentTypeError otherwise.
    """
    is_plain = text.strip() == text and text.isprintable() and is_file_name(text)
    if not is_plain or len(os.fsencode(text)) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is not a plain folder name: give one without slashes, such as my_run"
        )
    return text


def run_and_label(text: str) -> tuple[str, str | None]:
    """Read RUN or RUN:LABEL, a run's name and one of its checkpoints; without a label, None.

    Raises argparse.ArgumentTypeError for a name that is none.
    """
    name, _, label = text.partition(":")
    return folder_name(name), label or None


def boolean(text: str) -> bool:
    """Read a yes/no value, for options that are on by default (`--use_spect_d false`).

    Raises argparse.ArgumentTypeError unless it is true or false (yes, no, 1, 0, on, off).
    """
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "1", "on"):
        return True
    if lowered in ("false", "no", "0", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{_shown(text)} is neither true nor false")
