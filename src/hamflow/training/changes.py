"""What a training changes at random in its data."""

from typing import NamedTuple

import torch
from torch import Tensor

from hamflow.training.augmentation import Transforms
from hamflow.training.fit import Batch

UNLABELLED = -1  # the class of a sample whose class the network is not told


class Changes(NamedTuple):
    """Which changes: see the options of `hamflow.methods.velocity.VelocityRegression`."""

    augmentation: float = 0.0
    mirror: bool = False
    label_dropping: float = 0.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(x_0, labels, the numbers of the augmentation) of a batch."""
        x, label, numbers = batch.x, batch.label, None
        if self.mirror:
            x = torch.where((batch.draw.uniform("mirror") < 0.5)[:, None, None, None], x.flip(3), x)
        if self.augmentation:
            transforms = Transforms.drawn(batch.draw, self.augmentation)
            x, numbers = transforms(x), transforms.numbers()
        if self.label_dropping and label is not None:
            label = torch.where(batch.draw.uniform("label dropping") < self.label_dropping, UNLABELLED, label)
        return x, label, numbers


UNCHANGED = Changes()
