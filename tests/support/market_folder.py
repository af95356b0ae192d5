"""A small market data set that a test can spoil."""

import json

import numpy as np
import pytest
from PIL import Image

from data.market_dataset import MarketDataset
from util.errors import UserError

POSE = [*range(10, 28)]


def annotation_row(name, y=POSE, x=POSE):
    return f"{name}: {json.dumps(y)}: {json.dumps(x)}"


class Folder:
    """Six images, five pairs."""

    def __init__(self, root, count=6, phase="train"):
        self.root, self.phase = root, phase
        self.images = root / phase
        self.images.mkdir(parents=True)
        rng = np.random.default_rng(0)
        self.names = [f"p{number}.png" for number in range(count)]
        for name in self.names:
            pixels = rng.integers(0, 256, (128, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.images / name)
        self.pairs = root / f"market-pairs-{phase}.csv"
        self.annotation = root / f"market-annotation-{phase}.csv"
        self.write_pairs([f"{a},{b}" for a, b in zip(self.names, self.names[1:], strict=False)])
        self.write_annotation([annotation_row(name) for name in self.names])

    def write_pairs(self, rows, header="from,to"):
        self.pairs.write_text("\n".join([header, *rows]) + "\n")

    def write_annotation(self, rows, header="name:keypoints_y:keypoints_x"):
        self.annotation.write_text("\n".join([header, *rows]) + "\n")

    def dataset(self, **arguments):
        return MarketDataset(self.root, self.phase, **arguments)

    def error(self, **arguments):
        with pytest.raises(UserError) as caught:
            self.dataset(**arguments)
        message = str(caught.value)
        assert "\n" not in message
        return message
