"""True flow, which only the synthetic data set has."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from util.errors import UserError
from util.flow import resize_flow
from util.npz_files import read_arrays


class FlowFolder:
    """Files `<source stem>_2_<target stem>.npz` with `flow` [2, H, W] and `visible` bool [H, W].

    Flow is (x, y), source position − target position, in pixels of the stored image.
    """

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self._folder = folder
        self._size = size

    def path(self, pair: str) -> Path:
        """The file of a pair, given by its name."""
        return self._folder / f"{pair}.npz"

    def read(self, pair: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Give float32 flow [2, h, w] and visible [h, w] (0 or 1) at the folder's size.

        Flow is in pixels at that size. A pair (by its name) without a file is nowhere visible.
        Raises UserError when the file cannot be read or has other shapes.
        """
        path = self.path(pair)
        if not os.path.lexists(path):  # (which takes names longer than a file system's)
            return torch.zeros(2, *self._size), torch.zeros(self._size)
        try:
            arrays = read_arrays(path)
            flow, visible = arrays["flow"], arrays["visible"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as true flow ({error})") from None
        if flow.ndim != 3 or flow.shape[0] != 2 or visible.shape != flow.shape[1:]:
            raise UserError(
                f"{path}: expected flow [2, H, W] and visible [H, W], "
                f"got {list(flow.shape)} and {list(visible.shape)}"
            )
        if flow.dtype.kind != "f" or visible.dtype.kind not in "biu" or not flow.size:
            raise UserError(f"{path}: flow must be floats, visible yes or no, and neither empty")
        visible = visible.astype(bool)
        with np.errstate(over="ignore"):
            flow = flow.astype(np.float32)
        if not np.isfinite(flow[:, visible]).all():
            raise UserError(f"{path}: flow is NaN or infinite where it is visible")
        return scale_flow(torch.from_numpy(flow), torch.from_numpy(visible), self._size)


def scale_flow(
    flow: torch.Tensor, visible: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize flow [2, H, W] and visible [H, W] (bool) to `size` (height, width).

    The x and y components are scaled with the width and the height. A pixel is visible only when
    every pixel that it is blended from is; elsewhere flow is 0.
    """
    flow = torch.where(visible, flow, 0)
    if flow.shape[1:] != tuple(size):
        share = visible[None, None].to(flow.dtype)
        share = F.interpolate(share, size=size, mode="bilinear", align_corners=False)[0, 0]
        visible = share > 0.9999
        flow = torch.where(visible, resize_flow(flow[None], size)[0], 0)
    return flow, visible.to(torch.float32)
