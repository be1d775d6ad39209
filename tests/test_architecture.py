"""The house: which room may use which, no import circle, files that one can read, few modules beside the rooms."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "hamflow"
SCIENCE = {
    *("laws", "dynamics", "flows", "parameterisation", "networks", "training"),
    *("methods", "sampling", "score", "metrics", "equivariant", "data"),
}
HOUSE = ["pipeline", "tracking", "report", "studies", "verbs", "cli"]  # each uses those before it, and the science
PLUMBING = {"draws", "registry", "config", "runtime", "errors", "progress", "files"}  # beside the rooms, used by all
LONGEST = 350  # lines of a file
MODULES = {
    ".".join(("hamflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room(module):
    """The part of the house that a module belongs to: "flows" for hamflow.flows.base."""
    return module.split(".")[1] if "." in module else ""


@cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


def imported(module, nodes):
    """The modules of hamflow that import statements among the nodes name; a name that is no module stands for its package."""
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this test does not follow"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in within]
        else:
            continue
        yield from (name for name in names if name in MODULES and name != module)


def everywhere(module):
    """Imports wherever they stand, within functions too."""
    return set(imported(module, ast.walk(tree(module))))


def named(module):
    """Modules that stand as text, as in `import_module("hamflow.flows")`."""
    texts = {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text.removesuffix(".") for text in texts} & MODULES.keys()


def at_the_top(module):
    """Imports that run when the module is imported: not in functions, not those for type checkers."""

    def statements(body):
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from statements(node.orelse)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield node
                yield from statements(ast.iter_child_nodes(node))

    return set(imported(module, statements(tree(module).body)))


def test_every_module_has_its_place():
    assert {room(module) for module in MODULES} - {"", *SCIENCE, *HOUSE, *PLUMBING, "__main__"} == set()


def test_science_does_not_know_the_house():
    below = [module for module in MODULES if room(module) in SCIENCE | PLUMBING]
    walls = {m: {used for used in everywhere(m) | named(m) if room(used) in HOUSE} for m in below}
    assert {module: used for module, used in walls.items() if used} == {}


@pytest.mark.parametrize("floor", HOUSE)
def test_imports_go_down_only(floor):
    above = HOUSE[HOUSE.index(floor) + 1 :]
    up = {m: {used for used in everywhere(m) if room(used) in above} for m in MODULES if room(m) == floor}
    assert {module: used for module, used in up.items() if used} == {}


def test_there_is_no_import_circle():
    """Take away, again and again, the modules that import none of the others: nothing is left."""
    left = {module: at_the_top(module) for module in MODULES}
    while free := {module for module, used in left.items() if not used & left.keys()}:
        left = {module: used for module, used in left.items() if module not in free}
    assert {module: used & left.keys() for module, used in left.items()} == {}


def test_the_scan_sees_what_is_there():
    assert "hamflow.flows.base" in at_the_top("hamflow.flows")
    assert "hamflow.flows" in at_the_top("hamflow.flows.times")
    assert any(everywhere(module) - at_the_top(module) for module in MODULES)  # imports within functions


def test_files_are_short():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_few_modules_stand_beside_the_rooms():
    assert len([path for path in PACKAGE.glob("*.py") if path.stem not in {"__init__", "__main__"}]) <= 9
