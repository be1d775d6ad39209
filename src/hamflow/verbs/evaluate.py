"""metrics of samples; of a data set alone: its reference statistics, and the bound that real data reach"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamflow import config
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import fingerprint, read_json, write_json
from hamflow.pipeline.jobs import Job, Jobs
from hamflow.pipeline.paths import BOUND, BOUND_SETTING, CIRCUMSTANCES, Run, setting_of
from hamflow.pipeline.provenance import circumstances, origin, read_circumstances
from hamflow.verbs import arguments

if TYPE_CHECKING:
    import numpy as np

    from hamflow.data import Dataset
    from hamflow.metrics.reference import Reference

IDENTITY = ("preset", "dataset", "dataset_label", "conditional", "method", "label")
WHY_SAMPLES = "metrics of incomplete or foreign samples would stand under this method's name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET[/METHOD/seedK]", spec=True)
    arguments.add_paths(
        parser,
        data="folder of the data set",
        reference="the .npz: written without samples, read with them",
        samples="folder of samples, as `hamflow sample` writes it",
        output="folder of the metrics",
    )
    arguments.add_device(parser)


def run(options: argparse.Namespace) -> None:
    place = arguments.run_of(options)
    spec = arguments.specification(options, place, _specification)
    data = arguments.path(options, "data", place.data if place else None)
    reference = arguments.path(options, "reference", place.preset.reference(place.dataset, spec["features"]) if place else None)
    samples = options.samples or (place.samples if place and place.method != BOUND else None)
    output = options.output or (place.metrics if place else None)
    with arguments.making(options, place, _job):
        if samples is None:
            build_reference(spec, data, reference, output, options.device)
        elif output is None:
            raise ConfigurationError("--samples needs --output", fix="--output results/<preset>/metrics/...")
        else:
            evaluate(spec, data, reference, samples, output, options.device)


def _job(jobs: Jobs, run: Run) -> Job:
    return jobs.reference(run.dataset) if run.method == BOUND else jobs.evaluate(*run.key)


def _specification(parameters: config.Config, run: Run) -> config.Config:
    return config.evaluation_spec(parameters, run.dataset, None if run.method == BOUND else run.method)


def build_reference(
    spec: Mapping[str, Any], data: Path, reference: Path, output: Path | None = None, device: str = "auto"
) -> None:
    """Write the statistics of a data set and, with `output`, real-nfe0.json: what real data reach.

    Images: statistics of the training part, or of the held-out part if the spec's `reference` says so; the bound compares the
    other part with it or, where nothing was held out, one random half of the training part with the other (n is the half's); a
    single image gives no bound. Points: a fresh draw from the law, of another stream than the training points, or some of the
    points where the law is unknown; the bound compares it with a second one.

    Args:
        spec: `hamflow.config.evaluation_spec` without a method.
        data: folder of the data set.
        reference: the .npz to write.
        output: folder of the bound; its run.json holds commit, host and seconds.
        device: "auto", "cpu", "cuda", ...
    Raises:
        DataError: data or feature weights that are absent, corrupted or not what they should be.
        ConfigurationError: features that do not fit the data.
    """
    from hamflow import data as datasets
    from hamflow.metrics.embedding import Embedding, bound_rows, reference_of, reference_rows
    from hamflow.metrics.reference import save
    from hamflow.metrics.suite import FEWEST_ROWS, measure

    began = time.perf_counter()
    dataset = datasets.load(data, verify=True)
    embed = Embedding(spec, dataset, device)
    facts = {
        "dataset": spec["dataset"],
        "features": spec["features"],
        "features_sha256": embed.sha256,
        "data_sha256": dataset.sha256,
        "params_sha256": fingerprint(dict(spec)),
        "device": embed.device,
    }
    if "reference" in spec:
        facts["reference"] = spec["reference"]
    rows = reference_rows(spec, dataset, embed)
    whole = reference_of(spec, dataset, embed, rows, {**facts, "provenance": origin()})
    save(reference, whole)
    if output is not None:
        real, against = bound_rows(spec, dataset, embed, rows)
        whole = whole if against is rows or len(against) < FEWEST_ROWS else reference_of(spec, dataset, embed, against, facts)
        measured = measure(embed.comparison(real, whole))
        setting = {"sampler": "real", "nfe": 0, "seed": 0}
        _write(output / f"{BOUND_SETTING}.json", spec, setting, measured, origin(**facts, seed=0))
        seconds = {BOUND_SETTING: time.perf_counter() - began}
        write_json(output / CIRCUMSTANCES, {"evaluation": circumstances(wall_seconds=seconds)})


def evaluate(spec: Mapping[str, Any], data: Path, reference: Path, samples: Path, output: Path, device: str = "auto") -> None:
    """Write the metrics of every <sampler>-nfe<n>.npy in `samples` to a .json of the same name in `output`.

    Those of other settings, which lie there from before, are deleted. `run.json` beside them holds what differs between two
    runs of equal work: commit, host, seconds of each setting; likewise of the sampling and of the training.

    Args:
        spec: `hamflow.config.evaluation_spec` with the method.
        data: folder of the data set.
        reference: what `build_reference` wrote for it.
        samples: folder that `hamflow sample` wrote.
        output: folder of the metrics.
        device: "auto", "cpu", "cuda", ...
    Raises:
        DataError: a reference or samples of other data; files that are absent, truncated, of another shape or
            type, or hold numbers that are not finite.
    """
    from hamflow import data as datasets
    from hamflow.metrics.embedding import Embedding
    from hamflow.metrics.reference import load
    from hamflow.metrics.suite import measure

    dataset, statistics = datasets.load(data), load(reference)
    _check_reference(spec, dataset, statistics, reference)
    files = sorted(samples.glob(f"{setting_of('*', '*')}.npy"))
    if not files:
        raise DataError(f"there are no samples in {samples}", fix="`hamflow sample --help`, or start the workflow again")
    embed, seconds = Embedding(spec, dataset, device), {}
    if embed.network and spec["n_samples"] < embed.network.dimension:
        print(
            f"Note: {spec['n_samples']} samples have a singular covariance in {embed.network.dimension} features: their "
            "distance is mostly the bias of so small an n, which differs from n to n",
            flush=True,
        )
    _check_made(reference, statistics, "features_sha256", embed.sha256)
    for left in {path for path in output.glob(f"{setting_of('*', '*')}.json")} - {output / f"{BOUND_SETTING}.json"}:
        left.unlink()
    for path in files:
        began = time.perf_counter()
        sidecar, drawn = _read_samples(path, spec, dataset)
        measured = measure(embed.comparison(embed(drawn, path.stem), statistics))
        known = origin(
            seed=sidecar["seed"],
            data_sha256=dataset.sha256,
            checkpoint_sha256=sidecar["checkpoint_sha256"],
            params_sha256=fingerprint(dict(spec)),
            features_sha256=embed.sha256,
            device=embed.device,
        )
        _write(output / f"{path.stem}.json", spec, sidecar, measured, known)
        seconds[path.stem] = time.perf_counter() - began
    before = read_circumstances(samples / CIRCUMSTANCES)
    write_json(output / CIRCUMSTANCES, {"evaluation": circumstances(wall_seconds=seconds), **before})


def _read_samples(path: Path, spec: Mapping[str, Any], dataset: "Dataset") -> tuple[dict[str, Any], "np.ndarray"]:
    """What was said of the samples, and the samples, checked."""
    import numpy as np

    from hamflow.data.arrays import open_array

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


def _check_reference(spec: Mapping[str, Any], dataset: "Dataset", statistics: "Reference", path: Path) -> None:
    for key, value in (("data_sha256", dataset.sha256), ("features", spec["features"]), ("reference", spec.get("reference"))):
        _check_made(path, statistics, key, value)
    if dataset.kind == "point" and statistics.n != spec["n_samples"]:
        raise DataError(
            f"{path} holds {statistics.n} points, but {spec['n_samples']} samples are to be compared with it",
            why="the distances of finite sets depend on n: only equal n may be compared",
            fix=f"delete {path} and build it again: `hamflow evaluate` without --samples",
        )


def _check_made(path: Path, statistics: "Reference", key: str, value: str | None) -> None:
    if statistics.facts.get(key) != value:
        raise DataError(
            f"{path} was made with {key} {statistics.facts.get(key)}, but {value} is asked for",
            why="samples would be compared with other data, or in other features, than the table says",
            fix=f"delete {path} and build it again: `hamflow evaluate` without --samples",
        )


def _write(
    path: Path, spec: Mapping[str, Any], setting: Mapping[str, Any], measured: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    """Write the metrics JSON of the contract, and a line on the terminal."""
    about = {key: spec[key] for key in IDENTITY} | {key: setting[key] for key in ("sampler", "nfe", "seed")}
    write_json(path, {**about, "metrics": measured, "provenance": known})
    known_values = {metric: row for metric, row in measured.items() if row["value"] is not None}
    numbers = ", ".join(f"{metric} {row['value']:.4g} (n={row['n']})" for metric, row in known_values.items()) or "too few rows"
    print(f"{about['preset']}/{about['dataset']}/{about['method']}/seed{about['seed']} {path.stem}: {numbers}", flush=True)
