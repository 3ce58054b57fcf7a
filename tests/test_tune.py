"""The sweep: tracked, seeded, blind to the test images, and alive after a kill."""

import os
import signal
import time

import mlflow
import numpy as np
import optuna
import pytest

from mnist_cnn import cli, registry
from tests.conftest import start
from tests.test_tracked import artifacts, last_run

SMALL = ["--epochs", "2", "--filters_choices", "2,4", "--seed", "3"]


def trials(study, folder):
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/tune.db").trials


def finished(study, folder):
    try:
        states = [trial.state.name for trial in trials(study, folder)]
    except Exception:  # the database is not there yet
        return 0
    return sum(state in ("COMPLETE", "PRUNED") for state in states)


@pytest.fixture(scope="module")
def swept(store, small):
    command = ["tune", "--study", "one", "--dataset", str(small), *SMALL]
    assert cli.run([*command, "--trials", "3"]) == 0
    return command


def test_sweep_is_tracked_and_its_best_registered(swept, store):
    parent = last_run("tune")
    assert {"trials.csv", "best_params.json", "study.html"} <= artifacts(parent)
    page = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/study.html")
    assert "src=" not in page[:200], "nothing from elsewhere"
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    by_verb = [run.data.tags["verb"] for run in children]
    assert by_verb.count("trial") == 3
    assert {"train", "evaluate"} <= set(by_verb)
    candidate = registry.find("models:/mnist-cnn@candidate")
    assert candidate.tags["study"] == "one"
    assert parent.data.metrics["finished_trials"] == 3


def test_goes_on_to_the_total(swept, store, capsys):
    assert cli.run([*swept, "--trials", "4"]) == 0
    assert finished("one", store) == 4
    assert "1 of 4" not in capsys.readouterr().out


def test_another_search_of_the_same_name_is_refused(swept, store, capsys):
    assert cli.run([*swept, "--learning_rate_range", "0.1,0.2", "--trials", "9"]) == 1
    assert "study=one exists with another" in capsys.readouterr().err
    assert finished("one", store) <= 4
    assert cli.run([*swept, "--storage", "nonsense"]) == 1
    assert cli.run([*swept, "--storage", "postgresql://me:secret@127.0.0.1:1/x"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "secret" not in err
    assert "secret" not in str(last_run("tune").data)


def test_selection_never_sees_the_test_images(swept, store, small):
    """With other test images the same trials give the same values."""
    data = dict(np.load(small))
    data["x_test"] = 255 - data["x_test"]
    np.savez(store / "poisoned.npz", **data)
    command = ["tune", "--study", "two", "--dataset", "poisoned.npz", *SMALL, "--trials", "3"]
    assert cli.run(command) == 0
    ours, theirs = (
        [(trial.params, trial.values) for trial in trials(study, store)[:3]]
        for study in ("one", "two")
    )
    assert ours == theirs


def test_killed_sweep_goes_on_and_counts_nothing_twice(store, small):
    command = ["tune", "--study", "killed", "--dataset", str(small), *SMALL, "--trials", "4"]
    process = start(store, *command)
    until = time.monotonic() + 600
    while finished("killed", store) < 1 and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 1 <= finished("killed", store) < 4
    assert cli.run(command) == 0
    assert finished("killed", store) == 4
