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
MAX_SIMILARITIES = 2**22  # similarities held at a time: 16 MiB in float32


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
    similarity = F.cosine_similarity(_precise(warped), _precise(target_features), dim=1)
    best = best_similarity(source_features, target_features)
    return torch.exp(-similarity / (best + EPSILON)).mean() - math.exp(-1)


@torch.no_grad()
def best_similarity(source_features: Tensor, target_features: Tensor) -> Tensor:
    """Largest cosine similarity of each target position to any source position, `[B, h, w]`.

    Works through the target positions in chunks: all pairs of an item are never in memory.

    Args:
        source_features: `[B, C, hs, ws]`.
        target_features: `[B, C, h, w]`.
    """
    best = []
    for source, target in zip(
        _directions(source_features), _directions(target_features), strict=True
    ):
        chunks = target.split(max(1, MAX_SIMILARITIES // len(source)))
        columns = source.T.contiguous()
        best += [_similarities(chunk, columns).amax(dim=1) for chunk in chunks]
    return torch.cat(best).view(target_features.shape[0], *target_features.shape[2:])


def _similarities(target: Tensor, source: Tensor) -> Tensor:
    """Products of all rows of `target` `[N, C]` and all columns of `source` `[C, M]`, `[N, M]`."""
    if source.device.type == "cpu":
        # As a convolution with the target's rows as its filters: oneDNN's takes about half the time
        # of MKL's product on an AMD processor. Not on a GPU, whose convolutions may round to TF32.
        return F.conv1d(source[None], target[:, :, None])[0]
    return target @ source


def _directions(features: Tensor) -> Tensor:
    """Features of length 1, `[B, h · w, C]`; a row is contiguous, which products read faster."""
    rows = _precise(features).permute(0, 2, 3, 1).flatten(1, 2).contiguous()
    return F.normalize(rows, dim=2)


def _precise(features: Tensor) -> Tensor:
    """At least float32: a maximum over products rounded to half precision would be too large."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
