"""Losses: golden values and gradients, and cases whose answer is known on paper."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.gfla.discriminator import ResDiscriminator
from models.losses import correctness
from models.losses.adversarial import MODES, AdversarialLoss, gradient_penalty
from models.losses.correctness import best_similarity, correctness_loss, sampling_correctness
from models.losses.perceptual import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    content_loss,
    gram_matrix,
    style_loss,
)
from models.losses.regularity import affine_regularity, regularity_loss
from models.losses.vgg import VGG19Features
from models.operators.gaussian_resample import gaussian_resample
from tests.support.golden_formula import (
    formula_weight,
    generator,
    golden,
    input_image,
    input_normal,
    statistics,
)


@pytest.fixture(scope="module")
def vgg():
    network = VGG19Features("random")
    network.load_state_dict(
        {key: formula_weight("vgg19." + key, x.shape) for key, x in network.state_dict().items()}
    )
    return network


def agrees(actual, expected, rel=1e-4):
    assert actual.item() == pytest.approx(expected, rel=rel)


def array_agrees(actual, expected, rel_of_max=1e-3):
    expected = torch.from_numpy(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= rel_of_max * expected.abs().max()


# Regularity


@pytest.mark.parametrize("tag", ["fashion", "market", "odd"])
def test_regularity_golden(tag):
    expected, arrays = golden("losses.json")[f"regularization.{tag}"], golden("losses.npz")
    flows = [
        input_normal(f"reg.{tag}.flow_{i}", shape, 2.0).requires_grad_()
        for i, shape in enumerate(expected["flow_shapes"])
    ]
    kernel_size = {int(layer): k for layer, k in expected["kernel_sizes"].items()}
    loss = regularity_loss(flows, list(kernel_size), kernel_size)
    agrees(loss.detach(), expected["value_float64"])
    loss.backward()
    compared = 0
    for i, flow in enumerate(flows):
        agrees(flow.grad.norm(), expected["grad_flow_l2"][i], rel=1e-3)
        name = f"regularization.{tag}.grad_flow_{i}"
        if name in arrays:
            array_agrees(flow.grad, arrays[name])
            compared += 1
    assert compared == {"fashion": 0, "market": 1, "odd": 2}[tag]


def test_layer_order_of_regularity():
    """The first flow is the coarsest, whatever the order in which layers are named."""
    flows = [input_normal("a", (1, 2, 8, 8)), input_normal("b", (1, 2, 16, 16))]
    kernel_size = {2: 5, 3: 3}
    expected = affine_regularity(flows[0], 3) + affine_regularity(flows[1], 5)
    for attn_layer in ([2, 3], [3, 2]):
        assert regularity_loss(flows, attn_layer, kernel_size) == expected


@pytest.mark.parametrize("k", [2, 3, 5])
def test_affine_flow_costs_nothing(k):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    flow = torch.stack([0.3 * x - 0.7 * y + 12.5, 1.1 * x + 0.2 * y - 40])[None]
    assert affine_regularity(flow, k) < 1e-7
    # The product of centred x and y is orthogonal to every affine map.
    power = sum((i - (k - 1) / 2) ** 2 for i in range(k)) ** 2
    agrees(affine_regularity(flow + 0.01 * x * y, k), 2 * 0.01**2 * power, rel=1e-2)


def test_regularity_equals_least_squares_of_the_sampled_coordinates():
    torch.manual_seed(0)
    k, flow = 3, torch.randn(2, 2, 5, 6, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    coordinates = flow + torch.stack([x, y])
    windows = F.unfold(coordinates.flatten(0, 1)[:, None], k).transpose(1, 2)  # [4, 12, 9]
    taps = torch.cartesian_prod(torch.arange(k), torch.arange(k)).double()
    design = torch.cat([torch.ones(k * k, 1), taps], dim=1)
    residual = windows.flatten(0, 1).T
    residual = residual - design @ torch.linalg.lstsq(design, residual).solution
    expected = residual.square().sum() / (2 * 12)
    agrees(affine_regularity(flow, k), expected.item(), rel=1e-10)


def test_regularity_of_a_single_spike():
    """One window, one moved tap: the share of it that no affine map explains, here 8/9 … 5/9."""
    flow = torch.zeros(1, 2, 3, 3)
    flow[0, 0, 1, 1] = 3.0  # the centre is off the linear terms: 1 - 1/9
    agrees(affine_regularity(flow, 3), 9 * 8 / 9, rel=1e-6)
    flow = torch.zeros(1, 2, 3, 3)
    flow[0, 1, 0, 0] = 3.0  # a corner: 1 - 1/9 - 1/6 - 1/6
    agrees(affine_regularity(flow, 3), 9 * 5 / 9, rel=1e-6)


def test_regularity_gradcheck():
    flow = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: affine_regularity(f, 3), flow)


def test_window_larger_than_the_flow():
    with pytest.raises(ValueError, match="got 4×9, expected at least 5×5"):
        affine_regularity(torch.zeros(1, 2, 4, 9), 5)


# Sampling correctness


def correctness_case(vgg, tag):
    """(expected numbers, source features, target features, flows), coarse to fine."""
    expected = golden("losses.json")[f"correctness.{tag}"]
    names = [f"relu{layer + 1}_1" for layer in sorted(expected["layers"], reverse=True)]
    source, target = (
        [features[name] for name in names]
        for features in (
            vgg(input_image(f"correct.{tag}.{which}", (2, 3, *expected["image"])), names)
            for which in ("source", "target")
        )
    )
    flows = [
        input_normal(f"correct.{tag}.flow_{i}", shape, 2.5).requires_grad_()
        for i, shape in enumerate(expected["flow_shapes"])
    ]
    return expected, source, target, flows


@pytest.mark.parametrize("tag", ["fashion64", "market"])
def test_correctness_golden(vgg, tag):
    expected, source, target, flows = correctness_case(vgg, tag)
    loss = correctness_loss(source, target, flows)
    agrees(loss.detach(), expected["value_float64"])
    loss.backward()
    arrays = golden("losses.npz")
    for i, (s, t, flow) in enumerate(zip(source, target, flows, strict=True)):
        part = correctness_loss([s], [t], [flow.detach()])
        agrees(part, expected["per_flow"][i])
        agrees(flow.grad.norm(), expected["grad_flow_l2"][i], rel=1e-3)
        array_agrees(flow.grad, arrays[f"correctness.{tag}.grad_flow_{i}"])


@pytest.mark.parametrize("align_corners", [True, False])
def test_correctness_of_bilinearly_warped_features_golden(vgg, align_corners):
    """Not used in training: checks the loss apart from the Gaussian window."""
    expected, source, target, flows = correctness_case(vgg, "fashion64")
    total = 0.0
    for s, t, flow in zip(source, target, flows, strict=True):
        height, width = flow.shape[-2:]
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
        size = torch.tensor([width, height]).view(1, 2, 1, 1)
        grid = (torch.stack([x, y]) + 2 * flow.detach() / size).permute(0, 2, 3, 1)
        warped = F.grid_sample(s, grid, align_corners=align_corners)
        total += sampling_correctness(warped, s, t)
    agrees(total, expected[f"value_bilinear_align_corners_{align_corners}"])


@pytest.mark.parametrize("limit", [1, 300, 2**24])
def test_best_similarity_equals_all_pairs_in_any_chunks(monkeypatch, limit):
    monkeypatch.setattr(correctness, "MAX_SIMILARITIES", limit)
    torch.manual_seed(0)
    source = torch.randn(2, 6, 4, 7, requires_grad=True)
    target = torch.randn(2, 6, 5, 3)
    best = best_similarity(source, target)
    pairs = F.cosine_similarity(source.flatten(2)[..., None], target.flatten(2)[:, :, None], dim=1)
    torch.testing.assert_close(best, pairs.detach().amax(1).view(2, 5, 3), atol=1e-6, rtol=0)
    assert not best.requires_grad


def test_perfect_correspondence_costs_nothing():
    torch.manual_seed(0)
    source = torch.rand(2, 16, 6, 5)
    order = torch.randperm(30)
    target = source.flatten(2)[..., order].view_as(source)
    assert sampling_correctness(target, source, target).abs() < 1e-6
    assert sampling_correctness(source, source, target) > 1e-2


def test_correctness_by_hand():
    """Two source positions, orthogonal; a target at 60° to the first: μ_max is cos 30°."""
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T.view(1, 2, 1, 2)
    target = torch.tensor([0.5, math.sqrt(0.75)]).view(1, 2, 1, 1)
    warped = torch.tensor([7.0, 0.0]).view(1, 2, 1, 1)
    expected = math.exp(-0.5 / math.sqrt(0.75)) - math.exp(-1)
    agrees(sampling_correctness(warped, source, target), expected, rel=1e-6)


def test_descending_the_correctness_finds_the_shift():
    """A smooth picture moved by 2 pixels: following the gradient from no flow ends near 2."""
    torch.manual_seed(0)
    picture = F.avg_pool2d(torch.rand(1, 8, 24, 24), 9, stride=1)
    source, target = picture[..., :-2], picture[..., 2:]
    flow = torch.zeros(1, 2, 16, 14, requires_grad=True)
    optimiser = torch.optim.Adam([flow], lr=0.1)
    start = correctness_loss([source], [target], [flow]).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = correctness_loss([source], [target], [flow])
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.6 * start
    assert flow[0, 0, 3:-3, 3:-5].mean().item() == pytest.approx(2, abs=0.5)


# Perceptual


@pytest.mark.parametrize(("tag", "size"), [("square", (64, 64)), ("market", (128, 64))])
def test_perceptual_golden(vgg, tag, size):
    expected, arrays = golden("losses.json")[f"vgg.{tag}"], golden("losses.npz")
    generated = input_image(f"vgg.{tag}.generated", (2, 3, *size)).requires_grad_()
    names = list(expected["feature_stats"])
    features = vgg(generated, names)
    target = vgg(input_image(f"vgg.{tag}.target", (2, 3, *size)), CONTENT_LAYERS + STYLE_LAYERS)
    for kind, function in (("content", content_loss), ("style", style_loss)):
        loss = function(features, target)
        agrees(loss.detach(), expected[f"{kind}_float64"])
        (gradient,) = torch.autograd.grad(loss, generated, retain_graph=True)
        agrees(gradient.norm(), expected[f"grad_{kind}_l2"], rel=1e-3)
        # A ReLU's input may be zero but for rounding, and then turns a tenth of the pixels by up to
        # 3 % of the largest. In double precision, too, the difference's length is 0.0084 of these.
        wanted = torch.from_numpy(arrays[f"vgg.{tag}.grad_{kind}_stride8"])
        assert (gradient[..., ::8, ::8] - wanted).norm() < 1e-2 * wanted.norm()
    for name in names:
        if name == "relu3_2":  # the reference returns relu3_3 under this name
            continue
        actual = statistics(features[name])
        for key, value in expected["feature_stats"][name].items():
            tolerance = 1e-4 * (actual["l2"] if key in ("l2", "wsum") else 1)
            assert actual[key] == pytest.approx(value, abs=tolerance), (name, key)


def test_gram_matrix_by_hand():
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels, 1×2
    torch.testing.assert_close(
        gram_matrix(feature), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4
    )


def test_perceptual_losses_by_hand():
    ones = {name: torch.ones(1, 2, 3, 3) for name in {*CONTENT_LAYERS, *STYLE_LAYERS}}
    threes = {name: 3 * x for name, x in ones.items()}
    assert content_loss(threes, ones) == 2 * 5
    # Gram entries: 9 · 9 / (9 · 2) and 9 · 1 / (9 · 2).
    assert style_loss(threes, ones) == 4 * 4
    assert content_loss(ones, ones) == style_loss(ones, ones) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_content_gradient_is_that_of_l1_loss_also_where_features_are_equal(dtype):
    generator = torch.Generator().manual_seed(0)
    features, target = (
        {
            name: torch.randint(3, (2, 3, 4, 5), generator=generator).to(dtype).requires_grad_(x)
            for name in CONTENT_LAYERS
        }
        for x in (True, False)
    )
    plain = sum(F.l1_loss(features[name].double(), target[name].double()) for name in target)
    expected = torch.autograd.grad(plain * 3, list(features.values()))
    loss = content_loss(features, target)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    actual = torch.autograd.grad(loss * 3, list(features.values()))
    torch.testing.assert_close(
        actual, expected, rtol=1e-2 if dtype == torch.bfloat16 else 0, atol=0
    )
    assert all((gradient == 0).any() for gradient in actual)


def test_l1_golden():
    a, b = (input_image(f"l1.{name}", (2, 3, 128, 64)) for name in ("generated", "target"))
    agrees(F.l1_loss(a, b), golden("losses.json")["l1"]["value"])


# Adversarial


@pytest.mark.parametrize("mode", ["lsgan", "hinge"])
@pytest.mark.parametrize(
    ("name", "method"),
    [("dis_real", "discriminator_real"), ("dis_fake", "discriminator_fake"), ("gen", "generator")],
)
def test_adversarial_golden(mode, name, method):
    key = f"adversarial.{mode}.{name}"
    expected = golden("losses.json")[key]
    logits = input_normal("adv.outputs", (2, 1, 16, 8), 1.5).requires_grad_()
    loss = getattr(AdversarialLoss(mode), method)(logits)
    agrees(loss.detach(), expected["value"])
    loss.backward()
    agrees(logits.grad.norm(), expected["grad_l2"], rel=1e-3)
    array_agrees(logits.grad, golden("losses.npz")[f"{key}.grad"])


@pytest.mark.parametrize(
    ("mode", "discriminator", "generator"),
    [
        ("lsgan", ((2.0 - 1) ** 2 + 0.5**2) / 2, (0.5 - 1) ** 2),
        ("hinge", (0.0 + 1.5) / 2, -0.5),
        ("wgan-gp", (-2.0 + 0.5) / 2, -0.5),
    ],
)
def test_adversarial_by_hand(mode, discriminator, generator):
    loss = AdversarialLoss(mode)
    real, fake = torch.full((2, 1, 3, 3), 2.0), torch.full((2, 1, 3, 3), 0.5)
    agrees(loss.discriminator(real, fake), discriminator)
    agrees(loss.generator(fake), generator)


def test_unknown_adversarial_kind():
    assert MODES == ("lsgan", "hinge", "wgan-gp")
    with pytest.raises(ValueError, match="got mode vanilla, expected one of lsgan, hinge"):
        AdversarialLoss("vanilla")


def test_gradient_penalty_of_a_linear_critic():
    """Its gradient is its weight vector everywhere, of norm 5."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([3.0, 4.0, 0.0]))

        def forward(self, x):
            return (x[:, :, 0, 0] @ self.weight)[:, None, None, None]

    critic = Linear()
    real, fake = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2, requires_grad=True)
    penalty = gradient_penalty(critic, real, fake, weight=10)
    agrees(penalty.detach(), 10 * (5 - 1) ** 2)
    penalty.backward()
    # d/dw 10 (|w| - 1)² = 20 (|w| - 1) w / |w|
    torch.testing.assert_close(critic.weight.grad, torch.tensor([48.0, 64.0, 0.0]))
    assert fake.grad is None


@pytest.mark.parametrize("training", [True, False])
def test_gradient_penalty_works_with_spectral_norm(training):
    torch.manual_seed(0)
    discriminator = ResDiscriminator(layers=3).train(training)
    real, fake = torch.rand(2, 3, 32, 16), torch.rand(2, 3, 32, 16)
    loss = AdversarialLoss("wgan-gp").discriminator(discriminator(real), discriminator(fake))
    (loss + gradient_penalty(discriminator, real, fake)).backward()
    # All but the biases of the last sum, to which the gradient in the image is blind.
    gradients = {name: p.grad for name, p in discriminator.named_parameters()}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    weights = [g for name, g in gradients.items() if name.endswith("weight_orig")]
    assert len(weights) == 10
    assert all(g.abs().max() > 0 for g in weights)


def test_gradient_penalty_where_the_critic_is_flat():
    weight = nn.Parameter(torch.zeros(1))
    x = torch.rand(2, 3, 4, 4)
    penalty = gradient_penalty(lambda image: image.sum((1, 2, 3)) * weight, x, x, weight=1)
    agrees(penalty.detach(), 1.0, rel=1e-4)
    penalty.backward()
    assert torch.isfinite(weight.grad).all()


def test_masked_correctness_golden(vgg):
    """The reference's masked mean, put together from the parts."""
    expected, source, target, flows = correctness_case(vgg, "fashion64")
    uniform = generator("input:correct.mask").uniform(0, 1, (2, 1, 64, 64))
    mask = torch.from_numpy(uniform > 0.4).float()
    total = -2 * math.exp(-1)
    for s, t, flow in zip(source, target, flows, strict=True):
        similarity = F.cosine_similarity(gaussian_resample(s, flow.detach()), t)
        ratio = torch.exp(-similarity / (best_similarity(s, t) + correctness.EPSILON))
        inside = F.interpolate(mask, size=flow.shape[-2:])[:, 0]
        total += (ratio * inside).sum() / inside.sum()
    agrees(total, expected["value_with_mask"])
