"""PG2's TFRecords (--dataset_mode=tfrecord), read without TensorFlow."""

import argparse
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.annotations import zero_text
from data.frame_check import check_stored
from data.pair_dataset import PairDataset
from data.tfrecord_schema import KEYPOINT_COUNT, StoredPerson, person_keys, read_person, read_size
from util.errors import UserError
from util.files import regular_file
from util.images import read_image, read_image_size, resize_image
from util.tensorflow.records import (
    Feature,
    RecordPlace,
    find_records,
    parse_example,
    read_checksum,
    read_record,
)

_SHARD = re.compile(
    r"(?P<title>.+)_(?P<number>[0-9]{1,18})-of-(?P<count>[0-9]{1,18})\.tfrecord", re.DOTALL
)
_LOOKED_AT = 50  # records, all over the files; of DeepFashion they are 2 MB large
_PAIR_KEYS = ("image_height", "image_width", *person_keys(0), *person_keys(1))


class _EncodedImage(io.BytesIO):
    """The bytes of an image, which messages call by the record that they are of."""

    name = ""

    def __str__(self) -> str:
        return self.name


class TFRecordDataset(PairDataset):
    """Pairs in the records of Market-1501 and DeepFashion that PG2's programs write and read.

    Files: `<dataroot>/<title>_<phase>_<number>-of-<count>.tfrecord`, all of one title, such as
    `Market1501_test_00000-of-00001.tfrecord`. Pairs are in the order of the records. Key points
    are those stored as `pose_peaks_…_rcv`, in pixels of the stored images.

    A record is read, and its checksum verified, when its pair is asked for; at the start the
    records' places are looked for, and at the key points of some.
    """

    default_load_size = (128, 64)
    default_old_size = (128, 64)

    @classmethod
    def option_defaults(cls, given: argparse.Namespace, is_train: bool) -> dict[str, Any]:
        """The size of the stored images, where there are any."""
        try:
            paths = find_shards(Path(given.dataroot or "./dataset/tfrecord"), given.phase)
            size = _stored_size(find_records(paths[0], count=1)[0])
        except UserError:  # told when the data set is made
            return {}
        return {"load_size": size, "old_size": size}

    def _open(self, root: Path, keypoint_count: int, max_dataset_size: int | None) -> None:
        if keypoint_count != KEYPOINT_COUNT:
            raise UserError(
                f"--structure_nc {keypoint_count}: records have {KEYPOINT_COUNT} key points; leave "
                "it out"
            )
        self.pairs_path = self.image_folder = root
        paths = find_shards(root, self.phase)
        self.notices, self.bad_rows = [], []
        places = []
        for path in paths:
            try:
                places += find_records(path)
            except UserError as error:
                if regular_file(path).st_size:
                    raise
                if not self.skip_bad_samples:
                    raise self.unusable(error) from None
                self.notices.append(f"{error}; left out (--skip_bad_samples)")
        self._pairs = places[:max_dataset_size]
        if not self._pairs:
            raise UserError(f"{paths[0]}: holds no records")
        self._stored_size = self._first_size()
        if self.old_size != self._stored_size:
            raise UserError(
                "--old_size: key points of records are in pixels of the stored images, "
                f"{self._stored_size[0]},{self._stored_size[1]}; leave it out"
            )
        self._check_poses()

    def _check_poses(self) -> None:
        """Raise UserError where key points are not in pixels of the stored images."""
        poses, places = [], []
        step = max(len(self._pairs) // _LOOKED_AT, 1)
        for index in range(0, len(self._pairs), step):
            with contextlib.suppress(UserError):  # told when it is read
                poses += [person.pose for person in self._stored_people(index)]
                places += [self._pairs[index]] * 2
        if not poses:
            return
        if not self.trust_keypoints:
            self.notices += check_stored(np.array(poses), self._stored_size, self.load_size, places)
        zeros = "" if self.missing is not None else zero_text(np.array(poses))
        if zeros:
            raise UserError(f"{self.pairs_path}: of {len(poses)} images looked at, {zeros}")

    def _first_size(self) -> tuple[int, int]:
        for place in self._pairs:
            try:
                return _stored_size(place)
            except UserError as error:
                if not self.skip_bad_samples:
                    raise self.unusable(error) from None
                self.bad_rows.append(str(error))
        raise UserError(f"{self.bad_rows[0]}; none of the {len(self._pairs)} pairs can be used")

    def pair_paths(self, index: int) -> tuple[str, str]:
        """Paths of item `index` as if the images lay in `<dataroot>/<phase>`."""
        try:
            source, target = self._stored_people(index)
        except UserError:
            if not self.skip_bad_samples:
                raise
            place = str(self._pairs[index])  # of a pair that reading leaves out
            return place, place
        return self._path(source.image_name), self._path(target.image_name)

    def input_digest(self, index: int) -> str:
        """The checksum stored behind the record, which changes with all that is in it."""
        return read_checksum(self._pairs[index])

    def _path(self, image_name: str) -> str:
        return str(self.pairs_path / self.phase / Path(image_name).name)

    def stored_images(self, index: int) -> list[tuple[str, bytes]]:
        """File name and encoded bytes of both images of a pair. Raises UserError as reading it."""
        people = self._stored_people(index)
        return [(Path(person.image_name).name, person.image) for person in people]

    def _stored_people(self, index: int) -> list[StoredPerson]:
        place = self._pairs[index]
        try:
            features = _read_features(place)
            return [_read_person(place, features, k, self.missing == 0) for k in (0, 1)]
        except UserError as error:
            raise self.unusable(error) from None

    def record_path(self, index: int) -> Path:
        """The file that the record of a pair lies in."""
        return self._pairs[index].path

    def read_people(self, index: int) -> list[tuple[str, Image.Image, np.ndarray]]:
        """Read source and target of a pair; see PairDataset."""
        place = self._pairs[index]
        people = []
        for number, person in enumerate(self._stored_people(index)):
            try:
                image = self._decode(place, person.image, f"image_raw_{number}")
            except UserError as error:
                raise self.unusable(error) from None
            pose = person.pose * self.load_size[::-1] / self._stored_size[::-1]
            people.append((self._path(person.image_name), image, pose))
        return people

    def _decode(self, place: RecordPlace, encoded: bytes, key: str) -> Image.Image:
        stream = _EncodedImage(encoded)
        stream.name = f"{place}, {key}"
        try:
            size, _ = read_image_size(stream)
            if sorted(size) == sorted(self._stored_size):  # else it is not decoded
                image = read_image(stream)
                size = image.size[::-1]
        except UserError as error:
            raise _bad_record(place, str(error).replace(f"{stream}:", key)) from None
        if size != self._stored_size:
            (height, width), (first_height, first_width) = size, self._stored_size
            raise _bad_record(
                place,
                f"{key} has {height}×{width} pixels, the first record's images "
                f"{first_height}×{first_width}",
            )
        return resize_image(image, self.load_size)


def find_shards(root: Path, phase: str) -> list[Path]:
    """Find the files of a phase, in order.

    Raises:
        UserError: there are none, one is missing, or they are of several data sets.
    """
    sets: dict[tuple[str, int], dict[int, Path]] = {}
    for path in sorted(root.glob("*.tfrecord")):
        match = _SHARD.fullmatch(path.name)
        if match and match["title"].endswith(f"_{phase}"):
            key = match["title"], int(match["count"])
            sets.setdefault(key, {})[int(match["number"])] = path
    if not sets:
        others = ", ".join(sorted(path.name for path in root.glob("*.tfrecord"))[:3]) or "none"
        raise UserError(
            f"{root}: has no records of phase '{phase}', such as "
            f"Market1501_{phase}_00000-of-00001.tfrecord; record files there: {others}"
        )
    if len(sets) > 1:
        names = " and ".join(f"{title}_…-of-{count:05d}" for title, count in list(sets)[:2])
        raise UserError(f"{root}: holds several data sets, {names}; keep one in a folder")
    (((title, count), paths),) = sets.items()
    # (The count is what a name says: nothing is made for so many.)
    missing = next((number for number in range(count) if number not in paths), None)
    if missing is not None:
        raise UserError(
            f"{root / f'{title}_{missing:05d}-of-{count:05d}.tfrecord'}: is missing; "
            f"{len(paths)} of {count} files are there"
        )
    return [paths[number] for number in range(count)]


def stored_size(root: Path, phase: str) -> tuple[int, int]:
    """(height, width) of the images in the first record of a phase that can be read.

    Raises:
        UserError: as `find_shards`, or no record can be read.
    """
    first = None
    paths = find_shards(root, phase)
    for path in paths:
        find_records(path, count=1)  # an empty file is told, wherever it stands
    for path in paths:
        for place in find_records(path):
            try:
                return _stored_size(place)
            except UserError as error:
                first = first or error
    raise first or UserError(f"{root}: the records of phase '{phase}' hold none")


def _stored_size(place: RecordPlace) -> tuple[int, int]:
    """(height, width) of the images of a record, which must be one of PG2's."""
    features = _read_features(place)
    _read_person(place, features, 0)
    try:
        return read_size(features)
    except ValueError as error:
        raise _bad_record(place, error) from None


def _read_features(place: RecordPlace) -> dict[str, Feature]:
    try:
        return parse_example(read_record(place), _PAIR_KEYS)
    except ValueError as error:
        raise _bad_record(place, error) from None


def _read_person(
    place: RecordPlace, features: dict[str, Feature], number: int, zero_is_missing: bool = False
) -> StoredPerson:
    try:
        person = read_person(features, number)
        if zero_is_missing:
            person.pose[(person.pose == 0).all(axis=1)] = np.nan
        if np.isnan(person.pose).all():
            raise ValueError(f"no key point of image {number} is there")
        return person
    except ValueError as error:
        raise _bad_record(place, error) from None


def _bad_record(place: RecordPlace, problem: object) -> UserError:
    return UserError(f"{place}: {problem}; write the file anew")
