"""draw samples at every (sampler, NFE) of the parameters"""

import argparse
import time
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET/METHOD/seedK", spec=True)
    arguments.add_paths(
        parser, checkpoint="model.safetensors", data="folder of the data set", output="folder of <sampler>-nfe<n>.npy and .json"
    )
    arguments.add_seed(parser)
    arguments.add_device(parser)
    parser.add_argument(
        "--label",
        type=int,
        action="append",
        metavar="CLASS",
        help="number of the class of every sample; again for several, in turn (default: the classes as the data have them)",
    )


def run(options: argparse.Namespace) -> None:
    place = arguments.run_of(options)
    spec = arguments.specification(options, place, lambda c, r: config.sampling_spec(c, r.dataset, r.method))
    if options.label is not None and options.output is None:
        raise ConfigurationError(
            "--label needs --output",
            why="samples of some classes alone would stand in the place of the run's own",
            fix="--output samples/of-one-class",
        )
    with arguments.making(options, place, lambda jobs, run: jobs.sample(*run.key)):
        sample(
            spec,
            arguments.path(options, "checkpoint", place.checkpoint if place else None),
            arguments.path(options, "data", place.data if place else None),
            arguments.seed(options, place),
            arguments.path(options, "output", place.samples if place else None),
            options.device,
            options.label,
        )


def sample(
    spec: dict[str, Any],
    checkpoint: Path,
    data_folder: Path,
    seed: int,
    output: Path,
    device: str = "auto",
    asked: list[int] | None = None,
) -> None:
    """Draw spec["n_samples"] samples for each setting of the spec: `<sampler>-nfe<n>.npy` and `.json` in `output`.

    Those of other settings, which lie there from before, are deleted. `run.json` beside them holds what differs between two
    runs of this work: commit, host, seconds of each setting.

    Sample i starts from noise of seed `1e6 seed + i`, whatever the batch size, sampler and device; the class label of a
    conditional model is by that number too, and has the proportions of
    the training part, or each class equally often if the spec says so.

    Args:
        spec: `hamflow.config.sampling_spec`.
        checkpoint: model.safetensors of the method and data set of the spec.
        data_folder: the data set it was trained on (for the pixel format and the check that they belong together).
        seed: of the training run; chooses a range of a million sample seeds.
        output: folder of the samples; uint8 [N, H, W, C] for images, float32 [N, D] for points.
        asked: the classes of the samples in turn, in place of those of the data; -1 is none.
    Raises:
        CheckpointError: the checkpoint is of another method or other data. DivergenceError: samples that are not finite.
        ConfigurationError: classes that the model does not know, guidance that it has not learned.
    """
    import numpy as np
    import torch

    from hamflow import data, runtime
    from hamflow.draws import SEEDS_PER_RUN
    from hamflow.errors import DivergenceError
    from hamflow.files import fingerprint, save_array, sha256_of, write_json
    from hamflow.methods.base import Sampling, check_belongs, classes_of, load
    from hamflow.pipeline.paths import CIRCUMSTANCES, setting_of
    from hamflow.pipeline.provenance import circumstances, origin, read_circumstances
    from hamflow.sampling.teleportation import Teleport

    chosen = runtime.configure(device)
    generator, dataset = load(checkpoint, chosen), data.load(data_folder)
    check_belongs(spec, checkpoint, generator, dataset)
    how = {key: spec[key] for key in ("grid", "rho", "sigma_min", "sigma_max", "batch")}
    generator.sampling = Sampling(**how, guidance=spec.get("guidance", 1.0))
    if spec.get("teleport") and hasattr(generator, "teleport"):  # it solves a field
        generator.teleport = Teleport.of(dataset.batch(np.arange(dataset.count))[0], spec["teleport"])  # type: ignore[attr-defined]
    first = seed * SEEDS_PER_RUN
    known = origin(
        seed=seed,
        first_seed=first,
        checkpoint_sha256=sha256_of(checkpoint),
        data_sha256=dataset.sha256,
        params_sha256=fingerprint(spec),
        device=runtime.describe_device(chosen),
    )
    seeds = range(first, first + spec["n_samples"])
    if asked:
        turns = torch.tensor([asked[i % len(asked)] for i in range(len(seeds))])
        labels = classes_of(generator.classes, seeds, turns, getattr(generator, "unlabelled", False))
    else:
        labels = torch.from_numpy(dataset.draw_labels(seeds, spec.get("class_law", "data"))) if generator.classes else None
    for left in output.glob("*-nfe*.*"):
        left.unlink()
    seconds = {}
    for sampler, nfe in spec["settings"]:
        began = time.perf_counter()
        samples, spent = generator.sample(seeds, sampler, nfe, labels)
        if not bool(torch.isfinite(samples).all()):
            raise DivergenceError(
                f"{sampler} with {nfe} evaluations gave samples that are not finite, from {checkpoint}",
                why="their metrics would mean nothing",
                fix="look at the model's training curve; a smaller learning rate may be needed",
            )
        array = dataset.to_pixels(samples) if dataset.kind == "image" else samples.cpu().numpy().astype(np.float32)
        name = setting_of(sampler, nfe)
        save_array(output / f"{name}.npy", array)
        setting = {"sampler": sampler, "nfe": spent, "nfe_requested": nfe, "n": len(array), "grid": spec["grid"]}
        special = {"guidance": spec.get("guidance", 1.0)} if spec.get("guidance", 1.0) != 1 else {}
        write_json(output / f"{name}.json", {**setting, **special, **({"label": asked} if asked else {}), **known})
        seconds[name] = time.perf_counter() - began
        print(f"{output / name}.npy: {len(array)} samples, NFE {spent}, {seconds[name]:.1f} s", flush=True)
    trained = read_circumstances(checkpoint.with_name(CIRCUMSTANCES))
    write_json(output / CIRCUMSTANCES, {"sampling": circumstances(wall_seconds=seconds), "training": trained})
