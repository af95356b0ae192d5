"""The gallery as one picture."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from script.metrics.gallery_pairs import (
    Choice,
    GalleryPair,
    Picture,
    heading_of,
    height_shown,
    name_of,
    number_text,
    shorten,
    width_at,
    widths_shown,
)
from util.layout import sheet

SHEET_WIDTH = 1640
_MARGIN = 16
_LINE = 18


def gallery_sheet(
    choice: Choice,
    shown: Mapping[Path, list[Picture]],
    rank_by: str,
    title: str,
    summary: str,
) -> Image.Image:
    """The sections one below the other, tiles of equal size in as many columns as fit."""
    tiles = [
        [_tile(rank, choice.scored, pair, shown[pair.result], rank_by) for rank, pair in part.pairs]
        for part in choice.sections
    ]
    width = max(tile.width for row in tiles for tile in row) + _MARGIN
    height = max(tile.height for row in tiles for tile in row) + _MARGIN
    columns = max(1, min(len(tiles[0]), (SHEET_WIDTH - _MARGIN) // width))
    rows = math.ceil(len(tiles[0]) / columns)
    head, heading = 68, 40
    canvas = Image.new(
        "RGB",
        (_MARGIN + max(columns * width, 600), head + len(tiles) * (heading + rows * height)),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    letters = canvas.width // 8
    _write(draw, (_MARGIN, 12), shorten(title, letters // 2), 22)
    _write(draw, (_MARGIN, 42), shorten(summary, letters), 14, "#555555")
    top = head
    for section, row in zip(choice.sections, tiles, strict=True):
        _write(draw, (_MARGIN, top + 10), heading_of(section, rank_by), 18)
        for place, tile in enumerate(row):
            left = _MARGIN + place % columns * width
            canvas.paste(tile, (left, top + heading + place // columns * height))
        top += heading + rows * height
    return canvas


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: str = "black"
) -> None:
    # Pillow's own font has Latin letters only; before Pillow 10.1 others are an error.
    shown = text.encode("latin-1", errors="replace").decode("latin-1")
    draw.text(place, shown, fill=color, font_size=size)


def _tile(
    rank: int, ranks: int, pair: GalleryPair, pictures: list[Picture], rank_by: str
) -> Image.Image:
    """A pair's three pictures side by side, its scores and its name below."""
    size = height_shown(pictures), max(widths_shown(pictures))
    panels = {
        f"{picture.role} {picture.size or picture.note}".rstrip(): _panel(picture, size)
        for picture in pictures
    }
    strip = Image.fromarray(sheet(panels))
    others = [name for name in pair.scores if name != rank_by]
    scores = [f"{name} {number_text(pair.scores[name])}" for name in others]
    lines = _wrapped(scores, strip.width)
    tile = Image.new("RGB", (strip.width, strip.height + 26 + _LINE * (len(lines) + 1)), "white")
    tile.paste(strip)
    draw = ImageDraw.Draw(tile)
    top = strip.height + 2
    score = f"{rank_by} {number_text(pair.scores[rank_by])}"
    _write(draw, (0, top), f"{score}   rank {rank} of {ranks}", 17)
    for number, line in enumerate([*lines, shorten(name_of(pair), strip.width // 7)]):
        _write(draw, (0, top + 24 + _LINE * number), line, 12, "#444444")
    return tile


def _panel(picture: Picture, size: tuple[int, int]) -> np.ndarray:
    """uint8 [1, *size, 3]: the picture at full height on white, or an empty place."""
    height, width = size
    canvas = Image.new("RGB", (width, height), "white")
    if picture.image is None:
        draw = ImageDraw.Draw(canvas)
        draw.rectangle([0, 0, width - 1, height - 1], outline="#999999")
        _write(draw, (6, height // 2), f"no {picture.role}", 13, "#777777")
    else:
        enlarged = height % picture.image.height == 0
        way = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
        shown = picture.image.resize((width_at(picture.image, height), height), way)
        canvas.paste(shown, ((width - shown.width) // 2, 0))
    return np.asarray(canvas)[None]


def _wrapped(words: list[str], width: int) -> list[str]:
    """Lines of the scores as wide as the pictures, a font of 12 being about 7 pixels wide."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 3 + len(word) > width // 7:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + word
    return lines
