"""Table 1 of a preset, as .csv, .md, .tex and .html; that of PRESET/tournament, beyond, proxy or a STUDY"""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.verbs import arguments

TITLES = {"tournament": "Models against each other", "beyond": "Beyond what is known", "proxy": "On exact velocities"}
CAPTIONS = {  # in the report, of the tables of trained models
    "tournament": (
        "the scores that the models of a data set imply, compared without samples. Each model is the critic of every other, "
        "and all have the same samples and noise, so that differences have small standard errors (docs/score.md, Models "
        "against each other). Reflection and models without a score imply no denoiser: they have their own bound alone."
    ),
    "beyond": (
        "the Fréchet distance of each method less that of a known one (`evaluation.beyond`), at each number of evaluations, in "
        "percent of the latter, with its interval (paired bootstrap: sample *i* of both begins at the same noise, and several "
        "training seeds are drawn, too). Each method has its best sampler at that number. What did not help stays in the table."
    ),
    "proxy": (
        "the error that each solver makes where the velocity is known exactly, that of mixtures fitted to the data, beside the "
        "distance of the samples of the trained model. Kendall's tau says whether the one ranks the methods as the other does: "
        "1, all pairs; 0, no better than chance. Its 90% interval is of methods and samples drawn again."
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET")
    arguments.add_paths(parser, output="folder of the tables")
    parser.add_argument(
        "--metrics", type=Path, nargs="+", metavar="DIR", help="only what lies there (default: all of the preset)"
    )
    parser.add_argument("--setting", nargs="+", metavar="NAME", help="only these: heun-nfe35, hsd, real-nfe0, ...")


def run(options: argparse.Namespace) -> None:
    if "/" in options.place:
        from hamflow.studies import figure

        preset, name = arguments.part_of(options, "PRESET/STUDY")
        if name in targets.MODEL_TABLES:
            _tabulate_models(options, preset, name)
            return
        table = next((table for table, study in targets.STUDY_TABLES.items() if study == name), name)
        with arguments.making(options, preset, lambda jobs, _: jobs.tabulate_study(table)):
            figure.tabulate({"preset": preset.name}, name, (options.output or preset.table("")) / f"{table}.csv")
        return
    from hamflow.report import cost
    from hamflow.report.tables import tabulate

    preset = arguments.preset_of(options)
    parameters = arguments.parameters(options, preset)
    files = targets.metrics(parameters)
    folders = options.metrics or sorted({path.parent for path in files})
    settings = options.setting or sorted({path.stem for path in files})
    output = options.output or preset.table("")
    with arguments.making(options, preset, lambda jobs, _: jobs.tabulate()):
        frame = tabulate(folders, output, settings)
        parents = {method: targets.parents(parameters, method) for method in parameters["methods"]}
        cost.tabulate(frame, folders, output, parents, parameters.get("note", ""))
    print(f"{output / 'table1.csv'}: {len(frame)} lines, preset {frame['preset'].iloc[0]}")


def caption(parameters: Mapping[str, Any], table: str) -> str:
    """What stands above a table of the trained models in the report, reStructuredText."""
    return f"Preset **{parameters['preset']}**: {CAPTIONS[table]}"


def _tabulate_models(options: argparse.Namespace, preset: Preset, table: str) -> None:
    from hamflow import data
    from hamflow.pipeline.records import check_together, read

    module = importlib.import_module(f"hamflow.report.{table}")  # unseen by the other tables, whose code it is not
    parameters, output = arguments.parameters(options, preset), options.output or preset.table("")
    with arguments.making(options, preset, lambda jobs, _: jobs.tabulate_models(table)):
        if table == "tournament":
            frame = module.tabulate(preset, parameters, output)
        else:
            records = [read(path) for path in targets.metrics(parameters)]
            check_together(records)
            if table == "beyond":
                frame = module.tabulate(records, targets.references(parameters), output)
            else:
                spec = config.proxy_spec(parameters)
                frame = module.tabulate(
                    records, spec, {name: data.load(preset.data(name)) for name in spec["datasets"]}, output
                )
    print(f"{output / table}.csv: {len(frame)} lines, preset {preset.name}")
