"""Write the tables of docs/options.md from the parsers: python -m script.options_table."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from util.command_line import Parser, run_program
from util.errors import UserError

START, END = "<!-- options: start -->", "<!-- options: end -->"


def option_rows(parser: Parser) -> dict[str, tuple[str, str]]:
    """Default and help text of every option, by its names."""
    rows = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        default = "" if action.default in (None, argparse.SUPPRESS) else action.default
        default = "" if default is False else default
        if isinstance(default, (tuple, list)):
            default = ",".join(str(value) for value in default)
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        rows[names] = (f"`{default}`" if default != "" else "", f"{action.help}{choices}")
    return rows


def table(parsers: dict[str, Parser]) -> list[str]:
    """Lines of one markdown table; a row that not all models share says whose it is.

    Args:
        parsers: of one program, by model.
    """
    owners: dict[tuple[str, str, str], list[str]] = {}
    for model, parser in parsers.items():
        for names, (default, text) in option_rows(parser).items():
            owners.setdefault((names, default, text), []).append(model)
    order = list(dict.fromkeys(names for names, _, _ in owners))
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for (names, default, text), models in sorted(
        owners.items(), key=lambda x: order.index(x[0][0])
    ):
        note = "" if len(models) == len(parsers) else f" [{', '.join(models)}]"
        lines.append(f"| {names} | {default} | {text}{note} |")
    return lines


def options_markdown() -> str:
    """The tables of train.py and test.py, for all models, as markdown."""
    from models import model_names
    from options.base_options import build_test_parser, build_train_parser

    parts = []
    for program, build in (("train.py", build_train_parser), ("test.py", build_test_parser)):
        parsers = {
            model: build([f"--model={model}", "--dataset_mode=market"]) for model in model_names()
        }
        parts.append("\n".join([f"## {program}", "", *table(parsers)]))
    return "\n\n".join(parts) + "\n"


def updated(text: str) -> str:
    """The page's text with fresh tables between the two marker comments.

    Raises:
        UserError: the markers are not there.
    """
    if START not in text or END not in text:
        raise UserError(f"docs/options.md lacks the markers {START} and {END}")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{START}\n{options_markdown()}{END}{after}"


def main() -> int:
    """Rewrite the project's docs/options.md."""
    Parser(prog="python -m script.options_table", description=__doc__).parse_all()
    path = Path(__file__).parents[1] / "docs" / "options.md"
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{path} updated")
    return 0


if __name__ == "__main__":
    run_program(main)
