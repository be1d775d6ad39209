"""From samples to the space in which they are compared, and the real data that stand there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hamflow import draws, runtime
from hamflow.data import Dataset
from hamflow.errors import ConfigurationError
from hamflow.metrics import features
from hamflow.metrics.neighbours import nearest
from hamflow.metrics.reference import KERNEL_ROWS, Reference, summarise
from hamflow.metrics.suite import MEMORISATION, Comparison
from hamflow.progress import Progress

HELD_OUT = "held_out"  # the part
REFERENCE, BOUND = "reference", "bound"  # streams of fresh draws from a law
POINTS = "points"  # the features of points: the points themselves


class Embedding:
    """From samples to the space in which they are compared."""

    def __init__(self, spec: Mapping[str, Any], dataset: Dataset, device: str):
        self.spec, self.kind, self.density = spec, dataset.kind, dataset.density()
        name = spec["features"]
        if (name == POINTS) != (dataset.kind == "point"):
            fitting = [POINTS] if dataset.kind == "point" else features.names()
            raise ConfigurationError(
                f"features '{name}' do not fit data set '{dataset.name}', which is of {dataset.kind}s",
                fix=f"set datasets.{dataset.name}.features to {' or '.join(fitting)}",
            )
        chosen = runtime.configure(device if dataset.kind == "image" else "cpu")
        self.device = runtime.describe_device(chosen)
        self.network = features.build(name, chosen, **spec.get("options", {})) if name != POINTS else None
        self.sha256 = self.network.sha256 if self.network else None

    def __call__(self, rows: np.ndarray, what: str) -> np.ndarray:
        """Features of images, [n, d]; points as they are."""
        if self.network is None:
            return np.asarray(rows)
        progress = Progress(f"{self.network.name} {what}", len(rows), "image")
        parts = []
        for part in self.network(rows, self.spec["batch"]):
            parts.append(part)
            progress.advance(len(part))
        progress.close()
        return np.concatenate(parts)

    def comparison(self, rows: np.ndarray, reference: Reference) -> Comparison:
        suffix = self.network.suffix if self.network else POINTS
        names = self.network.names if self.network else {}
        more = frozenset(self.spec.get("more", ()))
        return Comparison(self.kind, self.spec["features"], suffix, rows, reference, self.density, names, more)


def reference_rows(spec: Mapping[str, Any], dataset: Dataset, embed: Embedding) -> np.ndarray:
    """The data that samples are compared with, embedded, [n, d]."""
    if dataset.kind == "image":
        return embed(_rows(spec, _part(spec, dataset)), "real images")
    return _draw(spec, dataset, REFERENCE)


def reference_of(spec: Mapping[str, Any], dataset: Dataset, embed: Embedding, rows: np.ndarray, facts: Any) -> Reference:
    """What real rows make; where memorisation is asked for, with all of them, and how near to them held-out ones are."""
    if MEMORISATION not in spec.get("more", ()):
        return summarise(rows, facts)
    whole = summarise(rows, facts, max(len(rows), KERNEL_ROWS))
    if dataset.kind != "image" or not dataset.manifest["split"]["test"]:
        return whole
    return replace(whole, held_out=nearest(embed(_rows(spec, dataset.test()), "held-out images"), whole.rows).distance)


def bound_rows(spec: Mapping[str, Any], dataset: Dataset, embed: Embedding, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint sets of real data; the second is `rows` itself where there are others to be the first."""
    if dataset.kind == "point":
        return _draw(spec, dataset, BOUND), rows
    if spec.get("reference") == HELD_OUT:
        return embed(_rows(spec, dataset), "training images"), rows
    if dataset.manifest["split"]["test"]:
        return embed(_rows(spec, dataset.test()), "held-out images"), rows
    order, half = draws.generator(0, "halves", "images").permutation(len(rows)), len(rows) // 2
    return rows[order[:half]], rows[order[half : 2 * half]]


def _part(spec: Mapping[str, Any], dataset: Dataset) -> Dataset:
    """The part that samples are compared with."""
    if spec.get("reference") != HELD_OUT:
        return dataset
    if not dataset.manifest["split"]["test"]:
        raise ConfigurationError(
            f"`datasets.{dataset.name}.reference` is {HELD_OUT}, but nothing of these data was held out",
            fix=f"set datasets.{dataset.name}.options.holdout to a share such as 0.2, or leave `reference` out",
        )
    return dataset.test()


def _rows(spec: Mapping[str, Any], dataset: Dataset) -> np.ndarray:
    """The images of a part, or those in which its classes occur equally often, as in the samples."""
    return dataset.rows[dataset.equal_rows()] if spec.get("class_law") == "equal" else dataset.rows


def _draw(spec: Mapping[str, Any], dataset: Dataset, stream: str) -> np.ndarray:
    """n_samples points: a fresh draw from the law where it is known, else rows of the data, other ones for each stream."""
    law, n = dataset.density(), spec["n_samples"]
    if law is not None:
        return law.sample(n, draws.generator(0, "data", "fresh", stream)).numpy()
    if 2 * n > dataset.count:
        raise ConfigurationError(
            f"'{dataset.name}' has {dataset.count} points and no known law, too few for two disjoint sets of {n}",
            why="one set is compared with the samples, the other gives the bound",
            fix=f"set datasets.{dataset.name}.n_samples to {dataset.count // 2} or less",
        )
    order = draws.generator(0, "halves", "points").permutation(dataset.count)
    return dataset.rows[np.sort(order[:n] if stream == REFERENCE else order[n : 2 * n])]
