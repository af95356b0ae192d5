"""The options on speed: same training, other arithmetic; and how the step is computed."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.direct_step import create_direct_model, direct_networks
from models import create_model
from models.checkpoints import load_for_training, save_model
from models.gfla.blocks import InstanceNorm, ReflectionPad, maybe_spectral_norm
from models.losses.perceptual import gram_matrix
from models.losses.vgg import VGG19Features
from tests.support.helpers import PROJECT, train_options
from util import device
from util.checkpoints import read_state_dict
from util.device import check_compiler, keep_freed_memory, set_up_device
from util.errors import UserError

SMALL = ("--load_size=64", "--old_size=64")
OPTIONS = {
    "unfused": ["--fused_optimizer=off"],
    "channels_last": ["--channels_last"],
    "amp": ["--amp=bf16"],
    "amp channels_last": ["--amp=bf16", "--channels_last"],
    "compile": ["--compile"],
}
needs_compiler = pytest.mark.skipif(sys.platform != "linux", reason="compiles with g++")


def make_batch(number, size=2):
    """Smooth pictures and pose maps, others for every number."""
    generator = torch.Generator().manual_seed(number)

    def smooth(channels):
        coarse = torch.rand(size, channels, 8, 8, generator=generator)
        return F.interpolate(coarse, (64, 64), mode="bilinear")

    return {
        "P1": smooth(3) * 2 - 1, "P2": smooth(3) * 2 - 1, "BP1": smooth(18), "BP2": smooth(18),
    }  # fmt: skip


def make_model(stage, *arguments):
    torch.manual_seed(0)
    return create_model(train_options(f"--model={stage}", *SMALL, *arguments))


def train(model, steps, first=1, size=2):
    """The losses of every step."""
    losses = []
    for number in range(first, first + steps):
        batch = {name: value.to(model.device) for name, value in make_batch(number, size).items()}
        step = model.training_step(batch, number)
        losses.append({name: value.item() for name, value in step.items()})
    return losses


def largest_deviation(losses, expected):
    """Largest difference of a loss at any step, in parts of the sum of that step's losses."""
    return max(
        abs(loss[name] - value) / sum(map(abs, step.values()))
        for loss, step in zip(losses, expected, strict=True)
        for name, value in step.items()
    )


def means_of_ten(losses):
    """The mean losses of every ten steps."""
    tens = [losses[start : start + 10] for start in range(0, len(losses), 10)]
    return [{name: sum(step[name] for step in ten) / 10 for name in ten[0]} for ten in tens]


@pytest.fixture(scope="module")
def reference():
    return {stage: train(make_model(stage), 5) for stage in ("poseflownet", "pose")}


@pytest.mark.parametrize("stage", ["poseflownet", "pose"])
@pytest.mark.parametrize("name", ["unfused", "channels_last"])
def test_losses_under_an_option_follow_the_default(stage, name, reference):
    losses = train(make_model(stage, *OPTIONS[name]), 5)
    assert largest_deviation(losses, reference[stage]) < 5e-3


@pytest.mark.parametrize("arguments", [[], ["--channels_last"]])
def test_channels_last_reaches_every_convolution(arguments):
    model = make_model("pose", *arguments)
    is_channels_last = []
    for module in (*model.generator.modules(), *model.discriminator.modules()):
        if isinstance(module, nn.Conv2d) and module.out_channels > 1:
            module.register_forward_hook(
                lambda module, inputs, output: is_channels_last.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    train(model, 1)
    assert len(is_channels_last) > 50
    assert all(is_channels_last) == bool(arguments)


@pytest.mark.parametrize("stage", ["poseflownet", "pose"])
def test_the_direct_definition_trains_alike(stage, reference):
    with direct_networks():
        torch.manual_seed(0)
        losses = train(create_direct_model(train_options(f"--model={stage}", *SMALL)), 5)
    assert largest_deviation(losses, reference[stage]) < 1e-3


# A processor without bfloat16 takes six seconds for a step of stage 2.
@pytest.mark.parametrize(("stage", "steps"), [("poseflownet", 30), ("pose", 5)])
def test_bf16_follows_float32_over_many_steps(stage, steps):
    expected = train(make_model(stage), steps, size=1)
    losses = train(make_model(stage, "--amp=bf16"), steps, size=1)
    assert losses != expected
    # Adam without momentum makes steps of full size out of rounding: after 50 steps also two
    # float32 runs of other memory layouts are up to 0.11 apart at a step, 0.03 in means of ten.
    assert largest_deviation(losses[:5], expected[:5]) < 0.04
    assert largest_deviation(means_of_ten(losses), means_of_ten(expected)) < 0.08


def save_and_resume(folder, stage, before, after):
    """Losses of step 3 after a resume from step 2, and the resumed model."""
    model = make_model(stage, *before)
    train(model, 2)
    save_model(model, folder, "latest", 2)
    resumed = make_model(stage, "--init_type=normal", *after)
    load_for_training(resumed, folder, "latest")
    return train(resumed, 1, first=3), resumed, model


@pytest.mark.parametrize("name", ["unfused", "channels_last", "amp channels_last"])
def test_a_resumed_run_is_the_same_run(name, tmp_path):
    losses, resumed, model = save_and_resume(tmp_path, "pose", OPTIONS[name], OPTIONS[name])
    assert losses == train(model, 1, first=3)
    for key, network in model.networks.items():
        for tensor, other in zip(
            network.state_dict().values(), resumed.networks[key].state_dict().values(), strict=True
        ):
            assert torch.equal(tensor, other)


@pytest.mark.parametrize(
    ("before", "after"), [((), ("--channels_last",)), (("--channels_last",), ())]
)
def test_a_run_goes_on_in_another_layout(before, after, tmp_path):
    """The averages of the optimiser must be read in the layout they were written in."""
    _, resumed, model = save_and_resume(tmp_path, "poseflownet", before, after)
    train(model, 1, first=3)
    compared = 0
    for a, b in zip(
        model.networks["G"].parameters(), resumed.networks["G"].parameters(), strict=True
    ):
        one = model.optimizers["G"].state[a].get("exp_avg_sq")
        if one is None:  # the masks have no loss in this stage
            continue
        other = resumed.optimizers["G"].state[b]["exp_avg_sq"]
        assert other.stride() == b.stride()
        if a.ndim == 4:  # biases in front of a norm have gradients of rounding noise alone
            difference = (other - one).norm() / one.norm()
            assert difference < 0.05
            compared += 1
    assert compared > 20


@pytest.mark.parametrize(("before", "after"), [("on", "off"), ("off", "on")])
def test_the_run_decides_on_its_optimiser_not_the_checkpoint(before, after, tmp_path):
    _, resumed, _ = save_and_resume(
        tmp_path, "poseflownet", [f"--fused_optimizer={before}"], [f"--fused_optimizer={after}"]
    )
    assert bool(resumed.optimizers["G"].param_groups[0]["fused"]) == (after == "on")


@needs_compiler
def test_compiled_training_is_the_same_and_so_are_its_checkpoints(tmp_path, reference):
    model = make_model("poseflownet", "--compile")
    assert model.run_vgg is not model.vgg
    losses = train(model, 2)
    assert largest_deviation(losses, reference["poseflownet"][:2]) < 1e-3
    save_model(model, tmp_path, "latest", 2)
    names = make_model("poseflownet").networks["G"].state_dict().keys()
    assert read_state_dict(tmp_path / "latest_net_G.pth").keys() == names


def test_predictions_do_not_depend_on_amp():
    """What a training shows and scores is what test.py makes of the checkpoint."""
    pictures = [
        make_model("pose", *arguments).predict(make_batch(1)).image
        for arguments in ((), ("--amp=bf16",))
    ]
    assert torch.equal(*pictures)


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--compile: there is no .* on this machine"):
        make_model("poseflownet", "--compile")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no no-such-compiler .*CXX"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", sys.executable)  # any program: it is looked for, not tried
    check_compiler(torch.device("cpu"))


def test_a_gpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(UserError, match="--amp=bf16: Old GPU"):
        device.check_bfloat16(torch.device("cuda"))
    device.check_bfloat16(torch.device("cpu"))


@pytest.fixture
def settings():
    """Puts the settings of the process back."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    yield
    cudnn.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_tf32_is_for_convolutions_alone(settings):
    set_up_device(train_options("--tf32=off"))
    assert not torch.backends.cudnn.allow_tf32
    set_up_device(train_options())
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_deterministic(settings, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_up_device(train_options())
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    options = train_options("--model=pose", *SMALL, "--deterministic")
    set_up_device(options)
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    torch.manual_seed(0)
    losses = train(create_model(options), 2)
    assert all(torch.isfinite(torch.tensor(list(step.values()))).all() for step in losses)


def test_memory_is_kept_unless_the_user_decides(monkeypatch):
    for name in device._MALLOC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory() == (device.platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory()


@pytest.mark.skipif(device.platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_kept_memory_is_not_touched_for_the_first_time_again():
    program = (
        "import resource, torch\n"
        "from util.device import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "for _ in range(16):\n"  # malloc's cache of small rests is full after eight
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(2**24)\n"  # 64 MiB: 16384 pages of 4 KiB
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in device._MALLOC_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout.split()[-1]) < 100


# How the step is computed


@pytest.mark.parametrize("deterministic", [False, True])
def test_reflection_pad(deterministic, settings):
    torch.use_deterministic_algorithms(deterministic)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    padded = ReflectionPad()(x)
    expected = nn.ReflectionPad2d(1)(x)
    assert torch.equal(padded, expected)
    weight = torch.randn_like(padded)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (padded, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm(layout):
    torch.manual_seed(0)
    norm, reference = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    x = (3 + torch.randn(2, 5, 6, 7)).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn_like(x)
    results = []
    for layer in (norm, reference):
        y = layer(x)
        results.append([y, *torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        norm(torch.zeros(1, 5, 1, 1))


def test_spectral_norm_keeps_its_precision_under_autocast():
    torch.manual_seed(0)
    layer = maybe_spectral_norm(nn.Conv2d(8, 8, 3), True)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(50):
            layer(torch.zeros(1, 8, 4, 4))
    assert layer.weight.dtype == torch.float32
    largest = torch.linalg.matrix_norm(layer.weight.flatten(1).detach(), 2)
    assert largest.item() == pytest.approx(1, abs=1e-4)


def test_vgg_in_other_layouts_and_types():
    image = make_batch(1)["P1"].requires_grad_()
    names = ["relu2_2", "relu4_1"]

    def compute(**arguments):
        features = VGG19Features("random", **arguments)(image, names)
        losses = sum(gram_matrix(x).abs().sum() for x in features.values())
        return features, torch.autograd.grad(losses, image)[0]

    plain, gradient = compute()
    last, other_gradient = compute(channels_last=True)
    assert last["relu4_1"].is_contiguous(memory_format=torch.channels_last)
    for name in names:
        torch.testing.assert_close(last[name], plain[name], rtol=1e-4, atol=1e-5)
    # Rounding decides between equal maxima and about zeros, which moves single pixels.
    assert (other_gradient - gradient).norm() < 0.02 * gradient.norm()
    half, _ = compute(channels_last=True, dtype=torch.bfloat16)
    assert half["relu4_1"].dtype == torch.bfloat16
    assert (half["relu4_1"] - plain["relu4_1"]).abs().max() < 0.03 * plain["relu4_1"].max()


def test_gram_matrix_of_half_precision_is_summed_in_float32():
    torch.manual_seed(0)
    feature = torch.rand(2, 6, 40, 50).bfloat16()
    expected = gram_matrix(feature.double())
    for x in (feature, feature.contiguous(memory_format=torch.channels_last)):
        gram = gram_matrix(x)
        assert gram.dtype == torch.float32
        torch.testing.assert_close(gram, expected.float(), rtol=1e-5, atol=1e-8)


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stage", ["poseflownet", "pose"])
@pytest.mark.parametrize("arguments", [[], ["--amp=bf16", "--channels_last"]])
def test_deterministic_runs_are_equal_on_a_gpu(stage, arguments):
    """In processes of their own: the settings count from the start of CUDA on."""
    program = (
        "import torch\n"
        "from tests.programs.test_speed import SMALL, train\n"
        "from tests.support.helpers import train_options\n"
        "from models import create_model\n"
        "from util.device import set_up_device\n"
        f"options = train_options('--model={stage}', *SMALL, '--gpu_ids=0', '--deterministic', "
        f"*{arguments})\n"
        "set_up_device(options); torch.manual_seed(0); model = create_model(options)\n"
        "losses = train(model, 5)\n"
        "print([p.double().sum().item() for p in model.networks['G'].parameters()], losses)\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stage", ["poseflownet", "pose"])
@pytest.mark.parametrize(
    ("arguments", "tolerance"),
    [
        ([], 1e-2), (["--tf32=off"], 1e-3), (["--channels_last"], 1e-2),
        (["--fused_optimizer=off"], 1e-2), (["--amp=bf16", "--channels_last"], 0.05),
        (["--compile"], 1e-2),
    ],
)  # fmt: skip
def test_losses_on_a_gpu_follow_the_cpu(stage, arguments, tolerance, reference, settings):
    options = train_options(f"--model={stage}", *SMALL, "--gpu_ids=0", *arguments)
    set_up_device(options)
    torch.manual_seed(0)
    model = create_model(options)
    assert largest_deviation(train(model, 5), reference[stage]) < tolerance
