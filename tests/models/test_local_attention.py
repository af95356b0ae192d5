"""The local attention operator against golden numbers and against its slow direct definition."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import direct
from models.operators.local_attention import LocalAttention
from tests.support.golden_formula import fill_by_formula, golden


def tensors(file, prefix, names, requires_grad=True):
    return [
        torch.from_numpy(file[f"{prefix}.{name}"]).requires_grad_(requires_grad) for name in names
    ]


def close(actual, expected, atol):
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected), atol=atol, rtol=0)


def make_case(
    kernel_size, channels=3, source_size=(7, 9), size=(7, 9), batch=2, kind="mixed", hidden=6
):
    """Operator and random inputs in double precision."""
    torch.manual_seed(kernel_size)
    attention = LocalAttention(channels, kernel_size, hidden).double()
    source = torch.randn(batch, channels, *source_size, dtype=torch.float64)
    target = torch.randn(batch, channels, *size, dtype=torch.float64)
    flow = torch.randn(batch, 2, *size, dtype=torch.float64) * 3
    if kind == "integer":
        flow = flow.round()
    elif kind == "mixed":
        far = torch.rand_like(flow) < 0.3
        flow = torch.where(far, flow * 500, flow)
        flow[0, :, ::2] = flow[0, :, ::2].round()
    return attention, [source, target, flow]


def value_and_gradients(function, layer, arguments):
    leaves = [x.clone().requires_grad_() for x in arguments]
    output = function(*leaves)
    torch.manual_seed(1)
    return output.detach(), torch.autograd.grad(
        output, [*leaves, *layer.parameters()], torch.randn(output.shape, dtype=output.dtype)
    )


# The slow definition itself


@pytest.mark.parametrize(
    ("prefix", "k"),
    [
        ("block_same_k3", 3),
        ("block_same_k5", 5),
        ("block_k4", 4),
        ("block_small_k3", 3),
        ("block_integer_k3", 3),
    ],
)
def test_direct_blocks_golden(prefix, k):
    file = golden("block_extractor.npz")
    source, flow = tensors(file, prefix, ("source", "flow"))
    output = direct.block_extractor(source, flow, k)
    close(output, file[f"{prefix}.output"], 1e-5)
    output.backward(*tensors(file, prefix, ["grad_output"], False))
    close(source.grad, file[f"{prefix}.grad_source"], 5e-5)
    close(flow.grad, file[f"{prefix}.grad_flow"], 5e-5)


@pytest.mark.parametrize("k", [3, 5])
def test_direct_reshape_golden(k):
    file, prefix = golden("block_extractor.npz"), f"reshape_k{k}"
    (taps,) = tensors(file, prefix, ["input"])
    output = direct.reshape_taps(taps, k)
    close(output, file[f"{prefix}.output"], 0)
    output.backward(*tensors(file, prefix, ["grad_output"], False))
    close(taps.grad, file[f"{prefix}.grad_input"], 0)


# The operator


@pytest.mark.parametrize("slow", [False, True], ids=["operator", "direct"])
@pytest.mark.parametrize("prefix", ["attn_c8_k3", "attn_c8_k5", "attn_c64_k3", "attn_c64_k5"])
def test_attention_golden(prefix, slow):
    small = prefix.startswith("attn_c8_")
    file = golden("extractor_attn_c8.npz" if small else "extractor_attn.npz")
    channels, k = 8 if small else 64, int(prefix[-1])
    attention = fill_by_formula(LocalAttention(channels, k), prefix + ".")
    layer = attention.fully_connect_layer
    inputs = tensors(file, prefix, ("source", "target", "flow"))
    if slow:
        weights = direct.attention_weights(layer, *inputs, k)
        output = direct.local_attention(layer, *inputs, k)
    else:
        weights, output = attention.attention_weights(*inputs), attention(*inputs)
    close(weights, file[f"{prefix}.attention"], 2e-6)
    close(output, file[f"{prefix}.output"], 2e-6)
    output.backward(*tensors(file, prefix, ["grad_output"], False))
    for name, x in zip(("source", "target", "flow"), inputs, strict=True):
        close(x.grad, file[f"{prefix}.grad_{name}"], 1e-5)
    for name, p in attention.named_parameters():
        close(p.grad, file[f"{prefix}.grad_{name.replace('.', '__')}"], 1e-5)


@pytest.mark.parametrize("kind", ["mixed", "integer"])
@pytest.mark.parametrize(
    ("source_size", "size"),
    [((7, 9), (7, 9)), ((7, 9), (5, 6)), ((4, 3), (8, 5)), ((1, 1), (2, 3)), ((2, 11), (3, 1))],
)
@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_equals_the_direct_definition(k, source_size, size, kind):
    attention, arguments = make_case(k, source_size=source_size, size=size, kind=kind)
    layer = attention.fully_connect_layer
    output, gradients = value_and_gradients(attention, layer, arguments)
    expected, expected_gradients = value_and_gradients(
        lambda *xs: direct.local_attention(layer, *xs, k), layer, arguments
    )
    close(output, expected, 1e-12)
    for actual, slow in zip(gradients, expected_gradients, strict=True):
        close(actual, slow, 1e-10)
    close(
        attention.attention_weights(*arguments),
        direct.attention_weights(layer, *arguments, k),
        1e-12,
    )


@pytest.mark.parametrize("edge", [-3.0, -2.0, -1.0, 0.0, 4.0, 5.0, 6.0, 7.0, 1e4, -1e4])
@pytest.mark.parametrize("k", [3, 5])
def test_flow_gradient_around_the_border(k, edge):
    """Positions exactly where the repeated border begins, and on both sides of it."""
    attention, (source, target, _) = make_case(k, size=(3, 3), source_size=(5, 5), batch=1)
    column = torch.arange(3, dtype=torch.float64)
    nudge = torch.tensor([-1e-3, 0.0, 1e-3], dtype=torch.float64)
    flow = torch.stack([edge - column + nudge] * 3).expand(1, 2, 3, 3).clone()
    layer = attention.fully_connect_layer
    arguments = [source, target, flow]
    _, gradients = value_and_gradients(attention, layer, arguments)
    _, expected = value_and_gradients(
        lambda *xs: direct.local_attention(layer, *xs, k), layer, arguments
    )
    close(gradients[2], expected[2], 1e-10)


@pytest.mark.parametrize("k", [3, 5])
def test_gradcheck(k):
    attention, (source, target, flow) = make_case(
        k, channels=2, source_size=(3, 3), size=(2, 2), batch=1, kind="fractional", hidden=3
    )
    flow = flow.floor() + 0.2 + 0.6 * torch.rand_like(flow)  # finite differences need smoothness
    flow[0, :, 0, 0] = torch.tensor([-50.3, 70.4])
    arguments = [x.requires_grad_() for x in (source, target, flow)]
    for p in attention.parameters():
        p.requires_grad_(False)
    assert torch.autograd.gradcheck(attention, arguments)


def test_gradcheck_of_the_weights():
    attention, arguments = make_case(
        3, channels=1, source_size=(3, 3), size=(1, 2), batch=1, hidden=2
    )
    names, values = zip(*attention.named_parameters(), strict=True)

    def run(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(attention, state, tuple(arguments))

    assert torch.autograd.gradcheck(run, values)


def test_even_attention_and_no_flow_is_a_box_mean():
    attention = LocalAttention(2, 3)
    torch.nn.init.zeros_(attention.fully_connect_layer[2].weight)
    torch.nn.init.zeros_(attention.fully_connect_layer[2].bias)
    source = torch.randn(1, 2, 6, 5)
    output = attention(source, torch.randn(1, 2, 6, 5), torch.zeros(1, 2, 6, 5))
    padded = torch.nn.functional.pad(source, (1, 1, 1, 1), mode="replicate")
    close(output * 9, torch.nn.functional.avg_pool2d(padded, 3, stride=1), 1e-6)


def test_one_tap_reads_the_flowed_position():
    source = torch.arange(30.0).view(1, 1, 5, 6)
    flow = torch.zeros(1, 2, 5, 6)
    flow[:, 0], flow[:, 1] = 1.0, 2.0  # one to the right, two down
    output = LocalAttention(1, 1)(source, torch.zeros_like(source), flow)
    close(output[0, 0, :3, :5], source[0, 0, 2:, 1:], 1e-5)
    close(output[0, 0, 3:, 5], torch.tensor([29.0, 29.0]), 1e-5)


@pytest.mark.parametrize("k", [3, 5])
def test_samples_of_a_batch_do_not_mix(k):
    attention, arguments = make_case(k, batch=3)
    layer = attention.fully_connect_layer
    together = [x.clone().requires_grad_() for x in arguments]
    output = attention(*together)
    torch.manual_seed(2)
    grad_output = torch.randn(output.shape, dtype=output.dtype)
    output.backward(grad_output)
    for i in range(3):
        alone = [x[i : i + 1].clone().requires_grad_() for x in arguments]
        single = attention(*alone)
        close(single[0], output[i].detach(), 1e-13)
        gradients = torch.autograd.grad(single, alone, grad_output[i : i + 1])
        for gradient, x in zip(gradients, together, strict=True):
            close(gradient[0], x.grad[i], 1e-12)
    assert layer[0].weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    attention, arguments = make_case(3, channels=8, kind="fractional")
    expected = attention(*arguments)
    low = [x.to(dtype).requires_grad_() for x in arguments]
    output = attention.to(dtype)(*low)
    assert output.dtype == dtype
    close(output.double(), expected.detach(), 0.02)
    output.sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0 for x in low)


@pytest.mark.parametrize("edge", [0.0, -3.0, -500.25, 700.5])
@pytest.mark.parametrize("k", [3, 5])
def test_gradcheck_on_the_grid_and_far_outside(k, edge):
    """In source and target; by the flow the function has a kink on the grid."""
    attention, (source, target, flow) = make_case(
        k, channels=2, source_size=(3, 4), size=(2, 2), batch=1, kind="integer", hidden=3
    )
    arguments = [source.requires_grad_(), target.requires_grad_()]
    attention.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda s, t: attention(s, t, flow + edge), arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    attention, arguments = make_case(3, channels=8, kind="fractional")
    expected = attention(*arguments)
    attention.float()
    leaves = [x.float().requires_grad_() for x in arguments]
    with torch.autocast("cpu", dtype):
        output = attention(*leaves)
    close(output.double(), expected.detach(), 0.02)
    output.float().sum().backward()
    for x in [*leaves, *attention.parameters()]:
        assert x.grad.dtype == torch.float32
        assert torch.isfinite(x.grad).all()


def test_backward_is_the_same_in_every_run():
    attention = LocalAttention(16, 5)
    torch.manual_seed(0)
    arguments = [torch.randn(2, 16, 24, 24) for _ in range(2)] + [torch.randn(2, 2, 24, 24) * 9]
    layer = attention.fully_connect_layer
    _, expected = value_and_gradients(attention, layer, arguments)
    for _ in range(3):
        _, gradients = value_and_gradients(attention, layer, arguments)
        assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


def test_deterministic_mode():
    attention, arguments = make_case(3)
    layer = attention.fully_connect_layer
    expected = value_and_gradients(attention, layer, arguments)
    torch.use_deterministic_algorithms(True)
    try:
        actual = value_and_gradients(attention, layer, arguments)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_compiles_without_graph_breaks():
    """Traced whole, forward and backward; code generation, which takes a minute, is PyTorch's."""
    attention, arguments = make_case(3, channels=4)
    layer = attention.fully_connect_layer
    expected = value_and_gradients(attention, layer, arguments)
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    actual = value_and_gradients(compiled, layer, arguments)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for x in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return output


def test_blocks_are_never_materialised():
    channels, size, k = 64, 24, 5
    attention = LocalAttention(channels, k, hidden=16)
    arguments = [torch.randn(1, channels, size, size, requires_grad=True) for _ in range(2)]
    flow = torch.randn(1, 2, size, size, requires_grad=True)
    with LargestTensor() as fast:
        attention(*arguments, flow).sum().backward()
    with LargestTensor() as slow:
        direct.local_attention(attention.fully_connect_layer, *arguments, flow, k)
    feature = channels * size * size
    assert slow.elements >= k**2 * feature
    # The largest one is the source with its border.
    assert fast.elements < 3 * feature


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("k", [3, 5])
def test_cuda_equals_cpu(k):
    attention, arguments = make_case(k, channels=16)
    output, gradients = value_and_gradients(attention, attention.fully_connect_layer, arguments)
    attention.cuda()
    leaves = [x.cuda().requires_grad_() for x in arguments]
    on_gpu = attention(*leaves)
    close(on_gpu.cpu(), output, 1e-10)
    torch.manual_seed(1)
    grad_output = torch.randn(output.shape, dtype=output.dtype).cuda()
    on_gpu.backward(grad_output)
    for x, expected in zip(leaves, gradients, strict=False):
        close(x.grad.cpu(), expected, 1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_float32(deterministic):
    """With the Triton kernels, and in deterministic mode, where nothing may raise."""
    attention, arguments = make_case(3, channels=16)
    layer = attention.fully_connect_layer
    _, expected = value_and_gradients(attention, layer, arguments)
    attention.float().cuda()
    torch.manual_seed(1)
    gradient = torch.randn(2, 16, 7, 9, dtype=torch.float64).float().cuda()
    torch.use_deterministic_algorithms(deterministic)
    try:
        runs = []
        for _ in range(2):
            leaves = [x.float().cuda().requires_grad_() for x in arguments]
            output = attention(*leaves)
            runs.append(torch.autograd.grad(output, [*leaves, *layer.parameters()], gradient))
    finally:
        torch.use_deterministic_algorithms(False)
    for first, second, reference in zip(*runs, expected, strict=True):
        assert not deterministic or torch.equal(first, second)
        torch.testing.assert_close(first.cpu().double(), reference, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("kernel_size", [0, 2, 4, -3])
def test_kernel_size_must_be_odd(kernel_size):
    with pytest.raises(ValueError, match=f"got {kernel_size}, expected an odd"):
        LocalAttention(4, kernel_size)


@pytest.mark.parametrize(
    ("source", "target", "flow", "message"),
    [
        ((1, 3, 5, 5), (1, 4, 5, 5), (1, 2, 5, 5), r"source: got shape \(1, 3, 5, 5\), expected"),
        ((1, 4, 5, 5), (1, 4, 5), (1, 2, 5, 5), "target: got shape"),
        ((2, 4, 5, 5), (1, 4, 5, 5), (1, 2, 5, 5), "batch size 2"),
        ((1, 4, 5, 5), (1, 4, 5, 5), (1, 2, 5, 6), "flow: got shape"),
        ((1, 4, 5, 5), (1, 4, 5, 5), (1, 3, 5, 5), "flow: got shape"),
    ],
)
def test_shapes_are_checked(source, target, flow, message):
    with pytest.raises(ValueError, match=message):
        LocalAttention(4, 3)(torch.zeros(source), torch.zeros(target), torch.zeros(flow))
