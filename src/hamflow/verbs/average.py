"""make a checkpoint whose moving average has another length, from a training's snapshots (training.snapshots)"""

import argparse
import re
from pathlib import Path
from typing import Any

from hamflow.errors import ConfigurationError
from hamflow.pipeline.paths import CHECKPOINT, SNAPSHOTS
from hamflow.verbs import arguments

FILE = re.compile(r"[0-9]{9}\.safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET/METHOD/seedK")
    arguments.add_paths(
        parser, checkpoint="model.safetensors, beside snapshots/", output="the new checkpoint (default: beside the old one)"
    )
    parser.add_argument(
        "--length", type=float, required=True, metavar="SIGMA", help="standard deviation of the average, of the images seen"
    )
    parser.add_argument("--kimg", type=float, help="as of this point of the training (default: its end)")


def run(options: argparse.Namespace) -> None:
    place = arguments.run_of(options)
    checkpoint = arguments.path(options, "checkpoint", place.checkpoint if place else None)
    made, error = average(checkpoint, options.length, options.kimg, options.output)
    print(f"{made}: its average is off the asked one by {100 * error:.2g} % of its size; --checkpoint {made} of other verbs")


def average(checkpoint: Path, length: float, kimg: float | None = None, output: Path | None = None) -> tuple[Path, float]:
    """Write the checkpoint of another average of the weights, solved from the snapshots beside a checkpoint.

    Args:
        checkpoint: model.safetensors of a finished training. length: relative standard deviation of the average, theory 10.1.
        kimg: the end of the average; None: the end of the training.
        output: the new checkpoint; None: `average-<length>.safetensors` beside the old one.
    Returns:
        (its path, the distance of the profiles relative to the one asked for).
    Raises:
        ConfigurationError: no snapshots, a length that cannot be, an end outside of the training.
    Source: arXiv:2312.02696, section 3.2; theory 10.2.
    """
    from hamflow.files import load_metadata, load_tensors, save_tensors
    from hamflow.training.power import combination, combined, exponent

    if not 0 < length < 12**-0.5:
        what = f"--length {length:g} is no standard deviation of an average relative to the images seen"
        raise ConfigurationError(what, fix=f"above 0 and below {12**-0.5:.3f}, which is the plain mean; 0.05 to 0.2 are usual")
    folder = checkpoint.parent / SNAPSHOTS
    paths = [path for path in sorted(folder.glob("*")) if FILE.fullmatch(path.name)]
    about = load_metadata(checkpoint)
    found = {path: load_metadata(path) for path in paths}
    found = {path: facts for path, facts in found.items() if _same_training(facts, about)}
    if not found:
        raise ConfigurationError(
            f"{folder} has no snapshots of the training of {checkpoint.name}",
            fix="train with, for example, `training.snapshots: {kimg: 16}`",
        )
    batch = about["spec"]["training"]["batch"]
    last = max(facts["step"] for facts in found.values())
    end = last if kimg is None else 1000 * kimg / batch
    if not 0 < end <= last:
        raise ConfigurationError(
            f"--kimg {kimg:g} is not within the training, which has {last * batch / 1000:g}", fix="leave it out for its end"
        )
    kept, tensors = [], []
    for path, facts in found.items():
        whole, _ = load_tensors(path)
        for number, own in enumerate(facts["lengths"]):
            prefix = f"power.{number}."
            kept.append((float(facts["step"]), exponent(own)))
            tensors.append({name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)})
    factors, error = combination(kept, (float(end), exponent(length)))
    chosen = output or checkpoint.with_name(f"average-{length:g}.safetensors")
    if chosen.resolve() == checkpoint.resolve():
        raise ConfigurationError(f"--output {chosen} is the checkpoint itself ({CHECKPOINT})", fix="choose another name")
    told: dict[str, Any] = {"length": length, "kimg": end * batch / 1000, "error": error}
    save_tensors(chosen, combined(tensors, factors), about | {"average": told})
    return chosen, error


def _same_training(snapshot: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
    """Whether a snapshot is of the training of a checkpoint: of the same parameters, data, seed and code."""
    return all(snapshot.get(key) == checkpoint.get(key) for key in ("spec", "seed", "data_sha256", "code_sha256"))
