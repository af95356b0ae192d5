"""What a data set reads of PG2's TFRecords: two pictures of a person with their poses.

A record is one tf.train.Example. Keys end in _0 for the source and _1 for the target. Key points
are whole pixels of the stored image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.tables import shortened
from util.argument_types import LARGEST_SIDE
from util.files import is_file_name
from util.tensorflow.records import Feature

KEYPOINT_COUNT = 18


@dataclass(frozen=True)
class StoredPerson:
    """One of the two people of a record.

    Attributes:
        image_name: file name.
        image: the file's bytes, JPEG or PNG.
        pose: float64 [18, 2], (x, y) in pixels of the image; NaN = missing.
    """

    image_name: str
    image: bytes
    pose: np.ndarray


def person_keys(number: int) -> tuple[str, str, str]:
    """Keys that `read_person` needs of source (0) or target (1)."""
    return f"image_name_{number}", f"image_raw_{number}", f"pose_peaks_{number}_rcv"


def read_person(features: Mapping[str, Feature], number: int) -> StoredPerson:
    """Read what a data set needs of source (0) or target (1).

    Raises:
        ValueError: a key is missing or holds something else.
    """
    name_key, image_key, pose_key = person_keys(number)
    points = array_feature(features, pose_key, "f", KEYPOINT_COUNT * 3).reshape(-1, 3)
    if not (np.abs(points) <= LARGEST_SIDE).all():
        raise ValueError(f"{pose_key} holds NaN or numbers beyond {LARGEST_SIDE}")
    row, column, visible = points.astype(np.float64).T
    pose = np.stack([column, row], axis=1)
    pose[visible == 0] = np.nan
    name = bytes_feature(features, name_key).decode(errors="replace")
    if not is_file_name(Path(name).name):
        raise ValueError(f"{name_key}, {shortened(name)}, is no name of a file")
    return StoredPerson(name, bytes_feature(features, image_key), pose)


def read_size(features: Mapping[str, Feature]) -> tuple[int, int]:
    """Read (height, width) of the images. Raises ValueError as `read_person`."""
    height, width = (
        int(array_feature(features, key, "i", 1)[0]) for key in ("image_height", "image_width")
    )
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise ValueError(f"its images are {height}×{width} pixels large")
    return height, width


def bytes_feature(features: Mapping[str, Feature], key: str) -> bytes:
    """Give the only value of a feature of bytes. Raises ValueError when it is not that."""
    value = _feature(features, key)
    if not isinstance(value, list) or len(value) != 1:
        raise ValueError(f"{key} is not one string of bytes")
    return value[0]


def array_feature(
    features: Mapping[str, Feature], key: str, kind: str, count: int | None = None
) -> np.ndarray:
    """Give a feature of integers ("i") or floats ("f"), of `count` values unless None.

    Raises ValueError when it is not that.
    """
    value = _feature(features, key)
    if not isinstance(value, np.ndarray) or value.dtype.kind != kind:
        raise ValueError(f"{key} holds no {'floats' if kind == 'f' else 'integers'}")
    if count is not None and len(value) != count:
        raise ValueError(f"{key} has {len(value)} values, {count} are needed")
    return value


def _feature(features: Mapping[str, Feature], key: str) -> Feature:
    if key not in features:
        raise ValueError(f"has no {key}")
    return features[key]
