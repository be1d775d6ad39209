"""What a training cost, beside the table and in none of its bytes."""

import pytest

from hamflow.files import write_json
from hamflow.pipeline.paths import is_circumstance
from hamflow.report import cost
from hamflow.report.tables import tabulate

METRICS = "results/toy/metrics"
PARENTS = {"bns": ["edm"], "edm": [], "both": ["bns", "edm"]}


def told(metrics, seconds):
    """The folders of metrics whose run.json tell the CPU seconds of a training by (method, seed)."""
    folders = sorted({path.parent for path in metrics.rglob("*.json")})
    for folder in folders:
        found = seconds.get((folder.parts[-2], folder.parts[-1]))
        write_json(folder / "run.json", {"evaluation": {}, "training": {"cpu_seconds": found} if found else {}})
    return folders


@pytest.fixture
def table(tmp_path, write_result, make_result):
    """One data set, three methods, two seeds."""
    for method in PARENTS:
        for seed in (0, 1):
            write_result(tmp_path / METRICS, make_result(method=method, seed=seed, label=method.upper(), value=1.0 + seed))
    return tmp_path


def rows_of(table):
    lines = [line for line in (table / "cost.run.md").read_text().splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for line in lines[2:] if (cells := [cell.strip() for cell in line.strip("|").split("|")])}


def test_minutes_are_means_over_seeds_and_a_parent_counts_once(table):
    seconds = {("edm", "seed0"): 60, ("edm", "seed1"): 180, ("bns", "seed0"): 60, ("bns", "seed1"): 60, ("both", "seed0"): 30}
    folders = told(table / METRICS, seconds)
    cost.tabulate(tabulate(folders, table), folders, table, PARENTS, "A sentence.")
    values = "1.50 ± 0.71 / 35"
    assert rows_of(table) == {
        "EDM": [values, "2.0", "2.0"],
        "BNS": [values, "1.0", "3.0"],
        "BOTH": [values, "0.5", "3.5"],
    }
    assert "A sentence." in (table / "cost.run.md").read_text()


def test_what_is_not_known_is_left_open(table):
    folders = told(table / METRICS, {("bns", "seed0"): 60})
    cost.tabulate(tabulate(folders, table), folders, table, PARENTS)
    assert rows_of(table)["BNS"][1:] == ["1.0", "–"]
    assert rows_of(table)["EDM"][1:] == ["–", "–"]


def test_a_parent_that_is_no_row_is_known_by_its_checkpoint(table):
    folders = told(table / METRICS, {("edm", "seed0"): 60})
    dataset = folders[0].parts[-3]
    write_json(table / f"checkpoints/toy/{dataset}/apart/seed0/run.json", {"cpu_seconds": 90})
    cost.tabulate(tabulate(folders, table), folders, table, PARENTS | {"edm": ["apart"]})
    assert rows_of(table)["EDM"][1:] == ["1.0", "2.5"]


def test_no_table_of_results_changes_with_the_seconds(table):
    texts = []
    for seconds in (60, 90):
        folders = told(table / METRICS, {("edm", "seed0"): seconds})
        cost.tabulate(tabulate(folders, table), folders, table, PARENTS)
        texts.append({path.name: path.read_bytes() for path in table.glob("*.*") if path.is_file()})
    assert {name for name in texts[0] if texts[0][name] != texts[1][name]} == {"cost.run.md", "cost.run.html"}
    assert all(is_circumstance(name) for name in ("cost.run.md", "hsd.run.json", "run.json"))
    assert not any(is_circumstance(name) for name in ("table1.csv", "heun-nfe9.json", "truncated.json"))
