"""The network of the first training stage: the flow estimator alone."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.networks.flow_estimator import FlowEstimator


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
