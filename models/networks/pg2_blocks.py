"""Building blocks of PG2's networks: convolutions with TensorFlow's "same" padding.

Architecture: Ma et al., "Pose Guided Person Image Generation", NIPS 2017, section 3; the
layers are those of its released program, so that released weights fit.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HalvingConv2d(nn.Conv2d):
    """Stride-2 convolution, `[B, in, H, W]` -> `[B, out, H/2, W/2]`, H and W even.

    TensorFlow pads an even side by (k-2)//2 zeros before it and k-2-(k-2)//2 after it, one more
    than before for odd k. Padding both sides by (k+1)//2 and dropping the first row and column of
    the result is the same without a padded copy of the input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=2, padding=(kernel_size + 1) // 2
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and halve `x`."""
        return super().forward(x)[:, :, 1:, 1:]


class ConvolutionPair(nn.Module):
    """Two 3×3 convolutions with ReLU: `[B, in, H, W]` -> `[B, out, H, W]`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        residual: add the input to the result (nothing follows the addition).
    """

    def __init__(self, in_channels: int, out_channels: int, residual: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` twice."""
        y = F.relu(self.conv1(x), inplace=True)
        y = F.relu(self.conv2(y), inplace=True)
        return x + y if self.residual else y


def doubled(x: Tensor) -> Tensor:
    """Nearest-neighbour upscaling, `[B, C, H, W]` -> `[B, C, 2H, 2W]`."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def with_skip(x: Tensor, skip: Tensor) -> Tensor:
    """Channels of `x`, then those of the encoder's `skip`."""
    return torch.cat([x, skip], dim=1)
