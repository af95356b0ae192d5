"""What happens to an experiment's folder around the training itself."""

import argparse
import re
import shutil
from pathlib import Path

from options.base_options import options_text, run_folder
from util.errors import UserError
from util.files import written_whole

_NUMBERED = re.compile(r"(\d+)_(net_.+|state)\.pth")


def holds_run(folder: Path) -> bool:
    """Whether a folder holds checkpoints or the log of a run."""
    patterns = ("*_net_*.pth", "*_state.pth", "loss_log.txt")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def prepare_folder(options: argparse.Namespace) -> Path:
    """The experiment's folder, made if need be, with train_opt.txt written.

    A fresh run never overwrites an earlier one: without --continue_train a folder that holds
    checkpoints or a log is renamed to NAME.earlier-N first, and that is said. With it, the options
    are added to those of the earlier stages.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = run_folder(options)
    try:
        if holds_run(folder) and not options.continue_train:
            number = 1
            while (earlier := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
                number += 1
            folder.rename(earlier)
            print(f"{folder} held an earlier run: moved to {earlier}")
        folder.mkdir(parents=True, exist_ok=True)
        with open(
            folder / "train_opt.txt", "a", encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(options_text(options))
    except OSError as error:
        raise UserError(
            f"--checkpoints_dir: {folder} cannot be written: {error.strerror}"
        ) from error
    return folder


def keep_stage(folder: Path, model: str) -> None:
    """Keep the checkpoints of the stage before, whose file names the next stage uses again.

    `<label>_net_<key>.pth` gets the second name `<model>_<label>_net_<key>.pth`, the state file
    likewise, so that `--which_iter=<model>_<label>` loads it.

    Raises:
        UserError: they cannot be copied (full disk).
    """
    for path in [*folder.glob("*_net_*.pth"), *folder.glob("*_state.pth")]:
        label, kept = path.name.split("_")[0], folder / f"{model}_{path.name}"
        if label == "latest":  # stays until the next stage has saved its own
            with written_whole(kept) as temporary:
                shutil.copy2(path, temporary)
        elif label.isdecimal():
            path.replace(kept)
    print(f"checkpoints of the stage before are kept as {folder}/{model}_*.pth")


def drop_old_checkpoints(folder: Path, keep: int | None, saved: int) -> None:
    """Delete numbered checkpoints but for the `keep` last written; None keeps all.

    `latest` and the checkpoints of an earlier stage stay.

    Args:
        folder: the experiment's folder.
        keep: how many stay, at least 1.
        saved: number of the checkpoint just saved, the newest whatever the files' times say. After
            going back to an older checkpoint the numbers do not tell.
    """
    if keep is None:
        return
    found: dict[int, list[Path]] = {}
    for path in folder.glob("*.pth"):
        if match := _NUMBERED.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)

    def age(number: int) -> tuple[bool, int, int]:
        return number == saved, max(path.stat().st_mtime_ns for path in found[number]), number

    for number in sorted(found, key=age)[:-keep]:
        # The state last: without it, the weights would pass for those of a run not yet begun.
        for path in sorted(found[number]):
            path.unlink(missing_ok=True)
