"""PG2's G1: a coarse picture of the source person in the target pose."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.pg2_blocks import ConvolutionPair, HalvingConv2d, doubled, with_skip


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
