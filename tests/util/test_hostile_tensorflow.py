"""TensorFlow's files from strangers: refused in one line, without memory or minutes."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from script.import_pg2_checkpoint import convert_checkpoint
from tests.support import tensorflow_files
from tests.support.tensorflow_files import (
    block,
    entry,
    golden_checkpoint,
    noted,
    sealed_table,
    write_checkpoint,
    write_table,
    write_v1,
)
from util.errors import UserError
from util.tensorflow.checkpoint import open_checkpoint
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.leveldb_table import read_table
from util.tensorflow.protobuf import length_delimited, varint
from util.tensorflow.snappy import decompress

ONE = {"a": np.ones(3, np.float32)}


def message_of(action, *arguments):
    with pytest.raises(UserError) as caught:
        action(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_blocks_that_are_named_a_thousand_times(tmp_path):
    part = block([(b"", b"\x08\x01")])
    handle = varint(0) + varint(len(part) - 5)
    path = tmp_path / "model.index"
    path.write_bytes(sealed_table([part], [(b"%05d" % number, handle) for number in range(1000)]))
    assert "begins within another" in message_of(read_table, path)


def test_names_that_grow_from_shared_beginnings(tmp_path):
    content = varint(0) + varint(2000) + varint(0) + b"k" * 2000
    content += (varint(2000) + varint(1) + varint(0) + b"x") * 5000 + struct.pack("<II", 0, 1)
    part = content + b"\0" + struct.pack("<I", masked_crc32c(content + b"\0"))
    path = tmp_path / "model.index"
    path.write_bytes(sealed_table([part], [(b"z", varint(0) + varint(len(part) - 5))]))
    assert "names have more than 8,388,608 bytes" in message_of(read_table, path)


def test_an_index_that_is_too_large(tmp_path):
    write_table(tmp_path / "model.index", {"": b"\x08\x01", "a": b"\x08\x01" * 600_000})
    assert "1,048,576 is the most" in message_of(open_checkpoint, tmp_path / "model")


def test_a_message_of_tiny_fields(tmp_path):
    write_table(tmp_path / "model.index", {"": b"\x08\x01", "a": b"\x08\x01" * 300_000})
    assert "262,144 fields" in message_of(open_checkpoint, tmp_path / "model")


def test_many_messages_of_tiny_fields(tmp_path):
    """Each is small; a file of the first form may have any number of them."""
    saved = length_delimited(2, b"\x08\x01" * 3000)
    write_v1(tmp_path / "model", ONE)
    records = read_table(tmp_path / "model")
    write_table(tmp_path / "model", {**records, **{b"\0%03d" % k: saved for k in range(100)}})
    assert "262,144 fields" in message_of(open_checkpoint, tmp_path / "model")


def test_a_shape_of_many_dimensions(tmp_path):
    """The product of their sizes has a million digits."""
    write_table(tmp_path / "model.index", {"": b"\x08\x01", "a": shaped(*[1 << 62] * 33)})
    assert "33 dimensions" in message_of(open_checkpoint, tmp_path / "model")


def test_a_text_in_place_of_a_number(tmp_path):
    array = ONE["a"]
    for number in (1, 3, 4, 5):
        text = length_delimited(number, b"12")
        records = {"": b"\x08\x01", "a": entry(array, 0) + text}
        write_table(tmp_path / "model.index", records)
        assert "stands for a number" in message_of(open_checkpoint, tmp_path / "model")


def test_a_table_that_unpacks_to_more_than_its_size(tmp_path):
    repeated = varint(3_000_000) + b"\0a" + b"\xfe\x01\x00" * 46_875
    part = block([], 1, lambda _: repeated)
    handle = varint(0) + varint(len(part) - 5)
    (tmp_path / "model").write_bytes(sealed_table([part], [(b"k", handle)]))
    assert "at most 2," in message_of(read_table, tmp_path / "model")


def test_a_large_file_that_is_no_table_is_not_read(tmp_path):
    with open(tmp_path / "model", "wb") as file:
        file.write(b"\x80\x02")
        file.truncate(1 << 40)  # without content, it takes no room on the disk
    assert "its last bytes" in message_of(open_checkpoint, tmp_path / "model")


def test_v1_numbers_that_nobody_wants(tmp_path):
    name = length_delimited(1, b"a")
    tensor = length_delimited(10, bytes(1000))
    meta = name + length_delimited(2, length_delimited(2, b"\x08\x03")) + b"\x18\x09"
    meta += length_delimited(4, length_delimited(1, b""))
    saved = name + length_delimited(2, length_delimited(1, b"")) + length_delimited(3, tensor)
    records = {
        "": length_delimited(1, length_delimited(1, meta)),
        b"\0a": length_delimited(2, saved),
    }
    write_table(tmp_path / "model", records)
    assert "1000 numbers stand where 3" in message_of(open_checkpoint(tmp_path / "model").read, "a")


def test_variables_that_have_the_same_bytes(tmp_path):
    """Thousands of them would read a large file again and again."""
    array = np.ones(4, np.float32)
    records = {"": b"\x08\x01", "a": entry(array, 0), "b": entry(array, 8)}
    write_table(tmp_path / "model.index", records)
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(32))
    assert "'b' and 'a' have the same bytes" in message_of(open_checkpoint, tmp_path / "model")


def shaped(*sides: int, size: int = 0) -> bytes:
    """A BundleEntryProto of float32 numbers."""
    shape = b"".join(length_delimited(2, b"\x08" + varint(side)) for side in sides)
    return b"\x08\x01" + length_delimited(2, shape) + b"\x28" + varint(size) + b"\x35\0\0\0\0"


def test_a_size_that_is_not_the_shape_s_is_told_before_it_is_read(tmp_path):
    write_table(tmp_path / "model.index", {"": b"\x08\x01", "a": shaped(3, size=1 << 40)})
    data = tmp_path / "model.data-00000-of-00001"
    data.touch()
    os.truncate(data, 1 << 40)  # without content, it takes no room on the disk
    message = message_of(open_checkpoint(tmp_path / "model").read, "a")
    assert "does not fit its 1099511627776 bytes" in message


@pytest.mark.parametrize("extent", [b"\x08" + varint(1 << 55), b"\x10" + varint((1 << 64) - 1)])
def test_slices_beyond_all_numbers(tmp_path, extent):
    cut = length_delimited(7, length_delimited(1, extent))
    write_table(tmp_path / "model.index", {"": b"\x08\x01", "a": shaped(1 << 40) + cut})
    assert "too large" in message_of(open_checkpoint, tmp_path / "model")


def test_a_sliced_variable_larger_than_its_slices(tmp_path):
    cut = length_delimited(7, length_delimited(1, b"\x08\x00\x10\x04"))
    array = np.ones(4, np.float32)
    records = {
        "": b"\x08\x01", "a": shaped(1 << 40) + cut,
        b"\0a\0\x01\x01\x01\x80\x84": entry(array, 0),
    }  # fmt: skip
    write_table(tmp_path / "model.index", records)
    (tmp_path / "model.data-00000-of-00001").write_bytes(array.tobytes())
    assert "is not in it" in message_of(open_checkpoint(tmp_path / "model").read, "a")


def test_v1_slices_of_another_rank(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorflow_files, "part_of", lambda array, cut: array)
    write_v1(tmp_path / "model", ONE, cuts={"a": [(None, None)]})
    assert "is damaged" in message_of(open_checkpoint(tmp_path / "model").read, "a")


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001"])
def test_pipes_are_told(tmp_path, name):
    write_checkpoint(tmp_path / "model", ONE)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert f"{name}: is a pipe" in message_of(open_checkpoint, tmp_path / "model")


@pytest.mark.parametrize("place", ["../other/model", "{}/other/model", "sub/../../other/model"])
def test_a_note_that_points_out_of_its_folder(tmp_path, place):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    (folder / "sub").mkdir()
    other.mkdir()
    write_checkpoint(other / "model", ONE)
    noted(folder, place.format(tmp_path))
    assert "is not in its folder" in message_of(open_checkpoint, folder)
    write_checkpoint(folder / "model", {"b": ONE["a"]})  # moved with the note
    assert list(open_checkpoint(folder).variables) == ["b"]


def test_snappy_stops_at_the_size_that_it_says():
    assert decompress(varint(9) + b"\x08abc\x09\x03", 9) == b"abcabcabc"
    with pytest.raises(ValueError, match="at most 8"):
        decompress(varint(9) + b"\x08abc\x09\x03", 8)
    with pytest.raises(ValueError):
        decompress(varint(4) + b"\x08abc" + b"\xfe\x03\x00" * 100_000, 1 << 30)


# PG2


def with_entry(folder: Path, **entries: bytes) -> Path:
    prefix = golden_checkpoint(folder)
    path = Path(f"{prefix}.index")
    names = {name.replace("__", "/"): value for name, value in entries.items()}
    records = {**read_table(path), **{name.encode(): value for name, value in names.items()}}
    write_table(path, records)
    return prefix


@pytest.mark.parametrize("width", [1025, 1 << 40, 1 << 62])
@pytest.mark.parametrize("name", ["Conv", "fully_connected"])
def test_networks_that_are_too_wide(tmp_path, name, width):
    prefix = with_entry(tmp_path, **{f"Pose_AE__G__{name}__biases": shaped(width)})
    assert "1 to 1024 are read" in message_of(convert_checkpoint, prefix)


def test_variables_of_a_terabyte(tmp_path):
    prefix = with_entry(tmp_path / "a", Pose_AE__G__Conv_1__biases=shaped(1 << 38))
    assert "Conv_1/biases' has shape [274877906944]" in message_of(convert_checkpoint, prefix)
    size = Path(f"{prefix}.data-00000-of-00001").stat().st_size
    more = shaped(1 << 38, size=1 << 40) + b"\x20" + varint(size)
    prefix = with_entry(tmp_path / "b", more=more)
    os.truncate(f"{prefix}.data-00000-of-00001", size + (1 << 40))
    assert "is this PG2?" in message_of(convert_checkpoint, prefix)


def test_steps_that_are_none(tmp_path):
    prefix = golden_checkpoint(tmp_path)
    (name,) = [n for n in ("step", "global_step") if n in open_checkpoint(prefix).variables]
    size = Path(f"{prefix}.data-00000-of-00001").stat().st_size
    for number, value in enumerate([np.array(np.nan, np.float32), np.array(-1), np.ones(2, int)]):
        prefix = with_entry(tmp_path / str(number), **{name: entry(value, size)})
        with open(f"{prefix}.data-00000-of-00001", "ab") as file:
            file.write(value.tobytes())
        assert "is no number of steps" in message_of(convert_checkpoint, prefix)
