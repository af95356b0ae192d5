"""PG2's networks against the original's outputs, and their parts against slow definitions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.pg2.layouts import LAYOUTS, build_networks
from models.pg2.networks import HalvingConv2d, doubled
from tests.support.golden_pg2 import (
    DATASET_MODE,
    formula_states,
    formula_variable,
    golden_batch,
    golden_pg2,
    in_tensorflow_layout,
    weights_of,
)
from util.images import to_uint8

FORMS = ["market", "df"]
PARAMETERS = {"market": (70795075, 6058883, 4324737), "df": (122103235, 12696067, 10896257)}
TOLERANCE = 1e-4


def empty_networks(form):
    layout = LAYOUTS[DATASET_MODE[form]]
    with torch.device("meta"):
        return build_networks(layout, layout.size)


@pytest.fixture(scope="module", params=FORMS)
def forward(request):
    """(form, networks' outputs, outputs of every layer) for the golden weights and inputs."""
    form = request.param
    networks, layers = empty_networks(form), {}

    def keep(name):
        def hook(_module, _inputs, output):
            layers[name] = output  # in-place activations that follow change it, too

        return hook

    for key, state in formula_states(form).items():
        networks[key].load_state_dict(state, assign=True)
        for name, module in networks[key].named_modules():
            module.register_forward_hook(keep(f"{key}.{name}"))
    batch = golden_batch(form)
    with torch.no_grad():
        coarse = networks["G1"](batch["P1"], batch["BP2"])
        difference = networks["G2"](coarse, batch["P1"])
        pictures = {
            "source": batch["P1"], "target": batch["P2"], "coarse": coarse,
            "refined": coarse + difference,
        }  # fmt: skip
        judged = LAYOUTS[DATASET_MODE[form]].judged
        logits = networks["D"](torch.cat([pictures[name] for name in judged]))
    outputs = {
        "G1": coarse, "DiffMap": difference, "G2": pictures["refined"],
        "z": layers["G1.to_latent"], "D_z": logits,
    }  # fmt: skip
    return form, outputs, layers


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_has_its_tensorflow_variable(form):
    networks = empty_networks(form)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks.values()]
    assert tuple(counts) == PARAMETERS[form]
    found = {(weight.network, weight.parameter) for weight in weights_of(form).values()}
    assert len(found) == len(weights_of(form))
    assert found == {
        (key, name) for key, network in networks.items() for name in network.state_dict()
    }
    unread = golden_pg2(f"{form}_variables.json").keys() - weights_of(form).keys()
    assert unread and all("moving_" in key for key in unread)


@pytest.mark.parametrize("form", FORMS)
def test_layouts_of_the_variables(form):
    """Shapes fit, and the way back gives the variable again."""
    states = {key: network.state_dict() for key, network in empty_networks(form).items()}
    variables = golden_pg2(f"{form}_variables.json")
    for key, weight in weights_of(form).items():
        shape = variables[key]["shape"]
        if np.prod(shape) > 1e6 and "fully_connected" not in key:
            rearranged = weight.rearrange(np.broadcast_to(np.float32(0), shape))
        else:
            array = np.arange(np.prod(shape)).reshape(shape)
            rearranged = weight.rearrange(array)
            ours = torch.from_numpy(np.ascontiguousarray(rearranged))
            assert np.array_equal(in_tensorflow_layout(form, key, ours), array), key
        assert rearranged.shape == tuple(states[weight.network][weight.parameter].shape), key


def test_the_formula_makes_the_golden_weights():
    for key, expected in golden_pg2("market_variables.json").items():
        if "moving_" in key or np.prod(expected["shape"]) > 1e6:
            continue
        value = formula_variable(key, expected["shape"])
        assert value.ravel()[:4] == pytest.approx(expected["first"][:4], rel=1e-6), key


def test_outputs_are_the_originals(forward):
    form, outputs, _ = forward
    expected = golden_pg2(f"{form}_forward_sampled.npz")
    stride = int(expected["stride"])
    for name, output in outputs.items():
        values = output.numpy()
        if output.ndim == 4:
            values = output.permute(0, 2, 3, 1)[:, ::stride, ::stride].numpy()
        assert np.abs(values - expected[name].reshape(values.shape)).max() < TOLERANCE, name


def test_pictures_are_within_one_grey_level(forward):
    """The original clips and truncates, we round: one level apart at most."""
    form, outputs, _ = forward
    expected = golden_pg2(f"{form}_forward_sampled.npz")
    stride = int(expected["stride"])
    for name in ("G1", "G2"):
        rounded = to_uint8(outputs[name])[:, ::stride, ::stride].astype(int)
        assert np.abs(rounded - expected[f"{name}_u8"]).max() <= 1
        grey = ((outputs[name].clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
        grey = grey.permute(0, 2, 3, 1)[:, ::stride, ::stride].numpy().astype(int)
        assert np.abs(grey - expected[f"{name}_u8"]).max() <= 1
        assert (grey != expected[f"{name}_u8"]).mean() < 1e-3


def test_every_layer_is_the_originals(forward):
    form, _, layers = forward
    traced = golden_pg2(f"{form}_trace.json")
    modules = {}
    for key, weight in weights_of(form).items():
        module = f"{weight.network}.{weight.parameter.rsplit('.', 1)[0]}"
        modules[key.rsplit("/", 1)[0]] = module
        modules[key.rsplit(".", 1)[0]] = module
    for key, expected in traced.items():
        scope, kind = key.split(":")
        module = modules[scope]
        if kind.startswith("lrelu"):
            module = module.removesuffix(".conv")
        output = layers[module]
        if kind == "relu":
            output = F.relu(output)
        if module.startswith("G1.up."):
            output = doubled(output)  # ours convolves before upscaling
        if output.ndim == 4 and "NCHW" not in kind:
            output = output.permute(0, 2, 3, 1)
        if scope.endswith("fully_connected_1"):
            shape = layers["G1.decoder.0"].shape[-2:]
            output = output.unflatten(1, (-1, *shape)).permute(0, 2, 3, 1).flatten(1)
        values = output.numpy().astype(np.float64)
        assert values.size == np.prod(expected["shape"]), key
        tolerance = 1e-3 * expected["std"]
        assert np.abs(values.ravel()[expected["flat_index"]] - expected["value"]).max() < tolerance
        assert abs(values.mean() - expected["mean"]) < tolerance, key
        assert abs(values.std() - expected["std"]) < tolerance, key
        assert abs(np.abs(values).max() - expected["absmax"]) < tolerance, key


@pytest.mark.parametrize(("kernel_size", "padding"), [(3, (0, 1)), (5, (1, 2))])
def test_halving_pads_as_tensorflow_does(kernel_size, padding):
    """TensorFlow: before, after = 0, 1 for kernel 3 and 1, 2 for kernel 5, on even sides."""
    torch.manual_seed(0)
    layer = HalvingConv2d(3, 4, kernel_size).double()
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64, requires_grad=True)
    padded = F.pad(x, (*padding, *padding))
    expected = F.conv2d(padded, layer.weight, layer.bias, stride=2)
    assert torch.allclose(layer(x), expected, atol=1e-12)
    factor = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((y * factor).sum(), [x, layer.weight]) for y in (layer(x), expected)
    ]
    for ours, direct in zip(*gradients, strict=True):
        assert torch.allclose(ours, direct, atol=1e-12)


def small_networks(layout="market", size=(32, 16)):
    torch.manual_seed(3)
    widths = {"conv_hidden_num": 4, "z_num": 5, "ndf": 4}
    return build_networks(LAYOUTS[layout], size, **widths)


@pytest.mark.parametrize(("layout", "size"), [("market", (32, 16)), ("fashion", (32, 64))])
def test_small_networks_of_other_sizes(layout, size):
    networks = small_networks(layout, size)
    image, pose = torch.randn(2, 3, *size), torch.randn(2, 18, *size)
    coarse = networks["G1"](image, pose)
    assert coarse.shape == networks["G2"](coarse, image).shape == image.shape
    assert networks["D"](image).shape == (2,)


def test_the_generators_do_not_mix_the_samples_of_a_batch():
    networks = small_networks()
    image, pose = torch.randn(3, 3, 32, 16), torch.randn(3, 18, 32, 16)
    coarse = networks["G1"](image, pose)
    alone = networks["G1"](image[1:2], pose[1:2])
    assert torch.allclose(coarse[1:2], alone, atol=1e-6)
    refined = networks["G2"](coarse, image)
    assert torch.allclose(refined[1:2], networks["G2"](alone, image[1:2]), atol=1e-6)


def test_the_discriminators_norm_takes_the_batch_in_both_modes():
    discriminator = small_networks()["D"]
    images = torch.randn(4, 3, 32, 16)
    trained = discriminator(images)
    assert torch.equal(discriminator.eval()(images), trained)
    assert not torch.allclose(discriminator(images[:2]), trained[:2], atol=1e-3)
    assert not any("running" in name for name in discriminator.state_dict())
