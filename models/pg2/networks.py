"""PG2's networks: G1, the coarse picture; G2, what to add to it; D, DCGAN's discriminator.

Paper: Ma et al., "Pose Guided Person Image Generation", NIPS 2017, section 3; the layers are those
of its released program, so that released weights fit. Convolutions have TensorFlow's padding.
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


class CoarseGenerator(nn.Module):
    """U-Net-like encoder and decoder around a fully connected bottleneck (section 3.1).

    Level i of the encoder has width `hidden`·(i+1) and half the resolution of the one before.

    Args:
        size: (height, width) of the images, multiples of 2^(levels-1).
        structure_nc: channels of the pose.
        image_nc: channels of the images.
        levels: of the encoder and the decoder (market 5, fashion 6).
        hidden: width of the first level.
        latent: width of the bottleneck.
    """

    def __init__(
        self,
        size: tuple[int, int],
        structure_nc: int = 18,
        image_nc: int = 3,
        levels: int = 5,
        hidden: int = 128,
        latent: int = 64,
    ) -> None:
        super().__init__()
        height, width = (side >> (levels - 1) for side in size)
        self.first = nn.Conv2d(image_nc + structure_nc, hidden, kernel_size=3, padding=1)
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        for i in range(1, levels + 1):
            self.encoder.append(ConvolutionPair(hidden * i, hidden * i, residual=True))
            if i < levels:
                self.down.append(HalvingConv2d(hidden * i, hidden * (i + 1)))
        self.to_latent = nn.Linear(hidden * levels * height * width, latent)
        self.from_latent = nn.Linear(latent, hidden * height * width)
        self.decoder = nn.ModuleList()
        self.up = nn.ModuleList()
        channels = hidden
        for i in range(levels, 0, -1):
            channels += hidden * i
            self.decoder.append(ConvolutionPair(channels, channels, residual=True))
            if i > 1:
                self.up.append(nn.Conv2d(channels, hidden * (i - 1), kernel_size=1))
                channels = hidden * (i - 1)
        self.last = nn.Conv2d(channels, image_nc, kernel_size=3, padding=1)
        self.bottleneck_shape = (hidden, height, width)

    def encode(self, image: Tensor, pose: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode the source image with the target pose.

        Returns:
            The latent vector `[B, latent]` and the levels' features, fine to coarse.
        """
        x = F.relu(self.first(with_skip(image, pose)), inplace=True)
        features = []
        for i, level in enumerate(self.encoder):
            x = level(x)
            features.append(x)
            if i < len(self.down):
                x = F.relu(self.down[i](x))
        return self.to_latent(x.flatten(1)), features

    def forward(self, image: Tensor, pose: Tensor) -> Tensor:
        """Generate the coarse picture.

        Args:
            image: `[B, image_nc, H, W]` in [-1, 1], the source.
            pose: `[B, structure_nc, H, W]` in {-1, 1}, the target's.

        Returns:
            `[B, image_nc, H, W]`, of the images' range but not clipped to it.
        """
        latent, features = self.encode(image, pose)
        x = self.from_latent(latent).view(-1, *self.bottleneck_shape)
        for i, level in enumerate(self.decoder):
            x = level(with_skip(x, features.pop()))
            if i < len(self.up):
                # Upscaling commutes with a 1×1 convolution and ReLU; before it they cost a quarter.
                x = doubled(F.relu(self.up[i](x), inplace=True))
        return self.last(x)


class RefinementGenerator(nn.Module):
    """Fully convolutional encoder and decoder for the difference map (section 3.2).

    Args:
        image_nc: channels of the images.
        levels: of the encoder and the decoder (market 3, fashion 4).
        hidden: width of the first level and of the decoder; level i has `hidden`·(i+1).
        fine_skip: the last level of the decoder, too, reads the encoder's features (fashion).
    """

    def __init__(
        self, image_nc: int = 3, levels: int = 3, hidden: int = 128, fine_skip: bool = False
    ) -> None:
        super().__init__()
        self.fine_skip = fine_skip
        self.first = nn.Conv2d(2 * image_nc, hidden, kernel_size=3, padding=1)
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        for i in range(1, levels + 1):
            self.encoder.append(ConvolutionPair(hidden * max(1, i - 1), hidden * i))
            if i < levels:
                self.down.append(HalvingConv2d(hidden * i, hidden * i))
        self.decoder = nn.ModuleList()
        channels = hidden * levels
        for i in range(levels, 0, -1):
            skipped = hidden * i if i > 1 or fine_skip else 0
            self.decoder.append(ConvolutionPair(channels + skipped, hidden))
            channels = hidden
        self.last = nn.Conv2d(hidden, image_nc, kernel_size=3, padding=1)

    def forward(self, coarse: Tensor, image: Tensor) -> Tensor:
        """Compute the difference map.

        Args:
            coarse: `[B, image_nc, H, W]`, what G1 made.
            image: `[B, image_nc, H, W]` in [-1, 1], the source.

        Returns:
            `[B, image_nc, H, W]`; the refined picture is `coarse` plus this, not clipped.
        """
        x = F.relu(self.first(with_skip(coarse, image)), inplace=True)
        features = []
        for i, level in enumerate(self.encoder):
            x = level(x)
            features.append(x)
            if i < len(self.down):
                x = F.relu(self.down[i](x))
        for i, level in enumerate(self.decoder):
            is_last = i == len(self.decoder) - 1
            skip = features.pop()
            # The coarsest features go in twice: as what there is, and as the encoder's skip.
            x = level(with_skip(x, skip) if self.fine_skip or not is_last else x)
            if not is_last:
                x = doubled(x)
        return self.last(x)


NEGATIVE_SLOPE = 0.2


class DiscriminatorLayer(nn.Module):
    """5×5 convolution of stride 2, batch norm, leaky ReLU: `[B, in, H, W]` -> `[B, out, H/2, W/2]`.

    The batch norm always takes the statistics of the batch, also in evaluation mode.
    """

    def __init__(self, in_channels: int, out_channels: int, has_norm: bool) -> None:
        super().__init__()
        self.conv = HalvingConv2d(in_channels, out_channels, kernel_size=5)
        self.norm = (
            nn.BatchNorm2d(out_channels, track_running_stats=False) if has_norm else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Halve `x`."""
        return F.leaky_relu(self.norm(self.conv(x)), NEGATIVE_SLOPE)


class DCGANDiscriminator(nn.Module):
    """Judges whole images; each logit depends on the whole batch, through the batch norm.

    Args:
        size: (height, width) of the images, multiples of 2^layers.
        image_nc: channels of the images.
        layers: each halves the resolution (market 4, fashion 5).
        ndf: width of the first layer, which doubles up to 8 times that.
    """

    def __init__(
        self, size: tuple[int, int], image_nc: int = 3, layers: int = 4, ndf: int = 64
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        channels = image_nc
        for i in range(layers):
            out_channels = ndf * min(2**i, 8)
            self.layers.append(DiscriminatorLayer(channels, out_channels, has_norm=i > 0))
            channels = out_channels
        height, width = (side >> layers for side in size)
        self.output = nn.Linear(channels * height * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `[B]` of `images` `[B, image_nc, H, W]`."""
        x = images
        for layer in self.layers:
            x = layer(x)
        return self.output(x.flatten(1)).squeeze(1)
