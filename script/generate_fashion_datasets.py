"""Split DeepFashion's img_highres into the train/ and test/ folders of the data set.

    python script/generate_fashion_datasets.py

reads train.lst and test.lst in ./dataset/fashion and copies the images that they list from
./dataset/fashion/img_highres. See dataset/README.md.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from util.argument_types import worker_count
from util.command_line import Parser, run_program
from util.errors import printable


def main(arguments: list[str] | None = None) -> int:
    """Split the download and say what was found and missing; give 1 when images are, else 0.

    Raises:
        UserError: bad options, no list or no download, or none of the listed images in it.
    """
    from data.fashion_preparation import split_fashion
    from util.device import cpu_cores

    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataroot", default="./dataset/fashion", help="folder with train.lst and test.lst"
    )
    parser.add_argument(
        "--img_highres", help="the download's image folder; None is img_highres in --dataroot"
    )
    parser.add_argument(
        "--link", action="store_true", help="hard links instead of copies (same disk only)"
    )
    parser.add_argument("--workers", type=worker_count, default=cpu_cores(), help="threads")
    options = parser.parse_all(arguments)
    reports = split_fashion(
        options.dataroot, options.img_highres, link=options.link, workers=options.workers
    )
    for report in reports:
        print(
            f"{report.phase}: {report.listed} images listed, {report.found} found "
            f"({report.made} new), {len(report.missing)} missing"
        )
        if report.missing:
            print(
                f"  missing: {printable(', '.join(report.missing[:3]))}"
                f"{', …' if len(report.missing) > 3 else ''}; "
                f"all in {Path(options.dataroot) / f'missing-{report.phase}.txt'}"
            )
    missing = sum(len(report.missing) for report in reports)
    if missing:
        print(
            f"the data set is not whole, {missing} images are missing: is all of img_highres.zip "
            "unpacked, and are the lists the published ones?",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    run_program(main)
