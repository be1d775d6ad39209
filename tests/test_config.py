"""Parameters: merging, and specs that hold what determines a job and nothing else."""

import copy
import json

import pytest
import yaml

from hamflow import config
from hamflow.errors import ConfigurationError


@pytest.fixture
def params():
    return config.load(["params.yaml"])


def test_mappings_merge_and_lists_are_replaced():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert config.merge(base, {"a": {"y": [5]}, "c": 4}) == {"a": {"x": 1, "y": [5]}, "b": 3, "c": 4}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


def test_a_null_takes_a_key_away(params):
    times = "methods.reflection.times={law: uniform, decades: null}"
    assert config.load(["params.yaml"], [times])["methods"]["reflection"]["times"] == {"law": "uniform"}
    with pytest.raises(ConfigurationError, match="`seeds` is missing"):
        config.load(["params.yaml"], ["seeds=null"])


def test_training_settings_come_from_all_the_data_set_and_the_method_in_this_order(params):
    params["training"]["batch"] = 1
    params["datasets"]["digits"]["training"] = {"batch": 2, "learning_rate": 0.2}
    params["methods"]["edm"]["training"] = {"learning_rate": 0.3}
    training = config.training_spec(params, "digits", "edm")["training"]
    assert (training["batch"], training["learning_rate"]) == (2, 0.3)
    assert config.training_spec(params, "digits", "oscillation")["training"]["learning_rate"] == 0.2


def test_a_network_of_a_method_beats_that_of_the_data_set(params):
    params["networks"]["song"] = {"kind": "ncsnpp", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    params["methods"]["edm"]["network"] = "song"
    params["run"]["datasets"] = ["digits"]
    checked = config.check(params)
    assert config.training_spec(checked, "digits", "edm")["network"]["kind"] == "ncsnpp"
    assert config.training_spec(checked, "digits", "oscillation")["network"] == params["networks"]["unet"]


def test_a_network_of_a_method_must_be_there_and_fit_what_is_run(params):
    params["methods"]["edm"]["network"] = "unett"
    with pytest.raises(ConfigurationError, match="'unett' is not in `networks`"):
        config.check(params)
    params["methods"]["edm"]["network"] = "unet"  # of images, and the default run has points
    with pytest.raises(ConfigurationError, match="unet"):
        config.check(params)
    params["run"] = {"datasets": ["digits"], "methods": ["edm"]}
    config.check(params)


SPECS = {
    "dataset": lambda c: config.dataset_spec(c, "digits"),
    "training": lambda c: config.training_spec(c, "digits", "edm"),
    "sampling": lambda c: config.sampling_spec(c, "digits", "edm"),
    "evaluation": lambda c: config.evaluation_spec(c, "digits", "edm"),
}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"training": {"learning_rate": 0.5}}, {"training"}),
        ({"methods": {"edm": {"training": {"learning_rate": 0.5}}}}, {"training"}),
        ({"methods": {"oscillation": {"training": {"learning_rate": 0.5}}}}, set()),
        ({"sampling": {"settings": {"heun": [3]}}}, {"sampling"}),
        ({"datasets": {"rings": {"n_samples": 7}}}, set()),
        ({"datasets": {"digits": {"n_samples": 7}}}, {"sampling", "evaluation"}),
        ({"datasets": {"digits": {"options": {"holdout": 0.1}}}}, {"dataset"}),
        ({"methods": {"edm": {"label": "other"}}}, {"evaluation"}),
        ({"tracking": {"experiment": "other"}}, set()),
        ({"seeds": [0, 1]}, set()),
    ],
)
def test_a_change_reaches_the_specs_that_it_concerns_and_no_other(params, change, changed):
    before = {name: spec(params) for name, spec in SPECS.items()}
    after = {name: spec(config.check(config.merge(copy.deepcopy(params), change))) for name, spec in SPECS.items()}
    assert {name for name in SPECS if before[name] != after[name]} == changed


UNSAFE = [
    "../x",
    "/abs",
    "a/b",
    "",
    ".",
    "..",
    "-rf",
    "a b",
    "A",
    "é",
    "a" * 65,
    "a\0b",
    "a\n",
    "a.b",
    "~",
    "$HOME",
    "a\\b",
    None,
    7,
]
CATALOGUES = {"datasets": "digits", "methods": "edm", "networks": "unet"}


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_a_name_that_could_leave_the_results_is_refused(params, catalogue, name):
    params[catalogue][name] = params[catalogue][CATALOGUES[catalogue]]
    with pytest.raises(ConfigurationError):
        config.check(params)


@pytest.mark.parametrize("name", UNSAFE)
def test_so_is_such_a_preset_source_sampler_or_reference_to_a_name(params, name):
    changes = [
        {"preset": name},
        {"run": {"datasets": [name]}},
        {"run": {"methods": [name]}},
        {"datasets": {"digits": {"source": name}}},
        {"datasets": {"digits": {"network": name}}},
        {"datasets": {"digits": {"features": name}}},
        {"methods": {"edm": {"flow": {"name": name}}}},
        {"methods": {"edm": {"parameterisation": name}}},
        {"methods": {"edm": {"times": {"law": name}}}},
        {"sampling": {"settings": {name: [5]}}},
        {"sampling": {"settings": {"dopri5": [name]}}},
    ]
    for change in changes:
        with pytest.raises(ConfigurationError):
            config.check(config.merge(copy.deepcopy(params), change))


@pytest.mark.parametrize("name", [name for name in UNSAFE if name is not None])
@pytest.mark.parametrize("key", ["name", "dataset", "method", "preset"])
def test_so_is_such_a_name_in_a_specification(key, name):
    with pytest.raises(ConfigurationError, match="--spec"):
        config.parse_spec(json.dumps({key: name}))


def test_every_name_of_the_parameters_is_one_of_a_specification(params):
    for catalogue in CATALOGUES:
        assert all(config.NAME.fullmatch(name) for name in params[catalogue])


def test_no_method_is_called_as_the_folder_of_the_bound(params):
    params["methods"]["data"] = params["methods"]["edm"]
    with pytest.raises(ConfigurationError, match="data"):
        config.check(params)


def test_a_whole_number_with_a_point_is_no_integer(params):
    """JSON Schema lets it pass; it would be a folder `seed1.0`, and no length of a list."""
    for change in (
        {"seeds": [1.0]},
        {"seeds": [True]},
        {"training": {"batch": 64.0}},
        {"sampling": {"settings": {"heun": [5.0]}}},
    ):
        with pytest.raises(ConfigurationError):
            config.check(config.merge(copy.deepcopy(params), change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"networks": {"mlp": {"width": 33}}}, "multiple of 2"),  # half of the noise embedding is sines, half cosines
        ({"networks": {"mlp": {"width": 10**6}}}, "<= 65536"),
        ({"networks": {"unet": {"blocks": 10**6}}}, "<= 64"),
        ({"datasets": {"digits": {"n_samples": 1_000_001}}}, "<= 1000000"),  # the sampling seeds of a run
        ({"training": {"learning_rate": float("inf")}}, "finite"),
        ({"methods": {"edm": {"flow": {"horizon": float("nan")}}}}, "finite"),
        ({"methods": {"edm": {"label": "a\x1b[2Jb"}}}, "unprintable"),
        ({"tracking": {"experiment": {1, 2}}}, "set"),
        ({"evaluation": {"beyond": ["edm2"], "more": ["paired"]}}, "no method 'edm2'"),
        ({"evaluation": {"beyond": ["edm"]}}, "no `paired`"),
        ({"evaluation": {"proxy": {"components": 0}}}, ">= 1"),
        ({"methods": {"edm": {"grid": [1, 0.5, 0.6, 0]}}}, "`methods.edm.grid` = .* do not fall from 1"),
        ({"datasets": {"digits": {"source": "images"}}}, "`datasets.digits.options.path` of data source 'images' is missing"),
        ({"datasets": {"digits": {"source": "images", "options": {"path": "x", "resolution": 8, "filtre": 1}}}}, "filter"),
    ],
)
def test_what_would_fail_far_from_here_is_refused_here(params, change, told):
    with pytest.raises(ConfigurationError, match=told):
        config.check(config.merge(params, change))


LAUGHS = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "the alias"),
        (MERGES, "the alias"),
        ("a: &a [*a]", "the alias"),
        ("[" * 5000, "nested deeper"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, "nested deeper"),
        ("training: {batch: 2020-13-45}", "is not YAML"),
        ("training: {batch: " + "9" * 5000 + "}", "is not YAML"),
        ("a: !!timestamp x", "the tag"),
        ("a: !!python/object/apply:os.system [echo]", "the tag"),
        ("training: {batch: 2020-01-01}", "a date"),
        ("training: {batch: " + "1:" * 300 + "1.0}", "a number of 603 characters"),
        ("training: {batch: -1_0:" + "59:" * 300_000 + "1}", "a number of 900006 characters"),
        ("1: 2", "keys are texts"),
        ("training: {learning_rate: 1e999999}", "finite"),
        ("training: {learning_rate: .nan}", "finite"),
        ("x" * 2**21, "characters"),
    ],
)
def test_a_hostile_parameter_file_is_a_paragraph(tmp_path, text, told):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        config.load([path])
    with pytest.raises(ConfigurationError):
        config.load(["params.yaml"], [f"training={text}"])


LABELS = [
    "*EDM",
    "yes",
    "1e3",
    "EDM, $\\sigma_{max}$ = 20",
    "010",
    "2020-01-01",
    "1:30",
    "a: b",
    "[EDM]",
    "it's",
    "&x !y %z @ `",
]


@pytest.mark.parametrize("label", LABELS)
def test_text_stays_the_text_that_was_typed(tmp_path, label):
    """In a file, by --set, and by --config, of which Snakemake makes text of what is nested."""
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump({"methods": {"edm": {"label": label}}}))
    by_hand = {"methods": {"edm": {"label": label, "flow": {"horizon": "20"}}}}
    for found in (
        config.load(["params.yaml", path]),
        config.load(["params.yaml"], [f"methods.edm.label={label}"]),
        config.check(config.merge(config.read(["params.yaml"]), config.by_hand(by_hand))),
        config.check(json.loads(json.dumps(config.load(["params.yaml", path])))),
    ):
        assert (found["methods"]["edm"]["label"], found["methods"]["edm"]["flow"]["horizon"]) == (label, 20)


@pytest.mark.parametrize("text", ["yes", "1e3", "010", "1:30"])
def test_so_does_text_without_quotes_in_a_file(tmp_path, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(f"methods: {{edm: {{label: {text}}}}}")
    assert config.load(["params.yaml", path])["methods"]["edm"]["label"] == text


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("training.batch=64", "batch", 64),
        ("training={batch: 64, decay: none}", "decay", "none"),
        ("training.learning_rate=1e-3", "learning_rate", 1e-3),
        ("training.betas=[0.5, 0.9]", "betas", [0.5, 0.9]),
    ],
)
def test_what_is_no_text_has_the_types_of_yaml(setting, key, value):
    assert config.load(["params.yaml"], [setting])["training"][key] == value


def test_an_override_that_an_entry_beats_is_told(params):
    own = {"checkerboard": {"training": {"batch": "8"}}}
    overrides = config.by_hand({"training": {"batch": "64", "decay": "none"}, "datasets": own})
    told = config.beaten(config.check(config.merge(params, overrides)), overrides)
    assert [line.partition(", which has ")[2] for line in told] == [
        "`datasets.gaussian_mixture.training.batch` = 256",
        "`datasets.rings.training.batch` = 256",
    ]
    own = config.check(config.merge(params, {"methods": {"edm": {"samplers": {"euler": [3]}}}}))
    assert config.beaten(own, {"sampling": {"settings": {"heun": [3]}}}) == [
        "`sampling.settings` does not reach edm, which has `methods.edm.samplers`"
    ]
    few = config.check(config.merge(params, {"datasets": {"rings": {"methods": ["edm", "reflection"]}}}))
    assert config.beaten(few, {"run": {"methods": ["edm", "oscillation"]}}) == [
        "`run.methods` does not reach rings with oscillation: see `datasets.rings.methods`"
    ]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["edm", "edm"], "`datasets.rings.methods` = .* names one twice"),
        (["emd"], "'emd' is not in `methods`"),
        (["pfgm"], "`datasets.rings.methods` has none of `run.methods`"),
    ],
)
def test_the_methods_of_a_data_set_are_some_of_those_that_are_run(params, methods, message):
    params["datasets"]["rings"]["methods"] = methods
    with pytest.raises(ConfigurationError, match=message):
        config.check(params)


def test_a_folder_as_parameter_file_is_a_paragraph(tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder"):
        config.load([tmp_path])


@pytest.mark.parametrize("text", ["NaN", '{"a": NaN}', '{"a": 1e999}', "[" * 10**5, '{"a": "\\u0000"}', "1", "[]", "{", ""])
def test_a_specification_that_is_no_plain_object_is_a_paragraph(text):
    with pytest.raises(ConfigurationError, match="--spec"):
        config.parse_spec(text)
