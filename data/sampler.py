"""Endless, resumable order of training samples."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class TrainingSampler(Sampler):
    """Yields batches of (epoch, index) keys without end.

    Every epoch is a permutation of its own, determined by (seed, epoch). The last incomplete
    batch of an epoch is dropped; a data set smaller than a batch makes one smaller batch.

    Args:
        length: samples of the data set.
        batch_size: samples of a batch.
        seed: of the permutations.
        shuffle: False keeps the data set's order in every epoch.
        start_iteration: batches already done: a resumed run goes on where it stopped.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        start_iteration: int = 0,
    ) -> None:
        if length < 1 or batch_size < 1 or start_iteration < 0:
            raise ValueError(
                "need length >= 1, batch_size >= 1, start_iteration >= 0; "
                f"got {length}, {batch_size}, {start_iteration}"
            )
        self.length = length
        self.batch_size = min(batch_size, length)
        self.seed = seed
        self.shuffle = shuffle
        self.start_iteration = start_iteration

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.length // self.batch_size

    def epoch_of(self, iteration: int) -> int:
        """Epoch (from 0) of the batch that follows `iteration` finished ones."""
        return iteration // self.batches_per_epoch

    def order_of(self, epoch: int) -> list[int]:
        """Order of the indices in an epoch."""
        if not self.shuffle:
            return list(range(self.length))
        low, high = self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF
        rng = np.random.RandomState([low, high, epoch & 0xFFFFFFFF])
        return rng.permutation(self.length).tolist()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, batch = divmod(self.start_iteration, self.batches_per_epoch)
        while True:
            order = self.order_of(epoch)
            for first in range(batch, self.batches_per_epoch):
                start = first * self.batch_size
                yield [(epoch, index) for index in order[start : start + self.batch_size]]
            epoch, batch = epoch + 1, 0
