"""The figures of a preset: their names, what each is drawn from, and the drawing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow.pipeline import targets
from hamflow.pipeline.paths import DATA, Preset

CAPTIONS = {
    "nfe": "Distance between samples and data against the number of network evaluations.",
    "training": "Training loss against thousands of images (or points) seen.",
    "samples": "Real data, and samples of each method; the same number of a sample means the same noise in every method.",
    "study": "An experiment of Hamiltonian score matching.",
}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    """What stands below a figure, reStructuredText."""
    return f"Preset {parameters['preset']}. " + CAPTIONS.get(name.partition("-")[0], "Nothing here was trained.")


def names(parameters: Mapping[str, Any]) -> list[str]:
    """The names of all figures that a preset has."""
    studies = [f"study-{name}" for name in targets.studies(parameters)]
    samples = [f"samples-{dataset}" for dataset in parameters["run"]["datasets"]]
    return ["nfe", "training", "phase-space", "reflection", *samples, *studies]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    """The artefacts that a figure shows."""
    preset = Preset(parameters["preset"])
    kind, _, rest = name.partition("-")
    if kind == "nfe":
        return {"table": preset.table("table1.csv")}
    if kind == "training":
        return {"checkpoints": [run.checkpoint for run in targets.runs(parameters)]}
    if kind == "samples":
        seed = parameters["seeds"][0]
        largest = targets.largest_setting(parameters)
        drawn = [preset.run(rest, method, seed).samples / f"{largest}.npy" for method in parameters["run"]["methods"]]
        return {"samples": drawn, "manifest": preset.data(rest) / "dataset.json"}
    return {"result": preset.study(rest)} if kind == "study" else {}


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """Draw one figure, as .png and .pdf."""
    from hamflow import report
    from hamflow.report.score import plot_score
    from hamflow.report.sources import find_checkpoints
    from hamflow.studies import phase_space, reflection

    preset, seeds = Preset(parameters["preset"]), parameters["seeds"]
    labels = {method: parameters["methods"][method]["label"] for method in parameters["run"]["methods"]}
    kind, _, rest = name.partition("-")
    if kind == "nfe":
        report.plot_nfe(preset.table("table1.csv"), output)
    elif kind == "training":
        found = find_checkpoints(preset.checkpoints, parameters["run"]["datasets"], labels, seeds)
        report.plot_training(found, output, preset=preset.name, names=labels)
    elif kind == "samples":
        folder = preset.results / "samples" / rest
        report.plot_samples(DATA / rest, folder, output, targets.largest_setting(parameters), seed=seeds[0], names=labels)
    elif kind == "study":
        plot_score(preset.study(rest), output)
    else:
        (phase_space.plot_phase_space if kind == "phase" else reflection.plot_reflection)(output)
