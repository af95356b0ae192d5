"""Building blocks of the networks: pre-activation convolution blocks.

The position of each layer inside `model` and `shortcut` fixes the parameter names of the
checkpoints, so layers must not be inserted or reordered. Architecture: Ren et al., "Deep Image
Spatial Transformation for Person Image Generation", CVPR 2020, section 3 and supplement.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torch.nn.utils.spectral_norm import SpectralNorm

NEGATIVE_SLOPE = 0.1


def stage_channels(stage: int, ngf: int, img_f: int) -> int:
    """Width of the encoder's stage `stage` (0 = the first): doubles from `ngf` up to `img_f`."""
    return ngf * min(2**stage, img_f // ngf)


def maybe_spectral_norm(layer: nn.Module, use_spect: bool) -> nn.Module:
    """Return `layer`, spectrally normalised when `use_spect` is set.

    The hook kind of spectral norm is used because its names (`weight_orig`, `weight_u`,
    `weight_v`) are the ones that released checkpoints carry.
    """
    if not use_spect:
        return layer
    layer = spectral_norm(layer)
    (hook,) = layer._forward_pre_hooks.values()
    hook.__class__ = _FullPrecisionSpectralNorm
    return layer


class _FullPrecisionSpectralNorm(SpectralNorm):
    """Spectral norm that also under autocast iterates in the weight's own precision.

    Otherwise the division by the norm would be off by the rounding of a half-precision product.
    """

    def compute_weight(self, module: nn.Module, do_power_iteration: bool) -> Tensor:
        with torch.autocast(getattr(module, self.name).device.type, enabled=False):
            return super().compute_weight(module, do_power_iteration)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm of `[B, C, H, W]` with scale and shift, by the fastest kernel of the device.

    It is a group norm with one group per channel. On a CPU PyTorch's group norm takes a quarter to
    a half of the time, in its instance norm every scale is copied for every item of the batch.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each item over its pixels."""
        if x.device.type == "cpu" and x.shape[-2:].numel() > 1:
            return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)
        return super().forward(x)


class ReflectionPad(nn.Module):
    """Mirrors one row and column at each border, `[B, C, H, W]` -> `[B, C, H + 2, W + 2]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad `x`, whose H and W are at least 2."""
        if not torch.are_deterministic_algorithms_enabled():
            return F.pad(x, (1, 1, 1, 1), mode="reflect")
        # PyTorch has no deterministic gradient of the above on a GPU.
        x = torch.cat([x[..., 1:2, :], x, x[..., -2:-1, :]], dim=-2)
        return torch.cat([x[..., 1:2], x, x[..., -2:-1]], dim=-1)


def _norm(channels: int) -> nn.Module:
    return InstanceNorm(channels)


def _activation() -> nn.Module:
    return nn.LeakyReLU(NEGATIVE_SLOPE)


class EncoderBlock(nn.Module):
    """Halves the resolution: `[B, in, H, W]` -> `[B, out, H/2, W/2]`."""

    def __init__(self, in_channels: int, out_channels: int, use_spect: bool = False) -> None:
        super().__init__()
        down = nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.model = nn.Sequential(
            _norm(in_channels),
            _activation(),
            maybe_spectral_norm(down, use_spect),
            _norm(out_channels),
            _activation(),
            maybe_spectral_norm(conv, use_spect),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[B, in, H, W]` to `[B, out, H/2, W/2]`."""
        return self.model(x)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions added to their input; the shape stays `[B, C, H, W]`."""

    def __init__(self, channels: int, use_spect: bool = False) -> None:
        super().__init__()
        conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.model = nn.Sequential(
            _norm(channels),
            _activation(),
            maybe_spectral_norm(conv1, use_spect),
            _norm(channels),
            _activation(),
            maybe_spectral_norm(conv2, use_spect),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus its residual, `[B, C, H, W]`."""
        return x + self.model(x)


class ResidualStage(nn.Module):
    """`blocks` residual blocks in a row; the shape stays `[B, C, H, W]`."""

    def __init__(self, channels: int, blocks: int = 1, use_spect: bool = False) -> None:
        super().__init__()
        self.model = nn.Sequential(*(ResidualBlock(channels, use_spect) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks one after another on `[B, C, H, W]`."""
        return self.model(x)


class DecoderBlock(nn.Module):
    """Doubles the resolution: `[B, in, H, W]` -> `[B, out, 2H, 2W]`, with a learned shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, use_spect: bool = False
    ) -> None:
        super().__init__()
        upsampling = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        conv = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        up = nn.ConvTranspose2d(hidden, out_channels, **upsampling)
        shortcut = nn.ConvTranspose2d(in_channels, out_channels, **upsampling)
        self.model = nn.Sequential(
            _norm(in_channels),
            _activation(),
            maybe_spectral_norm(conv, use_spect),
            _norm(hidden),
            _activation(),
            maybe_spectral_norm(up, use_spect),
        )
        self.shortcut = nn.Sequential(maybe_spectral_norm(shortcut, use_spect))

    def forward(self, x: Tensor) -> Tensor:
        """Decode `[B, in, H, W]` to `[B, out, 2H, 2W]`."""
        return self.model(x) + self.shortcut(x)


class JumpBlock(nn.Module):
    """Skip connection from the encoder: a 3×3 convolution, `[B, in, H, W]` -> `[B, out, H, W]`.

    The convolution is registered twice, as `conv1` and as `model.2`: checkpoints hold both names.
    """

    def __init__(self, in_channels: int, out_channels: int, use_spect: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.conv1 = maybe_spectral_norm(conv, use_spect)
        self.model = nn.Sequential(_activation(), ReflectionPad(), self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[B, in, H, W]` to `[B, out, H, W]`."""
        return self.model(x)


class OutputBlock(nn.Module):
    """Turns features into an image in [-1, 1]: `[B, in, H, W]` -> `[B, out, H, W]`.

    The convolution is registered twice, as `conv1` and as `model.2`: checkpoints hold both names.
    """

    def __init__(self, in_channels: int, out_channels: int = 3, use_spect: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.conv1 = maybe_spectral_norm(conv, use_spect)
        self.model = nn.Sequential(_activation(), ReflectionPad(), self.conv1, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Return the image `[B, out, H, W]` in [-1, 1]."""
        return self.model(x)


class DiscriminatorBlock(nn.Module):
    """Halves the resolution without any norm: `[B, in, H, W]` -> `[B, out, H/2, W/2]`."""

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, use_spect: bool = True
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        down = nn.Conv2d(hidden, out_channels, kernel_size=4, stride=2, padding=1)
        shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.model = nn.Sequential(
            _activation(),
            maybe_spectral_norm(conv, use_spect),
            _activation(),
            maybe_spectral_norm(down, use_spect),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), maybe_spectral_norm(shortcut, use_spect))

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[B, in, H, W]` to `[B, out, H/2, W/2]`."""
        return self.model(x) + self.shortcut(x)
