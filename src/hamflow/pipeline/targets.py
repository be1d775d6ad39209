"""What a preset consists of: its runs, settings and studies, and the files that Snakemake is to make."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.pipeline.paths import BOUND_SETTING, HSD, Preset, Run, setting_of

Parameters = Mapping[str, Any]


def runs(parameters: Parameters) -> list[Run]:
    """Every trained model: data set x method x seed."""
    preset, datasets = Preset(parameters["preset"]), parameters["run"]["datasets"]
    return [preset.run(d, m, k) for d in datasets for m in methods(parameters, d) for k in parameters["seeds"]]


def methods(parameters: Parameters, dataset: str | None = None) -> list[str]:
    """The methods that are trained on a data set, or on any of the preset's."""
    return config.methods_of(dict(parameters), dataset)


def settings(parameters: Parameters, method: str) -> list[str]:
    """The settings, <sampler>-nfe<n>, at which a method is sampled."""
    return [setting_of(sampler, nfe) for sampler, nfe in config.sampler_settings(dict(parameters), method)]


def methods_by_settings(parameters: Parameters) -> dict[tuple[str, ...], list[str]]:
    """The distinct lists of settings, each with the methods that are sampled so."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for method in parameters["methods"]:
        groups.setdefault(tuple(settings(parameters, method)), []).append(method)
    return groups


def largest_setting(parameters: Parameters, method: str) -> str:
    """The setting of a method with the most evaluations, at which its samples are shown."""
    return setting_of(
        *max(config.sampler_settings(dict(parameters), method), key=lambda pair: pair[1] if pair[1] != "auto" else 0)
    )


def studies(parameters: Parameters) -> list[str]:
    """The experiments that are no row of Table 1."""
    return sorted(parameters["studies"])


def metrics(parameters: Parameters) -> list[Path]:
    """The records behind Table 1: the bounds, every run at every setting, and the discrepancies."""
    preset, of_model = Preset(parameters["preset"]), parameters["metrics"]
    found = [preset.bound(dataset).metrics / f"{BOUND_SETTING}.json" for dataset in parameters["run"]["datasets"]]
    for run in runs(parameters):
        found += [run.metrics / f"{setting}.json" for setting in settings(parameters, run.method)]
        found += [run.metrics / f"{HSD}.json"] if of_model["hsd"]["sigmas"] or "likelihood" in of_model else []
    return found


def tables(parameters: Parameters) -> list[Path]:
    preset = Preset(parameters["preset"])
    return [preset.table(f"{name}.csv") for name in ["table1", *study_tables(parameters), *model_tables(parameters)]]


MODEL_TABLES = ("tournament", "beyond", "proxy")  # of the trained models, beside Table 1


def model_tables(parameters: Parameters) -> list[str]:
    """Of these, the tables that a preset has."""
    asked = {
        "tournament": tournaments(parameters),
        "beyond": references(parameters),
        "proxy": "proxy" in parameters["evaluation"],
    }
    return [name for name in MODEL_TABLES if asked[name]]


def references(parameters: Parameters) -> list[str]:
    """The methods of `evaluation.beyond` that are run beside another one on images, which alone have paired resamples."""
    images = [name for name in parameters["run"]["datasets"] if parameters["datasets"][name]["features"] != "points"]
    groups = [methods(parameters, dataset) for dataset in images]
    asked = parameters["evaluation"].get("beyond", [])
    return [name for name in asked if any(name in group and len(group) > 1 for group in groups)]


def tournaments(parameters: Parameters) -> list[Path]:
    """What the models of each data set say of each other's scores; none, unless it is asked for."""
    preset, asked = Preset(parameters["preset"]), parameters["metrics"].get("tournament")
    return [preset.tournament(dataset) for dataset in parameters["run"]["datasets"]] if asked else []


def entrants(parameters: Parameters, dataset: str) -> list[Run]:
    """The models of a tournament: every method's, of the first training seed."""
    run = Preset(parameters["preset"]).run
    return [run(dataset, method, parameters["seeds"][0]) for method in methods(parameters, dataset)]


STUDY_TABLES = {
    "score": "comparison",
    "symmetry": "symmetry",
    "particles": "particles",
    "bridge": "bridge",
    "baselines": "baselines",
    "torus": "torus",
}  # table: the study that has it


def study_tables(parameters: Parameters) -> list[str]:
    """The tables of studies that a preset has."""
    return [table for table, study in STUDY_TABLES.items() if study in parameters["studies"]]


def parents(parameters: Parameters, method: str) -> list[str]:
    """The methods whose checkpoints a training of this one starts from."""
    return list(parameters["methods"][method].get("parents", {}).values())


def cost(parameters: Parameters, dataset: str, method: str) -> float:
    """The priority of a training: the longest first, images (whose step costs more) before points."""
    spec = config.training_spec(dict(parameters), dataset, method)
    image = spec["network"]["kind"] not in ("mlp", "small")
    return spec["training"]["train_kimg"] * (1000 if image else 1)
