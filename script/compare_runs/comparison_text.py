"""Runs side by side in words and tables, for the terminal and for GitHub."""

import math
import re
import textwrap
from collections.abc import Sequence

from script.compare_runs.comparison import Bootstrap, Difference, PairedComparison, compare_pairs
from script.compare_runs.runs import Run, peculiarities
from util.errors import UserError, printable

# Percentile intervals of fewer clusters than this are clearly too narrow.
FEW_CLUSTERS = 20
GAP = "  "

_CLUSTER_TEXT = {
    "linked": "clusters of pairs that share images, directly or through other pairs",
    "source": "clusters of pairs of one source image (too narrow where these share people)",
    "target": "clusters of pairs of one target image (too narrow where these share people)",
    "none": "single pairs as if they were independent (too narrow where they share images)",
}


def compare_text(
    runs: Sequence[Run],
    baseline: Run,
    bootstrap: Bootstrap,
    figures: Sequence[str] | None = None,
    markdown: bool = False,
    width: int = 120,
) -> str:
    """Everything `script.compare_runs` has to say.

    Args:
        runs: at least one.
        baseline: the one of them that differences are taken to.
        bootstrap: how intervals are made.
        figures: the columns; None is all that any run has.
        markdown: tables for GitHub.
        width: columns of the terminal; wider tables are cut into blocks. Not for markdown.

    Raises:
        UserError: no run has one of `figures`.
    """
    names = _chosen_figures(runs, figures)
    conflicts = _conflicts(runs, names)
    style = _Markdown() if markdown else _Plain(width)
    parts = [style.table(*_figure_rows(runs, names, conflicts, style)), ""]
    legend = ["↑ higher is better, ↓ lower is better"]
    if len(runs) > 1:
        legend.append(f"{style.best_example} is the best of a column")
    if conflicts:
        legend.append("! not the same figure in all runs: do not rank by it, see below")
    parts += [style.text(f"{'; '.join(legend)}."), ""]
    parts += _paired_parts(runs, baseline, names, bootstrap, style)
    notes = [f"! {note}" for note in _conflict_notes(conflicts)] + _remarks(runs, names)
    if notes:
        parts += [style.heading("Mind"), style.notes(notes), ""]
    return "\n".join(parts).rstrip() + "\n"


def _chosen_figures(runs: Sequence[Run], figures: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for run in runs for name in run.figures))
    for name in figures or ():
        if name not in known:
            raise UserError(
                f"--figures: no report has '{name}'; they have: {', '.join(known) or 'none'}"
            )
    return list(dict.fromkeys(figures or known))


# ---------------------------------------------------------------------------- the table of runs


def _figure_rows(
    runs: Sequence[Run], names: Sequence[str], conflicts: dict[str, list[str]], style: "_Style"
) -> tuple[list[str], list[list[str]]]:
    conflicting = {name for figures in conflicts.values() for name in figures}
    header = ["run"]
    for name in names:
        arrow = _arrow(next(run.figures[name].better for run in runs if name in run.figures))
        header.append(f"{style.name(name)} {arrow}{' !' if name in conflicting else ''}")
    best = {name: _best(runs, name) for name in names if name not in conflicting}
    rows = []
    for run in runs:
        row = [style.name(run.name)]
        for name in names:
            figure = run.figures.get(name)
            text = "" if figure is None else _number(figure.value)
            is_best = figure is not None and figure.value == best.get(name)
            row.append(style.best(text) if is_best else style.other(text))
        rows.append(row)
    return header, rows


def _best(runs: Sequence[Run], name: str) -> float | None:
    """The best value; None when there is nothing to choose."""
    figures = [run.figures[name] for run in runs if name in run.figures]
    values = {figure.value for figure in figures}
    if len(values) < 2:
        return None
    return max(values) if figures[0].better == "higher" else min(values)


def _arrow(better: str) -> str:
    return "↑" if better == "higher" else "↓"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.2f}"


def _conflicts(runs: Sequence[Run], names: Sequence[str]) -> dict[str, list[str]]:
    """Figures that runs made differently: by what differs (in words), the figures concerned."""
    conflicts: dict[str, list[str]] = {}
    for name in names:
        concerned = [run for run in runs if name in run.figures]
        by_run = {run.name: peculiarities(run, name) for run in concerned}
        for aspect in next(iter(by_run.values())):
            values = {run: own[aspect] for run, own in by_run.items()}
            if len(set(values.values())) > 1:
                conflicts.setdefault(_conflict_text(aspect, values), []).append(name)
    return conflicts


def _conflict_text(aspect: str, values: dict[str, object]) -> str:
    """Such as `the format differs: png (a, b); jpg (c)`."""
    if aspect == "protocol":
        common = set.intersection(*(set(parts) for parts in values.values()))
        values = {
            run: '"' + "; ".join(part for part in parts if part not in common) + '"'
            for run, parts in values.items()
        }
    by_value: dict[object, list[str]] = {}
    for run, value in values.items():
        by_value.setdefault(value, []).append(run)
    sides = "; ".join(
        f"{value if value != '' else 'not said'} ({', '.join(names)})"
        for value, names in by_value.items()
    )
    what = "number of images" if aspect == "images" else aspect
    return f"the {what} differs: {sides}"


def _conflict_notes(conflicts: dict[str, list[str]]) -> list[str]:
    return [f"{', '.join(names)}: {text}." for text, names in conflicts.items()]


def _remarks(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """What the reports themselves say about what is missing or doubtful."""
    remarks = []
    for run in runs:
        remarks += [
            f"{run.name} has no {figure}: {reason}"
            for figure, reason in run.left_out.items()
            if figure in names
        ]
        remarks += [f"{run.name}: {warning}" for warning in run.warnings]
        if run.problems:
            remarks.append(f"{run.name}: {run.problems} problems with pictures, see metrics.json")
    return remarks


# --------------------------------------------------------------------------- paired differences


def _paired_parts(
    runs: Sequence[Run],
    baseline: Run,
    names: Sequence[str],
    bootstrap: Bootstrap,
    style: "_Style",
) -> list[str]:
    others = [run for run in runs if run is not baseline]
    comparisons = [compare_pairs(baseline, run, names, bootstrap) for run in others]
    if not any(run.scores for run in others):
        return []
    differences = [entry for item in comparisons for entry in item.differences]
    notes = [_shared_text(item, baseline) for item in comparisons]
    if differences:
        notes += _difference_notes(differences, bootstrap)
    heading = f"Paired differences to {baseline.name}"
    if not differences:
        notes.append("No figure with values per pair is in both of two runs.")
        return [style.heading(heading), style.notes(notes), ""]
    header = [
        "run", "figure", "difference", f"{bootstrap.confidence:g} % interval", "verdict",
        "better", "worse", "pairs", "clusters",
    ]  # fmt: skip
    explanation = (
        f"Run minus {baseline.name}, mean over the pairs both have. Intervals: percentile "
        f"bootstrap, {bootstrap.resamples} resamples (seed {bootstrap.seed}) of "
        f"{_CLUSTER_TEXT[bootstrap.cluster]}. Verdict where the interval excludes 0; every "
        "interval stands by itself, so of many some exclude 0 by chance. better, worse: share of "
        "pairs. Intervals hold for other pictures of this kind, not for another training run."
    )
    return [
        style.heading(heading),
        style.table(header, [_difference_row(entry, style) for entry in differences], left=2),
        "",
        style.text(explanation),
        "",
        style.notes(notes),
        "",
    ]


def _difference_row(entry: Difference, style: "_Style") -> list[str]:
    numbers = (entry.mean, entry.low, entry.high)
    largest = max((abs(number) for number in numbers if number), default=1.0)
    decimals = 4 if math.isnan(largest) else min(8, max(4, 2 - math.floor(math.log10(largest))))
    mean, low, high = (f"{number:+.{decimals}f}" for number in numbers)
    return [
        style.name(entry.run),
        f"{style.name(entry.figure)} {'↑' if entry.higher_is_better else '↓'}",
        mean if entry.pairs else "",
        "none" if math.isnan(entry.low) else f"[{low}, {high}]",
        entry.verdict if entry.comparable else "!",
        f"{100 * entry.better:.1f} %" if entry.pairs else "",
        f"{100 * entry.worse:.1f} %" if entry.pairs else "",
        str(entry.pairs),
        str(entry.clusters),
    ]


def _shared_text(item: PairedComparison, baseline: Run) -> str:
    text = f"{item.run} and {baseline.name} share {item.shared} pairs"
    if item.only_run or item.only_baseline:
        text += (
            f"; {item.only_run} are only in {item.run} and {item.only_baseline} only in "
            f"{baseline.name}, and do not count"
        )
    return f"{text}."


def _difference_notes(differences: Sequence[Difference], bootstrap: Bootstrap) -> list[str]:
    notes = []
    for entry in differences:
        if entry.infinite:
            notes.append(
                f"{entry.run}, {entry.figure}: {entry.infinite} pairs with an infinite value "
                "(identical pictures) do not count."
            )
    few = {entry.clusters for entry in differences if entry.clusters < FEW_CLUSTERS}
    if few:
        notes.append(
            f"Fewer than {FEW_CLUSTERS} clusters: intervals are too narrow (fewer than 2: none), "
            "as the pairs show too few people or all share images."
            + (
                " --cluster=source makes smaller clusters, which are less independent."
                if bootstrap.cluster == "linked"
                else ""
            )
        )
    if any(not entry.comparable for entry in differences):
        notes.append("! The runs made this figure differently, so there is no verdict; see below.")
    return notes


# ---------------------------------------------------------------------------------- the styles


class _Plain:
    """Aligned columns for a terminal."""

    best_example = "*"

    def __init__(self, width: int) -> None:
        self._width = max(width, 60)

    def name(self, text: str) -> str:
        return printable(" ".join(text.split()))

    def best(self, text: str) -> str:
        return f"{text}*"

    def other(self, text: str) -> str:
        return f"{text} "

    def heading(self, text: str) -> str:
        return self.name(text)

    def text(self, text: str) -> str:
        return textwrap.fill(self.name(text), self._width)

    def notes(self, notes: Sequence[str]) -> str:
        return "\n".join(
            textwrap.fill(self.name(note), self._width, initial_indent="- ", subsequent_indent="  ")
            for note in notes
        )

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
        """Columns side by side, the first `left` of them flush left and in every block."""
        grid = [header, *rows]
        widths = [max(len(row[column]) for row in grid) for column in range(len(header))]
        fixed = sum(widths[:left]) + len(GAP) * (left - 1)
        blocks: list[list[int]] = [[]]
        used = fixed
        for column in range(left, len(header)):
            needed = len(GAP) + widths[column]
            if blocks[-1] and used + needed > self._width:
                blocks.append([])
                used = fixed
            blocks[-1].append(column)
            used += needed
        return "\n\n".join(
            "\n".join(
                GAP.join(
                    [row[column].ljust(widths[column]) for column in range(left)]
                    + [row[column].rjust(widths[column]) for column in block]
                ).rstrip()
                for row in grid
            )
            for block in blocks
        )


class _Markdown:
    """GitHub's tables, ready for a document."""

    best_example = "bold"

    def name(self, text: str) -> str:
        # The colon: else GitHub makes links of addresses.
        return re.sub(r"[\\|*_~<>\[\]`&$#]|:(?=//)", r"\\\g<0>", printable(" ".join(text.split())))

    def best(self, text: str) -> str:
        return f"**{text}**"

    def other(self, text: str) -> str:
        return text

    def heading(self, text: str) -> str:
        return f"### {self.name(text)}\n"

    def text(self, text: str) -> str:
        return self.name(text)

    def notes(self, notes: Sequence[str]) -> str:
        return "\n".join(f"- {self.name(note)}" for note in notes)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
        """Numbers flush right."""
        rule = ["---"] * left + ["---:"] * (len(header) - left)
        return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


_Style = _Plain | _Markdown
