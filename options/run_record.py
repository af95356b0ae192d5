"""What a run's checkpoints keep of its options, and what a run that goes on does otherwise."""

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints import TrainingStart
from options.base_options import contradiction, weight_options
from util.command_line import as_argument
from util.errors import UserError, printable
from util.files import LARGEST_TEXT, regular_file

# Options that leave the trained weights as they would be, or that are told in other lines.
_UNTOLD = frozenset([
    "debug", "is_train", "dry_run", "name", "model", "checkpoints_dir", "which_iter",
    "continue_train", "init_from", "from_scratch", "gpu_ids", "nThreads", "seed", "batchSize",
    "serial_batches", "iter_count", "init_type", "print_freq", "display_freq", "save_latest_freq",
    "save_iters_freq", "eval_iters_freq", "eval_pairs", "no_html", "keep_checkpoints",
    "save_failure", "skip_nonfinite", "display_backend", "display_id", "display_server",
    "display_port", "display_env", "display_winsize", "display_single_pane_ncols",
    "start_dashboard", "skip_bad_samples", "max_dataset_size",
])  # fmt: skip
# What the next stage shares with the one before, whose losses and rates are its own.
_OF_DATA = frozenset(["dataset_mode", "dataroot", "phase", "old_size", "load_size"])
_LENGTH = frozenset(["niter", "niter_decay"])
_PATHS = ("dataroot", "vgg_weights")
_PYTHON_NUMBERS = re.compile(r"[(\[{][-+\d.e,: ]*[)\]}]")


def option_texts(options: argparse.Namespace) -> dict[str, str]:
    """The options that the trained weights follow from, as they are written on a command line."""
    told = {name: value for name, value in vars(options).items() if name not in _UNTOLD}
    texts = {name: as_argument(value) for name, value in told.items()}
    if not _decays_at_the_end(texts):
        del texts["niter"]  # a longer run is the same run, its state the same file
    return texts


def _as_written(text: str) -> str:
    """What train_opt.txt and states of earlier versions have as `(128, 64)` or `{2: 5}`."""
    if not _PYTHON_NUMBERS.fullmatch(text):
        return text
    return text[1:-1].rstrip(",").replace(" ", "").replace(":", "=")


def changes(
    options: argparse.Namespace, settings: Mapping[str, Any], start: TrainingStart, folder: Path
) -> list[str]:
    """Lines on what makes the rest of a run another one than it would have been.

    Args:
        options: parsed options of train.py.
        settings: what the data order and the random numbers follow from.
        start: what the run goes on from.
        folder: where that lies.

    Raises:
        UserError: an option contradicts the weights.
    """
    is_next_stage = start.earlier_model is not None
    before = start.run.get("options") or _last_options(folder, start.earlier_model or options.model)
    before = {name: _as_written(text) for name, text in before.items()}
    now = option_texts(options)
    differing = [
        name
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name] and not _same_path(name, before[name], now[name])
    ]
    for name in weight_options(options.model):
        if name in differing and (text := contradiction(options, name, before[name], folder)):
            raise UserError(text)
    lines = [
        f"{name}: {value}, the checkpoint comes from {start.run[name]}: from here on the data "
        "order or the random numbers are not those of one run without a break"
        for name, value in settings.items()
        if not is_next_stage and start.run.get(name, value) != value
    ]
    told = [name for name in differing if not is_next_stage or name in _OF_DATA]
    if not any(map(_decays_at_the_end, (before, now))):  # a longer run is the same run
        told = [name for name in told if name not in _LENGTH]
    lines += [f"--{name}: {before[name]} until here, now {now[name]}" for name in told]
    return [printable(line) for line in lines]  # what was before is the file's


def _decays_at_the_end(texts: Mapping[str, str]) -> bool:
    return texts.get("lr_policy") == "lambda" and texts.get("niter_decay") != "0"


def _same_path(name: str, first: str, second: str) -> bool:
    return name in _PATHS and os.path.realpath(first) == os.path.realpath(second)


def _last_options(folder: Path, model: str) -> dict[str, str]:
    """The options of a model's last run by train_opt.txt, for states of earlier versions."""
    path = folder / "train_opt.txt"
    try:
        regular_file(path, LARGEST_TEXT)
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    found: dict[str, str] = {}
    for block in text.split("------------ Options -------------")[1:]:
        pairs = (line.split(": ", 1) for line in block.splitlines() if ": " in line)
        options = dict(pairs)
        if options.get("model") == model:
            found = options
    return found
