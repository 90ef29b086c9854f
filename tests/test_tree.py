"""The tree: who may know of whom."""

import ast
import graphlib
import pathlib

import pytest

from conftest import TIERS

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_qsn"

# From the ground up. A part knows of its own line and of those below it.
FLOORS = (
    ("version", "_core"),
    ("quantization",),
    ("constraints", "initializers", "losses", "optimizers"),
    ("layers",),
    ("classifier",),
    ("datasets", "models"),
    ("attacks",),
    ("callbacks",),
    ("certification",),
    ("defenses",),
    ("deployment",),
    ("training",),
    ("report",),
    ("evaluation", "extraction"),
    ("paper",),
    ("demo",),
    ("keras_qsn",),
    ("cli",),
    ("__main__",),
)
FLOOR = {part: i for i, parts in enumerate(FLOORS) for part in parts}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(module):
    """The modules of the package that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                full = f"{node.module}.{name.name}"
                if full in MODULES:
                    yield full
                elif node.module in MODULES:
                    yield node.module
        elif isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name in MODULES)


def part_of(module):
    """The file or folder of the package that a module lies in."""
    return (module.split(".") + ["keras_qsn"])[1]


def test_tiers_name_tests_that_are_there():
    for names in TIERS.values():
        for name in names:
            path, *inside = name.split("::")
            body = ast.parse((ROOT / path).read_text()).body
            for part in inside:
                (found,) = (n for n in body if getattr(n, "name", 0) == part)
                body = found.body


def test_every_part_has_its_floor():
    assert {part_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows_go_down(module):
    own = FLOOR[part_of(module)]
    for other in imports_of(module):
        assert FLOOR[part_of(other)] <= own, f"{module} imports {other}"


def test_no_module_imports_itself():
    arrows = {module: {*imports_of(module)} for module in MODULES}
    # A package's names come from its modules, which do not ask it back.
    assert [*graphlib.TopologicalSorter(arrows).static_order()]
