"""GFLA stage 2: the generator with local attention and its discriminator (section 3.2)."""

import argparse

from torch import Tensor

from models.base_model import Batch, Prediction
from models.gfla.base import GENERATOR_LAYERS, GFLAModel
from models.gfla.discriminator import ResDiscriminator
from models.gfla.generator import PoseGenerator
from models.initialisation import init_weights
from models.losses.adversarial import MODES, AdversarialLoss, gradient_penalty
from models.losses.perceptual import CONTENT_LAYERS, STYLE_LAYERS, content_loss, style_loss
from models.operators.local_attention import recorded_attention
from models.presets import POSE
from util.argument_types import boolean, loss_weight, positive_int, real_number
from util.checkpoints import LoadReport
from util.command_line import Parser

IMAGE_LAYERS = (*CONTENT_LAYERS, *STYLE_LAYERS)
LOSS_WEIGHTS = {
    "rec": "L1 to the target",
    "g": "adversarial",
    "correct": "sampling correctness",
    "style": "Gram matrices of VGG19",
    "content": "features of VGG19",
    "regularization": "affine regularity",
}


class PoseModel(GFLAModel):
    """Generates the person in the target pose; starts from stage 1's flow estimator."""

    earlier_stage = "poseflownet"
    preset = POSE
    training_shapes = ("dis_layers", "use_spect_d")

    @staticmethod
    def add_options(parser: Parser, is_train: bool) -> None:
        """Add the options of stage 2."""
        GFLAModel.add_options(parser, is_train)
        if not is_train:
            return
        group = parser.add_argument_group("discriminator")
        group.add_argument("--gan_mode", choices=MODES, help="adversarial loss")
        group.add_argument(
            "--ratio_g2d",
            type=real_number(0, 1000),
            help="learning rate of D over that of G",
        )
        group.add_argument(
            "--dis_layers",
            type=positive_int,
            help="blocks of the discriminator [by --load_size: 256,256 4; 128,64 3]",
        )
        group.add_argument(
            "--use_spect_d",
            type=boolean,
            nargs="?",
            const=True,
            help="spectral normalisation in the discriminator",
        )
        group = parser.add_argument_group("loss weights")
        for name, text in LOSS_WEIGHTS.items():
            group.add_argument(f"--lambda_{name}", type=loss_weight, help=text)

    @staticmethod
    def notes(options: argparse.Namespace) -> list[str]:
        """Say so when there is no stage 1 to start from."""
        notes = GFLAModel.notes(options)
        if not options.continue_train and not options.init_from:
            notes.append(
                "the flow estimator starts from RANDOM weights, without stage 1: train "
                "--model=poseflownet first, then this with --continue_train or --init_from=RUN"
            )
        return notes

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        generator = PoseGenerator(
            image_nc=options.image_nc,
            structure_nc=options.structure_nc,
            layers=GENERATOR_LAYERS,
            attn_layer=options.attn_layer,
            kernel_size=options.kernel_size,
            use_spect=options.use_spect_g,
        )
        if options.is_train:
            init_weights(generator, options.init_type)
        self.generator = self.add_network("G", generator)
        if options.is_train:
            self._prepare_training(options)

    def _prepare_training(self, options: argparse.Namespace) -> None:
        discriminator = ResDiscriminator(
            image_nc=options.image_nc, layers=options.dis_layers, use_spect=options.use_spect_d
        )
        init_weights(discriminator, options.init_type)
        self.discriminator = self.add_network("D", discriminator)
        self.adversarial = AdversarialLoss(options.gan_mode)
        for name, network, rate in (
            ("G", self.generator, options.lr),
            ("D", self.discriminator, options.lr * options.ratio_g2d),
        ):
            self.add_optimizer(name, self.adam(network, rate))

    def training_step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One forward of G, D's step on it, then G's step against the updated, frozen D."""
        image, flows, _ = self.run("G", *self.inputs(batch))
        dis_loss = self._step_discriminator(batch["P2"], image.detach())
        losses = self._generator_losses(batch, image, flows)
        self.update("G", sum(losses.values()), losses, is_last=True)
        losses["dis_img_gen"] = dis_loss
        return {name: value.detach() for name, value in losses.items()}

    def _step_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        self.discriminator.requires_grad_(True)
        loss = self.adversarial.discriminator(self.run("D", real), self.run("D", fake))
        if self.options.gan_mode == "wgan-gp":
            # Not by `run`, uncompiled and in float32: it is differentiated twice.
            loss = loss + gradient_penalty(self.discriminator, real, fake)
        self.update("D", loss, {"dis_img_gen": loss})
        self.discriminator.requires_grad_(False)  # G's step passes through D but leaves it alone
        return loss

    def _generator_losses(
        self, batch: Batch, image: Tensor, flows: list[Tensor]
    ) -> dict[str, Tensor]:
        options = self.options
        source = self.constant_features(batch["P1"], self.correctness_features)
        target = self.constant_features(batch["P2"], [*IMAGE_LAYERS, *self.correctness_features])
        content, style = self._perceptual_losses(image, batch["P2"], target)
        correctness, regularity = self.flow_losses(flows, source, target)
        return {
            "app_gen": options.lambda_rec * (image - batch["P2"]).abs().mean(),
            "correctness_gen": options.lambda_correct * correctness,
            "content_gen": options.lambda_content * content,
            "style_gen": options.lambda_style * style,
            "regularization": options.lambda_regularization * regularity,
            "ad_gen": options.lambda_g * self.adversarial.generator(self.run("D", image)),
        }

    def _perceptual_losses(
        self, image: Tensor, target_image: Tensor, target: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Content and style loss of the generated image, without weights."""
        generated = self.run_vgg(image, IMAGE_LAYERS)
        return content_loss(generated, target), style_loss(generated, target)

    def compute_prediction(self, batch: Batch) -> Prediction:
        """The generated picture, with the flow fields and masks it was made with."""
        if not getattr(self.options, "save_flow", False):
            return Prediction(*self.run("G", *self.inputs(batch)))
        with recorded_attention(self.generator) as attentions:
            image, flows, masks = self.run("G", *self.inputs(batch))
        return Prediction(image, flows, masks, attentions)

    def explain_missing(self, report: LoadReport) -> str | None:
        """Tell a stage-1 checkpoint from one of other options."""
        has_only_flow = all(name.startswith("flow_net.") for name in report.taken)
        if has_only_flow and not report.partly_taken:
            return (
                "it is a stage-1 checkpoint: train --model=pose --continue_train first, "
                "or test --model=poseflownet"
            )
        return None
