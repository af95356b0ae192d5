"""Target image generator (stage 2): the target pose's decoder reads the source by attention.

Paper: Ren et al., CVPR 2020, section 3.2.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.gfla.blocks import (
    DecoderBlock,
    EncoderBlock,
    OutputBlock,
    ResidualStage,
    stage_channels,
)
from models.gfla.flow_estimator import FlowEstimator
from models.operators.local_attention import LocalAttention


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
        ValueError: a layer outside that range, or without a valid kernel size.
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
        fits = all(1 <= layer <= layers and kernel_size[layer] % 2 for layer in kernel_size)
        if not fits or sorted(attn_layer) != sorted(kernel_size):
            raise ValueError(
                f"attn_layer {attn_layer} and kernel_size {kernel_size}: expected the same layers, "
                f"of 1 to {layers}, with odd sizes"
            )
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


class PoseGenerator(nn.Module):
    """Generates the source person in the target pose (Ren et al., CVPR 2020, section 3).

    Args:
        image_nc: channels of the images.
        structure_nc: channels of a pose map (key points).
        ngf: width of the first stage of the source encoder and the target generator.
        img_f: their largest width.
        layers: their number of stages.
        attn_layer: layers with flow and local attention (layer L = 1/2^L of the resolution).
        kernel_size: layer -> attention kernel size (odd).
        use_spect: spectral norm on every convolution of the blocks.

    Raises:
        ValueError: `attn_layer` or `kernel_size` do not fit the network.
    """

    def __init__(
        self,
        image_nc: int = 3,
        structure_nc: int = 18,
        ngf: int = 64,
        img_f: int = 512,
        layers: int = 3,
        attn_layer: Sequence[int] = (2, 3),
        kernel_size: Mapping[int, int] = DEFAULT_KERNEL_SIZE,
        use_spect: bool = False,
    ) -> None:
        super().__init__()
        self.source = SourceEncoder(image_nc, ngf, img_f, layers, use_spect)
        self.target = TargetGenerator(
            structure_nc, image_nc, ngf, img_f, layers, attn_layer, kernel_size, use_spect
        )
        self.flow_net = FlowEstimator(
            image_nc, structure_nc, attn_layer=attn_layer, use_spect=use_spect
        )

    def forward(
        self, source_image: Tensor, source_pose: Tensor, target_pose: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Generate the target image.

        Args:
            source_image: `[B, image_nc, H, W]` in [-1, 1]; H and W divisible by 32.
            source_pose: `[B, structure_nc, H, W]`.
            target_pose: `[B, structure_nc, H, W]`.

        Returns:
            (image, flows, masks): image `[B, image_nc, H, W]` in [-1, 1]; flows and masks coarse
            to fine, as `FlowEstimator` returns them.
        """
        source_features = self.source(source_image)
        flows, masks = self.flow_net(source_image, source_pose, target_pose)
        image = self.target(target_pose, source_features, flows, masks)
        return image, flows, masks
