"""Snakemake's own time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from measuring import ROOT, Row, best, timed

from hamflow import config

TREE = ("Snakefile", "params.yaml", "profiles", "workflow", "src")
METHODS, SEEDS, BUDGETS = 10, 3, (5, 9, 17, 35, 71)  # with two samplers and the four default data sets: the paper's size
DAG_SECONDS, NOTHING_SECONDS, JOB_SECONDS = 10.0, 5.0, 3.0  # what is allowed

# The real workflow, whose jobs do nothing but make their outputs, with their stamps.
IDLE = """
include: "Snakefile"


def make_outputs(_input, output, _params, wildcards, _threads, _resources, _log, rule, *_rest):
    job = job_of("reference" if rule.startswith("reference_") else rule, wildcards)
    with made.making(job, JOBS.memo):
        shell("touch {output:q}")


for each in workflow.rules:
    if each.shellcmd:
        each.run_func = make_outputs
"""


def workflow(folder: Path) -> Iterator[Row]:
    """Snakemake's own time, at the size of the paper's experiments and of the default preset."""
    tree = folder / "tree"
    tree.mkdir()
    for name in TREE:
        (tree / name).symlink_to(ROOT / name)
    (tree / "idle.smk").write_text(IDLE)
    (tree / "default.yaml").write_text(config.dump({"tracking": {"uri": ""}}))
    (tree / "paper.yaml").write_text(config.dump(paper_size()))

    def snakemake(overlay: str, *words: str) -> tuple[str, float, float]:
        command = ["snakemake", "all", "--snakefile", "idle.smk", "--configfile", overlay, "--cores", "1", *words]
        return timed(command, tree)

    for overlay, name, limit in (("default.yaml", "default preset", None), ("paper.yaml", "paper's size", DAG_SECONDS)):
        output, *dry = best(lambda o=overlay: snakemake(o, "--dry-run"))  # type: ignore[misc]
        jobs = int(next(line.split()[1] for line in output.splitlines()[::-1] if line.startswith("total")))
        yield Row(f"dry run, {name}, {jobs} jobs", dry[0], "s", dry[1], limit)
        _, *run = snakemake(overlay)
        yield Row(f"Snakemake's time a job, {name}", (run[0] - dry[0]) / jobs, "s", (run[1] - dry[1]) / jobs, JOB_SECONDS)
        output, *nothing = best(lambda o=overlay: snakemake(o))  # type: ignore[misc]
        assert "Nothing to be done" in output, output
        yield Row(f"run with nothing to do, {name}", nothing[0], "s", nothing[1], NOTHING_SECONDS)


def paper_size() -> dict[str, Any]:
    """An overlay of ten methods, which take turns with the default ones, on the default data sets."""
    catalogue = list(yaml.safe_load((ROOT / "params.yaml").read_text())["methods"].values())
    methods = {f"method{k}": catalogue[k % len(catalogue)] | {"label": f"Method {k}"} for k in range(METHODS)}
    return {
        "preset": "bench",
        "seeds": list(range(SEEDS)),
        "run": {"methods": list(methods)},
        "methods": methods,
        "sampling": {"settings": {"heun": list(BUDGETS), "multistep": list(BUDGETS)}},
        "tracking": {"uri": ""},
    }
