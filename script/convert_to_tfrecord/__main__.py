"""Write a market or fashion data set as the TFRecords that PG2's programs read, without TensorFlow.

python -m script.convert_to_tfrecord --dataset_mode=market --dataroot=dataset/market --phase=train
    --out=dataset/tfrecord --shards=8
"""

import sys
from pathlib import Path

from util.argument_types import positive_int
from util.command_line import Parser, run_program
from util.errors import printable
from util.files import leftovers_told


def main(arguments: list[str] | None = None) -> int:
    """Write the records of one phase and say what was written.

    Raises:
        UserError: bad options, tables, images, or a folder that cannot be written.
    """
    from data import find_dataset
    from data.pair_dataset import add_keypoint_options
    from script.convert_to_tfrecord.schema import SCHEMAS
    from script.convert_to_tfrecord.writer import write_records

    parser = Parser(
        prog="python -m script.convert_to_tfrecord", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--dataset_mode", required=True, choices=tuple(SCHEMAS), help="data set")
    parser.add_argument("--dataroot", help="folder of the data set; None is ./dataset/MODE")
    parser.add_argument("--phase", default="train", help="which part of the data set")
    parser.add_argument("--out", required=True, help="folder of the records")
    parser.add_argument("--shards", type=positive_int, default=1, help="number of files")
    parser.add_argument(
        "--max_dataset_size", type=positive_int, help="use only the first so many pairs"
    )
    parser.add_argument(
        "--skip_bad_samples", action="store_true", help="leave out rows and images that are bad"
    )
    add_keypoint_options(parser, None)
    options = parser.parse_all(arguments)

    root = options.dataroot or f"./dataset/{options.dataset_mode}"
    dataset = find_dataset(options.dataset_mode)(
        root,
        options.phase,
        max_dataset_size=options.max_dataset_size,
        skip_bad_samples=options.skip_bad_samples,
        old_size=options.old_size,
        missing=options.missing,
        trust_keypoints=options.trust_keypoints,
        has_network_options=False,
    )
    for notice in dataset.notices:
        print(printable(f"Data: {notice}"), flush=True)
    written = write_records(dataset, options.dataset_mode, Path(options.out), options.shards)
    for message in written.bad:
        print(f"left out: {message}", file=sys.stderr)
    megabytes = sum(path.stat().st_size for path in written.paths) / 1e6
    print(
        f"{options.out}: {written.pairs} pairs in {len(written.paths)} files, {megabytes:.1f} MB; "
        f"{len(written.bad)} left out"
    )
    if told := leftovers_told(Path(options.out)):
        print(printable(f"warning: {told}"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_program(main)
