"""VGG19 features for the perceptual and the correctness losses."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights

from util.errors import UserError
from util.pretrained_weights import MissingWeights, PretrainedFile

CONVOLUTIONS_PER_STAGE = (2, 2, 4, 4, 4)
CHANNELS_PER_STAGE = (64, 128, 256, 512, 512)
LAYERS = tuple(
    f"relu{stage}_{i}"
    for stage, convolutions in enumerate(CONVOLUTIONS_PER_STAGE, start=1)
    for i in range(1, convolutions + 1)
)
RANDOM_SEED = 19
PUBLISHED_FILE = PretrainedFile(
    "--vgg_weights", "torchvision's vgg19", VGG19_Weights.IMAGENET1K_V1.url
)


class VGG19Features(nn.Module):
    """Frozen VGG19 (Simonyan and Zisserman, 2015) that returns the features asked for.

    The layers and parameter names are those of torchvision's `vgg19().features`; there is no
    classifier. Images in [-1, 1] go in as they are, without the ImageNet normalisation: the
    weights of the losses were tuned to that.

    Args:
        weights: "imagenet" (torchvision's, downloaded once and cached), "random" (fixed seed), or
            the path of a state dict in torchvision's layout.
        channels_last: lay out the features in memory as `[B, H, W, C]`, whatever the image is.
        dtype: of the arithmetic and the features.

    Raises:
        UserError: the weights cannot be had or do not fit.
    """

    def __init__(
        self, weights: str, channels_last: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        # On the meta device nothing is allocated, nor drawn from the global random generator.
        with torch.device("meta"):
            self.features = _build_features()
        self.load_state_dict(_load_weights(weights, self.state_dict()), assign=True)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = dtype
        self.to(dtype=dtype, memory_format=self.memory_format)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "VGG19Features":
        """Stay in eval mode, whatever `mode` says: the network is a fixed measure."""
        return super().train(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute features of `image`, going no deeper than the deepest layer asked for.

        Args:
            image: `[B, 3, H, W]` in [-1, 1].
            layers: names out of relu1_1 … relu5_4.

        Returns:
            Name -> feature `[B, C, H / 2^(stage-1), W / 2^(stage-1)]`, after the ReLU.

        Raises:
            ValueError: an unknown name.
        """
        unknown = [name for name in layers if name not in LAYERS]
        if unknown:
            raise ValueError(f"layers: got {unknown}, expected names out of {', '.join(LAYERS)}")
        missing = set(layers)
        names = iter(LAYERS)
        features: dict[str, Tensor] = {}
        x = image.to(dtype=self.dtype, memory_format=self.memory_format)
        for layer in self.features:
            if not missing:
                break
            x = layer(x)
            if isinstance(layer, nn.ReLU) and (name := next(names)) in missing:
                features[name] = x
                missing.remove(name)
        return features


def _build_features() -> nn.Sequential:
    layers: list[nn.Module] = []
    stages = zip(CONVOLUTIONS_PER_STAGE, pairwise((3, *CHANNELS_PER_STAGE)), strict=True)
    for convolutions, (in_channels, channels) in stages:
        for i in range(convolutions):
            layers.append(nn.Conv2d(channels if i else in_channels, channels, 3, padding=1))
            # In place is safe: what a name returns is the ReLU's output, which nothing overwrites.
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _load_weights(weights: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict for `weights`, with the names and shapes of `expected`."""
    if weights == "random":
        return _random_weights(expected)
    given = None if weights == "imagenet" else weights
    if given is not None and not Path(given).is_file():
        raise UserError(
            f"--vgg_weights={given}: no such file; expected imagenet, random or the path of a file"
        )
    try:
        return PUBLISHED_FILE.load(given, expected).state
    except MissingWeights as error:
        raise MissingWeights(f"{error}, or try the program with --vgg_weights=random") from error


def _random_weights(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """He et al., 2015: keeps the scale of the activations through the ReLUs."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    return {
        name: torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        if name.endswith("weight")
        else torch.zeros(tensor.shape)
        for name, tensor in expected.items()
    }
