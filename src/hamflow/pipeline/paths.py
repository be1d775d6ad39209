"""Where every artefact lies: the one place that spells the layout.

    data/<dataset>/                                       shared by all presets
    checkpoints/<preset>/<dataset>/<method>/seed<k>/      model.safetensors, train.jsonl, run.json, state/,
                                                          snapshots/<step>.safetensors
    results/<preset>/params.yaml                          the resolved parameters
    results/<preset>/samples/<dataset>/<method>/seed<k>/  <setting>.npy, <setting>.json, run.json
    results/<preset>/metrics/<dataset>/<method>/seed<k>/  <setting>.json, hsd.json, run.json, hsd.run.json
    results/<preset>/reference/<dataset>/<features>.npz
    results/<preset>/studies/<study>.json
    results/<preset>/tournaments/<dataset>.json
    results/<preset>/tables/  figures/  report.html
    logs/<preset>/

A setting is `<sampler>-nfe<n>`. `run.json` holds the circumstances (commit, host, seconds) of the job that wrote its folder,
`X.run.json` those of the job that wrote X.json alone; every other byte is equal for equal work. `made.json` and `X.made.json`
say, in the same places and beside tables and figures, what these were made of: see `hamflow.pipeline.made`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hamflow.errors import ConfigurationError

BOUND = "data"  # stands for a method where real data are compared with real data
BOUND_SETTING = "real-nfe0"
HSD = "hsd"  # the setting of metrics of the model itself, which draw no samples
SNAPSHOTS = "snapshots"  # beside a checkpoint: averages of which others can be made
CHECKPOINT, LOG, CIRCUMSTANCES, STATE = "model.safetensors", "train.jsonl", "run.json", "state"
MADE = "made.json"
MANIFEST = "dataset.json"
DATA = Path("data")
SEED = re.compile(r"seed(0|[1-9][0-9]*)")  # the name of a run's folder; one like seed0-backup is nobody's


def setting_of(sampler: str, nfe: int | str) -> str:
    """The name of a setting, which is a file's stem."""
    return f"{sampler}-nfe{nfe}"


def circumstances_of(record: Path) -> Path:
    """Where the circumstances of the job that wrote one .json alone stand."""
    return record.with_suffix(f".{CIRCUMSTANCES}")


def is_circumstance(name: str) -> bool:
    """Whether a file of this name differs between two runs of equal work: run.json, hsd.run.json, cost.run.md."""
    return name == CIRCUMSTANCES or ".run." in name


def made_of(output: Path) -> Path:
    """Where the stamp of a job stands whose outputs do not fill a folder, by the first of them."""
    return output.with_suffix(f".{MADE}")


def snapshot_of(checkpoint: Path, step: int) -> Path:
    """Where a training keeps its averages after a step, in the folder of its checkpoint."""
    return checkpoint / SNAPSHOTS / f"{step:09d}.safetensors"


@dataclass(frozen=True)
class Preset:
    """The folders of one preset.

    Args:
        name: a key such as quickstart.
        root: the project's folder.
    """

    name: str
    root: Path = Path()

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints" / self.name

    @property
    def results(self) -> Path:
        return self.root / "results" / self.name

    @property
    def logs(self) -> Path:
        return self.root / "logs" / self.name

    @property
    def parameters(self) -> Path:
        """The resolved parameters."""
        return self.results / "params.yaml"

    @property
    def report(self) -> Path:
        return self.results / "report.html"

    @property
    def metrics(self) -> Path:
        return self.results / "metrics"

    def table(self, name: str) -> Path:
        """A table, by its name with its ending: table1.csv."""
        return self.results / "tables" / name

    def figure(self, name: str, suffix: str = ".png") -> Path:
        return self.results / "figures" / f"{name}{suffix}"

    def study(self, name: str) -> Path:
        """The result of a study."""
        return self.results / "studies" / f"{name}.json"

    def tournament(self, dataset: str) -> Path:
        """What the models of a data set say of each other's scores."""
        return self.results / "tournaments" / f"{dataset}.json"

    def reference(self, dataset: str, features: str) -> Path:
        """The statistics of real data."""
        return self.results / "reference" / dataset / f"{features}.npz"

    def data(self, dataset: str) -> Path:
        """The folder of a data set, which all presets share."""
        return self.root / DATA / dataset

    def manifest(self, dataset: str) -> Path:
        """The file that describes a data set, and stands for every byte of it."""
        return self.data(dataset) / MANIFEST

    def run(self, dataset: str, method: str, seed: int = 0) -> "Run":
        return Run(self, dataset, method, seed)

    def bound(self, dataset: str) -> "Run":
        """Where real data are compared with real data."""
        return Run(self, dataset, BOUND, 0)

    def runs(self) -> list["Run"]:
        """Every run that has metrics or a checkpoint, sorted."""
        found = {path.parent for path in self.metrics.glob("*/*/seed*/*.json")}
        found |= {path.parent for path in self.checkpoints.glob(f"*/*/seed*/{CHECKPOINT}")}
        named = [(folder.parts[-3:], SEED.fullmatch(folder.name)) for folder in found]
        return [self.run(*key) for key in sorted({(parts[0], parts[1], int(seed[1])) for parts, seed in named if seed})]


@final
@dataclass(frozen=True)
class Run:
    """One trained model: a method on a data set with a seed; or, for the method `data`, the bound."""

    preset: Preset
    dataset: str
    method: str
    seed: int

    @classmethod
    def parse(cls, text: str, root: Path = Path()) -> "Run":
        """The run of `<preset>/<dataset>/<method>/seed<k>`.

        Raises:
            ConfigurationError: a text of another form.
        """
        parts = text.strip("/").split("/")
        seed = SEED.fullmatch(parts[-1])
        if len(parts) != 4 or not seed or any(part in ("", ".", "..") for part in parts):
            raise ConfigurationError(f"'{text}' names no run", fix="PRESET/DATASET/METHOD/seedK: quickstart/digits/edm/seed0")
        return cls(Preset(parts[0], root), parts[1], parts[2], int(seed[1]))

    @classmethod
    def of(cls, path: str | Path) -> "Run | None":
        """The run to which a path below checkpoints/ or results/ belongs, None elsewhere; links are not followed."""
        parts = Path(os.path.abspath(path)).parts
        for i in range(len(parts) - 1, 4, -1):
            if seed := SEED.fullmatch(parts[i]):
                dataset, method = parts[i - 2 : i]
                if parts[i - 4] == "checkpoints":
                    return cls(Preset(parts[i - 3], Path(*parts[: i - 4])), dataset, method, int(seed[1]))
                if parts[i - 5] == "results":
                    return cls(Preset(parts[i - 4], Path(*parts[: i - 5])), dataset, method, int(seed[1]))
        return None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.dataset, self.method, self.seed

    @property
    def name(self) -> str:
        """<dataset>/<method>/seed<k>: the part that is the same below every folder."""
        return f"{self.dataset}/{self.method}/seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.preset.name}/{self.name}"

    @property
    def data(self) -> Path:
        return self.preset.data(self.dataset)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoint."""
        return self.preset.checkpoints / self.name

    @property
    def checkpoint(self) -> Path:
        return self.checkpoints / CHECKPOINT

    @property
    def log(self) -> Path:
        return self.checkpoints / LOG

    @property
    def samples(self) -> Path:
        """The folder of the samples."""
        return self.preset.results / "samples" / self.name

    @property
    def metrics(self) -> Path:
        """The folder of the metrics."""
        return self.preset.metrics / self.name
