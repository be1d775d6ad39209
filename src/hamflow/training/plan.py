"""How a training goes on: the settings `training` of the parameters. Does not import torch."""

import math
from typing import Annotated, Literal

from msgspec import Meta, field

from hamflow.registry import Count, Fraction, NotNegative, Options, Positive

# standard deviation of a power-function average's profile, of the images seen; that of the plain mean is .289
RelativeWidth = Annotated[float, Meta(ge=0.01, le=0.28)]
MEASURED = ("images_per_second", "mfu", "memory_gib")  # of a report: what differs between equal trainings


class Player(Options, kw_only=True, frozen=True):
    """What one player may have of its own; None: as all."""

    learning_rate: Positive | None = None
    betas: tuple[Fraction, Fraction] | None = None
    gradient_clip: NotNegative | None = None


class Speed(Options, kw_only=True, frozen=True):
    """How the work is done on the machine; None: what suits the device. Nothing here changes what is computed but rounding."""

    precision: Literal["float32", "bfloat16"] | None = None  # of the networks' products; None: bfloat16 on CUDA
    fused: bool | None = None  # Adam in one kernel; None: on CUDA
    compile: bool = False  # the networks by torch.compile, which takes a minute and then runs faster
    channels_last: bool = True  # images in memory with the channel as the last index
    resident: bool | None = None  # the rows in the device's memory, as they are stored; None: on CUDA where they fit


class Snapshots(Options, kw_only=True, frozen=True):
    """Averages that are kept during a training, so that `hamflow average` can choose another length afterwards."""

    kimg: Positive  # one file this often
    lengths: Annotated[tuple[RelativeWidth, ...], Meta(min_length=1, max_length=8)] = (0.05, 0.10)  # relative to the training


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
    speed: Speed | None = None
    snapshots: Snapshots | None = None  # None: none are kept
    players: dict[str, Player] = field(default_factory=dict)  # {player: what it has of its own}

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return max(1, math.ceil(1000 * self.train_kimg / self.batch - 1e-9))

    def steps_in(self, kimg: float) -> int:
        """The number of steps nearest to a duration, at least 1."""
        return max(1, round(1000 * kimg / self.batch))
