"""From nothing to the report, on tiny settings."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from hamflow import config
from hamflow.files import canonical_json, read_json
from hamflow.pipeline.sources import WITHOUT_EFFECT

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

ROOT = Path(__file__).parents[2]
RUN = "checkerboard/reflection/seed0"
JOBS = {
    "prepare": "data/checkerboard/dataset.json",
    "train": f"checkpoints/quickstart/{RUN}/model.safetensors",
    "sample": f"results/quickstart/samples/{RUN}/heun-nfe3.npy",
    "evaluate": f"results/quickstart/metrics/{RUN}/heun-nfe3.json",
}

UNUSED = {"train": ("hamflow.sampling",)}  # imported for what a trained model can do

# What the job imports, without what the command line itself imports for the help of all verbs.
LIST_MODULES = """
import sys
from hamflow import cli
cli.parser()
before = set(sys.modules)
assert cli.main(sys.argv[1:]) == 0
print("MODULES", *(name for name in set(sys.modules) - before if name.startswith("hamflow.")))
"""


def forced(workflow, rule):
    """The command that a dry run prints for the one job of a rule when it is forced."""
    target = JOBS[rule]
    text = workflow.snakemake("--dry-run", "--printshellcmds", "--forcerun", rule, "--", target).stdout
    block = re.search(rf"^(?:local)?rule {rule}:\n(.*?)(?=^\[|\Z)", text, flags=re.MULTILINE | re.DOTALL)[1]
    return re.search(r"^Shell command: (.*)$", block, flags=re.MULTILINE)[1]


def test_the_table_has_a_line_for_every_run_setting_and_metric_and_for_the_bound(finished):
    parameters = config.load([finished.folder / "params.yaml"])
    settings = [(sampler, str(nfe)) for sampler, nfe in config.sampler_settings(parameters)]
    runs = {(method, *setting) for method in parameters["run"]["methods"] for setting in settings}
    with open(finished.folder / "results/quickstart/tables/table1.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    metrics = {}  # of each row of the table
    for line in lines:
        metrics.setdefault((line["method"], line["sampler"], line["nfe"]), set()).add(line["metric"])
    models = {(method, "none", "0") for method in parameters["run"]["methods"]}  # their discrepancies, without samples
    (bound,) = metrics.keys() - runs - models
    assert bound[0] == "data"
    assert metrics.keys() >= runs | models
    for key, names in metrics.items():
        assert names >= ({"hsd@sigma=0.3"} if key in models else {"w2", "mmd", "support"})
    assert {line["preset"] for line in lines} == {"quickstart"}


def test_the_report_holds_the_table_and_every_figure(finished):
    page = (finished.folder / "results/quickstart/report.html").read_text()
    figures = sorted((finished.folder / "results/quickstart/figures").glob("*.png"))
    assert figures
    for path in [finished.folder / "results/quickstart/tables/table1.csv", *figures]:
        assert f'"{path.relative_to(finished.folder)}"' in page


def test_no_half_written_file_is_left(finished):
    assert not [p for root in ("data", "checkpoints", "results") for p in (finished.folder / root).rglob("*.tmp*")]
    assert not list((finished.folder / "checkpoints").rglob("state"))


def test_dvc_has_nothing_to_do_a_second_time(finished):
    said = finished.command("dvc", "repro").stdout
    assert "Data and pipelines are up to date." in said
    assert finished.command("dvc", "status", "--quiet").returncode == 0


@pytest.mark.parametrize("rule", ["train", "sample"])
def test_a_printed_command_repeated_by_hand_gives_the_same_bytes(finished, rule, tmp_path):
    command = forced(finished, rule)
    output = finished.folder / JOBS[rule]
    kept = tmp_path / "kept"
    shutil.move(output.parent, kept)
    try:
        finished.command("bash", "-c", command)
        assert output.read_bytes() == (kept / output.name).read_bytes()
    finally:  # the new records have another wall time
        shutil.rmtree(output.parent)
        shutil.move(kept, output.parent)


@pytest.mark.parametrize("rule", [pytest.param(rule, marks=pytest.mark.slow) if rule != "train" else rule for rule in JOBS])
def test_every_module_that_a_job_imports_stands_in_its_stamp(finished, rule, tmp_path):
    """Or it cannot change a number, or it registers objects that this job does not use."""
    command = forced(finished, rule)
    code = read_json((finished.folder / JOBS[rule]).parent / "made.json")["code"]
    arguments = shlex.split(re.search(r"hamflow (.*?) (?:2?>)", command)[1])
    arguments += ["--output", str(tmp_path / "results/preset/dataset/method/seed0")]
    arguments += ["--spec", canonical_json(specification(finished, rule))]  # else it reads and checks all parameters
    said = finished.command("python", "-c", LIST_MODULES, *arguments).stdout
    imported = {module: source_of(finished, module) for module in said[said.index("MODULES") :].split()[1:]}
    excused = {module for module in imported if module.startswith(WITHOUT_EFFECT + UNUSED.get(rule, ()))}
    queue = [module for module, file in imported.items() if registered_by(file) - names_used()]
    while queue:  # modules of other objects, and what they import
        excused.add(other := queue.pop())
        text = imported[other].read_text()
        queue += [module for module in imported.keys() - excused if re.search(rf"from {re.escape(module)}[ .]", text)]
    for module, file in imported.items():
        if module not in excused:
            assert str(file.relative_to(finished.folder / "src")) in code


def specification(workflow, rule):
    parameters = config.load([workflow.folder / "params.yaml"])
    kind = {"prepare": "dataset", "train": "training", "sample": "sampling", "evaluate": "evaluation"}[rule]
    dataset, method, _ = RUN.split("/")
    return getattr(config, f"{kind}_spec")(parameters, dataset, *([] if rule == "prepare" else [method]))


def names_used():
    """The registered names behind RUN, from its parameters."""
    parameters = config.load([ROOT / "params.yaml"])
    dataset, method, _ = RUN.split("/")
    spec = config.training_spec(parameters, dataset, method)
    source = config.dataset_spec(parameters, dataset)["source"]
    options = spec["options"]
    kinds = (
        options["flow"]["name"],
        options["parameterisation"],
        options["times"]["law"],
        spec["network"]["kind"],
        spec["kind"],
    )
    return {source, parameters["datasets"][dataset]["features"], *kinds}


def source_of(workflow, module):
    path = workflow.folder / "src" / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def registered_by(file):
    return set(re.findall(r"^@(?:\w+\.)?register\(\"(\w+)\"", file.read_text(), flags=re.MULTILINE))
