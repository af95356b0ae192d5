"""Record files of --dataset_mode=tfrecord: framing, messages, values, images, names of files."""

import functools
import io
import os
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from data.pair_dataset import PairDataset
from data.tfrecord_dataset import TFRecordDataset, stored_size
from script.convert_to_tfrecord.record_file import serialise_example
from tests.fuzz.mutations import EDGES, NASTY_TEXTS, make_no_file, mutate_bytes
from tests.support.tensorflow_files import RECORDS, golden_records
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import length_delimited, varint
from util.tensorflow.records import find_records, parse_example, read_record

NAME = "Market1501_test_00000-of-00001.tfrecord"
NAMES = (
    "Market1501_test_00000-of-99999999999.tfrecord", "Market1501_test_00000-of-00002.tfrecord",
    f"Market1501_test_00000-of-{'9' * 200}.tfrecord", "Market1501_test_00001-of-00001.tfrecord",
    "Market1501_test_0-of-0.tfrecord", "a\x1b[2J\n_test_00000-of-00001.tfrecord",
    "_test_00000-of-00001.tfrecord", "Market1501_test_٣-of-٣.tfrecord",
)  # fmt: skip
NUMBERS = (0.0, -1.0, 1e6, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))


@functools.cache
def honest_records() -> list[dict]:
    """Two records; of their maps, which no reader looks at, the beginnings."""
    with tempfile.TemporaryDirectory() as place:
        path = golden_records(Path(place)) / RECORDS["market"]
        examples = [parse_example(read_record(where)) for where in find_records(path)[:2]]
    return [
        {key: value if isinstance(value, list) else value[:100] for key, value in example.items()}
        for example in examples
    ]


def framed(payload: bytes, length: int | None = None) -> bytes:
    size = struct.pack("<Q", len(payload) if length is None else length)
    parts = (size, struct.pack("<I", masked_crc32c(size)), payload)
    return b"".join([*parts, struct.pack("<I", masked_crc32c(payload))])


def generate(rng: random.Random, folder: Path) -> None:
    path = folder / (rng.choice(NAMES) if rng.random() < 0.05 else NAME)
    kind = rng.random()
    if kind < 0.02:
        make_no_file(rng, path)
        return
    first, second = ({**record} for record in honest_records())
    if kind < 0.7:
        for _ in range(rng.choice([1, 1, 2, 4])):
            _mutate_features(rng, rng.choice([first, second]))
    payloads = [serialise_example(first), serialise_example(second)]
    if 0.6 < kind < 0.85:
        k = rng.randrange(2)
        payloads[k] = _mutate_message(rng, payloads[k])
    data = [framed(payload) for payload in payloads]
    if kind > 0.85:
        k = rng.randrange(2)
        if rng.random() < 0.4:
            data[k] = framed(payloads[k], abs(rng.choice(EDGES)) % 2**64)
        else:
            head = data[k][:24]
            data[k] = mutate_bytes(rng, head) + data[k][24:]
    elif kind > 0.83:
        data = rng.choice([[], [framed(b"")] * 30000, data * 20])
    path.write_bytes(b"".join(data))


def _mutate_features(rng: random.Random, features: dict) -> None:
    """Another value, type or number of values for a feature that readers look at."""
    number = rng.randrange(2)
    key = rng.choice(
        [f"image_name_{number}", f"image_raw_{number}", f"pose_peaks_{number}_rcv",
         "image_height", "image_width"]
    )  # fmt: skip
    kind = rng.randrange(10)
    if kind == 0:
        features.pop(key, None)
    elif kind == 1:
        features[key] = rng.choice(
            [None, [], [b""], [b"a", b"b"], np.zeros(0, np.float32), np.zeros(54, np.int64),
             np.zeros(54, np.float32), np.array([rng.choice(EDGES) % 2**63])]
        )  # fmt: skip
    elif features.get(key) is None or not len(features[key]):
        return
    elif key.startswith("image_name"):
        text = rng.choice(NASTY_TEXTS)
        name = rng.choice([text, f"{text}.jpg", f"a/{text}.jpg", f"0001_{text}"])
        features[key] = [name.encode(errors="surrogatepass")]
    elif key.startswith("image_raw") and isinstance(features[key], list):
        features[key] = [_image(rng, features[key][0])]
    elif key.startswith("pose") and isinstance(features[key], np.ndarray):
        points = np.array(features[key], np.float32)
        points[rng.randrange(len(points))] = rng.choice(NUMBERS)
        features[key] = points
    else:
        features[key] = np.array([rng.choice([*EDGES, 0, 64, 256]) % 2**63])


def _image(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return mutate_bytes(rng, data)
    if kind == 1:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    size = rng.choice([(64, 128), (128, 64), (1, 1), (20000, 4000), (40000, 4000)])
    stream = io.BytesIO()
    Image.new("1", size).save(stream, "PNG")
    return stream.getvalue()


def _mutate_message(rng: random.Random, payload: bytes) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:  # a number where bytes should be
        entry = varint(rng.choice([1, 2]) << 3) + varint(2**40)
        return payload + length_delimited(1, length_delimited(1, entry))
    if kind == 1:
        piece = rng.choice([b"", length_delimited(1, b"a"), b"\x08\1", length_delimited(2, b"")])
        return payload + length_delimited(1, length_delimited(1, piece) * 120_000)
    if kind == 2:  # numbers, each in a field of its own
        numbers = length_delimited(2, b"\x0d\0\0\0\0" * 120_000)
        entry = length_delimited(1, b"pose_peaks_0_rcv") + length_delimited(2, numbers)
        return length_delimited(1, length_delimited(1, entry))
    if kind == 3:
        for _ in range(500):
            payload = length_delimited(1, payload)
        return payload
    return mutate_bytes(rng, payload)


def read(folder: Path) -> None:
    size = stored_size(folder, "test")
    dataset = TFRecordDataset(folder, "test", load_size=size, old_size=size)
    for k in range(len(dataset)):
        _check(dataset, k)
    skipping = TFRecordDataset(folder, "test", load_size=size, old_size=size, skip_bad_samples=True)
    assert len(skipping) == len(dataset)


def _check(dataset: PairDataset, k: int) -> None:
    for name, encoded in dataset.stored_images(k):
        assert isinstance(encoded, bytes) and Path(name).name == name and "\0" not in name
    for path in dataset.pair_paths(k):
        os.path.lexists(path)
    item = dataset[k]
    for number in (1, 2):
        assert item[f"P{number}"].shape == (3, *dataset.load_size)
        assert np.isfinite(item[f"BP{number}"].numpy()).all()
