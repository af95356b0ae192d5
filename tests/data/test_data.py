import argparse
import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data import create_dataset, create_loader, dataset_names, find_dataset
from data.augmentation import Augmentation
from data.fashion_dataset import FashionDataset
from data.flow import scale_flow
from data.market_dataset import MarketDataset
from data.pose_maps import pose_maps
from data.sampler import TrainingSampler
from tests.support import helpers
from tests.support.market_folder import POSE, Folder, annotation_row
from util import argument_types
from util.errors import UserError

GOLDEN = helpers.GOLDEN / "data"
REAL = helpers.SHARED / "real"
MARKET_AUGMENTATION = Augmentation(5, 5, (0.95, 1.05))


def normalised(uint8):
    half = np.float32(0.5)
    return (uint8.astype(np.float32) / np.float32(255) - half) / half


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "market")


# --- golden items ---


@pytest.mark.parametrize("name", ["fashion", "market"])
def test_items_are_golden(name):
    arrays = np.load(GOLDEN / "data_items.npz")
    facts = json.loads((GOLDEN / "data_items.json").read_text())
    dataset = find_dataset(name)(GOLDEN / "dataset" / name, "test")
    assert len(dataset) == 2
    for index in range(2):
        item = dataset[index]
        for image in ("P1", "P2"):
            expected = normalised(arrays[f"{name}.{index}.{image}.uint8"])
            assert item[image].dtype == torch.float32
            np.testing.assert_array_equal(item[image].numpy(), expected)
            assert Path(item[f"{image}_path"]).name == facts[f"{name}.{index}.{image}"]["name"]
        for maps in ("BP1", "BP2"):
            got = item[maps].numpy()
            key = f"{name}.{index}.{maps}"
            expected = arrays[f"{key}.stride4"][:] if name == "fashion" else arrays[key]
            stride = 4 if name == "fashion" else 1
            np.testing.assert_allclose(got[:, ::stride, ::stride], expected, atol=1e-6, rtol=0)
            peaks = [
                list(np.unravel_index(m.argmax(), m.shape)) if m.any() else [-1, -1] for m in got
            ]
            assert peaks == facts[key]["peak_yx"]
            sums = got.sum(axis=(1, 2), dtype=np.float64)
            np.testing.assert_allclose(sums, facts[key]["channel_sum"], rtol=1e-5)
        assert "flow" not in item


def test_augmented_item_is_golden():
    arrays = np.load(GOLDEN / "market_train_item_seed123.npz")
    dataset = MarketDataset(GOLDEN / "dataset" / "market", "test", augmentation=MARKET_AUGMENTATION)
    item = dataset.load_pair(0, np.random.RandomState(123))
    for image in ("P1", "P2"):
        np.testing.assert_array_equal(item[image].numpy(), normalised(arrays[f"{image}.uint8"]))
        np.testing.assert_allclose(
            item[f"B{image}"].numpy(), arrays[f"B{image}"], atol=1e-6, rtol=0
        )


def test_maps_are_those_of_the_item_pose(folder):
    """Also when float32 would round a coordinate up to the next whole number."""
    rows = [annotation_row(name, [7.99999999999, *POSE[1:]], [30.9999999999, *POSE[1:]])
            for name in folder.names]  # fmt: skip
    folder.write_annotation(rows)
    item = folder.dataset()[0]
    assert item["pose1"].dtype == torch.float32
    assert item["pose1"][0].trunc().tolist() == [30, 7]
    assert torch.equal(item["BP1"], pose_maps(item["pose1"], (128, 64)))


def test_missing_key_points_are_nan_and_zero(folder):
    folder.write_annotation(
        [annotation_row(n, [-1, *POSE[1:]], [5, *POSE[1:]]) for n in folder.names]
    )
    item = folder.dataset()[0]
    assert item["pose1"][0].isnan().all()
    assert not item["BP1"][0].any()
    assert item["BP1"][1].max() == 1


def test_old_size_scales_key_points(folder):
    item = folder.dataset(load_size=(256, 256), old_size=(128, 64))[0]
    assert item["P1"].shape == (3, 256, 256)
    assert item["BP1"].shape == (18, 256, 256)
    assert item["pose1"][0].tolist() == [10 * 256 / 64, 10 * 256 / 128]


# --- randomness, order, loaders ---


def keys_of(sampler, count):
    return list(islice(iter(sampler), count))


def test_an_item_depends_on_seed_epoch_and_index_only(folder):
    dataset = folder.dataset(augmentation=MARKET_AUGMENTATION)
    first = dataset[(2, 3)]
    dataset[(0, 0)]
    np.random.rand()
    torch.rand(1)
    again = dataset[(2, 3)]
    assert torch.equal(first["P1"], again["P1"])
    assert torch.equal(first["pose2"], again["pose2"])
    assert not torch.equal(first["pose1"], dataset[(3, 3)]["pose1"])
    assert not torch.equal(
        first["pose1"], folder.dataset(augmentation=MARKET_AUGMENTATION, seed=1)[(2, 3)]["pose1"]
    )
    assert torch.equal(dataset[4]["P1"], dataset[(0, 4)]["P1"])


def test_large_and_negative_seeds_work(folder):
    for seed in (2**32, 2**63 + 5, -1):
        dataset = folder.dataset(augmentation=MARKET_AUGMENTATION, seed=seed)
        assert dataset[0]["P1"].isfinite().all()
        assert keys_of(TrainingSampler(5, 2, seed), 3)
    assert keys_of(TrainingSampler(50, 50, 0), 1) != keys_of(TrainingSampler(50, 50, 2**32), 1)


@pytest.mark.parametrize("training", [True, False])
def test_batches_do_not_depend_on_workers(folder, training):
    dataset = folder.dataset(augmentation=MARKET_AUGMENTATION)
    results = []
    for workers in (0, 1, 2):
        loader = create_loader(dataset, 2, training=training, workers=workers, seed=3)
        assert loader.num_workers <= workers
        batches = iter(loader)
        results.append(list(islice(batches, 5)))
        batches.close()
    assert len(results[0]) == (5 if training else 3)
    for other in results[1:]:
        assert len(other) == len(results[0])
        for a, b in zip(results[0], other, strict=True):
            assert a["P1_path"] == b["P1_path"]
            for key in ("P1", "P2", "BP1", "BP2"):
                assert torch.equal(a[key], b[key])


def test_test_loader_keeps_order_and_the_last_partial_batch(folder):
    loader = create_loader(folder.dataset(), 2, training=False)
    names = [Path(path).name for batch in loader for path in batch["P1_path"]]
    assert names == folder.names[:5]
    assert len(loader) == 3
    assert [len(batch["P1"]) for batch in loader] == [2, 2, 1]


def test_a_loader_leaves_the_global_random_state_alone(folder):
    state = torch.get_rng_state()
    loader = create_loader(folder.dataset(), 2, training=True)
    next(iter(loader))
    assert torch.equal(state, torch.get_rng_state())


def test_every_epoch_is_another_full_permutation():
    sampler = TrainingSampler(12, 4, seed=7)
    batches = keys_of(sampler, 6)
    epochs = [[key for batch in batches[i : i + 3] for key in batch] for i in (0, 3)]
    for epoch, keys in enumerate(epochs):
        assert {number for number, _ in keys} == {epoch}
        assert sorted(index for _, index in keys) == list(range(12))
    assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]
    assert keys_of(TrainingSampler(12, 4, seed=8), 3) != batches[:3]


@pytest.mark.parametrize(("length", "batch", "size", "per_epoch"), [(10, 4, 4, 2), (3, 8, 3, 1)])
def test_incomplete_batches(length, batch, size, per_epoch):
    sampler = TrainingSampler(length, batch)
    assert sampler.batches_per_epoch == per_epoch
    batches = keys_of(sampler, 7)
    assert all(len(keys) == size for keys in batches)
    assert [keys[0][0] for keys in batches] == [sampler.epoch_of(i) for i in range(7)]
    assert sampler.epoch_of(per_epoch) == 1


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 8])
def test_a_resumed_order_is_the_uninterrupted_one(start, shuffle):
    whole = keys_of(TrainingSampler(11, 4, seed=5, shuffle=shuffle), 20)
    resumed = TrainingSampler(11, 4, seed=5, shuffle=shuffle, start_iteration=start)
    assert keys_of(resumed, 20 - start) == whole[start:]


def test_serial_batches_keep_file_order():
    batches = keys_of(TrainingSampler(4, 2, shuffle=False), 4)
    assert [index for batch in batches for _, index in batch] == [0, 1, 2, 3, 0, 1, 2, 3]


# --- registry and options ---


def parse(cls, arguments=(), is_train=True):
    parser = argparse.ArgumentParser()
    assert cls.add_options(parser, is_train) is parser
    return parser.parse_args(list(arguments))


def test_registry():
    assert {"market", "fashion"} <= set(dataset_names())
    assert "pair" not in dataset_names()
    assert find_dataset("market") is MarketDataset
    with pytest.raises(UserError, match=r"--dataset_mode pair: .*fashion, market"):
        find_dataset("pair")
    with pytest.raises(UserError, match="--dataset_mode"):
        find_dataset("../etc")


def test_option_defaults():
    opt = parse(MarketDataset)
    assert (opt.load_size, opt.old_size, opt.structure_nc) == ((128, 64), (128, 64), 18)
    assert (opt.angle, opt.shift, opt.scale) == (0, 0, (1, 1))
    opt = parse(FashionDataset)
    assert (opt.load_size, opt.old_size) == ((256, 256), (256, 176))
    assert (opt.angle, opt.shift, opt.scale) == (0, 0, (1, 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [("256", (256, 256)), ("128,64", (128, 64)), ("128x64", (128, 64)), ("(128, 64)", (128, 64))],
)
def test_size_argument(text, value):
    assert argument_types.size(text) == value


@pytest.mark.parametrize("text", ["", "a", "1,2,3", "0", "-4,5", "2.5"])
def test_bad_size_argument(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        argument_types.size(text)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("scale_range", "0.9,1.1", ["1.1,0.9", "0,1", "x", "1,2,3", "nan,nan", "1,inf", "1e-9,1"]),
        ("loss_weight", "0.5", ["-1", "x", "nan", "inf", "1e39"]),
        ("learning_rate", "0", ["-1e-9", "1e20", "nan"]),
        ("positive_int", "3", ["0", "1.5", "x", "1e20", "1" + 20 * "0", "9" * 5000]),
        ("non_negative_int", "0", ["-1", "x"]),
    ],
)
def test_other_arguments(kind, good, bad):
    convert = getattr(argument_types, kind)
    assert convert(good) == (eval(good))
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            convert(text)


def options_for(folder, arguments=(), is_train=True, **more):
    opt = parse(MarketDataset, arguments, is_train)
    vars(opt).update(
        dataset_mode="market",
        dataroot=str(folder.root),
        phase=folder.phase,
        is_train=is_train,
        seed=0,
    )
    vars(opt).update(more)
    return opt


def test_augmentation_is_for_the_training_phase_only(tmp_path):
    folder = Folder(tmp_path / "d")
    Folder(tmp_path / "e", phase="test")
    shutil.copytree(tmp_path / "e", tmp_path / "d", dirs_exist_ok=True)
    opt = options_for(folder, ["--angle=5", "--shift=5", "--scale=0.95,1.05"])
    assert create_dataset(opt).augmentation == MARKET_AUGMENTATION
    assert not create_dataset(opt, phase="test").augmentation.active
    assert not create_dataset(opt, augment=False).augmentation.active
    off = options_for(folder, ["--angle", "0", "--shift=0", "--scale=1"])
    assert not create_dataset(off).augmentation.active
    assert not create_dataset(options_for(folder, is_train=False)).augmentation.active
    with pytest.raises(UserError, match="--angle"):
        create_dataset(options_for(folder, ["--angle=3"], is_train=False))


def test_other_options_arrive(folder):
    opt = options_for(
        folder, ["--max_dataset_size=2", "--load_size=64,32", "--skip_bad_samples"], seed=9
    )
    dataset = create_dataset(opt)
    assert len(dataset) == 2
    assert dataset.load_size == (64, 32)
    assert dataset.skip_bad_samples
    assert dataset.seed == 9
    with pytest.raises(UserError, match="--image_nc"):
        create_dataset(options_for(folder, ["--image_nc=1"]))


# --- unreadable images ---


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_an_unreadable_image_names_file_and_row(folder):
    cut_off(folder.images / "p2.png")
    dataset = folder.dataset()
    with pytest.raises(UserError) as caught:
        dataset[1]
    message = str(caught.value)
    assert message.startswith(f"{folder.images / 'p2.png'}: cannot be read as an image (")
    assert f"row 3 of {folder.pairs}" in message
    assert "--skip_bad_samples" in message
    assert "\n" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_raises_the_same_line(folder, workers):
    cut_off(folder.images / "p2.png")
    loader = create_loader(folder.dataset(), 1, training=False, workers=workers)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{folder.images / 'p2.png'}: cannot be read")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_batch_takes_the_next_good_pair_in_the_place_of_a_bad_one(folder, workers):
    cut_off(folder.images / "p2.png")
    dataset = folder.dataset(skip_bad_samples=True)
    loader = create_loader(dataset, 5, training=True, shuffle=False, workers=workers)
    names = [Path(path).name for path in next(iter(loader))["P1_path"]]
    assert names == ["p0.png", "p3.png", "p3.png", "p3.png", "p4.png"]
    assert dataset.skipped_reads >= 3  # item 1 tries 1 and 2; item 2 tries 2; workers read ahead
    for name in folder.names:
        cut_off(folder.images / name)
    with pytest.raises(UserError, match="no pair has images"):
        dataset[0, 0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_test_run_leaves_bad_pairs_out(folder, workers, batch_size, capfd):
    cut_off(folder.images / "p2.png")
    dataset = folder.dataset(skip_bad_samples=True)
    loader = create_loader(dataset, batch_size, training=False, workers=workers)
    names = [Path(path).name for batch in loader for path in batch["P1_path"]]
    assert names == ["p0.png", "p3.png", "p4.png"]
    assert dataset.skipped_reads == 2
    assert f"skipped: {folder.images / 'p2.png'}" in capfd.readouterr().err


# --- true flow ---


def test_flow_of_test_pairs(tmp_path):
    folder = Folder(tmp_path / "d", phase="test")
    (folder.root / "flow").mkdir()
    flow = np.random.default_rng(0).normal(size=(2, 128, 64)).astype(np.float16)
    visible = np.random.default_rng(1).random((128, 64)) > 0.5
    np.savez(folder.root / "flow" / "p0_2_p1.npz", flow=flow, visible=visible)
    item = folder.dataset()[0]
    assert item["visible"].dtype == item["flow"].dtype == torch.float32
    np.testing.assert_array_equal(item["visible"].numpy(), visible)
    np.testing.assert_array_equal(item["flow"].numpy(), np.where(visible, flow, 0))
    item = folder.dataset()[1]
    assert item["flow"].shape == (2, 128, 64)
    assert not item["visible"].any()
    assert "flow" not in folder.dataset(augmentation=MARKET_AUGMENTATION)[0]
    np.savez(folder.root / "flow" / "p1_2_p2.npz", flow=flow[0], visible=visible)
    with pytest.raises(UserError, match=r"p1_2_p2.npz: expected flow \[2, H, W\]"):
        folder.dataset()[1]


def test_scaled_flow_is_in_pixels_of_the_new_size():
    flow = torch.stack((torch.full((8, 4), 2.0), torch.full((8, 4), -3.0)))
    flow[:, 0, 0] = float("nan")
    visible = torch.ones(8, 4, dtype=torch.bool)
    visible[0, 0] = False
    scaled, seen = scale_flow(flow, visible, (16, 12))
    assert scaled.shape == (2, 16, 12)
    assert seen[0, 0] == 0
    assert seen[4:].all()
    assert torch.allclose(scaled[0], 6.0 * seen)
    assert torch.allclose(scaled[1], -6.0 * seen)


def test_scaled_flow_follows_a_linear_field():
    """Flow of a magnification about the image's corner stays that flow at any size."""

    def field(height, width):
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        return torch.stack((0.2 * x, -0.1 * y))

    scaled, seen = scale_flow(field(16, 16), torch.ones(16, 16, dtype=torch.bool), (48, 32))
    assert seen.all()
    inner = (slice(None), slice(3, -3), slice(3, -3))  # the border is replicated
    assert torch.allclose(scaled[inner], field(48, 32)[inner], atol=1e-4)


# --- real photos ---


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real")
@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("name", ["fashion", "market"])
def test_real_photos(name, phase):
    cls = find_dataset(name)
    is_drawn = (name, phase) == ("market", "train")
    augmentation = MARKET_AUGMENTATION if is_drawn else Augmentation()
    dataset = cls(REAL / name, phase, augmentation=augmentation)
    assert len(dataset) > 30
    assert all("lie a little outside" in notice for notice in dataset.notices)
    batch = next(iter(create_loader(dataset, 4, training=phase == "train", workers=1)))
    height, width = cls.default_load_size
    assert batch["P1"].shape == batch["P2"].shape == (4, 3, height, width)
    assert batch["BP1"].shape == batch["BP2"].shape == (4, 18, height, width)
    assert batch["P1"].std() > 0.1
