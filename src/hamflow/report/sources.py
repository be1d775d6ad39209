"""Where figures find samples and checkpoints in the folders of a preset."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hamflow.errors import DataError
from hamflow.report import labels, paper


@dataclass(frozen=True)
class Samples:
    """The samples that one method drew: its key, how figures call it, and the file."""

    method: str
    label: str
    path: Path

    @property
    def preset(self) -> str:
        """The preset, from results/<preset>/samples/<dataset>/<method>/seed<k>/<file>; '' elsewhere."""
        parents = self.path.resolve().parents
        return parents[4].name if len(parents) > 4 and parents[3].name == "samples" else ""


def find_samples(folder: Path, setting: str, seed: int | None = None, names: Mapping[str, str] = {}) -> list[Samples]:
    """The samples of each method at one setting, in the paper's order.

    Args:
        folder: results/<preset>/samples/<dataset>.
        setting: the file's stem, as heun-nfe35.
        seed: of the training run; by default the smallest that has the setting.
        names: labels of methods, by key; where there are any, methods that are not among them are left out.
    Raises:
        DataError: no method has that setting; names those that there are.
    """
    found: dict[str, Path] = {}
    pattern = f"*/seed{'*' if seed is None else seed}/{setting}.npy"
    for path in sorted(folder.glob(pattern), key=_seed, reverse=True):
        if not names or path.parts[-3] in names:
            found[path.parts[-3]] = path
    if not found:
        there = sorted({path.stem for path in folder.glob("*/seed*/*.npy")})
        raise DataError(
            f"there are no samples '{setting}' below {folder}",
            fix=f"there are {', '.join(there)}" if there else "draw them first: `hamflow sample --help`",
        )
    methods = sorted(found, key=paper.order)
    return [Samples(method, method_label(method, names), found[method]) for method in methods]


def find_checkpoints(
    folder: Path,
    datasets: Collection[str] | None = None,
    names: Mapping[str, str] = {},
    seeds: Collection[int] | None = None,
) -> dict[str, dict[str, list[Path]]]:
    """{data set: {method: [model.safetensors of each seed]}} below checkpoints/<preset>, in the order of tables.

    Data sets and seeds are those given, by default all that there are. Where `names` has labels, methods that are not
    among them are left out.

    Raises:
        DataError: there are none.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.glob("*/*/seed*/model.safetensors"), key=_seed):
        dataset, method = path.parts[-4:-2]
        wanted = (datasets is None or dataset in datasets) and (seeds is None or _seed(path)[0] in seeds)
        if wanted and (not names or method in names):
            found.setdefault(dataset, {}).setdefault(method, []).append(path)
    if not found:
        raise DataError(
            f"there is no such checkpoint below {folder}",
            fix="train first: `hamflow train --help`",
        )
    return {name: dict(sorted(found[name].items(), key=lambda item: paper.order(item[0]))) for name in sorted(found)}


def method_label(method: str, names: Mapping[str, str] = {}) -> str:
    """How figures call a method."""
    return names.get(method) or paper.LABELS.get(method) or labels.words(method)


def _seed(path: Path) -> tuple[int, str]:
    return int(path.parent.name.removeprefix("seed")), str(path)
