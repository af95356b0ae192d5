"""The two Inception networks under the Fréchet distances; they are not comparable."""

import io

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import Inception3, Inception_V3_Weights

from script.metrics.exact_inference import check_pictures, exact_inference
from util.pretrained_weights import PretrainedFile

STANDARD_FILE = PretrainedFile(
    "--inception_weights",
    "the FID-Inception-2015 network (torch-fidelity's)",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
IMAGENET_FILE = PretrainedFile(
    "--imagenet_inception_weights",
    "torchvision's inception_v3",
    Inception_V3_Weights.IMAGENET1K_V1.url,
)
SIDE = 299
STANDARD_CLASSES = 1008
IMAGENET_CLASSES = 1000


class StandardInception(nn.Module):
    """FID-Inception-2015 by way of torch-fidelity: features of FID and KID, logits of IS.

    torch-fidelity tests it against the TensorFlow original (Heusel et al., 2017, for FID;
    Salimans et al., 2016, for the Inception score).

    Args:
        weights: path of the weight file (--inception_weights), or None for the published one.
        device: where to compute.

    Attributes:
        protocol: network, weights and resize in words, for reports.

    Raises:
        MissingWeights: the published file cannot be had.
        UserError: the given file does not serve.
    """

    def __init__(self, weights: str | None, device: torch.device) -> None:
        # Here, so that the other figures do without the package.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        loaded = STANDARD_FILE.load(weights, _layout(STANDARD_CLASSES))
        # torch-fidelity unpickles whatever it finds in a file; so it gets one written here, of the
        # tensors that were read safely. Its constructor draws random weights first.
        file = io.BytesIO()
        torch.save(loaded.state, file)
        file.seek(0)
        with torch.random.fork_rng(devices=[]):
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"],
                feature_extractor_weights_path=file,
            )  # fmt: skip
        self.protocol = (
            f"FID-Inception-2015 of torch-fidelity, 2048 features, {loaded.source}, "
            f"TensorFlow-exact bilinear resize to {SIDE}x{SIDE}"
        )
        self.requires_grad_(False).eval().to(device)

    @exact_inference()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class scores; a picture's do not depend on the others of the batch.

        Args:
            pictures: uint8 `[B, 3, H, W]` of any size from 1x1, on the network's device.

        Returns:
            Features `[B, 2048]` and logits without bias `[B, 1008]`, float32.

        Raises:
            ValueError: another type or shape, or nothing in it.
        """
        check_pictures(pictures)
        features, logits = self.network(pictures)
        return features, logits


class ImageNetInception(nn.Module):
    """torchvision's InceptionV3 as the FID published in this line of work uses it.

    The image, in [0, 1], goes through the input transform of torchvision, which is meant for
    images normalised by ImageNet's mean and deviation: a slip of the programs that made the
    published numbers, and so part of the protocol.

    Args:
        weights: path of the file (--imagenet_inception_weights), or None for the published one.
        device: where to compute.

    Attributes:
        protocol: network, weights, resize and transform in words, for reports.

    Raises:
        MissingWeights: the published file cannot be had.
        UserError: the given file does not serve.
    """

    def __init__(self, weights: str | None, device: torch.device) -> None:
        super().__init__()
        loaded = IMAGENET_FILE.load(weights, _layout(IMAGENET_CLASSES))
        with torch.device("meta"):
            self.network = Inception3(aux_logits=False, transform_input=True, init_weights=False)
        self.network.load_state_dict(loaded.state, assign=True)
        # What comes before the classifier is the global average of Mixed_7c's output.
        self.network.fc = nn.Identity()
        self.protocol = (
            "torchvision's InceptionV3 (ImageNet), Mixed_7c, global average pooling, 2048 "
            f"features, {loaded.source}, image in [0, 1], bilinear resize to {SIDE}x{SIDE} "
            "without antialiasing, align_corners off, torchvision's input transform on the "
            "image as it is (not normalised)"
        )
        self.requires_grad_(False).eval().to(device)

    @exact_inference()
    def forward(self, pictures: Tensor) -> Tensor:
        """Features; a picture's do not depend on the others of the batch.

        Args:
            pictures: uint8 `[B, 3, H, W]` of any size from 1x1, on the network's device.

        Returns:
            `[B, 2048]` float32.

        Raises:
            ValueError: another type or shape, or nothing in it.
        """
        check_pictures(pictures)
        resized = interpolate(
            pictures.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        return self.network(resized)


def _layout(classes: int) -> dict[str, Tensor]:
    """Names and shapes, without values: both networks have torchvision's, but for the classes."""
    with torch.device("meta"):
        return Inception3(classes, aux_logits=False, init_weights=False).state_dict()
