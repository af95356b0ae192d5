"""Checkpoints as other people have them: what is read, and what the others are told to be."""

import argparse
import dataclasses
import gzip
import io
import shlex
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from models import create_model
from models.checkpoints import load_for_test, load_for_training
from models.gfla.discriminator import ResDiscriminator
from models.gfla.flow_estimator import FlowGenerator
from models.gfla.generator import PoseGenerator
from models.pg2.layouts import LAYOUTS, build_networks
from tests.support.helpers import inference_options, train_options
from util.checkpoints import load_network
from util.errors import UserError
from util.pretrained_weights import PretrainedFile

FLOW = ["--model=poseflownet", "--attn_layer=2", "--kernel_size=2=3"]
POSE = ["--model=pose", "--attn_layer=2", "--kernel_size=2=3"]


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(1)
    return FlowGenerator(attn_layer=[2]).state_dict()


@pytest.fixture(scope="module")
def other(flow):
    return {name: value + 1 for name, value in flow.items()}


@pytest.fixture(scope="module")
def model():
    return create_model(inference_options(*FLOW))


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def load(model, folder, content):
    """Load as test.py does; gives the report."""
    torch.save(content, folder / "latest_net_G.pth")
    (report,) = load_for_test(model, folder, "latest")
    return report


def message_of(action):
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def assert_has(model, state):
    for name, value in model.networks["G"].state_dict().items():
        assert torch.equal(value, state[name]), name


def optimizer_state():
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


WRAPPED = {
    "an epoch inside": lambda s: {**s, "epoch": 7, "best": 0.5, "note": "x"},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled within": lambda s: {k.replace(".", "._orig_mod.", 1): v for k, v in s.items()},
    "twice parallel": lambda s: prefixed("module.module.", s),
    "compiled and parallel": lambda s: prefixed("_orig_mod.module.", s),
    "averaged": lambda s: {"n_averaged": torch.tensor(3), **prefixed("module.", s)},
    "FSDP": lambda s: prefixed("_fsdp_wrapped_module.", s),
    "state_dict": lambda s: {"state_dict": s, "epoch": torch.tensor(3)},
    "with an optimiser": lambda s: {"model": s, "optimizer": optimizer_state()},
    "deep": lambda s: {"a": {"b": {"model": prefixed("module.", s)}}},
    "net_G": lambda s: prefixed("net_G.", s),
    "of several networks": lambda s: {
        "net_G": s, "net_D": ResDiscriminator(layers=3).state_dict(),
        "opt_G": optimizer_state(), "current_epoch": 3,
    },
    "Lightning": lambda s: {
        "epoch": 3, "pytorch-lightning_version": "2.1", "hyper_parameters": {"lr": 1e-4},
        "optimizer_states": [optimizer_state()], "callbacks": {}, "loops": {"fit": {"a": 1}},
        "state_dict": {
            **prefixed("model.net_G.", s), **prefixed("vgg.", {"features.0.weight": torch.ones(2)}),
            **prefixed("net_D.", ResDiscriminator(layers=3).state_dict()),
        },
    },
    "the generator of stage 2 below net_G": lambda s: {
        **prefixed("net_G.", s), "net_G.source.a": torch.ones(1),
    },
    "without the name of its only part": lambda s: {
        "state_dict": {name.removeprefix("flow_net."): value for name, value in s.items()}
    },
    "plain values of trainers": lambda s: {
        "state_dict": s, "opt": argparse.Namespace(lr=1), "loss": np.float64(2),
        "history": np.arange(3.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_found(model, flow, tmp_path, wrap):
    report = load(model, tmp_path, wrap(flow))
    assert_has(model, flow)
    assert len(report.taken) == len(flow)


def test_the_report_says_where_they_were_and_what_stays(model, flow, tmp_path):
    report = str(load(model, tmp_path, {"state_dict": prefixed("G.", flow), "optimizer": {}}))
    assert "latest_net_G.pth (state_dict, G.), without what is under optimizer: took" in report


@pytest.mark.parametrize("form", ["keys", "prefixes", "prefixes below a key"])
@pytest.mark.parametrize("lacking", [0, 3])  # averages are often kept of the parameters alone
def test_of_several_that_would_do_none_is_taken_unasked(
    model, flow, other, tmp_path, monkeypatch, form, lacking
):
    other = dict(list(other.items())[lacking:] if lacking else other)
    content = {"net_G": flow, "net_G_ema": other}
    if form != "keys":
        content = {**prefixed("net_G.", flow), **prefixed("net_G_ema.", other)}
        content = {"state_dict": content} if form.endswith("key") else content
    message = message_of(lambda: load(model, tmp_path, content))
    assert "net_G" in message and "net_G_ema" in message
    # What it advises is done.
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(message[message.index("python -c") :])[2])
    (tmp_path / "one.pth").replace(tmp_path / "latest_net_G.pth")
    if not lacking:
        load_for_test(model, tmp_path, "latest")
        assert_has(model, other)


def test_training_goes_on_from_wrapped_weights(flow, tmp_path):
    torch.save({"net_G": prefixed("module.", flow)}, tmp_path / "latest_net_G.pth")
    trained = create_model(train_options(*FLOW))
    load_for_training(trained, tmp_path, "latest")
    assert_has(trained, flow)


def test_a_network_that_has_such_a_name_keeps_it(tmp_path):
    network = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save(network.state_dict(), tmp_path / "a.pth")
    assert not load_network(network, tmp_path / "a.pth").missing


def test_a_name_that_is_there_twice(model, flow, tmp_path):
    content = {**flow, **prefixed("module.", flow)}
    assert "twice" in message_of(lambda: load(model, tmp_path, content))


def test_another_network_is_still_none_of_ours(model, tmp_path):
    for content in (
        ResDiscriminator(layers=3).state_dict(),
        {"net_D": ResDiscriminator(layers=3).state_dict(), "epoch": 3},
        {"a": torch.ones(1), "b": {"c": torch.ones(2)}},
    ):
        message = message_of(lambda content=content: load(model, tmp_path, content))
        assert "latest_net_G.pth" in message and "fits this network" in message


def test_a_flow_estimator_by_itself_is_a_part_of_stage_2(flow, tmp_path):
    torch.save({name.removeprefix("flow_net."): v for name, v in flow.items()}, tmp_path / "a.pth")
    network = PoseGenerator(attn_layer=[2], kernel_size={2: 3})
    report = load_network(network, tmp_path / "a.pth")
    assert len(report.taken) == len(flow) and not report.left_over
    assert all(torch.equal(network.state_dict()[name], value) for name, value in flow.items())


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {"lr": 0.5}}, [1, 2]])
def test_nothing_but_values(model, tmp_path, content):
    assert "holds no state dict" in message_of(lambda: load(model, tmp_path, content))


def test_safetensors_whatever_the_name(model, flow, tmp_path):
    library = pytest.importorskip("safetensors.torch")
    # It keeps one name of tensors that are the same, as those of the skip connections are.
    stored = {value.data_ptr(): (name, value) for name, value in prefixed("net_G.", flow).items()}
    assert len(stored) < len(flow)
    library.save_file(dict(stored.values()), tmp_path / "latest_net_G.pth")
    load_for_test(model, tmp_path, "latest")
    assert_has(model, flow)
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(path.read_bytes()[:5000])
    assert "cut off or damaged" in message_of(lambda: load_for_test(model, tmp_path, "latest"))


def test_safetensors_without_the_package(model, tmp_path, monkeypatch):
    (tmp_path / "latest_net_G.pth").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    message = message_of(lambda: load_for_test(model, tmp_path, "latest"))
    assert "pip install safetensors" in message


def zipped(names):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return memory.getvalue()


def tarred():
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("latest_net_G.pth"))
    return memory.getvalue()


def scripted():
    memory = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), memory)
    return memory.getvalue()


FOREIGN = {
    "empty": (b"", "empty"),
    "web page": (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Confirm", "a web page"),
    "page without a type": (b"<HTML><head>", "a web page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull",
    ),
    "JSON": (b'{"message": "Not Found"}', "a text, which begins"),
    "text": ("Quota exceeded – later".encode(), "a text, which begins 'Quota exceeded"),
    "zip": (zipped(["a/latest_net_G.pth", "a/x.txt"]), "a zip archive around a/latest_net_G.pth:"),
    "NumPy": (zipped(["weight.npy"]), "a zip archive around weight.npy"),
    "TorchScript": (scripted(), "torch.jit.load("),
    "tar": (tarred(), "tar -xf"),
    "gzip": (gzip.compress(b"x" * 999), "packed by gzip"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "part"), FOREIGN.values(), ids=FOREIGN)
def test_files_of_other_kinds_are_told_for_what_they_are(model, tmp_path, content, part):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(content)
    message = message_of(lambda: load_for_test(model, tmp_path, "latest"))
    assert str(path) in message and part in message
    file = PretrainedFile("--vgg_weights", "vgg", "http://nowhere/vgg-00000000.pth")
    message = message_of(lambda: file.load(str(path), {"a": torch.ones(1)}))
    assert "--vgg_weights" in message and part in message


def test_a_whole_model_names_the_class(model, tmp_path):
    torch.save(FlowGenerator(attn_layer=[2]), tmp_path / "latest_net_G.pth")
    message = message_of(lambda: load_for_test(model, tmp_path, "latest"))
    assert "models.gfla.flow_estimator.FlowGenerator" in message


def test_what_there_is_where_a_label_is_not(model, flow, tmp_path):
    folder = tmp_path / "person"
    model.options.which_iter = "9"
    message = message_of(lambda: load_for_test(model, folder, "9"))
    assert "nor its folder" in message and "--name" in message
    folder.mkdir()
    (tmp_path / "another").mkdir()
    message = message_of(lambda: load_for_test(model, tmp_path / "prson", "9"))
    assert f"{tmp_path} has another, person" in message
    (folder / "net_G_latest.safetensors").write_bytes(b"x")
    message = message_of(lambda: load_for_test(model, folder, "9"))
    assert "there are net_G_latest.safetensors" in message
    for label in ("latest", "10000", "9000"):
        torch.save(flow, folder / f"{label}_net_G.pth")
    message = message_of(lambda: load_for_test(model, folder, "9"))
    places = "check --checkpoints_dir, --name, --which_iter=LABEL"
    assert message.endswith(f"there are 9000, 10000, latest; {places}")
    (folder / "8_net_G.pth").mkdir()
    assert "it is a folder" in message_of(lambda: load_for_test(model, folder, "8"))


@pytest.mark.parametrize(
    ("arguments", "trained", "advice"),
    [
        ([], {"structure_nc": 17}, "--structure_nc=17"),
        ([], {"image_nc": 1}, "--image_nc=1"),
        ([], {"attn_layer": [2, 3], "kernel_size": {2: 3, 3: 3}},
         "--kernel_size=2=3,3=3 --attn_layer=2,3"),
        # The layer that is left over would not be missed: other pictures, and no word.
        (["--attn_layer=2", "--kernel_size=2=5"],
         {"attn_layer": [2, 3], "kernel_size": {2: 5, 3: 3}}, "--attn_layer=2,3"),
        ([], {"kernel_size": {2: 5}}, "--kernel_size=2=5"),
        ([], {"use_spect": True}, "--use_spect_g=True"),
        (["--use_spect_g"], {}, "--use_spect_g=False"),
        ([], {"ngf": 32}, "--ngf=32; here it is always --ngf=64"),
        ([], {"layers": 4}, "--layers=4; here it is always --layers=3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_option(tmp_path, arguments, trained, advice):
    form = {"attn_layer": [2], "kernel_size": {2: 3}, **trained}
    model = create_model(inference_options(*POSE, *arguments))
    message = message_of(lambda: load(model, tmp_path, PoseGenerator(**form).state_dict()))
    assert advice in message, message
    if "always" not in message:  # what it advises is done
        options = shlex.split(message[message.index(": --") + 2 :])
        load(
            create_model(inference_options(*POSE, *arguments, *options)),
            tmp_path,
            PoseGenerator(**form).state_dict(),
        )


def test_what_does_not_fit_of_a_flow_estimator_and_a_discriminator(tmp_path):
    model = create_model(inference_options(*FLOW))
    for trained, advice in (
        ({"structure_nc": 25}, "--structure_nc=25"),
        ({"attn_layer": [2, 3]}, "--attn_layer=2,3"),
    ):
        state = FlowGenerator(**{"attn_layer": [2], **trained}).state_dict()
        assert advice in message_of(lambda state=state: load(model, tmp_path, state))
    trained = create_model(train_options(*POSE))
    torch.save(trained.networks["G"].state_dict(), tmp_path / "latest_net_G.pth")
    torch.save(ResDiscriminator(layers=4).state_dict(), tmp_path / "latest_net_D.pth")
    assert "--dis_layers=4" in message_of(lambda: load_for_training(trained, tmp_path, "latest"))


@pytest.mark.parametrize(
    ("trained", "advice"),
    [
        ({"conv_hidden_num": 8}, "--conv_hidden_num=8"),
        ({"z_num": 8}, "--z_num=8"),
        ({"structure_nc": 17}, "--structure_nc=17"),
        ({"layout": LAYOUTS["fashion"]}, "--layout=fashion"),
        ({"layout": LAYOUTS["fashion"], "size": (256, 256)},
         "--layout=fashion --load_size=256,256"),
        ({"layout": LAYOUTS["market"], "size": (256, 256)}, "--layout, --load_size, --conv_hidden"),
        ({"layout": dataclasses.replace(LAYOUTS["market"], levels=4)}, "--layout, --load_size"),
    ],
)  # fmt: skip
def test_what_does_not_fit_of_pg2(tmp_path, trained, advice):
    form = {"layout": LAYOUTS["market"], "size": (128, 64)}
    form |= {"structure_nc": 18, "conv_hidden_num": 4, "z_num": 4, "ndf": 4, **trained}
    networks = build_networks(**form)
    for name, network in networks.items():
        torch.save(network.state_dict(), tmp_path / f"latest_net_{name}.pth")
    model = create_model(inference_options("--model=pg2", "--conv_hidden_num=4", "--z_num=4"))
    assert advice in message_of(lambda: load_for_test(model, tmp_path, "latest"))
