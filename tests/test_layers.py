"""The layers of the package: nothing imports upwards, nothing imports a command, and there are no cycles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "genre_lightning"
LAYERS = (
    ("errors", "files", "losses", "metrics", "progress", "runs", "types"),  # and every other module at the top
    ("config", "compat"),
    ("distributed",),
    ("evaluation",),
    ("data",),
    ("models",),
    ("inference",),
    ("training",),
    ("explain", "export", "features", "learning", "planning", "tuning"),
    ("serving",),
    ("commands", "cli", "__main__"),
)
"""From the lowest to the highest; docs/architecture.md describes them."""
APART = {"data", "models"}
"""Neither of these imports the other: what both need is in `types`."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "configs" not in path.parts and "slurm" not in path.relative_to(PACKAGE).parts[:1]:
            yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def imported(path):
    """Modules of the package that a file imports, also within functions; for type checkers alone is not an import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genre_lightning"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def layer(module):
    first = module.split(".")[1]
    return next((number for number, names in enumerate(LAYERS) if first in names), 0)


GRAPH = {module: set(imported(path)) - {module} for module, path in MODULES.items() if module != "genre_lightning"}


@pytest.mark.parametrize("module", GRAPH)
def test_imports_go_downwards(module):
    for other in GRAPH[module] - {"genre_lightning"}:
        assert layer(other) <= layer(module), f"{module} imports {other}, which is in a higher layer"
        assert {module.split(".")[1], other.split(".")[1]} != APART, f"{module} imports {other}"


def test_there_are_no_cycles():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_upward_import_is_found(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("def late():\n    from genre_lightning.commands import checked\n")
    assert list(imported(file)) == ["genre_lightning.commands.checked"]
    assert layer("genre_lightning.commands.checked") > layer("genre_lightning.runs")
