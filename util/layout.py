"""How several pictures are put into one."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

CAPTION_HEIGHT = 14
_GAP = 2


def picture_grid(panel: np.ndarray) -> np.ndarray:
    """Put pictures into a grid, row by row: the narrowest that is at least as wide as high.

    Args:
        panel: uint8 [B, H, W, 3].

    Returns:
        uint8 [height, width, 3], white between the pictures and where there are none.
    """
    count, height, width = panel.shape[:3]
    columns = next(
        columns
        for columns in range(1, count + 1)
        if columns == count or columns * width >= math.ceil(count / columns) * height
    )
    rows = math.ceil(count / columns)
    grid = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for number, picture in enumerate(panel):
        top, left = (height + _GAP) * (number // columns), (width + _GAP) * (number % columns)
        grid[top : top + height, left : left + width] = picture
    return grid


def sheet(panels: Mapping[str, np.ndarray], scale: int = 1) -> np.ndarray:
    """One picture with a captioned column per panel and a row per sample.

    Args:
        panels: uint8 [B, H, W, 3] by caption, all of one size.
        scale: how many times larger to show the panels.

    Returns:
        uint8 [height, width, 3].
    """
    columns = [panel.repeat(scale, axis=1).repeat(scale, axis=2) for panel in panels.values()]
    count, height, width = columns[0].shape[:3]
    picture = np.full(
        (CAPTION_HEIGHT + count * (height + _GAP), len(columns) * (width + _GAP), 3), 255, np.uint8
    )
    for column, panel in enumerate(columns):
        for row in range(count):
            top, left = CAPTION_HEIGHT + row * (height + _GAP), column * (width + _GAP)
            picture[top : top + height, left : left + width] = panel[row]
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for column, caption in enumerate(panels):
        draw.text((column * (width + _GAP) + 1, 1), caption, fill="black", font_size=10)
    return np.asarray(canvas)


def in_one_picture(grids: Mapping[str, np.ndarray], columns: int) -> np.ndarray:
    """Put pictures of one size under their names, row by row, in so many columns.

    Args:
        grids: uint8 [H, W, 3] by name.
        columns: at least 1.

    Returns:
        uint8 [height, width, 3].
    """
    names = list(grids)
    rows = [
        sheet({name: grids[name][None] for name in names[start : start + columns]})
        for start in range(0, len(names), columns)
    ]
    padding = ((0, 0), (0, rows[0].shape[1] - rows[-1].shape[1]), (0, 0))
    rows[-1] = np.pad(rows[-1], padding, constant_values=255)
    return np.concatenate(rows)
