"""The results folder of test.py: pictures, what lies beside them, and the table that names them."""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
import torch

from data.image_names import list_images
from models.base_model import Batch, Prediction
from models.pictures import draw_skeleton, flow_panels
from util.errors import UserError, printable
from util.files import name_limit, written_whole
from util.images import save_image, to_uint8
from util.layout import sheet
from util.pair_names import RESULT_MARK, SEPARATOR, check_unique, pair_name
from util.result_table import (
    TABLE_NAME,
    ResultRow,
    append_rows,
    options_cell,
    read_table,
    write_table,
)
from util.run.folder import options_text


def flow_path(results_folder: Path, pair: str) -> Path:
    """Where --save_flow puts the numbers of a pair's flow."""
    return results_folder / "flow" / f"{pair}_flow.npz"


def save_flow(path: Path, flow: torch.Tensor, checkpoint: str = "") -> None:
    """Write a flow field [2, h, w] (x, y in pixels of its own map) as `flow` in an npz file.

    Args:
        path: the file.
        flow: the field.
        checkpoint: hash of the weights that made it, kept beside it as `checkpoint`.

    Raises:
        UserError: the file cannot be written.
    """
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, flow=flow.cpu().numpy().astype(np.float32), checkpoint=checkpoint)


class ResultWriter:
    """Writes the pictures of a pair into the results folder, and their rows into its table.

    `<pair>_vis.<format>` lies in the folder itself, where the metrics look for it; what
    --save_input and --save_flow add lies in folders below.

    Args:
        options: parsed options of test.py.
        checkpoint: hash of the weights, see util/result_table.py.
        pairs: paths of source and target of all pairs, whose file names are checked.
        inputs: what tells whether the inputs of each pair have changed, see PairDataset.
        where: what lists the pairs, for messages.

    Raises:
        UserError: two pairs would have one name, or a file's name would be too long.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        checkpoint: str,
        pairs: Sequence[tuple[str, str]],
        inputs: Sequence[str],
        where: object,
    ) -> None:
        self.options = options
        self.folder = Path(options.results_dir)
        self.checkpoint = checkpoint
        self._options_cell = options_cell(options)
        self._pairs = pairs
        check_unique(pairs, where)
        self._inputs_of: dict[str, str] = {}
        for paths, text in zip(pairs, inputs, strict=True):
            pair = pair_name(*paths)
            if self._inputs_of.setdefault(pair, text) != text:
                raise UserError(
                    f"{where}: holds different pairs of the names {' and '.join(paths)}, which "
                    f"would both become {pair}{RESULT_MARK}: keep one of them"
                )
        endings = [f"{RESULT_MARK}.{options.results_format}"]
        if options.save_input:
            endings += [f"_{name}.{options.results_format}" for name in ("source", "target")]
        self._check_lengths(endings)
        self.kept: list[ResultRow] = []  # rows that the table begins with
        self._has_begun = False

    def _check_lengths(self, endings: Iterable[str]) -> None:
        limit, longest = name_limit(self.folder), max(endings, key=len)
        for paths in self._pairs:
            length = len(os.fsencode(pair_name(*paths) + longest))
            if length > limit:
                raise UserError(
                    f"--results_dir: the pair {' and '.join(Path(path).name for path in paths)} "
                    f"needs a file name of {length} bytes (both names and {SEPARATOR}…{longest}), "
                    f"{limit} is the longest that {self.folder} takes: give these images shorter "
                    "names, also in the tables"
                )

    def row(self, source: str, target: str) -> ResultRow:
        """The row of the table for the result of a pair, given by its paths."""
        pair = pair_name(source, target)
        return ResultRow(
            self.result_path(pair).name,
            Path(source).name,
            Path(target).name,
            self._options_cell,
            self.checkpoint,
            self._inputs_of[pair],
        )

    def result_path(self, pair: str) -> Path:
        """Where a pair's generated picture goes."""
        return self.folder / f"{pair}{RESULT_MARK}.{self.options.results_format}"

    def is_whole(self, pair: str) -> bool:
        """Whether a pair's result is there with all that the options ask for beside it."""
        paths = [self.result_path(pair)]
        if self.options.save_input:
            paths.append(self.folder / "strips" / f"{pair}.{self.options.results_format}")
        if self.options.save_flow:
            paths.append(flow_path(self.folder, pair))
        return all(path.exists() for path in paths)

    def write(self, batch: Batch, prediction: Prediction) -> None:
        """Write a batch; each result after what lies beside it, and the rows of the table last.

        The first one makes the folder, with the table as it is before the first picture.
        """
        if not prediction.image.isfinite().all():
            raise UserError(
                f"the network makes NaN or infinite numbers of {batch['P1_path'][0]} or a pair of "
                "its batch, no picture: its weights are spoiled; take another checkpoint "
                "(--which_iter)"
            )
        results = to_uint8(prediction.image)
        inputs = self._inputs(batch) if self.options.save_input else {}
        extras = {name: to_uint8(picture) for name, picture in prediction.extras.items()}
        flows = flow_panels(batch["P1"], prediction) if self.options.save_flow else {}
        if not self._has_begun:
            if flows:
                self._check_lengths([f"_{name}.{self.options.results_format}" for name in flows])
            elif self.options.save_flow:
                print(f"--save_flow has no effect: --model={self.options.model} has no flow")
            write_table(self.folder, self.kept)
            with written_whole(self.folder / "test_opt.txt") as temporary:
                text = options_text(self.options)
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            self._has_begun = True
        for row, paths in enumerate(zip(batch["P1_path"], batch["P2_path"], strict=True)):
            pair = pair_name(*paths)
            if inputs:
                for name in ("source", "target"):
                    self._save(self.folder / "inputs" / f"{pair}_{name}", inputs[name][row])
                strip = {**inputs, **extras, "result": results}
                picture = sheet({name: panel[row : row + 1] for name, panel in strip.items()})
                self._save(self.folder / "strips" / pair, picture)
            for name, panel in flows.items():
                self._save(self.folder / "flow" / f"{pair}_{name}", panel[row])
            if self.options.save_flow and prediction.flows:
                flow = prediction.flows[-1][row]
                save_flow(flow_path(self.folder, pair), flow, self.checkpoint)
            save_image(self.result_path(pair), results[row], quality=self.options.jpeg_quality)
        append_rows(self.folder, map(self.row, batch["P1_path"], batch["P2_path"]))

    def _save(self, stem: Path, picture: np.ndarray) -> None:
        path = stem.with_name(f"{stem.name}.{self.options.results_format}")
        save_image(path, picture, quality=self.options.jpeg_quality)

    @staticmethod
    def _inputs(batch: Batch) -> dict[str, np.ndarray]:
        size = tuple(batch["P1"].shape[-2:])
        poses = [draw_skeleton(pose, size) for pose in batch["pose2"].cpu().numpy()]
        return {
            "source": to_uint8(batch["P1"]),
            "target pose": np.stack(poses),
            "target": to_uint8(batch["P2"]),
        }


def choose_pairs(writer: ResultWriter, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Give the positions of pairs to make; the writer gets the rows that the table begins with.

    What the folder holds of other runs is told. With --skip_existing results of these weights and
    options are kept.

    Raises:
        UserError: the table is not one of test.py's, or --skip_existing meets other results.
    """
    folder, options = writer.folder, writer.options
    table = read_table(folder)
    if table is None and (folder / TABLE_NAME).exists():
        raise UserError(
            f"--results_dir: {folder / TABLE_NAME} is not a table of test.py, which would replace "
            "it: move it away, or choose another folder"
        )
    images = list_images(folder) if folder.exists() else []
    there = {name for name in images if Path(name).stem.endswith(RESULT_MARK)}
    listed = {name: row for name, row in (table or {}).items() if name in there}
    rows = [writer.row(*paths) for paths in pairs]
    own = {row.result for row in rows}
    kept, unlisted = set(), 0
    if options.skip_existing:
        others = [(listed[r.result], r) for r in rows if r.result in listed]
        others = [(earlier, row) for earlier, row in others if earlier.differences_for_pair(row)]
        if others:
            earlier, row = others[0]
            raise UserError(
                f"--skip_existing: {len(others)} results in {folder} were made otherwise, such as "
                f"{row.result}: {'; '.join(earlier.differences_for_pair(row))}: choose another "
                "--results_dir, or leave --skip_existing out to make them anew"
            )
        unlisted = len((own & there) - listed.keys())
        kept = {r.result for r, paths in zip(rows, pairs, strict=True)
                if r.result in listed and writer.is_whole(pair_name(*paths))}  # fmt: skip
    strangers = {name: row for name, row in listed.items() if name not in own}
    writer.kept = [*strangers.values(), *(listed[name] for name in sorted(kept))]
    if options.skip_existing:
        count = sum(row.result in kept for row in rows)
        print(f"--skip_existing: {count} of {len(rows)} results are there")
        if unknown := sum(row.result in kept and not listed[row.result].inputs for row in rows):
            print(
                f"--skip_existing: {unknown} of them are of an earlier version: whether their "
                "images and key points have changed since is not known"
            )
        if unlisted:
            print(
                f"--skip_existing: {unlisted} more are not in {TABLE_NAME}, which tells their "
                "weights: made anew"
            )
    _tell_others(folder, rows[0], strangers, there - listed.keys() - own)
    return [number for number, row in enumerate(rows) if row.result not in kept]


def _tell_others(
    folder: Path, row: ResultRow, listed: Mapping[str, ResultRow], unlisted: Set[str]
) -> None:
    """Say which results of other runs stay in the folder beside those of `row`'s."""
    otherwise = {name for name, other in listed.items() if other.differences(row)}
    mixed = "script.metrics will not score them together with the new ones"
    for names, what in (
        (listed.keys() - otherwise, "of the same weights and options, but not of the pairs now"),
        (otherwise, f"of other weights or options: {mixed}"),
        (unlisted, f"not in {TABLE_NAME}: {mixed}"),
    ):
        if names:
            name = printable(min(names))
            print(f"{folder}: {len(names)} earlier results stay, such as {name}, {what}")
