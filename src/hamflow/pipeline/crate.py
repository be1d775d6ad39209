"""A manifest of a whole preset as an RO-Crate: every file with its sha256, and how each number was made."""

import json
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.files import sha256_of, write_json
from hamflow.pipeline import records
from hamflow.pipeline.paths import STATE, Preset, Run
from hamflow.pipeline.provenance import git
from hamflow.pipeline.trace import name_of, project, trace

LICENCE = "https://spdx.org/licenses/Apache-2.0"


def write(results: Path, root: Path | None = None) -> tuple[Path, int]:
    """Write the manifest of results/<preset> into the root, where its names lead to the files: (path, number of entities)."""
    root = root or project(results)
    crate = manifest(results, root)
    path = root / "ro-crate-metadata.json"
    write_json(path, crate)
    return path, len(crate["@graph"])


def manifest(results: Path, root: Path | None = None) -> dict[str, Any]:
    """The RO-Crate of a preset; equal trees give equal ones.

    Args:
        results: results/<preset>.
        root: the folder that holds data/ and checkpoints/; names in the crate are relative to it. By default the folder above
            results/ in the path.
    Raises:
        DataError: there are no metrics in the folder.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    root = root or project(results)
    preset = Preset(Path(os.path.abspath(results)).name, root)
    found = records.find([preset.metrics])
    if not found:
        raise DataError(f"there are no metrics in {results}", fix="run the preset first, or fetch it: `make restore`")
    runs = {path: run for path in found if (run := Run.of(path))}
    crate = ROCrate(version="1.1")
    crate.name = f"hamflow, preset {preset.name}"
    crate.description = f"Data, checkpoints and results of hamflow's preset {preset.name}, and what each number was made from."
    crate.license = LICENCE
    date = _date(root)
    if date:
        crate.root_dataset["datePublished"] = date
    else:  # the library's own is the time of writing
        del crate.root_dataset["datePublished"]
    for path in _files(preset, {run.data for run in runs.values()}):
        name = name_of(path, root)
        kind, size = mimetypes.guess_type(path.name)[0] or "application/octet-stream", str(path.stat().st_size)
        crate.add_file(dest_path=name, properties={"contentSize": size, "encodingFormat": kind, "sha256": sha256_of(path)})
    actions = [crate.add(ContextEntity(crate, *_action(path, run, root))) for path, run in runs.items()]
    crate.root_dataset["mentions"] = actions
    return crate.metadata.generate()


def _files(preset: Preset, data: set[Path]) -> Iterator[Path]:
    """The artefacts of a preset, sorted within each folder."""
    for folder in (preset.checkpoints, preset.results, *sorted(data)):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and STATE not in path.relative_to(folder).parts and not path.name.startswith("."):
                yield path


def _action(record: Path, run: Run, root: Path) -> tuple[str, dict[str, Any]]:
    """How one number was made: from what, by which commit, in how many seconds."""
    chain = trace(record, root)
    used = [run.preset.manifest(run.dataset), *([run.checkpoint] if "training" in chain else [])]
    return f"#{run.name}/{record.stem}", {
        "@type": "CreateAction",
        "object": [{"@id": name_of(path, root)} for path in used],
        "result": {"@id": name_of(record, root)},
        "description": json.dumps(chain, sort_keys=True),
    }


def _date(root: Path) -> str | None:
    """When the commit was made: unlike the time of writing, equal files repeat it. None where there is no git."""
    return git(root, "log", "-1", "--format=%cI") if (root / ".git").exists() else None
