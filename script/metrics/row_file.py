"""Rows of numbers on disk, so that memory does not grow with the number of images."""

from pathlib import Path

import numpy as np


class RowFile:
    """A file of float32 rows: appended in order, read by index.

    Args:
        path: the file; an existing one is gone on from.
        columns: numbers per row.
    """

    def __init__(self, path: Path, columns: int) -> None:
        self.path = path
        self.columns = columns
        self._rows = path.stat().st_size // (4 * columns) if path.exists() else 0

    def __len__(self) -> int:
        return self._rows

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._rows, self.columns

    def append(self, rows: np.ndarray) -> None:
        """Write rows [N, columns] at the end."""
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise ValueError(f"rows: got {list(rows.shape)}, expected [N, {self.columns}]")
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        self._rows += len(rows)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Read the rows of an index array or slice: float32 [n, columns] in memory."""
        # Mapped for this one read: pages of the file do not stay with the process.
        if not self._rows:
            return np.empty((0, self.columns), np.float32)[index]
        mapped = np.memmap(self.path, dtype="<f4", mode="r", shape=self.shape)
        return np.array(mapped[index], dtype=np.float32)
