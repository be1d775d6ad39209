"""The two jobs of evaluation: what real data are like, and how far samples are from it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hamflow import data as datasets
from hamflow import draws, runtime
from hamflow.data import Dataset
from hamflow.data.arrays import open_array
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import fingerprint, read_json
from hamflow.metrics import features
from hamflow.metrics.reference import Reference, load, save, summarise
from hamflow.metrics.suite import Comparison, measure
from hamflow.pipeline.provenance import origin, provenance, read_circumstances, write_record
from hamflow.progress import Progress

REFERENCE, BOUND = "reference", "bound"  # streams of fresh draws from a law
POINTS = "points"  # the features of points: the points themselves
BOUND_FILE = "real-nfe0.json"
WHY_SAMPLES = "metrics of incomplete or foreign samples would stand under this method's name"


def build_reference(
    spec: Mapping[str, Any],
    data: str | Path,
    reference: str | Path,
    output: str | Path | None = None,
    values: str | Path | None = None,
    device: str = "auto",
) -> None:
    """Write the statistics of a data set and, with `output`, real-nfe0.json: what real data reach.

    Images: statistics of the training part; the bound compares the test part with it or, where nothing was
    held out, one random half of it with the other (n is the half's). Points: a fresh draw from the law, of
    another stream than the training points, or some of the points where the law is unknown; the bound compares it
    with a second one.

    Args:
        spec: `hamflow.config.evaluation_spec` without a method.
        data: folder of the data set.
        reference: the .npz to write.
        output: folder of the bound.
        values: folder of the same without circumstances (commit, host, seconds), if given.
        device: "auto", "cpu", "cuda", ...
    Raises:
        DataError: data or feature weights that are absent, corrupted or not what they should be.
        ConfigurationError: features that do not fit the data.
    """
    began = time.perf_counter()
    dataset = datasets.load(data, verify=True)
    embed = _Embedding(spec, dataset, device)
    facts = {
        "dataset": spec["dataset"],
        "features": spec["features"],
        "features_sha256": embed.sha256,
        "data_sha256": dataset.sha256,
        "params_sha256": fingerprint(dict(spec)),
        "device": embed.device,
    }
    rows = _reference_rows(spec, dataset, embed)
    whole = summarise(rows, {**facts, "provenance": origin()})
    save(reference, whole)
    if output is not None:
        real, against = _bound_rows(spec, dataset, embed, rows)
        whole = whole if against is rows else summarise(against, facts)
        measured = measure(embed.comparison(real, whole))
        told = provenance(**facts, seed=0, wall_seconds=time.perf_counter() - began)
        setting = {"sampler": "real", "nfe": 0, "seed": 0}
        _write(BOUND_FILE, output, values, _record(spec, setting, measured, told))


def evaluate(
    spec: Mapping[str, Any],
    data: str | Path,
    reference: str | Path,
    samples: str | Path,
    output: str | Path,
    values: str | Path | None = None,
    device: str = "auto",
) -> None:
    """Write the metrics of every <sampler>-nfe<n>.npy in `samples` to a .json of the same name in `output`.

    Args:
        spec: `hamflow.config.evaluation_spec` with the method.
        data: folder of the data set.
        reference: what `build_reference` wrote for it.
        samples: folder that `hamflow sample` wrote.
        output: folder of the metrics.
        values: folder of the same without circumstances (commit, host, seconds), if given.
        device: "auto", "cpu", "cuda", ...
    Raises:
        DataError: a reference or samples of other data; files that are absent, truncated, of another shape or
            type, or hold numbers that are not finite.
    """
    dataset, statistics = datasets.load(data), load(reference)
    _check_reference(spec, dataset, statistics, Path(reference))
    files = sorted(Path(samples).glob("*-nfe*.npy"))
    if not files:
        raise DataError(f"there are no samples in {samples}", fix="`hamflow sample --help`, or start the workflow again")
    embed, run = _Embedding(spec, dataset, device), read_circumstances(Path(samples))
    for path in files:
        began = time.perf_counter()
        sidecar, drawn = _read_samples(path, spec, dataset)
        measured = measure(embed.comparison(embed(drawn, path.stem), statistics))
        facts = {
            "seed": sidecar["seed"],
            "data_sha256": dataset.sha256,
            "checkpoint_sha256": sidecar["checkpoint_sha256"],
            "params_sha256": fingerprint(dict(spec)),
            "features_sha256": embed.sha256,
            "device": embed.device,
            "wall_seconds": time.perf_counter() - began,
            **run,
        }
        _write(f"{path.stem}.json", output, values, _record(spec, sidecar, measured, provenance(**facts)))


class _Embedding:
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
        self.network = features.build(name, chosen) if name != POINTS else None
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
        return Comparison(self.kind, self.spec["features"], suffix, rows, reference, self.density)


def _reference_rows(spec: Mapping[str, Any], dataset: Dataset, embed: _Embedding) -> np.ndarray:
    """The data that samples are compared with, embedded, [n, d]."""
    if dataset.kind == "image":
        return embed(dataset.rows, "real images")
    return _draw(spec, dataset, REFERENCE)


def _bound_rows(
    spec: Mapping[str, Any], dataset: Dataset, embed: _Embedding, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint sets of real data; the second is `rows` itself where there are others to be the first."""
    if dataset.kind == "point":
        return _draw(spec, dataset, BOUND), rows
    if dataset.manifest["split"]["test"]:
        return embed(dataset.test().rows, "held-out images"), rows
    order, half = draws.generator(0, "halves", "images").permutation(len(rows)), len(rows) // 2
    return rows[order[:half]], rows[order[half : 2 * half]]


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


def _read_samples(path: Path, spec: Mapping[str, Any], dataset: Dataset) -> tuple[dict[str, Any], np.ndarray]:
    """What was said of the samples, and the samples, checked."""
    fix = f"delete {path} and sample again"
    try:
        sidecar = read_json(path.with_suffix(".json"))
        missing = {"sampler", "nfe", "seed", "data_sha256", "checkpoint_sha256"} - sidecar.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path.with_suffix('.json')} is unreadable ({error})", why=WHY_SAMPLES, fix=fix) from error
    if sidecar["data_sha256"] != dataset.sha256:
        raise DataError(f"{path} was drawn for other data than those in {dataset.folder}", why=WHY_SAMPLES, fix=fix)
    drawn = open_array(
        path,
        dtype=str(dataset.rows.dtype),
        shape=[spec["n_samples"], *dataset.rows.shape[1:]],
        why=WHY_SAMPLES,
        fix=fix,
    )
    if dataset.kind == "point" and not np.isfinite(drawn).all():
        raise DataError(f"{path} holds numbers that are not finite", why=WHY_SAMPLES, fix=fix)
    return sidecar, drawn


def _check_reference(spec: Mapping[str, Any], dataset: Dataset, statistics: Reference, path: Path) -> None:
    for key, value in (("data_sha256", dataset.sha256), ("features", spec["features"])):
        if statistics.facts.get(key) != value:
            raise DataError(
                f"{path} was made with {key} {statistics.facts.get(key)}, but {value} is asked for",
                why="samples would be compared with other data, or in other features, than the table says",
                fix=f"delete {path} and build it again: `hamflow evaluate` without --samples",
            )
    if dataset.kind == "point" and statistics.n != spec["n_samples"]:
        raise DataError(
            f"{path} holds {statistics.n} points, but {spec['n_samples']} samples are to be compared with it",
            why="the distances of finite sets depend on n: only equal n may be compared",
            fix=f"delete {path} and build it again: `hamflow evaluate` without --samples",
        )


def _record(
    spec: Mapping[str, Any],
    setting: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The metrics JSON of the contract."""
    identity = ("preset", "dataset", "dataset_label", "conditional", "method", "label")
    about = {key: spec[key] for key in identity} | {key: setting[key] for key in ("sampler", "nfe", "seed")}
    return {**about, "metrics": measured, "provenance": facts}


def _write(name: str, output: str | Path, values: str | Path | None, record: Mapping[str, Any]) -> None:
    """Write the record, and a line on the terminal."""
    write_record(Path(output) / name, record, values and Path(values) / name)
    numbers = ", ".join(f"{metric} {row['value']:.4g} (n={row['n']})" for metric, row in record["metrics"].items())
    where = f"{record['preset']}/{record['dataset']}/{record['method']}/seed{record['seed']} {Path(name).stem}"
    print(f"{where}: {numbers}", flush=True)
