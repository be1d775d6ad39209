"""Which source files stand behind a job: those that it imports, and of a registry those that it names."""

from pathlib import Path

import pytest

from hamflow.errors import DataError
from hamflow.pipeline.sources import Sources, digest_of_code, names_in

TREE = {
    "verbs/go": "from hamflow.flows import build\nfrom hamflow import errors\ndef run():\n    from hamflow.late import found\n",
    "flows/__init__": "from hamflow.flows.base import FLOWS\n",
    "flows/base": 'FLOWS: Registry[type] = Registry("flow", "hamflow.flows")\n',
    "flows/left": '@FLOWS.register("left")\nclass Left: ...\n',
    "flows/right": 'import hamflow.force\n@FLOWS.register("right", turn=1)\nclass Right: ...\n',
    "flows/laws": '@LAWS.register("even")\ndef even(): ...\n',
    "force": "",
    "late/__init__": '_HOMES = {"found": "home", "lost": "other"}\ndef __getattr__(name): ...\n',
    "late/home": "",
    "late/other": "",
    "errors": "",
    "studies/turning": 'from hamflow.flows import build\nflow = build("right")\n',
}


@pytest.fixture
def behind(tmp_path):
    """The modules behind a module of a small tree, without hamflow/ and .py."""
    for name, text in TREE.items():
        path = tmp_path / f"hamflow/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def find(module, *used):
        files = Sources(tmp_path).behind(module, used=frozenset(used))
        return {Path(file).relative_to(tmp_path / "hamflow").with_suffix("").as_posix() for file in files}

    return find


ALWAYS = {"verbs/go", "flows/__init__", "flows/base", "flows/laws", "late/__init__", "late/home"}


def test_imports_are_followed_also_within_functions_and_through_packages_that_import_names_on_first_use(behind):
    assert behind("verbs.go", "left") == ALWAYS | {"flows/left"}


def test_of_a_registry_only_what_the_job_names_is_behind_it_and_what_that_imports(behind):
    assert behind("verbs.go", "right") == ALWAYS | {"flows/right", "force"}


def test_where_a_job_names_nothing_of_a_registry_it_may_use_all(behind):
    assert behind("verbs.go") == ALWAYS | {"flows/left", "flows/right", "force"}


def test_a_module_names_what_it_quotes(behind):
    assert behind("studies.turning") == {
        "studies/turning",
        "flows/__init__",
        "flows/base",
        "flows/laws",
        "flows/right",
        "force",
    }


def test_every_text_of_nested_parameters_may_be_a_name():
    assert set(names_in({"a": ["b", {"c": "d"}, 1], "e": None})) == {"a", "b", "c", "d", "e"}


CODE = 'def half(x: float) -> float:\n    """Half of it."""\n    return f"{x / 2:.3g}" if x else None\n'
SAME = {
    "a comment": CODE + "# a comment\n",
    "a docstring": CODE.replace("Half of it.", "The half."),
    "no docstring": CODE.replace('    """Half of it."""\n', ""),
    "a module's docstring": '"""Halves."""\n' + CODE,
    "layout": CODE.replace("x / 2", "(x/2)").replace("    ", "  ").replace("\n", "\n\n"),
    "line ends": CODE.replace("\n", "\r\n"),
    "quotes": CODE.replace('f"{x / 2:.3g}"', "f'{x / 2:.3g}'"),
}
OTHER = {
    "a number": CODE.replace("2", "3"),
    "its type": CODE.replace("2", "2.0"),
    "a name": CODE.replace("half", "part"),
    "a format": CODE.replace(".3g", ".4g"),
    "a branch": CODE.replace("if x", "if not x"),
    "None": CODE.replace("None", "0"),
    "a default": CODE.replace("x: float", "x: float = 0"),
    "a text that is no docstring": CODE.replace("    return", '    "Half."; x = "Half."\n    return'),
    "another order": CODE.replace("x / 2", "2 / x"),
    "a target": CODE + "half = half\n",
}


@pytest.mark.parametrize("name", SAME)
def test_what_python_does_not_run_leaves_the_digest_of_code(name):
    assert digest_of_code(SAME[name]) == digest_of_code(CODE)


def test_code_that_computes_something_else_has_another_digest():
    assert len({digest_of_code(text) for text in [CODE, *OTHER.values()]}) == 1 + len(OTHER)


def test_a_folder_without_sources_is_refused(tmp_path):
    with pytest.raises(DataError, match="no source"):
        Sources(tmp_path)


@pytest.mark.parametrize("content", [b"def f(:\n", b"x = 1\x00", b"\xff\xfe"])
def test_what_is_no_python_has_a_digest_of_its_bytes(content):
    assert digest_of_code(content) == digest_of_code(content) != digest_of_code(content + b" ")
