"""What a preset costs, from counted operations: `python tools/cost.py paper cpu32` prints the table of docs/cost.md.

Operations are those of products and convolutions, a multiply-add being two, counted by torch on shapes alone. A training step
is three forward passes. Seconds follow from a rate in operations a second that is given, not measured here.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hamflow import config, networks
from hamflow.data import sources

ROOT = Path(__file__).resolve().parents[1]
TRAINING = 3  # forward passes whose operations a step has: its own, and twice as many backward
HEAD = ("preset", "data set", "method", "parameters", "GFLOP an image", "kimg", "training, PFLOP", "samples, PFLOP", "hours")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", metavar="PRESET", help="files of workflow/presets")
    parser.add_argument("--rate", type=float, default=2e14, help="operations a second (default: 2e14, a fifth of an H100)")
    options = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for preset in options.presets:
        parameters = config.load([ROOT / "params.yaml", ROOT / f"workflow/presets/{preset}.yaml"])
        for row in rows(parameters, options.rate):
            print("| " + " | ".join([preset, *row]) + " |")


def rows(parameters: dict[str, Any], rate: float) -> Iterator[list[str]]:
    """A row for each data set of images and each velocity field."""
    for name in parameters["run"]["datasets"]:
        entry = parameters["datasets"][name]
        source, _ = sources.build_split(entry["source"], entry["options"], f"datasets.{name}.")
        if source.kind != "image":
            continue
        shape = source.shape or (entry["options"].get("channels", 3), *[entry["options"]["resolution"]] * 2)
        classes = 10 if entry["conditional"] else 0
        for method in config.methods_of(parameters, name):
            spec = config.training_spec(parameters, name, method)
            if parameters["methods"][method]["kind"] != "velocity":
                continue
            size, forward = counted(spec["network"], tuple(shape), classes)
            training = TRAINING * forward * 1000 * spec["training"]["train_kimg"]
            evaluations = sum(nfe for _, nfe in config.sampler_settings(parameters, method) if isinstance(nfe, int))
            samples = forward * evaluations * entry["n_samples"]
            yield [
                name,
                method,
                f"{size:,}",
                f"{forward / 1e9:.2f}",
                f"{spec['training']['train_kimg']:g}",
                f"{training / 1e15:,.3g}",
                f"{samples / 1e15:,.3g}",
                f"{(training + samples) / rate / 3600:,.3g}",
            ]


def counted(spec: dict[str, Any], shape: tuple[int, ...], classes: int) -> tuple[int, float]:
    """(parameters, operations of a forward pass of one image) of a network, without its memory or work."""
    with torch.device("meta"):
        network = networks.NETWORKS.build(
            spec["kind"], shape=shape, classes=classes, **{k: v for k, v in spec.items() if k != "kind"}
        )
        x, t = torch.empty(1, *shape), torch.empty(1)
        label = torch.zeros(1, dtype=torch.int64) if classes else None
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(x, t, label)
    return sum(weight.numel() for weight in network.parameters()), float(counter.get_total_flops())


if __name__ == "__main__":
    main()
