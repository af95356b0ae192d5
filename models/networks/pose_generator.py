"""The whole generator: flow estimator, source encoder and target generator."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.networks.flow_estimator import FlowEstimator
from models.networks.source_encoder import SourceEncoder
from models.networks.target_generator import DEFAULT_KERNEL_SIZE, TargetGenerator


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
        UserError: `attn_layer` or `kernel_size` do not fit the network.
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
