"""Whatever the parameters: a paragraph, or parameters that every job can use and whose paths stay where results belong."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from spoil import altered, fuzzed, scalars, spoilt, texts, tree, values

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.files import canonical_json

DEFAULTS = yaml.safe_load(Path("params.yaml").read_text())
SMALL = yaml.safe_dump(config.merge(DEFAULTS, {"datasets": {"rings": None}, "run": {"datasets": ["digits"]}})).encode()
MINIMAL = b"seeds: [0, 1]\nrun: {datasets: [digits]}\ntraining: {batch: 64, learning_rate: 1.0e-3}\n"

yaml_values = st.one_of(  # also what YAML has and JSON has not
    values,
    st.dates(),
    st.datetimes(),
    st.binary(max_size=8),
    st.sets(st.integers(), max_size=3),
    st.dictionaries(st.one_of(st.integers(), st.none(), st.dates(), st.tuples(st.integers())), scalars, max_size=2),
)
FRAGMENTS = (
    *(
        "&a ",
        "*a",
        "<<: *a",
        "!!python/name:os.system ",
        "1:" * 300 + "1.0",
        "!!set {x}",
        "? ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "|\n",
        ">\n",
        "'",
        '"',
    ),
    *(
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "\t",
        "\0",
        "1e999",
        ".nan",
        ".inf",
        "2020-01-01",
        "0x10",
        "1_000",
        "yes",
        "~",
        "=",
        "010",
    ),
)
fragments = st.sampled_from(FRAGMENTS)


@st.composite
def edited(draw, base: str) -> str:
    """A YAML text with lines dropped, doubled, moved in or out, or fragments put in."""
    lines = base.splitlines()
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                del lines[at : at + draw(st.integers(1, 5))]
            case 1:
                lines[at:at] = lines[at : at + draw(st.integers(1, 5))]
            case 2 if lines:
                lines[at] = " " * draw(st.integers(0, 6)) + lines[at].lstrip()
            case 3 if lines:
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(fragments) + lines[at][place:]
            case _ if lines:
                lines[at] = lines[at].partition(":")[0] + ": " + draw(st.one_of(texts, fragments))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder with something beside the place where files belong."""
    root = tmp_path_factory.mktemp("sandbox")
    (root / "inside").mkdir()
    (root / "precious.txt").write_text("precious")
    (root / "inside" / "base.yaml").write_bytes(SMALL)
    return root


def accepted(read):
    """What it gives, or None for a paragraph; anything else is a crash."""
    try:
        return read()
    except ConfigurationError as error:
        paragraph = str(error)
    assert len(paragraph) < 5000
    return None


def usable(found, root):
    """Every specification is plain JSON that comes back as it went, and every path of a result is below its preset's folder."""
    specs = []
    for dataset in found["run"]["datasets"]:
        specs.append(config.dataset_spec(found, dataset))
        for method in found["run"]["methods"]:
            specs += [
                spec(found, dataset, method) for spec in (config.training_spec, config.sampling_spec, config.discrepancy_spec)
            ]
            for seed in found["seeds"]:
                place = (root / "results" / found["preset"] / dataset / method / f"seed{seed}").resolve()
                assert place.parents[3] == root / "results"
    for sampler, nfe in config.sampler_settings(found):
        assert (root / f"{sampler}-nfe{nfe}.npy").resolve().parent == root
    for spec in specs:
        assert config.parse_spec(canonical_json(spec)) == spec
    assert config.check(json.loads(canonical_json(found))) == found


@fuzzed
@given(altered(DEFAULTS, yaml_values))
def test_altered_parameters(sandbox, tree_of_values):
    before = tree(sandbox)
    found = accepted(lambda: config.check(tree_of_values))
    if found is not None:
        usable(found, sandbox)
    assert tree(sandbox) == before


@fuzzed
@given(edited(SMALL.decode()))
def test_edited_parameter_files(sandbox, text):
    path = sandbox / "inside" / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    before = tree(sandbox)
    found = accepted(lambda: config.load([path]))
    if found is not None:
        usable(found, sandbox)
    assert tree(sandbox) == before


@fuzzed
@given(spoilt([SMALL, MINIMAL]))
def test_spoilt_parameter_files(sandbox, content):
    path = sandbox / "inside" / "params.yaml"
    path.write_bytes(content)
    found = accepted(lambda: config.load([sandbox / "inside" / "base.yaml", path]))
    if found is not None:
        usable(found, sandbox)


@fuzzed
@given(yaml_values)
def test_any_tree_at_all(tree_of_values):
    accepted(lambda: config.check(tree_of_values if isinstance(tree_of_values, dict) else {"run": tree_of_values}))


@fuzzed
@given(
    st.lists(
        st.one_of(texts, st.tuples(texts, st.one_of(texts, fragments, yaml_values)).map(lambda p: f"{p[0]}={p[1]}")), max_size=3
    )
)
def test_any_settings(sandbox, settings):
    found = accepted(lambda: config.load([sandbox / "inside" / "base.yaml"], settings))
    if found is not None:
        usable(found, sandbox)


@fuzzed
@given(
    st.one_of(
        texts,
        values.map(lambda value: json.dumps(value)),
        altered(config.training_spec(config.check(DEFAULTS), "digits", "edm")).map(lambda spec: json.dumps(spec)),
        spoilt([json.dumps(config.training_spec(config.check(DEFAULTS), "digits", "edm")).encode()]).map(
            lambda b: b.decode(errors="replace")
        ),
    )
)
def test_any_specification(text):
    spec = accepted(lambda: config.parse_spec(text))
    if spec is not None:
        canonical_json(spec)
        for key in ("name", "dataset", "method", "preset"):
            assert key not in spec or Path("data", spec[key]).resolve().parent == Path("data").resolve()


def test_the_examples_reach_what_they_are_meant_to_reach():
    """A generator that made nothing but nonsense would test nothing: both verdicts are common."""
    verdicts = []

    @fuzzed
    @given(altered(DEFAULTS, scalars))
    def judge(tree_of_values):
        verdicts.append(accepted(lambda: config.check(tree_of_values)) is not None)

    judge()
    assert 0.02 < sum(verdicts) / len(verdicts) < 0.98
