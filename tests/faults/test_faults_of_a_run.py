"""The workflow, killed, starved, locked out and lied to: what it says, and that it ends with the bytes of a quiet run."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from hamflow.files import load_tensors
from hamflow.tracking import read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.xdist_group("faults")]

STATE = "checkpoints/quickstart/checkerboard/reflection/seed0/state/*/state.safetensors"
KEPT = STATE.replace("state.safetensors", "model.safetensors")
TABLE = "results/quickstart/tables/table1.csv"
SAMPLES = "results/quickstart/samples/checkerboard/reflection/seed0/heun-nfe3.npy"
RUN = "quickstart/checkerboard/reflection/seed0"
MODEL = f"checkpoints/{RUN}/model.safetensors"


# --- killed ---------------------------------------------------------------------------------------------------------


def test_a_second_run_of_the_copy_has_nothing_to_do(tree, undisturbed):
    """Or the tests below would repeat what they did not disturb."""
    assert "Nothing to be done" in tree.make().stdout
    assert tree.outcome() == undisturbed.outcome()


def test_snakemake_killed_with_its_jobs_alive_is_unlocked_and_goes_on_to_the_same_bytes(unmade, undisturbed):
    """kill -9 of Snakemake leaves its lock and its jobs: the new run waits for the training that is still under way."""
    process = unmade.start("snakemake", "--cores", "2", TABLE)
    unmade.wait_for(STATE, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    refused = unmade.make(check=False)
    assert refused.returncode != 0
    assert "cannot be locked" in refused.stdout
    assert "--unlock" in refused.stdout
    unmade.snakemake("--unlock")
    unmade.make()
    assert unmade.outcome() == undisturbed.outcome()
    assert unmade.nothing_half_written()
    assert not any(unmade.folder.glob("checkpoints/**/state"))


def test_a_training_that_ends_after_snakemake_was_killed_is_not_repeated(unmade, undisturbed):
    """Snakemake has not seen it end, and deletes what it published before it starts it again."""
    process = unmade.start("snakemake", "--cores", "2", TABLE)
    unmade.wait_for(STATE, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    unmade.wait_for(KEPT)
    unmade.snakemake("--unlock")
    said = unmade.make().stdout
    assert "is published again" in said
    assert "from the start" not in said
    assert unmade.outcome() == undisturbed.outcome()
    assert not any(unmade.folder.glob("checkpoints/**/state"))


def test_everything_killed_at_once_goes_on_from_the_last_state_to_the_same_bytes(unmade, undisturbed):
    """As by a power cut."""
    process = unmade.start("snakemake", "--cores", "2", TABLE)
    unmade.wait_for(STATE, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    step = load_tensors(unmade.find(STATE))[1]["progress"]["step"]
    assert step > 0
    unmade.snakemake("--unlock")
    said = unmade.make().stdout
    assert "resumed at" in said
    assert unmade.outcome() == undisturbed.outcome()


SLOWER = ("src/hamflow/training/state.py", '"learning_rate") * factor', '"learning_rate") * factor * 0.5')


def test_a_stopped_training_does_not_go_on_under_other_code(unmade):
    process = unmade.start("snakemake", "--cores", "2", TABLE)
    unmade.wait_for(STATE, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unmade.snakemake("--unlock")
    with unmade.edited(*SLOWER):
        said = unmade.make().stdout
    assert "from the start" in said
    assert "resumed at" not in said


def test_a_checkpoint_that_was_kept_is_not_published_under_other_code(unmade):
    """A job after the training fails, so that Snakemake has not ended well, and the link to the checkpoint stays."""
    with unmade.edited("src/hamflow/verbs/sample.py", "first = seed", "first = 1 / 0 * seed"):
        assert unmade.make(check=False).returncode != 0
    before = unmade.find(MODEL).read_bytes()
    assert list(unmade.folder.glob(KEPT))
    with unmade.edited(*SLOWER):
        said = unmade.make().stdout
    assert f"To be made again: train {RUN}, made by other code: hamflow/training/state.py" in said
    assert "from the start" in said
    assert unmade.find(MODEL).read_bytes() != before


# --- two at once ----------------------------------------------------------------------------------------------------


def test_a_second_snakemake_is_refused_and_the_first_unharmed(unmade, undisturbed):
    first = unmade.start("snakemake", "--cores", "2", TABLE)
    unmade.wait_for(".snakemake/locks/*", first)
    second = unmade.make(check=False)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout
    assert "Traceback" not in second.stdout
    assert first.wait() == 0, (unmade.folder / "started.log").read_text()
    assert unmade.outcome() == undisturbed.outcome()


def test_two_trainings_of_one_run_end_with_one_checkpoint(tree, job, undisturbed):
    first = tree.start(*job, "again")
    tree.wait_for("again/state/*/state.safetensors", first)
    second = tree.command(*job, "again")
    assert first.wait() == 0
    assert "waiting for process" in second.stdout
    assert "trained meanwhile by the other process" in second.stdout
    assert (tree.folder / "again/model.safetensors").read_bytes() == undisturbed.find(MODEL).read_bytes()
    assert sorted(path.name for path in (tree.folder / "again").iterdir()) == ["model.safetensors", "run.json", "train.jsonl"]


# --- the disk -------------------------------------------------------------------------------------------------------


def mount(*arguments):
    """Whether this machine allowed it."""
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(unmade):
    """`results` on a file system of four pages."""
    folder = unmade.folder / "results"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)):
        pytest.skip("this machine does not allow mounting a file system, which a full or read-only disk needs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_in_a_paragraph_and_with_room_again_the_run_completes(unmade, undisturbed, small_disk):
    full = unmade.make(check=False)
    assert full.returncode != 0
    assert "DiskError: the disk is full" in full.stdout
    assert "make room" in full.stdout
    assert unmade.nothing_half_written()
    assert mount("-o", "remount,size=64m", str(small_disk))
    unmade.make()
    assert unmade.outcome() == undisturbed.outcome()


def test_a_read_only_results_folder_is_said_and_made_writable_the_run_completes(unmade, undisturbed, small_disk):
    assert mount("-o", "remount,ro,size=64m", str(small_disk))
    refused = unmade.make(check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stdout or "the file system is read-only" in refused.stdout
    assert list(small_disk.iterdir()) == []
    assert mount("-o", "remount,rw", str(small_disk))
    unmade.make()
    assert unmade.outcome() == undisturbed.outcome()


def test_a_file_that_may_not_grow_is_said_in_a_paragraph_and_nothing_is_half_written(tree):
    prepare = "hamflow prepare quickstart/checkerboard --output data/again"
    refused = tree.command("bash", "-c", f"ulimit -f 8 && {prepare}", check=False)
    assert refused.returncode == 2
    assert "DiskError: a file would be larger" in refused.stdout
    assert list((tree.folder / "data/again").iterdir()) == []


# --- files that are not what they were ------------------------------------------------------------------------------


def test_a_truncated_checkpoint_stops_sampling_by_hand_and_the_workflow_trains_again(tree, undisturbed):
    model = tree.find(MODEL)
    model.write_bytes(model.read_bytes()[:-100])
    refused = tree.command("hamflow", "sample", RUN, check=False)
    assert refused.returncode == 2
    assert f"{MODEL} has other bytes than were written" in refused.stdout
    assert "Traceback" not in refused.stdout
    by_path = ("hamflow", "sample", RUN, "--checkpoint", MODEL, "--output", "again")
    refused = tree.command(*by_path, check=False)
    assert "is not a complete checkpoint" in refused.stdout
    assert f"delete it and train again, `snakemake --cores all {MODEL}`" in refused.stdout
    said = tree.make().stdout
    assert f"To be made again: train {RUN}, {MODEL} has other bytes than were written" in said
    assert tree.outcome() == undisturbed.outcome()


def test_data_that_changed_after_their_preparation_stop_training_by_hand_and_are_prepared_again(tree, undisturbed):
    points = tree.folder / "data/checkerboard/points.npy"
    content = bytearray(points.read_bytes())
    content[-1] ^= 1
    points.write_bytes(content)
    tree.forget("checkpoints", "results")
    for verb, place in (("train", RUN), ("evaluate", "quickstart/checkerboard")):
        refused = tree.command("hamflow", verb, place, check=False)
        assert refused.returncode == 2
        assert "points.npy has other bytes than were written" in refused.stdout
    refused = tree.command("hamflow", "train", RUN, "--data", "data/checkerboard", "--output", "again", check=False)
    assert refused.returncode == 2
    assert "points.npy has sha256" in refused.stdout
    assert "hamflow prepare quickstart/checkerboard --output data/checkerboard" in refused.stdout
    tree.make()
    assert tree.outcome() == undisturbed.outcome()


@pytest.fixture
def killed(tree, job):
    """A training that was killed after its first state; gives its folder."""
    process = tree.start(*job, "again")
    tree.wait_for("again/state/*/state.safetensors", process)
    process.kill()
    process.wait()
    return tree.folder / "again"


@pytest.mark.parametrize("tail", [b'{"kimg": 1', b"\xff\x00{\n[]\n" * 50], ids=["torn", "garbage"])
def test_a_corrupted_tail_of_the_log_costs_nothing(tree, job, killed, undisturbed, tail):
    log = next(killed.glob("state/*/train.jsonl"))
    with open(log, "ab") as file:
        file.write(tail)
    tree.command(*job, "again")
    assert (killed / "model.safetensors").read_bytes() == undisturbed.find(MODEL).read_bytes()
    records = read_jsonl(killed / "train.jsonl")
    assert [record["kimg"] for record in records] == [
        record["kimg"] for record in read_jsonl(undisturbed.find("checkpoints/**/train.jsonl"))
    ]


def test_a_truncated_training_state_is_refused_and_deleting_it_mends_it(tree, job, killed, undisturbed):
    state = next(killed.glob("state/*/state.safetensors"))
    state.write_bytes(state.read_bytes()[:-1])
    refused = tree.command(*job, "again", check=False)
    assert refused.returncode == 2
    assert "cannot be resumed" in refused.stdout
    assert f"delete {state.parent.relative_to(tree.folder)}" in refused.stdout
    shutil.rmtree(state.parent)
    tree.command(*job, "again")
    assert (killed / "model.safetensors").read_bytes() == undisturbed.find(MODEL).read_bytes()


# --- MLflow's store -------------------------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
store.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


RUNS = """
SELECT count(*) FROM tags AS seed JOIN tags AS method USING (run_uuid)
WHERE seed.key = 'hamflow.seed' AND method.key = 'hamflow.method' AND method.value = 'reflection'
"""


def test_a_store_locked_by_another_process_fails_no_training_and_is_completed_later(tree, job, undisturbed):
    store = tree.folder / "mlflow.db"
    uri = f"sqlite:///{store}"
    tree.command("hamflow", "publish", "--init", "--uri", uri)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    try:
        trained = tree.command("env", f"MLFLOW_TRACKING_URI={uri}", *job, "again")
        publish = ["hamflow", "publish", "quickstart", "--uri", uri]
        refused = tree.command(*publish, check=False)
    finally:
        holder.communicate()
    assert "MLflow: " in trained.stdout
    assert (tree.folder / "again/model.safetensors").read_bytes() == undisturbed.find(MODEL).read_bytes()
    assert refused.returncode == 2
    assert "Traceback" not in refused.stdout
    assert "locked" in refused.stdout
    tree.command(*publish)
    with sqlite3.connect(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute(RUNS).fetchall() == [(1,)]
