"""Generator of the target image from its pose and the attended source features."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.networks.blocks import (
    DecoderBlock,
    EncoderBlock,
    OutputBlock,
    ResidualStage,
    stage_channels,
)
from models.networks.local_attention import LocalAttention
from util.errors import UserError

DEFAULT_KERNEL_SIZE = {2: 5, 3: 3}


class TargetGenerator(nn.Module):
    """Encodes the target pose, and decodes it to the image while reading the source features.

    Paper: Ren et al., CVPR 2020, section 3.2. Before decoder stage i, at layer `layers - i`
    (1/2^layer of the image's resolution), the local attention reads the source feature along the
    flow if that layer is in `attn_layer`, and the mask blends it in.

    Args:
        structure_nc: channels of the pose map (key points).
        image_nc: channels of the generated image.
        ngf: width of the first encoder stage; doubles per stage up to `img_f`.
        img_f: largest width.
        layers: number of encoder and of decoder stages.
        attn_layer: layers with local attention, each in 1 … layers.
        kernel_size: layer -> attention kernel size (odd), for the same layers.
        use_spect: spectral norm on every convolution of the blocks.

    Raises:
        UserError: a layer outside that range, or without a valid kernel size.
    """

    def __init__(
        self,
        structure_nc: int = 18,
        image_nc: int = 3,
        ngf: int = 64,
        img_f: int = 512,
        layers: int = 3,
        attn_layer: Sequence[int] = (2, 3),
        kernel_size: Mapping[int, int] = DEFAULT_KERNEL_SIZE,
        use_spect: bool = False,
    ) -> None:
        super().__init__()
        check_attention(attn_layer, kernel_size, layers)
        self.layers = layers
        self.attn_layer = tuple(attn_layer)

        self.block0 = EncoderBlock(structure_nc, ngf, use_spect)
        for i in range(layers - 1):
            block = EncoderBlock(
                stage_channels(i, ngf, img_f), stage_channels(i + 1, ngf, img_f), use_spect
            )
            setattr(self, f"encoder{i}", block)

        for i in range(layers):
            layer = layers - i
            in_channels = stage_channels(layer - 1, ngf, img_f)
            out_channels = stage_channels(max(layer - 2, 0), ngf, img_f)
            if layer in self.attn_layer:
                setattr(self, f"attn{i}", LocalAttention(in_channels, kernel_size[layer]))
            decoder = nn.Sequential(
                ResidualStage(in_channels, blocks=1, use_spect=use_spect),
                DecoderBlock(in_channels, out_channels, in_channels, use_spect),
            )
            setattr(self, f"decoder{i}", decoder)
        self.outconv = OutputBlock(ngf, image_nc, use_spect)

    def forward(
        self,
        target_pose: Tensor,
        source_features: Sequence[Tensor],
        flows: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> Tensor:
        """Generate the target image.

        Args:
            target_pose: `[B, structure_nc, H, W]`.
            source_features: `layers` features of `SourceEncoder`, coarse to fine.
            flows: one `[B, 2, h, w]` per attention layer, coarse to fine, in pixels of that map.
            masks: one `[B, 1, h, w]` in [0, 1] per attention layer, coarse to fine.

        Returns:
            Image `[B, image_nc, H, W]` in [-1, 1].
        """
        x = self.block0(target_pose)
        for i in range(self.layers - 1):
            x = getattr(self, f"encoder{i}")(x)

        flow_and_mask = iter(zip(flows, masks, strict=True))
        for i in range(self.layers):
            if self.layers - i in self.attn_layer:
                flow, mask = next(flow_and_mask)
                attended = getattr(self, f"attn{i}")(source_features[i], x, flow)
                x = x * (1 - mask) + attended * mask
            x = getattr(self, f"decoder{i}")(x)
        return self.outconv(x)


def check_attention(
    attn_layer: Sequence[int] | None, kernel_size: Mapping[int, int] | None, layers: int
) -> None:
    """Raise UserError unless attention layers are in 1 … `layers`, each with an odd kernel size."""
    if not attn_layer or not kernel_size or set(attn_layer) != set(kernel_size):
        raise UserError(
            f"--attn_layer and --kernel_size must name the same layers, got {attn_layer} and "
            f"{kernel_size}; as in --attn_layer=2,3 --kernel_size=2=5,3=3"
        )
    if len(set(attn_layer)) != len(attn_layer):
        raise UserError(f"--attn_layer: got a layer twice in {attn_layer}")
    for layer, size in kernel_size.items():
        if not 1 <= layer <= layers:
            raise UserError(f"--attn_layer: got {layer}, layers are 1 to {layers}")
        if size < 3 or size % 2 == 0:
            raise UserError(
                f"--kernel_size: got {size} for layer {layer}, expected an odd number from 3 on"
            )
