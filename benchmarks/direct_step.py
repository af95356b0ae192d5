"""The training steps of GFLA as their definition reads, to measure the fast ones against.

Against models/pose_model.py and models/poseflownet_model.py:

- the local attention lays out its k×k blocks (benchmarks/direct.py);
- every loss runs VGG19 for itself, to its last layer, channels first: six passes in stage 2, two
  in stage 1. Frozen weights and constant images get no gradient here either;
- the best similarity comes from the cosines of all pairs of positions of a batch at once;
- the warp of the VGG features adds up its 16 taps, each read from the feature map;
- instance norms are PyTorch's, Adam is not fused, and malloc is as the system has it.

The rest is the project's own, also where the definition would be slower: the regularity.
"""

import argparse
import contextlib
import itertools
import math
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import direct
from models.base_model import BaseModel
from models.gfla.base import GFLAModel
from models.gfla.blocks import InstanceNorm
from models.losses.correctness import EPSILON
from models.losses.perceptual import content_loss, style_loss
from models.losses.regularity import regularity_loss
from models.losses.vgg import LAYERS, VGG19Features
from models.operators.local_attention import LocalAttention
from models.pose_model import PoseModel
from models.poseflownet_model import PoseFlowNetModel


class _DirectLosses(GFLAModel):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.vgg = self.run_vgg = VGG19Features(options.vgg_weights).to(self.device)

    def constant_features(self, image: Tensor, names: list[str]) -> dict[str, Tensor]:
        return self.run_vgg(image, LAYERS)

    def flow_losses(
        self, flows: list[Tensor], source: dict[str, Tensor], target: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        correctness = sum(
            direct_correctness(source[name], target[name], flow)
            for name, flow in zip(self.correctness_features, flows, strict=True)
        )
        options = self.options
        return correctness, regularity_loss(flows, options.attn_layer, options.kernel_size)


class DirectPoseFlowNetModel(_DirectLosses, PoseFlowNetModel):
    """Stage 1; see the module."""


class DirectPoseModel(_DirectLosses, PoseModel):
    """Stage 2; see the module."""

    def _perceptual_losses(
        self, image: Tensor, target_image: Tensor, target: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        losses = (
            loss(self.run_vgg(image, LAYERS), self.run_vgg(target_image, LAYERS))
            for loss in (content_loss, style_loss)
        )
        return tuple(losses)


def direct_correctness(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """models.losses.correctness.correctness_loss of one layer, with all similarities at once."""
    pairs = F.normalize(target.flatten(2), dim=1).mT @ F.normalize(source.flatten(2), dim=1)
    best = pairs.max(dim=2).values.view_as(flow[:, 0])
    similarity = F.cosine_similarity(direct_gaussian_resample(source, flow), target, dim=1)
    return torch.exp(-similarity / (best + EPSILON)).mean() - math.exp(-1)


def direct_gaussian_resample(source: Tensor, flow: Tensor) -> Tensor:
    """models.operators.gaussian_resample, tap by tap."""
    channels, height, width = source.shape[1:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    total = weights = 0.0
    for i, j in itertools.product(range(-1, 3), repeat=2):
        column, row = x.detach().floor() + j, y.detach().floor() + i
        weight = torch.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 2.0**2))[:, None]
        column, row = column.long().clamp(0, width - 1), row.long().clamp(0, height - 1)
        index = (row * width + column).flatten(1)[:, None].expand(-1, channels, -1)
        total = total + weight * source.flatten(2).gather(2, index).view(source.shape)
        weights = weights + weight
    return total / weights


def _direct_attention(self: LocalAttention, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    return direct.local_attention(self.fully_connect_layer, source, target, flow, self.kernel_size)


@contextlib.contextmanager
def direct_networks() -> Iterator[None]:
    """Within it, local attention and instance norm are computed as in the module's list."""
    with (
        mock.patch.object(LocalAttention, "forward", _direct_attention),
        mock.patch.object(InstanceNorm, "forward", nn.InstanceNorm2d.forward),
    ):
        yield


def create_direct_model(options: argparse.Namespace) -> BaseModel:
    """The model that the options name, with the losses of this module; its Adam is not fused."""
    options.fused_optimizer = False
    classes = {"pose": DirectPoseModel, "poseflownet": DirectPoseFlowNetModel}
    return classes[options.model](options)
