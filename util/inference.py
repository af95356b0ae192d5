"""Generating the pictures of a test set."""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import PairDataset, create_dataset, create_loader
from models import create_model
from models.base_model import Batch, Prediction
from options.base_options import options_text, run_folder
from util.errors import UserError
from util.files import written_whole
from util.images import save_image, to_uint8
from util.pictures import draw_skeleton, flow_panels, sheet
from util.precision import keep_freed_memory


def pair_name(source_path: str, target_path: str) -> str:
    """`<stem of P1>_2_<stem of P2>`, the start of every file name of a pair."""
    return f"{Path(source_path).stem}_2_{Path(target_path).stem}"


def flow_path(results_folder: Path, pair: str) -> Path:
    """Where --save_flow puts the numbers of a pair's flow."""
    return results_folder / "flow" / f"{pair}_flow.npz"


def save_flow(path: Path, flow: torch.Tensor) -> None:
    """Write a flow field [2, h, w] (x, y in pixels of its own map) as `flow` in an npz file.

    Raises:
        UserError: the file cannot be written.
    """
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, flow=flow.cpu().numpy().astype(np.float32))


class ResultWriter:
    """Writes the pictures of a pair into the results folder.

    `<pair>_vis.<format>` lies in the folder itself, where the metrics look for it; what
    --save_input and --save_flow add lies in folders below.

    Args:
        options: parsed options of test.py.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(options.results_dir)

    def result_path(self, pair: str) -> Path:
        """Where a pair's generated picture goes."""
        return self.folder / f"{pair}_vis.{self.options.results_format}"

    def write(self, batch: Batch, prediction: Prediction) -> None:
        """Write a batch; each result last, so that --skip_existing finds whole pairs."""
        results = to_uint8(prediction.image)
        inputs = self._inputs(batch) if self.options.save_input else {}
        extras = {name: to_uint8(picture) for name, picture in prediction.extras.items()}
        flows = flow_panels(batch["P1"], prediction) if self.options.save_flow else {}
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
                save_flow(flow_path(self.folder, pair), prediction.flows[-1][row])
            save_image(self.result_path(pair), results[row], quality=self.options.jpeg_quality)

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


def _check_result_names(dataset: PairDataset) -> None:
    """Raise UserError where two pairs would write the same file: names carry no suffix."""
    paths_of: dict[str, tuple[str, str]] = {}
    for paths in map(dataset.pair_paths, range(len(dataset))):
        name = pair_name(*paths)
        earlier = paths_of.setdefault(name, paths)
        if earlier != paths:
            raise UserError(
                f"{dataset.pairs_path}: the pairs {', '.join(earlier)} and {', '.join(paths)} "
                f"would both become {name}_vis: rename an image"
            )


def run_inference(options: argparse.Namespace) -> int:
    """Generate the picture of every pair of the phase; returns the exit code.

    Raises:
        UserError: no usable checkpoint, data set or results folder.
    """
    torch.manual_seed(options.seed)
    dataset = create_dataset(options)
    model = create_model(options)
    if model.device.type == "cpu":
        keep_freed_memory()
    for report in model.load_for_test(run_folder(options), options.which_iter):
        print(report)
    writer = ResultWriter(options)
    _check_result_names(dataset)
    try:
        writer.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--results_dir: {writer.folder} cannot be made ({error.strerror})"
        ) from error
    if not os.access(writer.folder, os.W_OK | os.X_OK):
        raise UserError(
            f"--results_dir: {writer.folder} cannot be written: choose another folder, or change "
            "its permissions"
        )
    with written_whole(writer.folder / "test_opt.txt") as temporary:
        temporary.write_text(options_text(options), encoding="utf-8")
    chosen = range(len(dataset))
    if options.skip_existing:
        chosen = [
            i for i in chosen if not writer.result_path(pair_name(*dataset.pair_paths(i))).exists()
        ]
        print(f"--skip_existing: {len(dataset) - len(chosen)} of {len(dataset)} results are there")
    pairs = torch.utils.data.Subset(dataset, chosen)
    loader = create_loader(
        pairs,
        options.batchSize,
        training=False,
        workers=options.nThreads,
        device=model.device,
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
        print(f"{len(chosen) - written} pairs left out, their images cannot be read: see above")
    return 0
