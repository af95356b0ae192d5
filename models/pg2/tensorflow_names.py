"""The names and layouts that PG2's weights have in TensorFlow checkpoints, and ours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.pg2.layouts import Layout

Rearrange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Weight:
    """Where a TensorFlow variable goes.

    Attributes:
        network: G1, G2 or D.
        parameter: name in the network's state dict.
        rearrange: from TensorFlow's layout to PyTorch's; it may return a view. Raises ValueError
            for an array that cannot have this layout.
    """

    network: str
    parameter: str
    rearrange: Rearrange


def tensorflow_weights(layout: Layout, size: tuple[int, int]) -> dict[str, Weight]:
    """The model variables of a checkpoint that the networks use, by TensorFlow name (without ":0").

    Not among them, as nothing reads them: moving averages of the batch norm, optimiser slots,
    counters and learning rates.

    Args:
        layout: the form of the networks.
        size: (height, width) of the images the checkpoint was trained on.
    """
    coarsest = tuple(side >> (layout.levels - 1) for side in size)
    return {
        **dict(_coarse_generator(layout.levels, coarsest)),
        **dict(_refinement_generator(layout.levels - 2)),
        **dict(_discriminator(layout.dis_layers)),
    }


def _coarse_generator(levels: int, coarsest: tuple[int, int]) -> Iterator[tuple[str, Weight]]:
    layers = ["first"]
    for part, between in (("encoder", "down"), ("decoder", "up")):
        for i in range(levels):
            layers += [f"{part}.{i}.conv1", f"{part}.{i}.conv2"]
            layers += [f"{between}.{i}"] * (i < levels - 1)
    yield from _convolutions("Pose_AE/G", "G1", [*layers, "last"])
    # The dense layers see features in the order channel, row, column; TensorFlow's has the channel
    # last. Reordering the weights once spares reordering the features in every step.
    scope = "Pose_AE/G/fully_connected"
    to_latent, from_latent = _channel_first_rows(coarsest), _channel_first_columns(coarsest)
    yield f"{scope}/weights", Weight("G1", "to_latent.weight", to_latent)
    yield f"{scope}/biases", Weight("G1", "to_latent.bias", _unchanged)
    yield f"{scope}_1/weights", Weight("G1", "from_latent.weight", from_latent)
    yield f"{scope}_1/biases", Weight("G1", "from_latent.bias", from_latent)


def _refinement_generator(levels: int) -> Iterator[tuple[str, Weight]]:
    layers = ["first"]
    for i in range(levels):
        layers += [f"encoder.{i}.conv1", f"encoder.{i}.conv2"]
        layers += [f"down.{i}"] * (i < levels - 1)
    for i in range(levels):
        layers += [f"decoder.{i}.conv1", f"decoder.{i}.conv2"]
    yield from _convolutions("UAEnoFC/G", "G2", [*layers, "last"])


def _convolutions(scope: str, network: str, layers: list[str]) -> Iterator[tuple[str, Weight]]:
    """TensorFlow numbers a scope's convolutions in the order of their creation."""
    for number, layer in enumerate(layers):
        name = f"{scope}/Conv_{number}" if number else f"{scope}/Conv"
        yield f"{name}/weights", Weight(network, f"{layer}.weight", _convolution)
        yield f"{name}/biases", Weight(network, f"{layer}.bias", _unchanged)


def _discriminator(layers: int) -> Iterator[tuple[str, Weight]]:
    for i in range(layers):
        name, layer = f"Discriminator.{i + 1}", f"layers.{i}"
        yield f"{name}/{name}.Filters", Weight("D", f"{layer}.conv.weight", _convolution)
        yield f"{name}/{name}.Biases", Weight("D", f"{layer}.conv.bias", _unchanged)
        if i > 0:
            name = f"Discriminator.BN{i + 1}"
            yield f"{name}.scale", Weight("D", f"{layer}.norm.weight", _unchanged)
            yield f"{name}.offset", Weight("D", f"{layer}.norm.bias", _unchanged)
    name = "Discriminator.Output"
    yield f"{name}/{name}.W", Weight("D", "output.weight", np.transpose)
    yield f"{name}/{name}.b", Weight("D", "output.bias", _unchanged)


def _unchanged(array: np.ndarray) -> np.ndarray:
    return array


def _convolution(array: np.ndarray) -> np.ndarray:
    """[height, width, in, out] -> [out, in, height, width]."""
    return array.transpose(3, 2, 0, 1)


def _channel_first_rows(size: tuple[int, int]) -> Rearrange:
    """[height·width·channels, out] -> [out, channels·height·width]."""

    def rearrange(array: np.ndarray) -> np.ndarray:
        return (
            array.reshape(*size, -1, array.shape[1])
            .transpose(3, 2, 0, 1)
            .reshape(array.shape[1], array.shape[0])
        )

    return rearrange


def _channel_first_columns(size: tuple[int, int]) -> Rearrange:
    """[in, height·width·channels] -> [channels·height·width, in]; the same for [h·w·c] alone."""

    def rearrange(array: np.ndarray) -> np.ndarray:
        *inputs, outputs = array.shape
        maps = array.reshape(*inputs, *size, outputs // (size[0] * size[1]))
        return np.moveaxis(maps, (-1, -3, -2), (0, 1, 2)).reshape(outputs, *inputs)

    return rearrange
