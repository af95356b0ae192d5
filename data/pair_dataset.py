"""The data set of image pairs of one person; the subclasses say only what differs."""

import argparse
import filecmp
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from data.annotations import PAIR_COLUMNS, read_pair_table
from data.augmentation import (
    Augmentation,
    affine_matrix,
    draw_augmentation,
    transform_points,
    warp_image,
    weaken_for_target,
)
from data.body_mask import KEYPOINT_COUNTS, disc_body_mask
from data.flow import FlowFolder
from data.frame_check import FAR_OUTSIDE, Frame
from data.pose_maps import DISC_RADIUS, POSE_ENCODINGS
from data.tables import read_rows
from util.argument_types import LARGEST_SIDE, frame, positive_int, real_number, scale_range, size
from util.device import cpu_cores
from util.errors import UserError
from util.images import read_image, read_image_size, resize_image, to_tensor
from util.pair_names import check_unique, pair_name

_COMPARED = 20  # images, with those of the same name in the training folder


class PairDataset(Dataset):
    """Pairs of images of one person in two poses.

    Files: `<dataroot>/<phase>/` (images), `<dataroot>/<prefix>-pairs-<phase>.csv` (`from,to`),
    `<dataroot>/<prefix>-annotation-<phase>.csv` (`name:keypoints_y:keypoints_x`).

    An item is a dictionary: `P1`, `P2` source and target image, float32 [3, H, W] in [-1, 1];
    `BP1`, `BP2` their pose maps, float32 [18, H, W]; `P1_path`, `P2_path`; `pose1`, `pose2`
    float32 [18, 2], (x, y) in pixels at load size after augmentation, NaN = missing. When
    `<dataroot>/flow` exists and the phase is "test" also `flow` [2, H, W] and `visible` [H, W]
    (see data/flow.py); with `pose_mask` also `mask2`, float32 [1, H, W], 1 on the target's body
    (see data/body_mask.py), else 0.

    Keys are an index (of epoch 0) or (epoch, index), which training uses. The augmentation of an
    item depends on (seed, epoch, index) alone, so neither workers nor order change it.

    Args:
        dataroot: folder of the data set.
        phase: "train", "test" or another name for which files exist.
        load_size: (height, width) every image is resized to; None = the class's default.
        old_size: (height, width) of the frame that key points refer to, or "image": each image's
            own size; None = default.
        missing: 0: key points at (0, 0) are missing, -1: they are there; None: refused.
        trust_keypoints: no look at how key points fit the frame and the images' sizes.
        augmentation: ranges of the random affine transform; the default draws nothing.
        keypoint_count: key points of a pose.
        pose_encoding: form of the pose maps, a name of POSE_ENCODINGS.
        pose_mask: give `mask2`, which only some models train with.
        fast_decode: shrink large JPEGs while decoding them (see read_image), and resize with less
            care for rounding (see resize_image); other pixels.
        max_dataset_size: use only the first so many pairs; None = all.
        skip_bad_samples: go on without bad rows and unreadable images, instead of raising. In the
            place of an unreadable pair training gets the next good one, an index gives None
            (which PairLoader leaves out).
        has_network_options: whether the program has --load_size and --structure_nc, for messages.
        seed: of the augmentation.

    Raises:
        UserError: naming the file and row that are missing or bad, when made or when read.
    """

    file_prefixes: ClassVar[tuple[str, ...]]
    default_load_size: ClassVar[tuple[int, int]]
    default_old_size: ClassVar[tuple[int, int]]

    def __init__(
        self,
        dataroot: str | Path,
        phase: str,
        *,
        load_size: tuple[int, int] | None = None,
        old_size: Frame | None = None,
        missing: int | None = None,
        trust_keypoints: bool = False,
        augmentation: Augmentation | None = None,
        keypoint_count: int = 18,
        pose_encoding: str = "gaussian",
        pose_mask: bool = False,
        fast_decode: bool = False,
        max_dataset_size: int | None = None,
        skip_bad_samples: bool = False,
        has_network_options: bool = True,
        seed: int = 0,
    ) -> None:
        self.phase = phase
        self.load_size = load_size or self.default_load_size
        self.old_size = old_size or self.default_old_size
        self.missing = missing
        self.trust_keypoints = trust_keypoints
        self.augmentation = augmentation or Augmentation()
        self.draw_pose = POSE_ENCODINGS[pose_encoding]
        self.pose_mask = pose_mask
        self.fast_decode = fast_decode
        self.skip_bad_samples = skip_bad_samples
        self.has_network_options = has_network_options
        self.seed = seed
        if pose_mask and keypoint_count not in KEYPOINT_COUNTS:
            raise UserError(
                f"--structure_nc={keypoint_count}: this model trains with a mask of the body, "
                f"whose limbs are known for {' or '.join(map(str, KEYPOINT_COUNTS))} key points"
            )

        root = Path(dataroot)
        if not root.is_dir():
            raise UserError(f"--dataroot {root}: there is no such folder; see dataset/README.md")
        self._open(root, keypoint_count, max_dataset_size)

        flow_folder = root / "flow"
        has_flow = phase == "test" and not self.augmentation.active and flow_folder.is_dir()
        self._flow = FlowFolder(flow_folder, self.load_size) if has_flow else None
        if has_flow:  # its files are known by the pairs' names
            check_unique(map(self.pair_paths, range(len(self))), self.pairs_path)
        # Shared memory, so that worker processes count too; each in its own slot, without a lock.
        slots = cpu_cores() + 1
        self._skipped_reads = torch.zeros(slots, dtype=torch.int64).share_memory_()
        self._told: set[str] = set()
        self._rng = np.random.RandomState()

    def _open(self, root: Path, keypoint_count: int, max_dataset_size: int | None) -> None:
        """Find the files of the phase and read what is read once.

        A subclass with other files replaces this, `read_people` and `pair_paths`. To be set here:
        `_pairs`, whose length counts; `pairs_path`, for messages; `notices`; `bad_rows`.
        """
        self.image_folder = root / self.phase
        if not self.image_folder.is_dir():
            raise UserError(
                f"{self.image_folder}: the image folder of phase '{self.phase}' is missing; "
                "see dataset/README.md for the layout"
            )
        self.pairs_path = self._find_table(root, "pairs")
        self.annotation_path = self._find_table(root, "annotation")
        table = read_pair_table(
            self.pairs_path,
            self.annotation_path,
            self.image_folder,
            frame=self.old_size,
            usual_frame=self.default_old_size,
            load_size=self.load_size,
            keypoint_count=keypoint_count,
            missing=self.missing,
            trust=self.trust_keypoints,
            skip_bad_samples=self.skip_bad_samples,
            has_network_options=self.has_network_options,
        )
        self.notices = table.notices
        if seen := self._seen_in_training(root, table.files):
            self.notices.append(seen)
        self.bad_rows = table.bad
        self._files = table.files
        self._poses = table.poses
        self._pairs = table.pairs[:max_dataset_size]
        self._rows = table.rows[:max_dataset_size]

    @classmethod
    def add_options(
        cls, parser: argparse.ArgumentParser, is_train: bool
    ) -> argparse.ArgumentParser:
        """Add the data set's options, with its own defaults, to the parser and return it."""
        group = parser.add_argument_group("images and poses")
        group.add_argument(
            "--load_size",
            type=size,
            default=cls.default_load_size,
            help="height,width of the network's images in pixels; one number is a square",
        )
        add_keypoint_options(group, cls.default_old_size)
        group.add_argument(
            "--structure_nc",
            type=positive_int,
            default=18,
            help="key points of a pose; 18: nose, neck, right shoulder, elbow, wrist, left "
            "shoulder, elbow, wrist, right hip, knee, ankle, left hip, knee, ankle, right eye, "
            "left eye, right ear, left ear (the person's left); 25: OpenPose's BODY_25; other "
            "numbers are drawn without limbs",
        )
        group.add_argument("--image_nc", type=positive_int, default=3, help="channels of an image")
        group.add_argument(
            "--pose_encoding",
            choices=tuple(POSE_ENCODINGS),
            default="gaussian",
            help="key points as Gaussians of sigma 6 pixels in [0, 1], "
            f"or as discs of radius {DISC_RADIUS} in {{-1, 1}}",
        )
        group.add_argument(
            "--angle",
            type=real_number(0, 360),
            default=0.0,
            help="training: rotate by up to ± so many degrees; 0 = off",
        )
        group.add_argument(
            "--shift",
            type=real_number(0, LARGEST_SIDE),
            default=0.0,
            help="training: shift by up to ± so many pixels; 0 = off",
        )
        group.add_argument(
            "--scale",
            type=scale_range,
            default=(1.0, 1.0),
            help="training: scale by a factor within low,high; 1 = off",
        )
        group.add_argument(
            "--fast_decode",
            action="store_true",
            help="training: JPEGs of twice the load size or more are shrunk while being decoded, "
            "and all images resized with less care for rounding: about half the time of an image, "
            "and slightly other pixels; test pairs are always read exactly",
        )
        group.add_argument(
            "--max_dataset_size",
            type=positive_int,
            default=None,
            help="use only the first so many pairs",
        )
        group.add_argument(
            "--skip_bad_samples",
            action="store_true",
            help="go on without rows and images that are bad, instead of stopping",
        )
        return parser

    @classmethod
    def option_defaults(cls, given: argparse.Namespace, is_train: bool) -> dict[str, Any]:
        """Defaults that depend on the options given, such as the size of the stored images.

        Args:
            given: the options as read with the defaults that their own parts gave them.
            is_train: whether the program trains.
        """
        return {}

    @classmethod
    def from_options(
        cls,
        options: argparse.Namespace,
        phase: str | None = None,
        augment: bool | None = None,
        pose_mask: bool = False,
    ) -> "PairDataset":
        """Make the data set that options ask for; `pose_mask` as in the class.

        `phase` None means options.phase. Unless `augment` says otherwise, items are augmented in
        training when the phase is options.phase, and never for evaluation.
        """
        phase = phase or options.phase
        is_train = options.is_train
        augmentation = Augmentation(options.angle, options.shift, tuple(options.scale))
        if augmentation.active and not is_train:
            raise UserError("--angle, --shift, --scale: are for training only; leave them out")
        if options.shift > 0 and options.shift >= min(options.load_size):
            raise UserError(
                f"--shift {options.shift:g}: moves people out of the picture, whose shorter side "
                f"has {min(options.load_size)} pixels; give less"
            )
        if options.fast_decode and not is_train:
            raise UserError("--fast_decode: is for training only; leave it out")
        if options.image_nc != 3:
            raise UserError(f"--image_nc {options.image_nc}: images are read as RGB; it must be 3")
        if augment is None:
            augment = is_train and phase == options.phase
        return cls(
            options.dataroot,
            phase,
            load_size=options.load_size,
            old_size=options.old_size,
            missing=options.missing,
            trust_keypoints=options.trust_keypoints,
            augmentation=augmentation if augment else Augmentation(),
            keypoint_count=options.structure_nc,
            pose_encoding=options.pose_encoding,
            pose_mask=pose_mask,
            fast_decode=options.fast_decode and augment,
            max_dataset_size=options.max_dataset_size,
            skip_bad_samples=options.skip_bad_samples,
            seed=options.seed,
        )

    @property
    def skipped_reads(self) -> int:
        """Reads skipped so far because an image could not be read (--skip_bad_samples)."""
        return int(self._skipped_reads.sum())

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any] | None:
        parts = self._parts(key)
        return None if parts is None else self.complete(parts)

    def __getitems__(self, keys: Iterable[int | tuple[int, int]]) -> list[dict[str, Any] | None]:
        """The parts of items, which `complete` makes items of: what torch's DataLoader asks for.

        They are a tenth of the size, which counts between processes: `P1`, `P2` as uint8
        [H, W, 3], `mask2` as bool, no `BP1`, `BP2`.
        """
        return [self._parts(key) for key in keys]

    def complete(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Make an item of its parts, or a batch of a batch of them, on the device they are on.

        The values of a batch are those of its items to the last bit.
        """
        item = dict(parts)
        for number in (1, 2):
            item[f"P{number}"] = to_tensor(item[f"P{number}"])
            item[f"BP{number}"] = self.draw_pose(item[f"pose{number}"], self.load_size)
        if "mask2" in item:
            item["mask2"] = item["mask2"].to(torch.float32)
        return item

    def _parts(self, key: int | tuple[int, int]) -> dict[str, Any] | None:
        is_training_key = isinstance(key, tuple)
        epoch, index = key if is_training_key else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return self._load_or_skip(epoch, index, is_training_key)

    def _slot(self) -> int:
        """Number of this process among those that read."""
        worker = get_worker_info()
        return 0 if worker is None else (worker.id + 1) % len(self._skipped_reads)

    def _load_or_skip(self, epoch: int, index: int, is_training_key: bool) -> dict[str, Any] | None:
        if not self.skip_bad_samples:
            return self._load(epoch, index)
        # Training needs a full batch, so the next good pair serves; a test pair is left out.
        for offset in range(len(self) if is_training_key else 1):
            try:
                return self._load(epoch, (index + offset) % len(self))
            except UserError as error:
                self._note_skipped(error)
        if is_training_key:
            raise UserError(f"{self.pairs_path}: no pair has images that can be read")
        return None

    def _note_skipped(self, error: UserError) -> None:
        self._skipped_reads[self._slot()] += 1
        if str(error) not in self._told:
            self._told.add(str(error))
            print(f"skipped: {error}", file=sys.stderr, flush=True)

    def unusable(self, problem: object) -> UserError:
        """The error of a pair that cannot be used, with the way out if it is not taken already."""
        way_out = "" if self.skip_bad_samples else ", or go on without it with --skip_bad_samples"
        return UserError(f"{problem}{way_out}")

    def pair_paths(self, index: int) -> tuple[str, str]:
        """Paths of item `index`, source and target, without reading the images."""
        source, target = (str(self.image_folder / self._files[k]) for k in self._pairs[index])
        return source, target

    def input_digest(self, index: int) -> str:
        """What changes with the images' files (their sizes) and the key points of item `index`."""
        digest = hashlib.sha256()
        for position in self._pairs[index]:
            path = self.image_folder / self._files[position]
            size = path.stat().st_size if path.exists() else None
            digest.update(f"{size} ".encode() + self._poses[position].tobytes())
        return digest.hexdigest()[:16]

    def item_random_state(self, epoch: int, index: int) -> np.random.RandomState:
        """The random state of one item's augmentation; the next call takes it back."""
        low, high = self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF
        self._rng.seed([low, high, epoch & 0xFFFFFFFF, index])  # a tenth of making a new one
        return self._rng

    def load_pair(self, index: int, rng: np.random.RandomState) -> dict[str, Any]:
        """Load item `index`, drawing its augmentation, if any, from `rng`."""
        return self.complete(self._load_parts(index, rng))

    def _load_parts(self, index: int, rng: np.random.RandomState) -> dict[str, Any]:
        item: dict[str, Any] = {}
        drawn = [None, None]
        if self.augmentation.active:
            drawn[0] = draw_augmentation(rng, self.augmentation)
            drawn[1] = weaken_for_target(draw_augmentation(rng, self.augmentation))
        people = self.read_people(index)
        for number, (path, image, pose), parameters in zip((1, 2), people, drawn, strict=True):
            if parameters is not None:
                matrix = affine_matrix(parameters, self.load_size)
                image = warp_image(image, matrix)
                pose = transform_points(pose, matrix)
            if self.pose_mask and number == 2:
                mask = disc_body_mask(pose, self.load_size, DISC_RADIUS)
                item["mask2"] = torch.from_numpy(mask)[None]
            item[f"P{number}"] = torch.from_numpy(np.array(image))
            item[f"P{number}_path"] = path
            item[f"pose{number}"] = torch.from_numpy(_to_float32(pose))
        if self._flow is not None:
            pair = pair_name(item["P1_path"], item["P2_path"])
            item["flow"], item["visible"] = self._flow.read(pair)
        return item

    def _load(self, epoch: int, index: int) -> dict[str, Any]:
        return self._load_parts(index, self.item_random_state(epoch, index))

    def read_people(self, index: int) -> list[tuple[str, Image.Image, np.ndarray]]:
        """Read source and target of pair `index` as they are before augmentation.

        Returns:
            For each: path; image of load size; float64 [K, 2], key points (x, y) in its pixels.
        """
        people = []
        for position in self._pairs[index]:
            path = self.image_folder / self._files[position]
            image, frame = self._read(path, index)
            pose = self._poses[position] * self.load_size[::-1] / frame[::-1]
            # Those of the first images were looked at when the data set was made.
            far = self.old_size == "image" and np.nanmax(pose / self.load_size[::-1]) > FAR_OUTSIDE
            if far and not self.trust_keypoints:
                raise self.unusable(
                    f"{self.annotation_path}: key points of {path.name} reach far beyond the image "
                    f"(--old_size image); row {self._rows[index]} of {self.pairs_path} needs it: "
                    "mend it"
                )
            people.append((str(path), image, pose))
        return people

    def _read(self, path: Path, index: int) -> tuple[Image.Image, tuple[int, int]]:
        """The image at load size, and the (height, width) that its key points refer to."""
        try:
            at_least = self.load_size if self.fast_decode else None
            image = read_image(path, at_least)
            frame = self.old_size
            if frame == "image":  # with `at_least`, the image may be shrunk already
                frame = image.size[::-1] if at_least is None else read_image_size(path)[0]
            return resize_image(image, self.load_size, exact=not self.fast_decode), frame
        except UserError as error:
            raise self.unusable(
                f"{error}; row {self._rows[index]} of {self.pairs_path} needs it: replace the file"
            ) from None

    def _seen_in_training(self, root: Path, files: list[str]) -> str:
        """Say that images of a phase other than training are in the training pairs, if so."""
        if self.phase == "train":
            return ""
        try:
            path = self._find_table(root, "pairs", "train")
            rows = [values for _, values in read_rows(path, PAIR_COLUMNS, ",")]
        except UserError:  # there is none; else it is told in training
            return ""
        trained = {name for values in rows if not isinstance(values, str) for name in values}
        shared = [name for name in files if name in trained]
        for name in shared[:_COMPARED]:  # the two folders may call different images by one name
            other = root / "train" / name
            if other.is_file() and filecmp.cmp(other, self.image_folder / name, shallow=False):
                return (
                    f"{len(shared)} of the {len(files)} images of {self.pairs_path} are in {path}, "
                    f"too, such as {name}: figures are better on people seen in training"
                )
        return ""

    def _find_table(self, root: Path, kind: str, phase: str | None = None) -> Path:
        phase = phase or self.phase
        names = [f"{prefix}-{kind}-{phase}.csv" for prefix in self.file_prefixes]
        found = [root / name for name in names if (root / name).exists()]
        if not found:
            others = ", ".join(sorted(path.name for path in root.glob("*.csv"))) or "none"
            raise UserError(
                f"{root / names[0]}: there is no such file"
                + "".join(f" (nor {name})" for name in names[1:])
                + f"; tables there: {others}"
            )
        for other in found[1:]:
            if not filecmp.cmp(found[0], other, shallow=False):
                raise UserError(f"{found[0]} and {other} differ; keep the one that is meant")
        return found[0]


def add_keypoint_options(group: argparse._ActionsContainer, old_size: Frame | None) -> None:
    """Add the options that say how key points are written; `old_size` is a default."""
    group.add_argument(
        "--old_size",
        type=frame,
        default=old_size,
        help="height,width of the frame that annotated key points refer to; image: each image's "
        "own pixels; 1: shares of its width and height",
    )
    group.add_argument(
        "--missing",
        type=int,
        choices=(0, -1),
        help="0: key points at (0, 0) are missing, -1: they are there; if not given, a table with "
        "such key points is refused",
    )
    group.add_argument(
        "--trust_keypoints",
        action="store_true",
        help="leave out the check that key points fit --old_size and the images' sizes",
    )


def _to_float32(pose: np.ndarray) -> np.ndarray:
    """Round to float32, never up to the next whole number: pose maps use the whole part."""
    rounded = pose.astype(np.float32)
    return np.where(
        np.trunc(rounded) == np.trunc(pose), rounded, np.nextafter(rounded, np.float32(0))
    )
