"""VGG19 features: names, truncation, frozen state, and where the weights come from."""

import dataclasses
import hashlib
import shutil

import pytest
import torch
import torchvision
from torch import nn

from models.losses import vgg as vgg_module
from models.losses.vgg import LAYERS, VGG19Features
from util.errors import UserError


@pytest.fixture(scope="module")
def vgg():
    return VGG19Features("random")


def test_layout_is_torchvisions(vgg):
    with torch.device("meta"):
        reference = torchvision.models.vgg19()
    expected = {
        name: value.shape
        for name, value in reference.state_dict().items()
        if name.startswith("features.")
    }
    assert {name: value.shape for name, value in vgg.state_dict().items()} == expected
    assert sum(p.numel() for p in vgg.parameters()) == 20_024_384


def test_features_equal_a_walk_through_torchvisions_network(vgg):
    with torch.device("meta"):
        reference = torchvision.models.vgg19().features
    reference.load_state_dict(vgg.features.state_dict(), assign=True)
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    expected, names = {}, iter(LAYERS)
    with torch.no_grad():
        x = image
        for layer in reference:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                expected[next(names)] = x.clone()
    features = vgg(image, LAYERS)
    assert list(features) == list(LAYERS)
    assert LAYERS[0] == "relu1_1" and LAYERS[5] == "relu3_2" and LAYERS[-1] == "relu5_4"
    for name in LAYERS:
        torch.testing.assert_close(features[name], expected[name], atol=1e-5, rtol=1e-5)


def test_nothing_deeper_than_asked_is_computed(vgg):
    ran = []
    hooks = [
        layer.register_forward_hook(lambda module, args, output, i=i: ran.append(i))
        for i, layer in enumerate(vgg.features)
    ]
    features = vgg(torch.rand(1, 3, 16, 16), ["relu3_1", "relu1_2"])
    for hook in hooks:
        hook.remove()
    assert set(features) == {"relu3_1", "relu1_2"}
    assert ran == list(range(12))
    assert vgg(torch.rand(1, 3, 16, 16), []) == {}


def test_later_layers_leave_returned_features_alone(vgg):
    image = torch.rand(1, 3, 32, 32)
    shallow = vgg(image, ["relu1_1"])["relu1_1"]
    both = vgg(image, ["relu1_1", "relu5_4"])
    torch.testing.assert_close(both["relu1_1"], shallow, atol=0, rtol=0)
    assert shallow.min() == 0 and shallow.max() > 0


def test_frozen_but_differentiable_in_the_image(vgg):
    vgg.train()
    assert not vgg.training and not vgg.features.training
    assert not any(p.requires_grad for p in vgg.parameters())
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    features = vgg(image, ["relu1_1", "relu2_1"])
    sum(x.sum() for x in features.values()).backward()
    assert image.grad.abs().sum() > 0


def test_random_weights_are_fixed_and_leave_the_global_generator_alone(vgg):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other = VGG19Features("random")
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in vgg.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_random_weights_keep_the_scale_of_activations(vgg):
    torch.manual_seed(0)
    features = vgg(torch.rand(1, 3, 64, 64) * 2 - 1, LAYERS)
    power = [x.square().mean().sqrt().item() for x in features.values()]
    assert all(0.2 < p < 5 for p in power)


def test_unknown_layer(vgg):
    with pytest.raises(ValueError, match="relu3_5"):
        vgg(torch.rand(1, 3, 16, 16), ["relu1_1", "relu3_5"])


def test_weights_from_a_file_with_a_classifier(tmp_path, vgg):
    state = {name: value + 1 for name, value in vgg.state_dict().items()}
    path = tmp_path / "vgg19.pth"
    torch.save({**state, "classifier.0.weight": torch.zeros(3, 3)}, path)
    loaded = VGG19Features(str(path))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(p.requires_grad for p in loaded.parameters())


def test_weights_of_the_features_alone(tmp_path, vgg):
    """Saved of torchvision's `features`, whose names begin with the number."""
    state = {name.removeprefix("features."): v + 1 for name, v in vgg.state_dict().items()}
    assert "0.weight" in state
    path = tmp_path / "vgg19.pth"
    torch.save({**state, "36.weight": torch.zeros(3)}, path)
    for name, value in VGG19Features(str(path)).state_dict().items():
        assert torch.equal(value, state[name.removeprefix("features.")])


def test_clear_message_for_files_that_do_not_serve(tmp_path, vgg):
    state = vgg.state_dict()
    incomplete = {k: v for k, v in state.items() if k != "features.34.weight"}
    wrong_shape = {**state, "features.0.weight": torch.zeros(64, 1, 3, 3)}
    contents = {
        "incomplete": (incomplete, "features.34.weight is missing or has the wrong shape"),
        "wrong_shape": (wrong_shape, "features.0.weight is missing or has the wrong shape"),
        "list": ([1, 2], "holds no state dict"),
        "module": (nn.Linear(1, 1), "cannot read"),  # would execute code: weights_only refuses
    }
    for name, (content, message) in contents.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=f"--vgg_weights.*{message}") as error:
            VGG19Features(str(tmp_path / name))
        assert "\n" not in str(error.value)
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(UserError, match="cannot read"):
        VGG19Features(str(tmp_path / "text"))
    with pytest.raises(UserError, match=r"no such file.*imagenet, random"):
        VGG19Features(str(tmp_path / "absent.pth"))


def test_imagenet_weights_are_torchvisions_and_checked(monkeypatch, tmp_path, vgg):
    published = torchvision.models.VGG19_Weights.IMAGENET1K_V1
    path = tmp_path / "vgg19.pth"
    torch.save({**vgg.state_dict(), "classifier.0.weight": torch.zeros(3, 3)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    asked = []

    def download(url, destination, hash_prefix, **options):
        asked.append((url, hash_prefix))
        shutil.copy(path, destination)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    with pytest.raises(UserError, match=f"damaged: its SHA-256 begins {digest[:8]}"):
        VGG19Features("imagenet")
    assert asked == [(published.url, published.url.rpartition("-")[2].removesuffix(".pth"))]
    url = f"https://example.org/vgg19-{digest[:8]}.pth"
    here = dataclasses.replace(vgg_module.PUBLISHED_FILE, url=url)
    monkeypatch.setattr(vgg_module, "PUBLISHED_FILE", here)
    loaded = VGG19Features("imagenet")
    assert asked[1:] == [(url, digest[:8])]
    assert torch.equal(loaded.features[0].weight, vgg.features[0].weight)


def test_failed_download_names_the_other_choices(monkeypatch, tmp_path):
    from urllib.error import URLError

    def fail(*args, **options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(UserError) as error:
        VGG19Features("imagenet")
    for part in ("no route to host", "--vgg_weights=PATH", "--vgg_weights=random"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
