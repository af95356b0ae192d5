"""Import pretrained PG2 weights from a TensorFlow checkpoint, without TensorFlow.

python -m script.import_pg2_checkpoint path/to/model.ckpt-60000 --name pg2_market
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where it is started as a file
    from util.command_line import run_program

    run_program("script.import_pg2_checkpoint")

import numpy as np
import torch
from torch import Tensor

from models.pg2.layouts import LAYOUTS, build_networks
from models.pg2.tensorflow_names import Rearrange, tensorflow_weights
from models.pg2_model import IMAGE_CHANNELS
from models.presets import PG2
from util.argument_types import folder_name
from util.checkpoints import save_checkpoint
from util.command_line import Parser, as_arguments
from util.errors import UserError, printable
from util.files import written_whole
from util.run.folder import holds_run, models_of
from util.run.lock import RunLock
from util.run.network_record import write_network_record
from util.state_dicts import converted
from util.tensorflow.checkpoint import (
    TensorFlowCheckpoint,
    TensorFlowV1Checkpoint,
    open_checkpoint,
)

AnyCheckpoint = TensorFlowCheckpoint | TensorFlowV1Checkpoint
STEP_NAMES = ("step", "global_step")
# Where a checkpoint tells the options of its networks: the last dimension of these.
WIDTHS = {
    "conv_hidden_num": "Pose_AE/G/Conv/biases",
    "z_num": "Pose_AE/G/fully_connected/biases",
    "ndf": "Discriminator.1/Discriminator.1.Biases",
}
MAX_WIDTH = 1024
MAX_UNUSED = 4  # bytes of the variables that no network reads, for each byte of the others
# Kinds of variables that no network reads, by how their names end.
UNUSED_KINDS = {
    "optimiser slots": ("/Adam", "/Adam_1"),
    "powers of Adam's betas": tuple(
        f"beta{k}_power{suffix}" for k in (1, 2) for suffix in ("", "_1", "_2")
    ),
    "moving averages of the batch norm": (".moving_mean", ".moving_variance"),
    "counters and learning rates": (*STEP_NAMES, "g_lr", "d_lr"),
}


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A checkpoint in this project's names and layouts.

    Attributes:
        layout: "market" or "fashion", see LAYOUTS.
        options: the networks' widths by option name, such as conv_hidden_num.
        iteration: the checkpoint's own count of steps; None without one.
        networks: state dicts by the networks' names, G1, G2 and D.
        unused: names of variables that went nowhere, by kind.
    """

    layout: str
    options: dict[str, int]
    iteration: int | None
    networks: dict[str, dict[str, Tensor]]
    unused: dict[str, list[str]]

    def record(self) -> dict[str, Any]:
        """What network.json says of it."""
        return {
            "model": "pg2",
            "dataset_mode": self.layout,
            "load_size": LAYOUTS[self.layout].size,
            "pose_encoding": "disc",
            "layout": self.layout,
            "structure_nc": self.networks["G1"]["first.weight"].shape[1] - IMAGE_CHANNELS,
            **self.options,
        }

    def lines(self) -> list[str]:
        """Say what was found and what not used, for the user."""
        widths = ", ".join(f"--{name}={value}" for name, value in self.options.items())
        iteration = "unknown" if self.iteration is None else self.iteration
        lines = [f"layout {self.layout}, {widths}, iteration {iteration}"]
        for name, weights in self.networks.items():
            count = sum(tensor.numel() for tensor in weights.values())
            lines.append(f"{name}: {len(weights)} tensors, {count:,} parameters")
        for kind, names in self.unused.items():
            lines.append(
                f"not used: {len(names)} {kind}, such as {printable(', '.join(names[:2]))}"
            )
        return lines


def convert_checkpoint(prefix: str | Path) -> ConvertedCheckpoint:
    """Read a TensorFlow checkpoint of PG2; layout and widths are found from its variables.

    Args:
        prefix: path of the checkpoint's files without `.index`, or what `open_checkpoint` takes.

    Raises:
        UserError: the files cannot be read, are damaged, or hold something else than PG2.
    """
    checkpoint = open_checkpoint(prefix)
    used = [name for name in checkpoint.variables if _unused_kind(name) is None]
    weights = {name: tensorflow_weights(layout, layout.size) for name, layout in LAYOUTS.items()}
    chosen = min(weights, key=lambda name: len(weights[name].keys() ^ set(used)))
    missing = [name for name in weights[chosen] if name not in checkpoint.variables]
    if missing:
        raise UserError(
            f"{checkpoint.prefix}: is no checkpoint of PG2, or not a whole one: {len(missing)} of "
            f"{len(weights[chosen])} variables of the {chosen} layout are not in it, "
            f"such as '{missing[0]}'"
        )
    options = {option: _last_dimension(checkpoint, name) for option, name in WIDTHS.items()}
    pose_channels = sum(checkpoint.variables["Pose_AE/G/Conv/weights"].shape[-2:-1])
    structure_nc = pose_channels - IMAGE_CHANNELS
    for option, width in {**options, "structure_nc": structure_nc}.items():
        if not 1 <= width <= MAX_WIDTH:
            raise UserError(
                f"{checkpoint.prefix}: its networks would have --{option}={width}, 1 to "
                f"{MAX_WIDTH} are read: is this PG2?"
            )
    with torch.device("meta"):
        networks = build_networks(
            LAYOUTS[chosen],
            LAYOUTS[chosen].size,
            structure_nc=structure_nc,
            **options,
        )
    wanted = {name: network.state_dict() for name, network in networks.items()}
    found: dict[str, dict[str, Tensor]] = {name: {} for name in networks}
    for name, weight in weights[chosen].items():
        found[weight.network][weight.parameter] = _convert(
            checkpoint, name, weight.rearrange, wanted[weight.network][weight.parameter].shape,
            f"{weight.network}'s {weight.parameter} in the {chosen} layout with {options}",
        )  # fmt: skip
    steps = [name for name in STEP_NAMES if name in checkpoint.variables]
    iteration = _iteration(checkpoint, steps[0]) if steps else None
    unused: dict[str, list[str]] = {}
    used_bytes = sum(checkpoint.variables[name].nbytes for name in weights[chosen])
    all_bytes = sum(variable.nbytes for variable in checkpoint.variables.values())
    if all_bytes - used_bytes > MAX_UNUSED * used_bytes:
        raise UserError(
            f"{checkpoint.prefix}: holds {all_bytes:,} bytes, of which PG2 has {used_bytes:,}: "
            "is this PG2?"
        )
    for name in checkpoint.variables:
        if name not in weights[chosen]:
            checkpoint.read(name)  # a damaged file is not to be trusted, wherever the damage is
            unused.setdefault(_unused_kind(name) or "others", []).append(name)
    return ConvertedCheckpoint(chosen, options, iteration, found, unused)


def import_checkpoint(
    prefix: str | Path, folder: Path, overwrite: bool = False
) -> ConvertedCheckpoint:
    """Convert a checkpoint and write it as `latest_net_<network>.pth`, never mixed with others.

    Beside them `import.txt` keeps what was found. Optimiser states are not taken over.

    Args:
        prefix: path of the checkpoint's files without `.index`, or what `open_checkpoint` takes.
        folder: the experiment's folder, made if need be.
        overwrite: whether the `latest` checkpoint of an earlier experiment there may be replaced.

    Raises:
        UserError: as `convert_checkpoint`; the folder holds an experiment already, a run is writing
            there, or it cannot be written.
    """
    if not overwrite and holds_run(folder):
        raise UserError(
            f"{folder} holds an experiment already: choose another --name, or replace its latest "
            "checkpoint with --overwrite"
        )
    others = set(models_of(folder).values()) - {"pg2", None}
    if others:
        raise UserError(
            f"{folder} holds checkpoints of --model={others.pop()}, with which --overwrite would "
            "mix those of PG2: choose another --name"
        )
    converted = convert_checkpoint(prefix)
    with RunLock(folder):
        save_checkpoint(folder, "latest", converted.networks)
        write_network_record(folder, converted.record())
        with written_whole(folder / "import.txt") as temporary:
            text = "\n".join([f"imported from {prefix}", *converted.lines(), ""])
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return converted


def _unused_kind(name: str) -> str | None:
    kinds = (kind for kind, endings in UNUSED_KINDS.items() if name.endswith(endings))
    return next(kinds, None)


def _last_dimension(checkpoint: AnyCheckpoint, name: str) -> int:
    shape = checkpoint.variables[name].shape
    if not shape or not shape[-1]:
        raise UserError(f"{checkpoint.prefix}: '{name}' has shape {list(shape)}: is this PG2?")
    return shape[-1]


def _iteration(checkpoint: AnyCheckpoint, name: str) -> int:
    value = checkpoint.read(name)
    if value.shape or value.dtype.kind not in "iu" or not 0 <= value < 1 << 53:
        raise UserError(f"{checkpoint.prefix}: '{name}' is no number of steps")
    return int(value)


def _convert(
    checkpoint: AnyCheckpoint,
    name: str,
    rearrange: Rearrange,
    shape: torch.Size,
    place: str,
) -> Tensor:
    variable = checkpoint.variables[name]
    misfit = f"{checkpoint.prefix}: '{name}' has shape {list(variable.shape)}"
    try:
        if math.prod(variable.shape) != math.prod(shape):
            raise ValueError
        # One number that looks like many: the shape is found before anything is read.
        arranged = rearrange(np.broadcast_to(np.float32(0), variable.shape)).shape
    except ValueError:
        arranged = None
    if arranged != tuple(shape):
        raise UserError(f"{misfit}, which does not fit {place}")
    array = checkpoint.read(name)
    if array.dtype.kind != "f":
        raise UserError(f"{misfit} of {array.dtype}, numbers with a fraction were expected")
    try:
        return converted(torch.from_numpy(np.array(rearrange(array))), torch.float32, f"'{name}'")
    except ValueError as error:
        raise UserError(f"{checkpoint.prefix}: {error}: take another one") from None


def main(arguments: list[str] | None = None) -> int:
    """Write result/NAME/latest_net_*.pth, and say what was found and how to go on.

    Raises:
        UserError: bad options, a checkpoint that cannot be read or does not fit, a used name.
    """
    parser = Parser(
        prog="python -m script.import_pg2_checkpoint", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "checkpoint", help="path of the checkpoint's files without .index, or their folder"
    )
    parser.add_argument("--name", type=folder_name, required=True, help="name of the experiment")
    parser.add_argument("--checkpoints_dir", default="./result", help="folder of the experiments")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the latest checkpoint of a used name"
    )
    options = parser.parse_all(arguments)

    folder = Path(options.checkpoints_dir) / options.name
    converted = import_checkpoint(options.checkpoint, folder, options.overwrite)
    print("\n".join(converted.lines()))
    print(f"written: {', '.join(f'{folder}/latest_net_{name}.pth' for name in converted.networks)}")
    run = {"name": options.name, "checkpoints_dir": options.checkpoints_dir}
    if options.checkpoints_dir == parser.get_default("checkpoints_dir"):
        del run["checkpoints_dir"]
    # Widths and the like are in network.json.
    run |= {"model": "pg2", "dataset_mode": converted.layout}
    print(f"generate: python test.py {as_arguments(run)}")
    run["iter_count"] = (converted.iteration or 0) + 1
    published = PG2.values(converted.layout)["niter"]
    if run["iter_count"] > published:
        run["niter"] = converted.iteration + published
    print(f"train on, with fresh optimisers: python train.py {as_arguments(run)} --continue_train")
    return 0
