"""Damage to a checkpoint that torch.load does not notice."""

import zipfile
from pathlib import Path

import pytest
import torch

from util.errors import UserError
from util.torch_files import read_torch_file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "latest_net_G.pth"
    torch.save({"weight": torch.arange(4000.0), "bias": torch.ones(5)}, path)
    return path


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def _data_start(path: Path, record: str) -> int:
    with zipfile.ZipFile(path) as archive, archive.open(record) as file:
        return file._orig_compress_start


def test_a_whole_file_passes(checkpoint: Path) -> None:
    read_torch_file(checkpoint)


def test_a_flipped_bit_of_a_weight_is_found_where_torch_loads_it(checkpoint: Path) -> None:
    record = f"{checkpoint.stem}/data/0"
    _flip(checkpoint, _data_start(checkpoint, record) + 4 * 2000)
    weight = torch.load(checkpoint, weights_only=True)["weight"]
    assert not torch.equal(weight, torch.arange(4000.0)), "torch checks now: this file can go"
    # (No option: a file of weights is not always one of a run's checkpoints.)
    with pytest.raises(
        UserError, match=rf"{checkpoint}: it is cut off or damaged .*{record}.*copy it again$"
    ):
        read_torch_file(checkpoint)


@pytest.mark.parametrize("kept", [10, 5000, -1, -30])
def test_a_cut_off_file_is_told(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(UserError, match="cut off or damaged") as raised:
        read_torch_file(checkpoint)
    assert "\n" not in str(raised.value)


def test_files_without_checksums_pass(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    read_torch_file(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: cannot be read"):
        read_torch_file(tmp_path / "absent.pth")
