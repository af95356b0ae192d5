"""Networks of the metrics, on random weights: against the packages' own programs, and by hand."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from util.errors import UserError

# A machine that is lent for its GPU lacks them; the files that hold its tests must load there.
lpips = pytest.importorskip("lpips")
torch_fidelity = pytest.importorskip("torch_fidelity")

from script.metrics.inception import ImageNetInception, StandardInception  # noqa: E402
from script.metrics.lpips_distance import LPIPSDistance  # noqa: E402

CPU = torch.device("cpu")
SIZES = ((128, 64), (17, 33), (320, 302))


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Blotches of random colours, uint8 [B, 3, H, W]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 4, 3)).astype(np.uint8)
    large = [
        np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in small
    ]
    return torch.from_numpy(np.stack(large)).movedim(3, 1).contiguous()


@pytest.fixture(scope="module")
def standard(inception_file):
    return StandardInception(str(inception_file), CPU)


@pytest.fixture(scope="module")
def imagenet(imagenet_inception_file):
    return ImageNetInception(str(imagenet_inception_file), CPU)


@pytest.fixture(scope="module")
def distance(alexnet_file):
    return LPIPSDistance(str(alexnet_file), CPU)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_standard_features_are_torch_fidelitys(standard, inception_file):
    reference = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(inception_file),
    ).eval()  # fmt: skip
    for size in SIZES:
        batch = pictures(2, *size)
        with torch.no_grad():
            expected = reference(batch)
        outputs = standard(batch)
        assert [output.shape for output in outputs] == [(2, 2048), (2, 1008)]
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.dtype == torch.float32
            close(output, wanted, 1e-5)
            assert (output[0] - output[1]).abs().max() > 0.05


def test_torch_fidelitys_scores_follow_from_the_features(standard, inception_file, tmp_path):
    sets = [pictures(5, 64, 48, seed) for seed in (1, 2)]
    for name, batch in zip("ab", sets, strict=True):
        (tmp_path / name).mkdir()
        for number, image in enumerate(batch):
            array = image.movedim(0, 2).numpy()
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    scores = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "a"), input2=str(tmp_path / "b"), fid=True, kid=True, isc=True,
        kid_subset_size=5, kid_subsets=1, isc_splits=1, cuda=False, cache=False, verbose=False,
        save_cpu_ram=True, feature_extractor_weights_path=str(inception_file),
    )  # fmt: skip
    (a, logits), (b, _) = ([x.double().numpy() for x in standard(batch)] for batch in sets)

    centred = [(x - x.mean(0)) / 2 for x in (a, b)]  # 4 degrees of freedom
    # The trace of the square root of the product of the covariances, from their small factors.
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    fid = mean + sum(np.square(x).sum() for x in centred) - 2 * root
    assert scores["frechet_inception_distance"] == pytest.approx(fid, rel=1e-4)

    kernels = [(x @ y.T / 2048 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    within = sum((k.sum() - np.trace(k)) / 20 for k in kernels[:2])
    kid = within - 2 * kernels[2].mean()
    # torch-fidelity sums the kernels, which are about 1000 here, in float32.
    assert scores["kernel_inception_distance_mean"] == pytest.approx(
        kid, abs=1e-5 * kernels[2].max()
    )

    odds = np.exp(logits - logits.max(1, keepdims=True))
    p = odds / odds.sum(1, keepdims=True)
    score = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert score > 1.1
    assert scores["inception_score_mean"] == pytest.approx(score, rel=1e-4)


def bilinear(image: np.ndarray, side: int) -> np.ndarray:
    """[3, H, W] to [3, side, side]: pixel centres at half, no antialiasing."""
    for axis in (1, 2):
        length = image.shape[axis]
        position = ((np.arange(side) + 0.5) * length / side - 0.5).clip(0, length - 1)
        low = np.floor(position).astype(int)
        high = (low + 1).clip(max=length - 1)
        share = (position - low).reshape([-1, 1] if axis == 1 else [-1])
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


@pytest.mark.parametrize("size", SIZES)
def test_imagenet_features_step_by_step(imagenet, imagenet_inception_file, size):
    network = torchvision.models.Inception3(init_weights=False)
    network.load_state_dict(torch.load(imagenet_inception_file))
    network.eval()
    batch = pictures(2, *size)
    resized = np.stack([bilinear(image.double().numpy() / 255, 299) for image in batch])
    x = torch.from_numpy(resized).float()
    x = torch.stack(
        [
            x[:, 0] * (0.229 / 0.5) + (0.485 - 0.5) / 0.5,
            x[:, 1] * (0.224 / 0.5) + (0.456 - 0.5) / 0.5,
            x[:, 2] * (0.225 / 0.5) + (0.406 - 0.5) / 0.5,
        ],
        dim=1,
    )
    layers = (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 "
        "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e "
        "Mixed_7a Mixed_7b Mixed_7c"
    )
    with torch.no_grad():
        for layer in layers.split():
            x = getattr(network, layer)(x)
    features = imagenet(batch)
    assert features.shape == (2, 2048) and features.dtype == torch.float32
    close(features, x.mean((2, 3)), 1e-4)
    assert (features[0] - features[1]).abs().max() > 0.02


def reference_lpips(version: str, alexnet_file: Path) -> lpips.LPIPS:
    """The package's program, with torchvision's layers in the place of its backbone's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="alex", version=version, pnet_rand=True, verbose=False)
    with torch.device("meta"):
        features = torchvision.models.alexnet().features
    state = torch.load(alexnet_file)
    names = features.state_dict()
    features.load_state_dict({name: state[f"features.{name}"] for name in names}, assign=True)
    bounds = (0, 2, 5, 8, 10, 12)
    for number in range(5):
        layers = features[bounds[number] : bounds[number + 1]]
        setattr(reference.net, f"slice{number + 1}", layers)
    return reference


@pytest.mark.parametrize("size", [(128, 64), (31, 40)])
def test_lpips_is_the_packages(distance, alexnet_file, size):
    result, target = pictures(3, *size, seed=3), pictures(3, *size, seed=4)
    mask = torch.from_numpy(np.random.default_rng(5).random((3, *size)) < 0.5)
    images = [x.float() / 255 * 2 - 1 for x in (result, target)]
    grey = [torch.where(mask[:, None], image, 0.0) for image in images]
    whole, masked = distance(result, target), distance(result, target, mask)
    assert list(whole) == list(masked) == ["v0.1", "v0.0"]
    for version in ("0.1", "0.0"):
        reference = reference_lpips(version, alexnet_file)
        for found, pair in ((whole, images), (masked, grey)):
            with torch.no_grad():
                expected = reference(*pair).flatten()
            assert found[f"v{version}"].shape == (3,)
            assert found[f"v{version}"].dtype == torch.float32
            close(found[f"v{version}"], expected, 1e-6)
            assert expected.min() > 0.01
    assert not torch.allclose(whole["v0.1"], whole["v0.0"], rtol=0.05)
    assert not torch.allclose(whole["v0.1"], masked["v0.1"], rtol=0.05)


def test_lpips_of_equal_pictures_is_exactly_zero(distance, alexnet_file, tmp_path):
    same = pictures(4, 64, 48)
    same[0], same[1] = 0, 255
    state = torch.load(alexnet_file)
    for name in state:
        if name.endswith("0.bias"):
            state[name] = torch.full_like(state[name], -1e4)  # no feature is above zero
    torch.save(state, tmp_path / "dead.pth")
    dead = LPIPSDistance(str(tmp_path / "dead.pth"), CPU)
    for network in (distance, dead):
        for values in network(same, same.clone()).values():
            assert torch.equal(values, torch.zeros(4))
    nothing = torch.zeros(4, 64, 48, dtype=torch.bool)
    for values in distance(same, same.flip(0), nothing).values():
        assert torch.equal(values, torch.zeros(4))
    for values in dead(same, same.flip(0)).values():
        assert torch.isfinite(values).all()


def test_lpips_refuses_pictures_too_small_for_alexnet(distance):
    assert torch.isfinite(distance(pictures(1, 31, 31), pictures(1, 31, 31, 1))["v0.1"]).all()
    for size in ((30, 64), (64, 30), (1, 1)):
        with pytest.raises(UserError, match=f"at least 31x31 pixels, got {size[0]}x{size[1]}"):
            distance(pictures(1, *size), pictures(1, *size))


def test_lpips_takes_a_file_with_a_classifier(distance, alexnet_file, tmp_path):
    """As torchvision's has it; the other tests do without its 235 MB."""
    state = torch.load(alexnet_file)
    state |= {"classifier.6.weight": torch.ones(1000, 4096), "classifier.6.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "whole.pth")
    batch = pictures(2, 40, 40)
    found = LPIPSDistance(str(tmp_path / "whole.pth"), CPU)(batch, batch.flip(0))
    assert torch.equal(found["v0.1"], distance(batch, batch.flip(0))["v0.1"])


def test_a_picture_counts_alone(standard, imagenet, distance):
    batch = pictures(5, 64, 48)
    others = pictures(5, 64, 48, 1)

    def outputs(where) -> list[torch.Tensor]:
        distances = distance(batch[where], others[where])
        return [*standard(batch[where]), imagenet(batch[where]), *distances.values()]

    whole = outputs(torch.arange(5))
    for where in ([3], [4, 0, 2], [2, 1, 0, 4, 3]):
        for found, expected in zip(outputs(torch.tensor(where)), whole, strict=True):
            close(found, expected[where], 1e-5)


def test_one_pixel_and_what_is_refused(standard, imagenet, distance):
    dot = torch.tensor([200, 30, 90], dtype=torch.uint8).reshape(1, 3, 1, 1)
    plain = dot.expand(1, 3, 7, 9).contiguous()
    for network in (standard, imagenet):
        both = [network(x) if network is imagenet else network(x)[0] for x in (dot, plain)]
        close(*both, 2e-4)
    batch = pictures(2, 32, 32)
    bad = (batch.float(), batch[0], batch[:, :2], batch[:0], batch[:, :, :0], batch.movedim(1, 3))
    for x in bad:
        for call in (standard, imagenet, lambda x: distance(x, x)):
            with pytest.raises(ValueError, match="expected"):
                call(x)
    with pytest.raises(ValueError, match="differ"):
        distance(batch, batch[:1])
    for mask in (torch.ones(2, 32, 32), torch.ones(2, 1, 32, 32) > 0, torch.ones(1, 32, 32) > 0):
        with pytest.raises(ValueError, match="mask"):
            distance(batch, batch, mask)


def test_networks_are_frozen_and_leave_no_trace(
    inception_file, imagenet_inception_file, alexnet_file, capsys
):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        networks = [
            StandardInception(str(inception_file), CPU),
            ImageNetInception(str(imagenet_inception_file), CPU),
            LPIPSDistance(str(alexnet_file), CPU),
        ]
        batch = pictures(1, 40, 40)
        outputs = [*networks[0](batch), networks[1](batch), *networks[2](batch, batch).values()]
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert not any(output.requires_grad for output in outputs)
    for network in networks:
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert "(sha256 " in network.protocol and "not the published weights" in network.protocol


def settings() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_float32_is_float32_and_the_settings_stay(distance, matmul):
    before, seen = settings(), []
    assert before == (True, "highest")  # PyTorch's own defaults
    hook = distance.networks["0_1"].lin0.register_forward_hook(
        lambda *args: seen.append(settings())
    )
    try:
        torch.set_float32_matmul_precision(matmul)
        distance(pictures(1, 40, 40), pictures(1, 40, 40, 1))
        assert seen == [(False, "highest")]
        assert settings() == (True, matmul)
        with pytest.raises(UserError):
            distance(pictures(1, 4, 4), pictures(1, 4, 4))
        assert settings() == (True, matmul)
        assert not torch.is_inference_mode_enabled()
    finally:
        hook.remove()
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_what_the_cpu_gives(
    inception_file, imagenet_inception_file, alexnet_file, standard, imagenet, distance
):
    gpu = torch.device("cuda")
    batch, others = pictures(3, 64, 48), pictures(3, 64, 48, 1)
    on_gpu = batch.to(gpu), others.to(gpu)
    torch.set_float32_matmul_precision("high")
    try:
        found = [
            *StandardInception(str(inception_file), gpu)(on_gpu[0]),
            ImageNetInception(str(imagenet_inception_file), gpu)(on_gpu[0]),
            *LPIPSDistance(str(alexnet_file), gpu)(*on_gpu).values(),
        ]
    finally:
        torch.set_float32_matmul_precision("highest")
    expected = [*standard(batch), imagenet(batch), *distance(batch, others).values()]
    for value, wanted in zip(found, expected, strict=True):
        close(value.cpu(), wanted, 1e-4)
