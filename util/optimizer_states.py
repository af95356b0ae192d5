"""Loading the state of an optimiser out of a file, every part checked against its parameters."""

import math
from typing import Any

import torch
from torch import Tensor

from util.state_dicts import converted

_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
# No mean of gradients is larger than this many times the root of the mean of their squares: by
# Cauchy and Schwarz (1 - b1) / sqrt((1 - b2) (1 - b1² / b2)), which is 32 at most for our betas.
# A step has Adam's usual size then, or a multiple that does no harm.
_MOST_ROOTS = 1000
_ROUNDED_TO_ZERO = 1e-15  # far above gradients whose squares a float32 cannot hold


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Load the moments and the counts of steps; rates and the like stay as they are.

    Args:
        optimizer: just made, of the parameters that the state is of.
        saved: what `state_dict` gave, out of a file.

    Raises:
        ValueError: it is of other parameters, damaged, NaN or infinite; nothing has been loaded.
    """
    groups = optimizer.state_dict()["param_groups"]
    try:
        states, saved_groups = saved["state"], saved["param_groups"]
        if [group["params"] for group in saved_groups] != [group["params"] for group in groups]:
            raise ValueError("it is of another network")
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        if not states.keys() <= set(range(len(parameters))):
            raise ValueError("it is of another network")
        is_adam = isinstance(optimizer, torch.optim.Adam)
        if is_adam and any(one.keys() != _OF_ADAM for one in states.values()):
            raise ValueError("it is no state of Adam")
        state = {
            number: {key: _checked(parameters[number], one[key], key, number) for key in one}
            for number, one in states.items()
        }
        for number, one in state.items() if is_adam else ():
            most = _MOST_ROOTS * one["exp_avg_sq"].sqrt() + _ROUNDED_TO_ZERO
            if (one["exp_avg"].abs() > most).any():
                raise ValueError(f"exp_avg of parameter {number} does not fit its exp_avg_sq")
        for group, other in zip(groups, saved_groups, strict=True):
            if "steps" in group:  # TensorFlowAdam counts here
                group["steps"] = int(_steps(other["steps"], "step of a group"))
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError):
        raise ValueError("it is no state of an optimiser") from None
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _checked(parameter: Tensor, saved: Any, key: str, number: int) -> Tensor | None:
    name = f"{key} of parameter {number}"
    if saved is None and key == "momentum_buffer":
        return None
    if key == "step":
        return torch.tensor(_steps(saved, name), dtype=torch.float32)
    if saved.shape != parameter.shape:
        raise ValueError(f"{name} has shape {list(saved.shape)}, expected {list(parameter.shape)}")
    value = converted(saved, parameter.dtype, name)
    if key == "exp_avg_sq" and (value < 0).any():
        raise ValueError(f"{name}, a mean of squares, is negative")
    # In the parameter's own memory layout: tensors of a file may overlap.
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _steps(saved: Any, name: str) -> float:
    steps = float(saved)
    if not (math.isfinite(steps) and steps >= 0 and steps.is_integer()):
        raise ValueError(f"{name} is {steps}, no count")
    return steps
