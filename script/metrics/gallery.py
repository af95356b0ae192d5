"""A gallery of the worst, the median and the best pairs, for people who would rather look.

`gallery.html` is one file with its pictures inside: it opens without a server or a network and
survives being moved or mailed, and an earlier gallery is replaced in one step.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from script.metrics.gallery_pairs import (
    Choice,
    GalleryPair,
    Picture,
    choose_pairs,
    heading_of,
    height_shown,
    name_of,
    number_text,
    read_pictures,
    summary_of,
    widths_shown,
)
from util.files import written_whole

_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --text: #1d1d1f; --quiet: #686870;
  --line: #e2e2de; --worst: #b3261e; --median: #6b5b00; --best: #1b6e3c; }
@media (prefers-color-scheme: dark) { :root { --page: #161618; --card: #212124; --text: #ececee;
  --quiet: #a0a0a8; --line: #36363b; --worst: #ff8a80; --median: #e6cf6a; --best: #7fd8a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1800px; padding: 1.5rem clamp(.75rem, 2.5vw, 2.5rem) 3rem;
  background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .8rem; padding-left: .6rem; border-left: 5px solid; font-size: 1.2rem; }
#worst h2 { border-color: var(--worst); } #worst .main { color: var(--worst); }
#median h2 { border-color: var(--median); } #median .main { color: var(--median); }
#best h2 { border-color: var(--best); } #best .main { color: var(--best); }
header p { margin: .3rem 0 .6rem; color: var(--quiet); }
nav a { margin-right: 1rem; color: inherit; }
.pairs { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--width)), 1fr)); }
article { min-width: 0; padding: .8rem; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
.pictures { display: flex; gap: 6px; align-items: flex-end; }
figure { margin: 0; min-width: 0; }
figure img, .nothing { display: block; width: 100%; height: auto; border-radius: 3px; }
.nothing { display: flex; align-items: center; justify-content: center; padding: .3rem;
  border: 1px dashed var(--quiet); color: var(--quiet); text-align: center; font-size: .85rem; }
figcaption { margin-top: .2rem; color: var(--quiet); font-size: .8rem; text-align: center; }
.main { margin: .5rem 0 .1rem; font-size: 1.35rem; font-weight: 650; }
.main small { color: var(--quiet); font-size: .85rem; font-weight: normal; }
dl { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0; font-size: .85rem; }
dl div { display: flex; gap: .35rem; }
dt { color: var(--quiet); } dd { margin: 0; font-variant-numeric: tabular-nums; }
.name { margin: .45rem 0 0; color: var(--quiet); font-size: .75rem; overflow-wrap: anywhere; }
"""


def write_gallery(
    folder: Path,
    pairs: Sequence[GalleryPair],
    rank_by: str,
    higher_is_better: bool,
    count: int,
    title: str,
) -> Choice:
    """Write `gallery.html`, replacing that of an earlier run.

    Only the pictures shown are read, so memory does not grow with the number of pairs.

    Args:
        folder: report folder, made when missing.
        pairs: all pairs; none has to have a source.
        rank_by: the figure that ranks them.
        higher_is_better: whether the best pair has the highest value.
        count: pairs per section, 1 to MOST_PAIRS.
        title: heading, such as the name of the report.

    Returns:
        What is shown.

    Raises:
        UserError: no pair has a value of `rank_by`, `count` is out of range, a result or target
            cannot be read, or the folder cannot be written. A source that cannot be read is an
            empty place with a note.
    """
    choice = choose_pairs(pairs, rank_by, higher_is_better, count)
    summary = summary_of(choice, rank_by, higher_is_better)
    shown = {
        pair.result: read_pictures(pair) for section in choice.sections for _, pair in section.pairs
    }
    page = _page(choice, shown, rank_by, title, summary)
    with written_whole(folder / "gallery.html") as temporary:
        # A file name that is no UTF-8 shows a question mark.
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return choice


def _page(
    choice: Choice,
    shown: Mapping[Path, list[Picture]],
    rank_by: str,
    title: str,
    summary: str,
) -> str:
    links = "".join(
        f'<a href="#{section.name}">{section.name.capitalize()}</a>' for section in choice.sections
    )
    # A column is at least nine tenths of the widest card with its pictures in the size meant.
    width = round(0.9 * max(sum(widths_shown(pictures)) for pictures in shown.values()) + 40)
    sections = "".join(
        f'<section id="{section.name}"><h2>{html.escape(heading_of(section, rank_by))}</h2>\n'
        f'<div class="pairs" style="--width: {width}px">\n'
        + "".join(
            _article(rank, choice.scored, pair, shown[pair.result], rank_by)
            for rank, pair in section.pairs
        )
        + "</div></section>\n"
        for section in choice.sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}: worst, median and best pairs</title>\n"
        f"<style>{_STYLE}</style></head>\n<body>\n"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p>"
        f"<nav>{links}</nav></header>\n<main>\n{sections}</main>\n</body></html>\n"
    )


def _article(
    rank: int, ranks: int, pair: GalleryPair, pictures: list[Picture], rank_by: str
) -> str:
    height, widths = height_shown(pictures), widths_shown(pictures)
    figures = "".join(
        _figure(picture, (height, width)) for picture, width in zip(pictures, widths, strict=True)
    )
    others = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{number_text(value)}</dd></div>"
        for name, value in pair.scores.items()
        if name != rank_by
    )
    return (
        # Half as large again at most: small pictures do not fill a wide screen.
        f'<article style="max-width: {round(1.5 * sum(widths)) + 40}px">'
        f'<div class="pictures">{figures}</div>\n'
        f'<p class="main">{html.escape(rank_by)} {number_text(pair.scores[rank_by])} '
        f"<small>rank {rank} of {ranks}</small></p>\n"
        f'<dl>{others}</dl><p class="name">{html.escape(name_of(pair))}</p></article>\n'
    )


def _figure(picture: Picture, size: tuple[int, int]) -> str:
    height, width = size
    label = html.escape(f"{picture.role} {picture.size or picture.note}".rstrip())
    name = html.escape(f"{picture.role} {picture.name}".rstrip())
    if picture.image is None:
        shape = (
            f'<div class="nothing" title="{name}" style="aspect-ratio: {width} / {height}">'
            f"no {picture.role}</div>"
        )
    else:
        stored = io.BytesIO()
        picture.image.save(stored, format="PNG")
        data = base64.b64encode(stored.getvalue()).decode("ascii")
        shape = (
            f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
            f'alt="{name}" title="{name}">'
        )
    # The three share the card's width so that they are of one height.
    return f'<figure style="flex: {width} 1 0">{shape}<figcaption>{label}</figcaption></figure>\n'
