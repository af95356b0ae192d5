"""Checks of `script.metrics`' options before any work begins."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from script.metrics.figures import FIGURES, FigureKind
from script.metrics.gallery_pairs import MOST_PAIRS
from util.errors import UserError
from util.files import real_path


def report_name(options: argparse.Namespace) -> Path:
    """The report's name, from --name or the results folder. Raises UserError for a bad one."""
    name = Path(options.name or real_path(Path(options.distorated_path)).name)
    if not name.name or name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"--name={options.name}: give a name such as ./market; --output takes the folder"
        )
    return name


def has_real_statistics(options: argparse.Namespace) -> bool:
    """Whether --fid_real_path is a file of statistics rather than a folder of images."""
    return options.fid_real_path is not None and Path(options.fid_real_path).is_file()


def check_paths(options: argparse.Namespace) -> None:
    """Raise UserError for a path that is not there."""
    for option in ("fid_real_path", "flow_path"):
        path = getattr(options, option)
        is_file = option == "fid_real_path" and has_real_statistics(options)
        if path is not None and not is_file and not Path(path).is_dir():
            raise UserError(f"--{option}: there is no folder {path}")
    if options.annotation is not None and not Path(options.annotation).is_file():
        raise UserError(f"--annotation: there is no file {options.annotation}")


def without_effect(options: argparse.Namespace, kinds: Mapping[str, FigureKind]) -> list[str]:
    """Say which of the options given have no effect on the figures chosen."""
    masked = [name for name, kind in FIGURES[options.protocol].items() if kind.masked]
    has_masked = any(kind.masked for kind in kinds.values())
    has_real = any(kind.real for kind in kinds.values())
    networks = {kind.network for kind in kinds.values()}
    mask_needs = "--calculate_mask"
    if options.calculate_mask:
        mask_needs = f"one of {', '.join(masked)} in --figures"
    needs = [
        ("calculate_mask", has_masked, mask_needs),
        ("annotation", has_masked, mask_needs),
        ("old_size", has_masked, mask_needs),
        ("trust_keypoints", has_masked, mask_needs),
        ("missing", has_masked, mask_needs),
        ("mask_pose", has_masked, mask_needs),
        ("gallery_by", options.gallery, "--gallery"),
        ("scratch_dir", False, "temporary files, and there are none any more"),
    ]
    if options.protocol != "gfla":
        gfla = "--protocol=gfla"
        needs += [("fid_real_path", False, gfla), ("flow_path", False, gfla)]
    else:
        needs += [
            ("fid_real_path", has_real, "one of FID_published, FID_standard, KID in --figures"),
            ("flow_path", "EPE" in kinds, "EPE in --figures"),
        ]
    needs += [
        ("inception_weights", "standard" in networks, "a figure of that network"),
        ("imagenet_inception_weights", "imagenet" in networks, "a figure of that network"),
        ("lpips_weights", "lpips" in networks, "a figure of that network"),
    ]
    given = vars(options) | {
        "mask_pose": options.mask_pose == "source",
        "missing": options.missing is not None,
    }
    return [
        f"--{option} has no effect without {what}"
        for option, has_effect, what in needs
        if given[option] and not has_effect
    ]


def check_writable(folder: Path) -> None:
    """Raise UserError when a report cannot be written: now rather than after hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output: {folder} cannot be written ({error.strerror})") from None


def choose_figures(options: argparse.Namespace) -> tuple[dict[str, FigureKind], dict[str, str]]:
    """The figures to compute, and those that the options give nothing for, with the reason.

    Raises:
        UserError: an unknown figure, or options that contradict each other.
    """
    known = FIGURES[options.protocol]
    asked = [name.strip() for name in (options.figures or "").split(",") if name.strip()]
    if options.figures is not None and not asked:
        raise UserError(f"--figures is empty; it takes some of: {', '.join(known)}")
    for name in asked:
        if name not in known:
            raise UserError(
                f"--figures: '{name}' is none of --protocol={options.protocol}'s: "
                f"{', '.join(known)}"
            )
    if options.gallery > MOST_PAIRS:
        raise UserError(f"--gallery={options.gallery}: at most {MOST_PAIRS} pairs a section")
    if options.calculate_mask and not options.annotation:
        raise UserError("--calculate_mask needs --annotation=FILE, the key points of the images")
    skipped = {}
    from_file = has_real_statistics(options)
    if from_file and {"FID_standard", "FID_published"} <= set(asked):
        raise UserError(
            f"--fid_real_path={options.fid_real_path}: a file holds the statistics of one network: "
            "leave FID_standard or FID_published out of --figures"
        )
    for name, kind in known.items():
        if from_file and name == "KID":
            skipped[name] = "needs a folder of images as --fid_real_path"
        elif from_file and name == "FID_published" and name not in asked:
            skipped[name] = "its statistics are taken for FID_standard's, unless --figures names it"
        elif kind.real and not options.fid_real_path:
            skipped[name] = "needs --fid_real_path"
        elif kind.masked and not options.calculate_mask:
            skipped[name] = "needs --calculate_mask and --annotation"
        elif name == "EPE" and not options.flow_path:
            skipped[name] = "needs --flow_path, the true flow of synthetic data"
    for name in asked:
        if name in skipped:
            raise UserError(f"--figures: {name} {skipped[name]}")
    if asked:
        chosen, skipped = {name: known[name] for name in known if name in asked}, {}
    else:
        chosen = {name: kind for name, kind in known.items() if name not in skipped}
    ranking = [name for name, kind in chosen.items() if kind.per_image]
    if options.gallery and not ranking:
        raise UserError("--gallery needs a figure that every pair has, such as SSIM, in --figures")
    if options.gallery and options.gallery_by and options.gallery_by not in ranking:
        raise UserError(f"--gallery_by={options.gallery_by}: takes one of {', '.join(ranking)}")
    return chosen, skipped


def choose_device(text: str) -> torch.device:
    """The device of --device. Raises UserError when it cannot be used."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device={text}: cannot be used here ({reason}); try cpu") from None
    return device
