"""The formulas by which the golden numbers' weights and inputs were made, and where they lie.

See README.md beside the golden files (../shared/golden/gfla); `tests/golden/gfla` has copies of
the small ones.
"""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.helpers import GOLDEN, SHARED

PLACES = (
    GOLDEN / "gfla",
    SHARED / "golden" / "gfla",
)
POSE_FRAME = {"fashion": (256, 176), "market": (128, 64)}
IMAGE_SIZE = {"fashion": (256, 256), "market": (128, 64)}


def golden(name: str) -> Any:
    """Content of a golden file (dict for .json, NpzFile for .npz); skips the test without it."""
    for place in PLACES:
        path = place / name
        if path.exists():
            return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)
    pytest.skip(f"golden file {name} is not here; it needs ../shared/golden/gfla")


def generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def formula_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """Value of the tensor with state-dict key `key`."""
    shape = tuple(shape)
    v = generator(key).standard_normal(shape).astype(np.float32)
    if key.endswith(("weight_u", "weight_v")):
        v = (v / np.linalg.norm(v.astype(np.float64))).astype(np.float32)
    elif v.ndim >= 2:
        gain = 2 if key.startswith("vgg19.") else 1
        v = v * np.float32(np.sqrt(gain / np.prod(shape[1:])))
    elif key.endswith("bias"):
        v = v * np.float32(0.1)
    else:
        v = np.float32(1) + np.float32(0.1) * v
    return torch.from_numpy(v)


def fill_by_formula(module: nn.Module, prefix: str = "") -> nn.Module:
    """Give every tensor of `module` its formula value; returns the module.

    A convolution that is registered as `conv1` and as `model.2` gets the value of `model.2`.
    """
    state = module.state_dict()
    values = {}
    for key, tensor in state.items():
        twin = key.replace(".conv1.", ".model.2.")
        values[key] = formula_weight(prefix + (twin if twin in state else key), tensor.shape)
    module.load_state_dict(values)
    return module


def input_image(name: str, shape: tuple[int, ...]) -> Tensor:
    """Image input `name`: uniform in [-1, 1]."""
    return torch.from_numpy(generator("input:" + name).uniform(-1, 1, shape).astype(np.float32))


def input_normal(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """Normal input `name`."""
    v = generator("input:" + name).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(v * np.float32(scale))


def pose_map(pose: str) -> Tensor:
    """Pose map `[18, H, W]` of a pose of poses.json, for instance "fashion.A"."""
    dataset = pose.split(".")[0]
    height, width = IMAGE_SIZE[dataset]
    frame_height, frame_width = POSE_FRAME[dataset]
    maps = np.zeros((18, height, width), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    for joint, (y, x) in enumerate(golden("poses.json")[pose]):
        if -1 in (y, x):
            continue
        a, b = int(y / frame_height * height), int(x / frame_width * width)
        maps[joint] = np.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 72)
    return torch.from_numpy(maps)


def pose_batch(dataset: str) -> tuple[Tensor, Tensor]:
    """(source poses, target poses): the golden batch, fashion 1, market 2."""
    sources, targets = {"fashion": ("A", "B"), "market": ("AC", "BA")}[dataset]
    return tuple(
        torch.stack([pose_map(f"{dataset}.{letter}") for letter in letters])
        for letters in (sources, targets)
    )


def image_batch(dataset: str, name: str) -> Tensor:
    """The golden batch of images: `name` is P1 or P2."""
    batch = {"fashion": 1, "market": 2}[dataset]
    return input_image(f"{dataset}.{name}", (batch, 3, *IMAGE_SIZE[dataset]))


def statistics(x: Tensor) -> dict[str, float]:
    """The `stats` fields of the golden files."""
    v = x.detach().double().flatten().numpy()
    return {
        "mean": v.mean(),
        "std": v.std(),
        "min": v.min(),
        "max": v.max(),
        "l2": np.sqrt((v**2).sum()),
        "wsum": (v * np.cos(0.37 * np.arange(v.size))).sum(),
    }
