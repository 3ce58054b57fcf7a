"""A wrong parameter is answered at once, in one sentence, and leaves nothing behind."""

import os
import re
import subprocess
import sys
from types import ModuleType

import pytest

from mnist_cnn import cli
from mnist_cnn.recipes import HYPERPARAMETERS, RECIPES, as_text
from tests.conftest import ROOT, environment

REFUSED = {
    "unknown verb": (["trian"], "train"),
    "unknown parameter": (["train", "--learnin_rate", "0.1"], "learning_rate"),
    "unknown parameter of evaluate": (["evaluate", "--modle", "x"], "'--model'"),
    "a word": (["train", "fast"], "--name value"),
    "no value": (["train", "--seed"], "'--seed' requires an argument"),
    "not a number": (["train", "--epochs", "three"], "epochs='three'"),
    "zero epochs": (["train", "--epochs", "0"], "from 1 to 1000"),
    "negative rate": (["train", "--learning_rate", "-1"], "above 0"),
    "nan rate": (["train", "--learning_rate", "nan"], "learning_rate='nan'"),
    "infinite rate": (["train", "--learning_rate", "inf"], "learning_rate='inf'"),
    "huge seed": (["train", "--seed", "99999999999"], "seed="),
    "unknown recipe": (["train", "--recipe", "fastest"], "classic"),
    "too few filters": (["train", "--recipe", "classic", "--filters", "32,64"], "3 convolutions"),
    "no filters": (["train", "--filters", ""], "filters=''"),
    "zero filters": (["train", "--filters", "0,1,1"], "from 1 to 1024"),
    "no data set": (["train", "--dataset", "cifar10"], "fashion_mnist"),
    "missing npz": (["train", "--dataset", "gone.npz"], "dataset='gone.npz'"),
    "missing h5": (["evaluate", "--model", "gone.h5"], "model='gone.h5'"),
    "not a boolean": (["evaluate", "--promote", "maybe"], "true or false"),
    "benchmark of nothing": (
        ["benchmark", "--recipes", "classic,quick"],
        "recipes='classic,quick'",
    ),
    "benchmark, wrong override": (["benchmark", "--recipes", "fast:epoch=3"], "epochs"),
    "benchmark, wrong seeds": (["benchmark", "--seeds", "1,a"], "seeds='1,a'"),
    "tune, falling range": (["tune", "--learning_rate_range", "0.5,0.1"], "learning_rate_range="),
    "tune, no trial": (["tune", "--trials", "0"], "trials='0'"),
    "no version": (["promote"], "version="),
}


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_sentence(arguments, says, capsys):
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_tilde_is_the_home_folder_in_every_path_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    paths = {"model": "x.h5", "dataset": "x.npz", "inputs": "x.npz", "drawings": "x.json"}
    for name in paths.values():
        (tmp_path / name).touch()
    paths["output"] = "new"
    seen = set()
    for verb in cli.VERBS.values():
        for option in verb.params:
            if option.name in paths:
                seen.add(option.name)
                name = paths[option.name]
                assert option.type.parse(f"~/{name}") == str(tmp_path / name), option.name
    assert seen == set(paths)


@pytest.mark.parametrize(
    ("file", "says"), [("cache", "Not a directory"), ("cache/mnist_cnn", "File exists")]
)
def test_an_unusable_cache_folder_is_named(tmp_path, monkeypatch, capsys, file, says):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert cli.run(["train"]) == 1
    err = capsys.readouterr().err
    assert err == f"mnist_cnn train: {tmp_path}/cache/mnist_cnn cannot be used: {says}.\n"


@pytest.mark.parametrize("arguments", [["train", "--epochs", "0"], ["train", "--help"], ["--help"]])
def test_answers_before_mlflow_and_tensorflow_are_imported(arguments, tmp_path):
    program = (
        "import sys; from mnist_cnn.cli import run; code = run(sys.argv[1:]); "
        "heavy = {'mlflow', 'tensorflow', 'keras', 'numpy', 'optuna'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (2 if "0" in arguments else 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def usage(verb, capsys):
    assert cli.run([verb, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_each_parameter_with_default_and_range(capsys):
    for verb, command in cli.VERBS.items():
        text = usage(verb, capsys)
        for parameter in command.params:
            assert text.count(f" --{parameter.name} ") == 1
            assert f": {parameter.type.allowed}" in text
            if parameter.default and not parameter.hidden:
                assert f"(default {parameter.default}): {parameter.type.allowed}" in text


def test_help_shows_the_hyperparameters_of_every_recipe(capsys):
    assert cli.run(["train", "--help"]) == 0
    text = capsys.readouterr().out.splitlines()
    assert max(map(len, text)) <= 80, "a terminal would break the table"
    lines = [line.split() for line in text]
    assert list(RECIPES) in lines
    for name in HYPERPARAMETERS:
        row = [f"--{name}", *(as_text(getattr(recipe, name)) for recipe in RECIPES.values())]
        assert row in lines


def test_help_into_a_closed_pipe_is_silent():
    command = [sys.executable, "-m", "mnist_cnn", "train", "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as program:
        program.stdout.close()
        assert program.stderr.read() == b""


# The program with a `promote` that only prints.
TELLS = """
import runpy, sys, types
module = types.ModuleType("mnist_cnn.promote")
module.promote = lambda version: print("Version ±", version)
sys.modules["mnist_cnn.promote"] = module
sys.argv = ["mnist_cnn", "promote", "--version", "1"]
runpy.run_module("mnist_cnn", run_name="__main__", alter_sys=True)
"""


def test_a_terminal_without_a_character_gets_another():
    program = [sys.executable, "-c", TELLS]
    told = subprocess.check_output(program, env=environment(PYTHONIOENCODING="ascii"))
    assert told == b"Version ? 1\n"


@pytest.mark.parametrize("no_output", [False, True])
def test_a_closed_pipe_is_silent_and_no_output_at_all_is_no_error(no_output):
    close = (lambda: os.close(1)) if no_output else None
    with subprocess.Popen(
        [sys.executable, "-c", TELLS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=close,
    ) as program:
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == (0 if no_output else 1)


def called(monkeypatch, *arguments):
    """What the verb `train` is called with."""
    values = {}
    module = ModuleType("mnist_cnn.train")
    module.train = lambda **given: values.update(given)
    monkeypatch.setitem(sys.modules, "mnist_cnn.train", module)
    assert cli.run(["train", *arguments]) == 0
    return values


def test_values_as_typed_become_hyperparameters(monkeypatch):
    typed = ["--recipe", "classic", "--filters", "8,16,16", "--learning_rate=1e-2", "--seed", "7"]
    values = called(monkeypatch, *typed)
    assert values["recipe"].filters == (8, 16, 16)
    assert values["recipe"].learning_rate == 0.01
    assert values["recipe"].epochs == 10
    assert values["seed"] == 7


def test_a_dash_is_an_underscore_and_the_last_of_a_name_counts(monkeypatch):
    values = called(monkeypatch, "--seed=3", "--batch-size", "64", "--seed", "4")
    assert values["recipe"].batch_size == 64
    assert values["seed"] == 4


def test_readme_table_is_the_code():
    """The README has all verbs and hyperparameters; its parameters exist, with that default."""
    rows = {}
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            verb, parameters = (cell.strip() for cell in line.split("|")[1:3])
            rows[verb.strip("`")] = parameters
    assert set(rows) == set(cli.VERBS)
    for verb, command in cli.VERBS.items():
        known = [
            f"`{parameter.name}`" + (f" ({parameter.default})" if parameter.default else "")
            for parameter in command.params
            if not parameter.hidden
        ]
        named = [] if rows[verb] == "none" else re.split(", (?=`)", rows[verb])
        assert named == [text for text in known if text in named], verb
    text = (ROOT / "README.md").read_text()
    told = text[text.index("- Hyperparameters:") : text.index("Their defaults belong")]
    assert re.findall("`(.*?)`", told) == list(HYPERPARAMETERS)
