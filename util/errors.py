"""The one exception for mistakes that the user can mend; and recognising that memory ran out."""

import re
import sys

_LONGEST = 4000  # characters of a message; a path alone can have as many
_MEMORY_TEXTS = (  # PyTorch says it in several ways
    "out of memory",  # CUDA, cuDNN and cuBLAS by way of PyTorch
    "can't allocate memory",  # PyTorch's CPU allocator on Linux
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the operating system, as when a worker process is started
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
_MEMORY_AMOUNTS = (
    r"[Tt]ried to allocate ([\d.]+ [KMGT]iB)",
    r"tried to allocate (\d+ bytes)",
    r"Unable to allocate ([\d.]+ [KMGT]iB)",
)


class UserError(Exception):
    """Bad input: an option, a file, a row. Its text names what is wrong and the fix, on one line.

    The programs print the text without a traceback and exit with code 2. What files put into it is
    shown by `printable`, so that it is one line and changes nothing on a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SpoiltFile(UserError):
    """A file of weights is damaged or holds unusable numbers; another one of its kind may do."""


def printable(text: object) -> str:
    r"""Give a text with escapes (`\n`, `\x1b`, `\u202e`) for what is no printable character.

    For all that comes from files and folders and is printed: it can hold line breaks, sequences
    that steer terminals, and marks that turn the direction of writing. Backslashes stay, so that a
    text that was made printable stays as it is. Of one beyond 4000 characters the middle is left
    out.
    """
    text = str(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1003]} … {text[-1000:]}"
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of a GPU, ran out."""
    torch = sys.modules.get("torch")  # not imported here: small programs do without
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(
        text in str(error) for text in _MEMORY_TEXTS
    )


def out_of_memory_text(error: BaseException) -> str:
    """Say in a few words whose memory ran out, and what was asked for where that is known."""
    text = str(error)
    whose = "GPU memory" if re.search(r"CUDA|CUBLAS|CUDNN|HIP|GPU", text) else "memory"
    found = next(filter(None, (re.search(pattern, text) for pattern in _MEMORY_AMOUNTS)), None)
    return f"out of {whose}" + (f" ({found[1]} more were needed)" if found else "")
