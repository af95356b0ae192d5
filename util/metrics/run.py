"""What `python -m script.metrics` does, from options to report."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.annotations import read_poses
from data.body_mask import disc_body_mask, limb_body_mask
from util.errors import UserError
from util.metrics.figures import FIGURES, FigureKind
from util.metrics.frechet import frechet_distance
from util.metrics.gallery import write_gallery
from util.metrics.gallery_pairs import MOST_PAIRS, GalleryPair
from util.metrics.image_sets import (
    ImageNetFeatures,
    RealNetwork,
    RealSet,
    StandardFeatures,
    describe_files,
    read_real_set,
)
from util.metrics.inception import ImageNetInception, StandardInception
from util.metrics.inception_score import InceptionScore
from util.metrics.kid import kernel_inception_distance
from util.metrics.lpips_distance import LPIPSDistance
from util.metrics.pairing import SEPARATOR, ResultFile, find_results
from util.metrics.report import Figure, Report, mean_figure
from util.metrics.scoring import BodyMasks, ScoredPictures, Scores, score_pictures
from util.pretrained_weights import MissingWeights

FEW_IMAGES = 2048  # fewer leave the covariance of 2048 features without full rank
IS_SPLITS = 10
SHUFFLE_SEED = 2020
LOGIT_ROWS = 4096  # read at a time for the Inception score
GALLERY_ORDER = ("LPIPS", "SSIM", "SSIM_7x7", "L1", "L1_255", "PSNR", "MAE", "SSIM_256", "EPE")


def run_metrics(options: argparse.Namespace) -> int:
    """Score the results and write the report; options as `script.metrics` parses them.

    Returns:
        0, or 1 when something that was asked for is missing from the report.

    Raises:
        UserError: bad options, an empty folder, an unusable weight file.
    """
    results = find_results(Path(options.distorated_path), Path(options.gt_path))
    output = Path(options.output)
    name = options.name or Path(options.distorated_path).resolve().name
    folder = output / f"{name}_metrics"
    kinds, skipped = _choose_figures(options)
    device = _choose_device(options.device)
    masks = _body_masks(options, results) if any(k.masked for k in kinds.values()) else None
    report = Report(name=Path(name).name, protocol=options.protocol, results={})
    networks = _Networks.load(options, kinds, device, report)
    kinds = {figure: kind for figure, kind in kinds.items() if figure not in report.left_out}

    real = _real_set(options, kinds, networks, output, device, report)
    with tempfile.TemporaryDirectory(prefix="metrics-", dir=options.scratch_dir) as scratch:
        features = _collectors(kinds, networks, device, Path(scratch))
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
        report.results = _describe_results(options, results, scores)
        report.problems += scores.problems
        report.warnings += [f"{count} files {what}" for what, count in scores.notices.items()]
        _add_figures(report, kinds, networks, features, real, scores, options)
    return _finish(report, folder, output / f"{name}.csv", results, scores, skipped, options)


def _choose_figures(options: argparse.Namespace) -> tuple[dict[str, FigureKind], dict[str, str]]:
    """The figures to compute, and those that the options give nothing for, with the reason."""
    known = FIGURES[options.protocol]
    asked = [name.strip() for name in options.figures.split(",")] if options.figures else []
    for name in asked:
        if name not in known:
            raise UserError(
                f"--figures: '{name}' is none of --protocol={options.protocol}'s: "
                f"{', '.join(known)}"
            )
    if options.gallery > MOST_PAIRS:
        raise UserError(f"--gallery={options.gallery}: at most {MOST_PAIRS} pairs a section")
    if options.gallery_by and not (
        options.gallery_by in known and known[options.gallery_by].per_image
    ):
        raise UserError(
            f"--gallery_by={options.gallery_by}: takes a figure that every pair has: "
            f"{', '.join(name for name, kind in known.items() if kind.per_image)}"
        )
    if options.calculate_mask and not options.annotation:
        raise UserError("--calculate_mask needs --annotation=FILE, the key points of the images")
    skipped = {}
    for name, kind in known.items():
        if kind.real and not options.fid_real_path:
            skipped[name] = "needs --fid_real_path"
        elif kind.masked and not options.calculate_mask:
            skipped[name] = "needs --calculate_mask and --annotation"
        elif name == "EPE" and not options.flow_path:
            skipped[name] = "needs --flow_path, the true flow of synthetic data"
    for name in asked:
        if name in skipped:
            raise UserError(f"--figures: {name} {skipped[name]}")
    if asked:
        return {name: known[name] for name in known if name in asked}, {}
    return {name: kind for name, kind in known.items() if name not in skipped}, skipped


def _choose_device(text: str) -> torch.device:
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device={text}: cannot be used here ({reason}); try cpu") from None
    return device


def _body_masks(options: argparse.Namespace, results: Sequence[ResultFile]) -> BodyMasks:
    part = 0 if options.mask_pose == "source" else 2
    names = {result.pair: result.pair.rpartition(SEPARATOR)[part] for result in results}
    poses = read_poses(Path(options.annotation), sorted(set(names.values())))
    draw = disc_body_mask if options.protocol == "pg2" else limb_body_mask
    return BodyMasks(draw, {pair: poses[name] for pair, name in names.items()}, options.old_size)


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
    kinds: dict[str, FigureKind], networks: _Networks, device: torch.device, scratch: Path
) -> dict[str, StandardFeatures | ImageNetFeatures]:
    collectors: dict[str, StandardFeatures | ImageNetFeatures] = {}
    wanted = {kind.network for kind in kinds.values() if not kind.masked}
    if "standard" in wanted:
        collectors["standard"] = StandardFeatures(networks.standard, device, scratch, "results")
    if "imagenet" in wanted:
        collectors["imagenet"] = ImageNetFeatures(networks.imagenet, device)
    if "mask_IS" in kinds:
        collectors["masked"] = StandardFeatures(
            networks.standard, device, scratch, "masked", frozenset({"logits"})
        )
    return collectors


def _describe_results(
    options: argparse.Namespace, results: Sequence[ResultFile], scores: Scores
) -> dict[str, object]:
    return {
        "folder": str(options.distorated_path),
        "ground_truth": str(options.gt_path),
        "images": scores.sizes.total(),
        "formats": sorted({result.path.suffix.lower().lstrip(".") for result in results}),
        "sizes": sorted(scores.sizes),
        "description": describe_files([r.path.name for r in results], scores.sizes),
    }


def _add_figures(
    report: Report,
    kinds: dict[str, FigureKind],
    networks: _Networks,
    features: dict[str, StandardFeatures | ImageNetFeatures],
    real: RealSet | None,
    scores: Scores,
    options: argparse.Namespace,
) -> None:
    for name, kind in kinds.items():
        protocol = [kind.protocol]
        if kind.network:
            protocol.append(networks.protocols[kind.network])
        if kind.real:
            protocol.append(f"real: {real.description}")
        if kind.masked:
            protocol.append(f"body of the {options.mask_pose} pose from {options.annotation}")
        protocol.append(f"results: {report.results['description']}")
        if kind.per_image:
            text = "; ".join(protocol)
            values = [row[name] for row in scores.rows if name in row]
            figure, warning = mean_figure(values, kind.better, text)
            if warning:
                report.warnings.append(f"{name}: {warning}")
            reason = "no pair has a value"
        else:
            collector = features["masked" if kind.masked else kind.network]
            figure, reason = _set_figure(name, kind, collector, real, protocol, report)
        if figure is None:
            report.left_out[name] = reason
        else:
            report.figures[name] = figure


def _set_figure(
    name: str,
    kind: FigureKind,
    collector: StandardFeatures | ImageNetFeatures,
    real: RealSet | None,
    protocol: list[str],
    report: Report,
) -> tuple[Figure | None, str]:
    """A figure of the whole set, or None and why there is none."""
    count, std = collector.statistics.count, None
    if kind.real:
        fewest = min(count, real.count)
        if fewest < 2:
            return None, f"{count} generated images: FID and KID need 2 at the very least"
        if name == "KID":
            outcome = kernel_inception_distance(
                collector.features, real.features, seed=SHUFFLE_SEED
            )
            value, std = outcome.mean, outcome.std
            protocol.insert(1, f"{outcome.subsets} subsets of {outcome.subset_size}")
        else:
            value = frechet_distance(
                collector.statistics.mean, collector.statistics.covariance,
                *real.moments[kind.network],
            )  # fmt: skip
        if fewest < FEW_IMAGES:
            few = f"{count} generated and {real.count} real images"
            report.warnings.append(f"{name} of {few} is not comparable with that of larger sets")
    else:
        if count < IS_SPLITS:
            return None, f"{count} images: {IS_SPLITS} splits need as many at least"
        score = InceptionScore(count, splits=IS_SPLITS, shuffle_seed=SHUFFLE_SEED)
        for start in range(0, count, LOGIT_ROWS):
            score.add(collector.logits[start : start + LOGIT_ROWS])
        value, std = score.result()
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
    report.write(folder, summary, results, scores.rows)
    print(report.table())
    if skipped:
        print(f"not asked for: {', '.join(f'{n} ({why})' for n, why in skipped.items())}")
    print(f"written: {summary}, {folder}/metrics.json, {folder}/metrics.csv")
    if options.gallery:
        _write_gallery(report, folder, results, scores, options)
    if not report.complete:
        print("the report is not complete: see 'left out' above")
    return 0 if report.complete else 1


def _write_gallery(
    report: Report,
    folder: Path,
    results: Sequence[ResultFile],
    scores: Scores,
    options: argparse.Namespace,
) -> None:
    ranked = [name for name, figure in report.figures.items() if figure.per_image]
    by = options.gallery_by or next((name for name in GALLERY_ORDER if name in ranked), None)
    if by not in ranked:
        raise UserError(
            f"--gallery: {by or 'no figure'} has no value per pair to rank by; "
            f"--gallery_by takes one of: {', '.join(ranked) or 'none in this report'}"
        )
    pairs = [
        GalleryPair(result.path, result.target, result.source, row)
        for result, row in zip(results, scores.rows, strict=True)
        if by in row
    ]
    write_gallery(
        folder, pairs, by, report.figures[by].better == "higher", options.gallery, report.name
    )
    print(f"written: {folder}/gallery.html, {folder}/gallery.png (by {by})")
