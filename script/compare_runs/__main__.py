"""Put several reports of script.metrics side by side, with paired differences.

    python -m script.compare_runs eval_results/a_metrics eval_results/b_metrics --baseline=a

The first table has a row per run. The second says, for every figure that each pair of images has,
by how much a run differs from the baseline on the same pairs, with a bootstrap interval.
"""

import shutil
from pathlib import Path

from util.argument_types import non_negative_int, positive_int, real_number
from util.command_line import Parser, run_program
from util.errors import UserError
from util.files import real_path, written_whole


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison.

    Raises:
        UserError: bad options, or a report that is missing, damaged or given twice.
    """
    from script.compare_runs.comparison import CLUSTERS, Bootstrap
    from script.compare_runs.comparison_text import compare_text
    from script.compare_runs.runs import find_run, read_runs

    parser = Parser(prog="python -m script.compare_runs", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("reports", nargs="+", metavar="DIR", help="report folders, or their metrics.json")
    add("--baseline", help="name or folder of the run to compare with; None is the first DIR")
    add("--figures", help="only these, separated by commas; None is all that there are")
    add("--markdown", action="store_true", help="tables for GitHub")
    add("--output", help="file to write the text to as well")
    add("--resamples", type=positive_int, default=10_000, help="of the bootstrap")
    add(
        "--confidence",
        type=real_number(0, 99.99, above=True),
        default=95.0,
        help="of the intervals, in percent",
    )
    add("--seed", type=non_negative_int, default=0, help="of the bootstrap")
    add(
        "--cluster", choices=CLUSTERS, default="linked",
        help="pairs drawn together, as their scores are not independent: those that share images "
        "(linked: directly or through others), one source, one target, none",
    )  # fmt: skip
    options = parser.parse_all(arguments)

    bootstrap = Bootstrap(options.resamples, options.confidence, options.seed, options.cluster)
    runs = read_runs([Path(path) for path in options.reports])
    text = compare_text(
        runs,
        find_run(runs, options.baseline) if options.baseline else runs[0],
        bootstrap,
        [name.strip() for name in options.figures.split(",")] if options.figures else None,
        options.markdown,
        shutil.get_terminal_size((120, 24)).columns,
    )
    if options.output:  # first: what shows the text may be closed
        output = Path(options.output)
        parts = ("metrics.json", "metrics.csv")
        if real_path(output) in {real_path(run.folder / part) for run in runs for part in parts}:
            raise UserError(f"--output: {output} is of a report; give another name")
        with written_whole(output) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    print(text, end="")
    return 0


if __name__ == "__main__":
    run_program(main)
