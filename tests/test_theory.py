"""docs/theory.md: sections that can be cited, citations that resolve, tests that exist, numbers that are right."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hamflow import flows
from hamflow.dynamics import simulate
from hamflow.dynamics.integrators import SCHEMES
from hamflow.laws.gaussian_toy import GaussianToy

ROOT = Path(__file__).parents[1]
THEORY = (ROOT / "docs" / "theory.md").read_text()
SECTIONS = re.findall(r"^### (\d+\.\d+) ", THEORY, re.MULTILINE)
CITATION = re.compile(r"\btheory\s+(\d+\.\d+(?:(?:,| and| to)\s+\d+\.\d+)*)")
SOURCES = [
    path
    for folder in ("src", "tests", "docs", "workflow", "tools")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".md", ".smk", ".yaml"}
] + [ROOT / "README.md", ROOT / "params.yaml", ROOT / "Snakefile"]


def section(number):
    """The text of a section N.M."""
    return re.search(rf"^### {re.escape(number)} .*?(?=^##|\Z)", THEORY, re.MULTILINE | re.DOTALL).group()


def test_sections_are_numbered_in_order():
    chapters = [int(n) for n in re.findall(r"^## (\d+)\. ", THEORY, re.MULTILINE)]
    assert chapters == list(range(1, len(chapters) + 1))
    numbers = [tuple(map(int, n.split("."))) for n in SECTIONS]
    for (chapter, number), following in pairwise(numbers):
        assert following in {(chapter, number + 1), (chapter + 1, 1)}


def citations(path):
    """The section numbers that a file cites, "theory 2.3, 2.4" twice."""
    return {number for group in CITATION.findall(path.read_text()) for number in re.findall(r"\d+\.\d+", group)}


def test_every_citation_resolves():
    assert {str(path): wrong for path in SOURCES if (wrong := citations(path) - set(SECTIONS))} == {}


def test_the_code_cites_nothing_that_is_not_in_the_repository():
    foreign = re.compile(r"\bSPEC\s+\d")
    assert [str(path) for path in SOURCES if path != Path(__file__) and foreign.search(path.read_text())] == []
    assert len([path for path in SOURCES if path.suffix == ".py" and citations(path)]) >= 15


def test_every_test_that_the_theory_names_exists():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", THEORY))
    assert len(named) >= 15
    assert named <= defined
    assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[^`]+)`", THEORY))


def test_lines_are_at_most_100_columns():
    prose = [line for line in THEORY.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 100


def test_integration_error_of_the_discrepancy_is_the_table_s():
    """Section 2.7. The step is linear, so simulating (1, 0) and (0, 1) gives the map and with it the moments."""
    s, a, t = 0.9, 3.0, 0.6
    assert f"{GaussianToy(s, a).discrepancy(t):.5f}"[1:] in section("2.7")
    rows = [line.strip("| ").split(" | ") for line in section("2.7").splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 4
    start = torch.eye(2, dtype=torch.float64)
    for steps, *values in rows:
        for scheme, value in zip(("leapfrog", "mclachlan", "yoshida4"), values, strict=True):
            x, v = simulate(lambda x, _: -a * x, start[:, :1], start[:, 1:], t, int(steps), SCHEMES[scheme])
            law = torch.tensor([s**2, 1.0], dtype=torch.float64)
            found = (law @ (x * v)[:, 0]) ** 2 / (law @ x.square()[:, 0])
            assert float(found) == pytest.approx(float(value), abs=5.1e-6)


def test_uniform_times_of_the_oscillation_have_the_stated_noise_levels():
    """Section 4.6: alpha sigma = tan(alpha t) is half-Cauchy."""
    flow = flows.build("oscillation", alpha=2.0)
    levels = flow.sigma(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64) * flow.horizon)
    assert levels.tolist() == pytest.approx([0.039, 0.5, 6.4], rel=0.02)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    logarithms = flow.sigma(u * flow.horizon).log()
    assert float(logarithms.mean()) == pytest.approx(-math.log(2), abs=1e-3)
    assert float(logarithms.std()) == pytest.approx(math.pi / 2, abs=1e-3)


def test_the_reflection_is_uniform_at_its_default_horizon():
    """Section 5.3: the bound at S t / L = 1.5."""
    bound = 2 * sum(math.exp(-((n * math.pi * 1.5) ** 2) / 2) for n in range(1, 5))
    assert bound == pytest.approx(3e-5, rel=0.02)
    flow = flows.build("reflection", low=-2.0, high=2.0, speed=0.5)
    assert flow.speed * flow.horizon / flow.width == pytest.approx(1.5)
