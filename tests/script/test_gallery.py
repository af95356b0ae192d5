"""The gallery: which pairs it shows, and what a browser and a viewer get to see."""

import base64
import io
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from script.metrics.gallery import write_gallery
from script.metrics.gallery_pairs import MOST_PAIRS, GalleryPair, choose_pairs
from util.errors import UserError
from util.images import read_image

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)
VOID_TAGS = {"meta", "img"}


class Page(HTMLParser):
    """What a browser makes of a page: tags with attributes, the text, and whether it closes."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data

    def pictures(self):
        """(alternative text, PNG as uint8 [H, W, 3]) in order."""
        found = []
        for attributes in (attributes for tag, attributes in self.tags if tag == "img"):
            start, data = attributes["src"].split(",")
            assert start == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                found.append((attributes["alt"], np.asarray(image)))
        return found


def scored(**scores):
    return [
        GalleryPair(Path(f"{name}_vis.png"), Path(f"{name}.png"), None, {"SSIM": score})
        for name, score in scores.items()
    ]


def names(choice):
    return {
        section.name: "".join(pair.result.name[0] for _, pair in section.pairs)
        for section in choice.sections
    }


NINE = scored(a=0.5, b=0.9, c=0.1, d=0.3, e=0.8, f=0.2, g=0.7, h=0.4, i=0.6)


def test_worst_median_and_best_of_nine():
    choice = choose_pairs(NINE, "SSIM", True, 2)
    assert names(choice) == {"worst": "cf", "median": "ia", "best": "be"}
    assert [rank for rank, _ in choice.sections[0].pairs] == [9, 8]
    assert [rank for rank, _ in choice.sections[2].pairs] == [1, 2]
    assert choice.scored == 9 and not choice.remarks


def test_lower_is_better():
    assert names(choose_pairs(NINE, "SSIM", False, 2)) == {
        "worst": "be", "median": "ha", "best": "cf"
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sections_share_nothing_when_there_are_enough_pairs(count):
    shown = "".join(names(choose_pairs(NINE, "SSIM", True, count)).values())
    assert len(shown) == len(set(shown)) == 3 * count


@pytest.mark.parametrize(("count", "remark"), [(3, False), (4, True), (100, True)])
def test_overlap_is_said(count, remark):
    choice = choose_pairs(NINE, "SSIM", True, count)
    assert any("overlap" in text for text in choice.remarks) == remark
    for shown in names(choice).values():
        assert len(shown) == len(set(shown)) == min(count, 9)


def test_ties_are_ranked_by_name_whatever_the_order():
    tied = scored(a=0.5, b=0.5, c=0.5, d=0.5, e=0.5, f=0.5)
    for pairs in (tied, tied[::-1]):
        choice = choose_pairs(pairs, "SSIM", True, 2)
        assert names(choice) == {"worst": "fe", "median": "cd", "best": "ab"}
        assert any("ranked by name" in text for text in choice.remarks)


def test_pairs_without_a_value_are_left_out_and_counted():
    pairs = [*scored(a=0.1, b=math.nan, c=0.2, d=math.inf), *scored(x=1.0)]
    pairs[-1].scores.pop("SSIM")
    choice = choose_pairs(pairs, "SSIM", True, 1)
    assert names(choice) == {"worst": "a", "median": "c", "best": "d"}
    assert choice.scored == 3 and "left out, having no value of SSIM: 2" in choice.remarks


@pytest.mark.parametrize("pairs", [[], scored(a=math.nan)])
def test_nothing_to_show(pairs):
    with pytest.raises(UserError, match=f"none of the {len(pairs)} pairs has a value of SSIM"):
        choose_pairs(pairs, "SSIM", True, 1)


@pytest.mark.parametrize("count", [0, -1, MOST_PAIRS + 1])
def test_count_has_limits(count):
    with pytest.raises(UserError, match=f"ask for 1 to {MOST_PAIRS}"):
        choose_pairs(NINE, "SSIM", True, count)


def save(path, color, size=(128, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.empty((*size, 3), np.uint8)
    picture[:] = color
    picture[0] = 0  # no plain colour: wrong pixels would show
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def three(tmp_path):
    """Three pairs, from worst to best red, green and blue; sources white, targets grey."""
    pictures = tmp_path / "pictures"
    target, source = save(pictures / "t.png", (99, 99, 99)), save(pictures / "s.png", (255,) * 3)
    return [
        GalleryPair(save(pictures / f"{n}_vis.png", c), target, source, {"SSIM": s, "L1": 0.25})
        for n, c, s in (("bad", RED, 0.1), ("fair", GREEN, 0.5), ("good", BLUE, 0.9))
    ]


def test_page_shows_every_pair_exactly_as_it_is(three, tmp_path):
    write_gallery(tmp_path / "report", three, "SSIM", True, 1, "mine")
    page = Page(tmp_path / "report" / "gallery.html")
    pictures = page.pictures()
    assert len(pictures) == 9
    for number, pair in enumerate(three):
        paths = (pair.source, pair.target, pair.result)
        for role, path, (alt, pixels) in zip(
            ("source", "target", "result"), paths, pictures[3 * number :], strict=False
        ):
            assert alt == f"{role} {path.name}"
            assert np.array_equal(pixels, read_image(path))
    for words in (
        "mine", "3 pairs ranked by SSIM, higher is better.", "1 worst pair (SSIM 0.1000)",
        "1 median pair (SSIM 0.5000)", "1 best pair (SSIM 0.9000)", "rank 3 of 3", "L10.2500",
        "bad_vis.png",
    ):  # fmt: skip
        assert words in page.text


def test_page_needs_nothing_but_itself(three, tmp_path):
    write_gallery(tmp_path / "report", three, "SSIM", True, 1, "mine")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["gallery.html"]
    page = Page(tmp_path / "report" / "gallery.html")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for value in (attributes.get("src"), attributes.get("href")):
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    text = (tmp_path / "report" / "gallery.html").read_text()
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"} <= targets


def test_odd_names_and_titles_stay_text(three, tmp_path):
    name = "\"x\" & <i>'y' %41#?_2_b_vis.png"
    odd = GalleryPair(
        save(tmp_path / "odd" / name, RED), three[0].target, None, {"<b>SSIM": 0.5}
    )  # fmt: skip
    write_gallery(tmp_path / "report", [odd], "<b>SSIM", True, 1, "<script>alert(1)</script> & co")
    page = Page(tmp_path / "report" / "gallery.html")
    assert not {tag for tag, _ in page.tags} & {"script", "i", "b"}
    assert name in page.text and "<script>alert(1)</script> & co" in page.text
    assert "<b>SSIM 0.5000" in page.text
    assert f"result {name}" in [alt for alt, _ in page.pictures()]


def test_name_that_is_no_utf8(three, tmp_path):
    result = tmp_path / "a\udcff_2_b_vis.png"
    three[0].result.rename(result)
    pair = GalleryPair(result, three[0].target, None, {"SSIM": 0.5})
    write_gallery(tmp_path / "report", [pair], "SSIM", True, 1, "mine")
    assert "a?_2_b_vis.png" in Page(tmp_path / "report" / "gallery.html").text


def test_missing_sources_are_empty_places_with_a_note(three, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    sources = (None, tmp_path / "gone.png", broken)
    pairs = [
        GalleryPair(pair.result, pair.target, source, pair.scores)
        for pair, source in zip(three, sources, strict=True)
    ]
    write_gallery(tmp_path / "report", pairs, "SSIM", True, 1, "mine")
    page = Page(tmp_path / "report" / "gallery.html")
    assert len(page.pictures()) == 6 and page.text.count("no source") == 3
    for note in ("source not known", "source file not found", "source cannot be read"):
        assert note in page.text


def test_results_and_targets_must_be_readable(three, tmp_path):
    three[1].result.write_text("no picture")
    with pytest.raises(UserError, match=r"fair_vis\.png: cannot be read as an image"):
        write_gallery(tmp_path / "report", three, "SSIM", True, 1, "mine")
    assert not (tmp_path / "report").exists()


def test_sizes_that_differ_are_said_and_large_sources_shrunk(three, tmp_path):
    large = save(tmp_path / "large.jpg", GREEN, (1101, 750))
    pair = GalleryPair(three[0].result, three[0].target, large, {"SSIM": 0.5})
    write_gallery(tmp_path / "report", [pair], "SSIM", True, 1, "mine")
    page = Page(tmp_path / "report" / "gallery.html")
    assert "source 750x1101" in page.text and "target 64x128" not in page.text
    assert page.pictures()[0][1].shape == (512, 349, 3)
    shown = [attributes for tag, attributes in page.tags if tag == "img"][:3]
    assert [(image["width"], image["height"]) for image in shown] == [
        ("174", "256"), ("128", "256"), ("128", "256"),
    ]  # fmt: skip


def test_earlier_gallery_is_replaced_and_nothing_else_touched(three, tmp_path):
    report = tmp_path / "report"
    write_gallery(report, three, "SSIM", True, 1, "earlier")
    (report / "metrics.csv").write_text("kept")
    (report / "gallery").mkdir()
    (report / "gallery" / "notes.txt").write_text("kept")
    write_gallery(report, three[:1], "SSIM", True, 1, "later")
    page = Page(report / "gallery.html")
    assert "later" in page.text and "earlier" not in page.text and len(page.pictures()) == 9
    assert "good_vis.png" not in page.text
    assert (report / "gallery" / "notes.txt").read_text() == "kept"
    assert sorted(path.name for path in report.iterdir()) == [
        "gallery", "gallery.html", "metrics.csv",
    ]  # fmt: skip
