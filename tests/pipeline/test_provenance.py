"""From a number back to its data, and the same numbers again."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from workflows import ROOT

from hamflow import cli
from hamflow.errors import DataError
from hamflow.files import read_json, sha256_of, write_json
from hamflow.pipeline import provenance, verify
from hamflow.pipeline.crate import manifest
from hamflow.pipeline.paths import STATE, Preset
from hamflow.pipeline.trace import trace

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

RUN = "checkerboard/edm/seed0"
METRICS = f"results/quickstart/metrics/{RUN}/heun-nfe3.json"


@pytest.fixture
def copied(finished, tmp_path):
    """The artefacts of the finished tree, to be spoilt."""
    for name in ("results", "checkpoints", "data"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return tmp_path


BOUND = "results/quickstart/metrics/checkerboard/data/seed0/real-nfe0.json"


@pytest.fixture
def project(tmp_path):
    """A project by hand, with one number and its data: nothing is run."""
    root = tmp_path / "state/metrics/project"  # folders above it may have any name
    names = {"preset": "quickstart", "dataset": "checkerboard", "method": "data", "seed": 0, "sampler": "real", "nfe": 0}
    names |= {"dataset_label": "Checkerboard", "conditional": False, "label": "bound"}
    write_json(root / "data/checkerboard/dataset.json", {"source": "checkerboard"})
    facts = {"data_sha256": sha256_of(root / "data/checkerboard/dataset.json")}
    record = {**names, "metrics": {"sw2": {"value": 0.1, "n": 5, "features": "points"}}, "provenance": facts}
    write_json(root / BOUND, record)
    write_json((root / BOUND).with_name("run.json"), {"evaluation": {"host": "a host"}})
    write_json(root / "checkpoints/quickstart/run.json", {})
    shutil.copy(ROOT / "params.yaml", root)
    return root


def run(*arguments):
    """A verb, in this process; its exceptions come through."""
    options = cli.parser().parse_args(arguments)
    options.run(options)


def git(root, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def spoil_number(root, factor, device=None):
    """Change the first metric of one record, and where it says it was made."""
    path = root / METRICS
    record = read_json(path)
    name = sorted(record["metrics"])[0]
    record["metrics"][name]["value"] *= factor
    if device:
        record["provenance"]["device"] = device
    write_json(path, record)
    return name


def test_the_chain_names_every_file_as_it_is_and_the_circumstances(finished):
    chain = trace(finished.folder / METRICS, finished.folder)
    checkpoint = finished.folder / f"checkpoints/quickstart/{RUN}/model.safetensors"
    assert chain["training"]["sha256"] == sha256_of(checkpoint)
    assert {chain["training"]["state"], chain["data"]["state"]} == {"as recorded"}
    for part in ("evaluation", "samples", "training"):
        assert chain[part]["wall_seconds"] > 0
        assert "git_commit" in chain[part]
    assert chain["training"]["parameters of the run"]["method"] == "edm"
    assert len(chain["mlflow"]["hamflow.key"]) == 64


def test_the_chain_holds_without_what_is_not_fetched_and_sees_a_changed_checkpoint(copied):
    path = copied / METRICS
    path.with_name("run.json").unlink()
    whole = trace(path, copied)
    assert whole["training"]["state"] == "as recorded"
    assert whole["training"]["wall_seconds"] == "not recorded"
    checkpoint = copied / f"checkpoints/quickstart/{RUN}/model.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    assert trace(path, copied)["training"]["state"] == "changed"
    checkpoint.unlink()
    assert trace(path, copied)["training"]["state"] == "not here"


def test_the_command_prints_the_chain_and_refuses_what_is_no_number(finished):
    said = finished.command("hamflow", "trace", METRICS).stdout
    assert trace(finished.folder / METRICS, finished.folder)["training"]["sha256"] in said
    refused = finished.command("hamflow", "trace", "results/quickstart/tables/table1.csv", check=False)
    assert refused.returncode == 2
    assert "no metrics JSON" in refused.stdout


def test_the_manifest_lists_every_artefact_with_its_hash(finished):
    crate = manifest(finished.folder / "results/quickstart", finished.folder)
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    checkpoint = f"checkpoints/quickstart/{RUN}/model.safetensors"
    assert entities[checkpoint]["sha256"] == sha256_of(finished.folder / checkpoint)
    linked = [part["@id"] for part in entities["./"]["hasPart"]]
    assert set(linked) <= entities.keys()
    for table in ("table1.csv", "summary.json"):
        assert f"results/quickstart/tables/{table}" in linked
    action = entities[f"#{RUN}/heun-nfe3"]
    assert {"@id": checkpoint} in action["object"]


def test_the_manifest_stands_where_its_names_lead_to_the_files(project, tmp_path, monkeypatch, capsys):
    git(project, "init")
    git(project, "commit", "--allow-empty", "--message", "here")
    written = []
    for folder, path in [
        (project, "results/quickstart"),
        (tmp_path, str(project.relative_to(tmp_path) / "results/quickstart")),
        (project / "results/quickstart", "."),
        (tmp_path, str(project / "results/quickstart")),
    ]:
        monkeypatch.chdir(folder)
        run("trace", path)
        written.append((project / "ro-crate-metadata.json").read_bytes())
        assert "ro-crate-metadata.json" in capsys.readouterr().out
    assert len(set(written)) == 1
    assert str(tmp_path).encode() not in written[0]
    entities = {entity["@id"]: entity for entity in json.loads(written[0])["@graph"]}
    files = [entity for entity in entities.values() if entity["@type"] == "File"]
    assert len(files) == 4
    for entity in files:
        assert entity["sha256"] == sha256_of(project / entity["@id"])
    crate = entities["./"]
    assert crate["datePublished"] == git(project, "log", "-1", "--format=%cI")
    assert "quickstart" in crate["name"]
    assert "quickstart" in crate["description"]
    assert crate["license"].endswith("Apache-2.0")


def test_the_manifest_has_no_date_where_there_is_no_git(project):
    (crate,) = [entity for entity in manifest(project / "results/quickstart")["@graph"] if entity["@id"] == "./"]
    assert "datePublished" not in crate


def test_data_and_checkpoints_may_be_links_to_another_disk(project, tmp_path):
    before = manifest(project / "results/quickstart")
    for name in ("data", "checkpoints"):
        shutil.move(project / name, tmp_path / "disk" / name)
        (project / name).symlink_to(tmp_path / "disk" / name)
    assert manifest(project / "results/quickstart") == before
    assert "data/checkerboard/dataset.json" in [entity["@id"] for entity in before["@graph"]]


def test_the_chain_is_the_same_from_any_folder(project, monkeypatch):
    chains = []
    for folder, path in [
        (project, BOUND),
        (project / "results", BOUND.removeprefix("results/")),
        (project.parent, f"project/{BOUND}"),
    ]:
        monkeypatch.chdir(folder)
        chains.append(trace(type(project)(path)))
    assert chains[0] == chains[1] == chains[2]
    assert chains[0]["number"]["file"] == BOUND
    assert chains[0]["data"]["state"] == "as recorded"
    assert chains[0]["evaluation"]["host"] == "a host"  # from run.json beside it


@pytest.mark.parametrize(
    ("changed", "dirty"), [("src/hamflow/flows/leaning.py", True), ("params.yaml", True), ("results/table1.csv", False)]
)
def test_a_tree_is_dirty_by_new_code_and_parameters_and_not_by_tables(tmp_path, monkeypatch, changed, dirty):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src/hamflow/pipeline/provenance.py"))
    version = provenance.source_version.__wrapped__  # uncached
    assert version() == {"git_commit": None, "git_dirty": None}
    for name in ("results/table1.csv", "src/hamflow/flows/oscillation.py", "params.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "all")
    assert version() == {"git_commit": git(tmp_path, "rev-parse", "HEAD"), "git_dirty": False}
    (tmp_path / changed).write_text("new")
    assert version()["git_dirty"] is dirty


def test_a_checkout_without_the_sources_is_clean_and_one_without_git_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "lib/hamflow/pipeline/provenance.py"))
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "--message", "nothing")
    assert provenance.source_version.__wrapped__()["git_dirty"] is False
    monkeypatch.setenv("PATH", "")
    assert provenance.source_version.__wrapped__() == {"git_commit": None, "git_dirty": None}


def test_nothing_is_run_where_there_is_nothing_to_compare(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(verify, "repeat", lambda *_: pytest.fail("it ran"))
    write_json(project / "results/cloned/tables/summary.json", {})
    for arguments, what in [
        (("own",), "preset 'own'"),
        (("cloned",), "preset 'cloned'"),
        (("quickstart", "--only", "digits/edm/seed9"), "digits/edm/seed9 in"),
    ]:
        with pytest.raises(DataError, match=f"no results of {what}"):
            run("verify", *arguments)


def test_leftovers_of_other_parameters_are_named_as_such(project, monkeypatch):
    monkeypatch.chdir(project)
    kept = sorted(f"results/quickstart/figures/{name}" for name in ("old.pdf", "old.png"))
    for name in kept:
        write_json(project / name, {})
    monkeypatch.setattr(
        verify,
        "repeat",
        lambda preset, scratch, *_: shutil.copytree(
            preset.root / "results", scratch / "results", ignore=shutil.ignore_patterns("old.*")
        ),
    )
    with pytest.raises(DataError, match="equal work does not make it") as refused:
        run("verify", "quickstart")
    assert all(name in refused.value.what for name in kept)
    assert "delete it" in refused.value.fix
    for name in kept:
        (project / name).unlink()
    run("verify", "quickstart")


@pytest.mark.slow
def test_work_done_again_for_one_run_is_equal_byte_for_byte(finished, tmp_path):
    again = ("hamflow", "verify", "quickstart", "--only", RUN, "--scratch", str(tmp_path / "again"))
    assert "holds: every byte is equal" in finished.command(*again, "--cores", "1").stdout
    assert (tmp_path / "again" / f"checkpoints/quickstart/{RUN}/model.safetensors").exists()
    kept = finished.command(*again, check=False)
    assert kept.returncode == 2
    assert "is not empty" in kept.stdout


def test_the_user_s_own_images_are_found_again_unless_they_lie_outside(tmp_path):
    root, scratch = tmp_path / "project", tmp_path / "elsewhere/again"
    (root / "photos").mkdir(parents=True)
    scratch.mkdir(parents=True)
    for path in (root / "photos/mine.zip", tmp_path / "outside.zip"):
        path.write_bytes(b"pixels")

    def link(path):
        verify._link_sources(root, scratch, {"datasets": {"mine": {"options": {"path": path}}, "digits": {"options": {}}}})

    link("photos/mine.zip")
    link("photos/mine.zip")
    link(str(tmp_path / "outside.zip"))
    assert (scratch / "photos/mine.zip").read_bytes() == b"pixels"
    assert [path.name for path in scratch.iterdir()] == ["photos"]
    with pytest.raises(verify.VerificationError, match="not below the project"):
        link("../outside.zip")


def test_on_one_kind_of_machine_a_changed_byte_does_not_hold(finished, copied):
    path = copied / f"results/quickstart/samples/{RUN}/heun-nfe3.npy"
    samples = np.load(path)
    samples[0, 0] = np.nextafter(samples[0, 0], 2)
    np.save(path, samples)
    verdict = verify.compare(Preset("quickstart", finished.folder), Preset("quickstart", copied))
    assert not verdict.holds
    assert verdict.changed == (f"results/quickstart/samples/{RUN}/heun-nfe3.npy",)
    said = finished.command("hamflow", "verify", "quickstart", "--again", str(copied), check=False)
    assert said.returncode == 2
    assert "1 of" in said.stdout


@pytest.mark.parametrize(
    ("factor", "device", "holds"), [(1.0001, None, False), (1.05, "another", True), (2.0, "another", False)]
)
def test_a_number_may_move_on_another_kind_of_machine_and_is_named(finished, copied, factor, device, holds):
    name = spoil_number(copied, factor, device)
    verdict = verify.compare(Preset("quickstart", finished.folder), Preset("quickstart", copied), [RUN])
    assert verdict.holds == holds
    (moved,) = verdict.moved
    assert moved.name == name
    assert moved.after == pytest.approx(factor * moved.before)
    assert name in verify.as_text(verdict)
    assert bool(verdict.other_machine) == bool(device)


def test_a_file_that_is_missing_on_one_side_is_said(finished, copied):
    (copied / f"results/quickstart/samples/{RUN}/heun-nfe3.npy").unlink()
    refused = finished.command("hamflow", "verify", "quickstart", "--again", str(copied), check=False)
    assert refused.returncode == 2
    assert "missing there" in refused.stdout


def test_no_artefact_that_repeats_holds_what_does_not(finished):
    """Times and commits in a compared file would make it differ at the next run."""
    for name in verify._artefacts(Preset("quickstart", finished.folder), ()):
        if name.endswith(".json"):
            text = json.dumps(read_json(finished.folder / name))
            assert not [word for word in ("wall_seconds", "git_commit", '"host"') if word in text], name


def test_what_an_interrupted_study_goes_on_from_is_no_result(tmp_path):
    """Two equal runs have other files of it: an SQLite file holds the time of each trial."""
    preset = Preset("toy", tmp_path)
    for path in (preset.study("search"), preset.study("search").parent / STATE / "search-0123"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert list(verify._artefacts(preset, [])) == ["results/toy/studies/search.json"]
