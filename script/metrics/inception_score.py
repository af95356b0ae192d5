"""Inception score: Salimans et al., "Improved techniques for training GANs", NIPS 2016, sec. 4."""

import numpy as np
from scipy.special import entr, softmax

from util.errors import UserError


class InceptionScore:
    """exp of the mean KL divergence of p(y|x) from p(y), per split; takes logits in batches.

    Split k holds the images at positions [k N // splits, (k + 1) N // splits) of the (shuffled)
    order. Memory: one row of class probabilities per split.

    Args:
        count: N, the number of images that will be added.
        splits: number of splits that the score is averaged over.
        shuffle_seed: images are dealt to the splits as torch-fidelity shuffles them with this seed
            (its default is 2020); None keeps the order, as the original program does.

    Raises:
        UserError: fewer images than splits.
    """

    def __init__(self, count: int, splits: int = 10, shuffle_seed: int | None = None) -> None:
        if count < splits:
            raise UserError(
                f"Inception score of {count} images: {splits} splits need as many at least; "
                "give more images"
            )
        position = np.arange(count)
        if shuffle_seed is not None:
            position[np.random.RandomState(shuffle_seed).permutation(count)] = np.arange(count)
        ends = np.arange(1, splits + 1) * count // splits
        self._split = np.searchsorted(ends, position, side="right")  # of every image
        self._sizes = np.diff(ends, prepend=0)
        self._added = 0
        self._entropies = np.zeros(splits)  # sum over a split's images of the entropy of p(y|x)
        self._probabilities: np.ndarray | float = 0.0  # [splits, C], sum of p(y|x)

    def add(self, logits: np.ndarray) -> None:
        """Take the next images, in order.

        Args:
            logits: [B, C]; log-probabilities do as well. Computed in float64.

        Raises:
            ValueError: more images than announced.
        """
        split = self._split[self._added : self._added + len(logits)]
        if len(split) < len(logits):
            raise ValueError(f"got {self._added + len(logits)} images, expected {len(self._split)}")
        probabilities = softmax(np.asarray(logits, np.float64), axis=1)
        member = (split == np.arange(len(self._sizes))[:, None]).astype(np.float64)
        self._probabilities = self._probabilities + member @ probabilities
        self._entropies += member @ entr(probabilities).sum(axis=1)
        self._added += len(logits)

    def result(self) -> tuple[float, float]:
        """Mean and population standard deviation over the splits; 1 to the number of classes.

        Raises:
            ValueError: fewer images were added than announced.
        """
        if self._added != len(self._split):
            raise ValueError(f"got {self._added} images, expected {len(self._split)}")
        # Mean KL divergence = entropy of the mean distribution - mean entropy.
        marginal = self._probabilities / self._sizes[:, None]
        scores = np.exp(entr(marginal).sum(axis=1) - self._entropies / self._sizes)
        return float(scores.mean()), float(scores.std())
