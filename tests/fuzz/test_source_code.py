"""No line of the package or of the workflow can run what a file or a parameter says."""

import ast
import os
import pickle
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hamflow import config, data
from hamflow.data.arrays import open_array
from hamflow.errors import UserError
from hamflow.files import load_metadata, load_tensors
from hamflow.metrics import reference

ROOT = Path(__file__).parents[2]
PYTHON = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "workflow").rglob("*.py"))
SNAKEMAKE = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "commands",
    "pty",
}
NAMES = {"eval", "exec", "compile", "__import__"}
METHODS = {"extract", "extractall", "unpack_archive", "read_pickle", "to_pickle", "mktemp"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
YAML = {"safe_load", "safe_dump", "parse"}  # the functions of yaml that build nothing but plain values


def dotted(node):
    """`a.b.c` of an expression, empty for any other."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def constant(call, name, default):
    """The value of a keyword if it is written there, `default` without it, and None for one that is computed."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if keyword.arg is None:
            return None  # **options may hold it
    return default


def forbidden(text):
    """The lines of a Python text that import or call what can run foreign code."""
    return sorted({f"{node.lineno}: {ast.unparse(node)}" for node in ast.walk(ast.parse(text)) if _is_forbidden(node)})


def _is_forbidden(node):
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        module = (node.module or "").partition(".")[0]
        return (
            module in MODULES
            or (module == "yaml" and not names <= YAML)
            or bool(names & (SHELLS | METHODS) and module != "platform")
        )
    if not isinstance(node, ast.Call):
        return False
    package, _, name = dotted(node.func).rpartition(".")
    computed = node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)  # a command in one text
    return (
        (isinstance(node.func, ast.Name) and name in NAMES)
        or (package == "builtins" and name in NAMES)
        or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS)
        or (package in ("os", "subprocess", "asyncio") and name in SHELLS)
        or (package == "os" and name.startswith(("exec", "spawn", "posix_spawn")))
        or (package == "yaml" and name not in YAML)
        or (package == "torch" and name == "load" and constant(node, "weights_only", False) is not True)
        or (package in ("np", "numpy") and name in ("load", "save") and constant(node, "allow_pickle", False) is not False)
        or (package == "subprocess" and bool(computed))
        or constant(node, "shell", False) is True
    )


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_file_can_run_foreign_code(path):
    assert forbidden(path.read_text()) == []


@pytest.mark.parametrize("path", SNAKEMAKE, ids=lambda path: path.name)
def test_no_workflow_file_can_run_foreign_code(path):
    """By words: rules are no Python. `shell` directives are Snakemake's own, their values quoted (tests/faults)."""
    with open(path, "rb") as file:
        words = [token.string for token in tokenize.tokenize(file.readline) if token.type in (tokenize.NAME, tokenize.OP)]
    called = {word for at, word in enumerate(words) if words[max(0, at - 2) : at] != ["re", "."]}  # re.compile is another
    assert not called & (MODULES | NAMES | METHODS | SHELLS | {"script", "unsafe_load", "full_load"})
    for at, word in enumerate(words[:-2]):
        assert word != "yaml" or words[at + 1] != "." or words[at + 2] in YAML


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "from yaml import load",
        "yaml.load(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "yaml.unsafe_load(x)",
        "yaml.full_load(x)",
        "eval(x)",
        "exec('1')",
        "compile(x, y, z)",
        "__import__(x)",
        "os.system(x)",
        "from os import system",
        "os.popen(x)",
        "os.execv(x, y)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "torch.load(x, weights_only=flag)",
        "torch.load(x, **options)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=flag)",
        "subprocess.run('ls ' + x)",
        "subprocess.run(f'ls {x}')",
        "subprocess.run(['ls'], shell=True)",
        "anything(shell=True)",
        "archive.extractall(x)",
        "shutil.unpack_archive(x)",
        "pandas.read_pickle(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert len(forbidden(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "yaml.safe_load(x)",
        "torch.load(x, map_location='cpu', weights_only=True)",
        "np.load(x, mmap_mode='r')",
        "np.load(x, allow_pickle=False)",
        "subprocess.run(['git', *arguments], check=True)",
        "model.eval()",
        "model.to(device).eval()",
        "platform.system()",
        "re.compile(x)",
    ],
)
def test_and_nothing_else(text):
    assert forbidden(text) == []


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.fixture
def traps(tmp_path):
    """Files of every kind that hold a payload, and the reader that meets each."""
    target = tmp_path / "fired"
    pickled = pickle.dumps(Payload(target))
    torch.save(Payload(target), tmp_path / "torch.safetensors")
    (tmp_path / "bare.safetensors").write_bytes(pickled)
    np.save(tmp_path / "array.npy", np.array([Payload(target)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "reference.npz", rows=np.array([Payload(target)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "bare.npz", "w") as archive:
        archive.writestr("rows.npy", pickled)
    (tmp_path / "params.yaml").write_text(f"preset: !!python/object/apply:os.mknod ['{target}']\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(pickled)
    spec = {"name": "x", "source": "images", "options": {"path": str(tmp_path / "images"), "resolution": 4}}
    readers = [
        lambda: load_tensors(tmp_path / "torch.safetensors"),
        lambda: load_metadata(tmp_path / "bare.safetensors"),
        lambda: open_array(tmp_path / "array.npy", dtype="uint8", shape=[1], why="", fix=""),
        lambda: reference.load(tmp_path / "reference.npz"),
        lambda: reference.load(tmp_path / "bare.npz"),
        lambda: config.load([tmp_path / "params.yaml"]),
        lambda: data.prepare(spec, tmp_path / "data"),
    ]
    return target, readers


def test_a_payload_in_any_file_stays_asleep(traps):
    target, readers = traps
    for read in readers:
        with pytest.raises(UserError):
            read()
        assert not target.exists()


def test_the_payload_works(tmp_path):
    """Or the test above would show nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "fired")))
    assert (tmp_path / "fired").exists()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(f"!!python/object/apply:os.mknod ['{tmp_path / 'other'}']")
    yaml.unsafe_load(f"!!python/object/apply:os.mknod ['{tmp_path / 'other'}']")
    assert os.path.exists(tmp_path / "other")
