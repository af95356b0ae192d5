"""How fast training batches come, against the direct way: python -m benchmarks.data_loading.

Two sets are made: 750×1101 JPEGs, read at 256×256 as DeepFashion's, and market crops of 128×64,
augmented. A batch counts when it is whole, images and pose maps, where the networks want it. The
direct way draws a pose as 18 full-size exponentials and does all else in the workers, too, which
ship floats. The ways take turns; the best round of each counts, for other programs only take time.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.machine import add_malloc_option, describe_machine, set_up_malloc
from data import PairDataset, create_loader
from data.augmentation import Augmentation
from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.sampler import TrainingSampler
from util.argument_types import positive_int, whole_number
from util.command_line import Parser, run_program
from util.device import choose_device, cpu_cores

SIZES = {"fashion": (1101, 750), "market": (128, 64)}  # (height, width) of the stored images
SIGMA = 6


class DirectDataset(PairDataset):
    """Items made one by one, by the definition, in whichever process loads them."""

    def _load_parts(self, index: int, rng: np.random.RandomState) -> dict[str, Any]:
        item = super()._load_parts(index, rng)
        for number in (1, 2):
            pixels = item[f"P{number}"].numpy().transpose(2, 0, 1).astype(np.float32)
            item[f"P{number}"] = torch.from_numpy((pixels / np.float32(255) - 0.5) / 0.5)
            maps = direct_maps(item[f"pose{number}"].numpy(), self.load_size)
            item[f"BP{number}"] = torch.from_numpy(maps)
        return item

    def complete(self, parts: dict[str, Any]) -> dict[str, Any]:
        """The item, which is complete."""
        return parts


def direct_maps(pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [K, height, width]: one exponential per key point and pixel."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    maps = np.zeros((len(pose), *size), np.float32)
    for drawn, (x, y) in zip(maps, pose, strict=True):
        if not np.isnan(x + y):
            distance = (rows - int(y)) ** 2 + (columns - int(x)) ** 2
            drawn[:] = np.exp(-distance / (2 * SIGMA**2))
    return maps


class DirectFashion(DirectDataset, FashionDataset):
    """FashionDataset, the direct way."""


class DirectMarket(DirectDataset, MarketDataset):
    """MarketDataset, the direct way."""


CLASSES = {"fashion": (DirectFashion, FashionDataset), "market": (DirectMarket, MarketDataset)}


def make_set(name: str, root: Path, images: int) -> None:
    """Write a training phase: `images` JPEGs, of cloudy colours and fine grain, and tables."""
    rng = np.random.default_rng(0)
    (root / "train").mkdir(parents=True)
    frame = CLASSES[name][1].default_old_size
    rows = ["name:keypoints_y:keypoints_x"]
    names = [f"{number:04d}.jpg" for number in range(images)]
    for file in names:
        _picture(rng, SIZES[name]).save(root / "train" / file, quality=90)
        points = rng.integers(0, frame, (18, 2))
        points[rng.random(18) < 0.15] = -1  # missing
        rows.append(f"{file}: {json.dumps(points[:, 0].tolist())}: {points[:, 1].tolist()}")
    pairs = ["from,to", *map(",".join, itertools.pairwise([*names, names[0]]))]
    for kind, lines in (("annotation", rows), ("pairs", pairs)):
        path = root / f"{CLASSES[name][1].file_prefixes[0]}-{kind}-train.csv"
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    height, width = size
    pixels = np.full((height, width, 3), 170.0)
    for cell, contrast in ((height // 4, 60), (height // 16, 30), (8, 12), (2, 6)):
        for channel in range(3):
            noise = rng.standard_normal((height // cell + 1, width // cell + 1)).astype(np.float32)
            cloud = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += contrast * np.asarray(cloud)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _on_device(loader: DataLoader, device: torch.device) -> Iterator[dict[str, Any]]:
    for batch in loader:
        yield {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }


def samples_per_second(
    dataset: PairDataset, workers: int, batch_size: int, device: torch.device, seconds: float
) -> float:
    """Rate of whole batches on `device`, over about `seconds` after those loaded in advance."""
    if isinstance(dataset, DirectDataset):
        order = TrainingSampler(len(dataset), batch_size)
        batches = _on_device(DataLoader(dataset, batch_sampler=order, num_workers=workers), device)
    else:
        batches = iter(
            create_loader(dataset, batch_size, training=True, workers=workers, device=device)
        )
    for _ in range(3 * workers + 2):  # a worker prepares two in advance
        next(batches)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not count:
        next(batches)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += batch_size
    batches.close()
    return count / passed


def ways(name: str, root: Path) -> dict[str, PairDataset]:
    """The data set in each of the ways that are compared."""
    direct, ours = CLASSES[name]
    augmentation = Augmentation(5, 5, (0.95, 1.05)) if name == "market" else None
    sets = {
        "direct": direct(root, "train", augmentation=augmentation),
        "ours": ours(root, "train", augmentation=augmentation),
    }
    if name == "fashion":
        sets["ours, --fast_decode"] = ours(root, "train", fast_decode=True)
    return sets


def table(title: str, rates: dict[str, dict[int, float]]) -> str:
    """Markdown: a row per way, a column per number of workers, ratios to the first way."""
    (direct, *_), workers = rates.values(), next(iter(rates.values()))
    lines = [
        f"| {title}, samples per second | "
        + " | ".join(f"{count} worker{'s' * (count != 1)}" for count in workers)
        + " |",
        "|---|" + "---:|" * len(workers),
    ]
    for way, by_workers in rates.items():
        cells = [f"{rate:.0f} ({rate / direct[count]:.1f}×)" for count, rate in by_workers.items()]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.data_loading", description=__doc__.split(":")[0])
    parser.add_argument("--sets", nargs="+", choices=SIZES, default=list(SIZES), help="images")
    parser.add_argument("--images", type=positive_int, default=64, help="distinct images of a set")
    parser.add_argument("--batchSize", type=positive_int, default=8, help="pairs of a batch")
    parser.add_argument("--seconds", type=positive_int, default=4, help="of one measurement")
    parser.add_argument("--rounds", type=positive_int, default=2, help="measurements of each way")
    add_malloc_option(parser)
    parser.add_argument(
        "--gpu_id", type=whole_number(-1), default=-1, help="GPU to use, -1 for the CPU"
    )
    return parser.parse_all(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print machine, versions and a table for each set."""
    options = parse_options(arguments)
    device = choose_device([options.gpu_id] if options.gpu_id >= 0 else [])
    print(describe_machine(("torch", "pillow", "numpy")))
    if device.type == "cpu":
        set_up_malloc(options.malloc)  # workers inherit it
    print(
        f"batches of {options.batchSize} on {device}, malloc {options.malloc}; "
        "0 workers = in the program's process\n"
    )
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            make_set(name, Path(folder) / name, options.images)
            sets = ways(name, Path(folder) / name)
            rates: dict[str, dict[int, float]] = {way: {} for way in sets}
            for workers in sorted({0, 1, cpu_cores()}):
                for _ in range(options.rounds):
                    for way, dataset in sets.items():
                        rate = samples_per_second(
                            dataset, workers, options.batchSize, device, options.seconds
                        )
                        rates[way][workers] = max(rate, rates[way].get(workers, 0))
        height, width = SIZES[name]
        print(table(f"{name} ({width}×{height} JPEGs)", rates), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
