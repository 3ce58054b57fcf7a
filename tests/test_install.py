"""One set of pins, one Python, and every package of the mission in one process."""

import re
import subprocess
import sys

from tests.conftest import ROOT


def test_three_files_agree_on_pins_and_python():
    python_env = (ROOT / "python_env.yaml").read_text()
    conda = (ROOT / "conda.yaml").read_text()
    assert "-r requirements.txt" in python_env
    assert "-r requirements.txt" in conda
    (python,) = re.findall(r'python: "(.*)"', python_env)
    assert f"python={python}" in conda
    assert f"{sys.version_info.major}.{sys.version_info.minor}" == python
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


def test_every_package_imports_together():
    names = "mlflow, tensorflow, keras, tensorflowjs, sklearn, matplotlib, numpy, optuna"
    done = subprocess.run([sys.executable, "-c", f"import {names}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_entry_point_is_a_verb():
    from mnist_cnn.cli import VERBS

    text = (ROOT / "MLproject").read_text()
    assert re.findall(r'command: "python -m mnist_cnn (\w+)"', text) == list(VERBS)
    assert re.findall(r"^  (\w+):$", text, re.M) == list(VERBS)
