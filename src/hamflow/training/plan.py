"""How a training goes on: the settings `training` of the parameters. Does not import torch."""

import math
from typing import Literal

from msgspec import field

from hamflow.registry import Count, Fraction, NotNegative, Options, Positive


class Player(Options, kw_only=True, frozen=True):
    """What one player may have of its own; None: as all."""

    learning_rate: Positive | None = None
    betas: tuple[Fraction, Fraction] | None = None
    gradient_clip: NotNegative | None = None


class Training(Options, kw_only=True, frozen=True):
    """The length, the optimiser and the average of a training. Durations are in thousands of images (kimg)."""

    train_kimg: Positive = 200.0  # length, independent of the batch size
    batch: Count = 256  # samples an optimiser step, over all processes
    microbatch: Count | None = None  # samples in memory at a time; None: all
    learning_rate: Positive = 1e-3  # peak rate of Adam
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)  # of Adam
    warmup_kimg: NotNegative = 0.0  # linear ramp of the learning rate
    decay: Literal["cosine", "none"] = "cosine"  # after the ramp: cosine to zero at train_kimg, or none
    ema_halflife_kimg: NotNegative = 10.0  # half-life of the moving average of all weights; 0: none
    ema_rampup: Positive = 0.1  # half-life at most this fraction of the images seen
    gradient_clip: NotNegative = 1.0  # largest gradient norm; 0: none
    report_kimg: Positive = 8.0  # a line of train.jsonl this often
    state_kimg: Positive = 32.0  # a resumable state this often
    players: dict[str, Player] = field(default_factory=dict)  # {player: what it has of its own}

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return max(1, math.ceil(1000 * self.train_kimg / self.batch - 1e-9))

    def steps_in(self, kimg: float) -> int:
        """The number of steps nearest to a duration, at least 1."""
        return max(1, round(1000 * kimg / self.batch))
