"""Checkpoints: plain state dicts, written whole or not at all, read without running code.

Who reads a checkpoint changes nothing in its folder.
"""

import contextlib
import io
import os
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.checkpoint_integrity import verify_zip_checksums
from util.errors import UserError
from util.files import written_whole


@dataclass
class LoadReport:
    """What became of a network's weights: counts of tensors by the part they belong to."""

    source: str
    taken: list[str]
    missing: list[str]
    left_over: list[str]

    @property
    def partly_taken(self) -> list[str]:
        """Parts of the network of which the file has some tensors, but not all."""
        return sorted(_part_names(self.taken) & _part_names(self.missing))

    @property
    def partly_left_over(self) -> list[str]:
        """Parts of the network of which the file has more than the network takes."""
        return sorted(_part_names(self.taken) & _part_names(self.left_over))

    def __str__(self) -> str:
        text = f"{self.source}: took {len(self.taken)} tensors ({_parts(self.taken)})"
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
    folder: Path,
    label: str | int,
    networks: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any] | None = None,
    absent: Iterable[str] = (),
) -> None:
    """Write `<label>_state.pth`, which also holds the networks, and `<label>_net_<key>.pth`.

    Everything is on the disk under hidden names before the state takes its name; from this moment
    on a resume has the new checkpoint. Then the plain files take theirs. A kill in between leaves
    older ones, but at no moment do two of different checkpoints lie side by side.

    Args:
        folder: the experiment's folder, made when missing.
        label: "latest" or the iteration.
        networks: state dicts by the network's key, at least one.
        state: the rest of what a resume needs; without one, a state of this label is removed, as it
            is of other weights.
        absent: keys of further networks, of which this checkpoint has no weights.

    Raises:
        UserError: the operating system refuses (full disk, no permission); the files that were
            there stay.
    """
    paths = {key: folder / f"{label}_net_{key}.pth" for key in (*networks, *absent)}
    state_path = folder / f"{label}_state.pth"
    with contextlib.ExitStack() as plain_files:
        for key, weights in reversed(networks.items()):  # the first is renamed first
            temporary = plain_files.enter_context(written_whole(paths[key], lasting=True))
            _write(temporary, dict(weights))
        if state is not None:
            with written_whole(state_path, lasting=True) as temporary:
                _write(temporary, {**state, "networks": {k: dict(v) for k, v in networks.items()}})
        else:
            state_path.unlink(missing_ok=True)
        for path in [*paths.values()][1:]:
            path.unlink(missing_ok=True)


def write_tensors(path: Path, content: object) -> None:
    """Write what torch.save can write; whole, or not at all.

    Raises:
        UserError: the operating system refuses.
    """
    with written_whole(path, lasting=True) as temporary:
        _write(temporary, content)


def _write(path: Path, content: object) -> None:
    # torch.save into the file itself hides what the operating system says when the disk is full.
    memory = io.BytesIO()
    torch.save(content, memory)
    with open(path, "wb") as file:
        file.write(memory.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> object:
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
    return _named_tensors(_read(path), str(path))


def _named_tensors(content: object, source: str) -> dict[str, Tensor]:
    if (
        not isinstance(content, dict)
        or not content
        or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
        )
    ):
        raise UserError(
            f"{source} holds no state dict (names and tensors): is it a network checkpoint?"
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_network(network: nn.Module, path: Path, options: str = "--model") -> LoadReport:
    """Copy the tensors of a file whose names the network has; see `take_weights`.

    Raises:
        UserError: as `read_state_dict` and `take_weights`.
    """
    return take_weights(network, read_state_dict(path), str(path), options)


def take_weights(
    network: nn.Module, found: Mapping[str, Tensor], source: str, options: str = "--model"
) -> LoadReport:
    """Copy the tensors whose names the network has; half-precision ones are converted.

    Args:
        network: to copy into.
        found: the state dict.
        source: where it comes from, for the report and messages.
        options: those that shape the network, named in the message when the weights do not fit.

    Raises:
        UserError: no name in common, a tensor of another shape, NaN or infinity.
    """
    wanted = network.state_dict()
    taken = [name for name in wanted if name in found]
    report = LoadReport(
        source,
        taken,
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
    )
    if not taken:
        raise UserError(
            f"nothing in {source} fits this network: it holds {_parts(list(found))}, "
            f"expected {_parts(list(wanted))}; check --model"
        )
    for name in taken:
        if found[name].shape != wanted[name].shape:
            raise UserError(
                f"{source}: {name} has shape {list(found[name].shape)}, "
                f"expected {list(wanted[name].shape)}; "
                f"give the {options} that it was trained with"
            )
        if not found[name].isfinite().all():
            raise UserError(
                f"{source}: {name} holds NaN or infinite numbers; take an older checkpoint "
                "(--which_iter)"
            )
    network.load_state_dict({name: found[name] for name in taken}, strict=False)
    return report


def load_training_state(path: Path) -> dict | None:
    """Read `<label>_state.pth`, or None where there is none.

    Returns:
        A dictionary with `model` (name), `iteration` (the last finished one), `optimizers`
        (state dicts by name), `networks` (the same) and what else `BaseModel.save` adds. Of a run
        of earlier versions `networks` is a list of names: the weights are in the plain files alone.

    Raises:
        UserError: the file is not a training state.
    """
    if not path.exists():
        return None
    state = _read(path)
    if not isinstance(state, dict) or not {"model", "iteration", "optimizers"} <= state.keys():
        raise UserError(
            f"{path} is not a training state: move it away to start with fresh optimisers"
        )
    if isinstance(networks := state.get("networks"), dict):
        state["networks"] = {
            key: _named_tensors(weights, network_source(path, key))
            for key, weights in networks.items()
        }
    return state


def network_source(state_path: Path, key: str) -> str:
    """How reports and messages name a network within a training state."""
    return f"{state_path}, network {key}"


def differs(path: Path, weights: Mapping[str, Tensor] | None) -> bool:
    """Whether a plain network file is there and holds something else than `weights`."""
    if not path.exists():
        return False
    try:
        found = read_state_dict(path)
    except UserError:
        return True
    return (
        weights is None
        or found.keys() != weights.keys()
        or any(
            value.dtype != weights[name].dtype or not torch.equal(value, weights[name])
            for name, value in found.items()
        )
    )
