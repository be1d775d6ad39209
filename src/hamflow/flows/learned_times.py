"""Training times drawn where the loss's gradient is spread widest, with weights that leave the loss what it is."""

import torch
from torch import Tensor, nn

MEMORY = 0.99  # of the sums, an update
FLOOR = 0.1  # share of the times that stays as the law says
TINY = 1e-30  # of a loss: no division of nothing by nothing


class LearnedTimes(nn.Module):
    """The density of a law's uniform number, constant on strata, learned from the losses of the training itself.

    It is in proportion to the root of a stratum's mean loss: for a residual r at unit weight the gradient by the network's
    output is 2 r. A sample's loss is to be divided by the density, so that no stratum counts more or less than before.
    Args:
        strata: K, of equal probability under the law.
    Source: theory 2.13.
    """

    seen: Tensor
    new: Tensor

    def __init__(self, strata: int):
        super().__init__()
        self.strata = strata
        self.register_buffer("seen", torch.zeros(2, strata))  # losses, and how often they were seen, of a row; old ones fade
        self.register_buffer("new", torch.zeros(2, strata))  # those of the update under way

    def density(self) -> Tensor:
        """Of each stratum, relative to the law, [K]: mean 1, at least FLOOR; 1 everywhere before anything was seen; float64."""
        total, count = self.seen.double()
        of_all = total.sum() / (count.sum() + TINY)
        spread = (torch.where(count > 0, total / count, of_all) + TINY).sqrt()
        return (1 - FLOOR) * spread / spread.mean() + FLOOR

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(u', weight), float64 [n] each: numbers of the learned density from uniform ones u, [n], and its inverse at u'.

        u' grows with u: stratified numbers stay stratified.
        """
        density = self.density().to(u.device)
        ends = density.cumsum(0) / self.strata
        k = torch.searchsorted(ends, u.double()).clamp(max=self.strata - 1)
        inside = (u - (ends - density / self.strata)[k]) * self.strata / density[k]
        return (k + inside.clamp(0, 1 - 1e-12)) / self.strata, 1 / density[k]

    @torch.no_grad()
    def note(self, u: Tensor, losses: Tensor) -> None:
        """Remember the losses, [n], of times with those numbers u'."""
        k = (u * self.strata).long().clamp(max=self.strata - 1)
        self.new[0].index_add_(0, k, losses.detach().to(self.new))
        self.new[1].index_add_(0, k, torch.ones_like(losses, dtype=self.new.dtype))

    @torch.no_grad()
    def fold(self, rows: int, world: int = 1) -> None:
        """After an update: what was noted belongs to what was seen, and older losses fade.

        Args:
            rows: of the update. world: processes that share them, whose buffers are averaged afterwards.
        """
        self.seen.mul_(MEMORY).add_(self.new, alpha=(1 - MEMORY) * world / rows)
        self.new.zero_()
