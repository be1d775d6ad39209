"""Every job of a preset: what determines its result, what it reads, and the files that it leaves.

The rules of the workflow take their inputs from here, and `hamflow.pipeline.made` what a result is to be made of.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec

from hamflow import config
from hamflow.files import canonical_json, fingerprint
from hamflow.files.memo import MEMO, Memo
from hamflow.pipeline import targets
from hamflow.pipeline.paths import BOUND, BOUND_SETTING, DATA, HSD, MADE, Preset, Run, made_of
from hamflow.pipeline.sources import Sources, names_in

Inputs = Mapping[str, Path | list[Path]]


def unused(rule: str, spec: Any) -> tuple[str, ...]:
    """Packages that a job imports and does not use: a training draws no samples, but from the parents that it starts from."""
    return ("sampling",) if rule == "train" and not spec.get("parents") else ()


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a job were made of.

    Attributes:
        spec: the parameters, plain. code: the digest of each module behind the job.
        parents: the recipe of each job that made an input, by its name.
        inputs, outputs: the digests of the files that the job read, and of those that it wrote.
        recipe: as `Job.recipe`. originals: as `made.users_files`, of the user's own files.
    """

    spec: Any
    code: dict[str, str]
    parents: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    recipe: str
    originals: str | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One job.

    Args:
        rule: which makes it: train.
        place: of what: quickstart/digits/edm/seed0.
        spec: the parameters that determine the result, plain.
        inputs: the files that it reads, by their names in the rule.
        outputs: the files that it leaves, but for what differs between two runs of equal work.
        stamp: the file that says what the outputs were made of.
        parents: the jobs that make the inputs.
        originals: the user's own file or folder, which no job makes.
        modules: behind it, below hamflow, in `sources`; used: the names of registered objects that its parameters hold.
    """

    rule: str
    place: str
    spec: Any
    inputs: Inputs
    outputs: tuple[Path, ...]
    stamp: Path
    modules: tuple[str, ...]
    used: frozenset[str]
    parents: tuple["Job", ...]
    originals: Path | None
    sources: Sources

    def __str__(self) -> str:
        return f"{self.rule} {self.place}"

    @property
    def input_files(self) -> list[Path]:
        return [path for found in self.inputs.values() for path in (found if isinstance(found, list) else [found])]

    @cached_property
    def code(self) -> dict[str, str]:
        """What the modules behind the job say to Python."""
        return self.sources.code(*self.modules, used=self.used, without=unused(self.rule, self.spec))

    @cached_property
    def gone(self) -> bool:
        """Whether the user's own files, which it reads, are not there (any more), so that what was made of them stays."""
        return self.originals is not None and not any(path.is_file() for path in (self.originals, *self.originals.rglob("*")))

    @cached_property
    def recipe(self) -> str:
        """A digest of all that determines the result, back to the data sets' sources; the user's own files by their path."""
        if self.gone and (written := self.written) and written.spec == self.spec:
            return written.recipe
        parents = {str(job): job.recipe for job in self.parents}
        return fingerprint({"job": str(self), "spec": self.spec, "code": self.code, "parents": parents})

    @property
    def written(self) -> Stamp | None:
        """What the stamp says; None where there is none, or none that says it of all the outputs."""
        try:
            stamp = msgspec.json.decode(self.stamp.read_bytes(), type=Stamp)
        except (OSError, ValueError, RecursionError):
            return None
        return stamp if stamp.outputs.keys() >= set(map(str, self.outputs)) else None


class Jobs:
    """The jobs of a preset, each made once, when somebody asks for it.

    Args:
        parameters: of the preset, resolved; paths are below the working directory.
        sources: the code; None: that of this package.
    """

    def __init__(self, parameters: config.Config, sources: Sources | None = None):
        self.parameters, self.preset = parameters, Preset(parameters["preset"])
        self.memo = Memo(MEMO)
        self.sources = sources or Sources(memo=self.memo)

    @cache  # noqa: B019  one for each preset, as long as the process
    def prepare(self, dataset: str) -> Job:
        spec, folder = config.dataset_spec(self.parameters, dataset), self.preset.data(dataset)
        path = spec["options"].get("path")
        originals = Path(path).expanduser() if path else None
        return self._job("prepare", dataset, spec, {}, [self.preset.manifest(dataset)], folder / MADE, originals)

    @cache  # noqa: B019
    def train(self, dataset: str, method: str, seed: int) -> Job:
        run = self.preset.run(dataset, method, seed)
        parents = [self.preset.run(dataset, name, seed).checkpoint for name in targets.parents(self.parameters, method)]
        inputs: Inputs = {"manifest": self.preset.manifest(dataset), "parents": parents}
        spec = config.training_spec(self.parameters, dataset, method)
        return self._job("train", run, spec, inputs, [run.checkpoint], run.checkpoints / MADE)

    @cache  # noqa: B019
    def sample(self, dataset: str, method: str, seed: int) -> Job:
        run = self.preset.run(dataset, method, seed)
        inputs: Inputs = {"checkpoint": run.checkpoint, "manifest": self.preset.manifest(dataset)}
        spec = config.sampling_spec(self.parameters, dataset, method)
        return self._job("sample", run, spec, inputs, self._samples(run), run.samples / MADE)

    @cache  # noqa: B019
    def reference(self, dataset: str) -> Job:
        bound, spec = self.preset.bound(dataset), config.evaluation_spec(self.parameters, dataset)
        statistics = self.preset.reference(dataset, spec["features"])
        outputs = [statistics, bound.metrics / f"{BOUND_SETTING}.json"]
        return self._job("reference", bound, spec, {"manifest": self.preset.manifest(dataset)}, outputs, made_of(statistics))

    @cache  # noqa: B019
    def evaluate(self, dataset: str, method: str, seed: int) -> Job:
        run, spec = self.preset.run(dataset, method, seed), config.evaluation_spec(self.parameters, dataset, method)
        inputs: Inputs = {
            "samples": self._samples(run),
            "manifest": self.preset.manifest(dataset),
            "reference": self.preset.reference(dataset, spec["features"]),
        }
        outputs = [run.metrics / f"{setting}.json" for setting in targets.settings(self.parameters, method)]
        return self._job("evaluate", run, spec, inputs, outputs, run.metrics / MADE)

    @cache  # noqa: B019
    def discrepancy(self, dataset: str, method: str, seed: int) -> Job:
        run, spec = self.preset.run(dataset, method, seed), config.discrepancy_spec(self.parameters, dataset, method)
        inputs: Inputs = {"checkpoint": run.checkpoint, "manifest": self.preset.manifest(dataset)}
        output = run.metrics / f"{HSD}.json"
        return self._job("discrepancy", run, spec, inputs, [output], made_of(output))

    @cache  # noqa: B019
    def tournament(self, dataset: str) -> Job:
        output, spec = self.preset.tournament(dataset), config.tournament_spec(self.parameters, dataset)
        checkpoints = [run.checkpoint for run in targets.entrants(self.parameters, dataset)]
        inputs: Inputs = {"checkpoints": checkpoints, "manifest": self.preset.manifest(dataset)}
        return self._job("tournament", dataset, spec, inputs, [output], made_of(output))

    @cache  # noqa: B019
    def study(self, name: str) -> Job:
        output = self.preset.study(name)
        return self._job("study", name, config.study_spec(self.parameters, name), {}, [output], made_of(output))

    @cache  # noqa: B019
    def tabulate(self) -> Job:
        names = ("table1.csv", "table1.html", "table1.md", "table1.tex", "summary.json")
        outputs = [self.preset.table(name) for name in names]
        inputs: Inputs = {"metrics": targets.metrics(self.parameters)}
        return self._job("tabulate", "table1", {}, inputs, outputs, made_of(outputs[0]))

    @cache  # noqa: B019
    def tabulate_study(self, table: str) -> Job:
        study = targets.STUDY_TABLES[table]
        outputs = [self.preset.table(f"{table}.{ending}") for ending in ("csv", "md")]
        inputs: Inputs = {"result": self.preset.study(study)}
        return self._job("tabulate", study, {}, inputs, outputs, made_of(outputs[0]))

    @cache  # noqa: B019
    def tabulate_models(self, table: str) -> Job:
        outputs = [self.preset.table(f"{table}.{ending}") for ending in ("csv", "html", "md")]
        inputs: Inputs = {"metrics": targets.metrics(self.parameters)}
        spec: Any = targets.references(self.parameters) if table == "beyond" else {}
        if table == "tournament":
            found = targets.tournaments(self.parameters)
            runs = [run for path in found for run in targets.entrants(self.parameters, path.stem)]
            inputs = {"tournaments": found, "discrepancies": [run.metrics / f"{HSD}.json" for run in runs]}
        if table == "proxy":
            spec = config.proxy_spec(self.parameters)
            inputs = {**inputs, "manifests": [self.preset.manifest(dataset) for dataset in spec["datasets"]]}
        return self._job("tabulate", table, spec, inputs, outputs, made_of(outputs[0]))

    def plot(self, figure: str, inputs: Inputs, caption: str, modules: Iterable[str]) -> Job:
        """The job of a figure, which `hamflow.verbs.plot` knows."""
        shown = {key: self.parameters[key] for key in ("run", "seeds")}
        named = {key: self.parameters[key].items() for key in ("datasets", "methods")}
        labels = {key: {name: entry["label"] for name, entry in entries} for key, entries in named.items()}
        outputs = [self.preset.figure(figure), self.preset.figure(figure, ".pdf")]
        spec = {"caption": caption, "labels": labels, **shown}
        return self._job("plot", figure, spec, inputs, outputs, made_of(outputs[0]), modules=tuple(modules))

    def maker(self, path: Path) -> Job:
        """The job that makes an artefact."""
        parts = path.parts
        if parts[0] == str(DATA):
            return self.prepare(parts[1])
        if run := Run.of(path):
            if parts[0] == "checkpoints":
                return self.train(run.dataset, run.method, run.seed)
            if parts[2] == "samples":
                return self.sample(run.dataset, run.method, run.seed)
            if run.method == BOUND:
                return self.reference(run.dataset)
            make = self.discrepancy if path.stem == HSD else self.evaluate
            return make(run.dataset, run.method, run.seed)
        if parts[2] == "reference":
            return self.reference(parts[3])
        if parts[2] == "tournaments":
            return self.tournament(path.stem)
        if parts[2] == "studies":
            return self.study(path.stem)
        return self.tabulate()

    def _samples(self, run: Run) -> list[Path]:
        settings = targets.settings(self.parameters, run.method)
        return [run.samples / f"{setting}.{ending}" for ending in ("npy", "json") for setting in settings]

    def _job(
        self,
        rule: str,
        place: Run | str,
        spec: Any,
        inputs: Inputs,
        outputs: list[Path],
        stamp: Path,
        originals: Path | None = None,
        modules: tuple[str, ...] = (),
    ) -> Job:
        files = [path for found in inputs.values() for path in (found if isinstance(found, list) else [found])]
        parents = {job.stamp: job for job in map(self.maker, files)}
        name = str(place) if isinstance(place, Run) or rule == "prepare" else f"{self.preset.name}/{place}"
        return Job(
            rule=rule,
            place=name,
            spec=json.loads(canonical_json(spec)),
            inputs=inputs,
            outputs=tuple(outputs),
            stamp=stamp,
            modules=modules or self._modules(rule, name.rpartition("/")[2]),
            used=self._used(rule, place),
            parents=tuple(parents.values()),
            originals=originals,
            sources=self.sources,
        )

    def _modules(self, rule: str, part: str) -> tuple[str, ...]:
        """The modules of a rule, below hamflow."""
        also = {"study": f"studies.{part}", "discrepancy": "score.estimators"}
        if part in targets.STUDY_TABLES.values():
            also["tabulate"] = f"studies.{part}"
        if part in targets.MODEL_TABLES:
            also["tabulate"] = f"report.{part}"
        verb = f"verbs.{'evaluate' if rule == 'reference' else rule}"
        return (verb, also[rule]) if rule in also else (verb,)

    def _used(self, rule: str, place: Run | str) -> frozenset[str]:
        """The names that the parameters of a job hold: the objects of a registry that it may use."""
        dataset, method = (place.dataset, place.method) if isinstance(place, Run) else (place, BOUND)
        of_dataset = isinstance(place, Run) or rule in ("prepare", "tournament")
        entries: list[Any] = []
        if of_dataset:  # but for the names of its methods, of which this job may be one
            entries.append({key: value for key, value in self.parameters["datasets"][dataset].items() if key != "methods"})
        if (rule, place) == ("tabulate", "proxy"):
            entries.append(config.proxy_spec(self.parameters))
        if rule == "tournament":
            methods = config.methods_of(self.parameters, dataset)
            entries += [config.training_spec(self.parameters, dataset, name) for name in methods]
        if method != BOUND:
            entries.append(config.training_spec(self.parameters, dataset, method))
        return frozenset(names_in(entries))
