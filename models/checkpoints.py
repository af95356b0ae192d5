"""Checkpoints of a model: what is saved, what a run goes on from, what test.py takes."""

import contextlib
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.base_model import BaseModel
from models.names import model_names
from util.checkpoints import (
    LoadReport,
    NoCheckpoint,
    differs,
    load_network,
    load_training_state,
    network_source,
    read_weights,
    save_checkpoint,
    take_weights,
)
from util.command_line import as_arguments
from util.errors import SpoiltFile, UserError
from util.optimizer_states import load_optimizer

_LOADING_ATTEMPTS = 5


@dataclass
class TrainingStart:
    """What a continued run starts from.

    Attributes:
        lines: what was loaded, for the user.
        iteration: the last finished iteration; 0 at the start of a stage.
        earlier_model: the stage that wrote the checkpoint, if it is another one.
        networks: the networks that were loaded; others start fresh.
        run: what `save_model` was given as `run`.
    """

    lines: list[str]
    iteration: int = 0
    earlier_model: str | None = None
    networks: list[str] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)


def save_model(
    model: BaseModel,
    folder: Path,
    label: str | int,
    iteration: int,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write `<label>_state.pth`, from which a run goes on, and then `<label>_net_<key>.pth`.

    Args:
        model: whose networks and optimisers are saved.
        folder: the experiment's folder.
        label: "latest" or the iteration.
        iteration: the last finished iteration.
        run: what the data order and all random numbers follow from, kept with the state.

    Raises:
        UserError: the files cannot be written, or a weight is NaN or infinite; the files that were
            there stay.
    """
    networks = {
        key: {
            name: value.detach().cpu() for name, value in model.networks[key].state_dict().items()
        }
        for key in model.networks_to_save()
    }
    for key, weights in networks.items():
        for name, value in weights.items():
            if not value.isfinite().all():
                raise UserError(
                    f"net_{key}: {name} became NaN or infinite in iteration {iteration}; lower --lr"
                )
    state = {
        "model": model.options.model,
        "iteration": iteration,
        "optimizers": {name: value.state_dict() for name, value in model.optimizers.items()},
        "run": dict(run or {}),
    }
    absent = [key for key in model.networks if key not in networks]
    save_checkpoint(folder, label, networks, state, absent)


class Saves:
    """The checkpoints of a run, and what was saved when.

    Args:
        model: to save.
        folder: of the run.
        iteration: the one that the run starts from.
        record: what the rest of the run follows from, kept with each state.
        stops_at_failure: whether a save that fails ends the training.
    """

    def __init__(
        self,
        model: BaseModel,
        folder: Path,
        iteration: int,
        record: Mapping[str, Any],
        stops_at_failure: bool,
    ) -> None:
        self.newest = iteration  # of the newest `latest`
        self._model = model
        self._folder = folder
        self._record = record
        self._stops_at_failure = stops_at_failure

    def save(self, label: str | int, iteration: int) -> bool:
        """Save a checkpoint; False where that failed and --save_failure=continue."""
        try:
            save_model(self._model, self._folder, label, iteration, self._record)
        except UserError as error:
            if self._stops_at_failure:
                raise
            tqdm.write(
                f"NOT SAVED at iteration {iteration}: {error}; the checkpoint of iteration "
                f"{self.newest} stays, training goes on (--save_failure=stop would end it)"
            )
            return False
        if label == "latest":
            self.newest = iteration
        return True

    def finish(self, iteration: int) -> None:
        """Save what is not saved yet. Raises UserError where that fails."""
        if self.newest != iteration:
            save_model(self._model, self._folder, "latest", iteration, self._record)
            self.newest = iteration


def load_for_test(model: BaseModel, folder: Path, label: str) -> list[LoadReport]:
    """Load a model made for testing; everything its networks hold must be in the files.

    The files may be those of a run that goes on: all are of one save.

    Raises:
        UserError: a file is absent or unreadable, or does not hold the whole network, or more
            of its parts; or the files changed during each of several attempts.
    """
    for _ in range(_LOADING_ATTEMPTS):
        before = _file_versions(folder, label)
        try:
            with _saying_how_to_choose(model):
                reports = [_load_whole(model, key, folder, label) for key in model.networks]
        except UserError:
            if _file_versions(folder, label) == before:
                raise
        else:
            if _file_versions(folder, label) == before:
                return reports
    raise UserError(
        f"{folder}: its checkpoint {label} is written anew faster than it is read; stop the "
        "training, or take a numbered checkpoint (--which_iter)"
    )


def _file_versions(folder: Path, label: str) -> dict[str, tuple[int, int]]:
    """Which files the networks of a checkpoint are: a save gives each name another file."""
    states = {path.name: path.stat() for path in folder.glob(f"{glob.escape(label)}_net_*.pth")}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


def _load_whole(model: BaseModel, key: str, folder: Path, label: str) -> LoadReport:
    path, state = folder / f"{label}_net_{key}.pth", folder / f"{label}_state.pth"
    if not path.exists():
        others = [name for name in model.networks if (folder / f"{label}_net_{name}.pth").exists()]
        if others and (reason := model.explain_absent(key)):
            raise UserError(f"no {path}: {reason}")
        if state.exists():
            raise UserError(
                f"no checkpoint {path}, though {state.name} is there: check --model, or go on "
                "with --continue_train, which writes it, if a save was cut off"
            )
    report = load_network(model.networks[key], path, lambda shapes: _advice(model, shapes))
    # Without a layer that it was trained with, a network makes other pictures.
    if report.missing or report.partly_left_over:
        raise _misfit(model, report)
    return report


def load_for_training(model: BaseModel, folder: Path, label: str) -> TrainingStart:
    """Load what is there to go on with: weights, and optimisers if the same model wrote them.

    The weights come from `<label>_state.pth` alone. Where there is none (released weights), or
    one of earlier versions, which has no weights in it, they come from `<label>_net_<key>.pth`.

    Raises:
        UserError: no checkpoint, or one that does not fit.
    """
    with _saying_how_to_choose(model):
        state_path = folder / f"{label}_state.pth"
        state = load_training_state(state_path, model_names())
        start = _load_networks(model, folder, label, state)
        if state is None:
            start.lines.append("optimisers: no training state beside the weights, start fresh")
        elif state["model"] != model.options.model:
            start.lines.append(
                f"optimisers: start fresh, the checkpoint is of --model={state['model']}"
            )
            start.earlier_model = state["model"]
        else:
            _load_optimizers(model, state, state_path)
            start.iteration = state["iteration"]
            start.lines.append(f"optimisers: as after iteration {start.iteration}")
    model.after_loading(start.networks)
    return start


def _load_networks(
    model: BaseModel, folder: Path, label: str, state: dict[str, Any] | None
) -> TrainingStart:
    """Load the networks, the optional ones if they are there."""
    start = TrainingStart([], run=state.get("run", {}) if state else {})
    state_path = folder / f"{label}_state.pth"
    held = state.get("networks", []) if state else []
    commit = folder / f".{label}.commit"
    if not isinstance(held, dict) and commit.exists():
        raise SpoiltFile(
            f"{commit}: a save of an earlier version was cut off here, the files may be of two "
            "iterations: remove that file to take the weights as they are"
        )
    for key, network in model.networks.items():
        path = folder / f"{label}_net_{key}.pth"
        is_required = key in model.required_networks
        absent = f"no {path.name}"
        if isinstance(held, dict):
            source, weights = network_source(state_path, key), held.get(key)
            absent = f"none in {state_path.name}"
            if is_required and weights is None:
                plain = f", or move the file away to start from {path.name}"
                raise UserError(
                    f"{state_path} holds no network {key}, it is of --model={state['model']}: "
                    f"choose that --model or another {_other_run(model)}"
                    + (plain if path.exists() else "")
                )
            if differs(path, weights):
                start.lines.append(
                    f"{path.name} holds other weights than {state_path.name}, which counts: "
                    f"the next save replaces it; to start from it move {state_path.name} away"
                )
        elif is_required or path.exists():
            weights, source = read_weights(path, network)
        elif state and state["model"] == model.options.model and key in held:
            raise UserError(f"no {path}, which was saved with the files beside it")
        else:
            weights = None
        if weights is None:
            start.lines.append(f"network {key}: {absent}, starts fresh")
        else:
            start.lines.append(str(_take(model, key, weights, source)))
            start.networks.append(key)
    return start


def _take(model: BaseModel, key: str, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy weights into a network that is to be trained."""
    report = take_weights(
        model.networks[key], weights, source, lambda shapes: _advice(model, shapes)
    )
    # Another stage may bring whole parts of a network; anything less is a mistake.
    if report.missing and (key not in model.required_networks or report.partly_taken):
        raise _misfit(model, report)
    if report.left_over and (report.partly_left_over or _differing(model, report.shapes)):
        raise _misfit(model, report)
    if report.left_over:
        raise UserError(
            f"{report}; --model={model.options.model} would train on without those: choose "
            f"the --model that the checkpoint is of, or another {_other_run(model)}"
        )
    return report


def _load_optimizers(model: BaseModel, state: Mapping[str, Any], path: Path) -> None:
    for name, optimizer in model.optimizers.items():
        try:
            load_optimizer(optimizer, state["optimizers"].get(name))
        except ValueError as error:
            raise UserError(
                f"{path}: its optimiser {name} does not fit ({error}); give the options "
                "it was trained with, or move the file away to start it fresh"
            ) from error


@contextlib.contextmanager
def _saying_how_to_choose(model: BaseModel) -> Iterator[None]:
    """Where a checkpoint cannot be loaded, name the options that choose another one."""
    run = getattr(model.options, "init_from", None)
    label = as_arguments({"init_from": f"{run[0]}:LABEL"} if run else {"which_iter": "LABEL"})
    places = f"--checkpoints_dir and {label}" if run else f"--checkpoints_dir, --name, {label}"
    try:
        yield
    except NoCheckpoint as error:
        raise UserError(f"{error}; check {places}") from error
    except SpoiltFile as error:
        raise UserError(f"{error}, or take another one with {label}") from error


def _other_run(model: BaseModel) -> str:
    return "--init_from" if getattr(model.options, "init_from", None) else "--name"


def _misfit(model: BaseModel, report: LoadReport) -> UserError:
    """What to raise about weights that are not those of the whole network."""
    return UserError(f"{report}; {model.explain_missing(report) or _advice(model, report.shapes)}")


def _differing(model: BaseModel, shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """Those options that weights of these shapes were trained with and that are others here."""
    return {
        name: value
        for name, value in model.trained_with(shapes).items()
        if value not in (None, getattr(model.options, name, model.fixed_options.get(name)))
    }


def _advice(model: BaseModel, shapes: Mapping[str, torch.Size]) -> str:
    """What a user can do about weights of these shapes that do not fit."""
    others = _differing(model, shapes)
    shown = as_arguments(others)
    fixed = {name: value for name, value in model.fixed_options.items() if name in others}
    if fixed:
        here = as_arguments(fixed)
        return f"it is of a network with {shown}; here it is always {here}, train one anew"
    if shown:
        return f"give the options that it was trained with: {shown}"
    return f"give the {model.network_options} that it was trained with"
