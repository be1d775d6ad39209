"""the Hamiltonian score discrepancy of a trained model at a few noise levels, and the likelihood that it gives to data"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.pipeline.paths import CIRCUMSTANCES, HSD, circumstances_of
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET/METHOD/seedK", spec=True)
    arguments.add_paths(parser, checkpoint="model.safetensors", data="folder of the data set", output="the metrics, hsd.json")
    arguments.add_device(parser)


def run(options: argparse.Namespace) -> None:
    place = arguments.run_of(options)
    spec = arguments.specification(options, place, lambda c, r: config.discrepancy_spec(c, r.dataset, r.method))
    with arguments.making(options, place, lambda jobs, run: jobs.discrepancy(*run.key)):
        evaluate_checkpoint(
            spec,
            arguments.path(options, "checkpoint", place.checkpoint if place else None),
            arguments.path(options, "data", place.data if place else None),
            arguments.path(options, "output", place.metrics / f"{HSD}.json" if place else None),
            options.device,
        )


def evaluate_checkpoint(settings: Mapping[str, Any], checkpoint: Path, data: Path, output: Path, device: str = "auto") -> None:
    """Write the discrepancy of a checkpoint, and its likelihood if asked for, as a metrics JSON.

    Commit, host and seconds stand in the .run.json beside it.

    Raises:
        ConfigurationError, CheckpointError, DataError: a key, checkpoint or data set that cannot be.
        DivergenceError: the implied score drives trajectories out of the finite numbers.
    """
    from hamflow import data as datasets
    from hamflow import runtime
    from hamflow.files import fingerprint, sha256_of, write_json
    from hamflow.methods.base import check_belongs, load
    from hamflow.pipeline.provenance import circumstances, origin, read_circumstances
    from hamflow.score.likelihood import likelihood_of
    from hamflow.score.model import metrics_of

    began = time.perf_counter()
    chosen, about = runtime.configure(device), settings.get("about", {})
    dataset, model = datasets.load(data), load(checkpoint, chosen)
    check_belongs(about, checkpoint, model, dataset)
    metrics = metrics_of({key: value for key, value in settings.items() if key != "likelihood"}, model, dataset, chosen)
    if "likelihood" in settings:
        metrics |= likelihood_of(settings["likelihood"], model, dataset, chosen)
    known = origin(
        seed=model.metadata.get("seed"),
        checkpoint_sha256=sha256_of(checkpoint),
        data_sha256=dataset.sha256,
        params_sha256=fingerprint(dict(settings)),
        device=runtime.describe_device(chosen),
    )
    result = {**about, "sampler": "none", "nfe": 0, "seed": known["seed"], "metrics": metrics, "provenance": known}
    took = circumstances(wall_seconds=time.perf_counter() - began)
    trained = read_circumstances(checkpoint.with_name(CIRCUMSTANCES))
    write_json(circumstances_of(output), {"evaluation": took, "training": trained})
    write_json(output, result)
    print(f"{output} written", flush=True)
