"""Where a number comes from: the chain behind one metrics JSON, and a manifest (RO-Crate) of a whole preset."""

import argparse
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.files import load_metadata, read_json, sha256_of, write_json
from hamflow.pipeline.provenance import git
from hamflow.tracking.records import run_key

CRATE = "ro-crate-metadata.json"
UNKNOWN = "not recorded"
Facts = dict[str, Any]


def add_arguments(verbs: Any) -> None:
    """Mount the verb `trace`."""
    text = (
        "where a number comes from: from a metrics JSON back to its data; of a folder results/<preset>: a manifest (RO-Crate), "
        "written beside results/"
    )
    verb = verbs.add_parser("trace", help=text, description=text)
    verb.add_argument("path", type=Path, help="results/<preset>/metrics/... or values/..., a .json; or results/<preset>")
    verb.add_argument("--root", type=Path, help="holds data/ and checkpoints/ (default: the folder above results/ in the path)")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.path.is_dir():
        root = options.root or _project(options.path)
        path = root / CRATE  # where it stands, its names lead to the files
        crate = manifest(options.path, root)
        write_json(path, crate)
        print(f"{path}: {len(crate['@graph'])} entities")
        return
    chain = trace(options.path, options.root)
    print(json.dumps(chain, indent=1, sort_keys=True) if options.json else _told(chain))


def trace(path: Path, root: Path | None = None) -> dict[str, Facts]:
    """The chain behind one metrics JSON: {number, evaluation, samples, training, data, code, mlflow}, each a mapping.

    A hash that was recorded is compared with the file as it is now: `state` is "as recorded", "changed" or "not here".

    Args:
        path: <root>/results/<preset>/metrics/<dataset>/<method>/seed<k>/<setting>.json, or the same below values/, which has
            no commit, host and seconds (they are taken from the twin in metrics/ where it is there).
        root: the folder that holds data/, checkpoints/ and results/; names in the chain are relative to it. By default the
            folder above results/ in the path.
    Raises:
        DataError: the file is absent or no metrics JSON.
    """
    root = root or _project(path)
    record = _metrics(path)
    known = record["provenance"]
    preset, dataset, method, seed = (record[key] for key in ("preset", "dataset", "method", "seed"))
    run = f"{dataset}/{method}/seed{seed}"
    checkpoint = root / "checkpoints" / preset / run / "model.safetensors"
    samples = root / "results" / preset / "samples" / run / f"{path.stem}.npy"
    trained = load_metadata(checkpoint) if checkpoint.exists() else {}
    chain: dict[str, Facts] = {
        "number": {
            "file": _name(path, root),
            "metrics": {name: metric["value"] for name, metric in record["metrics"].items()},
            "setting": f"{record['sampler']}, {record['nfe']} evaluations",
        },
        "evaluation": _known(known, "git_commit", "git_dirty", "host", "device", "wall_seconds", "params_sha256"),
        "code": {"python": known.get("python"), **known.get("packages", {})},
        "data": {"folder": f"data/{dataset}", **_data(root / "data" / dataset, known.get("data_sha256"))},
    }
    if method == "data":  # the bound: no network, no samples
        return chain
    if record["sampler"] != "none":
        chain["samples"] = {"file": _name(samples, root), **_drawn(samples), **_sampling(known, path.stem)}
    chain["training"] = {
        "checkpoint": _name(checkpoint, root),
        "sha256": known.get("checkpoint_sha256"),
        "state": _state(checkpoint, known.get("checkpoint_sha256")),
        **_known(trained, "seed", "kimg", "parameters"),
        **_known(known.get("training", {}), "git_commit", "git_dirty", "host", "wall_seconds"),
        "parameters of the run": trained.get("spec"),
    }
    if trained:
        chain["mlflow"] = {"hamflow.key": run_key(preset, dataset, method, seed, trained["spec"])}
    return chain


def manifest(results: Path, root: Path | None = None) -> dict[str, Any]:
    """A whole preset as an RO-Crate 1.1: every file with its sha256, and for each metrics JSON the action that made it.

    Args:
        results: results/<preset>.
        root: the folder that holds data/ and checkpoints/; names in the crate are relative to it, so the crate belongs there.
            By default the folder above results/ in the path.
    Raises:
        DataError: there are no values in the folder.
    """
    root = root or _project(results)
    results = Path(os.path.abspath(results))
    preset = results.name
    records = sorted((results / "values").glob("*/*/seed*/*.json"))
    if not records:
        raise DataError(f"there are no values in {results}", fix="run the preset first, or fetch it: `make restore`")
    data = sorted({root / "data" / path.parts[-4] for path in records})
    folders = [root / "checkpoints" / preset, results, *data]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path: Path(_name(path, root)) for path in files}
    entities = [
        _file(path, root) for path, name in names.items() if "state" not in name.parts and not name.name.startswith(".")
    ]
    actions = [_action(path, results, root) for path in records]
    about = {"@id": CRATE, "@type": "CreativeWork", "about": {"@id": "./"}}
    crate = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"hamflow, preset {preset}",
        "description": f"Data, checkpoints and results of hamflow's preset {preset}, and what each number was made from.",
        **_date(root),
        "license": "https://spdx.org/licenses/Apache-2.0",
        "hasPart": [{"@id": entity["@id"]} for entity in entities],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    about["conformsTo"] = {"@id": "https://w3id.org/ro/crate/1.1"}
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [about, crate, *entities, *actions]}


def _metrics(path: Path) -> Facts:
    """The record, with the circumstances of its twin below metrics/ where it is one of values/."""
    try:
        record = read_json(path)
        preset, values, tail = os.path.abspath(path).rpartition("/values/")
        twin = Path(preset, "metrics", tail)
        if values and twin.exists():
            record["provenance"] = read_json(twin)["provenance"] | record["provenance"]
        missing = {"preset", "dataset", "method", "seed", "sampler", "nfe", "metrics", "provenance"} - record.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no metrics JSON ({error})",
            fix="give results/<preset>/metrics/<dataset>/<method>/seed<k>/<sampler>-nfe<n>.json: the columns of table1.csv",
        ) from error
    return record


def _data(folder: Path, recorded: str | None) -> Facts:
    manifest = folder / "dataset.json"
    facts = {"sha256": recorded, "state": _state(manifest, recorded)}
    if manifest.exists():
        facts |= _known(read_json(manifest), "source", "licence", "count", "shape")
    return facts


def _drawn(samples: Path) -> Facts:
    sidecar = samples.with_suffix(".json")
    if not sidecar.exists():
        return {"state": "not here"}
    facts = read_json(sidecar)
    return {**_known(facts, "n", "grid", "device"), "first seed": facts.get("first_seed", UNKNOWN)}


def _sampling(known: Mapping[str, Any], setting: str) -> Facts:
    facts = known.get("sampling", {})
    return {
        **_known(facts, "git_commit", "git_dirty", "host"),
        "wall_seconds": facts.get("wall_seconds", {}).get(setting, UNKNOWN),
    }


def _state(path: Path, recorded: str | None) -> str:
    if not path.exists():
        return "not here"
    return "as recorded" if sha256_of(path) == recorded else "changed"


def _known(facts: Mapping[str, Any], *keys: str) -> Facts:
    return {key: facts.get(key, UNKNOWN) for key in keys}


def _told(chain: Mapping[str, Facts]) -> str:
    return "\n".join(line for name, facts in chain.items() for line in [name, *_lines(facts)])


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield f"  {key:<{width}}  {text}"


def _file(path: Path, root: Path) -> Facts:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    name = _name(path, root)
    size = str(path.stat().st_size)
    return {"@id": name, "@type": "File", "contentSize": size, "encodingFormat": kind, "sha256": sha256_of(path)}


def _action(values: Path, results: Path, root: Path) -> Facts:
    """How one number was made: from what, by which commit, in how many seconds."""
    chain = trace(values, root)
    run = "/".join(values.parts[-4:-1])
    used = [root / "data" / values.parts[-4] / "dataset.json"]
    if "training" in chain:
        used.append(root / "checkpoints" / results.name / run / "model.safetensors")
    return {
        "@id": f"#{run}/{values.stem}",
        "@type": "CreateAction",
        "object": [{"@id": _name(path, root)} for path in used],
        "result": {"@id": _name(values, root)},
        "description": json.dumps(chain, sort_keys=True),
    }


def _date(root: Path) -> Facts:
    """When the commit was made: unlike the time of writing, equal files repeat it. Nothing where there is no git."""
    date = git(root, "log", "-1", "--format=%cI") if (root / ".git").exists() else None
    return {"datePublished": date} if date else {}


def _project(path: Path) -> Path:
    """The folder above the nearest results/ of a path; the current one where there is none."""
    parents = Path(os.path.abspath(path)).parents
    return next((folder.parent for folder in parents if folder.name == "results"), Path())


def _name(path: Path, root: Path) -> str:
    """Relative to the root, by name: data/ or checkpoints/ may be a link to another disk."""
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(root))).as_posix()
