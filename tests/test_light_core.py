"""A compute node may have the bare core: what needs the pipeline is imported by nobody else."""

import shutil
import subprocess
import sys

import pytest

PIPELINE = ["snakemake", "dvc", "mlflow", "pandas", "matplotlib", "sklearn"]
OPTIONAL_CORE = ["tqdm"]


def run_without(modules, code):
    """Run code in a process where these modules cannot be imported."""
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=300)


def test_importing_hamflow_and_its_parameters_does_not_import_torch():
    code = "import hamflow, hamflow.config, hamflow.errors, hamflow.files\nassert 'torch' not in sys.modules"
    done = run_without(PIPELINE, "import sys\n" + code)
    assert done.returncode == 0, done.stderr


def test_parameters_that_passed_once_pass_again_without_torch(tmp_path):
    """Unless they, or a source of hamflow, changed."""
    shutil.copytree("src/hamflow", tmp_path / "src" / "hamflow")
    shutil.copy("params.yaml", tmp_path)

    def imports_torch(*settings):
        code = f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.path.insert(0, 'src')
from hamflow import config
assert config.__file__.startswith(os.getcwd())
config.load(['params.yaml'], {list(settings)!r})
sys.exit(3 if 'torch' in sys.modules else 0)
"""
        done = run_without(PIPELINE, code)
        assert done.returncode in (0, 3), done.stderr
        return done.returncode == 3

    assert [imports_torch(), imports_torch()] == [True, False]
    assert [imports_torch("training.batch=64"), imports_torch("training.batch=64"), imports_torch()] == [True, False, False]
    with open(tmp_path / "src/hamflow/flows/diffusion.py", "a") as file:
        file.write("# another source\n")
    assert [imports_torch(), imports_torch()] == [True, False]


@pytest.mark.parametrize("missing", [PIPELINE, PIPELINE + OPTIONAL_CORE], ids=["core", "barest"])
def test_the_core_trains_samples_and_evaluates_alone(prepared, tmp_path, missing):
    code = f"""
from hamflow import cli
params = ['--params', 'params.yaml', '--params', 'workflow/presets/smoke.yaml']
params += ['--set', 'datasets.checkerboard.training.train_kimg=1']
data, out, reference = ['--data', {str(prepared / "checkerboard")!r}], {str(tmp_path)!r}, {str(tmp_path / "reference.npz")!r}
run = 'smoke/checkerboard/reflection/seed0'
steps = [
    ['train', run, *params, *data, '--output', out + '/c'],
    ['sample', run, *params, *data, '--checkpoint', out + '/c/model.safetensors', '--output', out + '/s'],
    ['evaluate', 'smoke/checkerboard', *params, *data, '--reference', reference, '--output', out + '/bound'],
    ['evaluate', run, *params, *data, '--reference', reference, '--samples', out + '/s', '--output', out + '/m'],
]
for step in steps:
    assert cli.main(step) == 0, step
"""
    done = run_without(missing, code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "m" / "heun-nfe9.json").exists()
