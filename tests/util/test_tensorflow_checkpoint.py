"""Reading TensorFlow checkpoints: the golden one, ones made here, and damage of every kind."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.tensorflow_files import (
    DATA,
    WHOLE,
    entry,
    golden_checkpoint,
    golden_json,
    noted,
    snappy,
    write_checkpoint,
    write_partitioned,
    write_table,
    write_v1,
)
from util.errors import UserError
from util.tensorflow.checkpoint import TensorFlowCheckpoint, Variable, open_checkpoint
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import read_fields, read_varint, varint
from util.tensorflow.snappy import decompress

NAME = "Pose_AE/G/Conv_1/weights"
OTHER = "UAEnoFC/G/Conv/biases"
VARIABLES = {
    "a/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/biases": np.array([1.5, -2], np.float32),
    "a/half": np.array([0.5], np.float16),
    "b": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return golden_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def golden(whole, tmp_path):
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copyfile(f"{whole}{suffix}", tmp_path / f"{whole.name}{suffix}")
    return tmp_path / whole.name


def error_of(prefix, name=NAME):
    with pytest.raises(UserError) as caught:
        TensorFlowCheckpoint(prefix).read(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flip(path: Path, position: int):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def check_values(checkpoint, names):
    expected = golden_json("ckpt/variables.json")["variables"]
    for name in names:
        value, wanted = checkpoint.read(name), expected[name]
        assert list(value.shape) == wanted["shape"] and str(value.dtype) == wanted["dtype"]
        assert np.array_equal(value.ravel()[:4], np.array(wanted["first"], value.dtype)), name
        exact = value.astype(np.float64)
        assert exact.sum() == pytest.approx(wanted["sum"], rel=1e-6, abs=1e-9), name
        assert np.sqrt((exact**2).sum()) == pytest.approx(wanted["l2"], rel=1e-6), name


def test_checksum_of_known_vectors():
    # CRC-32C of RFC 3720, B.4, and of "123456789"; masked by LevelDB's rule.
    for data, crc in (
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ):
        turned = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
        assert masked_crc32c(data) == (turned + 0xA282EAD8) % 2**32


def test_varints_of_the_format_s_own_examples():
    assert read_varint(b"\x96\x01", 0) == (150, 2)
    assert varint(150) == b"\x96\x01" and varint(0) == b"\0"
    for value in (127, 128, 2**32, 2**64 - 1):
        assert read_varint(b"x" + varint(value) + b"y", 1) == (value, 1 + len(varint(value)))
    for cut_off in (b"", b"\x80", b"\xff" * 11):
        with pytest.raises(ValueError, match="does not end"):
            read_varint(cut_off, 0)
    with pytest.raises(ValueError, match="longer than"):
        list(read_fields(b"\x12\x07testin"))


def test_golden_variables_are_listed(whole):
    expected = golden_json("ckpt/variables.json")["variables"]
    variables = TensorFlowCheckpoint(whole).variables
    assert len(expected) == 351
    assert variables == {
        name: Variable(tuple(value["shape"]), value["dtype"]) for name, value in expected.items()
    }
    assert list(variables) == sorted(variables)


def test_golden_values(whole):
    names = golden_json("ckpt/variables.json")["variables"]
    slots = ("Adam", "Adam_1", "lr", "power", "power_1", "power_2", "mean", "variance")
    kept = [name for name in names if not name.endswith(slots)]
    assert len(kept) == 113
    check_values(TensorFlowCheckpoint(whole), kept)


def test_golden_values_of_the_whole_checkpoint():
    if not WHOLE.with_name(DATA).exists():
        pytest.skip("needs ../shared/golden/pg2")
    checkpoint = TensorFlowCheckpoint(WHOLE)
    check_values(checkpoint, checkpoint.variables)


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_the_files_themselves_name_a_checkpoint(whole, ending):
    checkpoint = TensorFlowCheckpoint(f"{whole}{ending}")
    assert checkpoint.prefix == str(whole)
    assert len(checkpoint.variables) == 351


@pytest.mark.parametrize("shards", [1, 3])
def test_types_shapes_and_several_data_files(tmp_path, shards):
    prefix = write_checkpoint(tmp_path / "model.ckpt", VARIABLES, shards)
    checkpoint = TensorFlowCheckpoint(prefix)
    assert set(checkpoint.variables) == set(VARIABLES)
    for name, expected in VARIABLES.items():
        value = checkpoint.read(name)
        assert value.dtype == expected.dtype and value.shape == expected.shape
        assert np.array_equal(value, expected)


def test_any_damaged_byte_of_the_index_is_seen(golden):
    index = Path(f"{golden}.index")
    content = index.read_bytes()
    # What no check covers: the rest of the two handles in the footer, which is filled with zeros.
    footer = content[-48:]
    filling = range(len(content) - 48 + len(footer[:40].rstrip(b"\0")), len(content) - 8)
    # The handle of the block of meta data, which is not read.
    meta = read_varint(footer, read_varint(footer, 0)[1])[1]
    unused = {*filling, *range(len(content) - 48, len(content) - 48 + meta)}
    positions = [*range(0, len(content) - 60, 53), *range(len(content) - 48, len(content))]
    for position in positions:
        if position in unused or is_meta_block(content, position):
            continue
        index.write_bytes(content)
        flip(index, position)
        message = error_of(golden)
        assert str(index) in message and "copy it again" in message, position


def is_meta_block(content: bytes, position: int) -> bool:
    offset, after = read_varint(content[-48:], 0)
    size, _ = read_varint(content[-48:], after)
    return offset <= position < offset + size + 5


def test_damaged_data_are_seen_where_they_are(golden):
    data = Path(f"{golden}.data-00000-of-00001")
    checkpoint = TensorFlowCheckpoint(golden)
    where = data.read_bytes().find(checkpoint.read(NAME).tobytes())
    size = checkpoint.read(NAME).nbytes
    for position in (where, where + size // 2, where + size - 1):
        flip(data, position)
        message = error_of(golden)
        assert str(data) in message and NAME in message and "checksum" in message
        assert f"from byte {where}" in message
        checkpoint.read(OTHER)
        flip(data, position)
    checkpoint.read(NAME)


@pytest.mark.parametrize("length", [0, 1, 47, 48, 5000, -1, -48])
def test_cut_off_index(golden, length):
    index = Path(f"{golden}.index")
    index.write_bytes(index.read_bytes()[:length])
    message = error_of(golden)
    assert str(index) in message and "cut off" in message


@pytest.mark.parametrize("missing", [1, 100_000])
def test_cut_off_data(golden, missing):
    data = Path(f"{golden}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-missing])
    message = error_of(golden)  # even for a variable that is all there
    assert str(data) in message and "cut off" in message and str(data.stat().st_size) in message


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_missing_files(golden, suffix):
    Path(f"{golden}{suffix}").unlink()
    assert f"{golden}{suffix}" in error_of(golden)


def test_a_missing_data_file_of_several(tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", VARIABLES, shards=3)
    path = tmp_path / "model.ckpt.data-00001-of-00003"
    path.unlink()
    assert str(path) in error_of(prefix)


def test_missing_variable(golden):
    message = error_of(golden, "Pose_AE/G/Conv_99/weights")
    assert "no variable 'Pose_AE/G/Conv_99/weights'" in message and "351 others" in message


@pytest.mark.parametrize(("compression", "kind"), [(2, "Zstandard"), (9, "kind 9")])
def test_compressed_index(tmp_path, compression, kind):
    prefix = write_checkpoint(tmp_path / "model.ckpt", VARIABLES)
    write_table(tmp_path / "model.ckpt.index", {"": b"\x08\x01"}, compression)
    message = error_of(prefix)
    assert "is compressed" in message and kind in message and f"{prefix}.index" in message


@pytest.mark.parametrize("content", [b"", b"text\n" * 40, bytes(4096)])
def test_other_files_are_no_checkpoints(tmp_path, content):
    (tmp_path / "other.index").write_bytes(content)
    assert "is no file of a TensorFlow checkpoint" in error_of(tmp_path / "other")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"a": b"\x08\x01"}, "no header"),
        ({"": b"\x08\x01\x10\x01"}, "big-endian"),
        ({"": b"\x08\x01", "a": b"\xff"}, "does not end"),
        ({"": b"\x08\x01", "a": b"\x10\x01"}, "bytes-like"),
        ({"": b"\x08\x01", "a": b"\x32\x01x"}, "4 bytes"),
    ],
)
def test_tables_of_something_else(tmp_path, records, reason):
    write_table(tmp_path / "other.index", records)
    message = error_of(tmp_path / "other")
    assert "is no index of a TensorFlow checkpoint" in message and reason in message


def test_values_that_are_not_read(tmp_path):
    array = np.arange(4, dtype=np.float32)
    records = {
        "": b"\x08\x01",
        "sliced": entry(array, 0) + b"\x3a\x00",
        "text": entry(array, 16, kind="string"),
        "too large": entry(array.view(np.float16), 32, kind="float32"),
    }
    write_table(tmp_path / "model.index", records)
    (tmp_path / "model.data-00000-of-00001").write_bytes(array.tobytes() * 3)
    checkpoint = TensorFlowCheckpoint(tmp_path / "model")
    assert checkpoint.variables["text"] == Variable((4,), "string")
    for name, reason in (
        ("sliced", "a slice of 'sliced' is not in it"),
        ("text", "as string"),
        ("too large", "does not fit its 16 bytes"),
    ):
        assert reason in error_of(tmp_path / "model", name)


# Older and other forms.

NUMBERS = {
    **VARIABLES,
    "a/weights": np.linspace(-2, 2, 15, dtype=np.float32).reshape(3, 5),
    "count": np.array([-1, 2**31 - 1], np.int32),
    "flag": np.array([True, False]),
    "long": np.array([-5, 2**40], np.int64),
    "double": np.array([0.1, -1e300]),
    "a/half": np.array([0.5, -2], np.float16),
}


def assert_holds(checkpoint, variables):
    assert checkpoint.variables.keys() == variables.keys()
    for name, expected in variables.items():
        value = checkpoint.read(name)
        assert value.dtype == expected.dtype and value.shape == expected.shape, name
        assert np.array_equal(value, expected), name


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shards", [0, 2])
def test_the_form_before_tensorflow_1(tmp_path, packed, shards):
    prefix = write_v1(tmp_path / "model.ckpt-7", NUMBERS, shards, packed)
    assert_holds(open_checkpoint(prefix), NUMBERS)
    if shards:
        (tmp_path / "model.ckpt-7-00001-of-00002").unlink()
        with pytest.raises(UserError, match="1 files of 2 are there; copy all"):
            open_checkpoint(prefix)


def test_damage_of_the_older_form(tmp_path):
    path = write_v1(tmp_path / "model.ckpt-7", NUMBERS)
    content = path.read_bytes()
    for position in range(0, len(content) - 48, 7):
        if is_meta_block(content, position):
            continue
        flip(path, position)
        with pytest.raises(UserError) as caught:
            checkpoint = open_checkpoint(path)
            for name in NUMBERS:
                checkpoint.read(name)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(content)
    write_v1(path, {"a": np.ones((2, 3), np.float32)}, lacking=1)
    with pytest.raises(UserError, match="a slice of 'a' is not in it"):
        open_checkpoint(path).read("a")


@pytest.mark.parametrize("form", ["V1", "V2"])
def test_partitioned_variables(tmp_path, form):
    array = np.arange(200 * 6, dtype=np.float32).reshape(200, 6)
    cuts = [((0, 64), None), ((64, 136), (0, 2)), ((64, 136), (2, 4))]
    prefix = tmp_path / "model.ckpt"
    if form == "V1":
        write_v1(prefix, {"w": array, "b": array[0]}, cuts={"w": cuts})
    else:
        write_partitioned(prefix, {"b": array[0]}, "w", array, cuts)
    assert_holds(open_checkpoint(prefix), {"w": array, "b": array[0]})


def test_a_compressed_index_is_read(tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", VARIABLES, compress=snappy)
    assert_holds(open_checkpoint(prefix), VARIABLES)


def test_snappy():
    for text in (b"", b"a", b"abcd" * 900, bytes(range(256)) * 300, b"x" * 70_000):
        assert decompress(snappy(text), len(text)) == text
    # The copies that it has no use for: from two and four bytes of distance, over what they write.
    assert decompress(b"\x09\x00a\x1e\x01\x00", 9) == b"a" * 9
    assert decompress(b"\x09\x00a\x1f\x01\x00\x00\x00", 9) == b"a" * 9
    for damaged in (b"\x09\x00a", b"\x09\x00a\x1e\x02\x00", b"\x09\x00a\x1e\x00\x00", b""):
        with pytest.raises(ValueError, match=r"compressed data|does not end"):
            decompress(damaged, 1 << 20)


@pytest.mark.parametrize("note", ["model.ckpt-7", "/of/another/machine/model.ckpt-7",
                                  "C:\\\\runs\\\\model.ckpt-7", None])  # fmt: skip
@pytest.mark.parametrize("write", [write_checkpoint, write_v1])
def test_a_folder_or_its_note_names_a_checkpoint(tmp_path, note, write):
    write(tmp_path / "model.ckpt-7", VARIABLES)
    if note:
        write(tmp_path / "model.ckpt-8", {"newer": np.ones(1, np.float32)})
        noted(tmp_path, note)
        assert_holds(open_checkpoint(tmp_path / "checkpoint"), VARIABLES)
    assert_holds(open_checkpoint(tmp_path), VARIABLES)


def test_a_saved_model_s_folder(tmp_path):
    (tmp_path / "variables").mkdir()
    write_checkpoint(tmp_path / "variables" / "variables", VARIABLES)
    assert_holds(open_checkpoint(tmp_path), VARIABLES)


def test_what_names_no_checkpoint_is_told_what_is_there(tmp_path):
    def message(path):
        with pytest.raises(UserError) as caught:
            open_checkpoint(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no TensorFlow checkpoint in it" in message(tmp_path)
    noted(tmp_path, "gone")
    assert "names gone, which is not in its folder" in message(tmp_path)
    write_checkpoint(tmp_path / "model.ckpt-7", {"a": np.ones(99)})
    write_v1(tmp_path / "model.ckpt-8", VARIABLES, 2)
    assert "model.ckpt-7" in message(tmp_path) and "model.ckpt-8" in message(tmp_path)
    assert f"the folder has {tmp_path / 'model.ckpt-7'}" in message(tmp_path / "model.ckpt")
    (tmp_path / "checkpoint").write_text("\0")
    assert "names no checkpoint" in message(tmp_path) and "give one of" in message(tmp_path)
    (tmp_path / "checkpoint").unlink()
    assert "choose one of" in message(tmp_path)
    (tmp_path / "model.ckpt-7.data-00000-of-00001").unlink()
    told = message(tmp_path / "model.ckpt-7")
    assert "is not there; copy it from where model.ckpt-7.index is from" in told
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    (tmp_path / "model.ckpt-7.data-00000-of-00001").write_bytes(pointer)
    assert "git lfs pull" in message(tmp_path / "model.ckpt-7")
    (tmp_path / "model.ckpt-7.index").write_bytes(pointer)
    assert "git lfs pull" in message(tmp_path / "model.ckpt-7")
    (tmp_path / "other").write_bytes(b"<html>")
    assert "a web page" in message(tmp_path / "other")
