"""The one pass over the generated pictures: every picture is decoded once for all figures."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data.flow import FlowFolder
from data.frame_check import Frame
from models.results import flow_path
from script.metrics.image_sets import (
    SetFeatures,
    in_batches_of_one_size,
    in_order,
    size_text,
)
from script.metrics.lpips_distance import SMALLEST_SIDE, LPIPSDistance
from script.metrics.pairing import ResultFile
from util.errors import UserError
from util.flow import end_point_errors, resize_flow
from util.image_scores import mask_picture
from util.images import open_image, read_image
from util.npz_files import read_arrays

PictureScore = Callable[[np.ndarray, np.ndarray], float]
LPIPS_NAMES = {"LPIPS": "v0.1", "LPIPS_v0.0": "v0.0"}


@dataclass
class ScoredPicture:
    """A generated picture as a worker hands it over.

    Attributes:
        path: its file.
        picture: uint8 [H, W, 3]; None when it cannot be read.
        target: ground truth of the same size; None when there is none.
        mask: bool [H, W], the body; None without --calculate_mask.
        scores: by figure.
        problems: what the user must be told: this picture lacks a figure because of it.
        notices: properties worth a warning, such as a greyscale file.
    """

    path: Path
    picture: np.ndarray | None = None
    target: np.ndarray | None = None
    mask: np.ndarray | None = None
    scores: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BodyMasks:
    """Makes the body mask of a result from the key points of its target (or source).

    Attributes:
        draw: from a pose [K, 2] and a (height, width) to bool [H, W].
        poses: by pair, [K, 2] in pixels of the frame, or what is wrong with it.
        frame: (height, width) that key points refer to, or "image", the picture's own size.
    """

    draw: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    poses: dict[str, np.ndarray | str]
    frame: Frame

    def of(self, pair: str, size: tuple[int, int]) -> np.ndarray:
        """The mask of a pair at the picture's `size`; raises UserError without a usable pose."""
        pose = self.poses[pair]
        if isinstance(pose, str):
            raise UserError(pose)
        height, width = size if self.frame == "image" else self.frame
        mask = self.draw(pose * (size[1] / width, size[0] / height), size)
        if not mask.any():
            raise UserError("its key points draw no body (none, or none joined by a limb)")
        return mask


class ScoredPictures(Dataset):
    """Item: a ScoredPicture with all figures that need no network.

    Args:
        results: the generated pictures.
        plain: scores of (result, target), uint8 [H, W, 3] each, by figure.
        masked: the same for pictures that are black outside the body; needs `masks`.
        masks: makes the body masks, or None.
        flow_folder: folder of true flow, or None.
    """

    def __init__(
        self,
        results: Sequence[ResultFile],
        plain: dict[str, PictureScore],
        masked: dict[str, PictureScore],
        masks: BodyMasks | None = None,
        flow_folder: Path | None = None,
    ) -> None:
        self._results = results
        self._plain = plain
        self._masked = masked
        self._masks = masks
        self._flow_folder = flow_folder

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, index: int) -> ScoredPicture:
        result = self._results[index]
        scored = ScoredPicture(result.path)
        try:
            scored.picture = _read(result.path, scored.notices)
            if result.target is None:
                raise UserError(f"{result.path}: {result.problem}")
            target = _read(result.target, scored.notices)
            if target.shape != scored.picture.shape:
                raise UserError(
                    f"{result.path} is {size_text(scored.picture)}, its ground truth "
                    f"{result.target} {size_text(target)} (height x width): "
                    + _size_advice(scored.picture.shape, target.shape)
                )
            scored.target = target
            self._score(result, scored)
        except UserError as error:
            scored.problems.append(str(error))
        return scored

    def _score(self, result: ResultFile, scored: ScoredPicture) -> None:
        picture, target = scored.picture, scored.target
        self._apply(self._plain, picture, target, result, scored)
        if self._masks is not None:
            try:
                scored.mask = mask = self._masks.of(result.pair, picture.shape[:2])
                pictures = mask_picture(picture, mask), mask_picture(target, mask)
                self._apply(self._masked, *pictures, result, scored)
            except UserError as error:
                scored.problems.append(f"{result.path}: masked figures: {error}")
        if self._flow_folder is not None:
            scored.scores["EPE"] = flow_error(result, self._flow_folder, picture.shape[:2])

    @staticmethod
    def _apply(
        functions: dict[str, PictureScore],
        picture: np.ndarray,
        target: np.ndarray,
        result: ResultFile,
        scored: ScoredPicture,
    ) -> None:
        for name, function in functions.items():
            try:
                scored.scores[name] = function(picture, target)
            except UserError as error:
                scored.problems.append(f"{result.path}: {name}: {error}")


def _read(path: Path, notices: list[str]) -> np.ndarray:
    picture = read_image(path)
    with open_image(path) as stored:
        if stored.mode != "RGB":
            change = "transparency blended on white" if "A" in stored.mode else "converted to RGB"
            notices.append(f"stored as {stored.mode}, {change}")
    return np.array(picture)


def _size_advice(result: tuple[int, ...], truth: tuple[int, ...]) -> str:
    """What to do about a result whose size, [height, width, 3], is not its ground truth's."""
    (height, width, _), (true_height, true_width, _) = result, truth
    if height == true_height and width % true_width == 0:
        return "is it a strip of several pictures? Score the pictures by themselves"
    same_shape = height * true_width == width * true_height
    if same_shape or (true_height >= height and true_width >= width):
        return (
            f"make the ground truth of that size with script.resize_dataset --size={height},{width}"
        )
    return "are they the pictures that test.py wrote, and is this their ground truth?"


def flow_error(result: ResultFile, truth_folder: Path, size: tuple[int, int]) -> float:
    """End-point error of a pair's saved flow (test.py --save_flow) against the true one.

    Returns:
        Mean over the visible pixels, in pixels of the picture; NaN when none is visible.

    Raises:
        UserError: the pair's flow was not saved, or a file cannot be read.
    """
    path = flow_path(result.path.parent, result.pair)
    try:
        arrays = read_arrays(path)
        flow = torch.from_numpy(arrays["flow"].astype(np.float32))
        made_by = str(arrays.get("checkpoint", ""))
    except FileNotFoundError:
        raise UserError(f"{path}: no saved flow; run test.py with --save_flow") from None
    except Exception as error:  # numpy raises many kinds for a damaged archive
        raise UserError(f"{path}: cannot be read as flow ({error})") from None
    if flow.ndim != 3 or flow.shape[0] != 2 or not flow.isfinite().all():
        raise UserError(f"{path}: expected finite flow [2, h, w], got {list(flow.shape)}")
    if result.checkpoint and made_by != result.checkpoint:
        raise UserError(
            f"{path}: is the flow of an earlier run, of other weights than {result.path.name}; run "
            "test.py with --save_flow again"
        )
    folder = FlowFolder(truth_folder, size)
    if not folder.path(result.pair).is_file():
        raise UserError(f"--flow_path: there is no true flow {folder.path(result.pair)}")
    truth, visible = folder.read(result.pair)
    return float(end_point_errors(resize_flow(flow[None], size), truth[None], visible[None])[0])


@dataclass
class Scores:
    """The outcome of the pass.

    Attributes:
        rows: per result, scores by figure.
        sizes: of the pictures that were read, one entry each.
        problems: one message per thing that was left out.
        notices: how many files have each property worth a warning.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)


def score_pictures(
    dataset: ScoredPictures,
    *,
    features: Sequence[SetFeatures] = (),
    masked_features: SetFeatures | None = None,
    lpips: LPIPSDistance | None = None,
    device: torch.device,
    batch_size: int,
    workers: int,
) -> Scores:
    """Run the pass; what it holds in memory is one batch and the scores.

    Args:
        dataset: the pictures.
        features: take every picture that can be read, with or without ground truth.
        masked_features: takes every picture with a mask, black outside the body.
        lpips: distance of pairs, or None.
        device: where the networks are.
        batch_size: pictures at a time; does not change the results.
        workers: processes that decode and score.

    Returns:
        Scores; the order is the dataset's.
    """
    scores = Scores()
    with tqdm(total=len(dataset), desc="results", unit="image", disable=None) as bar:
        for items in in_order(dataset, batch_size, workers):
            readable = [item for item in items if item.picture is not None]
            pairs = [item for item in readable if item.target is not None]
            bodies = [item for item in pairs if item.mask is not None]
            if readable:
                for collector in features:
                    collector.add([item.picture for item in readable])
            if bodies and masked_features is not None:
                masked_features.add([mask_picture(item.picture, item.mask) for item in bodies])
            if lpips is not None:
                _add_lpips(lpips, device, pairs, bodies)
            for item in items:
                scores.rows.append(item.scores)
                scores.problems += item.problems
                scores.notices.update(item.notices)
            scores.sizes.update(size_text(item.picture) for item in readable)
            bar.update(len(items))
    return scores


def _add_lpips(
    lpips: LPIPSDistance,
    device: torch.device,
    pairs: Sequence[ScoredPicture],
    bodies: Sequence[ScoredPicture],
) -> None:
    def distances(*tensors: torch.Tensor) -> list[torch.Tensor]:
        by_version = lpips(*tensors)
        return [by_version[version] for version in LPIPS_NAMES.values()]

    for item in pairs:
        if min(item.picture.shape[:2]) < SMALLEST_SIDE:
            item.problems.append(
                f"{item.path}: LPIPS needs pictures of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}, "
                f"this is {size_text(item.picture)}"
            )
    for prefix, group in (("", pairs), ("mask_", bodies)):
        items = [item for item in group if min(item.picture.shape[:2]) >= SMALLEST_SIDE]
        if not items:
            continue
        inputs = [[item.picture for item in items], [item.target for item in items]]
        if prefix:
            inputs.append([item.mask for item in items])
        columns = in_batches_of_one_size(distances, device, *inputs)
        for name, column in zip(LPIPS_NAMES, columns, strict=True):
            for item, value in zip(items, column.tolist(), strict=True):
                item.scores[prefix + name] = value
