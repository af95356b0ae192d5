"""Three optimiser steps of both stages against the original's."""

import random

import numpy as np
import pytest
import torch

from models import create_model
from models.schedule import seed_everything
from options.base_options import parse_train_options
from tests.support.golden_formula import fill_by_formula, golden, image_batch, pose_map, statistics
from tests.support.helpers import MARKET, same, train_options
from train import Trainer

LOSS_TOLERANCE = (
    {"rel": 1e-4, "abs": 2e-6},
    {"rel": 5e-4, "abs": 5e-5},
    {"rel": 5e-3, "abs": 1e-3},
)
ZERO_GRADIENT = 1e-7  # biases in front of a norm: what is listed for them is rounding noise


@pytest.fixture(scope="module")
def steps():
    return golden("train_steps_market_batch1.json")


@pytest.fixture(scope="module")
def batch():
    return {
        "P1": image_batch("market", "P1")[:1],
        "P2": image_batch("market", "P2")[:1],
        "BP1": pose_map("market.A")[None],
        "BP2": pose_map("market.B")[None],
    }


def golden_model(name):
    model = create_model(train_options(f"--model={name}"))
    for network in model.networks.values():
        fill_by_formula(network)
    fill_by_formula(model.vgg, prefix="vgg19.")
    return model


def gradient_norms(network):
    return {
        name: None if parameter.grad is None else parameter.grad.norm().item()
        for name, parameter in network.named_parameters()
    }


def assert_gradients(measured, expected):
    assert any(value and value > ZERO_GRADIENT for value in expected.values())
    for name, norm in expected.items():
        if norm is None:
            assert measured[name] is None, name
        elif norm > ZERO_GRADIENT:
            assert measured[name] == pytest.approx(norm, rel=2e-2), name


def total(norms):
    return sum(norm**2 for norm in norms.values() if norm) ** 0.5


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_three_steps_are_the_originals(name, steps, batch):
    model = golden_model(name)
    for number, expected in enumerate(steps[name]["steps"]):
        image = model.predict(batch).image if name == "pose" else None
        losses = model.training_step(batch, number + 1)
        assert losses.keys() == expected["losses"].keys()
        for loss, value in expected["losses"].items():
            assert losses[loss].item() == pytest.approx(value, **LOSS_TOLERANCE[number]), (
                number,
                loss,
            )
        if number > 0:
            continue
        for key, network in model.networks.items():
            norms = gradient_norms(network)
            assert total(norms) == pytest.approx(expected[f"grad_total_l2_{key}"], rel=1e-3)
            assert_gradients(norms, expected[f"grad_l2_{key}"])
        if image is not None:
            for field, value in expected["img_gen_stats"].items():
                assert statistics(image)[field] == pytest.approx(value, rel=1e-4, abs=1e-3), field


def test_learning_rates_are_the_originals(steps):
    model = create_model(train_options("--model=pose"))
    rates = {
        f"optimizer_{key}": value.param_groups[0]["lr"] for key, value in model.optimizers.items()
    }
    assert rates == pytest.approx(steps["pose"]["lr_actual"])


@pytest.mark.parametrize("mode", ["hinge", "wgan-gp"])
def test_other_adversarial_losses_train(mode, batch):
    model = create_model(train_options("--model=pose", f"--gan_mode={mode}"))
    before = [parameter.detach().clone() for parameter in model.networks["D"].parameters()]
    losses = model.training_step(batch, 1)
    assert all(torch.isfinite(value) for value in losses.values())
    after = model.networks["D"].parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_prediction_leaves_the_networks_alone(name, batch):
    """Also with spectral norm, which iterates in every forward in training mode."""
    model = create_model(train_options(f"--model={name}", "--use_spect_g"))
    before = {
        key: {k: v.clone() for k, v in network.state_dict().items()}
        for key, network in model.networks.items()
    }
    first, second = model.predict(batch), model.predict(batch)
    assert torch.equal(first.image, second.image)
    for key, network in model.networks.items():
        assert network.training
        assert all(torch.equal(v, before[key][k]) for k, v in network.state_dict().items())


def test_a_seed_is_a_seed():
    """Other seeds and iterations, other weights and draws; the same ones, the same."""

    def drawn(seed, iteration):
        seed_everything(seed, iteration)
        numbers = [random.random(), np.random.rand(), torch.rand(()).item()]
        weights = torch.nn.Linear(2, 2).weight.tolist()
        return (*numbers, str(weights))

    pairs = [(0, 0), (1, 0), (7, 0), (12345, 0), (2**31 - 1, 0), (0, 1), (1, 1), (0, 2**32), (1, 2)]
    for values in zip(*(drawn(*pair) for pair in pairs), strict=True):
        assert len(set(values)) == len(pairs)
    assert drawn(7, 3) == drawn(7, 3)


def test_other_seeds_train_other_networks(tiny_market, tmp_path):
    weights = []
    for number, seed in enumerate((1, 2, 1)):
        options = parse_train_options(
            [*MARKET, "--model=pg2", "--conv_hidden_num=4", "--z_num=6", "--ndf=4",
             f"--seed={seed}", f"--dataroot={tiny_market}", f"--checkpoints_dir={tmp_path}",
             f"--name={number}"]
        )  # fmt: skip
        trainer = Trainer(options)
        trainer.held.close()
        weights.append(trainer.model.networks["G1"].state_dict())
    assert same(weights[0], weights[2])
    assert not same(weights[0], weights[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["poseflownet", "pose"])
def test_a_step_on_the_gpu_is_the_one_on_the_cpu(name, steps, batch):
    options = train_options(f"--model={name}", "--gpu_ids=0")
    model = create_model(options)
    for network in model.networks.values():
        fill_by_formula(network)
    fill_by_formula(model.vgg, prefix="vgg19.")
    assert model.device.type == "cuda"
    with torch.backends.cudnn.flags(allow_tf32=False):
        losses = model.training_step({k: x.cuda() for k, x in batch.items()}, 1)
    for loss, value in steps[name]["steps"][0]["losses"].items():
        assert losses[loss].item() == pytest.approx(value, rel=1e-3, abs=1e-5), loss
