"""PG2's discriminator: DCGAN's, one logit for an image."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.pg2_blocks import HalvingConv2d

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
