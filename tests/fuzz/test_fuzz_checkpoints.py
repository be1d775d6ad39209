"""Whatever the bytes of a checkpoint or of a training state: a paragraph, or the very model that was saved."""

import copy
import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spoil import NUMBERS, altered, bounded_memory, bounded_time, fuzzed, spoilt, tree, values

from hamflow import methods
from hamflow.errors import CheckpointError
from hamflow.files import load_metadata, load_tensors, save_tensors
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Samples, fit
from hamflow.training.folder import StateFolder
from hamflow.training.plan import Training
from hamflow.training.state import State

MLP = {"kind": "mlp", "width": 4, "depth": 1, "features": 1}
UNET = {"kind": "unet", "channels": 4, "multipliers": [1, 1], "blocks": 1, "attention": [2], "dropout": 0.0}
DESCRIPTIONS = [
    {
        "spec": {
            "dataset": "rings",
            "method": "edm",
            "kind": "velocity",
            "options": {
                "flow": {"name": "diffusion", "horizon": 20.0},
                "parameterisation": "edm",
                "times": {"law": "uniform"},
            },
            "conditional": False,
        },
        "facts": {"name": "rings", "network": MLP, "sigma_data": 0.5, "shape": [2], "classes": 0, "box": [-5.0, 5.0]},
        "data_sha256": "0" * 64,
    },
    {
        "spec": {
            "dataset": "plane",
            "method": "hsm",
            "kind": "hsm",
            "options": {"critic_steps": 1, "critic": {"kind": "small", "width": 3, "depth": 1}},
        },
        "facts": {
            "name": "plane",
            "network": {"kind": "small", "width": 4, "depth": 1},
            "sigma_data": 0.5,
            "shape": [2],
            "classes": 0,
            "box": [-5.0, 5.0],
        },
        "data_sha256": "0" * 64,
    },
    {
        "spec": {
            "dataset": "digits",
            "method": "reflection",
            "kind": "velocity",
            "options": {
                "flow": {"name": "reflection", "low": -1.0, "high": 1.0, "speed": 1.0, "horizon": 3.0},
                "parameterisation": "velocity",
                "times": {"law": "log_uniform", "decades": 2.0},
            },
        },
        "facts": {
            "name": "digits",
            "network": UNET,
            "sigma_data": 0.5,
            "shape": [1, 4, 4],
            "classes": 3,
            "box": [-1.0, 1.0],
        },
        "data_sha256": "0" * 64,
        "history": [{"kimg": 1.0, "loss": 0.5}] * 5,
    },
]


def objective_of(description):
    """The untrained objective of a description."""
    spec = description["spec"]
    return METHODS.build(spec["kind"], **spec["options"]).objective(Facts(**description["facts"]), {}, 0)


def saved(path, description):
    """The bytes of a checkpoint, its tensors and its metadata."""
    objective = objective_of(description)
    save_tensors(path, objective.state_dict(), description)
    return path.read_bytes(), objective.state_dict()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder with something beside the checkpoint."""
    root = tmp_path_factory.mktemp("sandbox")
    (root / "precious.txt").write_text("precious")
    with bounded_memory():
        yield root


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """(bytes, tensors, metadata) of sound checkpoints."""
    path = tmp_path_factory.mktemp("sound") / "model.safetensors"
    return [(*saved(path, description), description) for description in DESCRIPTIONS]


def accepted(read):
    """What it gives, or None for a paragraph; anything else is a crash."""
    try:
        with bounded_time():
            return read()
    except CheckpointError:
        return None


def read_all(sandbox, content):
    """Every reader of checkpoints, on these bytes; gives what `load_tensors` and `methods.load` accepted."""
    path = sandbox / "model.safetensors"
    path.write_bytes(content)
    before = tree(sandbox)
    accepted(lambda: load_metadata(path))
    tensors = accepted(lambda: load_tensors(path))
    model = accepted(lambda: methods.load(path))
    assert tree(sandbox) == before
    if model is not None:
        assert sum(p.numel() * p.element_size() for p in model.module.parameters()) <= len(content)
    return tensors, model


def equal(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def test_spoilt_checkpoints(sandbox, sound):
    """Nothing but what was saved is ever accepted."""

    @fuzzed
    @given(spoilt([content for content, _, _ in sound]))
    def run(content):
        found, _ = read_all(sandbox, content)
        if found is not None:
            tensors, metadata = found
            assert any(metadata == saved_metadata and equal(tensors, saved) for _, saved, saved_metadata in sound)

    run()


def signed(description, tensors, sandbox):
    """A checkpoint with a right checksum, whatever it says."""
    path = sandbox / "signed.safetensors"
    save_tensors(path, tensors, description)
    content = path.read_bytes()
    path.unlink()
    return content


json_values = values.filter(lambda value: "nan" not in (text := json.dumps(value).lower()) and "infinity" not in text)


@pytest.mark.parametrize("index", range(len(DESCRIPTIONS)))
def test_hostile_descriptions(sandbox, sound, index):
    """The network, the flow or the data of the metadata are others, up to absurd sizes: no model but one that fits."""
    _, tensors, description = sound[index]
    numbers = st.one_of(json_values, st.sampled_from([*NUMBERS, -1, 0.5, 1e300, 10**6, [10**6] * 12]))

    @fuzzed
    @given(altered(description, numbers))
    def run(changed):
        try:
            content = signed(changed, tensors, sandbox)
        except (ValueError, UnicodeEncodeError):  # what no JSON can hold
            return
        _, model = read_all(sandbox, content)
        if model is not None:
            labels = torch.zeros(2, dtype=torch.long) if model.classes else None
            x = torch.zeros(2, *model.shape, dtype=torch.float64)
            with torch.no_grad():
                v = model.velocity(x, 0.5 * model.flow.horizon, labels) if hasattr(model, "velocity") else model.score(x)
            assert v.shape == (2, *model.shape)

    run()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("network", "width", 65536),
        ("network", "width", 10**12),
        ("network", "depth", 1024),
        ("network", "features", 1024),
        ("network", "kind", "unet"),
        ("facts", "classes", 10**6),
        ("facts", "shape", [65536]),
        ("facts", "shape", [3, 65536, 65536]),
        ("facts", "shape", []),
        ("facts", "sigma_data", 2**62),  # whose square is no number of torch's
        ("facts", "sigma_data", 0),
        ("options", "flow", {"name": "diffusion", "horizon": "far"}),
        ("options", "flow", {"name": "reflection", "low": "x"}),
        ("options", "flow", {"name": "oscillation", "alpha": 1.0}),  # which EDM's parameterisation does not fit
        ("options", "parameterisation", "none"),
        ("options", "sampler", "heun"),
        ("spec", "kind", "gan"),
        ("spec", "kind", "hsm"),
        ("spec", "dataset", "../x"),
    ],
)
def test_known_hostile_descriptions(sandbox, sound, part, key, value):
    _, tensors, description = sound[0]
    changed = copy.deepcopy(description)
    parts = {**changed, "network": changed["facts"]["network"], "options": changed["spec"]["options"]}
    parts[part][key] = value
    assert read_all(sandbox, signed(changed, tensors, sandbox))[1] is None


def test_hostile_headers(sandbox, sound):
    """Types, shapes, offsets and names of tensors are others, and the length of the header is right."""
    replaced = st.one_of(json_values, st.sampled_from([*NUMBERS, "F64", "BF16", "F4", "U8", [2**62], [0, 2**62]]))

    @fuzzed
    @given(st.data())
    def run(choices):
        content, tensors, metadata = choices.draw(st.sampled_from(sound[:1] * 3 + sound[1:]))
        length = int.from_bytes(content[:8], "little")
        text = json.dumps(choices.draw(altered(json.loads(content[8 : 8 + length]), replaced))).encode()
        found, _ = read_all(sandbox, len(text).to_bytes(8, "little") + text + content[8 + length :])
        assert found is None or (found[1] == metadata and equal(found[0], tensors))

    run()


@fuzzed
@given(content=st.binary(max_size=300), length=st.sampled_from([None, *NUMBERS]))
def test_any_bytes_at_all(sandbox, content, length):
    content = content if length is None else length.to_bytes(8, "little") + content
    assert read_all(sandbox, content) == (None, None)


def file_of(header, content=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


OURS = {"__metadata__": {"hamflow": "{}"}}
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
KNOWN = {
    "empty": b"",
    "a part of the length": b"abc",
    "a header longer than any file": file_of(b"{}", length=2**63),
    "a header nested without end": file_of(b"[" * 100_000),
    "a header that is no mapping": file_of([1]),
    "metadata that are no mapping": file_of({"__metadata__": [1]}),
    "metadata of somebody else": file_of({"__metadata__": {"format": "pt"}}),
    "metadata that are a number": file_of({"__metadata__": {"hamflow": "1"}}),
    "metadata nested without end": file_of({"__metadata__": {"hamflow": "[" * 100_000}}),
    "metadata with an infinity": file_of({"__metadata__": {"hamflow": '{"kimg": 1e999}'}}),
    "a type that torch has not": file_of(
        OURS | {"a": TENSOR | {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"abc"
    ),
    "a negative size": file_of(OURS | {"a": TENSOR | {"shape": [-1]}}, bytes(4)),
    "nothing, of enormous shape": file_of(OURS | {"a": TENSOR | {"shape": [0, 2**62], "data_offsets": [0, 0]}}),
    "a hundred thousand dimensions": file_of(OURS | {"a": TENSOR | {"shape": [1] * 100_000}}, bytes(4)),
    "a name with a NUL": file_of(OURS | {"a\0b": TENSOR}, bytes(4)),
    "no checksum": file_of(OURS | {"a": TENSOR}, bytes(4)),
}


@pytest.mark.parametrize("case", KNOWN)
def test_known_hostile_files(sandbox, case):
    assert read_all(sandbox, KNOWN[case]) == (None, None)


def test_what_is_no_file_is_not_opened(sandbox):
    """A device gives bytes without end, a pipe none: both would wait for ever."""
    os.mkfifo(sandbox / "pipe")
    for path in (sandbox, sandbox / "pipe", "/dev/zero", "/dev/stdin", sandbox / ("a" * 300), "a\0b"):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            load_tensors(path)
    (sandbox / "pipe").unlink()


IDENTITY = {"spec": DESCRIPTIONS[0]["spec"], "seed": 0}
PLAN = Training(train_kimg=0.01, batch=2, report_kimg=0.004)


def training(steps=0):
    """The state of a training after some steps."""
    state = State(objective_of(DESCRIPTIONS[0]), PLAN)
    for _, _ in zip(range(steps), fit(state.objective, Samples(torch.ones(4, 2)), PLAN, 0, state), strict=False):
        pass
    return state


def test_spoilt_training_states(sandbox):
    state = StateFolder(sandbox / "run", IDENTITY)
    trained = training(3)
    state.save(trained, seconds=1.0)
    progress = trained.progress() | {"seconds": 1.0}
    path = state.folder / "state.safetensors"
    content = path.read_bytes()

    @fuzzed
    @given(spoilt([content]))
    def run(changed):
        path.write_bytes(changed)
        resumed = accepted(lambda: state.load(training()))
        assert resumed in (None, progress)

    run()
    path.write_bytes(content)
    assert state.load(training()) == progress


def test_hostile_training_states(sandbox):
    """With a right checksum, whatever else they say: a state of another identity is refused."""
    state = StateFolder(sandbox / "run", IDENTITY)
    state.save(training(3))
    path = state.folder / "state.safetensors"
    tensors, metadata = load_tensors(path)

    @fuzzed
    @given(altered(metadata, json_values), st.sampled_from([None, *tensors]))
    def run(changed, left_out):
        try:
            save_tensors(path, {name: tensor for name, tensor in tensors.items() if name != left_out}, changed)
        except (ValueError, UnicodeEncodeError):
            return
        resumed = accepted(lambda: state.load(training()))
        assert resumed is None or changed["identity"] == IDENTITY

    run()


def test_the_sound_checkpoints_are_read(sandbox, sound):
    for content, tensors, metadata in sound:
        found, model = read_all(sandbox, content)
        assert found[1] == metadata
        assert equal(found[0], tensors)
        assert model.module.state_dict().keys() <= {name.partition(".")[2] for name in tensors}
