"""Curves of one or several runs as a picture.

python -m script.plot_losses result/NAME [result/NAME2 ...] [--out losses.svg]
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from util.argument_types import positive_int
from util.command_line import Parser, run_program


def parse_plot_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="python -m script.plot_losses",
        description="Draw the losses of one or several runs from their metrics.jsonl.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="result/NAME")
    parser.add_argument(
        "--out", type=Path, default=Path("losses.png"), help="the picture: .png, .svg or .pdf"
    )
    parser.add_argument("--losses", help="only these, with commas between [all]")
    parser.add_argument(
        "--smooth",
        type=positive_int,
        default=1,
        help="draw the mean of so many records around each one, the record itself faint behind",
    )
    return parser.parse_all(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture."""
    from util.loss_plot import plot_losses, read_losses

    options = parse_plot_options(arguments)
    losses, notes = read_losses(options.folders)
    for note in notes:
        print(note)
    names = options.losses.split(",") if options.losses else None
    plot_losses(losses, options.out, names, options.smooth)
    print(options.out)
    return 0


if __name__ == "__main__":
    run_program(main)
