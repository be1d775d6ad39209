"""The colour of data: powers of their covariance matrix, in a basis in which it is diagonal or nearly so."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.errors import ConfigurationError
from hamflow.training.fit import Rows

LARGEST = 1024  # coordinates of data whose covariance is computed in full
ROWS = 4096  # of the data at a time

Basis = Literal["auto", "pca", "cosine"]
Bands = Annotated[tuple[Annotated[float, Meta(ge=-20, le=20)], ...], Meta(min_length=2, max_length=64)]  # of ln c
Spectrum = Annotated[float, Meta(ge=0, le=1)] | Bands  # the power g of c = lambda^g, or bands


def log_variances(colour: float | Sequence[float], spectrum: Tensor) -> Tensor:
    """ln c of each eigenvalue lambda, but for a constant.

    Args:
        colour: a number g, for c = lambda^g; or several of ln c, at values of ln lambda that are evenly spaced from the least
            to the largest, between which it is linear.
        spectrum: lambda, positive, data units squared.
    """
    known = spectrum.log()
    if not isinstance(colour, Sequence):
        return colour * known
    values, least, largest = known.new_tensor(colour), known.min(), known.max()
    place = (known - least) / (largest - least).clamp(min=1e-12) * (len(values) - 1)
    below = place.long().clamp(max=len(values) - 2)
    return torch.lerp(values[below], values[below + 1], place - below)


class Colour(nn.Module):
    """K = c(S) d / tr c(S) for a covariance S of data with d coordinates, c a power or another function of its eigenvalues: a
    colour of unit mean variance.

    S is U diag(lambda) U^T. `pca`: the covariance of the data plus a ridge, with its eigenvectors. `cosine`: for larger
    images U is the discrete cosine transform over channels (grey, then two differences: a fixed decorrelation), rows and
    columns; lambda is one power law of the frequency for each channel, fitted to the variances of the coefficients.

    Args:
        shape: of one sample. colour: of c, see `log_variances`; data units drop out. ridge: added to lambda, in
            units of its mean.
        basis: auto: pca up to 1,024 coordinates.
    Source: [derived] theory 4.7.
    """

    spectrum: Tensor  # lambda
    basis: Tensor  # U, columns

    def __init__(self, shape: tuple[int, ...], colour: float | Sequence[float], ridge: float = 0.01, basis: Basis = "auto"):
        super().__init__()
        self.shape, self.colour, self.ridge, self.size = tuple(shape), colour, ridge, math.prod(shape)
        self.full = basis == "pca" or (basis == "auto" and self.size <= LARGEST)
        if self.full and self.size > LARGEST:
            raise ConfigurationError(
                f"basis 'pca' is for at most {LARGEST} coordinates, these data have {self.size}",
                why="it takes the covariance matrix of all pairs of them",
                fix="basis 'cosine' (or 'auto')",
            )
        # by torch.empty, as the weights: what reads a checkpoint counts them before it makes them
        self.register_buffer("spectrum", torch.empty(self.size, dtype=torch.float64).fill_(math.nan))
        if self.full:
            self.register_buffer("basis", torch.empty(self.size, self.size, dtype=torch.float64).fill_(math.nan))

    @torch.no_grad()
    def measure(self, rows: Rows) -> None:
        """Take the statistics of all rows. Raises ConfigurationError if their covariance is not positive."""
        if self.full:
            mean, second = self._moments(rows, lambda x: x.T @ x)
            spectrum, vectors = torch.linalg.eigh(second - mean[:, None] * mean)
            self.basis.copy_(vectors)
        else:
            mean, second = self._moments(rows, lambda x: x.square().sum(0))
            spectrum = self._smooth((second - mean.square()).reshape(self.shape)).flatten()
        self.spectrum.copy_(spectrum + self.ridge * spectrum.mean())
        self.check()

    def check(self) -> None:
        """Raise ConfigurationError if the covariance is not positive, or was not measured."""
        lowest = float(self.spectrum.min()) if bool(self.spectrum.isfinite().all()) else math.nan
        if not lowest > 1e-12 * float(self.spectrum.max()):
            raise ConfigurationError(
                f"the covariance of the data is not positive: its least eigenvalue is {lowest:g}, "
                f"its largest {float(self.spectrum.max()):g}",
                why="a coordinate without noise, or one that never varies, has no finite loss and no finite score",
                fix="a `ridge` above 0",
            )

    def apply_power(self, x: Tensor, exponent: float) -> Tensor:
        """K^exponent x, [N, *shape] in x's dtype."""
        factors = log_variances(self.colour, self.spectrum).softmax(0) * self.size  # eigenvalues of K
        factors = factors.pow(exponent).to(x)
        if self.full:
            basis = self.basis.to(x)
            return ((x.flatten(1) @ basis * factors) @ basis.T).reshape(x.shape)
        coefficients = self._transform(x, forward=True)
        return self._transform(coefficients * factors.reshape(self.shape), forward=False)

    def _moments(self, rows: Rows, square) -> tuple[Tensor, Tensor]:
        """Means of the coordinates (or cosine coefficients) and of their squares or products, float64 on the CPU."""
        total, squares = torch.zeros(self.size, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for start in range(0, rows.count, ROWS):
            x = rows.batch(np.arange(start, min(start + ROWS, rows.count)))[0].double().cpu()
            x = x.flatten(1) if self.full else self._transform(x, forward=True).flatten(1)
            total, squares = total + x.sum(0), squares + square(x)
        return total / rows.count, squares / rows.count

    def _smooth(self, variance: Tensor) -> Tensor:
        """exp(a + b ln(1 + k^2)) of each channel, k the frequency, by least squares of the logarithms; as `variance`."""
        squares = [torch.arange(n, dtype=torch.float64).square() for n in self.shape[1:]]
        frequency = torch.stack(torch.meshgrid(*squares, indexing="ij")).sum(0).flatten()
        columns = torch.stack([torch.ones_like(frequency), (1 + frequency).log()], 1)
        least = 1e-12 * variance.mean()
        logarithms = variance.clamp(min=float(least)).log().flatten(1).T
        return (columns @ torch.linalg.lstsq(columns, logarithms).solution).exp().T.reshape(self.shape)

    def _transform(self, x: Tensor, forward: bool) -> Tensor:
        for axis, length in enumerate(self.shape, start=1):
            matrix = cosines(length).to(x)
            x = torch.movedim(torch.movedim(x, axis, -1) @ (matrix.T if forward else matrix), -1, axis)
        return x


def cosines(length: int) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II) of that length: rows are frequencies, float64."""
    k, n = torch.arange(length, dtype=torch.float64)[:, None], torch.arange(length, dtype=torch.float64)
    matrix = torch.cos(math.pi * k * (n + 0.5) / length) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix
