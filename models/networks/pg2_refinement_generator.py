"""PG2's G2: what to add to the coarse picture."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.pg2_blocks import ConvolutionPair, HalvingConv2d, doubled, with_skip


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
