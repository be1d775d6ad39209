"""Whatever way bytes came, no number stands under parameters, code or data that did not make it."""

import json
import shutil
from contextlib import contextmanager, nullcontext

import pytest
from conftest import clone_of
from workflows import Workflow

from hamflow import config
from hamflow.files import write_json
from hamflow.files.memo import Memo
from hamflow.pipeline import made
from hamflow.pipeline.jobs import Jobs
from hamflow.pipeline.sources import HERE, Sources
from hamflow.verbs import check

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

RUN = "quickstart/checkerboard/edm/seed0"
TABLE = "results/quickstart/tables/table1.csv"
LENGTHS = ("src/hamflow/metrics/kernel.py", "(2.0,", "(3.0,")  # an edit that changes a metric
EDITED = ("\n\n", "\n\nEDITED = True\n\n")

# Of each artefact: its job, one of its files, and a parameter and a source file that determine it and nothing before it.
ARTEFACTS = {
    "prepared data": (
        "prepare checkerboard",
        "data/checkerboard/points.npy",
        "datasets.checkerboard.options.count=3000",
        "data/checkerboard",
    ),
    "checkpoint": (
        f"train {RUN}",
        f"checkpoints/{RUN}/model.safetensors",
        "methods.edm.training.learning_rate=3.0e-4",
        "training/adam",
    ),
    "samples": (
        f"sample {RUN}",
        "results/quickstart/samples/checkerboard/edm/seed0/heun-nfe3.npy",
        "sampling.rho=5",
        "verbs/sample",
    ),
    "metrics": (
        f"evaluate {RUN}",
        "results/quickstart/metrics/checkerboard/edm/seed0/heun-nfe3.json",
        "methods.edm.label=Other",
        "metrics/frechet",
    ),
    "reference": (
        "reference quickstart/checkerboard/data/seed0",
        "results/quickstart/reference/checkerboard/points.npz",
        "evaluation.batch=7",
        "metrics/reference",
    ),
    "study": (
        "study quickstart/gradients",
        "results/quickstart/studies/gradients.json",
        "studies.gradients.samples=50",
        "studies/gradients",
    ),
}


def pulled(pushed, folder):
    return clone_of(pushed, folder)


def checked_out(pushed, folder):
    clone = clone_of(pushed, folder)
    for name in ("data", "checkpoints", "results"):
        shutil.rmtree(clone.folder / name)
    clone.command("dvc", "checkout")
    return clone


def copied(pushed, folder):
    """With the results and without records, DVC or git."""
    ignore = shutil.ignore_patterns(".snakemake", ".git", ".dvc", "__pycache__")
    return Workflow(shutil.copytree(pushed.folder, folder / "copy", ignore=ignore))


def restored(pushed, folder):
    clone = clone_of(pushed, folder)
    clone.command("hamflow", "check", "quickstart")
    return clone


SLOWLY = [pytest.param(way, marks=pytest.mark.slow) for way in (pulled, checked_out, restored)]  # without records, as a copy


WAYS = [pulled, pytest.param(checked_out, marks=pytest.mark.slow), copied, pytest.param(restored, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.__name__)
def tree(request, pushed, tmp_path_factory):
    """A tree to which the bytes of a run came by a way other than that run."""
    return request.param(pushed, tmp_path_factory.mktemp(request.param.__name__))


@contextmanager
def altered(file):
    """A file whose bytes are others for a while, of equal size."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        yield
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("change", ["parameters", "code", "data"])
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_what_differs_is_named(tree, artefact, change, monkeypatch):
    job, file, parameter, module = ARTEFACTS[artefact]
    monkeypatch.chdir(tree.folder)
    edits = {"code": lambda: tree.edited(f"src/hamflow/{module}.py", *EDITED), "data": lambda: altered(tree.folder / file)}
    parameters = config.load(["params.yaml"], [parameter] if change == "parameters" else [])
    with edits.get(change, nullcontext)():
        jobs = Jobs(parameters, Sources(tree.folder / "src"))
        checks = made.Checks(jobs.memo)
        differing = {str(one): checks.difference(one) for one in check.everything(jobs)}
        due = {str(one) for one in check.everything(jobs) if checks.verdict(one).due}
    said = {"parameters": parameter.partition("=")[0].rpartition(".")[2], "code": f"hamflow/{module}", "data": file}[change]
    assert said in differing[job]
    assert due >= {name for name, differs in differing.items() if differs}


def test_the_table_by_hand_is_refused_where_anything_before_it_differs(tree):
    with altered(tree.folder / ARTEFACTS["checkpoint"][1]):
        said = tree.command("hamflow", "tabulate", "quickstart", check=False)
    assert said.returncode == 2
    assert "model.safetensors has other bytes" in said.stdout


def test_of_what_is_asked_for_nothing_differs(tree):
    assert "and 0 differ" in tree.command("hamflow", "check", "quickstart").stdout
    assert tree.pending() == set()


DAMAGE = {
    "cut short": lambda text: text[: len(text) // 2],
    "another type": lambda text: json.dumps([text]),
    "a field that is no mapping": lambda text: json.dumps({**json.loads(text), "code": 1}),
    "names that are no text": lambda text: text.replace('"outputs"', "3"),
    "nested deeper than a reader can go": lambda text: "[" * 100_000,
    "an output that it does not name": lambda text: json.dumps({**json.loads(text), "outputs": {"/etc/hostname": "0"}}),
    "no text at all": lambda text: "\0\ud800",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_stamp_says_nothing(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Jobs(config.load([HERE.parent / "params.yaml"], [])).study("taylor")
    memo = Memo()
    with made.making(job, memo):
        write_json(job.outputs[0], {"made": True})
    assert made.Checks(memo).difference(job) == ""
    job.stamp.write_bytes(DAMAGE[damage](job.stamp.read_text()).encode(errors="surrogatepass"))
    assert made.Checks(memo).verdict(job) == made.Verdict(due=True, differs=made.NO_STAMP)


@pytest.fixture(scope="module")
def asked(pushed, tmp_path_factory):
    """The table of other parameters and other code, made from nothing."""
    folder = tmp_path_factory.mktemp("asked") / "tree"
    ignore = shutil.ignore_patterns(".snakemake", ".git", ".dvc", "__pycache__", "data", "checkpoints", "results")
    shutil.copytree(pushed.folder, folder, ignore=ignore)
    shutil.copytree(pushed.folder / "src", folder / "src", dirs_exist_ok=True)  # in which there is a folder data, too
    return table_of_other_parameters_and_code(Workflow(folder))


def table_of_other_parameters_and_code(workflow):
    with workflow.edited(*LENGTHS):
        workflow.snakemake("--cores", "2", "--config", "sampling={sigma_max: 5}", "--", TABLE)
    return (workflow.folder / TABLE).read_text()


@pytest.mark.parametrize("tree", [copied, *SLOWLY], indirect=True, ids=lambda way: way.__name__)
def test_the_table_is_that_of_what_is_asked_for(tree, asked):
    before = (tree.folder / TABLE).read_text()
    assert table_of_other_parameters_and_code(tree) == asked != before


@pytest.mark.slow
def test_the_table_of_an_experiment_elsewhere_is_that_of_what_is_asked_for(pushed, asked, tmp_path):
    """DVC copies the folder, runs there and takes the results over."""
    clone = clone_of(pushed, tmp_path)
    with clone.edited(*LENGTHS):
        clone.command("dvc", "exp", "run", "--temp", "--name", "other", "--set-param", "sampling.sigma_max=5")
    clone.command("git", "checkout", "--force", ".")
    clone.command("dvc", "exp", "apply", "other")
    assert (clone.folder / TABLE).read_text() == asked


def test_a_dry_run_changes_nothing_on_the_disk(tree):
    def disk():
        files = [path for path in tree.folder.rglob("*") if path.is_file() and not {".snakemake", ".git"} & set(path.parts)]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if "__pycache__" not in path.parts}

    before = disk()
    tree.snakemake("--dry-run", "--config", "sampling={rho: 4}")
    assert disk() == before
