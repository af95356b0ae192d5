"""Data sets by name: `data/<name>_dataset.py` holds the PairDataset of --dataset_mode=<name>."""

import argparse

from data.loader import create_loader
from data.pair_dataset import PairDataset
from util.errors import UserError, printable
from util.registry import class_in, names_in

__all__ = ["PairDataset", "create_dataset", "create_loader", "dataset_names", "find_dataset"]


def dataset_names() -> list[str]:
    """List the names that --dataset_mode takes."""
    return names_in("data", "_dataset", left_out="pair")


def find_dataset(name: str) -> type[PairDataset]:
    """Give the data set class of a name. Raises UserError for an unknown one."""
    if name not in dataset_names():
        raise UserError(f"--dataset_mode {name}: is not one of {', '.join(dataset_names())}")
    return class_in("data", name, "_dataset", PairDataset)


def create_dataset(
    options: argparse.Namespace,
    phase: str | None = None,
    augment: bool | None = None,
    pose_mask: bool = False,
) -> PairDataset:
    """Make the data set that options ask for and print what its user should know.

    The arguments are those of PairDataset.from_options. Raises UserError for bad options or files.
    """
    dataset = find_dataset(options.dataset_mode).from_options(options, phase, augment, pose_mask)
    for notice in dataset.notices:
        print(printable(f"Data: {notice}"), flush=True)
    return dataset
