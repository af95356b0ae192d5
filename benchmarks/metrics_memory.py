"""Peak memory of `script.metrics` against the number of images.

    python -m benchmarks.metrics_memory --images 1000 10000

All figures of 128x64 pictures with a real set of the same size. Stand-ins with outputs of the same
sizes take the networks' place: their own memory does not depend on the number of images, and the
real ones would take hours on a CPU. Everything that could grow is the program's own.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe_machine
from script.metrics.__main__ import main as score
from util.argument_types import positive_int

DISTINCT = 100


class _StandIn(torch.nn.Module):
    """Features [B, 2048] and, where asked, logits [B, 1008], from a picture shrunk to 8x4."""

    protocol = "stand-in"

    def __init__(self, logits: bool) -> None:
        super().__init__()
        self._features = torch.randn(96, 2048)
        self._logits = torch.randn(2048, 1008) if logits else None

    def forward(self, pictures: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """uint8 [B, 3, H, W] to the outputs of an Inception network."""
        small = torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, (8, 4))
        features = small.flatten(1) @ self._features
        return features if self._logits is None else (features, features @ self._logits / 99)


class _StandInDistance(torch.nn.Module):
    protocol = "stand-in"

    def forward(self, result: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean difference in the place of both versions of LPIPS."""
        distance = (result.float() - target.float()).abs().mean(dim=(1, 2, 3))
        return {"v0.1": distance, "v0.0": distance}


def make_sets(folder: Path, count: int) -> None:
    """`count` results and real images, hard links to a few distinct noisy pictures."""
    random = np.random.default_rng(0)
    for name in ("truth", "results", "real"):
        (folder / name).mkdir(parents=True)
    for number in range(DISTINCT):
        pixels = random.integers(0, 256, (128, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "truth" / f"t{number:05d}.png")
    for number in range(count):
        same, other = (folder / "truth" / f"t{k % DISTINCT:05d}.png" for k in (number, number + 1))
        name = f"s{number:05d}_2_t{number % DISTINCT:05d}_vis.png"
        os.link(other, folder / "results" / name)
        os.link(same, folder / "real" / f"r{number:05d}.png")


def _measure(folder: Path, connection: object) -> None:
    standard, imagenet, distance = _StandIn(True), _StandIn(False), _StandInDistance()
    with (
        mock.patch("script.metrics.run.StandardInception", lambda *_: standard),
        mock.patch("script.metrics.run.ImageNetInception", lambda *_: imagenet),
        mock.patch("script.metrics.run.LPIPSDistance", lambda *_: distance),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        code = score([
            f"--gt_path={folder / 'truth'}", f"--distorated_path={folder / 'results'}",
            f"--fid_real_path={folder / 'real'}", f"--output={folder / 'out'}", "--device=cpu",
            "--gallery=4",
        ])  # fmt: skip
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    connection.send((code, own, worker))


def peak_memory(count: int) -> tuple[float, float]:
    """Peak resident MiB of the program and of its largest worker for `count` images."""
    with tempfile.TemporaryDirectory() as name:
        make_sets(Path(name), count)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=_measure, args=(Path(name), sender)
        )
        process.start()
        process.join()
        code, own, worker = receiver.recv()
    if code != 0:
        raise RuntimeError(f"script.metrics ended with exit code {code}")
    return own, worker


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive_int, nargs="+", default=[1000, 10000])
    options = parser.parse_args()
    print(describe_machine(("torch", "numpy", "scikit-image")))
    print("\n| images (results and real set each) | program, peak MiB | largest worker, peak MiB |")
    print("|---:|---:|---:|")
    for count in options.images:
        own, worker = peak_memory(count)
        print(f"| {count} | {own:.0f} | {worker:.0f} |", flush=True)


if __name__ == "__main__":
    main()
