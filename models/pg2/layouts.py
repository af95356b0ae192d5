"""The two published forms of PG2: what its networks differ in."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from models.pg2.networks import CoarseGenerator, DCGANDiscriminator, RefinementGenerator


@dataclass(frozen=True)
class Layout:
    """One form of the three networks.

    Attributes:
        size: (height, width) of the published images.
        levels: of G1; G2 has two fewer.
        fine_skip: whether G2's last level reads the encoder's features.
        dis_layers: layers of the discriminator.
        judged: pictures that make up the discriminator's batch, in order: target, source, coarse
            (G1's) and refined (G2's).
        fooling: those of them whose logits the adversarial loss of G2 wants to be real.
    """

    size: tuple[int, int]
    levels: int
    fine_skip: bool
    dis_layers: int
    judged: tuple[str, ...]
    fooling: tuple[str, ...]

    @property
    def size_step(self) -> int:
        """Both sides of an image must be multiples of this."""
        return 2 ** max(self.levels - 1, self.dis_layers)

    @property
    def coarsest_pixels(self) -> int:
        """Pixels of G1's last level, which the bottleneck reads, for an image of `size`."""
        height, width = self.size
        return (height >> (self.levels - 1)) * (width >> (self.levels - 1))


LAYOUTS: Mapping[str, Layout] = {
    "market": Layout(
        size=(128, 64),
        levels=5,
        fine_skip=False,
        dis_layers=4,
        judged=("target", "source", "coarse", "refined"),
        fooling=("refined",),
    ),
    "fashion": Layout(
        size=(256, 256),
        levels=6,
        fine_skip=True,
        dis_layers=5,
        judged=("target", "refined", "source"),
        fooling=("refined", "source"),
    ),
}


def build_networks(
    layout: Layout,
    size: tuple[int, int],
    *,
    structure_nc: int = 18,
    conv_hidden_num: int = 128,
    z_num: int = 64,
    ndf: int | None = 64,
) -> dict[str, nn.Module]:
    """Make G1, G2 and D by those names, with PyTorch's initial weights.

    Args:
        layout: which form.
        size: (height, width) of the images, multiples of `layout.size_step`.
        structure_nc: channels of the pose.
        conv_hidden_num: width of the first level of G1 and G2.
        z_num: width of G1's bottleneck.
        ndf: width of the discriminator's first layer; None = make no discriminator.
    """
    networks: dict[str, nn.Module] = {
        "G1": CoarseGenerator(
            size, structure_nc, levels=layout.levels, hidden=conv_hidden_num, latent=z_num
        ),
        "G2": RefinementGenerator(
            levels=layout.levels - 2, hidden=conv_hidden_num, fine_skip=layout.fine_skip
        ),
    }
    if ndf is not None:
        networks["D"] = DCGANDiscriminator(size, layers=layout.dis_layers, ndf=ndf)
    return networks
