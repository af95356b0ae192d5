"""Perceptual losses on VGG19 features: content and style (Johnson et al., ECCV 2016)."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

CONTENT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def content_loss(features: Mapping[str, Tensor], target_features: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute difference of the features, summed over `CONTENT_LAYERS`.

    Args:
        features: VGG19 features of the output, name -> `[B, C, h, w]`; other names are ignored.
        target_features: the same of the true image.

    Returns:
        A scalar.
    """
    return sum(F.l1_loss(features[name], target_features[name]) for name in CONTENT_LAYERS)


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
    batch, channels, height, width = feature.shape
    flat = feature.reshape(batch, channels, height * width)
    return flat @ flat.transpose(1, 2) / (height * width * channels)
