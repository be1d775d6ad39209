"""The Fréchet distance of two Gaussians, |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), without sqrtm."""

import numpy as np


def frechet_distance(mean_a, cov_a, mean_b, cov_b) -> float:
    """Squared Wasserstein-2 distance of N(mean_a, cov_a) and N(mean_b, cov_b), float64.

    With S_a = L L', the eigenvalues of S_a S_b are those of the symmetric L' S_b L. L is the Cholesky
    factor or, where S_a is singular, a root from its eigenvectors.

    Args:
        mean_a, mean_b: [d].
        cov_a, cov_b: symmetric, positive semi-definite, [d, d].
    Raises:
        ValueError: shapes that disagree, entries that are not finite.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(x, dtype=np.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    d = len(mean_a)
    if not (mean_a.shape == mean_b.shape == (d,) and cov_a.shape == cov_b.shape == (d, d)):
        raise ValueError(f"shapes {mean_a.shape}, {cov_a.shape} and {mean_b.shape}, {cov_b.shape} disagree")
    if not all(np.isfinite(x).all() for x in (mean_a, cov_a, mean_b, cov_b)):
        raise ValueError("means and covariances must be finite")
    factor = root(cov_a)
    cross = sum_of_roots(np.linalg.eigvalsh(factor.T @ cov_b @ factor))
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def frechet_distance_of(features_a, features_b) -> float:
    """`frechet_distance` of the sample means and covariances (n - 1) of two matrices, [n_a, d] and [n_b, d].

    With fewer rows than columns, tr (S_a S_b)^(1/2) is the sum of the singular values of the centred
    n_a x n_b cross-Gram matrix over sqrt((n_a - 1)(n_b - 1)): no d x d matrix is formed.

    Raises:
        ValueError: fewer than two rows.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (features_a, features_b))
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two rows")
    mean_a, mean_b = a.mean(0), b.mean(0)
    if min(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(mean_a, _covariance(a), mean_b, _covariance(b))
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(np.square(mean_a - mean_b).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross)


def root(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, positive semi-definite, [d, d]."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # singular: fewer samples than dimensions, or features that never vary
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(values.clip(min=0))


def sum_of_roots(eigenvalues: np.ndarray) -> float:
    """Of the eigenvalues of a positive semi-definite matrix."""
    return np.sqrt(eigenvalues.clip(min=0)).sum()  # negative ones are rounding


def _covariance(x: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(x, rowvar=False))
