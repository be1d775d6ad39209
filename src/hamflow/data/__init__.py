"""Data sets: made or found once, written as plain arrays with a manifest, read by memory map."""

from hamflow.data.dataset import Dataset, load
from hamflow.data.preparation import prepare
from hamflow.data.sources import Density, Source, build, names

__all__ = ["Dataset", "Density", "Source", "build", "load", "names", "prepare"]
