"""One training loop for every method: durations in images, exact resuming, atomic publishing."""

from hamflow.training.loop import train

__all__ = ["train"]
