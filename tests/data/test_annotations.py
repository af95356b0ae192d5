import argparse
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data import create_dataset
from data.annotations import read_pair_table
from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from tests.support.market_folder import POSE, Folder, annotation_row
from util.errors import UserError
from util.images import save_image


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "market")


def test_missing_folders_and_tables(folder, tmp_path):
    with pytest.raises(UserError, match=r"--dataroot .*nowhere"):
        MarketDataset(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"market/test: the image folder of phase 'test'"):
        MarketDataset(folder.root, "test")
    folder.annotation.rename(folder.root / "other.csv")
    message = folder.error()
    assert "market-annotation-train.csv: there is no such file" in message
    assert "tables there: market-pairs-train.csv, other.csv" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("from,to\n", "has a header but no rows"),
        ("from;to\np0.png;p1.png\n", "the header is 'from;to', it must be from,to"),
        ("p0.png,p1.png\n", "the header is 'p0.png,p1.png', it must be from,to"),
        ("source,target\np0.png,p1.png\n", "the header is 'source,target'"),
    ],
)
def test_bad_pair_tables(folder, text, expected):
    folder.pairs.write_text(text)
    assert f"{folder.pairs}: {expected}" in folder.error()
    assert expected in folder.error(skip_bad_samples=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("name:keypoints_y:keypoints_x\n", "has a header but no rows"),
        ("name,keypoints_y,keypoints_x\na,b,c\n", "it must be name:keypoints_y:keypoints_x"),
    ],
)
def test_bad_annotation_tables(folder, text, expected):
    folder.annotation.write_text(text)
    assert f"{folder.annotation}: " in folder.error()
    assert expected in folder.error()


def test_a_binary_table(folder):
    folder.pairs.write_bytes(b"\xff\xfe\x00\x81PK")
    assert f"{folder.pairs}: is not a text table" in folder.error()


BAD_ROWS = {
    "17 values": (
        annotation_row("p2.png", y=POSE[:17]),
        "keypoints_y of 'p2.png' has 17 values, 18",
    ),
    "19 in x": (annotation_row("p2.png", x=[*POSE, 1]), "keypoints_x of 'p2.png' has 19 values"),
    "cut off": ("p2.png: [1, 2, 3: [4, 5]", "keypoints_y of 'p2.png' is not a JSON list: [1, 2, 3"),
    "no list": (f"p2.png: 5: {POSE}", "keypoints_y of 'p2.png' is not a JSON list: 5"),
    "null": (annotation_row("p2.png", y=[None, *POSE[1:]]), "holds null, neither a coordinate"),
    "text": (annotation_row("p2.png", y=["4", *POSE[1:]]), 'holds "4", neither a coordinate'),
    "NaN": (annotation_row("p2.png", y=[float("nan"), *POSE[1:]]), "holds NaN, neither"),
    "infinite": (annotation_row("p2.png", y=[float("inf"), *POSE[1:]]), "holds Infinity, neither"),
    "negative": (annotation_row("p2.png", x=[-7, *POSE[1:]]), "holds -7, neither"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_annotation_rows(folder, kind):
    row, expected = BAD_ROWS[kind]
    rows = [annotation_row(name) for name in folder.names]
    rows[2] = row
    folder.write_annotation(rows)
    message = folder.error()
    assert f"{folder.annotation}, row 4" in message  # the header is row 1
    assert expected in message
    assert f"{folder.pairs}, row 3" in message
    assert "--skip_bad_samples" in message
    assert "(1 more rows have problems)" in message
    dataset = folder.dataset(skip_bad_samples=True)
    assert len(dataset) == 3
    assert len(dataset.bad_rows) == 2
    assert "left out 2 of 5 pairs" in dataset.notices[0]
    assert [Path(dataset[i]["P1_path"]).name for i in range(3)] == ["p0.png", "p3.png", "p4.png"]


def test_a_row_with_the_wrong_number_of_fields(folder):
    folder.write_annotation([annotation_row(name) for name in folder.names[:5]] + ["p5.png: [1]"])
    message = folder.error()
    assert f"'p5.png' has no row in {folder.annotation}" in message
    assert "row 7: has 2 fields instead of 3" in message


def test_an_image_annotated_twice(folder):
    rows = [annotation_row(name) for name in folder.names]
    folder.write_annotation([*rows, rows[0]])
    assert len(folder.dataset()) == 5
    folder.write_annotation([*rows, annotation_row("p0.png", x=POSE[::-1])])
    assert "row 8: 'p0.png' has other key points than in row 2" in folder.error()


def test_names_in_other_letter_case_are_named(folder):
    folder.write_pairs(["p0.png,P1.png"])
    assert f"image 'P1.png' is not in {folder.images} ('p1.png' is there" in folder.error()
    (folder.images / "p1.png").rename(folder.images / "P1.png")
    assert f"'P1.png' has no row in {folder.annotation} ('p1.png' is there" in folder.error()


def test_pairs_that_are_there_twice_are_told(folder):
    folder.write_pairs(["p0.png,p1.png", "p1.png,p0.png", "p0.png,p1.png"])
    (notice,) = folder.dataset(trust_keypoints=True).notices
    assert f"{folder.pairs}: 1 rows repeat a pair, the first: row 4" in notice


def test_images_seen_in_training_are_told(tmp_path):
    train, test = (Folder(tmp_path, phase=phase) for phase in ("train", "test"))
    assert train.dataset(trust_keypoints=True).notices == []
    (notice,) = test.dataset(trust_keypoints=True).notices
    assert f"6 of the 6 images of {test.pairs} are in {train.pairs}, too" in notice
    for name in test.names:  # other pictures may have the same names
        (test.images / name).write_bytes((test.images / name).read_bytes() + b" ")
    assert test.dataset(trust_keypoints=True).notices == []


def test_pairs_without_image_or_annotation(folder):
    folder.write_pairs(["p0.png,p1.png", "p0.png,gone.png", "p2.png"])
    message = folder.error()
    assert f"{folder.pairs}, row 3: image 'gone.png' is not in {folder.images}" in message
    assert "1 more rows" in message
    dataset = folder.dataset(skip_bad_samples=True)
    assert len(dataset) == 1
    assert "row 4: has 1 fields instead of 2" in dataset.bad_rows[1]
    folder.write_pairs(["p0.png,gone.png"])
    for skip in (False, True):  # leaving them all out is no way on, so it is not advised
        assert folder.error(skip_bad_samples=skip).endswith("none of the 1 pairs can be used")
    folder.write_annotation([annotation_row("p0.png")])
    folder.write_pairs(["p0.png,p1.png"])
    assert f"'p1.png' has no row in {folder.annotation}" in folder.error()


def test_unreferenced_bad_rows_do_no_harm(folder):
    with folder.annotation.open("a") as file:
        file.write("unused.png: [1: [2\n")
    assert len(folder.dataset()) == 5


def test_tables_as_programs_write_them(folder):
    """Byte-order mark, Windows line ends, quotes, an index column, blank lines."""
    quoted = [f'{n}:"{json.dumps(POSE)}":"{json.dumps(POSE)}"' for n in folder.names]
    text = "\r\n".join(["name:keypoints_y:keypoints_x", *quoted, "", ""])
    folder.annotation.write_bytes(b"\xef\xbb\xbf" + text.encode())
    folder.write_pairs(["0,p0.png,p1.png", "", "1,p2.png,p3.png"], header=",from,to")
    dataset = folder.dataset()
    assert len(dataset) == 2
    assert Path(dataset[1]["P2_path"]).name == "p3.png"
    folder.write_pairs(["0,p0.png,p1.png", "", "1,p2.png,gone.png"], header=",from,to")
    assert "row 4" in folder.error()


def test_another_frame_is_noticed(folder):
    folder.write_annotation([annotation_row(n, x=[90, *POSE[1:]]) for n in folder.names])
    message = folder.error()
    assert "reach x = 90, y = 27, outside the frame of 128×64" in message
    assert "--old_size height,width" in message  # nothing says which
    item = folder.dataset(old_size=(256, 256))[0]
    assert item["pose1"][0].tolist() == [90 / 4, 10 / 2]


FASHION_TABLES = ("fasion", "fashion")


def fashion_folder(root, file_name, table_name, prefix="fasion"):
    (root / "train").mkdir(parents=True)
    save_image(root / "train" / file_name, np.zeros((256, 176, 3), np.uint8))
    (root / f"{prefix}-pairs-train.csv").write_text(f"from,to\n{table_name},{table_name}\n")
    (root / f"{prefix}-annotation-train.csv").write_text(
        f"name:keypoints_y:keypoints_x\n{annotation_row(table_name)}\n"
    )
    return root


@pytest.mark.parametrize("prefix", FASHION_TABLES)
def test_both_spellings_of_fashion_tables(tmp_path, prefix):
    name = "fashionMENDenimid0000008001_1front.jpg"
    root = fashion_folder(tmp_path / "d", name, name, prefix)
    assert len(FashionDataset(root, "train")) == 1


def test_two_fashion_tables_must_be_equal(tmp_path):
    name = "fashionMENDenimid0000008001_1front.jpg"
    root = fashion_folder(tmp_path / "d", name, name)
    shutil.copy(root / "fasion-pairs-train.csv", root / "fashion-pairs-train.csv")
    assert len(FashionDataset(root, "train")) == 1
    with (root / "fashion-pairs-train.csv").open("a") as file:
        file.write(f"{name},{name}\n")
    with pytest.raises(UserError, match=r"fasion-pairs-train.csv and .* differ"):
        FashionDataset(root, "train")


@pytest.mark.parametrize(
    ("file_name", "table_name"),
    [
        (
            "fashionWOMENTees_Tanksid0000000202_1front.jpg",
            "fasionWOMENTeesTanksid00000002021front.jpg",
        ),
        (
            "fasionWOMENTeesTanksid00000002021front.jpg",
            "fashionWOMENTees_Tanksid0000000202_1front.jpg",
        ),
        (
            "fashionWOMENTees_Tanksid0000000202_1front.png",
            "fashionWOMENTees_Tanksid0000000202_1front.jpg",
        ),
    ],
)
def test_other_spellings_of_names_are_matched_and_announced(tmp_path, file_name, table_name):
    dataset = FashionDataset(fashion_folder(tmp_path / "d", file_name, table_name), "train")
    assert Path(dataset[0]["P1_path"]).name == file_name
    assert f"'{table_name}' with '{file_name}'" in dataset.notices[-1]


def test_ambiguous_spellings_are_not_matched(tmp_path):
    root = fashion_folder(
        tmp_path / "d", "fashionMENa_bid0000000202_1front.jpg", "fasionMENabid0000000202_1front.jpg"
    )
    save_image(
        root / "train" / "fashionMEN_abid0000000202_1front.jpg", np.zeros((256, 176, 3), np.uint8)
    )
    with pytest.raises(UserError, match=r"image 'fasionMENabid0000000202_1front.jpg' is not in"):
        FashionDataset(root, "train")


def test_notices_are_printed(tmp_path, capsys):
    root = fashion_folder(
        tmp_path / "d", "fashionMENa_bid0000000202_1front.jpg", "fasionMENabid0000000202_1front.jpg"
    )
    opt = FashionDataset.add_options(argparse.ArgumentParser(), True).parse_args([])
    vars(opt).update(dataset_mode="fashion", dataroot=root, phase="train", is_train=True, seed=0)
    create_dataset(opt)
    assert "Data: 1 image names of fasion-pairs-train.csv are spelt" in capsys.readouterr().out


def test_table_of_many_pairs_uses_each_image_once(folder):
    folder.write_pairs([f"{a},{b}" for a in folder.names for b in folder.names] * 50)
    table = read_pair_table(folder.pairs, folder.annotation, folder.images, frame=(128, 64))
    assert table.pairs.shape == (1800, 2)
    assert len(table.files) == len(table.poses) == 6
    assert table.rows[-1] == 1801


def rename(folder, **names):
    for old, new in names.items():
        (folder.images / f"{old}.png").rename(folder.images / new)


def test_underscores_count_outside_deepfashion(folder):
    rename(folder, p0="person_11_2.png")
    folder.write_annotation([annotation_row(n) for n in ("person_1_12.png", *folder.names[1:])])
    folder.write_pairs(["person_1_12.png,p1.png"])
    assert "image 'person_1_12.png' is not in" in folder.error()
    for first, second in (("fashion_1_12", "fashion_11_2"), ("fashionMEN_1_12", "fashionMEN_11_2")):
        (folder.images / f"{second}.png").write_bytes((folder.images / "p1.png").read_bytes())
        folder.write_annotation([annotation_row(f"{first}.png"), annotation_row("p1.png")])
        folder.write_pairs([f"{first}.png,p1.png"])
        assert f"image '{first}.png' is not in" in folder.error()


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_names(folder, form, other):
    rename(folder, p0=unicodedata.normalize(form, "Zo\u00eb.png"))
    name = unicodedata.normalize(other, "Zo\u00eb.png")
    folder.write_annotation([annotation_row(n) for n in (name, "p1.png")])
    folder.write_pairs([f"{name},p1.png"])
    assert len(folder.dataset()) == 1


@pytest.mark.parametrize("prefix", ["./", "train/", "data\\train\\"])
def test_folders_in_front_of_names(folder, prefix):
    folder.write_pairs([f"{prefix}p0.png,{prefix}p1.png"])
    assert Path(folder.dataset()[0]["P2_path"]).name == "p1.png"
    folder.write_annotation([annotation_row(prefix + name) for name in folder.names])
    assert len(folder.dataset()) == 1
    folder.write_pairs(["p0.png,p1.png"])
    assert len(folder.dataset()) == 1


def test_one_picture_is_not_two(folder):
    folder.write_pairs(["a/p0.png,b/p0.png"])
    assert "is not in" in folder.error()
    folder.write_pairs(["p0.png,p0.jpg"])
    assert "image 'p0.jpg' is not in" in folder.error()


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16", "written in UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("latin-1", "is not UTF-8 (Latin-1"),
    ],
)
def test_tables_in_other_encodings_are_told(folder, encoding, told):
    for path in (folder.pairs, folder.annotation):
        text = path.read_text()
        path.write_bytes(text.replace("p1", "p\u00e91").encode(encoding))
        message = folder.error()
        assert f"{path}: " in message and told in message
        assert "UTF-8" in message
        path.write_text(text)


@pytest.mark.parametrize("prefix", ["fasion-resize", "fashion-resize"])
def test_resize_tables_are_taken(tmp_path, prefix):
    name = "fashionMENDenimid0000008001_1front.jpg"
    root = fashion_folder(tmp_path / "d", name, name, prefix)
    assert len(FashionDataset(root, "train")) == 1


def test_files_that_are_not_read_are_counted(folder):
    for name in ("a.heic", "b.heic", "c", "notes.txt", ".hidden"):
        (folder.images / name).write_bytes(b"x")
    notice = folder.dataset().notices[-1]
    assert "3, namely no suffix (1), .heic (2)" in notice
    folder.write_annotation([annotation_row(n) for n in ("a.heic", "p1.png")])
    folder.write_pairs(["a.heic,p1.png"])
    assert "a.heic: is not of a type that is read" in folder.error()
