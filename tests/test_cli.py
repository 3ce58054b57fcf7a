"""A wrong parameter is answered at once, in one sentence, and leaves nothing behind."""

import subprocess
import sys

import pytest

from mnist_cnn import cli
from mnist_cnn.parameters import WrongParameter
from mnist_cnn.recipes import RECIPES, as_parameters
from tests.conftest import ROOT

REFUSED = {
    "unknown verb": (["trian"], "train"),
    "unknown parameter": (["train", "--learnin_rate", "0.1"], "learning_rate"),
    "unknown parameter of evaluate": (["evaluate", "--modle", "x"], "did you mean model?"),
    "a word": (["train", "fast"], "--name value"),
    "no value": (["train", "--seed"], "--seed has no value"),
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


def test_help_lists_each_parameter_with_default_and_range():
    for verb, (_, parameters) in cli.VERBS.items():
        text = cli.usage(verb)
        for name, parameter in parameters.items():
            (line,) = [line for line in text.splitlines() if line.startswith(f"  --{name} ")]
            assert parameter.kind.allowed in line
            assert f"default {parameter.default}" in line or not parameter.default
    text = cli.usage("train")
    for recipe in RECIPES.values():
        for name, parameter in as_parameters(recipe).items():
            assert f"--{name}" in text
            assert f"default {parameter.default}" in text or not parameter.default


def test_values_as_typed_become_hyperparameters():
    values = cli.read(
        "train", {"recipe": "classic", "filters": "8,16,16", "learning_rate": "1e-2", "seed": "7"}
    )
    assert values["recipe"].filters == (8, 16, 16)
    assert values["recipe"].learning_rate == 0.01
    assert values["recipe"].epochs == 10
    assert values["seed"] == 7


def test_readme_table_is_the_code():
    """The README lists every verb with every parameter and its default, and no other."""
    rows = {}
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            verb, parameters = (cell.strip() for cell in line.split("|")[1:3])
            rows[verb.strip("`")] = parameters
    for verb, (_, parameters) in cli.VERBS.items():
        expected = [
            f"`{name}`" + (f" ({parameter.default})" if parameter.default else "")
            for name, parameter in parameters.items()
        ]
        assert rows.pop(verb) == (", ".join(expected) or "none"), verb
    assert not rows


def test_name_equals_value_is_understood():
    assert cli.pairs(["--seed=3", "--batch-size", "64"]) == {"seed": "3", "batch_size": "64"}
    with pytest.raises(WrongParameter):
        cli.pairs(["--seed", "--epochs"])
