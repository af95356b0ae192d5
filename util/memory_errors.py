"""Recognising that memory ran out, which PyTorch says in several ways."""

import re
import sys

_TEXTS = (
    "out of memory",  # CUDA, cuDNN and cuBLAS by way of PyTorch
    "can't allocate memory",  # PyTorch's CPU allocator on Linux
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the operating system, as when a worker process is started
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
_AMOUNTS = (
    r"[Tt]ried to allocate ([\d.]+ [KMGT]iB)",
    r"tried to allocate (\d+ bytes)",
    r"Unable to allocate ([\d.]+ [KMGT]iB)",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of a GPU, ran out."""
    torch = sys.modules.get("torch")  # not imported here: small programs do without
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in _TEXTS)


def out_of_memory_text(error: BaseException) -> str:
    """Say in a few words whose memory ran out, and what was asked for where that is known."""
    text = str(error)
    whose = "GPU memory" if re.search(r"CUDA|CUBLAS|CUDNN|HIP|GPU", text) else "memory"
    found = next(filter(None, (re.search(pattern, text) for pattern in _AMOUNTS)), None)
    return f"out of {whose}" + (f" ({found[1]} more were needed)" if found else "")
