"""Checkpoints: plain state dicts, written whole or not at all, read without running code.

Who reads a checkpoint changes nothing in its folder.
"""

import contextlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import SpoiltFile, UserError, printable
from util.file_kinds import foreign_kind
from util.files import regular_file, written_whole
from util.safetensors_files import is_safetensors, read_safetensors
from util.state_dicts import converted, find_state_dict
from util.torch_files import read_torch_file

# How files end that may hold weights.
_LIKE_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".zip", ".safetensors")
_LAST_ITERATION = 1 << 53


class NoCheckpoint(UserError):
    """There is no file of that name; what is there instead is said."""


@dataclass
class LoadReport:
    """What became of a network's weights: counts of tensors by the part they belong to."""

    source: str
    taken: list[str]
    missing: list[str]
    left_over: list[str]
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)  # of all that the file has

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
        return printable(text)  # keys are the file's


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
        if path.exists() and not path.is_dir():
            regular_file(path)  # says what it is
        raise NoCheckpoint(f"no checkpoint {path}{_instead(path)}")
    try:
        kind = foreign_kind(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if kind:
        raise UserError(f"cannot read the checkpoint {path}: it is {kind}")
    return read_safetensors(path) if is_safetensors(path) else read_torch_file(path)


def _instead(path: Path) -> str:
    """What there is where a checkpoint is not, for the message."""
    if path.is_symlink():
        return f": it is a link to {os.readlink(path)}, where no file is"
    if path.is_dir():
        return ": it is a folder, which an archive tool may have unpacked; download the file again"
    if not path.parent.is_dir():
        runs = _some(entry.name for entry in _entries(path.parent.parent) if entry.is_dir())
        return ", nor its folder" + (f"; {path.parent.parent} has {runs}" if runs else "")
    names = [entry.name for entry in _entries(path.parent) if entry.is_file()]
    ending = path.name[path.name.find("_net_") :]
    labels = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    if labels:
        return f": there are {_some(labels)}"
    others = _some(name for name in names if name.endswith(_LIKE_CHECKPOINTS))
    return f"; there are {others}, give the one to read this name" if others else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _some(names: Iterable[str]) -> str:
    """Names in order, 9 before 10; of many the last few."""
    ordered = sorted(names, key=lambda name: (len(name), name) if name.isdigit() else (99, name))
    return ("…, " if len(ordered) > 8 else "") + ", ".join(ordered[-8:])


def read_state_dict(path: Path, wanted: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read a network's weights onto the CPU; see `find_state_dict`.

    Args:
        path: of a file of torch.save or of safetensors, whatever its ending.
        wanted: the network's own tensors, by which its weights are found in a file that holds more.

    Raises:
        UserError: no such file, not a readable checkpoint, no named tensors, or those of several
            networks that would do.
    """
    return find_state_dict(_read(path), str(path), wanted).tensors


def read_weights(path: Path, network: nn.Module) -> tuple[dict[str, Tensor], str]:
    """As `read_state_dict`, with the text by which reports name where in the file they were."""
    found = find_state_dict(_read(path), str(path), network.state_dict())
    return found.tensors, found.described(str(path))


Advice = Callable[[Mapping[str, torch.Size]], str]


def advise_model(shapes: Mapping[str, torch.Size]) -> str:
    """What to do about weights of these shapes that do not fit, where nothing more is known."""
    return "give the --model that it was trained with"


def load_network(network: nn.Module, path: Path, advise: Advice = advise_model) -> LoadReport:
    """Copy the tensors of a file whose names the network has; see `take_weights`.

    Raises:
        UserError: as `read_state_dict` and `take_weights`.
    """
    return take_weights(network, *read_weights(path, network), advise)


def take_weights(
    network: nn.Module, found: Mapping[str, Tensor], source: str, advise: Advice = advise_model
) -> LoadReport:
    """Copy the tensors whose names the network has; half-precision ones are converted.

    Args:
        network: to copy into.
        found: the state dict.
        source: where it comes from, for the report and messages.
        advise: given the shapes in the file, says what to do when they do not fit.

    Raises:
        UserError: no name in common, a tensor of another shape or kind, NaN or infinity.
    """
    wanted = network.state_dict()
    found = {**_shared_by_other_names(network, found), **found}
    taken = [name for name in wanted if name in found]
    report = LoadReport(
        source,
        taken,
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
        {name: value.shape for name, value in found.items()},
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
                f"expected {list(wanted[name].shape)}; {advise(report.shapes)}"
            )
    try:
        tensors = {name: converted(found[name], wanted[name].dtype, name) for name in taken}
    except ValueError as error:
        raise SpoiltFile(f"{source}: {error}: copy it again") from None
    network.load_state_dict(tensors, strict=False)
    return report


def _shared_by_other_names(network: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that the file has by one name of several: safetensors keeps a single one of them."""
    names_of: dict[Tensor, list[str]] = {}
    for name, value in network.named_parameters(remove_duplicate=False):
        names_of.setdefault(value, []).append(name)
    return {
        name: found[there]
        for names in names_of.values()
        for there in names
        if there in found
        for name in names
    }


def load_training_state(path: Path, models: Collection[str]) -> dict | None:
    """Read `<label>_state.pth`, or None where there is none.

    Args:
        path: of the file.
        models: names that its model may have, which becomes part of file names.

    Returns:
        A dictionary with `model` (name), `iteration` (the last finished one), `optimizers`
        (state dicts by name), `networks` (the same) and what else `BaseModel.save` adds. Of a run
        of earlier versions `networks` is a list of names: the weights are in the plain files alone.

    Raises:
        UserError: the file is not a training state.
    """
    if not os.path.lexists(path):
        return None
    state = _read(path)
    if problem := _state_problem(state, models):
        raise UserError(
            f"{path} is not a training state ({problem}): move it away to start with fresh "
            "optimisers"
        )
    if isinstance(networks := state.get("networks"), dict):
        state["networks"] = {
            key: find_state_dict(weights, network_source(path, key)).tensors
            for key, weights in networks.items()
        }
    return state


def _state_problem(state: Any, models: Collection[str]) -> str | None:
    """What keeps the content of a file from being a training state."""
    if not isinstance(state, dict) or not {"model", "iteration", "optimizers"} <= state.keys():
        return "it lacks the model, the iteration or the optimisers"
    if state["model"] not in models:
        return "its model is none of " + ", ".join(models)
    iteration, networks = state["iteration"], state.get("networks", {})
    if type(iteration) is not int or not 0 <= iteration < _LAST_ITERATION:
        return "its iteration is no number of steps"
    if not isinstance(state["optimizers"], dict):
        return "its optimisers have no names"
    if not isinstance(networks, dict | list) or not all(isinstance(key, str) for key in networks):
        return "its networks have no names"
    run = state.get("run", {})
    options = run.get("options", {}) if isinstance(run, dict) else None
    if not isinstance(options, dict) or not all(
        isinstance(text, str) for pair in options.items() for text in pair
    ):
        return "its options are no texts"
    if not all(
        isinstance(value, bool | int | str) for key, value in run.items() if key != "options"
    ):
        return "its settings are neither numbers nor texts"
    return None


def read_model(path: Path) -> str | None:
    """The model that a training state is of; None without the file, or where it cannot tell."""
    if not path.is_file():
        return None
    try:
        # Not the numbers: a state holds gigabytes, and this is asked of every one in a folder.
        state = read_torch_file(path, only_structure=True)
    except UserError:  # told when it is loaded; here it is one of several files
        return None
    model = state.get("model") if isinstance(state, dict) else None
    return model if isinstance(model, str) else None


def network_source(state_path: Path, key: str) -> str:
    """How reports and messages name a network within a training state."""
    return f"{state_path}, network {key}"


def differs(path: Path, weights: Mapping[str, Tensor] | None) -> bool:
    """Whether a plain network file is there and holds something else than `weights`."""
    if not path.exists():
        return False
    try:
        found = read_state_dict(path, weights)
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
