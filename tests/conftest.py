"""Fixtures, written afresh for every test session: a tiny market data set in the real layout, and
weight files with the layout of the published ones.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageDraw, ImageFilter

HEIGHT, WIDTH = 128, 64
MISSING = (-1, -1)

# Key points (x, y) of a standing person: OpenPose order, see models/pictures.py.
STANDING = (
    (32, 14), (32, 26), (24, 27), (20, 42), (19, 56), (40, 27), (44, 42), (45, 56), (27, 58),
    (26, 84), (25, 110), (37, 58), (38, 84), (39, 110), (30, 12), (34, 12), (27, 14), (37, 14),
)  # fmt: skip

# (identity, number of images), and the pairs as positions in an identity's images.
IMAGES = {"train": {"0002": 3, "0007": 3}, "test": {"0001": 3, "0005": 2}}
TEST_PAIRS = (
    ("0001", 0, 1), ("0001", 1, 0), ("0001", 0, 2), ("0001", 2, 1), ("0005", 1, 0),
)  # fmt: skip
NOTHING_VISIBLE, WITHOUT_FLOW = 2, 4  # positions in TEST_PAIRS


def image_name(identity: str, number: int) -> str:
    return f"{identity}_c{number + 1}s1_00{identity}{number}_0{number + 1}.jpg"


@pytest.fixture(scope="session")
def tiny_market(tmp_path_factory) -> Path:
    """Folder of a market data set: 12 training pairs, 5 test pairs, true flow for 4 of those."""
    root = tmp_path_factory.mktemp("market data")
    rng = np.random.default_rng(7)
    for phase, identities in IMAGES.items():
        (root / phase).mkdir()
        rows = []
        for identity, count in identities.items():
            color = tuple(rng.integers(40, 256, 3).tolist())
            for number in range(count):
                name, pose = image_name(identity, number), _pose(rng)
                _draw(rng, pose, color).save(root / phase / name, quality=95)
                y, x = ([point[axis] for point in pose] for axis in (1, 0))
                rows.append(f"{name}: {y}: {x}")
        header = "name:keypoints_y:keypoints_x"
        _write_lines(root / f"market-annotation-{phase}.csv", [header, *rows])
    _write_lines(root / "market-pairs-train.csv", ["from,to", *map(",".join, _training_pairs())])
    _write_lines(root / "market-pairs-test.csv", ["from,to", *map(",".join, test_pairs())])
    _write_flow(rng, root / "flow")
    return root


def test_pairs() -> list[tuple[str, str]]:
    return [(image_name(who, a), image_name(who, b)) for who, a, b in TEST_PAIRS]


test_pairs.__test__ = False


def _training_pairs() -> list[tuple[str, str]]:
    return [
        (image_name(identity, a), image_name(identity, b))
        for identity, count in IMAGES["train"].items()
        for a in range(count)
        for b in range(count)
        if a != b
    ]


def _pose(rng: np.random.Generator) -> list[tuple[int, int]]:
    offset = rng.integers(-5, 6, 2)
    pose = [tuple((np.array(p) + offset + rng.integers(-3, 4, 2)).tolist()) for p in STANDING]
    for missing in rng.choice(18, 3, replace=False):
        pose[missing] = MISSING
    return pose


def _draw(rng: np.random.Generator, pose: list, color: tuple) -> Image.Image:
    noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    image = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for x, y in pose:
        if (x, y) != MISSING:
            draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=color)
    return image.filter(ImageFilter.GaussianBlur(1))


def _write_flow(rng: np.random.Generator, folder: Path) -> None:
    folder.mkdir()
    for position, pair in enumerate(test_pairs()):
        if position == WITHOUT_FLOW:
            continue
        flow = rng.uniform(-12, 12, (2, HEIGHT, WIDTH)).astype(np.float16)
        visible = rng.random((HEIGHT, WIDTH)) < (0 if position == NOTHING_VISIBLE else 0.4)
        stems = "_2_".join(Path(name).stem for name in pair)
        np.savez_compressed(folder / f"{stems}.npz", flow=flow, visible=visible)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory) -> Path:
    """Weights in the layout of FID-Inception-2015, which is torchvision's but for the classes."""
    return _write_inception(tmp_path_factory.mktemp("weights") / "inception.pth", 1, 1008, False)


@pytest.fixture(scope="session")
def imagenet_inception_file(tmp_path_factory) -> Path:
    """Weights in the layout of torchvision's inception_v3."""
    return _write_inception(tmp_path_factory.mktemp("weights") / "inception_v3.pth", 2, 1000, True)


@pytest.fixture(scope="session")
def alexnet_file(tmp_path_factory) -> Path:
    """Random weights of the features, in the layout of torchvision's alexnet."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    generator = torch.Generator().manual_seed(3)
    with torch.device("meta"):
        layout = torchvision.models.alexnet().state_dict()
    state = {}
    for name, tensor in layout.items():
        if not name.startswith("classifier."):  # of 235 MB, which LPIPS does without
            # He et al., 2015: keeps the scale of the activations
            scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1
            state[name] = scale * torch.randn(tensor.shape, generator=generator)
    torch.save(state, path)
    return path


def _write_inception(path: Path, seed: int, classes: int, imagenet: bool) -> Path:
    """Random weights; the batch statistics are those of random pictures, so that images differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torchvision.models.Inception3(
            classes, aux_logits=imagenet, transform_input=imagenet, init_weights=False
        )
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # plain average instead of a moving one
        pictures = torch.rand(4, 3, 5, 4)
        pictures = torch.nn.functional.interpolate(pictures, (299, 299), mode="bicubic").clamp(0, 1)
        with torch.no_grad():
            network(pictures if imagenet else 2 * pictures - 1)
            network.fc.weight *= 10  # spreads the class scores
        torch.save(network.state_dict(), path)
    return path
