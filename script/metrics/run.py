"""What `python -m script.metrics` does, from options to report."""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.annotations import read_poses
from data.body_mask import disc_body_mask, limb_body_mask
from data.frame_check import Frame
from data.image_names import files_not_read
from script.metrics.arguments import (
    check_paths,
    check_writable,
    choose_device,
    choose_figures,
    has_real_statistics,
    report_name,
    without_effect,
)
from script.metrics.figures import FigureKind
from script.metrics.frechet import frechet_distance
from script.metrics.gallery import write_gallery
from script.metrics.gallery_pairs import GalleryPair
from script.metrics.image_sets import (
    FEATURES,
    RealNetwork,
    RealSet,
    SetFeatures,
    describe_files,
    fingerprint,
    read_real_set,
    read_statistics,
)
from script.metrics.inception import ImageNetInception, StandardInception
from script.metrics.inception_score import inception_score
from script.metrics.kid import kernel_inception_distance
from script.metrics.lpips_distance import LPIPSDistance
from script.metrics.pairing import ResultFile, find_results
from script.metrics.report import Figure, Report, mean_figure
from script.metrics.scoring import BodyMasks, ScoredPictures, Scores, score_pictures
from util.device import keep_freed_memory
from util.errors import UserError, printable
from util.images import read_image_size
from util.packages import not_installed
from util.pretrained_weights import MissingWeights
from util.result_table import TABLE_NAME, read_table

KID_SUBSET = 1000
MASK_SHAPES = {
    "gfla": "limbs 8 px thick, joints of radius 4, closed 5x5",
    "pg2": "chains of discs of radius 4 along the limbs, closed 5x5",
}
# (height, width) of pictures and of the frame that key points of such data sets refer to.
USUAL_FRAMES = {(128, 64): (128, 64), (256, 256): (256, 176), (256, 176): (256, 176)}
IS_SPLITS = 10
SHUFFLE_SEED = 2020
GALLERY_ORDER = ("LPIPS", "SSIM", "SSIM_7x7", "L1", "L1_255", "PSNR", "MAE", "SSIM_256", "EPE")


def run_metrics(options: argparse.Namespace) -> int:
    """Score the results and write the report; options as `script.metrics` parses them.

    Returns:
        0, or 1 when something that was asked for is missing from the report.

    Raises:
        UserError: bad options, an empty folder, an unusable weight file.
    """
    output = Path(options.output)
    name = report_name(options)
    folder = output / f"{name}_metrics"
    if f"{name.name}.csv" == TABLE_NAME and read_table((output / name).parent) is not None:
        raise UserError(
            f"--name={options.name or name}: {output / name}.csv is there already, the table of "
            "test.py's results: choose another --name or --output"
        )
    kinds, skipped = choose_figures(options)
    check_paths(options)
    for text in without_effect(options, kinds):
        print(printable(text))
    found = find_results(
        Path(options.distorated_path), Path(options.gt_path), options.mixed_results
    )
    results = found.files
    names = [TABLE_NAME, *(result.path.name for result in results)]
    before = fingerprint(Path(options.distorated_path), names)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    report = Report(name=name.name, protocol=options.protocol, results={})
    report.problems += found.problems
    report.warnings += found.warnings
    folders = filter(None, (options.distorated_path, options.gt_path, options.fid_real_path))
    report.warnings += filter(
        None, (files_not_read(Path(folder)) for folder in folders if Path(folder).is_dir())
    )
    masks = None
    if any(kind.masked for kind in kinds.values()):
        masks = _body_masks(options, results, report)
    networks = _Networks.load(options, kinds, device, report)
    check_writable(folder)
    kinds = {figure: kind for figure, kind in kinds.items() if figure not in report.left_out}

    real = _real_set(options, kinds, networks, output, device, report)
    features = _collectors(kinds, networks, device)
    scores = score_pictures(
        ScoredPictures(
            results,
            {n: k.score for n, k in kinds.items() if k.score and not k.masked},
            {n: k.score for n, k in kinds.items() if k.score and k.masked},
            masks,
            Path(options.flow_path) if "EPE" in kinds else None,
        ),
        features=[features[n] for n in ("standard", "imagenet") if n in features],
        masked_features=features.get("masked"),
        lpips=networks.lpips if any(k.network == "lpips" for k in kinds.values()) else None,
        device=device,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    if fingerprint(Path(options.distorated_path), names) != before:
        report.problems.append(
            f"a set of results of one run: files in {options.distorated_path} were written "
            "anew while they were scored; score them again when test.py has ended"
        )
    report.results = _describe_results(options, results, scores)
    report.problems += scores.problems
    report.warnings += [f"files {what}: {count}" for what, count in scores.notices.items()]
    _add_figures(report, kinds, networks, features, real, scores, masks, options)
    return _finish(report, folder, output / f"{name}.csv", results, scores, skipped, options)


def _body_masks(
    options: argparse.Namespace, results: Sequence[ResultFile], report: Report
) -> BodyMasks:
    part = 0 if options.mask_pose == "source" else 1
    names = {result.pair: result.stems[part] for result in results if result.stems}
    images = {
        result.stems[part]: (result.source, result.target)[part]
        for result in results
        if result.stems
    }
    sizes = set()
    for path in {result.target for result in results if result.target}:
        with contextlib.suppress(UserError):  # what cannot be read is told when it is scored
            sizes.add(read_image_size(path)[0])
    frames = {USUAL_FRAMES.get(size) for size in sizes}
    usual_frame = frames.pop() if len(frames) == 1 else None
    frame = options.old_size or usual_frame
    if not sizes:
        frame = "image"  # no mask will be drawn
    if frame is None:
        shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
        raise UserError(
            f"--gt_path: {options.gt_path} has pictures of {shown} (height x width): name the "
            "frame (height,width) that key points of --annotation refer to with --old_size"
        )
    poses, notices = read_poses(
        Path(options.annotation),
        dict(sorted(images.items())),
        frame=frame,
        usual_frame=usual_frame,
        missing=options.missing,
        trust=options.trust_keypoints,
    )
    report.warnings += notices
    draw = disc_body_mask if options.protocol == "pg2" else limb_body_mask
    return BodyMasks(draw, {pair: poses[name] for pair, name in names.items()}, frame)


@dataclass
class _Networks:
    standard: StandardInception | None = None
    imagenet: ImageNetInception | None = None
    lpips: LPIPSDistance | None = None
    protocols: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        options: argparse.Namespace,
        kinds: dict[str, FigureKind],
        device: torch.device,
        report: Report,
    ) -> "_Networks":
        """Load what the figures need; figures whose weights are missing go to report.left_out."""
        networks = cls()
        makers: dict[str, Callable[[], torch.nn.Module]] = {
            "standard": lambda: StandardInception(options.inception_weights, device),
            "imagenet": lambda: ImageNetInception(options.imagenet_inception_weights, device),
            "lpips": lambda: LPIPSDistance(options.lpips_weights, device),
        }
        for network, make in makers.items():
            wanting = [name for name, kind in kinds.items() if kind.network == network]
            if not wanting:
                continue
            try:
                loaded = make()
            except MissingWeights as error:
                report.left_out.update(dict.fromkeys(wanting, str(error)))
                continue
            except ModuleNotFoundError as error:
                reason = not_installed(error)
                if reason is None:
                    raise
                report.left_out.update(dict.fromkeys(wanting, reason))
                continue
            setattr(networks, network, loaded)
            networks.protocols[network] = loaded.protocol
        return networks


def _real_set(
    options: argparse.Namespace,
    kinds: dict[str, FigureKind],
    networks: _Networks,
    output: Path,
    device: torch.device,
    report: Report,
) -> RealSet | None:
    wanted = {kind.network for kind in kinds.values() if kind.real}
    if not wanted:
        return None
    if has_real_statistics(options):
        (network,) = wanted
        report.warnings.append(
            f"{options.fid_real_path} is taken to hold features of the network of "
            f"{'FID_published' if network == 'imagenet' else 'FID_standard'} "
            f"({networks.protocols[network]}): those of another network or input give a wrong FID"
        )
        return read_statistics(Path(options.fid_real_path), network)
    real = read_real_set(
        Path(options.fid_real_path),
        [
            RealNetwork(name, networks.protocols[name], getattr(networks, name))
            for name in ("standard", "imagenet")
            if name in wanted
        ],
        Path(options.cache_dir) if options.cache_dir else output / "real_statistics",
        device,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    report.problems += real.unreadable
    return real


def _collectors(
    kinds: dict[str, FigureKind], networks: _Networks, device: torch.device
) -> dict[str, SetFeatures]:
    collectors = {}
    wanted = {kind.network for kind in kinds.values() if not kind.masked}
    if "standard" in wanted:
        keep = frozenset({"features", "logits"})
        collectors["standard"] = SetFeatures(networks.standard, device, keep)
    if "imagenet" in wanted:
        collectors["imagenet"] = SetFeatures(networks.imagenet, device)
    if "mask_IS" in kinds:
        collectors["masked"] = SetFeatures(networks.standard, device, frozenset({"logits"}))
    return collectors


def _describe_results(
    options: argparse.Namespace, results: Sequence[ResultFile], scores: Scores
) -> dict[str, object]:
    return {
        "folder": str(options.distorated_path),
        "ground_truth": str(options.gt_path),
        "images": scores.sizes.total(),
        "formats": _formats(result.path for result in results),
        "sizes": sorted(scores.sizes),
        "checkpoints": sorted({result.checkpoint for result in results if result.checkpoint}),
        "ground_truth_formats": _formats(result.target for result in results if result.target),
        "description": describe_files(
            [result.path.name for result in results], scores.sizes, scores.sizes.total()
        ),
    }


def _formats(paths: Iterable[Path]) -> list[str]:
    return sorted({path.suffix.lower().lstrip(".") for path in paths})


def _mask_protocol(options: argparse.Namespace, frame: Frame) -> str:
    frame_text = "each image" if frame == "image" else f"{frame[0]}x{frame[1]}"
    return (
        f"body of the {options.mask_pose} pose from {options.annotation}, key points in a frame "
        f"of {frame_text}, {MASK_SHAPES[options.protocol]}"
    )


def _add_figures(
    report: Report,
    kinds: dict[str, FigureKind],
    networks: _Networks,
    features: dict[str, SetFeatures],
    real: RealSet | None,
    scores: Scores,
    masks: BodyMasks | None,
    options: argparse.Namespace,
) -> None:
    for name, kind in kinds.items():
        protocol = [kind.protocol]
        if kind.network:
            protocol.append(networks.protocols[kind.network])
        if kind.real:
            protocol.append(f"real: {real.description}")
        if kind.masked:
            protocol.append(_mask_protocol(options, masks.frame))
        if kind.per_image:
            protocol.append(f"ground truth {'/'.join(report.results['ground_truth_formats'])}")
        protocol.append(f"results: {report.results['description']}")
        if kind.per_image:
            text = "; ".join(protocol)
            values = [row[name] for row in scores.rows if name in row]
            figure, reason = mean_figure(values, kind.better, text)
            if figure is not None and reason:
                report.warnings.append(f"{name}: {reason}")
            if not values:
                reason = "no pair has a value"
        else:
            collector = features["masked" if kind.masked else kind.network]
            try:
                figure, reason = _set_figure(name, kind, collector, real, protocol, report)
            except UserError as error:  # what took hours to score is not lost for one figure
                figure, reason = None, str(error)
        if figure is None:
            report.left_out[name] = reason
        else:
            report.figures[name] = figure


def _set_figure(
    name: str,
    kind: FigureKind,
    collector: SetFeatures,
    real: RealSet | None,
    protocol: list[str],
    report: Report,
) -> tuple[Figure | None, str]:
    """A figure of the whole set, or None and why there is none.

    Raises:
        UserError: the features hold NaN or infinity.
    """
    count, std = collector.statistics.count, None
    if kind.real:
        fewest = count if real.count is None else min(count, real.count)
        if fewest < 2:
            return None, f"{count} generated images: FID and KID need 2 at the very least"
        if name == "KID":
            outcome = kernel_inception_distance(
                collector.rows("features"), real.features, subset_size=KID_SUBSET, seed=SHUFFLE_SEED
            )
            value, std = outcome.mean, outcome.std
            protocol.insert(1, f"{outcome.subsets} subsets of {outcome.subset_size}")
        else:
            value = frechet_distance(
                collector.statistics.mean, collector.statistics.covariance,
                *real.moments[kind.network],
            )  # fmt: skip
        of_real = "unknown number of" if real.count is None else real.count
        few = f"{name} of {count} generated and {of_real} real images"
        if name == "KID" and outcome.subset_size < KID_SUBSET:
            report.warnings.append(f"{few}: subsets of {outcome.subset_size}, not {KID_SUBSET}")
        elif name != "KID" and fewest <= FEATURES:
            report.warnings.append(
                f"{few}: covariances of {FEATURES} features lack rank with so few; "
                "not comparable with that of other numbers of images"
            )
    else:
        if count < IS_SPLITS:
            return None, f"{count} images: {IS_SPLITS} splits need as many at least"
        value, std = inception_score(collector.rows("logits"), IS_SPLITS, SHUFFLE_SEED)
    if not math.isfinite(value):
        raise UserError(
            f"it is {value}: the features of some image are broken; check the weight file of the "
            "network"
        )
    return Figure(value, std, kind.better, False, count, "; ".join(protocol)), ""


def _finish(
    report: Report,
    folder: Path,
    summary: Path,
    results: Sequence[ResultFile],
    scores: Scores,
    skipped: dict[str, str],
    options: argparse.Namespace,
) -> int:
    by = _gallery_figure(report, options) if options.gallery else None
    report.write(folder, summary, results, scores.rows)
    for picture in ("gallery.html", "gallery.png"):  # one of other figures, or of a version that
        (folder / picture).unlink(missing_ok=True)  # wrote a .png, too, would mislead
    if by:
        _write_gallery(report, folder, results, scores, by, options.gallery)
    # All files are there before anything is printed: what shows it may be closed.
    print(report.table())
    if skipped:
        print(f"not asked for: {', '.join(f'{n} ({why})' for n, why in skipped.items())}")
    print(f"written: {summary}, {folder}/metrics.json, {folder}/metrics.csv")
    if by:
        print(f"written: {folder}/gallery.html (by {by})")
    if not report.complete:
        print("the report is not complete: see 'left out' above")
    return 0 if report.complete else 1


def _gallery_figure(report: Report, options: argparse.Namespace) -> str | None:
    """What ranks the gallery; None, with the reason in the report, when it is missing."""
    ranked = [name for name, figure in report.figures.items() if figure.per_image]
    usual = [name for name in GALLERY_ORDER if name in ranked]
    by = options.gallery_by or next(iter(usual + ranked), None)
    if by in ranked:
        return by
    report.left_out["gallery"] = f"{by or 'every figure of a pair'} is missing"
    return None


def _write_gallery(
    report: Report,
    folder: Path,
    results: Sequence[ResultFile],
    scores: Scores,
    by: str,
    count: int,
) -> None:
    pairs = [
        GalleryPair(result.path, result.target, result.source, row)
        for result, row in zip(results, scores.rows, strict=True)
        if by in row
    ]
    write_gallery(folder, pairs, by, report.figures[by].better == "higher", count, report.name)
