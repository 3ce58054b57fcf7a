"""One set of pins, one Python, and every package of the mission in one process."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_three_files_agree_on_pins_and_python():
    python_env = (ROOT / "python_env.yaml").read_text()
    conda = (ROOT / "conda.yaml").read_text()
    assert "-r requirements.txt" in python_env
    assert "-r requirements.txt" in conda
    (python,) = re.findall(r'python: "(.*)"', python_env)
    assert f"python={python}" in conda
    assert python == "3.11", "the oldest supported: what a machine without downloads has"
    for text in (python_env, conda):
        assert "==" not in text, "pins stand in requirements.txt only"


def test_every_requirement_is_pinned_and_names_no_address():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    lines.remove("./stubs/tensorflow_decision_forests")
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[^ ]+( ;.*)?", line), line


def test_readme_installs_the_pinned_mlflow():
    pinned = re.search(r"^mlflow==(.*)$", (ROOT / "requirements.txt").read_text(), re.M)[1]
    assert f"mlflow=={pinned}" in (ROOT / "README.md").read_text()


@pytest.mark.slow  # this process has imported nearly all of them
def test_every_package_imports_together():
    names = "mlflow, tensorflow, keras, tensorflowjs, sklearn, matplotlib, numpy, optuna"
    done = subprocess.run([sys.executable, "-c", f"import {names}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_entry_point_is_a_verb():
    from mnist_cnn.cli import VERBS

    text = (ROOT / "MLproject").read_text()
    assert re.findall(r'command: "python -m mnist_cnn (\w+)"', text) == list(VERBS)
    assert re.findall(r"^  (\w+):$", text, re.M) == list(VERBS)


def test_every_direct_dependency_is_pinned():
    """requirements.txt is what requirements.in resolves to: nothing was added by hand to one."""
    lines = (ROOT / "requirements.in").read_text().splitlines()
    wanted = {re.match(r"[A-Za-z0-9_./-]*", line)[0] for line in lines} - {""}
    pins = (ROOT / "requirements.txt").read_text()
    for name in wanted:
        assert re.search(rf"^{re.escape(name)}(\[.*\])?(==|$)", pins, re.M), name


def test_tensorflowjs_needs_no_more_of_decision_forests_than_its_name():
    """The stand-in in stubs/ is empty: an import that uses nothing is all it can serve."""
    name = "tensorflow_decision_forests"
    (folder,) = importlib.util.find_spec("tensorflowjs").submodule_search_locations
    seen = 0
    for file in Path(folder).rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            assert not (isinstance(node, ast.ImportFrom) and str(node.module).startswith(name))
            if isinstance(node, ast.Name):
                assert node.id != name, f"{file}:{node.lineno} uses {name}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith(name):
                        assert (alias.name, alias.asname) == (name, None), file
                        seen += 1
    assert seen, "tensorflowjs no longer imports it: the stand-in can go"


PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)


@pytest.mark.slow  # asks the package registry for every pin, twelve times
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_has_wheels_of_all_pins(platform, python, tmp_path):
    command = [shutil.which("uv"), "pip", "compile", "requirements.txt", "--no-cache"]
    command += ["--only-binary", ":all:", "--no-binary", "tensorflow-decision-forests"]
    command += ["--python-platform", platform, "--python-version", python]
    command += ["-o", str(tmp_path / "resolved.txt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
