"""Files from strangers: told in one printable line; nothing waits or goes on for ever."""

import csv
import io
import os
import socket
import struct
import subprocess
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data import create_dataset
from data.flow import FlowFolder
from data.tables import LONGEST_ROW, read_rows
from data.tfrecord_dataset import TFRecordDataset, find_shards
from data.worker_failures import explain_failure
from options.base_options import parse_test_options
from script.convert_to_tfrecord.record_file import serialise_example
from script.generate_fashion_datasets import split_fashion
from script.metrics.image_sets import read_statistics
from tests.fuzz import harness
from tests.fuzz import records as records_format
from tests.fuzz.images import EPS, chunk
from tests.support.market_folder import Folder
from util import npz_files
from util.errors import UserError, printable
from util.files import is_file_name, regular_file
from util.images import IMAGE_FORMATS, IMAGE_SUFFIXES, LARGEST_IMAGE, read_image, read_image_size
from util.npz_files import read_arrays
from util.result_table import (
    TABLE_NAME,
    ResultRow,
    append_rows,
    guarded,
    read_table,
    unguarded,
    write_table,
)
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import length_delimited, varint
from util.tensorflow.records import find_records, parse_example


def message_of(function, *arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    assert str(caught.value).isprintable()
    return str(caught.value)


# Texts


def test_texts_of_files_are_printed_with_escapes():
    hostile = "a\n\x1b[2J\x9b\u202e\u2028\ufeff\udc80\x00é人"
    expected = r"a\n\x1b[2J\x9b\u202e\u2028\ufeff\udc80\x00é人"
    assert str(UserError(hostile)) == printable(hostile) == expected
    assert printable(expected) == expected  # an error's text that is part of another's
    text = str(UserError(f"start{'x' * 10**6}end"))
    assert len(text) == 4000 and text.startswith("start") and text.endswith("end")
    assert printable(text) == text


class Refusing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("C:\\new: row 1\nutil.errors.UserError: \x1b[31mred")


def test_the_text_comes_through_a_data_worker_once():
    with pytest.raises(UserError) as caught:
        list(DataLoader(Refusing(), num_workers=1))
    told = explain_failure(caught.value)
    assert str(told) == r"C:\new: row 1\nutil.errors.UserError: \x1b[31mred"


# Files


def test_what_is_no_file_is_told_before_it_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert regular_file(tmp_path / "file").st_size == 3
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name, kind in (("pipe", "a pipe"), ("link", "a pipe"), ("socket", "a socket")):
        assert f"{name}: is {kind}, not a file" in message_of(regular_file, tmp_path / name)
    assert "is a folder" in message_of(regular_file, tmp_path)
    assert "is a device" in message_of(regular_file, "/dev/zero")
    assert r"a\x00b: is no name of a file" in message_of(regular_file, "a\0b")
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "none")


def test_names_that_may_be_joined_to_a_folder():
    good = ("a", "latest_net_G.pth", "..a", " ", "é" * 127, "a\nb")
    bad = ("", ".", "..", "a/b", "../a", "a\\b", "a\0", "é" * 128, "\ud800", None, 3, b"a")
    assert all(map(is_file_name, good)) and not any(map(is_file_name, bad))


def test_a_table_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pairs.csv")
    message = message_of(list, read_rows(tmp_path / "pairs.csv", ("from", "to"), ","))
    assert "pairs.csv: is a pipe" in message


@pytest.mark.parametrize(
    "text", ["from,to\n" + "a," * 10**6, 'from,to\n"a' + '\n","' * 10**6], ids=["line", "quotes"]
)
def test_a_row_without_end(tmp_path, text):
    (tmp_path / "pairs.csv").write_text(text)
    message = message_of(list, read_rows(tmp_path / "pairs.csv", ("from", "to"), ","))
    assert f"has more than {LONGEST_ROW} characters" in message


def test_a_list_of_images_that_leads_elsewhere(tmp_path):
    """Each name has the spelling of an image that is there, but none is a name in the folder."""
    source = tmp_path / "img_highres" / "MEN" / "Denim" / "id_00000080" / "01_1_front.jpg"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"pixels")
    source, name = "MEN/Denim/id_00000080/01_1_front.jpg", "fashionMENDenimid0000008001_1front"
    for line in (f"{name}.{'x' * 300}", f"{name}.\0", f"../../{source}x", f"/{source}"):
        (tmp_path / "test.lst").write_text(f"{source}\n{line}\n")
        (report,) = split_fashion(tmp_path, phases=("test",))
        assert len(report.missing) == 1
        assert [path.name for path in (tmp_path / "test").rglob("*")] == [f"{name}.jpg"]


def test_cells_are_no_formulas(tmp_path):
    plain = ("'a", "a=1", "", "a\nb")
    texts = ("=cmd|' /C calc'!A0", "+1", "-a.png", "@x", "\t=1", "'=1", "''-", *plain)
    for text in texts:
        assert guarded(text)[:1] not in tuple("=+-@\t\r") and unguarded(guarded(text)) == text
        assert (guarded(text) == text) is (text in plain)
    rows = [ResultRow(text, text, text, '{"name": "=x"}', "0" * 64, text) for text in texts]
    write_table(tmp_path, rows[:3])
    append_rows(tmp_path, rows[3:])
    assert list(read_table(tmp_path).values()) == rows
    with open(tmp_path / TABLE_NAME, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)


def test_other_tables_that_are_pipes(tmp_path):
    os.mkfifo(tmp_path / TABLE_NAME)
    assert "is a pipe" in message_of(read_table, tmp_path)
    os.mkfifo(tmp_path / "test.lst")
    assert "is a pipe" in message_of(split_fashion, tmp_path, phases=("test",))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_of_images_that_can_be_none(tmp_path, name):
    folder = Folder(tmp_path / "market")
    folder.write_pairs([f"{name},p1.png"])
    assert f"image '{printable(name)}' is not in" in folder.error()


def test_names_on_the_terminal(tmp_path, capsys):
    """A notice on a pair whose image is spelt with an escape in front of its name."""
    folder = Folder(tmp_path / "market")
    folder.write_pairs(["x\x1b[2J/p0.png,p1.png"])
    create_dataset(
        parse_test_options(
            [
                "--name=x",
                "--model=pose",
                "--dataset_mode=market",
                f"--dataroot={folder.root}",
                "--phase=train",
            ]
        ),
        "train",
    )
    out = capsys.readouterr().out
    assert r"x\x1b[2J/p0.png" in out and "\x1b" not in out


# Arrays


def npz(path, values: bytes, header: dict):
    """An .npz file of one array `mu` whose header says what it likes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mu.npy", stream.getvalue() + values)


def test_arrays_of_npz_files(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_files, "LARGEST_ARRAYS", 10_000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, mu=np.arange(3.0), notes="text")
    arrays = read_arrays(path)
    assert arrays["mu"].tolist() == [0, 1, 2] and str(arrays["notes"]) == "text"
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    for values, changes, expected in (
        (bytes(8), {}, "or less than it says"),
        (bytes(8), {"descr": "|O", "shape": (1,)}, "holds objects"),
        (bytes(20_000), {"shape": (2500,)}, "10000 bytes unpacked"),
        (bytes(4), {"shape": (0,)}, None),
    ):
        npz(path, values, header | changes)
        if expected is None:
            assert read_arrays(path)["mu"].shape == (0,)
            continue
        with pytest.raises(ValueError, match=expected):
            read_arrays(path)
        message = message_of(read_statistics, path, "standard")
        assert message.startswith(f"--fid_real_path={path}: cannot be read") and expected in message
    path.write_bytes(b"PK\5\6" + b"\xff" * 40)
    with pytest.raises(ValueError):
        read_arrays(path)


def test_true_flow_that_is_a_pipe(tmp_path):
    """Not a pair without flow, which is scored as one where nothing is visible."""
    os.mkfifo(tmp_path / "a_2_b.npz")
    assert "a_2_b.npz: is a pipe" in message_of(FlowFolder(tmp_path, (4, 4)).read, "a_2_b")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"flow": np.full((2, 8, 6), "a")}, "flow must be floats"),
        ({"visible": np.ones((8, 6))}, "visible yes or no"),
        ({"flow": np.zeros((2, 0, 0)), "visible": np.zeros((0, 0), bool)}, "neither empty"),
        ({"flow": np.full((2, 8, 6), 1e300)}, "NaN or infinite where it is visible"),
        ({"flow": np.full((2, 8, 6), np.nan)}, "NaN or infinite where it is visible"),
        ({"flow": np.full((2, 8, 6), np.nan), "visible": np.zeros((8, 6), bool)}, None),
    ],
)
def test_true_flow_of_other_values(tmp_path, arrays, expected):
    honest = {"flow": np.zeros((2, 8, 6), np.float16), "visible": np.ones((8, 6), bool)}
    np.savez(tmp_path / "a.npz", **honest | arrays)
    folder = FlowFolder(tmp_path, (4, 3))
    if expected is None:
        assert not folder.read("a")[0].any()
    else:
        assert expected in message_of(folder.read, "a")


# Images


def png(size=(64, 128), pieces=b"", end=b"") -> bytes:
    """A grey PNG, with `pieces` before its pixels and `end` behind them."""
    stream = io.BytesIO()
    Image.new("1", size).save(stream, "PNG")
    data = stream.getvalue()
    return data[:33] + pieces + data[33:-12] + end + data[-12:]


def test_no_other_formats_are_opened(tmp_path, monkeypatch):
    """EPS files start Ghostscript, whatever they are called."""
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(subprocess, "check_call", None)
    (tmp_path / "a.png").write_bytes(EPS)
    assert "none of the formats JPEG, PNG" in message_of(read_image, tmp_path / "a.png")
    assert set(IMAGE_FORMATS) <= set(Image.registered_extensions().values()) | {"DIB"}
    assert {Image.registered_extensions()[s] for s in IMAGE_SUFFIXES} - set(IMAGE_FORMATS) == set()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels(tmp_path):
    path = tmp_path / "a.png"
    for size in ((9_500, 9_500), (60_000, 60_000)):  # Pillow refuses the second
        header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
        for read in (read_image, read_image_size):
            assert f"{path}: has more than {LARGEST_IMAGE} pixels" in message_of(read, path)


@pytest.mark.parametrize(
    "data",
    [
        png(pieces=chunk(b"tEXt", b"") * 200_000),
        png(end=chunk(b"tEXt", b"") * 200_000),
        b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000,
        b"\xff\xd8" + b"\xff" * 3_000_000,
        b"P6\n" + b"#\n" * 1_000_000 + b"1 1 255 aaa",
    ],
    ids=["chunks", "chunks at the end", "comments", "padding", "comments of a PPM"],
)
def test_images_of_very_many_pieces(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    start = time.process_time()
    assert "consists of far more pieces" in message_of(read_image, path)
    assert time.process_time() - start < 2


def test_an_honest_image_has_few_pieces(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")  # some hundred chunks
    data = (tmp_path / "a.png").read_bytes()
    place = data.index(b"IDAT") - 4
    pieces = chunk(b"tEXt", b"a\0" + b"b" * 200) * 2000
    (tmp_path / "a.png").write_bytes(data[:place] + pieces + data[place:])
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), pixels)


def test_a_jpeg_that_decodes_its_pixels_again_and_again(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    for count, is_read in ((40, True), (60, False)):
        (tmp_path / "a.jpg").write_bytes(data[:-2] + scan * count + data[-2:])
        if is_read:
            assert read_image(tmp_path / "a.jpg").size == (16, 16)
        else:
            assert "more than 64 scans" in message_of(read_image, tmp_path / "a.jpg")


def test_an_image_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, read_image_size):
        assert "a.png: is a pipe" in message_of(read, tmp_path / "a.png")


# Records


@pytest.fixture
def records(tmp_path):
    """A function that writes the first golden record with other features, in a file of a name."""

    def write(name=records_format.NAME, **features):
        record = {**records_format.honest_records()[0], **features}
        (tmp_path / name).write_bytes(records_format.framed(serialise_example(record)))
        return tmp_path

    return write


def points(value: float) -> np.ndarray:
    values = np.full(54, 10, np.float32)
    values[3] = value
    return values


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (
            {"pose_peaks_0_rcv": points(np.inf)},
            "pose_peaks_0_rcv holds NaN or numbers beyond 65535",
        ),
        ({"pose_peaks_1_rcv": points(1e38)}, "pose_peaks_1_rcv holds NaN or numbers beyond 65535"),
        ({"pose_peaks_0_rcv": points(np.nan)}, "pose_peaks_0_rcv holds NaN"),
        ({"image_name_1": [b"a\0b.jpg"]}, r"image_name_1, a\x00b.jpg, is no name of a file"),
        ({"image_name_0": [b".."]}, "image_name_0, .., is no name of a file"),
        ({"image_name_0": [b"x" * 300]}, "is no name of a file"),
        ({"image_height": np.array([2**40])}, "its images are 1099511627776×64 pixels large"),
        ({"image_raw_0": [png((9000, 9000))]}, "image_raw_0 has 9000×9000 pixels, the first"),
        ({"image_raw_0": [EPS]}, "image_raw_0 cannot be read as an image (it is of none of the"),
    ],
)
def test_hostile_records(records, features, expected):
    folder = records(**features)

    def read():
        dataset = TFRecordDataset(folder, "test", load_size=(128, 64))
        dataset[0]

    message = message_of(read)
    assert message.startswith(f"{folder / records_format.NAME}, record 1 at byte 0: ")
    assert expected in message


def test_a_number_of_shards_is_only_a_name(records):
    folder = records("Market1501_test_00000-of-99999999999.tfrecord")
    message = message_of(find_shards, folder, "test")
    assert "Market1501_test_00001-of-99999999999.tfrecord: is missing; 1 of 99999999999" in message


def test_records_that_are_no_files(tmp_path):
    path = tmp_path / records_format.NAME
    os.mkfifo(path)
    for skip in (False, True):
        message = message_of(TFRecordDataset, tmp_path, "test", skip_bad_samples=skip)
        assert f"{path}: is a pipe" in message


def test_records_larger_than_any(tmp_path):
    path = tmp_path / "a"
    size = struct.pack("<Q", 1 << 40)
    path.write_bytes(size + struct.pack("<I", masked_crc32c(size)))
    os.truncate(path, (1 << 40) + 100)  # a file of holes
    assert f"{path}, record 1 at byte 0: at most 1000000 records of" in message_of(
        find_records, path
    )


@pytest.mark.parametrize(
    "value", [varint(2 << 3) + varint(2**40), length_delimited(2, b"") * 10**6]
)
def test_records_whose_fields_would_fill_the_memory_or_hours(value):
    with pytest.raises(ValueError, match=r"a number is where|more than 100000 fields"):
        parse_example(length_delimited(1, length_delimited(1, length_delimited(1, b"a") + value)))


# The fuzzer


class Format:
    """A format whose inputs are numbers, and whose reader does what each of them stands for."""

    def __init__(self, folder):
        self.readers = [
            lambda: None,
            lambda: self.refuse("a line"),
            lambda: 1 / 0,
            lambda: self.refuse(""),
            lambda: print("\x1b[2J"),
            lambda: open(folder.parent / "written", "w").close(),
            lambda: os.replace(folder / "number", folder / "number"),
            lambda: subprocess.run(["true"]),
        ]

    def refuse(self, text):
        raise UserError(text)

    def read(self, folder):
        self.readers[self.number]()


@pytest.fixture
def watch():
    return harness._Watch()


def test_the_fuzzer_notices(tmp_path, watch):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "number").write_text("1")
    made = Format(folder)
    outcomes = []
    for number in range(len(made.readers)):
        made.number = number
        outcomes.append(harness._outcome(made, watch, folder))
    assert outcomes[0] == ["read", ""] and outcomes[1] == ["refused", "a line"]
    assert [outcome[0] for outcome in outcomes[2:]] == ["finding"] * (len(outcomes) - 2)
    texts = ("ZeroDivisionError", "the message ''", "prints", "open", "os.rename", "Popen")
    for (_, what), text in zip(outcomes[2:], texts, strict=True):
        assert text in what
