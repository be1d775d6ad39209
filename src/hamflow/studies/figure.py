"""The figures of the studies: of each that the parameters have, drawn from its result; see `hamflow.report.figures.Figure`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hamflow import config, studies
from hamflow.errors import DataError
from hamflow.files import read_json
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.report import style

PREFIX = "study-"


def names(parameters: Mapping[str, Any]) -> list[str]:
    return [PREFIX + study for study in targets.studies(parameters)]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    return {"result": _path(parameters, name)}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    study = name.removeprefix(PREFIX)
    changed = config.study_spec(dict(parameters), study)
    settings = f"settings ``{changed}``, else its defaults" if changed else "its default settings"
    return f"{style.rest(studies.about(study))}\n\nPreset {parameters['preset']}, {settings}."


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """Draw the result of a study. Raises DataError for what is no result of it, or an incomplete one."""
    with complete(_path(parameters, name)) as result:
        studies.get(name.removeprefix(PREFIX)).draw(result, output)


def tabulate(parameters: Mapping[str, Any], study: str, output: Path) -> None:
    """Write the table of a study that has one. Raises DataError as `draw` does, ConfigurationError for another study."""
    module = studies.get(study)
    if not hasattr(module, "tabulate"):
        having = [name for name in studies.names() if hasattr(studies.get(name), "tabulate")]
        raise studies.ConfigurationError(f"the study '{study}' has no table", fix=f"of {', '.join(having)} there is one")
    with complete(Preset(parameters["preset"]).study(study)) as result:
        module.tabulate(result, output)


@contextmanager
def complete(path: Path) -> Iterator[dict[str, Any]]:
    """A result of a study; what it lacks within the block, or holds of another type, is a DataError."""
    try:
        result = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no result of a study ({error})", fix="make it: `hamflow study --help`") from error
    try:
        yield result
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as error:
        raise DataError(
            f"{path} is no complete result of a study ({error!r})",
            why="it lacks what is to be shown, or holds something else in its place",
            fix="make it anew: `hamflow study --help`",
        ) from error


def _path(parameters: Mapping[str, Any], name: str) -> Path:
    return Preset(parameters["preset"]).study(name.removeprefix(PREFIX))
