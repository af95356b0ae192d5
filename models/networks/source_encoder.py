"""Encoder of the source image into features at several resolutions."""

from torch import Tensor, nn

from models.networks.blocks import EncoderBlock, stage_channels


class SourceEncoder(nn.Module):
    """Encodes the source image; the features are what the local attention reads.

    Paper: Ren et al., CVPR 2020, section 3.2 (the source branch of the target image generator).

    Args:
        image_nc: channels of the source image.
        ngf: width of the first stage; doubles per stage up to `img_f`.
        img_f: largest width.
        layers: number of stages, each halving the resolution.
        use_spect: spectral norm on every convolution.
    """

    def __init__(
        self,
        image_nc: int = 3,
        ngf: int = 64,
        img_f: int = 512,
        layers: int = 3,
        use_spect: bool = False,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.block0 = EncoderBlock(image_nc, ngf, use_spect)
        for i in range(layers - 1):
            block = EncoderBlock(
                stage_channels(i, ngf, img_f), stage_channels(i + 1, ngf, img_f), use_spect
            )
            setattr(self, f"encoder{i}", block)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode `image` `[B, image_nc, H, W]` in [-1, 1].

        Returns:
            `layers` features, coarse to fine: entry i is `[B, C, H / 2^(layers-i), W / …]`.
        """
        features = [self.block0(image)]
        for i in range(self.layers - 1):
            features.append(getattr(self, f"encoder{i}")(features[-1]))
        return features[::-1]
