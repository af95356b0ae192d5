"""Time the Fréchet distance of 2048-d features against the definitions in use.

python -m benchmarks.frechet_distance

All run one after another in this process, on the same covariances, the fastest of three rounds
counting. OMP_NUM_THREADS limits the threads of all alike. scipy's sqrtm takes most of the time.
"""

import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import sqrtm

from benchmarks.machine import describe_machine
from script.metrics.frechet import FeatureStatistics, frechet_distance

FEATURES = 2048
ROUNDS = 3
SETS = (("full rank, 10000 images", 10000), ("500 images", 500))

Statistics = tuple[np.ndarray, np.ndarray]
Distance = Callable[[Statistics, Statistics], float]


def ours(a: Statistics, b: Statistics) -> float:
    """script.metrics.frechet."""
    return frechet_distance(*a, *b)


def by_matrix_root(a: Statistics, b: Statistics) -> float:
    """The definition, with scipy's matrix square root."""
    return _distance(a, b, np.trace(sqrtm(a[1] @ b[1]).real))


def by_eigenvalues(a: Statistics, b: Statistics) -> float:
    """The roots of the product's eigenvalues, as torch-fidelity takes them."""
    eigenvalues = np.linalg.eigvals(a[1] @ b[1]).astype(np.complex128)
    return _distance(a, b, np.sqrt(eigenvalues).real.sum())


def _distance(a: Statistics, b: Statistics, root_trace: float) -> float:
    difference = a[0] - b[0]
    return float(difference @ difference + np.trace(a[1]) + np.trace(b[1]) - 2 * root_trace)


METHODS: dict[str, Distance] = {
    "ours": ours,
    "scipy.linalg.sqrtm": by_matrix_root,
    "numpy.linalg.eigvals": by_eigenvalues,
}


def random_statistics(images: int, seed: int, features: int = FEATURES) -> Statistics:
    """Of features that, like a network's, are correlated and vary unequally: rectified mixtures."""
    mixing = np.random.default_rng(0).standard_normal((features, features)) / np.sqrt(features)
    spread = np.exp(-4 * np.arange(features) / features)
    rng = np.random.default_rng(seed)
    statistics = FeatureStatistics()
    for start in range(0, images, 1000):
        rows = rng.standard_normal((min(1000, images - start), features))
        statistics.add(np.maximum((rows * spread) @ mixing + 0.1 * seed, 0))
    return statistics.mean, statistics.covariance


def compare(
    methods: dict[str, Distance], a: Statistics, b: Statistics, rounds: int
) -> dict[str, tuple[float, float]]:
    """(seconds of the fastest round, distance) of every method."""
    outcome: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            distance = method(a, b)
            seconds = time.perf_counter() - start
            outcome[name] = (min(seconds, outcome.get(name, (seconds,))[0]), distance)
    return outcome


def table(title: str, outcome: dict[str, tuple[float, float]]) -> str:
    """Markdown table; ratios and differences are with respect to the first method."""
    (own_seconds, own_distance), *_ = outcome.values()
    lines = [
        f"| {title} | seconds | times as long | distance | relative difference |",
        "|---|---|---|---|---|",
    ]
    for name, (seconds, distance) in outcome.items():
        difference = abs(distance - own_distance) / own_distance
        lines.append(
            f"| {name} | {seconds:.2f} | {seconds / own_seconds:.1f} | {distance:.8f} "
            f"| {difference:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print machine, versions and a table for each kind of covariance."""
    print(describe_machine(("numpy", "scipy")))
    print(f"{FEATURES} features, fastest of {ROUNDS} rounds\n")
    for title, images in SETS:
        a, b = (random_statistics(images, seed) for seed in (1, 2))
        print(table(title, compare(METHODS, a, b, ROUNDS)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
