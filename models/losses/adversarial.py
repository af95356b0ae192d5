"""Adversarial losses on maps of logits."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

MODES = ("lsgan", "hinge", "wgan-gp")


class AdversarialLoss:
    """Adversarial loss of one kind.

    * lsgan: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017;
    * hinge: Lim and Ye, "Geometric GAN", 2017;
    * wgan-gp: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017; the
      discriminator's loss then also needs `gradient_penalty`.

    Args:
        mode: lsgan, hinge or wgan-gp.

    Raises:
        ValueError: `mode` is unknown.
    """

    def __init__(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"got mode {mode}, expected one of {', '.join(MODES)}")
        self.mode = mode

    def discriminator_real(self, logits: Tensor) -> Tensor:
        """Discriminator's term for logits of real images, any shape; a scalar."""
        if self.mode == "lsgan":
            return (logits - 1).square().mean()
        if self.mode == "hinge":
            return F.relu(1 - logits).mean()
        return -logits.mean()

    def discriminator_fake(self, logits: Tensor) -> Tensor:
        """Discriminator's term for logits of generated images, any shape; a scalar."""
        if self.mode == "lsgan":
            return logits.square().mean()
        if self.mode == "hinge":
            return F.relu(1 + logits).mean()
        return logits.mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Discriminator's loss, a scalar: half the sum of both terms."""
        return (self.discriminator_real(real_logits) + self.discriminator_fake(fake_logits)) / 2

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Generator's loss for logits of its images, any shape; a scalar."""
        if self.mode == "lsgan":
            return (fake_logits - 1).square().mean()
        return -fake_logits.mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weight: float = 10.0
) -> Tensor:
    """Gradient penalty of WGAN-GP (Gulrajani et al., 2017, eq. 3).

    The critic's value of an image is the mean of its logits, as in the loss. Calls the
    discriminator once, so in train mode a spectral norm does one more power iteration.

    Args:
        discriminator: maps `[B, C, H, W]` to logits `[B, …]`.
        real: real images `[B, C, H, W]`.
        fake: generated images of the same shape; no gradient goes back into them.
        weight: weight of the penalty.

    Returns:
        weight · mean over the batch of (‖∇‖ - 1)², the gradient ∇ taken at a random point between
        each real and generated image; a scalar, differentiable in the discriminator's parameters.
    """
    mix = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), mix).requires_grad_()
    values = discriminator(between).reshape(len(real), -1).mean(dim=1)
    (gradient,) = torch.autograd.grad(values.sum(), between, create_graph=True)
    # The small constant keeps the derivative of the root finite where the gradient is zero.
    norm = (gradient.flatten(1).square().sum(dim=1) + 1e-12).sqrt()
    return weight * (norm - 1).square().mean()
