"""web/index.html of a run: curves and snapshots in one page that needs no server and no network."""

import html
import json
import re
import time
from pathlib import Path

import numpy as np

from util.files import written_whole
from util.run.history import History, decimate

CURVE_POINTS = 500
_TEMPLATE = Path(__file__).with_suffix(".html")
_SNAPSHOT = re.compile(r"(.+)_iter_(\d{8,})\.jpg")


def write_run_page(folder: Path, history: History) -> Path:
    """Write `web/index.html`: everything but the snapshots is in the file itself.

    The pictures are those of `web/images/` that lie there now, named relative to the page, so the
    folder can be moved.

    Args:
        folder: the run's folder.
        history: its curves.

    Returns:
        The path of the page.

    Raises:
        UserError: it cannot be written.
    """
    name = folder.resolve().name
    page = {
        "name": name,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "most_points": CURVE_POINTS,
        "is_thinned": any(
            len(curve) > CURVE_POINTS
            for plot in history.titles()
            for curve in history.curves(*plot).values()
        ),
        "stages": _stages(folder / "web" / "images", history),
    }
    filling = {"title": html.escape(name), "data": _script_json(page)}
    template = _TEMPLATE.read_text(encoding="utf-8")
    text = re.sub(r"{{(\w+)}}", lambda match: filling[match[1]], template)
    path = folder / "web" / "index.html"
    with written_whole(path) as temporary:
        # A folder's name that is no UTF-8 shows a question mark.
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path


def _script_json(value: object) -> str:
    """JSON that is safe within a <script> element: it holds no `<`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _stages(images: Path, history: History) -> list[dict]:
    snapshots: dict[str, list[int]] = {}
    for path in images.glob("*.jpg"):
        if match := _SNAPSHOT.fullmatch(path.name):
            snapshots.setdefault(match[1], []).append(int(match[2]))
    models = dict.fromkeys([model for model, _ in history.titles()] + sorted(snapshots))
    return [
        {
            "model": model,
            "plots": [
                {
                    "title": title,
                    "curves": [
                        {"name": name, "points": _rounded(decimate(curve, CURVE_POINTS))}
                        for name, curve in history.curves(model, title).items()
                    ],
                }
                for owner, title in history.titles()
                if owner == model
            ],
            "snapshots": sorted(snapshots.get(model, [])),
        }
        for model in models
    ]


def _rounded(curve: np.ndarray) -> list[list[float]]:
    """Points as [iteration, value], the value to 5 digits: more cannot be seen."""
    return [[int(x), float(f"{y:.5g}")] for x, y in curve.tolist()]
