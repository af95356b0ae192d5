"""Triangle rasteriser with a depth buffer, vectorised over all triangles."""

import numpy as np


def rasterise(
    points: np.ndarray, depth: np.ndarray, triangles: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Front-most triangle at every pixel centre.

    `points`: [V, 2] float, (x, y) in pixels, integers being pixel centres. `depth`: [V], larger
    is nearer. `triangles`: [T, 3] vertex indices; only front faces are drawn, those whose corners
    turn counter-clockwise as the viewer sees them.

    Returns `face` [height, width] int32, the triangle's index or -1, and `weights`
    [height, width, 3] float32, the barycentric weights of its three vertices (0 where -1).
    """
    face = np.full(height * width, -1, np.int32)
    weights = np.zeros((height * width, 3), np.float32)
    corners = points[triangles]  # [T, 3, 2]
    x, y = corners[..., 0], corners[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    left = np.maximum(np.ceil(x.min(1)), 0).astype(np.int64)
    right = np.minimum(np.floor(x.max(1)), width - 1).astype(np.int64)
    top = np.maximum(np.ceil(y.min(1)), 0).astype(np.int64)
    bottom = np.minimum(np.floor(y.max(1)), height - 1).astype(np.int64)
    keep = np.flatnonzero((area < -1e-9) & (right >= left) & (bottom >= top))
    if keep.size == 0:
        return face.reshape(height, width), weights.reshape(height, width, 3)

    x, y, area, left, top = x[keep], y[keep], area[keep], left[keep], top[keep]
    columns = right[keep] - left + 1
    counts = columns * (bottom[keep] - top + 1)
    # every (triangle, pixel of its bounding box) is one candidate
    owner = np.repeat(np.arange(keep.size), counts)
    local = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(local, columns[owner])
    # barycentric weights are affine in the pixel position: w = w(first pixel) + dx*i + dy*j
    inverse = 1.0 / area
    second = np.stack(((y[:, 2] - y[:, 0]) * inverse, -(x[:, 2] - x[:, 0]) * inverse), 1)
    third = np.stack((-(y[:, 1] - y[:, 0]) * inverse, (x[:, 1] - x[:, 0]) * inverse), 1)
    offset = np.stack((left - x[:, 0], top - y[:, 0]), 1)
    start1, start2 = (second * offset).sum(1), (third * offset).sum(1)
    w1 = start1[owner] + second[owner, 0] * column + second[owner, 1] * row
    w2 = start2[owner] + third[owner, 0] * column + third[owner, 1] * row
    w0 = 1.0 - w1 - w2
    inside = np.flatnonzero((w0 >= -1e-9) & (w1 >= -1e-9) & (w2 >= -1e-9))
    owner, w0, w1, w2 = owner[inside], w0[inside], w1[inside], w2[inside]
    pixel = (top[owner] + row[inside]) * width + left[owner] + column[inside]
    corner_depth = depth[triangles[keep]]
    z = w0 * corner_depth[owner, 0] + w1 * corner_depth[owner, 1] + w2 * corner_depth[owner, 2]
    nearest = np.full(height * width, -np.inf)
    np.maximum.at(nearest, pixel, z)
    winner = np.flatnonzero(z == nearest[pixel])
    pixel, owner = pixel[winner], owner[winner]
    face[pixel] = keep[owner]
    weights[pixel] = np.stack((w0[winner], w1[winner], w2[winner]), 1)
    return face.reshape(height, width), weights.reshape(height, width, 3)
