"""What a training step takes from its number alone: the learning rate, and all random numbers."""

import argparse
import random

import numpy as np
import torch


def learning_rate_factor(options: argparse.Namespace, iteration: int) -> float:
    """Factor of the learning rate at an iteration (from 1), by --lr_policy.

    lambda: 1 for --niter iterations, then linearly to 0 over --niter_decay; step: --lr_gamma for
    every full --lr_decay_iters; exponent: the same, continuously.
    """
    done = iteration - 1
    if options.lr_policy == "lambda":
        return 1.0 - max(0, done - options.niter + 1) / (options.niter_decay + 1)
    periods = done / options.lr_decay_iters
    return options.lr_gamma ** (int(periods) if options.lr_policy == "step" else periods)


def seed_everything(seed: int, iteration: int) -> None:
    """Set every global random state to what (seed, iteration) gives, so that no file need keep it.

    Those of Python, NumPy and torch, on all devices. The data order and the augmentation follow
    from (seed, epoch, item) in the same way: a resumed run draws what the run in one go drew.
    """
    # torch's CPU generator keeps 32 bits of its seed, so all of the pair must reach every bit.
    python, numpy, pytorch = np.random.SeedSequence(seed, spawn_key=(iteration,)).spawn(3)
    random.seed(int(python.generate_state(1, np.uint64)[0]))
    np.random.seed(numpy.generate_state(8))
    torch.manual_seed(int(pytorch.generate_state(1)[0]))
