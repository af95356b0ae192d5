"""Write a synthetic data set of articulated people whose true flow is known (see its folder).

python -m script.make_synthetic_dataset --layout market --out dataset/synthetic
python -m script.make_synthetic_dataset --layout fashion --out dataset/synthetic_fashion
"""

from util.argument_types import non_negative_int, positive_int, worker_count
from util.command_line import Parser, run_program


def main(arguments: list[str] | None = None) -> int:
    """Write the data set and say what it holds.

    Raises:
        UserError: bad options, or a folder that holds anything else.
    """
    from script.make_synthetic_dataset.writer import LAYOUTS, DatasetOptions, make_dataset
    from util.device import cpu_cores

    parser = Parser(
        prog="python -m script.make_synthetic_dataset", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="files and image size of")
    parser.add_argument(
        "--out", required=True, help="folder: new, empty, or an earlier set of this program's"
    )
    parser.add_argument("--identities", type=positive_int, default=100, help="people in all")
    parser.add_argument(
        "--poses_per_identity", type=positive_int, default=5, help="pictures of each person"
    )
    parser.add_argument(
        "--test_identities", type=positive_int, help="people of the test phase; None is a fifth"
    )
    parser.add_argument(
        "--pairs_per_identity", type=positive_int, help="at most so many pairs; None is all"
    )
    parser.add_argument("--no_flow", action="store_true", help="leave out the true flow")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="decides every file")
    parser.add_argument(
        "--workers", type=worker_count, default=cpu_cores(), help="processes; same files"
    )
    options = parser.parse_all(arguments)
    content = DatasetOptions(
        options.layout, options.identities, options.poses_per_identity, options.seed,
        options.test_identities, options.pairs_per_identity, not options.no_flow,
    )  # fmt: skip
    summary = make_dataset(content, options.out, options.workers)
    print(
        f"{summary.out}: {summary.train_images} train and {summary.test_images} test images, "
        f"{summary.train_pairs} train and {summary.test_pairs} test pairs, "
        f"{summary.flow_files} with true flow"
    )
    return 0


if __name__ == "__main__":
    run_program(main)
