"""the scores of the trained models of a data set compared without samples, each model a critic of the others"""

import argparse

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.pipeline.paths import Preset, Run
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET")
    arguments.add_paths(parser, data="folder of the data set", output="the result, results/PRESET/tournaments/DATASET.json")
    arguments.add_seed(parser)
    arguments.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Compare the checkpoints of one seed of every method of a data set at the noise levels of `metrics.hsd`.

    Raises:
        ConfigurationError: fewer than two of them imply a denoiser.
        CheckpointError, DataError: a checkpoint or data set that is absent or cannot be.
    """
    preset, dataset = arguments.part_of(options, "PRESET/DATASET")
    parameters = arguments.parameters(options, preset)
    methods = _methods(parameters, dataset)
    with arguments.making(options, preset, lambda jobs, _: jobs.tournament(dataset)):
        _hold(options, preset, dataset, parameters, methods)


def _hold(options: argparse.Namespace, preset: Preset, dataset: str, parameters: config.Config, methods: list[str]) -> None:
    from hamflow import data as datasets
    from hamflow import runtime
    from hamflow.files import fingerprint, sha256_of, write_json
    from hamflow.methods.base import check_belongs, load
    from hamflow.pipeline.provenance import origin
    from hamflow.score.tournament import tournaments

    seed = options.seed if options.seed is not None else parameters["seeds"][0]
    spec = config.tournament_spec(parameters, dataset)
    settings = spec["hsd"]
    device = runtime.configure(options.device)
    prepared, models, digests = datasets.load(arguments.path(options, "data", preset.data(dataset))), {}, {}
    for method in methods:
        place: Run = preset.run(dataset, method, seed)
        models[method] = load(place.checkpoint, device)
        check_belongs({"dataset": dataset, "method": method}, place.checkpoint, models[method], prepared)
        digests[method] = sha256_of(place.checkpoint)
    known = origin(
        seed=seed,
        checkpoints_sha256=digests,
        data_sha256=prepared.sha256,
        params_sha256=fingerprint(dict(settings)),
        device=runtime.describe_device(device),
    )
    found = tournaments(settings, models, prepared, device)
    output = arguments.path(options, "output", preset.tournament(dataset))
    write_json(output, {**spec["about"], "seed": seed, **found, "provenance": known})
    for one in found["tournaments"]:
        rows = zip(one["standing"]["values"], one["standing"]["standard_errors"], one["models"], strict=True)
        order = ", ".join(f"{name} {value:+.2e} ± {error:.1e}" for value, error, name in sorted(rows))
        print(f"{preset.name}/{dataset} sigma={one['sigma']:g} (n={one['n']}, {found['samples']}): {order}")
    print(f"{output} written", flush=True)


def _methods(parameters: config.Config, dataset: str) -> list[str]:
    config.dataset_spec(parameters, dataset)  # raises for another name, with the nearest
    methods = config.methods_of(parameters, dataset)
    if len(methods) < 2:
        raise ConfigurationError(
            f"{dataset} has one method, but a tournament needs two", why="each model is judged by the others"
        )
    return methods
