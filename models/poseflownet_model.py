"""GFLA stage 1: the global flow-field estimator alone (section 3.1)."""

import argparse

from torch import Tensor

from models.base_model import Batch, Prediction
from models.gfla.base import GFLAModel
from models.gfla.flow_estimator import FlowGenerator
from models.initialisation import init_weights
from models.presets import POSEFLOWNET
from util.argument_types import loss_weight
from util.command_line import Parser
from util.flow import resize_flow, warp

LOSS_WEIGHTS = {"correct": "sampling correctness", "regularization": "affine regularity"}


class PoseFlowNetModel(GFLAModel):
    """Learns flow fields from the sampling-correctness and regularity losses."""

    preset = POSEFLOWNET

    @staticmethod
    def add_options(parser: Parser, is_train: bool) -> None:
        """Add the options of stage 1."""
        GFLAModel.add_options(parser, is_train)
        if is_train:
            group = parser.add_argument_group("loss weights")
            for name, text in LOSS_WEIGHTS.items():
                group.add_argument(f"--lambda_{name}", type=loss_weight, help=text)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        generator = FlowGenerator(
            image_nc=options.image_nc,
            structure_nc=options.structure_nc,
            attn_layer=options.attn_layer,
            use_spect=options.use_spect_g,
        )
        if options.is_train:
            init_weights(generator, options.init_type)
        self.generator = self.add_network("G", generator)
        if options.is_train:
            self.add_optimizer("G", self.adam(self.generator, options.lr))

    def training_step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One step on the flow estimator; see BaseModel."""
        options = self.options
        flows, _ = self.run("G", *self.inputs(batch))
        source = self.constant_features(batch["P1"], self.correctness_features)
        target = self.constant_features(batch["P2"], self.correctness_features)
        correctness, regularity = self.flow_losses(flows, source, target)
        losses = {
            "correctness": options.lambda_correct * correctness,
            "regularization": options.lambda_regularization * regularity,
        }
        self.update("G", sum(losses.values()), losses, is_last=True)
        return {name: value.detach() for name, value in losses.items()}

    def compute_prediction(self, batch: Batch) -> Prediction:
        """Flow fields and masks; the picture is the source warped by the finest flow."""
        flows, masks = self.run("G", *self.inputs(batch))
        source = batch["P1"]
        return Prediction(warp(source, resize_flow(flows[-1], source.shape[-2:])), flows, masks)
