"""What the two GFLA stages share: options, VGG features and the losses on the flow fields.

Ren et al., "Deep Image Spatial Transformation for Person Image Generation", CVPR 2020.
"""

import argparse
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.base_model import BaseModel, Batch
from models.initialisation import INIT_TYPES
from models.losses.correctness import correctness_loss
from models.losses.regularity import regularity_loss
from models.losses.vgg import VGG19Features
from models.presets import SIZES
from util.argument_types import boolean, learning_rate
from util.command_line import Parser, as_argument
from util.device import AMP_TYPES
from util.errors import UserError

SIZE_STEP = 32  # images must be divisible by it
GENERATOR_LAYERS = 3  # stages of the source and target networks; attention lives at layers 1 to 3


def _layers(text: str) -> list[int]:
    try:
        return sorted(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got '{text}', expected layers such as 2,3") from None


def _kernel_sizes(text: str) -> dict[int, int]:
    try:
        pairs = sorted(tuple(map(int, part.split("="))) for part in text.split(","))
        sizes = dict(pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got '{text}', expected LAYER=SIZE pairs such as 2=5,3=3"
        ) from None
    if len(sizes) < len(pairs):
        raise argparse.ArgumentTypeError(f"got a layer twice in '{text}'")
    return sizes


def _check_attention(layers: list[int] | None, sizes: dict[int, int] | None) -> None:
    """Raise UserError unless these are layers of the generator, each with an odd window."""
    example = "as in --attn_layer=2,3 --kernel_size=2=5,3=3"
    if layers is None or sizes is None or set(layers) != set(sizes):
        got = " and ".join(
            "nothing" if one is None else as_argument(one) for one in (layers, sizes)
        )
        raise UserError(
            f"--attn_layer, --kernel_size: got {got}: give both, with the same layers, {example}"
        )
    if len(set(layers)) != len(layers):
        raise UserError(f"--attn_layer: got a layer twice in {as_argument(layers)}")
    for layer, size in sizes.items():
        if not 1 <= layer <= GENERATOR_LAYERS:
            raise UserError(f"--attn_layer: got {layer}, layers are 1 to {GENERATOR_LAYERS}")
        if size < 3 or size % 2 == 0:
            raise UserError(
                f"--kernel_size: got {size} for layer {layer}, expected an odd number from 3 on"
            )


class GFLAModel(BaseModel):
    """Base of `poseflownet` and `pose`."""

    network_options = "--model, --attn_layer, --kernel_size and --use_spect_g"
    fixed_options: ClassVar[dict[str, int]] = {
        "ngf": 64,
        "layers": GENERATOR_LAYERS,
        "flow_ngf": 32,
    }

    @staticmethod
    def add_options(parser: Parser, is_train: bool) -> None:
        """Add the options of both stages."""
        group = parser.add_argument_group("model")
        group.add_argument(
            "--attn_layer",
            type=_layers,
            help="layers with local attention, L = 1/2^L of the image "
            "[by --load_size: 256,256 2,3; 128,64 2; other sizes: the data set's]",
        )
        group.add_argument(
            "--kernel_size",
            type=_kernel_sizes,
            help="window of the attention per layer [by --load_size: 256,256 2=5,3=3; 128,64 2=3]",
        )
        group.add_argument(
            "--use_spect_g",
            type=boolean,
            nargs="?",
            const=True,
            help="spectral normalisation in the generator",
        )
        if not is_train:
            return
        group.add_argument("--init_type", choices=tuple(INIT_TYPES), help="how weights start")
        group.add_argument("--lr", type=learning_rate, help="learning rate of Adam")
        group.add_argument(
            "--vgg_weights",
            default="imagenet",
            help="VGG19 of the losses: imagenet (torchvision's download), a file, or random",
        )
        group.add_argument(
            "--fused_optimizer",
            type=boolean,
            default=True,
            help="Adam updates all parameters in one kernel",
        )

    @staticmethod
    def check_options(options: argparse.Namespace) -> None:
        """Check the sizes of image and attention, which other sizes than published have not."""
        at_size = f"--load_size={','.join(map(str, options.load_size))} is neither published size"
        if options.attn_layer is None and options.kernel_size is None:
            depth = " --dis_layers=4" if hasattr(options, "dis_layers") else ""
            raise UserError(
                f"--attn_layer, --kernel_size: {at_size} (256,256 and 128,64); give them, as "
                f"in --attn_layer=2,3 --kernel_size=2=5,3=3{depth}"
            )
        _check_attention(options.attn_layer, options.kernel_size)
        if any(side < 64 or side % SIZE_STEP for side in options.load_size):
            raise UserError(
                f"--load_size: got {','.join(map(str, options.load_size))}, expected multiples of "
                f"{SIZE_STEP} from 64 on: the flow estimator halves the image five times"
            )
        for layer, size in options.kernel_size.items():
            if min(options.load_size) >> layer < size:
                raise UserError(
                    f"--kernel_size: {size} is larger than layer {layer}'s map of "
                    f"{' by '.join(str(side >> layer) for side in options.load_size)} pixels"
                )
        if getattr(options, "dis_layers", 0) is None:
            raise UserError(
                f"--dis_layers: {at_size}; give it (4 is that of 256,256, 3 that of 128,64)"
            )
        if not min(options.load_size) >> getattr(options, "dis_layers", 0):
            raise UserError(
                f"--dis_layers: {options.dis_layers} blocks halve the image to nothing; give "
                f"{min(options.load_size).bit_length() - 1} at most"
            )

    @staticmethod
    def trained_with(shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
        """The options that shaped a generator, flow estimator or discriminator."""

        def numbers(before: str) -> list[int]:
            parts = (re.match(rf"{before}(\d+)\.", name) for name in shapes)
            return sorted({int(part[1]) for part in parts if part}, reverse=True)

        def first(block: str) -> tuple[int, ...] | None:
            name = f"{block}.weight"
            return shapes.get(name, shapes.get(f"{name}_orig"))

        found: dict[str, Any] = {}
        source, target = first("source.block0.model.2"), first("target.block0.model.2")
        if source and target and source[0] != target[0]:  # transposed, say, and not to be read so
            return {}
        flow, discriminator = first("flow_net.block0.model.2"), first("block0.model.1")
        is_spectral = any(name.endswith("_orig") for name in shapes)
        if source and target:
            found |= {"image_nc": source[1], "structure_nc": target[1], "ngf": source[0]}
            found["layers"] = 1 + len(numbers(r"source\.encoder"))
            name = "target.attn{}.fully_connect_layer.0.weight"
            found["kernel_size"] = {
                found["layers"] - i: shapes[name.format(i)][-1]
                for i in numbers(r"target\.attn")
                if name.format(i) in shapes
            }
            found["attn_layer"] = sorted(found["kernel_size"])
        if flow:
            # It reads an image and two poses; alone it does not tell how they share its channels.
            points, rest = divmod(flow[1] - found.get("image_nc", 3), 2)
            if points < 1 or rest:
                return {}
            found |= {"structure_nc": points, "flow_ngf": flow[0]}
            deepest = len(numbers(r"flow_net\.encoder"))
            found["attn_layer"] = sorted(deepest - i for i in numbers(r"flow_net\.output"))
        if source or flow:
            found["use_spect_g"] = is_spectral
        elif discriminator:
            found |= {"image_nc": discriminator[1], "use_spect_d": is_spectral}
            found["dis_layers"] = 1 + len(numbers("encoder"))
        return found

    @staticmethod
    def notes(options: argparse.Namespace) -> list[str]:
        """Say when the size brings another data set's settings; when the loss network is random."""
        lines, preset = [], BaseModel.preset_name(options)
        if options.dataset_mode in SIZES and preset != options.dataset_mode:
            lines.append(
                f"--load_size={','.join(map(str, options.load_size))}: attention, discriminator "
                f"and augmentation are {preset}'s unless given, for they follow the size"
            )
        if getattr(options, "vgg_weights", None) == "random":
            lines.append(
                "VGG19 has RANDOM weights (--vgg_weights=random): "
                "for a quick start; the loss weights are tuned to ImageNet's"
            )
        return lines

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        coarse_to_fine = sorted(options.attn_layer, reverse=True)
        self.correctness_features = [f"relu{layer + 1}_1" for layer in coarse_to_fine]
        if options.is_train:
            self.vgg = VGG19Features(
                options.vgg_weights,
                # On a CPU its convolutions and poolings take about half the time this way.
                channels_last=options.channels_last or self.device.type == "cpu",
                dtype=AMP_TYPES[options.amp],
            ).to(self.device)
            self.run_vgg = self.compiled(self.vgg)

    def adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        """The optimiser of a network at the published settings."""
        return torch.optim.Adam(
            network.parameters(),
            lr=rate,
            betas=(0.0, 0.999),
            fused=self.options.fused_optimizer or None,
        )

    def flow_losses(
        self, flows: list[Tensor], source: dict[str, Tensor], target: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Sampling correctness and affine regularity of all flow fields (section 3.1).

        Args:
            flows: coarse to fine, [B, 2, h, w] in pixels of their own maps.
            source: VGG19 features of P1, with those of `correctness_features`.
            target: the same of P2.

        Returns:
            Two scalars, each summed over the layers, without weights.
        """
        names, options = self.correctness_features, self.options
        correctness = correctness_loss(
            [source[name] for name in names], [target[name] for name in names], flows
        )
        return correctness, regularity_loss(flows, options.attn_layer, options.kernel_size)

    @torch.no_grad()
    def constant_features(self, image: Tensor, names: list[str]) -> dict[str, Tensor]:
        """VGG19 features through which no gradient flows (those of P1 and P2)."""
        return self.run_vgg(image, names)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the networks read: source image, source pose, target pose."""
        return batch["P1"], batch["BP1"], batch["BP2"]
