"""Published weights: cache, download and its check, local files, and one message when all fails."""

import hashlib
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import lpips
import pytest
import torch

from models.losses import vgg
from script.metrics import inception, lpips_distance
from util import pretrained_weights
from util.errors import UserError
from util.pretrained_weights import MissingWeights, PretrainedFile

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.tensor([1.5, -2.0])}
EXPECTED = {name: value.to("meta") for name, value in STATE.items()}


class Published:
    """A small published file: `source` is the server's, `cached` its place in the cache."""

    def __init__(self, folder: Path) -> None:
        torch.save(STATE, folder / "net.pth")
        self.digits = hashlib.sha256((folder / "net.pth").read_bytes()).hexdigest()[:8]
        self.source = (folder / "net.pth").rename(folder / f"net-{self.digits}.pth")
        self.file = PretrainedFile("--net_weights", "the net", self.source.as_uri())
        self.cache = folder / "torch home" / "hub" / "checkpoints"
        self.cached = self.cache / self.source.name


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    return Published(tmp_path)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise URLError(OSError("Name or service not known"))

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def message_of(error_type, load) -> str:
    with pytest.raises(error_type) as caught:
        load()
    assert type(caught.value) is error_type
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_is_state(loaded) -> None:
    assert loaded.state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert loaded.state[name].dtype == torch.float32
        assert torch.equal(loaded.state[name], value)


def test_published_names_and_digits():
    files = [
        inception.STANDARD_FILE, inception.IMAGENET_FILE, lpips_distance.PUBLISHED_FILE,
        vgg.PUBLISHED_FILE,
    ]  # fmt: skip
    assert [(file.option, file.name, file.sha256_prefix) for file in files] == [
        ("--inception_weights", "weights-inception-2015-12-05-6726825d.pth", "6726825d"),
        ("--imagenet_inception_weights", "inception_v3_google-0cc3c7bd.pth", "0cc3c7bd"),
        ("--lpips_weights", "alexnet-owt-7be5be79.pth", "7be5be79"),
        ("--vgg_weights", "vgg19-dcbb9e9d.pth", "dcbb9e9d"),
    ]
    with pytest.raises(ValueError, match="no SHA-256"):
        _ = replace(files[0], url="https://example.org/net-2015-12-05.pth").sha256_prefix


def test_downloaded_once_then_from_the_cache(published):
    first = published.file.load(None, EXPECTED)
    assert_is_state(first)
    assert first.source == f"published weights (sha256 {published.digits}…)"
    assert [path.name for path in published.cache.iterdir()] == [published.source.name]
    published.source.unlink()
    assert_is_state(published.file.load(None, EXPECTED))


def test_cached_file_needs_no_network(published, no_network):
    published.cache.mkdir(parents=True)
    published.source.rename(published.cached)
    assert_is_state(published.file.load(None, EXPECTED))


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data + b"x"])
def test_damaged_download_is_refused_and_leaves_nothing(published, damage):
    published.source.write_bytes(damage(published.source.read_bytes()))
    message = message_of(MissingWeights, lambda: published.file.load(None, EXPECTED))
    assert "could not download" in message and f'expected "{published.digits}"' in message
    assert list(published.cache.iterdir()) == []


def test_damaged_file_in_the_cache_is_refused(published, no_network):
    published.cache.mkdir(parents=True)
    torch.save({name: value + 1 for name, value in STATE.items()}, published.cached)
    digits = hashlib.sha256(published.cached.read_bytes()).hexdigest()[:8]
    message = message_of(MissingWeights, lambda: published.file.load(None, EXPECTED))
    for part in (str(published.cached), digits, published.digits, "--net_weights=PATH", "remove"):
        assert part in message


def test_no_network_is_one_message_that_says_what_to_put_where(published, no_network):
    message = message_of(MissingWeights, lambda: published.file.load(None, EXPECTED))
    for part in (
        published.file.name, published.file.url, f"SHA-256 begins {published.digits}",
        str(published.cache), "--net_weights=PATH", "(Name or service not known)",
    ):  # fmt: skip
        assert part in message


def test_silent_server_does_not_hang(published, monkeypatch):
    monkeypatch.setattr(pretrained_weights, "DOWNLOAD_TIMEOUT", 0.3)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/net-{published.digits}.pth"
        started = time.monotonic()
        message = message_of(
            MissingWeights, lambda: replace(published.file, url=url).load(None, EXPECTED)
        )
    assert time.monotonic() - started < 10
    assert "timed out" in message
    assert socket.getdefaulttimeout() == before
    assert list(published.cache.iterdir()) == []


def test_cache_that_cannot_be_made(published):
    published.cache.parents[1].write_text("a file where the folder should be")
    message = message_of(MissingWeights, lambda: published.file.load(None, EXPECTED))
    assert "--net_weights=PATH" in message


def test_local_file_and_what_it_is(published, no_network, tmp_path):
    loaded = published.file.load(str(published.source), EXPECTED)
    assert loaded.source == f"published weights (sha256 {published.digits}…)"
    path = tmp_path / "mine.pth"
    state = {f"module.{name}": value.half() for name, value in STATE.items()}
    torch.save({**state, "classifier.weight": torch.zeros(2)}, path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    tracked = {**EXPECTED, "norm.num_batches_tracked": torch.tensor(0)}
    loaded = published.file.load(str(path), tracked)
    assert_is_state(loaded)
    assert loaded.source == f"mine.pth (sha256 {digits}…, not the published weights)"


def test_local_file_that_is_not_there(published, tmp_path):
    for given, what in (
        (str(tmp_path / "absent.pth"), "no such file"), (str(tmp_path), "is a folder"),
        ("", "no such file"),
    ):  # fmt: skip
        message = message_of(UserError, lambda given=given: published.file.load(given, EXPECTED))
        for part in (f"--net_weights={given}: {what}", published.file.name, published.digits):
            assert part in message
    assert not published.cache.exists()


class Trap:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_local_files_that_do_not_serve(published, tmp_path):
    contents = {
        "incomplete": ({"layer.bias": STATE["layer.bias"]}, "layer.weight is missing"),
        "wrong": ({**STATE, "layer.bias": torch.zeros(3)}, "layer.bias is missing or has the"),
        "list": ([1, 2], "holds no state dict"),
        "trap": ({"layer.weight": Trap(tmp_path / "sprung")}, "holds more than tensors"),
    }
    for name, (content, part) in contents.items():
        path = tmp_path / name
        torch.save(content, path)
        message = message_of(UserError, lambda p=path: published.file.load(str(p), EXPECTED))
        assert message.startswith("--net_weights") and str(path) in message and part in message
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "text").write_text("not weights")
    message = message_of(UserError, lambda: published.file.load(str(tmp_path / "text"), EXPECTED))
    assert "--net_weights: cannot read" in message


def test_weights_of_another_known_network_are_recognised(
    inception_file, imagenet_inception_file, alexnet_file, tmp_path
):
    cpu = torch.device("cpu")
    head = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    vgg19 = tmp_path / "vgg19.pth"
    torch.save(vgg.VGG19Features("random").state_dict(), vgg19)
    cases = [
        (inception.StandardInception, imagenet_inception_file, "fc.weight", "inception_v3"),
        (inception.ImageNetInception, inception_file, "fc.weight", "FID-Inception-2015"),
        (inception.ImageNetInception, alexnet_file, "Conv2d_1a_3x3", "torchvision's alexnet"),
        (lpips_distance.LPIPSDistance, head, "features.0.weight", "a head of LPIPS"),
        (lpips_distance.LPIPSDistance, vgg19, "features.0.weight", "torchvision's vgg19"),
    ]
    options = ["inception", "imagenet_inception", "imagenet_inception", "lpips", "lpips"]
    for option, (make, path, tensor, network) in zip(options, cases, strict=True):
        message = message_of(UserError, lambda make=make, path=path: make(str(path), cpu))
        assert message.startswith(f"--{option}_weights={path}: {tensor}")
        assert network in message.partition("this looks like")[2]
        assert message.count("this looks like") == 1
