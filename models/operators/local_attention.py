"""Content-aware local attention: every target position reads a k×k patch of the source.

    attention = LocalAttention(channels=256, kernel_size=3)
    attended = attention(source, target, flow)  # [B, 256, H, W]

Definition (Ren et al., CVPR 2020, section 3.2), with r = k // 2, for source S
`[B, C, Hs, Ws]`, target T `[B, C, H, W]` and flow f `[B, 2, H, W]`:

1. a k×k block of S around q(p) = p + f(p): tap (i, j) reads S at q(p) + (i - r, j - r),
   bilinearly, S being extended by repeating its border;
2. the same block of T around p;
3. a = softmax over the k² taps of Conv1×1(LeakyReLU(Conv_{k×k, stride k}(blocks of T and S)));
4. out(p) = 1/k² · Σ_ij a_ij(p) · S(q(p) + (i - r, j - r)).

The k×k blocks would be k² times the size of a feature map. They are never built; both uses of
them are rewritten exactly, see `LocalAttention._hidden` and `_fold_bilinear`.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.operators.gather_sum import sampling_cell, weighted_gather, window_index
from models.operators.padding import pad_border


class LocalAttention(nn.Module):
    """Attends to a k×k patch of the source feature around each flowed position.

    Args:
        channels: channels C of the source and the target feature.
        kernel_size: k, odd.
        hidden: width of the small network that predicts the attention.

    Raises:
        ValueError: `kernel_size` is even or not positive.
    """

    def __init__(self, channels: int, kernel_size: int, hidden: int = 128) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, expected an odd positive number")
        self.channels = channels
        self.kernel_size = kernel_size
        self.fully_connect_layer = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, kernel_size, stride=kernel_size),
            nn.LeakyReLU(0.1),
            nn.Conv2d(hidden, kernel_size**2, kernel_size=1),
        )

    def forward(self, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        """Read `source` along `flow`.

        Args:
            source: `[B, C, Hs, Ws]`, the feature that is read.
            target: `[B, C, H, W]`, the feature at the reading positions.
            flow: `[B, 2, H, W]`, x then y, in feature-map pixels, source position minus target
                position. Any value is allowed; outside, the border repeats.

        Returns:
            `[B, C, H, W]`: mean over the k² taps of attention times sample (so 1/k² of the
            attention-weighted sum; released weights rely on the factor).

        Raises:
            ValueError: shapes that do not fit together.
        """
        self._check(source, target, flow)
        radius = self.kernel_size // 2
        margin = 2 * radius
        padded = pad_border(source, margin)
        floor, fraction = sampling_cell(flow)
        attention = self._attention(padded, target, floor + margin, fraction)
        weight = _fold_bilinear(attention / self.kernel_size**2, fraction)
        index = window_index(floor + margin, range(-radius, radius + 2), padded.shape[-2:])
        return weighted_gather(padded, index, weight)

    def attention_weights(self, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        """Return the attention `[B, k², H, W]`, ≥ 0, sum 1; channel i·k + j is row i, column j.

        Arguments and errors: see `forward`.
        """
        self._check(source, target, flow)
        margin = 2 * (self.kernel_size // 2)
        floor, fraction = sampling_cell(flow)
        return self._attention(pad_border(source, margin), target, floor + margin, fraction)

    def _attention(self, padded: Tensor, target: Tensor, floor: Tensor, fraction: Tensor) -> Tensor:
        """The same from the source with its margin, and the cells in that."""
        _, activation, to_logits = self.fully_connect_layer
        hidden = self._hidden(padded, target, floor, fraction)
        return to_logits(activation(hidden)).softmax(dim=1)

    def _hidden(self, padded: Tensor, target: Tensor, floor: Tensor, fraction: Tensor) -> Tensor:
        """First convolution over the blocks `[B, hidden, H, W]`, without the blocks.

        It is linear, so its target half and its source half add up. The blocks of the target,
        convolved with stride k, are a plain convolution of the border-padded target. For the
        source, all k² taps share one fractional offset and bilinear sampling commutes with
        convolution: sample the convolved map once instead of convolving k² samples.
        """
        conv = self.fully_connect_layer[0]
        target_weight, source_weight = conv.weight.split(self.channels, dim=1)
        radius = self.kernel_size // 2
        hidden = F.conv2d(pad_border(target, radius), target_weight, conv.bias)

        # Convolved at every position where its taps differ: from -r on outwards all of them read
        # the border pixel, so there clamping the position equals clamping each tap.
        convolved = F.conv2d(padded, source_weight)
        index = window_index(floor - radius, range(2), convolved.shape[-2:])
        ones = torch.ones_like(fraction[:, :1])
        hidden += weighted_gather(convolved, index, _fold_bilinear(ones, fraction))
        return hidden

    def _check(self, source: Tensor, target: Tensor, flow: Tensor) -> None:
        for name, feature in (("source", source), ("target", target)):
            if feature.ndim != 4 or feature.shape[1] != self.channels:
                raise ValueError(
                    f"{name}: got shape {tuple(feature.shape)}, expected [B, {self.channels}, H, W]"
                )
        if source.shape[0] != target.shape[0]:
            raise ValueError(
                f"source: got batch size {source.shape[0]}, expected the target's {target.shape[0]}"
            )
        expected = (target.shape[0], 2, *target.shape[-2:])
        if tuple(flow.shape) != expected:
            raise ValueError(f"flow: got shape {tuple(flow.shape)}, expected {expected}")


@contextlib.contextmanager
def recorded_attention(network: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, keep the attention of every call of a local attention in a network.

    It is computed once more for that.

    Args:
        network: any that has LocalAttention within.

    Yields:
        A list that fills with `[B, k², H, W]`, see `LocalAttention.attention_weights`, by call.
    """
    maps: list[Tensor] = []
    layers = [module for module in network.modules() if isinstance(module, LocalAttention)]
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, inputs: maps.append(module.attention_weights(*inputs))
        )
        for layer in layers
    ]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _fold_bilinear(tap_weight: Tensor, fraction: Tensor) -> Tensor:
    """Fold bilinear weights into tap weights: one weight per integer position.

    Neighbouring taps share corner pixels, so k² bilinear taps touch (k + 1)² pixels only.

    Args:
        tap_weight: `[B, k², H, W]`, taps row by row.
        fraction: `[B, 2, H, W]` in [0, 1), x then y, fractional part of the position.

    Returns:
        `[B, H, W, (k + 1)²]`, positions row by row.
    """
    k = round(tap_weight.shape[1] ** 0.5)
    x, y = fraction.to(tap_weight.dtype)[:, :, None, None].unbind(1)
    weight = F.pad(tap_weight.unflatten(1, (k, k)), (0, 0, 0, 0, 1, 1, 1, 1))
    weight = weight[:, :, 1:].lerp(weight[:, :, :-1], x)
    weight = weight[:, 1:].lerp(weight[:, :-1], y)
    return weight.flatten(1, 2).permute(0, 2, 3, 1)
