"""Key-point maps, the form in which the networks read a pose: Gaussians (GFLA) or discs (PG2)."""

import torch

DISC_RADIUS = 4
FAR_AWAY = -1e9  # pixels: where the disc of a missing key point lies


def pose_maps(
    pose: torch.Tensor,
    size: tuple[int, int],
    sigma: float = 6.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Draw one Gaussian per key point: exp(-((row - a)² + (column - b)²) / (2 sigma²)).

    The centre (a, b) is the key point truncated toward zero to whole pixels. It may lie outside
    the map and still determines it. The Gaussian is separable: each map is the outer product of
    two one-dimensional ones.

    Args:
        pose: [..., K, 2], (x, y) in pixels of the map; NaN = missing, which gives a zero map.
        size: (height, width) of the maps.
        sigma: standard deviation in pixels.
        dtype: floating-point type of the maps.

    Returns:
        [..., K, height, width] in [0, 1], on the device of `pose`.
    """
    height, width = size
    centre = torch.trunc(pose)
    rows = _gaussian(centre[..., 1], height, sigma, dtype)
    columns = _gaussian(centre[..., 0], width, sigma, dtype)
    return rows.unsqueeze(-1) * columns.unsqueeze(-2)


def _gaussian(centre: torch.Tensor, length: int, sigma: float, dtype: torch.dtype) -> torch.Tensor:
    """Give [..., length] samples of a Gaussian about centre [...]; zeros where it is NaN."""
    position = torch.arange(length, device=centre.device, dtype=torch.float32)
    distance = position - centre.to(torch.float32).unsqueeze(-1)
    values = torch.exp(distance.square() / (-2 * sigma**2))
    return torch.nan_to_num(values, nan=0.0).to(dtype)


def pose_discs(
    pose: torch.Tensor,
    size: tuple[int, int],
    radius: int = DISC_RADIUS,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Draw one disc per key point: 1 where (row - a)² + (column - b)² <= radius², else -1.

    The centre (a, b) is the key point truncated toward zero to whole pixels; discs are cut at the
    border (Ma et al., NIPS 2017, section 3.1).

    Args:
        pose: [..., K, 2], (x, y) in pixels of the map; NaN = missing, which gives a map of -1.
        size: (height, width) of the maps.
        radius: in pixels.
        dtype: floating-point type of the maps.

    Returns:
        [..., K, height, width] in {-1, 1}, on the device of `pose`.
    """
    centre = torch.trunc(pose).nan_to_num(nan=FAR_AWAY)
    rows, columns = (
        (torch.arange(length, device=pose.device) - centre[..., axis].unsqueeze(-1)).square()
        for axis, length in ((1, size[0]), (0, size[1]))
    )
    # Positive inside, where all are whole numbers but the half; one pass each, without a mask.
    margin = (radius**2 + 0.5 - rows).unsqueeze(-1) - columns.unsqueeze(-2)
    return margin.sign_().to(dtype)


POSE_ENCODINGS = {"gaussian": pose_maps, "disc": pose_discs}  # by name of --pose_encoding
