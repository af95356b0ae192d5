"""Make the folders of resized images that the metric commands name.

    python -m script.resize_dataset --dataset_mode=fashion   (test_256, train_256)
    python -m script.resize_dataset --dataset_mode=market    (test_12864, train_12864)
    python -m script.resize_dataset --dataset_mode=tfrecord  (the images in the records)

Every image of the phase is resized, as the data set resizes it.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from util.argument_types import size, worker_count
from util.command_line import Parser, run_program
from util.errors import printable
from util.files import leftovers_told


def main(arguments: list[str] | None = None) -> int:
    """Resize the phases' folders; give 1 when images were unreadable, else 0.

    Raises:
        UserError: bad options, a folder without images, or one that cannot be written.
    """
    from data import dataset_names, find_dataset
    from data.image_names import files_not_read
    from data.resizing import resize_folder, resize_records, resized_folder_name
    from data.tfrecord_dataset import TFRecordDataset, stored_size
    from util.device import cpu_cores

    parser = Parser(prog="python -m script.resize_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_mode", required=True, help=", ".join(dataset_names()))
    parser.add_argument("--dataroot", help="folder of the data set; None is ./dataset/MODE")
    parser.add_argument("--phases", default="test,train", help="image folders to resize")
    parser.add_argument("--size", type=size, help="height,width; None is the data set's load_size")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="png loses nothing")
    parser.add_argument("--workers", type=worker_count, default=cpu_cores(), help="threads")
    options = parser.parse_all(arguments)

    dataset = find_dataset(options.dataset_mode)
    root = Path(options.dataroot or f"./dataset/{options.dataset_mode}")
    how = {"image_format": options.format, "workers": options.workers}
    unreadable = 0
    for phase in options.phases.split(","):
        new_size = options.size or dataset.default_load_size
        if dataset is TFRecordDataset:
            new_size = options.size or stored_size(root, phase)
            target = root / resized_folder_name(phase, new_size)
            report = resize_records(root, phase, target, new_size, **how)
        else:
            target = root / resized_folder_name(phase, new_size)
            report = resize_folder(root / phase, target, new_size, **how)
            if other_files := files_not_read(root / phase):
                print(printable(f"warning: {other_files}"), file=sys.stderr)
        print(
            f"{report.folder}: {report.found} images found, {report.written} written, "
            f"{report.skipped} there already, {len(report.unreadable)} unreadable"
        )
        for message in report.unreadable:
            print(f"error: {message}", file=sys.stderr)
        if report.foreign:
            print(
                f"warning: {len(report.foreign)} other images are in {report.folder}, such as "
                f"{printable(report.foreign[0])}: metrics would count them, too; remove them",
                file=sys.stderr,
            )
        if told := leftovers_told(report.folder):
            print(printable(f"warning: {told}"), file=sys.stderr)
        unreadable += len(report.unreadable)
    return 1 if unreadable else 0


if __name__ == "__main__":
    run_program(main)
