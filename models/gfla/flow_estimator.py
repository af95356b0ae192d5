"""Global flow field estimator (stage 1): flow and occlusion mask between two poses.

Paper: Ren et al., CVPR 2020, section 3.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.gfla.blocks import DecoderBlock, EncoderBlock, JumpBlock, stage_channels


class FlowEstimator(nn.Module):
    """Predicts, per attention layer, where each target position reads the source.

    Paper: Ren et al., CVPR 2020, section 3.1. Layer L has 1/2^L of the image's resolution.

    Args:
        image_nc: channels of the source image.
        structure_nc: channels of a pose map (key points).
        ngf: width of the first encoder stage; doubles per stage up to `img_f`.
        img_f: largest width.
        encoder_layers: number of encoder stages.
        attn_layer: layers that get a flow and a mask, each in 1 … encoder_layers - 1.
        use_spect: spectral norm on every convolution of the blocks.

    Raises:
        ValueError: a layer outside that range, or none at all.
    """

    def __init__(
        self,
        image_nc: int = 3,
        structure_nc: int = 18,
        ngf: int = 32,
        img_f: int = 256,
        encoder_layers: int = 5,
        attn_layer: Sequence[int] = (2, 3),
        use_spect: bool = False,
    ) -> None:
        super().__init__()
        if not attn_layer or not all(1 <= layer < encoder_layers for layer in attn_layer):
            raise ValueError(f"attn_layer {attn_layer}: expected some of 1 to {encoder_layers - 1}")
        self.encoder_layers = encoder_layers
        self.decoder_layers = encoder_layers - min(attn_layer)
        # Decoder i ends at layer encoder_layers - 1 - i.
        self.output_stages = sorted({encoder_layers - 1 - layer for layer in attn_layer})

        self.block0 = EncoderBlock(image_nc + 2 * structure_nc, ngf, use_spect)
        for i in range(encoder_layers - 1):
            block = EncoderBlock(
                stage_channels(i, ngf, img_f), stage_channels(i + 1, ngf, img_f), use_spect
            )
            setattr(self, f"encoder{i}", block)

        in_channels = stage_channels(encoder_layers - 1, ngf, img_f)
        for i in range(self.decoder_layers):
            channels = stage_channels(encoder_layers - 2 - i, ngf, img_f)
            setattr(self, f"decoder{i}", DecoderBlock(in_channels, channels, channels, use_spect))
            setattr(self, f"jump{i}", JumpBlock(channels, channels, use_spect))
            if i in self.output_stages:
                setattr(self, f"output{i}", nn.Conv2d(channels, 2, kernel_size=3, padding=1))
                mask = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
                setattr(self, f"mask{i}", nn.Sequential(mask, nn.Sigmoid()))
            in_channels = channels

    def forward(
        self, source_image: Tensor, source_pose: Tensor, target_pose: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Estimate flow and occlusion mask at every attention layer.

        Args:
            source_image: `[B, image_nc, H, W]` in [-1, 1]; H and W divisible by 2^encoder_layers.
            source_pose: `[B, structure_nc, H, W]`.
            target_pose: `[B, structure_nc, H, W]`.

        Returns:
            (flows, masks), both coarse to fine. For layer L a flow is `[B, 2, H/2^L, W/2^L]`, x
            then y, in pixels of that map, source position minus target position; a mask is
            `[B, 1, H/2^L, W/2^L]` in [0, 1], 1 where the source feature is to be used.
        """
        x = self.block0(torch.cat([source_image, source_pose, target_pose], dim=1))
        skips = [x]
        for i in range(self.encoder_layers - 1):
            x = getattr(self, f"encoder{i}")(x)
            skips.append(x)
        skips.pop()

        flows, masks = [], []
        for i in range(self.decoder_layers):
            x = getattr(self, f"decoder{i}")(x) + getattr(self, f"jump{i}")(skips.pop())
            if i in self.output_stages:
                # Half precision would round a flow of 10 pixels to sixteenths of a pixel.
                with torch.autocast(x.device.type, enabled=False):
                    precise = x.to(torch.promote_types(x.dtype, torch.float32))
                    flows.append(getattr(self, f"output{i}")(precise))
                masks.append(getattr(self, f"mask{i}")(x))
        return flows, masks


class FlowGenerator(nn.Module):
    """Holds the flow estimator as `flow_net`, the name under which `PoseGenerator` has it too.

    So a checkpoint of stage 1 fills that part of stage 2's generator. Arguments and errors: see
    `FlowEstimator`.
    """

    def __init__(
        self,
        image_nc: int = 3,
        structure_nc: int = 18,
        ngf: int = 32,
        img_f: int = 256,
        encoder_layers: int = 5,
        attn_layer: Sequence[int] = (2, 3),
        use_spect: bool = False,
    ) -> None:
        super().__init__()
        self.flow_net = FlowEstimator(
            image_nc, structure_nc, ngf, img_f, encoder_layers, attn_layer, use_spect
        )

    def forward(
        self, source_image: Tensor, source_pose: Tensor, target_pose: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return (flows, masks), coarse to fine; see `FlowEstimator.forward`."""
        return self.flow_net(source_image, source_pose, target_pose)
