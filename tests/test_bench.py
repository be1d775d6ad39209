"""The benchmark measures what it says, and judges by its limits."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hamflow import config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", ROOT / "tools/bench.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench"]


def test_the_overlay_is_of_the_paper_s_size(bench):
    whole = config.check(config.merge(config.load([ROOT / "params.yaml"]), bench.paper_size()))
    sizes = [len(whole["run"]["methods"]), len(whole["run"]["datasets"]), len(whole["seeds"])]
    assert [*sizes, len(config.sampler_settings(whole))] == [10, 4, 3, 10]


def test_seconds_of_cpu_are_those_of_the_command_and_its_children(bench, tmp_path):
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    _, wall, cpu = bench.timed([sys.executable, "-c", burn], tmp_path)
    _, _, nested = bench.timed(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"], tmp_path
    )
    assert 0.5 <= cpu <= wall + 0.1
    assert nested >= 0.5


def test_a_command_that_fails_ends_the_benchmark_with_its_output(bench, tmp_path):
    with pytest.raises(SystemExit, match="oh dear"):
        bench.timed([sys.executable, "-c", "import sys; sys.exit('oh dear')"], tmp_path)


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
def test_a_busy_machine_is_judged_by_its_cpu(bench, wall, cpu, busy, missed):
    assert bench.Row("a job", wall, "s", cpu, limit=3.0, busy=busy).missed is missed


@pytest.mark.parametrize(("check", "code"), [([], 0), (["--check"], 1)])
def test_a_missed_limit_fails_only_where_it_is_checked(bench, monkeypatch, tmp_path, capsys, check, code):
    monkeypatch.setitem(bench.SECTIONS, "jobs", lambda folder: iter([bench.Row("a slow job", 9.0, "s", 9.0, 3.0)]))
    output = tmp_path / "bench.json"
    assert bench.main(["--only", "jobs", "--output", str(output), *check]) == code
    assert "missed: a slow job" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["rows"][0]["value"] == 9.0
    assert "git_commit" in written["provenance"]
