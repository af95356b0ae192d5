"""A rehearsal of a GPU without one: fake CUDA tensors, which have a shape, a layout and a device,
but no values.

    with FakeGPU() as gpu:
        model = create_model(options)
        model.training_step(batch, 1)
    assert not gpu.copies

Models are made on it. An operation between devices raises as on a real one.
"""

import contextlib
from collections import Counter, defaultdict
from unittest import mock

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.losses import regularity
from models.operators import gather_sum

READ = torch.ops.aten._local_scalar_dense.default  # of one value by the program: .item(), bool()


class FakeGPU(contextlib.ExitStack):
    """Everything made within it is fake.

    Attributes:
        copies: operations that copied from the host to the GPU.
        waits: how often the program read a value of the GPU's, which waits for it.
        layouts: operation -> Counter of the layouts of its outputs with four dimensions.
    """

    def __init__(self):
        super().__init__()
        self.forget()

    def forget(self):
        """Start counting again."""
        self.copies, self.waits, self.layouts = [], 0, defaultdict(Counter)

    def __enter__(self):
        super().__enter__()
        self.callback(regularity._residual_basis.cache_clear)  # it must keep no fake tensor
        regularity._residual_basis.cache_clear()
        gpu = torch.device("cuda", 0)
        # Not by way of torch.cuda.is_available: then fake tensors, too, would look for the driver.
        self.enter_context(mock.patch("models.base_model.choose_device", lambda gpu_ids: gpu))
        self.enter_context(mock.patch.object(torch.cuda, "is_bf16_supported", lambda **_: True))
        not_available = "torch.cuda.amp.common.amp_definitely_not_available"
        self.enter_context(mock.patch(not_available, lambda: False))
        self.enter_context(mock.patch.object(torch.Tensor, "backward", backward))
        self.enter_context(mock.patch.object(torch.autograd, "grad", first_gradients))
        # There is nothing that the kernels could read.
        self.enter_context(mock.patch.object(gather_sum, "_takes_triton", lambda source: False))
        # A module's parameters change places with those on the GPU; fake tensors are referred to
        # weakly by their mode, which is no reason not to.
        self.enter_context(mock.patch("torch.utils.weakref.getweakrefs", lambda tensor: []))
        self.enter_context(FakeTensorMode())
        self.enter_context(_Watch(self))
        return self


class _Watch(TorchDispatchMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is READ:
            self.gpu.waits += args[0].is_cuda
            return True if args[0].dtype is torch.bool else 1.0
        output = function(*args, **(kwargs or {}))
        tensors = [x for x in [*args, *(kwargs or {}).values()] if isinstance(x, torch.Tensor)]
        outputs = output if isinstance(output, (tuple, list)) else [output]
        outputs = [x for x in outputs if isinstance(x, torch.Tensor)]
        is_copy = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if is_copy and outputs[0].is_cuda and any(x.is_cpu for x in tensors):
            self.gpu.copies.append(f"{function} {tuple(outputs[0].shape)}")
        for x in outputs:
            if x.ndim == 4:
                last = x.is_contiguous(memory_format=torch.channels_last)
                layout = "last" if last and not x.is_contiguous() else "first"
                self.gpu.layouts[str(function)][layout] += 1
        return output


def backward(loss):
    """`Tensor.backward`, without the autograd engine, which asks the GPU's driver for streams."""
    for leaf, gradient in _gradients(loss).items():
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def first_gradients(output, inputs, create_graph=False):
    """`torch.autograd.grad` of one input; with `create_graph` the result is not differentiable."""
    result = _gradients(output)[inputs]
    return (result.detach().requires_grad_(create_graph),)


def _gradients(loss):
    order, seen = [], set()

    def visit(node):
        stack = [(node, iter(node.next_functions))]
        seen.add(node)
        while stack:
            node, children = stack[-1]
            for child, _ in children:
                if child is not None and child not in seen:
                    seen.add(child)
                    stack.append((child, iter(child.next_functions)))
                    break
            else:
                order.append(stack.pop()[0])

    visit(loss.grad_fn)
    incoming = {loss.grad_fn: {0: torch.ones_like(loss)}}
    leaves = {}
    for node in reversed(order):
        arrived = incoming.pop(node, None)
        if arrived is None:
            continue
        if hasattr(node, "variable"):
            leaves[node.variable] = arrived[0]
            continue
        call = node if callable(node) else node.apply  # our own functions have the latter
        with torch.no_grad():
            results = call(*(arrived.get(i) for i in range(max(arrived) + 1)))
        for (child, number), gradient in zip(
            node.next_functions, results if isinstance(results, tuple) else (results,), strict=True
        ):
            if child is not None and gradient is not None:
                wanted = child._input_metadata[number]
                assert gradient.device == wanted.device, f"{node.name()}: on {gradient.device}"
                gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
                others = incoming.setdefault(child, {})
                others[number] = others[number] + gradient if number in others else gradient
    return leaves
