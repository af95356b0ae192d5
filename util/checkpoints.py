"""Checkpoints: plain state dicts, written whole or not at all, read without running code."""

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from util.checkpoint_integrity import verify_zip_checksums
from util.errors import UserError
from util.file_groups import finish_writes, write_group


@dataclass
class LoadReport:
    """What became of a checkpoint: counts of tensors by the network part they belong to."""

    path: Path
    taken: list[str]
    missing: list[str]
    left_over: list[str]

    @property
    def partly_taken(self) -> list[str]:
        """Parts of the network of which the file has some tensors, but not all."""
        return sorted(_part_names(self.taken) & _part_names(self.missing))

    def __str__(self) -> str:
        text = f"{self.path}: took {len(self.taken)} tensors ({_parts(self.taken)})"
        if self.missing:
            text += f", {len(self.missing)} are not in it ({_parts(self.missing)})"
        if self.left_over:
            text += f", {len(self.left_over)} left over ({_parts(self.left_over)})"
        return text


def _parts(names: list[str]) -> str:
    return ", ".join(sorted(_part_names(names)))


def _part_names(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def save_checkpoint(
    folder: Path, label: str | int, parts: Mapping[str, object], remove: tuple[str, ...] = ()
) -> None:
    """Write `<label>_<part>.pth` for all parts: together, or not at all.

    Args:
        folder: the experiment's folder, made when missing.
        label: "latest" or the iteration.
        parts: what torch.save writes, by name: `net_<key>`, `state`.
        remove: parts of the same label that are not to stay.

    Raises:
        UserError: the operating system refuses (full disk); the files that were there stay.
    """
    write_group(
        folder,
        str(label),
        {f"{label}_{part}.pth": partial(_serialise, content) for part, content in parts.items()},
        [f"{label}_{part}.pth" for part in remove],
    )


def _serialise(content: object, file: BinaryIO) -> None:
    # torch.save into the file itself hides what the operating system says when the disk is full.
    memory = io.BytesIO()
    torch.save(content, memory)
    file.write(memory.getbuffer())


def _read(path: Path) -> object:
    finish_writes(path.parent)
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: check --checkpoints_dir, --name and --which_iter")
    verify_zip_checksums(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forms of pickle, which it reads or refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text advises weights_only=False, which would run what the file holds.
        raise UserError(
            f"cannot read the checkpoint {path}: it is no PyTorch file, or holds more than tensors"
        ) from error
    except Exception as error:  # torch.load raises many kinds for a file that is cut off or garbled
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot read the checkpoint {path}: it is cut off or damaged ({reason[:120]})"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, without the `module.` prefixes of DataParallel.

    Raises:
        UserError: no such file, not a readable checkpoint, or something else than named tensors.
    """
    content = _read(path)
    if (
        not isinstance(content, dict)
        or not content
        or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
        )
    ):
        raise UserError(
            f"{path} holds no state dict (names and tensors): is it a network checkpoint?"
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_network(network: nn.Module, path: Path, options: str = "--model") -> LoadReport:
    """Copy the tensors whose names the network has; half-precision files are converted.

    Args:
        network: to copy into.
        path: of the state dict.
        options: those that shape the network, named in the message when the file does not fit.

    Raises:
        UserError: unreadable file, no name in common, a tensor of another shape, NaN or infinity.
    """
    found = read_state_dict(path)
    wanted = network.state_dict()
    taken = [name for name in wanted if name in found]
    report = LoadReport(
        path,
        taken,
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
    )
    if not taken:
        raise UserError(
            f"nothing in {path} fits this network: it holds {_parts(list(found))}, "
            f"expected {_parts(list(wanted))}; check --model"
        )
    for name in taken:
        if found[name].shape != wanted[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(found[name].shape)}, "
                f"expected {list(wanted[name].shape)}; "
                f"give the {options} that it was trained with"
            )
        if not found[name].isfinite().all():
            raise UserError(
                f"{path}: {name} holds NaN or infinite numbers; take an older checkpoint "
                "(--which_iter)"
            )
    network.load_state_dict({name: found[name] for name in taken}, strict=False)
    return report


def load_training_state(path: Path) -> dict | None:
    """Read `<label>_state.pth`, or None where there is none.

    Returns:
        A dictionary with `model` (name), `iteration` (the last finished one), `optimizers`
        (state dicts by name) and what `BaseModel.save` adds.

    Raises:
        UserError: the file is not a training state.
    """
    finish_writes(path.parent)
    if not path.exists():
        return None
    state = _read(path)
    if not isinstance(state, dict) or not {"model", "iteration", "optimizers"} <= state.keys():
        raise UserError(
            f"{path} is not a training state: move it away to start with fresh optimisers"
        )
    return state
