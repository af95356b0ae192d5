"""What the networks of the metrics share: plain float32 inference on pictures."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def exact_inference() -> Iterator[None]:
    """Inference mode with float32 arithmetic: no TF32 nor bfloat16, whatever the global settings.

    cuDNN's convolutions use TF32 by default, which changes features in the fourth digit. The
    settings are put back as they were.
    """
    backends = torch.backends
    settings = (
        backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul
    )  # fmt: skip
    before = [setting.fp32_precision for setting in settings]
    try:
        # PyTorch has an older switch for matrix products, and refuses to multiply on a GPU while
        # the two disagree; reading it fails when they already do.
        matmul = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = None
    try:
        torch.set_float32_matmul_precision("highest")
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.inference_mode():
            yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def check_pictures(pictures: Tensor) -> None:
    """Refuse what is not uint8 `[B, 3, H, W]` with B, H, W >= 1: ValueError."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(
            f"expected uint8 [B, 3, H, W], got {pictures.dtype} {list(pictures.shape)}"
        )
    if not pictures.numel():
        raise ValueError(f"expected at least one picture and pixel, got {list(pictures.shape)}")
