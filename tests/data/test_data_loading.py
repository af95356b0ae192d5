"""What the loader ships, and that its batches are the data set's items."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import data_loading as benchmark
from data import create_dataset, create_loader
from data.augmentation import Augmentation
from data.market_dataset import MarketDataset
from data.pair_dataset import PairDataset
from tests.support.golden_pg2 import pg2_options
from tests.support.helpers import inference_options, train_options
from tests.support.market_folder import Folder
from util.errors import UserError
from util.images import read_image, resize_image

AUGMENTATION = Augmentation(5, 5, (0.95, 1.05))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "market")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_items_to_the_last_bit(folder, workers):
    """Gaussians and discs with the mask, in a training order and for chosen pairs in order."""
    gaussians = folder.dataset(augmentation=AUGMENTATION)
    discs = create_dataset(pg2_options(f"--dataroot={folder.root}", "--shift=5"), pose_mask=True)
    for dataset in (gaussians, discs):
        loader = create_loader(dataset, 2, training=True, workers=workers)
        pairs = torch.utils.data.Subset(dataset, [3, 1])
        batch_and_keys = [
            *itertools.islice(zip(loader, loader.batch_sampler, strict=False), 4),
            *zip(create_loader(pairs, 2, training=False, workers=workers), [[3, 1]], strict=True),
        ]
        for batch, keys in batch_and_keys:
            items = [dataset[key] for key in keys]
            assert batch.keys() == items[0].keys()
            for name, values in batch.items():
                expected = [item[name] for item in items]
                if isinstance(values, torch.Tensor):
                    assert values.dtype == expected[0].dtype
                    # Bits, for missing key points are NaN.
                    assert torch.equal(
                        values.contiguous().view(torch.uint8),
                        torch.stack(expected).view(torch.uint8),
                    )
                else:
                    assert values == expected
    assert "mask2" in batch


def test_tensors_of_odd_sizes_keep_their_values(folder):
    """Three bytes a pixel and an odd number of pixels, with float32 of the poses beside them."""
    dataset = folder.dataset(load_size=(33, 31))
    (batch, *_) = create_loader(dataset, 1, training=False)
    for key in ("P1", "P2", "BP2"):
        assert torch.equal(batch[key][0], dataset[0][key])


def test_workers_ship_a_tenth(folder):
    dataset = create_dataset(pg2_options(f"--dataroot={folder.root}"), pose_mask=True)

    def size(item):
        return sum(value.nbytes for value in item.values() if isinstance(value, torch.Tensor))

    (parts,) = dataset.__getitems__([(0, 2)])
    assert size(parts) < 0.1 * size(dataset[0, 2])
    assert (parts["P1"].dtype, parts["P1"].shape) == (torch.uint8, (128, 64, 3))


def test_batches_come_on_the_device(folder):
    dataset = create_dataset(pg2_options(f"--dataroot={folder.root}"), pose_mask=True)
    device = torch.device("meta")
    (batch, *_) = create_loader(dataset, 2, training=False, device=device)
    tensors = {key for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert tensors == {"P1", "P2", "BP1", "BP2", "pose1", "pose2", "mask2"}
    assert {batch[key].device.type for key in tensors} == {"meta"}


def test_the_random_state_of_an_item_is_numpys(folder):
    dataset = folder.dataset(seed=2**32 + 7)
    for _ in range(2):
        drawn = dataset.item_random_state(3, 4).uniform(size=5)
        assert np.array_equal(drawn, np.random.RandomState([7, 1, 3, 4]).uniform(size=5))


# --- the option --fast_decode ---


@pytest.fixture
def photos(folder):
    """The folder with 150×130 JPEGs, twice the width of 64 but not twice the height of 128."""
    rng = np.random.default_rng(1)
    for name in folder.names:
        grains = Image.fromarray(rng.integers(0, 256, (38, 33, 3), dtype=np.uint8))
        grains.resize((130, 150)).save(folder.images / name, format="JPEG", quality=90)
    return folder


def test_jpegs_are_shrunk_only_down_to_the_size_asked_for(photos):
    path = photos.images / photos.names[0]
    assert read_image(path).size == (130, 150)
    assert read_image(path, (75, 65)).size == (65, 75)
    assert read_image(path, (76, 65)).size == (130, 150)
    assert read_image(path, (20, 20)).size == (33, 38)  # by 4
    small = np.asarray(resize_image(read_image(path, (40, 40)), (40, 40)), dtype=int)
    exact = np.asarray(resize_image(read_image(path), (40, 40)), dtype=int)
    assert 0 < np.abs(small - exact).mean() < 4


@pytest.mark.parametrize("size", [(64, 65), (200, 40), (300, 260)])  # smaller, both, larger
def test_resizing_less_exactly_changes_values_by_one_at_most(photos, size):
    image = read_image(photos.images / photos.names[0])
    exact, quick = (resize_image(image, size, exact=exact) for exact in (True, False))
    assert exact.size == quick.size == size[::-1]
    difference = np.abs(np.asarray(exact, dtype=int) - np.asarray(quick, dtype=int))
    assert difference.max() <= 1 and difference.mean() < 0.02
    assert resize_image(image, (150, 130), exact=False) is image


def test_fast_decode_is_off_unless_asked_for(photos):
    size = "--load_size=64,64"
    arguments = [f"--dataroot={photos.root}", "--old_size=128,64", size]
    plain = create_dataset(train_options("--model=poseflownet", *arguments))
    fast = create_dataset(train_options("--model=poseflownet", *arguments, "--fast_decode"))
    assert not torch.equal(plain[0]["P1"], fast[0]["P1"])
    assert torch.equal(plain[0]["pose1"], fast[0]["pose1"])
    path = photos.images / photos.names[0]
    for way, at_least in ((False, None), (True, (64, 64))):
        expected = resize_image(read_image(path, at_least), (64, 64), exact=not way)
        dataset = MarketDataset(photos.root, "train", load_size=(64, 64), fast_decode=way)
        (parts,) = dataset.__getitems__([0])
        assert np.array_equal(parts["P1"].numpy(), np.asarray(expected))


def test_fast_decode_is_for_training_pairs_only(photos, tmp_path):
    Folder(tmp_path / "tested", phase="test")
    test = ["--model=poseflownet", f"--dataroot={tmp_path / 'tested'}", "--fast_decode"]
    assert not create_dataset(train_options(*test), phase="test").fast_decode
    with pytest.raises(UserError, match="--fast_decode: is for training only"):
        create_dataset(inference_options(*test))


# --- the benchmark ---


@pytest.mark.parametrize("name", ["fashion", "market"])
def test_the_direct_way_gives_the_same_items(tmp_path, name):
    benchmark.make_set(name, tmp_path / name, images=2)
    sets = benchmark.ways(name, tmp_path / name)
    direct, ours = sets["direct"][0, 1], sets["ours"][0, 1]
    assert direct.keys() == ours.keys()
    for key in ("P1", "P2", "BP1", "BP2"):
        assert direct[key].dtype == ours[key].dtype
        np.testing.assert_allclose(direct[key].numpy(), ours[key].numpy(), atol=1e-6, rtol=0)
    with Image.open(ours["P1_path"]) as image:
        assert image.size == benchmark.SIZES[name][::-1]


def test_the_rate_counts_whole_batches(tmp_path, monkeypatch):
    benchmark.make_set("market", tmp_path / "market", images=4)
    dataset = benchmark.ways("market", tmp_path / "market")["ours"]
    completed = []
    complete = PairDataset.complete

    def counted(self, parts):
        completed.append(len(parts["P1_path"]))
        return complete(self, parts)

    monkeypatch.setattr(PairDataset, "complete", counted)
    clock = itertools.count()  # a second for every look at it
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    rate = benchmark.samples_per_second(dataset, 0, 2, torch.device("cpu"), seconds=3)
    assert completed == [2] * (2 + 2)  # two in advance; looks at 1 s and 2 s, then the last at 3 s
    assert rate == pytest.approx(4 / 3)


def test_table():
    text = benchmark.table("set", {"direct": {0: 10.0, 1: 8.0}, "ours": {0: 25.0, 1: 40.0}})
    assert text.splitlines()[-1] == "| ours | 25 (2.5×) | 40 (5.0×) |"
    assert "| 0 workers | 1 worker |" in text
