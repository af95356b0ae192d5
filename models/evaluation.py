"""Scores of a model on test pairs: L1, SSIM, and flow error where the truth is known."""

import argparse
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.data import Subset
from tqdm import tqdm

from data import create_dataset, create_loader
from models.base_model import BaseModel, Batch, Prediction
from util.errors import UserError
from util.flow import end_point_errors, resize_flow
from util.image_scores import l1, ssim
from util.images import to_uint8

SCORE_NAMES = {
    "L1": "mean |a-b| of images in [0, 1], less is better",
    "SSIM": "window 51, data range 1, more is better",
    "EPE": "flow end-point error in pixels over visible pixels, less is better",
}


def spread_indices(length: int, count: int) -> list[int]:
    """`count` indices spread evenly over range(length); all of them if there are no more."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def copy_source(batch: Batch) -> Prediction:
    """The baseline to beat: the source as it is, that is zero flow."""
    source = batch["P1"]
    return Prediction(source, [torch.zeros_like(source[:, :2])])


def score_batch(batch: Batch, prediction: Prediction) -> list[dict[str, float]]:
    """Scores of each sample, by the names of SCORE_NAMES; EPE only where the batch has true flow.

    Pictures are compared as the uint8 images that would be saved. EPE takes the finest flow,
    resized to the image; it is NaN for a pair without a visible pixel.
    """
    results, targets = to_uint8(prediction.image), to_uint8(batch["P2"])
    scores = [
        {"L1": l1(result, target), "SSIM": ssim(result, target)}
        for result, target in zip(results, targets, strict=True)
    ]
    if "flow" in batch and prediction.flows:
        truth = batch["flow"]
        flow = resize_flow(prediction.flows[-1], tuple(truth.shape[-2:]))
        for score, error in zip(
            scores, end_point_errors(flow, truth, batch["visible"]), strict=True
        ):
            score["EPE"] = float(error)
    return scores


def evaluate(
    predict: Callable[[Batch], Prediction],
    loader: Iterable[Batch],
    description: str = "evaluating",
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Mean scores over a set of pairs.

    Args:
        predict: from a batch to a prediction.
        loader: batches of dataset items on the device of `predict`, each pair once.
        description: text of the progress bar.
        should_stop: asked before every batch.

    Returns:
        Mean of every score over the pairs that have it, and `pairs`, their number; None when it
        was asked to stop.
    """
    scores: list[dict[str, float]] = []
    for batch in tqdm(loader, desc=description, leave=False, disable=None):
        if should_stop():
            return None
        scores += score_batch(batch, predict(batch))
    means = {
        name: _mean([score[name] for score in scores]) for name in (scores[0] if scores else {})
    }
    return {**means, "pairs": len(scores)}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def make_evaluation(
    options: argparse.Namespace, model: BaseModel
) -> Callable[[Callable[[], bool]], dict[str, float] | None] | None:
    """A function that scores the model on test pairs, or None where there are none to score on.

    The function asks its argument whether to stop, and gives None if so.
    """
    if not options.eval_iters_freq:
        return None
    try:
        dataset = create_dataset(options, phase="test")
    except UserError as error:
        print(f"no evaluation during training: {error}")
        return None
    pairs = Subset(dataset, spread_indices(len(dataset), options.eval_pairs))

    def run(should_stop: Callable[[], bool]) -> dict[str, float] | None:
        loader = create_loader(
            pairs, options.batchSize, training=False, workers=options.nThreads, device=model.device
        )
        return evaluate(model.predict, loader, should_stop=should_stop)

    return run


def format_table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """The scores as a markdown table."""
    names = list(SCORE_NAMES)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, scores in rows:
        values = " | ".join(f"{scores[name]:.4f}" if name in scores else "" for name in names)
        lines.append(f"| {title} | {values} |")
    legend = "; ".join(f"{name}: {meaning}" for name, meaning in SCORE_NAMES.items())
    return "\n".join([*lines, "", f"{rows[0][1]['pairs']} test pairs. {legend}."])
