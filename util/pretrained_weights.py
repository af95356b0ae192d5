"""Pretrained weights that others published: where a file comes from, and whether it is the one."""

import contextlib
import hashlib
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch
from torch import Tensor

from util.checkpoints import read_state_dict
from util.errors import UserError
from util.state_dicts import converted

# Per address of the server and per read, in seconds; looking up its name has the system's own.
DOWNLOAD_TIMEOUT = 10.0
SHOWN_DIGITS = 8

# Tensors by which a file given for the wrong option is recognised.
_LAYOUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "the FID-Inception-2015 network": {
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
    },
    "torchvision's inception_v3": {
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1000, 2048),
    },
    "torchvision's alexnet": {"features.0.weight": (64, 3, 11, 11)},
    "torchvision's vgg19": {"features.34.weight": (512, 512, 3, 3)},
    "a head of LPIPS, which the lpips package brings along": {"lin0.model.1.weight": (1, 64, 1, 1)},
}


class MissingWeights(UserError):
    """The published file is neither in torch.hub's cache, nor can it be downloaded."""


@dataclass(frozen=True)
class LoadedWeights:
    """Weights and what they are.

    Attributes:
        state: the tensors asked for, float32, on the CPU.
        source: for a report's protocol: `published weights (sha256 6726825d…)`, or the file's name
            and hash where it is another.
    """

    state: dict[str, Tensor]
    source: str


@dataclass(frozen=True)
class PretrainedFile:
    """A published file of weights.

    Attributes:
        option: the option that takes a local file instead, `--lpips_weights`.
        network: whose state dict it is, for messages.
        url: where its publisher has it; the name ends in the first digits of the SHA-256
            (`alexnet-owt-7be5be79.pth`), as torch.hub expects.
    """

    option: str
    network: str
    url: str

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """The first digits of the published file's SHA-256.

        Raises:
            ValueError: the name has none.
        """
        found = re.search(r"-([0-9a-f]{8,})\.", self.name)
        if not found:
            raise ValueError(f"{self.name}: no SHA-256 digits in the name")
        return found.group(1)

    def load(self, given: str | None, expected: Mapping[str, Tensor]) -> LoadedWeights:
        """Read the weights, without running what the file may hold.

        Args:
            given: the option's value, a path; None takes torch.hub's cache, where the file is
                downloaded to when it is not there yet.
            expected: tensors (of any device) with the names and shapes to read. Others in the
                file are left aside; batch normalisation's `num_batches_tracked` is not read.

        Raises:
            MissingWeights: nothing given, and the file cannot be had or is damaged.
            UserError: the given file is missing, unreadable, or of another network.
        """
        path = self._find(given)
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{self.option}: cannot read {path} ({_reason(error)})") from error
        published = digest.startswith(self.sha256_prefix)
        if given is None and not published:
            raise MissingWeights(
                f"{path} is damaged: its SHA-256 begins {digest[:SHOWN_DIGITS]}, expected "
                f"{self.sha256_prefix}; remove it to have it downloaded again, or give "
                f"{self.option}=PATH"
            )
        try:
            state = read_state_dict(path, expected)
        except UserError as error:
            raise UserError(f"{self.option}: {error}") from error
        wanted = {
            name: tensor.shape
            for name, tensor in expected.items()
            if not name.endswith("num_batches_tracked")
        }
        self._check(path, state, wanted)
        shown = f"sha256 {digest[:SHOWN_DIGITS]}…"
        try:
            tensors = {name: converted(state[name], torch.float32, name) for name in wanted}
        except ValueError as error:
            raise UserError(f"{self.option}={path}: {error}; take another file") from None
        return LoadedWeights(
            tensors,
            f"published weights ({shown})"
            if published
            else f"{path.name} ({shown}, not the published weights)",
        )

    def _find(self, given: str | None) -> Path:
        if given is not None:
            if not Path(given).is_file():
                problem = "is a folder" if given and Path(given).is_dir() else "no such file"
                raise UserError(
                    f"{self.option}={given}: {problem}; expected {self.name} (SHA-256 begins "
                    f"{self.sha256_prefix}), from {self.url}"
                )
            return Path(given)
        path = Path(torch.hub.get_dir(), "checkpoints", self.name)
        if not path.is_file():
            self._download(path)
        return path

    def _download(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _connection_timeout(DOWNLOAD_TIMEOUT):
                # It writes beside `path`, renames when the hash is right, and removes the rest.
                torch.hub.download_url_to_file(
                    self.url, str(path), self.sha256_prefix, progress=sys.stderr.isatty()
                )
        except (OSError, RuntimeError, HTTPException) as error:
            raise MissingWeights(
                f"{self.option}: could not download {self.name} ({_reason(error)}); get it from "
                f"{self.url} (SHA-256 begins {self.sha256_prefix}) and put it into {path.parent}, "
                f"or give {self.option}=PATH"
            ) from error

    def _check(
        self, path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]
    ) -> None:
        for name, shape in wanted.items():
            if name in state and state[name].shape == shape:
                continue
            message = (
                f"{self.option}={path}: {name} is missing or has the wrong shape; expected a "
                f"state dict of {self.network}"
            )
            for network, marks in _LAYOUTS.items():
                if all(mark in state and state[mark].shape == s for mark, s in marks.items()):
                    message += f", this looks like {network}"
            raise UserError(message)


@contextlib.contextmanager
def _connection_timeout(seconds: float) -> Iterator[None]:
    """torch.hub gives urllib no timeout: without this a silent network hangs for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        error = error.reason
    return (str(error).splitlines() or [type(error).__name__])[0]
