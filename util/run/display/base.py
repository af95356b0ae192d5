"""What the training loop knows of a live display."""

from collections.abc import Mapping, Sequence

import numpy as np

from util.run.history import Plots


class Display:
    """A view of a running training. This one shows nothing; the backends override what they show.

    No call raises or waits because of what happens to the display: a run never suffers from it.
    """

    shows_pictures = False

    def text(self, text: str) -> None:
        """Say what is trained: plain text, shown as it is."""

    def scalars(self, iteration: int, plots: Plots) -> None:
        """Add a point to curves.

        Args:
            iteration: from 1.
            plots: values by curve, by title of the plot (util.run.history.plots_of).
        """

    def pictures(
        self, iteration: int, panels: Mapping[str, np.ndarray], pairs: Sequence[str]
    ) -> None:
        """Show pictures in place of the ones before.

        Args:
            iteration: from 1.
            panels: uint8 [B, H, W, 3] by kind (models.pictures.panels_of). They are not copied: the
                caller leaves them unchanged.
            pairs: B descriptions of the samples.

        Raises:
            TypeError: a panel is not uint8 [B, H, W, 3].
        """

    def close(self) -> None:
        """Show what is still waiting, and end; takes 2 seconds at most."""


class Displays(Display):
    """Several displays as one."""

    def __init__(self, displays: Sequence[Display]) -> None:
        self.displays = list(displays)
        self.shows_pictures = any(display.shows_pictures for display in self.displays)

    def text(self, text: str) -> None:
        """Say it on every display."""
        for display in self.displays:
            display.text(text)

    def scalars(self, iteration: int, plots: Plots) -> None:
        """Add the point on every display."""
        for display in self.displays:
            display.scalars(iteration, plots)

    def pictures(
        self, iteration: int, panels: Mapping[str, np.ndarray], pairs: Sequence[str]
    ) -> None:
        """Show the pictures on every display."""
        for kind, panel in panels.items():
            if panel.dtype != np.uint8 or panel.ndim != 4 or panel.shape[3] != 3:
                raise TypeError(
                    f"pictures '{kind}': got {panel.dtype} {list(panel.shape)}, "
                    "expected uint8 [B, H, W, 3]"
                )
        for display in self.displays:
            display.pictures(iteration, panels, pairs)

    def close(self) -> None:
        """Close every display."""
        for display in self.displays:
            display.close()
