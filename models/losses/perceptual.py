"""Perceptual losses on VGG19 features: content and style (Johnson et al., ECCV 2016)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

CONTENT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def content_loss(features: Mapping[str, Tensor], target_features: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute difference of the features, summed over `CONTENT_LAYERS`.

    Args:
        features: VGG19 features of the output, name -> `[B, C, h, w]`; other names are ignored.
            Half-precision features are compared in float32.
        target_features: the same of the true image; constants, they get no gradient.

    Returns:
        A scalar, differentiable once in `features`.
    """
    return sum(
        _MeanDifference.apply(_precise(features[name]), _precise(target_features[name]))
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


class _MeanDifference(torch.autograd.Function):
    """`F.l1_loss` of a constant target; autograd's own holds three more maps of the features' size.

    The difference is computed again for the gradient, which needs only its sign.
    """

    @staticmethod
    def forward(feature: Tensor, target: Tensor) -> Tensor:
        return (feature - target).abs_().mean()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        feature, target = ctx.saved_tensors
        return (feature - target).sgn_().mul_(gradient / feature.numel()), None


def _precise(feature: Tensor) -> Tensor:
    return feature.to(torch.promote_types(feature.dtype, torch.float32))
