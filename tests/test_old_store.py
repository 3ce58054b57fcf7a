"""What users have from before goes on working: tests/old_store.zip of scripts/make_old_store.py."""

import zipfile

import mlflow
import optuna
import pytest

from mnist_cnn import cli, tune
from mnist_cnn.tracking import registry
from scripts.make_old_store import FOLDER, replace_everywhere
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def old(store, small):
    """The store of an earlier commit, unpacked where this module's store is."""
    with zipfile.ZipFile(ROOT / "tests" / "old_store.zip") as packed:
        packed.extractall(store)
    replace_everywhere(store, f"{FOLDER}/small.npz", str(small))
    replace_everywhere(store, FOLDER, str(store))
    return store


def versions():
    found = mlflow.MlflowClient().search_model_versions(f"name='{registry.NAME}'")
    return sorted(int(version.version) for version in found)


def test_its_versions_load_and_its_champion_is_evaluated_again(old):
    assert versions() == [1, 2]
    champion = registry.champion()
    assert registry.load(champion).input_shape == (None, 28, 28, 1)
    assert cli.run(["evaluate", "--model", f"models:/{registry.NAME}/1"]) == 0


def test_a_new_version_follows_its_numbers_and_promote_goes_back(old, small):
    arguments = ["--dataset", str(small), "--epochs", "1", "--batch_size", "32"]
    assert cli.run(["train", *arguments]) == 0
    assert versions()[-1] == versions()[-2] + 1
    assert cli.run(["promote", "--version", "1"]) == 0
    assert registry.champion().version == "1"


def test_its_study_goes_on(old, small, monkeypatch, capsys):
    monkeypatch.setattr(tune, "_train_the_best", lambda *_: None)
    command = ["tune", "--dataset", str(small), "--trials", "3", "--workers", "1"]
    command += ["--batch_size", "128", "--objective", "accuracy"]  # as they were
    assert cli.run([*command, "--epochs", "1", "--filters_choices", "2,8"]) == 1
    assert "exists with another search space" in capsys.readouterr().err
    assert cli.run([*command, "--epochs", "1", "--filters_choices", "2,4"]) == 0
    study = optuna.load_study(study_name="mnist-cnn", storage=f"sqlite:///{old}/tune.db")
    assert [trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials] == [True] * 3


def test_its_output_folder_is_replaced_by_convert(old):
    before = (old / "out" / "model.json").read_bytes()
    assert cli.run(["convert", "--model", f"models:/{registry.NAME}/1"]) == 0
    assert (old / "out" / "convert_manifest.json").is_file()
    assert (old / "out" / "model.json").read_bytes() != before
