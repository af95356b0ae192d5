"""Perceptual losses on VGG19 features: content and style (Johnson et al., ECCV 2016)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

CONTENT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def content_loss(features: Mapping[str, Tensor], target_features: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute difference of the features, summed over `CONTENT_LAYERS`.

    Args:
        features: VGG19 features of the output, name -> `[B, C, h, w]`; other names are ignored.
            Half-precision features are compared in float32.
        target_features: the same of the true image.

    Returns:
        A scalar.
    """
    return sum(
        F.l1_loss(_precise(features[name]), _precise(target_features[name]))
        for name in CONTENT_LAYERS
    )


def style_loss(features: Mapping[str, Tensor], target_features: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute difference of the Gram matrices, summed over `STYLE_LAYERS`.

    Arguments and result: as `content_loss`.
    """
    return sum(
        F.l1_loss(gram_matrix(features[name]), gram_matrix(target_features[name]))
        for name in STYLE_LAYERS
    )


def gram_matrix(feature: Tensor) -> Tensor:
    """Channel products `[B, C, C]` of `feature` `[B, C, h, w]`, divided by h · w · C."""
    size = feature.shape[1:].numel()
    # Each layout in memory has a form that copies neither the feature nor its gradient.
    if feature.is_contiguous(memory_format=torch.channels_last):
        rows = _precise(feature).permute(0, 2, 3, 1).flatten(1, 2)
        return rows.transpose(1, 2) @ rows / size
    flat = _precise(feature).flatten(2)
    return flat @ flat.transpose(1, 2) / size


def _precise(feature: Tensor) -> Tensor:
    return feature.to(torch.promote_types(feature.dtype, torch.float32))
