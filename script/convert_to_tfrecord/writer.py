"""Writing a data set of image files and tables as PG2's TFRecords."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.pair_dataset import PairDataset
from script.convert_to_tfrecord.record_file import RecordWriter, serialise_example
from script.convert_to_tfrecord.schema import SCHEMAS, pair_features, person_features, stored_image
from util.errors import UserError
from util.files import written_whole
from util.tensorflow.records import Feature

# Pictures whose features are kept, as an identity's pairs follow one another; up to 1 MB each.
_KEPT_PEOPLE = 64


@dataclass(frozen=True)
class WrittenRecords:
    """What was written.

    Attributes:
        paths: of the files, in order.
        pairs: number of records.
        bad: one message for each pair that was left out, as an image cannot be read.
    """

    paths: list[Path]
    pairs: int
    bad: list[str]


def write_records(
    dataset: PairDataset, dataset_mode: str, out: Path, shards: int = 1
) -> WrittenRecords:
    """Write the pairs of a data set, in their order, as `<title>_<phase>_<k>-of-<shards>.tfrecord`.

    Images that are RGB JPEG or PNG files of the records' size are stored as they are, others as
    PNG of what the data set reads. Key points are cut to whole pixels. The files depend on the
    data alone, and appear whole when all are, or not at all; files of the same names are replaced.

    Args:
        dataset: of Market-1501 or DeepFashion, at its default size, without augmentation.
        dataset_mode: "market" or "fashion".
        out: folder, made if need be.
        shards: number of files.

    Raises:
        UserError: bad options, an image that cannot be read (unless the data set goes on without
            bad samples), a folder that holds records of another number of files or cannot be
            written.
    """
    if dataset_mode not in SCHEMAS:
        raise UserError(f"--dataset_mode {dataset_mode}: records are made of {', '.join(SCHEMAS)}")
    schema = SCHEMAS[dataset_mode]
    if shards > len(dataset):
        raise UserError(f"--shards {shards}: there are only {len(dataset)} pairs")
    stem = f"{schema.title}_{dataset.phase}"
    paths = [out / f"{stem}_{k:05d}-of-{shards:05d}.tfrecord" for k in range(shards)]
    others = sorted(set(out.glob(f"{stem}_*-of-*.tfrecord")) - set(paths))
    if others:
        raise UserError(f"{others[0]}: is of an earlier conversion; remove it, or choose an --out")
    names = [Path(path).name for index in range(len(dataset)) for path in dataset.pair_paths(index)]
    identities = sorted({schema.person_of(name) for name in names})
    numbers = {identity: number for number, identity in enumerate(identities)}
    people: dict[str, dict[str, Feature]] = {}

    def features_of(path: str, image: Image.Image, pose: np.ndarray) -> dict[str, Feature]:
        if path not in people:
            if len(people) == _KEPT_PEOPLE:
                del people[next(iter(people))]
            name = Path(path).name
            stored = stored_image(Path(path).read_bytes(), image)
            number = numbers[schema.person_of(name)]
            people[path] = person_features(schema, name, stored, pose, number)
        return people[path]

    written, bad = 0, []
    with (
        _gone_if_empty(out),
        contextlib.ExitStack() as files,
        tqdm(total=len(dataset), desc=stem, unit="pair", disable=None) as bar,
    ):
        for k, path in enumerate(paths):
            with RecordWriter(files.enter_context(written_whole(path))) as writer:
                for index in range(len(dataset) * k // shards, len(dataset) * (k + 1) // shards):
                    bar.update()
                    try:
                        source, target = (features_of(*one) for one in dataset.read_people(index))
                    except UserError as error:
                        if not dataset.skip_bad_samples:
                            raise
                        bad.append(str(error))
                        continue
                    writer.write(serialise_example(pair_features(schema, source, target)))
                    written += 1
        if shards > 1:
            # The files are renamed from the last to the first: until all are, the first is missing,
            # and no reader takes files of two conversions for a set.
            files.callback(paths[0].unlink, missing_ok=True)
    return WrittenRecords(paths, written, bad)


@contextlib.contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder after a failure that leaves nothing in a new one."""
    was_there = folder.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
