"""The benchmark measures what it says, and judges by its limits."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hamflow import config

ROOT = Path(__file__).parents[1]


FOLDER = ROOT / "tools/bench"


@pytest.fixture(scope="module")
def module():
    """A module of the benchmark, by its name."""
    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    yield lambda name: importlib.import_module(name)
    sys.path.remove(str(FOLDER))
    for name in {path.stem for path in FOLDER.glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture(scope="module")
def bench(module):
    module("measuring")
    spec = importlib.util.spec_from_file_location("bench", FOLDER / "__main__.py")
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    return main


@pytest.fixture(scope="module")
def measuring(module):
    return module("measuring")


def test_the_overlay_is_of_the_paper_s_size(module):
    whole = config.check(config.merge(config.load([ROOT / "params.yaml"]), module("workflow").paper_size()))
    sizes = [len(whole["run"]["methods"]), len(whole["run"]["datasets"]), len(whole["seeds"])]
    assert [*sizes, len(config.sampler_settings(whole))] == [10, 4, 3, 10]


def test_seconds_of_cpu_are_those_of_the_command_and_its_children(measuring, tmp_path):
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    _, wall, cpu = measuring.timed([sys.executable, "-c", burn], tmp_path)
    _, _, nested = measuring.timed(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"], tmp_path
    )
    assert 0.5 <= cpu <= wall + 0.1
    assert nested >= 0.5


def test_a_command_that_fails_ends_the_benchmark_with_its_output(measuring, tmp_path):
    with pytest.raises(SystemExit, match="oh dear"):
        measuring.timed([sys.executable, "-c", "import sys; sys.exit('oh dear')"], tmp_path)


@pytest.mark.parametrize(
    ("wall", "cpu", "busy", "missed"),
    [
        (2.0, 1.0, False, False),
        (4.0, 1.0, False, True),
        (4.0, 1.0, True, False),
        (4.0, 3.5, True, True),
        (4.0, None, True, True),
    ],
)
def test_a_busy_machine_is_judged_by_its_cpu(measuring, wall, cpu, busy, missed):
    assert measuring.Row("a job", wall, "s", cpu, limit=3.0, busy=busy).missed is missed


@pytest.mark.parametrize(("check", "code"), [([], 0), (["--check"], 1)])
def test_a_missed_limit_fails_only_where_it_is_checked(bench, measuring, monkeypatch, tmp_path, capsys, check, code):
    monkeypatch.setattr(bench, "section", lambda name: lambda folder: iter([measuring.Row("a slow job", 9.0, "s", 9.0, 3.0)]))
    output = tmp_path / "bench.json"
    assert bench.main(["--only", "jobs", "--output", str(output), *check]) == code
    assert "missed: a slow job" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["rows"][0]["value"] == 9.0
    assert "git_commit" in written["provenance"]


def test_every_part_has_its_module_and_no_file_is_long(bench, module):
    for name in set(bench.SECTIONS):
        assert callable(getattr(module(name), name))
    assert all(len(path.read_text().splitlines()) <= 350 for path in FOLDER.glob("*.py"))


@pytest.mark.slow
def test_the_parts_of_a_step_are_those_of_the_loop(module, tmp_path, monkeypatch):
    """Forward, backward and optimiser are within a whole step; no limit is judged here, for that is timed."""
    steps = module("steps")
    monkeypatch.setattr(steps, "ROUNDS", {"digits": 3, "32x32": 1})
    found = {row.what.split(": ")[1]: row.value for row in steps.steps(tmp_path) if row.what.startswith("digits")}
    parts = {"data", "draws", "forward", "backward", "optimiser", "clipping", "average", "logging"}
    assert found.keys() == parts | {"a whole step", "a step beyond forward, backward, optimiser"}
    assert min(found[part] for part in parts) > 0


def test_the_distance_is_that_of_the_matrix_root(module, monkeypatch):
    """The benchmark ends with an error where the two distances are not one number."""
    assert [row.value > 0 for row in module("speeds").frechet_speed(20)] == [True, True]
    monkeypatch.setattr("hamflow.metrics.frechet_distance", lambda *_: 1.0)
    with pytest.raises(AssertionError):
        list(module("speeds").frechet_speed(20))


def test_features_of_an_array_are_those_of_clean_fid_s_folder(module):
    """The benchmark ends with an error where they are not."""
    pytest.importorskip("cleanfid")
    row = module("metrics").feeding(40)
    assert row.value > 0
    assert row.limit == 1 / 3
