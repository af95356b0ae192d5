"""Fréchet distance between the Gaussians of two sets of features (FID).

The formula: Dowson & Landau, "The Fréchet distance between multivariate normal distributions",
1982; on Inception features: Heusel et al., "GANs trained by a two time-scale update rule converge
to a local Nash equilibrium", 2017, eq. 6.
"""

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpstrf

from util.errors import UserError


class FeatureStatistics:
    """Mean and covariance of features that come in batches; memory does not grow with their number.

    Batches are merged by their deviations from the mean (Chan, Golub & LeVeque, "Updating formulae
    and a pairwise algorithm for computing sample variances", 1979), so that an offset common to
    all features costs no digits of the covariance, as sums of squares would.

    Attributes:
        count: rows added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray | None = None
        self._scatter: np.ndarray | None = None  # sum of outer products, upper triangle only

    def add(self, features: np.ndarray) -> None:
        """Take a batch.

        Args:
            features: [B, D], any real type; computed in float64. B may be 0 and may change.

        Raises:
            ValueError: not two-dimensional, or another D than before.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or (self._mean is not None and features.shape[1] != len(self._mean)):
            expected = "D" if self._mean is None else len(self._mean)
            raise ValueError(f"features: got {list(features.shape)}, expected [B, {expected}]")
        batch, columns = features.shape
        if batch == 0:
            return
        if self._mean is None:
            self._mean = np.zeros(columns)
            self._scatter = np.zeros((columns, columns), order="F")  # as BLAS updates in place
        batch_mean = features.mean(axis=0)
        shift = batch_mean - self._mean
        total = self.count + batch
        between = shift * np.sqrt(self.count * batch / total)
        deviations = np.concatenate([features - batch_mean, between[None]])
        self._scatter = dsyrk(1.0, deviations.T, beta=1.0, c=self._scatter, overwrite_c=1)
        self._mean = self._mean + shift * (batch / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """[D] float64. Raises UserError with fewer than 2 rows."""
        self._check_count()
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """[D, D] float64, divided by count - 1. Raises UserError with fewer than 2 rows."""
        self._check_count()
        upper = np.triu(self._scatter) / (self.count - 1)
        return upper + np.triu(upper, 1).T

    def _check_count(self) -> None:
        if self.count < 2:
            raise UserError(
                f"statistics of {self.count} image{'s' * (self.count != 1)}: a covariance needs 2 "
                "at the very least; give more images"
            )


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """|mean_a - mean_b|² + trace(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson & Landau 1982, eq. 4).

    With C = F Fᵀ, the trace of the root is the sum of the singular values of F_aᵀ F_b, here by way
    of the eigenvalues of its smaller Gram matrix, which takes half the time of a singular value
    decomposition. Pivoted Cholesky factors have only as many columns as the rank: covariances of
    few images are no special case, and fewer roots of rounding errors are taken than by the
    definition, where every eigenvalue of C_a C_b that should vanish adds about 1e-8.

    Args:
        mean_a: [D] float64.
        covariance_a: [D, D] float64, symmetric, positive semidefinite, of any rank.
        mean_b: as `mean_a`.
        covariance_b: as `covariance_a`.

    Returns:
        At least 0, in squared units of the features.

    Raises:
        UserError: the statistics hold NaN or infinity.
        ValueError: shapes do not match.
    """
    columns = len(mean_a)
    for values, shape in (
        (mean_a, (columns,)),
        (mean_b, (columns,)),
        (covariance_a, (columns, columns)),
        (covariance_b, (columns, columns)),
    ):
        if values.shape != shape:
            raise ValueError(f"statistics: got {list(values.shape)}, expected {list(shape)}")
        if not np.isfinite(values).all():
            raise UserError(
                "feature statistics hold NaN or infinity: the features of some image are broken; "
                "check the weight file of the network"
            )
    product = _factor(covariance_a).T @ _factor(covariance_b)
    if product.shape[0] > product.shape[1]:
        product = product.T
    eigenvalues = np.linalg.eigvalsh(product @ product.T)
    root_trace = np.sqrt(eigenvalues.clip(min=0)).sum()  # rounding may leave -1e-16 for 0
    difference = mean_a - mean_b
    distance = (
        difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace
    )
    return max(float(distance), 0.0)  # rounding may leave -1e-13 for equal inputs


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] with F Fᵀ = covariance, up to rounding of its largest entry."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)  # default tolerance: D * epsilon * max
    rows = np.empty((len(covariance), rank))
    rows[pivots - 1] = np.tril(factor)[:, :rank]
    return rows
