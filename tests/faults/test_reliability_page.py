"""docs/reliability.md names a test in every row, and each of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("|") and line.count("|") == 4 and not re.match(r"\|(-|\s*fault)", line)
]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_row_names_one_test():
    assert len(ROWS) > 40
    assert len(NAMED) == len(ROWS)
    for row in ROWS:
        assert re.fullmatch(r"\| [^|]+ \| [^|]+ \| `tests/[\w/]+\.py::\w+` \|", row), row


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_test_of_each_row_exists(file, name):
    assert name.startswith("test_")
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
