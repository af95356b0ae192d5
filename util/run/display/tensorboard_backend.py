"""The same curves and pictures for TensorBoard: event files under the run's folder, no server."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from util.layout import picture_grid
from util.run.display.base import Display
from util.run.history import Plots

FLUSH_SECONDS = 10


class TensorBoardDisplay(Display):
    """Writes `tensorboard/<model>/events.*` in a run's folder; watch with `tensorboard --logdir`.

    Tags are `<title of the plot>/<curve>` and `pictures/<kind>`. When a file cannot be written,
    that is said once, and the run goes on without.

    Args:
        folder: the run's folder.
        model: of the stage; TensorBoard shows every stage as a run of its own.
        first_iteration: what an earlier, broken-off run wrote from this iteration on is hidden.
        say: gets the one line when writing fails.
    """

    shows_pictures = True

    def __init__(
        self,
        folder: Path,
        model: str,
        first_iteration: int = 1,
        say: Callable[[str], None] = tqdm.write,
    ) -> None:
        self._say = say
        self._path = folder / "tensorboard" / model
        self._writer: SummaryWriter | None = None
        purge = first_iteration if first_iteration > 1 else None
        try:
            self._writer = SummaryWriter(self._path, purge_step=purge, flush_secs=FLUSH_SECONDS)
        except OSError as error:
            self._give_up(error)

    def text(self, text: str) -> None:
        """Say what is trained; indented, so that TensorBoard's markdown shows it as it is."""
        self._write("add_text", "run", "    " + "\n    ".join(text.splitlines()))

    def scalars(self, iteration: int, plots: Plots) -> None:
        """Add a point to curves."""
        for title, values in plots.items():
            for name, value in values.items():
                self._write("add_scalar", f"{title}/{name}", value, iteration)

    def pictures(
        self, iteration: int, panels: Mapping[str, np.ndarray], pairs: Sequence[str]
    ) -> None:
        """Add a picture per kind."""
        for kind, panel in panels.items():
            grid = picture_grid(panel)
            self._write("add_image", f"pictures/{kind}", grid, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._write("close")
        self._writer = None

    def _write(self, method: str, *arguments: object, **options: object) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments, **options)
        except Exception as error:  # a full disk, mostly: not a reason to stop training
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._writer = None
        self._say(f"TensorBoard: {self._path} cannot be written ({error}); training goes on")
