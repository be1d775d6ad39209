"""docs/extending.md, followed to the letter: each block goes to the file that it names, and the workflow runs to the report.

The page is followed in a copy of the project, which is deleted afterwards.
"""

import csv
import re
import shutil

import pytest
import yaml
from workflows import ROOT, Workflow, copy_tree

from hamflow.files import read_json

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("extending")]

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL)
PRESET = "quickstart"
TWO_PROCESSES = "2"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The workflow of a project that has everything of the page, run to its report."""
    root = copy_tree(tmp_path_factory.mktemp("extended"))
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    for kind, target, body in BLOCKS:
        if kind == "yaml":
            parameters[target] = parameters.get(target, {}) | yaml.safe_load(body)
        elif not (root / target).exists():
            (root / target).write_text(body)
        else:
            with open(root / target, "a") as file:
                file.write(f"\n\n{body}")
    parameters["run"] = {"datasets": ["circle", "digits"], "methods": ["leaning", "gaussian"]}
    parameters["datasets"]["circle"]["network"] = "shallow"
    parameters["datasets"]["digits"] |= {"features": "thumbnails", "n_samples": 100, "training": {"train_kimg": 2}}
    parameters["sampling"]["settings"] = {"ralston": [10]}
    parameters["studies"] = {"energy": parameters["studies"]["energy"]}
    parameters["tracking"]["uri"] = ""
    (root / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    workflow = Workflow(root)
    try:
        workflow.snakemake("--cores", TWO_PROCESSES)
        workflow.snakemake("--report", f"results/{PRESET}/report.html")
        yield workflow
    finally:
        shutil.rmtree(root)


def lines_of(workflow, **wanted):
    """The lines of table1.csv that have these entries."""
    with open(workflow.folder / "results" / PRESET / "tables" / "table1.csv", newline="") as file:
        return [line for line in csv.DictReader(file) if all(line[key] == value for key, value in wanted.items())]


def test_there_is_a_block_for_every_kind_of_object():
    folders = {target.removeprefix("src/hamflow/").rpartition("/")[0] for kind, target, _ in BLOCKS if kind == "python"}
    assert folders == {"flows", "data", "networks", "sampling", "metrics", "methods", "report/figures", "studies"}


def test_the_flow_the_data_the_network_the_sampler_and_the_metric_make_a_line(extended):
    (line,) = lines_of(extended, dataset="circle", method="leaning", metric="mean_radius")
    assert (line["label"], line["sampler"], line["nfe"]) == ("Leaning HGF", "ralston", "10")
    assert float(line["mean"]) == pytest.approx(1, abs=0.08)


def test_the_feature_network_judges_images(extended):
    lines = lines_of(extended, dataset="digits", metric="fd_tiny")
    assert {line["method"] for line in lines} == {"leaning", "gaussian", "data"}
    assert {line["features"] for line in lines} == {"thumbnails"}


def test_the_kind_of_method_has_its_rows_and_no_discrepancy(extended):
    lines = lines_of(extended, method="gaussian")
    assert {(line["label"], line["sampler"], line["nfe"]) for line in lines} == {("Normal law", "direct", "1")}
    (radius,) = [float(line["mean"]) for line in lines if line["metric"] == "mean_radius"]
    assert radius == pytest.approx((3.14159 / 4) ** 0.5, abs=0.1)  # E|n| / sqrt 2 of a normal law in the plane
    assert lines_of(extended, method="leaning", sampler="none")  # which the flow has


def test_figure_and_study_stand_in_the_report(extended):
    page = (extended.folder / "results" / PRESET / "report.html").read_text()
    for name in ("radii", "study-energy"):
        assert (extended.folder / "results" / PRESET / "figures" / f"{name}.pdf").stat().st_size > 1000
        assert f'"results/{PRESET}/figures/{name}.png"' in page
    assert "Normal law" in (extended.folder / "results" / PRESET / "tables" / "table1.html").read_text()
    result = read_json(extended.folder / "results" / PRESET / "studies" / "energy.json")
    coarse, middle, fine = result["errors"]
    assert coarse / middle == pytest.approx(4, rel=0.05)
    assert middle / fine == pytest.approx(4, rel=0.05)


RESUME = """
import msgspec, torch
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

facts = Facts(name="x", shape=(2,), classes=0, sigma_data=1.0, box=(-1.0, 1.0), network={})
plan = msgspec.convert({"train_kimg": 2, "batch": 100, "learning_rate": 0.05}, Training)
rows = Samples(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)))
make = lambda: METHODS.build("gaussian").objective(facts, {}, 0)

whole = [state for state in fit(make(), rows, plan, 0)][-1].tensors()
for step, state in enumerate(fit(make(), rows, plan, 0)):
    if step == 6:
        break
resumed = State(make(), plan)
resumed.restore({name: tensor.clone() for name, tensor in state.tensors().items()}, state.progress())
for state in fit(resumed.objective, rows, plan, 0, resumed):
    pass
found = state.tensors()
assert whole.keys() == found.keys()
assert all(torch.equal(whole[name], found[name]) for name in whole)
"""


def test_the_kind_of_method_resumes_to_the_same_bits(extended):
    extended.command("python", "-c", RESUME)


def test_the_added_flow_passes_every_flow_test(extended):
    shutil.copytree(ROOT / "tests/flows", extended.folder / "tests/flows")
    shutil.copy(ROOT / "tests/conftest.py", extended.folder / "tests")
    done = extended.command("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/flows", "-k", "leaning")
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 14
