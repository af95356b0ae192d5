"""Pictures of a posed body: projection, surface at every pixel, colours, key points."""

from dataclasses import dataclass

import numpy as np

from script.make_synthetic_dataset.body import Body
from script.make_synthetic_dataset.mesh import Mesh
from script.make_synthetic_dataset.raster import rasterise
from script.make_synthetic_dataset.skeleton import Pose, bone_transforms, rotation

# A joint this far (metres) behind the surface that is seen there is hidden by another part.
HIDING_DEPTH = 0.19


@dataclass
class Camera:
    """Orthographic camera. Angles in degrees; `scale`: pixels per metre; `stretch`: extra factor
    of x; `centre`: pixel (x, y) of the world origin."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    stretch: float
    centre: tuple[float, float]


@dataclass
class View:
    """A posed body before the camera.

    `points` [V, 2]: (x, y) in pixels, integers = pixel centres; `depth` [V]: metres, larger =
    nearer; `facing` [V, 3]: unit normals in the camera frame; `height`, `width`: of the image;
    `joints` [18, 2] pixels, `joint_depth` [18] metres, `joint_facing` [18]: z of the normal of
    points on the face (0 for joints).
    """

    mesh: Mesh
    camera: Camera
    points: np.ndarray
    depth: np.ndarray
    facing: np.ndarray
    height: int
    width: int
    joints: np.ndarray
    joint_depth: np.ndarray
    joint_facing: np.ndarray


@dataclass
class Surface:
    """What each sample shows: `face` [h, w], the triangle or -1; `weights` [h, w, 3],
    barycentric."""

    face: np.ndarray
    weights: np.ndarray


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation [3, 3] from the world to the camera frame (x right, y up, z to the camera)."""
    return rotation("z", roll) @ rotation("x", pitch) @ rotation("y", yaw)


def rotate(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`points` [N, 3] rotated by `matrix` [3, 3]; bit for bit the same on any number of threads."""
    return sum(points[:, axis, None] * matrix[None, :, axis] for axis in range(3))


def pose_body(body: Body, pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """World places of the posed body in metres: vertices [V, 3], their normals [V, 3], key points
    [18, 3], normals of the key points [18, 3]."""
    maps = bone_transforms(body.joints, pose)
    mixed = np.einsum("vb,bij->vij", body.mesh.skin, maps, optimize=False)
    vertices = (mixed[:, :, :3] * body.mesh.rest[:, None, :]).sum(2) + mixed[:, :, 3]
    normals = (mixed[:, :, :3] * body.mesh.normals[:, None, :]).sum(2)
    own = maps[body.landmark_bone]
    landmarks = (own[:, :, :3] * body.landmarks[:, None, :]).sum(2) + own[:, :, 3]
    directions = (own[:, :, :3] * body.landmark_normal[:, None, :]).sum(2)
    return vertices, normals, landmarks, directions


def project(
    body: Body, posed: tuple[np.ndarray, ...], camera: Camera, height: int, width: int
) -> View:
    """The posed body (from `pose_body`) in an image of `height` x `width` pixels."""
    vertices, normals, landmarks, directions = posed
    frame = turn(camera.yaw, camera.pitch, camera.roll)
    factor = np.array([camera.scale * camera.stretch, -camera.scale])
    seen = rotate(vertices, frame)
    facing = rotate(normals, frame)
    joints = rotate(landmarks, frame)
    return View(
        body.mesh,
        camera,
        seen[:, :2] * factor + camera.centre,
        seen[:, 2],
        facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9),
        height,
        width,
        joints[:, :2] * factor + camera.centre,
        joints[:, 2],
        rotate(directions, frame)[:, 2],
    )


def surface(view: View, samples: int = 1) -> Surface:
    """The surface seen at `samples` x `samples` points per pixel (odd: one is the pixel centre)."""
    points = (view.points + 0.5) * samples - 0.5
    face, weights = rasterise(
        points, view.depth, view.mesh.triangles, view.height * samples, view.width * samples
    )
    return Surface(face, weights)


def interpolate(
    mesh: Mesh, values: np.ndarray, face: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Vertex `values` [V, C] at surface points `face` [N], `weights` [N, 3]: [N, C]."""
    corners = mesh.triangles[face]
    return (
        values[corners[:, 0]] * weights[:, :1]
        + values[corners[:, 1]] * weights[:, 1:2]
        + values[corners[:, 2]] * weights[:, 2:]
    )


def surface_colours(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours [N, 3] in [0, 1] of surface points: texture (bilinear) times fixed brightness."""
    attributes = np.concatenate((mesh.texture_place, mesh.shade[:, None]), 1)
    place = interpolate(mesh, attributes, face, weights)
    part = mesh.part[face]
    height, width = mesh.texture_height[part], mesh.texture_width[part]
    row = np.clip(place[:, 0].astype(np.int64), 0, height - 2)
    column = np.clip(place[:, 1].astype(np.int64), 0, width - 2)
    down = (place[:, 0] - row)[:, None].astype(np.float32)
    right = (place[:, 1] - column)[:, None].astype(np.float32)
    start = mesh.texture_start[part] + row * width + column
    texture = mesh.texture
    upper = texture[start] * (1 - right) + texture[start + 1] * right
    lower = texture[start + width] * (1 - right) + texture[start + width + 1] * right
    return (upper * (1 - down) + lower * down) * place[:, 2:3].astype(np.float32)


def draw(view: View, samples: int, shading: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Clean picture of the person, antialiased with `samples` x `samples` points per pixel.

    `shading`: darkening of surfaces that turn away from the camera (0: the colours are fixed to the
    body). Returns the colours times coverage [H, W, 3] and the coverage [H, W], in [0, 1].
    """
    seen = surface(view, samples)
    height, width = view.height, view.width
    hit = np.flatnonzero(seen.face >= 0)
    face, weights = seen.face.reshape(-1)[hit], seen.weights.reshape(-1, 3)[hit]
    colours = surface_colours(view.mesh, face, weights)
    if shading:
        light = interpolate(view.mesh, view.facing, face, weights)
        toward = np.clip(light[:, 2] + 0.35 * light[:, 1], 0, 1)
        colours = colours * (1 - shading + 1.25 * shading * toward)[:, None].astype(np.float32)
    buffer = np.zeros((height * samples * width * samples, 4), np.float32)
    buffer[hit, :3] = colours
    buffer[hit, 3] = 1
    buffer = buffer.reshape(height, samples, width, samples, 4).mean((1, 3))
    return buffer[..., :3], buffer[..., 3]


def key_points(view: View, seen: Surface, rng: np.random.Generator) -> np.ndarray:
    """What a detector would report: [18, 2] int, (x, y) in pixels of the image, -1 = missing.

    `seen`: the surface at one sample per pixel. Missing are points outside the image; points of
    the face that turn away or lie behind something; and, often but not always, joints
    that another part of the body hides.
    """
    points = np.rint(view.joints).astype(int)
    result = np.full((18, 2), -1)
    luck = rng.random(18)
    for index, (x, y) in enumerate(points):
        if not (0 <= x < view.width and 0 <= y < view.height):
            continue
        face = seen.face[y, x]
        front = -np.inf
        if face >= 0:
            corners = view.mesh.triangles[face]
            front = float((view.depth[corners] * seen.weights[y, x]).sum())
        behind = front - view.joint_depth[index]
        if index in (0, 14, 15, 16, 17):
            limit = {0: -0.12, 14: 0.06, 15: 0.06}.get(index, -0.25)
            hidden = view.joint_facing[index] < limit or behind > 0.05
        else:
            steady = index in (1, 2, 5, 8, 11)  # detectors infer neck, shoulders and hips
            hidden = behind > HIDING_DEPTH and luck[index] < (0.15 if steady else 0.65)
        if not hidden:
            result[index] = (x, y)
    return result
