"""The layout of the package: which room may import which, and who may know MLflow or TensorFlow."""

import ast
from pathlib import Path

import pytest

from mnist_cnn.cli import VERBS

PACKAGE = Path(__file__).parent.parent / "mnist_cnn"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("tracking", "evaluation", "browser", "learning")
BASE = ("recipes", "parameters", "cli")  # with __main__: they know no verb and no room
# What a room may import; an entry point may import every room and other entry points.
BELOW = {
    "tracking": {"learning", "recipes", "parameters"},
    "evaluation": {"learning", "recipes", "parameters"},
    "browser": {"learning", "recipes", "parameters"},
    "learning": {"recipes", "parameters"},
    "cli": {"recipes", "parameters"},
    "recipes": {"parameters"},
    "parameters": set(),
    "__main__": {"cli"},
}
# Packages that one file alone may import.
ONE_FILE = {
    "tensorflow": "learning/backend.py",
    "keras": "learning/backend.py",
    "tensorflowjs": "browser/tfjs.py",
    "art": "evaluation/robustness.py",
}


def place(file: Path) -> str:
    """The room of a file, or its own name at the top."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(file: Path) -> set[str]:
    """Modules that a file imports anywhere, `a.b` for `from a import b` too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_an_entry_point_is_the_file_of_its_name_and_nothing_else_stands_beside_them():
    files = {file.stem for file in PACKAGE.glob("*.py")}
    assert files == {*VERBS, *BASE, "__main__", "__init__"}
    folders = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downwards(file):
    mine = place(file)
    if mine == "__init__":
        mine = "parameters"
    allowed = BELOW.get(mine, {*BELOW, *VERBS} - {"cli", "__main__"}) | {mine}
    for module in imported(file):
        top, *rest = module.split(".")
        if top == "mnist_cnn" and rest:
            assert rest[0] in allowed, f"{mine} may not import {module}"
        if top == "mlflow":
            assert mine in {*VERBS, "tracking"}, f"{mine} may not import {module}"
        if top in ONE_FILE:
            assert file == PACKAGE / ONE_FILE[top], f"only {ONE_FILE[top]} may import {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines"


def test_the_package_stays_small():
    assert sum(file.read_text(encoding="utf-8").count("\n") for file in FILES) <= 5000
