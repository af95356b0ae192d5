"""What happens to an experiment's folder around the training itself."""

import argparse
import filecmp
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.checkpoints import read_model
from util.command_line import as_arguments
from util.errors import UserError
from util.files import real_path, written_whole
from util.run.network_record import read_network_record, write_network_record

_SAVED = re.compile(r"(?P<label>latest|\d+)_(net_.+|state)\.pth")


def run_folder(options: argparse.Namespace) -> Path:
    """Folder of the experiment: checkpoints, logs, snapshots."""
    return Path(options.checkpoints_dir) / options.name


def options_text(options: argparse.Namespace) -> str:
    """All options, one `name: value` per line, in alphabetical order."""
    lines = [f"{name}: {value}" for name, value in sorted(vars(options).items())]
    return "\n".join(
        ["------------ Options -------------", *lines, "-------------- End ----------------", ""]
    )


def holds_run(folder: Path) -> bool:
    """Whether a folder holds checkpoints or the log of a run."""
    patterns = ("*_net_*.pth", "*_state.pth", "loss_log.txt")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def models_of(folder: Path) -> dict[str, str | None]:
    """The models that wrote the checkpoints a run goes on to overwrite, by label.

    Labels are `latest` and numbers; what is kept of an earlier stage is none of them. The model is
    None where neither a state nor network.json tells it.
    """
    by_record = read_network_record(folder).get("model")
    return {
        label: read_model(folder / f"{label}_state.pth") or by_record
        for label in sorted({match["label"] for _, match in _saved_files(folder)})
    }


def _saved_files(folder: Path) -> list[tuple[Path, re.Match]]:
    """The files of checkpoints that a run goes on to overwrite, and what their names say."""
    matches = ((path, _SAVED.fullmatch(path.name)) for path in sorted(folder.glob("*.pth")))
    return [(path, match) for path, match in matches if match]


def kept_label(folder: Path, model: str | None) -> str | None:
    """Label under which the newest checkpoint of an earlier stage is kept, if it is."""
    label = f"{model}_latest"
    return label if model and any(folder.glob(f"{label}_net_*.pth")) else None


def check_fresh_start(options: argparse.Namespace, earlier_stage: str | None) -> None:
    """Refuse a fresh run of a stage that would move aside the stage it is to start from.

    Args:
        options: parsed options of train.py.
        earlier_stage: the model whose weights this one starts from, if any.

    Raises:
        UserError: that stage lies under --name, and --from_scratch is not given.
    """
    folder = run_folder(options)
    if options.continue_train or options.init_from or options.from_scratch or not earlier_stage:
        return
    kept = kept_label(folder, earlier_stage)
    holders = models_of(folder).values()
    if earlier_stage not in holders and not kept:
        return
    ways = "--continue_train starts from it"
    if kept:
        ways = f"--continue_train {as_arguments({'which_iter': kept})} starts from it"
        if options.model in holders:
            ways = f"--continue_train goes on with --model={options.model}, {ways}"
    raise UserError(
        f"{folder} holds --model={earlier_stage}, which would be moved aside, and "
        f"--model={options.model} would train without it: {ways}, --from_scratch does without"
    )


def check_owner(options: argparse.Namespace, earlier_stage: str | None) -> None:
    """Refuse to go on in a folder whose checkpoints are of a model that would be overwritten.

    Args:
        options: parsed options of train.py with --continue_train.
        earlier_stage: the model whose checkpoints this one may start from, if any.

    Raises:
        UserError: naming the ways out.
    """
    folder, model = run_folder(options), options.model
    allowed = (model, earlier_stage, None)
    other = next((found for found in models_of(folder).values() if found not in allowed), None)
    if other is None:
        return
    label = kept_label(folder, model)
    if options.which_iter != "latest":
        label = options.which_iter
    start = as_arguments({"init_from": f"{options.name}:{label}"})
    raise UserError(
        f"{folder} holds checkpoints of --model={other}, which --model={model} would overwrite: "
        f"go on with --model={other}, or train --model={model} under another --name with "
        + (f"{start} in place of" if label else "no")
        + " --continue_train"
        + (" and --which_iter" if options.which_iter != "latest" else "")
    )


def refuse_links(folder: Path) -> None:
    """Refuse a run's folder through whose entries training would write elsewhere, or wait.

    The folder itself may be a link, which its owner made; what came in it, say from an archive, is
    not followed. A link in place of a checkpoint is replaced by the next save, not written through.

    Raises:
        UserError: an entry is a link, other than to a checkpoint, a pipe, a socket or a device.
    """
    for place, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            mode = path.lstat().st_mode
            is_checkpoint = path.suffix == ".pth" and path.is_file()
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or is_checkpoint):
                kind = "a link" if stat.S_ISLNK(mode) else "no file"
                raise UserError(
                    f"{path}: is {kind}, training would write through it: remove it, or train "
                    "under another --name"
                )


def prepare_folder(
    options: argparse.Namespace, record: Mapping[str, Any], earlier_model: str | None = None
) -> Path:
    """The experiment's folder, made if need be, with train_opt.txt and network.json written.

    A fresh run never overwrites an earlier one: without --continue_train a folder that holds
    checkpoints or a log is renamed to NAME.earlier-N first, and that is said. With it, the options
    are added to those of the earlier stages.

    Args:
        options: parsed options of train.py.
        record: for network.json.
        earlier_model: with --continue_train: the stage from whose checkpoint this one starts.

    Raises:
        UserError: the folder cannot be made or written, or holds links; see `refuse_links`.
    """
    folder = run_folder(options)
    try:
        if not options.continue_train and holds_run(folder):
            move_aside(folder)
        else:
            refuse_links(folder)
        if options.continue_train:
            keep_given(folder, options.which_iter)
            if earlier_model:
                keep_stage(folder, earlier_model)
        folder.mkdir(parents=True, exist_ok=True)
        with open(
            folder / "train_opt.txt", "a", encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(options_text(options))
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError):
            reason = "it is a file, or a link to no folder; remove it, or choose another --name"
        raise UserError(f"--checkpoints_dir: {folder} cannot be written: {reason}") from error
    write_network_record(folder, record)
    return folder


def move_aside(folder: Path) -> Path:
    """Rename an earlier run's folder to NAME.earlier-N, and say so; gives the new path.

    Raises:
        UserError: it is a link: the new folder would not lie where that one leads, which is the
            place that is locked.
    """
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link to {real_path(folder)}, which holds an earlier run: choose "
            "another --name, or let the link lead to an empty folder"
        )
    number = 1
    while (earlier := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
        number += 1
    folder.rename(earlier)
    print(f"{folder} held an earlier run: moved to {earlier}")
    return earlier


def keep_given(folder: Path, loaded: str) -> None:
    """Keep plain network files that no run saved here: put there by hand, downloaded, imported.

    A run that goes on would save over them, or take them for its own. `<label>_net_<key>.pth`
    without a state becomes `given<N>_<label>_net_<key>.pth`, which `--which_iter=given<N>_<label>`
    loads; what lies under such a name stays.

    Args:
        folder: the experiment's folder.
        loaded: label that the run starts from; its files stay, too, until the run has saved.

    Raises:
        OSError, UserError: files cannot be written (full disk).
    """
    labels = {path: match["label"] for path, match in _saved_files(folder)}
    given = [p for p, label in labels.items() if not (folder / f"{label}_state.pth").exists()]

    def kept(number: int) -> dict[Path, Path]:
        return {path: folder / f"given{number}_{path.name}" for path in given}

    number = 1
    while any(other.exists() and not _is_same(path, other) for path, other in kept(number).items()):
        number += 1
    for path, other in kept(number).items():
        if labels[path] == loaded:
            _copy(path, other)
        else:
            path.replace(other)
    if given:
        print(f"checkpoints that no run saved here are kept as {folder}/given{number}_*.pth")


def keep_stage(folder: Path, model: str) -> None:
    """Keep the checkpoints of the stage before, whose file names the next stage uses again.

    `<label>_net_<key>.pth` gets the second name `<model>_<label>_net_<key>.pth`, the state file
    likewise, so that `--which_iter=<model>_<label>` loads it. Where anything else lies there, an
    earlier attempt at the next stage or other files under the kept names, the folder is moved aside
    as by a fresh run, and a new one made with the kept checkpoints alone.

    Args:
        folder: the experiment's folder.
        model: the stage before; only checkpoints that are told to be of it are kept.

    Raises:
        OSError, UserError: files cannot be written (full disk).
    """
    owners = models_of(folder)
    kept = {path.name: path for path in folder.glob(f"{model}_*.pth")}
    own = {
        f"{model}_{path.name}": path
        for path, match in _saved_files(folder)
        if owners[match["label"]] == model
    }
    has_others = any(owner != model for owner in owners.values())
    if has_others or any(
        name in kept and not _is_same(path, kept[name]) for name, path in own.items()
    ):
        earlier = move_aside(folder)
        folder.mkdir()
        for name, path in {**kept, **own}.items():
            _copy(earlier / path.name, folder / name)
    else:
        for name, path in own.items():
            if path.name.startswith("latest_"):  # stays until the next stage has saved its own
                _copy(path, folder / name)
            else:
                path.replace(folder / name)
    print(f"checkpoints of the stage before are kept as {folder}/{model}_*.pth")


def _is_same(path: Path, other: Path) -> bool:
    return filecmp.cmp(path, other, shallow=False)


def _copy(path: Path, other: Path) -> None:
    """Copy a checkpoint unless the copy is there; no link, for people copy files over others."""
    if not other.exists():
        with written_whole(other) as temporary:
            shutil.copy2(path, temporary)


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
    for path, match in _saved_files(folder):
        if match["label"] != "latest":
            found.setdefault(int(match["label"]), []).append(path)

    def age(number: int) -> tuple[bool, int, int]:
        return number == saved, max(path.stat().st_mtime_ns for path in found[number]), number

    for number in sorted(found, key=age)[:-keep]:
        # The state last: without it, the weights would pass for those of a run not yet begun.
        for path in sorted(found[number]):
            path.unlink(missing_ok=True)
