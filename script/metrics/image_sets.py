"""What the Inception networks say of a set of images, and its cache for the real set."""

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.image_names import list_images
from script.metrics.frechet import FeatureStatistics
from util.device import cpu_cores
from util.errors import UserError
from util.files import real_path, written_whole
from util.images import read_image
from util.json_files import parse_json
from util.npz_files import read_arrays

FEATURES = 2048
CACHE_VERSION = 1

Network = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]


def in_batches_of_one_size(
    network: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    device: torch.device,
    *pictures: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Run a network over pictures of whatever sizes; outputs are in the pictures' order.

    Args:
        network: takes one tensor per entry of `pictures`, [B, 3, H, W] (or [B, H, W] for masks);
            gives [B, ...] or several of them.
        device: where the network is.
        *pictures: lists of equal length, [H, W, 3] (or [H, W]).

    Returns:
        One array [N, ...] per output.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, picture in enumerate(pictures[0]):
        by_shape.setdefault(picture.shape, []).append(position)
    outputs: list[np.ndarray] = []
    for positions in by_shape.values():
        tensors = []
        for group in pictures:
            batch = torch.from_numpy(np.stack([group[position] for position in positions]))
            tensors.append((batch.movedim(3, 1) if batch.ndim == 4 else batch).to(device))
        result = network(*tensors)
        parts = [result] if isinstance(result, torch.Tensor) else list(result)
        arrays = [part.cpu().numpy() for part in parts]
        if not outputs:
            shape = len(pictures[0])
            outputs = [np.empty((shape, *array.shape[1:]), array.dtype) for array in arrays]
        for output, array in zip(outputs, arrays, strict=True):
            output[positions] = array
    return outputs


@dataclass
class SetFeatures:
    """What a network says of one set of pictures.

    Args:
        network: a StandardInception, which gives features and logits, or an ImageNetInception.
        device: where it is.
        keep: whose rows to keep: "features" (KID), "logits" (Inception score). Of a set of 48 674
            pictures features are 0.4 GB, logits 0.2 GB.
    """

    network: Network
    device: torch.device
    keep: frozenset[str] = frozenset()
    statistics: FeatureStatistics = field(default_factory=FeatureStatistics)
    _rows: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, pictures: Sequence[np.ndarray]) -> None:
        """Take pictures, uint8 [H, W, 3]."""
        outputs = in_batches_of_one_size(self.network, self.device, pictures)
        self.statistics.add(outputs[0])
        for name, rows in zip(("features", "logits"), outputs, strict=False):
            if name in self.keep:
                self._rows.setdefault(name, []).append(rows)

    def rows(self, name: str) -> np.ndarray:
        """The rows kept of "features" or "logits", in the order added: float32 [N, columns]."""
        return np.concatenate(self._rows[name])


class _Pictures(Dataset):
    """Item: the picture uint8 [H, W, 3], or the message why it cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray | str:
        try:
            return np.array(read_image(self._paths[index]))
        except UserError as error:
            return str(error)


def in_order(dataset: Dataset, batch_size: int, workers: int) -> DataLoader:
    """Lists of items, decoded by worker processes and handed over in the dataset's order."""
    return DataLoader(
        dataset, batch_size=batch_size, num_workers=min(workers, cpu_cores()), collate_fn=list
    )


@dataclass
class RealSet:
    """The real images of FID and KID.

    Attributes:
        count: images that were read; None where a file of statistics does not tell.
        description: folder, count, formats and sizes, for the protocol column.
        unreadable: a message per image that was not.
        moments: (mean, covariance) by network name.
        features: float32 [N, 2048] of the standard network, for KID.
    """

    count: int | None
    description: str
    unreadable: list[str]
    moments: dict[str, tuple[np.ndarray, np.ndarray]]
    features: np.ndarray | None


@dataclass(frozen=True)
class RealNetwork:
    """One network over the real set: its name, protocol text (part of the cache's key), itself."""

    name: str
    protocol: str
    network: Network


def describe_files(names: Iterable[str], sizes: Iterable[str], read: int) -> str:
    """Count, formats and sizes of pictures in words: `138 images, jpg, 128x64`.

    Args:
        names: of all files.
        sizes: of the pictures that could be read.
        read: how many those are.
    """
    names = list(names)
    count = f"{read} of {len(names)}" if read < len(names) else f"{read}"
    formats = sorted({Path(name).suffix.lower().lstrip(".") for name in names})
    sizes = sorted(set(sizes))
    shown = ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else "")
    return f"{count} images, {'/'.join(formats)}, {shown} (height x width)"


def size_text(picture: np.ndarray) -> str:
    """`128x64`: height x width."""
    return f"{picture.shape[0]}x{picture.shape[1]}"


def read_statistics(path: Path, network: str) -> RealSet:
    """The real set as another program's file of statistics: `mu` [2048], `sigma` [2048, 2048].

    Args:
        path: the .npz file, as of pytorch-fid.
        network: the one that its features are taken to be of; the file does not tell.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    option = f"--fid_real_path={path}"
    try:
        arrays = read_arrays(path)
        if not {"mu", "sigma"} <= arrays.keys():
            raise UserError(
                f"{option}: holds {', '.join(arrays) or 'nothing'}; it must hold mu and sigma, "
                "or be a folder of images"
            )
        if any(arrays[key].dtype.kind not in "fiu" for key in ("mu", "sigma")):
            raise ValueError("they hold no real numbers")
        mean, covariance = (arrays[key].astype(np.float64) for key in ("mu", "sigma"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option}: cannot be read as statistics, an .npz file with mu and sigma ({error}); a "
            "folder of images serves as well"
        ) from None
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise UserError(
            f"{option}: mu is {list(mean.shape)} and sigma {list(covariance.shape)}; they must be "
            f"[{FEATURES}] and [{FEATURES}, {FEATURES}], of the Inception network's last features"
        )
    for name, values in (("mu", mean), ("sigma", covariance)):
        if not np.isfinite(values).all():
            raise UserError(f"{option}: {name} holds NaN or infinity; make the file anew")
    scale = np.abs(covariance).max()
    if (np.diag(covariance) < 0).any() or np.abs(covariance - covariance.T).max() > 1e-5 * scale:
        raise UserError(f"{option}: sigma is no covariance (symmetric, no variance below 0)")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    description = f"{path} (sha256 {digest}), statistics whose images and input are not known"
    return RealSet(None, description, [], {network: (mean, covariance)}, None)


def read_real_set(
    folder: Path,
    networks: Sequence[RealNetwork],
    cache_folder: Path,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    say: Callable[[str], None] = print,
) -> RealSet:
    """Statistics of the real set: from the cache where they are, else in one pass over the images.

    The cache notices a changed folder: names, sizes and times of the files and the network's
    protocol are part of each entry.

    Args:
        folder: the real images (--fid_real_path).
        networks: what to run; "standard" keeps its features.
        cache_folder: where the entries lie, never the image folder.
        device: where the networks are.
        batch_size: images at a time; does not change the results.
        workers: decoding processes.
        say: takes what the user should know.

    Raises:
        UserError: the folder is missing or empty, or the cache cannot be written.
    """
    names = list_images(folder)
    if not names:
        files = sorted(path.name for path in folder.glob("*.npz"))
        hint = f"; to use {files[0]}, name that file itself" if files else ""
        raise UserError(f"--fid_real_path: {folder} has no images{hint}")
    if real_path(cache_folder).is_relative_to(real_path(folder)):
        raise UserError(f"--cache_dir: {cache_folder} lies in the image folder; name another")
    files = fingerprint(folder, names)
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--cache_dir: {cache_folder} cannot be made ({error.strerror})") from None
    slots = {item.name: _CacheSlot(cache_folder, folder, item, files) for item in networks}
    entries = {name: slot.read(say) for name, slot in slots.items()}
    missing = [item for item in networks if entries[item.name] is None]
    if missing:
        fresh = _extract(folder, names, missing, slots, device, batch_size, workers)
        entries.update(fresh)
    first = entries[networks[0].name]
    standard = slots.get("standard")
    return RealSet(
        first["count"],
        f"{folder}: {describe_files(names, first['sizes'], first['count'])}",
        first["unreadable"],
        {name: (entry["mean"], entry["covariance"]) for name, entry in entries.items()},
        standard.features() if standard else None,
    )


def _extract(
    folder: Path,
    names: list[str],
    networks: Sequence[RealNetwork],
    slots: "dict[str, _CacheSlot]",
    device: torch.device,
    batch_size: int,
    workers: int,
) -> dict[str, dict]:
    """One pass over the images for all `networks`; writes and returns their cache entries."""
    collectors = {
        item.name: SetFeatures(item.network, device, slots[item.name].keep) for item in networks
    }
    unreadable: list[str] = []
    sizes: Counter[str] = Counter()
    loader = in_order(_Pictures([folder / name for name in names]), batch_size, workers)
    with tqdm(total=len(names), desc="real images", unit="image", disable=None) as bar:
        for items in loader:
            pictures = [item for item in items if not isinstance(item, str)]
            unreadable += [item for item in items if isinstance(item, str)]
            sizes.update(map(size_text, pictures))
            if pictures:
                for collector in collectors.values():
                    collector.add(pictures)
            bar.update(len(items))
    if sizes.total() < 2:
        raise UserError(
            f"--fid_real_path: {folder} has {sizes.total()} readable images; "
            "FID needs 2 at the very least, and some thousands to mean anything"
        )
    return {
        name: slots[name].write(collector, sorted(sizes), unreadable)
        for name, collector in collectors.items()
    }


def fingerprint(folder: Path, names: Iterable[str]) -> str:
    """A text that is another one when any of these files of a folder was written or removed."""
    digest = hashlib.sha256()
    for name in names:
        try:
            state = (folder / name).stat()
            text = f"{state.st_size}\0{state.st_mtime_ns}"
        except OSError:
            text = "gone"
        digest.update(os.fsencode(name) + f"\0{text}\n".encode())
    return digest.hexdigest()


class _CacheSlot:
    """The place of one folder and network in the cache."""

    def __init__(self, cache: Path, folder: Path, item: RealNetwork, files: str) -> None:
        where = hashlib.sha256(str(real_path(folder)).encode()).hexdigest()[:8]
        # A long name is cut: the files' names add some 60 bytes to it.
        name = os.fsencode(real_path(folder).name)[:120].decode(errors="ignore")
        stem = f"{name}-{where}-{item.name}"
        self._key = {"version": CACHE_VERSION, "files": files, "protocol": item.protocol}
        key = hashlib.sha256(json.dumps(self._key).encode()).hexdigest()[:8]
        self._stem = stem
        self.path = cache / f"{stem}.npz"
        self._features_path = cache / f"{stem}-{key}.features"
        self.keep = frozenset({"features"} if item.name == "standard" else ())

    def read(self, say: Callable[[str], None]) -> dict | None:
        """The entry, None when there is none that holds for these files."""
        if not self.path.is_file():
            return None
        try:
            arrays = read_arrays(self.path)
            mean, covariance = arrays["mean"], arrays["covariance"]
            notes = parse_json(str(arrays["notes"]))
            key, rows = dict(notes.pop("key")), int(notes["count"])
            for texts in (notes["sizes"], notes["unreadable"]):
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                    raise ValueError("a note is no list of texts")
            if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
                raise ValueError("not of this network")
            if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
                raise ValueError("of a network with broken weights")
            entry = {**notes, "mean": mean, "covariance": covariance}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            say(f"{self.path}: damaged cache entry, computed anew")
            return None
        if key != self._key:
            what = "images" if key.get("files") != self._key["files"] else "protocol"
            say(f"{self.path}: the {what} changed since, computed anew")
            return None
        path = self._features_path
        if self.keep and (not path.is_file() or path.stat().st_size != 4 * FEATURES * rows):
            say(f"{path}: damaged cache entry, computed anew")
            return None
        return entry

    def features(self) -> np.ndarray:
        """The features of the entry, float32 [N, 2048]; mapped, as FID does not read them."""
        return np.memmap(self._features_path, "<f4", "r").reshape(-1, FEATURES)

    def write(self, collector: SetFeatures, sizes: list[str], unreadable: list[str]) -> dict:
        statistics = collector.statistics
        notes = {"count": statistics.count, "sizes": sizes, "unreadable": unreadable}
        arrays = {"mean": statistics.mean, "covariance": statistics.covariance}
        if self.keep:
            with written_whole(self._features_path) as temporary:
                collector.rows("features").astype("<f4").tofile(temporary)
            for stale in self.path.parent.glob(f"{glob.escape(self._stem)}-*.features"):
                if stale != self._features_path:
                    stale.unlink(missing_ok=True)
        with written_whole(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, notes=json.dumps({**notes, "key": self._key}), **arrays)
        return {**notes, **arrays}
