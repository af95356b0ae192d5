"""Adam as TensorFlow 1 computes it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class TensorFlowAdam(torch.optim.Adam):
    """Adam whose epsilon is added before the bias correction (Kingma and Ba, 2015, section 2).

    p -= lr · sqrt(1 - beta2^t) / (1 - beta1^t) · m / (sqrt(v) + eps). PyTorch adds its epsilon to
    sqrt(v / (1 - beta2^t)): the same with an epsilon of eps / sqrt(1 - beta2^t) at step t.

    All parameters are updated in every step. The fused kernels are used: they keep no copies of the
    parameters' size.

    Args:
        params: as PyTorch's.
        lr: learning rate.
        betas: decay of the averages of gradient and squared gradient.
        eps: TensorFlow's epsilon.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, fused=True)
        for group in self.param_groups:
            group.update(tensorflow_eps=eps, steps=0)

    @staticmethod
    def _set_epsilon(group: dict[str, Any]) -> None:
        correction = 1 - group["betas"][1] ** group["steps"] if group["steps"] else 1.0
        group["eps"] = group["tensorflow_eps"] / correction**0.5

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load averages and counts of steps."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # as after that step, so that a save now is the same file
            self._set_epsilon(group)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            group["steps"] += 1
            self._set_epsilon(group)
        return super().step(closure)

    def release(self) -> None:
        """Free averages and gradients; a later step starts as the first one."""
        self.zero_grad(set_to_none=True)
        self.state.clear()
        for group in self.param_groups:
            group["steps"] = 0
            self._set_epsilon(group)
