"""Paired differences between runs, with bootstrap confidence intervals.

The same pair of images is easy or hard for every model, so differences per pair say far more
than the means of two runs do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from script.compare_runs.runs import Run, peculiarities
from util.errors import UserError

CLUSTERS = ("linked", "source", "target", "none")
FEWEST_RESAMPLES = 100
# Numbers drawn at a time in the bootstrap: 8 MB each for the draws and for their counts, twice.
CHUNK = 2**20


@dataclass(frozen=True)
class Difference:
    """A per-image figure of a run minus the baseline's, over the pairs that both have.

    Attributes:
        run: name of the run.
        figure: name of the figure.
        higher_is_better: of the figure.
        mean: mean difference.
        low, high: its confidence interval; NaN when there are fewer than two clusters.
        better: share of pairs where the run is strictly better.
        worse: share where it is strictly worse.
        pairs: how many count.
        clusters: how many were resampled.
        infinite: pairs left out because a value is infinite (PSNR of identical pictures).
        comparable: whether both runs made the figure in the same way.
    """

    run: str
    figure: str
    higher_is_better: bool
    mean: float
    low: float
    high: float
    better: float
    worse: float
    pairs: int
    clusters: int
    infinite: int
    comparable: bool

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval excludes 0, else empty."""
        if not (self.low > 0 or self.high < 0):
            return ""
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class PairedComparison:
    """A run against the baseline: how many pairs they share, and differences per figure."""

    run: str
    shared: int
    only_run: int
    only_baseline: int
    differences: list[Difference]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how many, at least FEWEST_RESAMPLES.
        confidence: of the interval, in percent.
        seed: the same seed gives the same intervals.
        cluster: what is drawn together, one of CLUSTERS; see `cluster_numbers`.
    """

    resamples: int = 10_000
    confidence: float = 95.0
    seed: int = 0
    cluster: str = "linked"

    def __post_init__(self) -> None:
        if self.resamples < FEWEST_RESAMPLES:
            raise UserError(f"--resamples: {self.resamples} is too few; give {FEWEST_RESAMPLES}+")
        if not 0 < self.confidence < 100:
            raise UserError(f"--confidence: {self.confidence:g} is not between 0 and 100 percent")


def compare_pairs(
    baseline: Run, run: Run, figures: Sequence[str], bootstrap: Bootstrap
) -> PairedComparison:
    """Differences of `run` to `baseline` in those of `figures` that both have per image."""
    rows = {pair: row for row, pair in enumerate(baseline.pairs)}
    shared = [(row, rows[pair]) for row, pair in enumerate(run.pairs) if pair in rows]
    names = [name for name in figures if name in run.scores and name in baseline.scores]
    differences: list[Difference] = []
    if names and shared:
        own, others = np.array(shared).T
        images = [run.images[row] for row in own]
        for ours, theirs in zip(images, (baseline.images[row] for row in others), strict=True):
            if ours != theirs:
                raise UserError(
                    f"{run.folder} scored a picture as {' to '.join(ours)}, {baseline.folder} as "
                    f"{' to '.join(theirs)}: run script.metrics again for both"
                )
        a = np.stack([run.scores[name][own] for name in names], axis=1)
        b = np.stack([baseline.scores[name][others] for name in names], axis=1)
        differences = _differences(run, baseline, names, a, b, images, bootstrap)
    return PairedComparison(
        run.name,
        len(shared),
        len(run.pairs) - len(shared),
        len(baseline.pairs) - len(shared),
        differences,
    )


def _differences(
    run: Run,
    baseline: Run,
    names: list[str],
    a: np.ndarray,
    b: np.ndarray,
    images: list[tuple[str, str]],
    bootstrap: Bootstrap,
) -> list[Difference]:
    """`a`, `b`: [pairs, figures] of run and baseline."""
    infinite = (np.isinf(a) | np.isinf(b)) & ~np.isnan(a) & ~np.isnan(b)
    known = np.isfinite(a) & np.isfinite(b)
    difference = np.where(known, a, 0) - np.where(known, b, 0)
    numbers = cluster_numbers(images, bootstrap.cluster)
    sums, counts = _per_cluster(difference, numbers), _per_cluster(known, numbers)
    low, high = bootstrap_interval(sums, counts, bootstrap)
    outcome = []
    for column, name in enumerate(names):
        count = int(known[:, column].sum())
        if not count and not infinite[:, column].any():
            continue
        higher = run.figures[name].better == "higher"
        gain = difference[:, column] if higher else -difference[:, column]
        own, others = peculiarities(run, name), peculiarities(baseline, name)
        outcome.append(
            Difference(
                run=run.name,
                figure=name,
                higher_is_better=higher,
                mean=float(difference[:, column].sum() / count) if count else math.nan,
                low=float(low[column]),
                high=float(high[column]),
                better=float((gain > 0).sum() / count) if count else math.nan,
                worse=float((gain < 0).sum() / count) if count else math.nan,
                pairs=count,
                clusters=int((counts[:, column] > 0).sum()),
                infinite=int(infinite[:, column].sum()),
                comparable=all(own[key] == others[key] for key in own if key != "images"),
            )
        )
    return outcome


def cluster_numbers(pairs: Sequence[tuple[str, str]], cluster: str) -> np.ndarray:
    """Which pairs are drawn together in the bootstrap.

    Scores of pairs that share an image are not independent; resampling such pairs one by one
    makes intervals too narrow.

    Args:
        pairs: names of source and target each.
        cluster: "source" or "target": pairs of one source or target image; "linked": pairs that
            share images, directly or through other pairs (in the data sets of this field usually
            all pairs of one person); "none": every pair by itself.

    Returns:
        int [pairs], numbers from 0.
    """
    if cluster == "none":
        return np.arange(len(pairs))
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    if cluster != "linked":
        return np.unique(sources if cluster == "source" else targets, return_inverse=True)[1]
    images, ends = np.unique(sources + targets, return_inverse=True)
    ends = ends.astype(np.int32)  # SciPy 1.11 ignores graphs of 64-bit indices
    starts, ends = ends[: len(pairs)], ends[len(pairs) :]
    graph = coo_array((np.ones(len(pairs)), (starts, ends)), shape=(len(images), len(images)))
    return np.unique(connected_components(graph, directed=False)[1][starts], return_inverse=True)[1]


def _per_cluster(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sums of [pairs, figures] over each cluster: float64 [clusters, figures]."""
    return np.stack([np.bincount(numbers, weights=column) for column in values.T], axis=1)


def bootstrap_interval(
    sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap, chunk: int = CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of a mean, drawing whole clusters with replacement.

    The percentile method: Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13.
    All figures use the same draws. Memory is that of some `chunk` numbers.

    Args:
        sums: [clusters, figures], sum of the values in each cluster.
        counts: [clusters, figures], how many values that is.
        bootstrap: resamples, confidence, seed.
        chunk: numbers drawn at a time, does not change the result.

    Returns:
        (low, high), [figures] each; NaN for a figure with fewer than two clusters of values.
    """
    clusters, figures = sums.shape
    rng = np.random.default_rng(bootstrap.seed)
    both = np.hstack([sums, counts])
    means = np.empty((bootstrap.resamples, figures))
    rows = max(1, chunk // clusters)
    for start in range(0, bootstrap.resamples, rows):
        size = min(rows, bootstrap.resamples - start)
        drawn = rng.integers(clusters, size=(size, clusters))
        drawn += np.arange(size)[:, None] * clusters
        times = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
        totals = times.astype(np.float64) @ both
        with np.errstate(invalid="ignore"):  # a resample without a value of a rare figure
            means[start : start + size] = totals[:, :figures] / totals[:, figures:]
    means[:, (counts > 0).sum(axis=0) < 2] = np.nan
    tail = (1 - bootstrap.confidence / 100) / 2
    low, high = np.full(figures, np.nan), np.full(figures, np.nan)
    for column in range(figures):
        known = means[~np.isnan(means[:, column]), column]
        if known.size:
            low[column], high[column] = np.quantile(known, [tail, 1 - tail])
    return low, high
