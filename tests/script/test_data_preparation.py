import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from data.fashion_dataset import FashionDataset
from data.preparation import run_in_parallel
from script import generate_fashion_datasets, resize_dataset
from script.generate_fashion_datasets import derived_name, listed_name, split_fashion
from script.resize_dataset import resize_folder, resized_folder_name
from tests.support.helpers import PROJECT
from util.errors import UserError
from util.images import read_image, to_uint8

TRAIN = {
    "MEN/Denim/id_00000080/01_1_front.jpg": "fashionMENDenimid0000008001_1front.jpg",
    "MEN/Denim/id_00000080/01_7_additional.jpg": "fashionMENDenimid0000008001_7additional.jpg",
    "WOMEN/Tees_Tanks/id_00000001/02_3_back.jpg": "fashionWOMENTees_Tanksid0000000102_3back.jpg",
}
TEST = {"WOMEN/Dresses/id_00002768/02_4_full.jpg": "fashionWOMENDressesid0000276802_4full.jpg"}


def run(*command, cwd=PROJECT):
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def download(tmp_path):
    """A data set folder with img_highres and the two lists, images as large as the real ones."""
    root = tmp_path / "dataset" / "fashion"
    rng = np.random.default_rng(0)
    for path in (*TRAIN, *TEST, "WOMEN/Skirts/id_00000009/01_1_front.jpg"):
        file = root / "img_highres" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (20, 14, 3), dtype=np.uint8))
        coarse.resize((750, 1101)).save(file)
    (root / "train.lst").write_text("\n".join(TRAIN.values()) + "\n")
    (root / "test.lst").write_text("\n".join(TEST.values()) + "\n")
    return root


@pytest.mark.parametrize(("path", "name"), [*TRAIN.items(), *TEST.items()])
def test_names(path, name):
    assert derived_name(PurePosixPath(path)) == name
    assert listed_name(f" {name}\n") == name
    assert listed_name(path) == name
    assert listed_name(f"img/{path}") == name
    assert listed_name(f"In-shop/img_highres/{path}") == name
    assert listed_name(path.replace("/", "\\")) == name


def test_split_as_a_user_runs_it(download, tmp_path):
    """From the project folder, with the defaults' layout below it."""
    for entry in ("data", "util", "options", "script"):
        (tmp_path / entry).symlink_to(PROJECT / entry)
    script = tmp_path / "script" / "generate_fashion_datasets.py"
    done = run("script/generate_fashion_datasets.py", cwd=tmp_path)
    assert script.exists()
    assert done.returncode == 0, done.stderr
    assert "train: 3 images listed, 3 found (3 new), 0 missing" in done.stdout
    assert "test: 1 images listed, 1 found (1 new), 0 missing" in done.stdout
    assert sorted(p.name for p in (download / "train").iterdir()) == sorted(TRAIN.values())
    for path, name in TRAIN.items():
        copied = (download / "train" / name).read_bytes()
        assert copied == (download / "img_highres" / path).read_bytes()
    assert sorted(p.name for p in download.iterdir()) == [
        "img_highres", "test", "test.lst", "train", "train.lst",
    ]  # fmt: skip

    again = run("script/generate_fashion_datasets.py", cwd=tmp_path)
    assert "train: 3 images listed, 3 found (0 new), 0 missing" in again.stdout


def test_missing_images_are_counted_and_listed(download, capsys):
    missing = [f"fashionMENDenimid9999999901_{i}front.jpg" for i in range(5)]
    with (download / "train.lst").open("a") as file:
        file.write("\n".join(missing) + "\n\n")
    assert generate_fashion_datasets.main([f"--dataroot={download}"]) == 1
    output, errors = capsys.readouterr()
    assert "not whole, 5 images are missing" in errors
    assert "train: 8 images listed, 3 found (3 new), 5 missing" in output
    assert f"missing: {missing[0]}, {missing[1]}, {missing[2]}, …" in output
    assert (download / "missing-train.txt").read_text().splitlines() == missing
    (download / "train.lst").write_text("\n".join(TRAIN.values()))
    split_fashion(download)
    assert not (download / "missing-train.txt").exists()


def test_other_spellings_and_paths_in_the_lists(download):
    (download / "train.lst").write_text(
        "fasionWOMENTeesTanksid00000001023back.jpg\nimg/MEN/Denim/id_00000080/01_1_front.jpg\n"
    )
    report = split_fashion(download)[0]
    assert (report.listed, report.found, report.made, report.missing) == (2, 2, 2, [])
    assert sorted(p.name for p in (download / "train").iterdir()) == [
        "fashionMENDenimid0000008001_1front.jpg",
        "fasionWOMENTeesTanksid00000001023back.jpg",
    ]


@pytest.mark.parametrize("front", ["./", "train/", "/data/fashion/train/", "C:\\\\fashion\\\\"])
def test_folders_in_front_of_the_data_sets_names(download, front):
    names = [*TRAIN.values()]
    (download / "train.lst").write_text("".join(f"{front}{name}\n" for name in names))
    report = split_fashion(download)[0]
    assert (report.found, report.missing) == (3, [])
    assert sorted(p.name for p in (download / "train").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8-sig", ""),
        ("utf-16", "is written in UTF-16"),
        ("utf-16-le", "is written in UTF-16"),
        ("utf-16-be", "is written in UTF-16"),
        ("utf-32", "is not a text file"),
        ("latin-1", "line 2 is not UTF-8 (Latin-1"),
    ],
)
def test_lists_in_other_encodings(download, encoding, told):
    path = download / "train.lst"
    lines = [*TRAIN.values()]
    if encoding == "latin-1":
        lines[1] = lines[1].replace("Denim", "Dénim")
    path.write_bytes("\r\n".join(lines).encode(encoding))
    if not told:
        assert split_fashion(download)[0].found == 3
        return
    with pytest.raises(UserError) as caught:
        split_fashion(download)
    assert f"{path}: " in str(caught.value) and told in str(caught.value)
    assert not (download / "train").exists()


def test_what_is_listed_or_there_but_no_image(download):
    """Names that no reader takes for an image's, and files of no bytes, are not the image."""
    *others, source = TRAIN
    first, second, third = TRAIN.values()
    (download / "train.lst").write_text(f"{first} 1\n{second}\n{third}\n")
    (download / "img_highres" / source).write_bytes(b"")
    (download / "img_highres" / "gone.jpg").symlink_to("nowhere")
    (download / "train").mkdir()
    (download / "train" / second).write_bytes(b"")  # of a copy that was cut off
    report = split_fashion(download, phases=("train",))[0]
    assert (report.made, report.missing) == (1, [f"{first} 1", third])
    copied = (download / "train" / second).read_bytes()
    assert copied == (download / "img_highres" / others[1]).read_bytes()


def test_two_images_of_one_name_in_the_download(download):
    path = download / "img_highres/MEN/Denim/id_00000080/01_1front.jpg"
    path.write_bytes((path.parent / "01_1_front.jpg").read_bytes())
    with pytest.raises(
        UserError, match=r"would both become fashionMENDenimid0000008001_1front\.jpg"
    ):
        split_fashion(download)


def test_links_and_a_download_elsewhere(download, tmp_path):
    elsewhere = tmp_path / "download"
    (download / "img_highres").rename(elsewhere)
    split_fashion(download, elsewhere, link=True)
    for path, name in TRAIN.items():
        assert os.path.samefile(download / "train" / name, elsewhere / path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda d: (d / "train.lst").unlink(), "train.lst: cannot be read"),
        (lambda d: (d / "test.lst").write_text("\n"), "test.lst: is empty"),
        (lambda d: (d / "img_highres").rename(d / "x"), "img_highres: there is no such folder"),
        (
            lambda d: ((d / "img_highres").rename(d / "x"), (d / "img_highres").mkdir()),
            "img_highres: has no images",
        ),
        (
            lambda d: [(d / f"{p}.lst").write_text("a.jpg\n") for p in ("train", "test")],
            "img_highres: holds none of the images listed in",
        ),
    ],
)
def test_a_download_that_is_not_as_expected(download, spoil, expected):
    spoil(download)
    with pytest.raises(UserError) as caught:
        split_fashion(download)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (download / "train").exists()


def test_a_missing_download_ends_the_program_with_one_line(tmp_path):
    done = run("script/generate_fashion_datasets.py", f"--dataroot={tmp_path}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'train.lst'}: cannot be read")
    assert len(done.stderr.splitlines()) == 1


def test_resize_as_a_user_runs_it(download):
    """The ground truth is, to the bit, the image the data set gives as P2."""
    split_fashion(download)
    names = list(TRAIN.values())
    pose = list(range(1, 19))
    (download / "fasion-pairs-train.csv").write_text(f"from,to\n{names[0]},{names[1]}\n")
    (download / "fasion-annotation-train.csv").write_text(
        "name:keypoints_y:keypoints_x\n" + "".join(f"{n}: {pose}: {pose}\n" for n in names)
    )
    done = run("-m", "script.resize_dataset", "--dataset_mode=fashion", f"--dataroot={download}")
    assert done.returncode == 0, done.stderr
    assert "train_256: 3 images found, 3 written, 0 there already, 0 unreadable" in done.stdout
    assert "test_256: 1 images found, 1 written, 0 there already, 0 unreadable" in done.stdout
    item = FashionDataset(download, "train")[0]
    saved = read_image(download / "train_256" / f"{Path(names[1]).stem}.png")
    np.testing.assert_array_equal(np.asarray(saved), to_uint8(item["P2"]))

    train = (download / "train", download / "train_256", (256, 256))
    report = resize_folder(*train)
    assert (report.found, report.written, report.skipped) == (3, 0, 3)
    os.utime(download / "train" / names[0], (2**33, 2**33))
    report = resize_folder(*train)
    assert (report.found, report.written, report.skipped) == (3, 1, 2)
    assert report.foreign == []
    os.utime(download / "train" / names[0], (0, 0))
    made = [download / "train_256" / f"{Path(name).stem}.png" for name in names[1:]]
    Image.new("RGB", (176, 256)).save(made[0])  # of another program
    made[1].write_bytes(b"")
    report = resize_folder(*train)
    assert (report.found, report.written, report.skipped) == (3, 2, 1)
    assert {read_image(path).size for path in made} == {(256, 256)}
    (download / "train" / names[0]).unlink()
    report = resize_folder(*train)
    assert report.foreign == [f"{Path(names[0]).stem}.png"]


def test_unreadable_images_are_named_and_change_the_exit_code(download):
    split_fashion(download)
    broken = download / "train" / "broken.jpg"
    broken.write_bytes(b"nothing")
    (download / "train" / "Thumbs.db").write_bytes(b"no image, no matter")
    done = run(
        "-m", "script.resize_dataset", "--dataset_mode=fashion", f"--dataroot={download}",
        "--phases=train", "--size=32,16", "--format=jpg", "--workers=2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "train_3216: 4 images found, 3 written, 0 there already, 1 unreadable" in done.stdout
    assert f"error: {broken}: cannot be read as an image" in done.stderr
    written = list((download / "train_3216").iterdir())
    assert len(written) == 3
    assert all(read_image(path).size == (16, 32) for path in written)


def test_what_a_killed_resize_left_is_told_and_stays(download, capsys):
    split_fashion(download)
    left = download / "train_256" / ".a.png.7-0.part"
    left.parent.mkdir()
    left.touch()
    resize_dataset.main(["--dataset_mode=fashion", f"--dataroot={download}", "--workers=1"])
    assert f"half written, such as {left.name}" in capsys.readouterr().err and left.exists()


def test_resize_refuses_what_it_cannot_do(download, tmp_path):
    with pytest.raises(UserError, match="test: cannot list the images"):
        resize_dataset.main(["--dataset_mode=fashion", f"--dataroot={tmp_path}"])
    with pytest.raises(UserError, match="--dataset_mode other"):
        resize_dataset.main(["--dataset_mode=other"])
    split_fashion(download)
    name = next(iter(TRAIN.values()))
    Image.new("RGB", (4, 4)).save((download / "train" / name).with_suffix(".png"))
    with pytest.raises(UserError, match="would both become"):
        resize_folder(download / "train", tmp_path / "out", (8, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images"):
        resize_folder(tmp_path / "empty", tmp_path / "out", (8, 8))


def test_folder_names():
    assert resized_folder_name("test", (256, 256)) == "test_256"
    assert resized_folder_name("train", (128, 64)) == "train_12864"


def test_run_in_parallel_keeps_order_and_raises():
    assert run_in_parallel(lambda n: n * n, range(50), 4, "squares") == [n * n for n in range(50)]

    def fail(number):
        raise UserError(f"no {number}")

    with pytest.raises(UserError, match="no 0"):
        run_in_parallel(fail, range(3), 1, "failing")
