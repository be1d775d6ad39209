"""The workflow on a real SLURM: whatever happens to its jobs, the tables are those of a run on one machine."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from slurm_cluster import ClusterWorkflow, catch, wait_for, warned
from workflows import ROOT, TINY, Workflow, copy_tree

from hamflow import config

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SMOKE = ("--configfile", "workflow/presets/smoke.yaml")

# What happens to which training.
FAULTS = {
    "cancelled": "edm/seed0",
    "time limit": "edm/seed1",
    "memory": "edm/seed2",
    "lost node": "reflection/seed0",
    "preempted": "reflection/seed1",
    "warned": "reflection/seed2",
}
OUTPUTS = {fault: f"checkpoints/quickstart/checkerboard/{run}" for fault, run in FAULTS.items()}
TRAINING = {"train_kimg": 76.8, "report_kimg": 25.6, "state_kimg": 2.56}  # 300 steps, a state every 10


def depending_on_fault(default, **values):
    """A resource of the rule train, as an expression that the profile gives to Snakemake."""
    runs = {FAULTS[fault.replace("_", " ")]: value for fault, value in values.items()}
    cases = [f"{value} if wildcards.method + '/seed' + wildcards.seed == {run!r} else " for run, value in runs.items()]
    return "".join(cases) + str(default)


FAULTY = {
    "resources": None,
    "set-resources": {
        "train": {
            "gpu": 0,
            "slurm_partition": depending_on_fault("'cpu'", preempted="'spot'"),
            "mem_mb": depending_on_fault(2000, memory="attempt * 300"),
            "runtime": depending_on_fault(30, time_limit="attempt * 2", warned="attempt * 3"),
            "slurm_extra": depending_on_fault("''", lost_node="'--nodelist=n2'", warned="'--signal=TERM@60'"),
        },
        **{rule: {"gpu": 0, "slurm_partition": "cpu", "mem_mb": "attempt * 2000"} for rule in ("sample", "evaluate")},
    },
}


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield pool


@pytest.fixture(scope="module")
def faulty_parameters():
    parameters = config.merge(config.load([ROOT / "params.yaml", ROOT / "workflow/presets/smoke.yaml"]), TINY)
    parameters["metrics"]["hsd"]["sigmas"], parameters["studies"] = [], {}
    parameters["datasets"]["checkerboard"]["training"] |= TRAINING
    return yaml.safe_dump(parameters | {"preset": "quickstart", "seeds": [0, 1, 2], "tracking": {"uri": "", "experiment": "x"}})


@pytest.fixture(scope="module")
def struck(cluster, pool, faulty_parameters, tmp_path_factory):
    """(workflow, its end, the job numbers of the trainings to which something happened)."""
    workflow = ClusterWorkflow(tmp_path_factory.mktemp("struck"), FAULTY)
    (workflow.folder / "params.yaml").write_text(faulty_parameters)
    end = pool.submit(workflow.on_cluster)
    caught = catch(workflow.folder, [output for fault, output in OUTPUTS.items() if fault != "memory"], end)
    processes = {fault: caught[output] for fault, output in OUTPUTS.items() if output in caught}
    jobs = {fault: process.environ()["SLURM_JOB_ID"] for fault, process in processes.items()}

    cluster.command("scancel", jobs["cancelled"])
    cluster.command("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    cluster.lose("n2")

    def repair():
        wait_for("the loss of n2", lambda: cluster.node_state("n2").startswith("DOWN"))
        cluster.restore("n2")

    def go_on():
        wait_for("SIGTERM before the end of the time limit", lambda: warned(processes["warned"]))
        processes["warned"].resume()

    pool.submit(repair)
    pool.submit(go_on)
    return workflow, end, jobs


@pytest.fixture(scope="module")
def undisturbed(struck, pool, faulty_parameters, tmp_path_factory):
    """(workflow, its end): the same work as that of `struck` on this machine alone."""
    workflow = Workflow(copy_tree(tmp_path_factory.mktemp("undisturbed")))
    (workflow.folder / "params.yaml").write_text(faulty_parameters)
    return workflow, pool.submit(workflow.snakemake, "--cores", "1")


@pytest.fixture(scope="module")
def smoke(undisturbed, cluster, pool, tmp_path_factory):
    """(the smoke preset through the profile, on this machine alone); the many tiny jobs of a kind are submitted as two."""
    edits = {
        "set-resources": {"train": {"gpu_model": "a100", "runtime": 60}},
        "groups": {"train": "training", "study": "studies"},
        "group-components": {"training": 4, "checkpoint": 8, "studies": 5},
    }
    remote = ClusterWorkflow(tmp_path_factory.mktemp("remote"), edits)
    local, end = Workflow(ROOT), None
    if local.pending(*SMOKE):  # `make run PRESET=smoke` was not run, or not with these sources
        local = Workflow(copy_tree(tmp_path_factory.mktemp("local")))
        end = pool.submit(local.snakemake, "--cores", "1", *SMOKE)
    remote.on_cluster(*SMOKE)
    if end:
        end.result()
    return remote, local


def tables(workflow, preset):
    return {path.name: path.read_bytes() for path in (workflow.folder / f"results/{preset}/tables").iterdir()}


def jobs_of(cluster, workflow, rules):
    return [job for job in cluster.jobs(workflow.folder) if job["Comment"].startswith(f"rule_{rules}")]


def training_jobs(cluster, workflow, fault):
    return jobs_of(cluster, workflow, "train_wildcards_checkerboard_" + FAULTS[fault].replace("/seed", "_"))


def test_the_smoke_preset_on_the_cluster_ends_with_the_tables_of_one_machine(smoke):
    remote, local = smoke
    assert tables(remote, "smoke") == tables(local, "smoke")
    assert {"table1.csv", "score.csv"} <= tables(remote, "smoke").keys()


def test_what_needs_a_gpu_asks_for_one_and_for_its_type_where_the_profile_names_it(smoke, cluster):
    remote, _ = smoke
    asked = {rules: {job.get("TresPerJob") for job in jobs_of(cluster, remote, rules)} for rules in ("training", "checkpoint")}
    assert asked == {"training": {"gres:gpu:a100:1"}, "checkpoint": {"gres:gpu:1"}}
    assert {job["Partition"] for job in jobs_of(cluster, remote, "training")} == {"gpu"}
    for job in jobs_of(cluster, remote, "prepare"):
        assert "TresPerJob" not in job
        assert job["Partition"] == "cpu"


def test_the_tables_are_those_of_an_undisturbed_run(struck, undisturbed):
    (workflow, end, _), (reference, reference_end) = struck, undisturbed
    reference_end.result()
    end.result()
    assert tables(workflow, "quickstart") == tables(reference, "quickstart")
    assert "table1.csv" in tables(reference, "quickstart")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_training_that_was_struck_ends_with_the_bytes_of_an_undisturbed_one(struck, undisturbed, fault):
    (workflow, end, _), (reference, reference_end) = struck, undisturbed
    reference_end.result()
    end.result()
    checkpoints = [(w.folder / OUTPUTS[fault] / "model.safetensors").read_bytes() for w in (workflow, reference)]
    assert checkpoints[0] == checkpoints[1]
    log = (workflow.folder / f"logs/quickstart/train/checkerboard/{FAULTS[fault]}.log").read_text()
    assert fault == "memory" or re.search("resumed at [1-9]", log), log


def test_scancel(struck, cluster):
    workflow, end, jobs = struck
    end.result()
    assert cluster.job(jobs["cancelled"])["JobState"] == "CANCELLED"
    assert [job["JobState"] for job in training_jobs(cluster, workflow, "cancelled")] == ["CANCELLED", "COMPLETED"]


def test_a_training_that_hangs_is_ended_by_its_time_limit(struck, cluster):
    workflow, end, _ = struck
    end.result()
    assert [job["JobState"] for job in training_jobs(cluster, workflow, "time limit")] == ["TIMEOUT", "COMPLETED"]


def test_a_training_that_is_warned_of_its_time_limit_saves_its_state_and_ends(struck, cluster):
    workflow, end, jobs = struck
    end.result()
    assert [job["JobState"] for job in training_jobs(cluster, workflow, "warned")] == ["FAILED", "COMPLETED"]
    (log,) = workflow.folder.glob(f"logs/slurm/rule_train/*/{jobs['warned']}.log")
    assert "state saved at" in log.read_text()


def test_memory_grows_until_it_suffices(struck, cluster):
    workflow, end, _ = struck
    end.result()
    attempts = training_jobs(cluster, workflow, "memory")
    assert len(attempts) > 1
    assert [job["MinMemoryNode"] for job in attempts] == [f"{300 * (n + 1)}M" for n in range(len(attempts))]
    assert attempts[-1]["JobState"] == "COMPLETED"
    (log,) = workflow.folder.glob(f"logs/slurm/rule_train/*/{attempts[0]['JobId']}.log")
    assert "exceeded memory limit" in log.read_text()


def test_the_job_of_a_lost_node_is_started_again_by_slurm_itself(struck, cluster):
    workflow, end, jobs = struck
    end.result()
    (job,) = training_jobs(cluster, workflow, "lost node")
    assert (job["JobId"], job["Restarts"], job["JobState"]) == (jobs["lost node"], "1", "COMPLETED")


def test_a_preempted_training_saves_its_state_within_the_grace_time_and_is_submitted_again(struck, cluster):
    workflow, end, jobs = struck
    end.result()
    first, last = training_jobs(cluster, workflow, "preempted")
    assert (first["JobId"], first["PreemptTime"] != "None", last["JobState"]) == (jobs["preempted"], True, "COMPLETED")


def test_sampling_and_evaluation_of_one_checkpoint_are_one_job(struck, cluster):
    workflow, end, _ = struck
    end.result()
    assert len(jobs_of(cluster, workflow, "checkpoint_evaluate_sample")) == len(FAULTS)
    assert not jobs_of(cluster, workflow, "sample") + jobs_of(cluster, workflow, "evaluate")
