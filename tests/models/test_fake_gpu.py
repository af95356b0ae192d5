"""Every model on a GPU that is not there: devices, layouts, copies and waits of a step."""

from unittest import mock

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from data import create_dataset
from data.loader import _pack, _unpack
from models import create_model, find_model
from models.operators.local_attention import LocalAttention
from models.operators.padding import pad_border
from options.base_options import parse_train_options
from tests.programs.test_third_family import toy  # noqa: F401 - a fixture
from tests.support.fake_gpu import FakeGPU
from tests.support.helpers import MARKET

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.11", reason="fake CUDA tensors of torch 2.6 look for a GPU's driver"
)

FAST = ["--amp=bf16", "--channels_last"]
GFLA = ["--vgg_weights=random"]
PG2 = ["--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--stage1_steps=0"]


def make_batch(options):
    """The first training pairs as the loader gives them."""
    dataset = create_dataset(options, pose_mask=find_model(options.model).needs_body_mask)
    packed = _pack(dataset.__getitems__([(0, 0), (0, 1)]))
    # What the thread of torch's DataLoader makes of it.
    with mock.patch.object(torch.Tensor, "pin_memory", lambda tensor, device=None: tensor):
        flat, layout, others = pin_memory(packed)

    def on(device):
        return dataset.complete(
            _unpack(torch.empty(flat.shape, dtype=flat.dtype), layout, others, device)
        )

    return on


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("model", "arguments", "updates"),
    [
        ("poseflownet", GFLA, 1), ("poseflownet", [*GFLA, *FAST], 1),
        ("pose", GFLA, 2), ("pose", [*GFLA, *FAST], 2), ("pose", [*GFLA, "--use_spect_g"], 2),
        ("pose", [*GFLA, "--gan_mode=wgan-gp"], 2),
        ("pg2", PG2, 2), ("toy", [], 1),
    ],
)  # fmt: skip
def test_a_model_lives_on_the_gpu(model, arguments, updates, tiny_market):
    options = parse_train_options(
        [*MARKET, f"--model={model}", f"--dataroot={tiny_market}", "--batchSize=2", *arguments]
    )
    batch_on = make_batch(options)
    with FakeGPU() as gpu:
        trained = create_model(options)
        assert trained.device.type == "cuda"
        batch = batch_on(trained.device)
        trained.training_step(batch, 1)
        gpu.forget()
        assert len(batch_on(trained.device)["P1"]) == 2
        assert len(gpu.copies) == 1  # a batch is copied in one piece
        gpu.forget()
        losses = trained.training_step(batch, 2)
        # Whether the losses are finite is asked once in an update; nothing else waits for the GPU.
        assert (gpu.copies, gpu.waits) == ([], updates)
        assert all(loss.is_cuda for loss in losses.values())
        for network in trained.networks.values():
            assert all(tensor.is_cuda for tensor in network.state_dict().values())
        for name, optimizer in trained.optimizers.items():
            for parameter, state in optimizer.state.items():
                averages = [x for x in state.values() if x.shape == parameter.shape and x.ndim]
                # A fused step walks through memory.
                assert all(x.stride() == parameter.stride() for x in averages), name
        gpu.forget()
        prediction = trained.predict(batch)
        assert (gpu.copies, gpu.waits) == ([], 0)
        assert prediction.image.is_cuda and prediction.image.shape == batch["P1"].shape
        if "--channels_last" in arguments:
            for parameter in trained.networks["G"].parameters():
                assert parameter.ndim < 4 or parameter.is_contiguous(
                    memory_format=torch.channels_last
                )


def test_local_attention_lays_out_its_maps_once():
    with FakeGPU() as gpu:
        attention = LocalAttention(8, 3).to("cuda")
        source, target, flow = (torch.rand(1, n, 7, 9, device="cuda") for n in (8, 8, 2))
        gpu.forget()
        attention(source, target, flow)
        assert not gpu.copies
        assert gpu.layouts["aten.clone.default"] == {"last": 2}  # both with their borders


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_padded_map_is_channels_last(layout):
    with FakeGPU():
        x = torch.rand(2, 8, 5, 6, device="cuda").to(memory_format=layout)
        assert pad_border(x, 2).is_contiguous(memory_format=torch.channels_last)


def test_what_the_rehearsal_finds():
    """A copy, a wait and a tensor on the wrong device are found, and gradients are the engine's."""
    with FakeGPU() as gpu:
        x = torch.rand(3, device="cuda", requires_grad=True)
        torch.tensor([1.0, 2.0], device="cuda")
        assert len(gpu.copies) == 1
        assert bool(x.sum() > 0) and x.sum().item() == 1 and gpu.waits == 2
        with pytest.raises(RuntimeError, match="device"):
            x + torch.rand(3)
        weight = torch.rand(4, 3, device="cuda", requires_grad=True)
        (weight * x).square().sum().backward()
        assert x.grad.shape == (3,) and weight.grad.shape == (4, 3) and x.grad.is_cuda
