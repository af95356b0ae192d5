"""Argument types for argparse: text in, checked value out; what is wrong is said in one line."""

import argparse
import math
import os
from urllib.parse import urlsplit

_LONGEST_NAME = 200  # bytes; file systems take 255, and suffixes such as .earlier-1 are added


def size(text: str) -> tuple[int, int]:
    """Read an image size: "128,64" or "128x64" is (height, width), "256" is a square.

    Raises argparse.ArgumentTypeError unless it is one or two whole numbers above zero.
    """
    parts = text.strip().strip("()").lower().replace("x", ",").split(",")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or any(number < 1 for number in numbers):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size: give height,width in pixels (128,64) or one number (256)"
        )
    return numbers[0], numbers[-1]


def frame(text: str) -> tuple[int, int] | str:
    """Read the frame of key points: a size, or "image" for each image's own.

    Raises argparse.ArgumentTypeError otherwise.
    """
    return "image" if text.strip().lower() == "image" else size(text)


def scale_range(text: str) -> tuple[float, float]:
    """Read a range of scale factors: "0.95,1.05"; one number stands for both ends ("1": none).

    Raises argparse.ArgumentTypeError unless 0 < low <= high.
    """
    try:
        numbers = [float(part) for part in text.strip().strip("()").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not 0 < numbers[0] <= numbers[-1] < math.inf:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a range of scales: give low,high with 0 < low <= high (0.95,1.05)"
        )
    return numbers[0], numbers[-1]


def non_negative_float(text: str) -> float:
    """Read a finite number of at least 0. Raises argparse.ArgumentTypeError otherwise."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 0")
    return number


def positive_float(text: str) -> float:
    """Read a finite number above 0. Raises argparse.ArgumentTypeError otherwise."""
    number = non_negative_float(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return number


def positive_int(text: str) -> int:
    """Read a whole number of at least 1. Raises argparse.ArgumentTypeError otherwise."""
    return _whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """Read a whole number of at least 0. Raises argparse.ArgumentTypeError otherwise."""
    return _whole_number(text, 0)


def port(text: str) -> int:
    """Read a port, 1 to 65535. Raises argparse.ArgumentTypeError otherwise."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 1 to 65535")
    return number


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
            f"'{text}' is not an address without port (http://localhost)"
        )
    return address


def display_backends(text: str) -> list[str]:
    """Read the displays: visdom, tensorboard, or both with a comma between.

    Raises argparse.ArgumentTypeError for another name.
    """
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= {"visdom", "tensorboard"}:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no display: give visdom, tensorboard or visdom,tensorboard"
        )
    return names


def seed(text: str) -> int:
    """Read a seed, 0 to 2³¹ - 1. Raises argparse.ArgumentTypeError otherwise."""
    number = _whole_number(text, 0)
    if number >= 2**31:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed from 0 to {2**31 - 1}")
    return number


def _whole_number(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least {lowest}")
    return number


def folder_name(text: str) -> str:
    """Read the name of a folder, which is no path.

    Raises argparse.ArgumentTypeError otherwise.
    """
    is_plain = text.strip() == text and text.isprintable() and not set(text) & set("/\\\0")
    if not is_plain or text in ("", ".", "..") or len(os.fsencode(text)) > _LONGEST_NAME:
        shown = text if len(text) <= 60 else f"{text[:59]}…"
        raise argparse.ArgumentTypeError(
            f"{shown!r} is not a plain folder name: give one without slashes, such as my_run"
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
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
