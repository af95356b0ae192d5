"""LPIPS (Zhang et al., 2018) with AlexNet, by way of the authors' package."""

import warnings

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights

from script.metrics.exact_inference import check_pictures, exact_inference
from util.errors import UserError
from util.pretrained_weights import PretrainedFile

PUBLISHED_FILE = PretrainedFile(
    "--lpips_weights", "torchvision's alexnet", AlexNet_Weights.IMAGENET1K_V1.url
)
VERSIONS = ("0.1", "0.0")
SMALLEST_SIDE = 31  # below, nothing is left for AlexNet's second pooling


class LPIPSDistance(nn.Module):
    """Perceptual distance of pictures under the heads v0.1 and v0.0.

    v0.0 takes the image as it is; v0.1 normalises it first. Older papers seem to have used v0.0.
    The heads lie in the lpips package, the backbone is torchvision's ImageNet AlexNet.

    Args:
        weights: path of AlexNet's weights (--lpips_weights), or None for the published ones; of
            the state dict only `features.*` is read.
        device: where to compute.

    Attributes:
        protocol: network and weights in words, for reports.

    Raises:
        MissingWeights: the published file cannot be had.
        UserError: the given file does not serve.
    """

    def __init__(self, weights: str | None, device: torch.device) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({_key(version): _build(version) for version in VERSIONS})
        backbone = self.networks[_key(VERSIONS[0])].net
        # The package's `slice2.3.weight` is torchvision's `features.3.weight`.
        names = {name: f"features.{name.partition('.')[2]}" for name in backbone.state_dict()}
        loaded = PUBLISHED_FILE.load(
            weights, {names[name]: tensor for name, tensor in backbone.state_dict().items()}
        )
        backbone.load_state_dict({name: loaded.state[names[name]] for name in names})
        for network in self.networks.values():
            network.net = backbone
        self.protocol = f"backbone AlexNet of torchvision (ImageNet), {loaded.source}"
        self.requires_grad_(False).eval().to(device)

    @exact_inference()
    def forward(
        self, result: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Distances of pairs; a pair's do not depend on the others of the batch.

        Args:
            result: uint8 `[B, 3, H, W]`, H and W at least 31, on the network's device.
            target: the same.
            mask: bool `[B, H, W]`; where it is False, both images become mid-grey (0 in [-1, 1]).

        Returns:
            "v0.1" and "v0.0" -> `[B]` float32, 0 for equal pictures.

        Raises:
            UserError: pictures too small for AlexNet.
            ValueError: another type, or shapes that differ.
        """
        check_pictures(result)
        check_pictures(target)
        if result.shape != target.shape:
            raise ValueError(f"shapes {list(result.shape)} and {list(target.shape)} differ")
        height, width = result.shape[2:]
        if min(height, width) < SMALLEST_SIDE:
            raise UserError(
                f"LPIPS needs pictures of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels, got "
                f"{height}x{width} (height x width): leave LPIPS out, or compare larger pictures"
            )
        images = [pictures.float() / 127.5 - 1 for pictures in (result, target)]
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != (len(result), height, width):
                raise ValueError(
                    f"mask: expected bool {[len(result), height, width]}, got {mask.dtype} "
                    f"{list(mask.shape)}"
                )
            images = [image * mask[:, None] for image in images]
        return {
            f"v{version}": self.networks[_key(version)](*images).flatten() for version in VERSIONS
        }


def _key(version: str) -> str:
    return version.replace(".", "_")  # a module's name must have no dot


def _build(version: str) -> nn.Module:
    """The network with its head; the backbone's weights are random, from a generator of its own."""
    from lpips import LPIPS  # here, so that the other figures do without the package

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The package uses an argument that torchvision has renamed.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return LPIPS(net="alex", version=version, pnet_rand=True, verbose=False)
