"""What the networks of the metrics share: plain float32 inference on pictures."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def exact_inference() -> Iterator[None]:
    """Inference mode with float32 arithmetic: no TF32 nor bfloat16, whatever was set before.

    cuDNN's convolutions use TF32 by default, which changes features in the fourth digit. The
    settings are put back as they were.
    """
    # PyTorch's older switches: the newer ones (fp32_precision) came after the oldest version that
    # is taken, and follow these.
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    convolutions = cudnn.allow_tf32
    try:
        cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = convolutions


def check_pictures(pictures: Tensor) -> None:
    """Refuse what is not uint8 `[B, 3, H, W]` with B, H, W >= 1: ValueError."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(
            f"expected uint8 [B, 3, H, W], got {pictures.dtype} {list(pictures.shape)}"
        )
    if not pictures.numel():
        raise ValueError(f"expected at least one picture and pixel, got {list(pictures.shape)}")
