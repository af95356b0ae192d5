"""Generate the pictures of a test set.

python test.py --name=pose_fashion_checkpoints --model=pose --attn_layer=2,3
    --kernel_size=2=5,3=3 --gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion
    --results_dir=./eval_results/fashion
"""

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    from util.command_line import run_program

    run_program("test")

import argparse
import errno
import os
import time
from pathlib import Path

import torch
from tqdm import tqdm

from data import create_dataset, create_loader
from models import create_model
from models.checkpoints import load_for_test
from models.results import ResultWriter, choose_pairs
from options.base_options import parse_test_options
from options.test_options import JPEG_QUALITY
from util.device import keep_freed_memory
from util.errors import UserError
from util.result_table import weights_hash
from util.run.folder import run_folder


def generate(options: argparse.Namespace) -> int:
    """Generate the picture of every pair of the phase; returns the exit code.

    Raises:
        UserError: no usable checkpoint, data set or results folder.
    """
    torch.manual_seed(options.seed)
    dataset = create_dataset(options)
    model = create_model(options)
    if model.device.type == "cpu":
        keep_freed_memory()
    for report in load_for_test(model, run_folder(options), options.which_iter):
        print(report)
    _check_writable(Path(options.results_dir))
    paths = [dataset.pair_paths(index) for index in range(len(dataset))]
    inputs = [dataset.input_digest(index) for index in range(len(dataset))]
    writer = ResultWriter(options, weights_hash(model.networks), paths, inputs, dataset.pairs_path)
    chosen = choose_pairs(writer, paths)
    if options.jpeg_quality != JPEG_QUALITY and options.results_format != "jpg":
        print("--jpeg_quality has no effect without --results_format=jpg")
    pairs = torch.utils.data.Subset(dataset, chosen)
    loader = create_loader(
        pairs, options.batchSize, training=False, workers=options.nThreads, device=model.device
    )
    started, written = time.monotonic(), 0
    with tqdm(total=len(chosen), desc="generating", unit="image", disable=None) as bar:
        for batch in loader:
            writer.write(batch, model.predict(batch))
            bar.update(len(batch["P1_path"]))
            written += len(batch["P1_path"])
    seconds = time.monotonic() - started
    rate = f", {written / seconds:.1f} images per second" if written else ""
    print(f"{written} images in {writer.folder}{rate}")
    if written < len(chosen):
        if not written:
            raise UserError(f"{dataset.pairs_path}: no pair has images that can be read: see above")
        print(f"{len(chosen) - written} pairs left out, their images cannot be read: see above")
    return 0


def _check_writable(folder: Path) -> None:
    """Refuse a results folder that cannot be made or written; it is made with the first picture."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise UserError(f"--results_dir: {folder} cannot be made ({error.strerror})") from error
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"--results_dir: {there} cannot be written: choose another folder, or change its "
            "permissions"
        )


def main() -> int:
    """Read the command line and generate."""
    return generate(parse_test_options())
