"""Initial values of the weights."""

from collections.abc import Callable

from torch import Tensor, nn

INIT_TYPES: dict[str, Callable[[Tensor, float], Tensor] | None] = {
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
    "normal": lambda weight, gain: nn.init.normal_(weight, std=gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight),
    "none": None,
}


def init_weights(module: nn.Module, init_type: str = "orthogonal", gain: float = 0.02) -> None:
    """Initialise every convolution and linear layer of `module` in place.

    Weights follow `init_type`, biases become 0, norm layers get weight 1 and bias 0. Layers with
    spectral norm are initialised through the parameter behind it, `weight_orig`.

    Args:
        module: network to initialise.
        init_type: orthogonal, normal, xavier, kaiming, or none (leave PyTorch's own start).
        gain: scale of orthogonal and xavier, standard deviation of normal; kaiming ignores it.

    Raises:
        ValueError: `init_type` is unknown.
    """
    if init_type not in INIT_TYPES:
        raise ValueError(f"got {init_type}, expected one of {', '.join(INIT_TYPES)}")
    init = INIT_TYPES[init_type]
    if init is None:
        return
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # Under spectral norm `weight` is derived anew in every forward.
            init(getattr(layer, "weight_orig", layer.weight), gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.InstanceNorm2d, nn.BatchNorm2d)) and layer.affine:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
