"""Sampling correctness: does the flow lead to source features that resemble the target's?

Paper: Ren et al., CVPR 2020, section 3.1, after Ren et al., "StructureFlow", ICCV 2019.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.operators.gaussian_resample import gaussian_resample

EPSILON = 1e-8
MAX_SIMILARITIES = 2**24  # similarities held at a time: 64 MiB in float32


def correctness_loss(
    source_features: Sequence[Tensor], target_features: Sequence[Tensor], flows: Sequence[Tensor]
) -> Tensor:
    """Sum of `sampling_correctness` over layers, the source features warped by the flows.

    Args:
        source_features: VGG19 features of the source image, one `[B, C, h, w]` per flow, same order
            and same h, w as the flows. Layer L of the network goes with relu{L+1}_1.
        target_features: the same of the target image.
        flows: `[B, 2, h, w]` each, x then y, in pixels of that map, source minus target position.

    Returns:
        A scalar, differentiable in the flows.
    """
    return sum(
        sampling_correctness(gaussian_resample(source, flow), source, target)
        for source, target, flow in zip(source_features, target_features, flows, strict=True)
    )


def sampling_correctness(
    warped: Tensor, source_features: Tensor, target_features: Tensor
) -> Tensor:
    """Mean over positions of exp(-μ / (μ_max + 1e-8)), less exp(-1), its value at the optimum.

    μ is the cosine similarity of the warped source and the target at a position, μ_max the best
    that any source position offers there. For features that are nowhere alike, it can be negative.

    Args:
        warped: `[B, C, h, w]`, source features read along the flow.
        source_features: `[B, C, h, w]`.
        target_features: `[B, C, h, w]`.

    Returns:
        A scalar, differentiable in `warped`; `source_features` and `target_features` get no
        gradient through μ_max.
    """
    similarity = F.cosine_similarity(warped, target_features, dim=1)
    best = best_similarity(source_features, target_features)
    return torch.exp(-similarity / (best + EPSILON)).mean() - math.exp(-1)


@torch.no_grad()
def best_similarity(source_features: Tensor, target_features: Tensor) -> Tensor:
    """Largest cosine similarity of each target position to any source position, `[B, h, w]`.

    Works through the target positions in chunks: all pairs of a batch are never in memory.

    Args:
        source_features: `[B, C, hs, ws]`.
        target_features: `[B, C, h, w]`.
    """
    source = F.normalize(source_features.flatten(2), dim=1)
    target = F.normalize(target_features.flatten(2), dim=1).transpose(1, 2)
    chunk = max(1, MAX_SIMILARITIES // (source.shape[0] * source.shape[2]))
    best = [(part @ source).amax(dim=2) for part in target.split(chunk, dim=1)]
    return torch.cat(best, dim=1).view(target_features.shape[0], *target_features.shape[2:])
