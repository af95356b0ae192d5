"""Kernel Inception distance against torch-fidelity and its definition."""

import inspect

import numpy as np
import pytest
import torch
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.metric_kid import kid_features_to_metric

from script.metrics.kid import kernel_inception_distance
from util.errors import UserError


def random_features(rows: int, seed: int, columns: int = 24) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, columns)) + seed / 10
    return values.astype(np.float32)


def by_torch_fidelity(a: np.ndarray, b: np.ndarray, **options) -> tuple[float, float]:
    tensors = [torch.from_numpy(x).double() for x in (a, b)]
    outcome = kid_features_to_metric(*tensors, verbose=False, **options)
    return tuple(outcome[f"kernel_inception_distance_{name}"] for name in ("mean", "std"))


@pytest.mark.parametrize("seed", [2020, 3])
def test_equal_to_torch_fidelity(seed):
    a, b = random_features(90, 1), random_features(130, 2)
    expected = by_torch_fidelity(a, b, kid_subsets=20, kid_subset_size=50, rng_seed=seed)
    outcome = kernel_inception_distance(a, b, subsets=20, subset_size=50, seed=seed)
    assert outcome[:2] == pytest.approx(expected, abs=1e-7)
    assert outcome[2:] == (20, 50)
    assert kernel_inception_distance(
        a.astype(np.float64), b.astype(np.float64), 20, 50, seed
    )[:2] == pytest.approx(expected, rel=1e-12)  # fmt: skip


def test_the_defaults_are_torch_fidelity_s():
    ours = inspect.signature(kernel_inception_distance).parameters
    for name, theirs in (
        ("subsets", "kid_subsets"),
        ("subset_size", "kid_subset_size"),
        ("seed", "rng_seed"),
    ):
        assert ours[name].default == DEFAULTS[theirs]


def test_by_its_definition():
    a, b = random_features(6, 1, 3).astype(np.float64), random_features(6, 2, 3).astype(np.float64)

    def kernel(x, y):
        return (sum(x * y) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    expected = (
        np.mean([kernel(a[i], a[j]) for i, j in pairs])
        + np.mean([kernel(b[i], b[j]) for i, j in pairs])
        - 2 * np.mean([kernel(x, y) for x in a for y in b])
    )
    outcome = kernel_inception_distance(a, b, subsets=3)
    assert outcome.mean == pytest.approx(expected)
    assert outcome.std == pytest.approx(0, abs=1e-12)  # every subset is the whole set
    assert (outcome.subsets, outcome.subset_size) == (3, 6)


def test_a_small_set_makes_small_subsets():
    a, b = random_features(40, 1), random_features(300, 2)
    outcome = kernel_inception_distance(a, b, subsets=5)
    assert outcome.subset_size == 40
    expected = by_torch_fidelity(a, b, kid_subsets=5, kid_subset_size=40)
    assert outcome[:2] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("rows", "subset_size"), [(1, 10), (0, 10), (10, 1)])
def test_one_image_is_not_enough(rows, subset_size):
    with pytest.raises(UserError, match="2 at the very least"):
        kernel_inception_distance(
            random_features(rows, 1), random_features(10, 2), subset_size=subset_size
        )
