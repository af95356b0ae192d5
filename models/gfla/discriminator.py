"""Residual discriminator."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.gfla.blocks import (
    NEGATIVE_SLOPE,
    DiscriminatorBlock,
    maybe_spectral_norm,
    stage_channels,
)


class ResDiscriminator(nn.Module):
    """Judges overlapping regions of an image.

    In train mode each forward does one power iteration of the spectral norm; in eval mode none.

    Args:
        image_nc: channels of the image.
        ndf: width of the first block; doubles per block up to `img_f`.
        img_f: largest width.
        layers: number of blocks, each halving the resolution (fashion 4, market 3).
        use_spect: spectral norm on every convolution.
    """

    def __init__(
        self,
        image_nc: int = 3,
        ndf: int = 32,
        img_f: int = 128,
        layers: int = 4,
        use_spect: bool = True,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.block0 = DiscriminatorBlock(image_nc, ndf, hidden=ndf, use_spect=use_spect)
        channels = ndf
        for i in range(layers - 1):
            out_channels = stage_channels(i + 1, ndf, img_f)
            block = DiscriminatorBlock(channels, out_channels, hidden=channels, use_spect=use_spect)
            setattr(self, f"encoder{i}", block)
            channels = out_channels
        self.conv = maybe_spectral_norm(nn.Conv2d(channels, 1, kernel_size=1), use_spect)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits `[B, 1, H/2^layers, W/2^layers]` of `image` `[B, image_nc, H, W]`."""
        x = self.block0(image)
        for i in range(self.layers - 1):
            x = getattr(self, f"encoder{i}")(x)
        return self.conv(F.leaky_relu(x, NEGATIVE_SLOPE))
