"""Streaming statistics, and the Fréchet distance against closed forms and other definitions."""

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from script.metrics.frechet import FeatureStatistics, frechet_distance
from tests.support.golden_formula import golden
from util.errors import UserError


def statistics_of(features: np.ndarray, batch: int = 7) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for start in range(0, len(features), batch):
        statistics.add(features[start : start + batch])
    return statistics


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features, rowvar=False)


def random_covariance(rng: np.random.Generator, size: int, rank: int | None = None) -> np.ndarray:
    factor = rng.standard_normal((size, rank or 3 * size))
    return factor @ factor.T / size


def by_matrix_root(mean_a, covariance_a, mean_b, covariance_b) -> float:
    root = sqrtm(covariance_a @ covariance_b).real
    difference = mean_a - mean_b
    return difference @ difference + np.trace(covariance_a + covariance_b - 2 * root)


@pytest.mark.parametrize("batch", [1, 7, 50, 1000])
def test_batches_give_the_statistics_of_the_whole(batch):
    features = np.random.default_rng(0).standard_normal((103, 12)).astype(np.float32)
    statistics = statistics_of(features, batch)
    mean, covariance = moments(features.astype(np.float64))
    assert statistics.count == 103
    assert statistics.mean == pytest.approx(mean, abs=1e-14)
    assert statistics.covariance == pytest.approx(covariance, abs=1e-13)
    assert np.array_equal(statistics.covariance, statistics.covariance.T)


def test_a_large_common_offset_costs_no_digits():
    features = np.random.default_rng(0).standard_normal((500, 5))
    expected = np.cov(features, rowvar=False)
    moved = statistics_of(features + 2.0**27)  # sums of squares have 18 digits then, float64 16
    assert moved.covariance == pytest.approx(expected, abs=1e-6)
    assert moved.mean == pytest.approx(features.mean(axis=0) + 2.0**27, abs=1e-6)


def test_what_was_read_does_not_change_later():
    statistics = statistics_of(np.arange(12.0).reshape(4, 3))
    mean, covariance = statistics.mean, statistics.covariance
    before = mean.copy(), covariance.copy()
    statistics.add(np.ones((5, 3)))
    statistics.add(np.empty((0, 3)))
    assert statistics.count == 9
    assert np.array_equal(mean, before[0]) and np.array_equal(covariance, before[1])


@pytest.mark.parametrize("count", [0, 1])
def test_statistics_need_two_images(count):
    statistics = statistics_of(np.zeros((count, 3)))
    for name in ("mean", "covariance"):
        with pytest.raises(UserError, match=f"of {count} image.* 2 at the very least"):
            getattr(statistics, name)


def test_features_must_fit():
    statistics = statistics_of(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"got \[2, 4\], expected \[B, 3\]"):
        statistics.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"got \[3\]"):
        FeatureStatistics().add(np.zeros(3))


@pytest.mark.parametrize(("case", "tolerance"), [("full_rank", 1e-8), ("rank_deficient", 1e-6)])
def test_distance_is_the_golden_one(case, tolerance):
    arrays, expected = golden("metrics.npz"), golden("metrics.json")["frechet"][case]
    a, b = (statistics_of(arrays[f"fid.{case}.{which}"]) for which in "ab")
    distance = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert distance == pytest.approx(expected["distance"], rel=tolerance)


def test_diagonal_gaussians_have_a_closed_form():
    rng = np.random.default_rng(0)
    means, variances = rng.standard_normal((2, 40)), rng.uniform(0, 3, (2, 40))
    variances[0, :5] = variances[1, 3:8] = 0
    expected = ((means[0] - means[1]) ** 2).sum() + (
        (np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2
    ).sum()
    covariances = [np.diag(values) for values in variances]
    distance = frechet_distance(means[0], covariances[0], means[1], covariances[1])
    assert distance == pytest.approx(expected, rel=1e-12)


def test_distance_by_the_matrix_root():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((2, 60))
    a, b = (random_covariance(rng, 60) for _ in range(2))
    assert frechet_distance(means[0], a, means[1], b) == pytest.approx(
        by_matrix_root(means[0], a, means[1], b), rel=1e-9
    )


@pytest.mark.parametrize(("rank_a", "rank_b"), [(300, 300), (300, 20), (20, 35), (1, 1)])
def test_symmetric_and_zero_for_equals_at_any_rank(rank_a, rank_b):
    rng, size = np.random.default_rng(0), 100
    mean = rng.standard_normal(size)
    a, b = random_covariance(rng, size, rank_a), random_covariance(rng, size, rank_b)
    there, back = frechet_distance(mean, a, -mean, b), frechet_distance(-mean, b, mean, a)
    assert math.isfinite(there) and there == pytest.approx(back, rel=1e-12)
    assert 0 <= frechet_distance(mean, a, mean, a) <= 1e-11 * np.trace(a)


@pytest.mark.parametrize(("shared", "tolerance"), [(0, 1e-12), (20, 1e-7), (80, 1e-12)])
def test_gaussians_that_share_some_directions(shared, tolerance):
    # Eigenvalues that should vanish come out at +-1e-16, and their roots at 1e-8 or NaN.
    rng, zero = np.random.default_rng(0), np.zeros(200)
    basis = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    a, b = (part @ part.T for part in (basis[:, :80], basis[:, 80 - shared : 160 - shared]))
    expected = 2 * (80 - shared)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(expected, rel=tolerance, abs=1e-11)


def test_small_eigenvalues_are_not_lost():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    spread = 10.0 ** np.linspace(0, -10, 40)
    a, b = ((basis * values) @ basis.T for values in (spread, spread[::-1]))
    exact = 2 * spread.sum() - 2 * np.sqrt(spread * spread[::-1]).sum()
    zero = np.zeros(40)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(exact, rel=1e-9)


def test_without_any_spread_only_the_means_count():
    nothing = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), nothing, np.full(3, 2.0), nothing) == 12
    assert frechet_distance(np.zeros(3), nothing, np.zeros(3), np.eye(3)) == 3


def test_broken_statistics_are_refused():
    mean, covariance = np.zeros(3), np.eye(3)
    with pytest.raises(UserError, match="NaN or infinity"):
        frechet_distance(mean, covariance, mean, covariance * np.nan)
    with pytest.raises(UserError, match="NaN or infinity"):
        frechet_distance(mean + np.inf, covariance, mean, covariance)
    with pytest.raises(ValueError, match=r"got \[4\], expected \[3\]"):
        frechet_distance(mean, covariance, np.zeros(4), np.eye(4))
