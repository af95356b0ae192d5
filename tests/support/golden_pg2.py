"""The formulas by which PG2's golden numbers were made, and where they lie.

See README.md beside the golden files (../shared/golden/pg2); `tests/golden/pg2` has copies of the
small ones. `*_forward_sampled.npz` are every n-th row and column (n = `stride`) of the pictures in
`*_forward.npz`. The goldens' names are "market" and "df" (fashion).
"""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import create_model
from models.pg2.layouts import LAYOUTS
from models.pg2.tensorflow_names import Weight, tensorflow_weights
from models.pg2_model import PG2Model
from options.base_options import parse_train_options
from tests.support.helpers import GOLDEN, SHARED

PLACES = (
    GOLDEN / "pg2",
    SHARED / "golden" / "pg2",
)
DATASET_MODE = {"market": "market", "df": "fashion"}
POSES = {"market": [0, 2], "df": [1]}  # which of poses.npz are the targets


def golden_pg2(name: str) -> Any:
    """Content of a golden file (dict for .json, NpzFile for .npz); skips the test without it."""
    for place in PLACES:
        path = place / name
        if path.exists():
            return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)
    pytest.skip(f"golden file {name} is not here; it needs ../shared/golden/pg2")


def generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def formula_variable(key: str, shape: list[int]) -> np.ndarray:
    """Value of the TensorFlow variable `key`, in TensorFlow's layout."""
    z = generator(key).standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) > 1:
        gain = 2 if key.startswith("UAEnoFC/") else 1
        return z * np.float32(np.sqrt(gain / np.prod(shape[:-1])))
    if key.endswith(".scale"):
        return np.float32(1) + np.float32(0.1) * z
    return np.float32(0.1 if key.endswith(".offset") else 0.05) * z


def weights_of(form: str) -> dict[str, Weight]:
    layout = LAYOUTS[DATASET_MODE[form]]
    return tensorflow_weights(layout, layout.size)


def formula_states(form: str) -> dict[str, dict[str, Tensor]]:
    """State dicts of G1, G2 and D with the golden weights."""
    shapes = {key: value["shape"] for key, value in golden_pg2(f"{form}_variables.json").items()}
    states: dict[str, dict[str, Tensor]] = {"G1": {}, "G2": {}, "D": {}}
    for key, weight in weights_of(form).items():
        value = weight.rearrange(formula_variable(key, shapes[key]))
        states[weight.network][weight.parameter] = torch.from_numpy(np.ascontiguousarray(value))
    return states


def pg2_options(*arguments: str, dataset_mode: str = "market"):
    """Options of train.py for PG2 on the CPU."""
    common = ["--model=pg2", "--gpu_id=-1", "--display_id=0", f"--dataset_mode={dataset_mode}"]
    return parse_train_options([*common, *arguments])


def golden_model(form: str, *arguments: str) -> PG2Model:
    """The model with the golden weights."""
    model = create_model(pg2_options(*arguments, dataset_mode=DATASET_MODE[form]))
    for key, state in formula_states(form).items():
        model.networks[key].load_state_dict(state)
    return model


def golden_batch(form: str) -> dict[str, Tensor]:
    """The golden batch: market 2 pairs, df 1."""
    height, width = LAYOUTS[DATASET_MODE[form]].size
    poses, chosen = golden_pg2("poses.npz"), POSES[form]
    shape = (len(chosen), height, width, 3)
    images = {
        item: generator(f"input:{form}/{name}").integers(0, 256, size=shape, dtype=np.uint8)
        for item, name in (("P1", "x"), ("P2", "x_target"))
    }
    batch = {item: (values.astype(np.float32) - 127.5) / 127.5 for item, values in images.items()}
    batch["BP2"] = poses[f"pose_{height}x{width}"][chosen].astype(np.float32) * 2 - 1
    batch["mask2"] = poses[f"mask_r4_{height}x{width}"][chosen].astype(np.float32)[..., None]
    return {
        item: torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()
        for item, values in batch.items()
    }


def in_tensorflow_layout(form: str, key: str, tensor: Tensor) -> np.ndarray:
    """A parameter of ours, or its gradient, as the variable `key` would hold it."""
    layout = LAYOUTS[DATASET_MODE[form]]
    coarsest = [side >> (layout.levels - 1) for side in layout.size]
    values = tensor.detach()
    if key == "Pose_AE/G/fully_connected/weights":
        values = values.unflatten(1, (-1, *coarsest)).permute(2, 3, 1, 0).flatten(0, 2)
    elif key.startswith("Pose_AE/G/fully_connected_1/"):
        values = values.unflatten(0, (-1, *coarsest)).movedim(0, 2)
        values = values.movedim(-1, 0) if key.endswith("weights") else values
        values = values.flatten(-3)
    elif values.ndim == 4:
        values = values.permute(2, 3, 1, 0)
    elif values.ndim == 2:
        values = values.T
    return values.numpy()


def samples_of(key: str, array: np.ndarray) -> np.ndarray:
    """The 16 values of a variable that the golden files list."""
    positions = generator("sample:" + key).integers(0, array.size, 16)
    return array[np.unravel_index(positions, array.shape)]
