"""Networks: checkpoint layout, golden outputs, structure of the gradients, initial weights."""

import pytest
import torch
from torch import nn

from models.gfla.blocks import InstanceNorm
from models.gfla.discriminator import ResDiscriminator
from models.gfla.flow_estimator import FlowEstimator, FlowGenerator
from models.gfla.generator import PoseGenerator, SourceEncoder, TargetGenerator
from models.initialisation import INIT_TYPES, init_weights
from tests.support.golden_formula import (
    fill_by_formula,
    golden,
    image_batch,
    pose_batch,
    statistics,
)

DATASETS = ("fashion", "market")
ATTENTION = {"fashion": ((2, 3), {2: 5, 3: 3}), "market": ((2,), {2: 3})}
DISCRIMINATOR_LAYERS = {"fashion": 4, "market": 3}
PARAMETERS = {
    "fashion.pose_generator": 14_047_395,
    "market.pose_generator": 12_926_471,
    "fashion.flow_generator": 6_608_212,
    "market.flow_generator": 6_604_753,
    "fashion.discriminator": 664_577,
    "market.discriminator": 238_209,
}


def build(name: str, **options) -> nn.Module:
    dataset, kind = name.split(".")
    attn_layer, kernel_size = ATTENTION[dataset]
    if kind == "pose_generator":
        return PoseGenerator(attn_layer=attn_layer, kernel_size=kernel_size, **options)
    if kind == "flow_generator":
        return FlowGenerator(attn_layer=attn_layer, **options)
    return ResDiscriminator(layers=DISCRIMINATOR_LAYERS[dataset], **options)


def inputs(dataset: str):
    return image_batch(dataset, "P1"), *pose_batch(dataset)


def close(actual, expected, atol):
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected), atol=atol, rtol=0)


@pytest.mark.parametrize("name", PARAMETERS)
def test_checkpoint_layout(name):
    expected = golden("state_dict_keys.json")[name]
    network = build(name)
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected["keys"]
    assert sorted(dict(network.named_buffers())) == sorted(expected["buffers"])
    count = sum(p.numel() for p in network.parameters())
    assert count == expected["parameters"] == PARAMETERS[name]
    for first, second in expected["aliases"]:
        assert state[first].data_ptr() == state[second].data_ptr()


def test_of_doubly_named_weights_the_value_of_model_is_taken():
    network = build("market.flow_generator")
    state = {key: torch.full_like(value, 1.0) for key, value in network.state_dict().items()}
    state["flow_net.jump0.model.2.weight"] *= 2
    network.load_state_dict(state)
    assert (network.flow_net.jump0.conv1.weight == 2).all()


@pytest.mark.parametrize("dataset", DATASETS)
def test_stage_1_checkpoint_fills_stage_2(dataset):
    generator = build(f"{dataset}.pose_generator").state_dict()
    flow = build(f"{dataset}.flow_generator").state_dict()
    part = {key: value.shape for key, value in generator.items() if key.startswith("flow_net.")}
    assert part == {key: value.shape for key, value in flow.items()}


@pytest.mark.parametrize("dataset", DATASETS)
@torch.no_grad()
def test_pose_generator_golden(dataset):
    expected = golden(f"{dataset}_pose_generator.npz")
    generator = fill_by_formula(build(f"{dataset}.pose_generator"))
    image, flows, masks = generator(*inputs(dataset))
    close(image, expected["img_gen"], 2e-4)
    assert len(flows) == len(masks) == len(ATTENTION[dataset][0])
    for i, (flow, mask) in enumerate(zip(flows, masks, strict=True)):
        close(flow, expected[f"flow_{i}"], 1e-4)
        close(mask, expected[f"mask_{i}"], 2e-5)


@pytest.mark.parametrize("dataset", DATASETS)
@torch.no_grad()
def test_flow_generator_golden(dataset):
    expected = golden(f"{dataset}_flow_generator.npz")
    flows, masks = fill_by_formula(build(f"{dataset}.flow_generator"))(*inputs(dataset))
    for i, (flow, mask) in enumerate(zip(flows, masks, strict=True)):
        close(flow, expected[f"flow_{i}"], 1e-4)
        close(mask, expected[f"mask_{i}"], 2e-5)


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "generator" in name])
@torch.no_grad()
def test_activations_golden(name):
    """Also what stands in for the fashion generator's own golden file where that is missing."""
    network = fill_by_formula(build(name))
    seen = {}
    expected = golden("activations.json")[name]
    for part in expected:
        network.get_submodule(part).register_forward_hook(
            lambda module, args, output, part=part: seen.__setitem__(part, output)
        )
    network(*inputs(name.split(".")[0]))
    for part, numbers in expected.items():
        assert list(seen[part].shape) == numbers["shape"]
        actual = statistics(seen[part])
        assert actual["mean"] == pytest.approx(numbers["mean"], abs=1e-4), part
        assert actual["std"] == pytest.approx(numbers["std"], abs=1e-4), part
        # No tolerance is given for the others; a value in the wrong place moves wsum far more.
        assert actual["wsum"] == pytest.approx(numbers["wsum"], abs=1e-4 * numbers["l2"]), part


@pytest.mark.parametrize("dataset", DATASETS)
@torch.no_grad()
def test_discriminator_golden(dataset):
    expected = golden(f"{dataset}_discriminator.npz")
    image = image_batch(dataset, "P1")
    discriminator = fill_by_formula(build(f"{dataset}.discriminator")).eval()
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    close(
        discriminator(image), expected["eval_initial"], 1e-3 * abs(expected["eval_initial"]).max()
    )
    for key, value in discriminator.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=0, rtol=0)

    discriminator = fill_by_formula(discriminator).train()
    close(discriminator(image), expected["train_pass1"], 1e-5)
    vectors = [key for key in expected.files if key.endswith("__after1")]
    assert len(vectors) == len(list(discriminator.buffers()))
    for key in vectors:
        name = key.removesuffix("__after1").replace("__", ".")
        close(discriminator.get_buffer(name), expected[key], 1e-5)
    close(discriminator(image), expected["train_pass2"], 1e-5)
    close(discriminator.eval()(image), expected["eval_after2"], 1e-5)


@torch.no_grad()
def test_generator_does_not_depend_on_the_batch_or_the_mode():
    generator = fill_by_formula(build("market.pose_generator"))
    batch = inputs("market")
    together, flows, _ = generator(*batch)
    for i in range(2):
        alone, alone_flows, _ = generator(*(x[i : i + 1] for x in batch))
        close(alone[0], together[i], 1e-5)
        close(alone_flows[0][0], flows[0][i], 1e-5)
    close(generator.eval()(*batch)[0], together, 0)


def test_only_source_features_that_are_read_get_gradients():
    generator = fill_by_formula(build("market.pose_generator"))
    generator(*(x[:1] for x in inputs("market")))[0].mean().backward()
    without = {name for name, p in generator.named_parameters() if p.grad is None}
    # Market attends at layer 2 only; the source encoder's layer 3 is computed in vain.
    assert without == {
        name for name, _ in generator.named_parameters() if name.startswith("source.encoder1.")
    }


@pytest.mark.parametrize(("attn_layer", "size"), [((1,), 64), ((1, 2, 3), 32), ((3,), 64)])
@torch.no_grad()
def test_other_attention_layers(attn_layer, size):
    generator = PoseGenerator(
        ngf=8, img_f=16, attn_layer=attn_layer, kernel_size=dict.fromkeys(attn_layer, 3)
    )
    image = torch.rand(1, 3, size, 2 * size)
    pose = torch.rand(1, 18, size, 2 * size)
    output, flows, masks = generator(image, pose, pose)
    assert output.shape == image.shape
    expected = [(size >> layer, 2 * size >> layer) for layer in sorted(attn_layer, reverse=True)]
    assert [flow.shape[1:] for flow in flows] == [(2, *shape) for shape in expected]
    assert [mask.shape[1:] for mask in masks] == [(1, *shape) for shape in expected]


@torch.no_grad()
def test_a_closed_mask_hides_the_source():
    target = TargetGenerator(ngf=8, img_f=16, attn_layer=(2,), kernel_size={2: 3})
    pose = torch.rand(1, 18, 32, 32)
    flows = [torch.zeros(1, 2, 8, 8)]
    encoder = SourceEncoder(ngf=8, img_f=16)
    first, second = (encoder(torch.rand(1, 3, 32, 32)) for _ in range(2))
    closed, opened = [torch.zeros(1, 1, 8, 8)], [torch.ones(1, 1, 8, 8)]
    close(target(pose, first, flows, closed), target(pose, second, flows, closed), 0)
    difference = target(pose, first, flows, opened) - target(pose, second, flows, opened)
    assert difference.abs().max() > 1e-3


def test_source_features_run_from_coarse_to_fine():
    features = SourceEncoder()(torch.rand(1, 3, 64, 32))
    assert [tuple(f.shape[1:]) for f in features] == [(256, 8, 4), (128, 16, 8), (64, 32, 16)]


@pytest.mark.parametrize("kind", ["pose_generator", "flow_generator"])
def test_spectral_norm_of_the_generator(kind):
    network = build(f"market.{kind}", use_spect=True)
    assert any(name.endswith("weight_orig") for name, _ in network.named_parameters())
    output = network(*(x[:1] for x in inputs("market")))[0]
    (output[0] if kind == "flow_generator" else output).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FlowEstimator(attn_layer=(5,)), "attn_layer"),
        (lambda: FlowEstimator(attn_layer=()), "attn_layer"),
        (lambda: FlowEstimator(attn_layer=(0, 2)), "attn_layer"),
        (lambda: PoseGenerator(attn_layer=(4,), kernel_size={4: 3}), "attn_layer"),
        (lambda: PoseGenerator(attn_layer=(2, 3), kernel_size={2: 3}), "expected the same layers"),
        (lambda: PoseGenerator(attn_layer=(2,), kernel_size={2: 4}), "with odd sizes"),
        (lambda: init_weights(nn.Conv2d(1, 1, 1), "zeros"), "zeros"),
    ],
)
def test_errors_name_the_argument(make, named):
    with pytest.raises(ValueError, match=named) as error:
        make()
    assert "\n" not in str(error.value)


def test_orthogonal_initialisation():
    network = PoseGenerator(ngf=8, img_f=16, attn_layer=(2,), kernel_size={2: 3})
    for p in network.parameters():
        nn.init.constant_(p, 3.0)
    init_weights(network)
    kinds = set()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            flat = layer.weight.detach().flatten(1)
            gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
            close(gram, 0.02**2 * torch.eye(len(gram)), 1e-7)
            assert (layer.bias == 0).all()
            kinds.add(type(layer))
        elif isinstance(layer, nn.InstanceNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()
            kinds.add(type(layer))
    assert kinds == {nn.Conv2d, nn.ConvTranspose2d, InstanceNorm}


@pytest.mark.parametrize(
    ("init_type", "deviation"),
    [
        ("normal", 0.02),
        ("xavier", 0.02 * (2 / (64 * 9 + 32 * 9)) ** 0.5),
        ("kaiming", (2 / 576) ** 0.5),
    ],
)
def test_random_initialisations(init_type, deviation):
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 32, 3)
    init_weights(layer, init_type)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert (layer.bias == 0).all()


def test_initialisation_reaches_spectrally_normalised_weights():
    discriminator = build("market.discriminator")
    discriminator(torch.rand(1, 3, 32, 32))  # from now on `weight` is not `weight_orig`
    init_weights(discriminator, "orthogonal", gain=0.02)
    weight = discriminator.get_parameter("encoder0.model.1.weight_orig").detach().flatten(1)
    close(weight @ weight.T, 0.02**2 * torch.eye(len(weight)), 1e-7)
    before = weight.clone()
    discriminator(torch.rand(1, 3, 32, 32))
    close(discriminator.encoder0.model[1].weight_orig.flatten(1), before, 0)


def test_initialisation_none_changes_nothing():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    init_weights(layer, "none")
    close(layer.weight, before, 0)
    assert set(INIT_TYPES) == {"orthogonal", "normal", "xavier", "kaiming", "none"}
