"""The pairs that a gallery shows: choosing them, reading their pictures, putting them in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from util.errors import UserError
from util.images import read_image, resize_image

# Pictures are shown this high: small ones enlarged by a whole factor, large ones between the two.
SHOWN_HEIGHT = 256
LARGEST_HEIGHT = 384
# Embedded pictures are at most this high, so that sources of full size do not swell the page.
STORED_HEIGHT = 512
MOST_PAIRS = 100  # in a section: all pictures shown are in memory at once


@dataclass(frozen=True)
class GalleryPair:
    """A result with what it is compared with.

    Attributes:
        result: file of the generated picture.
        target: file of its ground truth.
        source: file of the source picture; None when it is not known.
        scores: figures of this pair by name; NaN for one without a value.
    """

    result: Path
    target: Path
    source: Path | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Section:
    """A part of the gallery: its pairs with their ranks, 1 being the best."""

    name: str
    pairs: list[tuple[int, GalleryPair]]


@dataclass(frozen=True)
class Choice:
    """What a gallery shows: its sections, and remarks on how they were chosen."""

    sections: list[Section]
    scored: int
    remarks: list[str]


def choose_pairs(
    pairs: Sequence[GalleryPair], rank_by: str, higher_is_better: bool, count: int
) -> Choice:
    """The `count` worst (worst first), median and best (best first) pairs by one figure.

    Pairs of one score are ranked by their names. Pairs without a value are left out, and the
    remarks say so; they also say when sections share pairs, there being fewer than 3 · count.

    Raises:
        UserError: no pair has a value of `rank_by`, or `count` is not from 1 to MOST_PAIRS.
    """
    if not 1 <= count <= MOST_PAIRS:
        raise UserError(f"a gallery of {count} pairs per section: ask for 1 to {MOST_PAIRS}")
    scored = [pair for pair in pairs if not math.isnan(pair.scores.get(rank_by, math.nan))]
    if not scored:
        raise UserError(f"no gallery: none of the {len(pairs)} pairs has a value of {rank_by}")
    sign = -1 if higher_is_better else 1
    scored.sort(key=lambda pair: (sign * pair.scores[rank_by], pair.result.name))
    ranked = list(enumerate(scored, start=1))
    shown = min(count, len(ranked))
    middle = (len(ranked) - shown) // 2
    sections = [
        Section("worst", ranked[::-1][:shown]),
        Section("median", ranked[middle : middle + shown]),
        Section("best", ranked[:shown]),
    ]
    remarks = []
    if len(pairs) > len(scored):
        remarks.append(f"left out, having no value of {rank_by}: {len(pairs) - len(scored)}")
    if len(ranked) < 3 * count:
        remarks.append(f"fewer than 3 x {count} pairs: the sections overlap")
    if len({pair.scores[rank_by] for pair in scored}) < len(scored):
        remarks.append("pairs of one score are ranked by name")
    return Choice(sections, len(scored), remarks)


@dataclass(frozen=True)
class Picture:
    """One of a pair's three pictures: its role, and the picture or why there is none."""

    role: str
    name: str
    image: Image.Image | None
    size: str = ""  # said under the picture where it differs from the result's
    note: str = ""


def read_pictures(pair: GalleryPair) -> list[Picture]:
    """Source, target and result of a pair, shrunk to STORED_HEIGHT.

    Raises:
        UserError: the result or the target cannot be read; the source may be missing.
    """
    pictures = []
    result_size = None
    for role, path in (("result", pair.result), ("target", pair.target), ("source", pair.source)):
        if path is None:
            pictures.append(Picture(role, "", None, note="not known"))
            continue
        try:
            image = read_image(path)
        except UserError:
            if role != "source":
                raise
            note = "cannot be read" if path.exists() else "file not found"
            pictures.append(Picture(role, path.name, None, note=note))
            continue
        result_size = result_size or image.size
        size = "" if image.size == result_size else f"{image.width}x{image.height}"
        if image.height > STORED_HEIGHT:
            image = resize_image(image, (STORED_HEIGHT, width_at(image, STORED_HEIGHT)))
        pictures.append(Picture(role, path.name, image, size))
    result, target, source = pictures
    return [source, target, result]


def width_at(image: Image.Image, height: int) -> int:
    """Width of the picture in pixels when it is shown `height` pixels high."""
    return max(1, round(image.width * height / image.height))


def height_shown(pictures: list[Picture]) -> int:
    """The height of all three, from that of the result: people compare pictures of one size."""
    height = pictures[-1].image.height
    return min(LARGEST_HEIGHT, height * max(1, SHOWN_HEIGHT // height))


def widths_shown(pictures: list[Picture]) -> list[int]:
    """Widths at that height; an empty place is as wide as the result."""
    height, result = height_shown(pictures), pictures[-1].image
    return [width_at(picture.image or result, height) for picture in pictures]


def summary_of(choice: Choice, rank_by: str, higher_is_better: bool) -> str:
    """What is ranked by what, and the remarks, in sentences."""
    direction = "higher" if higher_is_better else "lower"
    text = f"{choice.scored} pairs ranked by {rank_by}, {direction} is better."
    for remark in choice.remarks:
        text += f" {remark[0].upper()}{remark[1:]}."
    return text


def heading_of(section: Section, rank_by: str) -> str:
    """Such as "3 worst pairs (SSIM 0.0512 to 0.0934)"."""
    count = len(section.pairs)
    values = [number_text(section.pairs[place][1].scores[rank_by]) for place in (0, -1)]
    span = values[0] if values[0] == values[1] else " to ".join(values)
    return f"{count} {section.name} pair{'s' if count > 1 else ''} ({rank_by} {span})"


def name_of(pair: GalleryPair) -> str:
    """File name of the result; bytes that are no UTF-8 become question marks."""
    return pair.result.name.encode(errors="replace").decode()


def number_text(value: float) -> str:
    """A score with at least four digits; a hyphen for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
