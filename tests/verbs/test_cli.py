"""The command line as a user meets it: the chain of jobs, and every mistake that exit code 2 stands for."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hamflow import cli, config
from hamflow.files import load_tensors, read_json, write_text

RUN = "smoke/digits/oscillation/seed0"
PARAMS = ["--params", "params.yaml", "--params", "workflow/presets/smoke.yaml"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory, prepared):
    """One trained checkpoint and its samples, made by the verbs."""
    root = tmp_path_factory.mktemp("chain")
    data, run = prepared / "digits", root / "checkpoints" / "smoke" / "digits" / "oscillation" / "seed0"
    job = ["smoke/digits/oscillation/seed0", *PARAMS, "--data", str(data), "--device", "cpu"]
    assert cli.main(["train", *job, "--output", str(run), "--set", "training.train_kimg=0.256"]) == 0
    assert cli.main(["sample", *job, "--checkpoint", str(run / "model.safetensors"), "--output", str(root / "samples")]) == 0
    return {"root": root, "data": data, "checkpoint": run / "model.safetensors", "samples": root / "samples", "job": job}


def files_below(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def refused(capsys, arguments, *fragments):
    """The verb exits with 2 and prints one paragraph with these fragments, no traceback."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    for fragment in fragments:
        assert fragment in printed


def test_the_chain_leaves_what_the_contract_says(chain):
    settings = ["heun-nfe5", "heun-nfe9", "multistep-nfe5"]
    expected = [f"{setting}.{ending}" for setting in settings for ending in ("json", "npy")]
    assert files_below(chain["samples"]) == [str(chain["samples"] / name) for name in [*expected, "run.json"]]
    samples, facts = np.load(chain["samples"] / "heun-nfe9.npy"), read_json(chain["samples"] / "heun-nfe9.json")
    assert (samples.shape, samples.dtype) == ((64, 8, 8, 1), np.uint8)
    assert (facts["sampler"], facts["nfe"], facts["n"]) == ("heun", 9, 64)
    assert {"packages", "device", "seed", "data_sha256", "checkpoint_sha256", "params_sha256"} <= set(facts)
    run = read_json(chain["samples"] / "run.json")
    known = {"git_commit", "git_dirty", "host", "wall_seconds"}
    assert (run["sampling"].keys(), run["training"].keys()) == (known, known | {"cpu_seconds"})
    assert run["sampling"]["wall_seconds"].keys() == set(settings)


def test_a_spec_and_the_parameters_it_came_from_give_the_same_bytes(chain, tmp_path):
    spec = config.sampling_spec(config.load(PARAMS[1::2]), "digits", "oscillation")
    arguments = ["sample", "--spec", json.dumps(spec), "--data", str(chain["data"]), "--device", "cpu"]
    assert cli.main([*arguments, "--checkpoint", str(chain["checkpoint"]), "--output", str(tmp_path)]) == 0
    for name in ("heun-nfe9.npy", "multistep-nfe5.npy"):
        assert (tmp_path / name).read_bytes() == (chain["samples"] / name).read_bytes()


def test_samples_depend_on_their_seed_and_not_on_the_batch(chain, tmp_path):
    arguments = ["sample", *chain["job"], "--checkpoint", str(chain["checkpoint"]), "--set", "sampling.batch=7"]
    assert cli.main([*arguments, "--output", str(tmp_path / "small")]) == 0
    assert cli.main([*arguments, "--output", str(tmp_path / "fewer"), "--set", "datasets.digits.n_samples=20"]) == 0
    assert cli.main([*arguments, "--output", str(tmp_path / "other"), "--seed", "1"]) == 0
    whole, small, fewer, other = (
        np.load(folder / "heun-nfe9.npy").astype(int)
        for folder in (chain["samples"], tmp_path / "small", tmp_path / "fewer", tmp_path / "other")
    )
    assert np.abs(whole - small).max() <= 1  # float32 networks round differently in other batches
    assert np.array_equal(small[:14], fewer[:14])
    assert np.abs(whole - other).mean() > 10


def test_an_adaptive_sampler_reports_what_it_spent(chain, tmp_path):
    settings = ["--set", "sampling.settings={heun: [], multistep: [], dopri5: [auto]}", "--set", "datasets.digits.n_samples=4"]
    arguments = ["sample", *chain["job"], *settings, "--checkpoint", str(chain["checkpoint"]), "--output", str(tmp_path)]
    assert cli.main(arguments) == 0
    facts = read_json(tmp_path / "dopri5-nfeauto.json")
    assert facts["nfe_requested"] == "auto"
    assert isinstance(facts["nfe"], int)
    assert facts["nfe"] >= 14  # two steps, and the choice of the first


def test_a_class_conditional_model_draws_every_class_in_turn(chain, tmp_path):
    settings = ["--set", "datasets.digits.conditional=true", "--set", "training.train_kimg=0.128", "--set", "sampling.batch=3"]
    settings += ["--set", "datasets.digits.n_samples=12", "--set", "sampling.settings={heun: [3], multistep: []}"]
    run = tmp_path / "p" / "digits" / "oscillation" / "seed0"
    assert cli.main(["train", *chain["job"], *settings, "--output", str(run)]) == 0
    arguments = ["sample", *chain["job"], *settings, "--checkpoint", str(run / "model.safetensors")]
    assert cli.main([*arguments, "--output", str(tmp_path / "s")]) == 0
    assert np.load(tmp_path / "s" / "heun-nfe3.npy").shape == (12, 8, 8, 1)
    assert load_tensors(run / "model.safetensors")[1]["facts"]["classes"] == 10


@pytest.mark.parametrize(
    ("setting", "fragments"),
    [
        ("training.learning_rte=0.1", ["unknown key `training.learning_rte`", "Did you mean 'learning_rate'?"]),
        ("methods.oscillation.trainin={}", ["`methods.oscillation.trainin`", "Did you mean 'training'?"]),
        ("networks.unet.chanels=3", ["`networks.unet.chanels`", "Did you mean 'channels'?"]),
        ("training.batch=many", ["`training.batch`", "Expected int, got str"]),
        ("training.batch=0", ["`training.batch`", "Expected int >= 1"]),
        ("sampling.settings.heun=[10]", ["heun spends 2*steps - 1", "use 9 or 11"]),
        ("run.datasets=[digit]", ["'digit' is not in `datasets`", "Did you mean 'digits'?"]),
        ("methods.oscillation.flow.alpha=-1", ["alpha` = -1: Expected float > 0"]),
        ("methods.oscillation.flow.name=oscilation", ["unknown flow 'oscilation'", "Did you mean 'oscillation'?"]),
        ("sampling.sigma_min=100", ["not below sigma_max"]),
        ("nothing", ["not of the form key=value"]),
    ],
)
def test_a_wrong_parameter_is_named_with_the_nearest_right_one(chain, capsys, tmp_path, setting, fragments):
    refused(capsys, ["train", *chain["job"], "--output", tmp_path / "x", "--set", setting], *fragments)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(None, "there is no parameter file"), ("a: [", "is not YAML"), ("- 1", "not a mapping"), ("\x00", "is not YAML")],
)
def test_a_parameter_file_that_cannot_be_read(capsys, tmp_path, content, fragment):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    refused(capsys, ["prepare", "smoke/digits", "--params", path, "--output", tmp_path / "out"], fragment)


def test_neither_spec_nor_parameters(capsys, tmp_path):
    refused(capsys, ["prepare", "--output", tmp_path / "out"], "neither a run nor --spec")
    refused(capsys, ["prepare", "--spec", "{", "--output", tmp_path / "out"], "--spec is not JSON")
    refused(capsys, ["prepare", "--spec", "[1]", "--output", tmp_path / "out"], "must be a JSON object")


@pytest.mark.parametrize("seed", ["-1", str(2**64)])
def test_a_seed_that_cannot_be(chain, capsys, tmp_path, seed):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *chain["job"], "--seed", seed, "--output", str(tmp_path / "x")])
    assert stop.value.code == 2
    assert f"a seed is an integer from 0 to 1000000000, got {seed}" in capsys.readouterr().err


def test_a_place_that_is_no_run(chain, capsys, tmp_path):
    for place in ("smoke", "smoke/digits/oscillation", "smoke/digits/oscillation/seed-1", "../digits/oscillation/seed0"):
        refused(capsys, ["train", place, *chain["job"][1:], "--output", tmp_path / "x"], "names no run", "seed0")
    refused(capsys, ["train", "smoke/digits/oscilation/seed0", *PARAMS], "'oscilation'", "Did you mean 'oscillation'?")
    refused(capsys, ["verify", "../etc"], "names no preset")


def test_paths_and_parameters_follow_from_the_run(chain, monkeypatch, tmp_path):
    """In a project's folder nothing but the run is named; the parameters are those that the workflow has written."""
    resolved = config.load(PARAMS[1::2], ["training.train_kimg=0.256"])
    write_text(tmp_path / "results/smoke/params.yaml", config.dump(resolved))
    monkeypatch.chdir(tmp_path)
    jobs = [("prepare", "smoke/digits"), ("train", RUN), ("sample", RUN), ("evaluate", "smoke/digits"), ("evaluate", RUN)]
    for verb, place in [*jobs, ("discrepancy", RUN)]:
        assert cli.main([verb, place]) == 0
    run = "digits/oscillation/seed0"
    assert (tmp_path / f"checkpoints/smoke/{run}/model.safetensors").read_bytes() == chain["checkpoint"].read_bytes()
    metrics = {path.name for path in (tmp_path / f"results/smoke/metrics/{run}").iterdir()}
    settings = {"heun-nfe5.json", "heun-nfe9.json", "multistep-nfe5.json"}
    assert metrics == settings | {"run.json", "made.json", "hsd.json", "hsd.run.json", "hsd.made.json"}


def test_parameters_are_read_back_as_they_were_written(tmp_path):
    odd = ["methods.edm.label='*yes: {a}'", "training.learning_rate=1.0e-5", "datasets.rings.label='1e5'"]
    parameters = config.load(PARAMS[1::2], odd)
    write_text(tmp_path / "params.yaml", config.dump(parameters))
    assert config.load([tmp_path / "params.yaml"]) == parameters


def test_a_missing_data_set(chain, capsys, tmp_path):
    arguments = ["train", *chain["job"], "--data", tmp_path / "digits", "--output", tmp_path / "x"]
    refused(capsys, arguments, "there is no data set", "hamflow prepare")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "garbled"])
def test_a_corrupted_image_file(chain, capsys, tmp_path, damage):
    data = shutil.copytree(chain["data"], tmp_path / "digits")
    content = (data / "images.npy").read_bytes()
    (data / "images.npy").write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\x00" * len(content))
    refused(capsys, ["train", *chain["job"], "--data", data, "--output", tmp_path / "x"], "images.npy", "Fix:")
    assert not (tmp_path / "x").exists()


def test_a_truncated_checkpoint(chain, capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(chain["checkpoint"].read_bytes()[:-50])
    arguments = ["sample", *chain["job"], "--checkpoint", path, "--output", tmp_path / "s"]
    refused(capsys, arguments, "is not a complete checkpoint", "train again")
    assert not (tmp_path / "s").exists()


def test_a_checkpoint_of_another_configuration(chain, capsys, tmp_path):
    job = ["smoke/digits/edm/seed0", *chain["job"][1:]]
    arguments = ["sample", *job, "--checkpoint", chain["checkpoint"], "--output", tmp_path / "s"]
    refused(capsys, arguments, "trained with method 'oscillation', but results of 'edm'")
    data = tmp_path / "digits"
    assert (
        cli.main(
            [
                "prepare",
                "smoke/digits",
                *PARAMS,
                "--set",
                "datasets.digits.options={holdout: 0.1}",
                "--output",
                str(data),
            ]
        )
        == 0
    )
    arguments = ["sample", *chain["job"], "--data", data, "--checkpoint", chain["checkpoint"], "--output", tmp_path / "s"]
    refused(capsys, arguments, "was trained on other data")
    assert not (tmp_path / "s").exists()


def test_a_device_that_is_not_there(chain, capsys, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(capsys, ["train", *chain["job"], "--device", "cuda", "--output", tmp_path / "x"], "no CUDA device", "--device cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x", ""])
def test_a_device_that_cannot_be(chain, capsys, tmp_path, device):
    refused(capsys, ["train", *chain["job"], "--device", device, "--output", tmp_path / "x"], f"no device '{device}'")


@pytest.mark.parametrize("threads", ["many", "0", ""])
def test_threads_that_are_no_number(chain, capsys, tmp_path, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    refused(capsys, ["train", *chain["job"], "--output", tmp_path / "x"], "OMP_NUM_THREADS", "export")


@pytest.mark.parametrize("verb", ["prepare", "train", "sample", "evaluate"])
@pytest.mark.parametrize("spec", ["{}", '{"name": "digits"}', '{"dataset": "digits", "method": "edm", "training": {}}'])
def test_a_specification_that_lacks_a_key(capsys, tmp_path, verb, spec):
    paths = {"train": ["--data", "d"], "sample": ["--data", "d", "--checkpoint", "c"]}.get(verb, [])
    paths = ["--data", "d", "--reference", "r"] if verb == "evaluate" else paths
    refused(capsys, [verb, "--spec", spec, *paths, "--output", tmp_path / "x"], "`--spec.")


@pytest.mark.parametrize("option", ["name", "self"])
def test_an_option_that_is_named_like_an_argument(chain, capsys, tmp_path, option):
    job = ["prepare", "smoke/rings", *PARAMS, "--set", f"datasets.rings.options={{{option}: 1}}"]
    refused(capsys, [*job, "--output", tmp_path / "x"], f"unknown key `datasets.rings.options.{option}`")


def test_a_file_in_the_place_of_a_folder(chain, capsys, tmp_path):
    (tmp_path / "x").write_text("")
    refused(capsys, ["train", *chain["job"], "--output", tmp_path / "x"], "PathError", str(tmp_path / "x"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small tmpfs needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", ["prepare", "train", "sample"])
def test_a_full_disk_leaves_nothing_half_written(chain, capsys, small_disk, verb):
    free = 4096 if verb != "train" else 100_000
    (small_disk / "ballast").write_bytes(b"\x00" * (200 * 1024 - free))
    output = small_disk / "out"
    arguments = {
        "prepare": ["prepare", "smoke/digits", *PARAMS, "--output", output],
        "train": ["train", *chain["job"], "--output", output],
        "sample": ["sample", *chain["job"], "--checkpoint", chain["checkpoint"], "--output", output],
    }[verb]
    refused(capsys, arguments, "the disk is full", "make room")
    complete = {path.name for path in output.rglob("*") if path.is_file()}
    assert not {name for name in complete if ".tmp" in name or name.endswith((".npy", ".safetensors"))}


def test_a_run_goes_on_when_the_disk_has_room_again(chain, small_disk, tmp_path):
    """The log of what was reported survives; the weights are those of an undisturbed run."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\x00" * 100_000)
    output = small_disk / "checkpoints" / "smoke" / "digits" / "oscillation" / "seed0"
    arguments = ["train", *chain["job"], "--set", "training.train_kimg=0.256", "--output"]
    assert cli.main([*arguments, str(output)]) == 2
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert cli.main([*arguments, str(output)]) == 0
    assert load_tensors(output / "model.safetensors")[1] == load_tensors(chain["checkpoint"])[1]
    assert (output / "model.safetensors").read_bytes() == chain["checkpoint"].read_bytes()


def test_a_reader_of_the_output_may_leave():
    command = [sys.executable, "-m", "hamflow.cli", "doctor"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == cli.BROKEN_PIPE


def test_the_help_of_all_verbs_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'mlflow', 'snakemake', 'rocrate'}"
    code = f"import sys\nfrom hamflow import cli\ncli.parser()\nassert not {heavy} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_verb_has_help(capsys):
    for verb in cli.verbs():
        with pytest.raises(SystemExit) as stop:
            cli.main([verb, "--help"])
        assert stop.value.code == 0
        assert "usage: hamflow" in capsys.readouterr().out


def test_the_doctor_finds_this_installation_well(capsys):
    assert cli.main(["doctor", *PARAMS]) == 0
    printed = capsys.readouterr().out
    datasets = config.load(["params.yaml", "workflow/presets/smoke.yaml"])["datasets"]
    assert f"preset 'smoke', {sum(len(datasets[name]['methods']) for name in ('digits', 'checkerboard'))} trainings" in printed
    assert "FAIL" not in printed
