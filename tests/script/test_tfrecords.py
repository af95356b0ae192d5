"""PG2's records: the golden ones, records written here, the data set, and damage of every kind."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data.augmentation import Augmentation
from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.tfrecord_dataset import TFRecordDataset
from data.tfrecord_schema import (
    array_feature,
    bytes_feature,
    read_person,
    read_size,
)
from script.convert_to_tfrecord.__main__ import main
from script.convert_to_tfrecord.record_file import RecordWriter, serialise_example
from script.convert_to_tfrecord.writer import write_records
from tests.support.helpers import PROJECT, assert_one_line_error, run_python
from tests.support.market_folder import Folder, annotation_row
from tests.support.tensorflow_files import RECORDS, golden_arrays, golden_json, golden_records
from util.errors import UserError
from util.tensorflow.protobuf import decode_varints, encode_varints, length_delimited, varint
from util.tensorflow.records import find_records, parse_example, read_record

GOLDEN = {"market": "market", "fashion": "df"}
# OpenPose's candidates of the golden records are made up; a table of key points has none.
NOT_IN_TABLES = {"pose_subs_0", "pose_subs_1"}


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The folder of the golden records, a folder for each data set in it."""
    return golden_records(tmp_path_factory.mktemp("records"))


def examples(path: Path) -> list[dict]:
    return [parse_example(read_record(place)) for place in find_records(path)]


def pose_map_of(features: dict, number: int) -> np.ndarray:
    """The sparse disc map of source (0) or target (1): [H, W, 18], 0 or 1."""
    positions = array_feature(features, f"indices_r4_{number}", "i")
    values = array_feature(features, f"values_r4_{number}", "f", len(positions))
    pose_map = np.zeros((*read_size(features), 18))
    pose_map.flat[positions] = values
    return pose_map


def message_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def image_of(encoded: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


def assert_same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(torch.nan_to_num(found[key], -1), torch.nan_to_num(value, -1)), key
        elif key.endswith("path"):
            assert Path(found[key]).name == Path(value).name


# --- the format ---


def test_varints_equal_the_slow_definition():
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**63), 2**63 - 1, 3000) >> rng.integers(0, 63, 3000)
    for part in (values, values[:1], values[:0], np.array([0, 1, 127]), np.array([-1, 128])):
        slow = b"".join(varint(int(value) % 2**64) for value in part)
        assert encode_varints(part) == slow
        assert np.array_equal(decode_varints(slow), part)
    assert encode_varints(np.array([True, False])) == b"\x01\x00"


@pytest.mark.parametrize("data", [b"\x80", b"\x01\x80", b"\x80" * 10 + b"\x01"])
def test_varints_that_do_not_end(data):
    with pytest.raises(ValueError, match="does not end"):
        decode_varints(data)


def test_examples_come_back_with_their_kinds(tmp_path):
    example = {
        "bytes": [b"", b"\xff\x00"],
        "floats": np.array([0.5, -np.inf], np.float32),
        "integers": np.array([3, -(2**40)]),
        "no integers": np.zeros(0, np.int64),
        "no floats": np.zeros(0, np.float32),
        "no bytes": [],
        "nothing": None,
    }
    with RecordWriter(tmp_path / "a.tfrecord") as writer:
        for features in (example, {}):
            writer.write(serialise_example(features))
    first, second = examples(tmp_path / "a.tfrecord")
    assert second == {}
    assert first.keys() == example.keys()
    for key, value in example.items():
        assert type(first[key]) is type(value)
        if isinstance(value, np.ndarray):
            assert first[key].dtype == value.dtype and np.array_equal(first[key], value)
        else:
            assert first[key] == value
    # The bytes do not depend on the order in which features were made.
    turned = dict(reversed(example.items()))
    assert serialise_example(turned) == serialise_example(example)
    only = parse_example(serialise_example(example), ["floats", "gone"])
    assert list(only) == ["floats"]


def test_numbers_that_are_not_packed():
    """Writers of protocol buffers before version 3 put every number into a field of its own."""
    integers = b"".join(b"\x08" + varint(value) for value in (5, 300))
    floats = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2))
    entries = [
        length_delimited(1, key) + length_delimited(2, length_delimited(kind, values))
        for key, kind, values in ((b"i", 3, integers), (b"f", 2, floats))
    ]
    features = b"".join(length_delimited(1, entry) for entry in entries)
    found = parse_example(length_delimited(1, features))
    assert found["i"].tolist() == [5, 300] and found["f"].tolist() == [1.5, -2]


@pytest.mark.parametrize(
    "payload",
    [
        b"garbage",
        b"\x0a\xff",
        b"\x08\x01",  # a number for the map
        length_delimited(1, length_delimited(1, length_delimited(2, b""))),  # no key
        length_delimited(1, length_delimited(1, length_delimited(1, b"\xff"))),  # not UTF-8
        length_delimited(
            1,
            length_delimited(
                1, length_delimited(1, b"a") + b"\x12\x07\x12\x05\x0a\x03abc"
            ),  # 3 bytes of floats
        ),
    ],
)
def test_what_is_no_example(payload):
    with pytest.raises(ValueError, match=r"is no tf\.train\.Example"):
        parse_example(payload)


# --- the golden records ---


@pytest.mark.parametrize("layout", ["market", "fashion"])
def test_golden_records_are_read(golden, layout):
    keys = golden_json(f"tfrecord/{GOLDEN[layout]}_feature_keys.json")
    expected = golden_arrays(f"tfrecord/{GOLDEN[layout]}_expected_sampled.npz")
    stride = int(expected["stride"])
    found = examples(golden / RECORDS[layout])
    assert len(found) == len(expected["label"])
    kinds = {list: "bytes", "f": "float", "i": "int64"}
    counts = {
        key: [kinds[list if isinstance(value, list) else value.dtype.kind], len(value)]
        for key, value in found[0].items()
    }
    empty = {key for key, (kind, _) in keys.items() if kind == "empty"}
    assert {key for key, (_, count) in counts.items() if count == 0} == empty
    assert {key: counts[key] for key in keys if key not in empty} == {
        key: value for key, value in keys.items() if key not in empty
    }
    for index, features in enumerate(found):
        assert array_feature(features, "label", "i", 1)[0] == expected["label"][index]
        height, width = read_size(features)
        for number in (0, 1):

            def wanted(name, index=index, number=number):
                return expected[f"{name}_{number}"][index]

            person = read_person(features, number)
            assert np.array_equal(image_of(person.image)[::stride, ::stride], wanted("image_PIL"))
            assert person.image_name == wanted("image_name")
            assert np.array_equal(pose_map_of(features, number), wanted("pose"))
            mask = array_feature(features, f"pose_mask_r4_{number}", "i", height * width)
            assert np.array_equal(mask.reshape(height, width), wanted("mask_r4"))
            for name in ("id", "cam"):
                assert array_feature(features, f"{name}_{number}", "i", 1)[0] == wanted(name)
            assert np.array_equal(features[f"pose_subs_{number}"], wanted("pose_subs"))
            assert np.array_equal(
                features[f"pose_peaks_{number}"], wanted("pose_peaks").astype(np.float32).ravel()
            )
            row, column, visible = wanted("pose_peaks_rcv").T
            assert np.array_equal(np.isfinite(person.pose).all(axis=1), visible == 1)
            assert np.array_equal(person.pose[visible == 1, 0], column[visible == 1])
            assert np.array_equal(person.pose[visible == 1, 1], row[visible == 1])


def market_like_the_golden(golden, root: Path) -> MarketDataset:
    """A market folder of the golden records' images and key points."""
    rows, pairs, names = [], [], set()
    (root / "test").mkdir(parents=True)
    for features in examples(golden / RECORDS["market"]):
        people = [read_person(features, number) for number in (0, 1)]
        pairs.append(",".join(person.image_name for person in people))
        for person in people:
            if person.image_name not in names:
                names.add(person.image_name)
                (root / "test" / person.image_name).write_bytes(person.image)
                # A fraction, which records cut off; it must not come to the next whole pixel.
                x, y = np.nan_to_num(person.pose + 0.75, nan=-1).T.tolist()
                rows.append(annotation_row(person.image_name, y, x))
    (root / "market-pairs-test.csv").write_text("\n".join(["from,to", *pairs]))
    header = "name:keypoints_y:keypoints_x"
    (root / "market-annotation-test.csv").write_text("\n".join([header, *rows]))
    return MarketDataset(root, "test")


def assert_features_equal(found: list[dict], expected: list[dict]):
    assert len(found) == len(expected)
    for mine, golden in zip(found, expected, strict=True):
        assert mine.keys() == golden.keys()
        for key in golden.keys() - NOT_IN_TABLES:
            assert type(mine[key]) is type(golden[key]), key
            if isinstance(golden[key], list):
                assert mine[key] == golden[key], key
            else:
                assert mine[key].dtype.kind == golden[key].dtype.kind, key
                assert np.array_equal(mine[key], golden[key]), key
        for key in NOT_IN_TABLES:
            assert mine[key].shape == golden[key].shape


def test_written_market_records_equal_the_golden_ones(golden, tmp_path):
    dataset = market_like_the_golden(golden, tmp_path / "market")
    written = write_records(dataset, "market", tmp_path / "out")
    assert [path.name for path in written.paths] == [Path(RECORDS["market"]).name]
    assert_features_equal(examples(written.paths[0]), examples(golden / RECORDS["market"]))


def test_written_fashion_records_equal_the_golden_ones(golden, tmp_path):
    (features,) = examples(golden / RECORDS["fashion"])
    rows = ["name:keypoints_y:keypoints_x"]
    (tmp_path / "test").mkdir()
    for number in (0, 1):
        person = read_person(features, number)
        (tmp_path / "test" / person.image_name).write_bytes(person.image)
        x, y = np.nan_to_num(person.pose, nan=-1).T.tolist()
        rows.append(annotation_row(person.image_name, y, x))
    (tmp_path / "fasion-annotation-test.csv").write_text("\n".join(rows))
    (tmp_path / "fasion-pairs-test.csv").write_text("from,to\nfashionA_s1.jpg,fashionA_s2.png")
    dataset = FashionDataset(tmp_path, "test", old_size=(256, 256))
    written = write_records(dataset, "fashion", tmp_path / "out")
    assert_features_equal(examples(written.paths[0]), [features])


def test_candidates_stand_for_the_key_points(golden, tmp_path):
    dataset = market_like_the_golden(golden, tmp_path / "market")
    features = examples(write_records(dataset, "market", tmp_path / "out").paths[0])[0]
    subset = features["pose_subs_1"]
    present = np.isfinite(read_person(features, 1).pose).all(axis=1)
    assert np.array_equal(subset[:18] >= 0, present)
    assert subset[:18][present].tolist() == [*range(12)] and subset[18:].tolist() == [12, 12]


# --- writing and reading back ---


@pytest.mark.parametrize("shards", [1, 4])
def test_a_market_folder_comes_back(tiny_market, tmp_path, shards):
    arguments = {"pose_encoding": "disc", "pose_mask": True}
    for phase in ("train", "test"):
        original = MarketDataset(tiny_market, phase, **arguments)
        main([
            "--dataset_mode=market", f"--dataroot={tiny_market}", f"--phase={phase}",
            f"--out={tmp_path}", f"--shards={shards}",
        ])  # fmt: skip
        records = TFRecordDataset(tmp_path, phase, **arguments)
        assert len(records) == len(original)
        assert records.notices == []
        for index in range(len(original)):
            expected = original[index]
            for key in ("flow", "visible"):  # of synthetic sets, not in records
                expected.pop(key, None)
            assert_same(records[index], expected)
    # Augmentation draws the same.
    augmentation = Augmentation(angle=5, shift=5, scale=(0.9, 1.1))
    original = MarketDataset(tiny_market, "train", augmentation=augmentation)
    records = TFRecordDataset(tmp_path, "train", augmentation=augmentation)
    assert_same(records[3, 1], original[3, 1])


def test_a_fashion_folder_of_other_sizes_comes_back(tmp_path):
    rng = np.random.default_rng(1)
    names = [f"fashionMENTees_Tanksid0000000101_{view}" for view in ("1front.png", "2side.jpg")]
    (tmp_path / "train").mkdir()
    for name in names:
        pixels = rng.integers(0, 256, (128, 88, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / name)
    rows = [annotation_row(name, y=[*range(60, 78)], x=[*range(30, 48)]) for name in names]
    header = "name:keypoints_y:keypoints_x"
    (tmp_path / "fasion-annotation-train.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "fasion-pairs-train.csv").write_text(f"from,to\n{','.join(names)}")
    original = FashionDataset(tmp_path, "train", pose_encoding="disc", pose_mask=True)
    write_records(original, "fashion", tmp_path / "out")
    records = TFRecordDataset(
        tmp_path / "out", "train", load_size=(256, 256), old_size=(256, 256),
        pose_encoding="disc", pose_mask=True,
    )  # fmt: skip
    found, expected = records[0], original[0]
    for key in ("P1", "P2", "BP1", "BP2"):
        assert torch.equal(found[key], expected[key]), key
    assert torch.equal(found["pose1"], torch.trunc(expected["pose1"]))
    features = examples(tmp_path / "out" / "DeepFashion_train_00000-of-00001.tfrecord")[0]
    assert image_of(bytes_feature(features, "image_raw_1")).shape == (256, 256, 3)
    assert features["id_0"] == features["id_1"] == [0] and features["cam_0"] == [-1]


def test_shards_hold_the_pairs_in_order_and_the_same_bytes_again(tiny_market, tmp_path):
    dataset = MarketDataset(tiny_market, "train")
    first = write_records(dataset, "market", tmp_path / "a", shards=5)
    assert [len(find_records(path)) for path in first.paths] == [2, 2, 3, 2, 3]
    again = write_records(dataset, "market", tmp_path / "b", shards=5)
    for one, other in zip(first.paths, again.paths, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    write_records(dataset, "market", tmp_path / "a", shards=5)  # in their place
    with pytest.raises(UserError, match="of an earlier conversion"):
        write_records(dataset, "market", tmp_path / "a", shards=4)
    ids = [features["id_0"].item() for path in first.paths for features in examples(path)]
    assert ids == [0] * 6 + [1] * 6


def test_a_replacement_that_is_cut_off_is_no_set(tiny_market, tmp_path, monkeypatch):
    dataset, replace, cuts = MarketDataset(tiny_market, "train"), os.replace, 0
    write_records(dataset, "market", tmp_path, shards=3)
    for renamed in range(3):

        def cut_off(source, target, renamed=renamed):
            nonlocal cuts
            if cuts == renamed:
                raise KeyboardInterrupt
            cuts += 1
            replace(source, target)

        cuts = 0
        monkeypatch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write_records(dataset, "market", tmp_path, shards=3)
        with pytest.raises(UserError, match="00000-of-00003"):
            TFRecordDataset(tmp_path, "train")
    monkeypatch.setattr(os, "replace", replace)
    write_records(dataset, "market", tmp_path, shards=3)
    assert len(TFRecordDataset(tmp_path, "train")) == len(dataset)


def test_images_of_other_forms_are_stored_as_png(tmp_path):
    folder = Folder(tmp_path / "market", count=4)
    forms = {"p0.png": "L", "p1.png": "RGBA", "p2.png": "P"}
    for name, mode in forms.items():
        Image.open(folder.images / name).convert(mode).save(folder.images / name)
    jpeg = folder.images / "p3.png"
    Image.open(jpeg).save(jpeg, "JPEG")  # the name does not tell the form
    dataset = folder.dataset()
    path = write_records(dataset, "market", tmp_path / "out").paths[0]
    records = TFRecordDataset(tmp_path / "out", "train")
    for index, features in enumerate(examples(path)):
        assert_same(records[index], dataset[index])
        stored = bytes_feature(features, "image_raw_0")
        assert Image.open(io.BytesIO(stored)).mode == "RGB"
    assert bytes_feature(features, "image_raw_1") == jpeg.read_bytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 6, 8])  # 0: none is stored
def test_images_are_stored_as_readers_without_exif_show_them(tmp_path, form, orientation):
    folder = Folder(tmp_path / "market", count=2)
    path, exif = folder.images / "p0.png", Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    size = (128, 64) if orientation in (6, 8) else (64, 128)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(
        path, form, exif=exif.tobytes()
    )
    (features,) = examples(write_records(folder.dataset(), "market", tmp_path / "out").paths[0])
    stored = bytes_feature(features, "image_raw_0")
    assert (stored == path.read_bytes()) == (orientation < 2)
    with Image.open(io.BytesIO(stored)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        upright = ImageOps.exif_transpose(Image.open(path))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))


def test_unreadable_images_stop_the_conversion_or_are_left_out(tmp_path, capsys):
    folder = Folder(tmp_path / "market")
    (folder.images / "p2.png").write_bytes(b"no image")
    command = ["--dataset_mode=market", f"--dataroot={folder.root}", f"--out={tmp_path / 'out'}"]
    assert "p2.png" in message_of(main, command)
    assert not (tmp_path / "out").exists()
    main([*command, "--skip_bad_samples"])
    printed = capsys.readouterr()
    assert "3 pairs in 1 files" in printed.out and "2 left out" in printed.out
    assert "p2.png" in printed.err
    assert len(TFRecordDataset(tmp_path / "out", "train")) == 3


def test_what_a_killed_conversion_left_is_told_and_stays(tmp_path, capsys):
    folder = Folder(tmp_path / "market")
    left = tmp_path / "out" / ".a.tfrecord.7-0.part"
    left.parent.mkdir()
    left.touch()
    command = ["--dataset_mode=market", f"--dataroot={folder.root}", f"--out={left.parent}"]
    assert main(command) == 0
    assert f"hidden files that a killed program left half written, such as {left.name}" in (
        capsys.readouterr().err
    )
    left.unlink()
    main(command)
    assert "hidden" not in capsys.readouterr().err


def test_bad_options_of_the_conversion(tmp_path):
    folder = Folder(tmp_path / "market")
    command = ["--dataset_mode=market", f"--dataroot={tmp_path / 'market'}"]
    assert "--shards 9" in message_of(main, [*command, f"--out={tmp_path / 'o'}", "--shards=9"])
    for path in folder.images.iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    told = message_of(main, [*command, f"--out={tmp_path / 'o'}"])
    assert "turn images that lie on their side" in told and "--load_size" not in told
    process = run_python(
        "-m", "script.convert_to_tfrecord", "--dataset_mode=tfrecord", "--out=a", folder=PROJECT
    )
    assert_one_line_error(process, "--dataset_mode")
