"""Checkpoints: what is read, reported and refused; the released layout in test.py."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data import create_dataset
from models import create_model, model_names
from models.checkpoints import load_for_test, save_model
from models.gfla.flow_estimator import FlowGenerator
from models.gfla.generator import PoseGenerator
from tests.conftest import test_pairs
from tests.support.golden_formula import formula_weight, golden
from tests.support.helpers import (
    MARKET,
    assert_one_line_error,
    inference_options,
    run_here,
    save_file,
)
from util.checkpoints import (
    load_network,
    load_training_state,
    read_state_dict,
    save_checkpoint,
)
from util.errors import UserError
from util.pair_names import pair_name


def small_network():
    return nn.ModuleDict({"first": nn.Linear(3, 2), "second": nn.BatchNorm1d(2)})


def assert_same(network, state):
    assert network.state_dict().keys() == state.keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


def write(content, path, **options):
    torch.save(content, path, **options)
    return path


def test_round_trip(tmp_path):
    source, target = small_network(), small_network()
    save_checkpoint(tmp_path / "deep", 7, {"G": source.state_dict()})
    report = load_network(target, tmp_path / "deep" / "7_net_G.pth")
    assert_same(target, source.state_dict())
    assert report.taken == list(source.state_dict())
    assert not report.missing and not report.left_over
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["7_net_G.pth"]


@pytest.mark.parametrize("zipped", [True, False])
def test_module_prefixes_and_the_old_file_format(tmp_path, zipped):
    source, target = small_network(), small_network()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    path = write(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    load_network(target, path)
    assert_same(target, source.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(tmp_path, dtype):
    target = nn.Linear(3, 2)
    values = {
        "weight": torch.arange(6, dtype=dtype).view(2, 3) / 8,
        "bias": torch.ones(2).to(dtype),
    }
    load_network(target, write(values, tmp_path / "net.pth"))
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, torch.arange(6.0).view(2, 3) / 8)


def test_tensors_of_a_gpu_load_without_one(tmp_path, monkeypatch):
    # The file says where its tensors lived; say cuda:0, as a file from another machine does.
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = write({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, tmp_path / "net.pth")
    monkeypatch.undo()
    assert b"cuda:0" in path.read_bytes()
    state = read_state_dict(path)
    assert all(value.device.type == "cpu" for value in state.values())
    assert torch.equal(state["weight"], torch.ones(2, 3))


def test_missing_and_left_over_are_reported(tmp_path):
    source, target = small_network(), small_network()
    before = target["second"].bias.clone()
    state = source.state_dict()
    del state["second.bias"]
    state["third.weight"] = torch.zeros(1)
    report = load_network(target, write(state, tmp_path / "net.pth"))
    assert report.missing == ["second.bias"]
    assert report.left_over == ["third.weight"]
    assert len(report.taken) == len(state) - 1
    text = str(report)
    assert f"took {len(state) - 1} tensors (first, second)" in text
    assert "1 are not in it (second)" in text
    assert "1 left over (third)" in text
    assert torch.equal(target["first"].weight, source["first"].weight)
    assert torch.equal(target["second"].bias, before)


@pytest.mark.parametrize("model", ["pose", "poseflownet"])
def test_a_checkpoint_with_a_layer_more_is_refused(tmp_path, model):
    """With one attention layer less the network would make other pictures of the same weights."""
    trained = ["--attn_layer=2,3", "--kernel_size=2=3,3=3"]
    save_model(create_model(inference_options(f"--model={model}", *trained)), tmp_path, "latest", 1)
    for given, fits in (([], False), (trained, True)):
        network = create_model(inference_options(f"--model={model}", *given))
        if fits:
            load_for_test(network, tmp_path, "latest")
            continue
        with pytest.raises(UserError, match=r"left over.*give the .*--attn_layer"):
            load_for_test(network, tmp_path, "latest")


def test_another_shape_is_refused_before_anything_is_copied(tmp_path):
    target = small_network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = {**small_network().state_dict(), "second.bias": torch.zeros(5)}
    path = write(state, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"second\.bias has shape \[5\], expected \[2\]") as error:
        load_network(target, path, lambda shapes: f"give the --width={shapes['second.bias'][0]}")
    assert str(path) in str(error.value) and "give the --width=5" in str(error.value)
    assert_same(target, before)


def test_nothing_in_common_is_refused(tmp_path):
    path = write({"res.conv.weight": torch.zeros(2)}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"nothing in .* fits.*holds res.*expected first, second"):
        load_network(small_network(), path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_cut_off_files_are_one_message(tmp_path, zipped, share):
    path = write(
        small_network().state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"<html><head>\n<title>404 Not Found</title>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_files_of_another_kind_are_one_message(tmp_path, content):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    assert_refused(path)


def assert_refused(path):
    for read in (read_state_dict, partial(load_training_state, models=model_names())):
        with pytest.raises(UserError) as error:
            read(path)
        text = str(error.value)
        assert str(path) in text and "\n" not in text
        assert "weights_only" not in text  # torch's advice: it would run what the file holds


@pytest.mark.parametrize(
    "content", [{}, [torch.ones(1)], {"a": 1}, {1: torch.ones(1)}, torch.ones(2), {"a": {"b": 1}}]
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    path = write(content, tmp_path / "net.pth")
    with pytest.raises(UserError, match="no state dict"):
        read_state_dict(path)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path, zipped):
    made = tmp_path / "made"
    content = {"weight": torch.ones(2, 3), "bias": RunsCode(made)}
    path = write(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert_refused(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # the file does hold code


def test_training_state(tmp_path):
    path = tmp_path / "latest_state.pth"
    assert load_training_state(path, model_names()) is None
    state = {"model": "pose", "iteration": 3, "optimizers": {"G": {"state": {}}}}
    save_file(state, path)
    assert load_training_state(path, model_names()) == state
    with pytest.raises(UserError, match="not a training state"):
        load_training_state(write({"model": "pose"}, path), model_names())
    for wrong in ({}, {"a": 1}, [torch.ones(1)]):
        with pytest.raises(UserError, match=r"latest_state\.pth, network G holds no state dict"):
            load_training_state(write({**state, "networks": {"G": wrong}}, path), model_names())


# Whole programs, on checkpoints made here.


def pose_generator():
    return PoseGenerator(attn_layer=[2], kernel_size={2: 3})


def run_test(tiny_market, root, *arguments, name="person"):
    return run_here(
        "test.py",
        *MARKET[:2],
        f"--dataroot={tiny_market}",
        f"--checkpoints_dir={root}",
        f"--results_dir={root / 'pictures'}",
        f"--name={name}",
        "--nThreads=0",
        *arguments,
    )


def put_checkpoint(root, network, name="person"):
    state = network if isinstance(network, dict) else network.state_dict()
    save_file(state, root / name / "latest_net_G.pth")


def test_stage_1_checkpoint_is_no_pose_checkpoint(tiny_market, tmp_path):
    put_checkpoint(tmp_path, FlowGenerator(attn_layer=[2]))
    process = run_test(tiny_market, tmp_path, "--model=pose")
    assert_one_line_error(process, "stage-1", "--model=poseflownet", "--continue_train")
    assert not (tmp_path / "pictures").exists()


def test_incomplete_checkpoint_makes_no_pictures(tiny_market, tmp_path):
    state = pose_generator().state_dict()
    del state["target.encoder0.model.2.bias"]
    put_checkpoint(tmp_path, state)
    process = run_test(tiny_market, tmp_path, "--model=pose")
    assert_one_line_error(process, "1 are not in it (target)", "--attn_layer")
    assert not (tmp_path / "pictures").exists()


def test_checkpoint_of_other_options_is_refused(tiny_market, tmp_path):
    put_checkpoint(tmp_path, PoseGenerator(attn_layer=[2, 3], kernel_size={2: 5, 3: 3}))
    process = run_test(tiny_market, tmp_path, "--attn_layer=2", "--kernel_size=2=3")
    assert_one_line_error(process, "has shape", "--kernel_size=2=5,3=3 --attn_layer=2,3")


@pytest.mark.parametrize("turn", [(1, 0, 2, 3), (2, 3, 1, 0)], ids=["transposed", "TensorFlow's"])
def test_transposed_weights_get_no_advice_on_key_points(tiny_market, tmp_path, turn):
    network = pose_generator()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.permute(turn).contiguous()
    put_checkpoint(tmp_path, network)
    process = run_test(tiny_market, tmp_path)
    assert_one_line_error(process, "has shape")
    assert "--structure_nc" not in process.stderr


def test_poseflownet_takes_the_flow_part_of_a_pose_checkpoint(tiny_market, tmp_path):
    torch.manual_seed(0)
    whole, flow_part = pose_generator(), FlowGenerator(attn_layer=[2])
    put_checkpoint(tmp_path, whole)
    report = load_network(flow_part, tmp_path / "person" / "latest_net_G.pth")
    for name, value in flow_part.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    assert not report.missing
    process = run_test(tiny_market, tmp_path, "--model=poseflownet", "--max_dataset_size=1")
    assert process.returncode == 0, process.stderr
    assert f"took {len(report.taken)} tensors (flow_net)" in process.stdout
    assert "left over (source, target)" in process.stdout
    assert len(list((tmp_path / "pictures").glob("*_vis.jpg"))) == 1


@pytest.mark.parametrize(
    ("zipped", "prefix"), [(False, "module."), (True, "")], ids=["old format", "new format"]
)
def test_released_layout(tiny_market, tmp_path, zipped, prefix):
    """Names and shapes of the released file, under the folder name its users know."""
    state = golden_state("market.pose_generator")
    name = "pose_market_checkpoints"
    (tmp_path / name).mkdir()
    write(
        {f"{prefix}{key}": value for key, value in state.items()},
        tmp_path / name / "latest_net_G.pth",
        _use_new_zipfile_serialization=zipped,
    )
    process = run_test(
        tiny_market, tmp_path, "--model=pose", "--attn_layer=2", "--kernel_size=2=3",
        "--results_format=png", "--max_dataset_size=2", "--batchSize=2", name=name,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert f"took {len(state)} tensors" in process.stdout
    assert "not in it" not in process.stdout and "left over" not in process.stdout

    network = pose_generator()
    network.load_state_dict(state, strict=True)
    dataset = create_dataset(inference_options(f"--dataroot={tiny_market}"))
    for number, pair in enumerate(test_pairs()[:2]):
        inputs = [dataset[number][key][None] for key in ("P1", "BP1", "BP2")]
        with torch.no_grad():
            expected = (network(*inputs)[0][0].permute(1, 2, 0).numpy() + 1) / 2 * 255
        assert expected.std() > 5  # a picture of one colour would prove little
        with Image.open(tmp_path / "pictures" / f"{pair_name(*pair)}_vis.png") as picture:
            assert np.abs(np.asarray(picture) - expected).max() <= 1


def golden_state(network):
    entry = golden("state_dict_keys.json")[network]
    return {
        key: formula_weight(twin if (twin := model_2(key)) in entry["keys"] else key, shape)
        for key, shape in entry["keys"].items()
    }


def model_2(key):
    return key.replace(".conv1.", ".model.2.")
