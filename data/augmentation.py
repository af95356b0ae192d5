"""Random affine augmentation: one matrix for an image and its key points."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

FILL = (128, 128, 128)


@dataclass(frozen=True)
class Augmentation:
    """The ranges that augmentation draws from; the default draws nothing.

    Attributes:
        angle: rotation is drawn from [-angle, angle], degrees.
        shift: shift along x and along y are drawn from [-shift, shift], pixels at load size.
        scale: scale factor is drawn from [low, high].
    """

    angle: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def active(self) -> bool:
        """Whether anything but the identity can be drawn."""
        return self.angle > 0 or self.shift > 0 or tuple(self.scale) != (1.0, 1.0)


class AffineParameters(NamedTuple):
    """One drawn transform: rotation in degrees, shift (x, y) in pixels, scale factor."""

    angle: float
    shift: tuple[float, float]
    scale: float


def draw_augmentation(rng: np.random.RandomState, augmentation: Augmentation) -> AffineParameters:
    """Draw one transform, uniformly, in the order angle, scale, shift x, shift y."""
    angle = rng.uniform(-augmentation.angle, augmentation.angle)
    scale = rng.uniform(*augmentation.scale)
    shift_x = rng.uniform(-augmentation.shift, augmentation.shift)
    shift_y = rng.uniform(-augmentation.shift, augmentation.shift)
    return AffineParameters(angle, (shift_x, shift_y), scale)


def weaken_for_target(drawn: AffineParameters) -> AffineParameters:
    """Give the transform used for P2: 0.2 of the angle, half the shift, no scaling."""
    shift_x, shift_y = drawn.shift
    return AffineParameters(0.2 * drawn.angle, (0.5 * shift_x, 0.5 * shift_y), 1.0)


def affine_matrix(parameters: AffineParameters, size: tuple[int, int]) -> np.ndarray:
    """Build the float64 3×3 matrix that maps (x, y, 1) of the image to the augmented image.

    Rotation and scale are about (width / 2 + 0.5, height / 2 + 0.5); `size` is (height, width).
    """
    height, width = size
    centre_x, centre_y = width / 2 + 0.5, height / 2 + 0.5
    cosine = parameters.scale * math.cos(math.radians(parameters.angle))
    sine = parameters.scale * math.sin(math.radians(parameters.angle))
    shift_x, shift_y = parameters.shift
    return np.array(
        [
            [cosine, -sine, centre_x + shift_x - cosine * centre_x + sine * centre_y],
            [sine, cosine, centre_y + shift_y - sine * centre_x - cosine * centre_y],
            [0.0, 0.0, 1.0],
        ]
    )


def warp_image(image: Image.Image, matrix: np.ndarray) -> Image.Image:
    """Warp an RGB image by the matrix: nearest neighbour, grey 128 where nothing is mapped to."""
    inverse = np.linalg.inv(matrix)
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        tuple(inverse[:2].ravel()),
        resample=Image.Resampling.NEAREST,
        fillcolor=FILL,
    )


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points [..., 2], (x, y), by the 3×3 matrix; NaN stays NaN."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]
