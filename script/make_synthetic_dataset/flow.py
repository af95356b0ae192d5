"""True flow between two pictures of the same person."""

import numpy as np

from script.make_synthetic_dataset.render import Surface, View, interpolate, surface

# Samples per pixel and axis of the source surface in which occlusion is decided.
_SOURCE_SAMPLES = 3


def true_flow(
    source: View,
    target: View,
    source_seen: Surface | None = None,
    target_seen: Surface | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Flow from the target's pixels to the source's, and where it is visible.

    `source`, `target`: views of one mesh. `source_seen`: the source surface at 3 x 3 samples,
    `target_seen`: the target surface at one (both computed when not given).

    Returns `flow` [2, H, W] float32, x then y: source position - target position in pixels, at
    every pixel whose centre lies on the person (0 elsewhere); and `visible` [H, W] bool: the
    pixel shows the person, and the same point of the surface is the front-most one at
    its place in the source image. Background pixels are never visible.
    """
    if source.mesh is not target.mesh:
        raise ValueError("source and target must be views of the same mesh")
    target_seen = target_seen or surface(target)
    source_seen = source_seen or surface(source, _SOURCE_SAMPLES)
    height, width = target.height, target.width
    flow = np.zeros((2, height * width), np.float32)
    visible = np.zeros(height * width, bool)
    pixel = np.flatnonzero(target_seen.face >= 0)
    face, weights = target_seen.face.reshape(-1)[pixel], target_seen.weights.reshape(-1, 3)[pixel]
    place = interpolate(source.mesh, source.points, face, weights)
    row, column = np.divmod(pixel, width)
    flow[:, pixel] = (place - np.stack((column, row), 1)).T

    x, y = place[:, 0], place[:, 1]
    inside = (x >= 0) & (x <= source.width - 1) & (y >= 0) & (y <= source.height - 1)
    samples = source_seen.face.shape[0] // source.height
    sx = np.clip(np.rint((x + 0.5) * samples - 0.5).astype(int), 0, source.width * samples - 1)
    sy = np.clip(np.rint((y + 0.5) * samples - 0.5).astype(int), 0, source.height * samples - 1)
    there = source_seen.face[sy, sx]
    same_part = (there >= 0) & (source.mesh.part[there] == source.mesh.part[face])
    # the point seen there must be the same one, up to the spacing of the samples
    rest = source.mesh.rest
    wanted = interpolate(source.mesh, rest, face, weights)
    found = interpolate(source.mesh, rest, np.maximum(there, 0), source_seen.weights[sy, sx])
    facing = interpolate(source.mesh, source.facing, face, weights)[:, 2]
    spacing = 1.0 / (source.camera.scale * samples)
    near = np.linalg.norm(wanted - found, axis=1) < 2.0 * spacing / np.clip(facing, 0.2, 1)
    visible[pixel] = inside & same_part & near & (facing > 0.05)
    return flow.reshape(2, height, width), visible.reshape(height, width)
