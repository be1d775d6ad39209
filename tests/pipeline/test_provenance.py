"""From a number back to its data, and the same numbers again."""

import json
import shutil

import numpy as np
import pytest

from hamflow import verify
from hamflow.files import read_json, sha256_of, write_json
from hamflow.trace import manifest, trace

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

RUN = "checkerboard/edm/seed0"
METRICS = f"results/quickstart/metrics/{RUN}/heun-nfe3.json"


@pytest.fixture
def copied(finished, tmp_path):
    """The artefacts of the finished tree, to be spoilt."""
    for name in ("results", "checkpoints", "data"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return tmp_path


def spoil_number(root, factor, device=None):
    """Change the first metric of one values file, and where it says it was made."""
    path = root / METRICS.replace("metrics", "values", 1)
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
    shutil.rmtree(copied / "results/quickstart/metrics")
    path = copied / METRICS.replace("metrics", "values", 1)
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


def test_work_done_again_for_one_run_is_equal_byte_for_byte(finished, tmp_path):
    said = finished.command("hamflow", "verify", "--only", RUN, "--scratch", str(tmp_path / "again"), "--cores", "1").stdout
    assert "holds: every byte is equal" in said
    assert (tmp_path / "again" / f"checkpoints/quickstart/{RUN}/model.safetensors").exists()
    kept = finished.command("hamflow", "verify", "--only", RUN, "--scratch", str(tmp_path / "again"), check=False)
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
    verdict = verify.compare(finished.folder, copied, "quickstart")
    assert not verdict.holds
    assert verdict.changed == (f"results/quickstart/samples/{RUN}/heun-nfe3.npy",)
    said = finished.command("hamflow", "verify", "--again", str(copied), check=False)
    assert said.returncode == 2
    assert "1 of" in said.stdout


@pytest.mark.parametrize(
    ("factor", "device", "holds"), [(1.0001, None, False), (1.05, "another", True), (2.0, "another", False)]
)
def test_a_number_may_move_on_another_kind_of_machine_and_is_named(finished, copied, factor, device, holds):
    name = spoil_number(copied, factor, device)
    verdict = verify.compare(finished.folder, copied, "quickstart", [RUN])
    assert verdict.holds == holds
    (moved,) = verdict.moved
    assert moved.name == name
    assert moved.after == pytest.approx(factor * moved.before)
    assert name in verify.told(verdict)
    assert bool(verdict.other_machine) == bool(device)


def test_a_file_that_is_missing_on_one_side_is_said(finished, copied):
    (copied / f"results/quickstart/samples/{RUN}/heun-nfe3.npy").unlink()
    refused = finished.command("hamflow", "verify", "--again", str(copied), check=False)
    assert refused.returncode == 2
    assert "missing there" in refused.stdout


def test_no_artefact_that_repeats_holds_what_does_not(finished):
    """Times and commits in a compared file would make it differ at the next run."""
    for name in verify._artefacts(finished.folder, "quickstart", ()):
        if name.endswith(".json"):
            text = json.dumps(read_json(finished.folder / name))
            assert not [word for word in ("wall_seconds", "git_commit", '"host"') if word in text], name
