"""Table 1 of a preset, as .csv, .md, .tex and .html; of PRESET/tournament, PRESET/beyond or PRESET/STUDY: the table of that"""

import argparse
from pathlib import Path

from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.verbs import arguments


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
        if name in OF_THE_MODELS:
            OF_THE_MODELS[name](options, preset)
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


def _tabulate_tournament(options: argparse.Namespace, preset: Preset) -> None:
    from hamflow.report import tournament

    parameters, output = arguments.parameters(options, preset), options.output or preset.table("")
    with arguments.making(options, preset, lambda jobs, _: jobs.tabulate_tournament()):
        frame = tournament.tabulate(preset, parameters, output)
    print(f"{output / 'tournament.csv'}: {len(frame)} lines, preset {preset.name}")


def _tabulate_beyond(options: argparse.Namespace, preset: Preset) -> None:
    from hamflow.pipeline.records import check_together, read
    from hamflow.report import beyond

    parameters, output = arguments.parameters(options, preset), options.output or preset.table("")
    with arguments.making(options, preset, lambda jobs, _: jobs.tabulate_beyond()):
        records = [read(path) for path in targets.metrics(parameters)]
        check_together(records)
        frame = beyond.tabulate(records, parameters["evaluation"].get("beyond", []), output)
    print(f"{output / 'beyond.csv'}: {len(frame)} lines, preset {preset.name}")


OF_THE_MODELS = {"tournament": _tabulate_tournament, "beyond": _tabulate_beyond}  # tables of no study
