"""What PG2's TFRecords hold: two pictures of a person with their poses, as one tf.train.Example.

Keys end in _0 for the source and _1 for the target. Key points are whole pixels of the stored
image. Positions in a sparse pose map count row, column, joint; the last one runs fastest.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.body_mask import disc_body_mask
from data.tfrecord_schema import KEYPOINT_COUNT
from util.images import is_plain, open_image
from util.tensorflow.records import Feature


@dataclass(frozen=True)
class Schema:
    """One of the two published forms of records, as far as they differ.

    Attributes:
        title: start of the files' names.
        size: (height, width) of the images.
        masks: radius of the body masks by key.
        discs: radii of the discs of the sparse pose maps, by which their keys end.
        peak_cell: pixels of a cell's side in the coarse key-point map.
        margin: of a part's box around its key points, in pixels.
        lone_margin: the same around a part's only key point.
        nose_lift: so many pixels is the nose higher for the boxes than it is.
        unknown_integers, unknown_floats: keys of attributes that nothing gives; empty.
        zero_maps: keys of maps that are zero everywhere.
        has_region_masks: whether the boxes of ten regions are there as masks, too.
    """

    title: str
    size: tuple[int, int]
    masks: Mapping[str, int]
    discs: tuple[int, ...]
    peak_cell: int
    margin: int
    lone_margin: int
    nose_lift: int
    unknown_integers: tuple[str, ...] = ("attrs",)
    unknown_floats: tuple[str, ...] = ()
    zero_maps: tuple[str, ...] = ()
    has_region_masks: bool = False

    def person_of(self, image_name: str) -> str:
        """Tell from an image's name whose it is."""
        if self.title == "Market1501":
            return image_name.split("_")[0]  # 0002_c1s1_000451_03.jpg
        return image_name.rpartition("_")[0]  # fashionWOMENTees_Tanksid0000000401_1front.jpg


SCHEMAS: Mapping[str, Schema] = {
    "market": Schema(
        title="Market1501",
        size=(128, 64),
        # The published records hold the mask of radius 7 under this name.
        masks={"pose_mask_r4": 4, "pose_mask_r6": 7},
        discs=(4,),
        peak_cell=8,
        margin=6,
        lone_margin=10,
        nose_lift=0,
        unknown_floats=("attrs_w2v25", "attrs_w2v50", "attrs_w2v100", "attrs_w2v150"),
        zero_maps=("seg",),
    ),
    "fashion": Schema(
        title="DeepFashion",
        size=(256, 256),
        masks={"pose_mask_r4": 4, "pose_mask_r8": 8},
        discs=(4, 8),
        peak_cell=16,
        margin=10,
        lone_margin=20,
        nose_lift=10,
        has_region_masks=True,
    ),
}

# The 37 parts that have boxes, as key points: regions and limbs, the whole body, every key point,
# the two sides.
_HEAD, _TRUNK, _LEGS = (0, 1, 2, 5, 14, 15, 16, 17), (2, 3, 4, 5, 6, 7, 8, 11), (*range(8, 14),)
_PARTS = (
    _HEAD, _TRUNK, _LEGS, (5, 6, 7), (2, 3, 4), (11, 12, 13), (8, 9, 10), (2, 5, 8, 11),
    (5, 6), (6, 7), (2, 3), (3, 4), (11, 12), (12, 13), (8, 9), (9, 10), (*range(KEYPOINT_COUNT),),
    *((joint,) for joint in range(KEYPOINT_COUNT)), (2, 3, 4, 8, 9, 10), (5, 6, 7, 11, 12, 13),
)  # fmt: skip
_NO_BOX = (0, 0, 1, 1)
# The ten regions, as positions in _PARTS; the head reaches further up, those with hands or feet
# further down.
_REGIONS = ((0,), (3,), (4,), (5,), (6,), (1,), (2,), (35,), (36,), (0, 1))
_REACH_DOWN = (2, 3, 4, 5, 6, 35, 36)
_REACH = 20  # pixels


def pair_features(
    schema: Schema, source: Mapping[str, Feature], target: Mapping[str, Feature]
) -> dict[str, Feature]:
    """Make the features of a record from those of its two people (`person_features`)."""
    height, width = schema.size
    features: dict[str, Feature] = {
        "image_format": [b"jpg"],  # always: readers recognise PNG by its content
        "image_height": np.array([height]),
        "image_width": np.array([width]),
        "shape": np.array([height * width * KEYPOINT_COUNT]),
        "label": np.array([1]),
        "real_data": np.array([1]),
    }
    for number, person in enumerate((source, target)):
        features |= {key.format(number): value for key, value in person.items()}
    return features


def person_features(
    schema: Schema, image_name: str, image: bytes, pose: np.ndarray, person: int
) -> dict[str, Feature]:
    """Make the features of one person; keys have {} where their number goes.

    Args:
        schema: of the records.
        image_name: file name.
        image: JPEG or PNG of `schema.size`.
        pose: [18, 2], (x, y) in pixels of the image, cut to whole ones; NaN = missing.
        person: number of the person.
    """
    pose = np.trunc(np.asarray(pose, np.float64))
    present = np.isfinite(pose).all(axis=1)
    points = np.zeros((KEYPOINT_COUNT, 3), np.float32)
    points[present] = np.column_stack([pose[present][:, ::-1], np.ones(present.sum())])
    camera = re.search(r"_c(\d+)s", image_name)
    boxes, visible = _part_boxes(schema, points)
    features: dict[str, Feature] = {
        "image_name_{}": [image_name.encode()],
        "image_raw_{}": [image],
        "id_{}": np.array([person]),
        "cam_{}": np.array([int(camera[1]) if camera else -1]),
        "pose_peaks_{}_rcv": points.ravel(),
        "pose_peaks_{}": _peak_map(schema, points).ravel(),
        # OpenPose's list of candidates: one for each key point, then its score, which the tables
        # do not know (the number of key points stands in), and their number.
        "pose_subs_{}": np.concatenate(
            [np.where(present, np.cumsum(present) - 1, -1), [present.sum()] * 2]
        ).astype(np.float32),
        "part_bbox_{}": boxes.ravel(),
        "part_vis_{}": visible,
    }
    for radius in schema.discs:
        indices = disc_positions(points, schema.size, radius)
        features[f"indices_r{radius}_{{}}"] = indices
        features[f"values_r{radius}_{{}}"] = np.ones(len(indices), np.float32)
    for key, radius in schema.masks.items():
        mask = disc_body_mask(pose, schema.size, radius)
        features[f"{key}_{{}}"] = mask.ravel().astype(np.uint8)
    if schema.has_region_masks:
        features["roi10_mask_{}"] = _region_masks(schema, boxes, visible).ravel()
    nothing = dict.fromkeys(schema.unknown_integers, np.zeros(0, np.int64))
    nothing |= dict.fromkeys(schema.unknown_floats, np.zeros(0, np.float32))
    nothing |= dict.fromkeys(schema.zero_maps, np.zeros(np.prod(schema.size), np.uint8))
    return features | {f"{key}_{{}}": value for key, value in nothing.items()}


def disc_positions(points: np.ndarray, size: tuple[int, int], radius: int) -> np.ndarray:
    """Positions of the discs' pixels inside the map, joint by joint, row by row: int64 [N].

    `points` is [18, 3] of row, column, visible.
    """
    height, width = size
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = dy**2 + dx**2 <= radius**2
    rows = points[:, 0, None].astype(np.int64) + dy[inside]
    columns = points[:, 1, None].astype(np.int64) + dx[inside]
    joints = np.broadcast_to(np.arange(len(points))[:, None], rows.shape)
    kept = (points[:, 2, None] > 0) & (rows >= 0) & (rows < height)
    kept &= (columns >= 0) & (columns < width)
    return ((rows * width + columns) * len(points) + joints)[kept]


def _peak_map(schema: Schema, points: np.ndarray) -> np.ndarray:
    """Map [H / cell, W / cell, 18]: 1 in the cell of each key point within the image."""
    height, width = (side // schema.peak_cell for side in schema.size)
    peaks = np.zeros((height, width, KEYPOINT_COUNT), np.float32)
    for joint, (row, column, visible) in enumerate(points):
        cell = int(row // schema.peak_cell), int(column // schema.peak_cell)
        if visible and 0 <= cell[0] < height and 0 <= cell[1] < width:
            peaks[*cell, joint] = 1
    return peaks


def _part_boxes(schema: Schema, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int64 [37, 4] (first row, first column, last row, last column), and which are there."""
    lifted = points[:, :2] - np.outer(np.arange(KEYPOINT_COUNT) == 0, (schema.nose_lift, 0))
    last = np.array(schema.size) - 1
    boxes, visible = [], []
    for part in _PARTS:
        present = lifted[[joint for joint in part if points[joint, 2]]]
        visible.append(len(present) > 0)
        if not len(present):
            boxes.append(_NO_BOX)
            continue
        margin = schema.margin if len(present) > 1 else schema.lone_margin
        first = np.maximum(present.min(axis=0) - margin, 0)
        boxes.append((*first, *np.minimum(present.max(axis=0) + margin, last)))
    return np.array(boxes).astype(np.int64), np.array(visible).astype(np.int64)


def _region_masks(schema: Schema, boxes: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Masks uint8 [H, W, 10]: 0 in the region's box, 1 around it."""
    boxes = boxes.copy()
    boxes[0, 0] = max(boxes[0, 0] - _REACH, 0)
    boxes[_REACH_DOWN, 2] = np.minimum(boxes[_REACH_DOWN, 2] + _REACH, schema.size[0] - 1)
    masks = np.ones((*schema.size, len(_REGIONS)), np.uint8)
    for number, parts in enumerate(_REGIONS):
        present = boxes[[part for part in parts if visible[part]]]
        if len(present):
            (top, left), (bottom, right) = present[:, :2].min(axis=0), present[:, 2:].max(axis=0)
            masks[top:bottom, left:right, number] = 0
    return masks


def stored_image(file_content: bytes, image: Image.Image) -> bytes:
    """Give the bytes to store of an image: the file's own where they are of the stored form.

    Args:
        file_content: of the image file.
        image: RGB, as the data set reads it, of the stored size.

    Returns:
        `file_content` when it is an RGB JPEG or PNG of that size that other readers show as it is
        (no orientation, no transparent colour); else `image` as PNG.
    """
    with open_image(io.BytesIO(file_content)) as opened:
        is_stored_form = opened.format in ("JPEG", "PNG") and opened.mode == "RGB"
        if is_stored_form and opened.size == image.size and is_plain(opened):
            return file_content
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
