"""Write the options tables of README.md from the parsers: python -m script.options_table."""

import argparse
from pathlib import Path

from options.parser import Parser, run_program
from options.test_options import build_test_parser
from options.train_options import build_train_parser
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
        choices = f" ({', '.join(action.choices)})" if action.choices else ""
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        rows[names] = (f"`{default}`" if default != "" else "", f"{action.help}{choices}")
    return rows


def table(stages: dict[str, Parser]) -> list[str]:
    """Lines of one markdown table; a row that not all parsers share says whose it is."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    rows = {stage: option_rows(parser) for stage, parser in stages.items()}
    for stage, own in rows.items():
        for names, row in own.items():
            is_shared = all(other.get(names) == row for other in rows.values())
            if is_shared and stage != next(iter(rows)):
                continue
            default, text = row
            note = "" if is_shared else f" [{stage}]"
            lines.append(f"| {names} | {default} | {text}{note} |")
    return lines


def options_markdown() -> str:
    """The tables of train.py (stage 1 and 2) and test.py as markdown."""
    data = "--dataset_mode=market"
    train = {
        "stage 1": build_train_parser(["--model=poseflownet", data]),
        "stage 2": build_train_parser(["--model=pose", data]),
    }
    test = {"": build_test_parser(["--model=pose", data])}
    parts = [["### train.py", "", *table(train)], ["### test.py", "", *table(test)]]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def updated(text: str) -> str:
    """The README's text with fresh tables between the two marker comments.

    Raises:
        UserError: the markers are not there.
    """
    if START not in text or END not in text:
        raise UserError(f"README.md lacks the markers {START} and {END}")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{START}\n{options_markdown()}{END}{after}"


def main() -> int:
    """Rewrite the project's README.md."""
    Parser(prog="python -m script.options_table", description=__doc__).parse_all()
    path = Path(__file__).parents[1] / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{path} updated")
    return 0


if __name__ == "__main__":
    run_program(main)
