"""The data set of PG2's records (--dataset_mode=tfrecord), and records damaged in every way."""

import io
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import dataset_names
from data.tfrecord_dataset import TFRecordDataset
from models.results import ResultWriter
from options.base_options import parse_test_options, parse_train_options
from script import resize_dataset
from script.convert_to_tfrecord.record_file import RecordWriter, serialise_example
from script.convert_to_tfrecord.schema import SCHEMAS
from tests.support.helpers import inference_options, run_here
from tests.support.tensorflow_files import RECORDS, golden_arrays, golden_records
from util import images
from util.errors import UserError
from util.images import read_image, to_uint8
from util.tensorflow.records import RecordPlace, find_records, parse_example, read_record

GOLDEN = {"market": "market", "fashion": "df"}


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The folder of the golden records, a folder for each data set in it."""
    return golden_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def market_records(golden, tmp_path):
    """A copy of the golden market file, to be spoilt."""
    shutil.copytree(golden / "Market1501", tmp_path / "records")
    return tmp_path / "records" / Path(RECORDS["market"]).name


def message_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", ["market", "fashion"])
def test_items_of_the_golden_records(golden, layout):
    """Discs and mask are drawn from the key points, and are what the records hold."""
    expected = golden_arrays(f"tfrecord/{GOLDEN[layout]}_expected_sampled.npz")
    stride = int(expected["stride"])
    folder = (golden / RECORDS[layout]).parent
    size = SCHEMAS[layout].size
    dataset = TFRecordDataset(
        folder, "test", load_size=size, old_size=size, pose_encoding="disc", pose_mask=True
    )
    gaussians = TFRecordDataset(folder, "test", load_size=size, old_size=size)
    assert len(dataset) == len(expected["label"])
    for index in range(len(dataset)):
        item = dataset[index]
        for number in (0, 1):
            maps = 2 * expected[f"pose_{number}"][index].astype(np.float32) - 1
            assert np.array_equal(item[f"BP{number + 1}"].permute(1, 2, 0).numpy(), maps)
            image = to_uint8(item[f"P{number + 1}"])[::stride, ::stride]
            assert np.array_equal(image, expected[f"image_PIL_{number}"][index])
            path = item[f"P{number + 1}_path"]
            assert Path(path).name == expected[f"image_name_{number}"][index]
        assert np.array_equal(item["mask2"][0].numpy(), expected["mask_r4_1"][index])
        assert dataset.pair_paths(index) == (item["P1_path"], item["P2_path"])
        assert gaussians[index]["BP1"].min() >= 0
        assert torch.equal(gaussians[index]["P1"], item["P1"])


def test_the_size_of_the_images_is_the_records(golden):
    assert "tfrecord" in dataset_names()
    for layout, size in (("market", (128, 64)), ("fashion", (256, 256))):
        folder = (golden / RECORDS[layout]).parent
        given = Namespace(dataroot=str(folder), phase="test")
        defaults = TFRecordDataset.option_defaults(given, is_train=False)
        assert defaults == {"load_size": size, "old_size": size}
        arguments = [
            "--model=pg2", "--dataset_mode=tfrecord", f"--dataroot={folder}", "--gpu_id=-1",
        ]  # fmt: skip
        options = parse_test_options(arguments)
        assert (options.load_size, options.layout) == (size, layout)
        assert len(TFRecordDataset.from_options(options)) > 0
        options = parse_train_options([*arguments, "--phase=test"])
        assert options.batchSize == {"market": 16, "fashion": 1}[layout]
        # GFLA's published settings follow that size, too.
        options = parse_train_options(["--model=pose", *arguments[1:], "--phase=test"])
        found = options.attn_layer, options.dis_layers, options.angle
        assert found == {"market": ([2], 3, 5), "fashion": ([2, 3], 4, 0)}[layout]
    assert TFRecordDataset.option_defaults(Namespace(dataroot="gone", phase="test"), False) == {}


def test_records_are_resized_when_asked_to(golden):
    folder = (golden / RECORDS["market"]).parent
    item = TFRecordDataset(folder, "test", load_size=(64, 32))[0]
    whole = TFRecordDataset(folder, "test")[0]
    assert item["P1"].shape == (3, 64, 32)
    assert torch.equal(torch.nan_to_num(item["pose1"]), torch.nan_to_num(whole["pose1"] / 2))


def test_key_points_of_another_frame_are_refused(golden):
    folder = (golden / RECORDS["market"]).parent
    message = message_of(lambda: TFRecordDataset(folder, "test", old_size=(256, 176)))
    assert "--old_size" in message and "128,64" in message
    message = message_of(lambda: TFRecordDataset(folder, "test", keypoint_count=16))
    assert "--structure_nc 16" in message


def with_points(path: Path, change) -> None:
    """Write the file anew with all [K, 3] of row, column, visible changed."""
    payloads = [read_record(place) for place in find_records(path)]
    with RecordWriter(path) as writer:
        for payload in payloads:
            features = parse_example(payload)
            for key in ("pose_peaks_0_rcv", "pose_peaks_1_rcv"):
                points = change(features[key].reshape(-1, 3).copy())
                features[key] = points.ravel().astype(np.float32)
            writer.write(serialise_example(features))


WRONG_POINTS = {
    "shares": (lambda points: points / (128, 64, 1), "lie in [0, 1]"),
    "swapped": (lambda points: points[:, [1, 0, 2]], "row and column swapped"),
    "larger frame": (lambda points: points * (2, 4, 1), "outside the stored images of 128×64"),
    "off to the left": (lambda points: points - (0, 40, 0), "from x = -40"),
}


@pytest.mark.parametrize("kind", WRONG_POINTS)
def test_key_points_that_are_not_in_pixels(market_records, kind):
    change, text = WRONG_POINTS[kind]
    with_points(market_records, change)
    message = message_of(lambda: TFRecordDataset(market_records.parent, "test"))
    assert f"{market_records}, record 1" in message and text in message
    assert "script.convert_to_tfrecord" in message and "--trust_keypoints" in message
    assert len(TFRecordDataset(market_records.parent, "test", trust_keypoints=True)) == 4
    arguments = ["--dataset_mode=tfrecord", f"--dataroot={market_records.parent}", "--phases=test"]
    assert resize_dataset.main(arguments) == 0  # looks at no key point


def test_key_points_of_a_smaller_frame_are_told(market_records):
    with_points(market_records, lambda points: points // (2, 2, 1))
    (notice,) = TFRecordDataset(market_records.parent, "test").notices
    assert (
        f"{market_records}, record 1" in notice
        and "of 8 looked at: are they in their pixels?" in notice
    )


def test_lost_joints_of_records_at_zero(market_records):
    """They are there by the third number, and would be drawn in the corner."""
    folder = market_records.parent
    before = TFRecordDataset(folder, "test")
    lost = [4, 7, 10]
    expected = before[1]["pose2"].clone()
    expected[lost] = np.nan

    def lose(points):
        points[lost] = (0, 0, 1)
        return points

    with_points(market_records, lose)
    message = message_of(lambda: TFRecordDataset(folder, "test", trust_keypoints=True))
    assert "24 of " in message and "--missing 0" in message and "--missing=-1" in message
    found = TFRecordDataset(folder, "test", missing=0)[1]["pose2"]
    assert torch.equal(torch.nan_to_num(found, -1), torch.nan_to_num(expected, -1))
    assert (TFRecordDataset(folder, "test", missing=-1)[1]["pose2"][lost] == 0).all()


@pytest.mark.parametrize("layout", ["market", "fashion"])
def test_nothing_is_said_of_the_golden_key_points(golden, layout):
    size = SCHEMAS[layout].size
    folder = (golden / RECORDS[layout]).parent
    assert TFRecordDataset(folder, "test", load_size=size, old_size=size).notices == []
    if size[0] != size[1]:
        message = message_of(lambda: TFRecordDataset(folder, "test", load_size=size[::-1]))
        assert "--load_size 128,64" in message


def test_the_first_so_many_pairs(golden):
    folder = (golden / RECORDS["market"]).parent
    assert len(TFRecordDataset(folder, "test", max_dataset_size=3)) == 3


def test_files_that_are_missing(golden, tmp_path):
    message = message_of(lambda: TFRecordDataset(golden / "Market1501", "train"))
    assert "phase 'train'" in message and "Market1501_test_00000-of-00001.tfrecord" in message
    assert "--dataroot" in message_of(lambda: TFRecordDataset(tmp_path / "gone", "test"))
    path = golden / RECORDS["market"]
    for name in ("A_test_00000-of-00003.tfrecord", "A_test_00002-of-00003.tfrecord"):
        shutil.copyfile(path, tmp_path / name)
    message = message_of(lambda: TFRecordDataset(tmp_path, "test"))
    assert "A_test_00001-of-00003.tfrecord" in message and "2 of 3" in message
    shutil.copyfile(path, tmp_path / "A_test_00001-of-00003.tfrecord")
    assert len(TFRecordDataset(tmp_path, "test")) == 12
    shutil.copyfile(path, tmp_path / "B_test_00000-of-00001.tfrecord")
    assert "several data sets" in message_of(lambda: TFRecordDataset(tmp_path, "test"))


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_file_is_no_file_without_records(golden, tmp_path, empty):
    """Half of the set would be used without a word."""
    paths = [tmp_path / f"A_test_0000{k}-of-00002.tfrecord" for k in (0, 1)]
    shutil.copyfile(golden / RECORDS["market"], paths[1 - empty])
    paths[empty].write_bytes(b"")
    message = message_of(lambda: TFRecordDataset(tmp_path, "test"))
    assert f"{paths[empty]}: is empty (0 bytes)" in message and "--skip_bad_samples" in message
    arguments = ["--dataset_mode=tfrecord", f"--dataroot={tmp_path}", "--phases=test"]
    told = message_of(lambda: resize_dataset.main(arguments))
    assert f"{paths[empty]}: is empty (0 bytes)" in told and "--skip_bad_samples" not in told
    assert {*tmp_path.iterdir()} == {*paths}
    dataset = TFRecordDataset(tmp_path, "test", skip_bad_samples=True)
    assert len(dataset) == 4
    assert "left out" in dataset.notices[0]
    paths[1 - empty].write_bytes(b"")
    message = message_of(lambda: TFRecordDataset(tmp_path, "test", skip_bad_samples=True))
    assert "holds no records" in message


def test_images_of_two_sizes(golden, market_records):
    path = market_records.parent / "Market1501_test_00001-of-00002.tfrecord"
    shutil.copyfile(golden / RECORDS["fashion"], path)
    market_records.rename(path.with_name("Market1501_test_00000-of-00002.tfrecord"))
    dataset = TFRecordDataset(path.parent, "test")
    dataset[3]
    message = message_of(lambda: dataset[4])
    assert f"{path}, record 1 at byte 0" in message and "256×256" in message


def spoil(path: Path, position: int):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x08
    path.write_bytes(content)


@pytest.mark.parametrize("position", [*range(12)])
def test_damage_to_a_length_or_its_checksum(market_records, position):
    second = find_records(market_records)[1]
    spoil(market_records, second.offset + position)
    message = message_of(lambda: TFRecordDataset(market_records.parent, "test"))
    assert f"{market_records}, record 2 at byte {second.offset}" in message
    assert "checksum of its length" in message


@pytest.mark.parametrize("where", ["first", "middle", "last", "checksum"])
def test_damage_to_a_payload_or_its_checksum(market_records, where):
    second = find_records(market_records)[1]
    start, size = second.offset + 12, second.size
    position = {"first": 0, "middle": size // 2, "last": size - 1, "checksum": size + 2}[where]
    dataset = TFRecordDataset(market_records.parent, "test")
    spoil(market_records, start + position)
    dataset[0], dataset[2]
    message = message_of(lambda: dataset[1])
    assert f"{market_records}, record 2 at byte {second.offset}" in message
    assert "checksum" in message and "copy the file again" in message


@pytest.mark.parametrize("kept", [5, 12, 500, -1, -20])
def test_a_file_that_is_cut_off(market_records, kept):
    last = find_records(market_records)[-1]
    content = market_records.read_bytes()
    end = last.offset + kept if kept > 0 else len(content) + kept
    market_records.write_bytes(content[:end])
    message = message_of(lambda: TFRecordDataset(market_records.parent, "test"))
    assert f"{market_records}, record 4 at byte {last.offset}" in message
    assert f"the file ends within it, at byte {end}" in message


def test_a_file_that_holds_no_records(market_records):
    market_records.write_bytes(b"no records at all, but long enough")
    message = message_of(lambda: TFRecordDataset(market_records.parent, "test"))
    assert "record 1 at byte 0" in message and "no TFRecord file" in message


def rewrite(path: Path, change) -> RecordPlace:
    """Write the file anew with its second record changed; give that record's place."""
    payloads = [read_record(place) for place in find_records(path)]
    payloads[1] = change(payloads[1])
    with RecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
    return find_records(path)[1]


GONE = object()


def with_features(**changes):
    def change(payload):
        features = parse_example(payload) | changes
        return serialise_example(
            {key: value for key, value in features.items() if value is not GONE}
        )

    return change


BAD_CONTENT = {
    "garbage": (lambda payload: b"\xffgarbage", "is no tf.train.Example"),
    "cut off": (lambda payload: payload[:-30], "is no tf.train.Example"),
    "empty": (lambda payload: b"", "has no pose_peaks_0_rcv"),
    "no image": (with_features(image_raw_1=GONE), "has no image_raw_1"),
    "no points": (with_features(pose_peaks_0_rcv=GONE), "has no pose_peaks_0_rcv"),
    "few points": (
        with_features(pose_peaks_1_rcv=np.zeros(51, np.float32)),
        "pose_peaks_1_rcv has 51 values, 54 are needed",
    ),
    "integer points": (
        with_features(pose_peaks_1_rcv=np.zeros(54, np.int64)),
        "pose_peaks_1_rcv holds no floats",
    ),
    "two images": (with_features(image_raw_0=[b"a", b"b"]), "image_raw_0 is not one string"),
    "broken image": (with_features(image_raw_0=[b"no image"]), "image_raw_0 cannot be read"),
}


@pytest.mark.parametrize("kind", BAD_CONTENT)
def test_records_of_bad_content(market_records, kind, capsys):
    change, reason = BAD_CONTENT[kind]
    place = rewrite(market_records, change)
    folder = market_records.parent
    dataset = TFRecordDataset(folder, "test")
    dataset[0], dataset[2]
    message = message_of(lambda: dataset[1])
    assert f"{market_records}, record 2 at byte {place.offset}" in message
    assert reason in message and "--skip_bad_samples" in message

    dataset = TFRecordDataset(folder, "test", skip_bad_samples=True)
    assert dataset[1] is None
    assert dataset[0, 1]["P1_path"] == dataset[2]["P1_path"]
    assert dataset.skipped_reads == 2
    told = capsys.readouterr().err
    assert reason in told and "--skip_bad_samples" not in told
    assert len({dataset.pair_paths(index) for index in range(4)}) == 4


def test_a_first_record_of_bad_content(market_records):
    payloads = [read_record(place) for place in find_records(market_records)]
    with RecordWriter(market_records) as writer:
        for payload in (b"\xffgarbage", *payloads):
            writer.write(payload)
    folder = market_records.parent
    message = message_of(lambda: TFRecordDataset(folder, "test"))
    assert "record 1 at byte 0" in message and "is no tf.train.Example" in message
    assert TFRecordDataset(folder, "test", skip_bad_samples=True)[1] is not None


@pytest.mark.parametrize(("layout", "name"), [("market", "test_12864"), ("fashion", "test_256")])
def test_ground_truth_is_made_of_records(golden, tmp_path, layout, name):
    """To the bit the image that the data set gives as P2, whichever records it is in."""
    folder = tmp_path / "records"
    shutil.copytree((golden / RECORDS[layout]).parent, folder)
    arguments = ["--dataset_mode=tfrecord", f"--dataroot={folder}", "--phases=test"]
    assert resize_dataset.main(arguments) == 0
    size = {"market": (128, 64), "fashion": (256, 256)}[layout]
    dataset = TFRecordDataset(folder, "test", load_size=size, old_size=size)
    named = set()
    for item in (dataset[index] for index in range(len(dataset))):
        for number in (1, 2):
            stem = Path(item[f"P{number}_path"]).stem
            named.add(f"{stem}.png")
            saved = np.asarray(read_image(folder / name / f"{stem}.png"))
            assert np.array_equal(saved, to_uint8(item[f"P{number}"]))
    assert {path.name for path in (folder / name).iterdir()} == named
    assert resize_dataset.main([*arguments, "--size=32,16", "--format=jpg"]) == 0
    assert len(list((folder / "test_3216").glob("*.jpg"))) == len(named)


def test_ground_truth_of_spoilt_records(market_records, capsys):
    payloads = [read_record(place) for place in find_records(market_records)]
    arguments = ["--dataset_mode=tfrecord", f"--dataroot={market_records.parent}", "--phases=test"]
    with RecordWriter(market_records) as writer:
        for payload in (b"\xffgarbage", *payloads):
            writer.write(payload)
    assert resize_dataset.main(arguments) == 1
    output, errors = capsys.readouterr()
    assert "1 unreadable" in output and "record 1 at byte 0" in errors
    assert "--skip_bad_samples" not in errors  # which this program has not
    assert "test_12864: " in output
    assert "train" in message_of(lambda: resize_dataset.main(arguments[:2]))


def test_different_images_of_one_name(market_records, tmp_path, capsys):
    """Which of them is the ground truth, or the source of a result, cannot be told."""
    payloads = [parse_example(read_record(place)) for place in find_records(market_records)]
    first, second = payloads[:2]
    for key in ("image_name_0", "image_name_1"):
        second[key] = first[key]
    with RecordWriter(market_records) as writer:
        writer.write(serialise_example(first))
        writer.write(serialise_example(first))  # the same pair again does no harm
    root = market_records.parent
    arguments = ["--dataset_mode=tfrecord", f"--dataroot={root}", "--phases=test"]
    assert resize_dataset.main(arguments) == 0
    shutil.rmtree(root / "test_12864")
    with RecordWriter(market_records) as writer:
        for features in (first, second):
            writer.write(serialise_example(features))
    name = first["image_name_0"][0].decode()
    message = message_of(lambda: resize_dataset.main(arguments))
    assert f"{market_records}: holds different images of the name " in message
    assert not (root / "test_12864").exists()
    dataset = TFRecordDataset(root, "test")
    paths = [dataset.pair_paths(k) for k in (0, 1)]
    inputs = [dataset.input_digest(k) for k in (0, 1)]
    options = inference_options(f"--dataroot={root}", f"--results_dir={tmp_path / 'out'}")
    message = message_of(lambda: ResultWriter(options, "", paths, inputs, root))
    assert f"{root}: holds different pairs" in message and Path(name).stem in message


def test_an_image_in_a_record_that_is_turned(market_records, monkeypatch, capsys):
    """A message names the record, as the image has no file of its own."""
    monkeypatch.setattr(images, "_turned_told", bytearray(1))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (128, 64), (9, 9, 9)).save(stream, "PNG", exif=exif)
    place = rewrite(market_records, with_features(image_raw_0=[stream.getvalue()]))
    ((_, image, _), _) = TFRecordDataset(market_records.parent, "test").read_people(1)
    assert image.size == (64, 128)
    assert capsys.readouterr().err.startswith(f"{place}, image_raw_0: turned upright")


def test_programs_on_records(golden, tmp_path):
    shared = [
        "--name=run", "--model=pg2", "--dataset_mode=tfrecord", "--gpu_id=-1", "--nThreads=0",
        f"--dataroot={golden / 'Market1501'}", f"--checkpoints_dir={tmp_path}",
        "--conv_hidden_num=2", "--z_num=4",
    ]  # fmt: skip
    process = run_here(
        "train.py", *shared, "--phase=test", "--niter=2", "--stage1_steps=1", "--batchSize=2",
        "--ndf=2", "--display_id=0", "--eval_iters_freq=2", "--print_freq=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "training pg2 on 4 pairs" in process.stdout
    process = run_here("test.py", *shared, f"--results_dir={tmp_path / 'out'}")
    assert process.returncode == 0, process.stderr
    found = sorted(path.name for path in (tmp_path / "out").glob("*_vis.jpg"))
    assert len(found) == 4
    assert found[0] == "0002_c1s1_000451_03_2_0002_c2s1_000301_01_vis.jpg"
