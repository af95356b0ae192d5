"""Whether key points fit the frame that they are said to be in, and what frame would fit them.

A wrong frame shows in no single row: the programs run, and every pose is beside its person.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from util.errors import UserError

# (height, width) in pixels, or each image's own size.
Frame = tuple[int, int] | Literal["image"]

# Of the published annotations a few lie a little outside their frame (1 of 295, by 5 %).
# From this share of images on, or so far outside, it is a mistake: a wrong frame, or a wrong row.
_OUTSIDE_SHARE = 0.01
FAR_OUTSIDE = 1.25
# With so many it is the frame, and going on without those rows would scale the others wrongly.
# DeepFashion's key points in a frame of 256×256, taken for 256×176: 27 and 34 % of two samples.
_WRONG_FRAME_SHARE = 0.1
_WRONG_FRAME_COUNT = 5
# People that reach no further than this share of the frame, in so many images, are worth a notice.
_REACHED_SHARE = 0.8
_REACHED_COUNT = 100
# A frame seems right where people reach this far down and are this near to its middle, as shares
# of its height and width. Published tables: at least 0.98, and within 0.02 of it.
_REACHED_AT_LEAST = 0.65
_OFF_CENTRE = 0.12
_NORMALISED = 1.5  # pixels; all key points of a person within the first two are in [0, 1] instead
_SAME_ASPECT = 1.1
# Images in which no chance of poses makes another frame seem right; and enough that the arms of
# some would reach beyond what lies between the padding.
_FEW, _ENOUGH = 3, 40
_PADDING_LOOKED_AT = 20  # images
# Largest difference of colours in a row of padding, JPEG's noise; share of such rows; share of
# images. Of 327 photos of DeepFashion squeezed into squares, 8 % have such strips at their sides.
_PADDING_NOISE, _PADDING_ROWS, _PADDING_IMAGES = 12, 0.95, 0.9
_TRUST = "if all is right as it is, say so with --trust_keypoints"


@dataclass(frozen=True)
class ImageSize:
    """(height, width) of an image as it is read, and whether the stored one is turned for that."""

    size: tuple[int, int]
    turned: bool


def check_frame(
    poses: np.ndarray,
    frame: Frame,
    usual: tuple[int, int] | None,
    load_size: tuple[int, int] | None,
    sizes: list[ImageSize | None],
    read: Callable[[int], np.ndarray | None],
    places: list[str],
    path: Path,
    skip_bad_samples: bool,
    names_load_size: bool,
) -> tuple[dict[int, str], list[str]]:
    """Find the poses [N, K, 2] that do not fit the frame, and what the user should be told.

    Args:
        poses: (x, y) of the key points, NaN = missing.
        frame: that they are said to be in.
        usual: the frame of the data set's published tables, if any.
        load_size: (height, width) that images get; None: not looked at.
        sizes: of the first images, as many as were looked at; None = unreadable.
        read: gives an image by its position, uint8 [H, W, 3], or None where it is unreadable.
        places: of the annotations, for messages.
        path: of their table.
        skip_bad_samples: whether single bad poses are left out.
        names_load_size: whether the program has the option --load_size.

    Returns:
        By position: why a pose cannot be used. And notices.

    Raises:
        UserError: the frame, rather than single poses, seems to be wrong.
    """
    some = np.flatnonzero(np.isfinite(poses).any(axis=(1, 2)))
    if not len(some):
        return {}, []
    seen = np.array([k for k in some if k < len(sizes) and sizes[k] is not None], dtype=np.int64)
    images = _Images(
        poses[seen],
        np.array([sizes[k].size for k in seen], dtype=np.float64).reshape(-1, 2),
        any(sizes[k].turned for k in seen),
        usual,
    )
    _check_load_size(images, load_size, names_load_size)
    _check_repeated(poses[some], path)
    reasons = _check_normalised(poses, some, frame, places, path)
    rest = np.array([k for k in some if k not in reasons], dtype=np.int64)
    if frame == "image":
        rest = np.intersect1d(rest, seen)  # the others are checked when they are read
    if not len(rest):
        return reasons, []
    more, notices = _check_outside(
        poses, rest, frame, sizes, places, path, skip_bad_samples, images
    )
    if frame != "image":
        _check_padding(images, frame, seen[:_PADDING_LOOKED_AT].tolist(), read, path)
    return reasons | more, notices


def check_stored(
    poses: np.ndarray, size: tuple[int, int], load_size: tuple[int, int], places: Sequence[object]
) -> list[str]:
    """Look at poses that are stored with their images, in whose pixels they must be.

    Args:
        poses: [n, K, 2], (x, y) of the key points, NaN = missing; none without a key point.
        size: (height, width) of the stored images.
        load_size: (height, width) that they get.
        places: of the poses, for messages.

    Returns:
        What the user should be told.

    Raises:
        UserError: the key points are written otherwise.
    """
    images = _Images(poses, np.array([size], dtype=np.float64), False, None)
    _check_load_size(images, load_size, True)
    height, width = size
    named = f"the stored images of {height}×{width} (height×width)"
    first, last = np.nanmin(poses, axis=(0, 1)), np.nanmax(poses, axis=(0, 1))
    reach = "from x = {:g}, y = {:g} to x = {:g}, y = {:g}".format(*first, *last)
    largest = np.nanmax(poses, axis=1)
    outside = (largest > (width, height)).any(axis=1) | (np.nanmin(poses, axis=(1, 2)) < 0)
    shares = _are_shares(poses)
    without_zeros = np.where((poses == 0).all(axis=2, keepdims=True), np.nan, poses)
    problem = None
    if shares.sum() >= max(_WRONG_FRAME_SHARE * len(poses), 1):
        found, problem = shares, "lie in [0, 1], as shares of the image's width and height,"
    elif _seem_swapped(without_zeros) and (outside.any() or len(poses) >= _FEW):
        found = np.ones(len(poses), bool)
        problem = "seem to have row and column swapped, people lie on their side,"
    elif outside.sum() >= max(_WRONG_FRAME_SHARE * len(poses), min(_FEW, len(poses))):
        found = outside
        problem = f"reach {reach}, outside {named},"
    if problem:
        raise UserError(
            f"{places[found.argmax()]}: key points {problem} those of {found.sum()} of "
            f"{len(poses)} images looked at: write the records anew, from a table in pixels, with "
            f"script.convert_to_tfrecord; {_TRUST}"
        )
    if images.fits(size) or outside.any() or len(poses) < _FEW:
        return []
    return [
        f"{places[0]}: key points reach {reach} in {named}, of {len(poses)} looked at: are they in "
        "their pixels?"
    ]


@dataclass
class _Images:
    """The images whose sizes are known.

    Attributes:
        poses: [n, K, 2].
        sizes: [n, 2], (height, width).
        turned: whether some are stored lying on their side.
        usual: the data set's frame.
    """

    poses: np.ndarray
    sizes: np.ndarray
    turned: bool
    usual: tuple[int, int] | None

    @property
    def is_one_size(self) -> bool:
        return len(self.sizes) > 0 and bool((self.sizes == self.sizes[0]).all())

    @property
    def aspects(self) -> np.ndarray:
        """Height by width."""
        return self.sizes[:, 0] / self.sizes[:, 1]

    def better_frame(self, frame: Frame) -> str:
        """Advice that makes the key points fit, as far as the images show it; else nothing."""
        if not len(self.poses):
            return ""
        own: Frame = "image"
        if self.is_one_size:
            own = tuple(self.sizes[0].astype(int).tolist())
        fits = self.fits(frame)
        if own != frame and (not fits or self._many_are_smaller(frame)) and self.fits(own):
            text = own if own == "image" else f"{own[0]},{own[1]}"
            whose = "each image's own pixels" if own == "image" else "the pixels of the images"
            return f"they fit {whose}: --old_size {text}"
        if not fits and frame != "image":
            height, width = frame
            near = _ratio(self.aspects, width / height) < _SAME_ASPECT
            if height != width and near.all() and self.fits((width, height)):
                return f"its width and height are swapped: --old_size {width},{height}"
        if not fits and self.usual not in (None, frame) and self.fits(self.usual):
            height, width = self.usual
            return f"they fit the data set's usual frame: --old_size {height},{width}"
        return self._padded_frame(frame, own, fits)

    def _many_are_smaller(self, frame: Frame) -> bool:
        """Whether images are smaller than the frame, so that key points in it would leave them."""
        if frame == "image":
            return False
        smaller = (self.sizes * _SAME_ASPECT < frame).any(axis=1)
        return bool(smaller.sum() >= min(_FEW, len(smaller)))

    def _padded_frame(self, frame: Frame, own: Frame, fits: bool) -> str:
        """Advice where key points are those of the images padded to squares."""
        if own == "image" or own[0] == own[1] or len(self.poses) < _FEW:
            return ""
        side = max(own)
        if fits:  # in the square: then of an image that was padded to it, or squeezed into it
            if frame[0] != frame[1] or len(self.poses) < _ENOUGH:
                return ""
            own = tuple(round(length * frame[0] / side) for length in own)
            side = frame[0]
        offset = np.array([side - own[1], side - own[0]]) / 2  # x, y
        resized = f"--old_size {side},{side}"
        if not _fits(self.poses - offset, np.array([own], dtype=np.float64)):
            outside = (np.nanmax(self.poses, axis=1) > own[::-1]).any(axis=1)
            if fits or outside.mean() <= _OUTSIDE_SHARE or not self.fits((side, side)):
                return ""
            return f"they fit images resized to {side}×{side}: {resized}"
        axis = 0 if offset[0] else 1
        padded = (
            f"subtract {offset[axis]:g} from every {'xy'[axis]} and say --old_size "
            f"{own[0]},{own[1]}"
        )
        if not fits and len(self.poses) < _ENOUGH:
            return (
                f"they fit {side}×{side}: if the images were resized to it, say {resized}; if "
                f"they were padded to it, {padded}"
            )
        return f"they fit the images padded to {side}×{side}: {padded}"

    def fill_more_than(self, frame: tuple[int, int]) -> int | None:
        """Axis (0 down, 1 across) in which all images are longer than the frame's shape."""
        ratio = self.aspects / (frame[0] / frame[1])
        if not len(ratio) or frame == (1, 1):
            return None
        if (ratio < 1 / _SAME_ASPECT).all():
            return 1
        return 0 if (ratio > _SAME_ASPECT).all() else None

    def fits(self, frame: Frame) -> bool:
        """Whether the frame seems right."""
        frames = self.sizes if frame == "image" else np.array([frame], dtype=np.float64)
        return _fits(self.poses, frames)


def _fits(poses: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether poses [n, K, 2] lie in frames [n or 1, 2], far down and in the middle."""
    shares = poses / sizes[:, None, ::-1]
    outside = (np.nanmax(shares, axis=(1, 2)) > 1) | (np.nanmin(shares, axis=(1, 2)) < 0)
    middle = np.nanmean((np.nanmin(shares[..., 0], axis=1) + np.nanmax(shares[..., 0], axis=1)) / 2)
    return (
        outside.sum() <= _OUTSIDE_SHARE * len(poses)
        and bool(np.nanmax(shares[..., 1]) >= _REACHED_AT_LEAST)
        and abs(middle - 0.5) <= _OFF_CENTRE
    )


def _ratio(first: np.ndarray, second: float) -> np.ndarray:
    return np.maximum(first / second, second / first)


def _check_load_size(images: _Images, load_size: tuple[int, int] | None, has_option: bool) -> None:
    """Raise UserError where the images have the shape of a load size with its numbers swapped."""
    if load_size is None or not len(images.sizes):
        return
    height, width = load_size
    turned = _ratio(images.aspects, width / height) < _SAME_ASPECT
    if turned.all() and _ratio(np.array([height / width]), width / height)[0] > _SAME_ASPECT**2:
        first = "×".join(str(int(side)) for side in images.sizes[0])
        fix = f"name --load_size {width},{height}, or " if has_option else ""
        raise UserError(
            f"images are {first} (height×width), and would be squeezed to {height}×{width}: "
            f"{fix}turn images that lie on their side; {_TRUST}"
        )


def _check_repeated(poses: np.ndarray, path: Path) -> None:
    """Raise UserError where several poses [n, K, 2] have more than one key point at the same place.

    Of 583 published poses one has two at a place; a lost joint of (0, 0) that was moved with the
    others, or counted from 1, is at such a place in many.
    """
    places = np.sort(poses[..., 0] + 1j * poses[..., 1], axis=1)  # NaN last, and equal to none
    repeated = places[:, 1:][places[:, 1:] == places[:, :-1]]
    repeated = repeated[repeated != 0]  # of which --missing tells
    if not len(repeated):
        return
    values, counts = np.unique(repeated, return_counts=True)
    place = values[counts.argmax()]
    at = (poses == (place.real, place.imag)).all(axis=2)
    found = (at.sum(axis=1) > 1).sum()
    if found >= max(_FEW, _OUTSIDE_SHARE * len(poses)):
        raise UserError(
            f"{path}: {at.sum()} key points are at x = {place.real:g}, y = {place.imag:g}, more "
            f"than one in {found} of {len(poses)} images, as a program may write missing ones: "
            f"write -1 for those; {_TRUST}"
        )


def _check_normalised(
    poses: np.ndarray, some: np.ndarray, frame: Frame, places: list[str], path: Path
) -> dict[int, str]:
    """Find poses whose key points are shares of the image's sides instead of pixels.

    Args:
        poses: [N, K, 2].
        some: positions of those that have key points.
        frame: that they are said to be in.
        places: of the annotations, for messages.
        path: of their table.

    Returns:
        By position: what is wrong.

    Raises:
        UserError: many are.
    """
    if frame == (1, 1):
        return {}
    found = some[_are_shares(poses[some])].tolist()
    text = "key points lie in [0, 1], as shares of the image's width and height"
    if len(found) >= max(_WRONG_FRAME_SHARE * len(some), 1):
        if len(found) == len(some):
            fix = "take them as such with --old_size 1,1"
        else:
            fix = "write all in pixels, or all as shares (--old_size 1,1)"
        raise UserError(
            f"{path}: {text}, those of {len(found)} of {len(some)} images, such as "
            f"{_row_and_name(places[found[0]])}; {fix}"
        )
    return {k: f"{places[k]}: {text}, unlike others; write them in pixels" for k in found}


def _are_shares(poses: np.ndarray) -> np.ndarray:
    """Which of the poses [n, K, 2] have all of several key points in [0, 1]."""
    several = np.isfinite(poses).all(axis=2).sum(axis=1) > 1
    return (np.nanmax(poses, axis=(1, 2)) <= _NORMALISED) & several


def _check_outside(
    poses: np.ndarray,
    rest: np.ndarray,
    frame: Frame,
    sizes: list[ImageSize | None],
    places: list[str],
    path: Path,
    skip_bad_samples: bool,
    images: _Images,
) -> tuple[dict[int, str], list[str]]:
    if frame == "image":
        frames = np.array([sizes[k].size for k in rest], dtype=np.float64)
        named = "the images' own sizes (--old_size image)"
    else:
        frames = np.array([frame], dtype=np.float64)
        named = f"the frame of {frame[0]}×{frame[1]} (height×width) set by --old_size"
    reach = np.nanmax(poses[rest] / frames[:, None, ::-1], axis=1)  # [n, 2]; 1 = the last edge
    outside = (reach > 1).any(axis=1)
    x, y = np.nanmax(poses[rest], axis=(0, 1))
    many = outside.sum() > _OUTSIDE_SHARE * len(rest)
    notices = []
    if _seem_swapped(poses[rest]):
        if images.turned:
            text = (
                f"{path}: key points seem to be those of the images as they are stored, before "
                "their EXIF orientation is applied: turn the key points, or save the images "
                "without the orientation"
            )
        else:
            text = (
                f"{path}: x and y seem to be swapped: people lie on their side with the head to "
                "the left; name the columns as they are, name:keypoints_x:keypoints_y, in the "
                f"header{'' if outside.any() else ' (or turn images that lie so)'}"
            )
        if outside.any() or len(rest) >= _FEW:
            raise UserError(f"{text}; {_TRUST}")
        notices.append(text)
    advice = images.better_frame(frame)
    guess = ""
    if not many and len(images.poses) < _FEW:
        guess, advice = advice, ""
    certain = outside.sum() >= max(_WRONG_FRAME_SHARE * len(rest), _WRONG_FRAME_COUNT)
    certain |= bool(advice)
    if many and (certain or not skip_bad_samples):
        raise UserError(
            f"{path}: key points reach x = {x:g}, y = {y:g}, outside {named}, those of "
            f"{outside.sum()} of {len(rest)} images, such as "
            f"{_row_and_name(places[rest[outside][0]])}; "
            + (advice or "name the frame they were made in with --old_size height,width")
            + ("" if certain else ", mend such rows, or leave them out with --skip_bad_samples")
        )
    if advice:
        raise UserError(
            f"{path}: key points reach x = {x:g}, y = {y:g}, and do not fit {named}; {advice}; "
            f"{_TRUST}"
        )
    if guess and not notices:
        notices.append(
            f"{path}: key points reach x = {x:g}, y = {y:g}: are they in {named}? If not, {guess}"
        )
    reaches_little = not outside.any() and (reach.max(axis=0) < _REACHED_SHARE).any()
    corner = not notices and (reach.max(axis=0) < _REACHED_AT_LEAST).all()
    if corner or (reaches_little and len(rest) >= _REACHED_COUNT):
        notices.append(
            f"{path}: key points reach only x = {x:g}, y = {y:g} in {named}: is that the frame "
            "they were made in?"
        )
    is_bad = outside if many else (reach > FAR_OUTSIDE).any(axis=1)
    reasons = {}
    for k in rest[is_bad].tolist():
        reach_x, reach_y = np.nanmax(poses[k], axis=0)
        reasons[k] = (
            f"{places[k]}: key points reach x = {reach_x:g}, y = {reach_y:g}, outside {named}"
        )
    kept = rest[outside & ~is_bad].tolist()
    if kept:
        notices.append(
            f"key points of {len(kept)} images lie a little outside {named}; kept, the first: "
            f"{places[kept[0]]}"
        )
    return reasons, notices


def _check_padding(
    images: _Images, frame: tuple[int, int], seen: Sequence[int], read: Callable, path: Path
) -> None:
    """Raise UserError where images are padded, but the frame has the shape of what is between."""
    axis = images.fill_more_than(frame)
    if axis is None or len(seen) < _FEW:
        return
    padded = [_is_padded(pixels, frame, axis) for pixels in map(read, seen) if pixels is not None]
    if len(padded) < _FEW or np.mean(padded) < _PADDING_IMAGES:
        return
    height, width = frame
    fix = "cut it off"
    if images.is_one_size and images.sizes[0][1 - axis] == frame[1 - axis]:  # the same scale
        size = images.sizes[0].astype(int)
        added = (size - frame)[axis] / 2
        fix += f", or add {added:g} to every {'yx'[axis]} and say --old_size {size[0]},{size[1]}"
    raise UserError(
        f"{path}: key points are said to be in a frame of {height}×{width} (height×width), but "
        f"images are padded {'left and right' if axis else 'above and below'}, and would be "
        f"squeezed together with their padding: {fix}; {_TRUST}"
    )


def _is_padded(pixels: np.ndarray, frame: tuple[int, int], axis: int) -> bool:
    """Whether what lies outside the frame's shape in the middle of an image is all of one colour.

    Row by row, or column by column, as some repeat the edge.
    """
    along = (pixels if axis else pixels.swapaxes(0, 1)).astype(np.int16)
    height, width = frame if axis else frame[::-1]
    strip = int((along.shape[1] - along.shape[0] * width / height) / 2) - 2  # off the edge's blur
    if strip < 2:
        return False
    ends = along[:, :strip], along[:, -strip:]
    flat = [np.ptp(end, axis=1).max(axis=1) <= _PADDING_NOISE for end in ends]
    return bool((flat[0] & flat[1]).mean() >= _PADDING_ROWS)


def _seem_swapped(poses: np.ndarray) -> bool:
    """Whether nearly all people have their nose (key point 0 of all orders) left of their body."""
    with_nose = poses[np.isfinite(poses[:, 0]).all(axis=1)]
    if not len(with_nose):
        return False
    x, y = (np.nanmean(with_nose, axis=1) - with_nose[:, 0]).T
    return bool((x > np.abs(y)).mean() > 0.8)


def _row_and_name(place: str) -> str:
    return place[place.rindex(", row ") + 2 :]
