"""PG2: a coarse picture in the target pose (G1), then its refinement (G2) against a discriminator.

Ma et al., "Pose Guided Person Image Generation", NIPS 2017.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base_model import BaseModel, Batch, Prediction
from models.initialisation import init_weights
from models.pg2.layouts import LAYOUTS, build_networks
from models.pg2.tensorflow_adam import TensorFlowAdam
from models.presets import PG2
from util.argument_types import channels, learning_rate, loss_weight, non_negative_int, whole_number
from util.command_line import Parser
from util.errors import UserError

BETAS = (0.5, 0.999)
IMAGE_CHANNELS = 3


def reconstruction_losses(image: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """L1 over the image, and over what the pose mask leaves of it (section 3.1).

    Args:
        image: [B, 3, H, W], generated.
        target: the same shape, true.
        mask: [B, 1, H, W], 1 on the body of the target, else 0.

    Returns:
        Two scalars; both are means over all elements, the second one's zeros included.
    """
    difference = (image - target).abs()
    return difference.mean(), (difference * mask).mean()


def cross_entropy(logits: list[Tensor], is_real: bool) -> Tensor:
    """Mean sigmoid cross-entropy of the logits [B] of some pictures, as real or as fake."""
    joint = torch.cat(logits)
    return F.binary_cross_entropy_with_logits(joint, torch.full_like(joint, float(is_real)))


def _layout_of(**counts: int) -> str | None:
    """Name of the layout with so many `levels` or `dis_layers`."""
    fits = (
        name
        for name, layout in LAYOUTS.items()
        if all(getattr(layout, key) == count for key, count in counts.items())
    )
    return next(fits, None)


class PG2Model(BaseModel):
    """Stage 1 trains G1 alone; stage 2 leaves it as it is and trains G2, then D, in each step."""

    required_networks = ("G1",)
    network_options = "--layout, --load_size, --conv_hidden_num, --z_num and --ndf"
    training_shapes = ("ndf",)
    size_bound = "the fully connected layers of G1 and D"
    preset = PG2
    needs_body_mask = True

    @staticmethod
    def trained_with(shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
        """The options that shaped G1, G2 or D."""
        if dis_layers := sum(f"layers.{i}.conv.weight" in shapes for i in range(9)):
            ndf, channels, *_ = shapes.get("layers.0.conv.weight", (None, IMAGE_CHANNELS))
            if channels != IMAGE_CHANNELS:
                return {}  # transposed, say
            return {"layout": _layout_of(dis_layers=dis_layers), "ndf": ndf}
        if "first.weight" not in shapes:
            return {}
        width, channels, *kernel = shapes["first.weight"]
        if kernel != [3, 3] or shapes.get("encoder.0.conv1.weight", (0, width))[1] != width:
            return {}  # transposed, say
        levels = sum(f"encoder.{i}.conv1.weight" in shapes for i in range(9))
        found = {"conv_hidden_num": width}
        if "to_latent.weight" not in shapes:  # G2
            return {"layout": _layout_of(levels=levels + 2), **found}
        z_num, coarsest = shapes["to_latent.weight"]
        found |= {"z_num": z_num, "structure_nc": channels - IMAGE_CHANNELS}
        layout = _layout_of(levels=levels)
        if layout and LAYOUTS[layout].coarsest_pixels * levels * width == coarsest:
            found["load_size"] = LAYOUTS[layout].size
        return {"layout": layout, **found}

    @staticmethod
    def add_options(parser: Parser, is_train: bool) -> None:
        """Add the options of both stages."""
        group = parser.add_argument_group("model")
        group.add_argument(
            "--layout",
            choices=tuple(LAYOUTS),
            help="published form of the networks [by --load_size: 128,64 market, 256,256 fashion]",
        )
        group.add_argument(
            "--conv_hidden_num",
            type=channels,
            help="width of the generators' first level",
        )
        group.add_argument("--z_num", type=channels, help="width of G1's bottleneck")
        if not is_train:
            group.add_argument(
                "--stage",
                type=whole_number(1, 2),
                choices=(1, 2),
                default=2,
                help="1: the coarse pictures of G1 alone, which is all that stage 1 has trained",
            )
            return
        group.add_argument("--ndf", type=channels, help="width of the discriminator's first layer")
        group.add_argument(
            "--stage1_steps",
            type=non_negative_int,
            help="iterations that train G1 alone, before those of G2 and D",
        )
        group.add_argument("--lr", type=learning_rate, help="learning rate of Adam")
        group = parser.add_argument_group("loss weights")
        group.add_argument(
            "--lambda_rec",
            type=loss_weight,
            help="L1 and masked L1 of G2 against its adversarial loss [market: 10, fashion: 50]",
        )

    @staticmethod
    def preset_name(given: argparse.Namespace) -> str | None:
        """The layout that the options choose; None where they leave it open."""
        fitting = (name for name, layout in LAYOUTS.items() if layout.size == given.load_size)
        return given.layout or next(fitting, None)

    @staticmethod
    def check_options(options: argparse.Namespace) -> None:
        """Choose the layout, and check that its networks can halve the images."""
        options.layout = PG2Model.preset_name(options)
        height, width = options.load_size
        if options.layout is None:
            raise UserError(
                f"--layout: --load_size={height},{width} is neither published size (128,64 and "
                f"256,256); choose {' or '.join(LAYOUTS)}"
            )
        step = LAYOUTS[options.layout].size_step
        if height % step or width % step:
            raise UserError(
                f"--load_size: got {height},{width}, expected multiples of {step}: "
                f"--layout={options.layout} halves the image as often"
            )

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.layout = LAYOUTS[options.layout]
        networks = build_networks(
            self.layout,
            options.load_size,
            structure_nc=options.structure_nc,
            conv_hidden_num=options.conv_hidden_num,
            z_num=options.z_num,
            ndf=options.ndf if options.is_train else None,
        )
        if not options.is_train and options.stage == 1:
            del networks["G2"]
        # Until G2 has been trained or loaded, the coarse picture is the best there is.
        self.has_refinement = not options.is_train and options.stage == 2
        for name, network in networks.items():
            if options.is_train:
                init_type, gain = ("normal", 0.02) if name == "D" else ("xavier", 1.0)
                init_weights(network, init_type, gain)
            self.add_network(name, network)
            if options.is_train:
                self.add_optimizer(name, TensorFlowAdam(network.parameters(), options.lr, BETAS))

    def stage(self, iteration: int) -> int:
        """1 for the first --stage1_steps iterations, then 2."""
        return 1 if iteration <= self.options.stage1_steps else 2

    def training_step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One step on G1, or one on G2 and one on D; see BaseModel."""
        if self.stage(iteration) == 1:
            losses = self.train_coarse(batch)
        else:
            if self.optimizers["G1"].state:
                self._release_coarse()
            coarse = self.coarse_picture(batch)
            losses = self.train_refinement(batch, coarse)
            losses |= self.train_discriminator(batch, coarse)
            self.has_refinement = True
        return {name: value.detach() for name, value in losses.items()}

    def _release_coarse(self) -> None:
        """Free three quarters of what stage 1 held of G1."""
        optimizer = self.optimizers["G1"]
        kept = optimizer.state_dict()  # until the step is done, where no GPU memory is needed
        kept["state"] = {
            number: {name: value.cpu() for name, value in state.items()}
            for number, state in kept["state"].items()
        }
        self.on_failure(lambda: optimizer.load_state_dict(kept))
        optimizer.release()

    def train_coarse(self, batch: Batch) -> dict[str, Tensor]:
        """One step on G1 with its reconstruction losses (section 3.1)."""
        coarse = self.run("G1", batch["P1"], batch["BP2"])
        l1, masked = reconstruction_losses(coarse, batch["P2"], batch["mask2"])
        losses = {"l1_coarse": l1, "mask_coarse": masked}
        self.update("G1", l1 + masked, losses, is_last=True)
        return losses

    def train_refinement(self, batch: Batch, coarse: Tensor) -> dict[str, Tensor]:
        """One step on G2 (section 3.2), through the discriminator, which stays as it is."""
        self.networks["D"].requires_grad_(False)
        refined = self._refined(batch, coarse)
        l1, masked = reconstruction_losses(refined, batch["P2"], batch["mask2"])
        logits = self.logits(batch, coarse, refined)
        losses = {
            "l1_refined": self.options.lambda_rec * l1,
            "mask_refined": self.options.lambda_rec * masked,
            "ad_refined": cross_entropy([logits[name] for name in self.layout.fooling], True),
        }
        self.update("G2", sum(losses.values()), losses)
        return losses

    def train_discriminator(self, batch: Batch, coarse: Tensor) -> dict[str, Tensor]:
        """One step on D: targets are real; sources, and what the updated G2 makes, are not."""
        with torch.no_grad():
            refined = self._refined(batch, coarse)
        self.networks["D"].requires_grad_(True)
        logits = self.logits(batch, coarse, refined)
        real = cross_entropy([logits["target"]], True)
        fake = cross_entropy([logits["source"], logits["refined"]], False)
        loss = (real + fake) / 2
        losses = {"dis": loss}
        self.update("D", loss, losses, is_last=True)
        return losses

    def logits(self, batch: Batch, coarse: Tensor, refined: Tensor) -> dict[str, Tensor]:
        """The discriminator's logits [B] by picture; its batch norm sees all of them together."""
        pictures = {
            "target": batch["P2"], "source": batch["P1"], "coarse": coarse, "refined": refined,
        }  # fmt: skip
        judged = self.layout.judged
        logits = self.run("D", torch.cat([pictures[name] for name in judged]))
        return dict(zip(judged, logits.chunk(len(judged)), strict=True))

    @torch.no_grad()
    def coarse_picture(self, batch: Batch) -> Tensor:
        """G1's picture, [B, 3, H, W], not clipped to [-1, 1]."""
        return self.run("G1", batch["P1"], batch["BP2"])

    def _refined(self, batch: Batch, coarse: Tensor) -> Tensor:
        return coarse + self.run("G2", coarse, batch["P1"])

    def compute_prediction(self, batch: Batch) -> Prediction:
        """The refined picture, with the coarse one beside it; the coarse one in stage 1."""
        coarse = self.coarse_picture(batch)
        if not self.has_refinement:
            return Prediction(coarse)
        return Prediction(self._refined(batch, coarse), extras={"coarse": coarse})

    def networks_to_save(self) -> list[str]:
        """Without G2 and D while they are as they were made: the seed makes them again."""
        return list(self.networks) if self.has_refinement else ["G1"]

    def explain_absent(self, network: str) -> str | None:
        """Stage 1 has no G2."""
        if network != "G2":
            return None
        return (
            "G2 is not trained before stage 2 (if it was, a save was cut off: --continue_train "
            "writes it); --stage=1 generates the coarse pictures of G1"
        )

    def after_loading(self, networks: list[str]) -> None:
        """A run that goes on has a refinement if it loaded one."""
        self.has_refinement = "G2" in networks
