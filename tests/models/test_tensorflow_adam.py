"""TensorFlow's Adam against its formula, written out."""

import copy

import pytest
import torch
from torch import nn

from models.pg2.tensorflow_adam import TensorFlowAdam

LR, BETAS, EPS = 1e-3, (0.5, 0.999), 1e-4  # a large epsilon, so that its place shows


def parameters_and_gradients(steps):
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(5, 3, generator=generator), torch.randn(4, generator=generator)]
    # Down to gradients far below epsilon.
    scale = [10.0 ** -torch.arange(15).reshape(5, 3), 10.0 ** -torch.arange(4)]
    gradients = [
        [torch.randn(p.shape, generator=generator) * s for p, s in zip(start, scale, strict=True)]
        for _ in range(steps)
    ]
    return [nn.Parameter(p) for p in start], gradients


def take_steps(optimizer, parameters, gradients):
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def direct(start, gradients):
    """p -= lr · sqrt(1 - b2^t) / (1 - b1^t) · m / (sqrt(v) + eps) in float64."""
    p, m, v = start.double(), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        g = gradient.double()
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        rate = LR * (1 - BETAS[1] ** t) ** 0.5 / (1 - BETAS[0] ** t)
        p = p - rate * m / (v**0.5 + EPS)
    return p


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_follow_the_formula(steps):
    parameters, gradients = parameters_and_gradients(steps)
    expected = [
        direct(p.detach().clone(), [step[i] for step in gradients])
        for i, p in enumerate(parameters)
    ]
    take_steps(TensorFlowAdam(parameters, LR, BETAS, EPS), parameters, gradients)
    for ours, formula in zip(parameters, expected, strict=True):
        assert torch.allclose(ours.double(), formula, rtol=0, atol=3e-7)


def test_pytorchs_adam_is_another_one():
    """So that the test above cannot pass by accident."""
    parameters, gradients = parameters_and_gradients(1)
    expected = direct(parameters[0].detach().clone(), [gradients[0][0]])
    take_steps(torch.optim.Adam(parameters, LR, BETAS, EPS), parameters, gradients)
    assert (parameters[0].double() - expected).abs().max() > 1e-4


def test_a_resumed_optimiser_goes_on_bit_for_bit():
    parameters, gradients = parameters_and_gradients(5)
    twins = copy.deepcopy(parameters)
    take_steps(TensorFlowAdam(parameters, LR, BETAS, EPS), parameters, gradients)
    first = TensorFlowAdam(twins, LR, BETAS, EPS)
    take_steps(first, twins, gradients[:2])
    second = TensorFlowAdam(twins, LR, BETAS, EPS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take_steps(second, twins, gradients[2:])
    assert all(torch.equal(a, b) for a, b in zip(parameters, twins, strict=True))


def test_a_released_optimiser_starts_over():
    parameters, gradients = parameters_and_gradients(4)
    optimizer = TensorFlowAdam(parameters, LR, BETAS, EPS)
    take_steps(optimizer, parameters, gradients[:3])
    optimizer.release()
    assert all(parameter.grad is None for parameter in parameters)
    assert not optimizer.state_dict()["state"]
    expected = [
        direct(p.detach().clone(), [g]) for p, g in zip(parameters, gradients[3], strict=True)
    ]
    take_steps(optimizer, parameters, gradients[3:])
    for ours, formula in zip(parameters, expected, strict=True):
        assert torch.allclose(ours.double(), formula, rtol=0, atol=3e-7)
