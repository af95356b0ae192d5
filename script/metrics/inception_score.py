"""Inception score: Salimans et al., "Improved techniques for training GANs", NIPS 2016, sec. 4."""

import numpy as np
import torch


def inception_score(
    logits: np.ndarray, splits: int = 10, shuffle_seed: int | None = None
) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) from p(y), per split, as torch-fidelity computes it.

    Args:
        logits: [N, C], finite; N at least `splits`. Log-probabilities do as well.
        splits: number of splits that the score is averaged over.
        shuffle_seed: images are dealt to the splits as torch-fidelity shuffles them with this seed
            (its default is 2020); None keeps the order, as the original program does.

    Returns:
        Mean and population standard deviation over the splits; 1 to the number of classes.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric  # which may not be installed

    score = isc_features_to_metric(
        torch.from_numpy(logits), splits, shuffle_seed is not None, shuffle_seed
    )
    return score["inception_score_mean"], score["inception_score_std"]
